//! Aliases: which instances have them, and which are waited for.

use saga_core::{AliasesFound, FieldRow, InstanceKey};
use sqlx::{PgConnection, Row};

/// Inside a unit and outside: the plan stays right while the tables grow (see `sagabus.key`).
const ALIASES: &str = "
SELECT k.alias, k.value, a.saga, a.id
FROM (SELECT $1::text[] AS aliases, $2::text[] AS ids OFFSET 0) l, unnest(l.aliases, l.ids) AS k(alias, value),
    LATERAL (SELECT saga, id FROM sagabus.field
        WHERE value = sagabus.key(k.value) AND name = k.alias AND is_alias OFFSET 0) a";

const AWAITED: &str = "
UNION ALL
SELECT k.alias, k.value, NULL, NULL
FROM (SELECT $1::text[] AS aliases, $2::text[] AS ids OFFSET 0) l, unnest(l.aliases, l.ids) AS k(alias, value)
WHERE EXISTS (SELECT FROM sagabus.held h
    WHERE h.saga_id = sagabus.key(k.value) AND h.saga = k.alias AND h.endpoint = $3 AND h.reason = 'early')";

/// What is known of aliases; of those that are waited for only with an endpoint.
pub(super) async fn found(
    connection: &mut PgConnection,
    persistent: bool,
    endpoint: Option<&str>,
    aliases: &[InstanceKey],
) -> Result<AliasesFound, sqlx::Error> {
    let names: Vec<&str> = aliases.iter().map(|alias| alias.saga.as_str()).collect();
    let values: Vec<&str> = aliases.iter().map(|alias| alias.id.as_str()).collect();
    let sql = if endpoint.is_some() { format!("{ALIASES}{AWAITED}") } else { ALIASES.into() };
    let mut query = sqlx::query(&sql).bind(names).bind(values).persistent(persistent);
    if let Some(endpoint) = endpoint {
        query = query.bind(endpoint);
    }
    let mut found = AliasesFound::default();
    for row in &query.fetch_all(connection).await? {
        let alias = InstanceKey { saga: row.get("alias"), id: row.get("value") };
        match row.get::<Option<String>, _>("saga") {
            Some(saga) => found.rows.push(FieldRow::alias(alias, InstanceKey { saga, id: row.get("id") })),
            None => found.awaited.push(alias),
        }
    }
    Ok(found)
}

/// Tries more locks, as the start of a unit does. Returns those that other transactions hold.
pub(super) async fn lock(
    connection: &mut PgConnection,
    persistent: bool,
    locks: &[i64],
) -> Result<Vec<i64>, sqlx::Error> {
    let sql = "SELECT k FROM unnest($1::bigint[]) k WHERE NOT pg_try_advisory_xact_lock(k)";
    sqlx::query_scalar(sql).bind(locks).persistent(persistent).fetch_all(connection).await
}
