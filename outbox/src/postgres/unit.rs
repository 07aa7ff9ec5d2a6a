//! One open transaction: what it reads, in one round trip for a batch, and its end. `write.rs` has what it writes.

use super::{ANSWER, alias, answer, connections::Leased, relay, write};
use crate::{
    error::store_error,
    rows::{from_json, reason_of, result_of},
};
use async_trait::async_trait;
use saga_core::{
    AliasesFound, Found, HeldReason, HeldRow, HeldWanted, InboxFound, InstanceKey, InstanceRow, Keys, StoreError,
    StoreErrorKind, TakenBack, Unit, Waiting, Write,
};
use sqlx::{Executor, PgConnection, Row, postgres::PgRow};
use std::sync::{Arc, LazyLock};
use uuid::Uuid;

/// One transaction on PostgreSQL.
#[derive(Debug)]
pub struct PostgresUnit {
    pub(super) connection: Leased,
    /// Statements are prepared once; not behind a pooler, where the next transaction may have another session.
    pub(super) persistent: bool,
    /// Keys are looked up by an index, whatever the plan would cost.
    pub(super) by_index: bool,
}

#[async_trait]
impl Unit for PostgresUnit {
    type Tx = PgConnection;

    fn tx(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        let rows = answer(rows(&mut self.connection, self.persistent, keys)).await;
        found(&rows.map_err(|error| self.connection.lost(error))?)
    }

    async fn held(
        &mut self,
        endpoint: &str,
        wanted: &[HeldWanted],
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<HeldRow>, StoreError> {
        let rows = answer(held(&mut self.connection, self.persistent, endpoint, wanted, (rows_max, bytes_max))).await;
        rows.map_err(|error| self.connection.lost(error))
    }

    async fn lock(&mut self, locks: &[i64]) -> Result<Vec<i64>, StoreError> {
        let locked = answer(alias::lock(&mut self.connection, self.persistent, locks)).await;
        locked.map_err(|error| self.connection.lost(error))
    }

    async fn aliases(&mut self, endpoint: &str, aliases: &[InstanceKey]) -> Result<AliasesFound, StoreError> {
        let found = answer(alias::found(&mut self.connection, self.persistent, Some(endpoint), aliases)).await;
        found.map_err(|error| self.connection.lost(error))
    }

    async fn take_back(&mut self, rows: &[Uuid]) -> Result<Vec<TakenBack>, StoreError> {
        let gone = answer(relay::take_back(&mut self.connection, rows)).await;
        gone.map_err(|error| self.connection.lost(error))
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        let late = || StoreError::new(StoreErrorKind::Unavailable, "no answer from the database");
        let looks_up = !write.completes.is_empty() || !write.held_out.is_empty();
        if looks_up && !self.by_index {
            // until here the handler's own plans are untouched; this is only for messages that were put off or held
            let set = answer(self.connection.execute("SET LOCAL enable_seqscan = off")).await;
            set.map_err(|error| self.connection.lost(error))?;
            self.by_index = true;
        }
        let written = write::write(&mut self.connection, self.persistent, write);
        match tokio::time::timeout(ANSWER, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(write::Failed::Conflict(None))) => Err(StoreError::conflict()),
            Ok(Err(write::Failed::Conflict(Some(error)))) => Err(StoreError::conflict().with_source(error)),
            Ok(Err(write::Failed::Store(error))) => Err(error),
            Ok(Err(write::Failed::Sqlx(error))) => Err(self.connection.lost(error)),
            Err(_) => Err(late()),
        }
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        // the other connections are left alone: the data may be to blame for this error
        answer(self.connection.commit()).await.map_err(store_error)?;
        self.connection.give_back().await;
        Ok(())
    }

    async fn rollback(mut self) -> Result<(), StoreError> {
        answer(self.connection.rollback()).await.map_err(|error| self.connection.lost(error))?;
        self.connection.give_back().await;
        Ok(())
    }
}

