//! What housekeeping deletes, and what it hands to a person.

use crate::rows::{NO_INSTANCE, NO_INSTANCE_NOTE, NO_VERSION, OPERATION_KEPT, PROCESS_KEPT, STEP_ROWS_MAX, us};
use saga_core::port::Swept;
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Of a large table whose old rows are many, the planner expects to find the first thousand soon, and reads it from its
/// beginning. But those are at its end, or dead rows lie before them.
pub(super) const BY_INDEX: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL jit = off";
/// Steps follow each other, from where the last one was, for this many times as long as the first one takes, which
/// begins at the first row and reads what is gone.
const MORE: f64 = 10.0;
const RUN_MIN: Duration = Duration::from_millis(500);
const RUN_MAX: Duration = Duration::from_secs(4);
/// A first step that takes longer than this reads many rows that are gone: the next sweeps begin where this one ended,
/// for a while.
const SLOW: Duration = Duration::from_secs(1);
const FROM_THE_FIRST_EVERY: Duration = Duration::from_secs(600);

/// Early messages whose time is up. If the instance exists, time no longer matters. If not, an event that is not an
/// answer is journaled as discarded; an outcome or a command waits for a person, because money may depend on it.
const EXPIRED: &str = "
WITH due AS MATERIALIZED (
    SELECT h.message_id, h.receiver, h.arrival,
        EXISTS (SELECT FROM sagabus.saga s WHERE s.id = h.saga_id AND s.saga = h.saga) AS started,
        h.envelope #>> '{saga,saga}' IS DISTINCT FROM h.receiver AND EXISTS (
            SELECT FROM sagabus.definition d, jsonb_array_elements(d.chart -> 'messages') m
            WHERE d.saga = h.receiver AND m ->> 'type_name' = h.type AND m ->> 'kind' = 'event') AS event
    FROM sagabus.held h
    WHERE h.endpoint = $1 AND h.reason = 'early' AND h.expires_at < statement_timestamp()
    ORDER BY h.expires_at, h.arrival LIMIT $2 FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM sagabus.held h USING due d
    WHERE h.message_id = d.message_id AND h.receiver = d.receiver AND h.endpoint = $1 AND d.event AND NOT d.started
    RETURNING h.message_id, h.receiver),
journaled AS (
    UPDATE sagabus.inbox i SET result = 'discarded', note = $3, handled_at = clock_timestamp() FROM gone g
    WHERE i.message_id = g.message_id AND i.receiver = g.receiver AND i.endpoint = $1 AND i.result = 'held'
    RETURNING 1),
kept AS (
    UPDATE sagabus.held h SET expires_at = NULL, reason = CASE WHEN d.started THEN h.reason ELSE 'failed' END,
        error = CASE WHEN d.started THEN h.error ELSE $4 END
    FROM due d
    WHERE h.message_id = d.message_id AND h.receiver = d.receiver AND h.endpoint = $1 AND (d.started OR NOT d.event)
    RETURNING d.started)
SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM kept WHERE NOT started), (SELECT count(*) FROM kept)";

/// Messages for which no process came in time that knows their type or version.
const OUTDATED: &str = "
WITH due AS MATERIALIZED (
    SELECT message_id, receiver FROM sagabus.held
    WHERE endpoint = $1 AND reason = 'version' AND expires_at < statement_timestamp()
    ORDER BY expires_at, arrival LIMIT $2 FOR UPDATE SKIP LOCKED),
kept AS (
    UPDATE sagabus.held h SET reason = 'undecodable', expires_at = NULL, error = $3 FROM due d
    WHERE h.message_id = d.message_id AND h.receiver = d.receiver AND h.endpoint = $1 RETURNING 1)
SELECT count(*) FROM kept";

