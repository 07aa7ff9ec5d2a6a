//! Everything a batch came to: one statement for each kind of row, fed by one JSON array.

use super::{after, now_us};
use crate::{error::store_error, rows::us};
use saga_core::{Envelope, InboxRow, InstanceWrite, StoreError, Write};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

const CLAIM: &str = "
INSERT INTO inbox (endpoint, handled_by, handled_at, receiver, message_id, body_hash, type, result, conversation_id, causation_id, saga, saga_id, seq, from_state, to_state, effects, sent_at, attempts, note)
SELECT $2, $3, $4, r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5, r.value ->> 6,
    CASE WHEN r.value ->> 7 IS NOT NULL THEN r.value ->> 0 END, r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, r.value ->> 12, r.value ->> 13, r.value ->> 14
FROM json_each($1) r WHERE true ON CONFLICT DO NOTHING";

const SETTLE: &str = "
UPDATE inbox SET handled_by = $3, handled_at = $4, result = r.value ->> 4, seq = r.value ->> 8, from_state = r.value ->> 9, to_state = r.value ->> 10,
    effects = r.value ->> 11, attempts = r.value ->> 13, note = r.value ->> 14, body_hash = r.value ->> 2
FROM json_each($1) r
WHERE inbox.message_id = r.value ->> 1 AND inbox.receiver = r.value ->> 0 AND inbox.endpoint = $2
    AND inbox.result IN ('held', 'retrying', 'suspect') AND inbox.attempts = r.value ->> 15";

const STARTED: &str = "
INSERT INTO saga (created_at, updated_at, completed_at, saga, id, state, data, seq, entered, version, originator, paused_by)
SELECT $2, $2, CASE WHEN r.value ->> 9 THEN $2 END, r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5,
    r.value ->> 6, r.value ->> 7, r.value ->> 8
FROM json_each($1) r WHERE true ON CONFLICT DO NOTHING";

/// Who started an instance never changes.
const MOVED: &str = "
UPDATE saga SET updated_at = $2, completed_at = CASE WHEN r.value ->> 9 THEN coalesce(completed_at, $2) END, state = r.value ->> 2, data = r.value ->> 3,
    seq = r.value ->> 4, entered = r.value ->> 5, version = r.value ->> 6, paused_by = r.value ->> 8
FROM json_each($1) r WHERE saga.id = r.value ->> 1 AND saga.saga = r.value ->> 0 AND saga.seq = r.value ->> 10";

const OUTBOX: &str = "
INSERT INTO outbox (endpoint, lease_owner, lease_until, first_attempt_at, created_at, id, message_id, kind, type, destination, receiver, saga, saga_id, entered,
    conversation_id, causation_id, headers, body, sent_at, due_at)
SELECT $2, CASE WHEN r.value ->> 0 THEN $3 END, CASE WHEN r.value ->> 0 THEN $4 END, CASE WHEN r.value ->> 0 THEN $5 END, $5, r.value ->> 1, r.value ->> 2, r.value ->> 3,
    r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, r.value ->> 12,
    coalesce(unhex(r.value ->> 16), CAST(r.value ->> 13 AS BLOB)), r.value ->> 14, r.value ->> 15
FROM json_each($1) r";

const HELD_IN: &str = "
INSERT INTO held (endpoint, held_at, receiver, message_id, reason, saga, saga_id, error, attempts, expires_at, type, conversation_id, causation_id,
    from_saga, from_saga_id, from_entered, headers, body, sent_at)
SELECT $2, $3, r.value ->> 0, r.value ->> 1, r.value ->> 2, CASE WHEN r.value ->> 3 IS NOT NULL THEN r.value ->> 0 END, r.value ->> 3, r.value ->> 4, r.value ->> 5,
    $3 + (r.value ->> 6), r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, r.value ->> 12, r.value ->> 13,
    coalesce(unhex(r.value ->> 16), CAST(r.value ->> 14 AS BLOB)), r.value ->> 15
FROM json_each($1) r WHERE true
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET reason = excluded.reason, error = excluded.error, attempts = excluded.attempts, expires_at = excluded.expires_at";

const HELD_OUT: &str = "
DELETE FROM held WHERE endpoint = $2 AND (message_id, receiver) IN (SELECT r.value ->> 1, r.value ->> 0 FROM json_each($1) r)";

const TIMERS_OUT: &str = "
DELETE FROM outbox WHERE id IN (
    SELECT o.id FROM json_each($1) r CROSS JOIN outbox o
    WHERE o.kind = 'timer' AND o.saga_id = r.value ->> 1 AND o.saga = r.value ->> 0
        AND (r.value ->> 2 IS NULL OR (o.entered IS NOT NULL AND o.entered <> r.value ->> 2)))";

