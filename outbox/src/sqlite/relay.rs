//! Leases, due rows, and what housekeeping deletes.

use super::{after, now_us};
use crate::rows::{claimed_row, us};
use saga_core::{Claim, Claimed, InboxRow, Leases, OutboxClaimed};
use serde_json::json;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use std::time::Duration;
use uuid::Uuid;

/// Rows that one step of the housekeeping deletes at most.
const SWEEP_ROWS_MAX: i64 = 1000;

const DUE: &str = "
FROM outbox WHERE endpoint = $1 AND due_at <= $2 AND (lease_until IS NULL OR lease_until < $2) AND (first_attempt_at IS NULL OR first_attempt_at > $2 - $3)";

/// A look that takes no lock: an idle endpoint does not write.
pub(super) async fn anything_due(readers: &SqlitePool, claim: &Claim<'_>) -> Result<bool, sqlx::Error> {
    if claim.rows_max == 0 {
        return Ok(false);
    }
    sqlx::query_scalar(&format!("SELECT EXISTS (SELECT 1 {DUE})"))
        .bind(claim.endpoint)
        .bind(now_us())
        .bind(us(claim.retention))
        .fetch_one(readers)
        .await
}

pub(super) async fn next_due(
    connection: impl sqlx::Executor<'_, Database = sqlx::Sqlite>,
    claim: &Claim<'_>,
) -> Result<Option<Duration>, sqlx::Error> {
    let now = now_us();
    let due: Option<i64> = sqlx::query_scalar("SELECT min(due_at) FROM outbox WHERE endpoint = $1 AND due_at > $2")
        .bind(claim.endpoint)
        .bind(now)
        .fetch_one(connection)
        .await?;
    Ok(due.map(|due| Duration::from_micros((due - now).max(0) as u64)))
}

pub(super) async fn claim(connection: &mut SqliteConnection, claim: &Claim<'_>) -> Result<Claimed, sqlx::Error> {
    let now = now_us();
    let sql = format!(
        "UPDATE outbox SET lease_owner = $5, lease_until = $6, attempts = attempts + (lease_until IS NOT NULL),
            first_attempt_at = coalesce(first_attempt_at, $2)
         WHERE id IN (SELECT id {DUE} ORDER BY due_at, id LIMIT $4) RETURNING *"
    );
    let rows = sqlx::query(&sql)
        .bind(claim.endpoint)
        .bind(now)
        .bind(us(claim.retention))
        .bind(claim.rows_max)
        .bind(claim.owner)
        .bind(after(claim.lease))
        .fetch_all(&mut *connection)
        .await?;
    let mut rows: Vec<&SqliteRow> = rows.iter().collect();
    rows.sort_by_key(|row| (row.get::<i64, _>("due_at"), row.get::<String, _>("id")));
    let rows = rows.into_iter().filter_map(|row| outbox_row(row, claim.endpoint)).collect();
    Ok(Claimed { rows, next_due: next_due(connection, claim).await? })
}

fn outbox_row(row: &SqliteRow, endpoint: &str) -> Option<OutboxClaimed> {
    let id = row.get::<&str, _>("id").parse().ok()?;
    claimed_row!(row, endpoint, id: id, attempts: i64)
}

pub(super) async fn hold_leases(
    connection: &mut SqliteConnection,
    leases: &Leases<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if !leases.failed.is_empty() {
        let failed = leases.failed.iter().map(|failed| json!([failed.id, failed.error, after(failed.delay)]));
        sqlx::query(
            "UPDATE outbox SET lease_owner = NULL, lease_until = NULL, attempts = attempts + 1, last_error = r.value ->> 1, due_at = r.value ->> 2
             FROM json_each($1) r WHERE outbox.id = r.value ->> 0 AND outbox.lease_owner = $2",
        )
        .bind(failed.collect::<serde_json::Value>().to_string())
        .bind(leases.owner)
        .execute(&mut *connection)
        .await?;
    }
    if leases.renew.is_empty() {
        return Ok(Vec::new());
    }
    let kept: Vec<String> = sqlx::query_scalar(
        "UPDATE outbox SET lease_until = $3 WHERE id IN (SELECT value FROM json_each($1)) AND lease_owner = $2 RETURNING id",
    )
    .bind(serde_json::to_string(leases.renew).unwrap_or_default())
    .bind(leases.owner)
    .bind(after(leases.lease))
    .fetch_all(connection)
    .await?;
    Ok(leases.renew.iter().filter(|id| !kept.contains(&id.to_string())).copied().collect())
}

