//! SQLite: WAL, `synchronous=FULL`, one writer per file.

mod counts;
mod process;
mod read;
mod relay;
mod release;
mod sweep;
mod values;
mod write;
mod writer;

use writer::SqliteUnit;

use crate::{
    error::{fitting, recognise, store_error},
    rows::{charts_of, us},
};
use async_trait::async_trait;
use saga_core::{
    Asked, Chart, Counts, FieldRow, Found, InboxRow, InstanceKey, InstanceRow, Keys, LeaseRequest, LeaseUpdate, Leased,
    Process, Registered, Store, StoreError, StoreErrorKind, Swept,
};
use sqlx::{
    ConnectOptions, Executor, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    collections::HashMap,
    error::Error,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;
use values::bind;
use writer::Writing;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i32 = 1;
/// How long a writer waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(5);
/// How long a writer waits for the other writers of this process: a handler may hold the file for a while.
const ACQUIRE: Duration = Duration::from_secs(30);
/// Readers beside the one writer.
const READERS: u32 = 4;

/// Statements that stay prepared: a dozen, each for eight numbers of rows, and the others.
const STATEMENTS: usize = 200;

/// A SQLite file. Cheap to clone; all endpoints of a process that open the same file share its one writer.
///
/// SQLite has no server that could end the transaction of a hung process: a process that is frozen while it writes
/// keeps the file locked, and the others wait.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    /// For the reads of whoever uses the store.
    users: SqlitePool,
    /// Counts the writer's transactions that ended, for any reason.
    ended: Arc<AtomicU64>,
}

/// The files that this process has open.
static OPEN: Mutex<Option<HashMap<PathBuf, Sqlite>>> = Mutex::new(None);

impl Sqlite {
    /// Opens the file, or creates it (not its folder).
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let no_file = |error: String| {
            StoreError::new(StoreErrorKind::Invalid, format!("cannot open {}: {error}", path.display()))
        };
        let full = std::path::absolute(path).map_err(|error| no_file(error.to_string()).with_source(error))?;
        let known = |open: &HashMap<PathBuf, Self>| open.get(&full).filter(|store| !store.writer.is_closed()).cloned();
        if let Some(store) = OPEN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(known) {
            return Ok(store);
        }
        let options = SqliteConnectOptions::new()
            .filename(&full)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE).test_before_acquire(false)
        };
        let ended = Arc::new(AtomicU64::new(0));
        let counted = ended.clone();
        let writer = pool(1)
            .after_connect(move |connection, _| {
                let ended = counted.clone();
                Box::pin(async move { writer::count_ends(connection, ended).await })
            })
            .connect_with(options.clone())
            .await
            .map_err(|error| no_file(error.to_string()).with_source(error))?;
        let readers = pool(READERS).connect_lazy_with(options.clone());
        let users = pool(READERS).connect_lazy_with(options);
        let store = Self { writer, readers, users, ended };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        Ok(known(open).unwrap_or_else(|| {
            open.insert(full.clone(), store.clone());
            store
        }))
    }

    /// The tables as SQL.
    pub fn schema() -> &'static str {
        SCHEMA
    }

    /// The version of the tables that are there, if it is the one that this program needs. Changes nothing.
    ///
    /// # Errors
    /// When the tables are not there or have another version, and when the file cannot be read.
    pub async fn check_tables(&self) -> Result<i32, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(store_error)?;
        fitting(version(&mut connection).await.map_err(store_error)?, VERSION)
    }

    /// A pool for your own reads, whose connections no endpoint uses.
    pub fn pool(&self) -> &SqlitePool {
        &self.users
    }

    /// The pool of the one writer, for your own writes outside an endpoint.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Closes the file for the whole process.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
        self.users.close().await;
    }

    async fn begin_write(&self) -> Result<Writing, StoreError> {
        Writing::begin(&self.writer, &self.ended).await
    }
}

const DELETE: &str = "DELETE FROM sagabus_outbox WHERE id IN ({rows})";

/// The clock: this machine's, which all processes that can open the file share.
fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// The time after `delay`.
fn after(delay: Duration) -> i64 {
    now_us().saturating_add(us(delay))
}

/// Rows as one JSON array, because SQLite has no arrays.
fn array(rows: impl IntoIterator<Item = serde_json::Value>) -> String {
    serde_json::Value::Array(rows.into_iter().collect()).to_string()
}

/// Runs a step in a transaction of its own.
macro_rules! in_transaction {
    ($self:ident, $tx:ident => $step:expr) => {{
        let mut $tx = $self.begin_write().await?;
        let value = $step.await.map_err(store_error)?;
        $tx.commit().await?;
        Ok(value)
    }};
}

