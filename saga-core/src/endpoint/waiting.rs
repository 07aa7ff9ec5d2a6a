//! How a lane waits: for the database, or because its unit met another one.

use super::{shared::Shared, trouble::Trouble};
use crate::{Store, StoreError, StoreErrorKind, port::Backoff};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries while the database is away.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A unit that meets others is logged when it has done so this often in a row.
const CONFLICTS_SAID: u32 = 5;

/// Waiting for the database, or for another process.
pub(super) struct Waiting<'a, Db: Store> {
    shared: &'a Shared<Db>,
    stop: &'a CancellationToken,
    backoff: Backoff,
    tries: u32,
    /// It keeps the trouble with the database from ending: other lanes may have no part in it.
    holds: bool,
    /// The unit meets others again and again.
    meets: Trouble,
}

impl<'a, Db: Store> Waiting<'a, Db> {
    pub(super) fn new(shared: &'a Shared<Db>, stop: &'a CancellationToken) -> Self {
        Self {
            shared,
            stop,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            tries: 0,
            holds: false,
            meets: Trouble::default(),
        }
    }

    /// Tries that failed in a row.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// Waits until the next try. Returns true when there is none because the endpoint stops. Uncommitted items then go
    /// back to the broker; where a commit's outcome is unknown, the inbox knows it.
    #[must_use]
    pub(super) async fn pause(&mut self, error: &StoreError) -> bool {
        self.tries += 1;
        let endpoint = &self.shared.name;
        match error.kind() {
            StoreErrorKind::Conflict | StoreErrorKind::StalePlan => {
                self.shared.metrics.conflict();
                let said = if self.tries >= CONFLICTS_SAID { self.meets.begins() } else { None };
                if let Some(said) = said {
                    let (tries, since) = (self.tries, said.since);
                    tracing::warn!(endpoint, tries, %error, ?since, "a unit runs again and again");
                } else {
                    tracing::debug!(endpoint, tries = self.tries, %error, "running the unit again");
                }
                if self.tries <= 2 {
                    return false;
                }
            }
            _ => {
                if !std::mem::replace(&mut self.holds, true) {
                    self.shared.database.hold();
                }
                if let Some(said) = self.shared.database.begins_with(error) {
                    let (unsaid, since) = (said.unsaid, said.since);
                    tracing::warn!(endpoint, %error, unsaid, ?since, "waiting for the database");
                }
            }
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = self.backoff.pause() => false,
        }
    }

    /// The database did what was asked.
    pub(super) fn over(&mut self) {
        self.tries = 0;
        self.backoff.reset();
        self.let_go();
        if let Some(lasted) = self.meets.ends() {
            tracing::info!(endpoint = self.shared.name, ?lasted, "the unit has ended");
        }
        if let Some(lasted) = self.shared.database.ends() {
            tracing::info!(endpoint = self.shared.name, ?lasted, "the database is back");
        }
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.shared.database.let_go();
        }
    }
}

impl<Db: Store> Drop for Waiting<'_, Db> {
    fn drop(&mut self) {
        self.let_go();
    }
}
