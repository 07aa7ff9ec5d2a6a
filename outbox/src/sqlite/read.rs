//! What a batch must know.

use super::now_us;
use saga_core::{Found, HeldReason, HeldRow, InboxFound, InboxResult, InstanceKey, InstanceRow, Keys, StoredEnvelope};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use std::sync::Arc;

pub(super) async fn read(connection: &mut SqliteConnection, keys: &Keys) -> Result<Found, sqlx::Error> {
    let mut found = Found { now_us: now_us(), ..Found::default() };
    let rows = sqlx::query(
        "SELECT receiver, message_id, type, result, body_hash, attempts FROM inbox
         WHERE message_id IN (SELECT value FROM json_each($1)) AND endpoint = $2",
    )
    .bind(serde_json::to_string(&keys.message_ids).unwrap_or_default())
    .bind(&keys.endpoint)
    .fetch_all(&mut *connection)
    .await?;
    found.inbox.extend(rows.iter().map(|row| InboxFound {
        receiver: row.get("receiver"),
        message_id: row.get("message_id"),
        type_name: row.get("type"),
        body_hash: row.get("body_hash"),
        result: InboxResult::parse(row.get("result")).unwrap_or(InboxResult::Handled),
        attempts: row.get("attempts"),
    }));
    if keys.instances.is_empty() {
        return Ok(found);
    }
    let ids: Vec<&str> = keys.instances.iter().map(|key| key.id.as_str()).collect();
    let ids = serde_json::to_string(&ids).unwrap_or_default();
    let rows = sqlx::query(
        "SELECT saga, id, state, data, originator, paused_by, seq, entered, version, completed_at IS NOT NULL AS done
         FROM saga WHERE id IN (SELECT value FROM json_each($1))",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    found.instances.extend(rows.iter().map(instance));
    let rows = sqlx::query(
        "SELECT * FROM held WHERE saga_id IN (SELECT value FROM json_each($1)) AND endpoint = $2 ORDER BY arrival LIMIT $3",
    )
    .bind(&ids)
    .bind(&keys.endpoint)
    .bind(keys.held_rows_max)
    .fetch_all(&mut *connection)
    .await?;
    found.held.extend(rows.iter().map(|row| held(row, &keys.endpoint)));
    Ok(found)
}

fn instance(row: &SqliteRow) -> InstanceRow {
    InstanceRow {
        key: InstanceKey { saga: row.get("saga"), id: row.get("id") },
        state: row.get("state"),
        data: row.get("data"),
        originator: row.get("originator"),
        paused_by: row.get("paused_by"),
        seq: row.get("seq"),
        entered: row.get("entered"),
        version: row.get("version"),
        done: row.get("done"),
    }
}

fn held(row: &SqliteRow, endpoint: &str) -> HeldRow {
    let stored = StoredEnvelope {
        message_id: row.get("message_id"),
        type_name: row.get("type"),
        conversation_id: row.get("conversation_id"),
        causation_id: row.get("causation_id"),
        saga: row.get("from_saga"),
        saga_id: row.get("from_saga_id"),
        entered: row.get("from_entered"),
        receiver: None,
        sent_at_us: row.get("sent_at"),
        headers: row.get("headers"),
        body: row.get("body"),
    };
    HeldRow {
        endpoint: endpoint.into(),
        receiver: row.get("receiver"),
        envelope: Arc::new(stored.restore(endpoint)),
        arrival: row.get("arrival"),
        reason: HeldReason::parse(row.get("reason")).unwrap_or(HeldReason::Failed),
        saga_id: row.get("saga_id"),
        error: None,
        attempts: row.get("attempts"),
        expires: None,
    }
}
