//! Commands of several types in one list: what [`Undo`](super::Undo) and [`Itinerary`](super::Itinerary) keep until it
//! is their turn, and the effect that sends some of them.

use super::{ChartEffect, Effect, Emit, Emits, Route, needs::Outcomes};
use crate::{
    Command, Encoded, MessageKind, Outcome, ReadError,
    message::{answers_to, decode},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::marker::PhantomData;

/// A list of types of commands: a tuple of one to eight.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of commands",
    label = "not a tuple of one to eight commands",
    note = "write `(CancelHotel, CancelCar)`; of one command, `(CancelHotel,)`"
)]
pub trait Commands: 'static {
    #[doc(hidden)]
    const KNOWN: &'static [Known];
}

/// The list names the command `C`; the compiler finds its place.
#[diagnostic::on_unimplemented(
    message = "`{C}` is not among the commands `{Self}`",
    label = "not in the list",
    note = "add it to the tuple"
)]
pub trait Names<C, Place>: Commands {}

/// A place in a list.
#[doc(hidden)]
pub struct Place<const N: usize>;

/// A type of command in a list.
#[doc(hidden)]
pub struct Known {
    type_name: &'static str,
    masked: &'static [&'static str],
    to: &'static str,
    queue: &'static str,
    answers: fn() -> Vec<&'static str>,
    read: fn(&[u8]) -> Result<(), ReadError>,
}

const fn known<C: Command>() -> Known {
    let read = |body: &[u8]| decode::<C>(body).map(drop);
    Known { type_name: C::TYPE, masked: C::MASKED, to: C::TO, queue: C::QUEUE, answers: answers_to::<C>, read }
}

pub(super) const fn names<L: Commands, C: Command>() -> bool {
    let mut n = 0;
    while n < L::KNOWN.len() {
        if super::derived::same(L::KNOWN[n].type_name, C::TYPE) {
            return true;
        }
        n += 1;
    }
    false
}

/// A command that waits for its turn, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) command: String,
    body: Box<RawValue>,
    /// Of an undo: it has left, and nobody has confirmed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) sent: bool,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        (&self.command, self.body.get(), self.sent) == (&other.command, other.body.get(), other.sent)
    }
}

impl Kept {
    /// # Panics
    /// Like every effect, when the command cannot be encoded or read back: the transition fails.
    pub(super) fn of<C: Command>(command: &C) -> Self {
        let Encoded { body, .. } = Encoded::of(command);
        let json = String::from_utf8(body.into()).expect("JSON is UTF-8");
        let body = RawValue::from_string(json).expect("it was read back just now");
        Self { command: C::TYPE.into(), body, sent: false }
    }

    fn known<L: Commands>(&self) -> Option<&'static Known> {
        L::KNOWN.iter().find(|known| known.type_name == self.command)
    }

    /// The command, if it is a `C`.
    pub(super) fn read<C: Command>(&self) -> Option<C> {
        if self.command == C::TYPE { decode(self.body.get().as_bytes()).ok() } else { None }
    }
}

/// Commands of a list of types, in an order.
#[derive(Serialize, Deserialize)]
#[serde(bound = "", try_from = "Vec<Kept>", into = "Vec<Kept>")]
pub(super) struct Queue<L: Commands> {
    pub(super) kept: Vec<Kept>,
    list: PhantomData<fn() -> L>,
}

impl<L: Commands> Queue<L> {
    pub(super) fn new(kept: Vec<Kept>) -> Self {
        Self { kept, list: PhantomData }
    }
}

impl<L: Commands> Default for Queue<L> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<L: Commands> From<Queue<L>> for Vec<Kept> {
    fn from(queue: Queue<L>) -> Self {
        queue.kept
    }
}

