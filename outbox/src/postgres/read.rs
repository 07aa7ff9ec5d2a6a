//! What a batch must know, in one round trip.

use saga_core::{Found, HeldReason, HeldRow, InboxFound, InboxResult, InstanceKey, InstanceRow, Keys, StoredEnvelope};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::sync::{Arc, LazyLock};

/// Inbox rows, and the database's clock. Each key is looked up by itself (`LATERAL`, fenced by `OFFSET 0`): with `= ANY`, a plan that was
/// prepared while the table was young reads all of it, and a join with `unnest` hashes all of it. The arrays' lengths are hidden from
/// the planner as in `write`. `KEY` becomes the id in a unit, where no scan is considered, and `sagabus.key(id)` elsewhere.
const READ: &str = "
SELECT 0 AS part, NULL::text AS t1, NULL::text AS t2, NULL::text AS t3, NULL::text AS t4, NULL::text AS t5, NULL::text AS t6,
       NULL::text AS t7, NULL::text AS t8, NULL::text AS t9, NULL::text AS t10,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n1, NULL::bigint AS n2, NULL::bigint AS n3, NULL::bigint AS n4, NULL::bytea AS body
UNION ALL
SELECT 1, i.receiver, i.message_id, i.type, i.result, NULL, NULL, NULL, NULL, NULL, NULL, i.body_hash, i.attempts, NULL, NULL, NULL
FROM (SELECT $1::text[] AS ids OFFSET 0) a, unnest(a.ids) AS k(id), LATERAL (SELECT * FROM sagabus.inbox WHERE message_id = {KEY} AND endpoint = $2 OFFSET 0) i";

/// Instances and what is held for them: in the same answer, whose `part` says which table it is, `t` are texts and `n` numbers.
const READ_INSTANCES: &str = "
UNION ALL
SELECT 2, s.saga, s.id, s.state, s.data::text, s.originator::text, s.paused_by, NULL, NULL, NULL, NULL, s.seq, s.entered, s.version,
       (s.completed_at IS NOT NULL)::int::bigint, NULL
FROM (SELECT $3::text[] AS ids, $4::text[] AS sagas OFFSET 0) a, unnest(a.ids, a.sagas) AS k(id, saga), LATERAL (SELECT * FROM sagabus.saga WHERE id = k.id AND saga = k.saga OFFSET 0) s
UNION ALL
(SELECT 3, h.receiver, h.message_id, h.type, h.reason, h.saga_id, h.conversation_id, h.causation_id, h.from_saga, h.from_saga_id, h.headers::text,
        h.arrival, h.attempts, h.from_entered, (extract(epoch FROM h.sent_at) * 1000000)::bigint, h.body
 FROM (SELECT $3::text[] AS ids, $4::text[] AS sagas OFFSET 0) a, unnest(a.ids, a.sagas) AS k(id, saga), LATERAL (SELECT * FROM sagabus.held WHERE saga_id = k.id AND saga = k.saga AND endpoint = $2 OFFSET 0) h
 ORDER BY h.arrival LIMIT $5)";

/// Handlers ask outside a unit, and about no instances.
static ALONE: LazyLock<String> = LazyLock::new(|| READ.replace("{KEY}", "sagabus.key(k.id)"));
static IN_UNIT: LazyLock<String> = LazyLock::new(|| READ.replace("{KEY}", "k.id") + READ_INSTANCES);

pub(super) async fn read(connection: &mut PgConnection, persistent: bool, keys: &Keys) -> Result<Found, sqlx::Error> {
    let query = sqlx::query(if keys.instances.is_empty() { &ALONE } else { &IN_UNIT });
    let mut query = query.bind(&keys.message_ids).bind(&keys.endpoint).persistent(persistent);
    if !keys.instances.is_empty() {
        let ids: Vec<&str> = keys.instances.iter().map(|key| key.id.as_str()).collect();
        let sagas: Vec<&str> = keys.instances.iter().map(|key| key.saga.as_str()).collect();
        query = query.bind(ids).bind(sagas).bind(keys.held_rows_max);
    }
    let rows = query.fetch_all(connection).await?;
    let mut found = Found::default();
    for row in &rows {
        match row.get::<i32, _>(0) {
            0 => found.now_us = row.get("n1"),
            1 => found.inbox.push(InboxFound {
                receiver: row.get("t1"),
                message_id: row.get("t2"),
                type_name: row.get("t3"),
                body_hash: row.get("n1"),
                result: InboxResult::parse(row.get("t4")).unwrap_or(InboxResult::Handled),
                attempts: row.get("n2"),
            }),
            2 => found.instances.push(instance(row)),
            _ => found.held.push(held(row, &keys.endpoint)),
        }
    }
    Ok(found)
}

fn instance(row: &PgRow) -> InstanceRow {
    InstanceRow {
        key: InstanceKey { saga: row.get("t1"), id: row.get("t2") },
        state: row.get("t3"),
        data: row.get("t4"),
        originator: row.get("t5"),
        paused_by: row.get("t6"),
        seq: row.get("n1"),
        entered: row.get("n2"),
        version: row.get::<i64, _>("n3") as i32,
        done: row.get::<i64, _>("n4") == 1,
    }
}

fn held(row: &PgRow, endpoint: &str) -> HeldRow {
    let receiver: String = row.get("t1");
    let stored = StoredEnvelope {
        message_id: row.get("t2"),
        type_name: row.get("t3"),
        conversation_id: row.get("t6"),
        causation_id: row.get("t7"),
        saga: row.get("t8"),
        saga_id: row.get("t9"),
        entered: row.get("n3"),
        receiver: None,
        sent_at_us: row.get("n4"),
        headers: row.get("t10"),
        body: row.get("body"),
    };
    HeldRow {
        endpoint: endpoint.into(),
        receiver,
        envelope: Arc::new(stored.restore(endpoint)),
        arrival: row.get("n1"),
        reason: HeldReason::parse(row.get("t4")).unwrap_or(HeldReason::Failed),
        saga_id: row.get("t5"),
        error: None,
        attempts: row.get("n2"),
        expires: None,
    }
}
