//! Processes: registration, subscriptions, heartbeats.

use super::now_us;
use crate::rows::{ALIVE, us};
use saga_core::{Asked, Process, Registered};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

pub(super) async fn register(connection: &mut SqliteConnection, process: &Process) -> Result<Registered, sqlx::Error> {
    let sagas: Vec<&str> = process.charts.iter().map(|chart| chart.saga.as_str()).collect();
    let taken = sqlx::query(
        "SELECT DISTINCT saga, endpoint FROM sagabus_definition
         WHERE saga IN (SELECT value FROM json_each($1)) AND endpoint <> $2 ORDER BY saga, endpoint",
    )
    .bind(json!(sagas).to_string())
    .bind(&process.endpoint)
    .fetch_all(&mut *connection)
    .await?;
    if !taken.is_empty() {
        let taken = taken.iter().map(|row| Ok((row.try_get("saga")?, row.try_get("endpoint")?)));
        return Ok(Registered::taken(taken.collect::<Result<_, sqlx::Error>>()?));
    }
    for chart in &process.charts {
        sqlx::query(
            "INSERT INTO sagabus_definition (saga, version, chart, endpoint, registered_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (saga, version, endpoint)
             DO UPDATE SET chart = excluded.chart, registered_at = excluded.registered_at",
        )
        .bind(&chart.saga)
        .bind(chart.version)
        .bind(serde_json::to_string(chart).map_err(|error| sqlx::Error::Encode(error.into()))?)
        .bind(&process.endpoint)
        .bind(now_us())
        .execute(&mut *connection)
        .await?;
    }
    heartbeat(connection, process).await?;
    let dropped: Vec<String> = sqlx::query_scalar(
        "DELETE FROM sagabus_subscription WHERE endpoint = $1 AND event NOT IN (SELECT value FROM json_each($2))
            AND NOT EXISTS (SELECT 1 FROM sagabus_process p, json_each(p.subscribes) e
                WHERE p.endpoint = $1 AND p.owner <> $3 AND p.seen_at > $4 AND e.value = sagabus_subscription.event)
         RETURNING event",
    )
    .bind(&process.endpoint)
    .bind(json!(process.subscribes).to_string())
    .bind(&process.owner)
    .bind(now_us() - us(ALIVE))
    .fetch_all(connection)
    .await?;
    let mut registered = Registered::new(dropped);
    registered.dropped.sort_unstable();
    Ok(registered)
}

/// A process whose row is gone was taken for dead: it is registered again, with its subscriptions.
pub(super) async fn heartbeat(connection: &mut SqliteConnection, process: &Process) -> Result<Asked, sqlx::Error> {
    let subscribes = json!(process.subscribes).to_string();
    sqlx::query(
        "INSERT INTO sagabus_subscription (endpoint, event) SELECT $1, value FROM json_each($2) WHERE true
         ON CONFLICT DO NOTHING",
    )
    .bind(&process.endpoint)
    .bind(&subscribes)
    .execute(&mut *connection)
    .await?;
    let asked: Option<String> = sqlx::query_scalar(
        "INSERT INTO sagabus_process (owner, endpoint, started_at, seen_at, subscribes, types, report)
         VALUES ($1, $2, $3, $3, $4, $5, $6)
         ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at, subscribes = excluded.subscribes,
            types = excluded.types, report = excluded.report
         RETURNING asked",
    )
    .bind(&process.owner)
    .bind(&process.endpoint)
    .bind(now_us())
    .bind(subscribes)
    .bind(json!(process.types).to_string())
    .bind(process.report.to_string())
    .fetch_one(connection)
    .await?;
    Ok(Asked::read(asked.as_deref()))
}
