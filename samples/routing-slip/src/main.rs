//! Trips by routing slip: room, car and ticket one after the other, without an orchestrator. In one process and one
//! file unless told otherwise.

mod messages;
mod services;
mod tables;

use anyhow::{Context, Result, bail};
use clap::Parser;
use sagabus::{InProcess, Postgres, RabbitMq, Session, Sqlite, port::Transport};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tables::Tables;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// Books trips, waits for their end and audits the books.
#[derive(Parser)]
struct Cli {
    /// Trips to book
    #[arg(long, default_value_t = 200)]
    trips: u32,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database, `postgres://postgres@127.0.0.1:5432/trips`, instead of a file; it must exist
    #[arg(long, value_name = "URL", requires = "broker")]
    database: Option<String>,
    /// The SQLite file, which must not exist yet; a temporary one if none is given
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<PathBuf>,
    /// Goes on with what an earlier run, of as many trips, has left in the file or the database
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
            eprintln!("routing-slip: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let (Some(broker), Some(database)) = (&cli.broker, &cli.database) {
        return travel(RabbitMq::new(broker)?, Postgres::new(database)?, &cli).await;
    }
    let temporary = std::env::temp_dir().join(format!("routing-slip-{}.db", Uuid::new_v4()));
    let file = match (&cli.file, cli.resume) {
        (None, true) => bail!("say which file an earlier run has left: --file FILE"),
        (Some(file), true) if !file.exists() => bail!("{} does not exist: nothing to resume", file.display()),
        (Some(file), false) if file.exists() => {
            bail!("{} exists: name another file, remove it, or --resume", file.display())
        }
        (file, _) => file.as_ref().unwrap_or(&temporary),
    };
    let store = Sqlite::open(file).await?;
    let done = travel(InProcess::of(&["agency", "hotel", "cars", "airline"]), store, &cli).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

/// Runs the four services until every trip has ended; audits.
async fn travel<T: Transport + Clone, Db: Tables + Clone>(transport: T, store: Db, cli: &Cli) -> Result<()> {
    let agency = services::agency(transport.clone(), store.clone());
    let agency = agency.start().await?;
    store.create().await.context("cannot create the tables")?;
    let known = store.number("SELECT count(*) FROM trip").await?;
    if known > 0 && !cli.resume {
        bail!("the database has trips of an earlier run: --resume goes on with them");
    }
    let others = [
        services::hotel(transport.clone(), store.clone()).start().await?,
        services::cars(transport.clone(), store.clone()).start().await?,
        services::airline(transport, store.clone()).start().await?,
    ];

    for n in 0..u128::from(cli.trips) {
        let trip_id = Uuid::from_u128((n + 1) * 0x9e37_79b9_7f4a_7c15_f39c);
        if known > 0 && store.is_known(trip_id).await? {
            continue;
        }
        let mut session: Session<Db> = agency.session().await?;
        Db::wanted(session.tx(), trip_id, services::wants_car(trip_id)).await?;
        session.send(services::slip(trip_id));
        session.commit().await?;
    }
    println!("{} trips are on their way", cli.trips);

    all_ended(&store).await?;
    let wrong = store.audit(cli.trips.into()).await?;
    let booked = store.number("SELECT count(*) FROM trip WHERE booked = 1").await?;
    println!("{booked} booked, {} cancelled", i64::from(cli.trips) - booked);
    for endpoint in others.into_iter().chain([agency]) {
        endpoint.stop().await?;
    }
    if !wrong.is_empty() {
        bail!("the books do not add up:\n  {}", wrong.join("\n  "));
    }
    println!("the books add up: who travels has everything, who does not has nothing");
    Ok(())
}

/// Waits as long as trips end.
async fn all_ended<Db: Tables>(store: &Db) -> Result<()> {
    let (mut before, mut idle) = (i64::MAX, 0);
    while idle < 600 {
        let open = store.number("SELECT count(*) FROM trip WHERE booked + cancelled = 0").await?;
        if open == 0 {
            return Ok(());
        }
        idle = if open < before { 0 } else { idle + 1 };
        before = open;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{before} trips do not end; `sagabus held list` shows slips that wait for a person")
}
