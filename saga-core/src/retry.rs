//! Recoverability: what happens to a message whose handler failed, as a pure function of the failure.

use crate::Envelope;
use std::{fmt, sync::Arc, time::Duration};

/// A handler's failure, as a policy sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// The message.
    pub envelope: &'a Envelope,
    /// The error with its causes.
    pub error: &'a str,
    /// The handler said that trying again is no use.
    pub permanent: bool,
    /// The handler asked to be tried again after this time.
    pub retry_after: Option<Duration>,
    /// Runs in this round, this one included.
    pub runs_in_round: u32,
    /// Delayed retries before this round.
    pub round: u32,
}

/// What a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Run it again at once.
    RetryNow,
    /// Put it off; it holds no connection and no slot meanwhile.
    RetryAfter(Duration),
    /// Hold it for a person.
    Hold,
    /// Journal it as discarded.
    Discard,
}

/// A policy of the user's own.
type Policy = dyn Fn(&Failure<'_>) -> Decision + Send + Sync;

/// Immediate retries, then delayed ones, then held.
///
/// The default is that of NServiceBus in spirit: 3 at once, then after 10, 20 and 30 seconds.
///
/// ```
/// use saga_core::Retries;
/// use std::time::Duration;
///
/// let patient = Retries::none().immediate(1).delayed([1, 5, 25].map(Duration::from_secs));
/// ```
#[derive(Clone)]
pub struct Retries {
    immediate: u32,
    delayed: Vec<Duration>,
    custom: Option<Arc<Policy>>,
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries").field("immediate", &self.immediate).field("delayed", &self.delayed).finish()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::none().immediate(3).delayed([10, 20, 30].map(Duration::from_secs))
    }
}

impl Retries {
    /// A failed message is held at once.
    pub fn none() -> Self {
        Self { immediate: 0, delayed: Vec::new(), custom: None }
    }

    /// So many retries at once in each round.
    pub fn immediate(mut self, retries: u32) -> Self {
        self.immediate = retries;
        self
    }

    /// After these delays, one round each.
    pub fn delayed(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.delayed = delays.into_iter().collect();
        self
    }

    /// A policy of one's own: a pure function, so that the same failure gets the same answer.
    pub fn by(policy: impl Fn(&Failure<'_>) -> Decision + Send + Sync + 'static) -> Self {
        Self { custom: Some(Arc::new(policy)), ..Self::none() }
    }

    /// What happens now.
    pub fn decide(&self, failure: &Failure<'_>) -> Decision {
        if let Some(policy) = &self.custom {
            return policy(failure);
        }
        if failure.permanent {
            return Decision::Hold;
        }
        if let Some(delay) = failure.retry_after {
            return Decision::RetryAfter(delay);
        }
        if failure.runs_in_round <= self.immediate {
            return Decision::RetryNow;
        }
        match self.delayed.get(failure.round as usize) {
            Some(delay) => Decision::RetryAfter(*delay),
            None => Decision::Hold,
        }
    }
}

/// How long an infrastructure call waits before it is tried again: doubles from 100 ms to a cap, with a spread of a
/// quarter so that processes do not come back in step.
pub(crate) fn backoff(tries: u32, cap: Duration) -> Duration {
    let base = Duration::from_millis(100).saturating_mul(1 << tries.min(12)).min(cap);
    let spread = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    base.saturating_sub(base / 4 * spread / 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Envelope;

    fn envelope() -> Envelope {
        crate::port::StoredEnvelope::default().restore("test")
    }

    fn runs(retries: &Retries, failing: impl Fn(&mut Failure<'_>)) -> (u32, Vec<Duration>) {
        let envelope = envelope();
        let (mut total, mut round, mut in_round, mut delays) = (0, 0, 0, vec![]);
        loop {
            total += 1;
            in_round += 1;
            let mut failure = Failure {
                envelope: &envelope,
                error: "no",
                permanent: false,
                retry_after: None,
                runs_in_round: in_round,
                round,
            };
            failing(&mut failure);
            match retries.decide(&failure) {
                Decision::RetryNow => {}
                Decision::RetryAfter(delay) => {
                    delays.push(delay);
                    round += 1;
                    in_round = 0;
                }
                Decision::Hold | Decision::Discard => return (total, delays),
            }
        }
    }

    #[test]
    fn r_001_three_immediate_retries_make_four_runs() {
        assert_eq!(runs(&Retries::none().immediate(3), |_| ()), (4, vec![]));
    }

    #[test]
    fn r_002_no_retries_make_one_run() {
        assert_eq!(runs(&Retries::none(), |_| ()), (1, vec![]));
    }

    #[test]
    fn r_003_one_immediate_and_three_delayed_make_eight_runs() {
        let delays = [1, 2, 3].map(Duration::from_secs);
        assert_eq!(runs(&Retries::none().immediate(1).delayed(delays), |_| ()), (8, delays.to_vec()));
    }

    #[test]
    fn r_005_a_permanent_error_makes_one_run() {
        assert_eq!(runs(&Retries::default(), |failure| failure.permanent = true), (1, vec![]));
    }

    #[test]
    fn backoff_stays_within_its_bounds() {
        for tries in 0..40 {
            let delay = backoff(tries, Duration::from_secs(5));
            assert!(delay <= Duration::from_secs(5), "{delay:?} is above the cap at try {tries}");
            assert!(delay >= Duration::from_millis(75), "{delay:?} is too short at try {tries}");
        }
    }
}
