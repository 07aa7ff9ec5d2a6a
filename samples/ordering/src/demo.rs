//! `ordering demo`: the three services in one process.

use crate::{
    Server,
    ledger::{Ledger, Service},
    messages::OrderPlaced,
    services::{self, World},
    sqlite_of,
    verify::{self, Audit, Books},
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use outbox::{Postgres, Sqlite};
use saga_core::{Endpoint, Transport};
use serde::Serialize;
use std::{
    collections::HashMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};
use transports::{InProcess, RabbitMq};
use uuid::Uuid;

/// How long after the last order's end the books may take to agree (late charges are refunded meanwhile).
const SETTLE: Duration = Duration::from_secs(30);
/// Without any order reaching its end for so long, the demo gives up.
const STALLED: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Orders to place
    #[arg(long, value_name = "N", default_value_t = 1000)]
    orders: usize,
    #[command(flatten)]
    world: World,
    /// How long a payment may take
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    payment_timeout: f64,
    /// Orders under way at a time
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: u32,
    /// The folder of the SQLite files; orders are added to those that are there [default: target/ordering-demo]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A RabbitMQ broker, `amqp://user:password@host:5672/vhost` (needs --database)
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    #[command(flatten)]
    server: Server,
    /// One JSON object on stdout and nothing else
    #[arg(long)]
    json: bool,
}

/// A number of seconds above 0.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(seconds),
        _ => Err("a number of seconds above 0, please".into()),
    }
}

/// What this run did, and what the books say of it.
#[derive(Debug, Serialize)]
struct Summary {
    orders: usize,
    shipped: usize,
    cancelled: usize,
    charges: i64,
    refunds: i64,
    labels: i64,
    violations: Vec<String>,
    elapsed_ms: u64,
    sagas_per_s: f64,
    latency_ms: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

pub(crate) async fn sqlite_books(folder: &Path) -> Result<Books<Sqlite>> {
    if !folder.join("ordering.db").is_file() {
        bail!("there are no books in {}", folder.display());
    }
    Ok(Books {
        ordering: sqlite_of(folder, Service::Ordering).await?,
        payment: sqlite_of(folder, Service::Payment).await?,
        warehouse: sqlite_of(folder, Service::Warehouse).await?,
    })
}

impl Demo {
    pub(crate) async fn run(self) -> Result<bool> {
        match (&self.broker, &self.server.database) {
            (Some(broker), Some(server)) => {
                let mut stores = Vec::new();
                for service in Service::ALL {
                    let url = self.server.database_of(server, service);
                    Postgres::create_database(&url).await?;
                    stores.push(Postgres::new(&url)?);
                }
                let broker = RabbitMq::new(broker)?.with_prefix(self.server.prefix());
                self.with(broker.clone(), broker.clone(), broker, stores).await
            }
            (None, Some(_)) => {
                bail!("--database needs --broker: in one process without a broker the services use SQLite files")
            }
            _ => {
                let folder = self.data.clone().unwrap_or_else(|| PathBuf::from("target/ordering-demo"));
                std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                let mut stores = Vec::new();
                for service in Service::ALL {
                    stores.push(sqlite_of(&folder, service).await?);
                }
                let bus = InProcess::of(&Service::ALL.map(Service::name));
                self.with(bus.clone(), bus.clone(), bus, stores).await
            }
        }
    }

    async fn with<Db: Ledger>(
        self,
        t1: impl Transport,
        t2: impl Transport,
        t3: impl Transport,
        stores: Vec<Db>,
    ) -> Result<bool> {
        let [ordering, payment, warehouse]: [Db; 3] =
            stores.try_into().map_err(|_| anyhow!("three services, three stores"))?;
        let books = Books { ordering: ordering.clone(), payment: payment.clone(), warehouse: warehouse.clone() };
        for (service, store) in Service::ALL.into_iter().zip([&ordering, &payment, &warehouse]) {
            store.create_tables(service).await?;
        }
        let (ended, end) = mpsc::unbounded_channel();
        let timeout = Duration::from_secs_f64(self.payment_timeout);
        let ordering = services::ordering(t1, ordering, Some(ended)).start().await?;
        let payment = services::payment(t2, payment, self.world, timeout).start().await?;
        let warehouse = services::warehouse(t3, warehouse, self.world).start().await?;

        let before = books.audit_within(None, Duration::ZERO).await?;
        let ordering = Arc::new(ordering);
        let (elapsed, latencies) = self.place(ordering.clone(), end, timeout).await?;
        let after = books.audit_within(Some(before.orders + self.orders), SETTLE).await?;

        let ordering = Arc::into_inner(ordering).context("an order is still being placed")?;
        let (a, b, c) = tokio::join!(ordering.stop(), payment.stop(), warehouse.stop());
        a.and(b).and(c)?;
        self.report(before, after, elapsed, latencies)
    }

