//! Transitions: what one gets, what it is, and what it returns.

use super::{Accepts, ChartEdge, Effect, Emits, Saga, State, needs::needs};
use crate::{Envelope, SagaRef};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A transition: what a state does with a message. On the enum itself it applies in every state that is not done and
/// has none of its own.
///
/// [`#[saga]`](macro@crate::saga) writes it for each function of its block; write it by hand only to generate code.
pub trait On<M>: Accepts<M> + Sized {
    /// The next state and what goes out with it, a [`Then`]: the edge in the state chart.
    type Then; // [`transition`](super::transition) asks whether it is one: a bound here would be a second error
    /// Decides. No I/O, no clock, no randomness: everything it may know is in its arguments.
    fn on(self, message: M, data: &mut <Self::Saga as Saga>::Data, at: &Moment) -> Self::Then;
}

/// How the saga begins with a message. [`#[saga]`](macro@crate::saga) writes it.
pub trait Starts<M>: Saga {
    /// What every state knows, the first state, and what goes out with it.
    type Then;
    /// Decides. No I/O, no clock, no randomness.
    fn start(message: M, at: &Moment) -> Self::Then;
}

/// The surroundings of one transition: fixed values, no clock to ask.
///
/// A test makes one with [`Moment::at`] and sets what else the transition looks at:
///
/// ```
/// # use sagabus::saga::Moment;
/// # use std::time::SystemTime;
/// let at = Moment::at(SystemTime::UNIX_EPOCH).with_message_id("7").with_header("tenant", "north");
/// assert_eq!((at.message_id(), at.header("tenant").and_then(|it| it.as_str())), ("7", Some("north")));
/// ```
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

    /// The same with the id of the message being handled.
    pub fn with_message_id(self, id: &str) -> Self {
        self.with(|envelope| envelope.message_id = id.into())
    }

    /// The same with a header of the message being handled.
    pub fn with_header(self, name: &str, value: impl Into<Value>) -> Self {
        self.with(|envelope| drop(envelope.headers.insert(name.into(), value.into())))
    }

    /// The same with the time at which the message was sent.
    pub fn with_sent_at(self, at: SystemTime) -> Self {
        let us = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        self.with(|envelope| envelope.sent_at_us = Some(us))
    }

    /// The same for an outcome that answers a command of this entry of the state; without it, of an earlier entry.
    pub fn answering_this_entry(self) -> Self {
        let (id, entered) = (self.saga_id.clone(), Some(self.entered));
        self.with(|envelope| {
            envelope.saga = Some(SagaRef { saga: String::new(), id, entered, timer: None });
        })
    }

    /// The same for the instance with this business key.
    pub fn with_saga_id(mut self, id: impl std::fmt::Display) -> Self {
        self.saga_id = id.to_string();
        self
    }

    /// The same after so many transitions.
    pub fn with_seq(mut self, seq: i64) -> Self {
        self.seq = seq;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Envelope)) -> Self {
        change(Arc::make_mut(self.envelope.get_or_insert_with(Arc::default)));
        self
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
///   [`Deadline`](super::Deadline), [`Cancels`](super::Cancels), [`Reenter`](super::Reenter),
///   [`SendsAny`](super::SendsAny), and `Option` and `Vec` of them;
/// - an [`Either`] of two such;
/// - an enum of such with `#[derive(Then)]`, which gives the branches names;
/// - a [`Stay`], alone or in place of the state of a tuple.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> (Travelling, Publishes<ParcelMoved>, Vec<Sends<PayFee>>) {
///     let Travelling { id, scans } = it;
///     let fees = scanned.fees.iter().map(|&cents| send(PayFee { id, cents })).collect();
///     let moved = ParcelMoved { id, place: scanned.place };
///     (Travelling { id, scans: scans + 1 }, publish(moved), fees)
/// }
/// # }
/// # fn main() {}
/// ```
//
// There is no blanket `impl<S: State> Then for S`: it would make rustc hide the helpful message about a state that
// cannot take an outcome. `#[states]` writes one impl per state instead.
#[diagnostic::on_unimplemented(
    message = "a transition cannot return `{Self}`",
    label = "not a state with effects",
    note = "return a state, a tuple `(State, Effect, …)`, an `Either`, `Stay`, or an enum with `#[derive(Then)]`"
)]
pub trait Then {
    /// The saga it belongs to.
    type Saga: Saga;
    /// What the saga must take, because of the effects.
    #[doc(hidden)]
    type Needs;
    #[doc(hidden)]
    fn apply(self, out: &mut Emits) -> Self::Saga;
    #[doc(hidden)]
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>);
}

