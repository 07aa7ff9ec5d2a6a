//! Routing slips: a linear script without an orchestrator. Its steps travel with the message, from service to service,
//! and back when one fails.
//!
//! ```text
//! Slip<A> ─► A's endpoint: handler of A ─ success ─► Slip<B> ─► B's endpoint: handler of B ─ success ─► completed
//!                                                                            └─ failure ─► Return<A> ─► A's endpoint:
//!                                                                         handler of A's undo ─ success ─► failed
//! ```
//!
//! `Slip<C>` and `Return<C>` are commands like any other. One handler, `BySlip`, stands before the handlers of a
//! command and of its undo, which know nothing of slips.

use super::{Addressee, OutgoingMessage};
use crate::{Command, Encoded, Envelope, Event, Message, MessageKind, probe::Json};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

/// The headers of the events that end a slip; see [`SlipEnd`].
const REASON: &str = "slip-reason";
const FAILED_AT: &str = "slip-failed-at";
const VARIABLES: &str = "slip-variables";

macro_rules! by_serde {
    () => {
        fn __encode(&self) -> Result<Vec<u8>, String> {
            Json::<Self>::encode(self)
        }
        fn __decode(json: &[u8]) -> Result<Self, String> {
            Json::<Self>::decode(json)
        }
    };
}

/// A command that can be a step of a routing slip: it says what its outcome means, and which command undoes it.
///
/// The handlers of both know nothing of slips: the same ones serve sagas. An endpoint takes part by
/// [`EndpointBuilder::activity`](crate::EndpointBuilder::activity). See [`Slip`] for an example.
pub trait Activity: Command + Serialize + DeserializeOwned {
    /// The command that undoes it, handled by the same endpoint; [`Irreversible`] if there is none.
    type Undo: Command + Serialize + DeserializeOwned;

    /// What the outcome means: whether the slip goes on, and by which command the step is undone if a later one fails.
    fn stamp(outcome: &Self::Outcome) -> Stamp<Self::Undo>;

    /// Whether the undo has succeeded.
    ///
    /// # Errors
    /// Why not. The slip is then held for a person, with everything it carries: `held retry` tries the undo again, and
    /// the slip travels on.
    fn undone(outcome: &<Self::Undo as Message>::Outcome) -> Result<(), String>;
}

/// What a step writes on the slip.
#[derive(Debug, Clone, PartialEq)]
pub enum Stamp<U> {
    /// It has succeeded; this command undoes it.
    Done(U),
    /// It has succeeded and cannot be undone: when a later step fails, the way back passes it by.
    Final,
    /// It has failed, for this reason, and has left nothing to be undone: the slip travels back.
    Failed(String),
}

/// The undo of an [`Activity`] that has none. There is no value of this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Irreversible {}

#[diagnostic::do_not_recommend] // in the list beside an error; so are those below
impl Message for Irreversible {
    const TYPE: &'static str = "sagabus.Irreversible";
    const KIND: MessageKind = MessageKind::Command;
    type Outcome = ();
    by_serde!();
}

#[diagnostic::do_not_recommend]
impl Command for Irreversible {
    const TO: &'static str = "";
    type GivenUp = ();
}

