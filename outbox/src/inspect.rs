//! What operators read and do: one text of SQL for both databases, with what differs filled in.

use crate::{Postgres, Sqlite, error::store_error};
use async_trait::async_trait;
use saga_core::{
    EndpointStatus, HeldView, Inspect, InstanceFilter, InstanceView, JournalView, OutboxView, ReasonCount, StateCount,
    Status, StoreError,
};
use serde_json::Value;
use sqlx::Row;
use uuid::Uuid;

/// Opens a database for inspection: `postgres://…` or `sqlite:PATH`.
///
/// # Errors
/// When the address is neither, or the file is not there.
pub async fn open(url: &str) -> Result<Box<dyn Inspect>, StoreError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.trim_start_matches("//");
        if !std::path::Path::new(path).is_file() {
            return Err(StoreError::Invalid(format!("there is no file {path}")));
        }
        return Ok(Box::new(Sqlite::open(path).await?));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Box::new(Postgres::new(url)?));
    }
    Err(StoreError::Invalid(format!("`{url}` is no database: use postgres://user@host/database or sqlite:PATH")))
}

/// Fills in what differs: `{s}` the schema, `{us:COLUMN}` a time as microseconds, `{now}` the clock, `{text:COLUMN}` JSON as text,
/// `{retried}` a held message's headers as its retry bears them, `{lock}` a lock on the rows that are read,
/// `{unused}` an argument that only others need.
fn dialect(sql: &str, postgres: bool) -> String {
    let mut text = String::new();
    let mut rest = sql;
    while let Some(start) = rest.find('{') {
        let end = start + rest[start..].find('}').expect("every brace in the queries below is closed");
        text.push_str(&rest[..start]);
        let (name, argument) = rest[start + 1..end].split_once(':').unwrap_or((&rest[start + 1..end], ""));
        match (name, postgres) {
            ("s", true) => text.push_str("sagabus."),
            ("us", true) => text.push_str(&format!("(extract(epoch FROM {argument}) * 1000000)::bigint")),
            ("now", true) => text.push_str("clock_timestamp()"),
            ("now_us", true) => text.push_str("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"),
            ("retried", true) => text.push_str("headers || jsonb_build_object('attempt', attempts, 'round', 0)"),
            ("unused", true) => text.push_str("$5::uuid IS NOT NULL"),
            ("unused", false) => text.push_str("$5 IS NOT NULL"),
            ("lock", true) => text.push_str("FOR UPDATE"),
            ("minute_ago", true) => text.push_str("(clock_timestamp() - interval '1 minute')"),
            ("text", true) => text.push_str(&format!("{argument}::text")),
            ("us" | "text", false) => text.push_str(argument),
            ("retried", false) => text.push_str("json_set(headers, '$.attempt', attempts, '$.round', 0)"),
            ("now" | "now_us", false) => text.push_str("CAST(unixepoch('subsec') * 1000000 AS INTEGER)"),
            ("minute_ago", false) => text.push_str("CAST((unixepoch('subsec') - 60) * 1000000 AS INTEGER)"),
            _ => {}
        }
        rest = &rest[end + 1..];
    }
    text + rest
}

const OUTBOX: &str = "SELECT {text:id} AS id, endpoint, message_id, kind, type, destination, saga, saga_id, {us:created_at} AS created_at, {us:due_at} AS due_at,
    {us:lease_until} AS lease_until, lease_owner, CAST(attempts AS bigint) AS attempts, last_error, {text:headers} AS headers, body FROM {s}outbox ";
const INSTANCE: &str = "SELECT saga, id, state, {text:data} AS data, seq, CAST(version AS bigint) AS version, paused_by, {us:created_at} AS created_at,
    {us:updated_at} AS updated_at, {us:completed_at} AS completed_at FROM {s}saga ";
const JOURNAL: &str = "SELECT message_id, type, result, seq, from_state, to_state, {text:effects} AS effects, causation_id, {us:handled_at} AS handled_at, handled_by,
    attempts, note FROM {s}inbox WHERE saga = $1 AND saga_id = $2 ORDER BY handled_at, seq";
