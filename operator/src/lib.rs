//! `sagabus`: looks into the outbox, the sagas and the held messages of running services, and acts on them.
//!
//! A command (`commands/`) reads views from each database (`databases.rs`) and puts them on a screen (`screen.rs`,
//! `table.rs`, `text.rs`), which is written at the end. `trouble.rs` judges a status.
//!
//! Another program can show the [`Dashboard`] itself, as `ordering dev` does.

mod bulk;
mod choice;
mod commands;
mod dashboard;
mod databases;
mod diff;
mod fields;
mod find;
mod interrupt;
mod masks;
mod names;
mod screen;
mod table;
mod text;
mod trouble;
mod webhook;

pub use dashboard::{Dashboard, Workbench};

use clap::{CommandFactory, Parser, Subcommand};
use commands::{
    check, diagram, doctor, errors, explain, export, held, migrate, outbox, processes, sagas, status, timers, versions,
    watch,
};
use databases::Session;
use saga_core::ErrorCode;
use screen::{Screen, View};
use std::process::ExitCode;

/// Looks into the tables of Sagabus endpoints, on PostgreSQL and SQLite, and acts on held messages.
///
/// Exit codes: 0 done, 1 something failed or needs a person, 2 wrong usage.
#[derive(Parser)]
#[command(version, name = "sagabus", max_term_width = 100)]
struct Cli {
    /// A database, `postgres://user@host/database` or `sqlite:PATH`; repeat it for further ones
    ///
    /// Without it, SAGABUS_DATABASE_URL is read: one address, or several separated by spaces.
    #[arg(long, value_name = "URL", global = true)]
    database: Vec<String>,
    /// JSON on stdout and nothing else: one document; of `watch` and `export` one a line, of `dashboard` its address
    #[arg(long, global = true)]
    json: bool,
    /// Times in UTC instead of the local zone
    #[arg(long, global = true)]
    utc: bool,
    /// The most rows to list from each database
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(i64).range(1..=100_000),
        global = true
    )]
    limit: i64,
    /// Show fields that programs have marked with `#[masked]`, instead of `•••`
    #[arg(long, global = true)]
    unmasked: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whether stored instances fit the sagas' definitions; with `--chart`, those of the next program
    ///
    /// It looks at states and versions. Whether each instance can be decoded, only the program itself can tell:
    /// `EndpointBuilder::check`.
    Check(check::Arguments),
    /// What is going on at each endpoint, and what needs a person
    Status(status::Arguments),
    /// What each database is, what the broker has for its endpoints, and what about them may do harm
    #[command(after_help = "Example: sagabus doctor --broker amqp://guest:guest@127.0.0.1:5672")]
    Doctor(doctor::Arguments),
    /// What the code of an error means, `SB0001` and so on, and what to do about it
    #[command(after_help = "Example: sagabus errors SB0011")]
    Errors(errors::Arguments),
    /// Prints each new trouble, and its end, until it is interrupted
    #[command(after_help = "Example: sagabus watch --every 30s --webhook https://chat.example.com/hooks/42")]
    Watch(watch::Arguments),
    /// Creates the tables, as an endpoint does when it starts
    #[command(after_help = "Example: sagabus migrate --print > sagabus.sql")]
    Migrate(migrate::Arguments),
    /// Where a message, an instance or a conversation came from and what it caused, across all databases
    #[command(after_help = "Example: sagabus explain 01997a10 --mermaid")]
    Explain(explain::Arguments),
    /// Messages that are not confirmed, or not due
    Outbox {
        #[command(subcommand)]
        what: Option<outbox::Command>,
    },
    /// Saga instances
    Sagas {
        #[command(subcommand)]
        what: Option<sagas::Command>,
    },
    /// What is due when, for which instance
    Timers {
        #[command(subcommand)]
        what: Option<timers::Command>,
    },
    /// The processes of every endpoint; asking one to finish and stop
    Processes {
        #[command(subcommand)]
        what: Option<processes::Command>,
    },
    /// The versions of each saga, their instances, and which of them may be retired
    #[command(after_help = "Example: sagabus versions --json")]
    Versions,
    /// The chart of a saga, as the newest version that has run here registered it
    #[command(after_help = "Example: sagabus diagram order-fulfilment --live --format svg > chart.svg")]
    Diagram(diagram::Arguments),
    /// Instances of a saga with their journals, a line of JSON each: for `sagabus::testing::replay`
    Export(export::Arguments),
    /// Messages that wait: for a state, an instance, a newer binary, or a person
    Held {
        #[command(subcommand)]
        what: Option<held::Command>,
    },
    /// A script that completes commands and options in a shell
    #[command(after_help = "Example: sagabus completions bash > /etc/bash_completion.d/sagabus")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The same in a browser, live
    ///
    /// On loopback whoever reaches it is you. With a token in SAGABUS_DASHBOARD_TOKEN it asks for that, and may listen
    /// elsewhere; who knows the one in SAGABUS_DASHBOARD_VIEWER_TOKEN may look and not act.
    Dashboard(dashboard::Arguments),
}

