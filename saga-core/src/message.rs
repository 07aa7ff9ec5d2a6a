//! Messages: what services say to each other, under names that never change.

use bytes::Bytes;

/// Reads a message's JSON. Skips a byte order mark before it (RFC 8259, section 8.1, allows that).
pub(crate) fn decode<M: Message>(body: &[u8]) -> Result<M, ReadError> {
    let json = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    M::__decode(json).map_err(|error| ReadError(format!("{}: {error}", M::TYPE)))
}

/// What serde says about a value, without what it quotes of it. A type that reads itself may quote anything, so only
/// what is known to quote nothing stays as it is.
pub(crate) fn unquoted(error: &str) -> String {
    const SAFE: [&str; 6] =
        ["missing field `", "duplicate field `", "EOF while ", "expected value", "expected `", "trailing "];
    const KINDS: [&str; 9] =
        ["boolean", "integer", "floating point", "string", "null", "unit value", "sequence", "map", "enum"];
    if SAFE.iter().any(|start| error.starts_with(start)) {
        return error.to_owned();
    }
    let wrong = error.strip_prefix("invalid type: ").zip(error.rfind(", expected "));
    let kind = wrong.and_then(|(rest, _)| KINDS.iter().find(|kind| rest.starts_with(**kind)));
    match (wrong, kind) {
        (Some((_, at)), Some(kind)) => format!("invalid type: {kind}{}", &error[at..]),
        _ => {
            let at = error.rfind(" at line ").map_or("", |at| &error[at..]);
            let is_place = at.chars().all(|c| c.is_ascii_digit() || " atlinecolumn".contains(c));
            format!("a value is not what its field expects{}", if is_place { at } else { "" })
        }
    }
}

/// The same of a text that begins with the name of the type that was read.
pub(crate) fn unquoted_body(error: &str) -> String {
    match error.split_once(": ") {
        Some((name, error)) => format!("{name}: {}", unquoted(error)),
        None => unquoted(error),
    }
}

/// Why a message or a state could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub String);

/// Something that travels: a serde type with a logical name that never changes.
///
/// Derive [`Event`], [`Command`], [`Reply`](derive@crate::Reply) or (for timers) `Message` instead of writing this by
/// hand.
///
/// ```
/// use sagabus::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(from = "ordering")]
/// struct OrderPlaced { order_id: u64 }
///
/// assert_eq!(OrderPlaced::TYPE, "ordering.OrderPlaced");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "not a message",
    note = "derive `Event`, `Command`, `Reply`, or `Message` for a timer"
)]
pub trait Message: Sized + Send + Sync + 'static {
    /// The name on the wire and in the database, `ordering.OrderPlaced`.
    const TYPE: &'static str;
    /// How it travels.
    const KIND: MessageKind;
    /// What its handler returns: `()` for everything but commands.
    type Outcome: Outcome;
    /// The endpoint that handles a command; as in [`Command::TO`].
    #[doc(hidden)]
    const ENDPOINT: Option<&'static str> = None;
    /// Whether it goes to its endpoint's queue for commands that can wait.
    #[doc(hidden)]
    const CAN_WAIT: bool = false;
    /// The fields that operators do not see (`#[masked]`), by their names in JSON.
    #[doc(hidden)]
    const MASKED: &'static [&'static str] = &[];
    /// What the sender of a command gets when it is given up.
    #[doc(hidden)]
    const GIVES_UP: Option<GivesUp> = None;

    // By serde. Its traits are no supertraits: what lacks them would be no message, at every place where it is used.
    #[doc(hidden)]
    fn __encode(&self) -> Result<Vec<u8>, String>;
    #[doc(hidden)]
    fn __decode(json: &[u8]) -> Result<Self, String>;
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MessageKind {
    /// To the one endpoint that handles it.
    Command,
    /// To every endpoint that subscribed; as an outcome, also to the requester.
    Event,
    /// To the requester alone.
    Reply,
    /// From a saga instance to itself, later.
    Timer,
}

/// Something that happened, published to everyone who subscribed; named in the past tense.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "only events are published and subscribed to",
    note = "a reply goes to its requester alone: derive `Event` instead of `Reply` if others may subscribe",
    note = "a command goes to its one handler: use `send`"
)]
pub trait Event: Answer {}

/// A message that can answer a command. A type that derives `Reply` goes to the requester alone; one that derives
/// [`Event`](derive@crate::Event) goes to the requester and is published too.
///
/// ```
/// use sagabus::{MessageKind, prelude::*};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Reply, Serialize, Deserialize)]
/// #[reply(from = "payment")]
/// struct BalanceRead { cents: i64 }
///
/// assert_eq!((BalanceRead::TYPE, BalanceRead::KIND), ("payment.BalanceRead", MessageKind::Reply));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an answer",
    label = "not a `Reply` and not an `Event`",
    note = "derive `Reply` for what only the requester may see, `Event` for what others may subscribe to",
    note = "a command is not an answer: the receiver of the answer sends the command"
)]
pub trait Answer: Message<Outcome = ()> {}

