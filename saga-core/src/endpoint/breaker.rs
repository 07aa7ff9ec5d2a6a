//! The breaker of a handler: when message after message fails, a service behind it is probably away, and the queue must not be emptied
//! into `held`. The handler then runs one message at a time, with pauses, until one succeeds.

use crate::retry::backoff;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard};

/// So many messages in a row must fail for good, or be put off.
const FAILURES: u32 = 10;
/// The longest pause between two messages.
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: AtomicU32,
    one_at_a_time: Mutex<()>,
}

impl Breaker {
    /// Whether the handler is slowed down.
    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// Waits for one's turn, and for the pause.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        let turn = self.one_at_a_time.lock().await;
        let failures = self.failures.load(Ordering::Relaxed);
        if failures >= FAILURES {
            tokio::time::sleep(backoff(failures - FAILURES, PAUSE_MAX)).await;
        }
        turn
    }

    /// A message failed in a way that trying again may help.
    pub(crate) fn failed(&self, handler: &str) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES {
            tracing::warn!(
                handler,
                "{FAILURES} messages in a row failed: one at a time from here on, until one succeeds"
            );
        }
    }

    /// A message was handled.
    pub(crate) fn succeeded(&self, handler: &str) {
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            tracing::info!(handler, "a message succeeded: full speed again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_014_ten_failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..9 {
            breaker.failed("h");
        }
        breaker.succeeded("h");
        for n in 0..10 {
            assert!(!breaker.is_open(), "open after {n}");
            breaker.failed("h");
        }
        assert!(breaker.is_open());
        breaker.succeeded("h");
        assert!(!breaker.is_open());
    }
}
