//! What a message that leaves writes: its rows in the outbox, and its line in the journal.

use super::{
    shared::{HandlerEntry, Shared},
    take_back::TakeBack,
};
use crate::{
    Destination, Encoded, Envelope, InstanceKey, MessageKind, OutboxKind, SagaRef, Store, ambient,
    envelope::body_refusal,
    handler::{Addressee, OutgoingMessage},
    message::GivesUp,
    panics,
    port::{Caused, OutboxRow},
    saga::{
        Emit, Replied, Route, SentCommand,
        logic::{Move, Originator},
    },
};
use bytes::Bytes;
use std::{borrow::Cow, sync::Arc, time::Duration};
use uuid::Uuid;

/// What one sent message writes.
pub(crate) struct Emission {
    /// One row; two for an answer that is published as well; none when it has no receiver.
    pub(super) rows: Vec<OutboxRow>,
    /// The journal's line.
    pub(super) effect: Caused,
}

impl Emission {
    /// It does not leave after all.
    pub(super) fn withdraw(&mut self, emit: &Emit) {
        self.rows.clear();
        if !matches!(emit.route, Route::Timer { .. }) {
            (self.effect.id, self.effect.note) = (None, Some("taken back before it left"));
        }
    }

    fn of(id: Uuid, type_name: impl Into<Cow<'static, str>>, rows: Vec<OutboxRow>) -> Self {
        let to = rows.first().map(|row| row.destination.name().to_owned());
        let note = rows.is_empty().then_some("nobody asked");
        Self { effect: Caused { id: to.is_some().then_some(id), type_name: type_name.into(), to, note }, rows }
    }
}

fn row(kind: OutboxKind, destination: Destination, envelope: Envelope, delay: Option<Duration>) -> OutboxRow {
    OutboxRow {
        id: ambient::fresh_id(),
        kind,
        destination,
        envelope: Arc::new(envelope),
        delay,
        leased: false,
        last_error: None,
    }
}

/// A message of this endpoint, caused by another or by nobody.
fn envelope(endpoint: &str, id: Uuid, message: &Encoded, cause: Option<&Envelope>, sent_at_us: i64) -> Envelope {
    let mut new = envelope_of(endpoint, id, (message.type_name, message.body.clone()), cause, sent_at_us);
    new.mask(message.masked.iter().copied());
    new
}

fn envelope_of(
    endpoint: &str,
    id: Uuid,
    (type_name, body): (&str, Bytes),
    cause: Option<&Envelope>,
    sent_at_us: i64,
) -> Envelope {
    let mut envelope = Envelope::new(id.to_string(), type_name, body);
    if let Some(cause) = cause {
        envelope.conversation_id.clone_from(&cause.conversation_id);
        envelope.causation_id = Some(cause.message_id.clone());
        envelope.headers = cause.trace();
    }
    envelope.sender = Some(endpoint.into());
    envelope.sent_at_us = Some(sent_at_us);
    envelope
}

/// What a transition sends.
pub(super) fn of_transition(
    endpoint: &str,
    cause: &Envelope,
    key: &InstanceKey,
    made: &Move,
    originator: Option<&str>,
    (emit, timer): (&Emit, Option<i64>),
    now_us: i64,
) -> Emission {
    let id = ambient::fresh_id();
    let message = &emit.message;
    let mut new = envelope(endpoint, id, message, Some(cause), now_us);
    let own = SagaRef { saga: key.saga.clone(), id: key.id.clone(), entered: Some(made.entered), timer: None };
    let row = match &emit.route {
        Route::Command { to } => {
            new.reply_to = Some(endpoint.into());
            new.saga = Some(own);
            // the row has the message's id, by which the instance finds it to take it back
            OutboxRow { id, ..row(OutboxKind::Command, Destination::Endpoint((*to).into()), new, None) }
        }
        Route::Event => {
            new.saga = Some(own);
            row(OutboxKind::Event, Destination::Event(message.type_name.into()), new, None)
        }
        Route::Timer { delay, .. } => {
            new.saga = Some(SagaRef { entered: None, timer, ..own });
            new.receiver = Some(key.saga.clone());
            row(OutboxKind::Timer, Destination::Endpoint(endpoint.into()), new, Some(*delay))
        }
        Route::Reply => {
            let asker = originator.and_then(|text| serde_json::from_str::<Originator>(text).ok());
            if let Some(asker) = &asker {
                new.causation_id = Some(asker.message_id.clone());
                new.conversation_id.clone_from(&asker.conversation_id);
            }
            let asker = asker.map(|asker| (asker.reply_to, asker.saga));
            return answer(id, message, new, asker);
        }
    };
    Emission::of(id, message.type_name, vec![row])
}

/// What goes after a command that is taken back; nothing if it has not left.
pub(super) fn of_take_back(
    endpoint: &str,
    cause: &Envelope,
    key: &InstanceKey,
    made: &Move,
    command: &SentCommand,
    never_left: bool,
    now_us: i64,
) -> Emission {
    let SentCommand { type_name, to, id: command, hash, .. } = command;
    if never_left {
        let note = Some("the command had not left");
        let effect = Caused { id: None, type_name: Envelope::TAKE_BACK.into(), to: Some(to.clone()), note };
        return Emission { rows: Vec::new(), effect };
    }
    let (id, command) = (ambient::fresh_id(), command.map(|id| id.to_string()).unwrap_or_default());
    let body = TakeBack { type_name: type_name.clone(), id: command, hash: *hash };
    let body = Bytes::from(serde_json::to_vec(&body).expect("two texts and a number are JSON"));
    let mut new = envelope_of(endpoint, id, (Envelope::TAKE_BACK, body), Some(cause), now_us);
    new.saga = Some(SagaRef { saga: key.saga.clone(), id: key.id.clone(), entered: Some(made.entered), timer: None });
    let row = row(OutboxKind::Command, Destination::Endpoint(to.clone()), new, None);
    Emission::of(id, Envelope::TAKE_BACK, vec![row])
}