/// What a start returns where the states share data: a tuple `(Data, State, Effect, …)`, an [`Either`] of two such, or
/// an enum with `#[derive(Then)]` and `#[starts]`. Where they share none, a start returns a [`Then`].
#[diagnostic::on_unimplemented(
    message = "a start cannot return `{Self}`",
    label = "not the data, a state, and effects",
    note = "a start returns `(Data, State, Effect, …)`: first what every state knows, then the first state",
    note = "`Data` is the type that `#[states(data = ..)]` names"
)]
pub trait Begin {
    /// The saga it belongs to.
    type Saga: Saga;
    /// What the saga must take, because of the effects.
    #[doc(hidden)]
    type Needs;
    #[doc(hidden)]
    fn begin(self, out: &mut Emits) -> (Self::Saga, <Self::Saga as Saga>::Data);
    #[doc(hidden)]
    fn edges(on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>);
}

macro_rules! tuples {
    ($($e:ident)*) => {
        #[allow(non_snake_case)]
        impl<Data, S: State, $($e: Effect<S>),*> Begin for (Data, S, $($e),*)
        where
            S::Saga: Saga<Data = Data>,
        {
            type Saga = S::Saga;
            type Needs = needs!($($e)*);
            fn begin(self, _out: &mut Emits) -> (S::Saga, Data) {
                let (data, state, $($e),*) = self;
                $($e.emit(_out);)*
                (state.into(), data)
            }
            fn edges(on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
                #[allow(unused_mut)]
                let mut effects = Vec::new();
                $($e::describe(&mut effects);)*
                out.push(ChartEdge::new("", on, branch, S::NAME, effects));
            }
        }
    };
}
tuples!();
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

macro_rules! then_tuple {
    ($($e:ident)+) => {
        #[allow(non_snake_case)]
        impl<S: State, $($e: Effect<S>),+> Then for (S, $($e),+) {
            type Saga = S::Saga;
            type Needs = needs!($($e)+);
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

        #[allow(non_snake_case)]
        impl<S: Saga, $($e: Effect<S>),+> Then for (Stay<S>, $($e),+) {
            type Saga = S;
            type Needs = needs!($($e)+);
            fn apply(self, out: &mut Emits) -> S {
                let (stay, $($e),+) = self;
                $($e.emit(out);)+
                stay.apply(out)
            }
            fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
                let mut effects = Vec::new();
                $($e::describe(&mut effects);)+
                out.push(ChartEdge::new(from, on, branch, from, effects));
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

/// One of two ways to go on, made by its variants. (There is no `From` for a side: Rust's coherence forbids it, because
/// both may be one type.) For more than two, or for names on the chart, derive `Then` for an enum.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> Either<Travelling, Arrived> {
///     match scanned.place.as_str() {
///         "front door" => Either::B(Arrived),
///         _ => Either::A(it),
///     }
/// }
/// # }
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
    type Needs = (A::Needs, B::Needs);
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

impl<A: Begin, B: Begin<Saga = A::Saga>> Begin for Either<A, B> {
    type Saga = A::Saga;
    type Needs = (A::Needs, B::Needs);
    fn begin(self, out: &mut Emits) -> (A::Saga, <A::Saga as Saga>::Data) {
        match self {
            Self::A(begin) => begin.begin(out),
            Self::B(begin) => begin.begin(out),
        }
    }
    fn edges(on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        A::edges(on, branch, out);
        B::edges(on, branch, out);
    }
}

/// A transition that leaves the state as it is: `Stay(self)`, for functions of the whole enum, which do not know the
/// state. Effects may follow it: `(Stay<Self>, Publishes<E>)`.
///
/// ```
/// use sagabus::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Renamed { key: u64 }
///
/// #[states]
/// enum Account { Open, Frozen }
///
/// #[saga(name = "account", id = key: u64)]
/// impl Account {
///     fn opened(_: Renamed) -> Either<Open, Frozen> { Either::A(Open) }
///     fn renamed(self, _: Renamed) -> Stay<Self> { Stay(self) }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Stay<S>(pub S);

impl<S: Saga> Then for Stay<S> {
    type Saga = S;
    type Needs = ();
    fn apply(self, out: &mut Emits) -> S {
        out.stays = true;
        self.0
    }
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
        out.push(ChartEdge::new(from, on, branch, from, Vec::new()));
    }
}

/// What `#[states]` calls for a bare state.
#[doc(hidden)]
pub fn bare_edge<S: State>(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>) {
    out.push(ChartEdge::new(from, on, branch, S::NAME, Vec::new()));
}