/// An order to one endpoint; named in the imperative.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "only commands are sent",
    note = "derive it: `#[derive(Command)] #[command(to = \"endpoint\")]`; an event goes out with `publish`"
)]
pub trait Command: Message {
    /// The endpoint that handles it.
    const TO: &'static str;
    /// The queue that it goes to, as its destination names it: the endpoint's, or the one for commands that can wait.
    #[doc(hidden)]
    const QUEUE: &'static str = Self::TO;
    /// What else a saga that sends it must take, beside the outcome: the message of a command that is given up, as
    /// a tuple `(M,)`; else `()`.
    type GivenUp;
}

/// The answer to a command that is given up: when its handler's retries end, or it fails for good, the saga that sent
/// the command gets this message instead of the command being held for a person.
///
/// ```
/// use sagabus::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command(to = "labels", outcome = BarcodeOutcome, gives_up = BarcodeFailed)]
/// struct MakeBarcode { parcel: u64 }
///
/// #[derive(Outcome)]
/// enum BarcodeOutcome { Made(BarcodeMade) }
/// #[derive(Reply, Serialize, Deserialize)]
/// struct BarcodeMade { parcel: u64 }
/// #[derive(Reply, Serialize, Deserialize)]
/// struct BarcodeFailed { parcel: u64, why: String }
///
/// impl GiveUp<MakeBarcode> for BarcodeFailed {
///     fn give_up(command: MakeBarcode, failure: &str) -> Self {
///         Self { parcel: command.parcel, why: failure.into() }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how it is made of a `{C}` that is given up",
    label = "needs `impl GiveUp<{C}> for {Self}`",
    note = "write `impl GiveUp<{C}> for {Self} {{ fn give_up(command: {C}, failure: &str) -> Self {{ .. }} }}`"
)]
pub trait GiveUp<C>: Answer {
    /// The answer. `failure` is the text of the last failure. It must not panic: the command is held then.
    fn give_up(command: C, failure: &str) -> Self;
}

/// How the answer to a command that is given up is made of the command's JSON and the failure.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct GivesUp {
    pub type_name: &'static str,
    pub make: fn(&[u8], &str) -> Result<Encoded, String>,
}

#[doc(hidden)]
pub const fn gives_up<C: Message, M: GiveUp<C>>() -> GivesUp {
    GivesUp {
        type_name: M::TYPE,
        make: |body, failure| {
            let command = decode::<C>(body).map_err(|error| error.0)?;
            Encoded::checked(&M::give_up(command, failure)).map_err(|(_, why)| why)
        },
    }
}

/// What may come back for a message, by logical name: its outcome, and what answers it when it is given up.
pub(crate) fn answers_to<M: Message>() -> Vec<&'static str> {
    let mut all = M::Outcome::types();
    all.extend(M::GIVES_UP.map(|it| it.type_name).filter(|name| !all.contains(name)));
    all
}

/// What [`Cancels`](crate::Cancels) takes back: a [`Timer`] or a [`Command`]. Their derives write it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a timer nor a command",
    label = "only timers and commands are taken back",
    note = "an event is a fact by the time it leaves: publish another one that says what changed"
)]
pub trait Cancellable: Message {}

/// A message from an instance to itself, later. [`derive(Message)`](derive@crate::Message) writes it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a timer",
    label = "only a timer is set and taken back",
    note = "a timer derives `Message`, and not `Event`, `Reply` or `Command`"
)]
pub trait Timer: Message<Outcome = ()> {}

/// The possible outcomes of a command: an enum whose variants each hold one [`Answer`], or `()` for none.
///
/// The answer goes to the sender of the command, and to no other saga. A variant whose message is an event is published
/// as well.
///
/// ```
/// use sagabus::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(from = "payment")]
/// struct PaymentCompleted { order_id: u64 }
/// #[derive(Reply, Serialize, Deserialize)]
/// #[reply(from = "payment")]
/// struct PaymentDeclined { order_id: u64 }
///
/// #[derive(Outcome)]
/// enum PaymentOutcome { Completed(PaymentCompleted), Declined(PaymentDeclined) }
///
/// assert_eq!(PaymentOutcome::types(), ["payment.PaymentCompleted", "payment.PaymentDeclined"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the outcome of a command",
    label = "not an outcome",
    note = "an outcome is an enum with `#[derive(Outcome)]` whose variants each hold one answer, or `()`"
)]
pub trait Outcome: Send + 'static {
    /// The tuple of the variants' messages: what a saga that sends the command must be able to take.
    type Messages;
    /// The logical names of the variants' messages.
    fn types() -> Vec<&'static str>;
    /// The variant's message; `None` for `()`.
    fn encode(self) -> Option<Encoded>;
    /// What stands for no answer: `()`, which events have.
    #[doc(hidden)]
    fn of_nothing() -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// An outcome that can be read again: what answers a [`request`](crate::Endpoint::request).
