//! Everything a batch writes: one statement for each kind of row, fed by one JSON array.

use super::{after, array, now_us};
use crate::{
    error::store_error,
    rows::{clean, effects, in_order, sender, to_json, us},
};
use saga_core::{Envelope, HeldIn, InboxRow, InstanceWrite, OutboxRow, StoreError, Write};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteQueryResult};

const CLAIM: &str = "
INSERT INTO sagabus_inbox (endpoint, handled_by, claimed_at, handled_at, receiver, message_id, body_hash, type, result,
    conversation_id, causation_id, saga, saga_id, seq, from_state, to_state, effects, sent_at, attempts, round, note)
SELECT $2, $3, $4, $4, r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
    r.value ->> 6, CASE WHEN r.value ->> 7 IS NOT NULL THEN r.value ->> 0 END, r.value ->> 7, r.value ->> 8,
    r.value ->> 9, r.value ->> 10, r.value ->> 11, r.value ->> 12, r.value ->> 13, r.value ->> 14, r.value ->> 15
FROM json_each($1) r WHERE true ON CONFLICT DO NOTHING";

const COMPLETE: &str = "
UPDATE sagabus_inbox SET handled_by = $3, handled_at = $4, result = r.value ->> 4, seq = r.value ->> 8,
    from_state = r.value ->> 9, to_state = r.value ->> 10, effects = r.value ->> 11, attempts = r.value ->> 13,
    round = r.value ->> 14, note = r.value ->> 15, body_hash = r.value ->> 2,
    saga = CASE WHEN r.value ->> 7 IS NOT NULL THEN r.value ->> 0 ELSE sagabus_inbox.saga END,
    saga_id = coalesce(r.value ->> 7, sagabus_inbox.saga_id)
FROM json_each($1) r
WHERE sagabus_inbox.message_id = r.value ->> 1 AND sagabus_inbox.receiver = r.value ->> 0
    AND sagabus_inbox.endpoint = $2 AND sagabus_inbox.result IN ('held', 'retrying', 'suspect')
    AND sagabus_inbox.attempts = r.value ->> 16";

const STARTED: &str = "
INSERT INTO sagabus_saga (created_at, updated_at, completed_at, saga, id, state, data, seq, entered, version,
    originator, paused_by, progress)
SELECT $2, $2, CASE WHEN r.value ->> 9 THEN $2 END, r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3,
    r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 11
FROM json_each($1) r WHERE true ON CONFLICT DO NOTHING";

/// Who started an instance never changes.
const MOVED: &str = "
UPDATE sagabus_saga SET updated_at = $2, completed_at = CASE WHEN r.value ->> 9 THEN coalesce(completed_at, $2) END,
    state = r.value ->> 2, data = r.value ->> 3, seq = r.value ->> 4, entered = r.value ->> 5, version = r.value ->> 6,
    paused_by = r.value ->> 8, progress = r.value ->> 11
FROM json_each($1) r
WHERE sagabus_saga.id = r.value ->> 1 AND sagabus_saga.saga = r.value ->> 0 AND sagabus_saga.seq = r.value ->> 10";

const OUTBOX: &str = "
INSERT INTO sagabus_outbox (endpoint, lease_owner, lease_until, first_attempt_at, created_at, id, message_id, kind,
    type, destination, saga, saga_id, timer, envelope, body, due_at, last_error)
SELECT $2, CASE WHEN r.value ->> 0 THEN $3 END, CASE WHEN r.value ->> 0 THEN $4 END,
    CASE WHEN r.value ->> 0 THEN $5 END, $5, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
    r.value ->> 6, r.value ->> 7,
    r.value ->> 8, r.value ->> 9, coalesce(unhex(r.value ->> 11), CAST(r.value ->> 10 AS BLOB)), r.value ->> 12,
    r.value ->> 13
FROM json_each($1) r";

const HELD_IN: &str = "
INSERT INTO sagabus_held (endpoint, held_at, receiver, message_id, reason, saga, saga_id, error, attempts, expires_at,
    type, envelope, body)
SELECT $2, $3, r.value ->> 0, r.value ->> 1, r.value ->> 2, CASE WHEN r.value ->> 3 IS NOT NULL THEN r.value ->> 0 END,
    r.value ->> 3, r.value ->> 4, r.value ->> 5, $3 + (r.value ->> 6), r.value ->> 7, r.value ->> 8,
    coalesce(unhex(r.value ->> 10), CAST(r.value ->> 9 AS BLOB))
FROM json_each($1) r WHERE true
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET reason = excluded.reason, error = excluded.error,
    attempts = excluded.attempts, expires_at = excluded.expires_at, saga = coalesce(excluded.saga, saga),
    saga_id = coalesce(excluded.saga_id, saga_id)";

const HELD_OUT: &str = "
DELETE FROM sagabus_held
WHERE endpoint = $2 AND (message_id, receiver) IN (SELECT r.value ->> 1, r.value ->> 0 FROM json_each($1) r)";

const TIMERS_OUT: &str = "
DELETE FROM sagabus_outbox WHERE id IN (
    SELECT o.id FROM json_each($1) r CROSS JOIN sagabus_outbox o
    WHERE o.kind = 'timer' AND o.saga_id = r.value ->> 1 AND o.saga = r.value ->> 0 AND o.timer = r.value ->> 2)";

