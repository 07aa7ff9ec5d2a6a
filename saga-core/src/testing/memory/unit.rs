//! One transaction, and what user code sees of it.

use super::{
    faults::{Fault, Operation},
    read,
    state::Shared,
    tables::Changes,
    write,
};
use crate::{
    AliasesFound, Found, HeldRow, HeldWanted, InstanceKey, Keys, StoreError, StoreErrorKind, TakenBack, Unit, Write,
};
use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;
use std::{error::Error, fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// A transaction of a [`MemoryStore`](super::MemoryStore). What it writes is seen by others when it commits.
pub struct MemoryUnit {
    tx: MemoryTx,
    changes: Changes,
    locked_elsewhere: Vec<i64>,
}

impl fmt::Debug for MemoryUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryUnit").field("tx", &self.tx).finish_non_exhaustive()
    }
}

impl MemoryUnit {
    pub(super) fn begin(store: &Arc<Shared>, locks: &[i64], limit: Duration) -> Self {
        let (unit, locked_elsewhere) = store.state().open(locks, limit);
        let tx = MemoryTx { store: store.clone(), unit, rows: Vec::new(), condition: Condition::Good };
        Self { tx, changes: Changes::default(), locked_elsewhere }
    }

    /// A round trip inside the transaction. A failure leaves it aborted.
    async fn round_trip(&mut self, operation: Operation) -> Result<(), StoreError> {
        self.tx.usable()?;
        let done = self.tx.store.round_trip(operation).await;
        let done = done.and_then(|()| self.tx.usable()); // its limit may have passed meanwhile
        self.tx.after(done)
    }
}

#[async_trait]
impl Unit for MemoryUnit {
    type Tx = MemoryTx;

    fn tx(&mut self) -> &mut MemoryTx {
        &mut self.tx
    }

    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError> {
        self.round_trip(Operation::Read).await?;
        let state = self.tx.store.state();
        Ok(read::found(&state.tables, &self.changes, keys, self.tx.store.now_us(), self.locked_elsewhere.clone()))
    }

    async fn held(
        &mut self,
        endpoint: &str,
        wanted: &[HeldWanted],
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<HeldRow>, StoreError> {
        self.round_trip(Operation::Held).await?;
        Ok(read::held(&self.tx.store.state().tables, &self.changes, endpoint, wanted, (rows_max, bytes_max)))
    }

    async fn lock(&mut self, locks: &[i64]) -> Result<Vec<i64>, StoreError> {
        self.round_trip(Operation::Aliases).await?;
        Ok(self.tx.store.state().lock(self.tx.unit, locks))
    }

    async fn aliases(&mut self, endpoint: &str, aliases: &[InstanceKey]) -> Result<AliasesFound, StoreError> {
        self.round_trip(Operation::Aliases).await?;
        Ok(read::aliases(&self.tx.store.state().tables, &self.changes, endpoint, aliases))
    }

    async fn take_back(&mut self, rows: &[Uuid]) -> Result<Vec<TakenBack>, StoreError> {
        self.round_trip(Operation::TakeBack).await?;
        let mut state = self.tx.store.state();
        let gone = write::take_back(&state, &mut self.changes, rows, self.tx.store.now_us());
        state.lock_rows(self.tx.unit, &self.changes);
        Ok(gone)
    }

    async fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.round_trip(Operation::Write).await?;
        let (store, unit) = (self.tx.store.clone(), self.tx.unit);
        let changes = &mut self.changes;
        let written = store.with_rows(Some(unit), write::rows(write), |state, now| {
            let written = write::apply(&state.tables, changes, &mut state.arrivals, write, now);
            state.lock_rows(unit, changes);
            written
        });
        let written = written.await.flatten();
        self.tx.after(written)
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        self.tx.usable()?;
        self.tx.store.travel().await;
        self.tx.usable()?;
        let mut state = self.tx.store.state();
        let fault = state.faults.take(Operation::Commit);
        if matches!(fault, None | Some(Fault::Unknown { committed: true })) {
            #[cfg_attr(not(test), expect(unused_mut))]
            let mut changes = std::mem::take(&mut self.changes);
            #[cfg(test)]
            if state.forgets_inbox {
                changes.inbox.clear();
            }
            if let Some(tell) = &mut state.commits {
                changes.inbox.values().flatten().for_each(tell);
            }
            state.tables.commit(changes);
            for (table, row) in self.tx.rows.drain(..) {
                state.tables.user.entry(table).or_default().push(row);
            }
        }
        drop(state);
        fault.map_or(Ok(()), |fault| Err(fault.error(Operation::Commit)))
    }

