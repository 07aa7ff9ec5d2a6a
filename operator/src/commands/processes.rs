//! `sagabus processes`: who runs, and asking one to finish and stop.

use super::{list, operations};
use crate::{
    databases::Session,
    find::{self, Found},
    table::Cell,
    text::{age, plain},
    trouble::SILENT_MS,
};
use clap::{Args, Subcommand};
use saga_core::{Counted, ErrorCode, Inspect, ProcessReport, RunningProcess};
use serde_json::json;

const HEADER: [&str; 7] = ["process", "endpoint", "host", "program", "sagabus", "started", "seen"];

#[derive(Subcommand, Default)]
pub(crate) enum Command {
    /// The processes of every endpoint, and those that have gone silent (the default)
    #[default]
    #[command(after_help = "Example: sagabus processes --json")]
    List,
    /// Ask a process to finish what it has begun, and to stop
    ///
    /// It takes no more messages, commits what runs, and signs off; others of its endpoint go on. Its program must end
    /// when its endpoint has ended (`Endpoint::ended`), or it stays there and does nothing.
    #[command(after_help = "Example: sagabus processes drain payment-4711-1f --reason 'this machine goes away'")]
    Drain(Drain),
}

#[derive(Args)]
pub(crate) struct Drain {
    /// The process, or how its name begins
    #[arg(value_name = "PROCESS")]
    owner: String,
    /// Why: recorded with who and when
    #[arg(long, value_name = "TEXT", default_value = operations::NO_REASON, allow_hyphen_values = true)]
    reason: String,
}

pub(crate) async fn run(session: &mut Session, command: Command) -> bool {
    match command {
        Command::List => listed(session).await,
        Command::Drain(arguments) => drain(session, &arguments).await,
    }
}

async fn listed(session: &mut Session) -> bool {
    let rows_max = usize::try_from(session.rows_max).unwrap_or(usize::MAX);
    let read = async |store: &dyn Inspect| {
        let mut rows = store.processes().await?;
        let there = Counted::exactly(rows.len() as u64);
        rows.truncate(rows_max);
        Ok((there, rows))
    };
    let all = session.each(read).await;
    let now_us = session.screen.view.now_us;
    list::print(session, &all, &HEADER, |row| (cells(row), note(row, now_us)), "no process runs");
    true
}

fn cells(row: &RunningProcess) -> Vec<Cell> {
    let report = ProcessReport::read(&row.process.report);
    let said = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        row.process.owner.as_str().into(),
        row.endpoint.as_str().into(),
        said(report.host).into(),
        said(report.program).into(),
        said(report.version).into(),
        Cell::At(row.process.started_at_us),
        Cell::At(row.process.seen_at_us),
    ]
}

/// What is wrong with a process.
pub(crate) fn trouble(row: &RunningProcess, now_us: i64) -> Vec<String> {
    let report = ProcessReport::read(&row.process.report);
    let silent = now_us.saturating_sub(row.process.seen_at_us) / 1000;
    let silent = (silent > SILENT_MS).then(|| format!("silent for {}: it died or is cut off", age(silent)));
    let down = report.down().map(|why| format!("the link is down: {why}"));
    let breakers = report.breakers.iter().map(|breaker| {
        let since = report.breakers_since_us.get(breaker).map(|us| format!(" for {}", age((now_us - us) / 1000)));
        format!("breaker of {breaker} is open{}", since.unwrap_or_default())
    });
    silent.into_iter().chain(down).chain(breakers).collect()
}

/// What is remarkable about a process.
pub(crate) fn note(row: &RunningProcess, now_us: i64) -> Option<String> {
    let asked = row.asked.as_ref().map(|asked| format!("asked to {asked}"));
    let lanes = ProcessReport::read(&row.process.report).lanes;
    let each = lanes.iter().map(|(what, n)| format!("{what} {n}")).collect::<Vec<_>>().join(", ");
    let lanes = (!lanes.is_empty()).then(|| format!("lanes: {each}"));
    let all: Vec<String> = trouble(row, now_us).into_iter().chain(asked).chain(lanes).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

async fn drain(session: &mut Session, arguments: &Drain) -> bool {
    let owner = &arguments.owner;
    let all = session.each(async |store: &dyn Inspect| store.processes().await).await;
    let all = find::flat(all);
    let known: Vec<String> = all.iter().map(|(_, row)| row.process.owner.clone()).collect();
    let rows = match find::one(owner, all, |(_, row)| row.process.owner.clone()) {
        Found::One(rows) => rows,
        Found::None => {
            let there = if known.is_empty() { "none runs".into() } else { format!("there are: {}", known.join(", ")) };
            session.refused(ErrorCode::NotFound, format!("no process is called {owner}; {there}"));
            return false;
        }
        Found::Several(text) => {
            session.refused(ErrorCode::Ambiguous, text);
            return false;
        }
    };
    let mut items = Vec::new();
    for (n, row) in &rows {
        let name = &row.process.owner;
        match session.database(*n).store.process_drain(name, &operations::who(), &arguments.reason).await {
            Ok(item) => items.push(item),
            Err(error) => {
                let database = session.database(*n).name.clone();
                session.failed(format!("{database}: {error}"));
            }
        }
    }
    let done = items.iter().filter(|item| item.result == "asked").count();
    if session.screen.json {
        session.screen.value(&json!({ "asked": done, "items": items }));
    } else {
        for item in &items {
            let name = plain(&item.message_id);
            session.screen.line(match item.result.as_str() {
                "asked" => format!("{name} is asked to finish and stop; it will read that within ten seconds"),
                _ => format!("{name} is gone"),
            });
        }
    }
    session.is_clean() && done == rows.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn processes_are_as_wide_as_the_terminal() {
        let now = 1_790_000_000_000_000_i64;
        let row = |owner: &str, seen_at_us: i64, report: serde_json::Value, asked: Option<&str>| -> RunningProcess {
            serde_json::from_value(json!({ "endpoint": "payment", "owner": owner, "report": report, "asked": asked,
                "started_at_us": now - 7_200_000_000_i64, "seen_at_us": seen_at_us }))
            .unwrap()
        };
        let report = json!({ "link": "up", "breakers": ["charge"], "breakers_since_us": { "charge": now - 90_000_000 },
            "host": "node-7", "program": "payment 1.4.2", "version": "0.1.0", "lanes": { "sagas": 8, "charge": 16 } });
        let rows = [
            row("payment-4711-1f0c2a9b", now - 5_000_000, report, Some("drain")),
            row("payment-4712-77aa01de", now - 600_000_000, json!(null), None),
        ];
        let mut table = Table::new(&HEADER);
        rows.iter().for_each(|process| table.row(cells(process), note(process, now)));
        crate::commands::golden_table("processes", now, &table);
    }
}
