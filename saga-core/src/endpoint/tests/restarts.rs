//! Processes that die between their commit and the confirms: another one sends what was committed.

use super::*;
use crate::{Fate, Outgoing};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Publishes three events for each command; counts its runs.
#[derive(Clone, Default)]
struct Three(Arc<AtomicUsize>);

#[async_trait]
impl crate::Handle<Do, MemoryStore> for Three {
    async fn handle(
        &self,
        Do { n }: Do,
        cx: &mut crate::Context<'_, MemoryStore>,
    ) -> Result<Deed, crate::HandlerError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        cx.tx().await?.insert("done", n)?;
        for part in [1.0, 2.0, 3.0] {
            cx.publish(Seen { n: part });
        }
        Ok(Did { n }.into())
    }
}

/// As if the process was killed: the broker has lost its queue, too.
async fn killed(rig: Rig, build: impl FnOnce(Builder) -> Builder) -> (Rig, Vec<Outgoing>) {
    let Rig { store, broker, endpoint } = rig;
    let sent = broker.sent();
    drop(endpoint);
    tokio::time::sleep(secs(1)).await;
    (Rig::start_on(store, Broker::new(), build).await.expect("another process starts"), sent)
}

fn message_ids(sent: &[Outgoing]) -> BTreeSet<String> {
    sent.iter().map(|sent| sent.envelope.message_id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn o_026_what_was_published_in_part_is_published_again_with_the_committed_ids() {
    for confirmed in [1, 0] {
        let three = Three::default();
        let build = |builder: Builder| builder.handle::<Do>(three.clone());
        let rig = Rig::start(build).await;
        let mut sent = 0;
        rig.broker.fates(move |_| {
            sent += 1;
            (sent <= confirmed).then_some(Fate::Confirmed)
        });
        rig.broker.deliver(command(1));
        rig.until("all are sent", |rig| rig.broker.sent().len() == 3).await;
        rig.until("what arrived is deleted", |rig| rig.store.outbox().len() == 3 - confirmed).await;
        let left: BTreeSet<String> =
            rig.store.outbox().into_iter().map(|row| row.envelope.message_id.clone()).collect();
        let (rig, before) = killed(rig, build).await;
        rig.until_within(secs(35), "the rest is sent", |rig| rig.store.outbox().is_empty()).await;
        let again = rig.broker.sent();
        assert_eq!((again.len(), message_ids(&again)), (3 - confirmed, left), "{confirmed} were confirmed");
        let all: Vec<Outgoing> = before.into_iter().chain(again).collect();
        assert_eq!(message_ids(&all).len(), 3, "a receiver's inbox counts three");
        assert_eq!((three.0.load(Ordering::Relaxed), rig.done()), (1, vec![1]), "the handler does not run again");
    }
}

/// Answers `asker`.
fn asked(n: u64) -> Envelope {
    Envelope { reply_to: Some("asker".into()), ..command(n) }
}

#[tokio::test(start_paused = true)]
async fn o_029_what_was_committed_leaves_though_nothing_is_delivered_again() {
    let script = Script::new();
    let build = |builder: Builder| builder.handle::<Do>(script.clone());
    let rig = Rig::start(build).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(asked(1));
    rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
    let (rig, before) = killed(rig, build).await;
    rig.until_within(secs(33), "it leaves within the lease and a poll", |rig| rig.broker.sent().len() == 1).await;
    assert_eq!(message_ids(&rig.broker.sent()), message_ids(&before));
    assert_eq!(script.runs_of(1), 1);
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn o_030_when_the_one_that_took_over_dies_too_a_third_takes_over() {
    let script = Script::new();
    let build = |builder: Builder| builder.handle::<Do>(script.clone());
    let mut rig = Rig::start(build).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver(asked(1));
    let mut ids = Vec::new();
    for process in 0..2 {
        rig.until("it is sent", |rig| rig.broker.sent().len() == 1).await;
        assert_eq!(rig.broker.sent()[0].expired, process);
        let (next, sent) = killed(rig, build).await;
        ids.push(message_ids(&sent));
        rig = next;
        if process == 0 {
            rig.broker.fates(|_| None);
        }
    }
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    let sent = rig.broker.sent();
    assert_eq!((sent.len(), sent[0].expired), (1, 2));
    assert!(ids.iter().all(|before| *before == message_ids(&sent)), "{ids:?}");
    assert_eq!((rig.held(), script.runs_of(1)), (vec![], 1), "none needs a person");
}

#[tokio::test(start_paused = true)]
async fn o_031_a_thousand_rows_of_a_dead_process_leave_within_a_lease_and_a_poll() {
    let script = Script::new();
    let build = |builder: Builder| builder.handle::<Do>(script.clone());
    let rig = Rig::start(build).await;
    rig.broker.fates(|_| None);
    rig.broker.deliver_all((1..=1000).map(asked));
    rig.all_acked().await;
    rig.until("all are sent", |rig| rig.broker.sent().len() == 1000).await;
    let (rig, before) = killed(rig, build).await;
    rig.until_within(secs(33), "all are sent again", |rig| rig.broker.sent().len() == 1000).await;
    assert_eq!(message_ids(&rig.broker.sent()), message_ids(&before));
    rig.until("the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    assert_eq!((rig.broker.sent().len(), script.runs().len()), (1000, 1000));
}

#[tokio::test(start_paused = true)]
async fn o_052_after_a_crash_in_the_middle_all_arrive_though_not_in_order() {
    let build = |builder: Builder| builder.saga::<Walk>().settings(|settings| settings.window = 10);
    let rig = Rig::start(build).await;
    let mut sent = 0;
    rig.broker.fates(move |_| {
        sent += 1;
        (sent <= 40).then_some(Fate::Confirmed)
    });
    rig.broker.deliver(begin(1));
    rig.broker.deliver_all((1..=100).map(|n| step(1, n)));
    rig.all_acked().await;
    rig.until("the window is full behind the forty", |rig| rig.broker.sent().len() == 50).await;
    let (rig, before) = killed(rig, build).await;
    rig.until_within(secs(120), "the outbox is empty", |rig| rig.store.outbox().is_empty()).await;
    // as a receiver sees it: by message id, each once
    let mut heard: BTreeMap<String, u32> = BTreeMap::new();
    for sent in before.iter().take(40).chain(&rig.broker.sent()) {
        let stepped: Stepped = serde_json::from_slice(&sent.envelope.body).expect("it is a step");
        let known = heard.entry(sent.envelope.message_id.clone()).or_insert(stepped.n);
        assert_eq!(*known, stepped.n, "an id names one message");
    }
    let mut numbers: Vec<u32> = heard.into_values().collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}
