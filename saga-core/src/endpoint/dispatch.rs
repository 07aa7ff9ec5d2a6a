//! Dispatch: committed messages go to the broker straight from memory, in a window of confirms.
//!
//! What does not fit the window stays in the outbox without a lease, and so does everything after it until the relay
//! has caught up: otherwise a later message of the same key could overtake an earlier one. `leases` takes in the
//! reports, `confirmed` deletes the rows of confirmed messages, `relay` sends what is left to it.

use super::destinations::Destinations;
use crate::{
    CrashPoint, Crashes, Envelope,
    port::{Backoff, Destination, Fate, LeasedRow, OutboxRow, Outgoing, PublishFailed, Report},
};
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

/// The most confirmed rows that one statement deletes.
const CONFIRMED_ROWS_MAX: usize = 5000;
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause before another try, for a message that the broker refused or whose fate is unknown.
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Dispatcher {
    endpoint: String,
    window: usize,
    state: Mutex<State>,
    /// Wakes the relay.
    pub(crate) relay: Notify,
    /// Wakes the task that waits for an empty window.
    emptied: Notify,
    /// Wakes the task that deletes confirmed rows.
    pub(crate) confirmed: Notify,
    /// Wakes the task that keeps the leases.
    pub(crate) leases: Notify,
    /// Held while rows are being deleted: `stop` waits for it.
    pub(crate) deleting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// To the transport; `None` once the endpoint has stopped.
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
    /// Rows between reservation and report.
    in_flight: HashMap<Uuid, InFlight>,
    reserved: usize,
    confirmed: Vec<Uuid>,
    destinations: Destinations,
    /// Rows that were not sent because their destination is closed: their leases must end.
    put_off: Vec<PublishFailed>,
    /// Destinations that take messages again.
    reopened: Vec<String>,
    /// Rows were left to the relay, which has not caught up yet.
    overflow: bool,
    /// Units that are about to commit rows for the relay.
    overflowing: usize,
    /// One of those units has ended since the relay looked.
    left: bool,
    /// Counts those units, so that the relay notices one that began and ended while it looked.
    overflows: u64,
    next_due: Option<Instant>,
}

struct InFlight {
    /// Tries before this one.
    attempts: u32,
    destination: Destination,
}

/// Room for the rows of one unit of work; given back when dropped without `enqueue`.
pub(crate) struct Reservation<'a> {
    dispatcher: &'a Dispatcher,
    rows: usize,
    /// The rows fit: they carry our lease and are sent from memory.
    pub(crate) leased: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.dispatcher.lock();
        debug_assert!(state.reserved >= self.rows, "room was given back twice");
        state.reserved -= self.rows;
        if !self.leased {
            debug_assert!(state.overflowing > 0, "a unit overflowed once and ended twice");
            state.overflowing -= 1;
            state.left = true;
            self.dispatcher.relay.notify_one();
        }
    }
}

/// What follows from reports.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Rows whose lease ends, with the delay until the next try.
    pub(crate) failed: Vec<PublishFailed>,
    /// Destinations that take messages again.
    pub(crate) reopened: Vec<String>,
}

