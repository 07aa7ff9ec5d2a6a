//! Admission: from a delivery to one item for each receiver. Everything that can be wrong with a message before it runs
//! is found here.

use super::{
    item::{Content, DecodedOnce, Guard, Item},
    shared::{Receiver, Shared},
};
use crate::{Delivery, Envelope, HeldReason, InstanceKey, Store, panics::caught};
use std::{any::Any, sync::Arc};

/// A delivery that came back this often may have killed the process.
const SUSPECT_DELIVERIES: u32 = 2;
/// The longest saga id, in bytes: it is part of indexes.
const ID_BYTES_MAX: usize = 1000;

/// Why a message cannot be handled.
type Fault = (HeldReason, String);
type Decoded = Box<dyn Any + Send>;

fn undecodable(text: impl Into<String>) -> Fault {
    (HeldReason::Undecodable, text.into())
}

/// Puts the items of a delivery into `items`.
pub(crate) fn admit<Db: Store>(shared: &Shared<Db>, delivery: Delivery, items: &mut Vec<Item>) {
    let Delivery { mut envelope, fault, delivery_count, ack } = delivery;
    // a shared envelope was sent by this process (in-process transport) and was checked then
    let wrong = Arc::get_mut(&mut envelope).and_then(Envelope::sanitize);
    let fault = fault.or(wrong).map(undecodable).or_else(|| unusable(shared, &envelope));
    let receivers = match &fault {
        Some(_) => vec![Receiver::Nobody],
        None => receivers(shared, &envelope),
    };
    if receivers.is_empty() {
        tracing::debug!(endpoint = shared.name, kind = envelope.type_name, "an answer to another saga or instance");
        return ack.ack();
    }
    let guard = Guard::new(ack, receivers.len());
    for receiver in receivers {
        let (key, content) = match &fault {
            Some((reason, text)) => (None, Content::Faulty(*reason, text.clone())),
            None => content(shared, receiver, &envelope),
        };
        let mut item = Item::new(guard.clone(), envelope.clone(), receiver, key, content);
        item.first = delivery_count == 0 && envelope.attempt == 0;
        item.suspect = delivery_count >= SUSPECT_DELIVERIES && !matches!(item.content, Content::Wake);
        items.push(item);
    }
}

/// What is wrong with a message, regardless of its receiver.
fn unusable<Db: Store>(shared: &Shared<Db>, envelope: &Envelope) -> Option<Fault> {
    let max = shared.settings.body_bytes_max;
    if envelope.body.len() > max {
        return Some(undecodable(format!("the body has {} bytes; `body_bytes_max` is {max}", envelope.body.len())));
    }
    let content_type = envelope.content_type.as_deref().unwrap_or("application/json");
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return Some(undecodable(format!("content type `{content_type}` is not JSON")));
    }
    let type_name = envelope.type_name.as_str();
    if type_name != Envelope::WAKE && !shared.by_type.contains_key(type_name) {
        let mut known: Vec<&str> = shared.by_type.keys().map(String::as_str).collect();
        known.sort_unstable();
        let known = known.join(", ");
        // a newer process of this endpoint may know it, and housekeeping there offers it again
        return Some((HeldReason::Version, format!("unknown type `{type_name}`; known here: {known}")));
    }
    None
}

/// Who gets a message. Nobody, when it answers a saga or an instance that is not here.
fn receivers<Db: Store>(shared: &Shared<Db>, envelope: &Envelope) -> Vec<Receiver> {
    let all = match shared.by_type.get(&envelope.type_name) {
        Some(all) => all.clone(),
        None => (0..shared.sagas.len()).map(Receiver::Saga).collect(), // a wake-up
    };
    let asked = |receiver: &Receiver| match receiver {
        Receiver::Saga(i) => {
            let saga = &shared.sagas[*i];
            let answers = envelope.saga.as_ref().is_some_and(|asker| asker.saga == saga.chart.saga);
            answers || !saga.answers.contains(&envelope.type_name)
        }
        Receiver::Handler(_) | Receiver::Nobody => true,
    };
    match &envelope.receiver {
        None => all.into_iter().filter(asked).collect(),
        Some(name) => {
            let only = |receiver: &Receiver| shared.receiver_name(*receiver) == name;
            let only: Vec<Receiver> = all.into_iter().filter(only).collect();
            // a wake-up for a saga that only a newer process has is useless here: that process sends its own
            if only.is_empty() && envelope.type_name != Envelope::WAKE { vec![Receiver::Nobody] } else { only }
        }
    }
}

