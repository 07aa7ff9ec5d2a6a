//! Processes: registration, subscriptions, heartbeats.

use crate::rows::{ALIVE, us};
use saga_core::{Asked, Process, Registered};
use sqlx::{PgConnection, Row};

/// Registrations run one after the other, because two endpoints may want the same saga name.
pub(super) const LOCK: i64 = 0x5a6a_b006;

const TAKEN: &str = "
SELECT DISTINCT saga, endpoint FROM sagabus.definition WHERE saga = ANY($1) AND endpoint <> $2 ORDER BY saga, endpoint";

const DEFINE: &str = "
INSERT INTO sagabus.definition (saga, version, chart, endpoint, registered_at)
SELECT r.saga, r.version, r.chart::jsonb, $1, clock_timestamp()
FROM unnest($2::text[], $3::integer[], $4::text[]) AS r(saga, version, chart)
ON CONFLICT (saga, version, endpoint) DO UPDATE SET chart = excluded.chart, registered_at = excluded.registered_at";

const ENTER: &str = "
WITH subscribed AS (
    INSERT INTO sagabus.subscription (endpoint, event)
    SELECT DISTINCT $2, e FROM json_array_elements_text($3::json) e ON CONFLICT DO NOTHING)
INSERT INTO sagabus.process (owner, endpoint, started_at, seen_at, subscribes, types, report)
VALUES ($1, $2, clock_timestamp(), clock_timestamp(), $3::json, $4::json, $5::json)
ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, subscribes = excluded.subscribes,
    types = excluded.types, report = excluded.report
RETURNING asked";

const DROPPED: &str = "
DELETE FROM sagabus.subscription s WHERE s.endpoint = $1 AND s.event <> ALL($2)
    AND NOT EXISTS (
        SELECT FROM sagabus.process p, json_array_elements_text(p.subscribes) e
        WHERE p.endpoint = $1 AND p.owner <> $3 AND e = s.event
            AND p.seen_at > clock_timestamp() - $4::bigint * interval '1 microsecond')
RETURNING s.event";

pub(super) async fn register(connection: &mut PgConnection, process: &Process) -> Result<Registered, sqlx::Error> {
    let sagas: Vec<&str> = process.charts.iter().map(|chart| chart.saga.as_str()).collect();
    let taken = sqlx::query(TAKEN).bind(&sagas).bind(&process.endpoint).persistent(false);
    let taken = taken.fetch_all(&mut *connection).await?;
    if !taken.is_empty() {
        let taken = taken.iter().map(|row| (row.get("saga"), row.get("endpoint"))).collect();
        return Ok(Registered::taken(taken));
    }
    let versions: Vec<i32> = process.charts.iter().map(|chart| chart.version as i32).collect();
    let charts: Vec<String> =
        process.charts.iter().map(|chart| text(serde_json::to_string(chart))).collect::<Result<_, _>>()?;
    let define = sqlx::query(DEFINE).bind(&process.endpoint).bind(&sagas).bind(versions).bind(charts);
    define.persistent(false).execute(&mut *connection).await?;
    heartbeat(connection, process).await?;
    let dropped = sqlx::query_scalar(DROPPED)
        .bind(&process.endpoint)
        .bind(&process.subscribes)
        .bind(&process.owner)
        .bind(us(ALIVE))
        .persistent(false);
    let mut dropped: Vec<String> = dropped.fetch_all(connection).await?;
    dropped.sort_unstable();
    Ok(Registered::new(dropped))
}

/// A process whose row is gone was taken for dead: it is registered again, with its subscriptions.
pub(super) async fn heartbeat(connection: &mut PgConnection, process: &Process) -> Result<Asked, sqlx::Error> {
    let entered = sqlx::query_scalar(ENTER)
        .bind(&process.owner)
        .bind(&process.endpoint)
        .bind(text(serde_json::to_string(&process.subscribes))?)
        .bind(text(serde_json::to_string(&process.types))?)
        .bind(text(serde_json::to_string(&process.report))?);
    let asked: Option<String> = entered.persistent(false).fetch_one(connection).await?;
    Ok(Asked::read(asked.as_deref()))
}

pub(super) async fn sign_off(connection: &mut PgConnection, owner: &str) -> Result<(), sqlx::Error> {
    let gone = sqlx::query("DELETE FROM sagabus.process WHERE owner = $1").bind(owner);
    gone.persistent(false).execute(connection).await.map(drop)
}

fn text(json: Result<String, serde_json::Error>) -> Result<String, sqlx::Error> {
    json.map_err(|error| sqlx::Error::Encode(error.into()))
}
