//! Messages: what is said between services, by a stable logical name.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

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
    /// The JSON.
    pub body: Bytes,
}

impl Encoded {
    /// Encodes `message`.
    ///
    /// # Panics
    /// When the type's own `Serialize` fails: a fault of the type, not of the data.
    pub fn of<M: Message>(message: &M) -> Self {
        let body =
            serde_json::to_vec(message).unwrap_or_else(|error| panic!("message {} does not encode: {error}", M::TYPE));
        Self { type_name: M::TYPE, body: body.into() }
    }
}
