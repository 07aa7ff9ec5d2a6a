//! What the derives and attributes ask of types that may be wrong.
//!
//! Code that is written for a type which is not what it should be would repeat one mistake at every place. So the
//! question is asked once, and gives the one error; all else goes through the types below. Each has the same functions
//! twice: as its own, on the condition that the type is right, and from a trait without conditions. rustc takes its own
//! when the condition holds, else the trait's, and then there is an error in any case.

use crate::{
    Either, EndpointBuilder, Handle, HandleBatch, HandleLater, HandlerError, HandlerOptions, Later, Message,
    MessageKind, ReadError, Store,
    message::{GivesUp, decode},
    saga::{
        ChartMessage,
        key::{InField, InFirstField, Part, PartOf, Same},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{marker::PhantomData, sync::Arc};

/// The one place that asks whether a type is a message.
pub const fn is_message<M: Message>() {}

/// The compiler stops where this is called, and says why. For the parameter see `quiet` of the derives.
#[track_caller]
pub const fn refuse<Here>(is_wrong: bool, fault: &str) {
    if is_wrong {
        panic!("{}", fault);
    }
}

/// Whether a field is one of those that are masked, in whatever case JSON has its name.
pub const fn masks(names: &[&str], field: &str) -> bool {
    let mut n = 0;
    while n < names.len() {
        if same_name(names[n].as_bytes(), field.as_bytes()) {
            return true;
        }
        n += 1;
    }
    false
}

const fn same_name(mut one: &[u8], mut other: &[u8]) -> bool {
    loop {
        match (one, other) {
            ([b'_' | b'-', rest @ ..], _) => one = rest,
            (_, [b'_' | b'-', rest @ ..]) => other = rest,
            ([a, of_one @ ..], [b, of_other @ ..]) if a.eq_ignore_ascii_case(b) => (one, other) = (of_one, of_other),
            ([], []) => return true,
            _ => return false,
        }
    }
}

/// What a saga and a block of handlers need of a message.
pub struct Of<M>(PhantomData<fn() -> M>);

impl<M: Message> Of<M> {
    pub const TYPE: &'static str = M::TYPE;
    pub const KIND: MessageKind = M::KIND;
    pub const GIVES_UP: Option<GivesUp> = M::GIVES_UP;
    pub const MASKED: &'static [&'static str] = M::MASKED;

    pub fn decode(body: &[u8]) -> Result<M, ReadError> {
        decode(body)
    }

    pub fn chart(starts: bool, rejects_repeats: bool, anyone: bool) -> ChartMessage {
        ChartMessage::of::<M>(starts, rejects_repeats, anyone)
    }

    /// Where a part of the id is.
    pub fn part<Id, T, F, const NAME: u64>() -> Part<M, Id, NAME, F>
    where
        M: InField<T, NAME, Id, F>,
        Id: PartOf<T, M, F>,
    {
        Part::in_field::<T>()
    }

    /// The same for a message that begins an instance.
    pub fn first_part<Id, T, F, const NAME: u64>() -> Part<M, Id, NAME, F>
    where
        M: InFirstField<T, NAME, Id, F>,
        Id: PartOf<T, M, F>,
    {
        Part::in_field::<T>()
    }

    /// The handler `F` of the block `H` returns `R`.
    pub const fn answered<R: Answers<M, M::Outcome, H, F>, H, F>() {}

    /// The same, now or later.
    pub const fn answered_or_later<R: Answers<M, Either<M::Outcome, Later>, H, F>, H, F>() {}
}

pub trait NoMessage<M>: Sized {
    const TYPE: &'static str = "";
    const KIND: MessageKind = MessageKind::Event;
    const GIVES_UP: Option<GivesUp> = None;
    const MASKED: &'static [&'static str] = &[];

    fn decode(_: &[u8]) -> Result<M, ReadError> {
        unreachable!("{NONE}")
    }
    fn chart(_: bool, _: bool, _: bool) -> ChartMessage {
        unreachable!("{NONE}")
    }
    fn part<Id: Same<T>, T, F, const NAME: u64>() -> Part<M, Id, NAME, F> {
        unreachable!("{NONE}")
    }
    fn first_part<Id: Same<T>, T, F, const NAME: u64>() -> Part<M, Id, NAME, F> {
        unreachable!("{NONE}")
    }
    fn answered<R, H, F>() {}
    fn answered_or_later<R, H, F>() {}
}

impl<M> NoMessage<M> for Of<M> {}

const NONE: &str = "this does not compile";

/// `M` is a message, as a condition of an impl: one that does not hold, and has a lifetime of its own, is an error
/// where the impl is used, and none where it stands.
pub trait MessageFor<'a>: Message {}

