//! The in-process transport: the sender's outbox is the queue.

use super::*;
use async_trait::async_trait;
use saga_core::{Context, Handle, HandlerError, Retries};
use sqlx::Executor;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::{
    eventually,
    house::held,
    model::{Work, WorkOutcome, Worked},
    works::works,
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
        ask(&sender, part * 100..(part + 1) * 100).await;
    }
    eventually("the window to be full", || async {
        (outbox(&sender, "lease_owner IS NOT NULL").await == 10).then_some(())
    })
    .await;
    for _ in 0..50 {
        assert!(gated.waiting.load(Ordering::SeqCst) <= 10, "no more than the window were expected to be on their way");
        assert_eq!((outbox(&sender, "true").await, outbox(&sender, "lease_owner IS NOT NULL").await), (1000, 10));
        tokio::task::yield_now().await;
    }
    gated.gate.add_permits(2000);
    eventually("all effects", || async { (worker.store().effects().await.len() >= 1000).then_some(()) }).await;
    assert_eq!(worker.store().effects().await, (0..1000).collect::<Vec<i64>>());
    eventually("an empty outbox", || async { (outbox(&sender, "true").await == 0).then_some(()) }).await;
    stop([sender, worker]).await;
}

/// Fills the disk: counts its runs.
#[derive(Clone, Default)]
struct Heavy(Arc<AtomicUsize>);

#[async_trait]
impl Handle<Work, Sqlite> for Heavy {
    async fn handle(&self, work: Work, cx: &mut Context<'_, Sqlite>) -> Result<WorkOutcome, HandlerError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let tx = cx.tx().await?;
        Sqlite::effect(tx, work.id).await?;
        sqlx::query("INSERT INTO blob (bytes) VALUES (zeroblob(100000))").execute(&mut *tx).await?;
        Ok(Worked { id: work.id }.into())
    }
}

/// a full disk is waited for, and no message is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn r_037_messages_wait_for_a_disk_that_is_full_and_go_on_without_a_restart() {
    on_sqlite(|two| async move {
        two.db().create_effects().await;
        two.stores[0].writer().execute("CREATE TABLE blob (bytes blob)").await.unwrap();
        let heavy = Heavy::default();
        let builder = two.endpoint(0, "worker").retries(Retries::none());
        let worker = builder.handle::<Work>(heavy.clone()).start().await.unwrap();
        let room = async |pages: i64| {
            let writer = two.stores[0].writer();
            let now: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer).await.unwrap();
            writer.execute(format!("PRAGMA max_page_count = {}", now + pages).as_str()).await.unwrap();
        };
        room(3).await;
        let mut stranger = two.stranger(0).await;
        let works = works(0..10);
        let watching = async {
            eventually("some tries", || async { (heavy.0.load(Ordering::SeqCst) >= 3).then_some(()) }).await;
            assert_eq!((two.count("effect").await, two.count("{s}inbox").await), (0, 0));
            room(10_000).await;
        };
        tokio::join!(stranger.send("worker", &works), watching);
        assert_eq!(two.db().effects().await, (0..10).collect::<Vec<i64>>());
        assert_eq!((two.count("{s}inbox WHERE attempts = 1").await, held(two.db()).await.len()), (10, 0));
        stop([worker]).await;
    })
    .await;
}
