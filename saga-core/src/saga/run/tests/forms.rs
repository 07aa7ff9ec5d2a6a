//! Rows whose state had another form: fields that came or went, data that came or went, another name.

use super::{
    life::{Life, say},
    *,
};

#[derive(Event, Serialize, Deserialize)]
struct Seen {
    id: u64,
}

/// The states, by version: without fields, with one, with data.
macro_rules! version {
    ($version:ident: $($states:tt)*) => {
        mod $version {
            use super::*;
            $($states)*
        }
    };
}

version! { bare:
    #[states]
    pub(super) enum Visit { #[waits] Waiting }
    #[saga(name = "visit", id = id: u64)]
    impl Visit {
        fn begin(_: Seen) -> Waiting { Waiting }
        fn again(it: Waiting, _: Next) -> Waiting { it }
    }
}

version! { counting:
    #[states]
    pub(super) enum Visit { #[waits] Waiting { #[serde(default)] times: u32 } }
    #[saga(name = "visit", id = id: u64)]
    impl Visit {
        fn begin(_: Seen) -> Waiting { Waiting { times: 1 } }
        fn again(it: Waiting, _: Next) -> Waiting { Waiting { times: it.times + 1 } }
    }
}

version! { sharing:
    #[derive(Serialize, Deserialize)]
    pub(super) struct Guest { name: String }
    impl Upcast<1> for Guest {
        type Old = ();
        fn upcast(_: ()) -> Result<Self, String> { Ok(Self { name: "unknown".into() }) }
    }
    #[states(data = Guest)]
    pub(super) enum Visit { #[waits] Waiting { times: u32 } }
    #[saga(name = "visit", id = id: u64, version = 2)]
    impl Visit {
        fn begin(_: Seen) -> (Guest, Waiting) { (Guest { name: "new".into() }, Waiting { times: 1 }) }
        fn again(it: Waiting, _: Next) -> Waiting { Waiting { times: it.times + 1 } }
    }
}

version! { forgetting:
    #[states]
    pub(super) enum Visit { #[waits] Waiting { #[serde(default)] times: u32 } }
    #[saga(name = "visit", id = id: u64, version = 3)]
    impl Visit {
        fn begin(_: Seen) -> Waiting { Waiting { times: 1 } }
        fn again(it: Waiting, _: Next) -> Waiting { Waiting { times: it.times + 1 } }
    }
}

fn begun<S: Saga>() -> InstanceRow {
    let mut life = Life::<S>::new();
    life.moves(say("seen", &Seen { id: 7 }));
    life.row().clone()
}

/// What the next message makes of a row.
#[track_caller]
fn goes_on<S: Saga>(row: InstanceRow) -> String {
    let mut life = Life::<S>::new();
    life.row = Some(row);
    life.moves(say("next", &Next { id: 7 }));
    life.at().1.to_owned()
}

#[test]
fn the_first_field_of_a_state_comes_and_the_last_one_goes() {
    assert_eq!(goes_on::<counting::Visit>(begun::<bare::Visit>()), r#"{"times":1}"#);
    assert_eq!(goes_on::<bare::Visit>(begun::<counting::Visit>()), "null");
}

#[test]
fn data_comes_through_an_upcast_from_nothing() {
    let row = goes_on::<sharing::Visit>(begun::<counting::Visit>());
    assert_eq!(row, r#"{"data":{"name":"unknown"},"state":{"times":2}}"#);
}

/// `times` has a default, and would be read as that.
#[test]
fn data_that_is_lost_is_missed() {
    let mut life = Life::<forgetting::Visit>::new();
    life.row = Some(begun::<sharing::Visit>());
    let settled = life.offer(vec![say("next", &Next { id: 7 })]);
    let [Settled::Held { reason: HeldReason::Failed, error: Some(error) }] = &settled[..] else {
        panic!("it was expected to be held: {settled:?}")
    };
    assert!(error.contains("it was stored with data") && error.contains("`Upcast`"), "{error}");
}

#[test]
fn the_check_of_a_row_looks_at_its_id() {
    let logic = Typed::<counting::Visit>::new();
    let good = begun::<counting::Visit>();
    assert!(logic.check(&good).is_ok());
    for id in ["07", "seven", "7/8"] {
        let mut row = good.clone();
        row.key.id = id.into();
        assert!(logic.check(&row).is_err(), "no message names `{id}`");
    }
}

mod renamed {
    use super::*;

    #[states]
    pub(super) enum Checkout {
        #[was("Entering")]
        #[waits]
        EnteringCard,
        #[waits]
        Charging,
    }

    #[saga(name = "checkout", id = id: u64)]
    impl Checkout {
        fn begin(_: Seen) -> EnteringCard {
            EnteringCard
        }
        fn card(_: EnteringCard, _: Next) -> Charging {
            Charging
        }
        fn declined(_: Charging, _: Later) -> EnteringCard {
            EnteringCard
        }
    }
}

/// The double click, with a deployment in between.
#[test]
fn a_state_that_was_renamed_had_its_chance() {
    let mut life = Life::<renamed::Checkout>::new();
    life.moves(say("seen", &Seen { id: 7 }));
    life.moves(say("first click", &Next { id: 7 }));
    let mut row = life.row().clone();
    row.progress = row.progress.map(|json| json.replace("EnteringCard", "Entering"));
    assert!(row.progress.as_ref().is_some_and(|json| json.contains("\"Entering\"")), "{:?}", row.progress);
    life.row = Some(row);
    let second = life.offer(vec![say("second click", &Next { id: 7 })]);
    assert!(matches!(&second[..], [Settled::Ignored { .. }]), "{second:?}");
}
