//! What housekeeping deletes, and what it hands to a person.

use super::{array, now_us};
use crate::rows::{NO_INSTANCE, NO_INSTANCE_NOTE, NO_VERSION, OPERATION_KEPT, PROCESS_KEPT, STEP_ROWS_MAX, us};
use saga_core::port::Swept;
use serde_json::json;
use sqlx::{Row, SqliteConnection};
use std::time::Duration;

pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    endpoint: &str,
    retention: Duration,
) -> Result<Swept, sqlx::Error> {
    let now = now_us();
    let mut swept = expired(connection, endpoint, now).await?;
    swept.stranded = stranded(connection, endpoint, now, now - us(retention)).await?;
    let outdated = sqlx::query(OUTDATED).bind(endpoint).bind(now).bind(STEP_ROWS_MAX).bind(NO_VERSION);
    swept.without_version = outdated.execute(&mut *connection).await?.rows_affected();
    let mut rows = swept.rows + swept.stranded + swept.without_version;
    for sql in OLD {
        let old = sqlx::query(sql).bind(endpoint).bind(now - us(retention)).bind(STEP_ROWS_MAX);
        rows += old.execute(&mut *connection).await?.rows_affected();
    }
    // a limit whose next call may be made already is as good as none: each key of a handler has had one
    let limits = sqlx::query(
        "DELETE FROM sagabus_rate_limit WHERE (endpoint, name) IN
            (SELECT endpoint, name FROM sagabus_rate_limit WHERE endpoint = $1 AND next_at < $2 LIMIT $3)",
    );
    rows += limits
        .bind(endpoint)
        .bind(now - 60_000_000)
        .bind(STEP_ROWS_MAX)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    let processes = sqlx::query("DELETE FROM sagabus_process WHERE endpoint = $1 AND seen_at < $2").bind(endpoint);
    rows += processes.bind(now - us(PROCESS_KEPT)).execute(&mut *connection).await?.rows_affected();
    // they belong to no endpoint: whoever sweeps takes them
    let operations = sqlx::query(
        "DELETE FROM sagabus_operation WHERE id IN
            (SELECT id FROM sagabus_operation WHERE at < $1 ORDER BY at LIMIT $2)",
    );
    let operations = operations.bind(now - us(OPERATION_KEPT)).bind(STEP_ROWS_MAX);
    rows += operations.execute(connection).await?.rows_affected();
    Ok(Swept { rows, ..swept })
}

const EXPIRED: &str = "
SELECT h.arrival, h.message_id, h.receiver,
    EXISTS (SELECT 1 FROM sagabus_saga s WHERE s.id = h.saga_id AND s.saga = h.saga) AS started,
    json_valid(h.envelope) AND h.envelope ->> '$.saga.saga' IS NOT h.receiver AND EXISTS (
        SELECT 1 FROM sagabus_definition d, json_each(d.chart, '$.messages') m
        WHERE d.saga = h.receiver AND m.value ->> 'type_name' = h.type AND m.value ->> 'kind' = 'event') AS event
FROM sagabus_held h WHERE h.endpoint = $1 AND h.reason = 'early' AND h.expires_at < $2
ORDER BY h.expires_at, h.arrival LIMIT $3";

const STARTED: &str = "
UPDATE sagabus_held SET expires_at = NULL WHERE arrival IN (SELECT value FROM json_each($1))";

const FAILED: &str = "
UPDATE sagabus_held SET expires_at = NULL, reason = 'failed', error = $2
WHERE arrival IN (SELECT value FROM json_each($1))";

const JOURNALED: &str = "
UPDATE sagabus_inbox SET result = 'discarded', note = $3, handled_at = $4
WHERE endpoint = $2 AND result = 'held'
    AND (message_id, receiver) IN (SELECT r.value ->> 0, r.value ->> 1 FROM json_each($1) r)";

const GONE: &str = "DELETE FROM sagabus_held WHERE arrival IN (SELECT value FROM json_each($1))";

