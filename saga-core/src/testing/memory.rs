//! A store in memory: a plain model of what [`Store`] requires, for tests that take milliseconds.
//!
//! - `state`: the tables, the open units and the locks, behind one mutex that is never held across an await
//! - `tables`: committed rows, and the rows that one unit changed
//! - `unit`: one transaction, and what user code sees of it
//! - `read`, `write`: what a unit reads and writes
//! - `relay`: leases; `sweep`: housekeeping and releases; `process`: registration
//! - `faults`: failures to order; `records`: rows as tests see them

mod faults;
mod process;
mod read;
mod records;
mod relay;
mod state;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod unit;
mod write;

pub use faults::Operation;
pub use process::ProcessRecord;
pub use records::{HeldRecord, InboxRecord, InstanceRecord, OutboxRecord};
pub use unit::{MemoryError, MemoryTx, MemoryUnit};

use crate::{
    Asked, Chart, Counts, FieldRow, Found, InboxRow, InstanceKey, InstanceRow, Keys, LeaseRequest, LeaseUpdate, Leased,
    Process, Registered, Store, StoreError, StoreErrorKind, Swept,
};
use async_trait::async_trait;
pub(super) use faults::Fault;
use serde_json::Value;
use state::{Shared, State, us};
use std::{error::Error, fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// A time of a limit that is further away comes from a clock that was set back.
const RESERVED_MAX: Duration = Duration::from_secs(60);

/// A store in memory. A clone is the same store.
///
/// Transactions, locks, leases and expiry behave as on the real databases; what user code writes goes through
/// [`MemoryTx`]. Time is tokio's: under `#[tokio::test(start_paused = true)]` a lease of a week runs out in no time.
///
/// ```
/// use sagabus::{
///     port::{Store, StoreErrorKind},
///     testing::{MemoryStore, Operation},
/// };
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = MemoryStore::new();
/// store.fail_next(Operation::Begin, StoreErrorKind::Unavailable);
/// assert!(store.begin(&[], Duration::from_secs(30)).await.is_err());
/// assert!(store.begin(&[], Duration::from_secs(30)).await.is_ok());
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    /// An empty store whose clock begins on 1 January 2026.
    pub fn new() -> Self {
        Self::default()
    }

    /// The store's clock: microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.0.now_us()
    }

    /// Makes the next call of this operation fail without doing anything. Several calls for one operation queue up.
    pub fn fail_next(&self, operation: Operation, kind: StoreErrorKind) {
        self.0.state().faults.order(operation, Fault::Fails(kind));
    }

    /// Makes the next commit happen (or not) while its caller is told that the outcome is unknown:
    /// [`Unavailable`](StoreErrorKind::Unavailable).
    pub fn lose_next_commit(&self, committed: bool) {
        self.0.state().faults.order(Operation::Commit, Fault::Unknown { committed });
    }

    /// Asks `fails` about every operation, after the orders of [`MemoryStore::fail_next`]. Another call replaces it.
    pub fn fail_while(&self, fails: impl FnMut(Operation) -> Option<StoreErrorKind> + Send + 'static) {
        let mut fails = fails;
        self.0.state().faults.ask(move |operation| fails(operation).map(Fault::Fails));
    }

    /// The same, for every kind of fault.
    #[cfg(feature = "simulation")]
    pub(super) fn fault_while(&self, faults: impl FnMut(Operation) -> Option<Fault> + Send + 'static) {
        self.0.state().faults.ask(faults);
    }

    /// Round trips take as long as `pace` says, each in its turn.
    #[cfg(feature = "simulation")]
    pub(super) fn pace(&self, pace: impl FnMut() -> Duration + Send + 'static) {
        self.0.state().pace = Some(Box::new(pace));
    }

    /// Commits leave no rows in the inbox from now on: a test breaks the store.
    #[cfg(test)]
    pub(super) fn forget_inbox(&self) {
        self.0.state().forgets_inbox = true;
    }

    /// Tells of every inbox row that is committed.
    #[cfg(feature = "simulation")]
    pub(super) fn on_commit(&self, tell: impl FnMut(&InboxRecord) + Send + 'static) {
        self.0.state().commits = Some(Box::new(tell));
    }

    /// Moves the store's clock: the database's time was corrected, forward or back.
    pub fn jump(&self, forward: bool, by: Duration) {
        self.0.jump(if forward { us(by) } else { -us(by) });
    }

    /// Takes back every order to fail.
    pub fn heal(&self) {
        self.0.state().faults = faults::Faults::default();
    }

    /// Committed rows of the inbox, by message id, receiver and endpoint.
    pub fn inbox(&self) -> Vec<InboxRecord> {
        self.0.state().tables.inbox.values().cloned().collect()
    }

    /// Committed rows of the outbox, oldest due first.
    pub fn outbox(&self) -> Vec<OutboxRecord> {
        let mut rows: Vec<_> = self.0.state().tables.outbox.values().cloned().collect();
        rows.sort_by_key(|row| (row.due_at_us, row.id));
        rows
    }

    /// Committed held messages, in order of arrival.
    pub fn held(&self) -> Vec<HeldRecord> {
        let mut rows: Vec<_> = self.0.state().tables.held.values().cloned().collect();
        rows.sort_by_key(|row| row.arrival);
        rows
    }

    /// Committed saga instances, by saga and id.
    pub fn instances(&self) -> Vec<InstanceRecord> {
        self.0.state().tables.instances.values().cloned().collect()
    }

    /// Committed aliases, each with the instance that has it.
    pub fn aliases(&self) -> Vec<FieldRow> {
        let state = self.0.state();
        state.tables.aliases.iter().map(|(alias, instance)| FieldRow::alias(alias.clone(), instance.clone())).collect()
    }

    /// Committed fields of instances that are no aliases, by instance and name.
    pub fn fields(&self) -> Vec<FieldRow> {
        let field = |((instance, name), value): (&(InstanceKey, String), &String)| {
            FieldRow::new(InstanceKey { saga: name.clone(), id: value.clone() }, instance.clone())
        };
        self.0.state().tables.fields.iter().map(field).collect()
    }

    /// What user code wrote to a table of its own and committed, in that order.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        self.0.state().tables.user.get(table).cloned().unwrap_or_default()
    }

    /// The processes that have registered and not signed off.
    pub fn processes(&self) -> Vec<ProcessRecord> {
        self.0.state().processes.values().cloned().collect()
    }

    /// Asks a process to finish and stop, as an operator does. Returns whether there is such a process.
    pub fn drain(&self, owner: &str) -> bool {
        let mut state = self.0.state();
        let record = state.processes.get_mut(owner);
        record.map(|record| record.asked = Asked::Drain).is_some()
    }

    /// The charts that were registered, with their endpoints.
    pub fn definitions(&self) -> Vec<(String, Chart)> {
        let state = self.0.state();
        state.definitions.iter().map(|((_, _, endpoint), chart)| (endpoint.clone(), chart.clone())).collect()
    }

    /// Events that endpoints subscribed to and did not drop: (endpoint, event).
    pub fn subscriptions(&self) -> Vec<(String, String)> {
        self.0.state().subscriptions.iter().cloned().collect()
    }

    /// Changes committed rows of the inbox directly: a test lets a row age, or plays the operator.
    pub fn change_inbox(&self, change: impl FnMut(&mut InboxRecord)) {
        self.0.state().tables.inbox.values_mut().for_each(change);
    }

    /// Changes committed rows of the outbox.
    pub fn change_outbox(&self, change: impl FnMut(&mut OutboxRecord)) {
        self.0.state().tables.outbox.values_mut().for_each(change);
    }

    /// Changes committed held messages.
    pub fn change_held(&self, change: impl FnMut(&mut HeldRecord)) {
        self.0.state().tables.held.values_mut().for_each(change);
    }

    /// Changes committed saga instances.
    pub fn change_instances(&self, change: impl FnMut(&mut InstanceRecord)) {
        self.0.state().tables.instances.values_mut().for_each(change);
    }

    /// Changes the rows of processes.
    pub fn change_processes(&self, change: impl FnMut(&mut ProcessRecord)) {
        self.0.state().processes.values_mut().for_each(change);
    }

    /// Changes the times, in microseconds since 1970, when the next calls of limits may be made.
    pub fn change_limits(&self, change: impl FnMut(&mut i64)) {
        self.0.state().limits.values_mut().for_each(change);
    }

    /// One operation outside a unit: a round trip, then everything at once.
    async fn at_once<T>(&self, operation: Operation, act: impl FnOnce(&mut State, i64) -> T) -> Result<T, StoreError> {
        self.0.round_trip(operation).await?;
        let now = self.now_us();
        Ok(act(&mut self.0.state(), now))
    }
}

