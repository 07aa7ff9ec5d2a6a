//! The router: from a delivery to one item for each receiver, in the lane of its order key. Everything that can be
//! wrong with a message before it runs is found here.

use super::{
    guard::{Guard, SetAside},
    policy::Lost,
    shared::Shared,
    take_back::TakeBack,
};
use crate::{
    CrashPoint, Delivery, Envelope, HeldReason, InstanceKey, Store, hash_of, panics::caught, port::Channel,
    saga::logic::Named,
};
use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// The most deliveries that are routed together: a lane that got each by itself would begin with a batch of one.
const ROUTED_TOGETHER_MAX: usize = 256;
/// A delivery that came back this often may have killed the process.
const SUSPECT_DELIVERIES: u32 = 2;
/// The longest saga id, in bytes: it is part of indexes.
const ID_BYTES_MAX: usize = 1000;

/// The lanes of an endpoint. Their channels are bounded by the transport's prefetch.
pub(crate) struct Lanes {
    /// For sagas, and for messages that nobody can handle.
    pub(crate) sagas: Vec<mpsc::UnboundedSender<Item>>,
    /// Each handler has its own lanes, so that a handler that fails or waits does not hold up another.
    pub(crate) handlers: Vec<Vec<mpsc::UnboundedSender<Item>>>,
}

impl Lanes {
    pub(crate) fn send(&self, item: Item) {
        let lanes = match (item.work(), item.receiver) {
            (Work::Handler(handler), _) | (Work::TakeBack, Receiver::Handler(handler)) => &self.handlers[handler],
            (Work::Saga | Work::Find | Work::Hold | Work::TakeBack, _) => &self.sagas,
        };
        let place = item.order_key().unsigned_abs() as usize % lanes.len();
        // a closed lane means that the endpoint stops: the dropped item gives its delivery back
        let _ = lanes[place].send(item);
    }
}

/// Runs until the link closes or `stop` is cancelled.
pub(crate) async fn run<Db: Store>(
    shared: Arc<Shared<Db>>,
    mut deliveries: mpsc::UnboundedReceiver<Delivery>,
    lanes: Arc<Lanes>,
    stop: CancellationToken,
) {
    let mut came = Vec::new();
    let mut items = Vec::new();
    let mut channel = Channel::default();
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => 0,
            received = deliveries.recv_many(&mut came, ROUTED_TOGETHER_MAX) => received,
        };
        if received == 0 {
            return;
        }
        for delivery in came.drain(..) {
            shared.crashes.reach(CrashPoint::Receive);
            if !delivery.ack.channel().is(&channel) {
                channel = delivery.ack.channel().clone();
                shared.channels.send_modify(|channels| *channels += 1);
            }
            if channel.is_gone() {
                continue;
            }
            admit(&shared, delivery, &mut items);
        }
        for item in items.drain(..) {
            lanes.send(item);
        }
    }
}

/// Why a message cannot be handled.
type Fault = (HeldReason, String);
type Decoded = Box<dyn Any + Send>;

fn undecodable(text: impl Into<String>) -> Fault {
    (HeldReason::Undecodable, text.into())
}

/// Puts the items of a delivery into `items`.
fn admit<Db: Store>(shared: &Shared<Db>, delivery: Delivery, items: &mut Vec<Item>) {
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
        let (to, content) = match &fault {
            Some((reason, text)) => (To::Nobody, Content::Faulty(*reason, text.clone())),
            None => content(shared, receiver, &envelope),
        };
        let mut item = Item::new(guard.clone(), envelope.clone(), receiver, to, content);
        item.span = shared.trace.process(&shared.name, shared.receiver_name(receiver), &item.envelope);
        item.first = delivery_count == 0 && envelope.attempt == 0;
        item.suspect = delivery_count >= SUSPECT_DELIVERIES;
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
    if type_name == Envelope::TAKE_BACK {
        return TakeBack::read(envelope).err().map(undecodable);
    }
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
    let command = (envelope.type_name == Envelope::TAKE_BACK).then(|| TakeBack::read(envelope).ok()).flatten();
    let type_name = command.as_ref().map_or(&envelope.type_name, |command| &command.type_name);
    let all = match shared.by_type.get(type_name) {
        Some(all) => all.clone(),
        None if command.is_some() => return vec![Receiver::Nobody], // a command that only a newer process has
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
            if only.is_empty() { vec![Receiver::Nobody] } else { only }
        }
    }
}