    async fn rollback(self) -> Result<(), StoreError> {
        self.tx.store.round_trip(Operation::Rollback).await
    }
}

/// Whether a transaction can still commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Good,
    /// Something in it failed.
    Aborted,
    /// User code has committed it or rolled it back.
    Ended,
}

/// What a handler gets from `cx.tx()` on a [`MemoryStore`](super::MemoryStore): tables of JSON values, by name.
///
/// As on PostgreSQL, an error leaves the transaction aborted: nothing of it will commit.
pub struct MemoryTx {
    store: Arc<Shared>,
    unit: u64,
    rows: Vec<(String, Value)>,
    condition: Condition,
}

impl fmt::Debug for MemoryTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTx").field("rows", &self.rows).field("condition", &self.condition).finish_non_exhaustive()
    }
}

impl MemoryTx {
    /// Adds a row to a table, which need not exist.
    ///
    /// # Errors
    /// When the row cannot be written as JSON, a test ordered [`Operation::Insert`] to fail, the transaction is
    /// aborted, or it was idle for its limit.
    pub fn insert(&mut self, table: &str, row: impl Serialize) -> Result<(), MemoryError> {
        self.check()?;
        let fault = self.store.state().faults.take(Operation::Insert);
        let row = match (fault, serde_json::to_value(row)) {
            (Some(fault), _) => Err(MemoryError::new(fault.kind(), "the test ordered the insert to fail")),
            (None, row) => row.map_err(|error| {
                MemoryError::new(StoreErrorKind::Rejected, format!("the row cannot be written as JSON: {error}"))
            }),
        };
        let row = self.after(row)?;
        self.rows.push((table.into(), row));
        Ok(())
    }

    /// A table's rows: what is committed, then what this transaction inserted.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let mut rows = self.store.state().tables.user.get(table).cloned().unwrap_or_default();
        rows.extend(self.rows.iter().filter(|(of, _)| of == table).map(|(_, row)| row.clone()));
        rows
    }

    /// Does what a handler must not do: ends the transaction. Its writes are rolled back.
    pub fn end(&mut self) {
        self.condition = Condition::Ended;
    }

    fn usable(&self) -> Result<(), StoreError> {
        self.check().map_err(|error| error.meaning())
    }

    fn check(&self) -> Result<(), MemoryError> {
        let (kind, text) = match self.condition {
            Condition::Aborted => (StoreErrorKind::Rejected, "the transaction is aborted"),
            Condition::Ended => (StoreErrorKind::Rejected, "user code has ended the transaction"),
            Condition::Good if self.store.state().touch(self.unit) => return Ok(()),
            Condition::Good => (StoreErrorKind::Unavailable, "the transaction was ended: it was idle for its limit"),
        };
        Err(MemoryError::new(kind, text))
    }

    /// A failure leaves the transaction aborted, unless it has ended.
    fn after<T, E>(&mut self, done: Result<T, E>) -> Result<T, E> {
        if done.is_err() && self.condition == Condition::Good && self.store.state().touch(self.unit) {
            self.condition = Condition::Aborted;
        }
        done
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        self.store.state().close(self.unit);
        self.store.ended.notify_waiters();
    }
}

/// An error of a [`MemoryTx`], as user code gets it from a database driver. An endpoint recognises it.
#[derive(Debug)]
pub struct MemoryError {
    kind: StoreErrorKind,
    text: String,
}

impl MemoryError {
    /// An error that means this to an endpoint.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(super) fn meaning(&self) -> StoreError {
        StoreError::new(self.kind, self.text.clone())
    }
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for MemoryError {}
