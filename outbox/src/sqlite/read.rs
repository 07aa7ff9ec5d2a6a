//! Reads what a batch must know, and held messages that fit.

use super::{
    array, now_us,
    values::{bind, fetch},
};
use crate::{
    error::store_error,
    rows::{from_json, reason_of, result_of},
};
use saga_core::{
    AliasesFound, FieldRow, Found, HeldReason, HeldRow, HeldWanted, InboxFound, InstanceKey, InstanceRow, Keys,
    StoreError, Waiting,
};
use serde_json::json;
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use std::{collections::BTreeMap, sync::Arc};

const INBOX: &str = "
SELECT receiver, message_id, type, result, body_hash, attempts, round, claimed_at FROM ({rows}) r
    CROSS JOIN sagabus_inbox i ON i.message_id = r.column1 AND i.endpoint = r.column2";

const INSTANCES: &str = "
SELECT saga, id, state, data, progress, originator, paused_by, seq, entered, version,
    completed_at IS NOT NULL AS done
FROM ({rows}) r CROSS JOIN sagabus_saga s ON s.id = r.column2 AND s.saga = r.column1";

const WAITING: &str = "
SELECT saga, saga_id, type, reason, count(*) AS n FROM ({rows}) r
    CROSS JOIN sagabus_held h ON h.saga_id = r.column2 AND h.saga = r.column1 AND h.endpoint = r.column3
WHERE saga_id IS NOT NULL GROUP BY saga_id, saga, reason, type";

pub(super) async fn read(connection: &mut SqliteConnection, keys: &Keys) -> Result<Found, StoreError> {
    let mut found = Found::new(now_us());
    let mut ids: Vec<&str> = keys.message_ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    ids.dedup();
    let rows = fetch(connection, INBOX, &ids, |values, id| bind!(values: id, &keys.endpoint)).await;
    for row in &rows.map_err(store_error)? {
        found.inbox.push(inbox(row)?);
    }
    let instances = &keys.instances;
    let rows = fetch(connection, INSTANCES, instances, |values, key| bind!(values: &key.saga, &key.id)).await;
    found.instances = rows.map_err(store_error)?.iter().map(instance).collect::<Result<_, _>>().map_err(store_error)?;
    let rows = fetch(connection, WAITING, instances, |values, key| bind!(values: &key.saga, &key.id, &keys.endpoint));
    for row in &rows.await.map_err(store_error)? {
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

/// Another program may have given its columns any type. That concerns this instance alone, so it is no error.
fn instance(row: &SqliteRow) -> Result<InstanceRow, sqlx::Error> {
    let some = |column| text(row, column).map(Option::unwrap_or_default);
    let key = InstanceKey { saga: some("saga")?, id: some("id")? };
    let mut instance = InstanceRow::new(key, some("state")?, some("data")?);
    instance.progress = text(row, "progress")?;
    instance.originator = text(row, "originator")?;
    instance.paused_by = text(row, "paused_by")?;
    instance.done = row.try_get("done")?;
    let mut numbers = || {
        instance.seq = row.try_get("seq")?;
        instance.entered = row.try_get("entered")?;
        instance.version = row.try_get("version")?;
        Ok(())
    };
    let read: Result<(), sqlx::Error> = numbers();
    if let Err(error) = read {
        let (saga, id) = (&instance.key.saga, &instance.key.id);
        tracing::warn!(saga, id, %error, "an instance cannot be read: it is left alone");
        instance.version = i32::MAX; // as what a version wrote that no process has, so it is never written
    }
    Ok(instance)
}

/// A text of an instance; a BLOB may be one. What is none is given as SQL writes it: no reader takes that for a state,
/// so the instance is paused, and nothing is lost when its row is written with it.
fn text(row: &SqliteRow, column: &str) -> Result<Option<String>, sqlx::Error> {
    if let Ok(text) = row.try_get::<Option<String>, _>(column) {
        return Ok(text);
    }
    let bytes: Option<Vec<u8>> = row.try_get_unchecked(column)?;
    let written = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap_or_else(|no_text| {
            let hex = no_text.as_bytes().iter().map(|byte| format!("{byte:02x}"));
            format!("x'{}'", hex.collect::<String>())
        })
    };
    Ok(bytes.map(written))
}

const PAGE: &str = "
SELECT saga, id, state, data, progress, originator, paused_by, seq, entered, version, completed_at IS NOT NULL AS done
FROM sagabus_saga WHERE saga IN (SELECT value FROM json_each($1)) AND (id, saga) > ($2, $3) ORDER BY id, saga LIMIT $4";

/// A page of all instances.
pub(super) async fn page(
    readers: &SqlitePool,
    sagas: &[String],
    after: &InstanceKey,
    rows_max: i64,
) -> Result<Vec<InstanceRow>, sqlx::Error> {
    let page = sqlx::query(PAGE).bind(json!(sagas).to_string()).bind(&after.id).bind(&after.saga).bind(rows_max);
    page.fetch_all(readers).await?.iter().map(instance).collect()
}

/// The charts that were registered, as JSON.
pub(super) async fn definitions(readers: &SqlitePool, endpoint: &str) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT chart FROM sagabus_definition WHERE endpoint = $1 ORDER BY saga, version";
    sqlx::query_scalar(sql).bind(endpoint).fetch_all(readers).await
}