/// The unit's mark, the database's clock, and inbox rows. Each key is looked up by itself (`LATERAL`, fenced by
/// `OFFSET 0`): with `= ANY`, a plan prepared on a young table scans all of it, and a join with `unnest` hashes all of
/// it. The arrays' lengths are hidden from the planner as in `write.rs`. `KEY` becomes the id in a unit, where no scan
/// is considered, and `sagabus.key(id)` elsewhere.
const READ: &str = "
SELECT 0 AS part, current_setting('sagabus.unit', true) AS t1, NULL::text AS t2, NULL::text AS t3, NULL::text AS t4,
    NULL::text AS t5, NULL::text AS t6, NULL::text AS t7,
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n1, NULL::bigint AS n2,
    NULL::bigint AS n3, NULL::bigint AS n4
UNION ALL
SELECT 1, i.receiver, i.message_id, i.type, i.result, NULL, NULL, NULL, i.body_hash, i.attempts, i.round,
    (extract(epoch FROM i.claimed_at) * 1000000)::bigint
FROM (SELECT $1::text[] AS ids OFFSET 0) a, unnest(a.ids) AS k(id),
    LATERAL (SELECT * FROM sagabus.inbox WHERE message_id = {KEY} AND endpoint = $2 OFFSET 0) i";

/// Instances, and counts of what is held for them, in the same answer: `part` says which table a row is from, `t` are
/// texts and `n` numbers. Where nothing is held, the count is one index lookup for each instance.
const READ_INSTANCES: &str = "
UNION ALL
SELECT 2, s.saga, s.id, s.state, s.data::text, s.originator::text, s.paused_by, s.progress::text, s.seq, s.entered,
    s.version, (s.completed_at IS NOT NULL)::int::bigint
FROM (SELECT $3::text[] AS ids, $4::text[] AS sagas OFFSET 0) a, unnest(a.ids, a.sagas) AS k(id, saga),
    LATERAL (SELECT * FROM sagabus.saga WHERE id = k.id AND saga = k.saga OFFSET 0) s
UNION ALL
SELECT 3, k.saga, k.id, h.type, h.reason, NULL, NULL, NULL, h.n, NULL, NULL, NULL
FROM (SELECT $3::text[] AS ids, $4::text[] AS sagas OFFSET 0) a, unnest(a.ids, a.sagas) AS k(id, saga),
    LATERAL (SELECT type, reason, count(*) AS n FROM sagabus.held
        WHERE saga_id = k.id AND saga = k.saga AND endpoint = $2 GROUP BY reason, type OFFSET 0) h";

/// Handlers read outside a unit, and no instances.
static ALONE: LazyLock<String> = LazyLock::new(|| READ.replace("{KEY}", "sagabus.key(k.id)"));
static IN_UNIT: LazyLock<String> = LazyLock::new(|| READ.replace("{KEY}", "k.id") + READ_INSTANCES);

pub(super) async fn rows(
    connection: &mut PgConnection,
    persistent: bool,
    keys: &Keys,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let query = sqlx::query(if keys.instances.is_empty() { &ALONE } else { &IN_UNIT });
    let mut query = query.bind(&keys.message_ids).bind(&keys.endpoint).persistent(persistent);
    if !keys.instances.is_empty() {
        let ids: Vec<&str> = keys.instances.iter().map(|key| key.id.as_str()).collect();
        let sagas: Vec<&str> = keys.instances.iter().map(|key| key.saga.as_str()).collect();
        query = query.bind(ids).bind(sagas);
    }
    query.fetch_all(connection).await
}

pub(super) fn found(rows: &[PgRow]) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for row in rows {
        match row.get::<i32, _>("part") {
            0 => {
                found.now_us = row.get("n1");
                found.locked_elsewhere = locked(row.get::<Option<&str>, _>("t1").unwrap_or_default());
            }
            1 => {
                let text = |column| row.get::<&str, _>(column);
                let result = result_of(row.get("t4"))?;
                let mut inbox = InboxFound::new(text("t1"), text("t2"), text("t3"), row.get("n1"), result);
                inbox.attempts = row.get("n2");
                inbox.round = u32::try_from(row.get::<i64, _>("n3")).unwrap_or_default();
                inbox.since_us = row.get("n4");
                found.inbox.push(inbox);
            }
            2 => {
                let key = InstanceKey { saga: row.get("t1"), id: row.get("t2") };
                let mut instance = InstanceRow::new(key, row.get::<&str, _>("t3"), row.get::<&str, _>("t4"));
                instance.originator = row.get("t5");
                instance.paused_by = row.get("t6");
                instance.progress = row.get("t7");
                instance.seq = row.get("n1");
                instance.entered = row.get("n2");
                instance.version = row.get::<i64, _>("n3") as i32;
                instance.done = row.get::<i64, _>("n4") == 1;
                found.instances.push(instance);
            }
            _ => {
                let key = InstanceKey { saga: row.get("t1"), id: row.get("t2") };
                let reason = reason_of(row.get("t4"))?;
                found.waiting.push(Waiting::new(key, row.get::<&str, _>("t3"), reason, row.get("n1")));
            }
        }
    }
    Ok(found)
}

