//! The operator's SQL on PostgreSQL.

mod server;
mod trace;

use super::{
    ANSWER, CONNECT, Session, Tables, answer, instance,
    order::{self, Statements},
    outbox_order, process_order,
};
use crate::{Postgres, postgres::migrate::refuse_others};
use async_trait::async_trait;
use saga_core::{
    HeldOrder, Inspect, InstanceDone, InstanceOrder, Listing, OperationItem, OutboxOrder, StoreError, StoreErrorKind,
    Wanted,
};
use sqlx::{Connection, Executor, PgConnection};

const OUTBOX: &str = "json_build_object(
    'id', id, 'endpoint', endpoint, 'message_id', message_id, 'kind', kind, 'type', type, 'destination', destination,
    'saga', saga, 'saga_id', saga_id,
    'created_at_us', (extract(epoch FROM created_at) * 1000000)::bigint,
    'due_at_us', (extract(epoch FROM due_at) * 1000000)::bigint,
    'first_attempt_at_us', (extract(epoch FROM first_attempt_at) * 1000000)::bigint,
    'lease_until_us', (extract(epoch FROM lease_until) * 1000000)::bigint, 'lease_owner', lease_owner,
    'attempts', attempts, 'expired', expired, 'waits_for', waits_for, 'last_error', last_error,
    'envelope', envelope)::text";

const OUTBOX_WHERE: &str = "
    ($1 IS NULL OR starts_with(id::text, $1) OR starts_with(message_id, $1)) AND ($2 IS NULL OR endpoint = $2)
    AND ($3 IS NULL OR $4 IS NOT NULL OR saga = $3)
    AND ($4 IS NULL OR (saga_id = $4 AND saga = $3) OR (kind = 'retry' AND message_id IN (
        SELECT i.message_id FROM sagabus.inbox i WHERE i.saga_id = $4 AND i.saga = $3 AND i.result = 'retrying')))
    AND ($5 IS NULL OR waits_for IS NOT NULL OR attempts > 0 OR last_error IS NOT NULL)
    AND ($6 IS NULL OR kind = $6) AND ($7 IS NULL OR type = $7) AND ($8 IS NULL OR destination = $8)
    AND ($9 IS NULL OR strpos(lower(last_error), lower($9)) > 0) AND ($10 IS NULL OR due_at <= statement_timestamp())";

const INSTANCE: &str = "json_build_object(
    'saga', saga, 'id', id, 'state', state, 'data', data, 'seq', seq, 'version', version, 'paused_by', paused_by,
    'aliases', coalesce((SELECT json_object_agg(substr(a.alias, length(a.saga || ' by ') + 1), a.value)
        FROM sagabus.alias a WHERE a.id = saga.id AND a.saga = saga.saga), '{}'),
    'created_at_us', (extract(epoch FROM created_at) * 1000000)::bigint,
    'updated_at_us', (extract(epoch FROM updated_at) * 1000000)::bigint,
    'completed_at_us', (extract(epoch FROM completed_at) * 1000000)::bigint)::text";

const INSTANCE_WHERE: &str = "
    ($1 IS NULL OR saga = $1) AND ($2 IS NULL OR starts_with(id, $2)) AND ($3 IS NULL OR state = $3)
    AND ($4 IS NULL OR paused_by IS NOT NULL) AND ($5 IS NULL OR completed_at IS NULL)
    AND ($6 IS NULL OR updated_at <= statement_timestamp() - $6::bigint * interval '1 microsecond')";

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

const HELD_WHERE: &str = "
    ($1 IS NULL OR starts_with(message_id, $1)) AND ($2 IS NULL OR endpoint = $2) AND ($3 IS NULL OR reason = $3)
    AND ($4 IS NULL OR receiver = $4) AND ($5 IS NULL OR saga = $5) AND ($6 IS NULL OR saga_id = $6)
    AND ($7 IS NULL OR type = $7) AND ($8 IS NULL OR strpos(lower(error), lower($8)) > 0)
    AND ($9 IS NULL OR reason NOT IN ('early', 'deferred', 'paused', 'version'))";

const OPERATION: &str = "json_build_object(
    'id', id, 'at_us', (extract(epoch FROM at) * 1000000)::bigint, 'who', who, 'action', action, 'reason', reason,
    'items', items)::text";

