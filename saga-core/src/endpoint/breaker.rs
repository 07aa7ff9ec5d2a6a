//! The breaker of a handler: when message after message fails, a service behind the handler is probably down, and the
//! queue must not be emptied into `held`. The handler then runs one message at a time, with pauses, until one succeeds.
//! Each handler has its own lanes, so no other handler waits.

use super::trouble::Trouble;
use crate::port::Backoff;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::sync::{Mutex, MutexGuard};

/// Consecutive failed messages that open the breaker.
const FAILURES: u32 = 10;
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two messages.
const PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: AtomicU32,
    one_at_a_time: Mutex<()>,
    trouble: Trouble,
}

impl Breaker {
    /// Whether the handler is slowed down.
    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// How long messages have failed.
    pub(crate) fn lasts(&self) -> Duration {
        self.trouble.lasts()
    }

    /// The pause before the next message.
    pub(crate) fn pause(&self) -> Duration {
        match self.failures.load(Ordering::Relaxed).checked_sub(FAILURES) {
            Some(more) => Backoff::after(PAUSE_MIN, PAUSE_MAX, more),
            None => Duration::ZERO,
        }
    }

    /// Waits until one message may run: for its turn and for the pause.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        let turn = self.one_at_a_time.lock().await;
        tokio::time::sleep(self.pause()).await;
        turn
    }

    /// A message failed in a way that a retry may cure.
    pub(crate) fn failed(&self, endpoint: &str, receiver: &str, error: &str) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let Some(said) = self.trouble.begins() else { return };
        let slowed = if failures >= FAILURES { "; one message at a time until one succeeds" } else { "" };
        tracing::warn!(
            endpoint,
            receiver,
            error,
            failures,
            unsaid = said.unsaid,
            "messages fail and are put off or held{slowed}"
        );
    }

    /// A message was handled: logs the end of trouble, if there was any.
    pub(crate) fn handled(&self, endpoint: &str, receiver: &str) {
        if self.failures.swap(0, Ordering::Relaxed) == 0 && !self.trouble.is_there() {
            return;
        }
        if let Some(lasted) = self.trouble.ends() {
            tracing::info!(endpoint, receiver, ?lasted, "messages succeed again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn r_014_ten_failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..9 {
            breaker.failed("e", "h", "no");
        }
        breaker.handled("e", "h");
        for n in 0..10 {
            assert!(!breaker.is_open(), "open after {n}");
            assert_eq!(breaker.pause(), Duration::ZERO);
            breaker.failed("e", "h", "no");
        }
        assert!(breaker.is_open());
        assert!(breaker.pause() > Duration::ZERO);
        breaker.handled("e", "h");
        assert!(!breaker.is_open());
    }
}
