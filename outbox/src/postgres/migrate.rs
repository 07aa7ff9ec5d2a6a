//! Creates and upgrades the tables.

use super::{Postgres, answer, dialects::refusal};
use crate::error::{fitting, store_error};
use saga_core::{ErrorCode, StoreError, StoreErrorKind};
use sqlx::{Executor, PgConnection};

pub(super) const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i32 = 1;
/// The migrator's lock belongs to its transaction, not to the session, so that it works through PgBouncer.
const LOCK: i64 = 0x5a6a_b005;

/// Rule 13: the lock is taken only if there is something to do, and the catalogue is read again afterwards.
pub(super) async fn migrate(store: &Postgres) -> Result<(), StoreError> {
    let mut connection = store.transaction("").await?;
    refuse_others(&mut connection).await?;
    let encoding: String =
        answer(sqlx::query_scalar("SHOW server_encoding").persistent(false).fetch_one(&mut *connection))
            .await
            .map_err(store_error)?;
    if encoding != "UTF8" {
        let text = format!(
            "the database's encoding is {encoding}, which cannot hold every message: \
             create a database with `ENCODING 'UTF8' TEMPLATE template0`"
        );
        return Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::DatabaseUnfit));
    }
    let migrated = answer(async {
        if version(&mut connection).await?.is_none() {
            connection.execute(format!("SELECT pg_advisory_xact_lock({LOCK})").as_str()).await?;
            if version(&mut connection).await?.is_none() {
                connection.execute(SCHEMA).await?;
            }
        }
        version(&mut connection).await
    })
    .await;
    fitting(store.finish(connection, migrated).await?, VERSION).map(drop)
}

/// The version of the tables, if this binary knows it. Nothing is changed.
pub(super) async fn check(store: &Postgres) -> Result<i32, StoreError> {
    let mut connection = store.transaction("").await?;
    refuse_others(&mut connection).await?;
    let found = answer(version(&mut connection)).await;
    fitting(store.finish(connection, found).await?, VERSION)
}

/// Refuses servers that are not PostgreSQL.
pub(crate) async fn refuse_others(connection: &mut PgConnection) -> Result<(), StoreError> {
    let asked = "SELECT version(), EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')";
    let (said, has_citus): (String, bool) =
        answer(sqlx::query_as(asked).persistent(false).fetch_one(connection)).await.map_err(store_error)?;
    match refusal(&said, has_citus) {
        Some(text) => Err(StoreError::new(StoreErrorKind::Invalid, text).with_code(ErrorCode::DatabaseUnfit)),
        None => Ok(()),
    }
}

async fn version(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    // the catalogue is read with a snapshot; `to_regclass` would answer from a cache that does not see another
    // process's tables, even after the wait for its lock
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'sagabus' AND c.relname = 'schema_version')",
    )
    .persistent(false)
    .fetch_one(&mut *connection)
    .await?;
    if !known {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM sagabus.schema_version").persistent(false).fetch_one(connection).await
}
