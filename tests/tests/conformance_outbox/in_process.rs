//! The in-process transport: the sender's outbox is the queue.

use super::*;
use async_trait::async_trait;
use saga_core::{Context, Handle, HandlerError};
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::{
    eventually,
    model::{Work, WorkOutcome, Worked},
};
use tokio::sync::Semaphore;

/// Works when it is let through.
#[derive(Clone)]
struct Gated {
    gate: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Gated {
    fn shut() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), waiting: Arc::default() }
    }
}

#[async_trait]
impl Handle<Work, Sqlite> for Gated {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Sqlite>) -> Result<WorkOutcome, HandlerError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("it is never closed").forget();
        Sqlite::effect(cx.tx().await?, work.id).await?;
        Ok(Worked { id: work.id }.into())
    }
}

/// A sender and a worker in one process, each with its file.
async fn both(file: &File, gated: &Gated) -> [Endpoint<Sqlite>; 2] {
    let bus = InProcess::new();
    let quick = |settings: &mut saga_core::Settings| {
        settings.lease = Duration::from_secs(3);
        settings.poll = Duration::from_millis(100);
        settings.window = 10;
    };
    let (sender, worker) = (file.store("sender.db").await, file.store("worker.db").await);
    worker.create_effects().await;
    let worker = Endpoint::builder("worker", bus.clone(), worker).handle::<Work>(gated.clone()).settings(quick);
    let worker = worker.start().await.unwrap();
    let sender = Endpoint::builder("sender", bus, sender).settings(quick).start().await.unwrap();
    [sender, worker]
}

async fn ask(sender: &Endpoint<Sqlite>, works: std::ops::Range<u64>) {
    let mut session = sender.session().await.unwrap();
    for id in works {
        session.send(Work { id, note: String::new() });
    }
    session.commit().await.unwrap();
}

async fn outbox(endpoint: &Endpoint<Sqlite>, condition: &str) -> usize {
    let sql = format!("SELECT CAST(count(*) AS text) FROM {{s}}outbox WHERE {condition}");
    endpoint.store().text(&sql).await.parse().expect("a count is a number")
}

/// T-041: killed between the sender's commit and the receiver's, the message was in the outbox the whole time.
#[tokio::test(flavor = "multi_thread")]
async fn t_041_a_message_is_in_the_outbox_until_its_receiver_has_committed() {
    let (file, gated) = (File::create(), Gated::shut());
    let [sender, worker] = both(&file, &gated).await;
    ask(&sender, 7..8).await;
    eventually("the handler to run", || async { (gated.waiting.load(Ordering::SeqCst) == 1).then_some(()) }).await;
    assert_eq!(outbox(&sender, "type = 'worker.Work'").await, 1);
    drop((sender, worker)); // without a stop, as when the process is killed
    let [sender, worker] = both(&file, &gated).await;
    eventually("the handler to run again", || async { (gated.waiting.load(Ordering::SeqCst) == 2).then_some(()) })
        .await;
    assert_eq!((outbox(&sender, "type = 'worker.Work'").await, worker.store().effects().await), (1, vec![]));
    gated.gate.add_permits(10);
    eventually("the effect", || async { (worker.store().effects().await == [7]).then_some(()) }).await;
    eventually("an empty outbox", || async { (outbox(&sender, "true").await == 0).then_some(()) }).await;
    stop([sender, worker]).await;
}

/// T-043: a fast sender waits for a slow receiver in its outbox, and not in memory.
#[tokio::test(flavor = "multi_thread")]
async fn t_043_what_a_slow_receiver_does_not_take_stays_in_the_senders_outbox() {
    let (file, gated) = (File::create(), Gated::shut());
    let [sender, worker] = both(&file, &gated).await;
    for part in 0..10 {
        ask(&sender, part * 10..(part + 1) * 10).await;
    }
    eventually("the window to be full", || async {
        (outbox(&sender, "lease_owner IS NOT NULL").await == 10).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert!(gated.waiting.load(Ordering::SeqCst) <= 10, "no more than the window were expected to be on their way");
        assert_eq!((outbox(&sender, "true").await, outbox(&sender, "lease_owner IS NOT NULL").await), (100, 10));
        tokio::task::yield_now().await;
    }
    gated.gate.add_permits(200);
    eventually("all effects", || async { (worker.store().effects().await.len() >= 100).then_some(()) }).await;
    assert_eq!(worker.store().effects().await, (0..100).collect::<Vec<i64>>());
    eventually("an empty outbox", || async { (outbox(&sender, "true").await == 0).then_some(()) }).await;
    stop([sender, worker]).await;
}
