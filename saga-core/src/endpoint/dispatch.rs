//! The end of every unit of work, and the way of what it sends: write, commit, publish; then the reports on published
//! rows, their leases, and the deletion of those that arrived.
//!
//! Committed messages go to the broker straight from memory, in a window of confirms. What does not fit the window
//! stays in the outbox without a lease, and so does everything after it until the relay has caught up: otherwise a
//! later message of the same key could overtake an earlier one.

mod confirmed;
mod finish;
mod leases;
mod quiet;
mod reports;
mod reservation;

pub(crate) use confirmed::{delete_all_confirmed, delete_confirmed};
pub(super) use finish::finish;
pub(crate) use leases::keep_leases;

use self::reservation::Reservation;
use super::{destinations::Destinations, shared::Shared};
use crate::{
    Envelope,
    port::{Destination, LeasedRow, OutboxRow, Outgoing, PublishFailed},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use uuid::Uuid;

/// The most confirmed rows that one statement deletes.
const CONFIRMED_ROWS_MAX: usize = 5000;
/// The most reports that are taken in together.
const REPORTS_MAX: usize = 512;
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// What the database was asked may happen so much later, also when its answer was lost.
pub(super) const LATE: Duration = Duration::from_secs(5);

pub(crate) struct Dispatcher {
    endpoint: String,
    /// The most that is between reservation and report.
    window: Load,
    state: Mutex<State>,
    /// Wakes the relay.
    pub(crate) relay: Notify,
    /// Wakes the task that waits for an empty window.
    emptied: Notify,
    /// Wakes the task that deletes confirmed rows.
    confirmed: Notify,
    /// Wakes the task that keeps the leases.
    leases: Notify,
    /// Wakes the relay when a unit that has left rows to it ends.
    overflowed: Notify,
    /// No unit may begin.
    quiet: watch::Sender<bool>,
    /// Held while rows are being deleted: `stop` waits for it.
    deleting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// To the transport; `None` once the endpoint has stopped.
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    /// Rows between reservation and report.
    in_flight: HashMap<Uuid, InFlight>,
    /// The bytes of their bodies.
    in_flight_bytes: usize,
    reserved: Load,
    confirmed: Vec<Uuid>,
    /// Confirmed rows whose deletion is under way.
    deleting: Vec<Uuid>,
    /// Rows that could not be sent, until the database has heard of it.
    failing: Vec<Uuid>,
    /// Rows that units are committing, by the unit's number.
    committing: HashMap<u64, Vec<Uuid>>,
    /// Counts units that commit.
    units: u64,
    destinations: Destinations,
    /// Rows that were not sent because their destination is closed: their leases must end.
    put_off: Vec<PublishFailed>,
    /// Destinations that take messages again.
    reopened: Vec<String>,
    /// Destinations for which a message was not taken, and when that was last tried.
    refused: HashMap<Destination, Instant>,
    /// Rows were left to the relay, which has not caught up yet.
    overflow: bool,
    /// Units that are about to commit rows for the relay.
    overflowing: usize,
    /// One of those units has ended since the relay looked.
    left: bool,
    /// Counts those units, so that the relay notices one that began and ended while it looked.
    overflows: u64,
    /// Since the last answer of the database was lost: rows may be under our lease that are not in the window.
    unsure: Option<Instant>,
    next_due: Option<Instant>,
}

struct InFlight {
    /// Tries before this one.
    attempts: u32,
    destination: Destination,
    body_bytes: usize,
}

/// Messages, and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Load {
    pub(crate) fn of<'a>(envelopes: impl Iterator<Item = &'a Arc<Envelope>>) -> Self {
        envelopes.fold(Self::default(), |Self { messages, bytes }, envelope| Self {
            messages: messages + 1,
            bytes: bytes + envelope.body.len(),
        })
    }
}

impl State {
    /// What is left of the window. If nothing is in it, there is room for a body of any size.
    fn room(&self, window: Load) -> Load {
        let messages = window.messages.saturating_sub(self.in_flight.len() + self.reserved.messages);
        let used = self.in_flight_bytes + self.reserved.bytes;
        match used {
            0 => Load { messages, bytes: usize::MAX },
            _ if used >= window.bytes => Load::default(),
            _ => Load { messages, bytes: window.bytes - used },
        }
    }

