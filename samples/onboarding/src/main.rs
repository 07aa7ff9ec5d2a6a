//! A new customer: score, a person's approval, CRM, mail. In one process and one file unless told otherwise.

mod api;
mod books;
mod messages;
mod services;
mod v1;
mod v2;
mod visitors;

use anyhow::{Context, Result};
use books::Books;
use clap::Parser;
use messages::Role;
use sagabus::{
    Endpoint, InProcess, Postgres, RabbitMq, Sqlite,
    port::{InstanceFilter, Transport},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

/// How long the books may take to add up.
const SETTLE: Duration = Duration::from_secs(60);

/// Onboards customers, while version 2 of the process takes the place of version 1; audits the books.
#[derive(Parser)]
struct Cli {
    /// Visitors who apply: two thirds of them before version 2 comes
    #[arg(long, default_value_t = 40)]
    visitors: u32,
    /// Seconds until a task goes to the next role [default: 10 with --serve, else 1]
    #[arg(long, value_name = "SECONDS")]
    escalate: Option<f64>,
    /// Send no visitors: serve until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Which version of the process to serve
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2), requires = "serve")]
    version: u8,
    /// Where to listen [default: 127.0.0.1:8080 with --serve, else a free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A RabbitMQ, `amqp://guest:guest@127.0.0.1:5672`, instead of messages within the process
    #[arg(long, value_name = "URL", requires = "database")]
    broker: Option<String>,
    /// A PostgreSQL database that exists, `postgres://postgres@127.0.0.1:5432/onboarding`, instead of a file
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
            eprintln!("onboarding: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let (Some(broker), Some(database)) = (&cli.broker, &cli.database) {
        return with(&cli, RabbitMq::new(broker)?, Postgres::new(database)?, true).await;
    }
    let temporary = std::env::temp_dir().join(format!("onboarding-{}.db", Uuid::new_v4()));
    let store = Sqlite::open(cli.file.as_ref().unwrap_or(&temporary)).await?;
    let done = with(&cli, InProcess::of(&services::ALL), store, false).await;
    if cli.file.is_none() {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", temporary.display())); // whether they are left or not
        }
    }
    done
}

/// Runs the services, and either visitors or nobody.
async fn with<Db: Books>(cli: &Cli, transport: impl Transport + Clone, store: Db, side_by_side: bool) -> Result<()> {
    let (seconds, address) = if cli.serve { (10.0, "127.0.0.1:8080") } else { (1.0, "127.0.0.1:0") };
    let patience = Duration::try_from_secs_f64(cli.escalate.unwrap_or(seconds)).context("--escalate")?;
    let address = cli.listen.map_or_else(|| address.parse(), Ok)?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let api = format!("http://{}", listener.local_addr()?);

    let desk = Arc::new(services::desk(&transport, &store).start().await?);
    books::create(&desk).await?;
    let mut running = Vec::new();
    for service in services::others(&transport, &store) {
        running.push(service.start().await?);
    }
    let server = tokio::spawn(axum::serve(listener, api::router(&desk, patience)).into_future());

    if cli.serve {
        let process = match cli.version {
            1 => services::onboarding::<v1::Onboarding, Db>(&transport, &store),
            _ => services::onboarding::<v2::Onboarding, Db>(&transport, &store),
        };
        running.push(process.start().await?);
        println!("version {} serves on {api}", cli.version);
        tokio::signal::ctrl_c().await?;
    } else {
        let visits = async {
            let live = watch(&api, cli.visitors / 3);
            running.push(upgrade(&api, &transport, &store, cli.visitors, side_by_side).await?);
            books::clean(&store, cli.visitors, SETTLE).await?;
            live.await?
        };
        tokio::select! {
            visited = tokio::time::timeout(2 * SETTLE, visits) => visited.context("it does not end")??,
            stopped = decisions(&api) => stopped?,
        }
        let count = async |state| books::count(&store, state).await;
        println!("{} welcomed, {} refused", count("Welcomed").await?, count("Refused").await?);
        println!("the books add up: one mail for everybody, and the CRM knows everybody who was approved");
    }
    server.abort();
    running.extend(Arc::into_inner(desk)); // unless a request is under way: it is left alone
    for endpoint in running {
        endpoint.stop().await?;
    }
    Ok(())
}

/// Clerks, managers and directors, for ever.
async fn decisions(api: &str) -> Result<()> {
    let [clerk, manager, director] =
        [Role::Clerk, Role::Manager, Role::Director].map(|role| visitors::decide(api, role));
    tokio::try_join!(clerk, manager, director).map(drop)
}

/// Two thirds of the visitors meet version 1. When some of them wait for a clerk and others for the manager, version 2
/// comes; the last third applies.
async fn upgrade<Db: Books>(
    api: &str,
    transport: &(impl Transport + Clone),
    store: &Db,
    visitors: u32,
    side_by_side: bool,
) -> Result<Endpoint<Db>> {
    let old = services::onboarding::<v1::Onboarding, Db>(transport, store).start().await?;
    let (some, most) = (visitors / 3, visitors / 3 * 2);
    println!("version 1 runs: {most} of {visitors} visitors apply");
    visitors::apply(api, 0..some).await?;
    nobody_in(store, some, &["Scoring", "AwaitingClerk"]).await?;
    visitors::apply(api, some..most).await?;
    nobody_in(store, most, &["Scoring"]).await?;

    let start = || services::onboarding::<v2::Onboarding, Db>(transport, store).start();
    let new = if side_by_side {
        let new = start().await?;
        println!("version 2 runs beside version 1: the others apply");
        visitors::apply(api, most..visitors).await?;
        old.stop().await?;
        new
    } else {
        old.stop().await?;
        println!("version 2 takes the place of version 1: the others apply");
        let new = start().await?;
        visitors::apply(api, most..visitors).await?;
        new
    };
    Ok(new)
}

/// Tells the story of one who has to wait, if there is one among the first.
fn watch(api: &str, first: u32) -> JoinHandle<Result<()>> {
    let api = api.to_owned();
    tokio::spawn(async move {
        if u128::from(first) > visitors::SLOW {
            visitors::watch(&api, visitors::SLOW).await?;
        }
        Ok(())
    })
}

/// Waits until version 1 has moved all applicants out of these states. What a version 2 has begun in an earlier life of
/// this program is not its business.
async fn nobody_in<Db: Books>(store: &Db, applicants: u32, states: &[&str]) -> Result<()> {
    let all = InstanceFilter::default();
    loop {
        let instances = store.instances(&all, i64::from(u32::MAX)).await?;
        let is_in = |state: &str| states.contains(&state);
        if instances.len() >= applicants as usize && !instances.iter().any(|it| it.version == 1 && is_in(&it.state)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
