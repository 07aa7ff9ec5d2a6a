//! What a transition returns: the next state, and effects as types.

use super::{Accepts, AcceptsAll, ChartEdge, ChartEffect, Saga, State};
use crate::{Command, Encoded, Event, Message, Outcome};
use std::time::Duration;

/// The next state with its effects: a bare state, a tuple `(State, Effect, …)`, an [`Either`],
/// a [`Stay`], or an enum with `#[derive(Then)]`.
///
/// There is no blanket `impl<S: State> Then for S`: with it rustc hides the good message of a state
/// that cannot take an outcome. The derive writes one per state instead.
#[diagnostic::on_unimplemented(
    message = "a transition cannot return `{Self}`",
    label = "not a state with effects",
    note = "return a state, a tuple `(State, Effect, …)`, an `Either`, `Stay`, or an enum with `#[derive(Then)]`"
)]
pub trait Then {
    /// The saga it belongs to.
    type Saga;
    #[doc(hidden)]
    fn apply(self, out: &mut Emits) -> Self::Saga;
    #[doc(hidden)]
    fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut Vec<ChartEdge>);
}

/// Something that goes out with a transition into state `S`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an effect",
    label = "not an effect",
    note = "effects are Sends, Publishes, Replies, After, Deadline, Keep, and Option and Vec of them"
)]
pub trait Effect<S> {
    #[doc(hidden)]
    fn emit(self, out: &mut Emits);
    #[doc(hidden)]
    fn describe(out: &mut Vec<ChartEffect>);
}

/// What the effects of one transition came to.
#[derive(Debug, Default)]
pub struct Emits {
    /// In the order in which the transition listed them.
    pub emits: Vec<Emit>,
    /// The state's timers are kept: the transition is no new entry.
    pub keep: bool,
}

/// One message that a transition sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    /// Where to and when.
    pub route: Route,
    /// The message.
    pub message: Encoded,
}

/// Where an emitted message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To one endpoint.
    Command {
        /// Its name.
        to: &'static str,
    },
    /// To whoever subscribed.
    Event,
    /// To whoever started the saga.
    Reply,
    /// Back to the instance, if it is still in the state it enters now.
    After(Duration),
    /// Back to the instance, whatever state it is in.
    Deadline(Duration),
}

/// Sends the command `C` to its one handler. The state entered must take every message of its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Sends<C>(pub C);
/// Publishes the event `E` to whoever subscribed.
#[derive(Debug, Clone, PartialEq)]
pub struct Publishes<E>(pub E);
/// Sends `M` to whoever sent the message that started the saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Replies<M>(pub M);
/// A timer of the state entered: gone when the state is left.
#[derive(Debug, Clone, PartialEq)]
pub struct After<T>(pub Duration, pub T);
/// A timer of the whole saga, handled by the enum: gone when the saga is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Deadline<T>(pub Duration, pub T);
/// A transition into the same state keeps the state's timers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep;

/// Sends a command.
pub fn send<C: Command>(command: C) -> Sends<C> {
    Sends(command)
}
/// Publishes an event.
pub fn publish<E: Event>(event: E) -> Publishes<E> {
    Publishes(event)
}
/// Answers whoever started the saga.
pub fn reply<M: Message>(message: M) -> Replies<M> {
    Replies(message)
}
/// Sets a timer of the state entered.
pub fn after<T: Message>(delay: Duration, timer: T) -> After<T> {
    After(delay, timer)
}
/// Sets a timer of the whole saga.
pub fn deadline<T: Message>(delay: Duration, timer: T) -> Deadline<T> {
    Deadline(delay, timer)
}
/// So many seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
/// So many minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
/// So many hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
/// So many days.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

fn push<M: Message>(out: &mut Emits, route: Route, message: &M) {
    out.emits.push(Emit { route, message: Encoded::of(message) });
}

fn effect<M: Message>(kind: &str, to: Option<&str>, outcome: Vec<&'static str>) -> ChartEffect {
    ChartEffect {
        kind: kind.into(),
        type_name: M::TYPE.into(),
        to: to.map(Into::into),
        outcome: outcome.into_iter().map(Into::into).collect(),
    }
}

impl<S, C: Command> Effect<S> for Sends<C>
where
    S: AcceptsAll<<C::Outcome as Outcome>::Messages>,
{
    fn emit(self, out: &mut Emits) {
        push(out, Route::Command { to: C::TO }, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<C>("send", Some(C::TO), C::Outcome::types()));
    }
}

impl<S, E: Event> Effect<S> for Publishes<E> {
    fn emit(self, out: &mut Emits) {
        push(out, Route::Event, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<E>("publish", None, vec![]));
    }
}

impl<S, M: Message> Effect<S> for Replies<M> {
    fn emit(self, out: &mut Emits) {
        push(out, Route::Reply, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<M>("reply", None, vec![]));
    }
}

impl<S: Accepts<T>, T: Message> Effect<S> for After<T> {
    fn emit(self, out: &mut Emits) {
        push(out, Route::After(self.0), &self.1);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("after", None, vec![]));
    }
}

/// A deadline fires into whatever state is current: so the enum must take it, not the state entered.
impl<S: State, T: Message> Effect<S> for Deadline<T>
where
    S::Saga: Accepts<T>,
{
    fn emit(self, out: &mut Emits) {
        push(out, Route::Deadline(self.0), &self.1);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("deadline", None, vec![]));
    }
}

impl<S> Effect<S> for Keep {
    fn emit(self, out: &mut Emits) {
        out.keep = true;
    }
    fn describe(_: &mut Vec<ChartEffect>) {}
}

impl<S, E: Effect<S>> Effect<S> for Option<E> {
    fn emit(self, out: &mut Emits) {
        if let Some(effect) = self {
            effect.emit(out);
        }
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        E::describe(out);
    }
}

impl<S, E: Effect<S>> Effect<S> for Vec<E> {
    fn emit(self, out: &mut Emits) {
        for effect in self {
            effect.emit(out);
        }
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        E::describe(out);
    }
}

macro_rules! then_tuple {
    ($($e:ident)+) => {
        #[allow(non_snake_case)]
        impl<S: State, $($e: Effect<S>),+> Then for (S, $($e),+) {
            type Saga = S::Saga;
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

/// One of two ways to go on.
#[derive(Debug, Clone, PartialEq)]
pub enum Either<A, B> {
    /// The first.
    A(A),
    /// The second.
    B(B),
}

impl<A: Then, B: Then<Saga = A::Saga>> Then for Either<A, B> {
    type Saga = A::Saga;
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

/// A transition of the whole enum that changes no state: `Stay(self)`. The state's timers stay too.
#[derive(Debug, Clone, PartialEq)]
pub struct Stay<S>(pub S);

impl<S: Saga> Then for Stay<S> {
    type Saga = S;
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
