//! What follows when user code fails: asks the retry policy, in one way for handlers and projections.

use super::judge::Before;
use crate::{
    Decision, Envelope, Failure, HandlerError, HandlerErrorKind, Retries, StoreError, StoreErrorKind, port::Backoff,
};
use std::time::Duration;

/// The longest pause of a message that is put off without blame.
const BLAMELESS_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A statement of user code that conflicts with other transactions runs again this often, which takes about 12 s; then
/// it is to blame: it may deadlock with itself.
const CONFLICTS_MAX: u32 = 10;
/// While the database says that it is full, say, a unit is tried this often where it is, for about 50 s. Then its
/// message is put off, because the statement alone may be too large, and others wait behind it.
const UNABLE_MAX: u32 = 20;

/// Units of one message that were lost in a row for the same reason.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lost {
    kind: Option<StoreErrorKind>,
    times: u32,
}

impl Lost {
    /// One more.
    pub(super) fn again(self, kind: StoreErrorKind) -> Self {
        Self { kind: Some(kind), times: self.times(kind) + 1 }
    }

    /// Whether the database answered that it cannot write, or not to us.
    pub(super) fn to_refused_writes(self) -> bool {
        matches!(self.kind, Some(StoreErrorKind::Unable | StoreErrorKind::Schema))
    }

    /// How many were lost for this reason.
    pub(super) fn times(self, kind: StoreErrorKind) -> u32 {
        if self.kind == Some(kind) { self.times } else { 0 }
    }
}

/// The error for which a unit runs again, uncounted, because of what the database answered to user code; `None`: user
/// code failed. `tries` counts the units before this one that were lost for it.
pub(super) fn passes(error: &HandlerError, kind: StoreErrorKind, tries: u32, before: Before) -> Option<StoreError> {
    let tries_max = match kind {
        StoreErrorKind::Conflict | StoreErrorKind::StalePlan => CONFLICTS_MAX,
        // one that was put off uncounted has waited in its lane before
        StoreErrorKind::Unable if before.completes != Some(0) => UNABLE_MAX,
        _ => 0,
    };
    (tries < tries_max).then(|| StoreError::new(kind, error.to_string()))
}

/// A failed run of user code.
#[derive(Debug)]
pub(super) struct UserFailure {
    pub(super) text: String,
    kind: HandlerErrorKind,
    /// The database says that tables, columns or permissions are missing, or that it is full, say: no message is to
    /// blame, so no run is counted.
    blameless: bool,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It runs again at once.
    Again,
    /// It comes again later.
    PutOff(Duration),
    /// It is held for a person.
    Hold,
    /// It is given up.
    Discard,
}

impl UserFailure {
    /// What a handler or a projection returned, and what it means if it is an error of the database.
    pub(super) fn returned(error: &HandlerError, means: Option<StoreErrorKind>) -> Self {
        let blameless = matches!(means, Some(StoreErrorKind::Schema | StoreErrorKind::Unable));
        Self { text: error.to_string(), kind: error.kind(), blameless }
    }

    pub(super) fn transient(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: HandlerErrorKind::Transient, blameless: false }
    }

    pub(super) fn permanent(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: HandlerErrorKind::Permanent, blameless: false }
    }

    /// Runs that this failure counts for.
    pub(super) fn counts(&self, runs: u32) -> i64 {
        if self.blameless { 0 } else { i64::from(runs) }
    }

    /// Whether the failure says something about the service behind the handler: a permanent failure does not, nor does
    /// a `retry_after`.
    pub(super) fn concerns_breaker(&self) -> bool {
        self.kind == HandlerErrorKind::Transient
    }

    /// Asks the policy, after the `runs`th run in this round.
    pub(super) fn next(&self, retries: &Retries, envelope: &Envelope, before: Before, runs: u32) -> Next {
        let elapsed = if before.completes.is_some() { before.elapsed } else { Duration::ZERO };
        if self.blameless {
            return if elapsed < Retries::LONGEST {
                // no round is counted, so the pause follows from the time that has passed
                let pauses = (elapsed.as_secs() + 1).ilog2();
                Next::PutOff(Backoff::after(Duration::from_secs(1), BLAMELESS_PAUSE_MAX, pauses))
            } else {
                Next::Hold
            };
        }
        // before its first run that counts, a message may have waited long for a limit
        let elapsed = if before.attempts() > 0 { elapsed } else { Duration::ZERO };
        let failure = Failure {
            envelope,
            error: &self.text,
            permanent: self.kind == HandlerErrorKind::Permanent,
            retry_after: match self.kind {
                HandlerErrorKind::RetryAfter(delay) => Some(delay),
                _ => None,
            },
            runs_in_round: runs,
            round: before.round,
            elapsed,
        };
        match retries.decide(&failure) {
            Decision::RetryNow => Next::Again,
            Decision::RetryAfter(delay) => Next::PutOff(delay),
            Decision::Hold => Next::Hold,
            Decision::Discard => Next::Discard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_for_a_limit_has_not_been_tried_meanwhile() {
        let retries =
            Retries::by(
                |failure: &Failure<'_>| {
                    if failure.elapsed < Duration::from_secs(60) { Decision::RetryNow } else { Decision::Hold }
                },
            );
        let envelope = Envelope::new("m", "shop.Pay", "{}");
        let hours = Duration::from_secs(3 * 3600);
        let next = |completes| {
            let before = Before { completes, round: 0, elapsed: hours };
            UserFailure::transient("busy").next(&retries, &envelope, before, 1)
        };
        assert_eq!(next(Some(0)), Next::Again, "three hours in line, and this is its first run");
        assert_eq!(next(Some(1)), Next::Hold, "three hours since its first run");
    }
}
