//! `idle`: what a service costs that has nothing to do, and how soon a new process handles its first message.

use crate::{
    amqp::{self, Publish},
    bus::{self, Handlers},
    compare::round,
    cpu,
    load::Entrance,
    process,
    rig::Servers,
    work::{Came, OrderPlaced, Outgoing, Service},
};
use anyhow::{Context, Result, bail};
use saga_core::Message;
use serde::Serialize;
use sqlx::{Connection as _, Row};
use std::{process::Stdio, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

/// How long a process may take to handle its first message before we give up.
const FIRST: Duration = Duration::from_secs(30);
/// The pause between the first message and the idle time. An idle session of PostgreSQL reports its transactions up to
/// 10 s late: after less, those of the start would count.
const CALM: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    /// How long to watch
    #[arg(long, value_name = "N", default_value_t = 65)]
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    seconds: u64,
    queries_per_s: f64,
    cpu_percent_of_a_core: f64,
    resident_mib: f64,
    first_message_ms: f64,
}

impl Idle {
    pub(crate) async fn run(self, servers: &Servers, json: bool) -> Result<bool> {
        let connection = amqp::connect(&servers.broker).await?;
        servers.reset(&connection, true).await?;
        // tables and queues exist: this measures a restart, not the first start
        let (ended, _ends) = mpsc::unbounded_channel();
        for endpoint in bus::start(servers, ended, Handlers::Batch).await? {
            endpoint.stop().await?;
        }
        let (confirms, mut confirmed) = mpsc::unbounded_channel();
        let publish = amqp::publisher(&connection, confirms, true).await?;
        let Entrance { exchange, routing_key } = Entrance::event(servers);
        let (order, id) = (OrderPlaced::new(), Uuid::now_v7());
        let came = Came { id, conversation: id };
        let message = Outgoing::new(OrderPlaced::TYPE, Service::Ordering, order.order_id, came, &order);
        publish.send(Publish { exchange, routing_key, messages: vec![message], from: None })?;
        confirmed.recv().await.context("the broker confirms the first message")?;

        let began = Instant::now();
        let mut process = process::command(servers, Service::Ordering)?.stdout(Stdio::null()).spawn()?;
        let pid = process.id().context("the process runs")?;
        let mut database = servers.connection_to(Service::Ordering).await?;
        loop {
            let handled: i64 =
                sqlx::query_scalar("SELECT count(*) FROM sagabus.inbox").fetch_one(&mut database).await?;
            if handled > 0 {
                break;
            }
            if began.elapsed() > FIRST {
                bail!("the process handled nothing within {FIRST:?}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let first_message_ms = round(began.elapsed().as_secs_f64() * 1e3);
        database.close().await?;

        tokio::time::sleep(CALM).await;
        let before = (transactions(servers).await?, cpu::of_process(pid), Instant::now());
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let seconds = before.2.elapsed().as_secs_f64();
        let cpu = (cpu::of_process(pid) - before.1).as_secs_f64();
        let queries = (transactions(servers).await? - before.0) as f64;
        let report = Report {
            seconds: self.seconds,
            queries_per_s: round(queries / seconds),
            cpu_percent_of_a_core: round(100.0 * cpu / seconds),
            resident_mib: round(cpu::resident_bytes(pid) as f64 / f64::from(1 << 20)),
            first_message_ms,
        };
        drop(process.stdin.take());
        process.wait().await?;
        servers.reset(&connection, false).await?;
        if json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            let Report { seconds, queries_per_s, cpu_percent_of_a_core, resident_mib, first_message_ms } = report;
            println!(
                "an idle service for {seconds} s: {queries_per_s} queries/s, {cpu_percent_of_a_core} % of a core, \
                 {resident_mib} MiB; first message handled {first_message_ms} ms after the start of the process"
            );
        }
        Ok(true)
    }
}

/// Transactions in ordering's database so far: outside units of work each query is a transaction.
async fn transactions(servers: &Servers) -> Result<i64> {
    let mut server = servers.server().await?;
    let name = format!("{}{}", servers.prefix, Service::Ordering.name());
    let row = sqlx::query("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&mut server)
        .await?;
    server.close().await?;
    Ok(row.get(0))
}
