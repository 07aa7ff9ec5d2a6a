//! The operator's SQL on PostgreSQL.

mod server;
mod trace;

use super::{
    ANSWER, CONNECT, Session, Tables, answer, fork, instance, limit, listing,
    order::{self, Statements},
    outbox_order, process_order,
};
use crate::{Postgres, postgres::migrate::refuse_others};
use async_trait::async_trait;
use saga_core::{
    HeldOrder, Inspect, InstanceDone, InstanceOrder, Listing, OperationItem, OutboxOrder, StoreError, Wanted,
};
use sqlx::{Connection, Executor, PgConnection};
use std::time::Duration;

const OUTBOX: &str = "json_build_object(
    'id', id, 'endpoint', endpoint, 'message_id', message_id, 'kind', kind, 'type', type, 'destination', destination,
    'saga', saga, 'saga_id', saga_id,
    'created_at_us', (extract(epoch FROM created_at) * 1000000)::bigint,
    'due_at_us', (extract(epoch FROM due_at) * 1000000)::bigint,
    'first_attempt_at_us', (extract(epoch FROM first_attempt_at) * 1000000)::bigint,
    'lease_until_us', (extract(epoch FROM lease_until) * 1000000)::bigint, 'lease_owner', lease_owner,
    'attempts', attempts, 'expired', expired, 'waits_for', waits_for, 'last_error', last_error,
    'envelope', envelope)::text";

const INSTANCE: &str = "json_build_object(
    'saga', saga, 'id', id, 'state', state, 'data', data, 'seq', seq, 'version', version, 'paused_by', paused_by,
    'aliases', coalesce((SELECT json_object_agg(substr(f.name, length(f.saga || ' by ') + 1), f.value)
        FROM sagabus.field f WHERE f.id = h.id AND f.saga = h.saga AND f.is_alias), '{}'),
    'fields', coalesce((SELECT json_object_agg(substr(f.name, length(f.saga || ' by ') + 1), f.value)
        FROM sagabus.field f WHERE f.id = h.id AND f.saga = h.saga AND f.is_alias IS NULL), '{}'),
    'created_at_us', (extract(epoch FROM created_at) * 1000000)::bigint,
    'updated_at_us', (extract(epoch FROM updated_at) * 1000000)::bigint,
    'completed_at_us', (extract(epoch FROM completed_at) * 1000000)::bigint)::text";

const JOURNAL: &str = "json_build_object(
    'message_id', message_id, 'type', type, 'result', result, 'seq', seq, 'from_state', from_state,
    'to_state', to_state, 'effects', effects, 'causation_id', causation_id,
    'handled_at_us', (extract(epoch FROM handled_at) * 1000000)::bigint, 'handled_by', handled_by,
    'attempts', attempts, 'note', note, 'message', message)::text";

const HELD: &str = "json_build_object(
    'endpoint', h.endpoint, 'receiver', h.receiver, 'message_id', h.message_id, 'type', h.type, 'arrival', h.arrival,
    'reason', h.reason, 'saga', h.saga, 'saga_id', h.saga_id, 'error', h.error, 'attempts', h.attempts,
    'held_at_us', (extract(epoch FROM h.held_at) * 1000000)::bigint,
    'expires_at_us', (extract(epoch FROM h.expires_at) * 1000000)::bigint,
    'kind', h.kind, 'destination', h.destination, 'envelope', h.envelope)::text";

const OPERATION: &str = "json_build_object(
    'id', id, 'at_us', (extract(epoch FROM at) * 1000000)::bigint, 'who', who, 'action', action, 'reason', reason,
    'items', items)::text";

const STATUS: &str = "
    SELECT json_build_object('now', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)::text
    UNION ALL
    SELECT json_build_object('endpoint', endpoint)::text FROM (
        SELECT endpoint FROM sagabus.definition UNION SELECT endpoint FROM sagabus.process
        UNION SELECT endpoint FROM sagabus.subscription) known
    UNION ALL
    SELECT json_build_object('process', json_build_object('endpoint', endpoint, 'owner', owner,
        'started_at_us', (extract(epoch FROM started_at) * 1000000)::bigint,
        'seen_at_us', (extract(epoch FROM seen_at) * 1000000)::bigint, 'report', report))::text
    FROM sagabus.process";

