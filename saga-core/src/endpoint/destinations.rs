//! Destinations without a queue, or whose queue does not answer: their messages wait, and one message at a time probes
//! whether that has changed.

use super::{requests, trouble::Trouble};
use crate::port::{Backoff, Destination};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two probes: a receiver may start at any moment, and a hundred thousand rows may wait for
/// it.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// After this time without its queue, a process that made requests is gone: its broker link comes back much sooner.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// The most destinations that are remembered: each of the short-lived reply queues of other programs is one.
const REMEMBERED_MAX: usize = 10_000;

/// The destinations that are closed now.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    closed: HashMap<Destination, Closed>,
}

#[derive(Debug)]
struct Closed {
    since: Instant,
    tries: u32,
    probe_at: Instant,
    /// The row that probes now.
    probe: Option<Uuid>,
    trouble: Trouble,
}

impl Destinations {
    /// Whether a row may be sent; else how long it waits. The first row after that time is the probe, or before it a
    /// row that somebody wants sent now: an operator who has started the receiver must not wait for minutes.
    pub(crate) fn admit(&mut self, destination: &Destination, row: Uuid, wanted: bool) -> Result<(), Duration> {
        let Some(closed) = self.closed.get_mut(destination) else { return Ok(()) };
        let now = Instant::now();
        if closed.probe.is_none() && (wanted || closed.probe_at <= now) {
            closed.probe = Some(row);
            return Ok(());
        }
        // a little after the probe, so that its answer is known by then
        Err(closed.probe_at.saturating_duration_since(now) + PAUSE_MIN)
    }

    /// No queue took a row, or the queue does not answer. Returns how long it waits.
    pub(crate) fn unroutable(&mut self, endpoint: &str, destination: &Destination, row: Uuid, error: &str) -> Duration {
        if !self.closed.contains_key(destination) && self.closed.len() >= REMEMBERED_MAX {
            // a process that is gone is forgotten; a late answer to it takes another minute to be dropped
            self.closed.retain(|it, closed| !requests::is_for_answers(it) || closed.since.elapsed() <= GONE_AFTER);
            if self.closed.len() >= REMEMBERED_MAX {
                return PAUSE_MAX;
            }
        }
        let now = Instant::now();
        let closed = self.closed.entry(destination.clone()).or_insert_with(|| Closed {
            since: now,
            tries: 0,
            probe_at: now,
            probe: Some(row),
            trouble: Trouble::default(),
        });
        if closed.probe == Some(row) {
            closed.probe = None;
            closed.probe_at = now + Backoff::after(PAUSE_MIN, PAUSE_MAX, closed.tries);
            closed.tries = closed.tries.saturating_add(1);
            if let Some(said) = closed.trouble.begins() {
                let destination = destination.name();
                tracing::warn!(
                    endpoint,
                    destination,
                    error,
                    since = ?said.since,
                    "messages for `{destination}` do not arrive: is it running? they wait in the outbox"
                );
            }
        }
        closed.probe_at.saturating_duration_since(now)
    }

    /// Whether a row is an answer to a request of a process that is gone: nobody waits for it any more.
    pub(crate) fn is_gone(&self, endpoint: &str, destination: &Destination, row: Uuid) -> bool {
        let Some(closed) = self.closed.get(destination) else { return false };
        let is_gone = requests::is_for_answers(destination) && closed.since.elapsed() > GONE_AFTER;
        if is_gone {
            let to = destination.name();
            tracing::debug!(endpoint, %row, to, "an answer is dropped: the process that made the request is gone");
        }
        is_gone
    }

    /// Whether a destination of this name is closed.
    pub(crate) fn is_closed(&self, name: &str) -> bool {
        self.closed.keys().any(|destination| destination.name() == name)
    }

    /// A row was not answered, or was refused: that says nothing about the destination, but ends the probe.
    pub(crate) fn forget_probe(&mut self, destination: &Destination, row: Uuid) {
        if let Some(closed) = self.closed.get_mut(destination)
            && closed.probe == Some(row)
        {
            closed.probe = None;
        }
    }

