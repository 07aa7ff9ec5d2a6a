//! What can be done to the system. A fault is a list of such acts, and so is its end.

use crate::{load::Load, meddler::Meddler, rows, system::System};
use anyhow::{Context, Result, ensure};
use saga_core::CrashPoint;
use servers::Stop;
use std::time::Duration;
use tests::dice::Dice;
use tokio::{task::block_in_place, time::sleep};

/// So many deadlocks in a row are no chance.
const DEADLOCKS_MAX: u32 = 10;

/// One thing that is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// All processes of a service get a signal.
    Signal(&'static str, Signal),
    /// The same for the one that started last.
    SignalOne(&'static str, Signal),
    /// Processes of a service that were told to end have ended, and are started again.
    Start(&'static str),
    /// So many processes of each service run.
    Scale(usize),
    /// Each process ends in good order and is started again, one after the other.
    Roll,
    /// A service, chosen by chance, dies when it reaches a step.
    Crash(CrashPoint),
    /// Every service that died is started again.
    StartAll,
    Broker(Power),
    Database(Power),
    /// The line of all services to the broker.
    ToBroker(Line),
    /// The line of all services to the database server.
    ToDatabase(Line),
    /// The next answers to commits get lost, each with its connection.
    SwallowCommits(u64),
    /// `rabbitmqctl`.
    Control(&'static [&'static str]),
    /// What the services may do on the broker: configure, write, read.
    Permit([&'static str; 3]),
    /// The broker closes all connections of the services.
    CloseConnections,
    /// A queue or exchange is deleted.
    Remove(&'static str, &'static str),
    /// No order is under way any more, and no message.
    Quiet,
    /// Orders are placed again after [`Act::Quiet`].
    Loud,
    /// Statements on the database server, as its owner.
    Sql(&'static [&'static str]),
    /// A statement in the database of each service, as its owner.
    InEach(&'static str),
    /// Somebody begins to interfere.
    Begin(Meddler),
    /// And ends.
    End(Meddler),
    /// One fault of each group, at once.
    Mix,
    /// The end of all of them.
    EndMix,
}

/// A signal of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Kill,
    Term,
    Stop,
    Cont,
}

/// What is done to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Power {
    Stop,
    /// Without saying goodbye.
    Kill,
    Start,
    Freeze,
    Thaw,
}

/// What is done to a line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Line {
    /// Its connections end without a word.
    Cut,
    /// Nothing passes.
    Hold,
    Release,
}

/// Does all acts, in order.
pub(crate) async fn perform(acts: &[Act], system: &mut System, load: &Load, dice: &mut Dice) -> Result<()> {
    for act in acts {
        one(*act, system, load, dice).await.with_context(|| format!("{act:?}"))?;
    }
    Ok(())
}

async fn one(act: Act, system: &mut System, load: &Load, dice: &mut Dice) -> Result<()> {
    match act {
        Act::Signal(service, signal) => system.processes.signal(service, signal, false),
        Act::SignalOne(service, signal) => system.processes.signal(service, signal, true),
        Act::Start(service) => system.processes.start(|name| name == service).await?,
        Act::StartAll => system.processes.start(|_| true).await?,
        Act::Scale(processes) => system.processes.scale(processes).await?,
        Act::Roll => system.processes.roll().await?,
        Act::Crash(step) => {
            let service = rows::SERVICES[dice.below(rows::SERVICES.len())];
            system.processes.crash(service, step, dice.between(1, 5)).await?;
        }
        Act::Broker(power) => block_in_place(|| {
            let broker = &mut system.servers.broker;
            match power {
                Power::Stop => broker.stop(),
                Power::Kill => broker.kill(),
                Power::Start => broker.start(),
                Power::Freeze => broker.freeze(),
                Power::Thaw => broker.thaw(),
            }
        })?,
        Act::Database(power) => block_in_place(|| {
            let server = &system.servers.server;
            match power {
                Power::Stop => server.stop(Stop::Fast),
                Power::Kill => server.stop(Stop::Immediate),
                Power::Start => server.start(),
                Power::Freeze => server.freeze(),
                Power::Thaw => server.thaw(),
            }
        })?,
        Act::ToBroker(line) => pull(&system.servers.to_broker, line),
        Act::ToDatabase(line) => pull(&system.servers.to_server, line),
        Act::SwallowCommits(commits) => {
            let line = &system.servers.to_server;
            let before = line.swallowed();
            line.swallow_commits(commits);
            let all = async {
                while line.swallowed() < before + commits {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(tests::PATIENCE, all).await.context("too few commits were sent")?;
        }
        Act::Control(arguments) => block_in_place(|| system.servers.broker.control(arguments)).map(drop)?,
        Act::Permit(patterns) => system.vhost.permit(patterns).await,
        Act::CloseConnections => drop(system.vhost.close_connections().await),
        Act::Remove(what, name) => system.vhost.remove(what, &system.named(name)).await,
        Act::Quiet => {
            load.pause(true);
            let quiet = async {
                while load.open() > 0 || system.in_outboxes().await? > 0 {
                    sleep(Duration::from_millis(50)).await;
                }
                anyhow::Ok(())
            };
            tokio::time::timeout(tests::PATIENCE, quiet).await.context("the orders were expected to end")??;
        }
        Act::Loud => load.pause(false),
        Act::Sql(statements) => system.servers.sql("postgres", statements).await?,
        Act::InEach(sql) => {
            for service in rows::SERVICES {
                // what changes tables may meet those who use them in a deadlock
                let mut tries = 0;
                while let Err(error) = system.servers.sql(&system.named(service), &[sql]).await {
                    tries += 1;
                    if tries == DEADLOCKS_MAX || !format!("{error:#}").contains("deadlock detected") {
                        return Err(error);
                    }
                }
            }
        }
        Act::Begin(meddler) => system.begin(meddler).await?,
        Act::End(meddler) => ensure!(system.end(meddler), "it has not begun, or is over"),
        Act::Mix => {
            system.mixed = rows::one_of_each(dice);
            for row in system.mixed.clone() {
                Box::pin(perform(row.inject, system, load, dice)).await.context(row.name)?;
            }
        }
        Act::EndMix => {
            for row in std::mem::take(&mut system.mixed) {
                Box::pin(perform(row.heal, system, load, dice)).await.context(row.name)?;
            }
        }
    }
    Ok(())
}

fn pull(proxy: &tests::proxy::Proxy, line: Line) {
    match line {
        Line::Cut => proxy.cut(),
        Line::Hold => {
            proxy.hold();
            proxy.hold_answers();
        }
        Line::Release => {
            proxy.release();
            proxy.release_answers();
        }
    }
}
