//! PostgreSQL: READ COMMITTED, advisory locks of the transaction, one statement for the write of a batch.

mod connections;
mod migrate;
mod pooler;
mod process;
mod read;
mod relay;
mod release;
mod statement;
mod sweep;
mod unit;
mod write;

use unit::PostgresUnit;

use crate::error::recognise;
use async_trait::async_trait;
use connections::{ACQUIRE, AGE, Connections, IDLE, Leased};
use saga_core::{
    Found, InboxRow, Keys, LeaseRequest, LeaseUpdate, Process, Registered, Store, StoreError, StoreErrorKind,
};
use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{error::Error, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long an answer may take, including waits for locks: a server that vanished must not hold us for ever.
const ANSWER: Duration = Duration::from_secs(60);
/// Connections for relay, leases and housekeeping.
const OWN: u32 = 2;

/// Waits for an answer.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"));
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(late()))
}

/// A PostgreSQL database. Cheap to clone; connections are opened when they are needed.
///
/// All endpoints of a process that use the same database should share one store, and thereby its connections.
///
/// # Locks
/// A unit of work takes one advisory lock of the server for each saga instance in its batch, at most 200, and each lane
/// of an endpoint runs one unit at a time. The server has room for `max_locks_per_transaction * max_connections` locks
/// of all clients, 6400 by default. Four processes with eight lanes each can fill it under load; then other clients get
/// "out of shared memory" too. Set `max_locks_per_transaction` to 256 for a server with many processes.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// For units of work and sessions.
    units: Arc<Connections>,
    /// For the user's own reads.
    pool: PgPool,
    /// For relay, leases and housekeeping, so that slow handlers cannot starve them.
    own: Arc<Connections>,
    /// The server is behind a pooler that may give each transaction another session: no statement runs outside one.
    pooled: bool,
}

impl Postgres {
    /// A database by its URL, `postgres://user:password@host:5432/database`, with 16 connections for units of work.
    ///
    /// See [`Postgres::with_connections`] for how many sessions of the server that makes.
    ///
    /// Behind PgBouncer in transaction mode add `?statement-cache-capacity=0`, and `.persistent(false)` to statements
    /// on [`Postgres::pool`]; neither is needed from PgBouncer 1.21 on with `max_prepared_statements` set.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::with_connections(url, 16)
    }

    /// Like [`Postgres::new`], with another number of connections for units of work and sessions.
    ///
    /// At most `connections` are opened, 2 more for the relay and housekeeping, and as many again by [`Postgres::pool`]
    /// if it is used. They are opened when needed. A connection that was idle for a minute is closed, except one of
    /// each kind, and none gets older than 30 minutes.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn with_connections(url: &str, connections: u32) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            let text =
                format!("the database URL cannot be read: {error}; it looks like postgres://user@host:5432/database");
            StoreError::new(StoreErrorKind::Invalid, text).with_source(error)
        })?;
        let options = options.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE)
            .idle_timeout(IDLE)
            .max_lifetime(AGE)
            .test_before_acquire(false) // a broken connection shows at its first statement
            .connect_lazy_with(options.clone());
        let pooled = url.contains("statement-cache-capacity=0");
        let own = Connections::new(options.clone(), OWN);
        Ok(Self { units: Connections::new(options, connections), pool, own, pooled })
    }

    /// The tables as SQL, for creating them by hand.
    pub fn schema() -> &'static str {
        migrate::SCHEMA
    }

    /// A pool for your own reads: as many connections as there are for units of work, opened when they are needed.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection for statements outside units of work.
    async fn alone(&self, connections: &Arc<Connections>) -> Result<Leased, StoreError> {
        let mut connection = connections.acquire().await?;
        if self.pooled {
            let begun = answer(connection.begin(unit::pooled("BEGIN"))).await;
            begun.map_err(|error| connection.lost(error))?;
        }
        Ok(connection)
    }

    /// The end of [`Postgres::alone`].
    async fn done<T>(&self, mut connection: Leased, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let value = result.map_err(|error| connection.lost(error))?;
        if self.pooled {
            answer(connection.commit()).await.map_err(|error| connection.lost(error))?;
        }
        connection.give_back().await;
        Ok(value)
    }

    /// A transaction for housekeeping, under an advisory lock if one is named. Read committed, whatever the role's
    /// default: it must see what the previous holder of the lock wrote.
    async fn transaction(&self, lock: Option<i64>) -> Result<Leased, StoreError> {
        let mut sql = unit::begin(ANSWER);
        if let Some(lock) = lock {
            sql.push_str(&format!("; SELECT pg_advisory_xact_lock({lock})"));
        }
        let mut connection = self.own.acquire().await?;
        let begun = answer(connection.begin(if self.pooled { unit::pooled(&sql) } else { sql })).await;
        begun.map_err(|error| connection.lost(error))?;
        Ok(connection)
    }

    /// The end of [`Postgres::transaction`].
    async fn finish<T>(&self, mut connection: Leased, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let value = result.map_err(|error| connection.lost(error))?;
        answer(connection.commit()).await.map_err(|error| connection.lost(error))?;
        connection.give_back().await;
        Ok(value)
    }
}

