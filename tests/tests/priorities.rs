//! Commands that can wait, beside others.

use async_trait::async_trait;
use saga_core::{
    Command, Context, Endpoint, Handle, HandlerError, Inspect, Limit, OutboxFilter, Outcome, Reply, Retries, Transport,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tests::{
    endpoint_suite, eventually,
    house::held,
    model::{Effects, Work, Worker},
};
use tokio::sync::Semaphore;

/// Can wait.
#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "worker", outcome = ReportOutcome, priority = low)]
struct Report {
    id: u64,
}

#[derive(Debug, Outcome)]
enum ReportOutcome {
    Written(Written),
}

#[derive(Debug, Reply, Serialize, Deserialize)]
#[reply(from = "worker")]
struct Written {}

/// Writes no report before it may.
#[derive(Clone)]
struct Reporter {
    may: Arc<Semaphore>,
    began: Arc<Mutex<BTreeSet<u64>>>,
    written: Arc<Mutex<Vec<u64>>>,
}

#[async_trait]
impl<Db: Effects> Handle<Report, Db> for Reporter {
    async fn handle(&self, report: Report, _: &mut Context<'_, Db>) -> Result<ReportOutcome, HandlerError> {
        let is_new = self.began.lock().unwrap().insert(report.id);
        if report.id == 1 && is_new {
            return Err(HandlerError::transient("failed by order"));
        }
        self.may.acquire().await.expect("it is never closed").forget();
        self.written.lock().unwrap().push(report.id);
        Ok(Written {}.into())
    }
}

/// What a process with this prefetch has in hand of commands that can wait: an eighth.
const PREFETCH: u16 = 32;
const EIGHTH: usize = 4;
/// Reports that wait.
const REPORTS: u64 = 500;

/// Five hundred reports wait, and as many are in hand as may be; a command that is sent after them is handled before.
async fn commands_that_can_wait_stand_before_no_other<Db: Effects + Inspect>(
    transport: impl Transport + Clone,
    [store, clients, _]: [Db; 3],
) {
    store.create_effects().await;
    let reporter = Reporter { may: Arc::new(Semaphore::new(0)), began: Arc::default(), written: Arc::default() };
    let work = Worker::default();
    let worker = Endpoint::builder("worker", transport.clone(), store)
        .retries(Retries::none().delayed([Duration::from_secs(3600)]))
        // more lanes than an eighth: what bounds the reports in hand is the queue, and not the handler
        .settings(|settings| (settings.prefetch, settings.handler_lanes) = (PREFETCH, 4 * EIGHTH))
        .handle::<Report>(reporter.clone())
        .handle::<Work>(work.clone());
    let worker = worker.start().await.expect("it starts");
    let is_limited = transport.system() == "rabbitmq"; // in one process there is no prefetch
    let client = Endpoint::builder("client", transport, clients).start().await.expect("it starts");
    let mut session = client.session().await.expect("a session opens");
    for id in 1..=REPORTS {
        session.send(Report { id });
    }
    session.commit().await.expect("the session commits");
    // one failed, and waits for its retry
    let to = eventually("the retry of a report", || async {
        let rows = worker.store().outbox(&OutboxFilter::default(), 100).await.ok()?;
        rows.into_iter().find(|row| row.kind == "retry").map(|row| row.destination)
    })
    .await;
    assert_eq!(to, "worker.low", "it comes back where it came from");
    let began = || reporter.began.lock().unwrap().len();
    let written = || reporter.written.lock().unwrap().len();
    eventually("a report in hand, beside the one that failed", || async { (began() > 1).then_some(()) }).await;
    let mut session = client.session().await.expect("a session opens");
    session.send(Work { id: 7, note: "pure".into() });
    session.commit().await.expect("the session commits");
    let given = AtomicUsize::new(0);
    // were it behind the reports, all of them would have to be written before it
    eventually("the command that was sent last to be handled", || async {
        if work.runs() == 1 {
            return Some(());
        }
        let before = written();
        reporter.may.add_permits(1);
        given.fetch_add(1, Ordering::SeqCst);
        eventually("a report, or the command", || async { (written() > before || work.runs() == 1).then_some(()) })
            .await;
        None
    })
    .await;
    let before = written();
    assert!(before < REPORTS as usize / 2, "it came before most reports, {before} were written before it");
    if is_limited {
        // one failed, and each permit may have let another one begin
        let (began, given) = (began(), given.load(Ordering::SeqCst));
        assert!(began <= 1 + EIGHTH + given, "{began} reports began; {given} were let go, {EIGHTH} may be in hand");
    }
    reporter.may.add_permits(REPORTS as usize);
    eventually("all other reports to be written", || async { (written() + 1 >= REPORTS as usize).then_some(()) }).await;
    let mut written = reporter.written.lock().unwrap().clone();
    written.sort_unstable();
    assert_eq!(written, (2..=REPORTS).collect::<Vec<_>>(), "each once");
    assert!(held(worker.store()).await.is_empty());
    for endpoint in [worker, client] {
        endpoint.stop().await.expect("an orderly end");
    }
}

/// Two hundred commands for a service that is called once a minute: all but the first go to the outbox. A lane asks the
/// database for its call and puts messages off at the same time, and SQLite has one writer.
async fn what_waits_for_a_call_goes_to_the_outbox_at_once<Db: Effects + Inspect>(
    transport: impl Transport + Clone,
    [store, clients, _]: [Db; 3],
) {
    store.create_effects().await;
    let work = Worker::default();
    let worker = Endpoint::builder("worker", transport.clone(), store)
        .limit("bank", Limit::none().rate(1, Duration::from_secs(60)))
        .handle_with::<Work>(work.clone(), |options| options.limit("bank"));
    let worker = worker.start().await.expect("it starts");
    let client = Endpoint::builder("client", transport, clients).start().await.expect("it starts");
    let began = Instant::now();
    for ids in [0..20, 20..200] {
        let mut session = client.session().await.expect("a session opens");
        for id in ids {
            session.send(Work { id, note: "pure".into() });
        }
        session.commit().await.expect("the session commits");
    }
    eventually("all but one to wait in the outbox", || async {
        let rows = worker.store().outbox(&OutboxFilter::default(), 300).await.ok()?;
        (rows.iter().filter(|row| row.kind == "retry").count() == 199).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "a lane waited for itself: it took {took:?}");
    assert_eq!(work.runs(), 1);
    for endpoint in [worker, client] {
        endpoint.stop().await.expect("an orderly end");
    }
}

endpoint_suite! {
    commands_that_can_wait_stand_before_no_other
    what_waits_for_a_call_goes_to_the_outbox_at_once
}
