//! Turns what a transition or a handler sends into rows of the outbox.

use super::shared::{Shared, now_us};
use crate::{
    Encoded, Envelope, InstanceKey, MessageKind, OutboxKind, SagaRef, Store,
    envelope::body_refusal,
    handler::{Addressee, OutgoingMessage},
    port::{Caused, OutboxRow},
    saga::{
        Emit, Route,
        logic::{Move, Originator},
    },
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// What one sent message writes.
pub(crate) struct Emission {
    /// One row; two for an answer that is published as well; none when it has no receiver.
    pub(crate) rows: Vec<OutboxRow>,
    /// The journal's line.
    pub(crate) effect: Caused,
}

impl Emission {
    fn of(id: Uuid, message: &Encoded, rows: Vec<OutboxRow>) -> Self {
        let to = rows.first().map(|row| row.destination.name().to_owned());
        let note = rows.is_empty().then_some("nobody asked");
        Self { effect: Caused { id: to.is_some().then_some(id), type_name: message.type_name, to, note }, rows }
    }
}

fn row(kind: OutboxKind, to: String, envelope: Envelope, delay: Option<Duration>) -> OutboxRow {
    OutboxRow {
        id: Uuid::now_v7(),
        kind,
        destination: kind.destination(to),
        envelope: Arc::new(envelope),
        delay,
        leased: false,
        last_error: None,
    }
}

/// A message of this endpoint, caused by another or by nobody.
fn envelope(endpoint: &str, id: Uuid, message: &Encoded, cause: Option<&Envelope>, sent_at_us: i64) -> Envelope {
    let mut envelope = Envelope::new(id.to_string(), message.type_name, message.body.clone());
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
pub(crate) fn of_transition<Db: Store>(
    shared: &Shared<Db>,
    cause: &Envelope,
    key: &InstanceKey,
    made: &Move,
    originator: Option<&str>,
    emit: &Emit,
    now_us: i64,
) -> Emission {
    let id = Uuid::now_v7();
    let message = &emit.message;
    let mut new = envelope(&shared.name, id, message, Some(cause), now_us);
    let mut own = SagaRef { saga: key.saga.clone(), id: key.id.clone(), entered: Some(made.entered) };
    let row = match &emit.route {
        Route::Command { to } => {
            new.reply_to = Some(shared.name.clone());
            new.saga = Some(own);
            row(OutboxKind::Command, (*to).into(), new, None)
        }
        Route::Event => {
            new.saga = Some(own);
            row(OutboxKind::Event, message.type_name.into(), new, None)
        }
        Route::After(delay) | Route::Deadline(delay) => {
            if matches!(emit.route, Route::Deadline(_)) {
                own.entered = None;
            }
            new.saga = Some(own);
            new.receiver = Some(key.saga.clone());
            row(OutboxKind::Timer, shared.name.clone(), new, Some(*delay))
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
    Emission::of(id, message, vec![row])
}

/// An answer goes to the requester and to nobody else: to the very instance, if a saga asked. An answer that is an
/// event is published as well, under the same message id, so that an endpoint that gets both copies handles it once.
fn answer(id: Uuid, message: &Encoded, new: Envelope, asker: Option<(String, Option<SagaRef>)>) -> Emission {
    let mut rows = Vec::new();
    if let Some((reply_to, saga)) = asker {
        let receiver = saga.as_ref().map(|saga| saga.saga.clone());
        rows.push(row(OutboxKind::Reply, reply_to, Envelope { saga, receiver, ..new.clone() }, None));
    }
    if message.kind == MessageKind::Event {
        rows.push(row(OutboxKind::Event, message.type_name.into(), new, None));
    }
    Emission::of(id, message, rows)
}

/// A command's outcome; or why it must not leave.
pub(crate) fn of_outcome<Db: Store>(
    shared: &Shared<Db>,
    command: &Envelope,
    message: &Encoded,
) -> Result<Emission, String> {
    if let Some(refused) = body_refusal(message.type_name, &message.body, shared.settings.body_bytes_max) {
        return Err(refused);
    }
    let id = Uuid::now_v7();
    let new = envelope(&shared.name, id, message, Some(command), now_us());
    let asker = command.reply_to.clone().map(|reply_to| (reply_to, command.saga.clone()));
    Ok(answer(id, message, new, asker))
}

/// What a handler or a session sends; or why it must not leave.
pub(crate) fn of_posted<Db: Store>(
    shared: &Shared<Db>,
    cause: Option<&Envelope>,
    posted: &OutgoingMessage,
) -> Result<Emission, String> {
    if let Some(refused) = &posted.refused {
        return Err(refused.clone());
    }
    let mut new = envelope(&shared.name, posted.id, &posted.message, cause, now_us());
    new.headers.extend(posted.headers.clone());
    if let Some(refused) = new.refusal(shared.settings.body_bytes_max) {
        return Err(refused);
    }
    let (kind, to) = match &posted.to {
        Addressee::Subscribers => (OutboxKind::Event, posted.message.type_name.to_owned()),
        Addressee::Endpoint(to) => (OutboxKind::Command, to.clone()),
    };
    Ok(Emission::of(posted.id, &posted.message, vec![row(kind, to, new, posted.delay)]))
}

/// The message itself, to be handled again by one receiver.
pub(crate) fn retry(endpoint: &str, envelope: &Envelope, receiver: &str, attempt: i64, delay: Duration) -> OutboxRow {
    let mut again = envelope.clone();
    again.receiver = Some(receiver.into());
    again.attempt = attempt;
    row(OutboxKind::Retry, endpoint.into(), again, Some(delay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Destination;
    use bytes::Bytes;

    fn encoded(kind: MessageKind) -> Encoded {
        Encoded { type_name: "bank.Paid", kind, body: Bytes::from_static(b"{}") }
    }

    fn asker() -> Option<(String, Option<SagaRef>)> {
        Some(("shop".into(), Some(SagaRef { saga: "order".into(), id: "7".into(), entered: Some(2) })))
    }

    fn answered(kind: MessageKind, asker: Option<(String, Option<SagaRef>)>) -> Emission {
        let message = encoded(kind);
        let id = Uuid::from_u128(1);
        answer(id, &message, envelope("bank", id, &message, None, 0), asker)
    }

    #[test]
    fn a_reply_goes_to_the_asking_instance_alone() {
        let Emission { rows, effect } = answered(MessageKind::Reply, asker());
        let [reply] = &rows[..] else { panic!("one row was expected: {rows:?}") };
        assert_eq!(reply.destination, Destination::ReplyTo("shop".into()));
        let saga = reply.envelope.saga.as_ref().expect("it names the asking instance");
        assert_eq!((saga.id.as_str(), saga.entered), ("7", Some(2)));
        assert_eq!(reply.envelope.receiver.as_deref(), Some("order"));
        assert_eq!(effect.to.as_deref(), Some("shop"));
    }

    #[test]
    fn an_event_that_answers_is_published_too_under_one_id() {
        let Emission { rows, .. } = answered(MessageKind::Event, asker());
        let [reply, event] = &rows[..] else { panic!("two rows were expected: {rows:?}") };
        assert_eq!(event.destination, Destination::Event("bank.Paid".into()));
        assert_eq!(reply.envelope.message_id, event.envelope.message_id);
        assert_ne!(reply.id, event.id);
        assert_eq!((&event.envelope.saga, &event.envelope.receiver), (&None, &None), "it is everybody's");
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_published_or_journaled() {
        let Emission { rows, effect } = answered(MessageKind::Reply, None);
        assert!(rows.is_empty(), "{rows:?}");
        assert_eq!((effect.id, effect.note), (None, Some("nobody asked")));
        let Emission { rows, .. } = answered(MessageKind::Event, None);
        assert_eq!(rows[0].destination, Destination::Event("bank.Paid".into()));
    }
}