/// The locks held elsewhere, which the unit's mark names.
fn locked(mark: &str) -> Vec<i64> {
    let locks = mark.strip_prefix('+').unwrap_or_default().split(',');
    locks.filter_map(|lock| lock.parse().ok()).collect()
}

/// The places of the rows are found in the index, type by type, and cut to `rows_max` for each instance, and all to
/// `bytes_max`, before the rows themselves are read: the length of a body is known without it.
const HELD: &str = "
SELECT h.receiver, h.message_id, h.arrival, h.reason, h.saga_id, h.attempts, h.envelope::text AS envelope, h.body
FROM (SELECT place, nth, sum(bytes) OVER (ORDER BY nth, arrival) - bytes AS before FROM (
    SELECT p.place, p.bytes, p.arrival, row_number() OVER (PARTITION BY w.id, w.saga ORDER BY p.arrival) AS nth
    FROM (SELECT $1::text[] AS ids, $2::text[] AS sagas, $3::text[] AS types, $4::text[] AS reasons OFFSET 0) a,
        unnest(a.ids, a.sagas, a.types, a.reasons) AS w(id, saga, type, reason),
        LATERAL (SELECT ctid AS place, arrival, octet_length(body) AS bytes FROM sagabus.held
            WHERE saga_id = w.id AND saga = w.saga AND endpoint = $5 AND reason = w.reason AND type = w.type
            ORDER BY arrival LIMIT $6) p) f) c
    JOIN sagabus.held h ON h.ctid = c.place
WHERE c.nth <= $6 AND c.before < $7 ORDER BY h.arrival";

const UNREADABLE: &str = "
UPDATE sagabus.held SET reason = 'undecodable', expires_at = NULL, error = $4
WHERE message_id = $1 AND receiver = $2 AND endpoint = $3";

/// Leaves out a row that cannot be read; it waits for a person from now on.
async fn held(
    connection: &mut PgConnection,
    persistent: bool,
    endpoint: &str,
    wanted: &[HeldWanted],
    (rows_max, bytes_max): (i64, i64),
) -> Result<Vec<HeldRow>, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let column = |get: fn(&HeldWanted) -> &str| wanted.iter().map(get).collect::<Vec<&str>>();
    let rows = sqlx::query(HELD)
        .bind(column(|wanted| &wanted.key.id))
        .bind(column(|wanted| &wanted.key.saga))
        .bind(column(|wanted| &wanted.type_name))
        .bind(column(|wanted| wanted.reason.as_str()))
        .bind(endpoint)
        .bind(rows_max)
        .bind(bytes_max)
        .persistent(persistent)
        .fetch_all(&mut *connection)
        .await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        match held_row(row) {
            Ok(row) => held.push(row),
            Err(error) => {
                let (message_id, receiver): (&str, &str) = (row.get("message_id"), row.get("receiver"));
                tracing::warn!(endpoint, message_id, receiver, error, "a held message cannot be read");
                let unreadable = sqlx::query(UNREADABLE).bind(message_id).bind(receiver).bind(endpoint).bind(error);
                unreadable.persistent(false).execute(&mut *connection).await?;
            }
        }
    }
    Ok(held)
}

fn held_row(row: &PgRow) -> Result<HeldRow, String> {
    let envelope = Arc::new(from_json(row.get("envelope"), row.get::<Vec<u8>, _>("body"))?);
    // the query asked for reasons that are known here
    let reason = HeldReason::parse(row.get("reason")).ok_or("its reason is not known")?;
    let mut held = HeldRow::new(row.get::<&str, _>("receiver"), envelope, row.get("arrival"), reason);
    held.saga_id = row.get("saga_id");
    held.attempts = row.get("attempts");
    Ok(held)
}
