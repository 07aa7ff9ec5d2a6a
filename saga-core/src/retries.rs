//! Recoverability: what happens to a message whose handler failed, as a pure function of the failure.

use crate::{Envelope, hash_of};
use std::{fmt, sync::Arc, time::Duration};

/// A handler's failure, as a policy sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure<'a> {
    /// The message.
    pub envelope: &'a Envelope,
    /// The error with its causes.
    pub error: &'a str,
    /// The handler said that a retry is useless.
    pub permanent: bool,
    /// The handler asked to be tried again after this time.
    pub retry_after: Option<Duration>,
    /// Runs in this round, this one included.
    pub runs_in_round: u32,
    /// Delayed retries before this round.
    pub round: u32,
    /// Time since the message was put off for the first time; zero in the first round.
    pub elapsed: Duration,
}

/// What a policy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Run it again at once.
    RetryNow,
    /// Put it off; meanwhile it holds no connection and no slot.
    RetryAfter(Duration),
    /// Hold it for a person.
    Hold,
    /// Give it up: the journal says `discarded`.
    Discard,
}

/// A custom policy.
type Policy = dyn Fn(&Failure<'_>) -> Decision + Send + Sync;

/// Immediate retries, then delayed ones, then held.
///
/// The default follows NServiceBus: 3 retries at once, then after 10, 20 and 30 seconds.
///
/// ```
/// use sagabus::handler::Retries;
/// use std::time::Duration;
///
/// let patient = Retries::none().immediate(1).delayed([1, 5, 25].map(Duration::from_secs));
/// let stubborn = Retries::none().immediate(1).exponential(Duration::from_secs(1), Duration::from_secs(600), 40);
/// ```
#[derive(Clone)]
pub struct Retries {
    immediate: u32,
    delays: Delays,
    custom: Option<Arc<Policy>>,
}

/// The delays before the rounds.
#[derive(Debug, Clone)]
enum Delays {
    Listed(Vec<Duration>),
    Exponential { min: Duration, cap: Duration, rounds: u32 },
}

impl Delays {
    /// The delay before the next round, after `round` of them; `None` when there is no next one.
    fn after(&self, round: u32, message_id: &str) -> Option<Duration> {
        match self {
            Self::Listed(delays) => delays.get(round as usize).copied(),
            Self::Exponential { min, cap, rounds } => {
                (round < *rounds).then(|| exponential(*min, *cap, round, message_id))
            }
        }
    }
}

/// A delay between `min` doubled `round` times and twice that, or in the upper half of what `cap` allows: where it lies
/// follows from the message and the round.
fn exponential(min: Duration, cap: Duration, round: u32, message_id: &str) -> Duration {
    const SECOND: u128 = 1_000_000_000; // in nanoseconds
    let cap = cap.as_nanos();
    let high = min.as_nanos().saturating_mul(1 << round.saturating_add(1).min(100)).min(cap);
    let low = (high / 2).max(min.as_nanos().min(cap));
    let part = hash_of([message_id.as_bytes(), &round.to_le_bytes()]) as u32;
    let nanos = low + (high.max(low) - low) * u128::from(part) / u128::from(u32::MAX);
    // both fit: the delay is at most `cap`, which was a duration
    Duration::new((nanos / SECOND) as u64, (nanos % SECOND) as u32)
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries").field("immediate", &self.immediate).field("delays", &self.delays).finish()
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::none().immediate(3).delayed([10, 20, 30].map(Duration::from_secs))
    }
}

impl Retries {
    /// A message that has been put off for this long is held; NServiceBus stops after a day, too. Applies to
    /// [`HandlerError::retry_after`](crate::HandlerError::retry_after), which would otherwise never end. A custom
    /// policy sees [`Failure::elapsed`] and decides by itself.
    pub const LONGEST: Duration = Duration::from_secs(86_400);

    /// The most immediate retries in one round, even under a custom policy: after them the message is put off.
    pub(crate) const IMMEDIATE_MAX: u32 = 100;

    /// A failed message is held at once.
    pub fn none() -> Self {
        Self { immediate: 0, delays: Delays::Listed(Vec::new()), custom: None }
    }

    /// This many retries at once in each round; 100 at most.
    pub fn immediate(mut self, retries: u32) -> Self {
        self.immediate = retries;
        self
    }

    /// After these delays, one round each.
    pub fn delayed(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.delays = Delays::Listed(delays.into_iter().collect());
        self
    }

    /// After this many delays, one round each. Each is about twice the one before, from `min` up to `cap`, and differs
    /// from message to message, so that what failed together does not come again together. The delay follows from the
    /// message's id and the round alone.
    pub fn exponential(mut self, min: Duration, cap: Duration, rounds: u32) -> Self {
        self.delays = Delays::Exponential { min, cap, rounds };
        self
    }