/// Decodes the message for one receiver, and finds its instance.
fn content<Db: Store>(shared: &Shared<Db>, receiver: Receiver, envelope: &Envelope) -> (To, Content) {
    if envelope.type_name == Envelope::TAKE_BACK {
        let content = TakeBack::read(envelope).map(Content::TakeBack);
        return (To::Nobody, content.unwrap_or_else(|text| Content::Faulty(HeldReason::Undecodable, text)));
    }
    match receiver {
        Receiver::Nobody => {
            let text = format!("no receiver `{}` here", envelope.receiver.as_deref().unwrap_or_default());
            (To::Nobody, Content::Faulty(HeldReason::Version, text))
        }
        Receiver::Handler(i) => {
            // a user's `Deserialize` may panic, and must not take the router with it
            let handler = &shared.handlers[i];
            let decoded = caught(|| (handler.description.decode)(&envelope.body)).and_then(|read| read);
            let keyed = decoded.and_then(|message| {
                let key = handler.key.as_ref().map(|key| key.of(&*message)).transpose()?;
                Ok((key.map_or(To::Nobody, To::Key), message))
            });
            match keyed {
                Ok((to, message)) => (to, Content::Message(DecodedOnce::new(Some(message)))),
                Err(text) => (To::Nobody, Content::Faulty(HeldReason::Undecodable, text)),
            }
        }
        Receiver::Saga(i) if envelope.type_name == Envelope::WAKE => match named_instance(shared, i, envelope) {
            Ok(Some(key)) => (To::Instance(key), Content::Wake),
            Ok(None) => (To::Nobody, Content::Faulty(HeldReason::Undecodable, "a wake-up names an instance".into())),
            Err(text) => (To::Nobody, Content::Faulty(HeldReason::Undecodable, text)),
        },
        Receiver::Saga(i) => match for_saga(shared, i, envelope) {
            Ok((to, message)) => (to, Content::Message(DecodedOnce::new(Some(message)))),
            // an instance that the headers name must not go on as if no message had arrived
            Err(text) => {
                let to = named_instance(shared, i, envelope).ok().flatten().map_or(To::Nobody, To::Instance);
                (to, Content::Faulty(HeldReason::Undecodable, text))
            }
        },
    }
}

fn for_saga<Db: Store>(shared: &Shared<Db>, i: usize, envelope: &Envelope) -> Result<(To, Decoded), String> {
    let logic = &shared.sagas[i].logic;
    let type_name = &envelope.type_name;
    let (named, message) = caught(|| logic.read(type_name, &envelope.body)).and_then(|read| read)?;
    // an answer belongs to the instance that asked, whatever id its body has; for any other message with an id in its
    // body, the header only says who sent it
    let id = match named.filter(|_| !shared.sagas[i].answers.contains(type_name)) {
        Some(Named::ById(id)) => id,
        Some(Named::ByAlias(alias)) => return Ok((To::Alias(alias), message)),
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
    Ok((To::Instance(InstanceKey { saga: logic.name().into(), id }), message))
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

/// Who a message is for: a saga or a handler, by its place in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Receiver {
    Saga(usize),
    Handler(usize),
    /// Nobody here knows it: it will be held.
    Nobody,
}

/// Who a message of a receiver belongs to.
pub(crate) enum To {
    Instance(InstanceKey),
    /// The instance that has this alias.
    Alias(InstanceKey),
    /// No instance: the handler's messages with this key are handled one after another.
    Key(i64),
    Nobody,
}

/// One message for one receiver.
#[derive(Debug)]
pub(crate) struct Item {
    guard: Arc<Guard>,
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) receiver: Receiver,
    /// The instance, when the receiver is a saga and the message names one.
    pub(crate) key: Option<InstanceKey>,
    /// The alias by which the instance is found; then `key` is known later.
    pub(crate) alias: Option<InstanceKey>,
    /// The hash of the handler's key in it.
    pub(crate) handler_key: Option<i64>,
    /// When its call may be made, by the limit for this key.
    pub(crate) turn: Option<Instant>,
    /// Whether it was put off before, once the inbox has said so and the limit lets it stay in memory.
    pub(crate) was_put_off: Option<bool>,
    /// Its units that were lost in a row although the database answered.
    pub(super) lost: Lost,
    pub(crate) content: Content,
    /// Nothing suggests that it came before.
    pub(crate) first: bool,
    /// It was redelivered repeatedly: it may have killed the process, so it runs alone.
    pub(crate) suspect: bool,
    /// It was committed here, and runs again because its instance has more to do.
    pub(crate) is_back: bool,
    /// From here until it is settled.
    pub(crate) span: Span,
    /// A suspect's delivery is counted once, however often the lane comes back to it.
    pub(crate) counted: bool,
    /// The held message that a suspect leads to, and its crashes, this run included: counted before it runs.
    pub(crate) held_counted: Option<(String, i64)>,
}

