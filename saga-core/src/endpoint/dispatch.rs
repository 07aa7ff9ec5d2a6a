//! Dispatch: committed messages go to the broker straight from memory, in a window of confirms.
//!
//! What does not fit the window stays in the outbox without a lease, and so does everything after it until the relay has
//! caught up: otherwise a later message of the same key could overtake an earlier one.

use crate::{Envelope, Fate, Faults, Leases, OutboxRow, Outgoing, PublishFailed, Report, Step, Store, retry::backoff};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use uuid::Uuid;

/// Sent rows that one statement deletes at most.
const SENT_ROWS_MAX: usize = 5000;
/// How long the first confirmed row waits for others, so that one statement deletes many.
const GATHER: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database is away.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A message that no queue takes is tried again at least this often: its receiver may start any moment.
const UNROUTABLE_DELAY_MAX: Duration = Duration::from_secs(5);
/// A message that the broker refuses is tried again at least this often.
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Dispatcher {
    window: usize,
    state: Mutex<State>,
    /// Wakes the relay.
    pub(crate) relay: Notify,
    /// Wakes whoever waits for the window to be empty.
    settled: Notify,
    /// Wakes who deletes.
    confirmed: Notify,
    /// Held while rows are being deleted: `stop` waits for it.
    deleting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// To the transport; none once the endpoint has stopped.
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    /// Rows between reservation and report, with the tries before.
    in_flight: HashMap<Uuid, u32>,
    reserved: usize,
    sent: Vec<Uuid>,
    /// Rows were left to the relay, and it has not caught up.
    overflow: bool,
    /// Units that are about to commit rows for the relay.
    overflowing: usize,
    /// Counts such units, so that the relay notices one that came and went while it looked.
    overflows: u64,
    next_due: Option<Instant>,
}

/// Room for the rows of one unit of work; given back when dropped without `enqueue`.
pub(crate) struct Room<'a> {
    dispatcher: &'a Dispatcher,
    rows: usize,
    /// The rows fit: they carry our lease and go from memory.
    pub(crate) leased: bool,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut state = self.dispatcher.lock();
        state.reserved -= self.rows;
        if !self.leased {
            state.overflowing -= 1;
            self.dispatcher.relay.notify_one();
        }
    }
}