pub(super) async fn write(connection: &mut SqliteConnection, write: &Write) -> Result<(), StoreError> {
    let endpoint = write.endpoint.as_str();
    if !write.claims.is_empty() {
        let rows = array(in_order(&write.claims, |row| row).into_iter().map(|row| inbox(row, None)));
        let query = sqlx::query(CLAIM).bind(rows).bind(endpoint).bind(&write.owner).bind(now_us());
        expect(query.execute(&mut *connection).await, write.claims.len())?;
    }
    if !write.completes.is_empty() {
        let rows = array(write.completes.iter().map(|(row, known)| inbox(row, Some(*known))));
        let query = sqlx::query(COMPLETE).bind(rows).bind(endpoint).bind(&write.owner).bind(now_us());
        expect(query.execute(&mut *connection).await, write.completes.len())?;
    }
    let (started, moved): (Vec<_>, Vec<_>) = write.instances.iter().partition(|write| write.base_seq == 0);
    for (sql, rows) in [(STARTED, started), (MOVED, moved)].into_iter().filter(|(_, rows)| !rows.is_empty()) {
        let expected = rows.len();
        let query = sqlx::query(sql).bind(array(rows.into_iter().map(instance))).bind(now_us());
        expect(query.execute(&mut *connection).await, expected)?;
    }
    if !write.outbox.is_empty() {
        let rows: Vec<Value> = write.outbox.iter().map(outbox).collect::<Result<_, _>>()?;
        let query = sqlx::query(OUTBOX).bind(array(rows)).bind(endpoint).bind(&write.owner);
        let query = query.bind(after(write.lease)).bind(now_us());
        expect(query.execute(&mut *connection).await, write.outbox.len())?;
    }
    if !write.held_in.is_empty() {
        let rows: Vec<Value> = write.held_in.iter().map(held).collect::<Result<_, _>>()?;
        let query = sqlx::query(HELD_IN).bind(array(rows)).bind(endpoint).bind(now_us());
        query.execute(&mut *connection).await.map_err(store_error)?;
    }
    if !write.held_out.is_empty() {
        let rows = write.held_out.iter().map(|key| json!([key.receiver, key.message_id]));
        let query = sqlx::query(HELD_OUT).bind(array(rows)).bind(endpoint);
        query.execute(&mut *connection).await.map_err(store_error)?;
    }
    if !write.timers_out.is_empty() {
        let rows = write.timers_out.iter().map(|out| json!([out.key.saga, out.key.id, out.number]));
        sqlx::query(TIMERS_OUT).bind(array(rows)).execute(&mut *connection).await.map_err(store_error)?;
    }
    Ok(())
}

/// Fewer rows than given: another process was faster.
fn expect(done: Result<SqliteQueryResult, sqlx::Error>, rows: usize) -> Result<(), StoreError> {
    let done = done.map_err(store_error)?.rows_affected();
    if done == rows as u64 { Ok(()) } else { Err(StoreError::conflict()) }
}

fn inbox(row: &InboxRow, known: Option<i64>) -> Value {
    let envelope = &*row.envelope;
    json!([
        row.receiver,
        envelope.message_id,
        envelope.body_hash(),
        envelope.type_name,
        row.result.as_str(),
        envelope.conversation_id,
        envelope.causation_id,
        row.saga_id,
        row.seq,
        row.from_state,
        row.to_state,
        effects(row),
        envelope.sent_at_us,
        row.attempts,
        row.round,
        row.note.as_deref().map(clean),
        known
    ])
}

fn instance(write: &InstanceWrite) -> Value {
    let row = &write.row;
    json!([
        row.key.saga,
        row.key.id,
        row.state,
        row.data,
        row.seq,
        row.entered,
        row.version,
        row.originator,
        row.paused_by,
        row.done,
        write.base_seq,
        row.progress
    ])
}

fn outbox(row: &OutboxRow) -> Result<Value, StoreError> {
    let envelope = &*row.envelope;
    let saga = sender(envelope);
    let (text, hex) = body(envelope);
    Ok(json!([
        row.leased,
        row.id,
        envelope.message_id,
        row.kind.as_str(),
        envelope.type_name,
        row.destination.name(),
        saga.map(|saga| &saga.saga),
        saga.map(|saga| &saga.id),
        saga.and_then(|saga| saga.timer),
        to_json(envelope)?,
        text,
        hex,
        after(row.delay.unwrap_or_default()),
        row.last_error.as_deref().map(clean)
    ]))
}

fn held(row: &HeldIn) -> Result<Value, StoreError> {
    let envelope = &*row.envelope;
    let (text, hex) = body(envelope);
    Ok(json!([
        row.receiver,
        envelope.message_id,
        row.reason.as_str(),
        row.saga_id,
        row.error.as_deref().map(clean),
        row.attempts,
        row.expires.map(us),
        envelope.type_name,
        to_json(envelope)?,
        text,
        hex
    ]))
}

/// A body as text; in hexadecimal if JSON cannot carry it.
fn body(envelope: &Envelope) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(&envelope.body) {
        Ok(text) if !text.contains('\0') => (Some(text), None),
        _ => (None, Some(envelope.body.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}
