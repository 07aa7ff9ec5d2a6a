//! `cargo xtask test`: finds or installs RabbitMQ and PostgreSQL, starts them on free ports, and runs all tests.
//! `cargo xtask up` only starts them and prints what the tests need in the environment.

mod services;

use anyhow::{Result, bail};
use services::Services;
use std::process::{Command, ExitCode};

const HELP: &str = "cargo xtask test [ARGUMENTS OF cargo test]   run all tests; sets up RabbitMQ and PostgreSQL first
cargo xtask up                               start RabbitMQ and PostgreSQL, print their addresses, wait for Ctrl-C";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "test" => test(rest),
        Some((command, _)) if command == "up" => up(),
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

fn cargo(arguments: &[&str], services: &Services) -> Result<()> {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    let status = cargo.args(arguments).envs(services.environment()).status()?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

fn test(arguments: &[String]) -> Result<()> {
    let services = Services::start()?;
    // the whole-system tests run these programs
    cargo(&["build", "--workspace", "--all-targets"], &services)?;
    let mut all = vec!["test"];
    if !arguments.iter().any(|argument| matches!(argument.as_str(), "-p" | "--package" | "--workspace")) {
        all.push("--workspace");
    }
    all.extend(arguments.iter().map(String::as_str));
    cargo(&all, &services)
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
