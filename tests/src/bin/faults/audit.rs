//! The books and the messages, looked at from outside.

use crate::{
    load::Load,
    rows::SERVICES,
    system::{System, connect},
};
use anyhow::{Context, Result};
use serde_json::Value;
use sqlx::PgConnection;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tests::{plain::Plain, process::program};
use tokio::{
    process::Command,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

/// How often outboxes are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a look may take: the server may be frozen.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// What does not move for so long, while nothing disturbs it, does not move any more.
const STUCK: Duration = Duration::from_secs(60);
/// How often somebody looks whether it moves.
const SETTLING: Duration = Duration::from_millis(100);
/// How many of a list are shown.
const SHOWN: usize = 5;

/// What one row left behind.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Orders that were accepted and have not ended, and messages that are nowhere.
    pub(crate) lost: usize,
    /// Effects that happened more than once.
    pub(crate) doubled: usize,
    /// What else does not add up, and what was lost or doubled, in words.
    pub(crate) wrong: Vec<String>,
}

/// Remembers every message id that was in an outbox when it looked.
#[derive(Debug)]
pub(crate) struct Watchdog {
    seen: Arc<Mutex<BTreeSet<String>>>,
    task: AbortHandle,
}

impl Watchdog {
    /// Begins to look.
    pub(crate) fn start(system: &System) -> Self {
        let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (kept, urls) = (seen.clone(), SERVICES.map(|service| system.database_url(service)));
        let task = tokio::spawn(async move {
            let mut connections = [const { None }; SERVICES.len()];
            loop {
                sleep(LOOK).await;
                for (url, connection) in urls.iter().zip(&mut connections) {
                    match timeout(LOOK_MAX, outbox(url, connection)).await {
                        Ok(Ok(ids)) => lock(&kept).extend(ids),
                        _ => *connection = None, // the server is away, as somebody wants it
                    }
                }
            }
        });
        Self { seen, task: task.abort_handle() }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Timers are left out: they are taken back when their state is left.
async fn outbox(url: &str, kept: &mut Option<PgConnection>) -> Result<Vec<String>> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(connect(url).await?),
    };
    let ids = "SELECT DISTINCT message_id FROM sagabus.outbox WHERE kind <> 'timer'";
    Ok(sqlx::query_scalar(ids).fetch_all(connection).await?)
}

/// Waits until all orders have ended, and audits everything.
pub(crate) async fn audit(system: &System, load: &Load, watchdog: &Watchdog) -> Result<Findings> {
    let mut findings = Findings::default();
    settle(system, load).await?;
    let (unfinished, refused) = load.unfinished();
    findings.lost += unfinished.len();
    findings.wrong.extend(unfinished.iter().take(SHOWN).map(|id| format!("order {id} was accepted and does not end")));
    if refused > 0 {
        findings.wrong.push(format!("{refused} orders were never accepted"));
    }
    let books = verify(system, load.begun() - refused).await?;
    let violations = books["violations"].as_array().context("the audit lists violations")?;
    findings.wrong.extend(violations.iter().filter_map(Value::as_str).map(str::to_owned));
    for (service, tables) in [("payment", &["charge", "refund"][..]), ("warehouse", &["label"])] {
        let mut connection = connect(&system.database_url(service)).await?;
        for table in tables {
            let sql = format!("SELECT count(*) FROM {table} WHERE runs <> 1");
            let doubled: i64 = sqlx::query_scalar(&sql).fetch_one(&mut connection).await?;
            findings.doubled += doubled as usize;
        }
    }
    match in_queues(system).await? {
        0 => {
            let nowhere = nowhere(system, watchdog).await?;
            findings.lost += nowhere.len();
            findings.wrong.extend(nowhere.iter().take(SHOWN).map(|id| format!("message {id} is nowhere")));
        }
        // which they are cannot be told without taking them
        left => findings.wrong.push(format!("{left} messages are left in the queues")),
    }
    Ok(findings)
}

/// Waits until all orders have ended and all messages are settled, or until nothing moves any more. A slow machine has
/// a backlog after a fault, and that is not lost.
async fn settle(system: &System, load: &Load) -> Result<()> {
    let (mut last, mut since) = (None, Instant::now());
    while since.elapsed() < STUCK {
        let left = (load.open(), system.in_outboxes().await?, in_queues(system).await?);
        if left == (0, 0, 0) {
            break;
        }
        if last.replace(left) != Some(left) {
            since = Instant::now();
        }
        sleep(SETTLING).await;
    }
    Ok(())
}

async fn verify(system: &System, orders: usize) -> Result<Value> {
    let output = Command::new(program("ordering"))
        .arg("verify")
        .args(system.books())
        .args(["--orders", &orders.to_string(), "--wait", "30", "--json"])
        .env("RUST_LOG", "off")
        .output()
        .await?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`ordering verify` says {}", String::from_utf8_lossy(&output.stderr)))
}

/// Message ids that are known, from outboxes or because a journal says that they were sent, and that are in no outbox,
/// no inbox and not held.
async fn nowhere(system: &System, watchdog: &Watchdog) -> Result<Vec<String>> {
    let mut known = lock(&watchdog.seen).clone();
    for service in SERVICES {
        let mut connection = connect(&system.database_url(service)).await?;
        let sent = "SELECT DISTINCT e->>'id' FROM sagabus.inbox, json_array_elements(effects) e
            WHERE e->>'id' IS NOT NULL AND e->>'type' <> 'ordering.PaymentOverdue'";
        known.extend(sqlx::query_scalar::<_, String>(sent).fetch_all(&mut connection).await?);
    }
    for service in SERVICES {
        let mut connection = connect(&system.database_url(service)).await?;
        let here = "SELECT message_id FROM sagabus.inbox UNION SELECT message_id FROM sagabus.held
            UNION SELECT message_id FROM sagabus.outbox";
        for id in sqlx::query_scalar::<_, String>(here).fetch_all(&mut connection).await? {
            known.remove(&id);
        }
    }
    Ok(known.into_iter().collect())
}

/// How many messages wait in the queues, as the broker says.
async fn in_queues(system: &System) -> Result<u32> {
    let plain = Plain::connect(&system.vhost.url()).await;
    let mut left = 0;
    for service in SERVICES {
        let passive = lapin::options::QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = plain.channel.queue_declare(system.named(service).into(), passive, Default::default()).await;
        left += queue.with_context(|| format!("queue {service}"))?.message_count();
    }
    plain.close().await;
    Ok(left)
}

fn lock(seen: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