    /// Places the orders and waits until each has reached its end.
    async fn place<Db: Ledger>(
        &self,
        ordering: Arc<Endpoint<Db>>,
        mut end: mpsc::UnboundedReceiver<Uuid>,
        timeout: Duration,
    ) -> Result<(Duration, Vec<Duration>)> {
        let progress = self.progress();
        let room = Arc::new(Semaphore::new(self.in_flight as usize));
        let began = Instant::now();
        let mut under_way: HashMap<Uuid, Instant> = HashMap::new();
        let mut latencies = Vec::with_capacity(self.orders);
        let (placing, mut placed) = mpsc::unbounded_channel();
        let mut to_place = self.orders;
        while latencies.len() < self.orders {
            tokio::select! {
                permit = room.clone().acquire_owned(), if to_place > 0 => {
                    permit?.forget();
                    to_place -= 1;
                    let order = order(timeout);
                    under_way.insert(order.order_id, Instant::now());
                    let (ordering, placing) = (ordering.clone(), placing.clone());
                    tokio::spawn(async move {
                        let placed = async { services::place(ordering.session().await?, order).await };
                        if let Err(error) = placed.await {
                            let _ = placing.send(anyhow!("an order could not be placed: {error}")); // the demo has given up
                        }
                    });
                }
                ended = end.recv() => {
                    // an order may reach an end twice (cancelled, refunded, cancelled): the first one counts
                    if let Some(start) = ended.and_then(|id| under_way.remove(&id)) {
                        latencies.push(start.elapsed());
                        room.add_permits(1);
                        progress.inc(1);
                    }
                }
                Some(error) = placed.recv() => return Err(error),
                () = tokio::time::sleep(STALLED) => bail!("no order reached its end for {STALLED:?}: {} are under way", under_way.len()),
            }
        }
        progress.finish_and_clear();
        Ok((began.elapsed(), latencies))
    }

    fn progress(&self) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} orders, {per_sec}, {elapsed}");
        ProgressBar::new(self.orders as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn report(&self, before: Audit, after: Audit, elapsed: Duration, mut latencies: Vec<Duration>) -> Result<bool> {
        latencies.sort_unstable();
        let at = |share: f64| {
            let place = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
            latencies.get(place).map_or(0.0, |latency| (latency.as_secs_f64() * 1e5).round() / 100.0)
        };
        let summary = Summary {
            orders: after.orders - before.orders,
            shipped: after.shipped - before.shipped,
            cancelled: after.cancelled - before.cancelled,
            charges: after.charges - before.charges,
            refunds: after.refunds - before.refunds,
            labels: after.labels - before.labels,
            violations: after.violations.clone(),
            elapsed_ms: elapsed.as_millis() as u64,
            sagas_per_s: (self.orders as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0,
            latency_ms: Latency { p50: at(0.5), p99: at(0.99), max: at(1.0) },
        };
        if self.json {
            println!("{}", serde_json::to_string(&summary)?);
        } else {
            println!(
                "{} orders in {:.1} s: {} sagas/s; from placed to ended: p50 {} ms, p99 {} ms, max {} ms",
                summary.orders,
                elapsed.as_secs_f64(),
                summary.sagas_per_s,
                summary.latency_ms.p50,
                summary.latency_ms.p99,
                summary.latency_ms.max
            );
            println!("the books, earlier runs included:");
            verify::print(&after);
        }
        Ok(after.violations.is_empty())
    }
}

/// A new order.
fn order(timeout: Duration) -> OrderPlaced {
    let order_id = Uuid::now_v7();
    let dice = order_id.as_bytes()[15];
    OrderPlaced {
        order_id,
        customer: format!("customer {dice}"),
        address: format!("{dice} Main Street"),
        amount_cents: 1000 + i64::from(dice) * 10,
        payment_timeout_ms: timeout.as_millis() as u64,
    }
}
