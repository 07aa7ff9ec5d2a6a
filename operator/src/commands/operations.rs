//! What operators did, as lines under what they did it to.

use crate::table::{Cell, Table};
use saga_core::OperationView;

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