const HELD: &str = "SELECT endpoint, receiver, message_id, type, arrival, reason, saga_id, error, attempts, {us:held_at} AS held_at, {us:expires_at} AS expires_at,
    {text:headers} AS headers, body FROM {s}held ";
/// From `held` back to the outbox, due now: to the receiver that held it; what never left (stranded) to where it was to go.
const RETRY: [&str; 3] = [
    "INSERT INTO {s}outbox (id, endpoint, message_id, kind, type, destination, receiver, saga, saga_id, entered, conversation_id, causation_id,
        headers, body, sent_at, created_at, due_at)
     SELECT $5, endpoint, message_id, coalesce(kind, 'retry'), type, coalesce(destination, endpoint),
        CASE WHEN kind IS NULL THEN nullif(receiver, '') ELSE only_for END, from_saga, from_saga_id, from_entered, conversation_id, causation_id,
        CASE WHEN kind IS NULL THEN {retried} ELSE headers END, body, sent_at, {now}, {now}
     FROM {s}held WHERE message_id = $1 AND receiver = $2 AND endpoint = $3 AND $4 <> ''",
    "UPDATE {s}inbox SET result = 'retrying', note = $4 WHERE message_id = $1 AND receiver = $2 AND endpoint = $3 AND result = 'held' AND {unused}",
    "DELETE FROM {s}held WHERE message_id = $1 AND receiver = $2 AND endpoint = $3 AND $4 <> '' AND {unused}",
];

fn json(text: Option<String>) -> Value {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// A body as JSON; what is none, as a text that says so.
fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => format!("not JSON: {text}").into(),
        Err(_) => format!(
            "not text, {} bytes: {}",
            bytes.len(),
            bytes.iter().take(64).map(|b| format!("{b:02x}")).collect::<String>()
        )
        .into(),
    })
}

