//! Reads all instances, a page at a time, and the charts that were registered.

use saga_core::{InstanceKey, InstanceRow};
use sqlx::{PgConnection, Row};

/// A page is found by the key, in its order, also while the table has no statistics: else each would sort all rows.
pub(super) const BY_KEY: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_sort = off; SET LOCAL jit = off";

/// The saga is a filter: as a condition on the key's second column it would cost the order.
const PAGE: &str = "
SELECT saga, id, state, data::text AS data, progress::text AS progress, originator::text AS originator, paused_by, seq,
    entered, version, completed_at IS NOT NULL AS done
FROM sagabus.saga WHERE array_position($1, saga) IS NOT NULL AND (id, saga) > ($2, $3) ORDER BY id, saga LIMIT $4";

pub(super) async fn page(
    connection: &mut PgConnection,
    sagas: &[String],
    after: &InstanceKey,
    rows_max: i64,
) -> Result<Vec<InstanceRow>, sqlx::Error> {
    let page = sqlx::query(PAGE).bind(sagas).bind(&after.id).bind(&after.saga).bind(rows_max).persistent(false);
    let read = |row: &sqlx::postgres::PgRow| {
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
    };
    page.fetch_all(connection).await?.iter().map(read).collect()
}

/// As JSON.
pub(super) async fn definitions(connection: &mut PgConnection, endpoint: &str) -> Result<Vec<String>, sqlx::Error> {
    let sql = "SELECT chart::text FROM sagabus.definition WHERE endpoint = $1 ORDER BY saga, version";
    sqlx::query_scalar(sql).bind(endpoint).persistent(false).fetch_all(connection).await
}