/// A routing slip whose next step is the command `C`: a command itself, sent by a session, a handler or a saga.
///
/// Each service does its step, writes on the slip how it is undone, and sends it on, all in one transaction. When a
/// step fails the slip travels back through the services that have done theirs, the last first. The last service
/// publishes the event that the slip names for its end. Nobody oversees this; the steps are in the message.
///
/// - Each step is a message like any other: outbox and inbox make it happen once.
/// - A handler that returns an error is retried; then the slip is held *there*, with everything it carries, because
///   nobody knows how far the step has come. It goes on with `sagabus held retry`. So is an undo that fails.
/// - The slip carries variables: [`with`](Self::with) sets them at the beginning,
///   [`Context::variables`](crate::Context::variables) in each handler on its way.
///
/// For a process that waits, has branches or is asked about, write a saga; for a linear script in a saga, see
/// [`Itinerary`](crate::Itinerary).
///
/// ```
/// use sagabus::{handler::{Activity, Irreversible, Slip, Stamp}, prelude::*};
/// use serde::{Deserialize, Serialize};
/// # #[derive(Outcome)] enum RoomOutcome { Reserved(RoomReserved), Full(HotelFull) }
/// # #[derive(Reply, Serialize, Deserialize)] struct RoomReserved { room: u32 }
/// # #[derive(Reply, Serialize, Deserialize)] struct HotelFull {}
/// # #[derive(Event, Serialize, Deserialize)] struct TripBooked { trip: u64 }
/// # #[derive(Event, Serialize, Deserialize)] struct TripFailed { trip: u64 }
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "hotel", outcome = RoomOutcome)]
/// struct ReserveRoom { trip: u64 }
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "hotel")]
/// struct CancelRoom { room: u32 }
///
/// impl Activity for ReserveRoom {
///     type Undo = CancelRoom;
///     fn stamp(outcome: &RoomOutcome) -> Stamp<CancelRoom> {
///         match outcome {
///             RoomOutcome::Reserved(it) => Stamp::Done(CancelRoom { room: it.room }),
///             RoomOutcome::Full(_) => Stamp::Failed("the hotel is full".into()),
///         }
///     }
///     fn undone(_: &()) -> Result<(), String> { Ok(()) }
/// }
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "airline")]
/// struct IssueTicket { trip: u64 }
///
/// impl Activity for IssueTicket {
///     type Undo = Irreversible;
///     fn stamp(_: &()) -> Stamp<Irreversible> { Stamp::Final }
///     fn undone(_: &()) -> Result<(), String> { Ok(()) }
/// }
///
/// struct Hotel;
///
/// #[handlers] // as always
/// impl Hotel {
///     async fn reserve(&self, _: ReserveRoom, _: &mut Context<'_, Sqlite>) -> Result<RoomOutcome, HandlerError> {
///         Ok(RoomReserved { room: 12 }.into())
///     }
///     async fn cancel(&self, _: CancelRoom, _: &mut Context<'_, Sqlite>) -> Result<(), HandlerError> { Ok(()) }
/// }
///
/// # async fn example(file: Sqlite, shop: Endpoint<Sqlite>) -> Result<(), Box<dyn std::error::Error>> {
/// # let transport = InProcess::of(&["hotel"]);
/// let hotel = Endpoint::builder("hotel", transport, file).activity::<ReserveRoom>(Hotel).start().await?;
///
/// let trip = 7;
/// let mut session = shop.session().await?;
/// session.send(
///     Slip::begin(ReserveRoom { trip })
///         .then(IssueTicket { trip })
///         .completed(TripBooked { trip })
///         .failed(TripFailed { trip }),
/// );
/// session.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(serialize = "C: Serialize", deserialize = "C: DeserializeOwned"))]
pub struct Slip<C> {
    pub(super) command: C,
    pub(super) route: Route,
}

/// A slip on its way back: undoes a step `C`.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "", deserialize = ""))]
pub(super) struct Return<C: Activity> {
    pub(super) command: C::Undo,
    pub(super) route: Route,
}

/// What a slip carries beside the command of its next step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Route {
    /// The next step but one is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<Leg>,
    /// The undos of the steps behind it; the last step's is the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) behind: Vec<Leg>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) variables: Map<String, Value>,
    /// Published when all steps are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completed: Option<Leg>,
    /// Published when all steps are undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<Leg>,
    /// Why it travels back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<SlipFailure>,
    /// Why it must not leave: something in it cannot be encoded.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none", serialize_with = "refuse")]
    pub(super) refused: Option<String>,
}

/// A message of any type, as JSON: whoever sends it on need not know its type.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Leg {
    #[serde(rename = "type")]
    type_name: String,
    /// The endpoint that gets it; none for an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    body: Box<RawValue>,
}

/// Why and where a slip has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlipFailure {
    /// The logical name of the command that failed.
    pub at: String,
    /// The reason that its [`Stamp`] gave.
    pub reason: String,
}

/// How a slip has ended, beside the event that it publishes: read from that event's headers `slip-variables`,
/// `slip-reason` and `slip-failed-at`, by [`SlipEnd::of`]. A saga reads the same ones by
/// [`Moment::header`](crate::Moment::header).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SlipEnd {
    /// The variables as the last handler left them.
    pub variables: Map<String, Value>,
    /// Why it was undone; `None` when it is complete.
    pub failure: Option<SlipFailure>,
}

impl SlipEnd {
    /// From the envelope of an event, [`Context::envelope`](crate::Context::envelope).
    pub fn of(envelope: &Envelope) -> Self {
        let text = |name: &str| envelope.headers.get(name).and_then(Value::as_str).map(str::to_owned);
        let variables = envelope.headers.get(VARIABLES).and_then(Value::as_object).cloned().unwrap_or_default();
        let failure = text(FAILED_AT).zip(text(REASON)).map(|(at, reason)| SlipFailure { at, reason });
        Self { variables, failure }
    }
}

impl<C: Activity> Slip<C> {
    /// A slip that begins with this step.
    pub fn begin(first: C) -> Self {
        Self { command: first, route: Route::default() }
    }

    /// The same with one step more, after the others.
    pub fn then<D: Activity>(mut self, step: D) -> Self {
        let leg = self.route.leg(Slip::<D>::TYPE, Some(D::TO), &step);
        self.route.ahead.extend(leg);
        self
    }

