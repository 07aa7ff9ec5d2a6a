//! Bookings that are paid by credits and card. In one process and one file unless told otherwise.

mod messages;
mod saga;
mod services;
mod tables;

use anyhow::{Context, Result, bail};
use clap::Parser;
use messages::{Patience, StayBooked};
use sagabus::{InProcess, Postgres, RabbitMq, Session, Sqlite, port::Transport};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tables::Tables;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Books stays, waits until each is paid or cancelled, and audits the books.
#[derive(Parser)]
struct Cli {
    /// Stays to book
    #[arg(long, default_value_t = 200)]
    bookings: u32,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database, `postgres://postgres@127.0.0.1:5432/bookings`, instead of a file; it must exist
    #[arg(long, value_name = "URL", requires = "broker")]
    database: Option<String>,
    /// The SQLite file, which must not exist yet; a temporary one if none is given
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<PathBuf>,
    /// Goes on with what an earlier run, of as many bookings, has left in the file or the database
    #[arg(long)]
    resume: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error,lapin=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("booking-payment: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let (Some(broker), Some(database)) = (&cli.broker, &cli.database) {
        return book(RabbitMq::new(broker)?, Postgres::new(database)?, &cli).await;
    }
    let temporary = std::env::temp_dir().join(format!("booking-payment-{}.db", Uuid::new_v4()));
    let file = match (&cli.file, cli.resume) {
        (None, true) => bail!("say which file an earlier run has left: --file FILE"),
        (Some(file), true) if !file.exists() => bail!("{} does not exist: nothing to resume", file.display()),
        (Some(file), false) if file.exists() => {
            bail!("{} exists: name another file, remove it, or --resume", file.display())
        }
        (file, _) => file.as_ref().unwrap_or(&temporary),
    };
    let store = Sqlite::open(file).await?;
    let done = book(InProcess::of(&["bookings", "credits", "bank", "customers"]), store, &cli).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

/// Runs the four services until every booking has ended; audits.
async fn book<T: Transport + Clone, Db: Tables + Clone>(transport: T, store: Db, cli: &Cli) -> Result<()> {
    let bookings = services::bookings(transport.clone(), store.clone()).start().await?;
    store.create().await.context("cannot create the tables")?;
    if !cli.resume && store.number("SELECT count(*) FROM stay").await? > 0 {
        bail!("the database has bookings of an earlier run: --resume goes on with them");
    }
    let others = [
        services::credits(transport.clone(), store.clone()).start().await?,
        services::bank(transport.clone(), store.clone()).start().await?,
        services::customers(transport, store.clone()).start().await?,
    ];

    for n in 0..u128::from(cli.bookings) {
        let stay = stay(Uuid::from_u128((n + 1) * 0x9e37_79b9_7f4a_7c15_f39c));
        let mut session: Session<Db> = bookings.session().await?;
        if Db::book(session.tx(), stay.booking_id, stay.cents).await? {
            session.publish(stay);
            session.commit().await?;
        } else {
            session.rollback().await?;
        }
    }
    println!("{} stays are booked", cli.bookings);

    all_ended(&store).await?;
    let wrong = store.audit(cli.bookings.into()).await?;
    let paid = store.number("SELECT count(*) FROM stay WHERE ended = 1").await?;
    let asked = store.number("SELECT count(DISTINCT booking_id) FROM question").await?;
    let cancelled = i64::from(cli.bookings) - paid;
    println!("{paid} paid, {cancelled} cancelled; of {asked} the bank was asked what became of the charge");
    for endpoint in others.into_iter().chain([bookings]) {
        endpoint.stop().await?;
    }
    if !wrong.is_empty() {
        bail!("the books do not add up:\n  {}", wrong.join("\n  "));
    }
    println!("the books add up: who is paid has paid the price, who is not has paid nothing");
    Ok(())
}

/// Waits as long as bookings end.
async fn all_ended<Db: Tables>(store: &Db) -> Result<()> {
    let (mut before, mut idle) = (i64::MAX, 0);
    while idle < 600 {
        let open = store.number("SELECT count(*) FROM stay WHERE ended = 0").await?;
        if open == 0 {
            return Ok(());
        }
        idle = if open < before { 0 } else { idle + 1 };
        before = open;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{before} bookings do not end; `sagabus sagas list` shows where they are")
}

fn stay(booking_id: Uuid) -> StayBooked {
    let patience = Patience {
        answer: Duration::from_secs(2),
        question: Duration::from_millis(500),
        questions_max: 20,
        card: Duration::from_secs(3),
        cards_max: 3,
    };
    StayBooked { booking_id, cents: 12_000, patience }
}