impl<M: Message> MessageFor<'_> for M {}

/// What a handler of `M` returns, when `M` has the outcome `O`.
#[diagnostic::on_unimplemented(
    message = "`{H}::{F}` returns `{Self}`, but a handler of `{M}` returns `Result<{O}, HandlerError>`",
    label = "not the outcome of `{M}`",
    note = "a command's handler returns what `#[command(.., outcome = ..)]` says, an event's `Result<(), HandlerError>`"
)]
pub trait Answers<M, O, H, F> {}

impl<M, O, H, F> Answers<M, O, H, F> for Result<O, HandlerError> {}

/// The same as a condition of an impl; see [`MessageFor`].
pub trait AnswersFor<'a, O> {
    fn answer(self) -> Result<O, HandlerError>;
}

impl<O> AnswersFor<'_, O> for Result<O, HandlerError> {
    fn answer(self) -> Self {
        self
    }
}

/// Adds the handler of `M` of the block `H`.
#[expect(clippy::type_complexity, reason = "names of types for the compiler's errors, with nothing inside")]
pub struct Adds<H, M, Db>(PhantomData<fn() -> (H, M, Db)>);

impl<H: Handle<M, Db>, M: Message, Db: Store> Adds<H, M, Db> {
    pub fn handler(to: EndpointBuilder<Db>, block: &Arc<H>, options: HandlerOptions) -> EndpointBuilder<Db> {
        to.__handler::<M>(Arc::clone(block), options)
    }
}

impl<H: HandleLater<M, Db>, M: Message, Db: Store> Adds<H, M, Db> {
    pub fn later_handler(to: EndpointBuilder<Db>, block: &Arc<H>, options: HandlerOptions) -> EndpointBuilder<Db> {
        to.__later_handler::<M>(Arc::clone(block), options)
    }
}

impl<H: HandleBatch<M, Db>, M: Message, Db: Store> Adds<H, M, Db> {
    pub fn batch_handler(to: EndpointBuilder<Db>, block: &Arc<H>, options: HandlerOptions) -> EndpointBuilder<Db> {
        to.__batch_handler::<M>(Arc::clone(block), options)
    }
}

pub trait AddsNone<H, Db: Store>: Sized {
    fn handler(_: EndpointBuilder<Db>, _: &Arc<H>, _: HandlerOptions) -> EndpointBuilder<Db> {
        unreachable!("{NONE}")
    }
    fn later_handler(_: EndpointBuilder<Db>, _: &Arc<H>, _: HandlerOptions) -> EndpointBuilder<Db> {
        unreachable!("{NONE}")
    }
    fn batch_handler(_: EndpointBuilder<Db>, _: &Arc<H>, _: HandlerOptions) -> EndpointBuilder<Db> {
        unreachable!("{NONE}")
    }
}

impl<H, M, Db: Store> AddsNone<H, Db> for Adds<H, M, Db> {}

/// What the derives ask of a message besides its name: a serde type that owns its data. Every such type is one.
///
/// It has no supertraits, and its impl is `do_not_recommend`: so rustc prints our text once, instead of one text for
/// each of serde's traits.
#[diagnostic::on_unimplemented(
    message = "message `{Self}` cannot be written as JSON and read again",
    label = "derive `Serialize` and `Deserialize` too",
    note = "`#[derive(Serialize, Deserialize)]` with `use serde::{{Deserialize, Serialize}};`",
    note = "its fields must own their data: `String`, not `&str`"
)]
pub trait Body {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Body for T {}

/// The one place that asks for it.
pub const fn body<T: Body>() {}

/// The JSON of a message.
pub struct Json<M>(PhantomData<fn() -> M>);

impl<M: Serialize + DeserializeOwned> Json<M> {
    pub fn encode(message: &M) -> Result<Vec<u8>, String> {
        serde_json::to_vec(message).map_err(|error| error.to_string())
    }

    pub fn decode(json: &[u8]) -> Result<M, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}

pub trait NoJson<M>: Sized {
    fn encode(_: &M) -> Result<Vec<u8>, String> {
        unreachable!("{NONE}")
    }
    fn decode(_: &[u8]) -> Result<M, String> {
        unreachable!("{NONE}")
    }
}

impl<M> NoJson<M> for Json<M> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_field_is_known_in_any_case() {
        for (field, known) in [("card_number", true), ("cardNumber", true), ("card", false), ("card_numbers", false)] {
            for names in [&["other", "cardNumber"][..], &["card_number"], &["CARD-NUMBER"]] {
                assert_eq!(masks(names, field), known, "{field} in {names:?}");
            }
        }
        assert!(!masks(&[], "card"));
    }
}
