//! An instance at work: what its messages leave in the tables, alone and beside others.

use super::{dialects::Begin, *};
use crate::*;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};

fn of(id: u64, type_name: &str) -> Envelope {
    Envelope::new(format!("{type_name}-{id}"), type_name, format!("{{\"id\":{id}}}"))
}

/// Over as soon as it begins.
#[states]
enum Once {
    #[done]
    Told,
}

#[saga(name = "once", id = id: u64)]
impl Once {
    fn begin(begin: Begin) -> (Told, Publishes<Stepped>, Deadline<Tired>) {
        (Told, publish(Stepped { id: begin.id, n: 1 }), deadline(hours(1), Tired {}))
    }

    fn tired(self, _: Tired) -> Stay<Self> {
        Stay(self)
    }
}

#[tokio::test(start_paused = true)]
async fn s_005_a_start_into_a_done_state_sends_and_sets_no_timer() {
    let rig = Rig::start(|builder| builder.saga::<Once>()).await;
    rig.broker.deliver(begin(1));
    rig.until("its event is sent", |rig| rig.broker.sent_of("Stepped").len() == 1).await;
    let instance = rig.store.instances().remove(0);
    assert_eq!((instance.row.state.as_str(), instance.row.done), ("Told", true));
    assert!(instance.completed_at_us.is_some());
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    tokio::time::sleep(secs(7200)).await;
    assert_eq!((rig.broker.sent().len(), rig.store.inbox().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn s_006_what_comes_for_a_done_instance_is_late_and_changes_nothing() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), of(1, "Finish")]);
    rig.all_acked().await;
    let before = rig.store.instances().remove(0);
    assert!(before.completed_at_us.is_some());
    tokio::time::sleep(secs(60)).await;
    rig.broker.deliver_all([message("begin again", &Begin { id: 1 }), step(1, 1), of(1, "Buy")]);
    rig.all_acked().await;
    for id in ["begin again", "step-1-1", "Buy-1"] {
        let row = rig.inbox(id);
        assert_eq!((row.result, row.from_state.as_deref()), (InboxResult::Ignored, Some("Over")), "{id}");
    }
    assert_eq!((rig.store.instances().remove(0), rig.broker.sent().len(), rig.held()), (before, 0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn s_007_an_id_that_retention_has_removed_begins_anew() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|it| it.retention = secs(86_400))).await;
    rig.broker.deliver_all([begin(1), step(1, 1), of(1, "Finish")]);
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1), rig.steps(1)), (("Over".into(), 3), vec![1]));
    rig.until_within(secs(90_000), "it is removed", |rig| {
        rig.store.instances().is_empty() && rig.store.inbox().is_empty()
    })
    .await;
    rig.broker.deliver(message("begin again", &Begin { id: 1 }));
    rig.all_acked().await;
    let instance = rig.store.instances().remove(0);
    assert_eq!((rig.walk_at(1), rig.steps(1), instance.completed_at_us), (("Here".into(), 1), vec![], None));
    assert_eq!(rig.inbox("begin again").from_state, None);
}

/// Takes what [`Walk`] takes, under the same ids; the thirteenth step is too much for it.
#[states]
enum Twin {
    Along { steps: Vec<u32> },
}

#[saga(name = "twin", id = id: u64)]
impl Twin {
    fn begin(_: Begin) -> Along {
        Along { steps: Vec::new() }
    }

    fn step(mut state: Along, step: Step) -> Along {
        assert_ne!(step.n, 13, "unlucky");
        state.steps.push(step.n);
        state
    }

    fn begin_again(state: Along, _: Begin) -> Along {
        state
    }
}

fn twin(rig: &Rig) -> crate::InstanceRow {
    let found = rig.store.instances().into_iter().find(|it| it.row.key.saga == "twin");
    found.expect("it was started").row
}

