//! The operator's SQL on SQLite. Times are microseconds since 1970.

mod server;
mod trace;

use super::{
    ANSWER, CONNECT, Session, Tables, answer, fork, instance, listing,
    order::{self, Statements},
    outbox_order, process_order,
};
use crate::Sqlite;
use async_trait::async_trait;
use saga_core::{
    HeldOrder, Inspect, InstanceDone, InstanceOrder, Listing, OperationItem, OutboxOrder, StoreError, Wanted,
};
use sqlx::{Connection, Executor, SqliteConnection};
use std::time::Duration;

const OUTBOX: &str = "json_object(
    'id', id, 'endpoint', endpoint, 'message_id', message_id, 'kind', kind, 'type', type, 'destination', destination,
    'saga', saga, 'saga_id', saga_id,
    'created_at_us', created_at,
    'due_at_us', due_at,
    'first_attempt_at_us', first_attempt_at,
    'lease_until_us', lease_until, 'lease_owner', lease_owner,
    'attempts', attempts, 'expired', expired, 'waits_for', waits_for, 'last_error', last_error,
    'envelope', json(envelope))";

const INSTANCE: &str = "json_object(
    'saga', saga, 'id', id, 'state', state, 'data', json(data), 'seq', seq, 'version', version, 'paused_by', paused_by,
    'aliases', (SELECT json_group_object(substr(f.name, length(f.saga || ' by ') + 1), f.value)
        FROM sagabus_field f WHERE f.id = h.id AND f.saga = h.saga AND f.is_alias),
    'fields', (SELECT json_group_object(substr(f.name, length(f.saga || ' by ') + 1), f.value)
        FROM sagabus_field f WHERE f.id = h.id AND f.saga = h.saga AND f.is_alias IS NULL),
    'created_at_us', created_at,
    'updated_at_us', updated_at,
    'completed_at_us', completed_at)";

const JOURNAL: &str = "json_object(
    'message_id', message_id, 'type', type, 'result', result, 'seq', seq, 'from_state', from_state,
    'to_state', to_state, 'effects', json(effects), 'causation_id', causation_id,
    'handled_at_us', handled_at, 'handled_by', handled_by,
    'attempts', attempts, 'note', note, 'message', json(message))";

const HELD: &str = "json_object(
    'endpoint', h.endpoint, 'receiver', h.receiver, 'message_id', h.message_id, 'type', h.type, 'arrival', h.arrival,
    'reason', h.reason, 'saga', h.saga, 'saga_id', h.saga_id, 'error', h.error, 'attempts', h.attempts,
    'held_at_us', h.held_at,
    'expires_at_us', h.expires_at,
    'kind', h.kind, 'destination', h.destination, 'envelope', json(h.envelope))";

const OPERATION: &str = "json_object(
    'id', id, 'at_us', at, 'who', who, 'action', action, 'reason', reason,
    'items', json(items))";

const STATUS: &str = "
    WITH clock (now) AS (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER))
    SELECT json_object('now', (SELECT now FROM clock))
    UNION ALL
    SELECT json_object('endpoint', endpoint) FROM (
        SELECT endpoint FROM sagabus_definition UNION SELECT endpoint FROM sagabus_process
        UNION SELECT endpoint FROM sagabus_subscription) known
    UNION ALL
    SELECT json_object('process', json_object('endpoint', endpoint, 'owner', owner,
        'started_at_us', started_at, 'seen_at_us', seen_at, 'report', json(report)))
    FROM sagabus_process";

/// A connection for the operator alone.
pub(crate) struct SqliteSession {
    connection: SqliteConnection,
    plans: Option<Vec<String>>,
}

#[async_trait]
impl Session for SqliteSession {
    async fn rows(&mut self, sql: &str, params: &[Option<String>]) -> Result<Vec<String>, StoreError> {
        if let Some(plans) = &mut self.plans {
            let explained = format!("EXPLAIN QUERY PLAN {sql}");
            let query = params.iter().fold(sqlx::query_as(&explained), |query, param| query.bind(param.as_deref()));
            let lines: Vec<(i64, i64, i64, String)> =
                answer(query.persistent(false).fetch_all(&mut self.connection), ANSWER).await?;
            plans.push(lines.into_iter().map(|line| line.3).collect::<Vec<_>>().join("\n"));
        }
        let query = params.iter().fold(sqlx::query_scalar(sql), |query, param| query.bind(param.as_deref()));
        answer(query.persistent(false).fetch_all(&mut self.connection), ANSWER).await
    }

    fn explain(&mut self) {
        self.plans = Some(Vec::new());
    }

    async fn commit(mut self) -> Result<Vec<String>, StoreError> {
        answer(self.connection.execute("COMMIT"), ANSWER).await?;
        let _ = answer(self.connection.close(), ANSWER).await; // it is committed: nothing hangs on a farewell
        Ok(self.plans.unwrap_or_default())
    }
}

