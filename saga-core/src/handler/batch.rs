//! The messages of a batch, each with its own answer.

use super::{Cause, OutgoingMessage};
use crate::{Command, Envelope, Event, Message, Outcome};
use std::ops::Deref;

/// The messages that a batch handler gets in one call, in order of arrival.
///
/// ```
/// use sagabus::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command(to = "payment", outcome = PaymentOutcome)]
/// # struct MakePayment { order_id: i64, cents: i64 }
/// # #[derive(Outcome)] enum PaymentOutcome { Completed(PaymentCompleted) }
/// # #[derive(Reply, Serialize, Deserialize)]
/// # struct PaymentCompleted { order_id: i64 }
///
/// fn answer_all(batch: &mut Batch<'_, MakePayment>) {
///     for payment in batch {
///         let order_id = payment.order_id;
///         payment.answer(PaymentCompleted { order_id });
///     }
/// }
/// ```
pub struct Batch<'a, M: Message> {
    messages: Vec<InBatch<'a, M>>,
}

/// A message of a [`Batch`]: it dereferences to the message.
pub struct InBatch<'a, M: Message> {
    message: M,
    cause: &'a mut Cause,
    answer: Option<M::Outcome>,
}

impl<'a, M: Message> Batch<'a, M> {
    pub(super) fn new(messages: Vec<M>, causes: &'a mut [Cause]) -> Self {
        let messages = messages.into_iter().zip(causes);
        Self { messages: messages.map(|(message, cause)| InBatch { message, cause, answer: None }).collect() }
    }

    /// How many messages there are; at least one.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none, which does not happen in a handler.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, InBatch<'a, M>> {
        self.messages.iter()
    }

    /// The messages, to be answered.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, InBatch<'a, M>> {
        self.messages.iter_mut()
    }

    /// The answers in the order of the messages; or how many are missing. An event needs none.
    pub(super) fn answers(self) -> Result<Vec<M::Outcome>, usize> {
        let expected = self.messages.len();
        let answers = self.messages.into_iter().filter_map(|message| message.answer.or_else(M::Outcome::of_nothing));
        let answers: Vec<_> = answers.collect();
        if answers.len() == expected { Ok(answers) } else { Err(expected - answers.len()) }
    }
}

impl<'b, 'a, M: Message> IntoIterator for &'b Batch<'a, M> {
    type Item = &'b InBatch<'a, M>;
    type IntoIter = std::slice::Iter<'b, InBatch<'a, M>>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'b, 'a, M: Message> IntoIterator for &'b mut Batch<'a, M> {
    type Item = &'b mut InBatch<'a, M>;
    type IntoIter = std::slice::IterMut<'b, InBatch<'a, M>>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<M: Message> std::fmt::Debug for Batch<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.messages).finish()
    }
}

impl<M: Message> std::fmt::Debug for InBatch<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InBatch").field("cause", &self.cause).field("answered", &self.answer.is_some()).finish()
    }
}

impl<M: Message> Deref for InBatch<'_, M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.message
    }
}

impl<M: Message> InBatch<'_, M> {
    /// Answers the command with one of its outcomes; a second answer replaces the first.
    pub fn answer(&mut self, outcome: impl Into<M::Outcome>) {
        self.answer = Some(outcome.into());
    }

    /// Publishes an event, caused by this message, when the transaction has committed.
    pub fn publish<E: Event>(&mut self, event: E) -> &mut OutgoingMessage {
        self.cause.publish(event)
    }

    /// Sends a command, caused by this message, when the transaction has committed.
    pub fn send<C: Command>(&mut self, command: C) -> &mut OutgoingMessage {
        self.cause.send(command)
    }

    /// The id of the message: the same on every retry and redelivery.
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
