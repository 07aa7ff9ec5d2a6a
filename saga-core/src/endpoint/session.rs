//! Sessions: messages sent outside handlers (from a web request, say) that commit with the caller's rows.

use super::{
    dispatch::finish,
    ledger::{Ledger, of_posted},
    shared::Shared,
};
use crate::{
    Command, Encoded, Event, OutgoingMessage, Store, StoreError, StoreErrorKind,
    handler::{Addressee, post},
    port::Unit,
};
use std::{fmt, sync::Arc};

/// A transaction with messages. Dropped without [`Session::commit`], it is rolled back and nothing is sent.
///
/// The commit does not wait for the broker: when the broker is away, the messages leave as soon as it is back.
#[must_use = "a session does nothing until it is committed"]
pub struct Session<Db: Store> {
    shared: Arc<Shared<Db>>,
    unit: Option<Db::Unit>,
    posted: Vec<OutgoingMessage>,
}

impl<Db: Store> fmt::Debug for Session<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.shared.name).field("posted", &self.posted).finish()
    }
}

impl<Db: Store> Session<Db> {
    pub(super) async fn begin(shared: Arc<Shared<Db>>) -> Result<Self, StoreError> {
        let unit = shared.store.begin(&[], shared.settings.handler_time).await?;
        Ok(Self { shared, unit: Some(unit), posted: Vec::new() })
    }

    /// The connection of the transaction.
    pub fn tx(&mut self) -> &mut Db::Tx {
        self.unit.as_mut().expect("it is taken only by `commit` and `rollback`, which consume the session").tx()
    }

    /// Publishes an event with the commit.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut OutgoingMessage {
        post(&mut self.posted, Addressee::Subscribers, Encoded::checked(&event))
    }

    /// Sends a command with the commit.
    pub fn send<C: Command>(&mut self, command: C) -> &mut OutgoingMessage {
        post(&mut self.posted, Addressee::Endpoint(C::TO.into()), Encoded::checked(&command))
    }

    /// Commits rows and messages together.
    ///
    /// # Errors
    /// By [`StoreError::kind`]: [`Rejected`](StoreErrorKind::Rejected): nothing happened, and the database's own error
    /// is the source. [`Conflict`](StoreErrorKind::Conflict): nothing happened, run the request again.
    /// [`Unavailable`](StoreErrorKind::Unavailable): the outcome is unknown; ask the database, or make the request
    /// repeatable (an id that the caller chooses).
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let unit = self.unit.take().expect("it is taken only by `commit` and `rollback`, which consume the session");
        let posted = std::mem::take(&mut self.posted);
        let emissions: Result<Vec<_>, String> =
            posted.iter().map(|posted| of_posted(&self.shared, None, posted)).collect();
        let emissions = match emissions {
            Ok(emissions) => emissions,
            Err(refused) => {
                unit.rollback().await?;
                return Err(StoreError::new(StoreErrorKind::Rejected, refused));
            }
        };
        let shared = self.shared.clone();
        // in its own task: once begun, the commit and the dispatch finish together, even if the caller's future is
        // dropped
        let committing = tokio::spawn(async move {
            let mut ledger = Ledger::new(&shared);
            ledger.emit(emissions);
            finish(&shared, unit, ledger.write).await
        });
        let committed = committing.await;
        committed.unwrap_or_else(|error| Err(StoreError::new(StoreErrorKind::Unavailable, error.to_string())))
    }

    /// Rolls back: no row is written and no message is sent.
    ///
    /// # Errors
    /// When the database cannot be reached. It rolls back by itself then.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        self.posted.clear();
        let unit = self.unit.take().expect("it is taken only by `commit` and `rollback`, which consume the session");
        unit.rollback().await
    }
}

impl<Db: Store> Drop for Session<Db> {
    fn drop(&mut self) {
        if !self.posted.is_empty() {
            let messages = self.posted.len();
            tracing::warn!(
                endpoint = self.shared.name,
                messages,
                "a session was dropped without `commit`: its messages are not sent"
            );
        }
    }
}
