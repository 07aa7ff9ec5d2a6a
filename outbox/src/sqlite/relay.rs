//! Leases on outbox rows, and the count of crashes.

use super::{after, array, now_us};
use crate::rows::{STEP_ROWS_MAX, Stored, UNREADABLE_DELAY, clean, later_than, us};
use saga_core::{InboxResult, InboxRow, LeaseRequest, LeaseUpdate, Leased, LeasedRow};
use serde_json::json;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

/// `$4` and `$5` are the process and a JSON array of the rows that it knows, or `NULL`.
const DUE: &str = "
FROM sagabus_outbox WHERE endpoint = $1 AND due_at <= $2
    AND (lease_until IS NULL OR lease_until < $2
        OR (lease_owner = $4 AND $5 IS NOT NULL AND id NOT IN (SELECT value FROM json_each($5))))
    AND (first_attempt_at IS NULL OR first_attempt_at > $2 - $3)";

/// A check without a lock: an idle endpoint does not write.
pub(super) async fn anything_due(readers: &SqlitePool, request: &LeaseRequest<'_>) -> Result<bool, sqlx::Error> {
    if request.rows_max == 0 {
        return Ok(false);
    }
    sqlx::query_scalar(&format!("SELECT EXISTS (SELECT 1 {DUE})"))
        .bind(request.endpoint)
        .bind(now_us())
        .bind(us(request.retention))
        .bind(request.owner)
        .bind(known(request))
        .fetch_one(readers)
        .await
}

fn known(request: &LeaseRequest<'_>) -> Option<String> {
    Some(json!(request.known?).to_string())
}

pub(super) async fn next_due(
    connection: impl sqlx::Executor<'_, Database = sqlx::Sqlite>,
    request: &LeaseRequest<'_>,
) -> Result<Option<Duration>, sqlx::Error> {
    let now = now_us();
    let due = sqlx::query_scalar(
        "SELECT min(due_at) FROM sagabus_outbox WHERE endpoint = $1 AND due_at > $2 AND due_at <= $3",
    );
    let due = due.bind(request.endpoint).bind(now).bind(now.saturating_add(us(request.ahead)));
    let due: Option<i64> = due.fetch_one(connection).await?;
    Ok(due.map(|due| Duration::from_micros((due - now).max(0) as u64)))
}

pub(super) async fn lease(
    connection: &mut SqliteConnection,
    request: &LeaseRequest<'_>,
) -> Result<Leased, sqlx::Error> {
    let now = now_us();
    let sql = format!(
        "UPDATE sagabus_outbox SET lease_owner = $4, lease_until = $6,
            expired = expired + coalesce(lease_until < $2, 0),
            first_attempt_at = coalesce(first_attempt_at, $2)
         WHERE rowid IN (SELECT place FROM (
            SELECT place, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS before FROM (
                SELECT rowid AS place, id, due_at, octet_length(body) AS bytes {DUE} ORDER BY due_at, id LIMIT $7))
            WHERE before < $8)
         RETURNING rowid AS place, id, due_at, kind, destination, envelope, body, attempts, expired,
            last_error IS NOT NULL AND waits_for IS NULL AS wanted"
    );
    let rows = sqlx::query(&sql)
        .bind(request.endpoint)
        .bind(now)
        .bind(us(request.retention))
        .bind(request.owner)
        .bind(known(request))
        .bind(after(request.lease))
        .bind(request.rows_max)
        .bind(request.bytes_max)
        .fetch_all(&mut *connection)
        .await?;
    let mut leased = Vec::with_capacity(rows.len());
    for row in &rows {
        // another program may have written the row, so each value may have any type
        let due_at: i64 = row.try_get("due_at").unwrap_or(now);
        match outbox_row(row, now - due_at) {
            Ok(read) => {
                canonical(connection, row, read.id).await?;
                leased.push((due_at, read));
            }
            Err(error) => put_off(connection, row, request.endpoint, &error).await?,
        }
    }
    leased.sort_by_key(|(due_at, row)| (*due_at, row.id));
    let rows = leased.into_iter().map(|(_, row)| row).collect();
    Ok(Leased::new(rows, next_due(connection, request).await?))
}

