//! Everything behind the one mutex: tables, open units, locks.

use super::{
    faults::{Faults, Operation},
    process::ProcessRecord,
    records::InboxRecord,
    tables::{Changes, MessageKey, Tables},
};
use crate::{Chart, InstanceKey, StoreError, ambient::EPOCH_US};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

/// How long a unit waits for a unit that waits for a third before it checks again.
const WAIT: Duration = Duration::from_millis(100);

pub(super) fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A row that a unit has changed: until the unit ends, no other writes the same row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowKey {
    Inbox(MessageKey),
    Instance(InstanceKey),
    Outbox(Uuid),
    Held(MessageKey),
    Alias(InstanceKey),
}

/// An open transaction, as the others see it.
#[derive(Debug)]
pub(super) struct Open {
    locks: Vec<i64>,
    rows: BTreeSet<RowKey>,
    /// The unit that it waits for.
    waits_for: Option<u64>,
    limit: Duration,
    used: Instant,
}

impl Open {
    /// When the server ends it, unless it does something before.
    fn ends(&self) -> Option<Instant> {
        if self.waits_for.is_some() { None } else { self.used.checked_add(self.limit) }
    }
}

/// Who is told of a committed inbox row.
type Tell = Box<dyn FnMut(&InboxRecord) + Send>;

/// How long the next round trip takes.
type Pace = Box<dyn FnMut() -> Duration + Send>;

#[derive(Default)]
pub(super) struct State {
    pub(super) tables: Tables,
    pub(super) faults: Faults,
    /// Who is told of inbox rows that are committed.
    pub(super) commits: Option<Tell>,
    pub(super) pace: Option<Pace>,
    #[cfg(test)]
    pub(super) forgets_inbox: bool,
    pub(super) definitions: BTreeMap<(String, u32, String), Chart>,
    pub(super) subscriptions: BTreeSet<(String, String)>,
    pub(super) processes: BTreeMap<String, ProcessRecord>,
    /// When the next call of each limit of each endpoint may be made.
    pub(super) limits: BTreeMap<(String, String), i64>,
    /// The last number given to a held message. Like a sequence of a database, it is not rolled back.
    pub(super) arrivals: i64,
    units: BTreeMap<u64, Open>,
    last_unit: u64,
}

impl State {
    /// Opens a unit with those locks that are free. Returns the unit, and the locks that are not free.
    pub(super) fn open(&mut self, locks: &[i64], limit: Duration) -> (u64, Vec<i64>) {
        self.end_idle();
        self.last_unit += 1;
        let unit = Open { locks: Vec::new(), rows: BTreeSet::new(), waits_for: None, limit, used: Instant::now() };
        self.units.insert(self.last_unit, unit);
        (self.last_unit, self.lock(self.last_unit, locks))
    }

    /// Gives the unit those locks that are free. Returns the others.
    pub(super) fn lock(&mut self, unit: u64, locks: &[i64]) -> Vec<i64> {
        let others = self.units.iter().filter(|(id, _)| **id != unit);
        let taken: BTreeSet<i64> = others.flat_map(|(_, unit)| unit.locks.iter().copied()).collect();
        let (elsewhere, free): (Vec<i64>, Vec<i64>) = locks.iter().partition(|lock| taken.contains(lock));
        if let Some(unit) = self.units.get_mut(&unit) {
            unit.locks.extend(free);
        }
        elsewhere
    }

    /// The unit does something. Returns whether it is still open.
    pub(super) fn touch(&mut self, unit: u64) -> bool {
        self.end_idle();
        let Some(unit) = self.units.get_mut(&unit) else { return false };
        unit.used = Instant::now();
        unit.waits_for = None;
        true
    }

    /// The unit ends; its locks are free.
    pub(super) fn close(&mut self, unit: u64) {
        self.units.remove(&unit);
    }

    /// Whether a unit has changed this row and not ended.
    pub(super) fn is_locked(&self, row: &RowKey) -> bool {
        self.units.values().any(|unit| unit.rows.contains(row))
    }

