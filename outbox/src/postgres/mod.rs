//! PostgreSQL: READ COMMITTED, advisory locks of the transaction, one statement for the write of a batch.

mod alias;
mod connections;
mod counts;
pub(crate) mod dialects;
mod instances;
pub(crate) mod migrate;
mod pooler;
mod process;
mod relay;
mod release;
mod sweep;
mod unit;
mod write;

use unit::PostgresUnit;

use crate::{
    error::recognise,
    rows::{charts_of, us},
};
use async_trait::async_trait;
use connections::{ACQUIRE, AGE, Connections, IDLE, Leased};
use saga_core::{
    Asked, Chart, Counts, FieldRow, Found, InboxRow, InstanceKey, InstanceRow, Keys, LeaseRequest, LeaseUpdate,
    Process, Registered, Store, StoreError, StoreErrorKind, Swept,
};
use sqlx::{
    ConnectOptions, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{error::Error, fmt::Write, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use uuid::Uuid;

/// How long an answer may take, including waits for locks: a server that vanished must not hold us for ever.
const ANSWER: Duration = Duration::from_secs(60);
/// Connections for relay, leases and housekeeping.
const OWN: u32 = 2;

/// Keys are looked up by an index. A plan prepared while a table has a few pages would scan all of it, and would be
/// kept while the table grows; dead rows of the outbox are enough for that. The setting inflates the cost of a
/// projection's unavoidable scan, which would trigger JIT, so JIT is off too. A lock timeout keeps units from waiting
/// long for a row that another program has locked.
const SAGAS: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL lock_timeout = '5s'";

/// Waits for an answer.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer from the database"));
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(late()))
}

/// The start of a transaction for one statement.
const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The start of a transaction, which the server ends when it is idle for `limit`. Read committed, whatever the role's
/// default: the unit must see what the last holder of a lock wrote.
fn begin(limit: Duration) -> String {
    // 0 would mean no limit
    let limit_ms = (us(limit) / 1000).clamp(1, i64::from(i32::MAX));
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {limit_ms}")
}

/// Takes an advisory lock of the transaction.
fn lock(lock: i64) -> String {
    format!("; SELECT pg_advisory_xact_lock({lock})")
}

/// Behind a pooler the session may have statements of another client under names that sqlx uses here too.
fn pooled(begin: &str) -> String {
    format!("{begin}; DEALLOCATE ALL")
}