/// The whole program, `sagabus`, with the arguments and the environment of this process. Returns its exit code.
#[tokio::main(flavor = "current_thread")]
pub async fn program() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "sagabus", &mut script);
        let mut screen = Screen::new(View::of_stdout(cli.utc), cli.json);
        let script = String::from_utf8_lossy(&script).trim_end().to_owned();
        if screen.json {
            screen.value(&script)
        } else {
            screen.line(script)
        }
        return if screen.write().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Command::Errors(arguments) = &cli.command {
        let mut screen = Screen::new(View::of_stdout(cli.utc), cli.json);
        let is_known = errors::run(&mut screen, arguments);
        return if screen.write().is_ok() && is_known { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let urls = databases::addresses(&cli.database, std::env::var(databases::VARIABLE).ok());
    let mut screen = Screen::new(View::of_stdout(cli.utc), cli.json);
    if urls.is_empty() {
        screen.note(ErrorCode::Usage.told(
            "sagabus: say which database: --database postgres://user@host/database or --database sqlite:PATH, \
             or set SAGABUS_DATABASE_URL",
        ));
        let _ = screen.write(); // there is nothing on stdout
        return ExitCode::from(2);
    }
    if let Command::Migrate(arguments) = &cli.command {
        let all_is_well = migrate::run(&urls, &mut screen, arguments).await;
        let is_written = screen.write().is_ok();
        return if all_is_well && is_written { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let command = match cli.command {
        // it opens databases by itself, again and again
        Command::Dashboard(arguments) => return served(dashboard::run(&urls, arguments, cli.utc, cli.json).await),
        command => command,
    };
    let mut session = Session::open(&urls, cli.limit, screen).await;
    session.unmasked = cli.unmasked;
    let all_is_well = match command {
        Command::Check(arguments) => check::run(&mut session, &arguments).await,
        Command::Status(arguments) => status::run(&mut session, &arguments).await,
        Command::Explain(arguments) => explain::run(&mut session, &arguments).await,
        Command::Timers { what } => timers::run(&mut session, what.unwrap_or_default()).await,
        Command::Processes { what } => processes::run(&mut session, what.unwrap_or_default()).await,
        Command::Doctor(arguments) => doctor::run(&mut session, &arguments).await,
        Command::Watch(arguments) => watch::run(&mut session, arguments).await,
        // done before the databases are opened
        Command::Migrate(_) | Command::Completions { .. } | Command::Errors(_) => true,
        Command::Versions => versions::run(&mut session).await,
        Command::Diagram(arguments) => diagram::run(&mut session, &arguments).await,
        Command::Outbox { what } => outbox::run(&mut session, what.unwrap_or_default()).await,
        Command::Sagas { what } => sagas::run(&mut session, what.unwrap_or_default()).await,
        Command::Export(arguments) => export::run(&mut session, arguments).await,
        Command::Held { what } => held::run(&mut session, what.unwrap_or_default()).await,
        Command::Dashboard(_) => unreachable!("it was served above"),
    };
    match session.finish() {
        Ok(clean) if clean && all_is_well => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("sagabus: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn served(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("sagabus: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_id_may_be_negative() {
        let cli = Cli::try_parse_from(["sagabus", "sagas", "show", "alarm", "-5"]).unwrap();
        let Command::Sagas { what: Some(sagas::Command::Show(show)) } = cli.command else { panic!("sagas show") };
        assert_eq!(show.id, "-5");
    }

    #[test]
    fn a_path_with_blanks_is_one_database() {
        let cli = Cli::try_parse_from(["sagabus", "--database", "sqlite:/100% data?/ä b.db", "status"]).unwrap();
        assert_eq!(cli.database, ["sqlite:/100% data?/ä b.db"]);
    }
}