const OPERATION_WHERE: &str = "
    (coalesce($1, $2, $3) IS NULL OR EXISTS (SELECT FROM json_array_elements(items) i
        WHERE ($1 IS NULL OR i ->> 'message_id' = $1) AND ($2 IS NULL OR i ->> 'saga' = $2)
            AND ($3 IS NULL OR i ->> 'saga_id' = $3)))";

// timers are usually due in the future, so the kind decides first; a retry that is due counts like any other row
const STATUS: &str = "
    WITH sent AS (
        SELECT endpoint, due_at, last_error, CASE
            WHEN kind = 'timer' AND due_at > statement_timestamp() THEN 'timers'
            WHEN kind <> 'timer' AND (attempts > 0 OR (kind <> 'retry' AND last_error IS NOT NULL)) THEN 'failing'
            WHEN due_at <= statement_timestamp() THEN 'due'
            WHEN kind = 'retry' THEN 'retrying' ELSE 'delayed' END AS which
        FROM sagabus.outbox WHERE waits_for IS NULL)
    SELECT json_build_object('now', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)::text
    UNION ALL
    SELECT json_build_object('endpoint', endpoint)::text FROM (
        SELECT endpoint FROM sagabus.definition UNION SELECT endpoint FROM sagabus.process
        UNION SELECT endpoint FROM sagabus.subscription) known
    UNION ALL
    SELECT json_build_object('outbox', json_build_object('endpoint', endpoint, 'which', which, 'count', count(*),
        'oldest_ms', (extract(epoch FROM statement_timestamp() - min(due_at)) * 1000)::bigint,
        'error', max(last_error)))::text FROM sent GROUP BY endpoint, which
    UNION ALL
    SELECT json_build_object('unroutable', json_build_object('endpoint', endpoint, 'destination', waits_for,
        'count', count(*), 'oldest_ms',
        (extract(epoch FROM statement_timestamp() - min(coalesce(first_attempt_at, created_at))) * 1000)::bigint))::text
    FROM sagabus.outbox WHERE waits_for IS NOT NULL GROUP BY endpoint, waits_for
    UNION ALL
    SELECT json_build_object('unconfirmed', json_build_object('endpoint', endpoint, 'oldest_ms',
        (extract(epoch FROM statement_timestamp() - min(coalesce(first_attempt_at, due_at))) * 1000)::bigint))::text
    FROM sagabus.outbox WHERE first_attempt_at IS NOT NULL OR due_at <= statement_timestamp() GROUP BY endpoint
    UNION ALL
    SELECT json_build_object('held', json_build_object('endpoint', endpoint, 'reason', reason, 'count', count(*),
        'oldest_ms', (extract(epoch FROM statement_timestamp() - min(held_at)) * 1000)::bigint))::text
    FROM sagabus.held GROUP BY endpoint, reason
    UNION ALL
    SELECT json_build_object('handled', json_build_object('endpoint', endpoint, 'count', count(*)))::text
    FROM sagabus.inbox WHERE handled_at > statement_timestamp() - interval '1 minute'
        AND result IN ('handled', 'ignored', 'stale', 'discarded') GROUP BY endpoint
    UNION ALL
    SELECT json_build_object('process', json_build_object('endpoint', endpoint, 'owner', owner,
        'started_at_us', (extract(epoch FROM started_at) * 1000000)::bigint,
        'seen_at_us', (extract(epoch FROM seen_at) * 1000000)::bigint, 'report', report))::text
    FROM sagabus.process
    UNION ALL
    SELECT json_build_object('state', json_build_object('saga', saga, 'state', state, 'count', count(*),
        'paused', count(paused_by), 'done', count(completed_at),
        'oldest_ms', (extract(epoch FROM statement_timestamp() - min(updated_at)) * 1000)::bigint))::text
    FROM sagabus.saga GROUP BY saga, state";

/// A connection for the operator alone: when it fails, the error names the true cause at once.
pub(crate) struct PostgresSession {
    connection: PgConnection,
}

