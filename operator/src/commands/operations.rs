//! What operators did, as lines under what they did it to.

use crate::table::{Cell, Table};
use saga_core::OperationView;

/// The most operations that are shown under a message or an instance.
pub(super) const ROWS_MAX: i64 = 50;

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
                Some(operation.reason.clone()),
            );
        }
    }
    table
}
