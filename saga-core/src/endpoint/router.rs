//! The router: from a delivery to one item for each receiver, in the lane of its key.

use super::{
    core::{Core, Target},
    item::{Guard, Item},
};
use crate::{Delivery, Envelope, HeldReason, InstanceKey, Step, Store, hash_of, saga::run::caught};
use std::{any::Any, sync::Arc};
use tokio::sync::mpsc;

/// Deliveries that came back this often may have killed the process.
const SUSPECT_DELIVERIES: u32 = 2;

/// A saga's id in bytes at most: it is part of indexes.
const ID_BYTES_MAX: usize = 1000;

/// The lanes of an endpoint.
pub(crate) struct Lanes {
    pub(crate) sagas: Vec<mpsc::UnboundedSender<Item>>,
    pub(crate) handlers: Vec<mpsc::UnboundedSender<Item>>,
}

impl Lanes {
    fn send(&self, item: Item) {
        let lanes = match item.target {
            Target::Handler(_) if item.fault.is_none() => &self.handlers,
            _ => &self.sagas,
        };
        let place = lane_key(&item).unsigned_abs() as usize % lanes.len();
        // a closed lane means that the endpoint stops: the dropped item gives its delivery back
        let _ = lanes[place].send(item);
    }
}

/// Deliveries that are routed together, at most: a lane that got each by itself would begin with a batch of one.
const TOGETHER_MAX: usize = 256;

/// Runs until the link ends or `stop` drops it.
pub(crate) async fn run<Db: Store>(
    core: Arc<Core<Db>>,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    lanes: Lanes,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut came = Vec::new();
    let mut items = Vec::new();
    loop {
        let received = tokio::select! {
            received = deliveries.recv_many(&mut came, TOGETHER_MAX) => received,
            () = stop.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        for delivery in came.drain(..) {
            core.faults.reach(Step::Receive);
            route(&core, delivery, &mut items);
        }
        for item in items.drain(..) {
            lanes.send(item);
        }
    }
}

fn route<Db: Store>(core: &Core<Db>, delivery: Delivery, items: &mut Vec<Item>) {
    let Delivery { envelope, fault, delivery_count, ack } = delivery;
    let (envelope, fault) = match envelope.storable() {
        Some((storable, why)) => (Arc::new(storable), fault.or(Some(why))),
        None => (envelope, fault),
    };
    let (targets, fault) = match fault.or_else(|| unusable(core, &envelope)) {
        Some(fault) => (vec![Target::Nobody], Some(fault)),
        None => (targets(core, &envelope), None),
    };
    let guard = Guard::new(ack, targets.len());
    for target in targets {
        let unreadable = |text: String| (HeldReason::Undecodable, text);
        let mut item = Item {
            guard: guard.clone(),
            envelope: envelope.clone(),
            target,
            key: None,
            decoded: None,
            fault: fault.clone().map(unreadable),
            first: delivery_count == 0 && envelope.attempt == 0,
            suspect: delivery_count >= SUSPECT_DELIVERIES,
        };
        if item.fault.is_none() {
            // a user's `Deserialize` may panic, and must not take the router with it
            match caught(|| read(core, target, &envelope)).and_then(|read| read) {
                Ok((key, decoded)) => {
                    item.key = key;
                    item.decoded = decoded;
                }
                Err(error) => item.fault = Some(unreadable(error)),
            }
        }
        if item.key.is_none() && item.fault.is_some() {
            item.key = named_instance(core, target, &envelope);
        }
        items.push(item);
    }
}

/// What is wrong with a message whatever its type.
fn unusable<Db: Store>(core: &Core<Db>, envelope: &Envelope) -> Option<String> {
    let max = core.settings.body_bytes_max;
    if envelope.body.len() > max {
        return Some(format!("the body has {} bytes; the limit is {max}", envelope.body.len()));
    }
    let content_type = envelope.content_type.as_deref().unwrap_or("application/json");
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return Some(format!("content type `{content_type}` is not JSON"));
    }
    if !core.by_type.contains_key(&envelope.type_name) {
        let mut known: Vec<&str> = core.by_type.keys().map(String::as_str).collect();
        known.sort_unstable();
        return Some(format!("unknown type `{}`; known here: {}", envelope.type_name, known.join(", ")));
    }
    None
}

fn targets<Db: Store>(core: &Core<Db>, envelope: &Envelope) -> Vec<Target> {
    let all = &core.by_type[&envelope.type_name];
    let Some(receiver) = &envelope.receiver else { return all.clone() };
    let only: Vec<Target> = all.iter().copied().filter(|target| core.receiver(*target) == receiver).collect();
    if only.is_empty() { vec![Target::Nobody] } else { only }
}

type Decoded = (Option<InstanceKey>, Option<Box<dyn Any + Send>>);

/// Decodes the message once, and finds its instance: by its own rule on the body, else by what an outcome or a timer echoes.
fn read<Db: Store>(core: &Core<Db>, target: Target, envelope: &Envelope) -> Result<Decoded, String> {
    match target {
        Target::Nobody => Err(format!("no receiver `{}` here", envelope.receiver.as_deref().unwrap_or_default())),
        Target::Handler(i) => Ok((None, Some((core.handlers[i].about.read)(&envelope.body)?))),
        Target::Saga(i) => {
            let logic = &core.sagas[i].logic;
            let (id, message) = logic.read(&envelope.type_name, &envelope.body)?;
            let id = match id {
                Some(id) => id,
                None => {
                    let echoed = envelope.saga.as_ref().filter(|saga| saga.saga == logic.name());
                    let Some(saga) = echoed else {
                        return Err(format!(
                            "{}: no header names an instance of saga `{}`",
                            envelope.type_name,
                            logic.name()
                        ));
                    };
                    logic.check_id(&saga.id)?;
                    saga.id.clone()
                }
            };
            if id.len() > ID_BYTES_MAX || id.contains('\0') {
                return Err(format!(
                    "{}: the id of saga `{}` is longer than {ID_BYTES_MAX} bytes, or contains U+0000",
                    envelope.type_name,
                    logic.name()
                ));
            }
            Ok((Some(InstanceKey { saga: logic.name().into(), id }), Some(message)))
        }
    }
}

/// The instance that an unreadable message names in its headers: it must not go on as if nothing had come.
fn named_instance<Db: Store>(core: &Core<Db>, target: Target, envelope: &Envelope) -> Option<InstanceKey> {
    let Target::Saga(i) = target else { return None };
    let logic = &core.sagas[i].logic;
    let saga = envelope.saga.as_ref().filter(|saga| saga.saga == logic.name())?;
    logic.check_id(&saga.id).ok()?;
    Some(InstanceKey { saga: saga.saga.clone(), id: saga.id.clone() })
}

/// Messages with the same key are handled one after the other, in the order in which they came.
fn lane_key(item: &Item) -> i64 {
    let envelope = &item.envelope;
    match (&item.key, &envelope.saga) {
        (Some(key), _) => hash_of([key.saga.as_bytes(), key.id.as_bytes()]),
        (None, Some(saga)) => hash_of([saga.saga.as_bytes(), saga.id.as_bytes()]),
        (None, None) => hash_of([envelope.message_id.as_bytes()]),
    }
}
