//! `embedded`: the three services in one process on SQLite files, compared with the same loop written by hand.

use crate::{
    bus,
    compare::{Figures, round},
    cpu::Cpu,
    load::Timed,
    work::{
        Came, CreateShippingLabel, MakePayment, OrderPlaced, Outgoing, PaymentCompleted, Service, ShippingLabelCreated,
        step,
    },
};
use anyhow::{Context, Result, bail};
use saga_core::Message;
use serde::Serialize;
use sqlx::{Connection as _, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

/// Messages in one transaction of the loop by hand.
const BATCH_MAX: usize = 200;
/// Sagas before the clock starts.
const WARM_UP: usize = 500;
/// The run has failed when no order reaches its end for this long.
const STALLED: Duration = Duration::from_secs(60);
/// Orders that one session of the client places.
const PLACED_TOGETHER: usize = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Embedded {
    /// Sagas of one round
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sagas: usize,
    /// Sagas under way at a time
    #[arg(long, value_name = "N", default_value_t = 1000)]
    in_flight: usize,
    /// Rounds, by hand and Sagabus in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the files go [default: a folder in the system's folder for temporary files, deleted at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    sagas: usize,
    in_flight: usize,
    rounds: u32,
    by_hand: Figures,
    sagabus: Figures,
    ratio: f64,
}

impl Embedded {
    pub(crate) async fn run(self, json: bool) -> Result<bool> {
        let root =
            self.data.clone().unwrap_or_else(std::env::temp_dir).join(format!("throughput-{}", std::process::id()));
        let (mut by_hand, mut sagabus) = (Vec::new(), Vec::new());
        for n in 1..=self.rounds {
            for ours in [false, true] {
                // a separate folder: the last one to close a file deletes its log by name
                let folder = root.join(format!("{n}-{}", if ours { "sagabus" } else { "by-hand" }));
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                let figures = if ours { self.sagabus(&folder).await } else { self.by_hand(&folder).await };
                std::fs::remove_dir_all(&folder)?;
                let figures = figures?;
                if !json {
                    println!("round {n}  {:8}{}", if ours { "sagabus" } else { "by hand" }, figures.line());
                }
                if ours { &mut sagabus } else { &mut by_hand }.push(figures);
            }
        }
        let _ = std::fs::remove_dir(&root); // `--data` may hold more
        let (by_hand, sagabus) = (Figures::median(&by_hand), Figures::median(&sagabus));
        let ratio = round(sagabus.sagas_per_s / by_hand.sagas_per_s);
        let Self { sagas, in_flight, rounds, .. } = self;
        let report = Report { sagas, in_flight, rounds, by_hand, sagabus, ratio };
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!(
                "\nmedians: by hand {:.0} sagas/s, sagabus {:.0}: {ratio} x",
                by_hand.sagas_per_s, sagabus.sagas_per_s
            );
        }
        Ok(true)
    }

    async fn sagabus(&self, folder: &Path) -> Result<Figures> {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let (endpoints, client) = bus::start_embedded(folder, ended).await?;
        let mut figures = Figures::default();
        for sagas in [WARM_UP, self.sagas] {
            let before = own();
            let began = Instant::now();
            let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
            let mut latencies = Vec::with_capacity(sagas);
            let mut placed = 0;
            let mut came = Vec::new();
            while latencies.len() < sagas {
                while placed < sagas && under_way.len() < self.in_flight {
                    let mut session = client.session().await?;
                    let room = (self.in_flight - under_way.len()).min(sagas - placed).min(PLACED_TOGETHER);
                    for _ in 0..room {
                        let order = OrderPlaced::new();
                        under_way.insert(order.order_id, Instant::now());
                        session.publish(order);
                    }
                    session.commit().await?;
                    placed += room;
                }
                let received = tokio::time::timeout(STALLED, ends.recv_many(&mut came, 1000)).await;
                if received.with_context(|| format!("no order ended for {STALLED:?}"))? == 0 {
                    bail!("the services are gone");
                }
                latencies.extend(came.drain(..).filter_map(|id| under_way.remove(&id)).map(|start| start.elapsed()));
            }
            latencies.sort_unstable();
            let timed = Timed { elapsed: began.elapsed(), latencies };
            figures = Figures::of(&timed, Cpu { own: own() - before, ..Cpu::default() });
        }
        client.stop().await?;
        for endpoint in endpoints {
            endpoint.stop().await?;
        }
        for service in Service::ALL {
            let mut database = open(&folder.join(format!("{}.db", service.name()))).await?;
            let (sql, expected) = match service {
                Service::Ordering => {
                    ("SELECT count(*) FROM sagabus_saga WHERE state = 'Shipped'", WARM_UP + self.sagas)
                }
                Service::Payment => ("SELECT count(DISTINCT order_id) FROM charge", WARM_UP + self.sagas),
                Service::Warehouse => ("SELECT count(DISTINCT order_id) FROM label", WARM_UP + self.sagas),
            };
            for (sql, expected) in [(sql, expected), ("SELECT count(*) FROM sagabus_outbox", 0)] {
                let found: i64 = sqlx::query_scalar(sql).fetch_one(&mut database).await?;
                if found != expected as i64 {
                    bail!("{}: {sql}: {found}, expected {expected}", service.name());
                }
            }
            database.close().await?;
        }
        Ok(figures)
    }

    /// One loop over three files: a batch of each service's queue in one transaction, then the messages go into the
    /// others' queues.
    async fn by_hand(&self, folder: &Path) -> Result<Figures> {
        let mut desks = Vec::new();
        for service in Service::ALL {
            let mut database = open(&folder.join(format!("{}.db", service.name()))).await?;
            database
                .execute(
                    "CREATE TABLE saga (id TEXT PRIMARY KEY, state TEXT NOT NULL, data TEXT NOT NULL) WITHOUT ROWID;
                     CREATE TABLE inbox (message_id TEXT PRIMARY KEY) WITHOUT ROWID;
                     CREATE TABLE outbox (id TEXT PRIMARY KEY, type TEXT NOT NULL, destination TEXT NOT NULL,
                        conversation TEXT NOT NULL, causation TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;",
                )
                .await?;
            if let Some(table) = service.own_table() {
                database.execute(table).await?;
            }
            desks.push(Desk { service, database, queue: VecDeque::new(), sent: Vec::new() });
        }
        let mut figures = Figures::default();
        for sagas in [WARM_UP, self.sagas] {
            let before = own();
            let began = Instant::now();
            let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
            let mut latencies = Vec::with_capacity(sagas);
            let mut placed = 0;
            while latencies.len() < sagas {
                while placed < sagas && under_way.len() < self.in_flight {
                    let order = OrderPlaced::new();
                    under_way.insert(order.order_id, Instant::now());
                    let id = Uuid::now_v7();
                    let came = Came { id, conversation: id };
                    let message = Outgoing::new(OrderPlaced::TYPE, Service::Ordering, order.order_id, came, &order);
                    desks[0].queue.push_back(message);
                    placed += 1;
                }
                for n in 0..desks.len() {
                    let (outgoing, ends) = desks[n].batch().await?;
                    desks[n].sent.extend(outgoing.iter().map(|message| message.id));
                    for message in outgoing {
                        desks[message.to as usize].queue.push_back(message);
                    }
                    latencies.extend(ends.iter().filter_map(|id| under_way.remove(id)).map(|start| start.elapsed()));
                }
            }
            latencies.sort_unstable();
            let timed = Timed { elapsed: began.elapsed(), latencies };
            figures = Figures::of(&timed, Cpu { own: own() - before, ..Cpu::default() });
        }
        for desk in desks {
            desk.database.close().await?;
        }
        Ok(figures)
    }
}

fn own() -> Duration {
    crate::cpu::of_process(std::process::id())
}

/// As durable as Sagabus opens it.
async fn open(path: &Path) -> Result<SqliteConnection> {
    use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// A service by hand.
struct Desk {
    service: Service,
    database: SqliteConnection,
    queue: VecDeque<Outgoing>,
    /// Rows of the outbox that have arrived.
    sent: Vec<Uuid>,
}

impl Desk {
    /// One transaction for what waits. Returns the messages to send, and the orders that have ended.
    async fn batch(&mut self) -> Result<(Vec<Outgoing>, Vec<Uuid>)> {
        let mut outgoing = Vec::new();
        let mut ends = Vec::new();
        if self.queue.is_empty() {
            return Ok((outgoing, ends));
        }
        let mut tx = self.database.begin_with("BEGIN IMMEDIATE").await?;
        for id in self.sent.drain(..) {
            sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id.to_string()).execute(&mut *tx).await?;
        }
        for message in self.queue.drain(..self.queue.len().min(BATCH_MAX)) {
            let came = Came { id: message.id, conversation: message.came.conversation };
            let claimed = sqlx::query("INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(message.id.to_string())
                .execute(&mut *tx)
                .await?;
            if claimed.rows_affected() == 0 {
                continue;
            }
            let send = match self.service {
                Service::Ordering => {
                    let step = step(message.kind, &message.body, came)?;
                    let state: Option<String> = sqlx::query_scalar("SELECT state FROM saga WHERE id = $1")
                        .bind(step.order_id.to_string())
                        .fetch_optional(&mut *tx)
                        .await?;
                    if state.as_deref() != step.from {
                        bail!("a message came in state {state:?}");
                    }
                    sqlx::query(
                        "INSERT INTO saga (id, state, data) VALUES ($1, $2, $3)
                         ON CONFLICT (id) DO UPDATE SET state = excluded.state, data = excluded.data",
                    )
                    .bind(step.order_id.to_string())
                    .bind(step.to)
                    .bind(step.data)
                    .execute(&mut *tx)
                    .await?;
                    if step.send.is_none() {
                        ends.push(step.order_id);
                    }
                    step.send
                }
                Service::Payment => {
                    let MakePayment { order_id, order } = serde_json::from_slice(&message.body)?;
                    let payment_id = Uuid::now_v7();
                    sqlx::query("INSERT INTO charge (order_id, payment_id, amount_cents) VALUES ($1, $2, $3)")
                        .bind(order_id)
                        .bind(payment_id)
                        .bind(order.amount_cents)
                        .execute(&mut *tx)
                        .await?;
                    let done = PaymentCompleted { order_id, payment_id, order };
                    Some(Outgoing::new(PaymentCompleted::TYPE, Service::Ordering, order_id, came, &done))
                }
                Service::Warehouse => {
                    let CreateShippingLabel { order_id, order } = serde_json::from_slice(&message.body)?;
                    let label_id = Uuid::now_v7();
                    sqlx::query("INSERT INTO label (order_id, label_id, address) VALUES ($1, $2, $3)")
                        .bind(order_id)
                        .bind(label_id)
                        .bind(&order.address)
                        .execute(&mut *tx)
                        .await?;
                    let done = ShippingLabelCreated { order_id, label_id, order };
                    Some(Outgoing::new(ShippingLabelCreated::TYPE, Service::Ordering, order_id, came, &done))
                }
            };
            if let Some(send) = &send {
                sqlx::query(
                    "INSERT INTO outbox (id, type, destination, conversation, causation, body)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(send.id.to_string())
                .bind(send.kind)
                .bind(send.to.name())
                .bind(send.came.conversation.to_string())
                .bind(send.came.id.to_string())
                .bind(&send.body)
                .execute(&mut *tx)
                .await?;
            }
            outgoing.extend(send);
        }
        tx.commit().await?;
        Ok((outgoing, ends))
    }
}
