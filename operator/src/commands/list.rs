//! What the lists share: a table or JSON, with the database of each row, and how many rows are left out.

use crate::{
    databases::Session,
    table::{Cell, Table},
};
use serde::Serialize;

/// What a database gave: its number, how many rows match, and those that were read.
pub(super) type Read<T> = (usize, (u64, Vec<T>));

/// Prints the rows of all databases. `row` gives a row's cells, and the line below it; `none` stands for an empty list.
pub(super) fn print<T: Serialize>(
    session: &mut Session,
    all: &[Read<T>],
    header: &[&'static str],
    row: impl Fn(&T) -> (Vec<Cell>, Option<String>),
    none: &'static str,
) {
    let there: u64 = all.iter().map(|(_, (count, _))| count).sum();
    let rows: Vec<(usize, &T)> = all.iter().flat_map(|(n, (_, rows))| rows.iter().map(|row| (*n, row))).collect();
    if session.screen.json {
        let json: Vec<_> = rows.iter().map(|(n, row)| session.labelled(*n, row)).collect();
        session.screen.value(&json);
    } else {
        let table = table(session, header, rows.iter().copied(), row);
        session.screen.table(&table, session.none(none));
    }
    session.screen.shown(rows.len(), there.max(rows.len() as u64));
}

/// A table of rows, each with its database if there are several.
pub(super) fn table<'a, T: 'a>(
    session: &Session,
    header: &[&'static str],
    rows: impl IntoIterator<Item = (usize, &'a T)>,
    row: impl Fn(&T) -> (Vec<Cell>, Option<String>),
) -> Table {
    let mut table = Table::new(&session.header(header));
    for (n, view) in rows {
        let (cells, below) = row(view);
        table.row(session.label(n).map(Cell::from).into_iter().chain(cells).collect(), below);
    }
    table
}
