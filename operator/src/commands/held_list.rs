//! `sagabus held list`.

use super::{held_filter, list, sagas::spell};
use crate::{databases::Session, names, table::Cell};
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
    let mut filter = arguments.which.filter();
    if !spell(session, &mut filter.saga).await {
        return false;
    }
    let rows_max = if arguments.all { ALL } else { session.rows_max };
    let read = async |store: &dyn Inspect| {
        let filter = names::held(store, &filter).await?;
        Ok((store.held_counted(&filter).await?, store.held(&filter, rows_max).await?))
    };
    let all = session.each(read).await;
    let none = if filter.is_empty() { "nothing is held" } else { "no held message matches" };
    list::print(session, &all, &HEADER, row, none);
    true
}

/// A row, and why it is held.
pub(super) fn row(held: &HeldView) -> (Vec<Cell>, Option<String>) {
    (cells(held), held.error.clone())
}

fn cells(held: &HeldView) -> Vec<Cell> {
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