fn outbox_row(row: &SqliteRow, late_us: i64) -> Result<LeasedRow, String> {
    let column = |error: sqlx::Error| error.to_string();
    let id: &str = row.try_get("id").map_err(column)?;
    let stored = Stored {
        kind: row.try_get("kind").map_err(column)?,
        destination: row.try_get("destination").map_err(column)?,
        envelope: row.try_get("envelope").map_err(column)?,
        body: row.try_get("body").map_err(column)?,
        attempts: row.try_get("attempts").map_err(column)?,
        expired: row.try_get("expired").map_err(column)?,
        late_us,
        wanted: row.try_get("wanted").map_err(column)?,
    };
    stored.read(id.parse().map_err(|error| format!("its id `{id}` is not a uuid: {error}"))?)
}

/// A row from another program may spell its id differently, and could not be found later to delete it.
async fn canonical(connection: &mut SqliteConnection, row: &SqliteRow, id: Uuid) -> Result<(), sqlx::Error> {
    let (stored, id): (&str, String) = (row.try_get("id")?, id.to_string());
    if stored == id {
        return Ok(());
    }
    let spelled = sqlx::query("UPDATE OR REPLACE sagabus_outbox SET id = $2 WHERE id = $1").bind(stored).bind(id);
    spelled.execute(connection).await.map(drop)
}

async fn put_off(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
    endpoint: &str,
    error: &str,
) -> Result<(), sqlx::Error> {
    // its id may be anything, or nothing
    let place: i64 = row.try_get("place")?;
    tracing::warn!(endpoint, rowid = place, error, "an outbox row cannot be read");
    sqlx::query(
        "UPDATE sagabus_outbox SET lease_owner = NULL, lease_until = NULL, last_error = $2, due_at = $3
         WHERE rowid = $1",
    )
    .bind(place)
    .bind(error)
    .bind(after(UNREADABLE_DELAY))
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn renew_and_fail(
    connection: &mut SqliteConnection,
    update: &LeaseUpdate<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if !update.failed.is_empty() {
        let failed = update.failed.iter().map(|failed| {
            json!([failed.id, clean(&failed.error), after(failed.delay), failed.unroutable, failed.tried])
        });
        sqlx::query(
            "UPDATE sagabus_outbox SET lease_owner = NULL, lease_until = NULL, attempts = attempts + (r.value ->> 4),
                last_error = r.value ->> 1, due_at = r.value ->> 2,
                waits_for = CASE WHEN r.value ->> 3 THEN destination END
             FROM json_each($1) r WHERE sagabus_outbox.id = r.value ->> 0 AND sagabus_outbox.lease_owner = $2",
        )
        .bind(array(failed))
        .bind(update.owner)
        .execute(&mut *connection)
        .await?;
    }
    if update.renew.is_empty() {
        return Ok(Vec::new());
    }
    let renewed: Vec<String> = sqlx::query_scalar(
        "UPDATE sagabus_outbox SET lease_until = $3
         WHERE id IN (SELECT value FROM json_each($1)) AND lease_owner = $2 RETURNING id",
    )
    .bind(array(update.renew.iter().map(|id| id.to_string().into())))
    .bind(update.owner)
    .bind(after(update.lease))
    .fetch_all(connection)
    .await?;
    let renewed: HashSet<Uuid> = renewed.iter().filter_map(|id| id.parse().ok()).collect();
    Ok(update.renew.iter().filter(|id| !renewed.contains(id)).copied().collect())
}

/// In the order in which the rows were written, within one step: rows of the same time are leased by id. What was tried
/// while nobody took messages there says nothing about a row, and no later pause is longer for it.
pub(super) async fn reopen(writer: &SqlitePool, endpoint: &str, destination: &str) -> Result<u64, sqlx::Error> {
    let reopened = sqlx::query(
        "UPDATE sagabus_outbox SET due_at = $3, waits_for = NULL, attempts = 0
         WHERE id IN (SELECT id FROM sagabus_outbox WHERE endpoint = $1 AND waits_for = $2
            AND (lease_until IS NULL OR lease_until < $3) ORDER BY id LIMIT $4)",
    );
    let reopened = reopened.bind(endpoint).bind(destination).bind(now_us()).bind(STEP_ROWS_MAX);
    reopened.execute(writer).await.map(|done| done.rows_affected())
}

const COUNT_CRASH: &str = "
INSERT INTO sagabus_inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id, causation_id,
    saga, saga_id, sent_at, claimed_at, handled_at, handled_by, attempts, crashes)