impl Dispatcher {
    /// The channel is not bounded by itself; what enters it is, by the window.
    pub(crate) fn new(window: usize, outgoing: mpsc::UnboundedSender<Outgoing>) -> Arc<Self> {
        Arc::new(Self {
            window,
            state: Mutex::new(State { outgoing: Some(outgoing), ..State::default() }),
            relay: Notify::new(),
            settled: Notify::new(),
            confirmed: Notify::new(),
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
    pub(crate) fn reserve(&self, rows: usize) -> Room<'_> {
        let mut state = self.lock();
        let fits = !state.overflow && state.in_flight.len() + state.reserved + rows <= self.window;
        if fits || rows == 0 {
            state.reserved += rows;
            return Room { dispatcher: self, rows, leased: true };
        }
        state.overflow = true;
        state.overflowing += 1;
        state.overflows += 1;
        Room { dispatcher: self, rows: 0, leased: false }
    }

    /// Sends what was committed; tells the relay when the next delayed row is due.
    pub(crate) fn enqueue(&self, room: Room<'_>, rows: Vec<OutboxRow>) {
        if room.leased {
            self.push(rows.iter().filter(|row| row.leased).map(|row| (row.id, &row.envelope, 0, &row.destination)));
        }
        if let Some(delay) = rows.iter().filter_map(|row| row.delay).min() {
            self.due_in(delay);
        }
    }

    /// Sends what the relay has claimed.
    pub(crate) fn push<'a>(&self, rows: impl Iterator<Item = (Uuid, &'a Arc<Envelope>, u32, &'a crate::Destination)>) {
        let mut state = self.lock();
        for (row, envelope, attempts, destination) in rows {
            state.in_flight.insert(row, attempts);
            let message = Outgoing { row, destination: destination.clone(), envelope: envelope.clone(), attempts };
            // after `stop` its lease runs out and a relay takes it
            let _ = state.outgoing.as_ref().map(|outgoing| outgoing.send(message));
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

    /// When the relay should look: at once when rows were left to it, when the next row is due, else at `poll`.
    pub(crate) fn relay_at(&self, poll: Instant) -> Instant {
        let state = self.lock();
        if state.overflow && state.overflowing == 0 {
            return Instant::now();
        }
        state.next_due.map_or(poll, |due| due.min(poll))
    }

    /// The relay looks now: what is due is found by it.
    pub(crate) fn forget_due(&self) {
        self.lock().next_due = None;
    }

    /// How many rows a relay may claim now, and the count of overflows so far.
    pub(crate) fn room_for_relay(&self) -> (usize, Option<u64>) {
        let state = self.lock();
        let room = self.window.saturating_sub(state.in_flight.len() + state.reserved);
        (room, (state.overflowing == 0).then_some(state.overflows))
    }

    /// The relay found nothing more: if no unit has left rows meanwhile, memory may be used again.
    pub(crate) fn caught_up(&self, overflows: Option<u64>) {
        let mut state = self.lock();
        if overflows == Some(state.overflows) {
            state.overflow = false;
        }
    }

    fn take_sent(&self) -> Vec<Uuid> {
        let mut state = self.lock();
        let rows = state.sent.len().min(SENT_ROWS_MAX);
        let mut sent: Vec<Uuid> = state.sent.drain(..rows).collect();
        sent.sort_unstable();
        sent
    }

    /// Waits until everything published has been answered.
    pub(crate) async fn drained(&self) {
        loop {
            let settled = self.settled.notified();
            if self.lock().in_flight.is_empty() {
                return;
            }
            settled.await;
        }
    }

    fn in_flight(&self) -> Vec<Uuid> {
        let mut rows: Vec<Uuid> = self.lock().in_flight.keys().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Takes reports in; returns those that failed, with the delay until the next try.
    fn take_in(&self, reports: &mut Vec<Report>, faults: &Faults) -> Vec<PublishFailed> {
        if reports.iter().any(|report| report.fate == Fate::Confirmed) {
            faults.reach(Step::BeforeConfirm);
        }
        let mut failed = Vec::new();
        let mut state = self.lock();
        for Report { row, fate } in reports.drain(..) {
            let Some(attempts) = state.in_flight.remove(&row) else { continue };
            let (error, cap) = match fate {
                Fate::Confirmed => {
                    state.sent.push(row);
                    continue;
                }
                Fate::Unroutable(error) => (error, UNROUTABLE_DELAY_MAX),
                Fate::Refused(error) | Fate::Unknown(error) => (error, REFUSED_DELAY_MAX),
            };
            failed.push(PublishFailed { id: row, error, delay: backoff(attempts + 1, cap) });
        }
        let (sent, empty) = (!state.sent.is_empty(), state.in_flight.is_empty());
        drop(state);
        if sent {
            faults.reach(Step::BeforeDelete);
            self.confirmed.notify_one();
        }
        if empty {
            self.settled.notify_waiters();
        }
        failed
    }

    fn lost(&self, rows: &[Uuid]) {
        let mut state = self.lock();
        for row in rows {
            state.in_flight.remove(row);
        }
    }
}

/// Takes in what became of the rows, and keeps the leases of the rest alive.
pub(crate) async fn account<Db: Store>(core: Arc<super::core::Core<Db>>, mut reports: mpsc::UnboundedReceiver<Report>) {
    let dispatcher = &core.dispatcher;
    let lease = core.settings.lease;
    let mut renew_at = Instant::now() + lease / 3;
    let mut batch = Vec::new();
    loop {
        let mut renew = Vec::new();
        tokio::select! {
            n = reports.recv_many(&mut batch, 512) => if n == 0 { return },
            () = tokio::time::sleep_until(renew_at) => {
                renew = dispatcher.in_flight();
                renew_at = Instant::now() + lease / 3;
            }
        }
        let failed = dispatcher.take_in(&mut batch, &core.faults);
        if failed.is_empty() && renew.is_empty() {
            continue;
        }
        if let Some(failure) = failed.first() {
            tracing::debug!(endpoint = core.name, rows = failed.len(), error = failure.error, "not published");
        }
        let leases = Leases { owner: &core.owner, lease, renew: &renew, failed: &failed };
        match core.store.hold_leases(&leases).await {
            Ok(lost) => dispatcher.lost(&lost),
            // nothing is lost by it: the leases run out and a relay takes the rows
            Err(error) => tracing::warn!(endpoint = core.name, %error, "leases not renewed"),
        }
        if let Some(delay) = failed.iter().map(|failure| failure.delay).min() {
            dispatcher.due_in(delay);
        }
    }
}

/// Deletes what the broker has confirmed, many rows at a time.
pub(crate) async fn delete<Db: Store>(core: Arc<super::core::Core<Db>>) {
    loop {
        core.dispatcher.confirmed.notified().await;
        tokio::time::sleep(GATHER).await;
        delete_all(&core).await;
    }
}

/// Deletes until nothing is left to delete.
pub(crate) async fn delete_all<Db: Store>(core: &super::core::Core<Db>) {
    let _turn = core.dispatcher.deleting.lock().await;
    let mut tries = 0;
    loop {
        let sent = core.dispatcher.take_sent();
        if sent.is_empty() {
            return;
        }
        if let Err(error) = core.store.forget(&sent).await {
            core.dispatcher.lock().sent.extend(sent);
            tries += 1;
            tracing::warn!(endpoint = core.name, tries, %error, "confirmed rows wait for the database");
            tokio::time::sleep(backoff(tries, PAUSE_MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_to_the_relay_and_so_does_all_after_it_until_it_caught_up() {
        let dispatcher = Dispatcher::new(10, mpsc::unbounded_channel().0);
        let small = dispatcher.reserve(8);
        assert!(small.leased);
        let big = dispatcher.reserve(3);
        assert!(!big.leased, "3 more do not fit a window of 10");
        assert!(!dispatcher.reserve(1).leased, "1 would fit, but it would overtake");
        let (_, overflows) = dispatcher.room_for_relay();
        assert_eq!(overflows, None, "a unit is about to commit rows that the relay has not seen");
        drop(big);
        let (_, overflows) = dispatcher.room_for_relay();
        drop(dispatcher.reserve(1)); // comes and goes while the relay looks
        dispatcher.caught_up(overflows);
        assert!(!dispatcher.reserve(1).leased);
        let (room, overflows) = dispatcher.room_for_relay();
        assert_eq!(room, 2);
        dispatcher.caught_up(overflows);
        assert!(dispatcher.reserve(1).leased);
    }
}