#[async_trait]
impl Session for PostgresSession {
    async fn rows(&mut self, sql: &str, params: &[Option<String>]) -> Result<Vec<String>, StoreError> {
        let query = params.iter().fold(sqlx::query_scalar(sql), |query, param| query.bind(param.as_deref()));
        answer(query.persistent(false).fetch_all(&mut self.connection), ANSWER).await
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        answer(self.connection.execute("COMMIT"), ANSWER).await?;
        let _ = answer(self.connection.close(), ANSWER).await; // it is committed: nothing hangs on a farewell
        Ok(())
    }
}

impl Postgres {
    async fn session(&self, begin: &str) -> Result<PostgresSession, StoreError> {
        let options = self.pool().connect_options();
        let mut connection = answer(PgConnection::connect_with(&options), CONNECT).await?;
        answer(connection.execute(begin), ANSWER).await?;
        Ok(PostgresSession { connection })
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
        put_off: "UPDATE sagabus.inbox SET result = 'retrying', round = 0, note = $4
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
        discard: "UPDATE sagabus.inbox SET result = 'discarded', note = $4, handled_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
        forget: "DELETE FROM sagabus.inbox
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
        release: "DELETE FROM sagabus.held WHERE endpoint = $1 AND receiver = $2 AND message_id = $3",
        edit: "UPDATE sagabus.held SET body = convert_to($4, 'UTF8')
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3",
        rehash: "UPDATE sagabus.inbox SET body_hash = $4::bigint
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'held'",
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
                    WHERE h.saga_id = s.id AND h.saga = s.saga AND h.receiver = s.saga))::text
            FROM sagabus.saga s WHERE saga = $1 AND id = $2 FOR UPDATE",
        end: "UPDATE sagabus.saga SET state = $3, seq = seq + 1, entered = entered + 1, progress = NULL,
                paused_by = NULL, updated_at = clock_timestamp(), completed_at = clock_timestamp()
            WHERE saga = $1 AND id = $2",
        timers: "DELETE FROM sagabus.outbox WHERE kind = 'timer' AND saga_id = $2 AND saga = $1",
        discard: "UPDATE sagabus.inbox SET result = 'discarded', note = $3, handled_at = clock_timestamp()
            WHERE receiver = $1 AND result = 'held' AND message_id IN (
                SELECT message_id FROM sagabus.held WHERE saga_id = $2 AND saga = $1 AND receiver = $1)",
        release: "DELETE FROM sagabus.held WHERE saga_id = $2 AND saga = $1 AND receiver = $1",
        aliases: "DELETE FROM sagabus.alias WHERE id = $2 AND saga = $1",
        journal: "INSERT INTO sagabus.inbox (endpoint, receiver, message_id, body_hash, type, result, conversation_id,
                saga, saga_id, seq, from_state, to_state, claimed_at, handled_at, handled_by, attempts, note)
            VALUES ($3, $1, $4, 0, $5, 'handled', $4, $1, $2, $6::bigint, $7, $8, clock_timestamp(),
                clock_timestamp(), $9, 0, $10)",
    };

    const OUTBOX_ORDER: outbox_order::Statements = outbox_order::Statements {
        now: "UPDATE sagabus.outbox SET due_at = clock_timestamp(), waits_for = NULL, lease_until = NULL,
                lease_owner = NULL
            WHERE id = $1::uuid",
        due: "UPDATE sagabus.outbox SET due_at = timestamptz 'epoch' + $2::bigint * interval '1 microsecond'
            WHERE id = $1::uuid",
        reroute: "UPDATE sagabus.outbox SET destination = $2, due_at = clock_timestamp(), waits_for = NULL,
                attempts = 0, last_error = NULL, lease_until = NULL, lease_owner = NULL
            WHERE id = $1::uuid",
        delete: "DELETE FROM sagabus.outbox WHERE id = $1::uuid",
        settle: "UPDATE sagabus.inbox SET result = 'discarded', note = $4, handled_at = clock_timestamp()
            WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND result = 'retrying'",
    };

    const DRAIN: &str = "UPDATE sagabus.process SET asked = 'drain' WHERE owner = $1 RETURNING endpoint";

    fn select(listing: &Listing<'_>) -> Result<String, StoreError> {
        use Wanted::{Count, Rows};
        let text = match listing {
            Listing::Status => STATUS.into(),
            Listing::Outbox(_, Rows(_)) => {
                format!(
                    "SELECT {OUTBOX} FROM sagabus.outbox WHERE {OUTBOX_WHERE} ORDER BY due_at, id LIMIT $11::bigint"
                )
            }
            Listing::Outbox(_, Count) => format!("SELECT count(*)::text FROM sagabus.outbox WHERE {OUTBOX_WHERE}"),
            Listing::OutboxBody(_) => {
                "SELECT to_json(encode(body, 'hex'))::text FROM sagabus.outbox WHERE id::text = $1".into()
            }
            Listing::Instances(_, Rows(_)) => format!(
                "SELECT {INSTANCE} FROM sagabus.saga WHERE {INSTANCE_WHERE}
                 ORDER BY CASE WHEN $6 IS NULL THEN updated_at END DESC, updated_at, id LIMIT $7::bigint"
            ),
            Listing::Instances(_, Count) => format!("SELECT count(*)::text FROM sagabus.saga WHERE {INSTANCE_WHERE}"),
            Listing::Journal(_, Rows(_)) => format!(
                "SELECT {JOURNAL} FROM sagabus.inbox WHERE saga_id = $2 AND saga = $1
                 ORDER BY handled_at DESC, seq DESC NULLS LAST LIMIT $3::bigint"
            ),
            Listing::Journal(_, Count) => {
                "SELECT count(*)::text FROM sagabus.inbox WHERE saga_id = $2 AND saga = $1".into()
            }
            Listing::Held(_, Rows(_)) => {
                format!("SELECT {HELD} FROM sagabus.held h WHERE {HELD_WHERE} ORDER BY arrival LIMIT $10::bigint")
            }
            Listing::Held(_, Count) => format!("SELECT count(*)::text FROM sagabus.held WHERE {HELD_WHERE}"),
            Listing::HeldBody(_) => "SELECT to_json(encode(body, 'hex'))::text FROM sagabus.held
                WHERE endpoint = $1 AND receiver = $2 AND message_id = $3 AND arrival = $4::bigint"
                .into(),
            Listing::Operations(_, Rows(_)) => format!(
                "SELECT {OPERATION} FROM sagabus.operation WHERE {OPERATION_WHERE}
                 ORDER BY at DESC, id DESC LIMIT $4::bigint"
            ),
            Listing::Operations(_, Count) => {
                format!("SELECT count(*)::text FROM sagabus.operation WHERE {OPERATION_WHERE}")
            }
            Listing::Definitions => "SELECT json_build_object('endpoint', endpoint, 'saga', saga, 'version', version,
                    'chart', chart, 'registered_at_us', (extract(epoch FROM registered_at) * 1000000)::bigint)::text
                FROM sagabus.definition ORDER BY saga, version, endpoint"
                .into(),
            Listing::Forms => "SELECT json_build_object('saga', saga, 'state', state, 'version', version,
                    'count', count(*), 'done', count(completed_at))::text
                FROM sagabus.saga GROUP BY saga, state, version ORDER BY saga, state, version"
                .into(),
            Listing::Server => server::SERVER.into(),
            Listing::Upkeep => server::UPKEEP.into(),
            Listing::Processes => "SELECT json_build_object('endpoint', endpoint, 'owner', owner, 'asked', asked,
                    'started_at_us', (extract(epoch FROM started_at) * 1000000)::bigint,
                    'seen_at_us', (extract(epoch FROM seen_at) * 1000000)::bigint, 'report', report)::text
                FROM sagabus.process ORDER BY endpoint, started_at, owner"
                .into(),
            Listing::Traces(_) => trace::TRACES.into(),
            Listing::Beginning(_) => trace::BEGINNING.into(),
            Listing::Conversation(..) => trace::CONVERSATION.into(),
            other => return Err(StoreError::new(StoreErrorKind::Invalid, format!("{other:?} is not known here"))),
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

    async fn read(&self) -> Result<PostgresSession, StoreError> {
        self.session("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY").await
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
            refuse_others(&mut self.read().await?.connection).await?;
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

    async fn outbox_order(&self, order: &OutboxOrder<'_>) -> Result<Vec<OperationItem>, StoreError> {
        outbox_order::perform(self, order).await
    }
}