#[async_trait]
impl Store for Postgres {
    type Tx = PgConnection;
    type Unit = PostgresUnit;

    fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreError> {
        let known = recognise(error)?;
        if known.kind() == StoreErrorKind::StalePlan {
            self.units.retire(); // the unit's connection is one of them, and the others have the same plans
        }
        Some(known)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        pooler::check(self).await?;
        migrate::migrate(self).await
    }

    async fn register(&self, process: &Process) -> Result<Registered, StoreError> {
        let mut connection = self.transaction(Some(process::LOCK)).await?;
        let registered = answer(process::register(&mut connection, process)).await;
        self.finish(connection, registered).await
    }

    async fn heartbeat(&self, process: &Process) -> Result<(), StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(process::heartbeat(&mut connection, process)).await;
        self.done(connection, result).await
    }

    async fn sign_off(&self, owner: &str) -> Result<(), StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(process::sign_off(&mut connection, owner)).await;
        self.done(connection, result).await
    }

    async fn begin(&self, locks: &[i64], limit: Duration) -> Result<PostgresUnit, StoreError> {
        PostgresUnit::begin(self, locks, limit).await
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        let mut connection = self.alone(&self.units).await?;
        let rows = answer(read::rows(&mut connection, !self.pooled, keys)).await;
        read::found(&self.done(connection, rows).await?)
    }

    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::count_crash(&mut connection, !self.pooled, endpoint, owner, row)).await;
        self.done(connection, result).await
    }

    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError> {
        let mut connection = self.own.acquire().await?;
        let deleted = answer(relay::delete_confirmed(&mut connection, rows)).await;
        deleted.map_err(|error| connection.lost(error))?;
        connection.give_back().await;
        Ok(())
    }

    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<saga_core::Leased, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::lease(&mut connection, !self.pooled, request)).await;
        self.done(connection, result).await
    }

    async fn renew_and_fail(&self, update: &LeaseUpdate<'_>) -> Result<Vec<Uuid>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::renew_and_fail(&mut connection, update)).await;
        self.done(connection, result).await
    }

    async fn reopen(&self, endpoint: &str, destination: &str) -> Result<u64, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::reopen(&mut connection, endpoint, destination)).await;
        self.done(connection, result).await
    }

    async fn release(&self, process: &Process) -> Result<u64, StoreError> {
        let mut connection = self.transaction(None).await?;
        let released = answer(release::release(&mut connection, process)).await;
        self.finish(connection, released).await
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<u64, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(sweep::sweep(&mut connection, endpoint, retention)).await;
        self.done(connection, result).await
    }
}
