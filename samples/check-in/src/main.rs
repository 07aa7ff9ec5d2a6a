//! Airline check-in. In one process and one file unless told otherwise.

mod api;
mod books;
mod messages;
mod passengers;
mod saga;
mod services;

use anyhow::{Context, Result};
use api::Times;
use books::Books;
use clap::Parser;
use passengers::Answer;
use sagabus::{InProcess, Postgres, RabbitMq, Sqlite, port::Transport};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// How long the books may take to add up.
const SETTLE: Duration = Duration::from_secs(60);

/// Checks passengers in while the barcode service is down now and then; audits the books.
#[derive(Parser)]
struct Cli {
    /// Passengers who check in
    #[arg(long, default_value_t = 40)]
    passengers: u32,
    /// Seconds between two questions to a barcode service that is down; a quarter of an hour in real life
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pause: f64,
    /// Seconds that a client waits for a pass before it gets 202
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    fast: f64,
    /// Seconds until the counter opens
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    counter: f64,
    /// Send no passengers: serve until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Where to listen [default: 127.0.0.1:8080 with --serve, else a free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database that exists, `postgres://postgres@127.0.0.1:5432/check_in`, instead of a file
    #[arg(long, value_name = "URL", requires = "broker")]
    database: Option<String>,
    /// The SQLite file; a temporary one if none is given
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error,lapin=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("check-in: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let (Some(broker), Some(database)) = (&cli.broker, &cli.database) {
        return with(&cli, RabbitMq::new(broker)?, Postgres::new(database)?).await;
    }
    let temporary = std::env::temp_dir().join(format!("check-in-{}.db", Uuid::new_v4()));
    let store = Sqlite::open(cli.file.as_ref().unwrap_or(&temporary)).await?;
    let done = with(&cli, InProcess::of(&services::ALL), store).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

/// Runs the services, and either passengers or nobody.
async fn with<Db: Books>(cli: &Cli, transport: impl Transport + Clone, store: Db) -> Result<()> {
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).context("a number of seconds was expected");
    let times = Times { fast: time(cli.fast)?, patience: time(cli.counter)? };
    let address = if cli.serve { "127.0.0.1:8080" } else { "127.0.0.1:0" };
    let address = cli.listen.map_or_else(|| address.parse(), Ok)?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let api = format!("http://{}", listener.local_addr()?);

    let web = Arc::new(services::web(&transport, &store).start().await?);
    books::create(&web).await?;
    let mut running = Vec::new();
    for service in services::others(&transport, &store, time(cli.pause)?) {
        running.push(service.start().await?);
    }
    let server = tokio::spawn(axum::serve(listener, api::router(&web, times)).into_future());

    if cli.serve {
        println!("check in on {api}");
        tokio::signal::ctrl_c().await?;
    } else {
        println!("{} passengers check in", cli.passengers);
        let answers = passengers::check_in(&api, cli.passengers).await?;
        let at_once = answers.iter().filter(|answer| **answer == Answer::AtOnce).count();
        println!("{at_once} answered at once, {} pushed later", answers.len() - at_once);
        println!("the audit begins when all is settled, {} s at most", SETTLE.as_secs());
        books::clean(&store, cli.passengers, SETTLE).await?;
        println!("the books add up: every passenger has an answer, and no seat is kept without a boarding pass");
    }
    server.abort();
    running.extend(Arc::into_inner(web)); // unless a request is under way: it is left alone
    for endpoint in running {
        endpoint.stop().await?;
    }
    Ok(())
}
