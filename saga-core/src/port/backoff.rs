//! Pauses between tries.

use crate::ambient;
use std::time::Duration;

/// Pauses between the tries of one call. They double from `min` to `cap`; each is shortened at random by up to a
/// quarter, so that processes that failed together do not retry together.
///
/// ```
/// use sagabus::port::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
/// assert!(backoff.next() <= Duration::from_millis(100));
/// assert!(backoff.next() <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.next() <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Pauses from `min` to `cap`.
    pub fn new(min: Duration, cap: Duration) -> Self {
        Self { min, cap, tries: 0 }
    }

    /// How long to wait before the next try.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is not an iterator")]
    pub fn next(&mut self) -> Duration {
        let pause = Self::after(self.min, self.cap, self.tries);
        self.tries = self.tries.saturating_add(1);
        pause
    }

    /// Waits until the next try.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// A try succeeded: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Pauses asked for since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The pause after a number of failed tries, for callers that keep the count elsewhere (in a row, say).
    pub fn after(min: Duration, cap: Duration, tries: u32) -> Duration {
        let base = min.saturating_mul(1 << tries.min(20)).min(cap);
        let spread = u32::from(ambient::byte());
        base.saturating_sub(base / (4 * 255) * spread) // divided first: the longest pause must not overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r_009_pauses_stay_within_their_bounds() {
        let cap = Duration::from_secs(5);
        let mut backoff = Backoff::new(Duration::from_millis(100), cap);
        for n in 0..40 {
            let pause = backoff.next();
            assert!(pause <= cap, "{pause:?} is above the cap at try {n}");
            assert!(pause >= Duration::from_millis(75), "{pause:?} is too short at try {n}");
        }
        assert_eq!(backoff.tries(), 40);
        let min = Duration::from_millis(100);
        for tries in (0..40).chain([u32::MAX]) {
            let base = min.saturating_mul(1 << tries.min(20)).min(cap);
            let pauses: Vec<_> = (0..25).map(|_| Backoff::after(min, cap, tries)).collect();
            let fits = |pause: &Duration| (base * 3 / 4..=base).contains(pause);
            assert!(pauses.iter().all(fits), "{tries} tries: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{tries} tries: all the same");
        }
        assert!(Backoff::after(Duration::MAX, Duration::MAX, u32::MAX) > Duration::MAX / 2, "no overflow");
    }
}