#[tokio::test(start_paused = true)]
async fn s_011_two_sagas_take_one_event_and_a_panic_of_one_is_not_the_others() {
    let rig = Rig::start(|builder| builder.saga::<Walk>().saga::<Twin>()).await;
    rig.broker.deliver_all([begin(1), step(1, 1)]);
    rig.all_acked().await;
    assert_eq!((rig.walk_row(1).seq, twin(&rig).seq), (2, 2));
    assert_eq!((rig.walk_row(1).data, twin(&rig).data), (r#"{"steps":[1]}"#.into(), r#"{"steps":[1]}"#.into()));
    rig.broker.deliver_all([step(1, 13), step(1, 14)]);
    rig.all_acked().await;
    assert_eq!((rig.walk_row(1).data.as_str(), rig.walk_row(1).paused_by), (r#"{"steps":[1,13,14]}"#, None));
    assert_eq!((twin(&rig).data.as_str(), twin(&rig).paused_by.as_deref()), (r#"{"steps":[1]}"#, Some("step-1-13")));
    let held: Vec<_> = rig.store.held().into_iter().map(|row| (row.receiver, row.reason)).collect();
    assert_eq!(held, [("twin".into(), HeldReason::Failed), ("twin".into(), HeldReason::Paused)]);
}

#[tokio::test(start_paused = true)]
async fn s_012_a_saga_and_a_handler_take_one_event_and_neither_waits_for_the_other() {
    let script = Script::new();
    let rig = Rig::start(|builder| builder.saga::<Walk>().subscribe::<Step>(script.clone())).await;
    rig.broker.deliver(step(1, 1)); // early at the saga
    rig.all_acked().await;
    assert_eq!((rig.done(), rig.the_held().reason), (vec![1], HeldReason::Early));
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.held()), (vec![1], vec![]));
    rig.broker.deliver(step(1, 2));
    rig.all_acked().await;
    assert_eq!((rig.steps(1), rig.done(), script.runs().len()), (vec![1, 2], vec![1, 2], 2));
}

#[derive(Command, Serialize, Deserialize)]
#[command(to = "lab")]
struct Weigh {
    id: u64,
}
#[derive(Command, Serialize, Deserialize)]
#[command(to = "office")]
struct File {
    id: u64,
    copies: u32,
}

/// Tells three places of each step.
#[states]
enum Sender {
    Sending,
    #[done]
    Silent,
}

#[saga(name = "sender", id = id: u64)]
impl Sender {
    fn begin(_: Begin) -> Sending {
        Sending
    }

    fn three(state: Sending, it: Buy) -> (Sending, Sends<Weigh>, Publishes<Stepped>, Sends<File>) {
        let id = it.id;
        (state, send(Weigh { id }), publish(Stepped { id, n: 1 }), send(File { id, copies: 2 }))
    }

    fn many(state: Sending, it: Step) -> (Sending, Option<Publishes<Stepped>>, Vec<Sends<File>>) {
        let Step { id, n } = it;
        let one = (n > 0).then(|| publish(Stepped { id, n }));
        (state, one, (0..n).map(|copies| send(File { id, copies })).collect())
    }

    fn finish(_: Sending, _: Finish) -> Silent {
        Silent
    }
}

#[tokio::test(start_paused = true)]
async fn s_023_effects_leave_in_their_order_and_bear_what_caused_them() {
    let rig = Rig::start(|builder| builder.saga::<Sender>()).await;
    rig.broker.deliver_all([begin(1), Envelope { conversation_id: "talk".into(), ..of(1, "Buy") }]);
    rig.until("all is sent", |rig| rig.broker.sent().len() == 3).await;
    let sent = rig.broker.sent();
    let (lab, office) = (Destination::Endpoint("lab".into()), Destination::Endpoint("office".into()));
    let destinations: Vec<_> = sent.iter().map(|it| it.destination.clone()).collect();
    assert_eq!(destinations, [lab, Destination::Event("Stepped".into()), office]);
    for Outgoing { envelope, .. } in &sent {
        assert_eq!((envelope.causation_id.as_deref(), envelope.conversation_id.as_str()), (Some("Buy-1"), "talk"));
        let saga = envelope.saga.as_ref().expect("it names its sender");
        assert_eq!((saga.saga.as_str(), saga.id.as_str(), saga.entered), ("sender", "1", Some(1)));
    }
    let effects = rig.inbox("Buy-1").effects.expect("it has effects");
    let journal: Vec<&str> = effects.iter().map(|it| it.type_name.as_ref()).collect();
    assert_eq!(journal, ["lab.Weigh", "Stepped", "office.File"]);
}

#[tokio::test(start_paused = true)]
async fn s_024_an_option_and_a_vec_send_what_is_in_them_in_order() {
    let rig = Rig::start(|builder| builder.saga::<Sender>()).await;
    rig.broker.deliver_all([begin(1), step(1, 0)]);
    rig.all_acked().await;
    assert_eq!((rig.result("step-1-0"), rig.broker.sent().len()), (InboxResult::Handled, 0));
    assert_eq!(rig.inbox("step-1-0").effects, Some(vec![]));
    rig.broker.deliver(step(1, 3));
    rig.until("all is sent", |rig| rig.broker.sent().len() == 4).await;
    let sent = rig.broker.sent_of("office.File");
    let bodies: Vec<_> = sent.iter().map(|it| String::from_utf8_lossy(&it.envelope.body).into_owned()).collect();
    assert_eq!(bodies, [0, 1, 2].map(|copies| format!("{{\"id\":1,\"copies\":{copies}}}")));
    let mut ids: Vec<_> = rig.broker.sent().iter().map(|it| it.envelope.message_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has an id of its own");
}

/// Counts what a rig commits from now on.
fn commits(rig: &Rig) -> std::sync::Arc<AtomicUsize> {
    let commits = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = commits.clone();
    rig.store.fail_while(move |operation| {
        counted.fetch_add(usize::from(operation == Operation::Commit), Ordering::Relaxed);
        None
    });
    commits
}

#[tokio::test(start_paused = true)]
async fn o_020_a_start_and_its_follow_up_are_one_commit() {
    let rig = Rig::walk().await;
    let commits = commits(&rig);
    rig.broker.deliver_all([begin(1), step(1, 1)]);
    rig.until("its event is sent", |rig| rig.broker.sent_of("Stepped").len() == 1).await;
    assert_eq!((rig.walk_at(1), rig.steps(1), commits.load(Ordering::Relaxed)), (("Here".into(), 2), vec![1], 1));
    assert_eq!((rig.inbox("begin-1").seq, rig.inbox("step-1-1").seq), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn o_021_a_start_its_follow_up_and_the_start_again_end_alike_in_any_order() {
    let (start, follows) = (|| begin(1), || step(1, 1));
    for batch in [[start(), follows(), start()], [start(), start(), follows()], [follows(), start(), start()]] {
        let order = batch.each_ref().map(|it| it.message_id.clone());
        let rig = Rig::walk().await;
        rig.broker.deliver_all(batch);
        rig.all_acked().await;
        assert_eq!((rig.walk_at(1), rig.steps(1)), (("Here".into(), 2), vec![1]), "{order:?}");
        assert_eq!((rig.store.instances().len(), rig.broker.acked().len(), rig.held()), (1, 3, vec![]), "{order:?}");
        rig.until("its event is sent", |rig| rig.broker.sent_of("Stepped").len() == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s_036_s_037_a_chain_of_early_messages_is_one_commit() {
    let rig = Rig::walk().await;
    rig.broker.deliver(begin(1));
    rig.all_acked().await;
    for n in 1..=3 {
        rig.broker.deliver(message(format!("arrive-{n}"), &Arrive { id: 1, n }));
        rig.all_acked().await;
    }
    assert_eq!((rig.walk_at(1), rig.broker.acked().len()), (("Here".into(), 1), 4), "acknowledged, without effect");
    assert!(rig.store.held().iter().all(|row| (row.reason, row.attempts) == (HeldReason::Early, 0)));
    let commits = commits(&rig);
    rig.broker.deliver(of(1, "Go"));
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1), rig.steps(1)), (("There".into(), 5), vec![1, 2, 3]));
    assert_eq!(commits.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn s_038_an_early_message_that_nobody_takes_any_more_is_journaled() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), message("arrive", &Arrive { id: 1, n: 1 })]);
    rig.all_acked().await;
    assert_eq!(rig.the_held().reason, HeldReason::Early);
    let commits = commits(&rig);
    rig.broker.deliver(of(1, "Finish"));
    rig.all_acked().await;
    let row = rig.inbox("arrive");
    assert_eq!((row.result, row.from_state.as_deref()), (InboxResult::Ignored, Some("Over")));
    assert_eq!((rig.held(), rig.steps(1), commits.load(Ordering::Relaxed)), (vec![], vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn s_039_a_message_that_no_state_ahead_takes_is_late() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), of(1, "Go"), of(1, "Buy")]);
    rig.all_acked().await;
    let row = rig.inbox("Buy-1");
    assert_eq!((row.result, row.from_state.as_deref()), (InboxResult::Ignored, Some("There")));
    assert_eq!((rig.held(), rig.store.outbox().len(), rig.walk_at(1)), (vec![], 0, ("There".into(), 2)));
    assert_eq!((rig.broker.acked().len(), rig.broker.given_back()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn s_040_s_041_a_message_before_the_start_waits_and_is_applied_with_it() {
    for wait in [3600, 600] {
        let rig = Rig::start(|builder| builder.saga::<Walk>().settings(|it| it.early = secs(wait))).await;
        rig.broker.deliver(step(1, 1));
        rig.all_acked().await;
        let held = rig.the_held();
        assert_eq!((held.reason, held.attempts, rig.store.instances().len()), (HeldReason::Early, 0, 0));
        let expires = held.expires_at_us.expect("it waits for a limited time");
        assert_eq!(expires - held.held_at_us, wait as i64 * 1_000_000);
        tokio::time::sleep(secs(wait - 10)).await;
        let commits = commits(&rig);
        rig.broker.deliver(begin(1));
        rig.all_acked().await;
        assert_eq!((rig.walk_at(1), rig.steps(1), rig.held()), (("Here".into(), 2), vec![1], vec![]));
        assert_eq!(rig.inbox("begin-1").seq, Some(1), "the start is the first");
        // housekeeping commits by another way; what is counted here are units of work
        assert_eq!(commits.load(Ordering::Relaxed), 1, "both in one commit");
    }
}

#[tokio::test(start_paused = true)]
async fn s_046_an_early_message_that_comes_again_is_held_once_and_handled_once() {
    let rig = Rig::walk().await;
    for _ in 0..3 {
        rig.broker.deliver(step(1, 1));
        rig.all_acked().await;
    }
    assert_eq!(rig.held(), [("step-1-1".to_owned(), HeldReason::Early)]);
    rig.broker.deliver_all([step(1, 1), begin(1), step(1, 1)]);
    rig.all_acked().await;
    rig.broker.redeliver(step(1, 1), 1);
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1), rig.steps(1), rig.held()), (("Here".into(), 2), vec![1], vec![]));
    assert_eq!(rig.result("step-1-1"), InboxResult::Handled);
}

#[tokio::test(start_paused = true)]
async fn s_067_a_write_on_a_row_that_changed_is_refused_and_runs_again() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all([begin(1), step(1, 1)]);
    rig.all_acked().await;
    rig.store.fail_next(Operation::Write, StoreErrorKind::Conflict);
    rig.broker.deliver_all([step(1, 2), step(1, 3)]);
    rig.all_acked().await;
    assert_eq!((rig.walk_at(1), rig.steps(1), rig.held()), (("Here".into(), 4), vec![1, 2, 3], vec![]));
    assert_eq!((rig.inbox("step-1-2").attempts, rig.inbox("step-1-3").attempts), (1, 1), "nobody is to blame");
}

#[tokio::test(start_paused = true)]
async fn s_069_a_panic_costs_the_thirty_others_of_its_batch_nothing() {
    let rig = Rig::walk().await;
    rig.broker.deliver_all((1..=31).map(begin));
    rig.all_acked().await;
    rig.broker.deliver_all((1..=31).map(|id| if id == 15 { of(15, "Boom") } else { step(id, 1) }));
    rig.all_acked().await;
    let held = rig.the_held();
    let error = held.error.expect("it says why");
    assert_eq!((held.envelope.message_id.as_str(), held.reason, held.attempts), ("Boom-15", HeldReason::Failed, 1));
    assert!(error.contains("boom 15") && error.contains("dialects.rs"), "text and place were expected: {error}");
    for id in (1..=31).filter(|id| *id != 15) {
        assert_eq!((rig.steps(id), rig.walk_row(id).paused_by), (vec![1], None));
    }
    assert_eq!((rig.walk_at(15), rig.walk_row(15).paused_by), (("Here".into(), 1), Some("Boom-15".into())));
}

impl Rig {
    fn walk_row(&self, id: u64) -> crate::InstanceRow {
        let is_it =
            |it: &testing::InstanceRecord| it.row.key == InstanceKey { saga: "walk".into(), id: id.to_string() };
        self.store.instances().into_iter().find(is_it).unwrap_or_else(|| panic!("no {id}; {}", self.says())).row
    }
}
