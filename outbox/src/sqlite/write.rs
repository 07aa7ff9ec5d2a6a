//! Everything a batch writes: one statement for each kind of row.

use super::{
    after, now_us,
    values::{bind, execute, fetch},
};
use crate::{
    error::store_error,
    rows::{clean, effects, in_order, sender, to_json, us},
};
use saga_core::{FieldRow, HeldIn, InboxRow, InstanceWrite, OutboxRow, StoreError, TakenBack, Write};
use sqlx::{
    Row, SqliteConnection,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

const CLAIM: &str = "
INSERT INTO sagabus_inbox (endpoint, handled_by, claimed_at, handled_at, receiver, message_id, body_hash, type, result,
    conversation_id, causation_id, saga, saga_id, seq, from_state, to_state, effects, sent_at, attempts, round, note,
    message)
{rows} ON CONFLICT DO NOTHING";

/// In the order of the values of a claim; the last is the number of attempts that is known. What is tried is tried
/// since its first run that counts: time in the line of a limit is not.
const COMPLETE: &str = "
UPDATE sagabus_inbox SET handled_by = r.column2, handled_at = r.column4, body_hash = r.column7, result = r.column9,
    saga = coalesce(r.column12, sagabus_inbox.saga), saga_id = coalesce(r.column13, sagabus_inbox.saga_id),
    seq = r.column14, from_state = r.column15, to_state = r.column16, effects = r.column17, attempts = r.column19,
    round = r.column20, note = r.column21, message = r.column22,
    claimed_at = CASE WHEN r.column23 = 0 AND r.column19 > 0 THEN r.column3 ELSE sagabus_inbox.claimed_at END
FROM ({rows}) r
WHERE sagabus_inbox.message_id = r.column6 AND sagabus_inbox.receiver = r.column5
    AND sagabus_inbox.endpoint = r.column1 AND sagabus_inbox.result IN ('held', 'retrying', 'suspect')
    AND sagabus_inbox.attempts = r.column23";

const STARTED: &str = "
INSERT INTO sagabus_saga (created_at, updated_at, completed_at, saga, id, state, data, seq, entered, version,
    progress, originator, paused_by) {rows} ON CONFLICT DO NOTHING";

/// Who started an instance never changes, and it ends once.
const MOVED: &str = "
UPDATE sagabus_saga SET updated_at = r.column3, state = r.column4, data = r.column5, seq = r.column6,
    entered = r.column7, version = r.column8, progress = r.column9, paused_by = r.column10,
    completed_at = CASE WHEN r.column11 THEN coalesce(completed_at, r.column3) END
FROM ({rows}) r
WHERE sagabus_saga.id = r.column2 AND sagabus_saga.saga = r.column1 AND sagabus_saga.seq = r.column12";

const OUTBOX: &str = "
INSERT INTO sagabus_outbox (endpoint, lease_owner, lease_until, first_attempt_at, created_at, id, message_id, kind,
    type, destination, saga, saga_id, timer, envelope, body, due_at, last_error) {rows}";

const HELD_IN: &str = "
INSERT INTO sagabus_held (endpoint, held_at, receiver, message_id, reason, saga, saga_id, error, attempts, expires_at,
    type, envelope, body) {rows}
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET reason = excluded.reason, error = excluded.error,
    attempts = excluded.attempts, expires_at = excluded.expires_at, saga = coalesce(excluded.saga, saga),
    saga_id = coalesce(excluded.saga_id, saga_id)";

const HELD_OUT: &str = "DELETE FROM sagabus_held WHERE (message_id, receiver, endpoint) IN ({rows})";

const TIMERS_OUT: &str = "
DELETE FROM sagabus_outbox WHERE id IN (
    SELECT o.id FROM ({rows}) r CROSS JOIN sagabus_outbox o
    WHERE o.kind = 'timer' AND o.saga_id = r.column2 AND o.saga = r.column1 AND o.timer = r.column3)";

const FIELDS_OUT: &str = "
DELETE FROM sagabus_field WHERE (id, saga, name, value) IN (
    SELECT f.id, f.saga, f.name, f.value FROM ({rows}) r CROSS JOIN sagabus_field f
    WHERE f.id = r.column4 AND f.saga = r.column3 AND f.name = r.column1
        AND (r.column5 IS NULL OR f.value = r.column2))";

const FIELDS_IN: &str = "
INSERT INTO sagabus_field (name, value, saga, id, is_alias) {rows} ON CONFLICT DO NOTHING";

const ALIASES_MET: &str = "
UPDATE sagabus_held SET saga = r.column3, saga_id = r.column4
FROM ({rows}) r
WHERE sagabus_held.saga_id = r.column2 AND sagabus_held.saga = r.column1 AND sagabus_held.endpoint = r.column5
    AND sagabus_held.reason = 'early'";

const TAKE_BACK: &str = "
DELETE FROM sagabus_outbox WHERE id IN (
    SELECT o.id FROM ({rows}) r CROSS JOIN sagabus_outbox o
    WHERE o.id = r.column1 AND (o.lease_until IS NULL OR o.lease_until < r.column2))
RETURNING id, first_attempt_at IS NOT NULL AS tried";

type Bound = Result<(), BoxDynError>;
type Values<'q> = SqliteArguments<'q>;

pub(super) async fn write(connection: &mut SqliteConnection, write: &Write) -> Result<(), StoreError> {
    let now = now_us();
    let claims = in_order(&write.claims, |row| row);
    let claimed = execute(connection, CLAIM, &claims, |values, row| claim(values, write, row, now)).await;
    expect(claimed, claims.len())?;
    let completed = execute(connection, COMPLETE, &write.completes, |values, (row, known)| {
        claim(values, write, row, now)?;
        bind!(values: known)
    });
    expect(completed.await, write.completes.len())?;
    let (started, moved): (Vec<_>, Vec<_>) = write.instances.iter().partition(|write| write.base_seq == 0);
    expect(execute(connection, STARTED, &started, |values, row| start(values, row, now)).await, started.len())?;
    expect(execute(connection, MOVED, &moved, |values, row| instance(values, row, now)).await, moved.len())?;
    let sent = execute(connection, OUTBOX, &write.outbox, |values, row| outbox(values, write, row, now)).await;
    expect(sent, write.outbox.len())?;
    let held = execute(connection, HELD_IN, &write.held_in, |values, row| held(values, write, row, now));
    held.await.map_err(store_error)?;
    let gone = execute(
        connection,
        HELD_OUT,
        &write.held_out,
        |values, key| bind!(values: &key.message_id, &key.receiver, &write.endpoint),
    );
    gone.await.map_err(store_error)?;
    let gone = execute(
        connection,
        TIMERS_OUT,
        &write.timers_out,
        |values, out| bind!(values: &out.key.saga, &out.key.id, out.number),
    );
    gone.await.map_err(store_error)?;
    fields(connection, write).await
}

async fn fields(connection: &mut SqliteConnection, write: &Write) -> Result<(), StoreError> {
    execute(connection, FIELDS_OUT, &write.fields_out, field).await.map_err(store_error)?;
    expect(execute(connection, FIELDS_IN, &write.fields_in, field).await, write.fields_in.len())?;
    let met = execute(connection, ALIASES_MET, &write.aliases_met, |values, row| {
        let FieldRow { field, instance, .. } = row;
        bind!(values: &field.saga, &field.id, &instance.saga, &instance.id, &write.endpoint)
    });
    met.await.map(drop).map_err(store_error)
}

fn field<'q>(values: &mut Values<'q>, row: &'q FieldRow) -> Bound {
    let FieldRow { field, instance, is_alias, .. } = row;
    bind!(values: &field.saga, &field.id, &instance.saga, &instance.id, is_alias.then_some(true))
}

