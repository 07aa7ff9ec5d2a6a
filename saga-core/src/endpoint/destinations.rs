//! Destinations without a queue, or whose queue does not answer or refuses: their messages wait, and one message at a
//! time probes whether that has changed.

use super::{requests, trouble::Trouble};
use crate::port::{Backoff, Destination};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two probes: a receiver may start at any moment, and a hundred thousand rows may wait for
/// it.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// A probe that is not answered may keep all else from the broker until it is given up: the pause after it is so many
/// times as long, up to a minute.
const SHARE: u32 = 4;
const SHARE_MAX: Duration = Duration::from_secs(60);
/// After this time without its queue, a process that made requests is gone: its broker link comes back much sooner.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How often a destination that takes messages is asked for rows that wait for it: another process may have put them
/// off.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// The most destinations that are remembered: each of the short-lived reply queues of other programs is one.
const REMEMBERED_MAX: usize = 10_000;

/// The destinations that are closed now.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    closed: HashMap<Destination, Closed>,
    /// Those that take messages, and when rows that wait for them were last asked for.
    open: HashMap<Destination, Instant>,
}

#[derive(Debug)]
struct Closed {
    /// Since when there is no queue, as far as is known: one that does not answer is there.
    missing: Option<Instant>,
    tries: u32,
    pause: Duration,
    probe_at: Instant,
    /// The row that probes now, and since when.
    probe: Option<Uuid>,
    asked: Instant,
    trouble: Trouble,
}

impl Destinations {
    /// Whether a row may be sent; else how long it waits. The first row after that time is the probe, or before it a
    /// row that somebody wants sent now: an operator who has started the receiver must not wait for minutes.
    pub(crate) fn admit(&mut self, destination: &Destination, row: Uuid, wanted: bool) -> Result<(), Duration> {
        let Some(closed) = self.closed.get_mut(destination) else { return Ok(()) };
        let now = Instant::now();
        if closed.probe.is_none() && (wanted || closed.probe_at <= now) {
            (closed.probe, closed.asked) = (Some(row), now);
            return Ok(());
        }
        Err(closed.wait(row, now))
    }

    /// No queue took a row: there is none (`is_missing`), or it does not answer, or it refuses. Returns how long the
    /// row waits.
    pub(crate) fn not_taken(
        &mut self,
        endpoint: &str,
        destination: &Destination,
        row: Uuid,
        is_missing: bool,
        error: &str,
    ) -> Duration {
        if !self.closed.contains_key(destination) && self.closed.len() >= REMEMBERED_MAX {
            self.make_room();
        }
        let now = Instant::now();
        let closed = self.closed.entry(destination.clone()).or_insert_with(|| Closed {
            missing: None,
            tries: 0,
            pause: PAUSE_MIN,
            probe_at: now,
            probe: Some(row),
            asked: now,
            trouble: Trouble::default(),
        });
        closed.missing = if is_missing { closed.missing.or(Some(now)) } else { None };
        if closed.probe == Some(row) {
            closed.probe = None;
            let least = if is_missing { Duration::ZERO } else { (now - closed.asked) * SHARE };
            closed.pause = Backoff::after(PAUSE_MIN, PAUSE_MAX, closed.tries).max(least.min(SHARE_MAX));
            closed.probe_at = now + closed.pause;
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
            return closed.pause;
        }
        closed.wait(row, now)
    }

    /// Forgets a process that is gone: a late answer to it takes another minute to be dropped. Then half of the others,
    /// those whose probe is overdue for longest: nothing waits for them any more.
    fn make_room(&mut self) {
        self.closed.retain(|it, closed| !requests::is_for_answers(it) || !closed.is_gone());
        if self.closed.len() < REMEMBERED_MAX {
            return;
        }
        let mut probes: Vec<Instant> = self.closed.values().map(|closed| closed.probe_at).collect();
        let (_, middle, _) = probes.select_nth_unstable(REMEMBERED_MAX / 2);
        let middle = *middle;
        self.closed.retain(|_, closed| closed.probe_at > middle);
    }