/// An answer goes to the requester and to nobody else: to the very instance, if a saga asked. An answer that is an
/// event is published as well, under the same message id, so that an endpoint that gets both copies handles it once.
fn answer(id: Uuid, message: &Encoded, new: Envelope, asker: Option<(String, Option<SagaRef>)>) -> Emission {
    let mut rows: Vec<OutboxRow> = asker.map(|asker| to_asker(asker, new.clone())).into_iter().collect();
    if message.kind == MessageKind::Event {
        rows.push(row(OutboxKind::Event, Destination::Event(message.type_name.into()), new, None));
    }
    Emission::of(id, message.type_name, rows)
}

fn to_asker((reply_to, saga): (String, Option<SagaRef>), new: Envelope) -> OutboxRow {
    let receiver = saga.as_ref().map(|saga| saga.saga.clone());
    row(OutboxKind::Reply, Destination::ReplyTo(reply_to), Envelope { saga, receiver, ..new }, None)
}

/// The reply that an instance has given, for the sender of a repeated start. An event is not published again.
pub(super) fn again(endpoint: &str, start: &Envelope, reply: &Replied) -> Emission {
    let id = ambient::fresh_id();
    let message = (reply.type_name.as_str(), Bytes::from(reply.body.clone()));
    let mut new = envelope_of(endpoint, id, message, Some(start), ambient::now_us());
    new.mask(reply.masked.iter().map(String::as_str));
    let asker = start.reply_to.clone().map(|reply_to| (reply_to, start.saga.clone()));
    Emission::of(id, reply.type_name.clone(), asker.map(|asker| to_asker(asker, new)).into_iter().collect())
}

/// The answer to a command that ends here without an outcome, if it says one and a saga waits for it.
pub(crate) fn of_giving_up<Db: Store>(
    shared: &Shared<Db>,
    entry: &HandlerEntry<Db>,
    command: &Envelope,
    failure: &str,
) -> Option<Emission> {
    let GivesUp { make, .. } = entry.description.give_up?;
    command.reply_to.as_ref().and(command.saga.as_ref())?;
    let made = panics::caught(|| make(&command.body, failure)).and_then(|made| made);
    let answer = made.and_then(|message| of_outcome(shared, command, &message, ambient::fresh_id()));
    answer
        .inspect_err(|error| {
            let (endpoint, receiver) = (&shared.name, entry.description.name);
            tracing::error!(endpoint, receiver, error, "the answer to a command that is given up cannot be made");
        })
        .ok()
}

/// A command's outcome; or why it must not leave.
pub(crate) fn of_outcome<Db: Store>(
    shared: &Shared<Db>,
    command: &Envelope,
    message: &Encoded,
    id: Uuid,
) -> Result<Emission, String> {
    if let Some(refused) = body_refusal(message.type_name, &message.body, shared.settings.body_bytes_max) {
        return Err(refused);
    }
    let new = envelope(&shared.name, id, message, Some(command), ambient::now_us());
    let asker = command.reply_to.clone().map(|reply_to| (reply_to, command.saga.clone()));
    Ok(answer(id, message, new, asker))
}

/// What a handler or a session sends; or why it must not leave.
pub(crate) fn of_posted<Db: Store>(
    shared: &Shared<Db>,
    cause: Option<&Envelope>,
    posted: &OutgoingMessage,
) -> Result<Emission, String> {
    let new = self::posted(&shared.name, shared.settings.body_bytes_max, cause, posted)?;
    let (kind, to) = match &posted.to {
        Addressee::Subscribers => (OutboxKind::Event, Destination::Event(new.type_name.clone())),
        Addressee::Endpoint(to) => (OutboxKind::Command, Destination::Endpoint(to.clone())),
    };
    // the row has the message's id, which the user knows and may cancel it by
    let row = OutboxRow { id: posted.id, ..row(kind, to, new, posted.delay) };
    Ok(Emission::of(posted.id, posted.type_name(), vec![row]))
}

/// The envelope of what a handler, a session or a request sends; or why it must not leave.
pub(crate) fn posted(
    endpoint: &str,
    body_bytes_max: usize,
    cause: Option<&Envelope>,
    posted: &OutgoingMessage,
) -> Result<Envelope, String> {
    if let Some(refused) = &posted.refused {
        return Err(refused.clone());
    }
    let mut new = envelope(endpoint, posted.id, &posted.message, cause, ambient::now_us());
    new.type_name = posted.type_name().into_owned();
    new.headers.extend(posted.headers.clone());
    new.refusal(body_bytes_max).map_or(Ok(new), Err)
}

/// The message itself, to be handled again by one receiver.
pub(super) fn retry(queue: &str, envelope: &Envelope, receiver: &str, attempt: i64, delay: Duration) -> OutboxRow {
    let mut again = envelope.clone();
    again.receiver = Some(receiver.into());
    again.attempt = attempt;
    row(OutboxKind::Retry, Destination::Endpoint(queue.into()), again, Some(delay))
}

#[cfg(test)]
mod tests;