/// Rule 7: a message whose first publish is older than the receivers' memory may have arrived and been forgotten, so
/// sending it again could repeat its effect. A person decides.
///
/// Only due rows are read, oldest first: a row that was tried becomes due again, and leases skip it when it is that
/// old. So future timers are not read, however many there are, and no further index is needed, which each message would
/// pay for.
const STRANDED: &str = "
WITH old AS (
    DELETE FROM sagabus.outbox WHERE id = ANY(ARRAY(
        SELECT id FROM sagabus.outbox WHERE id = ANY(ARRAY(
            SELECT o.id FROM (
                SELECT id, first_attempt_at FROM sagabus.outbox
                WHERE endpoint = $1 AND due_at <= statement_timestamp() ORDER BY due_at LIMIT 20 * $2) o
            WHERE o.first_attempt_at < statement_timestamp() - $3 * interval '1 microsecond'))
            AND (lease_until IS NULL OR lease_until < statement_timestamp())
        LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING *),
held AS (
    INSERT INTO sagabus.held (endpoint, receiver, message_id, reason, error, attempts, held_at, type, envelope, body,
        kind, destination)
    SELECT endpoint, 'outbox ' || id, message_id, 'stranded',
        'first sent ' || first_attempt_at || ' to ' || destination
            || ', never confirmed: the receiver may have handled and forgotten it; look there before a retry',
        attempts, clock_timestamp(), type, envelope, body, kind, destination FROM old RETURNING 1)
SELECT count(*) FROM held";

/// `$4` is where the step before was, so that its dead rows are not read again: while somebody holds a transaction
/// open, they cannot be removed, and a million of them would be read a thousand times.
const OLD_INBOX: &str = "
WITH gone AS (DELETE FROM sagabus.inbox WHERE ctid = ANY(ARRAY(
    SELECT i.ctid FROM sagabus.inbox i
    WHERE i.handled_at < statement_timestamp() - $3 * interval '1 microsecond' AND i.endpoint = $1
        AND i.handled_at >= 'epoch'::timestamptz + $4::bigint * interval '1 microsecond'
        AND i.result IN ('handled', 'ignored', 'stale', 'discarded')
        AND NOT EXISTS (SELECT FROM sagabus.held h WHERE h.message_id = i.message_id)
    LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING handled_at AS at)
SELECT count(*), (extract(epoch FROM min(at)) * 1000000)::bigint FROM gone";

const OLD_INSTANCES: &str = "
WITH gone AS (DELETE FROM sagabus.saga WHERE ctid = ANY(ARRAY(
    SELECT s.ctid FROM sagabus.saga s
    WHERE s.completed_at < statement_timestamp() - $3 * interval '1 microsecond'
        AND s.completed_at >= 'epoch'::timestamptz + $4::bigint * interval '1 microsecond'
        AND s.saga IN (SELECT d.saga FROM sagabus.definition d WHERE d.endpoint = $1)
        AND NOT EXISTS (SELECT FROM sagabus.held h WHERE h.saga_id = s.id AND h.saga = s.saga)
    LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING completed_at AS at)
SELECT count(*), (extract(epoch FROM min(at)) * 1000000)::bigint FROM gone";

/// Processes that did not sign off. Their rows stay for a while, for operators to see.
const OLD_PROCESSES: &str = "
WITH gone AS (DELETE FROM sagabus.process WHERE endpoint = $1
    AND seen_at < statement_timestamp() - $2 * interval '1 microsecond' RETURNING 1)
SELECT count(*) FROM gone";

/// A limit whose next call may be made already is as good as none: each key of a handler has had one.
const OLD_LIMITS: &str = "
WITH gone AS (DELETE FROM sagabus.rate_limit WHERE ctid = ANY(ARRAY(SELECT ctid FROM sagabus.rate_limit
    WHERE endpoint = $1 AND next_at < statement_timestamp() - interval '1 minute' LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1)
SELECT count(*) FROM gone";

/// They belong to no endpoint: whoever sweeps takes them.
const OLD_OPERATIONS: &str = "
WITH gone AS (DELETE FROM sagabus.operation WHERE ctid = ANY(ARRAY(SELECT ctid FROM sagabus.operation
    WHERE at < statement_timestamp() - $1 * interval '1 microsecond' ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1)
SELECT count(*) FROM gone";

/// What takes longest: each has transactions of its own, so that it keeps nothing else from happening.
pub(super) const OLD: [&str; 2] = [OLD_INBOX, OLD_INSTANCES];

/// Where deletions of old rows go on, by endpoint and statement.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<(String, &'static str), Place>);

/// The time of the last row that was deleted, and until when sweeps begin there: a row further back, which something
/// held had needed, waits so long.
#[derive(Debug, Clone, Copy)]
struct Place {
    from: i64,
    until: Instant,
}

/// Deletes old rows for a bounded time, and says how many.
pub(super) async fn delete_old(
    connection: &mut PgConnection,
    sql: &'static str,
    endpoint: &str,
    retention: Duration,
    places: &mut Places,
) -> Result<i64, sqlx::Error> {
    let key = (endpoint.to_owned(), sql);
    let known = places.0.remove(&key).filter(|place| Instant::now() < place.until);
    let (began, mut from, mut first_took, mut rows) = (Instant::now(), known.map_or(0, |it| it.from), None, 0);
    loop {
        // planned anew each time, because tables grow
        let old = sqlx::query_as::<_, (i64, Option<i64>)>(sql).persistent(false);
        let old = old.bind(endpoint).bind(STEP_ROWS_MAX).bind(us(retention)).bind(from);
        let (deleted, first) = old.fetch_one(&mut *connection).await?;
        rows += deleted;
        from = first.unwrap_or(from);
        let took = *first_took.get_or_insert_with(|| began.elapsed());
        if deleted < STEP_ROWS_MAX || began.elapsed() > took.mul_f64(MORE).clamp(RUN_MIN, RUN_MAX) {
            let is_slow = first_took.is_some_and(|took| took > SLOW);
            let until = known.map(|it| it.until).or_else(|| is_slow.then(|| began + FROM_THE_FIRST_EVERY));
            places.0.extend(until.map(|until| (key, Place { from, until })));
            return Ok(rows);
        }
    }
}

/// All that is short. What concerns people comes before anything is deleted.
pub(super) async fn sweep(
    connection: &mut PgConnection,
    endpoint: &str,
    retention: Duration,
) -> Result<Swept, sqlx::Error> {
    // planned anew each time: it runs once a minute, and tables grow
    let step = |sql| sqlx::query_scalar::<_, i64>(sql).persistent(false).bind(endpoint);
    let expired = sqlx::query_as::<_, (i64, i64, i64)>(EXPIRED).persistent(false).bind(endpoint).bind(STEP_ROWS_MAX);
    let expired = expired.bind(NO_INSTANCE_NOTE).bind(NO_INSTANCE).fetch_one(&mut *connection).await?;
    let (discarded, without_instance, kept) = expired;
    let without_version = step(OUTDATED).bind(STEP_ROWS_MAX).bind(NO_VERSION).fetch_one(&mut *connection).await?;
    let stranded = step(STRANDED).bind(STEP_ROWS_MAX).bind(us(retention)).fetch_one(&mut *connection).await?;
    let mut rows = discarded + kept + without_version + stranded;
    rows += step(OLD_LIMITS).bind(STEP_ROWS_MAX).fetch_one(&mut *connection).await?;
    rows += step(OLD_PROCESSES).bind(us(PROCESS_KEPT)).fetch_one(&mut *connection).await?;
    let operations = sqlx::query_scalar::<_, i64>(OLD_OPERATIONS).persistent(false).bind(us(OPERATION_KEPT));
    rows += operations.bind(STEP_ROWS_MAX).fetch_one(connection).await?;
    let [rows, discarded, without_instance, without_version, stranded] =
        [rows, discarded, without_instance, without_version, stranded].map(i64::unsigned_abs);
    Ok(Swept { rows, discarded, without_instance, without_version, stranded })
}