/// [`derive(Outcome)`](derive@crate::Outcome) writes it.
#[diagnostic::on_unimplemented(
    message = "no answer to this command can be waited for: its outcome is `{Self}`",
    label = "needs an outcome that `derive(Outcome)` makes",
    note = "say what can come back, `#[command(to = \"..\", outcome = ..)]`; or send it with a session"
)]
pub trait ReadOutcome: Outcome + Sized {
    /// Reads the message of one of the variants.
    ///
    /// # Errors
    /// When it is of no type among them, or its JSON cannot be read.
    fn read(type_name: &str, body: &[u8]) -> Result<Self, ReadError>;
}

impl Outcome for () {
    type Messages = ();
    fn types() -> Vec<&'static str> {
        Vec::new()
    }
    fn encode(self) -> Option<Encoded> {
        None
    }
    fn of_nothing() -> Option<Self> {
        Some(())
    }
}

/// A message as it leaves: its logical name, how it travels, and its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// The logical name.
    pub type_name: &'static str,
    /// How it travels.
    pub kind: MessageKind,
    /// The JSON.
    pub body: Bytes,
    /// Fields of it that operators do not see.
    pub masked: &'static [&'static str],
}

impl Encoded {
    /// Encodes `message` and reads it back: what no receiver can read must not leave. JSON has no NaN or infinity, for
    /// example; serde_json writes `null` in their place. An error comes with what was encoded.
    pub(crate) fn checked<M: Message>(message: &M) -> Result<Self, (Self, String)> {
        let new = |body: Vec<u8>| Self { type_name: M::TYPE, kind: M::KIND, body: body.into(), masked: M::MASKED };
        let body = match message.__encode() {
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
    /// When it cannot be encoded or read back; a transition that sends it then fails.
    pub fn of<M: Message>(message: &M) -> Self {
        Self::checked(message).unwrap_or_else(|(_, why)| panic!("{why}"))
    }
}

/// What `#[derive(Outcome)]` needs to know about one variant: one value, so that a variant that is not an answer gives
/// one error.
#[doc(hidden)]
pub struct AnswerOf<M> {
    pub type_name: &'static str,
    pub encode: fn(&M) -> Encoded,
    pub decode: fn(&[u8]) -> Result<M, ReadError>,
}

#[doc(hidden)]
pub const fn answer<M: Answer>() -> AnswerOf<M> {
    AnswerOf { type_name: M::TYPE, encode: Encoded::of::<M>, decode: decode::<M> }
}

/// A message that is no outcome of a command.
#[doc(hidden)]
pub fn no_outcome(type_name: &str, types: &[&str]) -> ReadError {
    ReadError(format!("`{type_name}` is none of its outcomes: {}", types.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Card(#[allow(dead_code)] u64);

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Checked;

    impl TryFrom<String> for Checked {
        type Error = String;
        fn try_from(text: String) -> Result<Self, String> {
            Err(format!("{text} is no card, expected one at line 4111"))
        }
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Pay {
        card: Option<Card>,
        checked: Option<Checked>,
        cents: u64,
    }

    #[test]
    fn what_is_said_of_a_value_does_not_quote_it() {
        for (json, expected) in [
            (r#"{"card":"4111"}"#, "invalid type: string, expected u64 at line 1 column 14"),
            (r#"{"card":-4111}"#, "a value is not what its field expects at line 1 column 13"),
            (r#"{"card":[4111]}"#, "invalid type: sequence, expected u64 at line 1 column 8"),
            (r#"{"checked":"4111"}"#, "a value is not what its field expects at line 1 column 18"),
            (r#"{"card":1}"#, "missing field `cents` at line 1 column 10"),
            (r#"{"card":"#, "EOF while parsing a value at line 1 column 8"),
        ] {
            let error = serde_json::from_str::<Pay>(json).unwrap_err().to_string();
            let told = unquoted(&error);
            assert_eq!(told, expected, "{error}");
            assert_eq!(unquoted_body(&format!("pay.Pay: {error}")), format!("pay.Pay: {expected}"));
        }
    }
}
