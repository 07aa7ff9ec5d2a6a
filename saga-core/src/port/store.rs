//! The database side of the port.

use super::{
    AliasesFound, FieldRow, Found, HeldReason, HeldRow, HeldWanted, InboxRow, InstanceKey, InstanceRow, Keys,
    LeaseRequest, LeaseUpdate, Leased, StoreError, TakenBack, Write,
};
use crate::Chart;
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// A database that keeps inbox, outbox, saga instances and held messages beside the user's own tables.
///
/// The endpoint's promise rests on a few rules that every implementation keeps (ARCHITECTURE.md names the holes they
/// close):
///
/// - [`Store::begin`] tries the locks it is given before anything is read in the transaction. It never waits for a
///   lock: [`Found::locked_elsewhere`] names those that another transaction holds.
/// - [`Unit::write`] writes all, or fails having changed nothing that commits.
/// - A unit has a time limit at the server, so that a process that is frozen inside one loses its locks.
/// - Times are the database's: a delay is added to the database's clock when the row is written, not when the
///   transaction began. Leases run by the same clock.
/// - [`Store::lease`] never finds rows by `id > last`, and never waits for a row that another transaction has locked.
#[async_trait]
pub trait Store: Clone + Send + Sync + 'static {
    /// What a handler gets from `cx.tx()`: the connection of the open transaction.
    type Tx: Send;
    /// A unit of work: one transaction.
    type Unit: Unit<Tx = Self::Tx>;

    /// What an error means, if it is one of the database driver: handlers return such errors. An endpoint asks for each
    /// cause of the error by itself, so this looks at no cause.
    ///
    /// [`Conflict`](super::StoreErrorKind::Conflict), [`StalePlan`](super::StoreErrorKind::StalePlan),
    /// [`Unable`](super::StoreErrorKind::Unable) and [`Schema`](super::StoreErrorKind::Schema) are no message's fault.
    /// A time limit that the statement exceeded is: [`Rejected`](super::StoreErrorKind::Rejected). Whether a connection
    /// is gone is told by [`Unit::rollback`], not here.
    fn recognise(&self, error: &(dyn std::error::Error + 'static)) -> Option<StoreError>;

    /// Creates or upgrades the tables; safe when many processes start at once.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Registers a process that starts, with its sagas' charts and its subscriptions.
    async fn register(&self, process: &Process) -> Result<Registered, StoreError>;

    /// Records that a process is alive, and returns what an operator asks of it. A process whose row is gone is
    /// registered again.
    async fn heartbeat(&self, process: &Process) -> Result<Asked, StoreError>;

    /// Removes a process that has stopped.
    async fn sign_off(&self, owner: &str) -> Result<(), StoreError>;

    /// Opens a transaction and tries to take exclusive locks on the given numbers, which are sorted and without
    /// repeats. The server ends the transaction if it is idle for `limit`.
    async fn begin(&self, locks: &[i64], limit: Duration) -> Result<Self::Unit, StoreError>;

    /// Reads the inbox rows of the given keys, outside any transaction.
    async fn read(&self, keys: &Keys) -> Result<Found, StoreError>;

    /// Reads the instances that have these aliases, outside any transaction.
    async fn aliases(&self, aliases: &[InstanceKey]) -> Result<Vec<FieldRow>, StoreError>;

    /// Reads instances of these sagas, a page at a time, in the order of (id, saga): those after `after`, at most
    /// `rows_max`. Outside any transaction: nothing is locked.
    async fn page_of_instances(
        &self,
        sagas: &[String],
        after: &InstanceKey,
        rows_max: i64,
    ) -> Result<Vec<InstanceRow>, StoreError>;

    /// Counts, for the endpoint's metrics, what waits and what lives, reading about `rows_max` rows of each kind at
    /// most. `sagas` are those whose instances are counted. Outside any transaction: nothing is locked.
    async fn counts(&self, endpoint: &str, sagas: &[String], rows_max: i64) -> Result<Counts, StoreError>;

    /// The charts of the endpoint's sagas, of every version that ever ran.
    async fn charts(&self, endpoint: &str) -> Result<Vec<Chart>, StoreError>;

    /// Counts a message that was redelivered after a crash, in a transaction of its own, before the message runs alone.
    /// Returns the count, this time included; `None` when the message is already settled, or held and the row does not
    /// say so: of a held one the count alone changes.
    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError>;

    /// Takes times for so many calls of what a limit of the endpoint is set for, one `every` so long, after all that
    /// any process has taken. Returns how long until the first; if that is longer than `within`, none was taken. No
    /// time is further away than a minute, or sixteen times what is taken, whatever the clock did, and none that has
    /// passed is given.
    async fn reserve_calls(
        &self,
        endpoint: &str,
        limit: &str,
        calls: u32,
        every: Duration,
        within: Duration,
    ) -> Result<Duration, StoreError>;

    /// Deletes outbox rows that the broker has confirmed; a row that is already gone is not an error. `rows` is sorted.
    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError>;

    /// Leases rows that are due and that no other process has leased. A row that cannot be read is put off with its
    /// error.
    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<Leased, StoreError>;

    /// Renews the leases of rows that are being published, and puts off rows that failed. Returns the rows whose lease
    /// was lost.
    async fn renew_and_fail(&self, update: &LeaseUpdate<'_>) -> Result<Vec<Uuid>, StoreError>;

    /// Makes rows that wait for a destination due, because it takes messages again, in one bounded step. Returns how
    /// many.
    async fn reopen(&self, endpoint: &str, destination: &str) -> Result<u64, StoreError>;

    /// Offers again, in one bounded step, messages held as [`HeldReason::Version`](super::HeldReason::Version) that
    /// this process knows. Messages without a receiver go back to the outbox; for those of an instance, a wake-up
    /// ([`Envelope::wake`](crate::Envelope::wake)) goes there. Returns how many.
    async fn release(&self, process: &Process) -> Result<u64, StoreError>;

    /// Deletes, for a bounded time, inbox rows and done instances older than the retention, except those that a held
    /// message refers to. Holds outbox rows whose first publish is that old. Ends the wait of messages whose time is
    /// up.
    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<Swept, StoreError>;
}

/// What a step of [`Store::sweep`] changed, in rows. What concerns people is counted by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// All.
    pub rows: u64,
    /// Early events for which no instance came in time: journaled as discarded.
    pub discarded: u64,
    /// Early answers and commands for which no instance came in time: held for a person.
    pub without_instance: u64,
    /// Messages for which no process came in time that knows their type or version: held for a person.
    pub without_version: u64,
    /// Outbox rows whose receiver may have had and forgotten them: held for a person.
    pub stranded: u64,
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

    /// Reads held messages, in order of arrival: of each instance its first ones, at most `rows_max`, and no more once
    /// the bodies of those before have `bytes_max`. For that the first of every instance count before the second ones.
    async fn held(
        &mut self,
        endpoint: &str,
        wanted: &[HeldWanted],
        rows_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<HeldRow>, StoreError>;

    /// Tries to take more locks, as [`Store::begin`] does. Returns those that another transaction holds.
    async fn lock(&mut self, locks: &[i64]) -> Result<Vec<i64>, StoreError>;

    /// Reads which instances have these aliases, and for which of them early messages of the endpoint wait: with a
    /// snapshot that is taken after the locks.
    async fn aliases(&mut self, endpoint: &str, aliases: &[InstanceKey]) -> Result<AliasesFound, StoreError>;

    /// Deletes rows of the outbox, given in any order, that no process is publishing: of these, nobody holds a lease.
    /// Never waits for a row that another transaction has locked. Returns those that are gone.
    async fn take_back(&mut self, rows: &[Uuid]) -> Result<Vec<TakenBack>, StoreError>;

    /// Writes everything that a batch decided.
    ///
    /// # Errors
    /// [`Conflict`](super::StoreErrorKind::Conflict) when a claim or an alias exists already, or when a completed row
    /// or an instance has changed meanwhile: roll back the unit and run the batch again.
    /// [`Rejected`](super::StoreErrorKind::Rejected) when user code has ended the transaction or left it aborted; this
    /// is noticed even if `write` is empty.
    async fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Commits.
    ///
    /// # Errors
    /// [`Rejected`](super::StoreErrorKind::Rejected) when the database refused (a deferred constraint, say);
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) or [`Unable`](super::StoreErrorKind::Unable) when it may be
    /// unknown whether it committed.
    async fn commit(self) -> Result<(), StoreError>;

    /// Rolls back.
    async fn rollback(self) -> Result<(), StoreError>;
}

/// A process of an endpoint, as it registers.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
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
    /// The names of its sagas and handlers. A message addressed to another receiver waits for a process that has it.
    pub receivers: Vec<String>,
    /// What it reports about itself, for operators: link, breakers.
    pub report: serde_json::Value,
}

