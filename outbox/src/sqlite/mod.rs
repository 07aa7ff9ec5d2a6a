//! SQLite: WAL, `synchronous=FULL`, one writer per file.

mod read;
mod relay;
mod write;

use crate::{
    error::{meaning, recognise, store_error, wrong_version},
    rows::us,
};
use async_trait::async_trait;
use saga_core::{Chart, Claim, Claimed, Found, InboxRow, Keys, Leases, Store, StoreError, Unit, Write};
use sqlx::{
    ConnectOptions, Executor, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    collections::HashMap,
    error::Error,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

const SCHEMA: &str = include_str!("schema.sql");
const VERSION: i32 = 1;
/// How long a writer waits for a writer of another process.
const BUSY: Duration = Duration::from_secs(5);
/// How long a writer waits for the other writers of this process: a handler may hold the file for a while.
const ACQUIRE: Duration = Duration::from_secs(30);
/// Readers beside the one writer.
const READERS: u32 = 4;

/// A SQLite file. Cheap to clone; all endpoints of a process that open the same file share its one writer.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
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
        let no_file = |error| StoreError::Invalid(format!("cannot open {}: {error}", path.display()));
        let full = std::path::absolute(path).map_err(|error| no_file(error.to_string()))?;
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
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE).test_before_acquire(false)
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(|error| no_file(error.to_string()))?;
        let readers = pool(READERS).connect_lazy_with(options);
        let store = Self { writer, readers };
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

    /// A pool for one's own reads.
    pub fn pool(&self) -> &SqlitePool {
        &self.readers
    }

    /// The pool of the one writer, for one's own writes outside an endpoint.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Closes the file for the whole process.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }

    async fn begin_write(&self) -> Result<Transaction<'static, sqlx::Sqlite>, sqlx::Error> {
        // a deferred transaction that reads first fails at once on the lock's upgrade, whatever the busy timeout
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }
}

/// The clock: this machine's, which all processes that can open the file share.
fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// The time after `delay`, never wrapped into the past.
fn after(delay: Duration) -> i64 {
    now_us().saturating_add(us(delay))
}

/// One transaction on SQLite.
#[derive(Debug)]
pub struct SqliteUnit(Transaction<'static, sqlx::Sqlite>);

#[async_trait]
impl Store for Sqlite {
    type Tx = SqliteConnection;
    type Unit = SqliteUnit;

    fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreError> {
        recognise(error)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let migrate = async {
            let mut tx = self.begin_write().await?;
            let known: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_version')",
            )
            .fetch_one(&mut *tx)
            .await?;
            if !known {
                tx.execute(SCHEMA).await?;
                sqlx::query("INSERT INTO schema_version VALUES ($1, $2)")
                    .bind(VERSION)
                    .bind(now_us())
                    .execute(&mut *tx)
                    .await?;
            }
            let version: i32 =
                sqlx::query_scalar("SELECT max(version) FROM schema_version").fetch_one(&mut *tx).await?;
            tx.commit().await?;
            Ok(version)
        };
        match migrate.await.map_err(store_error)? {
            VERSION => Ok(()),
            other => Err(wrong_version(other, VERSION)),
        }
    }

    async fn register(&self, endpoint: &str, charts: &[Chart]) -> Result<(), StoreError> {
        for chart in charts {
            sqlx::query(
                "INSERT INTO definition (saga, version, chart, endpoint, registered_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (saga, version, endpoint) DO UPDATE SET chart = excluded.chart, registered_at = excluded.registered_at",
            )
            .bind(&chart.saga)
            .bind(chart.version)
            .bind(serde_json::to_string(chart).unwrap_or_default())
            .bind(endpoint)
            .bind(now_us())
            .execute(&self.writer)
            .await
            .map_err(store_error)?;
        }
        Ok(())
    }

    /// The locks are not needed: there is one writer, and it holds the whole file.
    async fn begin(&self, _: &[i64]) -> Result<SqliteUnit, StoreError> {
        self.begin_write().await.map(SqliteUnit).map_err(store_error)
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(store_error)?;
        read::read(&mut connection, keys).await.map_err(store_error)
    }

    async fn suspect(&self, claim: &InboxRow) -> Result<Option<i64>, StoreError> {
        relay::suspect(&self.writer, claim).await.map_err(store_error)
    }

    async fn forget(&self, sent: &[Uuid]) -> Result<(), StoreError> {
        let ids = serde_json::to_string(sent).unwrap_or_default();
        let forgotten = sqlx::query("DELETE FROM outbox WHERE id IN (SELECT value FROM json_each($1))").bind(ids);
        forgotten.execute(&self.writer).await.map(drop).map_err(store_error)
    }

    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        if !relay::anything_due(&self.readers, claim).await.map_err(store_error)? {
            let next_due = relay::next_due(&self.readers, claim).await.map_err(store_error)?;
            return Ok(Claimed { rows: Vec::new(), next_due });
        }
        let claimed = async {
            let mut tx = self.begin_write().await?;
            let claimed = relay::claim(&mut tx, claim).await?;
            tx.commit().await?;
            Ok(claimed)
        };
        claimed.await.map_err(store_error)
    }

    async fn hold_leases(&self, leases: &Leases<'_>) -> Result<Vec<Uuid>, StoreError> {
        let held = async {
            let mut tx = self.begin_write().await?;
            let lost = relay::hold_leases(&mut tx, leases).await?;
            tx.commit().await?;
            Ok(lost)
        };
        held.await.map_err(store_error)
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<u64, StoreError> {
        relay::sweep(&self.writer, endpoint, retention).await.map_err(store_error)
    }
}

#[async_trait]
impl Unit for SqliteUnit {
    type Tx = SqliteConnection;

    fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }

    async fn savepoint(&mut self) -> Result<(), StoreError> {
        self.0.execute("SAVEPOINT sagabus").await.map(drop).map_err(store_error)
    }

    async fn rollback_to_savepoint(&mut self) -> Result<(), StoreError> {
        self.0.execute("ROLLBACK TO SAVEPOINT sagabus").await.map(drop).map_err(store_error)
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        read::read(&mut self.0, keys).await.map_err(store_error)
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        write::write(&mut self.0, write).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await.map_err(|error| meaning(&error))
    }

    async fn rollback(self) -> Result<(), StoreError> {
        self.0.rollback().await.map_err(store_error)
    }
}
