//! Transitions: what one gets, what it is, and what it returns.

use super::{Accepts, ChartEdge, Effect, Emits, Saga, State};
use crate::{Envelope, Message};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A transition: what a state does with a message. On the enum itself it applies in every state that is not done and
/// has none of its own.
///
/// `Accepts` is a supertrait so that an `impl On` which is not listed does not compile; without it,
/// such an impl would silently never be called.
#[diagnostic::on_unimplemented(
    message = "`{M}` is listed at `{Self}`, but there is no transition for it",
    label = "no `impl On<{M}> for {Self}`",
    note = "write `impl On<{M}> for {Self}`, or take `{M}` out of the list"
)]
pub trait On<M>: Accepts<M> + Sized {
    /// The next state and what goes out with it: the edge in the state chart.
    type Then: Then;
    /// Decides. No I/O, no clock, no randomness: everything it may know is in its arguments.
    fn on(self, message: M, at: &Moment) -> Self::Then;
}

/// How the saga begins with a message.
#[diagnostic::on_unimplemented(
    message = "`{M}` is listed in `#[starts(..)]`, but `{Self}` does not say how it begins",
    label = "no `impl Starts<{M}> for {Self}`",
    note = "write `impl Starts<{M}> for {Self}`, or take `{M}` out of `#[starts(..)]`"
)]
pub trait Starts<M>: Saga {
    /// The first state and what goes out with it.
    type Then: Then<Saga = Self>;
    /// Decides. No I/O, no clock, no randomness.
    fn start(message: M, at: &Moment) -> Self::Then;
}

/// The surroundings of one transition: fixed values, no clock to ask.
///
/// A test makes one with [`Moment::at`].
#[derive(Debug, Clone)]
pub struct Moment {
    pub(crate) now_us: i64,
    pub(crate) saga_id: String,
    pub(crate) seq: i64,
    pub(crate) entered: i64,
    pub(crate) envelope: Option<Arc<Envelope>>,
}

impl Moment {
    /// A moment for a test of a transition: everything but the time is empty.
    pub fn at(now: SystemTime) -> Self {
        let now_us = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Self { now_us, saga_id: String::new(), seq: 0, entered: 0, envelope: None }
    }

    /// The handling time by the database's clock; it stays the same during the transition.
    pub fn now(&self) -> SystemTime {
        time_from_us(self.now_us)
    }

    /// When the message was sent, if its sender says so.
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.envelope.as_ref()?.sent_at_us.map(time_from_us)
    }

    /// The id of the message being handled.
    pub fn message_id(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.message_id)
    }

    /// The instance's business key.
    pub fn saga_id(&self) -> &str {
        &self.saga_id
    }

    /// Transitions made before this one.
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// A header of the message being handled.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.envelope.as_ref()?.headers.get(name)
    }

    /// Whether an outcome answers a command sent by the present entry of the state, not by an earlier entry in a cycle.
    pub fn answers_this_entry(&self) -> bool {
        let saga = self.envelope.as_ref().and_then(|envelope| envelope.saga.as_ref());
        saga.is_some_and(|saga| saga.entered == Some(self.entered))
    }
}

fn time_from_us(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us.max(0) as u64)
}