impl Process {
    /// A process that has no receivers yet.
    pub fn new(endpoint: impl Into<String>, owner: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), owner: owner.into(), ..Self::default() }
    }
}

/// What an operator asks of a process: `process.asked`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// Nothing, or something that this binary does not know.
    #[default]
    Nothing,
    /// To finish what it has begun, and to stop.
    Drain,
}

impl Asked {
    /// Reads the column.
    pub fn read(word: Option<&str>) -> Self {
        if word == Some(Self::DRAIN) { Self::Drain } else { Self::Nothing }
    }

    /// How the column names [`Asked::Drain`].
    pub const DRAIN: &'static str = "drain";
}

/// What [`Store::counts`] counted. Of more rows than it may read a count says only that there are as many; of instances
/// it may be an estimate from a part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Rows of the outbox that are due, or that were published and are not confirmed.
    pub outbox: i64,
    /// The age of the oldest of them.
    pub outbox_oldest: Option<Duration>,
    /// Rows of the outbox that wait for a destination.
    pub unroutable: i64,
    /// Held messages by reason.
    pub held: Vec<(HeldReason, i64)>,
    /// Instances by saga and state.
    pub instances: Vec<InstanceCount>,
}

/// Instances of a saga in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceCount {
    /// The saga.
    pub saga: String,
    /// The state.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How many of them are paused.
    pub paused: i64,
}

impl InstanceCount {
    /// So many instances, none of them paused.
    pub fn new(saga: impl Into<String>, state: impl Into<String>, count: i64) -> Self {
        Self { saga: saga.into(), state: state.into(), count, paused: 0 }
    }
}

/// What [`Store::register`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Registered {
    /// Events that the endpoint once subscribed to and that none of its living processes does now.
    pub dropped: Vec<String>,
    /// Sagas of this process whose name another endpoint of this database uses: (saga, endpoint). Then nothing was
    /// registered.
    pub taken: Vec<(String, String)>,
}

impl Registered {
    /// Registered; these events have lost their last subscriber.
    pub fn new(dropped: Vec<String>) -> Self {
        Self { dropped, ..Self::default() }
    }

    /// Not registered, because other endpoints use the names of these sagas: (saga, endpoint).
    pub fn taken(taken: Vec<(String, String)>) -> Self {
        Self { taken, ..Self::default() }
    }
}