    /// A row arrived. Returns whether its destination was closed until now.
    pub(crate) fn arrived(&mut self, endpoint: &str, destination: &Destination) -> bool {
        if self.closed.is_empty() {
            return false;
        }
        let Some(closed) = self.closed.remove(destination) else { return false };
        if let Some(lasted) = closed.trouble.ends() {
            tracing::info!(endpoint, destination = destination.name(), ?lasted, "messages arrive again");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_row_at_a_time_asks_whether_a_destination_is_back() {
        let mut destinations = Destinations::default();
        let to = Destination::Endpoint("later".into());
        let [a, b, c] = [1, 2, 3].map(Uuid::from_u128);
        assert_eq!(destinations.admit(&to, a, false), Ok(()));
        let wait = destinations.unroutable("e", &to, a, "no queue");
        assert!(wait <= PAUSE_MIN, "{wait:?}");
        assert!(destinations.unroutable("e", &to, b, "no queue") <= PAUSE_MIN, "it was on its way already");
        assert!(destinations.admit(&to, c, false).is_err(), "before the time is up nobody asks");
        tokio::time::advance(PAUSE_MIN).await;
        assert_eq!(destinations.admit(&to, a, false), Ok(()));
        assert!(destinations.admit(&to, b, false).is_err(), "one asks, the others wait");
        for _ in 0..20 {
            let wait = destinations.unroutable("e", &to, a, "no queue");
            assert!(wait <= PAUSE_MAX, "{wait:?}");
            tokio::time::advance(wait).await;
            assert_eq!(destinations.admit(&to, a, false), Ok(()));
        }
        assert!(destinations.arrived("e", &to), "it was closed");
        assert!(!destinations.arrived("e", &to), "it is open");
        assert_eq!(destinations.admit(&to, b, false), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_an_operator_wants_sent_asks_at_once_and_alone() {
        let mut destinations = Destinations::default();
        let to = Destination::Endpoint("later".into());
        let [a, b] = [1, 2].map(Uuid::from_u128);
        for _ in 0..20 {
            let wait = destinations.unroutable("e", &to, a, "no queue");
            tokio::time::advance(wait).await;
            assert_eq!(destinations.admit(&to, a, false), Ok(()));
        }
        assert!(destinations.unroutable("e", &to, a, "no queue") > PAUSE_MAX / 2);
        assert!(destinations.admit(&to, a, false).is_err(), "by itself it waits for minutes");
        assert_eq!(destinations.admit(&to, a, true), Ok(()));
        assert!(destinations.admit(&to, b, true).is_err(), "one asks, the others wait");
        destinations.unroutable("e", &to, a, "no queue");
        assert!(destinations.admit(&to, a, false).is_err(), "it was asked in vain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_lost_leaves_room_for_the_next() {
        let mut destinations = Destinations::default();
        let to = Destination::ReplyTo("gone".into());
        let [a, b] = [1, 2].map(Uuid::from_u128);
        destinations.unroutable("e", &to, a, "no queue");
        tokio::time::advance(PAUSE_MIN).await;
        assert_eq!(destinations.admit(&to, a, false), Ok(()));
        destinations.forget_probe(&to, a);
        assert_eq!(destinations.admit(&to, b, false), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_a_process_that_is_gone_are_dropped_and_others_wait() {
        let mut destinations = Destinations::default();
        let (gone, other) = (Destination::ReplyTo("web-1-a#requests".into()), Destination::ReplyTo("a".into()));
        let row = Uuid::from_u128(1);
        for to in [&gone, &other] {
            destinations.unroutable("e", to, row, "no queue");
        }
        tokio::time::advance(GONE_AFTER).await;
        assert!(!destinations.is_gone("e", &gone, row), "it may come back");
        tokio::time::advance(PAUSE_MIN).await;
        assert!(destinations.is_gone("e", &gone, row));
        assert_eq!(destinations.admit(&gone, row, false), Ok(()), "one answer asks all the same: it may be back");
        assert!(!destinations.is_gone("e", &other, row), "another program's queue is waited for");
        assert!(!destinations.is_gone("e", &Destination::ReplyTo("web-1-b#requests".into()), row), "it is open");
    }
}