/// What is in a message.
pub(crate) enum Content {
    /// A message.
    Message(DecodedOnce),
    /// A message that cannot be handled, and why.
    Faulty(HeldReason, String),
    /// A wake-up: the instance looks at what is held for it.
    Wake,
    /// A command is wanted back.
    TakeBack(TakeBack),
}

/// A message that was decoded when it came; gone after the first run. The mutex only makes it `Sync`.
pub(crate) struct DecodedOnce(Mutex<Option<Decoded>>);

impl DecodedOnce {
    pub(crate) fn new(message: Option<Decoded>) -> Self {
        Self(Mutex::new(message))
    }

    pub(crate) fn take(&mut self) -> Option<Decoded> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message(_) => f.write_str("Message"),
            Self::Faulty(reason, text) => write!(f, "Faulty({reason:?}, {text})"),
            Self::Wake => f.write_str("Wake"),
            Self::TakeBack(command) => command.fmt(f),
        }
    }
}

/// The unit of work that an item belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// An instance of a saga decides about it.
    Saga,
    /// Its instance is to be found by an alias.
    Find,
    /// A handler runs.
    Handler(usize),
    /// Nobody can handle it, and no instance needs to wait for it: it is held.
    Hold,
    /// A command is taken back, in the lane in which it would run.
    TakeBack,
}

impl Item {
    pub(crate) fn new(
        guard: Arc<Guard>,
        envelope: Arc<Envelope>,
        receiver: Receiver,
        to: To,
        content: Content,
    ) -> Self {
        let (key, alias, handler_key) = match to {
            To::Instance(key) => (Some(key), None, None),
            To::Alias(alias) => (None, Some(alias), None),
            To::Key(key) => (None, None, Some(key)),
            To::Nobody => (None, None, None),
        };
        let (turn, was_put_off, lost, first, suspect, is_back, counted) = Default::default();
        let (span, held_counted) = (Span::none(), None);
        Self {
            guard,
            envelope,
            receiver,
            key,
            alias,
            handler_key,
            turn,
            was_put_off,
            lost,
            content,
            first,
            suspect,
            is_back,
            span,
            counted,
            held_counted,
        }
    }

    /// The one rule that says who works on an item: the router's choice of a lane and the lane's choice of a unit
    /// follow it.
    pub(crate) fn work(&self) -> Work {
        match (self.receiver, &self.content, &self.key) {
            (_, Content::TakeBack(_), _) => Work::TakeBack,
            (Receiver::Handler(handler), Content::Message(_), _) => Work::Handler(handler),
            (Receiver::Saga(_), _, Some(_)) => Work::Saga,
            (Receiver::Saga(_), Content::Message(_), None) if self.alias.is_some() => Work::Find,
            _ => Work::Hold,
        }
    }

    /// Whether it is settled without a run of anything.
    pub(crate) fn runs_nothing(&self) -> bool {
        matches!(self.work(), Work::Hold | Work::TakeBack)
    }

    /// Messages with the same number are handled one after the other, in the order in which they came: those of the
    /// receiving instance, or of its alias until it is found; for a handler those with its key, or those of the sending
    /// instance.
    pub(crate) fn order_key(&self) -> i64 {
        if let Some(key) = self.handler_key {
            return key;
        }
        match (self.key.as_ref().or(self.alias.as_ref()), &self.envelope.saga) {
            (Some(key), _) => key.lock(),
            (None, Some(saga)) => hash_of([saga.saga.as_bytes(), saga.id.as_bytes()]),
            (None, None) => hash_of([self.envelope.message_id.as_bytes()]),
        }
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        match &self.content {
            Content::Faulty(reason, text) => Some((*reason, text.clone())),
            Content::Message(_) | Content::Wake | Content::TakeBack(_) => None,
        }
    }

    /// Whether the broker has taken the delivery back and delivers it again. An item that was counted as a suspect runs
    /// all the same: else it would be counted once for each channel that is lost.
    pub(crate) fn comes_again(&self) -> bool {
        self.guard.channel.is_gone() && !self.counted
    }

    /// The item is settled, and that is committed.
    pub(crate) fn done(&self) {
        self.guard.item_done();
    }

    /// Keeps the delivery unacknowledged until the endpoint stops; the next process gets it.
    pub(crate) fn set_aside(&self, kept: &SetAside) {
        kept.keep(self.guard.clone());
    }
}