impl Dispatcher {
    /// The channel itself is unbounded; the window bounds what enters it.
    pub(crate) fn new(endpoint: &str, window: usize, outgoing: mpsc::UnboundedSender<Outgoing>) -> Arc<Self> {
        Arc::new(Self {
            endpoint: endpoint.into(),
            window,
            state: Mutex::new(State { outgoing: Some(outgoing), ..State::default() }),
            relay: Notify::new(),
            emptied: Notify::new(),
            confirmed: Notify::new(),
            leases: Notify::new(),
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
    pub(crate) fn reserve(&self, rows: usize) -> Reservation<'_> {
        let mut state = self.lock();
        let fits = !state.overflow && state.in_flight.len() + state.reserved + rows <= self.window;
        if fits || rows == 0 {
            state.reserved += rows;
            return Reservation { dispatcher: self, rows, leased: true };
        }
        state.overflow = true;
        state.overflowing += 1;
        state.overflows += 1;
        Reservation { dispatcher: self, rows: 0, leased: false }
    }

    /// Sends what was committed; tells the relay when the next delayed row is due.
    pub(crate) fn enqueue(&self, reservation: Reservation<'_>, rows: Vec<OutboxRow>) {
        if reservation.leased {
            let leased = rows.iter().filter(|row| row.leased);
            self.push(leased.map(|row| (row.id, &row.envelope, 0, 0, &row.destination)));
        }
        if let Some(delay) = rows.iter().filter_map(|row| row.delay).min() {
            self.due_in(delay);
        }
    }

    /// Sends what the relay has leased.
    pub(crate) fn send(&self, rows: &[LeasedRow]) {
        self.push(rows.iter().map(|row| (row.id, &row.envelope, row.attempts, row.expired, &row.destination)));
    }

    fn push<'a>(&self, rows: impl Iterator<Item = (Uuid, &'a Arc<Envelope>, u32, u32, &'a Destination)>) {
        let mut state = self.lock();
        for (row, envelope, attempts, expired, destination) in rows {
            if let Err(delay) = state.destinations.admit(destination, row) {
                let error = format!("no queue takes messages for `{}`", destination.name());
                state.put_off.push(PublishFailed { id: row, error, delay, unroutable: true, tried: false });
                continue;
            }
            state.in_flight.insert(row, InFlight { attempts, destination: destination.clone() });
            let (destination, envelope) = (destination.clone(), envelope.clone());
            let message = Outgoing { row, destination, envelope, attempts, expired };
            // after `stop` the lease runs out and a relay takes the row
            let _ = state.outgoing.as_ref().map(|outgoing| outgoing.send(message));
        }
        if !state.put_off.is_empty() {
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
        if state.overflow && (state.overflowing == 0 || state.left) {
            return Instant::now();
        }
        state.next_due.map_or(poll, |due| due.min(poll))
    }

    /// The relay looks now and finds what is due.
    pub(crate) fn forget_due(&self) {
        let mut state = self.lock();
        (state.next_due, state.left) = (None, false);
    }

    /// How many rows a relay may lease now, and the count of overflows so far.
    pub(crate) fn room_for_relay(&self) -> (usize, Option<u64>) {
        let state = self.lock();
        let room = self.window.saturating_sub(state.in_flight.len() + state.reserved);
        (room, (state.overflowing == 0).then_some(state.overflows))
    }

    /// The relay found nothing more: if no unit has left rows meanwhile, messages may go from memory again.
    pub(crate) fn caught_up(&self, overflows: Option<u64>) {
        let mut state = self.lock();
        if overflows == Some(state.overflows) {
            state.overflow = false;
        }
    }

    /// Confirmed rows to delete, sorted.
    pub(crate) fn take_confirmed(&self) -> Vec<Uuid> {
        let mut state = self.lock();
        let rows = state.confirmed.len().min(CONFIRMED_ROWS_MAX);
        let mut confirmed: Vec<Uuid> = state.confirmed.drain(..rows).collect();
        confirmed.sort_unstable();
        confirmed
    }

    /// The rows could not be deleted.
    pub(crate) fn give_back_confirmed(&self, rows: Vec<Uuid>) {
        self.lock().confirmed.extend(rows);
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
    pub(crate) fn in_flight(&self) -> Vec<Uuid> {
        let mut rows: Vec<Uuid> = self.lock().in_flight.keys().copied().collect();
        rows.sort_unstable();
        rows
    }

    /// Takes in reports, and what was put off since the last call.
    pub(crate) fn account(&self, reports: &mut Vec<Report>, crashes: &Crashes) -> Accounts {
        if reports.iter().any(|report| report.fate == Fate::Confirmed) {
            crashes.reach(CrashPoint::BeforeConfirm);
        }
        let mut state = self.lock();
        let mut failed = Vec::new();
        for Report { row, fate } in reports.drain(..) {
            let Some(InFlight { attempts, destination }) = state.in_flight.remove(&row) else { continue };
            match fate {
                Fate::Confirmed => {
                    state.confirmed.push(row);
                    if state.destinations.arrived(&self.endpoint, &destination) {
                        state.reopened.push(destination.name().to_owned());
                    }
                }
                Fate::Unroutable(error) => {
                    let delay = state.destinations.unroutable(&self.endpoint, &destination, row, &error);
                    failed.push(PublishFailed { id: row, error, delay, unroutable: true, tried: true });
                }
                Fate::Refused(error) | Fate::Unknown(error) => {
                    state.destinations.forget_probe(&destination, row);
                    let delay = Backoff::after(RETRY_MIN, RETRY_MAX, attempts + 1);
                    failed.push(PublishFailed { id: row, error, delay, unroutable: false, tried: true });
                }
            }
        }
        failed.append(&mut state.put_off);
        let accounts = Accounts { failed, reopened: std::mem::take(&mut state.reopened) };
        let (confirmed, empty) = (!state.confirmed.is_empty(), state.in_flight.is_empty());
        drop(state);
        if confirmed {
            crashes.reach(CrashPoint::BeforeDelete);
            self.confirmed.notify_one();
        }
        if empty {
            self.emptied.notify_waiters();
        }
        accounts
    }

    /// The leases of these rows were lost: another process sends them.
    pub(crate) fn lost(&self, rows: &[Uuid]) {
        let mut state = self.lock();
        for row in rows {
            if let Some(InFlight { destination, .. }) = state.in_flight.remove(row) {
                state.destinations.forget_probe(&destination, *row);
            }
        }
        if state.in_flight.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatcher() -> (Arc<Dispatcher>, mpsc::UnboundedReceiver<Outgoing>) {
        let (outgoing, sent) = mpsc::unbounded_channel();
        (Dispatcher::new("e", 10, outgoing), sent)
    }

    fn row(n: u128, to: &str) -> LeasedRow {
        LeasedRow {
            id: Uuid::from_u128(n),
            destination: Destination::Endpoint(to.into()),
            envelope: Arc::new(Envelope::new("m", "t", "{}")),
            attempts: 0,
            expired: 0,
        }
    }

    fn report(n: u128, fate: Fate) -> Report {
        Report { row: Uuid::from_u128(n), fate }
    }

    #[test]
    fn what_does_not_fit_goes_to_the_relay_and_so_does_all_after_it_until_it_caught_up() {
        let (dispatcher, _sent) = dispatcher();
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

    #[tokio::test(start_paused = true)]
    async fn the_relay_looks_for_what_a_unit_left_while_the_next_one_is_about_to_leave_more() {
        let (dispatcher, _sent) = dispatcher();
        let poll = Instant::now() + Duration::from_secs(2);
        let (first, second) = (dispatcher.reserve(11), dispatcher.reserve(11));
        assert_eq!(dispatcher.relay_at(poll), poll, "nothing is committed yet");
        drop(first);
        assert_eq!(dispatcher.relay_at(poll), Instant::now());
        dispatcher.forget_due();
        assert_eq!(dispatcher.relay_at(poll), poll, "it has looked");
        drop(second);
        assert_eq!(dispatcher.relay_at(poll), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_to_a_closed_destination_waits_behind_one_probe() {
        let (dispatcher, mut sent) = dispatcher();
        let crashes = Crashes::default();
        dispatcher.send(&[row(1, "later"), row(2, "there")]);
        let mut reports = vec![report(1, Fate::Unroutable("no queue".into())), report(2, Fate::Confirmed)];
        let Accounts { failed, reopened } = dispatcher.account(&mut reports, &crashes);
        assert_eq!((failed.len(), failed[0].unroutable, failed[0].tried), (1, true, true));
        assert!(reopened.is_empty());
        assert!(sent.try_recv().is_ok() && sent.try_recv().is_ok());
        dispatcher.send(&[row(3, "later"), row(4, "there")]);
        assert_eq!(sent.try_recv().map(|message| message.row), Ok(Uuid::from_u128(4)), "row 3 was expected to wait");
        let Accounts { failed, .. } = dispatcher.account(&mut Vec::new(), &crashes);
        assert_eq!((failed.len(), failed[0].id, failed[0].tried), (1, Uuid::from_u128(3), false));
        tokio::time::advance(Duration::from_secs(600)).await;
        dispatcher.send(&[row(1, "later")]);
        let mut reports = vec![report(1, Fate::Confirmed)];
        assert_eq!(dispatcher.account(&mut reports, &crashes).reopened, ["later"]);
    }

    #[tokio::test]
    async fn lost_leases_empty_the_window_too() {
        let (dispatcher, _sent) = dispatcher();
        dispatcher.send(&[row(1, "there")]);
        let waiting = tokio::spawn({
            let dispatcher = dispatcher.clone();
            async move { dispatcher.emptied().await }
        });
        tokio::task::yield_now().await;
        dispatcher.lost(&[Uuid::from_u128(1)]);
        waiting.await.expect("`emptied` was expected to end when the last lease is lost");
    }
}