/// A connection for the operator alone: when it fails, the error names the true cause at once.
pub(crate) struct PostgresSession {
    connection: PgConnection,
    plans: Option<Vec<String>>,
}

#[async_trait]
impl Session for PostgresSession {
    async fn rows(&mut self, sql: &str, params: &[Option<String>]) -> Result<Vec<String>, StoreError> {
        if let Some(plans) = &mut self.plans {
            let explained = format!("EXPLAIN {sql}");
            let query = params.iter().fold(sqlx::query_scalar(&explained), |query, param| query.bind(param.as_deref()));
            let lines: Vec<String> = answer(query.persistent(false).fetch_all(&mut self.connection), ANSWER).await?;
            plans.push(lines.join("\n"));
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

impl Postgres {
    async fn session(&self, begin: &str) -> Result<PostgresSession, StoreError> {
        let options = self.pool().connect_options();
        let mut connection = answer(PgConnection::connect_with(&options), CONNECT).await?;
        answer(connection.execute(begin), ANSWER).await?;
        Ok(PostgresSession { connection, plans: None })
    }
}

#[async_trait]
impl Tables for Postgres {
    type Session = PostgresSession;

    const ORDER: Statements = Statements {
        send: "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer,
                envelope, body, created_at, due_at)
            SELECT $1::uuid, endpoint, message_id, coalesce(kind, 'retry'), type, coalesce(destination, endpoint),
                $2, $3, $4::bigint, $5::json, body, clock_timestamp(), clock_timestamp()
            FROM sagabus.held WHERE endpoint = $6 AND receiver = $7 AND message_id = $8",
        wake: "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id,
                envelope, body, created_at, due_at)
            VALUES ($1::uuid, $2, $3, 'retry', $4, $2, $5, $6, $7::json, convert_to($8, 'UTF8'),
                clock_timestamp(), clock_timestamp())",
        put_off: "UPDATE sagabus.inbox SET result = 'retrying', round = 0, crashes = 0, note = $4,
                claimed_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
        discard: "UPDATE sagabus.inbox SET result = 'discarded', note = $4, handled_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result IN ('held', 'retrying')",
        forget: "DELETE FROM sagabus.inbox
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
        forget_retry: "DELETE FROM sagabus.inbox WHERE endpoint = $1 AND receiver = $2 AND message_id = $3
            AND result = 'retrying' AND attempts = $4::bigint",
        settle: "UPDATE sagabus.inbox SET result = 'discarded', note = $5, handled_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'retrying' AND attempts = $4::bigint
            RETURNING receiver",
        release: "DELETE FROM sagabus.held WHERE endpoint = $1 AND receiver = $2 AND message_id = $3",
        edit: "UPDATE sagabus.held SET body = convert_to($4, 'UTF8')
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3",
        rehash: "UPDATE sagabus.inbox SET body_hash = $4::bigint
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result IN ('held', 'retrying')",
        awaits: "SELECT saga_id FROM sagabus.inbox
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND saga = receiver",
        unpause: "UPDATE sagabus.saga SET paused_by = NULL WHERE saga = $1 AND id = $2 AND paused_by = $3 RETURNING id",
        enter: "INSERT INTO sagabus.operation (id, at, who, action, reason, items)
            VALUES ($1::uuid, clock_timestamp(), $2, $3, $4, $5::json)",
    };

    const INSTANCE_ORDER: instance::Statements = instance::Statements {
        find: "SELECT json_build_object('state', state, 'seq', seq, 'paused_by', paused_by,
                'done', completed_at IS NOT NULL, 'endpoint', coalesce(
                    (SELECT max(d.endpoint) FROM sagabus.definition d WHERE d.saga = s.saga),
                    (SELECT max(i.endpoint) FROM sagabus.inbox i WHERE i.saga_id = s.id AND i.saga = s.saga)),
                'held', (SELECT count(*) FROM sagabus.held h
                    WHERE h.saga_id = s.id AND h.saga = s.saga AND h.receiver = s.saga),
                'waiting', (SELECT count(*) FROM sagabus.held h
                    WHERE h.saga_id = s.id AND h.saga = s.saga AND h.receiver = s.saga
                        AND h.reason IN ('early', 'deferred', 'paused', 'version')))::text
            FROM sagabus.saga s WHERE saga = $1 AND id = $2 FOR UPDATE",
        masked: "SELECT DISTINCT f FROM sagabus.definition d, jsonb_array_elements(d.chart -> 'messages') m,
                jsonb_array_elements_text(coalesce(m -> 'masked', '[]')) f
            WHERE d.saga = $1 AND m ->> 'type_name' = $2",
        end: "UPDATE sagabus.saga SET state = $3, seq = seq + 1, entered = entered + 1, progress = NULL,
                paused_by = NULL, updated_at = clock_timestamp(), completed_at = clock_timestamp()
            WHERE saga = $1 AND id = $2",
        timers: "DELETE FROM sagabus.outbox WHERE kind = 'timer' AND saga_id = $2 AND saga = $1",
        discard: "UPDATE sagabus.inbox SET result = 'discarded', note = $3, handled_at = clock_timestamp()
            WHERE receiver = $1 AND result = 'held' AND message_id IN (
                SELECT message_id FROM sagabus.held WHERE saga_id = $2 AND saga = $1 AND receiver = $1)",
        release: "DELETE FROM sagabus.held WHERE saga_id = $2 AND saga = $1 AND receiver = $1",
        aliases: "DELETE FROM sagabus.field WHERE id = $2 AND saga = $1 AND is_alias",
        journal: "INSERT INTO sagabus.inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
                saga, saga_id, seq, from_state, to_state, claimed_at, handled_at, handled_by, attempts, note, message)
            VALUES ($3, $1, $4, 0, $5, 'handled', $4, $1, $2, $6::bigint, $7, $8, clock_timestamp(),
                clock_timestamp(), $9, 0, $10, $11::json)",
    };

    const FORK: fork::Statements = fork::Statements {
        steps: "SELECT json_build_object('to_state', to_state, 'message', message)::text FROM sagabus.inbox
            WHERE saga_id = $2 AND saga = $1 AND seq IN (SELECT e::bigint FROM json_array_elements_text($3::json) e)
            ORDER BY handled_at",
        timers: "SELECT coalesce(timer::text, '') FROM sagabus.outbox
            WHERE kind = 'timer' AND saga_id = $2 AND saga = $1 AND first_attempt_at IS NULL AND lease_until IS NULL",
        other_timers: "DELETE FROM sagabus.outbox WHERE kind = 'timer' AND saga_id = $2 AND saga = $1
            AND (timer IS NULL OR timer NOT IN (SELECT e::bigint FROM json_array_elements_text($3::json) e)
                OR first_attempt_at IS NOT NULL OR lease_until IS NOT NULL)",
        set_timer:
            "INSERT INTO sagabus.outbox (id, endpoint, message_id, kind, type, destination, saga, saga_id, timer,
                envelope, body, created_at, due_at)
            VALUES ($3::uuid, $4, $3, 'timer', $5, $4, $1, $2, $6::bigint, $7::json, convert_to($8, 'UTF8'),
                clock_timestamp(),
                greatest(clock_timestamp(), timestamptz 'epoch' + $9::bigint * interval '1 microsecond'))",
        stand: "UPDATE sagabus.saga SET state = $3, data = $4::json, seq = seq + 1, entered = $5::bigint,
                version = $6::integer, progress = $7::json, paused_by = NULL, updated_at = clock_timestamp(),
                completed_at = CASE WHEN $8::boolean THEN clock_timestamp() END
            WHERE saga = $1 AND id = $2",
        alias: "SELECT id FROM sagabus.field WHERE name = $1 AND value = $2 AND is_alias",
        no_fields: "DELETE FROM sagabus.field WHERE id = $2 AND saga = $1",
        field: "INSERT INTO sagabus.field (name, value, saga, id, is_alias) VALUES ($3, $4, $1, $2, $5::boolean)",
        meet: "UPDATE sagabus.held SET saga = $1, saga_id = $2
            WHERE saga_id = $5 AND saga = $4 AND endpoint = $3 AND reason = 'early' RETURNING message_id",
        sent_after: "SELECT effects::text FROM sagabus.inbox
            WHERE saga_id = $2 AND saga = $1 AND seq > $3::bigint AND effects IS NOT NULL",
        timer_types: "SELECT DISTINCT m ->> 'type_name'
            FROM sagabus.definition d, jsonb_array_elements(d.chart -> 'messages') m
            WHERE d.saga = $1 AND m ->> 'kind' = 'timer'",
    };

    const OUTBOX_ORDER: outbox_order::Statements = outbox_order::Statements {
        now: "UPDATE sagabus.outbox SET due_at = clock_timestamp(), waits_for = NULL, lease_until = NULL,
                lease_owner = NULL
            WHERE id = $1::uuid",
        due: "UPDATE sagabus.outbox SET due_at = timestamptz 'epoch' + $2::bigint * interval '1 microsecond',
                first_attempt_at = NULL
            WHERE id = $1::uuid",
        later: "UPDATE sagabus.outbox SET due_at = clock_timestamp() + $2::bigint * interval '1 microsecond',
                first_attempt_at = NULL
            WHERE id = $1::uuid",
        reroute: "UPDATE sagabus.outbox SET destination = $2, due_at = clock_timestamp(), waits_for = NULL,
                attempts = 0, last_error = NULL, lease_until = NULL, lease_owner = NULL,
                first_attempt_at = CASE WHEN first_attempt_at IS NOT NULL THEN clock_timestamp() END
            WHERE id = $1::uuid",
        delete: "DELETE FROM sagabus.outbox WHERE id = $1::uuid",
        settle: "UPDATE sagabus.inbox SET result = 'discarded', note = $4, handled_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'retrying'",
    };

    const DRAIN: &str = "UPDATE sagabus.process SET asked = 'drain' WHERE owner = $1 RETURNING endpoint";

    const PREFIX: &str = "sagabus.";
    const FIND: &str = "strpos";
    const ARRAY: &str = "json_build_array";
    const OBJECT: &str = "json_build_object";
    const NOW: &str = "statement_timestamp()";
    const OUTBOX: &str = OUTBOX;
    const INSTANCE: &str = INSTANCE;
    const HELD: &str = HELD;
    const OPERATION: &str = OPERATION;
    const ITEMS: (&str, &str) = ("json_array_elements(items) i", "i");
    const STATUS: &str = STATUS;

    fn ago(us: i64) -> String {
        format!("statement_timestamp() - {us} * interval '1 microsecond'")
    }

    fn us(time: &str) -> String {
        format!("(extract(epoch FROM {time}) * 1000000)::bigint")
    }

    fn ms_since(time: &str) -> String {
        format!("(extract(epoch FROM statement_timestamp() - {time}) * 1000)::bigint")
    }

    fn integer(value: &str) -> String {
        format!("CAST({value} AS integer)")
    }

    fn uuid(text: &str) -> String {
        format!("CAST({text} AS uuid)")
    }

    fn sent_by(saga: &str, id: &str) -> String {
        format!(
            "SELECT e ->> 'id' AS id FROM sagabus.inbox i, json_array_elements(
                CASE json_typeof(i.effects) WHEN 'array' THEN i.effects ELSE '[]' END) e
             WHERE i.saga_id = {id} AND i.saga = {saga} AND e ->> 'id' IS NOT NULL"
        )
    }

    fn select(listing: &Listing<'_>) -> Result<String, StoreError> {
        use Wanted::{Count, Rows};
        let text = match listing {
            Listing::OutboxBody(_) => {
                "SELECT to_json(encode(body, 'hex'))::text FROM sagabus.outbox WHERE id = CAST($1 AS uuid)".into()
            }
            Listing::Journal(_, Rows(_)) => format!(
                "SELECT {JOURNAL} FROM sagabus.inbox WHERE saga_id = $2 AND saga = $1
                 ORDER BY handled_at DESC, seq DESC NULLS LAST LIMIT $3::bigint"
            ),
            Listing::Journal(_, Count) => {
                "SELECT count(*)::text FROM sagabus.inbox WHERE saga_id = $2 AND saga = $1".into()
            }
            Listing::HeldBody(_) => "SELECT to_json(encode(body, 'hex'))::text FROM sagabus.held
                WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND arrival = $4::bigint"
                .into(),
            Listing::Definitions => "SELECT json_build_object('endpoint', endpoint, 'saga', saga, 'version', version,
                    'chart', chart, 'registered_at_us', (extract(epoch FROM registered_at) * 1000000)::bigint)::text
                FROM sagabus.definition ORDER BY saga, version, endpoint"
                .into(),
            Listing::Server => server::SERVER.into(),
            Listing::Upkeep => server::UPKEEP.into(),
            Listing::Subscriptions => "SELECT json_build_object('endpoint', endpoint, 'event', event)::text
                FROM sagabus.subscription ORDER BY endpoint, event"
                .into(),
            Listing::Processes => "SELECT json_build_object('endpoint', endpoint, 'owner', owner, 'asked', asked,
                    'started_at_us', (extract(epoch FROM started_at) * 1000000)::bigint,
                    'seen_at_us', (extract(epoch FROM seen_at) * 1000000)::bigint, 'report', report)::text
                FROM sagabus.process ORDER BY endpoint, started_at, owner"
                .into(),
            Listing::Traces(_) => trace::TRACES.into(),
            Listing::Beginning(_) => trace::BEGINNING.into(),
            other => return Err(listing::unknown(other)),
        };
        Ok(text)
    }

    fn held_by_name(locked: bool) -> String {
        let lock = if locked { "FOR UPDATE OF h" } else { "" };
        format!(
            "SELECT {HELD} FROM sagabus.held h JOIN json_to_recordset($1::json)
                AS r(endpoint text, receiver text, message_id text, arrival bigint)
             ON h.message_id = r.message_id AND h.receiver = r.receiver AND h.endpoint = r.endpoint
                AND h.arrival = r.arrival
             ORDER BY h.arrival {lock}"
        )
    }

    fn outbox_by_id(locked: bool) -> String {
        format!("{} {}", trace::OUTBOX_BY_ID, if locked { "FOR UPDATE OF o" } else { "" })
    }

    async fn read(&self, limit: Duration) -> Result<PostgresSession, StoreError> {
        // A look at many rows seems cheaper without an index, until the table is large. And nothing tells the server
        // that nobody waits for an answer any more; a limit of the role's that is shorter stays.
        let ms = limit.as_millis();
        self.session(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL jit = off;
             SELECT set_config('statement_timeout', '{ms}', true) FROM pg_settings
             WHERE name = 'statement_timeout' AND setting::bigint NOT BETWEEN 1 AND {ms}"
        ))
        .await
    }

    async fn write(&self) -> Result<PostgresSession, StoreError> {
        // what was read before the locks must not count, even where the role's default is another isolation level
        self.session("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'").await
    }

    async fn lock(session: &mut PostgresSession, locks: &[i64]) -> Result<(), StoreError> {
        let numbers: Vec<String> = locks.iter().map(i64::to_string).collect();
        let numbers = format!("{{{}}}", numbers.join(","));
        let sql = "SELECT pg_advisory_xact_lock(k)::text FROM unnest($1::bigint[]) k";
        session.rows(sql, &[Some(numbers)]).await.map(drop)
    }
}

#[async_trait]
impl Inspect for Postgres {
    async fn rows(&self, listing: &Listing<'_>) -> Result<Vec<String>, StoreError> {
        if matches!(listing, Listing::Server) {
            refuse_others(&mut self.read(limit(listing)).await?.connection).await?;
        }
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
