//! PostgreSQL: READ COMMITTED, advisory locks of the transaction, one statement for the write of a batch.

mod connections;
mod read;
mod relay;
mod write;

use crate::error::{meaning, recognise, store_error, wrong_version};
use async_trait::async_trait;
use connections::{Connections, Leased};
use saga_core::{Chart, Claim, Claimed, Found, InboxRow, Keys, Leases, Store, StoreError, Unit, Write};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgTransactionManager},
};
use sqlx_core::transaction::TransactionManager;
use std::{error::Error, fmt::Write as _, sync::Arc, time::Duration};
use uuid::Uuid;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i32 = 1;
/// The migrator's lock: of its transaction, not of the session, so that it works through PgBouncer.
const MIGRATION_LOCK: i64 = 0x5a6a_b005;
/// Keys are looked up by an index. A plan that is prepared while a table has a few pages would read all of it, and is kept while the
/// table grows: dead rows of the outbox are enough. A projection that needs a scan still gets it, at a price that must not be taken for
/// work worth compiling.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off";
/// A connection that does not come within this time counts as "the database is away".
const ACQUIRE: Duration = Duration::from_secs(5);

/// How long an answer may take: a server that vanished without a word must not hold us for ever. Waiting for a lock counts too.
const ANSWER: Duration = Duration::from_secs(60);

/// Waits for an answer.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"));
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(late()))
}

/// A PostgreSQL database. Cheap to clone; no connection is made before it is needed.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// For units of work and sessions.
    units: Arc<Connections>,
    /// For the user's own reads.
    pool: PgPool,
    /// For relay, leases and housekeeping: slow handlers cannot starve them.
    own: Arc<Connections>,
    /// The server is reached through a pooler that may give each transaction another session: no statement outside one.
    pooled: bool,
}

impl Postgres {
    /// A database by its URL, `postgres://user:password@host:5432/database`, with up to 16 connections for units of work and 2 for the relay.
    ///
    /// Behind PgBouncer in transaction mode add `?statement-cache-capacity=0`, and `.persistent(false)` to your own statements;
    /// neither is needed from PgBouncer 1.21 on with `max_prepared_statements` set.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::with_connections(url, 16)
    }

    /// As [`Postgres::new`], with another number of connections for units of work and sessions.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn with_connections(url: &str, connections: u32) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            StoreError::Invalid(format!(
                "the database URL cannot be read: {error}; it looks like postgres://user@host:5432/database"
            ))
        })?;
        let options = options.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false) // a broken connection shows at its first statement
            .connect_lazy_with(options.clone());
        let pooled = url.contains("statement-cache-capacity=0");
        let own = Connections::new(options.clone(), 2);
        Ok(Self { units: Connections::new(options, connections), pool, own, pooled })
    }

    /// The tables as SQL, for whoever creates them by hand.
    pub fn schema() -> &'static str {
        SCHEMA
    }

    /// A pool for one's own reads.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection for statements that belong to no unit.
    async fn alone(&self, connections: &Arc<Connections>) -> Result<Leased, StoreError> {
        let mut connection = connections.acquire().await?;
        if self.pooled {
            PgTransactionManager::begin(&mut connection, None).await.map_err(|error| connection.lost(error))?;
        }
        Ok(connection)
    }

    /// The end of [`Postgres::alone`].
    async fn done<T>(&self, mut connection: Leased, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let value = result.map_err(|error| connection.lost(error))?;
        if self.pooled {
            PgTransactionManager::commit(&mut connection).await.map_err(|error| connection.lost(error))?;
        }
        connection.give_back();
        Ok(value)
    }

    async fn version(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
        // the catalogue is read with a snapshot; `to_regclass` would answer from a cache that does not see another process's
        // tables, even after the wait for its lock
        let known: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'sagabus' AND c.relname = 'schema_version')",
        )
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?;
        if !known {
            return Ok(None);
        }
        sqlx::query_scalar("SELECT max(version) FROM sagabus.schema_version")
            .persistent(false)
            .fetch_one(connection)
            .await
    }
}

/// One transaction on PostgreSQL.
#[derive(Debug)]
pub struct PostgresUnit {
    connection: Leased,
    /// Statements are prepared once; not behind a pooler, where the next transaction may have another session.
    persistent: bool,
}

#[async_trait]
impl Store for Postgres {
    type Tx = PgConnection;
    type Unit = PostgresUnit;

    fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreError> {
        recognise(error)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrate = async {
            let mut tx = self.pool.begin().await?;
            if Self::version(&mut tx).await?.is_none() {
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(MIGRATION_LOCK)
                    .persistent(false)
                    .execute(&mut *tx)
                    .await?;
                if Self::version(&mut tx).await?.is_none() {
                    tx.execute(SCHEMA).await?;
                }
            }
            let version = Self::version(&mut tx).await?;
            tx.commit().await?;
            Ok(version.unwrap_or(0))
        };
        match migrate.await.map_err(store_error)? {
            VERSION => Ok(()),
            other => Err(wrong_version(other, VERSION)),
        }
    }

