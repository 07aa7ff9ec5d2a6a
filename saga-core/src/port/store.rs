//! The database side of the port.

use super::rows::{Claim, Claimed, Found, InboxRow, Keys, Leases, Write};
use crate::Chart;
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// A database that keeps inbox, outbox, saga instances and held messages beside the user's own tables.
///
/// The endpoint's promise rests on a few rules that every implementation keeps (ARCHITECTURE.md names the holes they close):
///
/// - [`Store::begin`] takes the locks it is given, in their order, before anything is read in the transaction.
/// - [`Unit::write`] writes all or reports [`StoreError::Conflict`] having changed nothing that commits.
/// - Times are the database's: a delay is added to its clock when the row is written, not when the
///   transaction began; a lease runs by the same clock.
/// - [`Store::claim`] never finds rows by `id > last`, and never waits for a row that somebody else holds.
#[async_trait]
pub trait Store: Clone + Send + Sync + 'static {
    /// What a handler gets from `cx.tx()`: the connection of the open transaction.
    type Tx: Send;
    /// A unit of work: one transaction.
    type Unit: Unit<Tx = Self::Tx>;

    /// What an error of the database driver means, if it is one: user code hands such errors on through handlers.
    fn recognise(&self, error: &(dyn std::error::Error + 'static)) -> Option<StoreError>;

    /// Creates or upgrades the tables; safe when many processes start at once.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Says which sagas an endpoint runs, for operators.
    async fn register(&self, endpoint: &str, charts: &[Chart]) -> Result<(), StoreError>;

    /// Opens a transaction and takes exclusive locks on the given numbers, which are sorted and without repeats.
    async fn begin(&self, locks: &[i64]) -> Result<Self::Unit, StoreError>;

    /// Reads what is known of the given keys, outside any transaction.
    async fn read(&self, keys: &Keys) -> Result<Found, StoreError>;

    /// Counts a message that was redelivered after a crash, in a transaction of its own, before it is run alone.
    /// Returns how often that happened, this time included; `None` when it is settled already.
    async fn suspect(&self, claim: &InboxRow) -> Result<Option<i64>, StoreError>;

    /// Deletes outbox rows that the broker has confirmed; those that are gone already are no error. `sent` is sorted.
    async fn forget(&self, sent: &[Uuid]) -> Result<(), StoreError>;

    /// Leases rows that are due and that nobody holds.
    async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, StoreError>;

    /// Prolongs the leases of what is being published and puts off what failed. Returns the rows whose lease was lost.
    async fn hold_leases(&self, leases: &Leases<'_>) -> Result<Vec<Uuid>, StoreError>;

    /// Deletes, in one bounded step, inbox rows and done instances older than the retention, except what a held
    /// message still refers to; holds outbox rows whose first publish is that old. Returns how many rows went.
    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<u64, StoreError>;
}

/// One open transaction. Dropped without a commit, it is rolled back.
#[async_trait]
pub trait Unit: Send {
    /// The connection.
    type Tx: Send;

    /// The connection inside the transaction.
    fn tx(&mut self) -> &mut Self::Tx;

    /// Marks the place that [`Unit::rollback_to_savepoint`] returns to, and forgets the mark before.
    async fn savepoint(&mut self) -> Result<(), StoreError>;

    /// Undoes everything since the last [`Unit::savepoint`].
    async fn rollback_to_savepoint(&mut self) -> Result<(), StoreError>;

    /// Reads what is known of the given keys: after the locks, with a snapshot of its own.
    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError>;

    /// Writes everything a batch came to.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a claim exists already, a settled row or an instance changed meanwhile:
    /// the unit must be rolled back and the batch run again.
    async fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Commits.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the database refused (a deferred constraint, say); [`StoreError::Unavailable`] when
    /// nobody knows whether it committed.
    async fn commit(self) -> Result<(), StoreError>;

    /// Rolls back.
    async fn rollback(self) -> Result<(), StoreError>;
}

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process was faster: run the batch again.
    #[error("another process changed the same rows meanwhile")]
    Conflict,
    /// The database cannot be reached, or nobody knows whether it did what was asked: wait and run again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database refuses the data: the same again would fail again.
    #[error("the database refuses: {0}")]
    Rejected(String),
    /// The tables are not those that this binary expects.
    #[error("{0}")]
    Schema(String),
    /// The address or the credentials are wrong.
    #[error("{0}")]
    Invalid(String),
}

impl StoreError {
    /// Whether the same may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable(_))
    }
}
