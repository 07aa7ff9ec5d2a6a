//! Counts for the metrics.

use crate::rows::{Counted, counts_of};
use saga_core::{Counts, HeldReason};
use sqlx::{PgConnection, Row};

/// Each part reads `$2` rows at most. What failed is put off by up to five minutes, and is not confirmed all the same.
/// Instances are counted in a part of the table's pages: an index by state would have to be kept with each transition.
const COUNT: &str = "
SELECT 'outbox' AS what, NULL AS name, NULL AS state, count(*) AS count,
    (extract(epoch FROM statement_timestamp() - min(coalesce(first_attempt_at, due_at))) * 1000000)::bigint AS more
FROM (SELECT first_attempt_at, due_at FROM sagabus.outbox
    WHERE endpoint = $1 AND due_at <= statement_timestamp() + interval '6 minutes' ORDER BY due_at LIMIT $2) o
WHERE first_attempt_at IS NOT NULL OR due_at <= statement_timestamp()
UNION ALL
SELECT 'unroutable', NULL, NULL, count(*), NULL
FROM (SELECT FROM sagabus.outbox WHERE endpoint = $1 AND waits_for IS NOT NULL LIMIT $2) o
UNION ALL
SELECT 'held', reason, NULL, (SELECT count(*)
    FROM (SELECT FROM sagabus.held h WHERE h.endpoint = $1 AND h.reason = r.reason LIMIT $2) h), NULL
FROM unnest($3::text[]) r(reason)
UNION ALL
SELECT 'instances', saga, state, count(*), count(paused_by)
FROM (SELECT saga, state, paused_by FROM sagabus.saga TABLESAMPLE SYSTEM ($5) LIMIT 2 * $2) s
WHERE array_position($4::text[], saga) IS NOT NULL GROUP BY saga, state";

pub(super) async fn counts(
    connection: &mut PgConnection,
    endpoint: &str,
    sagas: &[String],
    rows_max: i64,
) -> Result<Counts, sqlx::Error> {
    let rows = sqlx::query_scalar("SELECT reltuples::float8 FROM pg_class WHERE oid = 'sagabus.saga'::regclass");
    let rows: f64 = rows.persistent(false).fetch_one(&mut *connection).await?; // -1 before the first ANALYZE
    let share = (rows_max as f64 / rows.max(1.0)).min(1.0);
    let reasons: Vec<&str> = HeldReason::ALL.iter().map(|reason| reason.as_str()).collect();
    let counted = sqlx::query(COUNT)
        .bind(endpoint)
        .bind(rows_max)
        .bind(reasons)
        .bind(sagas)
        .bind((share * 100.0) as f32)
        .persistent(false)
        .fetch_all(connection)
        .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Counted {
            what: row.try_get("what")?,
            name: row.try_get::<Option<_>, _>("name")?.unwrap_or_default(),
            state: row.try_get::<Option<_>, _>("state")?.unwrap_or_default(),
            count: row.try_get("count")?,
            more: row.try_get("more")?,
        })
    };
    Ok(counts_of(counted.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>()?, share))
}
