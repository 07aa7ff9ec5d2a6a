//! `#[rejects(M)]` and `#[starts(reject)]`: the saga that sent the command is answered, if the command says with what;
//! all else waits for a person.

use super::*;
use crate::{Command, Either, Event, GiveUp, Outcome, Publishes, Reply, publish, saga, states};
use serde::{Deserialize, Serialize};

#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop", outcome = Loan, gives_up = NotLent)]
struct Lend {
    id: u64,
}
#[derive(Outcome)]
enum Loan {
    Lent(Lent),
}
#[derive(Reply, Serialize, Deserialize)]
struct Lent {
    id: u64,
}
#[derive(Debug, PartialEq, Reply, Serialize, Deserialize)]
struct NotLent {
    id: u64,
    why: String,
}
impl GiveUp<Lend> for NotLent {
    fn give_up(command: Lend, failure: &str) -> Self {
        assert!(command.id != 13, "an unlucky number");
        Self { id: command.id, why: failure.into() }
    }
}

/// It says nothing of being given up.
#[derive(Command, Serialize, Deserialize)]
#[command(to = "shop")]
struct Prolong {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Bought {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Shelved {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Damaged {
    id: u64,
}

#[derive(Event, Serialize, Deserialize)]
struct BroughtBack {
    id: u64,
}

#[states]
enum Book {
    #[waits]
    Shelf,
    #[waits]
    #[rejects(Lend, Prolong, Damaged)]
    Away,
}

#[saga(name = "book", id = id: u64)]
impl Book {
    #[starts(reject)]
    fn bought(_: Bought) -> Shelf {
        Shelf
    }
    fn lent(_: Shelf, it: Lend) -> (Away, Publishes<Shelved>) {
        (Away, publish(Shelved { id: it.id }))
    }
    fn back(_: Away, _: BroughtBack) -> Shelf {
        Shelf
    }
    fn prolonged(shelf: Shelf, _: Prolong) -> Either<Shelf, Away> {
        Either::A(shelf)
    }
    fn damaged(shelf: Shelf, _: Damaged) -> Shelf {
        shelf
    }
}

/// A command of the saga that waits for the outcome.
fn asked<M: Message>(id: &str, command: &M) -> Envelope {
    let saga = Some(SagaRef { saga: "reader".into(), id: "7".into(), entered: Some(2), timer: None });
    Envelope { reply_to: Some("asker".into()), saga, ..message(id, command) }
}

/// A book that somebody has already.
async fn away(id: u64) -> Rig {
    let rig = Rig::start(|builder| builder.saga::<Book>()).await;
    rig.broker.deliver_all([message("bought", &Bought { id }), message("first", &Lend { id })]);
    rig.all_acked().await;
    rig
}

#[tokio::test(start_paused = true)]
async fn s_045_a_saga_whose_command_is_rejected_gets_what_the_command_gives_up_with() {
    let rig = away(1).await;
    rig.broker.deliver(asked("second", &Lend { id: 1 }));
    rig.until("the asker is answered", |rig| rig.broker.sent_of("NotLent").len() == 1).await;
    rig.all_acked().await;
    let sent = &rig.broker.sent_of("NotLent")[0];
    assert_eq!((sent.destination.name(), &sent.envelope.saga), ("asker", &asked("second", &Lend { id: 1 }).saga));
    assert_eq!(sent.envelope.causation_id.as_deref(), Some("second"));
    let answer: NotLent = serde_json::from_slice(&sent.envelope.body).unwrap();
    assert_eq!(answer, NotLent { id: 1, why: "state `Away` rejects shop.Lend".into() });
    let row = rig.inbox("second");
    let (result, from, note) = (row.result, row.from_state.as_deref(), row.note.as_deref());
    assert_eq!(
        (result, from, note),
        (InboxResult::Discarded, Some("Away"), Some("state `Away` rejects shop.Lend")),
        "the journal says why"
    );
    let effects = row.effects.expect("the journal names the answer");
    assert_eq!((effects[0].type_name.as_ref(), effects[0].to.as_deref()), ("NotLent", Some("asker")));
    assert_eq!(rig.held(), vec![], "no person is needed");
    rig.broker.redeliver(asked("second", &Lend { id: 1 }), 1);
    rig.all_acked().await;
    assert_eq!(rig.broker.sent_of("NotLent").len(), 1, "a duplicate is none");
}

#[tokio::test(start_paused = true)]
async fn s_045_where_no_saga_waits_or_nothing_is_said_it_is_held_for_a_person() {
    let rig = away(1).await;
    let request = Envelope { reply_to: Some("web-1-a#requests".into()), ..message("request", &Lend { id: 1 }) };
    rig.broker.deliver_all([
        message("alone", &Lend { id: 1 }),
        request,
        asked("silent", &Prolong { id: 1 }),
        message("event", &Damaged { id: 1 }),
    ]);
    rig.all_acked().await;
    let mut held = rig.held();
    held.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let rejected = |id: &str| (id.to_owned(), HeldReason::Rejected);
    assert_eq!(held, ["alone", "event", "request", "silent"].map(rejected));
    assert_eq!(rig.broker.sent_of("NotLent").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn s_045_when_the_answer_to_a_rejected_command_cannot_be_made_it_is_held() {
    let rig = away(13).await;
    rig.broker.deliver(asked("second", &Lend { id: 13 }));
    rig.all_acked().await;
    assert_eq!(rig.held(), [("second".into(), HeldReason::Rejected)]);
    let error = rig.the_held().error.unwrap_or_default();
    assert!(error.starts_with("state `Away` rejects shop.Lend, and its answer cannot be made: "), "{error}");
    assert!(error.contains("an unlucky number"), "{error}");
}

/// Begun by a command that says what a second one gets.
#[states]
enum Desk {
    #[waits]
    Open,
    #[done]
    Closed,
}

#[saga(name = "desk", id = id: u64)]
impl Desk {
    #[starts(reject)]
    fn lend(_: Lend) -> (Open, crate::Replies<Lent>) {
        (Open, crate::reply(Lent { id: 1 }))
    }
    fn shelved(_: Open, _: Shelved) -> Closed {
        Closed
    }
}

#[tokio::test(start_paused = true)]
async fn s_045_a_repeated_start_is_rejected_in_each_state_and_its_sender_answered_where_a_saga_asked() {
    let rig = Rig::start(|builder| builder.saga::<Desk>()).await;
    rig.broker.deliver_all([
        message("first", &Lend { id: 1 }),
        asked("second", &Lend { id: 1 }),
        message("third", &Lend { id: 1 }),
        message("shelved", &Shelved { id: 1 }),
        asked("fourth", &Lend { id: 1 }),
    ]);
    rig.all_acked().await;
    rig.until("both askers are answered", |rig| rig.broker.sent_of("NotLent").len() == 2).await;
    let notes = ["second", "fourth"].map(|id| rig.inbox(id).note.unwrap_or_default());
    assert_eq!(notes, ["state `Open` rejects shop.Lend", "state `Closed` rejects shop.Lend"]);
    assert_eq!(rig.held(), [("third".into(), HeldReason::Rejected)]);
    assert_eq!(rig.result("shelved"), InboxResult::Handled, "a rejected message pauses nobody");
}
