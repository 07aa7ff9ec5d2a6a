//! Sessions: messages sent outside handlers (from a web request, say) that commit with the caller's rows.

use super::{dispatch::finish, emission::of_posted, ledger::Ledger, shared::Shared};
use crate::{
    Command, Encoded, ErrorCode, Event, Later, Outcome, OutgoingMessage, Store, StoreError, StoreErrorKind,
    handler::{Addressee, post},
    port::{Keys, Unit},
};
use std::{fmt, sync::Arc};
use tracing::{Instrument, Span};
use uuid::Uuid;

/// A transaction with messages. Dropped without [`Session::commit`], it is rolled back and nothing is sent.
///
/// The commit does not wait for the broker: when the broker is away, the messages leave as soon as it is back.
#[must_use = "a session does nothing until it is committed"]
pub struct Session<Db: Store> {
    shared: Arc<Shared<Db>>,
    unit: Option<Db::Unit>,
    posted: Vec<OutgoingMessage>,
    answers: Vec<(Later, Encoded)>,
}

impl<Db: Store> fmt::Debug for Session<Db> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("endpoint", &self.shared.name).field("posted", &self.posted).finish()
    }
}

impl<Db: Store> Session<Db> {
    pub(super) async fn begin(shared: Arc<Shared<Db>>) -> Result<Self, StoreError> {
        shared.dispatcher.may_begin().await;
        let unit = shared.store.begin(&[], shared.settings.handler_time).await?;
        Ok(Self { shared, unit: Some(unit), posted: Vec::new(), answers: Vec::new() })
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
        post(&mut self.posted, Addressee::Endpoint(C::QUEUE.into()), Encoded::checked(&command))
    }

    /// Takes back a message that was sent before with a [`delay`](OutgoingMessage::delay), by its
    /// [id](OutgoingMessage::message_id): with the commit it is gone, and after a rollback it leaves as if nothing had
    /// happened. `false`: it was sent, or may have been, and is not sent again.
    ///
    /// # Errors
    /// When the database cannot be reached.
    ///
    /// ```
    /// # use sagabus::{port::{Store, StoreError}, prelude::*};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// #[derive(Event, Serialize, Deserialize)]
    /// struct CartForgotten { cart: u64 }
    ///
    /// # async fn carts<Db: Store>(shop: &Endpoint<Db>) -> Result<(), StoreError> {
    /// let mut session = shop.session().await?;
    /// let reminder = session.publish(CartForgotten { cart: 7 }).delay(Duration::from_secs(3600)).message_id();
    /// session.commit().await?; // keep the id beside the cart
    ///
    /// let mut session = shop.session().await?; // the cart was paid for
    /// let too_late = !session.cancel(reminder).await?;
    /// session.commit().await?;
    /// # let _ = too_late;
    /// # Ok(()) }
    /// ```
    pub async fn cancel(&mut self, message_id: Uuid) -> Result<bool, StoreError> {
        let posted = self.posted.len();
        self.posted.retain(|posted| posted.message_id() != message_id);
        let unit = self.unit.as_mut().expect("it is taken only by `commit` and `rollback`, which consume the session");
        let gone = self.posted.len() < posted;
        Ok(gone || unit.take_back(&[message_id]).await?.iter().any(|gone| !gone.tried))
    }

    /// Answers a command whose handler returned [`Later`]. Says whether this is the first answer; a second one is not
    /// sent. An answer is known as long as the inbox keeps it ([`Settings::retention`](crate::Settings::retention)).
    ///
    /// # Errors
    /// When `later` belongs to another command, or when the database cannot be read. When two give an answer at the
    /// same time, one [`commit`](Self::commit) is a [`Conflict`](StoreErrorKind::Conflict); run again, it says that
    /// there is an answer.
    pub async fn answer<C: Command>(
        &mut self,
        later: &Later,
        outcome: impl Into<C::Outcome>,
    ) -> Result<bool, StoreError> {
        if later.command() != C::TYPE {
            let text = format!("the answer belongs to a `{}`, not to a `{}`", later.command(), C::TYPE);
            return Err(StoreError::new(StoreErrorKind::Rejected, text).with_code(ErrorCode::MessageRefused));
        }
        let Some(message) = outcome.into().encode() else { return Ok(true) };
        let mut keys = Keys { endpoint: self.shared.name.clone(), ..Keys::default() };
        keys.message_ids.push(later.message_id().to_owned());
        let unit = self.unit.as_mut().expect("it is taken only by `commit` and `rollback`, which consume the session");
        let found = unit.read(&keys).await?;
        let receiver = later.receiver();
        if found.inbox.iter().any(|row| row.receiver == receiver)
            || self.answers.iter().any(|(known, _)| known == later)
        {
            return Ok(false);
        }
        self.answers.push((later.clone(), message));
        Ok(true)
    }

    /// Commits rows and messages together.
    ///
    /// # Errors
    /// By [`StoreError::kind`]: [`Rejected`](StoreErrorKind::Rejected): nothing happened, and the database's own error
    /// is the source. [`Conflict`](StoreErrorKind::Conflict): nothing happened, run the request again.
    /// [`Unavailable`](StoreErrorKind::Unavailable) or [`Unable`](StoreErrorKind::Unable): the outcome is unknown; ask
    /// the database, or make the request repeatable (an id that the caller chooses).
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let unit = self.unit.take().expect("it is taken only by `commit` and `rollback`, which consume the session");
        let posted = std::mem::take(&mut self.posted);
        let answers = std::mem::take(&mut self.answers);
        let emissions: Result<Vec<_>, String> =
            posted.iter().map(|posted| of_posted(&self.shared, None, posted)).collect();
        let emissions = match emissions {
            Ok(emissions) => emissions,
            Err(refused) => {
                unit.rollback().await?;
                return Err(StoreError::new(StoreErrorKind::Rejected, refused).with_code(ErrorCode::MessageRefused));
            }
        };
        let shared = self.shared.clone();
        // in its own task: once begun, the commit and the dispatch finish together, even if the caller's future is
        // dropped
        let committing = async move {
            let mut ledger = Ledger::new(&shared);
            ledger.emit(emissions);
            for (later, message) in answers {
                if let Err(refused) = ledger.answer_later(&later, &message) {
                    unit.rollback().await?;
                    return Err(StoreError::new(StoreErrorKind::Rejected, refused).with_code(ErrorCode::MessageRefused));
                }
            }
            finish(&shared, unit, ledger).await
        };
        // what it sends belongs to the caller's span
        let committing = tokio::spawn(committing.instrument(Span::current()));
        self.shared.crashes.began(committing.abort_handle());
        let committed = committing.await;
        committed.unwrap_or_else(|error| Err(StoreError::new(StoreErrorKind::Unavailable, error.to_string())))
    }

    /// Rolls back: no row is written and no message is sent.
    ///
    /// # Errors
    /// When the database cannot be reached. It rolls back by itself then.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        self.posted.clear();
        self.answers.clear();
        let unit = self.unit.take().expect("it is taken only by `commit` and `rollback`, which consume the session");
        unit.rollback().await
    }
}

impl<Db: Store> Drop for Session<Db> {
    fn drop(&mut self) {
        let messages = self.posted.len() + self.answers.len();
        if messages > 0 {
            tracing::warn!(
                endpoint = self.shared.name,
                messages,
                "a session was dropped without `commit`: its messages are not sent"
            );
        }
    }
}
