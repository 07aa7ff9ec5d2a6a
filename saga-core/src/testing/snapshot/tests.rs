//! Two versions of one saga, and what is said about their difference.

use super::*;
use crate::{After, Command, Event, Message, Outcome, Reply, Saga, Sends, after, minutes, saga, send, states};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Placed {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = PayOutcome)]
struct Pay {
    id: u64,
}
#[derive(Outcome)]
#[allow(dead_code)]
enum PayOutcome {
    Paid(Paid),
}
#[derive(Reply, Serialize, Deserialize)]
#[reply(from = "bank")]
struct Paid {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Cancel {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Greeted {
    id: u64,
}
#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.Overdue")]
struct Overdue {}
#[derive(Message, Serialize, Deserialize)]
#[message(name = "shop.Forgotten")]
struct Forgotten {}

mod one {
    use super::*;

    #[states]
    pub(super) enum Order {
        #[waits]
        Waiting,
        #[waits]
        Paying,
        #[waits]
        Checking,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Order {
        fn placed(placed: Placed) -> (Paying, Sends<Pay>, After<Forgotten>) {
            (Paying, send(Pay { id: placed.id }), after(minutes(9), Forgotten {}))
        }
        fn forgotten(_: Paying, _: Forgotten) -> Waiting {
            Waiting
        }
        fn paid(_: Paying, _: Paid) -> Checking {
            Checking
        }
        fn cancel(_: Paying, _: Cancel) -> Done {
            Done
        }
        fn greeted(_: Checking, _: Greeted) -> Done {
            Done
        }
        fn late(_: Waiting, _: Paid) -> Done {
            Done
        }
    }
}

mod two {
    use super::*;

    #[states]
    pub(super) enum Order {
        #[was("Paying")]
        AwaitingPayment,
        #[waits]
        Packing,
        #[done]
        Waiting,
        #[done]
        Done,
    }

    #[saga(name = "order", id = id: u64)]
    impl Order {
        fn placed(placed: Placed) -> (AwaitingPayment, Sends<Pay>, After<Overdue>) {
            (AwaitingPayment, send(Pay { id: placed.id }), after(minutes(5), Overdue {}))
        }
        fn paid(_: AwaitingPayment, _: Paid) -> (Packing, Sends<Pay>) {
            (Packing, send(Pay { id: 7 }))
        }
        fn overdue(_: AwaitingPayment, _: Overdue) -> Waiting {
            Waiting
        }
        fn packed(_: Packing, _: Paid) -> Done {
            Done
        }
        fn cancel(_: Packing, _: Cancel) -> Done {
            Done
        }
    }
}

#[test]
fn a_difference_is_told_as_what_it_means_for_instances_in_flight() {
    let changes = two::Order::chart().changes_since(&one::Order::chart());
    let expected = [
        "state `Waiting` is done now: instances that are already in it stay open, and their timers run, until a \
         message moves them",
        "state `Paying` is now `AwaitingPayment`: its instances are read as before",
        "state `Checking` is gone: instances in it cannot be read, and are paused by their next message. If it was \
         renamed, say `#[was(\"Checking\")]` at `Packing`; if instances may still be in it, keep it with `#[legacy]`",
        "state `Packing` is new: while processes of the last program run, they cannot read it and pause its \
         instances: raise the saga's `version`, and they leave such rows to this program",
        "no function takes the timer `shop.Forgotten` any more: one that was set before waits as held (`version`), and \
         a day later for a person. Keep the function as long as old timers live",
        "no function takes `shop.Greeted` any more: one that is on its way waits as held (`version`), and a day later \
         for a person; an event is unsubscribed when the last old process has stopped",
        "`shop.Placed` sets the timer `Overdue` now: instances that are already in `AwaitingPayment` have none",
        "`shop.Placed` has the effect `after shop.Forgotten` no more; timers that are set already still come",
        "`bank.Paid` in state `AwaitingPayment` leads to `Packing` instead of `Checking`",
        "`bank.Paid` in state `AwaitingPayment` sends `bank.Pay` now: endpoint `bank` must know it before this program \
         runs",
        "no function takes `shop.Cancel` in state `AwaitingPayment` any more: it waits, as held (`early`), for a state \
         that takes it",
        "no function takes `bank.Paid` in state `Waiting` any more: what would have been taken is late now, and \
         ignored",
        "`shop.Overdue` is taken in state `AwaitingPayment` now; those that came too late before do not come again",
    ];
    let missing: Vec<&&str> = expected.iter().filter(|text| !changes.iter().any(|change| change == **text)).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}\ntold: {changes:#?}");
    assert_eq!(changes.len(), expected.len(), "{changes:#?}");
}

#[test]
fn versions_and_names_are_told_and_no_difference_is_none() {
    let old = one::Order::chart();
    assert_eq!(old.changes_since(&old), [] as [String; 0]);
    let mut new = old.clone();
    new.version = 2;
    let [text] = new.changes_since(&old).try_into().unwrap();
    assert!(text.starts_with("version 1 became 2: rows are read as version 1 wrote them"), "{text}");
    let [text] = old.changes_since(&new).try_into().unwrap();
    assert!(text.contains("this version leaves all rows of version 2 alone"), "{text}");
    new = old.clone();
    new.saga = "orders".into();
    let [text] = new.changes_since(&old).try_into().unwrap();
    assert!(text.contains("instances under the old name get no message any more"), "{text}");
    new = old.clone();
    new.states.reverse();
    let [text] = new.changes_since(&old).try_into().unwrap();
    assert!(text.starts_with("nothing that matters"), "{text}");
}

#[test]
fn a_file_is_written_when_asked_for_and_its_difference_is_explained() {
    let folder = env::temp_dir().join(format!("sagabus-snapshot-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (old, new) = (one::Order::chart(), two::Order::chart());
    for extension in ["json", "mmd", "dot", "svg"] {
        let file = folder.join("order").with_extension(extension);
        let missing = compare(&old, &file, false).unwrap_err();
        assert!(missing.contains("cannot be read") && missing.contains("SAGABUS_UPDATE=1"), "{missing}");
        compare(&old, &file, true).unwrap();
        compare(&old, &file, false).unwrap();
        let different = compare(&new, &file, false).unwrap_err();
        assert!(different.starts_with("saga `order` is not as ") && different.contains("Checking"), "{different}");
        compare(&new, &file, true).unwrap();
        compare(&new, &file, false).unwrap();
    }
    let explained = compare(&old, &folder.join("order.json"), false).unwrap_err();
    assert!(explained.contains("\n  - state `Packing` is gone"), "{explained}");
    let other = compare(&old, &folder.join("order.txt"), true).unwrap_err();
    assert!(other.contains("a chart is kept as `.json`"), "{other}");
    fs::remove_dir_all(&folder).unwrap();
}