pub(super) async fn take_back(connection: &mut SqliteConnection, rows: &[Uuid]) -> Result<Vec<TakenBack>, sqlx::Error> {
    let now = now_us();
    let gone = fetch(connection, TAKE_BACK, rows, |values, row| bind!(values: row.to_string(), now)).await?;
    let row = |row: &SqliteRow| Some(TakenBack::new(row.get::<&str, _>("id").parse().ok()?, row.get("tried")));
    Ok(gone.iter().filter_map(row).collect()) // the ids are those that were given
}

/// Fewer rows than given: another process was faster.
fn expect(done: Result<u64, sqlx::Error>, rows: usize) -> Result<(), StoreError> {
    if done.map_err(store_error)? == rows as u64 { Ok(()) } else { Err(StoreError::conflict()) }
}

fn claim<'q>(values: &mut Values<'q>, write: &'q Write, row: &'q InboxRow, now: i64) -> Bound {
    let envelope = &*row.envelope;
    bind!(values:
        &write.endpoint,
        &write.owner,
        now,
        now,
        &row.receiver,
        &envelope.message_id,
        row.body_hash,
        &envelope.type_name,
        row.result.as_str(),
        &envelope.conversation_id,
        &envelope.causation_id,
        row.saga_id.as_ref().map(|_| &row.receiver),
        &row.saga_id,
        row.seq,
        &row.from_state,
        &row.to_state,
        effects(row),
        envelope.sent_at_us,
        row.attempts,
        row.round,
        row.note.as_deref().map(clean),
        &row.message,
    )
}

