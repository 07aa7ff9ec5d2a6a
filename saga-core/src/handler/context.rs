//! What a handler sees beside its message.

use super::{Addressee, HandlerError, Later, OutgoingMessage, post, transaction::LazyTransaction};
use crate::{Command, Encoded, Envelope, Event, Store};
use serde_json::{Map, Value};
use std::sync::Arc;
use uuid::Uuid;

/// A handler's surroundings: the message's properties, the transaction, and what goes out with it.
#[derive(Debug)]
pub struct Context<'a, Db: Store> {
    pub(crate) transaction: &'a mut LazyTransaction<Db>,
    pub(crate) cause: &'a mut Cause,
}

impl<Db: Store> Context<'_, Db> {
    /// The connection of the endpoint's transaction. The first call opens the transaction, so make slow calls to other
    /// services before it.
    ///
    /// The transaction belongs to this message alone, unless the handler was registered with
    /// [`HandlerOptions::shares_transactions`](crate::HandlerOptions::shares_transactions). Do not end it: a `COMMIT`
    /// or `ROLLBACK` of your own makes the message fail. For a statement that may fail, open a nested transaction.
    ///
    /// # Errors
    /// When the database cannot be reached. Return it with `?`: the endpoint waits for the database and counts no
    /// attempt.
    pub async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        self.transaction.tx().await
    }

    /// Publishes an event when the transaction has committed.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut OutgoingMessage {
        self.cause.publish(event)
    }

    /// Sends a command when the transaction has committed.
    pub fn send<C: Command>(&mut self, command: C) -> &mut OutgoingMessage {
        self.cause.send(command)
    }

    /// Takes back a message that was sent before with a [`delay`](OutgoingMessage::delay), by its
    /// [id](OutgoingMessage::message_id), when the transaction commits. See
    /// [`Session::cancel`](crate::Session::cancel).
    ///
    /// # Errors
    /// See [`Context::tx`].
    pub async fn cancel(&mut self, message_id: Uuid) -> Result<bool, HandlerError> {
        let posted = self.cause.posted.len();
        self.cause.posted.retain(|posted| posted.message_id() != message_id);
        Ok(self.cause.posted.len() < posted || self.transaction.take_back(message_id).await?)
    }

    /// Whom the answer goes to when it comes later: keep it, and return it instead of an outcome.
    pub fn later(&self) -> Later {
        Later::of(self.cause.envelope())
    }

    /// The variables of the routing slip that the message is a step of (see [`Slip`](crate::Slip)), for later steps to
    /// read and for the event at its end. Of any other message there are none, and what is set is forgotten.
    pub fn variables(&mut self) -> &mut Map<String, Value> {
        &mut self.cause.variables
    }

    /// The id of the message being handled: the same on every retry and redelivery.
    pub fn message_id(&self) -> &str {
        self.cause.message_id()
    }

    /// The message with its properties and headers.
    pub fn envelope(&self) -> &Envelope {
        self.cause.envelope()
    }

    /// How many earlier runs of this message were counted: 0 at first.
    pub fn runs_before(&self) -> i64 {
        self.cause.runs_before()
    }
}

/// The surroundings of a handler of batches: the transaction that all its messages share.
#[derive(Debug)]
pub struct BatchContext<'a, Db: Store> {
    pub(crate) transaction: &'a mut LazyTransaction<Db>,
}

impl<Db: Store> BatchContext<'_, Db> {
    /// The connection of the endpoint's transaction, which all messages of the batch share. The first call opens it.
    ///
    /// # Errors
    /// See [`Context::tx`].
    pub async fn tx(&mut self) -> Result<&mut Db::Tx, HandlerError> {
        self.transaction.tx().await
    }
}

/// A message being handled, and what it causes.
#[derive(Debug)]
pub(crate) struct Cause {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) posted: Vec<OutgoingMessage>,
    pub(crate) runs_before: i64,
    /// Of the slip that it is a step of.
    pub(crate) variables: Map<String, Value>,
}

impl Cause {
    /// Publishes an event when the transaction has committed.
    pub(crate) fn publish<E: Event>(&mut self, event: E) -> &mut OutgoingMessage {
        post(&mut self.posted, Addressee::Subscribers, Encoded::checked(&event))
    }

    /// Sends a command when the transaction has committed.
    pub(crate) fn send<C: Command>(&mut self, command: C) -> &mut OutgoingMessage {
        post(&mut self.posted, Addressee::Endpoint(C::QUEUE.into()), Encoded::checked(&command))
    }

    /// The id of the message: the same on every retry and redelivery.
    pub(crate) fn message_id(&self) -> &str {
        &self.envelope.message_id
    }

    /// The message with its properties and headers.
    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// How many earlier runs of this message were counted: 0 at first.
    pub(crate) fn runs_before(&self) -> i64 {
        self.runs_before
    }
}