/// What is read is sent one day, so it must be a command of the list that its type can read: a list that has lost a
/// type which an instance still needs shows here, and not when it is too late.
impl<L: Commands> TryFrom<Vec<Kept>> for Queue<L> {
    type Error = String;
    fn try_from(kept: Vec<Kept>) -> Result<Self, String> {
        for Kept { command, body, .. } in &kept {
            let known = L::KNOWN.iter().find(|known| known.type_name == command);
            let known = known.ok_or_else(|| format!("`{command}` is kept, but not in the list of commands"))?;
            (known.read)(body.get().as_bytes()).map_err(|error| error.0)?;
        }
        Ok(Self::new(kept))
    }
}

/// `Clone`, `Debug` and `PartialEq` without conditions on the types of the commands, which need none of them.
macro_rules! by_fields {
    ($name:ident<$($list:ident),+> { $($field:tt),+ }) => {
        impl<$($list: Commands),+> Clone for $name<$($list),+> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone()),+ }
            }
        }
        impl<$($list: Commands),+> PartialEq for $name<$($list),+> {
            fn eq(&self, other: &Self) -> bool {
                true $(&& self.$field == other.$field)+
            }
        }
        impl<$($list: Commands),+> std::fmt::Debug for $name<$($list),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &self.$field))+.finish()
            }
        }
    };
}
pub(super) use by_fields;
by_fields!(Queue<L> { kept, list });

/// Sends some of the commands of a list of types, in order: what [`Undo`](super::Undo) and
/// [`Itinerary`](super::Itinerary) hand out.
///
/// The state entered must take every message of the outcome of each command in the list, and the chart shows them all.
pub struct SendsAny<L: Commands>(pub(super) Queue<L>);
by_fields!(SendsAny<L> { 0 });

impl<L: Commands> SendsAny<L> {
    /// The logical names of the commands, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.kept.iter().map(|kept| kept.command.as_str()).collect()
    }
}

/// What the state `S` must take: every message of the outcome of each command.
#[doc(hidden)]
pub trait SentInto<S>: Commands {
    type Needs;
}

impl<S, L: SentInto<S>> Effect<S> for SendsAny<L> {
    type Needs = L::Needs;
    fn emit(self, out: &mut Emits) {
        for kept in self.0.kept {
            let known = kept.known::<L>().expect("only commands of the list are put into it");
            let body: Box<str> = kept.body.into();
            let (type_name, masked) = (known.type_name, known.masked);
            let message = Encoded { type_name, kind: MessageKind::Command, body: String::from(body).into(), masked };
            out.emits.push(Emit { route: Route::Command { to: known.queue }, message });
        }
    }

    fn describe(out: &mut Vec<ChartEffect>) {
        out.extend(L::KNOWN.iter().map(|known| ChartEffect {
            kind: "send".into(),
            type_name: known.type_name.into(),
            to: Some(known.to.into()),
            outcome: (known.answers)().into_iter().map(Into::into).collect(),
        }));
    }
}

macro_rules! commands {
    ($($command:ident $place:literal),+) => {
        impl<$($command: Command),+> Commands for ($($command,)+) {
            const KNOWN: &'static [Known] = &[$(known::<$command>()),+];
        }

        impl<S, $($command: Command),+> SentInto<S> for ($($command,)+) {
            type Needs = ($(Outcomes<S, $command, <$command::Outcome as Outcome>::Messages, $command::GivenUp>,)+);
        }

        commands!(@names ($($command)+) $($command $place)+);
    };
    (@names $all:tt $($command:ident $place:literal)+) => {
        $(commands!(@name $all $command $place);)+
    };
    (@name ($($all:ident)+) $command:ident $place:literal) => {
        impl<$($all: Command),+> Names<$command, Place<$place>> for ($($all,)+) {}
    };
}
commands!(A 0);
commands!(A 0, B 1);
commands!(A 0, B 1, C 2);
commands!(A 0, B 1, C 2, D 3);
commands!(A 0, B 1, C 2, D 3, E 4);
commands!(A 0, B 1, C 2, D 3, E 4, F 5);
commands!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
commands!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