pub(super) async fn write(connection: &mut SqliteConnection, write: &Write) -> Result<(), StoreError> {
    let endpoint = write.endpoint.as_str();
    if let Some(first) = write.claims.first() {
        let rows = write.claims.iter().map(|row| inbox(row, None)).collect();
        let query = sqlx::query(CLAIM).bind(array(rows)).bind(endpoint).bind(&first.handled_by).bind(now_us());
        expect(query.execute(&mut *connection).await, write.claims.len())?;
    }
    if let Some((first, _)) = write.settles.first() {
        let rows = write.settles.iter().map(|(row, known)| inbox(row, Some(*known))).collect();
        let query = sqlx::query(SETTLE).bind(array(rows)).bind(endpoint).bind(&first.handled_by).bind(now_us());
        expect(query.execute(&mut *connection).await, write.settles.len())?;
    }
    let (started, moved): (Vec<_>, Vec<_>) = write.instances.iter().partition(|write| write.base_seq == 0);
    for (sql, rows) in [(STARTED, started), (MOVED, moved)].into_iter().filter(|(_, rows)| !rows.is_empty()) {
        let expected = rows.len();
        let query = sqlx::query(sql).bind(array(rows.into_iter().map(instance).collect())).bind(now_us());
        expect(query.execute(&mut *connection).await, expected)?;
    }
    if !write.outbox.is_empty() {
        let rows = write.outbox.iter().map(|row| {
            let envelope = &*row.envelope;
            let (saga, saga_id, entered) = saga(envelope);
            let (text, hex) = body(envelope);
            json!([
                row.leased,
                row.id,
                envelope.message_id,
                row.kind.as_str(),
                envelope.type_name,
                row.destination.name(),
                envelope.receiver,
                saga,
                saga_id,
                entered,
                envelope.conversation_id,
                envelope.causation_id,
                envelope.stored_headers(endpoint).to_string(),
                text,
                envelope.sent_at_us,
                after(row.delay.unwrap_or_default()),
                hex
            ])
        });
        let rows = array(rows.collect());
        let query =
            sqlx::query(OUTBOX).bind(rows).bind(endpoint).bind(&write.owner).bind(after(write.lease)).bind(now_us());
        expect(query.execute(&mut *connection).await, write.outbox.len())?;
    }
    if !write.held_in.is_empty() {
        let rows = write.held_in.iter().map(|row| {
            let envelope = &*row.envelope;
            let (saga, saga_id, entered) = saga(envelope);
            let (text, hex) = body(envelope);
            json!([
                row.receiver,
                envelope.message_id,
                row.reason.as_str(),
                row.saga_id,
                row.error,
                row.attempts,
                row.expires.map(us),
                envelope.type_name,
                envelope.conversation_id,
                envelope.causation_id,
                saga,
                saga_id,
                entered,
                envelope.stored_headers(endpoint).to_string(),
                text,
                envelope.sent_at_us,
                hex
            ])
        });
        let query = sqlx::query(HELD_IN).bind(array(rows.collect())).bind(endpoint).bind(now_us());
        query.execute(&mut *connection).await.map_err(store_error)?;
    }
    if !write.held_out.is_empty() {
        let rows = write.held_out.iter().map(|key| json!([key.receiver, key.message_id]));
        let query = sqlx::query(HELD_OUT).bind(array(rows.collect())).bind(endpoint);
        query.execute(&mut *connection).await.map_err(store_error)?;
    }
    if !write.timers_out.is_empty() {
        let rows = write.timers_out.iter().map(|out| json!([out.key.saga, out.key.id, out.keep_entered]));
        sqlx::query(TIMERS_OUT).bind(array(rows.collect())).execute(&mut *connection).await.map_err(store_error)?;
    }
    Ok(())
}

fn array(rows: Vec<Value>) -> String {
    Value::Array(rows).to_string()
}

/// Fewer rows than given: somebody was faster.
fn expect(done: Result<sqlx::sqlite::SqliteQueryResult, sqlx::Error>, rows: usize) -> Result<(), StoreError> {
    let done = done.map_err(store_error)?.rows_affected();
    if done == rows as u64 { Ok(()) } else { Err(StoreError::Conflict) }
}

fn inbox(row: &InboxRow, known: Option<i64>) -> Value {
    let envelope = &*row.envelope;
    let effects = row.effects.as_ref().and_then(|effects| serde_json::to_string(effects).ok());
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
        effects,
        envelope.sent_at_us,
        row.attempts,
        row.note,
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
        write.base_seq
    ])
}

fn saga(envelope: &Envelope) -> (Option<&str>, Option<&str>, Option<i64>) {
    let saga = envelope.saga.as_ref();
    (saga.map(|saga| saga.saga.as_str()), saga.map(|saga| saga.id.as_str()), saga.and_then(|saga| saga.entered))
}

/// A body as text; one that JSON cannot carry as it is, in hexadecimal.
fn body(envelope: &Envelope) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(&envelope.body) {
        Ok(text) if !text.contains('\0') => (Some(text), None),
        _ => (None, Some(envelope.body.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}
