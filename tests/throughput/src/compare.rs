//! The comparison: the contestants in rotation, the books after each, medians at the end.

use crate::{
    amqp,
    bus::{self, Handlers},
    cpu::Cpu,
    limit,
    load::{Client, Entrance, Load, Timed},
    naive,
    rig::Servers,
    work::{OrderPlaced, Service},
};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use outbox::Postgres;
use saga_core::{Endpoint, Message};
use serde::Serialize;
use sqlx::Connection as _;
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

/// How long the books may take to agree after the last order's end: the last outbox rows are deleted when it is quiet.
const SETTLE: Duration = Duration::from_secs(30);
/// Sagas before the clock starts: connections are made and statements prepared.
const WARM_UP: usize = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contestant {
    /// By hand, one transaction per message
    Naive,
    /// By hand, batched as well as possible
    Limit,
    /// The same, with up to 100 messages in an AMQP message
    Bundled,
    /// Sagabus
    Sagabus,
}

impl Contestant {
    const ALL: [Self; 4] = [Self::Naive, Self::Limit, Self::Bundled, Self::Sagabus];

    fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Limit => "limit",
            Self::Bundled => "bundled",
            Self::Sagabus => "sagabus",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// Sagas of one round; `naive` does a quarter of them, at the same concurrency
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sagas: usize,
    /// Sagas under way at a time (closed loop)
    #[arg(long, value_name = "N", default_value_t = 1000)]
    in_flight: usize,
    /// Sagas per second, whatever is under way (open loop; times count from the intended start)
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Rounds; the medians over all rounds are printed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these contestants
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Contestant>,
    /// How long a busy batch of `limit` and `bundled` waits for more
    #[arg(long, value_name = "MS", default_value_t = 0)]
    limit_linger: u64,
    /// The messages written by hand carry an id and a type and nothing else; without, the same envelope as those of
    /// Sagabus
    #[arg(long)]
    bare: bool,
    /// How the handlers of `sagabus` take their messages
    #[arg(long, value_enum, default_value_t = Handlers::Batch)]
    handlers: Handlers,
}

/// One run of one contestant.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    contestant: Contestant,
    #[serde(flatten)]
    figures: Figures,
    /// CPU that others than PostgreSQL, the broker and this process used, in cores: the noise of the machine.
    foreign_cores: f64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) sagas_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) cpu_us_per_saga: CpuUs,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CpuUs {
    pub(crate) postgres: f64,
    pub(crate) broker: f64,
    #[serde(rename = "self")]
    pub(crate) own: f64,
}

#[derive(Debug, Serialize)]
struct Setting {
    sagas: usize,
    naive_sagas: usize,
    in_flight: usize,
    rate: Option<f64>,
    rounds: u32,
    limit_linger_ms: u64,
    bare: bool,
    handlers: Handlers,
    messages_per_saga: u32,
    cores: usize,
    postgres: String,
    durability: &'static str,
    build: &'static str,
}

#[derive(Debug, Serialize)]
struct Report {
    setting: Setting,
    rounds: Vec<Round>,
    median: BTreeMap<&'static str, Figures>,
    /// The ratio of sagas per second to that contestant.
    ratio: BTreeMap<&'static str, f64>,
}

pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Figures {
    pub(crate) fn of(timed: &Timed, cpu: Cpu) -> Self {
        let us = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / timed.latencies.len().max(1) as f64);
        Self {
            sagas_per_s: round(timed.sagas_per_s()),
            p50_ms: round(timed.ms(0.5)),
            p95_ms: round(timed.ms(0.95)),
            p99_ms: round(timed.ms(0.99)),
            max_ms: round(timed.ms(1.0)),
            cpu_us_per_saga: CpuUs { postgres: us(cpu.postgres), broker: us(cpu.broker), own: us(cpu.own) },
        }
    }

    pub(crate) fn median(all: &[Self]) -> Self {
        let median = |get: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(get).collect();
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            match values.len() {
                0 => 0.0,
                n if n % 2 == 1 => values[middle],
                _ => round((values[middle - 1] + values[middle]) / 2.0),
            }
        };
        Self {
            sagas_per_s: median(|f| f.sagas_per_s),
            p50_ms: median(|f| f.p50_ms),
            p95_ms: median(|f| f.p95_ms),
            p99_ms: median(|f| f.p99_ms),
            max_ms: median(|f| f.max_ms),
            cpu_us_per_saga: CpuUs {
                postgres: median(|f| f.cpu_us_per_saga.postgres),
                broker: median(|f| f.cpu_us_per_saga.broker),
                own: median(|f| f.cpu_us_per_saga.own),
            },
        }
    }

    pub(crate) fn line(&self) -> String {
        let Self { sagas_per_s, p50_ms, p95_ms, p99_ms, max_ms, cpu_us_per_saga: cpu } = self;
        format!(
            "{sagas_per_s:8.0} sagas/s   p50 {p50_ms:7.1}  p95 {p95_ms:7.1}  p99 {p99_ms:7.1}  max {max_ms:7.1} ms   \
             CPU µs/saga: PostgreSQL {:5.0}  broker {:5.0}  self {:5.0}",
            cpu.postgres, cpu.broker, cpu.own
        )
    }
}

/// A contestant at work.
enum Running {
    ByHand(JoinSet<Result<()>>),
    Sagabus(Vec<Endpoint<Postgres>>),
}

impl Compare {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let only = if self.only.is_empty() { Contestant::ALL.to_vec() } else { self.only.clone() };
        let mut rounds: Vec<Round> = Vec::new();
        for n in 1..=self.rounds {
            for contestant in Contestant::ALL.into_iter().filter(|contestant| only.contains(contestant)) {
                let round = self.round(servers, contestant).await.with_context(|| contestant.name())?;
                if !json {
                    let foreign = round.foreign_cores;
                    println!("round {n}  {:8}{}   others {foreign} cores", contestant.name(), round.figures.line());
                }
                rounds.push(round);
            }
        }
        let mut median = BTreeMap::new();
        for contestant in only {
            let of = rounds.iter().filter(|round| round.contestant == contestant).map(|round| round.figures);
            median.insert(contestant.name(), Figures::median(&of.collect::<Vec<_>>()));
        }
        let mut ratio = BTreeMap::new();
        for other in ["bundled", "limit", "naive"] {
            if let (Some(ours), Some(other_median)) = (median.get("sagabus"), median.get(other)) {
                ratio.insert(other, round(ours.sagas_per_s / other_median.sagas_per_s));
            }
        }
        let report = Report { setting: self.setting(servers).await?, rounds, median, ratio };
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("\nmedians of {} rounds", self.rounds);
            for (name, figures) in &report.median {
                println!("{name:8}{}", figures.line());
            }
            for (name, ratio) in &report.ratio {
                println!("sagabus is at {ratio:.2} x {name}");
            }
        }
        Ok(true)
    }

    async fn setting(&self, servers: &Servers) -> Result<Setting> {
        let mut server = servers.server().await?;
        let postgres = sqlx::query_scalar("SELECT version()").fetch_one(&mut server).await?;
        server.close().await?;
        Ok(Setting {
            sagas: self.sagas,
            naive_sagas: self.sagas.div_ceil(4),
            in_flight: self.in_flight,
            rate: self.rate,
            rounds: self.rounds,
            limit_linger_ms: self.limit_linger,
            bare: self.bare,
            handlers: self.handlers,
            messages_per_saga: 5,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            postgres,
            durability: "quorum queues, persistent messages, publisher confirms; the server's synchronous_commit",
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        })
    }

    async fn round(&self, servers: &Servers, contestant: Contestant) -> Result<Round> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        let (ended, ends) = mpsc::unbounded_channel();
        let (mut running, entrance) = match contestant {
            Contestant::Naive => {
                let running = Running::ByHand(naive::start(servers, ended, self.bare).await?);
                (running, Entrance::queue(servers))
            }
            Contestant::Limit | Contestant::Bundled => {
                let linger = Duration::from_millis(self.limit_linger);
                let bundled = contestant == Contestant::Bundled;
                let running = Running::ByHand(limit::start(servers, ended, linger, self.bare, bundled).await?);
                (running, Entrance::queue(servers))
            }
            Contestant::Sagabus => {
                (Running::Sagabus(bus::start(servers, ended, self.handlers).await?), Entrance::event(servers))
            }
        };
        let mut client = Client::new(&connection, entrance, ends).await?;
        let sagas = if contestant == Contestant::Naive { self.sagas.div_ceil(4) } else { self.sagas };
        let load = Load { sagas, in_flight: self.in_flight, rate: self.rate };
        client.drive(Load { sagas: WARM_UP, in_flight: self.in_flight.min(WARM_UP), rate: None }).await?;

        let watch = servers.watch()?;
        let before = watch.now();
        let timed = match &mut running {
            Running::ByHand(tasks) => tokio::select! {
                timed = client.drive(load) => timed?,
                Some(failed) = tasks.join_next() => {
                    failed??;
                    bail!("a task ended by itself")
                }
            },
            Running::Sagabus(_) => client.drive(load).await?,
        };
        let cpu = watch.now().since(before);

        audit(servers, contestant, WARM_UP + sagas).await?;
        match running {
            Running::ByHand(mut tasks) => tasks.shutdown().await,
            Running::Sagabus(endpoints) => {
                for endpoint in endpoints {
                    endpoint.stop().await?;
                }
            }
        }
        servers.reset(&connection, false).await?;
        let _ = connection.close(200, "done".into()).await;
        let foreign_cores = round(cpu.foreign().as_secs_f64() / timed.elapsed.as_secs_f64());
        Ok(Round { contestant, figures: Figures::of(&timed, cpu), foreign_cores })
    }
}

