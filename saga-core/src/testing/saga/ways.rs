//! Where an instance has been belongs to where it is: what comes early in one way comes late in another.

use super::*;
use crate::*;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Placed {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Confirmed {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct AddressChanged {
    id: u64,
    to: String,
}

#[states]
enum Parcel {
    Draft,
    Confirming,
    Open { address: String },
}

#[saga(name = "parcel", id = id: u64)]
impl Parcel {
    fn placed(_: Placed) -> Draft {
        Draft
    }
    fn seen(_: Draft, _: Confirmed) -> Confirming {
        Confirming
    }
    fn confirmed(_: Confirming, _: Confirmed) -> Open {
        Open { address: "unknown".into() }
    }
    fn moved(_: Open, changed: AddressChanged) -> Open {
        Open { address: changed.to }
    }
}

#[test]
fn early_messages_go_on_in_the_order_in_which_they_came() {
    let to = |to: &str| AddressChanged { id: 7, to: to.into() };
    let parcel = Harness::<Parcel>::begin(Placed { id: 7 }).give(to("first")).give(to("second"));
    let parcel = parcel.give(Confirmed { id: 7 }).give(to("third")).expect_held(HeldReason::Early, 3);
    let (open, ()) = parcel.give(Confirmed { id: 7 }).stored();
    assert!(matches!(&open, Parcel::Open(Open { address }) if address == "third"), "the last one wins");
}

#[derive(Message, Serialize, Deserialize)]
struct First {}
#[derive(Message, Serialize, Deserialize)]
struct Second {}
#[derive(Message, Serialize, Deserialize)]
struct Third {}
#[derive(Event, Serialize, Deserialize)]
struct Ended {
    id: u64,
}

#[states]
enum Round {
    One,
    Two,
    Three,
    #[done]
    Over,
}

#[saga(name = "round", id = id: u64)]
impl Round {
    fn placed(_: Placed) -> (One, After<First>) {
        (One, after(minutes(1), First {}))
    }
    fn first(_: One, _: First) -> (Two, After<Second>) {
        (Two, after(minutes(1), Second {}))
    }
    fn second(_: Two, _: Second) -> (Three, After<Third>) {
        (Three, after(minutes(1), Third {}))
    }
    fn third(_: Three, _: Third) -> (Two, After<Second>) {
        (Two, after(minutes(1), Second {}))
    }
    fn ended(_: Three, _: Ended) -> Over {
        Over
    }
}

/// In `Two` the end is early at first and held for `Three`; on the way back it is late, and there is no other.
#[test]
fn a_state_that_is_come_back_to_is_another_situation() {
    let explored = Explore::<Round>::from(Placed { id: 7 }).event(Ended { id: 7 }).run();
    let breaches: Vec<_> = explored.breaches().iter().map(|breach| breach.what.as_str()).collect();
    assert_eq!(breaches, ["no done state can be reached from here"]);
}

#[test]
fn a_walk_that_is_cut_short_is_not_complete() {
    for most in 1..4 {
        let explored = Explore::<Round>::from(Placed { id: 7 }).situations_max(most).run();
        assert!(!explored.complete, "{most} situations are not all");
    }
}
