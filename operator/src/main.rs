//! `sagabus`: looks into the outbox, the sagas and the held messages of running services.

mod commands;
mod show;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use outbox::open;
use saga_core::Inspect;
use std::process::ExitCode;

/// Looks into the tables of Sagabus endpoints, on PostgreSQL and SQLite.
#[derive(Parser)]
#[command(version, name = "sagabus")]
struct Cli {
    /// A database, `postgres://user@host/database` or `sqlite:PATH`; several times for several services
    #[arg(long, value_name = "URL", env = "SAGABUS_DATABASE_URL", value_delimiter = ' ', global = true)]
    database: Vec<String>,
    /// JSON on stdout and nothing else
    #[arg(long, global = true)]
    json: bool,
    /// List at most so many rows of each database
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000), global = true)]
    limit: i64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Outbox, timers and held messages per endpoint, instances per saga and state
    Status,
    /// Messages that are not confirmed, or not due
    Outbox {
        #[command(subcommand)]
        what: Option<Outbox>,
    },
    /// Saga instances
    Sagas {
        #[command(subcommand)]
        what: Option<Sagas>,
    },
    /// Messages that wait: for a state, an instance, or a person
    Held {
        #[command(subcommand)]
        what: Option<Held>,
    },
}

#[derive(Subcommand)]
enum Outbox {
    /// Rows by due time (the default)
    List,
    /// One row with its body
    Show {
        /// The row's id
        id: String,
    },
}

#[derive(Subcommand)]
enum Sagas {
    /// Instances, last changed first (the default)
    List {
        /// Only of this saga
        #[arg(long)]
        saga: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
        /// Only paused ones
        #[arg(long)]
        paused: bool,
        /// Only those that are not done
        #[arg(long)]
        open: bool,
    },
    /// State, data, timers, held messages and the timeline of one instance
    Show {
        /// The saga's name
        saga: String,
        /// The instance's id
        id: String,
    },
}

#[derive(Subcommand)]
enum Held {
    /// Held messages in order of arrival (the default)
    List,
    /// One held message with its body and error
    Show {
        /// The message's id
        id: String,
    },
    /// Have a held message handled again
    Retry {
        /// The message's id
        id: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "no reason given")]
        reason: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// One of the databases given.
struct Database {
    url: String,
    store: Box<dyn Inspect>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sagabus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<bool> {
    if cli.database.is_empty() {
        eprintln!("sagabus: say which database: --database postgres://user@host/database or --database sqlite:PATH");
        std::process::exit(2);
    }
    let mut databases = Vec::new();
    for url in &cli.database {
        databases.push(Database { url: without_password(url), store: open(url).await? });
    }
    let (json, limit) = (cli.json, cli.limit);
    match cli.command {
        Command::Status => commands::status(&databases, json).await,
        Command::Outbox { what: None | Some(Outbox::List) } => commands::outbox_list(&databases, limit, json).await,
        Command::Outbox { what: Some(Outbox::Show { id }) } => commands::outbox_show(&databases, &id, json).await,
        Command::Sagas { what: None } => commands::sagas_list(&databases, &Default::default(), limit, json).await,
        Command::Sagas { what: Some(Sagas::List { saga, state, paused, open }) } => {
            let filter = saga_core::InstanceFilter { saga, state, paused, open };
            commands::sagas_list(&databases, &filter, limit, json).await
        }
        Command::Sagas { what: Some(Sagas::Show { saga, id }) } => {
            commands::sagas_show(&databases, &saga, &id, json).await
        }
        Command::Held { what: None | Some(Held::List) } => commands::held_list(&databases, limit, json).await,
        Command::Held { what: Some(Held::Show { id }) } => commands::held_show(&databases, &id, json).await,
        Command::Held { what: Some(Held::Retry { id, reason, dry_run }) } => {
            if id.is_empty() {
                bail!("an empty id");
            }
            commands::held_retry(&databases, &id, &reason, dry_run, json).await
        }
    }
}

/// The address as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let Some((user, host)) = rest.rsplit_once('@') else { return url.into() };
    format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default())
}