    /// A custom policy: a pure function, so that the same failure gets the same answer.
    pub fn by(policy: impl Fn(&Failure<'_>) -> Decision + Send + Sync + 'static) -> Self {
        Self { custom: Some(Arc::new(policy)), ..Self::none() }
    }

    /// What happens now.
    pub fn decide(&self, failure: &Failure<'_>) -> Decision {
        let decision = match &self.custom {
            Some(policy) => policy(failure),
            None => self.standard(failure),
        };
        match decision {
            Decision::RetryNow if failure.runs_in_round > Self::IMMEDIATE_MAX => {
                Decision::RetryAfter(Duration::from_secs(10))
            }
            decision => decision,
        }
    }

    fn standard(&self, failure: &Failure<'_>) -> Decision {
        if failure.permanent {
            return Decision::Hold;
        }
        if let Some(delay) = failure.retry_after {
            return if failure.elapsed < Self::LONGEST { Decision::RetryAfter(delay) } else { Decision::Hold };
        }
        if failure.runs_in_round <= self.immediate {
            return Decision::RetryNow;
        }
        match self.delays.after(failure.round, &failure.envelope.message_id) {
            Some(delay) => Decision::RetryAfter(delay),
            None => Decision::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(envelope: &Envelope) -> Failure<'_> {
        Failure {
            envelope,
            error: "no",
            permanent: false,
            retry_after: None,
            runs_in_round: 1,
            round: 0,
            elapsed: Duration::ZERO,
        }
    }

    fn runs(retries: &Retries, failing: impl Fn(&mut Failure<'_>)) -> (u32, Vec<Duration>) {
        let envelope = Envelope::new("m", "t", "{}");
        let (mut total, mut round, mut in_round, mut delays) = (0, 0, 0, vec![]);
        loop {
            total += 1;
            in_round += 1;
            let mut failure = Failure { runs_in_round: in_round, round, ..failure(&envelope) };
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
    fn r_009_exponential_delays_stay_in_their_bounds_and_differ() {
        let (min, cap) = (Duration::from_secs(1), Duration::from_secs(600));
        let retries = Retries::none().exponential(min, cap, 40);
        let delay = |id: &str, round: u32| {
            let envelope = Envelope::new(id, "t", "{}");
            match retries.decide(&Failure { round, ..failure(&envelope) }) {
                Decision::RetryAfter(delay) => Some(delay),
                _ => None,
            }
        };
        for round in 0..40 {
            let delays: Vec<Duration> = (0..1000).map(|n| delay(&format!("m{n}"), round).expect("a round")).collect();
            let high = min.saturating_mul(2 << round.min(20)).min(cap);
            assert!(delays.iter().all(|delay| (high / 2..=high).contains(delay)), "round {round}: up to {high:?}");
            let mut distinct = delays.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() > 990, "round {round}: {} different delays", distinct.len());
            let mean = delays.iter().sum::<Duration>() / 1000;
            assert!((high * 7 / 10..high * 8 / 10).contains(&mean), "round {round}: {mean:?} of {high:?}");
            assert_eq!(delays[7], delay("m7", round).expect("a round"), "the same failure, the same answer");
        }
        assert_eq!(delay("m", 40), None, "40 rounds");
        assert_eq!(runs(&retries, |_| ()).0, 41);
    }

    #[test]
    fn r_009_exponential_delays_of_any_bounds_do_not_overflow() {
        let some = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(7), Duration::MAX];
        for (min, cap) in some.iter().flat_map(|min| some.iter().map(move |cap| (*min, *cap))) {
            for round in (0..200).chain([u32::MAX]) {
                let delay = exponential(min, cap, round, "m");
                assert!(delay <= cap && delay >= min.min(cap), "{min:?} to {cap:?}, round {round}: {delay:?}");
            }
        }
    }

    #[test]
    fn r_005_a_permanent_error_makes_one_run() {
        assert_eq!(runs(&Retries::default(), |failure| failure.permanent = true), (1, vec![]));
    }

    #[test]
    fn retry_after_ends_after_a_day() {
        let envelope = Envelope::new("m", "t", "{}");
        let delay = Duration::from_millis(10);
        let after = |elapsed| Failure { retry_after: Some(delay), elapsed, round: 7000, ..failure(&envelope) };
        let retries = Retries::default();
        assert_eq!(retries.decide(&after(Duration::from_secs(3600))), Decision::RetryAfter(delay));
        assert_eq!(retries.decide(&after(Retries::LONGEST)), Decision::Hold);
    }

    #[test]
    fn a_policy_that_always_retries_at_once_is_put_off_after_a_hundred_runs() {
        let envelope = Envelope::new("m", "t", "{}");
        let eager = Retries::by(|_| Decision::RetryNow);
        assert_eq!(eager.decide(&Failure { runs_in_round: 100, ..failure(&envelope) }), Decision::RetryNow);
        let decision = eager.decide(&Failure { runs_in_round: 101, ..failure(&envelope) });
        assert_eq!(decision, Decision::RetryAfter(Duration::from_secs(10)));
    }
}
