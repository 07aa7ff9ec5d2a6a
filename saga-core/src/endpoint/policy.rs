//! What follows when user code fails: asks the retry policy, in one way for handlers and projections.

use super::{judge::Before, shared::Shared};
use crate::{
    Decision, Envelope, Failure, HandlerError, HandlerErrorKind, Retries, Store, StoreErrorKind, port::Backoff,
};
use std::time::Duration;

/// The longest pause of a message that waits for a deployment.
const DEPLOYMENT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A failed run of user code.
#[derive(Debug)]
pub(super) struct UserFailure {
    pub(super) text: String,
    kind: HandlerErrorKind,
    /// The database says that tables, columns or permissions are missing: no message is to blame, so no run is counted.
    deployment: bool,
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
    /// What a handler or a projection returned.
    pub(super) fn returned<Db: Store>(shared: &Shared<Db>, error: &HandlerError) -> Self {
        let deployment = shared.recognise(error.source()) == Some(StoreErrorKind::Schema);
        Self { text: error.to_string(), kind: error.kind(), deployment }
    }

    pub(super) fn transient(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: HandlerErrorKind::Transient, deployment: false }
    }

    pub(super) fn permanent(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: HandlerErrorKind::Permanent, deployment: false }
    }

    /// Runs that this failure counts for.
    pub(super) fn counts(&self, runs: u32) -> i64 {
        if self.deployment { 0 } else { i64::from(runs) }
    }

    /// Whether the failure says something about the service behind the handler: a permanent failure does not, nor does
    /// a `retry_after`.
    pub(super) fn concerns_breaker(&self) -> bool {
        self.kind == HandlerErrorKind::Transient
    }

    /// Asks the policy, after the `runs`th run in this round.
    pub(super) fn next(&self, retries: &Retries, envelope: &Envelope, before: Before, runs: u32) -> Next {
        let elapsed = if before.completes.is_some() { before.elapsed } else { Duration::ZERO };
        if self.deployment {
            return if elapsed < Retries::LONGEST {
                // no round is counted, so the pause follows from the time that has passed
                let pauses = (elapsed.as_secs() + 1).ilog2();
                Next::PutOff(Backoff::after(Duration::from_secs(1), DEPLOYMENT_PAUSE_MAX, pauses))
            } else {
                Next::Hold
            };
        }
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
