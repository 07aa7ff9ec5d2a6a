//! The ordering sample: ordering, payment and warehouse on Sagabus. `ordering --help` lists what it does.

mod api;
mod choreography;
mod demo;
#[cfg(feature = "dev")]
mod dev;
mod figures;
mod ledger;
mod messages;
mod metrics;
mod place;
mod saga;
mod serve;
mod servers;
mod services;
mod verify;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use ledger::{Ledger, Service};
use sagabus::{Postgres, Sqlite};
use servers::{DATABASE, Server, Usage, variable};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tracing_subscriber::EnvFilter;

/// Orders that are paid for and shipped, or cancelled and refunded: three services, one process, no two-phase commit.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Demo,
}

#[derive(Subcommand)]
enum Command {
    /// Run the three services in this process, place orders and audit the books (the default)
    Demo(demo::Demo),
    /// Run one service as a process on RabbitMQ and PostgreSQL
    Serve(serve::Serve),
    /// The three services and the operators' dashboard in this process, with buttons that break things
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Place orders over HTTP and wait for their end
    Place(place::Place),
    /// Audit the books: exit 1 if anything does not add up
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    server: Server,
    /// The folder of the demo's SQLite files
    #[arg(long, value_name = "DIR", conflicts_with = "database")]
    data: Option<PathBuf>,
    /// The number of orders that must be there
    #[arg(long, value_name = "N")]
    orders: Option<usize>,
    /// Try again until everything agrees or the time is up
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Verify {
    async fn run(self) -> Result<bool> {
        let wait = Duration::from_secs(self.wait);
        let audit = if let Some(data) = &self.data {
            demo::sqlite_books(data).await?.audit_within(self.orders, wait).await?
        } else {
            let server = self.server.database.clone().or_else(|| variable(DATABASE));
            let server = server.ok_or_else(|| Usage("say which books: --database URL, or --data DIR".into()))?;
            let open =
                |service| anyhow::Ok(Postgres::with_connections(&self.server.database_of(&server, service)?, 2)?);
            let books = verify::Books {
                ordering: open(Service::Ordering)?,
                payment: open(Service::Payment)?,
                warehouse: open(Service::Warehouse)?,
            };
            books.audit_within(self.orders, wait).await?
        };
        if self.json {
            println!("{}", serde_json::to_string(&audit)?);
        } else {
            verify::print(&audit);
        }
        Ok(audit.violations.is_empty())
    }
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Logs to stderr, as RUST_LOG says. The default is `level`, without lapin: lapin logs as errors what Sagabus retries
/// or reports better, and prints the bodies of messages.
fn log(format: LogFormat, level: &str) {
    let default = || EnvFilter::new(format!("{level},lapin=off,sqlx=warn"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    let colours = std::io::stderr().is_terminal() && variable("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Demo(cli.demo)) {
        Command::Demo(demo) => {
            log(LogFormat::Text, "error");
            demo.run().await
        }
        Command::Serve(serve) => {
            log(serve.log_format, "info");
            serve.run().await
        }
        #[cfg(feature = "dev")]
        Command::Dev(dev) => {
            log(LogFormat::Text, "warn");
            dev.run().await
        }
        Command::Place(place) => {
            log(LogFormat::Text, "warn");
            place.run().await
        }
        Command::Verify(verify) => {
            log(LogFormat::Text, "warn");
            verify.run().await
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ordering: {error:#}");
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Opens the SQLite file of a service in `folder`.
async fn sqlite_of(folder: &Path, service: Service) -> Result<Sqlite> {
    Ok(Sqlite::open(folder.join(format!("{}.db", service.name()))).await?)
}

/// Creates a service's tables.
async fn create_tables<Db: Ledger>(store: &Db, service: Service) -> Result<()> {
    store.create_tables(service).await.with_context(|| {
        let name = service.name();
        format!("cannot create the tables of {name} (if an older version of this sample made some, start anew)")
    })
}
