//! Leases on outbox rows, what is taken back from them, and the count of crashes.

use crate::rows::{STEP_ROWS_MAX, Stored, UNREADABLE_DELAY, clean, later_than, us};
use saga_core::{InboxResult, InboxRow, LeaseRequest, LeaseUpdate, Leased, LeasedRow, TakenBack};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::{collections::HashSet, sync::LazyLock, time::Duration};
use uuid::Uuid;

/// `statement_timestamp()` finds the due rows, because an index cannot be searched by a volatile function; leases are
/// written by `clock_timestamp()`. Rows of the same microsecond come in index order, which is their order of insertion:
/// with the id in `ORDER BY`, rows that became due together would be sorted at each lease. They would be, too, with a
/// lower bound that may be far back: `{SINCE}` is empty, or a bound that is near. `{UNKNOWN}` adds rows under our own
/// lease. The next row is looked for only as far ahead as the relay waits: timers that are gone lie beyond. It is
/// planned each time: a plan that was made when the outbox was empty reads all of it for each row, once it is full.
const LEASE: &str = "
WITH due AS (
    SELECT id, due_at, octet_length(body) AS bytes FROM sagabus.outbox
    WHERE endpoint = $1 AND due_at <= statement_timestamp(){SINCE}
        AND (lease_until IS NULL OR lease_until < statement_timestamp(){UNKNOWN})
        AND (first_attempt_at IS NULL OR first_attempt_at > statement_timestamp() - $5 * interval '1 microsecond')
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED),
fits AS (SELECT id FROM (SELECT id, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS before FROM due) d
    WHERE before < $6),
taken AS (
    UPDATE sagabus.outbox o SET lease_owner = $2, lease_until = clock_timestamp() + $4 * interval '1 microsecond',
        expired = o.expired + coalesce(o.lease_until < statement_timestamp(), false)::int,
        first_attempt_at = coalesce(o.first_attempt_at, clock_timestamp())
    FROM fits WHERE o.id = fits.id RETURNING o.*)
SELECT (extract(epoch FROM (SELECT min(due_at) FROM sagabus.outbox
        WHERE endpoint = $1 AND due_at > statement_timestamp()
            AND due_at <= statement_timestamp() + $7 * interval '1 microsecond')
        - clock_timestamp()) * 1000000)::bigint AS next_due,
    t.id, t.kind, t.destination, t.envelope::text AS envelope, t.body, t.attempts, t.expired,
    (extract(epoch FROM clock_timestamp() - t.due_at) * 1000000)::bigint AS late,
    t.last_error IS NOT NULL AND t.waits_for IS NULL AS wanted
FROM (SELECT 1) one LEFT JOIN taken t ON true ORDER BY t.due_at, t.id";

fn statement(since: &str, unknown: &str) -> String {
    LEASE.replace("{SINCE}", since).replace("{UNKNOWN}", unknown)
}

static ALL: LazyLock<String> = LazyLock::new(|| statement("", ""));
static SINCE: LazyLock<String> =
    LazyLock::new(|| statement(" AND due_at >= statement_timestamp() - $8 * interval '1 microsecond'", ""));
static UNKNOWN: LazyLock<String> = LazyLock::new(|| statement("", " OR (lease_owner = $2 AND id <> ALL($8))"));

const PUT_OFF: &str = "
UPDATE sagabus.outbox SET lease_owner = NULL, lease_until = NULL, last_error = $2,
    due_at = clock_timestamp() + $3 * interval '1 microsecond'
WHERE id = $1";

pub(super) async fn lease(connection: &mut PgConnection, request: &LeaseRequest<'_>) -> Result<Leased, sqlx::Error> {
    let sql = match (request.known, request.since) {
        (Some(_), _) => &UNKNOWN,
        (None, Some(_)) => &SINCE,
        (None, None) => &ALL,
    };
    let query = sqlx::query(sql)
        .bind(request.endpoint)
        .bind(request.owner)
        .bind(request.rows_max)
        .bind(us(request.lease))
        .bind(us(request.retention))
        .bind(request.bytes_max)
        .bind(us(request.ahead))
        .persistent(false);
    let query = match (request.known, request.since) {
        (Some(known), _) => query.bind(known),
        (None, Some(since)) => query.bind(us(since)),
        (None, None) => query,
    };
    let rows = query.fetch_all(&mut *connection).await?;
    let next_due = rows.first().and_then(|row| row.get::<Option<i64>, _>("next_due"));
    let next_due = next_due.map(|us| Duration::from_micros(us.max(0) as u64));
    let mut leased = Leased::new(Vec::with_capacity(rows.len()), next_due);
    for row in &rows {
        // `None`: the row that only says when the next one is due
        let Some(id) = row.get::<Option<Uuid>, _>("id") else { continue };
        match outbox_row(id, row) {
            Ok(row) => leased.rows.push(row),
            Err(error) => {
                tracing::warn!(endpoint = request.endpoint, %id, error, "an outbox row cannot be read");
                let put_off = sqlx::query(PUT_OFF).bind(id).bind(clean(&error)).bind(us(UNREADABLE_DELAY));
                put_off.persistent(false).execute(&mut *connection).await?;
            }
        }
    }
    Ok(leased)
}