impl Sqlite {
    async fn session(&self, begin: &str) -> Result<SqliteSession, StoreError> {
        let options = self.pool().connect_options();
        let mut connection = answer(SqliteConnection::connect_with(&options), CONNECT).await?;
        answer(connection.execute(begin), ANSWER).await?;
        Ok(SqliteSession { connection, plans: None })
    }
}

#[async_trait]
impl Tables for Sqlite {
    type Session = SqliteSession;

    const ORDER: Statements = Statements {
        send: "INSERT INTO sagabus_outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer,
                envelope, body, created_at, due_at)
            SELECT ?1, endpoint, message_id, coalesce(kind, 'retry'), type, coalesce(destination, endpoint),
                ?2, ?3, ?4, ?5, body, CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            FROM sagabus_held WHERE endpoint = ?6 AND receiver = ?7 AND message_id = ?8",
        wake: "INSERT INTO sagabus_outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id,
                envelope, body, created_at, due_at)
            VALUES (?1, ?2, ?3, 'retry', ?4, ?2, ?5, ?6, ?7, CAST(?8 AS BLOB),
                CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(unixepoch('subsec') * 1000000 AS INTEGER))",
        put_off: "UPDATE sagabus_inbox SET result = 'retrying', round = 0, crashes = 0, note = ?4,
                claimed_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result = 'held'",
        discard: "UPDATE sagabus_inbox SET result = 'discarded', note = ?4,
                handled_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result IN ('held', 'retrying')",
        forget: "DELETE FROM sagabus_inbox
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result = 'held'",
        forget_retry: "DELETE FROM sagabus_inbox WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3
            AND result = 'retrying' AND attempts = CAST(?4 AS INTEGER)",
        settle: "UPDATE sagabus_inbox SET result = 'discarded', note = ?5,
                handled_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result = 'retrying'
                AND attempts = CAST(?4 AS INTEGER)
            RETURNING receiver",
        release: "DELETE FROM sagabus_held WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3",
        edit: "UPDATE sagabus_held SET body = CAST(?4 AS BLOB)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3",
        rehash: "UPDATE sagabus_inbox SET body_hash = CAST(?4 AS INTEGER)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result IN ('held', 'retrying')",
        awaits: "SELECT saga_id FROM sagabus_inbox
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND saga = receiver",
        unpause: "UPDATE sagabus_saga SET paused_by = NULL WHERE saga = ?1 AND id = ?2 AND paused_by = ?3 RETURNING id",
        enter: "INSERT INTO sagabus_operation (id, at, who, action, reason, items)
            VALUES (?1, CAST(unixepoch('subsec') * 1000000 AS INTEGER), ?2, ?3, ?4, ?5)",
    };

    const INSTANCE_ORDER: instance::Statements = instance::Statements {
        find: "SELECT json_object('state', state, 'seq', seq, 'paused_by', paused_by,
                'done', json(CASE WHEN completed_at IS NULL THEN 'false' ELSE 'true' END), 'endpoint', coalesce(
                    (SELECT max(d.endpoint) FROM sagabus_definition d WHERE d.saga = s.saga),
                    (SELECT max(i.endpoint) FROM sagabus_inbox i WHERE i.saga_id = s.id AND i.saga = s.saga)),
                'held', (SELECT count(*) FROM sagabus_held h
                    WHERE h.saga_id = s.id AND h.saga = s.saga AND h.receiver = s.saga),
                'waiting', (SELECT count(*) FROM sagabus_held h
                    WHERE h.saga_id = s.id AND h.saga = s.saga AND h.receiver = s.saga
                        AND h.reason IN ('early', 'deferred', 'paused', 'version')))
            FROM sagabus_saga s WHERE saga = ?1 AND id = ?2",
        masked: "SELECT DISTINCT f.value FROM sagabus_definition d, json_each(d.chart, '$.messages') m,
                json_each(m.value, '$.masked') f
            WHERE d.saga = ?1 AND m.value ->> 'type_name' = ?2",
        end: "UPDATE sagabus_saga SET state = ?3, seq = seq + 1, entered = entered + 1, progress = NULL,
                paused_by = NULL, updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                completed_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE saga = ?1 AND id = ?2",
        timers: "DELETE FROM sagabus_outbox WHERE kind = 'timer' AND saga_id = ?2 AND saga = ?1",
        discard: "UPDATE sagabus_inbox SET result = 'discarded', note = ?3,
                handled_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE receiver = ?1 AND result = 'held' AND message_id IN (
                SELECT message_id FROM sagabus_held WHERE saga_id = ?2 AND saga = ?1 AND receiver = ?1)",
        release: "DELETE FROM sagabus_held WHERE saga_id = ?2 AND saga = ?1 AND receiver = ?1",
        aliases: "DELETE FROM sagabus_field WHERE id = ?2 AND saga = ?1 AND is_alias",
        journal: "INSERT INTO sagabus_inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
                saga, saga_id, seq, from_state, to_state, claimed_at, handled_at, handled_by, attempts, note, message)
            VALUES (?3, ?1, ?4, 0, ?5, 'handled', ?4, ?1, ?2, CAST(?6 AS INTEGER), ?7, ?8,
                CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(unixepoch('subsec') * 1000000 AS INTEGER), ?9, 0,
                ?10, ?11)",
    };

    const FORK: fork::Statements = fork::Statements {
        steps: "SELECT json_object('to_state', to_state, 'message', json(message)) FROM sagabus_inbox
            WHERE saga_id = ?2 AND saga = ?1 AND seq IN (SELECT value FROM json_each(?3))
            ORDER BY handled_at",
        timers: "SELECT coalesce(CAST(timer AS TEXT), '') FROM sagabus_outbox
            WHERE kind = 'timer' AND saga_id = ?2 AND saga = ?1 AND first_attempt_at IS NULL AND lease_until IS NULL",
        other_timers: "DELETE FROM sagabus_outbox WHERE kind = 'timer' AND saga_id = ?2 AND saga = ?1
            AND (timer IS NULL OR timer NOT IN (SELECT value FROM json_each(?3))
                OR first_attempt_at IS NOT NULL OR lease_until IS NOT NULL)",
        set_timer:
            "INSERT INTO sagabus_outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer,
                envelope, body, created_at, due_at)
            VALUES (?3, ?4, ?3, 'timer', ?5, ?4, ?1, ?2, CAST(?6 AS INTEGER), ?7, CAST(?8 AS BLOB),
                CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                max(CAST(unixepoch('subsec') * 1000000 AS INTEGER), CAST(?9 AS INTEGER)))",
        stand: "UPDATE sagabus_saga SET state = ?3, data = ?4, seq = seq + 1, entered = CAST(?5 AS INTEGER),
                version = CAST(?6 AS INTEGER), progress = ?7, paused_by = NULL,
                updated_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                completed_at = CASE WHEN ?8 = 'true' THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) END
            WHERE saga = ?1 AND id = ?2",
        alias: "SELECT id FROM sagabus_field WHERE name = ?1 AND value = ?2 AND is_alias = 1",
        no_fields: "DELETE FROM sagabus_field WHERE id = ?2 AND saga = ?1",
        field: "INSERT INTO sagabus_field (name, value, saga, id, is_alias)
            VALUES (?3, ?4, ?1, ?2, CAST(?5 AS INTEGER))",
        meet: "UPDATE sagabus_held SET saga = ?1, saga_id = ?2
            WHERE saga_id = ?5 AND saga = ?4 AND endpoint = ?3 AND reason = 'early' RETURNING message_id",
        sent_after: "SELECT effects FROM sagabus_inbox
            WHERE saga_id = ?2 AND saga = ?1 AND seq > CAST(?3 AS INTEGER) AND effects IS NOT NULL",
        timer_types: "SELECT DISTINCT m.value ->> 'type_name'
            FROM sagabus_definition d, json_each(d.chart, '$.messages') m
            WHERE d.saga = ?1 AND m.value ->> 'kind' = 'timer'",
    };

    const OUTBOX_ORDER: outbox_order::Statements = outbox_order::Statements {
        now: "UPDATE sagabus_outbox SET due_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER), waits_for = NULL,
                lease_until = NULL, lease_owner = NULL
            WHERE id = ?1",
        due: "UPDATE sagabus_outbox SET due_at = CAST(?2 AS INTEGER), first_attempt_at = NULL WHERE id = ?1",
        later: "UPDATE sagabus_outbox
            SET due_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + CAST(?2 AS INTEGER), first_attempt_at = NULL
            WHERE id = ?1",
        reroute: "UPDATE sagabus_outbox SET destination = ?2, waits_for = NULL,
                due_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                attempts = 0, last_error = NULL, lease_until = NULL, lease_owner = NULL,
                first_attempt_at = CASE WHEN first_attempt_at IS NOT NULL
                    THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) END
            WHERE id = ?1",
        delete: "DELETE FROM sagabus_outbox WHERE id = ?1",
        settle: "UPDATE sagabus_inbox SET result = 'discarded', note = ?4,
                handled_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
            WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND result = 'retrying'",
    };

    const DRAIN: &str = "UPDATE sagabus_process SET asked = 'drain' WHERE owner = ?1 RETURNING endpoint";

    const PREFIX: &str = "sagabus_";
    const FIND: &str = "instr";
    const ARRAY: &str = "json_array";
    const OBJECT: &str = "json_object";
    const NOW: &str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";
    const OUTBOX: &str = OUTBOX;
    const INSTANCE: &str = INSTANCE;
    const HELD: &str = HELD;
    const OPERATION: &str = OPERATION;
    const ITEMS: (&str, &str) = ("json_each(items) i", "i.value");
    const STATUS: &str = STATUS;

    fn ago(us: i64) -> String {
        format!("{} - {us}", Self::NOW)
    }

    fn us(time: &str) -> String {
        time.to_owned()
    }

    fn ms_since(time: &str) -> String {
        format!("({} - {time}) / 1000", Self::NOW)
    }

    fn integer(value: &str) -> String {
        value.to_owned()
    }

    fn uuid(text: &str) -> String {
        text.to_owned()
    }

    fn sent_by(saga: &str, id: &str) -> String {
        format!(
            "SELECT e.value ->> 'id' AS id FROM sagabus_inbox i, json_each(i.effects) e
             WHERE i.saga_id = {id} AND i.saga = {saga} AND e.value ->> 'id' IS NOT NULL"
        )
    }

    fn select(listing: &Listing<'_>) -> Result<String, StoreError> {
        use Wanted::{Count, Rows};
        let text = match listing {
            Listing::OutboxBody(_) => "SELECT json_quote(hex(body)) FROM sagabus_outbox WHERE id = ?1".into(),
            Listing::Journal(_, Rows(_)) => format!(
                "SELECT {JOURNAL} FROM sagabus_inbox WHERE saga_id = ?2 AND saga = ?1
                 ORDER BY handled_at DESC, seq DESC NULLS LAST LIMIT ?3"
            ),
            Listing::Journal(_, Count) => {
                "SELECT '' || count(*) FROM sagabus_inbox WHERE saga_id = ?2 AND saga = ?1".into()
            }
            Listing::HeldBody(_) => "SELECT json_quote(hex(body)) FROM sagabus_held
                WHERE endpoint = ?1 AND receiver = ?2 AND message_id = ?3 AND arrival = ?4"
                .into(),
            Listing::Definitions => "SELECT json_object('endpoint', endpoint, 'saga', saga, 'version', version,
                    'chart', json(chart), 'registered_at_us', registered_at)
                FROM sagabus_definition ORDER BY saga, version, endpoint"
                .into(),
            Listing::Server => server::SERVER.into(),
            Listing::Upkeep => server::UPKEEP.into(),
            Listing::Subscriptions => "SELECT json_object('endpoint', endpoint, 'event', event)
                FROM sagabus_subscription ORDER BY endpoint, event"
                .into(),
            Listing::Processes => "SELECT json_object('endpoint', endpoint, 'owner', owner, 'asked', asked,
                    'started_at_us', started_at,
                    'seen_at_us', seen_at, 'report', json(report))
                FROM sagabus_process ORDER BY endpoint, started_at, owner"
                .into(),
            Listing::Traces(_) => trace::TRACES.into(),
            Listing::Beginning(_) => trace::BEGINNING.into(),
            other => return Err(listing::unknown(other)),
        };
        Ok(text)
    }

    fn held_by_name(_locked: bool) -> String {
        format!(
            "SELECT {HELD} FROM json_each(?1) r CROSS JOIN sagabus_held h
             ON h.message_id = r.value ->> 'message_id' AND h.receiver = r.value ->> 'receiver'
                AND h.endpoint = r.value ->> 'endpoint' AND h.arrival = r.value ->> 'arrival'
             ORDER BY h.arrival"
        )
    }

    fn outbox_by_id(_locked: bool) -> String {
        trace::OUTBOX_BY_ID.into()
    }

    async fn read(&self, _limit: Duration) -> Result<SqliteSession, StoreError> {
        self.session("BEGIN").await
    }

    async fn write(&self) -> Result<SqliteSession, StoreError> {
        self.session("BEGIN IMMEDIATE").await // the file's one writer: nobody else is in a unit of work
    }

    async fn lock(_session: &mut SqliteSession, _locks: &[i64]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Inspect for Sqlite {
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        self.list(listing).await
    }

    async fn order(&self, order: &HeldOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        order::perform(self, order).await
    }

    async fn instance_order(&self, order: &InstanceOrder<'_>) -> Result<InstanceDone, StoreError> {
        instance::perform(self, order).await
    }

    async fn process_drain(&self, owner: &str, who: &str, why: &str) -> Result<OperationItem, StoreError> {
        process_order::drain(self, owner, who, why).await
    }

    async fn record(&self, action: &str, item: OperationItem, who: &str, why: &str) -> Result<(), StoreError> {
        process_order::record(self, action, item, who, why).await
    }

    async fn outbox_order(&self, order: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        outbox_order::perform(self, order).await
    }
}