impl Entrance {
    /// Straight into ordering's queue.
    fn queue(servers: &Servers) -> Self {
        let queue = servers.queue_of(Service::Ordering);
        Self { exchange: "".into(), routing_key: queue.as_str().into() }
    }

    /// The event's exchange.
    pub(crate) fn event(servers: &Servers) -> Self {
        let exchange = format!("{}{}", servers.prefix, OrderPlaced::TYPE);
        Self { exchange: exchange.as_str().into(), routing_key: "".into() }
    }
}

/// The books: every order ended once, and nothing is left over.
pub(crate) async fn audit(servers: &Servers, contestant: Contestant, sagas: usize) -> Result<()> {
    let until = Instant::now() + SETTLE;
    let schema = if contestant == Contestant::Sagabus { "sagabus." } else { "" };
    let mut wrong = Vec::new();
    loop {
        wrong.clear();
        for service in Service::ALL {
            let mut connection = servers.connection_to(service).await?;
            let mut checks = vec![(format!("SELECT count(*) FROM {schema}outbox"), 0)];
            match service {
                Service::Ordering => {
                    checks.push((format!("SELECT count(*) FROM {schema}saga WHERE state = 'Shipped'"), sagas));
                    checks.push((format!("SELECT count(*) FROM {schema}inbox"), 3 * sagas));
                }
                Service::Payment => checks.push(("SELECT count(*) FROM charge".into(), sagas)),
                Service::Warehouse => checks.push(("SELECT count(*) FROM label".into(), sagas)),
            }
            if service != Service::Ordering {
                let table = if service == Service::Payment { "charge" } else { "label" };
                checks.push((format!("SELECT count(DISTINCT order_id) FROM {table}"), sagas));
                checks.push((format!("SELECT count(*) FROM {schema}inbox"), sagas));
            }
            for (sql, expected) in checks {
                let found: i64 = sqlx::query_scalar(&sql).fetch_one(&mut connection).await?;
                if found != expected as i64 {
                    wrong.push(format!("{}: {sql}: {found}, expected {expected}", service.name()));
                }
            }
            connection.close().await?;
        }
        if wrong.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the books do not agree: {}", wrong.join("; "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