    /// The same with a variable.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.route.variables.insert(name.into(), value.into());
        self
    }

    /// The event that is published when all steps are done.
    pub fn completed<E: Event>(mut self, event: E) -> Self {
        self.route.completed = self.route.leg(E::TYPE, None, &event);
        self
    }

    /// The event that is published when a step has failed and all before it are undone. [`SlipEnd`] says why.
    pub fn failed<E: Event>(mut self, event: E) -> Self {
        self.route.failed = self.route.leg(E::TYPE, None, &event);
        self
    }
}

impl Route {
    pub(super) fn leg<M: Message>(&mut self, type_name: &str, to: Option<&str>, message: &M) -> Option<Leg> {
        let leg = Encoded::checked(message).map(|Encoded { body, .. }| {
            let body = String::from_utf8(body.to_vec()).expect("JSON is UTF-8");
            let body = RawValue::from_string(body).expect("it was read back just now");
            Leg { type_name: type_name.into(), to: to.map(Into::into), body }
        });
        match leg {
            Ok(leg) => Some(leg),
            Err((_, why)) => {
                self.refused = Some(why);
                None
            }
        }
    }

    /// To the next step, or to the end.
    pub(super) fn onwards(mut self, posted: &mut Vec<OutgoingMessage>) {
        match self.ahead.is_empty() {
            true => self.end(self.completed.clone(), posted),
            false => self.ahead.remove(0).carry(self, posted),
        }
    }

    /// To the step that is undone next, or to the end.
    pub(super) fn back(mut self, posted: &mut Vec<OutgoingMessage>) {
        match self.behind.pop() {
            Some(leg) => leg.carry(self, posted),
            None => self.end(self.failed.clone(), posted),
        }
    }

    fn end(&self, event: Option<Leg>, posted: &mut Vec<OutgoingMessage>) {
        let Some(Leg { type_name, body, .. }) = event else { return };
        let out =
            OutgoingMessage::named(posted, Addressee::Subscribers, type_name, String::from(Box::<str>::from(body)));
        if !self.variables.is_empty() {
            out.header(VARIABLES, self.variables.clone());
        }
        if let Some(SlipFailure { at, reason }) = &self.failure {
            out.header(REASON, reason.as_str()).header(FAILED_AT, at.as_str());
        }
    }
}

impl Leg {
    fn carry(self, route: Route, posted: &mut Vec<OutgoingMessage>) {
        /// `Slip` and `Return`, without their types.
        #[derive(Serialize)]
        struct Any {
            command: Box<RawValue>,
            route: Route,
        }
        let Self { type_name, to, body } = self;
        let json = serde_json::to_string(&Any { command: body, route }).expect("a slip that was read can be written");
        OutgoingMessage::named(posted, Addressee::Endpoint(to.unwrap_or_default()), type_name, json);
    }
}

fn refuse<S: Serializer>(why: &Option<String>, _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom(why.as_deref().unwrap_or_default()))
}

/// A name with a prefix, as a constant.
struct Name {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Name {
    /// What a name may have in a property of a message.
    const BYTES_MAX: usize = 512;

    const fn new(prefix: &str, name: &str) -> Self {
        let (mut bytes, parts, mut len, mut part) = ([0; Self::BYTES_MAX], [prefix, name], 0, 0);
        while part < parts.len() {
            let (from, mut n) = (parts[part].as_bytes(), 0);
            while n < from.len() {
                bytes[len] = from[n];
                (n, len) = (n + 1, len + 1);
            }
            part += 1;
        }
        Self { bytes, len }
    }

    const fn as_str(&'static self) -> &'static str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => panic!("two texts make a text"),
        }
    }
}

impl<C: Activity> Slip<C> {
    const NAME: &'static Name = &Name::new("slip.", C::TYPE);
}

impl<C: Activity> Return<C> {
    const NAME: &'static Name = &Name::new("slip.undo.", C::TYPE);
}

/// `slip.` and the name of the command: an endpoint may take the same command by itself as well.
#[diagnostic::do_not_recommend]
impl<C: Activity> Message for Slip<C> {
    const TYPE: &'static str = Self::NAME.as_str();
    const KIND: MessageKind = MessageKind::Command;
    type Outcome = ();
    const ENDPOINT: Option<&'static str> = Some(C::TO);
    by_serde!();
}

#[diagnostic::do_not_recommend]
impl<C: Activity> Command for Slip<C> {
    const TO: &'static str = C::TO;
    type GivenUp = ();
}

#[diagnostic::do_not_recommend]
impl<C: Activity> Message for Return<C> {
    const TYPE: &'static str = Self::NAME.as_str();
    const KIND: MessageKind = MessageKind::Command;
    type Outcome = ();
    const ENDPOINT: Option<&'static str> = Some(C::Undo::TO);
    by_serde!();
}

#[diagnostic::do_not_recommend]
impl<C: Activity> Command for Return<C> {
    const TO: &'static str = C::Undo::TO;
    type GivenUp = ();
}
