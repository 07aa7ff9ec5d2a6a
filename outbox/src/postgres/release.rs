//! Messages that waited for a newer binary are offered again.

use crate::rows::{STEP_ROWS_MAX, back, from_json, sender, to_json, wake_id};
use saga_core::{Envelope, InstanceKey, Process};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

const UNKNOWN: &str = "
SELECT message_id, envelope::text AS envelope FROM sagabus.held
WHERE endpoint = $1 AND reason = 'version' AND receiver = '' AND type = ANY($2)
    AND coalesce(envelope ->> 'receiver' = ANY($4), true)
ORDER BY arrival LIMIT $3 FOR UPDATE SKIP LOCKED";

const UNREADABLE: &str = "
UPDATE sagabus.held SET reason = 'undecodable', expires_at = NULL, error = $3
WHERE message_id = $1 AND receiver = '' AND endpoint = $2";

/// The inbox row of a message without a receiver is deleted: to the receiver that knows it now, the message is new.
const MOVE: &str = "
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[])
        AS r(message_id, id, envelope, saga, saga_id, timer)),
gone AS (
    DELETE FROM sagabus.held h USING r
    WHERE h.message_id = r.message_id AND h.message_id = ANY($2) AND h.receiver = '' AND h.endpoint = $1
    RETURNING h.message_id, h.type, h.body),
unmarked AS (
    DELETE FROM sagabus.inbox i
    WHERE i.message_id = ANY($2) AND i.receiver = '' AND i.endpoint = $1)
INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer, envelope, body,
    created_at, due_at)
SELECT r.id, $1, r.message_id, 'retry', g.type, $1, r.saga, r.saga_id, r.timer, r.envelope::json, g.body,
    clock_timestamp(), clock_timestamp()
FROM r JOIN gone g USING (message_id)";

const INSTANCES: &str = "
SELECT DISTINCT h.saga, h.saga_id FROM sagabus.held h
    JOIN unnest($2::text[], $3::integer[]) AS c(saga, version) ON c.saga = h.saga
    LEFT JOIN sagabus.saga s ON s.id = h.saga_id AND s.saga = h.saga
WHERE h.endpoint = $1 AND h.reason = 'version' AND h.saga_id IS NOT NULL AND coalesce(s.version <= c.version, true)
    AND s.paused_by IS NULL
LIMIT $4";

const WAKE: &str = "
INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, envelope, body,
    created_at, due_at)
SELECT r.id, $1, r.message_id, 'retry', $2, $1, r.saga, r.saga_id, r.envelope::json, $3, clock_timestamp(),
    clock_timestamp()
FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[]) AS r(id, message_id, saga, saga_id, envelope)
ON CONFLICT (id) DO NOTHING";

pub(super) async fn release(connection: &mut PgConnection, process: &Process) -> Result<u64, sqlx::Error> {
    Ok(unknown(connection, process).await? + instances(connection, process).await?)
}

/// Messages without a receiver go back to the outbox, to be routed again.
async fn unknown(connection: &mut PgConnection, process: &Process) -> Result<u64, sqlx::Error> {
    let rows = sqlx::query(UNKNOWN).bind(&process.endpoint).bind(&process.types).bind(STEP_ROWS_MAX);
    let rows = rows.bind(&process.receivers).persistent(false).fetch_all(&mut *connection).await?;
    let (mut ids, mut keys, mut envelopes) = (Vec::<&str>::new(), Vec::new(), Vec::new());
    let (mut sagas, mut saga_ids, mut timer) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let message_id: &str = row.get("message_id");
        let read = from_json(row.get("envelope"), Vec::new()).and_then(|mut envelope| {
            back(&mut envelope);
            Ok((to_json(&envelope).map_err(|error| error.to_string())?, envelope))
        });
        match read {
            Ok((json, envelope)) => {
                ids.push(message_id);
                keys.push(Uuid::now_v7());
                envelopes.push(json);
                let saga = sender(&envelope);
                sagas.push(saga.map(|saga| saga.saga.clone()));
                saga_ids.push(saga.map(|saga| saga.id.clone()));
                timer.push(saga.and_then(|saga| saga.timer));
            }
            Err(error) => {
                tracing::warn!(endpoint = process.endpoint, message_id, error, "a held message cannot be read");
                let unreadable = sqlx::query(UNREADABLE).bind(message_id).bind(&process.endpoint).bind(error);
                unreadable.persistent(false).execute(&mut *connection).await?;
            }
        }
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let moved = sqlx::query(MOVE).bind(&process.endpoint).bind(ids).bind(keys).bind(envelopes);
    let moved = moved.bind(sagas).bind(saga_ids).bind(timer).persistent(false);
    moved.execute(connection).await.map(|done| done.rows_affected())
}

/// An instance that this process understands is woken; what is held for it stays until the instance looks at it.
async fn instances(connection: &mut PgConnection, process: &Process) -> Result<u64, sqlx::Error> {
    let sagas: Vec<&str> = process.charts.iter().map(|chart| chart.saga.as_str()).collect();
    let versions: Vec<i32> = process.charts.iter().map(|chart| chart.version as i32).collect();
    let rows = sqlx::query(INSTANCES).bind(&process.endpoint).bind(sagas).bind(versions).bind(STEP_ROWS_MAX);
    let rows = rows.persistent(false).fetch_all(&mut *connection).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (mut ids, mut message_ids, mut envelopes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sagas, mut saga_ids) = (Vec::new(), Vec::new());
    for row in &rows {
        let key = InstanceKey { saga: row.get("saga"), id: row.get("saga_id") };
        let envelope = Envelope::wake(&key);
        ids.push(wake_id(&process.endpoint, &key.saga, &key.id));
        envelopes.push(to_json(&envelope).map_err(|error| sqlx::Error::Encode(error.into()))?);
        message_ids.push(envelope.message_id);
        sagas.push(key.saga);
        saga_ids.push(key.id);
    }
    let woken = sqlx::query(WAKE)
        .bind(&process.endpoint)
        .bind(Envelope::WAKE)
        .bind(&b"{}"[..])
        .bind(ids)
        .bind(message_ids)
        .bind(sagas)
        .bind(saga_ids)
        .bind(envelopes);
    woken.persistent(false).execute(connection).await.map(|done| done.rows_affected())
}
