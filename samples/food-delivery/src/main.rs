//! A food order: restaurant, payment, preparation, courier. In one process and one file unless told otherwise.

mod messages;
mod saga;
mod services;
mod tables;

use anyhow::{Context, Result, bail};
use clap::Parser;
use messages::{CancelRequested, OrderPlaced, Patience};
use sagabus::{InProcess, Postgres, RabbitMq, Session, Sqlite, port::Transport};
use std::{collections::HashSet, process::ExitCode, time::Duration};
use tables::Tables;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Places food orders, waits for their end and audits the books.
#[derive(Parser)]
struct Cli {
    /// Orders to place
    #[arg(long, default_value_t = 200)]
    orders: u32,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database, `postgres://postgres@127.0.0.1:5432/food`, instead of a file; created if missing
    #[arg(long, value_name = "URL", requires = "broker")]
    database: Option<String>,
    /// The SQLite file, which must not exist yet; a temporary one if none is given
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error,lapin=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("food-delivery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let (Some(broker), Some(database)) = (&cli.broker, &cli.database) {
        return deliver(RabbitMq::new(broker)?, Postgres::new(database)?, cli.orders).await;
    }
    let temporary = std::env::temp_dir().join(format!("food-delivery-{}.db", Uuid::new_v4()));
    let file = cli.file.as_ref().unwrap_or(&temporary);
    if file.exists() {
        bail!("{} exists: name another file, or remove it", file.display());
    }
    let store = Sqlite::open(file).await?;
    let transport = InProcess::of(&["food", "restaurant", "payment", "courier"]);
    let done = deliver(transport, store, cli.orders).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

/// Runs the four services until every order has ended; audits.
async fn deliver<T: Transport + Clone, Db: Tables + Clone>(transport: T, store: Db, orders: u32) -> Result<()> {
    let (ended, mut endings) = mpsc::unbounded_channel();
    let food = services::food(transport.clone(), store.clone(), ended).start().await?;
    store.create().await.context("cannot create the tables (an earlier run may have left them)")?;
    let others = [
        services::restaurant(transport.clone(), store.clone()).start().await?,
        services::payment(transport.clone(), store.clone()).start().await?,
        services::courier(transport, store.clone()).start().await?,
    ];

    let ids: Vec<Uuid> =
        (0..orders).map(|n| Uuid::from_u128((u128::from(n) + 1) * 0x9e37_79b9_7f4a_7c15_f39c)).collect();
    for (n, order_id) in ids.iter().enumerate() {
        let mut session: Session<Db> = food.session().await?;
        session.publish(placed(*order_id));
        if n % 10 == 9 {
            session.publish(CancelRequested { order_id: *order_id });
        }
        session.commit().await?;
    }
    println!("{orders} orders placed; every tenth is cancelled at once");

    let mut open: HashSet<Uuid> = ids.into_iter().collect();
    while !open.is_empty() {
        let next = tokio::time::timeout(Duration::from_secs(60), endings.recv()).await;
        let Some(order_id) = next.with_context(|| format!("{} orders do not end", open.len()))? else { break };
        open.remove(&order_id);
    }
    settled(&store).await?;
    let delivered = store.number("SELECT count(*) FROM ride WHERE state = 1").await?;
    let wrong = store.audit(i64::from(orders), delivered).await?;
    println!("{delivered} delivered, {} cancelled", i64::from(orders) - delivered);
    for endpoint in others.into_iter().chain([food]) {
        endpoint.stop().await?;
    }
    if !wrong.is_empty() {
        bail!("the books do not add up:\n  {}", wrong.join("\n  "));
    }
    println!("the books add up: no charge and no courier is left over");
    Ok(())
}

/// Late payments and couriers go back after the end of their order: waits until none is under way.
async fn settled<Db: Tables>(store: &Db) -> Result<()> {
    let open = "SELECT (SELECT count(*) FROM charge WHERE refunded = 0) - (SELECT count(*) FROM ride WHERE state = 1)
                + (SELECT count(*) FROM ride WHERE state NOT IN (1, 10))";
    for _ in 0..600 {
        if store.number(open).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("charges or couriers do not go back")
}

fn placed(order_id: Uuid) -> OrderPlaced {
    let patience = Patience {
        asks_max: 4,
        interval: Duration::from_millis(500),
        in_all: Duration::from_secs(3),
        payment: Duration::from_secs(5),
    };
    OrderPlaced { order_id, dish: "pizza".into(), address: "12 Harbour Road".into(), cents: 1_250, patience }
}
