//! Leases, due rows, and what housekeeping deletes.

use crate::rows::{claimed_row, us};
use saga_core::{Claim, Claimed, InboxRow, Leases, OutboxClaimed};
use sqlx::{Executor, PgConnection, Row, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// Rows that one step of the housekeeping deletes at most.
const SWEEP_ROWS_MAX: i64 = 1000;

/// `statement_timestamp()` finds the due rows, because an index cannot be searched by a volatile function; leases are
/// written by `clock_timestamp()`. Rows of the same microsecond come in the order of the index, which is that of their insertion:
/// with the id in this order, rows that all became due together would be sorted at each claim.
const CLAIM: &str = "
WITH due AS (
    SELECT id FROM sagabus.outbox
    WHERE endpoint = $1 AND due_at <= statement_timestamp() AND (lease_until IS NULL OR lease_until < statement_timestamp())
        AND (first_attempt_at IS NULL OR first_attempt_at > statement_timestamp() - $5 * interval '1 microsecond')
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED),
taken AS (
    UPDATE sagabus.outbox o SET lease_owner = $2, lease_until = clock_timestamp() + $4 * interval '1 microsecond',
        attempts = o.attempts + (o.lease_until IS NOT NULL)::int, first_attempt_at = coalesce(o.first_attempt_at, clock_timestamp())
    FROM due WHERE o.id = due.id RETURNING o.*)
SELECT (extract(epoch FROM (SELECT min(due_at) FROM sagabus.outbox WHERE endpoint = $1 AND due_at > statement_timestamp()) - clock_timestamp()) * 1000000)::bigint AS next_due,
    t.id, t.message_id, t.kind, t.type, t.destination, t.receiver, t.saga, t.saga_id, t.entered, t.conversation_id, t.causation_id, t.headers::text AS headers, t.body,
    (extract(epoch FROM t.sent_at) * 1000000)::bigint AS sent_at, t.attempts
FROM (SELECT 1) one LEFT JOIN taken t ON true ORDER BY t.due_at, t.id";

pub(super) async fn claim(
    connection: &mut PgConnection,
    persistent: bool,
    claim: &Claim<'_>,
) -> Result<Claimed, sqlx::Error> {
    let rows = sqlx::query(CLAIM)
        .bind(claim.endpoint)
        .bind(claim.owner)
        .bind(claim.rows_max)
        .bind(us(claim.lease))
        .bind(us(claim.retention))
        .persistent(persistent)
        .fetch_all(&mut *connection)
        .await?;
    let next_due = rows.first().and_then(|row| row.get::<Option<i64>, _>("next_due"));
    Ok(Claimed {
        rows: rows.iter().filter_map(|row| outbox_row(row, claim.endpoint)).collect(),
        next_due: next_due.map(|us| Duration::from_micros(us.max(0) as u64)),
    })
}

/// A statement of its own each time, in one round trip: its plan fits the table as it is, where a prepared one would go on reading the
/// pages that a burst has left behind. It may wait for a row that somebody holds, who waits for none of ours: a claim skips what is
/// locked, and so does a renewal.
pub(super) async fn forget(connection: &mut PgConnection, sent: &[Uuid]) -> Result<(), sqlx::Error> {
    let ids: Vec<String> = sent.iter().map(Uuid::to_string).collect();
    let sql = format!("DELETE FROM sagabus.outbox WHERE id = ANY('{{{}}}'::uuid[])", ids.join(","));
    connection.execute(sql.as_str()).await.map(drop)
}

fn outbox_row(row: &PgRow, endpoint: &str) -> Option<OutboxClaimed> {
    let id: Uuid = row.get::<Option<Uuid>, _>("id")?; // none: the one row that only says what is due next
    claimed_row!(row, endpoint, id: id, attempts: i32)
}

pub(super) async fn hold_leases(
    connection: &mut PgConnection,
    persistent: bool,
    leases: &Leases<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if !leases.failed.is_empty() {
        let (mut ids, mut errors, mut delays) = (Vec::new(), Vec::new(), Vec::new());
        for failed in leases.failed {
            ids.push(failed.id);
            errors.push(failed.error.as_str());
            delays.push(us(failed.delay));
        }
        sqlx::query(
            "UPDATE sagabus.outbox o SET lease_owner = NULL, lease_until = NULL, attempts = o.attempts + 1, last_error = r.error,
                due_at = clock_timestamp() + r.delay * interval '1 microsecond'
             FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS r(id, error, delay)
             WHERE o.id = r.id AND o.id = ANY($1) AND o.lease_owner = $4",
        )
        .bind(ids)
        .bind(errors)
        .bind(delays)
        .bind(leases.owner)
        .persistent(persistent).execute(&mut *connection)
        .await?;
    }
    if leases.renew.is_empty() {
        return Ok(Vec::new());
    }
    let kept: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE sagabus.outbox SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE id = ANY(ARRAY(SELECT id FROM sagabus.outbox WHERE id = ANY($1) AND lease_owner = $2 FOR UPDATE SKIP LOCKED))
         RETURNING id",
    )
    .bind(leases.renew)
    .bind(leases.owner)
    .bind(us(leases.lease))
    .persistent(persistent).fetch_all(&mut *connection)
    .await?;
    Ok(leases.renew.iter().filter(|id| !kept.contains(id)).copied().collect())
}

