//! From what a transition or a handler sends to rows of the outbox.

use super::core::{Core, now_us};
use crate::{
    Caused, Destination, Encoded, Envelope, InstanceKey, OutboxKind, OutboxRow, SagaRef, Store,
    handler::{Posted, Target},
    saga::{
        Emit, Route,
        run::{Move, Originator},
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// Outbox rows of a batch, and the journal's list of what each message caused.
pub(crate) struct Emission {
    pub(crate) row: Option<OutboxRow>,
    pub(crate) effect: Caused,
}

fn trace(cause: Option<&Envelope>) -> BTreeMap<String, Value> {
    let headers = cause.into_iter().flat_map(|cause| &cause.headers);
    let trace = headers.filter(|(name, _)| matches!(name.as_str(), "traceparent" | "tracestate"));
    trace.map(|(name, value)| (name.clone(), value.clone())).collect()
}

struct Draft<'a> {
    cause: Option<&'a Envelope>,
    id: Uuid,
    message: Encoded,
    saga: Option<SagaRef>,
    receiver: Option<String>,
    kind: OutboxKind,
    to: String,
    delay: Option<Duration>,
    headers: BTreeMap<String, Value>,
    sent_at_us: i64,
}

fn draft<Db: Store>(core: &Core<Db>, draft: Draft<'_>) -> Emission {
    let id = draft.id.to_string();
    let effect =
        Caused { id: Some(draft.id), type_name: draft.message.type_name, to: Some(draft.to.clone()), note: None };
    let mut headers = trace(draft.cause);
    headers.extend(draft.headers);
    let envelope = Envelope {
        conversation_id: draft.cause.map_or_else(|| id.clone(), |cause| cause.conversation_id.clone()),
        causation_id: draft.cause.map(|cause| cause.message_id.clone()),
        message_id: id,
        type_name: draft.message.type_name.into(),
        saga: draft.saga,
        receiver: draft.receiver,
        attempt: 0,
        round: 0,
        reply_to: Some(core.name.clone()),
        sender: Some(core.name.clone()),
        sent_at_us: Some(draft.sent_at_us),
        content_type: None,
        headers,
        body: draft.message.body,
    };
    let row = OutboxRow {
        id: draft.id,
        endpoint: core.name.clone(),
        kind: draft.kind,
        destination: draft.kind.destination(draft.to),
        envelope: Arc::new(envelope),
        delay: draft.delay,
        leased: false,
    };
    Emission { row: Some(row), effect }
}

/// What a transition sends.
pub(crate) fn of_transition<Db: Store>(
    core: &Core<Db>,
    cause: &Envelope,
    key: &InstanceKey,
    made: &Move,
    originator: Option<&str>,
    emit: &Emit,
    now_us: i64,
) -> Emission {
    let own = |entered| SagaRef { saga: key.saga.clone(), id: key.id.clone(), entered };
    let mut new = Draft {
        cause: Some(cause),
        id: Uuid::now_v7(),
        message: emit.message.clone(),
        saga: Some(own(Some(made.entered))),
        receiver: None,
        kind: OutboxKind::Command,
        to: String::new(),
        delay: None,
        headers: BTreeMap::new(),
        sent_at_us: now_us,
    };
    match &emit.route {
        Route::Command { to } => new.to = (*to).into(),
        Route::Event => {
            new.kind = OutboxKind::Event;
            new.to = emit.message.type_name.into();
        }
        Route::After(delay) | Route::Deadline(delay) => {
            new.kind = OutboxKind::Timer;
            new.to = core.name.clone();
            new.receiver = Some(key.saga.clone());
            new.delay = Some(*delay);
            if matches!(emit.route, Route::Deadline(_)) {
                new.saga = Some(own(None));
            }
        }
        Route::Reply => {
            let Some(originator) = originator.and_then(|text| serde_json::from_str::<Originator>(text).ok()) else {
                let type_name = emit.message.type_name;
                let effect = Caused { id: None, type_name, to: None, note: Some("nobody to reply to") };
                return Emission { row: None, effect };
            };
            new.kind = OutboxKind::Reply;
            new.to = originator.reply_to;
            new.saga = originator.saga;
            let mut emission = draft(core, new);
            if let Some(row) = &mut emission.row {
                let envelope = Arc::make_mut(&mut row.envelope);
                envelope.causation_id = Some(originator.message_id);
                envelope.conversation_id = originator.conversation_id;
            }
            return emission;
        }
    }
    draft(core, new)
}

/// What a handler or a session posts.
pub(crate) fn of_posted<Db: Store>(core: &Core<Db>, cause: Option<&Envelope>, posted: &Posted) -> Emission {
    let (kind, to) = match &posted.target {
        Target::Event => (OutboxKind::Event, posted.message.type_name.to_owned()),
        Target::Endpoint(to) => (OutboxKind::Command, to.clone()),
    };
    draft(
        core,
        Draft {
            cause,
            id: posted.id,
            message: posted.message.clone(),
            saga: None,
            receiver: None,
            kind,
            to,
            delay: posted.delay,
            headers: posted.headers.clone(),
            sent_at_us: now_us(),
        },
    )
}

/// A command's outcome leaves once: published, so that the asker and everybody else find it; or to the asker alone, when
/// its type says so, or when a stranger (who subscribes to nothing) asked.
pub(crate) fn of_outcome<Db: Store>(core: &Core<Db>, cause: &Envelope, message: Encoded, reply_only: bool) -> Emission {
    let asker = cause.reply_to.as_ref().filter(|_| reply_only || cause.sender.is_none());
    let (kind, to) = match asker {
        Some(reply_to) => (OutboxKind::Reply, reply_to.clone()),
        None => (OutboxKind::Event, message.type_name.to_owned()),
    };
    draft(
        core,
        Draft {
            cause: Some(cause),
            id: Uuid::now_v7(),
            message,
            saga: cause.saga.clone(),
            receiver: None,
            kind,
            to,
            delay: None,
            headers: BTreeMap::new(),
            sent_at_us: now_us(),
        },
    )
}

/// The message itself, put off, for one receiver only.
pub(crate) fn of_retry<Db: Store>(
    core: &Core<Db>,
    envelope: &Envelope,
    receiver: &str,
    attempt: i64,
    delay: Duration,
) -> OutboxRow {
    let mut envelope = envelope.clone();
    envelope.receiver = Some(receiver.into());
    envelope.attempt = attempt;
    envelope.round += 1;
    OutboxRow {
        id: Uuid::now_v7(),
        endpoint: core.name.clone(),
        kind: OutboxKind::Retry,
        destination: Destination::Endpoint(core.name.clone()),
        envelope: Arc::new(envelope),
        delay: Some(delay),
        leased: false,
    }
}
