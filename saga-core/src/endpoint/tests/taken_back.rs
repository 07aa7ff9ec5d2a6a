//! Commands that are taken back: the saga's side, and the side of the endpoint that handles them.

use super::*;
use crate::{
    Cancels, Command, Event, OutboxKind, Outcome, Reply, Sends, cancel, endpoint::take_back::TakeBack, saga, send,
    states,
};
use serde::{Deserialize, Serialize};

fn asker() -> SagaRef {
    SagaRef { saga: "order".into(), id: "7".into(), entered: Some(2), timer: None }
}

/// As a saga sends it.
fn asked(n: u64) -> Envelope {
    Envelope { reply_to: Some("asker".into()), saga: Some(asker()), ..command(n) }
}

/// What goes after a command.
fn back(command: &Envelope) -> Envelope {
    let body =
        TakeBack { type_name: command.type_name.clone(), id: command.message_id.clone(), hash: command.body_hash() };
    let body = serde_json::to_vec(&body).expect("it is JSON");
    let id = format!("back-{}", command.message_id);
    Envelope { saga: Some(asker()), ..Envelope::new(id, Envelope::TAKE_BACK, body) }
}

fn note(rig: &Rig, message_id: &str) -> String {
    rig.inbox(message_id).note.unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_overtaken_never_runs() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(back(&asked(1)));
    rig.all_acked().await;
    assert_eq!(rig.result("do-1"), InboxResult::Discarded);
    assert_eq!(note(&rig, "do-1"), "taken back by order/7");
    assert_eq!(note(&rig, "back-do-1"), "shop.Do do-1: taken back before it came");
    rig.broker.deliver_all([asked(1), asked(2)]);
    rig.broker.redeliver(asked(1), 1);
    rig.broker.redeliver(back(&asked(1)), 1);
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.done(), rig.held()), (0, vec![2], vec![]));
    // another message under its id is none of it
    rig.broker.deliver(Envelope { body: "{ \"n\": 1 }".into(), ..asked(1) });
    rig.all_acked().await;
    assert_eq!(rig.the_held().reason, HeldReason::Rejected);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_came_in_the_same_batch_does_not_run() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all([asked(1), asked(2), back(&asked(1)), back(&asked(1))]);
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.done()), (0, vec![2]));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_two_want_back_in_one_batch_is_settled_once() {
    let rig = Rig::scripted(&Script::new()).await;
    rig.broker.deliver_all([back(&asked(1)), Envelope { message_id: "again".into(), ..back(&asked(1)) }]);
    rig.all_acked().await;
    assert_eq!(rig.result("do-1"), InboxResult::Discarded);
    assert_eq!(note(&rig, "back-do-1"), "shop.Do do-1: taken back before it came");
    assert_eq!(note(&rig, "again"), "shop.Do do-1: it is being settled");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_behind_failures_is_taken_back_at_once() {
    let script = Script::new();
    script.always(Act::Fail);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver_all((1..=15).map(asked));
    rig.until("messages fail", |_| script.runs().len() >= 10).await;
    rig.broker.deliver(back(&asked(15)));
    rig.until_within(Duration::from_millis(50), "it is taken back", |rig| {
        rig.store.inbox().iter().any(|row| row.message_id == "do-15")
    })
    .await;
    rig.all_acked().await;
    assert_eq!((script.runs_of(15), rig.result("do-15")), (0, InboxResult::Discarded));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_its_call_is_taken_back_at_once() {
    let script = Script::new();
    let rig = Rig::start(|builder| {
        let builder = builder.limit("bank", crate::Limit::none().per_second(1));
        builder.handle_with::<Do>(script.clone(), |options| options.limit("bank"))
    })
    .await;
    rig.broker.deliver_all([asked(1), asked(2)]);
    rig.until("the first runs", |_| script.runs_of(1) == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.broker.deliver(back(&asked(2)));
    rig.all_acked().await;
    assert_eq!((script.runs_of(2), rig.done(), rig.result("do-2")), (0, vec![1], InboxResult::Discarded));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_a_retry_is_settled_and_the_retry_is_a_duplicate() {
    let script = Script::new();
    script.always(Act::Fail);
    let retries = Retries::none().delayed([secs(600); 3]);
    let rig = Rig::start(|builder| builder.retries(retries).handle::<Do>(script.clone())).await;
    rig.broker.deliver(asked(1));
    rig.all_acked().await;
    assert_eq!((rig.result("do-1"), rig.the_outbox().kind), (InboxResult::Retrying, OutboxKind::Retry));
    rig.broker.deliver(back(&asked(1)));
    rig.all_acked().await;
    assert_eq!((rig.result("do-1"), rig.inbox("do-1").attempts), (InboxResult::Discarded, 1));
    assert_eq!(note(&rig, "back-do-1"), "shop.Do do-1: taken back while it waited");
    let retry = rig.the_outbox().envelope;
    rig.until_within(secs(700), "the retry leaves", |rig| rig.store.outbox().is_empty()).await;
    rig.broker.deliver((*retry).clone());
    rig.broker.redeliver(asked(1), 1);
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.held()), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_held_is_settled_and_its_held_row_goes() {
    let script = Script::new();
    script.plan(1, [Act::Refuse]);
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(asked(1));
    rig.all_acked().await;
    assert_eq!(rig.held(), [("do-1".into(), HeldReason::Failed)]);
    rig.broker.deliver(back(&asked(1)));
    rig.all_acked().await;
    assert_eq!((rig.held(), rig.result("do-1")), (vec![], InboxResult::Discarded));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_handled_stays_handled() {
    let script = Script::new();
    let rig = Rig::scripted(&script).await;
    rig.broker.deliver(asked(1));
    rig.all_acked().await;
    let before = rig.inbox("do-1");
    rig.broker.deliver(back(&asked(1)));
    rig.all_acked().await;
    assert_eq!((rig.inbox("do-1"), note(&rig, "back-do-1")), (before, "shop.Do do-1: too late: it is settled".into()));
    rig.until("the answer is sent", |rig| rig.broker.sent_of("shop.Did").len() == 1).await;
}

/// The handler of one process runs while another process takes the command back: what commits first counts.
#[tokio::test(start_paused = true)]
async fn a_run_that_ends_after_its_command_was_taken_back_commits_nothing() {
    let script = Script::new();
    script.plan(1, [Act::Hang(secs(5))]);
    let rig = Rig::scripted(&script).await;
    let build = |builder: Builder| builder.handle::<Do>(Script::new());
    let other = Rig::start_on(rig.store.clone(), Broker::new(), build).await.unwrap();
    rig.broker.deliver(asked(1));
    rig.until("the handler runs", |_| script.runs_of(1) == 1).await;
    other.broker.deliver(back(&asked(1)));
    other.all_acked().await;
    assert_eq!(rig.result("do-1"), InboxResult::Discarded);
    rig.all_acked().await;
    assert_eq!((script.runs_of(1), rig.done(), rig.result("do-1")), (1, vec![], InboxResult::Discarded));
    tokio::time::sleep(secs(60)).await;
    assert_eq!(rig.broker.sent_of("shop.Did").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_is_settled_again_when_the_commit_is_lost() {
    for committed in [false, true] {
        let script = Script::new();
        let rig = Rig::scripted(&script).await;
        rig.store.lose_next_commit(committed);
        rig.broker.deliver(back(&asked(1)));
        rig.all_acked().await;
        rig.broker.deliver(asked(1));
        rig.all_acked().await;
        assert_eq!((script.runs_of(1), rig.held()), (0, vec![]), "committed: {committed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_is_journaled_or_held() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().handle::<Do>(Script::new())).await;
    // given up: for a day no process came that knows the command
    let unknown = Envelope { attempt: 300, ..back(&Envelope::new("new", "shop.New", "{}")) };
    let broken = Envelope { body: "{}".into(), message_id: "broken".into(), ..back(&asked(1)) };
    rig.broker.deliver_all([unknown, broken]);
    rig.all_acked().await;
    assert_eq!(note(&rig, "back-new"), "shop.New new: no receiver here handles it");
    assert_eq!(rig.held(), [("broken".into(), HeldReason::Undecodable)]);
    // what a saga has taken in is its own
    rig.broker.deliver_all([begin(1), Envelope { message_id: "boom".into(), ..message("", &Boom { id: 1 }) }]);
    rig.all_acked().await;
    assert_eq!(rig.result("boom"), InboxResult::Held);
    rig.broker.deliver(back(&Envelope { message_id: "boom".into(), ..message("", &Boom { id: 1 }) }));
    rig.all_acked().await;
    assert_eq!((rig.result("boom"), rig.held().len()), (InboxResult::Held, 2));
    assert!(note(&rig, "back-boom").contains("a saga has taken it in"), "{}", note(&rig, "back-boom"));
    rig.broker.deliver(back(&begin(2)));
    rig.all_acked().await;
    rig.broker.deliver(begin(2));
    rig.all_acked().await;
    assert_eq!(rig.store.instances().len(), 1, "what has not come yet is taken back");
}

#[derive(Event, Serialize, Deserialize)]
struct Ordered {
    id: u64,
}
#[derive(Event, Serialize, Deserialize)]
struct Regretted {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "printer", outcome = Printed)]
struct Print {
    id: u64,
}
#[derive(Outcome)]
enum Printed {
    Done(BookPrinted),
}
#[derive(Reply, Serialize, Deserialize)]
struct BookPrinted {}

#[states]
enum Book {
    #[waits]
    Printing { id: u64 },
    #[done]
    Regretting,
}

#[saga(name = "book", id = id: u64, by(BookPrinted = echo))]
impl Book {
    fn ordered(ordered: Ordered) -> (Printing, Sends<Print>) {
        (Printing { id: ordered.id }, send(Print { id: ordered.id }))
    }
    fn printed(state: Printing, _: BookPrinted) -> Printing {
        state
    }
    fn regretted(_: Printing, _: Regretted) -> (Regretting, Cancels<Print>) {
        (Regretting, cancel())
    }
    fn too_late(_: Regretting, _: BookPrinted) -> Regretting {
        Regretting
    }
}

fn ordered() -> Envelope {
    message("ordered", &Ordered { id: 1 })
}

fn regretted() -> Envelope {
    message("regretted", &Regretted { id: 1 })
}

async fn book() -> Rig {
    Rig::start(|builder| builder.saga::<Book>()).await
}

/// What went after commands: as the receiver reads it.
fn went_after(rig: &Rig) -> Vec<TakeBack> {
    let sent = rig.broker.sent_of(Envelope::TAKE_BACK);
    sent.iter().map(|sent| serde_json::from_slice(&sent.envelope.body).expect("it can be read")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_command_that_has_left_gets_a_message_after_it() {
    let rig = book().await;
    rig.broker.deliver(ordered());
    rig.all_acked().await;
    rig.until("the command arrives", |rig| rig.store.outbox().is_empty()).await;
    rig.broker.deliver(regretted());
    rig.all_acked().await;
    rig.until("it is sent", |rig| !went_after(rig).is_empty()).await;
    let (command, after) =
        (rig.broker.sent_of("printer.Print").remove(0), rig.broker.sent_of(Envelope::TAKE_BACK).remove(0));
    let asked_for = TakeBack {
        type_name: "printer.Print".into(),
        id: command.envelope.message_id.clone(),
        hash: command.envelope.body_hash(),
    };
    assert_eq!(went_after(&rig), [asked_for]);
    assert_eq!((after.destination, after.envelope.receiver.clone()), (command.destination, None));
    let sender = |envelope: &Envelope| envelope.saga.clone().map(|saga| (saga.saga, saga.id));
    assert_eq!(sender(&after.envelope), sender(&command.envelope), "they are of one order");
    let effects = rig.inbox("regretted").effects.expect("it made a transition");
    assert_eq!((effects[0].type_name.as_ref(), effects[0].to.as_deref()), (Envelope::TAKE_BACK, Some("printer")));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_in_the_outbox_does_not_leave() {
    let rig = book().await;
    // its endpoint has no queue yet
    rig.broker.fates(|_| Some(crate::Fate::Unroutable("no queue".into())));
    rig.broker.deliver(ordered());
    rig.all_acked().await;
    rig.until("it waits for its destination", |rig| rig.the_outbox().waits_for.is_some()).await;
    rig.broker.deliver(regretted());
    rig.all_acked().await;
    let left: Vec<_> = rig.store.outbox().iter().map(|row| row.envelope.type_name.clone()).collect();
    assert_eq!(left, [Envelope::TAKE_BACK], "it was tried before, so a message goes after it all the same");
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_after_a_command_that_the_broker_never_had() {
    let rig = book().await;
    rig.broker.deliver(ordered());
    rig.all_acked().await;
    rig.until("the command arrives", |rig| rig.store.outbox().is_empty()).await;
    // as an overflow leaves it: in the outbox, untouched
    let id: uuid::Uuid = rig.broker.sent_of("printer.Print")[0].envelope.message_id.parse().unwrap();
    let row = crate::OutboxRow::new(
        id,
        OutboxKind::Command,
        rig.broker.sent_of("printer.Print")[0].destination.clone(),
        rig.broker.sent_of("printer.Print")[0].envelope.clone(),
    );
    let mut unit = crate::Store::begin(&rig.store, &[], secs(30)).await.unwrap();
    let mut write = crate::Write::new(NAME, "somebody", secs(30));
    write.outbox.push(crate::OutboxRow { delay: Some(secs(3600)), ..row });
    crate::Unit::write(&mut unit, &write).await.unwrap();
    crate::Unit::commit(unit).await.unwrap();
    rig.broker.deliver(regretted());
    rig.all_acked().await;
    assert_eq!((rig.store.outbox(), went_after(&rig)), (vec![], vec![]));
    let effects = rig.inbox("regretted").effects.expect("it made a transition");
    assert_eq!(
        (effects[0].type_name.as_ref(), effects[0].note),
        (Envelope::TAKE_BACK, Some("the command had not left"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_regretted_in_the_batch_that_sends_it_does_not_leave() {
    let rig = book().await;
    rig.broker.deliver_all([ordered(), regretted()]);
    rig.all_acked().await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!((rig.broker.sent().len(), rig.store.outbox()), (0, vec![]));
    let effects = rig.inbox("ordered").effects.expect("it made a transition");
    assert_eq!((effects[0].type_name.as_ref(), effects[0].id), ("printer.Print", None));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_fails_meanwhile_takes_back_once() {
    let rig = book().await;
    rig.broker.deliver(ordered());
    rig.all_acked().await;
    rig.until("the command arrives", |rig| rig.store.outbox().is_empty()).await;
    rig.store.fail_next(Operation::TakeBack, StoreErrorKind::Unavailable);
    rig.store.lose_next_commit(true);
    rig.broker.deliver(regretted());
    rig.all_acked().await;
    tokio::time::sleep(secs(120)).await;
    assert_eq!(went_after(&rig).len(), 1);
}
