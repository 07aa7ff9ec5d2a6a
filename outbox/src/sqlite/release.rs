//! Messages that waited for a newer binary are offered again.

use super::{array, now_us};
use crate::rows::{STEP_ROWS_MAX, back, from_json, sender, to_json, wake_id};
use saga_core::{Envelope, InstanceKey, Process};
use serde_json::json;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use uuid::Uuid;

/// A check without a lock.
pub(super) async fn anything_held(readers: &SqlitePool, endpoint: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sagabus_held WHERE endpoint = $1 AND reason = 'version')")
        .bind(endpoint)
        .fetch_one(readers)
        .await
}

pub(super) async fn release(connection: &mut SqliteConnection, process: &Process) -> Result<u64, sqlx::Error> {
    Ok(unknown(connection, process).await? + instances(connection, process).await?)
}

const UNKNOWN: &str = "
SELECT arrival, message_id, envelope FROM sagabus_held
WHERE endpoint = $1 AND reason = 'version' AND receiver = '' AND type IN (SELECT value FROM json_each($2))
    AND CASE WHEN json_valid(envelope) THEN envelope ->> '$.receiver' IS NULL
            OR envelope ->> '$.receiver' IN (SELECT value FROM json_each($4))
        ELSE true END -- it will be found unreadable
ORDER BY arrival LIMIT $3";

const UNREADABLE: &str = "
UPDATE sagabus_held SET reason = 'undecodable', expires_at = NULL, error = $2 WHERE arrival = $1";

const MOVE: &str = "
INSERT INTO sagabus_outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer, envelope, body,
    created_at, due_at)
SELECT $2, endpoint, message_id, 'retry', type, endpoint, $3, $4, $5, $6, body, $7, $7
FROM sagabus_held WHERE arrival = $1";

/// The inbox row of a message without a receiver is deleted: to the receiver that knows it now, the message is new.
const UNMARK: &str = "DELETE FROM sagabus_inbox WHERE message_id = $1 AND receiver = '' AND endpoint = $2";

/// Messages without a receiver go back to the outbox, to be routed again.
async fn unknown(connection: &mut SqliteConnection, process: &Process) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query(UNKNOWN).bind(&process.endpoint).bind(json!(process.types).to_string()).bind(STEP_ROWS_MAX);
    let rows = rows.bind(json!(process.receivers).to_string());
    let mut moved = 0;
    for row in &rows.fetch_all(&mut *connection).await? {
        let arrival: i64 = row.try_get("arrival")?;
        let (message_id, json, envelope) = match read(row) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(endpoint = process.endpoint, arrival, error, "a held message cannot be read");
                sqlx::query(UNREADABLE).bind(arrival).bind(error).execute(&mut *connection).await?;
                continue;
            }
        };
        let saga = sender(&envelope);
        let retry = sqlx::query(MOVE)
            .bind(arrival)
            .bind(Uuid::now_v7().to_string())
            .bind(saga.map(|saga| saga.saga.as_str()))
            .bind(saga.map(|saga| saga.id.as_str()))
            .bind(saga.and_then(|saga| saga.timer))
            .bind(json)
            .bind(now_us());
        moved += retry.execute(&mut *connection).await?.rows_affected();
        sqlx::query("DELETE FROM sagabus_held WHERE arrival = $1").bind(arrival).execute(&mut *connection).await?;
        sqlx::query(UNMARK).bind(message_id).bind(&process.endpoint).execute(&mut *connection).await?;
    }
    Ok(moved)
}

/// The id of a held message, and its envelope as it goes back: as JSON, and read.
fn read(row: &SqliteRow) -> Result<(&str, String, Envelope), String> {
    let column = |error: sqlx::Error| error.to_string();
    let message_id = row.try_get("message_id").map_err(column)?;
    let mut envelope = from_json(row.try_get("envelope").map_err(column)?, Vec::new())?;
    back(&mut envelope);
    Ok((message_id, to_json(&envelope).map_err(|error| error.to_string())?, envelope))
}

const INSTANCES: &str = "
SELECT DISTINCT h.saga, h.saga_id FROM sagabus_held h
    JOIN json_each($2) c ON c.value ->> 0 = h.saga
    LEFT JOIN sagabus_saga s ON s.id = h.saga_id AND s.saga = h.saga
WHERE h.endpoint = $1 AND h.reason = 'version' AND h.saga_id IS NOT NULL
    AND coalesce(s.version <= c.value ->> 1, true) AND s.paused_by IS NULL
LIMIT $3";

const WAKE: &str = "
INSERT INTO sagabus_outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, envelope, body,
    created_at, due_at)
VALUES ($1, $2, $3, 'retry', $4, $2, $5, $6, $7, $8, $9, $9) ON CONFLICT (id) DO NOTHING";

/// An instance that this process understands is woken; what is held for it stays until the instance looks at it.
async fn instances(connection: &mut SqliteConnection, process: &Process) -> Result<u64, sqlx::Error> {
    let charts = array(process.charts.iter().map(|chart| json!([chart.saga, chart.version])));
    let rows = sqlx::query(INSTANCES).bind(&process.endpoint).bind(charts).bind(STEP_ROWS_MAX);
    let mut woken = 0;
    for row in &rows.fetch_all(&mut *connection).await? {
        let key = InstanceKey { saga: row.try_get("saga")?, id: row.try_get("saga_id")? };
        let envelope = Envelope::wake(&key);
        let wake = sqlx::query(WAKE)
            .bind(wake_id(&process.endpoint, &key.saga, &key.id).to_string())
            .bind(&process.endpoint)
            .bind(&envelope.message_id)
            .bind(Envelope::WAKE)
            .bind(&key.saga)
            .bind(&key.id)
            .bind(to_json(&envelope).map_err(|error| sqlx::Error::Encode(error.into()))?)
            .bind(&envelope.body[..])
            .bind(now_us());
        woken += wake.execute(&mut *connection).await?.rows_affected();
    }
    Ok(woken)
}
