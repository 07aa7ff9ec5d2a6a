//! Processes whose wall clock is wrong, on RabbitMQ and PostgreSQL: timers, retries, leases and retention follow the
//! database's clock.

use outbox::Postgres;
use saga_core::{Envelope, Message, Store};
use sqlx::Executor;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};
use tests::{
    Database, Vhost,
    clock::{Clock, RETRIED_AFTER, RINGS_AFTER, Set, TABLE, Tried, Try},
    eventually,
    link::attach,
    plain::Plain,
    process::program,
};

const HOUR: i64 = 3600;
/// How much later than it should something may happen on a busy machine, in seconds: far from an hour.
const LATE: f64 = 30.0;
/// Seconds between the time from which a timer counts, when its unit read, and the time that the unit wrote.
const UNIT: f64 = 0.5;

/// A process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

struct Town {
    vhost: Vhost,
    database: Database,
    store: Postgres,
    /// How often each event came.
    heard: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Town {
    async fn create() -> Self {
        let (vhost, database) = (Vhost::create().await, Database::create().await);
        let store = database.store();
        store.migrate().await.expect("the tables are created");
        store.pool().execute(TABLE).await.expect("the table is created");
        let mut ear = attach(&vhost.transport(), "ear", &[Tried::TYPE]).await;
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = heard.clone();
        tokio::spawn(async move {
            while let Some(came) = ear.deliveries.recv().await {
                let mut counted = counted.lock().expect("nobody panics with this lock");
                *counted.entry(came.envelope.message_id.clone()).or_default() += 1;
                came.ack.ack();
            }
        });
        Self { vhost, database, store, heard }
    }

    /// Starts a process with this clock, and waits until so many live.
    async fn start(&self, clock: &Clock, living: i64) -> Running {
        let mut command = Command::new(program("clock"));
        command.args([self.vhost.url(), self.database.url()]).stdin(Stdio::null()).stdout(Stdio::piped());
        clock.set(&mut command);
        let mut process = Running(command.spawn().expect("the service starts"));
        let said = process.0.stdout.take().expect("its output is piped");
        // its row is there before its queue
        let line = tokio::task::spawn_blocking(move || BufReader::new(said).lines().next()).await;
        assert_eq!(line.expect("it is read").expect("it says something").expect("it is text"), "started");
        self.becomes(living, "SELECT count(*) FROM sagabus.process").await;
        process
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.store.pool()).await.expect("the database answers")
    }

    async fn becomes(&self, expected: i64, sql: &str) {
        eventually(&format!("{expected} as answer to {sql}"), || async {
            (self.number(sql).await == expected).then_some(())
        })
        .await;
    }

