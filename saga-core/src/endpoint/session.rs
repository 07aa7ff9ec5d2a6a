//! Sessions: messages sent outside handlers, from a web request say, that commit with the caller's own rows.

use super::{core::Core, emission::of_posted, unit::commit};
use crate::{
    Command, Encoded, Event, Posted, Store, StoreError,
    handler::{Target, post},
    port::Unit,
};
use std::{fmt, sync::Arc};

/// A transaction with messages. Dropped without [`Session::commit`], it is rolled back and nothing is sent.
///
/// The commit does not wait for the broker: when it is away, the messages leave as soon as it is back.
pub struct Session<Db: Store> {
    pub(crate) core: Arc<Core<Db>>,
    pub(crate) unit: Db::Unit,
    pub(crate) posted: Vec<Posted>,
}

impl<Db: Store> fmt::Debug for Session<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.core.name).field("posted", &self.posted).finish()
    }
}

impl<Db: Store> Session<Db> {
    /// The connection of the transaction.
    pub fn tx(&mut self) -> &mut Db::Tx {
        self.unit.tx()
    }

    /// Publishes an event with the commit.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut Posted {
        post(&mut self.posted, Target::Event, Encoded::of(&event))
    }

    /// Sends a command with the commit.
    pub fn send<C: Command>(&mut self, command: C) -> &mut Posted {
        post(&mut self.posted, Target::Endpoint(C::TO.into()), Encoded::of(&command))
    }

    /// Commits rows and messages together.
    ///
    /// # Errors
    /// [`StoreError::Rejected`]: nothing happened. [`StoreError::Unavailable`]: nobody knows; ask the database, or make the
    /// request repeatable (an id that the caller chose).
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { core, unit, posted } = self;
        if let Some(refused) = posted.iter().find_map(|posted| posted.refused.clone()) {
            unit.rollback().await?;
            return Err(StoreError::Rejected(refused));
        }
        let rows = posted.iter().filter_map(|posted| of_posted(&core, None, posted).row).collect();
        // in a task of its own: once begun, the commit and the dispatch after it go together, whoever drops the caller
        let committing = tokio::spawn(async move { commit(&core, unit, core.new_write(), rows).await });
        committing.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Gives everything up.
    ///
    /// # Errors
    /// When the database cannot be reached: it has rolled back by itself then.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.unit.rollback().await
    }
}
