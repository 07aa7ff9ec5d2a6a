//! What operators did, as lines under what they did it to.

use crate::table::{Cell, Table};
use saga_core::{Inspect, OPERATIONS_LOOKED_AT, OperationFilter, OperationView, StoreError};

/// What is recorded when nobody says why.
pub(super) const NO_REASON: &str = "no reason given";

/// The most operations that are shown under a message or an instance.
pub(super) const ROWS_MAX: i64 = 50;

/// Who acts, for the record.
pub(crate) fn who() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|who| !who.is_empty());
    let who = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(variable);
    who.unwrap_or_else(|| "an operator".into())
}

/// A reason for what cannot be undone: a blank is none.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("say why: this cannot be undone") } else { Ok(text.to_owned()) }
}

/// What operators did, last first, and whether there are older operations at which nobody looked.
pub(crate) async fn read(
    store: &dyn Inspect,
    filter: &OperationFilter,
    rows_max: i64,
) -> Result<(Vec<OperationView>, bool), StoreError> {
    Ok((store.operations(filter, rows_max).await?, store.operations_beyond(filter).await?))
}

/// What stands above them.
pub(crate) fn heading(text: &str, beyond: bool) -> String {
    let of = if beyond { format!(" (of the newest {OPERATIONS_LOOKED_AT} operations)") } else { String::new() };
    format!("{text}{of}")
}

pub(super) fn table(operations: &[OperationView]) -> Table {
    let mut table = Table::new(&["at", "who", "did", "result", "message"]);
    for operation in operations {
        for item in &operation.items {
            table.row(
                vec![
                    Cell::At(operation.at_us),
                    operation.who.as_str().into(),
                    operation.action.as_str().into(),
                    item.result.as_str().into(),
                    item.message_id.as_str().into(),
                ],
                Some(match &item.error {
                    Some(error) => format!("{}; it was held because of: {error}", operation.reason),
                    None => operation.reason.clone(),
                }),
            );
        }
    }
    table
}
