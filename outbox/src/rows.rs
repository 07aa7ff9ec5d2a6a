//! What reads the same on both databases.

use std::time::Duration;

/// A duration in microseconds, as the tables count time.
pub(crate) fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A row of `outbox` as a relay claims it. The columns have the same names on both databases; the types of two differ.
macro_rules! claimed_row {
    ($row:expr, $endpoint:expr, id: $id:expr, attempts: $attempts:ty) => {{
        let row = $row;
        let stored = saga_core::StoredEnvelope {
            message_id: row.get("message_id"),
            type_name: row.get("type"),
            conversation_id: row.get("conversation_id"),
            causation_id: row.get("causation_id"),
            saga: row.get("saga"),
            saga_id: row.get("saga_id"),
            entered: row.get("entered"),
            receiver: row.get("receiver"),
            sent_at_us: row.get("sent_at"),
            headers: row.get("headers"),
            body: row.get("body"),
        };
        let kind = saga_core::OutboxKind::parse(row.get("kind"))?;
        Some(saga_core::OutboxClaimed {
            id: $id,
            destination: kind.destination(row.get("destination")),
            envelope: std::sync::Arc::new(stored.restore($endpoint)),
            attempts: row.get::<$attempts, _>("attempts") as u32,
        })
    }};
}
pub(crate) use claimed_row;
