//! Faults on the ordering sample: real processes, a broker and a database server that this program starts and owns.
//! Orders flow; a fault happens, again and again; then the books are audited. `cargo xtask faults` builds and runs it.
//!
//! - `rows`: the faults, as data
//! - `act`: what can be done to servers, lines, processes
//! - `system`, `processes`, `meddler`: what it is done to, and who does it
//! - `load`: orders, and when they ended
//! - `audit`: the books and the messages, from outside
//! - `report`: the table

mod act;
mod audit;
mod load;
mod meddler;
mod options;
mod processes;
mod report;
mod rows;
mod system;

use act::perform;
use anyhow::{Context, Result, ensure};
use audit::Watchdog;
use load::Load;
use options::Options;
use report::Line;
use rows::{ROWS, Row};
use servers::{INSTALL, Programs};
use std::{process::ExitCode, time::Duration};
use system::{Servers, System};
use tests::dice::Dice;
use tokio::time::{Instant, sleep};

/// How long an order may take to end after a fault, before nothing more is expected.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("faults: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all rows. Returns whether all are clean.
async fn run(options: &Options) -> Result<bool> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row)).collect();
    ensure!(!rows.is_empty(), "no fault has such a name");
    let programs = Programs::find();
    let programs = programs.with_context(|| format!("RabbitMQ and PostgreSQL must be installed here: `{INSTALL}`"))?;
    eprintln!("{} faults, seed {}: the same seed is the same choice of moments", rows.len(), options.seed);
    let (began, mut servers, mut lines) = (Instant::now(), None, Vec::new());
    for row in rows {
        let line = match one(row, options, &programs, servers.take()).await {
            Ok((line, unharmed)) => {
                servers = Some(unharmed);
                line
            }
            // the servers may be in any state: the next row starts others
            Err(error) => failed(row, &error),
        };
        eprintln!("{} ({}s)", report::line(&line), began.elapsed().as_secs());
        line.wrong.iter().for_each(|wrong| eprintln!("  WRONG: {wrong}"));
        lines.push(line);
    }
    if options.json {
        println!("{}", serde_json::json!({ "seed": options.seed, "rows": lines }));
    } else {
        println!("{}", report::HEAD);
        lines.iter().for_each(|line| println!("{}", report::line(line)));
        println!("{}", report::total(&lines));
    }
    Ok(lines.iter().all(Line::is_clean))
}

fn failed(row: &Row, error: &anyhow::Error) -> Line {
    let (injected, orders, lost, doubled, stall_ms, resume_ms, deaths) = Default::default();
    let wrong = vec![format!("the row could not be run: {error:#}")];
    Line { fault: row.name, injected, orders, lost, doubled, stall_ms, resume_ms, deaths, wrong }
}

/// Runs one row, on these servers or new ones.
async fn one(row: &Row, options: &Options, programs: &Programs, servers: Option<Servers>) -> Result<(Line, Servers)> {
    let servers = match servers {
        Some(servers) => servers,
        None => Servers::start(programs).await?,
    };
    let mut system = System::start(servers, row, options.seed).await.context("the services start")?;
    if row.kills_broker() {
        // RabbitMQ 3.10 forgets who belongs to a quorum queue that was declared seconds before it is killed: its log
        // says `leader not known` for ever after. What it was told before an orderly end it remembers.
        let broker = &mut system.servers.broker;
        tokio::task::block_in_place(|| broker.stop().and_then(|()| broker.start()))?;
    }
    let line = inject_all(row, options, &mut system).await;
    if !line.as_ref().is_ok_and(Line::is_clean) {
        eprintln!("{}", system.processes.logs(options.log_lines));
    }
    let line = line?;
    Ok((line, system.end_all().await.context("the row is cleared away")?))
}

async fn inject_all(row: &Row, options: &Options, system: &mut System) -> Result<Line> {
    let mut dice = Dice::for_the(options.seed, row.name);
    let load = Load::start(system.processes.ports(), system.database_url("ordering"), options.per_second)?;
    let watchdog = Watchdog::start(system);
    let (mut resumes, mut wrong) = (Vec::new(), Vec::new());
    // a quick run is of programs that were not optimised, on a machine that may do other things
    let resumes_within = row.resumes_within * if options.quick { 2 } else { 1 };
    let gap = (options.orders / (options.injections + 1)) as u64;
    progress(&load, dice.between(gap / 2, gap + gap / 2) as usize).await?;
    for n in 0..options.injections {
        perform(row.inject, system, &load, &mut dice).await?;
        load.ports(system.processes.ports());
        sleep(Duration::from_millis(dice.between(row.lasts_ms.0, row.lasts_ms.1))).await;
        perform(row.heal, system, &load, &mut dice).await?;
        load.ports(system.processes.ports());
        let over = Instant::now();
        let resumed = resumed(&load, over).await;
        if resumed > resumes_within {
            wrong.push(format!("injection {n}: the next order ended {resumed:?} after the fault was over"));
        }
        resumes.push(resumed);
        if resumed >= GIVE_UP {
            break;
        }
        progress(&load, dice.between(gap / 2, gap + gap / 2) as usize).await?;
    }
    let left = options.orders.saturating_sub(load.begun());
    progress(&load, left).await?;
    load.pause(true);
    let findings = audit::audit(system, &load, &watchdog).await.context("the audit")?;
    wrong.extend(findings.wrong);
    Ok(Line {
        fault: row.name,
        injected: resumes.len(),
        orders: load.begun(),
        lost: findings.lost,
        doubled: findings.doubled,
        stall_ms: load.longest_stall().as_millis() as u64,
        resume_ms: resumes.iter().max().copied().unwrap_or_default().as_millis() as u64,
        deaths: system.processes.deaths(),
        wrong,
    })
}

/// Waits until so many more orders have ended: moments are chosen by progress, not by the clock.
async fn progress(load: &Load, orders: usize) -> Result<()> {
    let target = load.ended() + orders;
    let (mut last, mut since) = (load.ended(), Instant::now());
    while load.ended() < target {
        if load.ended() > last {
            (last, since) = (load.ended(), Instant::now());
        }
        ensure!(since.elapsed() < GIVE_UP, "no order ended for {GIVE_UP:?}");
        sleep(LOOK).await;
    }
    Ok(())
}

/// How long it took until an order ended that was begun after this moment.
async fn resumed(load: &Load, over: Instant) -> Duration {
    while over.elapsed() < GIVE_UP {
        if let Some(ended) = load.next_after(over) {
            return ended - over;
        }
        sleep(LOOK).await;
    }
    GIVE_UP
}