#[async_trait]
impl Store for MemoryStore {
    type Tx = MemoryTx;
    type Unit = MemoryUnit;

    fn recognise(&self, error: &(dyn Error + 'static)) -> Option<StoreError> {
        error.downcast_ref::<MemoryError>().map(MemoryError::meaning)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.0.round_trip(Operation::Migrate).await
    }

    async fn register(&self, process: &Process) -> Result<Registered, StoreError> {
        self.at_once(Operation::Register, |state, now| process::register(state, process, now)).await
    }

    async fn heartbeat(&self, process: &Process) -> Result<Asked, StoreError> {
        self.at_once(Operation::Heartbeat, |state, now| process::seen(state, process, now)).await
    }

    async fn sign_off(&self, owner: &str) -> Result<(), StoreError> {
        self.at_once(Operation::SignOff, |state, _| drop(state.processes.remove(owner))).await
    }

    /// # Panics
    /// When the locks are not sorted or not distinct: the port forbids it.
    async fn begin(&self, locks: &[i64], limit: Duration) -> Result<MemoryUnit, StoreError> {
        assert!(locks.is_sorted_by(|a, b| a < b), "locks must be sorted and without repeats: {locks:?}");
        self.0.round_trip(Operation::Begin).await?;
        Ok(MemoryUnit::begin(&self.0, locks, limit))
    }

    async fn read(&self, keys: &Keys) -> Result<Found, StoreError> {
        self.at_once(Operation::Read, |state, now| {
            read::found(&state.tables, &tables::Changes::default(), keys, now, Vec::new())
        })
        .await
    }

    async fn aliases(&self, aliases: &[InstanceKey]) -> Result<Vec<FieldRow>, StoreError> {
        self.at_once(Operation::Aliases, |state, _| {
            read::aliases(&state.tables, &tables::Changes::default(), "", aliases).rows
        })
        .await
    }

    async fn page_of_instances(
        &self,
        sagas: &[String],
        after: &InstanceKey,
        rows_max: i64,
    ) -> Result<Vec<InstanceRow>, StoreError> {
        self.at_once(Operation::Read, |state, _| read::page(&state.tables, sagas, after, rows_max)).await
    }

    async fn counts(&self, endpoint: &str, sagas: &[String], rows_max: i64) -> Result<Counts, StoreError> {
        self.at_once(Operation::Read, |state, now| read::counts(&state.tables, endpoint, sagas, rows_max, now)).await
    }

    async fn charts(&self, endpoint: &str) -> Result<Vec<Chart>, StoreError> {
        self.at_once(Operation::Read, |state, _| {
            let own = state.definitions.iter().filter(|((_, _, of), _)| of == endpoint);
            own.map(|(_, chart)| chart.clone()).collect()
        })
        .await
    }

    async fn count_crash(&self, endpoint: &str, owner: &str, row: &InboxRow) -> Result<Option<i64>, StoreError> {
        self.0.round_trip(Operation::CountCrash).await?;
        let key = tables::inbox_key(endpoint, row);
        let rows = [state::RowKey::Inbox(key.clone())].into();
        self.0.with_rows(None, rows, |state, now| write::count_crash(state, key, owner, row, now)).await
    }

    async fn reserve_calls(
        &self,
        endpoint: &str,
        limit: &str,
        calls: u32,
        every: Duration,
        within: Duration,
    ) -> Result<Duration, StoreError> {
        self.at_once(Operation::Reserve, |state, now| {
            let next = state.limits.entry((endpoint.into(), limit.into())).or_default();
            let taken = us(every).saturating_mul(calls.into());
            let first = (*next).clamp(now, now.saturating_add(us(RESERVED_MAX).max(taken.saturating_mul(16))));
            let wait = Duration::from_micros((first - now).unsigned_abs());
            *next = if wait <= within { first.saturating_add(taken) } else { first };
            wait
        })
        .await
    }

    async fn delete_confirmed(&self, rows: &[Uuid]) -> Result<(), StoreError> {
        self.at_once(Operation::Delete, |state, _| state.tables.outbox.retain(|id, _| rows.binary_search(id).is_err()))
            .await
    }

    async fn lease(&self, request: &LeaseRequest<'_>) -> Result<Leased, StoreError> {
        self.at_once(Operation::Lease, |state, now| relay::lease(state, request, now)).await
    }

    async fn renew_and_fail(&self, update: &LeaseUpdate<'_>) -> Result<Vec<Uuid>, StoreError> {
        self.at_once(Operation::Renew, |state, now| relay::renew_and_fail(state, update, now)).await
    }

    async fn reopen(&self, endpoint: &str, destination: &str) -> Result<u64, StoreError> {
        self.at_once(Operation::Reopen, |state, now| relay::reopen(state, endpoint, destination, now)).await
    }

    async fn release(&self, process: &Process) -> Result<u64, StoreError> {
        self.at_once(Operation::Release, |state, now| sweep::release(state, process, now)).await
    }

    async fn sweep(&self, endpoint: &str, retention: Duration) -> Result<Swept, StoreError> {
        self.at_once(Operation::Sweep, |state, now| sweep::sweep(state, endpoint, retention, now)).await
    }
}
