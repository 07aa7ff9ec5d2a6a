//! `cargo xtask`: what contributors and CI run.
//!
//! - `test`: finds or installs RabbitMQ, PostgreSQL and Chromium, starts the servers on free ports, runs all tests,
//!   adds up the results
//! - `up`: only starts the servers, and prints the environment variables that the tests need
//! - `conformance`: runs the tests that bear a number of docs/conformance.md
//! - `lint`: checks what no compiler checks in the sources
//! - `simulate`: runs seeds of the simulated processes
//! - `fuzz`: gives changed input to everything that reads what others wrote
//! - `faults`: kills and disturbs the ordering sample and its servers, and audits the books
//! - `new-user`: follows the README and docs/book/first-saga.md in an empty folder, as a new user would, expands
//!   template/, and builds copies of the samples

mod conformance;
mod copies;
mod faults;
mod first_saga;
mod lint;
mod new_user;
mod services;
mod simulate;
mod summary;
mod template;
mod test;

use anyhow::{Context, Result};
use services::Services;
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const HELP: &str = "cargo xtask test [ARGUMENTS OF cargo test]   run all tests; sets up RabbitMQ and PostgreSQL first
cargo xtask up                               start RabbitMQ and PostgreSQL, print their addresses, wait for Ctrl-C
cargo xtask conformance [AREA …]              run what docs/conformance.md lists; AREA is a first letter, `S`
cargo xtask lint                             check the length of lines and of source files
cargo xtask simulate [--seeds N] [--from S]  simulate orders from seed S on, and a fifth as
                                             many parcels; 10000 from 0
cargo xtask fuzz [--seeds N] [--from S]      give changed input to every reader of foreign bytes, 1000000 from 0
cargo xtask faults [--quick] [--seed N] [--json] [NAME …]
                                             run the ordering sample under faults, audit it, print a table
cargo xtask new-user                         follow the README and the tutorial, expand template/, copy the samples";

/// How the variables begin that `cargo run` sets for the program it runs.
const OF_THE_PACKAGE: [&str; 5] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "OUT_DIR"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "test" => test::run(rest),
        Some((command, [])) if command == "up" => up(),
        Some((command, areas)) if command == "conformance" => conformance::run(areas),
        Some((command, [])) if command == "lint" => root().and_then(|root| lint::run(&root)),
        Some((command, rest)) if command == "faults" => faults::run(rest),
        Some((command, rest)) if command == "simulate" => simulate::run(&simulate::SIMULATE, rest),
        Some((command, rest)) if command == "fuzz" => simulate::run(&simulate::FUZZ, rest),
        Some((command, [])) if command == "new-user" => root().and_then(|root| new_user::run(&root)),
        Some((command, [])) if matches!(command.as_str(), "help" | "--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up() -> Result<()> {
    let services = Services::start()?;
    for (name, value) in services.environment() {
        println!("export {name}={value}");
    }
    loop {
        std::thread::park();
    }
}

/// The repository.
fn root() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().nth(2).context("xtask lies two folders below the repository's root")?;
    Ok(root.canonicalize()?)
}

/// Cargo, as it is when it is called by hand. What `cargo run` told this program about its own package is no news for
/// others: *ring*'s build script asks for it, and with other answers everything that depends on it is compiled anew.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THE_PACKAGE.iter().any(|start| name.starts_with(start))) {
            cargo.env_remove(name);
        }
    }
    cargo
}