fn outbox_row(id: Uuid, row: &PgRow) -> Result<LeasedRow, String> {
    let stored = Stored {
        kind: row.get("kind"),
        destination: row.get("destination"),
        envelope: row.get("envelope"),
        body: row.get("body"),
        attempts: i64::from(row.get::<i32, _>("attempts")),
        expired: i64::from(row.get::<i32, _>("expired")),
        late_us: row.get("late"),
        wanted: row.get("wanted"),
    };
    stored.read(id)
}

const FAIL: &str = "
UPDATE sagabus.outbox o SET lease_owner = NULL, lease_until = NULL, attempts = o.attempts + r.tried::int,
    last_error = r.error, due_at = clock_timestamp() + r.delay * interval '1 microsecond',
    waits_for = CASE WHEN r.unroutable THEN o.destination END
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bool[], $5::bool[]) AS r(id, error, delay, unroutable, tried)
WHERE o.id = r.id AND o.id = ANY($1) AND o.lease_owner = $6";

const RENEW: &str = "
UPDATE sagabus.outbox SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
WHERE id = ANY(ARRAY(SELECT id FROM sagabus.outbox WHERE id = ANY($1) AND lease_owner = $2 FOR UPDATE SKIP LOCKED))
RETURNING id";

/// Planned anew each time, like the deletion of confirmed rows: it runs every few seconds, on a table whose size
/// changes by the minute.
pub(super) async fn renew_and_fail(
    connection: &mut PgConnection,
    update: &LeaseUpdate<'_>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if !update.failed.is_empty() {
        let failed = update.failed;
        sqlx::query(FAIL)
            .bind(failed.iter().map(|failed| failed.id).collect::<Vec<_>>())
            .bind(failed.iter().map(|failed| clean(&failed.error)).collect::<Vec<_>>())
            .bind(failed.iter().map(|failed| us(failed.delay)).collect::<Vec<_>>())
            .bind(failed.iter().map(|failed| failed.unroutable).collect::<Vec<_>>())
            .bind(failed.iter().map(|failed| failed.tried).collect::<Vec<_>>())
            .bind(update.owner)
            .persistent(false)
            .execute(&mut *connection)
            .await?;
    }
    if update.renew.is_empty() {
        return Ok(Vec::new());
    }
    let renewed = sqlx::query_scalar(RENEW).bind(update.renew).bind(update.owner).bind(us(update.lease));
    let renewed: Vec<Uuid> = renewed.persistent(false).fetch_all(connection).await?;
    let renewed: HashSet<Uuid> = renewed.into_iter().collect();
    Ok(update.renew.iter().filter(|id| !renewed.contains(id)).copied().collect())
}

/// In the order in which the rows were written, within one step. What was tried while nobody took messages there says
/// nothing about a row, and no later pause is longer for it.
const REOPEN: &str = "
UPDATE sagabus.outbox o SET due_at = statement_timestamp(), waits_for = NULL, attempts = 0
FROM (SELECT id FROM sagabus.outbox
    WHERE endpoint = $1 AND waits_for = $2 AND (lease_until IS NULL OR lease_until < statement_timestamp())
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED) w
WHERE o.id = w.id";

pub(super) async fn reopen(
    connection: &mut PgConnection,
    endpoint: &str,
    destination: &str,
) -> Result<u64, sqlx::Error> {
    let reopened = sqlx::query(REOPEN).bind(endpoint).bind(destination).bind(STEP_ROWS_MAX);
    reopened.persistent(false).execute(connection).await.map(|done| done.rows_affected())
}

const COUNT_CRASH: &str = "
INSERT INTO sagabus.inbox AS i (endpoint, receiver, message_id, body_hash, type, result, conversation_id, causation_id,
    saga, saga_id, sent_at, claimed_at, handled_at, handled_by, attempts, crashes)