    /// Whether a row is an answer to a request of a process that is gone: nobody waits for it any more.
    pub(crate) fn is_gone(&self, endpoint: &str, destination: &Destination, row: Uuid) -> bool {
        let Some(closed) = self.closed.get(destination) else { return false };
        let is_gone = requests::is_for_answers(destination) && closed.is_gone();
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

    /// A row arrived. Returns whether others may wait for its destination.
    pub(crate) fn arrived(&mut self, endpoint: &str, destination: &Destination) -> bool {
        let is_asked = self.is_asked(destination);
        let Some(closed) = self.closed.remove(destination) else { return is_asked };
        if let Some(lasted) = closed.trouble.ends() {
            tracing::info!(endpoint, destination = destination.name(), ?lasted, "messages arrive again");
        }
        true
    }

    /// Whether it is time to ask for rows that wait for this destination, which takes messages.
    fn is_asked(&mut self, destination: &Destination) -> bool {
        // a reply queue that was missing for long does not come back
        if matches!(destination, Destination::ReplyTo(_)) {
            return false;
        }
        let now = Instant::now();
        if self.open.get(destination).is_some_and(|asked| now - *asked < ASK_EVERY) {
            return false;
        }
        if self.open.len() >= REMEMBERED_MAX && !self.open.contains_key(destination) {
            self.open.clear();
        }
        self.open.insert(destination.clone(), now);
        true
    }
}

impl Closed {
    /// Whether it has been without a queue for too long for a process that comes back.
    fn is_gone(&self) -> bool {
        self.missing.is_some_and(|since| since.elapsed() > GONE_AFTER)
    }

