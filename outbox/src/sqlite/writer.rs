//! The one writer of a file, in a transaction.

use super::{read, write};
use crate::error::{ended, store_error};
use async_trait::async_trait;
use saga_core::{
    AliasesFound, Found, HeldRow, HeldWanted, InstanceKey, Keys, StoreError, StoreErrorKind, TakenBack, Unit, Write,
};
use sqlx::{SqliteConnection, SqlitePool, pool::PoolConnection, sqlite::SqliteTransactionManager};
use sqlx_core::transaction::TransactionManager;
use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use uuid::Uuid;

/// Makes the connection count the transactions that end on it.
pub(super) async fn count_ends(connection: &mut SqliteConnection, ended: Arc<AtomicU64>) -> Result<(), sqlx::Error> {
    let mut handle = connection.lock_handle().await?;
    let committed = ended.clone();
    handle.set_commit_hook(move || {
        committed.fetch_add(1, Ordering::AcqRel);
        true
    });
    handle.set_rollback_hook(move || {
        ended.fetch_add(1, Ordering::AcqRel);
    });
    Ok(())
}

/// A transaction of the writer.
///
/// SQLite ends a transaction by itself (when the disk is full, say), and a handler may end it by a statement; sqlx
/// notices neither. So the ends are counted. A connection whose transaction ended unexpectedly is closed, and the pool
/// opens another one.
#[derive(Debug)]
pub(super) struct Writing {
    connection: PoolConnection<sqlx::Sqlite>,
    ended: Arc<AtomicU64>,
    ended_before: u64,
    open: bool,
}

impl Writing {
    pub(super) async fn begin(writer: &SqlitePool, ended: &Arc<AtomicU64>) -> Result<Self, StoreError> {
        let connection = writer.acquire().await.map_err(store_error)?;
        // open from here on: if this future is dropped, the transaction may have begun
        let ended_before = ended.load(Ordering::Acquire);
        let mut writing = Self { connection, ended: ended.clone(), ended_before, open: true };
        // a deferred transaction that reads first fails at once when it upgrades its lock, whatever the busy timeout
        let begun = SqliteTransactionManager::begin(&mut writing.connection, Some("BEGIN IMMEDIATE".into())).await;
        if let Err(error) = begun {
            writing.open = false;
            if error.as_database_error().is_none() {
                writing.connection.close_on_drop();
            }
            return Err(busy(error));
        }
        // a rollback of the previous unit may have been under way until here
        writing.ended_before = ended.load(Ordering::Acquire);
        Ok(writing)
    }

    /// Whether something else has ended it.
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != self.ended_before
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        if self.has_ended() {
            return Err(ended()); // dropped, and so closed
        }
        let committed = SqliteTransactionManager::commit(&mut self.connection).await;
        self.open = false;
        committed.map_err(|error| {
            self.connection.close_on_drop();
            store_error(error)
        })
    }

    async fn rollback(mut self) -> Result<(), StoreError> {
        if self.has_ended() {
            return Ok(());
        }
        let rolled_back = SqliteTransactionManager::rollback(&mut self.connection).await;
        self.open = false;
        rolled_back.map_err(|error| {
            self.connection.close_on_drop();
            store_error(error)
        })
    }
}

/// A file that another program keeps locked is not a conflict over rows: wait for it.
fn busy(error: sqlx::Error) -> StoreError {
    let error = store_error(error);
    if error.kind() != StoreErrorKind::Conflict {
        return error;
    }
    StoreError::new(StoreErrorKind::Unavailable, "another program keeps the file locked").with_source(error)
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        if self.has_ended() {
            self.connection.close_on_drop();
        } else {
            SqliteTransactionManager::start_rollback(&mut self.connection);
        }
    }
}

impl Deref for Writing {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// One transaction on SQLite.
#[derive(Debug)]
pub struct SqliteUnit(pub(super) Writing);

#[async_trait]
impl Unit for SqliteUnit {
    type Tx = SqliteConnection;

    fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.0
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        read::read(&mut self.0, keys).await
    }

    async fn held(
        &mut self,
        endpoint: &str,
        wanted: &[HeldWanted],
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<HeldRow>, StoreError> {
        read::held(&mut self.0, endpoint, wanted, (rows_max, bytes_max)).await.map_err(store_error)
    }

    /// There is one writer, and it holds the whole file.
    async fn lock(&mut self, _: &[i64]) -> Result<Vec<i64>, StoreError> {
        Ok(Vec::new())
    }

    async fn aliases(&mut self, endpoint: &str, aliases: &[InstanceKey]) -> Result<AliasesFound, StoreError> {
        read::aliases_found(&mut self.0, endpoint, aliases).await.map_err(store_error)
    }

    async fn take_back(&mut self, rows: &[Uuid]) -> Result<Vec<TakenBack>, StoreError> {
        if self.0.has_ended() {
            return Err(ended());
        }
        write::take_back(&mut self.0, rows).await.map_err(store_error)
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        if self.0.has_ended() {
            return Err(ended());
        }
        write::write(&mut self.0, write).await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }

    async fn rollback(self) -> Result<(), StoreError> {
        self.0.rollback().await
    }
}
