//! Sagabus compared with the same process written by hand, on the same broker and database, in one run.

mod amqp;
mod bus;
mod compare;
mod cpu;
mod distance;
mod drain;
mod embedded;
mod growth;
mod idle;
mod limit;
mod load;
mod naive;
mod parked;
mod process;
mod processes;
mod rig;
mod series;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// For all contestants alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares Sagabus with the same order process written by hand. Without a command: `compare`.
#[derive(Debug, Parser)]
#[command(name = "throughput", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    servers: rig::Servers,
    /// One JSON object on stdout and nothing else
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    compare: compare::Compare,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One transaction per message, the limit by hand, and Sagabus, in rotation
    Compare(compare::Compare),
    /// What an idle service costs, and how soon a new process handles its first message
    Idle(idle::Idle),
    /// The speed with and without a million open sagas with timers
    Parked(parked::Parked),
    /// How fast a full outbox empties, compared with a publisher by hand
    Drain(drain::Drain),
    /// In one process on SQLite files, compared with a loop by hand
    Embedded(embedded::Embedded),
    /// With one process of each service, and with several
    Processes(processes::Processes),
    /// With broker and database near, and with each packet delayed
    Distance(distance::Distance),
    /// With an inbox of millions of rows, and with a transaction that somebody holds open
    Growth(growth::Growth),
    /// One service in a process of its own, until its standard input ends
    #[command(hide = true)]
    Service { service: work::Service },
}

#[tokio::main]
async fn main() -> Result<std::process::ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    let cli = Cli::parse();
    let ok = match cli.command {
        None => cli.compare.run(&cli.servers, cli.json).await?,
        Some(What::Compare(compare)) => compare.run(&cli.servers, cli.json).await?,
        Some(What::Idle(idle)) => idle.run(&cli.servers, cli.json).await?,
        Some(What::Parked(parked)) => parked.run(&cli.servers, cli.json).await?,
        Some(What::Drain(drain)) => drain.run(&cli.servers, cli.json).await?,
        Some(What::Embedded(embedded)) => embedded.run(cli.json).await?,
        Some(What::Processes(processes)) => processes.run(&cli.servers, cli.json).await?,
        Some(What::Distance(distance)) => distance.run(&cli.servers, cli.json).await?,
        Some(What::Growth(growth)) => growth.run(&cli.servers, cli.json).await?,
        Some(What::Service { service }) => process::serve(&cli.servers, service).await?,
    };
    Ok(if ok { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}
