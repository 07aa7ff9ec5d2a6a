//! A handler's transaction, opened when the handler asks for it.

use super::HandlerError;
use crate::{Store, StoreError, StoreErrorKind, port::Unit};
use std::{fmt, time::Duration};
use uuid::Uuid;

/// The transaction of one or more handlers' runs: opened by the first that asks.
pub(crate) struct LazyTransaction<Db: Store> {
    store: Db,
    /// How long the transaction may be idle at the server.
    limit: Duration,
    unit: Option<Db::Unit>,
    /// Set when the transaction failed to open, or failed us. The unit runs again even if the handler swallowed the
    /// error.
    failed: Option<StoreError>,
}

impl<Db: Store> fmt::Debug for LazyTransaction<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTransaction").field("open", &self.unit.is_some()).finish()
    }
}

impl<Db: Store> LazyTransaction<Db> {
    pub(crate) fn new(store: Db, limit: Duration) -> Self {
        Self { store, limit, unit: None, failed: None }
    }

    pub(crate) async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        self.open().await.map(Unit::tx)
    }

    /// Deletes the row of a message that has not left. Returns whether nobody has been given it.
    pub(crate) async fn take_back(&mut self, row: Uuid) -> Result<bool, HandlerError> {
        match self.open().await?.take_back(&[row]).await {
            Ok(gone) => Ok(gone.iter().any(|gone| !gone.tried)),
            Err(error) => {
                let failed = HandlerError::transient(error.to_string());
                // a statement of the handler has left the transaction aborted: that is the handler's failure
                if error.kind() != StoreErrorKind::Rejected {
                    self.failed = Some(error);
                }
                Err(failed)
            }
        }
    }

    async fn open(&mut self) -> Result<&mut Db::Unit, HandlerError> {
        if self.unit.is_none() {
            match self.store.begin(&[], self.limit).await {
                Ok(unit) => self.unit = Some(unit),
                Err(error) => {
                    let text = error.to_string();
                    self.failed = Some(error);
                    return Err(HandlerError::transient(text));
                }
            }
        }
        Ok(self.unit.as_mut().expect("it was opened just now"))
    }

    /// Whether a handler has asked for the transaction.
    pub(crate) fn is_open(&self) -> bool {
        self.unit.is_some()
    }

    /// The open transaction, for the end of the unit; opened now if no handler asked for it.
    pub(crate) async fn into_unit(mut self) -> Result<Db::Unit, StoreError> {
        match self.unit.take() {
            Some(unit) => Ok(unit),
            None => self.store.begin(&[], self.limit).await,
        }
    }

    /// Undoes what was written. An error means that the connection is gone, and with it the transaction.
    pub(crate) async fn rollback(&mut self) -> Result<(), StoreError> {
        match self.unit.take() {
            Some(unit) => unit.rollback().await,
            None => Ok(()),
        }
    }

    /// Gives up the transaction without telling the server: a statement may still be running on its connection.
    pub(crate) fn abandon(&mut self) {
        self.unit = None;
    }

    /// Why the transaction could not be opened, if a handler asked for it in vain.
    pub(crate) fn take_failure(&mut self) -> Option<StoreError> {
        self.failed.take()
    }
}
