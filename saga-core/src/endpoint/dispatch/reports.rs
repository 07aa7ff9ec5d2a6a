//! What follows from the transport's reports.

use super::{Dispatcher, InFlight, PAUSE_MIN};
use crate::{
    CrashPoint, Crashes,
    port::{Backoff, Destination, Fate, PublishFailed, Report},
};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The longest pause before another try, for a message that the broker refused or whose fate is unknown.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What follows from reports.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Rows whose lease ends, with the delay until the next try.
    pub(super) failed: Vec<PublishFailed>,
    /// Destinations that take messages again.
    pub(super) reopened: Vec<String>,
    /// No destination refuses messages.
    pub(super) is_published: bool,
}

impl Dispatcher {
    /// Takes in reports, and what was put off since the last call.
    pub(super) fn account(&self, reports: &mut Vec<Report>, crashes: &Crashes) -> Accounts {
        if reports.iter().any(|report| report.fate == Fate::Confirmed) {
            crashes.reach(CrashPoint::BeforeConfirm);
        }
        let mut state = self.lock();
        let mut failed = Vec::new();
        for Report { row, fate } in reports.drain(..) {
            let Some(InFlight { attempts, destination, .. }) = state.ended(&row) else { continue };
            let is_missing = matches!(fate, Fate::Unroutable(_));
            // the other subscribers have got an event that one queue refused: it is not closed to them
            let is_event = matches!(destination, Destination::Event(_));
            let fate = match fate {
                Fate::QueueRefused(error) if is_event => Fate::Refused(error),
                other => other,
            };
            match fate {
                Fate::Confirmed => {
                    state.confirmed.push(row);
                    state.refused.remove(&destination);
                    if state.destinations.arrived(&self.endpoint, &destination) {
                        state.reopened.push(destination.name().to_owned());
                    }
                }
                Fate::Unroutable(error) | Fate::Unanswered(error) | Fate::QueueRefused(error) => {
                    let delay = state.destinations.not_taken(&self.endpoint, &destination, row, is_missing, &error);
                    if state.destinations.is_gone(&self.endpoint, &destination, row) {
                        state.confirmed.push(row);
                        continue;
                    }
                    failed.push(PublishFailed { id: row, error, delay, unroutable: true, tried: true });
                }
                Fate::Refused(error) | Fate::Unknown(error) => {
                    state.destinations.forget_probe(&destination, row);
                    state.refused.insert(destination, Instant::now());
                    let delay = Backoff::after(PAUSE_MIN, RETRY_MAX, attempts + 1);
                    failed.push(PublishFailed { id: row, error, delay, unroutable: false, tried: true });
                }
            }
        }
        failed.append(&mut state.put_off);
        state.failing.extend(failed.iter().map(|failure| failure.id));
        // one that is not tried any more has no rows
        state.refused.retain(|_, tried| tried.elapsed() < 2 * RETRY_MAX);
        let (reopened, is_published) = (std::mem::take(&mut state.reopened), state.refused.is_empty());
        let accounts = Accounts { failed, reopened, is_published };
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
    pub(super) fn lost(&self, rows: &[Uuid]) {
        let mut state = self.lock();
        for row in rows {
            if let Some(InFlight { destination, .. }) = state.ended(row) {
                state.destinations.forget_probe(&destination, *row);
            }
        }
        if state.in_flight.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}