/// Early messages whose time is up. If the instance exists, time no longer matters. If not, an event that is not an
/// answer is journaled as discarded; an outcome or a command waits for a person, because money may depend on it.
async fn expired(connection: &mut SqliteConnection, endpoint: &str, now: i64) -> Result<Swept, sqlx::Error> {
    let due = sqlx::query(EXPIRED).bind(endpoint).bind(now).bind(STEP_ROWS_MAX).fetch_all(&mut *connection).await?;
    let (mut started, mut failed, mut gone, mut marks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &due {
        let arrival: i64 = row.try_get("arrival")?;
        if row.try_get("started")? {
            started.push(arrival.into());
        } else if row.try_get("event")? {
            gone.push(arrival.into());
            marks.push(json!([row.try_get::<&str, _>("message_id")?, row.try_get::<&str, _>("receiver")?]));
        } else {
            failed.push(arrival.into());
        }
    }
    if due.is_empty() {
        return Ok(Swept::default());
    }
    let swept = Swept {
        rows: due.len() as u64,
        discarded: gone.len() as u64,
        without_instance: failed.len() as u64,
        ..Swept::default()
    };
    sqlx::query(STARTED).bind(array(started)).execute(&mut *connection).await?;
    sqlx::query(FAILED).bind(array(failed)).bind(NO_INSTANCE).execute(&mut *connection).await?;
    let journaled = sqlx::query(JOURNALED).bind(array(marks)).bind(endpoint).bind(NO_INSTANCE_NOTE).bind(now);
    journaled.execute(&mut *connection).await?;
    sqlx::query(GONE).bind(array(gone)).execute(connection).await?;
    Ok(swept)
}

/// Messages for which no process came in time that knows their type or version.
const OUTDATED: &str = "
UPDATE sagabus_held SET reason = 'undecodable', expires_at = NULL, error = $4 WHERE arrival IN (
    SELECT arrival FROM sagabus_held WHERE endpoint = $1 AND reason = 'version' AND expires_at < $2
    ORDER BY expires_at, arrival LIMIT $3)";

const FIRST_SENT_LONG_AGO: &str = "
SELECT place FROM (SELECT rowid AS place, first_attempt_at, lease_until FROM sagabus_outbox
    WHERE endpoint = $1 AND due_at <= $2 ORDER BY due_at LIMIT 20 * $4)
WHERE first_attempt_at < $3 AND (lease_until IS NULL OR lease_until < $2) LIMIT $4";

const HOLD: &str = "
INSERT INTO sagabus_held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, envelope, body, kind,
    destination)
SELECT endpoint, 'outbox ' || CASE typeof(id) WHEN 'text' THEN id ELSE hex(id) END, message_id, 'stranded',
    'first sent at ' || datetime(first_attempt_at / 1000000, 'unixepoch') || ' to ' || destination
        || ', never confirmed: the receiver may have handled and forgotten it; look there before a retry',
    attempts, $2, type, envelope, body, kind, destination
FROM sagabus_outbox WHERE rowid IN (SELECT value FROM json_each($1)) ON CONFLICT DO NOTHING";

/// Rule 7: a message whose first publish is older than the receivers' memory may have arrived and been forgotten, so
/// sending it again could repeat its effect. A person decides. Only due rows are read, oldest first.
async fn stranded(connection: &mut SqliteConnection, endpoint: &str, now: i64, old: i64) -> Result<u64, sqlx::Error> {
    let places = sqlx::query_scalar(FIRST_SENT_LONG_AGO).bind(endpoint).bind(now).bind(old).bind(STEP_ROWS_MAX);
    let places: Vec<i64> = places.fetch_all(&mut *connection).await?; // not ids: another program's may be anything
    if places.is_empty() {
        return Ok(0);
    }
    let places = json!(places).to_string();
    sqlx::query(HOLD).bind(&places).bind(now).execute(&mut *connection).await?;
    let gone = sqlx::query("DELETE FROM sagabus_outbox WHERE rowid IN (SELECT value FROM json_each($1))").bind(places);
    gone.execute(connection).await.map(|done| done.rows_affected())
}

const OLD: [&str; 2] = [
    "DELETE FROM sagabus_inbox WHERE (message_id, receiver, endpoint) IN (
        SELECT message_id, receiver, endpoint FROM sagabus_inbox i
        WHERE handled_at < $2 AND endpoint = $1 AND result IN ('handled', 'ignored', 'stale', 'discarded')
            AND NOT EXISTS (SELECT 1 FROM sagabus_held h WHERE h.message_id = i.message_id) LIMIT $3)",
    "DELETE FROM sagabus_saga WHERE (id, saga) IN (
        SELECT id, saga FROM sagabus_saga s
        WHERE completed_at < $2 AND saga IN (SELECT d.saga FROM sagabus_definition d WHERE d.endpoint = $1)
            AND NOT EXISTS (SELECT 1 FROM sagabus_held h WHERE h.saga_id = s.id AND h.saga = s.saga) LIMIT $3)",
];