/// A PostgreSQL database. Cheap to clone; connections are opened when they are needed.
///
/// All endpoints of a process that use the same database should share one store, and thereby its connections.
///
/// # Locks
/// A unit of work takes one advisory lock of the server for each saga instance in its batch, at most 200, and one for
/// each alias that these take. Each lane of an endpoint runs one unit at a time. The server has room for
/// `max_locks_per_transaction * max_connections` locks of all clients, 6400 by default. Four processes with eight lanes
/// each can fill it under load; then other clients get "out of shared memory" too. Set `max_locks_per_transaction` to
/// 256 for a server with many processes.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// For units of work and sessions.
    units: Arc<Connections>,
    /// For the user's own reads.
    pool: PgPool,
    /// For relay, leases and housekeeping, so that slow handlers cannot starve them.
    own: Arc<Connections>,
    /// Housekeeping that may take seconds, of all endpoints one after another: a connection is left for the relay.
    keeping: Arc<Mutex<sweep::Places>>,
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
        let own = Connections::new(options.clone(), OWN, pooled);
        let (units, keeping) = (Connections::new(options, connections, pooled), Arc::default());
        Ok(Self { units, pool, own, keeping, pooled })
    }

    /// The tables as SQL, for creating them by hand.
    pub fn schema() -> &'static str {
        migrate::SCHEMA
    }

    /// The version of the tables that are there, if it is the one that this program needs. Changes nothing.
    ///
    /// # Errors
    /// When the tables are not there or have another version, and when the database refuses.
    pub async fn check_tables(&self) -> Result<i32, StoreError> {
        migrate::check(self).await
    }

    /// A pool for your own reads: as many connections as there are for units of work, opened when they are needed.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection for statements outside units of work.
    async fn alone(&self, connections: &Arc<Connections>) -> Result<Leased, StoreError> {
        if self.pooled {
            return connections.begin(&pooled(READ_COMMITTED)).await;
        }
        let mut connection = connections.acquire().await?;
        if connection.is_strict() {
            answer(connection.begin(READ_COMMITTED.into())).await.map_err(|error| connection.lost(error))?;
        }
        Ok(connection)
    }

    /// The end of [`Postgres::alone`].
    async fn done<T>(&self, mut connection: Leased, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        let value = result.map_err(|error| connection.lost(error))?;
        if connection.has_begun() {
            answer(connection.commit()).await.map_err(|error| connection.lost(error))?;
        }
        connection.give_back().await;
        Ok(value)
    }

    /// A transaction for housekeeping, which begins with `more`: a lock, say. Read committed, whatever the role's
    /// default: it must see what the previous holder of the lock wrote.
    async fn transaction(&self, more: &str) -> Result<Leased, StoreError> {
        let sql = format!("{}{more}", begin(ANSWER));
        self.own.begin(&if self.pooled { pooled(&sql) } else { sql }).await
    }

    /// Deletes old rows, in a transaction of its own.
    async fn delete_old(
        &self,
        sql: &'static str,
        endpoint: &str,
        retention: Duration,
        places: &mut sweep::Places,
    ) -> Result<i64, StoreError> {
        let mut connection = self.transaction(sweep::BY_INDEX).await?;
        let result = answer(sweep::delete_old(&mut connection, sql, endpoint, retention, places)).await;
        self.finish(connection, result).await
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
        if matches!(known.kind(), StoreErrorKind::StalePlan | StoreErrorKind::Unable) {
            // the unit's connection is one of them; the others have the same plans, or lead to the same server
            self.units.retire();
        }
        Some(known)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        pooler::check(self).await?;
        migrate::migrate(self).await
    }

    async fn register(&self, process: &Process) -> Result<Registered, StoreError> {
        let mut connection = self.transaction(&lock(process::LOCK)).await?;
        let registered = answer(process::register(&mut connection, process)).await;
        self.finish(connection, registered).await
    }

    async fn heartbeat(&self, process: &Process) -> Result<Asked, StoreError> {
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
        // One round trip. Its last statement tries the locks, and later ones read: a statement sees what was committed
        // when it began, and an instance that does not exist yet has no row to lock.
        //
        // The transaction sets a mark, `sagabus.unit`, that ends with it: `+`, and the locks that other transactions
        // hold. The first read fetches the mark, and a write without it fails. sqlx drops the rows of these statements,
        // so the mark also carries those locks.
        let mut sql = begin(limit);
        if self.pooled {
            sql = pooled(&sql);
        }
        if locks.is_empty() {
            sql.push_str("; SET LOCAL sagabus.unit = '+'");
        } else {
            sql.push_str(SAGAS);
            sql.push_str("; SELECT set_config('sagabus.unit', '+' || coalesce(string_agg(k::text, ','), ''), true)");
            sql.push_str(" FROM unnest('{");
            for (n, lock) in locks.iter().enumerate() {
                let _ = write!(sql, "{}{lock}", if n > 0 { "," } else { "" });
            }
            sql.push_str("}'::bigint[]) k WHERE NOT pg_try_advisory_xact_lock(k)");
        }
        let connection = self.units.begin(&sql).await?;
        Ok(PostgresUnit { connection, persistent: !self.pooled, by_index: !locks.is_empty() })
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        let mut connection = self.alone(&self.units).await?;
        let rows = answer(unit::rows(&mut connection, !self.pooled, keys)).await;
        unit::found(&self.done(connection, rows).await?)
    }

    async fn aliases(&self, aliases: &[InstanceKey]) -> Result<Vec<FieldRow>, StoreError> {
        let mut connection = self.alone(&self.units).await?;
        let found = answer(alias::found(&mut connection, !self.pooled, None, aliases)).await;
        Ok(self.done(connection, found).await?.rows)
    }

    async fn page_of_instances(
        &self,
        sagas: &[String],
        after: &InstanceKey,
        rows_max: i64,
    ) -> Result<Vec<InstanceRow>, StoreError> {
        let mut connection = self.transaction(instances::BY_KEY).await?;
        let page = answer(instances::page(&mut connection, sagas, after, rows_max)).await;
        self.finish(connection, page).await
    }

    async fn counts(&self, endpoint: &str, sagas: &[String], rows_max: i64) -> Result<Counts, StoreError> {
        let _turn = self.keeping.lock().await;
        let mut connection = self.alone(&self.own).await?;
        let counts = answer(counts::counts(&mut connection, endpoint, sagas, rows_max)).await;
        self.done(connection, counts).await
    }

    async fn charts(&self, endpoint: &str) -> Result<Vec<Chart>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let charts = answer(instances::definitions(&mut connection, endpoint)).await;
        charts_of(&self.done(connection, charts).await?)
    }

    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::count_crash(&mut connection, !self.pooled, endpoint, owner, row)).await;
        self.done(connection, result).await
    }

    async fn reserve_calls(
        &self,
        endpoint: &str,
        limit: &str,
        calls: u32,
        every: Duration,
        within: Duration,
    ) -> Result<Duration, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let wait = answer(relay::reserve(&mut connection, endpoint, limit, calls, every, within)).await;
        self.done(connection, wait).await
    }

    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError> {
        // Planned anew each time, in one round trip: the plan fits the present table, while a prepared one would go on
        // reading the pages that a burst has left behind. It cannot deadlock: the only other lockers use SKIP LOCKED.
        let ids: Vec<String> = rows.iter().map(Uuid::to_string).collect();
        let sql = format!("DELETE FROM sagabus.outbox WHERE id = ANY('{{{}}}'::uuid[])", ids.join(","));
        let mut connection = self.own.acquire().await?;
        let deleted = match connection.is_strict() {
            true => answer(connection.begin(format!("{READ_COMMITTED}; {sql}"))).await,
            false => answer(connection.execute(sql.as_str())).await.map(drop),
        };
        self.done(connection, deleted).await
    }

    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<saga_core::Leased, StoreError> {
        let mut connection = self.alone(&self.own).await?;
        let result = answer(relay::lease(&mut connection, request)).await;
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
        let _turn = self.keeping.lock().await;
        let mut connection = self.transaction("").await?;
        let released = answer(release::release(&mut connection, process)).await;
        self.finish(connection, released).await
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<Swept, StoreError> {
        let mut places = self.keeping.lock().await;
        let mut connection = self.transaction(sweep::BY_INDEX).await?;
        let result = answer(sweep::sweep(&mut connection, endpoint, retention)).await;
        let mut swept = self.finish(connection, result).await?;
        for sql in sweep::OLD {
            match self.delete_old(sql, endpoint, retention, &mut places).await {
                Ok(rows) => swept.rows += rows.unsigned_abs(),
                Err(error) if swept.rows == 0 => return Err(error),
                // what concerns people is committed, and is to be said; the next sweep gets the error
                Err(error) => tracing::debug!(endpoint, %error, "old rows are not deleted"),
            }
        }
        Ok(swept)
    }
}