VALUES ($1, $2, $3, $4, $5, 'suspect', $6, $7, CASE WHEN $8 IS NOT NULL THEN $2 END, $8, $9, $10, $10, $11, 0, 1)
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET crashes = sagabus_inbox.crashes + 1,
    saga = coalesce(excluded.saga, sagabus_inbox.saga), saga_id = coalesce(excluded.saga_id, sagabus_inbox.saga_id)
    WHERE sagabus_inbox.result IN ('suspect', 'retrying') OR (sagabus_inbox.result = 'held' AND $12)
RETURNING crashes";

pub(super) async fn count_crash(
    writer: &SqlitePool,
    endpoint: &str,
    owner: &str,
    row: &InboxRow,
) -> Result<Option<i64>, sqlx::Error> {
    let envelope = &row.envelope;
    sqlx::query_scalar(COUNT_CRASH)
        .bind(endpoint)
        .bind(&row.receiver)
        .bind(&envelope.message_id)
        .bind(envelope.body_hash())
        .bind(&envelope.type_name)
        .bind(&envelope.conversation_id)
        .bind(&envelope.causation_id)
        .bind(&row.saga_id)
        .bind(envelope.sent_at_us)
        .bind(now_us())
        .bind(owner)
        .bind(row.result == InboxResult::Held)
        .fetch_optional(writer)
        .await
}

/// A time further away than a minute comes from a clock that was set back; of a slow rate, one that is further away
/// than what sixteen processes have taken. No row: the first time is too far away, and none was taken.
const RESERVE: &str = "
INSERT INTO sagabus_rate_limit (endpoint, name, next_at) VALUES ($1, $2, $4 + $3)
ON CONFLICT (endpoint, name) DO UPDATE
    SET next_at = $3 + min(max(sagabus_rate_limit.next_at, $4), $4 + max(60000000, 16 * $3))
    WHERE min(sagabus_rate_limit.next_at - $4, max(60000000, 16 * $3)) <= $5
RETURNING next_at - $3 - $4";

/// Of a limit whose first time is too far away: when that is. One that a clock has set too far away comes nearer.
const NEXT_CALL: &str = "
UPDATE sagabus_rate_limit SET next_at = min(next_at, $4 + max(60000000, 16 * $3)) WHERE endpoint = $1 AND name = $2
RETURNING next_at - $4";

pub(super) async fn reserve(
    writer: &SqlitePool,
    endpoint: &str,
    limit: &str,
    calls: u32,
    every: Duration,
    within: Duration,
) -> Result<Duration, sqlx::Error> {
    let taken = us(every).saturating_mul(calls.into());
    let of = |sql| sqlx::query_scalar(sql).bind(endpoint).bind(limit).bind(taken).bind(now_us());
    let reserved: Option<i64> = of(RESERVE).bind(us(within)).fetch_optional(writer).await?;
    if let Some(wait) = reserved {
        return Ok(Duration::from_micros(wait.unsigned_abs()));
    }
    let wait: Option<i64> = of(NEXT_CALL).fetch_optional(writer).await?;
    Ok(later_than(within, wait))
}