    fn sent(&mut self, row: Uuid, message: InFlight) {
        self.in_flight_bytes += message.body_bytes;
        if let Some(before) = self.in_flight.insert(row, message) {
            self.in_flight_bytes -= before.body_bytes;
        }
    }

    fn ended(&mut self, row: &Uuid) -> Option<InFlight> {
        let message = self.in_flight.remove(row)?;
        self.in_flight_bytes -= message.body_bytes;
        Some(message)
    }

    /// The rows under our lease that this process knows of, sorted.
    fn known(&self) -> Vec<Uuid> {
        let put_off = self.put_off.iter().map(|failed| &failed.id);
        let lists = [&self.confirmed, &self.deleting, &self.failing].into_iter().chain(self.committing.values());
        let mut known: Vec<Uuid> = self.in_flight.keys().chain(put_off).chain(lists.flatten()).copied().collect();
        known.sort_unstable();
        known
    }

    /// Rows may be under our lease that nobody here knows of. The relay takes them; what comes later waits for it, so
    /// as not to overtake them.
    fn lose_sight(&mut self) {
        self.unsure = Some(Instant::now());
        (self.overflow, self.left) = (true, true);
        self.overflows += 1;
    }
}

impl Dispatcher {
    /// The channel itself is unbounded; the window bounds what enters it.
    pub(crate) fn new(endpoint: &str, window: Load, outgoing: mpsc::UnboundedSender<Outgoing>) -> Arc<Self> {
        Arc::new(Self {
            endpoint: endpoint.into(),
            window,
            state: Mutex::new(State { outgoing: Some(outgoing), ..State::default() }),
            relay: Notify::new(),
            emptied: Notify::new(),
            confirmed: Notify::new(),
            leases: Notify::new(),
            overflowed: Notify::new(),
            quiet: watch::Sender::new(false),
            deleting: tokio::sync::Mutex::default(),
        })
    }

    /// Nothing more will be sent: the transport may end.
    pub(crate) fn close(&self) {
        self.lock().outgoing = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for room before the rows are written.
    fn reserve(&self, load: Load) -> Reservation<'_> {
        let mut state = self.lock();
        let room = state.room(self.window);
        let fits = !state.overflow && load.messages <= room.messages && load.bytes <= room.bytes;
        if fits || load.messages == 0 {
            state.reserved.messages += load.messages;
            state.reserved.bytes += load.bytes;
            return Reservation::new(self, Some(load));
        }
        state.overflow = true;
        state.overflowing += 1;
        state.overflows += 1;
        Reservation::new(self, None)
    }

    /// Sends what was committed; tells the relay when the next delayed row is due.
    fn enqueue(&self, mut reservation: Reservation<'_>, rows: Vec<OutboxRow>) {
        if reservation.leased {
            let leased = rows.iter().filter(|row| row.leased);
            self.push(leased.map(|row| (Outgoing::new(row.id, row.destination.clone(), row.envelope.clone()), false)));
        }
        reservation.answered();
        if let Some(delay) = rows.iter().filter_map(|row| row.delay).min() {
            self.due_in(delay);
        }
    }

    /// Sends what the relay has leased.
    pub(crate) fn send(&self, rows: &[LeasedRow]) {
        self.push(rows.iter().map(|row| {
            let message = Outgoing::new(row.id, row.destination.clone(), row.envelope.clone());
            (Outgoing { attempts: row.attempts, expired: row.expired, ..message }, row.wanted)
        }));
    }

    /// Sends messages, each of which an operator may want sent now.
    fn push(&self, messages: impl Iterator<Item = (Outgoing, bool)>) {
        let mut state = self.lock();
        for (message, wanted) in messages {
            let Outgoing { row, destination, attempts, .. } = &message;
            if let Err(delay) = state.destinations.admit(destination, *row, wanted) {
                if state.destinations.is_gone(&self.endpoint, destination, *row) {
                    state.confirmed.push(*row); // it is deleted like one that arrived
                    continue;
                }
                let error = format!("messages for `{}` do not arrive", destination.name());
                state.put_off.push(PublishFailed { id: *row, error, delay, unroutable: true, tried: false });
                continue;
            }
            let body_bytes = message.envelope.body.len();
            state.sent(*row, InFlight { attempts: *attempts, destination: destination.clone(), body_bytes });
            // after `stop` the lease runs out and a relay takes the row
            let _ = state.outgoing.as_ref().map(|outgoing| outgoing.send(message));
        }
        if !state.put_off.is_empty() || !state.confirmed.is_empty() {
            self.leases.notify_one();
        }
    }

