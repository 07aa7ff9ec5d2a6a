//! What the lists share: a table or JSON, with the database of each row, and how many rows are left out.

use crate::{
    databases::Session,
    table::{Cell, Table},
};
use saga_core::Counted;
use serde::Serialize;

/// What a database gave: its number, how many rows match, and those that were read.
pub(super) type Read<T> = (usize, (Counted, Vec<T>));

/// Nothing was found, but there are rows that were not looked at.
const BEYOND: &str = "nothing that was looked at matches, but there is more: name a type, a reason, a saga or an \
    endpoint, or look at everything with --limit 1001";

/// The same of groups, which no `--limit` makes look further.
pub(super) const GROUPS_BEYOND: &str = "nothing that was looked at matches, but there is more: name a type, a reason, \
    a saga or an endpoint, or look at everything with sagabus held list --limit 1001";

/// Prints the rows of all databases. `row` gives a row's cells, and the line below it; `none` stands for an empty list.
pub(super) fn print<T: Serialize>(
    session: &mut Session,
    all: &[Read<T>],
    header: &[&'static str],
    row: impl Fn(&T) -> (Vec<Cell>, Option<String>),
    none: &'static str,
) {
    print_or(session, all, header, row, [none, BEYOND]);
}

/// The same with another text for an empty list of which not everything was looked at.
pub(super) fn print_or<T: Serialize>(
    session: &mut Session,
    all: &[Read<T>],
    header: &[&'static str],
    row: impl Fn(&T) -> (Vec<Cell>, Option<String>),
    [none, beyond]: [&'static str; 2],
) {
    let there: Counted = all.iter().map(|(_, (count, _))| *count).sum();
    let rows: Vec<(usize, &T)> = all.iter().flat_map(|(n, (_, rows))| rows.iter().map(|row| (*n, row))).collect();
    // an empty list must not be taken for the whole truth
    let none = if there.more && rows.is_empty() { beyond } else { none };
    if session.screen.json {
        let json: Vec<_> = rows.iter().map(|(n, row)| session.labelled(*n, row)).collect();
        session.screen.value(&json);
    } else {
        let table = table(session, header, rows.iter().copied(), row);
        session.screen.table(&table, session.none(none));
    }
    session.screen.shown(rows.len(), there);
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