/// Decodes the message for one receiver, and finds its instance.
fn content<Db: Store>(shared: &Shared<Db>, receiver: Receiver, envelope: &Envelope) -> (Option<InstanceKey>, Content) {
    match receiver {
        Receiver::Nobody => {
            let text = format!("no receiver `{}` here", envelope.receiver.as_deref().unwrap_or_default());
            (None, Content::Faulty(HeldReason::Version, text))
        }
        Receiver::Handler(i) => {
            // a user's `Deserialize` may panic, and must not take the router with it
            let decoded = caught(|| (shared.handlers[i].description.decode)(&envelope.body)).and_then(|read| read);
            match decoded {
                Ok(message) => (None, Content::Message(DecodedOnce::new(Some(message)))),
                Err(text) => (None, Content::Faulty(HeldReason::Undecodable, text)),
            }
        }
        Receiver::Saga(i) if envelope.type_name == Envelope::WAKE => match named_instance(shared, i, envelope) {
            Ok(Some(key)) => (Some(key), Content::Wake),
            Ok(None) => (None, Content::Faulty(HeldReason::Undecodable, "a wake-up names an instance".into())),
            Err(text) => (None, Content::Faulty(HeldReason::Undecodable, text)),
        },
        Receiver::Saga(i) => match for_saga(shared, i, envelope) {
            Ok((key, message)) => (Some(key), Content::Message(DecodedOnce::new(Some(message)))),
            // an instance that the headers name must not go on as if no message had arrived
            Err(text) => {
                (named_instance(shared, i, envelope).ok().flatten(), Content::Faulty(HeldReason::Undecodable, text))
            }
        },
    }
}

fn for_saga<Db: Store>(shared: &Shared<Db>, i: usize, envelope: &Envelope) -> Result<(InstanceKey, Decoded), String> {
    let logic = &shared.sagas[i].logic;
    let type_name = &envelope.type_name;
    let (id, message) = caught(|| logic.read(type_name, &envelope.body)).and_then(|read| read)?;
    // an answer belongs to the instance that asked, whatever id its body has; for any other message with an id in its
    // body, the header only says who sent it
    let own = id.filter(|_| !shared.sagas[i].answers.contains(type_name));
    let id = match own {
        Some(id) => id,
        None => match named_instance(shared, i, envelope)? {
            Some(key) => key.id,
            None => return Err(format!("{type_name}: no header names an instance of saga `{}`", logic.name())),
        },
    };
    if id.len() > ID_BYTES_MAX || id.contains('\0') {
        let saga = logic.name();
        return Err(format!(
            "{type_name}: the id of saga `{saga}` is longer than {ID_BYTES_MAX} bytes, or contains U+0000"
        ));
    }
    Ok((InstanceKey { saga: logic.name().into(), id }, message))
}

/// The instance of this saga that the headers name, in its canonical spelling.
fn named_instance<Db: Store>(
    shared: &Shared<Db>,
    i: usize,
    envelope: &Envelope,
) -> Result<Option<InstanceKey>, String> {
    let logic = &shared.sagas[i].logic;
    let Some(named) = envelope.saga.as_ref().filter(|saga| saga.saga == logic.name()) else { return Ok(None) };
    let id = caught(|| logic.canonical_id(&named.id)).and_then(|id| id)?;
    Ok(Some(InstanceKey { saga: logic.name().into(), id }))
}
