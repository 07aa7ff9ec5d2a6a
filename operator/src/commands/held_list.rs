//! `sagabus held list`.

use super::held_filter;
use crate::{
    databases::Session,
    table::{Cell, Table},
};
use clap::Args;
use saga_core::{HeldView, Inspect};

/// The columns of [`cells`].
pub(super) const HEADER: [&str; 6] = ["message", "type", "reason", "receiver", "held", "runs"];
/// Rows with `--all`.
pub(super) const ALL: i64 = 100_000;

#[derive(Args, Default)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: held_filter::Which,
    /// All rows, regardless of `--limit`
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let filter = arguments.which.filter();
    let rows_max = if arguments.all { ALL } else { session.rows_max };
    let read = async |store: &dyn Inspect| Ok((store.held_count(&filter).await?, store.held(&filter, rows_max).await?));
    let all = session.each(read).await;
    let there: u64 = all.iter().map(|(_, (count, _))| count).sum();
    let rows: Vec<(usize, HeldView)> =
        all.into_iter().flat_map(|(n, (_, rows))| rows.into_iter().map(move |row| (n, row))).collect();
    if session.screen.json {
        let json: Vec<_> = rows.iter().map(|(n, row)| session.labelled(*n, row)).collect();
        session.screen.value(&json);
    } else {
        let none = session.none(if filter.is_empty() { "nothing is held" } else { "no held message matches" });
        let table = table(session, &rows);
        session.screen.table(&table, none);
    }
    session.screen.shown(rows.len(), there.max(rows.len() as u64));
    true
}

pub(super) fn table(session: &Session, rows: &[(usize, HeldView)]) -> Table {
    let mut table = Table::new(&session.header(&HEADER));
    for (n, row) in rows {
        table.row(session.label(*n).map(Cell::from).into_iter().chain(cells(row)).collect(), row.error.clone());
    }
    table
}

pub(super) fn cells(held: &HeldView) -> Vec<Cell> {
    let receiver = if held.receiver.is_empty() { "-" } else { &held.receiver };
    vec![
        held.message_id.as_str().into(),
        held.type_name.as_str().into(),
        held.reason.as_str().into(),
        receiver.into(),
        Cell::At(held.held_at_us),
        Cell::number(held.attempts),
    ]
}