    /// A row is due after this time: the relay looks then.
    pub(crate) fn due_in(&self, delay: Duration) {
        let Some(due) = Instant::now().checked_add(delay) else { return };
        let mut state = self.lock();
        if state.next_due.is_none_or(|next| due < next) {
            state.next_due = Some(due);
            self.relay.notify_one();
        }
    }

    /// When the relay should look: at once when rows were left to it; when the next row is due; at the latest after
    /// `poll`.
    pub(crate) fn relay_at(&self, poll: Instant) -> Instant {
        let state = self.lock();
        // while units overlap, one of them is always about to commit: look anyway, for the rows of those that have
        if state.overflow && (state.left || state.overflowing == 0 && state.unsure.is_none()) {
            return Instant::now();
        }
        state.next_due.map_or(poll, |due| due.min(poll))
    }

    /// The relay looks now and finds what is due. Returns the rows under our lease that are known here, sorted, if
    /// there may be others.
    pub(crate) fn forget_due(&self) -> Option<Vec<Uuid>> {
        let mut state = self.lock();
        (state.next_due, state.left) = (None, false);
        state.unsure.map(|_| state.known())
    }

    /// The database did not answer a request that changes leases.
    pub(crate) fn lose_sight(&self) {
        self.lock().lose_sight();
        self.relay.notify_one();
    }

    /// How much a relay may lease now, and the count of overflows so far.
    pub(crate) fn room_for_relay(&self) -> (Load, Option<u64>) {
        let state = self.lock();
        let Load { messages, bytes } = state.room(self.window);
        let room = Load { messages, bytes: bytes.min(self.window.bytes) };
        (room, (state.overflowing == 0).then_some(state.overflows))
    }

    /// Whether messages do not go from memory until the relay has caught up.
    pub(crate) fn is_behind(&self) -> bool {
        self.lock().overflow
    }

    /// Whether nothing but units that go on keeps the relay from catching up.
    pub(crate) fn can_catch_up(&self) -> bool {
        let state = self.lock();
        state.overflow && state.unsure.is_none()
    }

    /// The relay, whose look began at that time, found nothing more: if no unit has left rows meanwhile, and none can
    /// turn up under our lease, messages may go from memory again.
    pub(crate) fn caught_up(&self, overflows: Option<u64>, began: Instant) {
        let mut state = self.lock();
        state.unsure = state.unsure.filter(|since| began < *since + LATE);
        if overflows == Some(state.overflows) && state.unsure.is_none() {
            state.overflow = false;
        }
    }

    /// Confirmed rows to delete, sorted.
    fn take_confirmed(&self) -> Vec<Uuid> {
        let mut state = self.lock();
        let rows = state.confirmed.len().min(CONFIRMED_ROWS_MAX);
        let mut confirmed: Vec<Uuid> = state.confirmed.drain(..rows).collect();
        confirmed.sort_unstable();
        state.deleting.clone_from(&confirmed);
        confirmed
    }

    /// The rows that were taken are gone.
    fn deleted(&self) {
        self.lock().deleting.clear();
    }

    /// The database has heard which rows could not be sent, or nobody knows whether it has.
    fn failed(&self) {
        self.lock().failing.clear();
    }

    /// The rows could not be deleted.
    fn give_back_confirmed(&self, rows: Vec<Uuid>) {
        let mut state = self.lock();
        state.deleting.clear();
        state.confirmed.extend(rows);
    }

    /// Waits until everything published has been answered.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().in_flight.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// The rows being published, sorted.
    fn in_flight(&self) -> Vec<Uuid> {
        let mut rows: Vec<Uuid> = self.lock().in_flight.keys().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Whether messages do not arrive at this destination, as far as is known.
    fn is_closed(&self, name: &str) -> bool {
        self.lock().destinations.is_closed(name)
    }
}

#[cfg(test)]
mod tests;
