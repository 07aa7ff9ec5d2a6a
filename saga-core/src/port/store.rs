//! The database side of the port.

use super::{Found, HeldRow, HeldWanted, InboxRow, Keys, LeaseRequest, LeaseUpdate, Leased, StoreError, Write};
use crate::Chart;
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// A database that keeps inbox, outbox, saga instances and held messages beside the user's own tables.
///
/// The endpoint's promise rests on a few rules that every implementation keeps (ARCHITECTURE.md names the holes they
/// close):
///
/// - [`Store::begin`] tries the locks it is given before anything is read in the transaction. It never waits for one:
///   [`Found::locked_elsewhere`] names those that another transaction holds.
/// - [`Unit::write`] writes all, or fails having changed nothing that commits.
/// - A unit has a time limit of its own at the server: a process that is frozen inside one gives its locks up.
/// - Times are the database's: a delay is added to its clock when the row is written, not when the transaction began; a
///   lease runs by the same clock.
/// - [`Store::lease`] never finds rows by `id > last`, and never waits for a row that somebody else holds.
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

    /// Enters a process that starts: its sagas' charts and its subscriptions.
    async fn register(&self, process: &Process) -> Result<Registered, StoreError>;

    /// Says that a process is alive. A process whose row is gone is entered again.
    async fn heartbeat(&self, process: &Process) -> Result<(), StoreError>;

    /// Removes a process that has stopped.
    async fn sign_off(&self, owner: &str) -> Result<(), StoreError>;

    /// Opens a transaction and tries to take exclusive locks on the given numbers, which are sorted and without
    /// repeats. The server ends the transaction if it is idle for `limit`.
    async fn begin(&self, locks: &[i64], limit: Duration) -> Result<Self::Unit, StoreError>;

    /// Reads the inbox rows of the given keys, outside any transaction.
    async fn read(&self, keys: &Keys) -> Result<Found, StoreError>;

    /// Counts a message that was redelivered after a crash, in a transaction of its own, before it is run alone.
    /// Returns how often that happened, this time included; `None` when it is settled already.
    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError>;

    /// Deletes outbox rows that the broker has confirmed; those that are gone already are no error. `rows` is sorted.
    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError>;

    /// Leases rows that are due and that nobody holds. A row that cannot be read is put off with its error.
    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<Leased, StoreError>;

    /// Prolongs the leases of what is being published and puts off what failed. Returns the rows whose lease was lost.
    async fn renew_and_fail(&self, update: &LeaseUpdate<'_>) -> Result<Vec<Uuid>, StoreError>;

    /// A destination takes messages again: makes what waits for it due, in one bounded step. Returns how many rows.
    async fn reopen(&self, endpoint: &str, destination: &str) -> Result<u64, StoreError>;

    /// Offers messages held as [`HeldReason::Version`](super::HeldReason::Version) again that this process knows, in
    /// one bounded step: those without a receiver go back to the outbox, for an instance a wake-up
    /// ([`Envelope::wake`](crate::Envelope::wake)) is put there. Returns how many.
    async fn release(&self, process: &Process) -> Result<u64, StoreError>;

    /// Deletes, in one bounded step, inbox rows and done instances older than the retention, except what a held message
    /// still refers to; holds outbox rows whose first publish is that old. Returns how many rows went.
    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<u64, StoreError>;
}

/// One open transaction. Dropped without a commit, it is rolled back.
#[async_trait]
pub trait Unit: Send {
    /// The connection.
    type Tx: Send;

    /// The connection inside the transaction.
    fn tx(&mut self) -> &mut Self::Tx;

    /// Reads what is known of the given keys: after the locks, with a snapshot of its own.
    async fn read(&mut self, keys: &Keys) -> Result<Found, StoreError>;

    /// Reads held messages, in order of arrival, at most `rows_max` for each instance.
    async fn held(&mut self, endpoint: &str, wanted: &[HeldWanted], rows_max: i64) -> Result<Vec<HeldRow>, StoreError>;

    /// Writes everything a batch led to.
    ///
    /// # Errors
    /// [`Conflict`](super::StoreErrorKind::Conflict) when a claim exists already, a completed row or an instance
    /// changed meanwhile: the unit must be rolled back and the batch run again.
    /// [`Rejected`](super::StoreErrorKind::Rejected) when user code has ended the transaction or left it aborted; this
    /// is noticed even if `write` is empty.
    async fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Commits.
    ///
    /// # Errors
    /// [`Rejected`](super::StoreErrorKind::Rejected) when the database refused (a deferred constraint, say);
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) when nobody knows whether it committed.
    async fn commit(self) -> Result<(), StoreError>;

    /// Rolls back.
    async fn rollback(self) -> Result<(), StoreError>;
}

/// A process of an endpoint, as it registers.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Its endpoint.
    pub endpoint: String,
    /// Its unique name: the owner of its leases.
    pub owner: String,
    /// The charts of its sagas.
    pub charts: Vec<Chart>,
    /// The events that it subscribes to, by logical name.
    pub subscribes: Vec<String>,
    /// Every message type that it can handle, by logical name.
    pub types: Vec<String>,
    /// The names of its sagas and handlers: what is addressed to another receiver waits for a process that has it.
    pub receivers: Vec<String>,
    /// What it says of itself now, for operators: link, breakers.
    pub report: serde_json::Value,
}

/// What [`Store::register`] found.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    /// Events that the endpoint subscribed to in the past and no living process of it does now.
    pub dropped: Vec<String>,
    /// Sagas of this process whose name another endpoint of this database uses: (saga, endpoint). Nothing was entered.
    pub taken: Vec<(String, String)>,
}
