//! The times of calls that this process has, and the line of messages that wait in the outbox for one.

use std::time::Duration;
use tokio::time::Instant;

/// Times are taken for so long in advance, and one that is so late is given up: no more calls than that come at once.
const AHEAD: Duration = Duration::from_millis(250);
/// A lane waits so long for the turn of a key, and messages with other keys may wait for it. It is so long because what
/// was put off comes back a little late, and together.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// Times of calls that the database has given.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) next: Instant,
    pub(super) left: u32,
}

/// How many times of calls are taken at once.
pub(super) fn at_once(every: Duration) -> u32 {
    u32::try_from(AHEAD.as_micros() / every.as_micros().max(1)).unwrap_or(u32::MAX).max(1)
}

impl Times {
    /// Gives up those that have passed.
    pub(super) fn drop_late(&mut self, every: Duration, now: Instant) {
        while self.left > 0 && self.next + AHEAD < now {
            self.take(every);
        }
    }

    pub(super) fn take(&mut self, every: Duration) -> Instant {
        let next = self.next + every;
        self.left -= 1;
        std::mem::replace(&mut self.next, next)
    }
}

/// Those that were put off until their turn.
#[derive(Debug)]
pub(super) struct Line {
    /// When the next one comes again that is put off: as far behind the one before as its call will be.
    pub(super) end: Instant,
    /// Nobody has a turn before: so the database has said.
    pub(super) not_before: Instant,
}

impl Line {
    pub(super) fn at(now: Instant) -> Self {
        Self { end: now, not_before: now }
    }

    /// One more, not before `next`. Returns when it comes again, at the latest after `longest`.
    pub(super) fn put_off(&mut self, now: Instant, next: Instant, every: Duration, longest: Duration) -> Duration {
        let comes = self.end.max(next).min(now + longest);
        self.end = comes + every;
        comes - now
    }

    /// One less.
    pub(super) fn leave(&mut self, every: Duration) {
        self.end = self.end.checked_sub(every).unwrap_or(self.end);
    }
}

/// When a call for a key may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum Turn {
    /// At this time, which is soon: nobody else takes it.
    At(Instant),
    /// About after this time.
    In(Duration),
}

/// Calls for one key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) times: Times,
    pub(super) line: Line,
}

impl Key {
    pub(super) fn at(now: Instant) -> Self {
        Self { times: Times { next: now, left: 0 }, line: Line::at(now) }
    }

    /// The next turn, if its time is known. `was`: it is for a message that was put off before.
    pub(super) fn turn(&mut self, every: Duration, was: bool) -> Option<Turn> {
        let now = Instant::now();
        self.times.drop_late(every, now);
        match self.comes_in(now, was) {
            Some(delay) => Some(Turn::In(delay)),
            None => (self.times.left > 0).then(|| Turn::At(self.times.take(every))),
        }
    }

    /// In what time the next turn comes, if that is not soon.
    pub(super) fn comes_in(&self, now: Instant, was: bool) -> Option<Duration> {
        let next = if was { self.next() } else { self.next().max(self.line.end) };
        (next > now + SOON).then(|| next - now)
    }

    /// Nobody has a turn before.
    pub(super) fn next(&self) -> Instant {
        if self.times.left > 0 { self.times.next } else { self.line.not_before }
    }
}