pub(super) async fn suspect(writer: &SqlitePool, claim: &InboxRow) -> Result<Option<i64>, sqlx::Error> {
    let envelope = &claim.envelope;
    sqlx::query_scalar(
        "INSERT INTO inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id, causation_id, handled_at, handled_by, attempts, crashes)
         VALUES ($1, $2, $3, $4, $5, 'suspect', $6, $7, $8, $9, 0, 1)
         ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET crashes = inbox.crashes + 1 WHERE inbox.result IN ('suspect', 'retrying')
         RETURNING crashes",
    )
    .bind(&claim.endpoint)
    .bind(&claim.receiver)
    .bind(&envelope.message_id)
    .bind(envelope.body_hash())
    .bind(&envelope.type_name)
    .bind(&envelope.conversation_id)
    .bind(&envelope.causation_id)
    .bind(now_us())
    .bind(&claim.handled_by)
    .fetch_optional(writer)
    .await
}

const STRANDED: [&str; 2] = [
    "INSERT INTO held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, conversation_id, causation_id, from_saga, from_saga_id, from_entered,
        headers, body, sent_at, kind, destination, only_for)
     SELECT endpoint, 'outbox ' || id, message_id, 'stranded', 'first sent at ' || datetime(first_attempt_at / 1000000, 'unixepoch') || ' to ' || destination
        || ', never confirmed: the receiver may have handled and forgotten it; look there before a retry',
        attempts, $2, type, conversation_id, causation_id, saga, saga_id, entered, headers, body, sent_at, kind, destination, receiver
     FROM outbox WHERE endpoint = $1 AND first_attempt_at < $3 AND (lease_until IS NULL OR lease_until < $2) ORDER BY id LIMIT $4
     ON CONFLICT DO NOTHING",
    "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE endpoint = $1 AND first_attempt_at < $3 AND (lease_until IS NULL OR lease_until < $2) ORDER BY id LIMIT $4)",
];

/// Early messages whose instance did not come in time. An event that answers nobody is journaled as discarded; an outcome or a command
/// stays for a person, because money may hang on it.
const EXPIRED: [&str; 3] = [
    "UPDATE inbox SET result = 'discarded', note = 'no instance came in time', handled_at = $2
     FROM (SELECT message_id, receiver FROM held h WHERE endpoint = $1 AND reason = 'early' AND expires_at < $2 AND $3 IS NOT NULL AND $4 > 0
            AND h.from_saga IS NOT h.saga AND EXISTS (SELECT 1 FROM definition d, json_each(d.chart, '$.messages') m
                WHERE d.saga = h.saga AND m.value ->> 'type_name' = h.type AND m.value ->> 'kind' = 'event')) g
     WHERE inbox.endpoint = $1 AND inbox.message_id = g.message_id AND inbox.receiver = g.receiver AND inbox.result = 'held'",
    "DELETE FROM held WHERE endpoint = $1 AND reason = 'early' AND expires_at < $2 AND $3 IS NOT NULL AND $4 > 0 AND EXISTS (
        SELECT 1 FROM inbox i WHERE i.message_id = held.message_id AND i.receiver = held.receiver AND i.endpoint = $1 AND i.result = 'discarded')",
    "UPDATE held SET reason = 'failed', expires_at = NULL, error = 'no instance came in time; start it and retry, or leave it'
     WHERE endpoint = $1 AND reason = 'early' AND expires_at < $2 AND $3 IS NOT NULL AND $4 > 0",
];

const OLD: [&str; 2] = [
    "DELETE FROM inbox WHERE (message_id, receiver, endpoint) IN (
        SELECT message_id, receiver, endpoint FROM inbox i WHERE handled_at < $3 AND endpoint = $1 AND $2 > 0 AND result IN ('handled', 'ignored', 'stale', 'discarded')
            AND NOT EXISTS (SELECT 1 FROM held h WHERE h.message_id = i.message_id) LIMIT $4)",
    "DELETE FROM saga WHERE (id, saga) IN (
        SELECT id, saga FROM saga s WHERE completed_at < $3 AND $2 > 0 AND saga IN (SELECT d.saga FROM definition d WHERE d.endpoint = $1)
            AND NOT EXISTS (SELECT 1 FROM held h WHERE h.saga_id = s.id AND h.saga = s.saga) LIMIT $4)",
];

pub(super) async fn sweep(writer: &SqlitePool, endpoint: &str, retention: Duration) -> Result<u64, sqlx::Error> {
    let now = now_us();
    let mut rows = 0;
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    for sql in EXPIRED.into_iter().chain(STRANDED).chain(OLD) {
        let query =
            sqlx::query(sql).bind(endpoint).bind(now).bind(now.saturating_sub(us(retention))).bind(SWEEP_ROWS_MAX);
        rows += query.execute(&mut *tx).await?.rows_affected();
    }
    tx.commit().await?;
    Ok(rows)
}