    async fn send(&self, ids: std::ops::Range<u64>) {
        let plain = Plain::connect(&self.vhost.url()).await;
        for id in ids {
            let body = format!(r#"{{"id":{id}}}"#);
            plain.publish_one("clock", &Envelope::new(format!("set-{id}"), Set::TYPE, body.clone())).await;
            plain.publish_one("clock", &Envelope::new(format!("try-{id}"), Try::TYPE, body)).await;
        }
        plain.close().await;
    }

    /// Waits until all alarms have rung and all tries have succeeded, and looks at when they did.
    async fn all_in_time(&self, messages: i64) {
        self.becomes(messages, "SELECT count(*) FROM sagabus.saga WHERE completed_at IS NOT NULL").await;
        self.becomes(messages, "SELECT count(*) FROM sagabus.inbox WHERE type = 'clock.Try' AND result = 'handled'")
            .await;
        self.becomes(0, "SELECT count(*) FROM sagabus.outbox").await;
        let apart = |what: &str, from: &str| {
            let seconds = |which| format!("extract(epoch FROM {which}({what}))::float8");
            format!("SELECT {}, {} FROM {from}", seconds("min"), seconds("max"))
        };
        let alarms = apart("completed_at - created_at", "sagabus.saga");
        let twice = "(SELECT max(at) - min(at) AS gap FROM try GROUP BY id HAVING count(*) > 1) AS tries";
        let gaps = apart("gap", twice);
        for (what, sql, least) in [("alarms", alarms, RINGS_AFTER), ("retries", gaps, RETRIED_AFTER)] {
            let (soonest, latest): (f64, f64) =
                sqlx::query_as(&sql).fetch_one(self.store.pool()).await.expect("the database answers");
            let least = least as f64;
            assert!(
                soonest > least - UNIT && latest < least + LATE,
                "{what} took {soonest} s to {latest} s, not {least} s"
            );
        }
        let tries =
            "SELECT count(*) FROM (SELECT FROM try GROUP BY id HAVING count(*) = 1 + (id % 4 = 0)::int) AS tries";
        assert_eq!(self.number(tries).await, messages, "two tries of every fourth, one of the others");
        assert_eq!(self.number("SELECT count(*) FROM sagabus.held").await, 0);
        let heard = || self.heard.lock().expect("nobody panics with this lock").clone();
        eventually("all events", || async { (heard().len() as i64 == messages).then_some(()) }).await;
        assert!(
            heard().values().all(|times| *times == 1),
            "an event went out twice: a lease was stolen: {:?}",
            heard()
        );
    }
}

/// R-045: two processes of a service, one an hour ahead, the other an hour behind.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(clock), ignore = "there is no C compiler")]
async fn r_045_processes_an_hour_ahead_and_behind_follow_the_databases_clock() {
    const MESSAGES: i64 = 100;
    let town = Town::create().await;
    let clocks = [HOUR, -HOUR].map(Clock::wrong_by);
    let _behind = town.start(&clocks[1], 1).await;
    let _ahead = town.start(&clocks[0], 2).await;
    town.send(0..MESSAGES as u64).await;
    town.all_in_time(MESSAGES).await;
    let workers = "SELECT count(DISTINCT handled_by) FROM sagabus.inbox";
    assert_eq!(town.number(workers).await, 2, "both worked");
    // the clocks are really wrong
    for differs in ["process_at - at > interval '59 minutes'", "at - process_at > interval '59 minutes'"] {
        assert!(town.number(&format!("SELECT count(*) FROM try WHERE {differs}")).await > 0, "{differs}");
    }

    // the retention is half an hour: one row is older, all others are young, and each start sweeps
    let rows = town.number("SELECT count(*) FROM sagabus.inbox").await;
    for (n, clock) in clocks.iter().enumerate() {
        let old = "UPDATE sagabus.inbox SET claimed_at = clock_timestamp() - interval '31 minutes',
            handled_at = clock_timestamp() - interval '31 minutes' WHERE message_id = ";
        town.store.pool().execute(&*format!("{old} 'try-{n}'")).await.expect("the database answers");
        let _third = town.start(clock, 3).await;
        town.becomes(0, &format!("SELECT count(*) FROM sagabus.inbox WHERE message_id = 'try-{n}'")).await;
        let sign_off = "DELETE FROM sagabus.process WHERE started_at = (SELECT max(started_at) FROM sagabus.process)";
        town.store.pool().execute(sign_off).await.expect("the database answers"); // it is killed
    }
    assert_eq!(town.number("SELECT count(*) FROM sagabus.inbox").await, rows - 2, "young rows stay");
}

/// R-045: a clock that is set back while alarms and retries are on their way, and then forward.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(clock), ignore = "there is no C compiler")]
async fn r_045_a_clock_that_is_set_back_while_the_process_runs_changes_nothing() {
    const MESSAGES: i64 = 40;
    let town = Town::create().await;
    let clock = Clock::wrong_by(0);
    let _process = town.start(&clock, 1).await;
    town.send(0..MESSAGES as u64).await;
    town.becomes(MESSAGES, "SELECT count(DISTINCT id) FROM try").await;
    town.becomes(MESSAGES, "SELECT count(*) FROM sagabus.saga").await;
    clock.step_to(-HOUR);
    town.all_in_time(MESSAGES).await;
    let set_back = "SELECT count(*) FROM try WHERE at - process_at > interval '59 minutes'";
    assert!(town.number(set_back).await > 0, "its clock was set back");
    clock.step_to(HOUR);
    town.send(MESSAGES as u64..MESSAGES as u64 + 10).await;
    town.all_in_time(MESSAGES + 10).await;
}