/// What a transition returns: the next state, with its effects.
///
/// - a state alone;
/// - a tuple `(State, Effect, …)` of a state and up to eight effects: [`Sends`](super::Sends),
///   [`Publishes`](super::Publishes), [`Replies`](super::Replies), [`After`](super::After),
///   [`Deadline`](super::Deadline), [`Keep`](super::Keep), and `Option` and `Vec` of them;
/// - an [`Either`] of two such;
/// - an enum of such with `#[derive(Then)]`, which gives the branches names;
/// - a [`Stay`].
///
/// The type is the edge of the state chart, so it is written out: `type Then = ..`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Keep, Publishes<ParcelMoved>, Vec<Sends<PayFee>>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let Travelling { id, scans } = self;
///         let fees = scanned.fees.iter().map(|&cents| send(PayFee { id, cents })).collect();
///         let moved = ParcelMoved { id, place: scanned.place };
///         (Travelling { id, scans: scans + 1 }, Keep, publish(moved), fees)
///     }
/// }
/// # fn main() {}
/// ```
//
// There is no blanket `impl<S: State> Then for S`: it would make rustc hide the helpful message about a state that
// cannot take an outcome. The derive writes one impl per state instead.
#[diagnostic::on_unimplemented(
    message = "a transition cannot return `{Self}`",
    label = "not a state with effects",
    note = "return a state, a tuple `(State, Effect, …)`, an `Either`, `Stay`, or an enum with `#[derive(Then)]`"
)]
pub trait Then {
    /// The saga it belongs to.
    type Saga;
    #[doc(hidden)]
    const KEEPS: Keeps = Keeps::NONE;
    #[doc(hidden)]
    fn apply(self, out: &mut Emits) -> Self::Saga;
    #[doc(hidden)]
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>);
}

/// The states that the branches of a transition enter with `Keep`: known to the compiler, so that a `Keep` which enters
/// another state than the one left does not compile.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Keeps {
    /// No branch keeps.
    None,
    /// A branch stays in whatever state is current.
    Stay,
    /// A branch enters the state with `Keep`.
    In(&'static str),
    /// What two branches keep.
    Both {
        /// The first.
        a: &'static Self,
        /// The second.
        b: &'static Self,
    },
}

#[doc(hidden)]
impl Keeps {
    pub const NONE: Self = Self::None;

    /// Whether no state but `from` is entered with `Keep`.
    pub const fn only_in(&self, from: &str) -> bool {
        match self {
            Self::None | Self::Stay => true,
            Self::In(state) => super::derived::same(state, from),
            Self::Both { a, b } => a.only_in(from) && b.only_in(from),
        }
    }

    /// Whether no branch keeps.
    pub const fn nowhere(&self) -> bool {
        match self {
            Self::None => true,
            Self::Stay | Self::In(_) => false,
            Self::Both { a, b } => a.nowhere() && b.nowhere(),
        }
    }
}

macro_rules! then_tuple {
    ($($e:ident)+) => {
        #[allow(non_snake_case)]
        impl<S: State, $($e: Effect<S>),+> Then for (S, $($e),+) {
            type Saga = S::Saga;
            const KEEPS: Keeps = if false $(|| $e::KEEPS)+ { Keeps::In(S::NAME) } else { Keeps::NONE };
            fn apply(self, out: &mut Emits) -> S::Saga {
                let (state, $($e),+) = self;
                $($e.emit(out);)+
                state.into()
            }
            fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
                let mut effects = Vec::new();
                $($e::describe(&mut effects);)+
                out.push(ChartEdge::new(from, on, branch, S::NAME, effects));
            }
        }
    };
}
then_tuple!(A);
then_tuple!(A B);
then_tuple!(A B C);
then_tuple!(A B C D);
then_tuple!(A B C D E);
then_tuple!(A B C D E F);
then_tuple!(A B C D E F G);
then_tuple!(A B C D E F G H);

/// One of two ways to go on. For more than two, or for names on the chart, derive `Then` for an enum.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = Either<(Travelling, Keep), Arrived>;
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         match scanned.place.as_str() {
///             "front door" => Either::B(Arrived),
///             _ => Either::A((self, Keep)),
///         }
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Either<A, B> {
    /// The first.
    A(A),
    /// The second.
    B(B),
}

impl<A: Then, B: Then<Saga = A::Saga>> Then for Either<A, B> {
    type Saga = A::Saga;
    const KEEPS: Keeps = Keeps::Both { a: &A::KEEPS, b: &B::KEEPS };
    fn apply(self, out: &mut Emits) -> A::Saga {
        match self {
            Self::A(then) => then.apply(out),
            Self::B(then) => then.apply(out),
        }
    }
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        A::edges(from, on, branch, out);
        B::edges(from, on, branch, out);
    }
}

