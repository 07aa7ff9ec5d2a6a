//! Reads what a batch must know, and held messages that fit.

use super::{array, now_us};
use crate::{
    error::store_error,
    rows::{from_json, reason_of, result_of},
};
use saga_core::{
    Found, HeldReason, HeldRow, HeldWanted, InboxFound, InstanceKey, InstanceRow, Keys, StoreError, Waiting,
};
use serde_json::json;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use std::{collections::BTreeMap, sync::Arc};

const INBOX: &str = "
SELECT receiver, message_id, type, result, body_hash, attempts, round, claimed_at FROM sagabus_inbox
WHERE message_id IN (SELECT value FROM json_each($1)) AND endpoint = $2";

const INSTANCES: &str = "
SELECT saga, id, state, data, progress, originator, paused_by, seq, entered, version, completed_at IS NOT NULL AS done
FROM sagabus_saga WHERE (id, saga) IN (SELECT r.value ->> 1, r.value ->> 0 FROM json_each($1) r)";

const WAITING: &str = "
SELECT saga, saga_id, type, reason, count(*) AS n FROM sagabus_held
WHERE saga_id IS NOT NULL AND (saga_id, saga) IN (SELECT r.value ->> 1, r.value ->> 0 FROM json_each($1) r)
    AND endpoint = $2 GROUP BY saga_id, saga, reason, type";

pub(super) async fn read(connection: &mut SqliteConnection, keys: &Keys) -> Result<Found, StoreError> {
    let mut found = Found::new(now_us());
    let ids = serde_json::to_string(&keys.message_ids).unwrap_or_default();
    let rows = sqlx::query(INBOX).bind(ids).bind(&keys.endpoint).fetch_all(&mut *connection).await;
    for row in &rows.map_err(store_error)? {
        found.inbox.push(inbox(row)?);
    }
    if keys.instances.is_empty() {
        return Ok(found);
    }
    let instances = array(keys.instances.iter().map(|key| json!([key.saga, key.id])));
    let rows = sqlx::query(INSTANCES).bind(&instances).fetch_all(&mut *connection).await.map_err(store_error)?;
    let rows = rows.iter().map(instance);
    found.instances = rows.collect::<Result<_, _>>().map_err(store_error)?;
    let rows = sqlx::query(WAITING).bind(&instances).bind(&keys.endpoint).fetch_all(&mut *connection).await;
    for row in &rows.map_err(store_error)? {
        found.waiting.push(waiting(row)?);
    }
    Ok(found)
}

fn inbox(row: &SqliteRow) -> Result<InboxFound, StoreError> {
    let result = result_of(row.try_get("result").map_err(store_error)?)?;
    let read = || {
        let text = |column| row.try_get::<&str, _>(column);
        let (receiver, message_id, type_name) = (text("receiver")?, text("message_id")?, text("type")?);
        let mut inbox = InboxFound::new(receiver, message_id, type_name, row.try_get("body_hash")?, result);
        inbox.attempts = row.try_get("attempts")?;
        inbox.round = u32::try_from(row.try_get::<i64, _>("round")?).unwrap_or_default();
        inbox.since_us = row.try_get("claimed_at")?;
        Ok(inbox)
    };
    read().map_err(store_error)
}

fn instance(row: &SqliteRow) -> Result<InstanceRow, sqlx::Error> {
    let key = InstanceKey { saga: row.try_get("saga")?, id: row.try_get("id")? };
    let mut instance = InstanceRow::new(key, row.try_get::<&str, _>("state")?, row.try_get::<&str, _>("data")?);
    instance.progress = row.try_get("progress")?;
    instance.originator = row.try_get("originator")?;
    instance.paused_by = row.try_get("paused_by")?;
    instance.seq = row.try_get("seq")?;
    instance.entered = row.try_get("entered")?;
    instance.version = row.try_get("version")?;
    instance.done = row.try_get("done")?;
    Ok(instance)
}

fn waiting(row: &SqliteRow) -> Result<Waiting, StoreError> {
    let reason = reason_of(row.try_get("reason").map_err(store_error)?)?;
    let read = || {
        let key = InstanceKey { saga: row.try_get("saga")?, id: row.try_get("saga_id")? };
        Ok(Waiting::new(key, row.try_get::<&str, _>("type")?, reason, row.try_get("n")?))
    };
    read().map_err(store_error)
}

const HELD: &str = "
SELECT receiver, message_id, arrival, reason, saga_id, attempts, envelope, body FROM sagabus_held
WHERE saga_id = $1 AND saga = $2 AND endpoint = $3
    AND (reason, type) IN (SELECT r.value ->> 0, r.value ->> 1 FROM json_each($4) r)
ORDER BY arrival LIMIT $5";

const UNREADABLE: &str = "
UPDATE sagabus_held SET reason = 'undecodable', expires_at = NULL, error = $2 WHERE arrival = $1";

/// Leaves out a row that cannot be read; it waits for a person from now on.
pub(super) async fn held(
    connection: &mut SqliteConnection,
    endpoint: &str,
    wanted: &[HeldWanted],
    rows_max: i64,
) -> Result<Vec<HeldRow>, sqlx::Error> {
    let mut instances = BTreeMap::<&InstanceKey, Vec<serde_json::Value>>::new();
    for wanted in wanted {
        instances.entry(&wanted.key).or_default().push(json!([wanted.reason.as_str(), wanted.type_name]));
    }
    let mut held = Vec::new();
    for (key, wanted) in instances {
        let rows = sqlx::query(HELD).bind(&key.id).bind(&key.saga).bind(endpoint).bind(array(wanted)).bind(rows_max);
        for row in &rows.fetch_all(&mut *connection).await? {
            let arrival: i64 = row.try_get("arrival")?;
            match held_row(row, arrival) {
                Ok(row) => held.push(row),
                Err(error) => {
                    tracing::warn!(endpoint, saga = key.saga, saga_id = key.id, error, "a held message cannot be read");
                    sqlx::query(UNREADABLE).bind(arrival).bind(error).execute(&mut *connection).await?;
                }
            }
        }
    }
    held.sort_unstable_by_key(|row| row.arrival);
    Ok(held)
}

fn held_row(row: &SqliteRow, arrival: i64) -> Result<HeldRow, String> {
    let column = |error: sqlx::Error| error.to_string();
    let body = row.try_get::<Vec<u8>, _>("body").map_err(column)?;
    let envelope = Arc::new(from_json(row.try_get("envelope").map_err(column)?, body)?);
    // the query asked for reasons that are known here
    let reason = HeldReason::parse(row.try_get("reason").map_err(column)?).ok_or("its reason is not known")?;
    let receiver = row.try_get::<&str, _>("receiver").map_err(column)?;
    let mut held = HeldRow::new(receiver, envelope, arrival, reason);
    held.saga_id = row.try_get("saga_id").map_err(column)?;
    held.attempts = row.try_get("attempts").map_err(column)?;
    Ok(held)
}
