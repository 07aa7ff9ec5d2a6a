//! `cargo xtask test`.

use crate::{cargo, services::Services, summary::Summary};
use anyhow::{Context, Result, bail};
use servers::{Chromium, INSTALL_BROWSER, can_install};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{ExitStatus, Stdio},
};

/// Names the file in which tests note that they were skipped.
const SKIPS: &str = "SAGABUS_TEST_SKIPS";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let has = |names: &[&str]| arguments.iter().any(|argument| names.contains(&argument.as_str()));
    browser()?;
    let services = Services::start()?;
    // the whole-system tests run these programs
    let build = cargo().args(["build", "--workspace", "--all-targets"]).status();
    let build = build.context("cannot run cargo")?;
    if !build.success() {
        bail!("`cargo build` failed");
    }
    let mut all = vec!["test"];
    if !has(&["-p", "--package", "--workspace"]) {
        all.push("--workspace");
    }
    all.extend(arguments.iter().map(String::as_str));
    let (status, summary) = test(&all, &services)?;
    if has(&["--no-run", "--list", "--help", "-h"]) && status.success() {
        return Ok(());
    }
    println!("\n{summary}");
    if summary.failures() > 0 && !has(&["--no-fail-fast"]) {
        bail!("tests failed, and no test program was run after the first with a failure: --no-fail-fast runs all");
    } else if summary.failures() > 0 {
        bail!("tests failed");
    } else if !status.success() {
        bail!("`cargo {}` failed", all.join(" "));
    } else if !summary.any_ran() {
        bail!("no test ran: the filter matches none, or all were skipped");
    }
    Ok(())
}

/// One test drives a browser: it fails without, and says so.
fn browser() -> Result<()> {
    if Chromium::find().is_none() {
        if can_install() {
            Chromium::install()?;
        } else {
            println!("no Chromium: the test of the dashboard in a browser will fail; `{INSTALL_BROWSER}` installs it");
        }
    }
    Ok(())
}

/// Runs `cargo test`, shows what it prints and adds up the results.
fn test(arguments: &[&str], services: &Services) -> Result<(ExitStatus, Summary)> {
    let skips = std::env::temp_dir().join(format!("sagabus-skips-{}", std::process::id()));
    fs::write(&skips, "")?;
    let mut child = cargo()
        .args(arguments)
        .envs(services.environment())
        .env(SKIPS, &skips)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut summary = Summary::default();
    let mut output = BufReader::new(child.stdout.take().context("the output is piped")?);
    let (mut line, mut shown) = (Vec::new(), std::io::stdout());
    while output.read_until(b'\n', &mut line)? > 0 {
        shown.write_all(&line)?;
        summary.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait()?;
    summary.read_skips(&fs::read_to_string(&skips)?);
    fs::remove_file(&skips)?;
    Ok((status, summary))
}