fn waiting(row: &SqliteRow) -> Result<Waiting, StoreError> {
    let reason = reason_of(row.try_get("reason").map_err(store_error)?)?;
    let read = || {
        let key = InstanceKey { saga: row.try_get("saga")?, id: row.try_get("saga_id")? };
        Ok(Waiting::new(key, row.try_get::<&str, _>("type")?, reason, row.try_get("n")?))
    };
    read().map_err(store_error)
}

const ALIASES: &str = "
SELECT f.name, f.value, f.saga, f.id FROM ({rows}) r
    CROSS JOIN sagabus_field f ON f.value = r.column2 AND f.name = r.column1 AND f.is_alias = 1";

const AWAITED: &str = "
SELECT DISTINCT h.saga, h.saga_id FROM ({rows}) r
    CROSS JOIN sagabus_held h ON h.saga_id = r.column2 AND h.saga = r.column1 AND h.endpoint = r.column3
WHERE h.saga_id IS NOT NULL AND h.reason = 'early'";

/// The instances that have aliases.
pub(super) async fn aliases(
    connection: &mut SqliteConnection,
    aliases: &[InstanceKey],
) -> Result<Vec<FieldRow>, sqlx::Error> {
    let rows = fetch(connection, ALIASES, aliases, |values, key| bind!(values: &key.saga, &key.id)).await?;
    let read = |row: &SqliteRow| {
        let alias = InstanceKey { saga: row.try_get("name")?, id: row.try_get("value")? };
        Ok(FieldRow::alias(alias, InstanceKey { saga: row.try_get("saga")?, id: row.try_get("id")? }))
    };
    rows.iter().map(read).collect()
}

/// The same, and the aliases for which early messages wait.
pub(super) async fn aliases_found(
    connection: &mut SqliteConnection,
    endpoint: &str,
    keys: &[InstanceKey],
) -> Result<AliasesFound, sqlx::Error> {
    let rows = aliases(connection, keys).await?;
    let awaited = fetch(connection, AWAITED, keys, |values, key| bind!(values: &key.saga, &key.id, endpoint)).await?;
    let key = |row: &SqliteRow| Ok(InstanceKey { saga: row.try_get("saga")?, id: row.try_get("saga_id")? });
    Ok(AliasesFound::new(rows, awaited.iter().map(key).collect::<Result<_, sqlx::Error>>()?))
}

const HELD_PLACES: &str = "
SELECT arrival, octet_length(body) AS bytes FROM sagabus_held
WHERE saga_id = $1 AND saga = $2 AND endpoint = $3
    AND (reason, type) IN (SELECT r.value ->> 0, r.value ->> 1 FROM json_each($4) r)
ORDER BY arrival LIMIT $5";

const HELD: &str = "
SELECT receiver, message_id, arrival, reason, saga, saga_id, attempts, envelope, body FROM sagabus_held
WHERE arrival IN (SELECT value FROM json_each($1)) ORDER BY arrival";

const UNREADABLE: &str = "
UPDATE sagabus_held SET reason = 'undecodable', expires_at = NULL, error = $2 WHERE arrival = $1";

/// Leaves out a row that cannot be read; it waits for a person from now on.
pub(super) async fn held(
    connection: &mut SqliteConnection,
    endpoint: &str,
    wanted: &[HeldWanted],
    (rows_max, bytes_max): (i64, i64),
) -> Result<Vec<HeldRow>, sqlx::Error> {
    let mut instances = BTreeMap::<&InstanceKey, Vec<serde_json::Value>>::new();
    for wanted in wanted {
        instances.entry(&wanted.key).or_default().push(json!([wanted.reason.as_str(), wanted.type_name]));
    }
    let mut places: Vec<(usize, i64, i64)> = Vec::new();
    for (key, wanted) in instances {
        let rows = sqlx::query(HELD_PLACES).bind(&key.id).bind(&key.saga).bind(endpoint).bind(array(wanted));
        for (nth, row) in rows.bind(rows_max).fetch_all(&mut *connection).await?.iter().enumerate() {
            places.push((nth, row.try_get("arrival")?, row.try_get("bytes")?));
        }
    }
    places.sort_unstable();
    let mut bytes: i64 = 0;
    let fits = |(_, arrival, length): (usize, i64, i64)| {
        let fits = bytes < bytes_max;
        bytes = bytes.saturating_add(length);
        fits.then(|| arrival.into())
    };
    let fit: Vec<serde_json::Value> = places.into_iter().map_while(fits).collect();
    let mut held = Vec::with_capacity(fit.len());
    if fit.is_empty() {
        return Ok(held);
    }
    for row in &sqlx::query(HELD).bind(array(fit)).fetch_all(&mut *connection).await? {
        let arrival: i64 = row.try_get("arrival")?;
        match held_row(row, arrival) {
            Ok(row) => held.push(row),
            Err(error) => {
                let (saga, saga_id): (Option<&str>, Option<&str>) = (row.try_get("saga")?, row.try_get("saga_id")?);
                tracing::warn!(endpoint, saga, saga_id, error, "a held message cannot be read");
                sqlx::query(UNREADABLE).bind(arrival).bind(error).execute(&mut *connection).await?;
            }
        }
    }
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
