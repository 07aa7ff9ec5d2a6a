//! Counts for the metrics.

use super::{array, now_us};
use crate::rows::{Counted, counts_of};
use saga_core::{Counts, HeldReason};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

/// Each part reads `?2` rows at most. What failed is put off by up to five minutes, and is not confirmed all the same.
/// Of more instances, the first by their key are counted.
const COUNT: &str = "
SELECT 'outbox' AS what, NULL AS name, NULL AS state, count(*) AS count,
    ?5 - min(coalesce(first_attempt_at, due_at)) AS more
FROM (SELECT first_attempt_at, due_at FROM sagabus_outbox
    WHERE endpoint = ?1 AND due_at <= ?5 + 360000000 ORDER BY due_at LIMIT ?2)
WHERE first_attempt_at IS NOT NULL OR due_at <= ?5
UNION ALL
SELECT 'unroutable', NULL, NULL, count(*), NULL
FROM (SELECT 1 FROM sagabus_outbox WHERE endpoint = ?1 AND waits_for IS NOT NULL LIMIT ?2)
UNION ALL
SELECT 'held', r.value, NULL, (SELECT count(*)
    FROM (SELECT 1 FROM sagabus_held h WHERE h.endpoint = ?1 AND h.reason = r.value LIMIT ?2)), NULL
FROM json_each(?3) r
UNION ALL
SELECT 'instances', saga, state, count(*), count(paused_by)
FROM (SELECT saga, state, paused_by FROM sagabus_saga LIMIT ?2)
WHERE saga IN (SELECT value FROM json_each(?4)) GROUP BY saga, state";

pub(super) async fn counts(
    readers: &SqlitePool,
    endpoint: &str,
    sagas: &[String],
    rows_max: i64,
) -> Result<Counts, sqlx::Error> {
    let counted = sqlx::query(COUNT)
        .bind(endpoint)
        .bind(rows_max)
        .bind(array(HeldReason::ALL.iter().map(|reason| reason.as_str().into())))
        .bind(array(sagas.iter().map(|saga| saga.as_str().into())))
        .bind(now_us())
        .fetch_all(readers)
        .await?;
    let read = |row: &SqliteRow| {
        Ok(Counted {
            what: row.try_get("what")?,
            name: row.try_get::<Option<_>, _>("name")?.unwrap_or_default(),
            state: row.try_get::<Option<_>, _>("state")?.unwrap_or_default(),
            count: row.try_get("count")?,
            more: row.try_get("more")?,
        })
    };
    Ok(counts_of(counted.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>()?, 1.0))
}