fn start<'q>(values: &mut Values<'q>, write: &'q InstanceWrite, now: i64) -> Bound {
    let row = &write.row;
    bind!(values:
        now,
        now,
        row.done.then_some(now),
        &row.key.saga,
        &row.key.id,
        &row.state,
        &row.data,
        row.seq,
        row.entered,
        row.version,
        &row.progress,
        &row.originator,
        &row.paused_by,
    )
}

fn instance<'q>(values: &mut Values<'q>, write: &'q InstanceWrite, now: i64) -> Bound {
    let row = &write.row;
    bind!(values:
        &row.key.saga,
        &row.key.id,
        now,
        &row.state,
        &row.data,
        row.seq,
        row.entered,
        row.version,
        &row.progress,
        &row.paused_by,
        row.done,
        write.base_seq,
    )
}

fn outbox<'q>(values: &mut Values<'q>, write: &'q Write, row: &'q OutboxRow, now: i64) -> Bound {
    let envelope = &*row.envelope;
    let saga = sender(envelope);
    bind!(values:
        &write.endpoint,
        row.leased.then_some(&write.owner),
        row.leased.then(|| now.saturating_add(us(write.lease))),
        row.leased.then_some(now),
        now,
        row.id.to_string(),
        &envelope.message_id,
        row.kind.as_str(),
        &envelope.type_name,
        row.destination.name(),
        saga.map(|saga| &saga.saga),
        saga.map(|saga| &saga.id),
        saga.and_then(|saga| saga.timer),
        to_json(envelope)?,
        &envelope.body[..],
        after(row.delay.unwrap_or_default()),
        row.last_error.as_deref().map(clean),
    )
}

fn held<'q>(values: &mut Values<'q>, write: &'q Write, row: &'q HeldIn, now: i64) -> Bound {
    let envelope = &*row.envelope;
    bind!(values:
        &write.endpoint,
        now,
        &row.receiver,
        &envelope.message_id,
        row.reason.as_str(),
        row.saga_id.as_ref().map(|_| row.alias.as_ref().unwrap_or(&row.receiver)),
        &row.saga_id,
        row.error.as_deref().map(clean),
        row.attempts,
        row.expires.map(|expires| now.saturating_add(us(expires))),
        &envelope.type_name,
        to_json(envelope)?,
        &envelope.body[..],
    )
}
