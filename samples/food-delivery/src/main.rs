//! A food order: restaurant, payment, preparation, courier. In one process and one file unless told otherwise.

mod messages;
mod saga;
mod saga_v2;
mod services;
mod tables;

use anyhow::{Context, Result, bail};
use clap::Parser;
use messages::{CancelRequested, OrderPlaced, Patience};
use sagabus::{
    InProcess, Postgres, RabbitMq, Saga, Session, Sqlite,
    port::{InstanceFilter, Transport},
};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};
use tables::Tables;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// How long the orders may take, and money and couriers that are under way.
const SETTLE: Duration = Duration::from_secs(60);

/// Places food orders, waits for their end and audits the books.
#[derive(Parser)]
struct Cli {
    /// Orders to place
    #[arg(long, default_value_t = 200)]
    orders: u32,
    /// The version of the process: 2 knows priority, and goes on with what 1 has begun
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    version: u8,
    /// Only tell whether this version can read every order that is stored, and list those that it cannot
    #[arg(long)]
    check: bool,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database that exists, `postgres://postgres@127.0.0.1:5432/food`, instead of a file
    #[arg(long, value_name = "URL", requires = "broker")]
    database: Option<String>,
    /// The SQLite file; a temporary one if none is given
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
        return version(&cli, RabbitMq::new(broker)?, Postgres::new(database)?).await;
    }
    let temporary = std::env::temp_dir().join(format!("food-delivery-{}.db", Uuid::new_v4()));
    let store = Sqlite::open(cli.file.as_ref().unwrap_or(&temporary)).await?;
    let done = version(&cli, InProcess::of(&["food", "restaurant", "payment", "courier"]), store).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

async fn version<Db: Tables>(cli: &Cli, transport: impl Transport + Clone, store: Db) -> Result<()> {
    match (cli.version, cli.check) {
        (1, true) => check::<saga::FoodOrder, Db>(transport, store).await,
        (1, false) => deliver::<saga::FoodOrder, Db>(transport, store, cli.orders).await,
        (_, true) => check::<saga_v2::FoodOrder, Db>(transport, store).await,
        (_, false) => deliver::<saga_v2::FoodOrder, Db>(transport, store, cli.orders).await,
    }
}

/// Before a deployment: reads what is stored, and touches nothing.
async fn check<S: Saga, Db: Tables>(transport: impl Transport + Clone, store: Db) -> Result<()> {
    let checked = services::food::<S, Db>(transport, store).check(|order| println!("{order}")).await?;
    if checked.unreadable > 0 {
        bail!("version {}: {checked}", S::VERSION);
    }
    println!("version {}: {checked}", S::VERSION);
    Ok(())
}

/// Runs the four services until every order has ended and the books add up. Orders that an earlier run has placed on
/// the same database begin nothing new.
async fn deliver<S: Saga, Db: Tables>(transport: impl Transport + Clone, store: Db, orders: u32) -> Result<()> {
    store.migrate().await?;
    store.create().await.context("cannot create the tables")?;
    let left = store.instances(&InstanceFilter { open: true, ..Default::default() }, i64::from(orders)).await?;
    let mut older: BTreeMap<&str, usize> = BTreeMap::new();
    for order in left.iter().filter(|order| i64::from(order.version) < i64::from(S::VERSION)) {
        *older.entry(&order.state).or_default() += 1;
    }
    let states: Vec<String> = older.iter().map(|(state, orders)| format!("{orders} {state}")).collect();
    let (version, older) = (S::VERSION, older.values().sum::<usize>());
    println!("version {version} finds {older} open orders of older versions: {}", states.join(", "));
    let food = services::food::<S, Db>(transport.clone(), store.clone()).start().await?;
    let others = [
        services::restaurant(transport.clone(), store.clone()).start().await?,
        services::payment(transport.clone(), store.clone()).start().await?,
        services::courier(transport, store.clone()).start().await?,
    ];

    for n in 0..orders {
        let order_id = Uuid::from_u128((u128::from(n) + 1) * 0x9e37_79b9_7f4a_7c15_f39c);
        let mut session: Session<Db> = food.session().await?;
        session.publish(placed(order_id, n % 3 == 2));
        if n % 10 == 9 {
            session.publish(CancelRequested { order_id });
        }
        session.commit().await?;
    }
    println!("{orders} orders placed; every tenth is cancelled at once, every third has priority");

    let until = Instant::now() + SETTLE;
    loop {
        // how many orders are in which state: what a dashboard would ask for
        let states = store.status().await?.instances;
        let in_state = |state: &str| states.iter().find(|it| it.state == state).map_or(0, |it| it.count);
        let wrong = store.audit(i64::from(orders), in_state("Delivered"), in_state("Cancelled")).await?;
        if wrong.is_empty() {
            println!("{} delivered, {} cancelled", in_state("Delivered"), in_state("Cancelled"));
            break;
        }
        let open: Vec<String> =
            states.iter().filter(|it| it.done == 0).map(|it| format!("{} {}", it.count, it.state)).collect();
        println!("open: {}", open.join(", "));
        if Instant::now() > until {
            bail!("the books do not add up:\n  {}", wrong.join("\n  "));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for endpoint in others.into_iter().chain([food]) {
        endpoint.stop().await?;
    }
    println!("the books add up: no charge and no courier is left over");
    Ok(())
}

fn placed(order_id: Uuid, priority: bool) -> OrderPlaced {
    let patience = Patience {
        asks_max: 4,
        interval: Duration::from_millis(500),
        in_all: Duration::from_secs(3),
        payment: Duration::from_secs(5),
    };
    OrderPlaced { order_id, dish: "pizza".into(), address: "12 Harbour Road".into(), cents: 1_250, patience, priority }
}