    async fn register(&self, endpoint: &str, charts: &[Chart]) -> Result<(), StoreError> {
        for chart in charts {
            let mut connection = self.alone(&self.own).await?;
            let registered = sqlx::query(
                "INSERT INTO sagabus.definition (saga, version, chart, endpoint, registered_at)
                 VALUES ($1, $2, $3::jsonb, $4, clock_timestamp())
                 ON CONFLICT (saga, version, endpoint) DO UPDATE SET chart = excluded.chart, registered_at = excluded.registered_at",
            )
            .bind(&chart.saga)
            .bind(chart.version as i32)
            .bind(serde_json::to_string(chart).unwrap_or_default())
            .bind(endpoint)
            .persistent(!self.pooled)
            .execute(&mut *connection)
            .await;
            self.done(connection, registered).await?;
        }
        Ok(())
    }

    async fn begin(&self, locks: &[i64]) -> Result<PostgresUnit, StoreError> {
        // one round trip. The locks are taken in this statement and everything is read in later ones: a statement that waits for a
        // lock goes on with the snapshot it began with, and an instance that does not exist yet has no row to lock
        let mut sql = String::from("BEGIN");
        if !locks.is_empty() {
            let _ = write!(sql, "; {BY_INDEX}; SELECT pg_advisory_xact_lock(k) FROM unnest('{{");
            for (n, lock) in locks.iter().enumerate() {
                let _ = write!(sql, "{}{lock}", if n > 0 { "," } else { "" });
            }
            sql.push_str("}'::bigint[]) k");
        }
        let mut connection = self.units.acquire().await?;
        let begun = answer(PgTransactionManager::begin(&mut connection, Some(sql.into()))).await;
        begun.map_err(|error| connection.lost(error))?;
        Ok(PostgresUnit { connection, persistent: !self.pooled })
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        let mut connection = self.alone(&self.units).await?;
        let found = answer(read::read(&mut connection, !self.pooled, keys)).await;
        self.done(connection, found).await
    }

    async fn suspect(&self, claim: &InboxRow) -> Result<Option<i64>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::suspect(&mut connection, !self.pooled, claim)).await;
        self.done(connection, result).await
    }

    async fn forget(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        let mut connection = self.own.acquire().await?;
        let forgotten = answer(relay::forget(&mut connection, sent)).await;
        forgotten.map_err(|error| connection.lost(error))?;
        connection.give_back();
        Ok(())
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::claim(&mut connection, !self.pooled, claim)).await;
        self.done(connection, result).await
    }

    async fn hold_leases(&self, leases: &Leases<'_>) -> Result<Vec<Uuid>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::hold_leases(&mut connection, !self.pooled, leases)).await;
        self.done(connection, result).await
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<u64, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::sweep(&mut connection, !self.pooled, endpoint, retention)).await;
        self.done(connection, result).await
    }
}

#[async_trait]
impl Unit for PostgresUnit {
    type Tx = PgConnection;

    fn tx(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    async fn savepoint(&mut self) -> Result<(), StoreError> {
        // a savepoint of the same name covers the one before; sqlx's own are named otherwise
        self.connection.execute("SAVEPOINT sagabus").await.map(drop).map_err(store_error)
    }

    async fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        self.connection.execute("ROLLBACK TO SAVEPOINT sagabus").await.map(drop).map_err(store_error)
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        answer(read::read(&mut self.connection, self.persistent, keys)).await.map_err(store_error)
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        let late = || StoreError::Unavailable("no answer from the database".into());
        let written = tokio::time::timeout(ANSWER, write::write(&mut self.connection, self.persistent, write)).await;
        written.unwrap_or_else(|_| Err(late()))
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        answer(PgTransactionManager::commit(&mut self.connection)).await.map_err(|error| meaning(&error))?;
        self.connection.give_back();
        Ok(())
    }

    async fn rollback(mut self) -> Result<(), StoreError> {
        answer(PgTransactionManager::rollback(&mut self.connection))
            .await
            .map_err(|error| self.connection.lost(error))?;
        self.connection.give_back();
        Ok(())
    }
}

/// For samples and tests.
impl Postgres {
    /// Creates the database that `url` names if it is not there, through the server's `postgres` database.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn create_database(url: &str) -> Result<(), StoreError> {
        let options: PgConnectOptions = url.parse().map_err(store_error)?;
        let name = options.get_database().unwrap_or_default().to_owned();
        let mut server = PgConnection::connect_with(&options.database("postgres")).await.map_err(store_error)?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .persistent(false)
            .fetch_one(&mut server)
            .await
            .map_err(store_error)?;
        if exists {
            return Ok(());
        }
        let created = server.execute(&*format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""))).await;
        match created {
            // another process was faster
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => Ok(()),
            other => other.map(drop).map_err(store_error),
        }
    }
}