    /// The rows that a unit has changed are its own until it ends.
    pub(super) fn lock_rows(&mut self, unit: u64, changes: &Changes) {
        let Some(open) = self.units.get_mut(&unit) else { return };
        open.rows.extend(changes.inbox.keys().cloned().map(RowKey::Inbox));
        open.rows.extend(changes.instances.keys().cloned().map(RowKey::Instance));
        open.rows.extend(changes.outbox.keys().copied().map(RowKey::Outbox));
        open.rows.extend(changes.held.keys().cloned().map(RowKey::Held));
        open.rows.extend(changes.aliases.keys().cloned().map(RowKey::Alias));
    }

    /// The server ends units that have been idle for their limit.
    pub(super) fn end_idle(&mut self) {
        let now = Instant::now();
        self.units.retain(|_, unit| unit.ends().is_none_or(|end| end > now));
    }

    /// Another unit that has changed one of the rows.
    fn blocker(&self, unit: Option<u64>, rows: &BTreeSet<RowKey>) -> Option<u64> {
        let others = self.units.iter().filter(|(id, _)| Some(**id) != unit);
        others.into_iter().find(|(_, open)| !open.rows.is_disjoint(rows)).map(|(id, _)| *id)
    }

    /// Whether `unit` would wait for itself if it waited for `blocker`.
    fn is_deadlock(&self, unit: u64, blocker: u64) -> bool {
        let next = |id: &u64| self.units.get(id).and_then(|open| open.waits_for);
        std::iter::successors(Some(blocker), next).take(self.units.len() + 1).any(|id| id == unit)
    }
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// A unit has ended.
    pub(super) ended: Notify,
    started: Instant,
    /// How far the clock was moved, in microseconds.
    moved_us: AtomicI64,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), ended: Notify::new(), started: Instant::now(), moved_us: AtomicI64::new(0) }
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_us(&self) -> i64 {
        let moved = EPOCH_US.saturating_add(self.moved_us.load(Ordering::Relaxed));
        moved.saturating_add(us(self.started.elapsed()))
    }

    pub(super) fn jump(&self, us: i64) {
        self.moved_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Other tasks run, as during a round trip to a server.
    pub(super) async fn travel(&self) {
        let takes = self.state().pace.as_mut().map_or(Duration::ZERO, |pace| pace());
        if takes.is_zero() { tokio::task::yield_now().await } else { tokio::time::sleep(takes).await }
    }

    /// Then the operation fails if a test ordered it.
    pub(super) async fn round_trip(&self, operation: Operation) -> Result<(), StoreError> {
        self.travel().await;
        self.state().faults.take(operation).map_or(Ok(()), |fault| Err(fault.error(operation)))
    }

    /// Waits until no other unit holds one of the rows, then acts. Two that would wait for each other are a conflict.
    pub(super) async fn with_rows<T>(
        &self,
        unit: Option<u64>,
        rows: BTreeSet<RowKey>,
        act: impl FnOnce(&mut State, i64) -> T,
    ) -> Result<T, StoreError> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable(); // a unit that ends from here on is not missed
            let ends = {
                let mut state = self.state();
                state.end_idle();
                let blocker = state.blocker(unit, &rows);
                if let Some(open) = unit.and_then(|unit| state.units.get_mut(&unit)) {
                    open.waits_for = blocker;
                    open.used = Instant::now();
                }
                let Some(blocker) = blocker else { return Ok(act(&mut state, self.now_us())) };
                if let Some(unit) = unit.filter(|unit| state.is_deadlock(*unit, blocker)) {
                    state.touch(unit);
                    return Err(StoreError::conflict());
                }
                state.units.get(&blocker).and_then(Open::ends)
            };
            // a unit that waits itself does not end yet
            let look_again = ends.unwrap_or_else(|| Instant::now() + WAIT);
            let _ = tokio::time::timeout_at(look_again, ended).await; // either way it looks again
        }
    }
}
