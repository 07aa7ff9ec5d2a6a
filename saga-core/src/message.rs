//! Messages: what is said between services, by a stable logical name.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Reads a message's JSON. A byte order mark before it is skipped (RFC 8259, section 8.1, allows that).
pub(crate) fn decode<M: Message>(body: &[u8]) -> Result<M, String> {
    let json = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(json).map_err(|error| format!("{}: {error}", M::TYPE))
}

/// Something that travels: a serde type with a logical name that never changes.
///
/// Derive [`Event`], [`Command`] or (for timers) `Message` instead of writing this by hand.
///
/// ```
/// use saga_core::{Command, Event, Message};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(from = "ordering")]
/// struct OrderPlaced { order_id: u64 }
///
/// assert_eq!(OrderPlaced::TYPE, "ordering.OrderPlaced");
/// ```
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name on the wire and in the database, `ordering.OrderPlaced`.
    const TYPE: &'static str;
    /// How it travels.
    const KIND: MessageKind;
    /// What the handler of it gives back: `()` for everything but commands.
    type Outcome: Outcome;
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// To the one endpoint that handles it.
    Command,
    /// To every endpoint that subscribed.
    Event,
    /// An answer to whoever asked.
    Reply,
    /// From a saga instance to itself, later.
    Timer,
}

/// Something that happened, published to whoever subscribed; named in the past tense.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "only events are published and subscribed to",
    note = "derive it: `#[derive(Event)]`; a command goes to its one handler with `send`"
)]
pub trait Event: Message<Outcome = ()> {}

/// An order to one endpoint; named in the imperative.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "only commands are sent",
    note = "derive it: `#[derive(Command)] #[command(to = \"endpoint\")]`; an event goes out with `publish`"
)]
pub trait Command: Message {
    /// The endpoint that handles it.
    const TO: &'static str;
}

/// What can come back of a command: an enum whose variants each hold one event, or `()` for nothing.
///
/// ```
/// use saga_core::{Event, Outcome};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(from = "payment")]
/// struct PaymentCompleted { order_id: u64 }
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(from = "payment")]
/// struct PaymentDeclined { order_id: u64 }
///
/// #[derive(Outcome)]
/// enum PaymentOutcome { Completed(PaymentCompleted), Declined(PaymentDeclined) }
/// ```
pub trait Outcome: Send + 'static {
    /// The tuple of the variants' messages: what a saga that sends the command must be able to take.
    type Messages;
    /// Whether it goes to the asker alone (`#[outcome(reply)]`) instead of being published.
    const REPLY_ONLY: bool = false;
    /// The logical names of the variants' messages.
    fn types() -> Vec<&'static str>;
    /// The variant's message; `None` for `()`.
    fn encode(self) -> Option<Encoded>;
}

impl Outcome for () {
    type Messages = ();
    fn types() -> Vec<&'static str> {
        Vec::new()
    }
    fn encode(self) -> Option<Encoded> {
        None
    }
}

/// A message as it leaves: its logical name and its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The logical name.
    pub type_name: &'static str,
    /// How it travels.
    pub kind: MessageKind,
    /// The JSON.
    pub body: Bytes,
}

impl Encoded {
    /// Encodes `message` and reads it back: what no receiver could read must not leave. JSON has no NaN and no infinity,
    /// for one, and serde_json writes `null` in their place. An error comes with what was encoded.
    pub(crate) fn checked<M: Message>(message: &M) -> Result<Self, (Self, String)> {
        let new = |body: Vec<u8>| Self { type_name: M::TYPE, kind: M::KIND, body: body.into() };
        let body = match serde_json::to_vec(message) {
            Ok(body) => body,
            Err(error) => return Err((new(Vec::new()), format!("message {} does not encode: {error}", M::TYPE))),
        };
        match decode::<M>(&body) {
            Ok(_) => Ok(new(body)),
            Err(error) => {
                Err((new(body), format!("message {error}, when it is read back: does it hold NaN or an infinity?")))
            }
        }
    }

    /// Encodes `message`.
    ///
    /// # Panics
    /// When it does not encode, or cannot be read back: a transition that sends it fails.
    pub fn of<M: Message>(message: &M) -> Self {
        Self::checked(message).unwrap_or_else(|(_, why)| panic!("{why}"))
    }
}