#[async_trait]
impl Store for Sqlite {
    type Tx = SqliteConnection;
    type Unit = SqliteUnit;

    fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreError> {
        recognise(error)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrated: Result<Option<i32>, StoreError> = in_transaction!(self, tx => migrate(&mut tx));
        fitting(migrated?, VERSION).map(drop)
    }

    async fn register(&self, process: &Process) -> Result<Registered, StoreError> {
        in_transaction!(self, tx => process::register(&mut tx, process))
    }

    async fn heartbeat(&self, process: &Process) -> Result<Asked, StoreError> {
        in_transaction!(self, tx => process::heartbeat(&mut tx, process))
    }

    async fn sign_off(&self, owner: &str) -> Result<(), StoreError> {
        let gone = sqlx::query("DELETE FROM sagabus_process WHERE owner = $1").bind(owner).execute(&self.writer);
        gone.await.map(drop).map_err(store_error)
    }

    /// Locks are not needed: there is one writer, and it holds the whole file. A time limit is not possible.
    async fn begin(&self, _: &[i64], _: Duration) -> Result<SqliteUnit, StoreError> {
        self.begin_write().await.map(SqliteUnit)
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(store_error)?;
        read::read(&mut connection, keys).await
    }

    async fn aliases(&self, aliases: &[InstanceKey]) -> Result<Vec<FieldRow>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(store_error)?;
        read::aliases(&mut connection, aliases).await.map_err(store_error)
    }

    async fn page_of_instances(
        &self,
        sagas: &[String],
        after: &InstanceKey,
        rows_max: i64,
    ) -> Result<Vec<InstanceRow>, StoreError> {
        read::page(&self.readers, sagas, after, rows_max).await.map_err(store_error)
    }

    async fn counts(&self, endpoint: &str, sagas: &[String], rows_max: i64) -> Result<Counts, StoreError> {
        counts::counts(&self.readers, endpoint, sagas, rows_max).await.map_err(store_error)
    }

    async fn charts(&self, endpoint: &str) -> Result<Vec<Chart>, StoreError> {
        charts_of(&read::definitions(&self.readers, endpoint).await.map_err(store_error)?)
    }

    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError> {
        relay::count_crash(&self.writer, endpoint, owner, row).await.map_err(store_error)
    }

    async fn reserve_calls(
        &self,
        endpoint: &str,
        limit: &str,
        calls: u32,
        every: Duration,
        within: Duration,
    ) -> Result<Duration, StoreError> {
        relay::reserve(&self.writer, endpoint, limit, calls, every, within).await.map_err(store_error)
    }

    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError> {
        in_transaction!(self, tx => values::execute(&mut tx, DELETE, rows, |values, id| bind!(values: id.to_string())))
            .map(|_: u64| ())
    }

    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<Leased, StoreError> {
        if !relay::anything_due(&self.readers, request).await.map_err(store_error)? {
            let next_due = relay::next_due(&self.readers, request).await.map_err(store_error)?;
            return Ok(Leased::new(Vec::new(), next_due));
        }
        in_transaction!(self, tx => relay::lease(&mut tx, request))
    }

    async fn renew_and_fail(&self, update: &LeaseUpdate<'_>) -> Result<Vec<Uuid>, StoreError> {
        in_transaction!(self, tx => relay::renew_and_fail(&mut tx, update))
    }

    async fn reopen(&self, endpoint: &str, destination: &str) -> Result<u64, StoreError> {
        relay::reopen(&self.writer, endpoint, destination).await.map_err(store_error)
    }

    async fn release(&self, process: &Process) -> Result<u64, StoreError> {
        if !release::anything_held(&self.readers, &process.endpoint).await.map_err(store_error)? {
            return Ok(0);
        }
        in_transaction!(self, tx => release::release(&mut tx, process))
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<Swept, StoreError> {
        in_transaction!(self, tx => sweep::sweep(&mut tx, endpoint, retention))
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<Option<i32>, sqlx::Error> {
    if version(connection).await?.is_none() {
        connection.execute(SCHEMA).await?;
        let version = sqlx::query("INSERT INTO sagabus_schema_version VALUES ($1, $2)").bind(VERSION).bind(now_us());
        version.execute(&mut *connection).await?;
    }
    version(connection).await
}

/// The version of the tables; `None` if there are none.
async fn version(connection: &mut SqliteConnection) -> Result<Option<i32>, sqlx::Error> {
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'sagabus_schema_version')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !known {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM sagabus_schema_version").fetch_one(connection).await
}
