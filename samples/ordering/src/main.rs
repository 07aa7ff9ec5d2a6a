//! The ordering sample: ordering, payment and warehouse on Sagabus. `ordering --help` tells what it does.

mod api;
mod demo;
mod ledger;
mod messages;
mod place;
mod saga;
mod serve;
mod services;
mod verify;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use ledger::Service;
use outbox::{Postgres, Sqlite};
use std::{path::PathBuf, process::ExitCode, time::Duration};
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
    /// Place orders over HTTP and wait for their end
    Place(place::Place),
    /// Audit the books: exit 1 if anything does not add up
    Verify(Verify),
}

/// Where PostgreSQL is, and by which names.
#[derive(Debug, Clone, Args)]
struct Server {
    /// A PostgreSQL server, `postgres://user@host:5432`: each service has its own database on it
    #[arg(long, value_name = "URL", env = "ORDERING_DATABASE_URL")]
    database: Option<String>,
    /// Put before the names of databases and queues, so that several systems run side by side
    #[arg(long, value_name = "P")]
    prefix: Option<String>,
}

impl Server {
    /// What is put before the names.
    fn prefix(&self) -> String {
        self.prefix.as_ref().map(|prefix| format!("{prefix}_")).unwrap_or_default()
    }

    /// The URL of a service's database.
    fn database_of(&self, server: &str, service: Service) -> String {
        let (base, query) =
            server.split_once('?').map_or((server, String::new()), |(base, query)| (base, format!("?{query}")));
        let authority = base.find("://").map_or(0, |at| at + 3);
        let base = base[authority..].find('/').map_or(base, |at| &base[..authority + at]);
        format!("{base}/{}{}{query}", self.prefix(), service.name())
    }
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    server: Server,
    /// The folder of the demo's SQLite files
    #[arg(long, value_name = "DIR", conflicts_with = "database")]
    data: Option<PathBuf>,
    /// Exactly so many orders must be there
    #[arg(long, value_name = "N")]
    orders: Option<usize>,
    /// Try again until all agrees or the time is up
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl Verify {
    async fn run(self) -> Result<bool> {
        let wait = Duration::from_secs(self.wait);
        let audit = match (&self.server.database, &self.data) {
            (Some(server), _) => {
                let open = |service| Postgres::with_connections(&self.server.database_of(server, service), 2);
                let books = verify::Books {
                    ordering: open(Service::Ordering)?,
                    payment: open(Service::Payment)?,
                    warehouse: open(Service::Warehouse)?,
                };
                books.audit_within(self.orders, wait).await?
            }
            (None, Some(data)) => demo::sqlite_books(data).await?.audit_within(self.orders, wait).await?,
            (None, None) => bail!("say which books: --database URL, or --data DIR"),
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

/// Logs to stderr, as RUST_LOG says.
fn log(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
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
            ExitCode::FAILURE
        }
    }
}

/// Opens the SQLite file of a service in `folder`.
async fn sqlite_of(folder: &std::path::Path, service: Service) -> Result<Sqlite> {
    Ok(Sqlite::open(folder.join(format!("{}.db", service.name()))).await?)
}
