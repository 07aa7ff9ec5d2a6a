//! Sagabus beside the same process written by hand, on the same broker and database, in one run.

mod amqp;
mod bus;
mod compare;
mod cpu;
mod limit;
mod load;
mod naive;
mod rig;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Sagabus beside the same order process written by hand. Without a command: `compare`.
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
    };
    Ok(if ok { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}