VALUES ($1, $2, $3, $4, $5, 'suspect', $6, $7, CASE WHEN $8::text IS NOT NULL THEN $2 END, $8,
    'epoch'::timestamptz + $9::bigint * interval '1 microsecond', clock_timestamp(), clock_timestamp(), $10, 0, 1)
ON CONFLICT (message_id, receiver, endpoint) DO UPDATE SET crashes = i.crashes + 1,
    saga = coalesce(excluded.saga, i.saga), saga_id = coalesce(excluded.saga_id, i.saga_id)
    WHERE i.result IN ('suspect', 'retrying') OR (i.result = 'held' AND $11)
RETURNING crashes";

pub(super) async fn count_crash(
    connection: &mut PgConnection,
    persistent: bool,
    endpoint: &str,
    owner: &str,
    row: &InboxRow,
) -> Result<Option<i64>, sqlx::Error> {
    let envelope = &row.envelope;
    let crashes: Option<i32> = sqlx::query_scalar(COUNT_CRASH)
        .bind(endpoint)
        .bind(&row.receiver)
        .bind(&envelope.message_id)
        .bind(envelope.body_hash())
        .bind(&envelope.type_name)
        .bind(&envelope.conversation_id)
        .bind(&envelope.causation_id)
        .bind(&row.saga_id)
        .bind(envelope.sent_at_us)
        .bind(owner)
        .bind(row.result == InboxResult::Held)
        .persistent(persistent)
        .fetch_optional(&mut *connection)
        .await?;
    Ok(crashes.map(i64::from))
}

/// A time further away than a minute comes from a clock that was set back; of a slow rate, one that is further away
/// than what sixteen processes have taken. No row: the first time is too far away, and none was taken.
const RESERVE: &str = "
INSERT INTO sagabus.rate_limit AS l (endpoint, name, next_at)
VALUES ($1, $2, clock_timestamp() + $3 * interval '1 microsecond')
ON CONFLICT (endpoint, name) DO UPDATE SET next_at = $3 * interval '1 microsecond'
    + least(greatest(l.next_at, clock_timestamp()),
        clock_timestamp() + greatest(interval '1 minute', 16 * $3 * interval '1 microsecond'))
WHERE least(extract(epoch FROM l.next_at - clock_timestamp()) * 1000000, greatest(60000000, 16 * $3)) <= $4
RETURNING greatest(0, ceil(extract(epoch FROM next_at - clock_timestamp()) * 1000000) - $3)::bigint";

/// Of a limit whose first time is too far away: when that is. One that a clock has set too far away comes nearer.
const NEXT_CALL: &str = "
UPDATE sagabus.rate_limit SET next_at = least(next_at,
    clock_timestamp() + greatest(interval '1 minute', 16 * $3 * interval '1 microsecond'))
WHERE endpoint = $1 AND name = $2
RETURNING ceil(extract(epoch FROM next_at - clock_timestamp()) * 1000000)::bigint";

pub(super) async fn reserve(
    connection: &mut PgConnection,
    endpoint: &str,
    limit: &str,
    calls: u32,
    every: Duration,
    within: Duration,
) -> Result<Duration, sqlx::Error> {
    let taken = us(every).saturating_mul(calls.into());
    let of = |sql| sqlx::query_scalar(sql).bind(endpoint).bind(limit).bind(taken).persistent(false);
    let reserved: Option<i64> = of(RESERVE).bind(us(within)).fetch_optional(&mut *connection).await?;
    if let Some(wait) = reserved {
        return Ok(Duration::from_micros(wait.unsigned_abs()));
    }
    let wait: Option<i64> = of(NEXT_CALL).fetch_optional(connection).await?;
    Ok(later_than(within, wait))
}

/// A row that somebody has locked is being leased, or deleted because it has arrived. It is rare, so it is planned anew
/// each time.
const TAKE_BACK: &str = "
DELETE FROM sagabus.outbox WHERE id = ANY(ARRAY(SELECT id FROM sagabus.outbox
    WHERE id = ANY($1) AND (lease_until IS NULL OR lease_until < clock_timestamp()) FOR UPDATE SKIP LOCKED))
RETURNING id, first_attempt_at IS NOT NULL AS tried, sagabus.in_unit()";

pub(super) async fn take_back(connection: &mut PgConnection, rows: &[Uuid]) -> Result<Vec<TakenBack>, sqlx::Error> {
    let gone = sqlx::query(TAKE_BACK).bind(rows).persistent(false).fetch_all(connection).await?;
    Ok(gone.iter().map(|row| TakenBack::new(row.get("id"), row.get("tried"))).collect())
}