pub(super) async fn suspect(
    connection: &mut PgConnection,
    persistent: bool,
    claim: &InboxRow,
) -> Result<Option<i64>, sqlx::Error> {
    let envelope = &claim.envelope;
    let crashes: Option<i32> = sqlx::query_scalar(
        "INSERT INTO sagabus.inbox AS i (endpoint, receiver, message_id, body_hash, type, result, conversation_id, causation_id, handled_at, handled_by, attempts, crashes)
         VALUES ($1, $2, $3, $4, $5, 'suspect', $6, $7, clock_timestamp(), $8, 0, 1)
         ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET crashes = i.crashes + 1 WHERE i.result IN ('suspect', 'retrying')
         RETURNING crashes",
    )
    .bind(&claim.endpoint)
    .bind(&claim.receiver)
    .bind(&envelope.message_id)
    .bind(envelope.body_hash())
    .bind(&envelope.type_name)
    .bind(&envelope.conversation_id)
    .bind(&envelope.causation_id)
    .bind(&claim.handled_by)
    .persistent(persistent).fetch_optional(&mut *connection)
    .await?;
    Ok(crashes.map(i64::from))
}

/// A message whose first publish is older than the receivers' memory: it may have arrived and been forgotten, so sending it again could
/// repeat its effect. A person decides.
const STRANDED: &str = "
WITH old AS (
    DELETE FROM sagabus.outbox WHERE id = ANY(ARRAY(
        SELECT id FROM sagabus.outbox WHERE endpoint = $1 AND first_attempt_at < statement_timestamp() - $2 * interval '1 microsecond'
            AND (lease_until IS NULL OR lease_until < statement_timestamp())
        ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING *)
INSERT INTO sagabus.held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, conversation_id, causation_id,
    from_saga, from_saga_id, from_entered, headers, body, sent_at, kind, destination, only_for)
SELECT endpoint, 'outbox ' || id, message_id, 'stranded',
    'first sent ' || first_attempt_at || ' to ' || destination || ', never confirmed: the receiver may have handled and forgotten it; look there before a retry',
    attempts, clock_timestamp(), type, conversation_id, causation_id, saga, saga_id, entered, headers, body, sent_at, kind, destination, receiver FROM old";

/// Early messages whose instance did not come in time. An event that answers nobody is journaled as discarded; an outcome or a command
/// stays for a person, because money may hang on it.
const EXPIRED: [&str; 2] = [
    "WITH gone AS (
        DELETE FROM sagabus.held h WHERE h.endpoint = $1 AND h.reason = 'early' AND h.expires_at < statement_timestamp()
            AND h.from_saga IS DISTINCT FROM h.saga AND $2::bigint >= 0
            AND EXISTS (SELECT FROM sagabus.definition d, jsonb_array_elements(d.chart -> 'messages') m
                WHERE d.saga = h.saga AND m ->> 'type_name' = h.type AND m ->> 'kind' = 'event')
            AND h.message_id IN (SELECT message_id FROM sagabus.held WHERE endpoint = $1 AND reason = 'early' AND expires_at < statement_timestamp() LIMIT $3)
        RETURNING h.message_id, h.receiver, h.endpoint)
     UPDATE sagabus.inbox i SET result = 'discarded', note = 'no instance came in time', handled_at = clock_timestamp() FROM gone g
     WHERE i.message_id = g.message_id AND i.receiver = g.receiver AND i.endpoint = g.endpoint",
    "UPDATE sagabus.held SET reason = 'failed', expires_at = NULL, error = 'no instance came in time; start it and retry, or leave it'
     WHERE endpoint = $1 AND reason = 'early' AND expires_at < statement_timestamp() AND $2::bigint >= 0
        AND message_id IN (SELECT message_id FROM sagabus.held WHERE endpoint = $1 AND reason = 'early' AND expires_at < statement_timestamp() LIMIT $3)",
];

const OLD_INBOX: &str = "
DELETE FROM sagabus.inbox WHERE ctid = ANY(ARRAY(
    SELECT i.ctid FROM sagabus.inbox i
    WHERE i.handled_at < statement_timestamp() - $2 * interval '1 microsecond' AND i.endpoint = $1 AND i.result IN ('handled', 'ignored', 'stale', 'discarded')
        AND NOT EXISTS (SELECT FROM sagabus.held h WHERE h.message_id = i.message_id)
    LIMIT $3 FOR UPDATE SKIP LOCKED))";

const OLD_INSTANCES: &str = "
DELETE FROM sagabus.saga WHERE ctid = ANY(ARRAY(
    SELECT s.ctid FROM sagabus.saga s
    WHERE s.completed_at < statement_timestamp() - $2 * interval '1 microsecond'
        AND s.saga IN (SELECT d.saga FROM sagabus.definition d WHERE d.endpoint = $1)
        AND NOT EXISTS (SELECT FROM sagabus.held h WHERE h.saga_id = s.id AND h.saga = s.saga)
    LIMIT $3 FOR UPDATE SKIP LOCKED))";

pub(super) async fn sweep(
    connection: &mut PgConnection,
    persistent: bool,
    endpoint: &str,
    retention: Duration,
) -> Result<u64, sqlx::Error> {
    let mut rows = 0;
    for sql in EXPIRED.into_iter().chain([STRANDED, OLD_INBOX, OLD_INSTANCES]) {
        let done = sqlx::query(sql)
            .bind(endpoint)
            .bind(us(retention))
            .bind(SWEEP_ROWS_MAX)
            .persistent(persistent)
            .execute(&mut *connection)
            .await?;
        rows += done.rows_affected();
    }
    Ok(rows)
}
