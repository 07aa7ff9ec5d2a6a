//! What `Explore` finds, and what `Harness` plays.

use super::*;
use crate::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Event, Serialize, Deserialize)]
struct Placed {
    id: u64,
    /// Which fault the order shows.
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fault {
    None,
    NeverDone,
    HeldForEver,
    SentTwice,
    Panic,
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "bank", outcome = Payment)]
struct Pay {
    id: u64,
}
#[derive(Outcome)]
enum Payment {
    Paid(Paid),
    Declined(Declined),
}
#[derive(Reply, Serialize, Deserialize)]
struct Paid {
    id: u64,
}
#[derive(Reply, Serialize, Deserialize)]
struct Declined {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Note {
    id: u64,
}
#[derive(Message, Serialize, Deserialize)]
struct Overdue {}

#[states(data = Placed)]
enum Order {
    Waiting,
    Again,
    #[waits]
    Limbo,
    #[done]
    Done,
    #[done]
    #[defers(Note)]
    DoneDeferring,
    #[done]
    Cancelled,
}

#[derive(Then)]
enum AfterPayment {
    Done(Done),
    Deferring(DoneDeferring),
}

#[derive(Then)]
enum AfterDecline {
    Over(Cancelled),
    Limbo(Limbo),
    Again((Again, Sends<Pay>, After<Overdue>)),
}

#[saga(name = "order", id = id: u64)]
impl Order {
    fn placed(placed: Placed) -> (Placed, Waiting, Sends<Pay>, After<Overdue>) {
        let pay = send(Pay { id: placed.id });
        (placed, Waiting, pay, after(minutes(10), Overdue {}))
    }
    fn paid(_: Waiting, _: Paid, placed: &Placed) -> AfterPayment {
        match placed.fault {
            Fault::HeldForEver => AfterPayment::Deferring(DoneDeferring),
            Fault::Panic => panic!("as planted"),
            _ => AfterPayment::Done(Done),
        }
    }
    fn declined(_: Waiting, _: Declined, placed: &Placed) -> AfterDecline {
        match placed.fault {
            Fault::NeverDone => AfterDecline::Limbo(Limbo),
            Fault::SentTwice => {
                AfterDecline::Again((Again, send(Pay { id: placed.id }), after(minutes(1), Overdue {})))
            }
            _ => AfterDecline::Over(Cancelled),
        }
    }
    fn overdue(_: Waiting, _: Overdue) -> Cancelled {
        Cancelled
    }
    fn paid_again(_: Again, _: Paid) -> Done {
        Done
    }
    fn declined_again(_: Again, _: Declined) -> Cancelled {
        Cancelled
    }
    fn overdue_again(_: Again, _: Overdue) -> Cancelled {
        Cancelled
    }
    fn noted(_: Limbo, _: Note) -> Limbo {
        Limbo
    }
}

fn explore(fault: Fault) -> Explored {
    Explore::<Order>::from(Placed { id: 7, fault })
        .answers(|pay: Pay| vec![Paid { id: pay.id }.into(), Declined { id: pay.id }.into()])
        .event(Note { id: 7 })
        .at_most_once::<Pay>()
        .run()
}

#[test]
fn s_080_each_planted_fault_is_found_with_the_shortest_way_to_it() {
    explore(Fault::None).expect_no_breach();
    for (fault, what, path) in [
        (
            Fault::NeverDone,
            "no done state can be reached from here",
            vec!["Placed: (start) -> Waiting", "Declined: Waiting -> Limbo"],
        ),
        (
            Fault::SentTwice,
            "`bank.Pay` is sent at most once",
            vec!["Placed: (start) -> Waiting", "Declined: Waiting -> Again"],
        ),
        (
            Fault::HeldForEver,
            "`Note` is held in DoneDeferring, and nobody can free it",
            vec![
                "Placed: (start) -> Waiting",
                "Paid: Waiting -> DoneDeferring",
                "Note: held as deferred: state `DoneDeferring` defers it",
            ],
        ),
    ] {
        let explored = explore(fault);
        let breach = explored.breaches().first().unwrap_or_else(|| panic!("{fault:?} was not found"));
        assert_eq!((breach.what.as_str(), &breach.path), (what, &path.into_iter().map(String::from).collect()));
    }
    let never = Explore::<Order>::from(Placed { id: 7, fault: Fault::None })
        .answers(|pay: Pay| vec![Declined { id: pay.id }.into()])
        .never("an order is cancelled", |state, _| state == "Cancelled")
        .always("an order waits at most once", |state, sent| state == "Waiting" || sent.len() > 1)
        .run();
    let breaches: Vec<_> = never.breaches().iter().map(|breach| (breach.what.as_str(), breach.path.len())).collect();
    assert_eq!(breaches, [("never: an order is cancelled", 2), ("an order waits at most once", 2)]);
    let explored = explore(Fault::Panic);
    let panics = explored.breaches().iter().find(|breach| breach.what.contains("as planted"));
    assert!(panics.is_some_and(|breach| breach.what.starts_with("`Paid` fails in Waiting")), "{explored:?}");
}

#[derive(Event, Serialize, Deserialize)]
struct Deposited {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Receipt {
    id: u64,
}

/// Books what is deposited; the careful one remembers that it has.
macro_rules! account {
    ($module:ident, $careful:literal) => {
        mod $module {
            use super::*;

            const CAREFUL: bool = $careful;

            #[states]
            pub(super) enum Account {
                #[waits]
                Open { receipts: u32 },
                #[done]
                Closed,
            }

            #[saga(name = "account", id = id: u64)]
            impl Account {
                fn opened(_: Placed) -> Open {
                    Open { receipts: 0 }
                }
                fn deposited(it: Open, deposited: Deposited) -> (Open, Option<Publishes<Receipt>>) {
                    let first = it.receipts == 0 || !CAREFUL;
                    let receipt = first.then(|| publish(Receipt { id: deposited.id }));
                    (Open { receipts: 1 }, receipt)
                }
                fn closed(_: Open, _: Regretted) -> Closed {
                    Closed
                }
            }
        }
    };
}
account!(careless, false);
account!(careful, true);

fn account<S: Saga>() -> Explore<S> {
    let explore = Explore::<S>::from(Placed { id: 7, fault: Fault::None });
    explore.event(Deposited { id: 7 }).event(Regretted { id: 7 }).at_most_once::<Receipt>()
}

#[test]
fn s_080_what_a_message_that_is_said_twice_does_is_found() {
    account::<careless::Account>().run().expect_no_breach(); // each comes once
    let twice = account::<careless::Account>().duplicates().run();
    let breaches: Vec<_> = twice.breaches().iter().map(|breach| (breach.what.as_str(), &*breach.path)).collect();
    let path = ["Placed: (start) -> Open", "Deposited: Open -> Open", "Deposited: Open -> Open"].map(String::from);
    assert_eq!(breaches, [("`Receipt` is sent at most once", &path[..])]);
    account::<careful::Account>().duplicates().run().expect_no_breach();
}

#[test]
fn answers_and_the_beginning_may_come_once_more_and_are_counted_once() {
    let order = |explore: Explore<Order>| {
        let explore = explore
            .answers(|pay: Pay| vec![Paid { id: pay.id }.into(), Declined { id: pay.id }.into()])
            .at_most_once::<Pay>()
            .in_the_end("there is one answer or none", |end| end.came::<Paid>() + end.came::<Declined>() <= 1);
        explore.run()
    };
    let begin = || Explore::<Order>::from(Placed { id: 7, fault: Fault::None });
    let (once, twice) = (order(begin()), order(begin().duplicates()));
    once.expect_no_breach();
    twice.expect_no_breach();
    assert!(once.situations() < twice.situations(), "{once:?} {twice:?}");
    assert_eq!(once.states_reached(), twice.states_reached());
}

#[test]
fn a_breach_is_told_as_a_list_and_as_a_sequence_diagram() {
    let explored = explore(Fault::SentTwice);
    let text = "`bank.Pay` is sent at most once
  1. Placed: (start) -> Waiting
  2. Declined: Waiting -> Again
```mermaid
sequenceDiagram
    participant order
    participant bank
    participant others
    others->>order: Placed
    Note over order: Waiting
    order->>bank: Pay
    Note over order: sets Overdue
    others->>order: Declined
    Note over order: Again
    order->>bank: Pay
    Note over order: sets Overdue
```";
    assert_eq!(explored.breaches()[0].to_string(), text);
    let panic = std::panic::catch_unwind(|| explored.expect_no_breach()).expect_err("a breach fails the test");
    let said = panic.downcast_ref::<String>().expect("it says why");
    assert!(said.starts_with("1 breach in "), "{said}");
}

#[test]
fn a_walk_that_was_cut_off_says_so() {
    let explored =
        Explore::<Order>::from(Placed { id: 7, fault: Fault::None }).event(Note { id: 7 }).situations_max(1).run();
    assert!(!explored.is_complete(), "{explored:?}");
}

#[test]
fn f9_time_passes_when_it_is_told_to_and_timers_come_in_order() {
    let order = Harness::<Order>::begin(Placed { id: 7, fault: Fault::SentTwice });
    let order = order.advance(Duration::from_secs(599)).expect_state("Waiting").expect_timers(1);
    let again = order.clone().give(Declined { id: 7 }).expect_state("Again").expect_sent::<Pay>(2);
    again.advance(minutes(1)).expect_state("Cancelled").expect_timers(0).expect_nothing_held();
    order.advance(Duration::from_secs(1)).expect_state("Cancelled").expect_sent::<Pay>(1);
}

#[test]
fn what_comes_before_the_beginning_waits() {
    let order = Harness::<Order>::before_it_begins(&7).give(Note { id: 7 }).expect_held(HeldReason::Early, 1);
    assert_eq!(order.state(), None);
    order.give(Placed { id: 7, fault: Fault::None }).expect_state("Waiting").expect_held(HeldReason::Early, 1);
}

#[test]
#[should_panic(expected = "another state was expected; what happened:\n  Placed: (start) -> Waiting")]
fn an_expectation_that_fails_tells_the_story() {
    Harness::<Order>::begin(Placed { id: 7, fault: Fault::None }).expect_state("Done");
}

#[derive(Event, Serialize, Deserialize)]
struct Registered {
    id: u64,
    reference: String,
}
#[derive(Event, Serialize, Deserialize)]
struct Settled {
    reference: String,
}
#[derive(Default, Serialize, Deserialize)]
struct CardPayment {
    reference: Option<String>,
}

#[states(data = CardPayment)]
enum Card {
    Open { settled: u32 },
}

#[saga(name = "card", id = id: u64, alias(reference = Settled.reference))]
impl Card {
    fn placed(_: Placed) -> (CardPayment, Open) {
        (CardPayment::default(), Open { settled: 0 })
    }
    fn registered(open: Open, registered: Registered, payment: &mut CardPayment) -> Open {
        payment.reference = Some(registered.reference);
        open
    }
    fn settled(open: Open, _: Settled) -> Open {
        Open { settled: open.settled + 1 }
    }
}

#[derive(Event, Serialize, Deserialize)]
struct Regretted {
    id: u64,
}

#[states]
enum Cart {
    #[waits]
    Paying,
    #[waits]
    Regretting,
    #[done]
    Over,
}

/// Takes the payment back. `Regretting` waits for an answer that need not come.
#[saga(name = "cart", id = id: u64)]
impl Cart {
    fn placed(placed: Placed) -> (Paying, Sends<Pay>) {
        (Paying, send(Pay { id: placed.id }))
    }
    fn paid(_: Paying, _: Paid) -> Over {
        Over
    }
    fn declined(_: Paying, _: Declined) -> Over {
        Over
    }
    fn regretted(_: Paying, _: Regretted) -> (Regretting, Cancels<Pay>) {
        (Regretting, cancel())
    }
    fn paid_too_late(_: Regretting, _: Paid) -> Over {
        Over
    }
    fn declined_too_late(_: Regretting, _: Declined) -> Over {
        Over
    }
}

#[test]
fn a_message_reaches_the_instance_once_it_has_the_alias() {
    let settled = |reference: &str| Settled { reference: reference.into() };
    let registered = |reference: &str| Registered { id: 7, reference: reference.into() };
    let card = Harness::<Card>::begin(Placed { id: 7, fault: Fault::None }).give(settled("a")).give(settled("b"));
    let card = card.expect_held(HeldReason::Early, 2).give(registered("a")).expect_held(HeldReason::Early, 1);
    assert_eq!(card.stored().0.state_name(), "Open");
    let lines =
        card.give(settled("a")).give(registered("b")).give(settled("a")).expect_held(HeldReason::Early, 1).journal();
    assert_eq!(
        lines[1..],
        [
            "Settled: held as early: card by reference `a`: the instance does not have it yet",
            "Settled: held as early: card by reference `b`: the instance does not have it yet",
            "Registered: Open -> Open",
            "Settled: Open -> Open",
            "Settled: Open -> Open",
            "Registered: Open -> Open",
            "Settled: Open -> Open",
            "Settled: held as early: card by reference `a`: the instance does not have it yet",
        ]
    );
}

#[test]
fn a_command_that_is_taken_back_may_have_been_handled_or_not() {
    let placed = || Placed { id: 7, fault: Fault::None };
    let cart = Harness::<Cart>::begin(placed()).expect_taken_back::<Pay>(0).give(Regretted { id: 7 });
    cart.expect_taken_back::<Pay>(1).give(Paid { id: 7 }).expect_state("Over");
    let cart = Harness::<Cart>::begin(placed()).give(Paid { id: 7 });
    cart.give(Regretted { id: 7 }).expect_taken_back::<Pay>(0);
    let explored = Explore::<Cart>::from(placed())
        .answers(|pay: Pay| vec![Paid { id: pay.id }.into()])
        .event(Regretted { id: 7 })
        .in_the_end("the order is over", |end| end.state == "Over")
        .run();
    let breaches: Vec<_> = explored.breaches().iter().map(|breach| (breach.what.as_str(), breach.path.len())).collect();
    assert_eq!(breaches, [("the order is over", 2), ("no done state can be reached from here", 2)]);
}

/// The journal names what went after the command; what is replayed knows neither its id nor whether it was answered.
#[test]
fn a_journal_in_which_a_command_was_taken_back_is_followed() {
    let line = |seq: i64, type_name: &str, body: String, (from, to): (Option<&str>, &str), sent: &str| {
        let id = format!("m{seq}");
        serde_json::json!({
            "message_id": id, "type": type_name, "result": "handled", "seq": seq, "from_state": from, "to_state": to,
            "effects": [{ "id": null, "type": sent, "to": "bank" }],
            "handled_at_us": 0, "handled_by": "a", "attempts": 1,
            "message": { "envelope": Envelope::new(id.clone(), type_name, ""), "body": body },
        })
    };
    let placed = serde_json::to_string(&Placed { id: 7, fault: Fault::None }).unwrap();
    let lines = [
        line(1, "Placed", placed, (None, "Paying"), "bank.Pay"),
        line(2, "Regretted", "{\"id\":7}".into(), (Some("Paying"), "Regretting"), Envelope::TAKE_BACK),
    ];
    let export =
        serde_json::json!({ "saga": "cart", "id": "7", "state": "Regretting", "version": 1, "journal": lines });
    let file = std::env::temp_dir().join(format!("sagabus-cart-{}.jsonl", std::process::id()));
    std::fs::write(&file, export.to_string()).unwrap();
    let replayed = replay::<Cart>(&file);
    std::fs::remove_file(&file).unwrap();
    replayed.expect_no_difference();
    assert_eq!(replayed.messages(), 2);
}
