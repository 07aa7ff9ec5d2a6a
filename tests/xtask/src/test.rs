//! `cargo xtask test`.

use crate::{cargo, services::Services, summary::Summary};
use anyhow::{Context, Result, bail};
use servers::{Chromium, INSTALL_BROWSER, can_install};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

/// The test program, and the module in it, whose tests wait for servers of their own.
const BESIDE: &str = "own_servers";
/// Names the file in which tests note that they were skipped.
const SKIPS: &str = "SAGABUS_TEST_SKIPS";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let has = |names: &[&str]| arguments.iter().any(|argument| names.contains(&argument.as_str()));
    browser()?;
    let services = Services::start()?;
    // the whole-system tests run these programs; `cargo test` would compile tests that were built by `build` once more
    compile(&["build", "--workspace", "--bins"])?;
    let mut all = vec!["test"];
    if !has(&["-p", "--package", "--workspace"]) {
        all.push("--workspace");
    }
    all.extend(arguments.iter().map(String::as_str));
    let everything = arguments.iter().all(|argument| argument == "--no-fail-fast");
    let beside = if everything {
        all.push("--all-targets"); // no doctests: they run beside, too
        compile(&[&all[..], &["--no-run"]].concat())?; // those beside would hold the lock for longer
        all.extend(["--", "--skip", BESIDE]);
        Some(Beside::start(&services)?)
    } else {
        None
    };
    let (status, mut summary) = test(&all, &services)?;
    let failed = beside.map_or_else(|| Ok(Vec::new()), |beside| beside.end(&mut summary))?;
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
    } else if !failed.is_empty() {
        bail!("{} failed: see above", failed.join(" and "));
    } else if !summary.any_ran() {
        bail!("no test ran: the filter matches none, or all were skipped");
    }
    Ok(())
}

fn compile(arguments: &[&str]) -> Result<()> {
    let compiled = cargo().args(arguments).status().context("cannot run cargo")?;
    if !compiled.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
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

/// What takes minutes, while the test programs mostly wait: doctests, what a new user does, and tests that wait for
/// servers of their own.
struct Beside(Vec<(&'static str, Child, PathBuf)>);

impl Beside {
    /// Starts them; those that compile at the lowest priority, because tests measure time.
    fn start(services: &Services) -> Result<Self> {
        let mut new_user = Command::new(std::env::current_exe().context("xtask is a file")?);
        new_user.arg("new-user");
        let mut doctests = cargo();
        // the macros' pages are doctests of `book`: there they have `sagabus`
        doctests.args(["test", "--workspace", "--doc", "--no-fail-fast", "--exclude", "sagabus-derive"]);
        let mut waiting = cargo();
        waiting.args(["test", "--workspace", "--test", BESIDE]);
        let start = |(name, priority, command): (&'static str, &str, Command)| {
            let output = std::env::temp_dir().join(format!("sagabus-{name}-{}.log", std::process::id()));
            let file = fs::File::create(&output).context("the folder for temporary files can be written")?;
            let mut nice = Command::new("nice");
            nice.args(["-n", priority]).arg(command.get_program()).args(command.get_args());
            for (variable, value) in command.get_envs() {
                match value {
                    Some(value) => nice.env(variable, value),
                    None => nice.env_remove(variable),
                };
            }
            nice.envs(services.environment()).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            Ok((name, nice.spawn().with_context(|| format!("cannot run {name}"))?, output))
        };
        let jobs = [("new-user", "19", new_user), ("doctests", "19", doctests), (BESIDE, "0", waiting)];
        jobs.into_iter().map(start).collect::<Result<_>>().map(Self)
    }

    /// Waits for them, shows what they said and adds it up. Returns the names of those that failed.
    fn end(mut self, summary: &mut Summary) -> Result<Vec<&'static str>> {
        let mut failed = Vec::new();
        for (name, mut job, output) in std::mem::take(&mut self.0) {
            let status = job.wait()?;
            let said = fs::read_to_string(&output)?;
            fs::remove_file(&output)?;
            println!("\n== {name}\n{said}");
            said.lines().for_each(|line| summary.read(line));
            if !status.success() {
                failed.push(name);
            }
        }
        Ok(failed)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        for (_, job, _) in &mut self.0 {
            let _ = job.kill().and_then(|()| job.wait()); // it has ended otherwise
        }
    }
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