    /// How long a row waits that is not the probe: until a little after it, so that its answer is known by then. They
    /// come one by one in the time of one more pause: a million that came together would keep the relay from all else.
    fn wait(&self, row: Uuid, now: Instant) -> Duration {
        let part = u32::from(row.as_bytes()[15]); // by chance, and the same each time
        self.probe_at.saturating_duration_since(now) + PAUSE_MIN + self.pause / 256 * part
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
        let wait = destinations.not_taken("e", &to, a, true, "no queue");
        assert!(wait <= PAUSE_MIN, "{wait:?}");
        let behind = destinations.not_taken("e", &to, b, true, "no queue");
        assert!(behind > wait && behind <= PAUSE_MIN * 3, "it was on its way already: {behind:?}");
        assert!(destinations.admit(&to, c, false).is_err(), "before the time is up nobody asks");
        tokio::time::advance(PAUSE_MIN).await;
        assert_eq!(destinations.admit(&to, a, false), Ok(()));
        assert!(destinations.admit(&to, b, false).is_err(), "one asks, the others wait");
        for _ in 0..20 {
            let wait = destinations.not_taken("e", &to, a, true, "no queue");
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
            let wait = destinations.not_taken("e", &to, a, true, "no queue");
            tokio::time::advance(wait).await;
            assert_eq!(destinations.admit(&to, a, false), Ok(()));
        }
        assert!(destinations.not_taken("e", &to, a, true, "no queue") > PAUSE_MAX / 2);
        assert!(destinations.admit(&to, a, false).is_err(), "by itself it waits for minutes");
        assert_eq!(destinations.admit(&to, a, true), Ok(()));
        assert!(destinations.admit(&to, b, true).is_err(), "one asks, the others wait");
        destinations.not_taken("e", &to, a, true, "no queue");
        assert!(destinations.admit(&to, a, false).is_err(), "it was asked in vain");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_does_not_come_together() {
        let mut destinations = Destinations::default();
        let to = Destination::Endpoint("later".into());
        let probe = Uuid::from_u128(0);
        for _ in 0..20 {
            let wait = destinations.not_taken("e", &to, probe, true, "no queue");
            tokio::time::advance(wait).await;
            assert_eq!(destinations.admit(&to, probe, false), Ok(()));
        }
        let pause = destinations.not_taken("e", &to, probe, true, "no queue");
        let mut parts = [0; 13];
        for n in 1..=1300 {
            let wait = destinations.admit(&to, Uuid::from_u128(n), false).unwrap_err();
            assert!(wait > pause, "none comes before the probe");
            parts[((wait - pause).as_secs_f64() / pause.as_secs_f64() * 12.) as usize] += 1;
        }
        assert!(parts[..12].iter().all(|rows| (60..160).contains(rows)), "{parts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_that_takes_messages_is_asked_for_what_waits_now_and_then() {
        let mut destinations = Destinations::default();
        let to = Destination::Endpoint("there".into());
        let arrived = |destinations: &mut Destinations| destinations.arrived("e", &to);
        assert!(arrived(&mut destinations), "another process may have put rows off");
        assert!(!arrived(&mut destinations), "it was asked just now");
        tokio::time::advance(ASK_EVERY).await;
        assert!(arrived(&mut destinations) && !arrived(&mut destinations));
        assert!(destinations.arrived("e", &Destination::Event("e".into())), "one of its queues may have been ill");
        assert!(!destinations.arrived("e", &Destination::ReplyTo("r".into())), "one that was gone does not come back");
    }

    #[tokio::test(start_paused = true)]
    async fn queues_that_nobody_waits_for_any_more_make_room_for_others() {
        let mut destinations = Destinations::default();
        let probe = Uuid::from_u128(1);
        for n in 0..REMEMBERED_MAX {
            destinations.not_taken("e", &Destination::ReplyTo(format!("amq.gen-{n}")), probe, true, "no queue");
        }
        tokio::time::advance(PAUSE_MAX).await;
        let to = Destination::Endpoint("restarts".into());
        assert!(destinations.not_taken("e", &to, probe, true, "no queue") <= PAUSE_MIN, "it is probed soon");
        assert!(destinations.closed.len() <= REMEMBERED_MAX / 2 + 1, "{} are remembered", destinations.closed.len());
        assert!(destinations.arrived("e", &to), "what waits for it is reopened");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_lost_leaves_room_for_the_next() {
        let mut destinations = Destinations::default();
        let to = Destination::ReplyTo("gone".into());
        let [a, b] = [1, 2].map(Uuid::from_u128);
        destinations.not_taken("e", &to, a, true, "no queue");
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
            destinations.not_taken("e", to, row, true, "no queue");
        }
        tokio::time::advance(GONE_AFTER).await;
        assert!(!destinations.is_gone("e", &gone, row), "it may come back");
        tokio::time::advance(PAUSE_MIN).await;
        assert!(destinations.is_gone("e", &gone, row));
        assert_eq!(destinations.admit(&gone, row, false), Ok(()), "one answer asks all the same: it may be back");
        assert!(!destinations.is_gone("e", &other, row), "another program's queue is waited for");
        assert!(!destinations.is_gone("e", &Destination::ReplyTo("web-1-b#requests".into()), row), "it is open");
    }

    /// On a channel that is new, RabbitMQ waits for a queue without a majority before it reads anything else.
    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_answer_is_asked_at_most_a_fifth_of_the_time() {
        let mut destinations = Destinations::default();
        let to = Destination::Event("ill".into());
        let row = Uuid::from_u128(1);
        let mut wait = destinations.not_taken("e", &to, row, false, "no confirm");
        for _ in 0..5 {
            tokio::time::advance(wait).await;
            assert_eq!(destinations.admit(&to, row, false), Ok(()));
            tokio::time::advance(Duration::from_secs(10)).await;
            wait = destinations.not_taken("e", &to, row, false, "no confirm");
            assert!(wait >= Duration::from_secs(40) && wait <= SHARE_MAX, "{wait:?}");
        }
        tokio::time::advance(wait).await;
        assert_eq!(destinations.admit(&to, row, false), Ok(()));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(destinations.not_taken("e", &to, row, false, "the broker was away") <= SHARE_MAX);
    }

    /// The process may be alive, and wait for what is in the outbox.
    #[tokio::test(start_paused = true)]
    async fn answers_to_a_process_whose_queue_does_not_answer_are_not_dropped() {
        let mut destinations = Destinations::default();
        let to = Destination::ReplyTo("web-1-a#requests".into());
        let row = Uuid::from_u128(1);
        destinations.not_taken("e", &to, row, false, "no confirm");
        tokio::time::advance(GONE_AFTER * 2).await;
        assert!(!destinations.is_gone("e", &to, row), "its queue is there");
        destinations.not_taken("e", &to, row, true, "no queue");
        assert!(!destinations.is_gone("e", &to, row), "its queue went just now");
        tokio::time::advance(GONE_AFTER + PAUSE_MIN).await;
        assert!(destinations.is_gone("e", &to, row));
        destinations.not_taken("e", &to, row, false, "no confirm");
        assert!(!destinations.is_gone("e", &to, row), "it is back");
    }
}