// each reads in a transaction and prepares nothing, so that it works behind a pooler too
macro_rules! inspect {
    ($store:ty, $row:ty, $postgres:literal, $pool:ident, $writer:ident) => {
        #[async_trait]
        impl Inspect for $store {
            async fn status(&self) -> Result<Status, StoreError> {
                let fetch = async |sql: &str| {
                    sqlx::query(&*dialect(sql, $postgres)).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)
                };
                let mut status = Status::default();
                let now: i64 = fetch("SELECT {now_us} AS now").await?[0].get("now");
                let endpoints = "SELECT endpoint, count(CASE WHEN due_at <= {now} THEN 1 END) AS due, count(CASE WHEN due_at > {now} THEN 1 END) AS scheduled, {us:min(due_at)} AS oldest FROM {s}outbox GROUP BY endpoint";
                fn entry(status: &mut Status, row: &$row) -> usize {
                    let endpoint: String = row.get("endpoint");
                    let known = status.endpoints.iter().position(|known| known.endpoint == endpoint);
                    known.unwrap_or_else(|| {
                        status.endpoints.push(EndpointStatus { endpoint, ..EndpointStatus::default() });
                        status.endpoints.len() - 1
                    })
                }
                for row in fetch("SELECT DISTINCT endpoint FROM {s}definition").await? {
                    entry(&mut status, &row);
                }
                for row in fetch(endpoints).await? {
                    let i = entry(&mut status, &row);
                    let endpoint = &mut status.endpoints[i];
                    endpoint.outbox = row.get("due");
                    endpoint.scheduled = row.get("scheduled");
                    let oldest: i64 = row.get("oldest");
                    endpoint.oldest_ms = (endpoint.outbox > 0).then(|| (now - oldest).max(0) / 1000);
                }
                for row in fetch("SELECT endpoint, reason, count(*) AS n FROM {s}held GROUP BY endpoint, reason ORDER BY reason").await? {
                    let i = entry(&mut status, &row);
                    status.endpoints[i].held.push(ReasonCount { reason: row.get("reason"), count: row.get("n") });
                }
                for row in fetch("SELECT endpoint, count(*) AS n FROM {s}inbox WHERE handled_at > {minute_ago} GROUP BY endpoint").await? {
                    let i = entry(&mut status, &row);
                    status.endpoints[i].handled_last_minute = row.get("n");
                }
                status.endpoints.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
                let states = "SELECT saga, state, count(*) AS n, count(paused_by) AS paused, count(completed_at) AS done FROM {s}saga GROUP BY saga, state ORDER BY saga, state";
                status.instances.extend(fetch(states).await?.iter().map(|row| StateCount {
                    saga: row.get("saga"),
                    state: row.get("state"),
                    count: row.get("n"),
                    paused: row.get("paused"),
                    done: row.get::<i64, _>("done") > 0,
                }));
                Ok(status)
            }

            async fn outbox(&self, limit: i64) -> Result<Vec<OutboxView>, StoreError> {
                let sql = dialect(&format!("{OUTBOX} ORDER BY due_at, id LIMIT $1"), $postgres);
                let rows = sqlx::query(&sql).bind(limit).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)?;
                Ok(rows.iter().map(<$store>::outbox_view).collect())
            }

            async fn outbox_row(&self, id: &str) -> Result<Option<OutboxView>, StoreError> {
                let Ok(uuid) = id.parse::<Uuid>() else { return Ok(None) };
                let sql = dialect(&format!("{OUTBOX} WHERE {{text:id}} = $1"), $postgres);
                let row = sqlx::query(&sql).bind(uuid.to_string()).persistent(false).fetch_optional(&mut *self.$pool().begin().await.map_err(store_error)?).await;
                Ok(row.map_err(store_error)?.as_ref().map(<$store>::outbox_view))
            }

            async fn instances(&self, filter: &InstanceFilter, limit: i64) -> Result<Vec<InstanceView>, StoreError> {
                let sql = dialect(
                    &format!(
                        "{INSTANCE} WHERE ($1 = '' OR saga = $1) AND ($2 = '' OR state = $2) AND ($3 = 0 OR paused_by IS NOT NULL)
                         AND ($4 = 0 OR completed_at IS NULL) ORDER BY updated_at DESC LIMIT $5"
                    ),
                    $postgres,
                );
                let rows = sqlx::query(&sql)
                    .bind(filter.saga.as_deref().unwrap_or_default())
                    .bind(filter.state.as_deref().unwrap_or_default())
                    .bind(i32::from(filter.paused))
                    .bind(i32::from(filter.open))
                    .bind(limit)
                    .persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?)
                    .await
                    .map_err(store_error)?;
                Ok(rows.iter().map(<$store>::instance_view).collect())
            }

            async fn instance(&self, saga: &str, id: &str) -> Result<Option<InstanceView>, StoreError> {
                let sql = dialect(&format!("{INSTANCE} WHERE saga = $1 AND id = $2"), $postgres);
                let row = sqlx::query(&sql).bind(saga).bind(id).persistent(false).fetch_optional(&mut *self.$pool().begin().await.map_err(store_error)?).await;
                Ok(row.map_err(store_error)?.as_ref().map(<$store>::instance_view))
            }

            async fn timers(&self, saga: &str, id: &str) -> Result<Vec<OutboxView>, StoreError> {
                let sql = dialect(&format!("{OUTBOX} WHERE kind = 'timer' AND saga = $1 AND saga_id = $2 ORDER BY due_at"), $postgres);
                let rows = sqlx::query(&sql).bind(saga).bind(id).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)?;
                Ok(rows.iter().map(<$store>::outbox_view).collect())
            }

            async fn journal(&self, saga: &str, id: &str) -> Result<Vec<JournalView>, StoreError> {
                let sql = dialect(JOURNAL, $postgres);
                let rows = sqlx::query(&sql).bind(saga).bind(id).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)?;
                Ok(rows.iter().map(|row| JournalView {
                    message_id: row.get("message_id"),
                    type_name: row.get("type"),
                    result: row.get("result"),
                    seq: row.get("seq"),
                    from_state: row.get("from_state"),
                    to_state: row.get("to_state"),
                    effects: json(row.get("effects")),
                    causation_id: row.get("causation_id"),
                    handled_at_us: row.get("handled_at"),
                    handled_by: row.get("handled_by"),
                    attempts: row.get("attempts"),
                    note: row.get("note"),
                }).collect())
            }

            async fn held(&self, limit: i64) -> Result<Vec<HeldView>, StoreError> {
                let sql = dialect(&format!("{HELD} ORDER BY arrival LIMIT $1"), $postgres);
                let rows = sqlx::query(&sql).bind(limit).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)?;
                Ok(rows.iter().map(<$store>::held_view).collect())
            }

            async fn held_messages(&self, message_id: &str) -> Result<Vec<HeldView>, StoreError> {
                let sql = dialect(&format!("{HELD} WHERE message_id = $1 ORDER BY arrival"), $postgres);
                let rows = sqlx::query(&sql).bind(message_id).persistent(false).fetch_all(&mut *self.$pool().begin().await.map_err(store_error)?).await.map_err(store_error)?;
                Ok(rows.iter().map(<$store>::held_view).collect())
            }

            async fn held_retry(&self, message_id: &str, who: &str, why: &str) -> Result<u64, StoreError> {
                self.retry(message_id, &format!("retried by {who}: {why}")).await.map_err(store_error)
            }
        }

        impl $store {
            fn outbox_view(row: &$row) -> OutboxView {
                OutboxView {
                    id: row.get("id"),
                    endpoint: row.get("endpoint"),
                    message_id: row.get("message_id"),
                    kind: row.get("kind"),
                    type_name: row.get("type"),
                    destination: row.get("destination"),
                    saga: row.get("saga"),
                    saga_id: row.get("saga_id"),
                    created_at_us: row.get("created_at"),
                    due_at_us: row.get("due_at"),
                    lease_until_us: row.get("lease_until"),
                    lease_owner: row.get("lease_owner"),
                    attempts: row.get("attempts"),
                    last_error: row.get("last_error"),
                    headers: json(row.get("headers")),
                    body: body(row.get("body")),
                }
            }

            fn instance_view(row: &$row) -> InstanceView {
                InstanceView {
                    saga: row.get("saga"),
                    id: row.get("id"),
                    state: row.get("state"),
                    data: json(row.get("data")),
                    seq: row.get("seq"),
                    version: row.get::<i64, _>("version") as i32,
                    paused_by: row.get("paused_by"),
                    created_at_us: row.get("created_at"),
                    updated_at_us: row.get("updated_at"),
                    completed_at_us: row.get("completed_at"),
                }
            }

            fn held_view(row: &$row) -> HeldView {
                HeldView {
                    endpoint: row.get("endpoint"),
                    receiver: row.get("receiver"),
                    message_id: row.get("message_id"),
                    type_name: row.get("type"),
                    arrival: row.get("arrival"),
                    reason: row.get("reason"),
                    saga_id: row.get("saga_id"),
                    error: row.get("error"),
                    attempts: row.get("attempts"),
                    held_at_us: row.get("held_at"),
                    expires_at_us: row.get("expires_at"),
                    headers: json(row.get("headers")),
                    body: body(row.get("body")),
                }
            }

            /// From `held` back to the outbox, due now, addressed to the receiver that held it. What never left (stranded)
            /// goes where it was to go; the receiver of such a row is `to DESTINATION`.
            async fn retry(&self, message_id: &str, note: &str) -> Result<u64, sqlx::Error> {
                let begin = if $postgres { "BEGIN" } else { "BEGIN IMMEDIATE" };
                let mut tx = self.$writer().begin_with(begin).await?;
                let sql = dialect("SELECT endpoint, receiver FROM {s}held WHERE message_id = $1 {lock}", $postgres);
                let rows = sqlx::query(&sql).bind(message_id).persistent(false).fetch_all(&mut *tx).await?;
                for row in &rows {
                    let (endpoint, receiver): (String, String) = (row.get("endpoint"), row.get("receiver"));
                    for sql in RETRY {
                        let sql = dialect(sql, $postgres);
                        let query = sqlx::query(&sql);
                        let query = query.bind(message_id).bind(&receiver).bind(&endpoint).bind(note);
                        let id = Uuid::now_v7();
                        let query = if $postgres { query.bind(id) } else { query.bind(id.to_string()) };
                        query.persistent(false).execute(&mut *tx).await?;
                    }
                }
                tx.commit().await?;
                Ok(rows.len() as u64)
            }
        }
    };
}

inspect!(Postgres, sqlx::postgres::PgRow, true, pool, pool);
inspect!(Sqlite, sqlx::sqlite::SqliteRow, false, pool, writer);