/// A transition that leaves the state as it is: `Stay(self)`, on the enum. The state's timers stay too.
///
/// It is for transitions of the whole enum, which do not know the state. To send something, return the state and
/// [`Keep`](super::Keep).
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # impl On<Scanned> for Travelling {
/// #     type Then = Travelling;
/// #     fn on(self, _: Scanned, _: &Moment) -> Travelling { self }
/// # }
/// #[derive(Event, Serialize, Deserialize)]
/// struct Renamed { key: u64 }
/// # #[derive(Serialize, Deserialize)] struct Open;
/// # #[derive(Serialize, Deserialize)] struct Closed;
///
/// #[derive(Saga)]
/// #[saga(name = "account", id = key: u64)]
/// #[starts(Renamed)]
/// #[on(Renamed)]
/// enum Account { Open(Open) }
///
/// impl On<Renamed> for Account {
///     type Then = Stay<Self>;
///     fn on(self, _: Renamed, _: &Moment) -> Stay<Self> { Stay(self) }
/// }
/// # impl Starts<Renamed> for Account {
/// #     type Then = Open;
/// #     fn start(_: Renamed, _: &Moment) -> Open { Open }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Stay<S>(pub S);

impl<S: Saga> Then for Stay<S> {
    type Saga = S;
    const KEEPS: Keeps = Keeps::Stay;
    fn apply(self, out: &mut Emits) -> S {
        out.keep = true;
        self.0
    }
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        out.push(ChartEdge::new(from, on, branch, from, Vec::new()));
    }
}

/// What the derives call for a bare state.
#[doc(hidden)]
pub fn bare_edge<S: State>(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
    out.push(ChartEdge::new(from, on, branch, S::NAME, Vec::new()));
}

/// What `On<M>` of `S` is, for saga `G`. The derive writes each transition and each start as one constant. So the
/// user's `impl` is required in one place, and a missing one gives one error.
#[doc(hidden)]
pub struct Transition<S, M, G> {
    pub go: fn(S, M, &Moment, &mut Emits) -> G,
    /// The edges that leave the named state.
    pub edges: fn(&'static str, &mut Vec<ChartEdge>),
    pub keeps: Keeps,
}

#[doc(hidden)]
pub const fn transition<S: On<M>, M: Message>() -> Transition<S, M, <S as Accepts<M>>::Saga>
where
    S::Then: Then<Saga = <S as Accepts<M>>::Saga>,
{
    Transition { go: go::<S, M>, edges: edges::<S, M>, keeps: <S::Then as Then>::KEEPS }
}

fn go<S: On<M>, M>(state: S, message: M, at: &Moment, out: &mut Emits) -> <S::Then as Then>::Saga {
    state.on(message, at).apply(out)
}

fn edges<S: On<M>, M: Message>(from: &'static str, out: &mut Vec<ChartEdge>) {
    <S::Then as Then>::edges(from, M::TYPE, "", out);
}

/// What `Starts<M>` of `S` is.
#[doc(hidden)]
pub struct Start<S, M> {
    pub begin: fn(M, &Moment, &mut Emits) -> S,
    pub edges: fn(&mut Vec<ChartEdge>),
    pub keeps: Keeps,
}

#[doc(hidden)]
pub const fn start<S: Starts<M>, M: Message>() -> Start<S, M> {
    Start { begin: begin::<S, M>, edges: start_edges::<S, M>, keeps: <<S as Starts<M>>::Then as Then>::KEEPS }
}

fn begin<S: Starts<M>, M>(message: M, at: &Moment, out: &mut Emits) -> S {
    S::start(message, at).apply(out)
}

fn start_edges<S: Starts<M>, M: Message>(out: &mut Vec<ChartEdge>) {
    <<S as Starts<M>>::Then as Then>::edges("", M::TYPE, "", out);
}
