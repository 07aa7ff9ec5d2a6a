//! `sagabus outbox list`.

use super::{list, outbox_filter, sagas::spell};
use crate::{databases::Session, names, table::Cell};
use clap::Args;
use saga_core::{Inspect, OutboxFilter, OutboxView};

/// The columns of [`cells`].
pub(super) const HEADER: [&str; 6] = ["id", "kind", "type", "to", "due", "tries"];

#[derive(Args, Default)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: outbox_filter::Which,
}

pub(crate) async fn run(session: &mut Session, arguments: Arguments) -> bool {
    let mut filter = arguments.which.filter();
    if !spell(session, &mut filter.saga).await {
        return false;
    }
    let rows_max = session.rows_max;
    let read = async |store: &dyn Inspect| {
        let filter = names::outbox(store, &filter).await?;
        Ok((store.outbox_counted(&filter).await?, store.outbox(&filter, rows_max).await?))
    };
    let all = session.each(read).await;
    let none = if filter == OutboxFilter::default() { "the outbox is empty" } else { "no outbox row matches" };
    list::print(session, &all, &HEADER, |row| (cells(row), note(row)), none);
    true
}

pub(super) fn cells(row: &OutboxView) -> Vec<Cell> {
    vec![
        row.id.as_str().into(),
        row.kind.as_str().into(),
        row.type_name.as_str().into(),
        row.destination.as_str().into(),
        Cell::At(row.due_at_us),
        Cell::number(tries(row)),
    ]
}

/// For a retry, the failed runs of its message; for any other row, the tries to publish it.
pub(crate) fn tries(row: &OutboxView) -> i64 {
    if row.kind == "retry" { row.envelope["attempt"].as_i64().unwrap_or_default() } else { row.attempts }
}

/// Why the row is still there.
pub(super) fn note(row: &OutboxView) -> Option<String> {
    let waits = row.waits_for.as_ref().map(|to| format!("no queue takes what goes to {to}"));
    let parts: Vec<String> = waits.into_iter().chain(row.last_error.clone()).collect();
    if !parts.is_empty() {
        return Some(parts.join(": "));
    }
    row.lease_owner.as_ref().map(|owner| format!("being sent by {owner}"))
}
