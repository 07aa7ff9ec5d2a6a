//! What goes out with a transition, as types.

use super::{Accepts, AcceptsAll, ChartEffect, State};
use crate::{Answer, Command, Encoded, Event, Message, MessageKind, Outcome};
use std::time::Duration;

/// Something that goes out with a transition into state `S`, in the transaction that stores the state: both happen or
/// neither.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an effect",
    label = "not an effect",
    note = "effects are Sends, Publishes, Replies, After, Deadline, Keep, and Option and Vec of them"
)]
pub trait Effect<S> {
    /// Whether it is `Keep`.
    #[doc(hidden)]
    const KEEPS: bool = false;
    #[doc(hidden)]
    fn emit(self, out: &mut Emits);
    #[doc(hidden)]
    fn describe(out: &mut Vec<ChartEffect>);
}

/// The effects of one transition.
#[derive(Debug, Default)]
pub struct Emits {
    /// In the order in which the transition listed them.
    pub emits: Vec<Emit>,
    /// The state's timers are kept: the transition does not enter the state anew. It must lead into the state that it
    /// leaves.
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
    /// To every subscriber.
    Event,
    /// To the sender of the message that started the saga.
    Reply,
    /// Back to the instance, if it is still in the state it enters now.
    After(Duration),
    /// Back to the instance, whatever state it is in.
    Deadline(Duration),
}

/// Sends the command `C` to its one handler.
///
/// The state entered must take every message of the command's outcome, else the transition does not compile. The answer
/// goes to this instance alone.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Sends<PayFee>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let fee = PayFee { id: self.id, cents: scanned.fees.iter().sum() };
///         (self, send(fee))
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sends<C>(pub C);
/// Publishes the event `E` to every subscriber.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Publishes<ParcelMoved>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let moved = ParcelMoved { id: self.id, place: scanned.place };
///         (self, publish(moved))
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Publishes<E>(pub E);
/// Answers the message that started the saga, with an [`Answer`].
///
/// Nothing goes out when the sender did not ask for an answer.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Arrived, Replies<ParcelArrived>);
///
///     fn on(self, _: Scanned, _: &Moment) -> Self::Then {
///         (Arrived, reply(ParcelArrived { id: self.id }))
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Replies<M>(pub M);
/// A timer of the state entered: it comes back to the instance after the delay, and is deleted when the state is left.
///
/// The state must list it in `#[timer(..)]`. A transition into the same state leaves the state too: it drops the
/// state's timers and sets those that it returns, unless it returns [`Keep`]. The database's clock decides when the
/// time has come.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, After<Silent>);
///
///     fn on(self, _: Scanned, _: &Moment) -> Self::Then {
///         (self, after(days(3), Silent {})) // three days from now, whatever was set before
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct After<T>(pub Duration, pub T);
/// A timer of the whole saga: it fires in whatever state the instance is by then, and is deleted when the saga is done.
///
/// The enum must list it in `#[timer(..)]`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Deadline<Lost>);
///
///     fn on(self, _: Scanned, _: &Moment) -> Self::Then {
///         (self, deadline(days(60), Lost {}))
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Deadline<T>(pub Duration, pub T);
/// A transition into the same state that keeps the state's timers: it does not enter the state anew.
///
/// A `Keep` into another state does not compile.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Keep);
///
///     fn on(self, _: Scanned, _: &Moment) -> Self::Then {
///         (Travelling { scans: self.scans + 1, ..self }, Keep) // `Silent` still comes when it was to come
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep;

/// Sends a command. See [`Sends`].
pub fn send<C: Command>(command: C) -> Sends<C> {
    Sends(command)
}
/// Publishes an event. See [`Publishes`].
pub fn publish<E: Event>(event: E) -> Publishes<E> {
    Publishes(event)
}
/// Answers the message that started the saga. See [`Replies`].
pub fn reply<M: Answer>(message: M) -> Replies<M> {
    Replies(message)
}
/// Sets a timer of the state entered. See [`After`].
pub fn after<T: Message>(delay: Duration, timer: T) -> After<T> {
    After(delay, timer)
}
/// Sets a timer of the whole saga. See [`Deadline`].
pub fn deadline<T: Message>(delay: Duration, timer: T) -> Deadline<T> {
    Deadline(delay, timer)
}
/// A span of `n` seconds.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
/// A span of `n` minutes.
pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
/// A span of `n` hours.
pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
/// A span of `n` days, of 24 hours each.
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

impl<S, M: Answer> Effect<S> for Replies<M> {
    fn emit(self, out: &mut Emits) {
        push(out, Route::Reply, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<M>("reply", None, vec![]));
    }
}

impl<S: Accepts<T>, T: Message> Effect<S> for After<T> {
    fn emit(self, out: &mut Emits) {
        const { assert!(matches!(T::KIND, MessageKind::Timer), "a timer derives `Message`") };
        push(out, Route::After(self.0), &self.1);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("after", None, vec![]));
    }
}

/// A deadline fires in whatever state is current, so the enum must take it, not the state entered.
impl<S: State, T: Message> Effect<S> for Deadline<T>
where
    S::Saga: Accepts<T>,
{
    fn emit(self, out: &mut Emits) {
        const { assert!(matches!(T::KIND, MessageKind::Timer), "a timer derives `Message`") };
        push(out, Route::Deadline(self.0), &self.1);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("deadline", None, vec![]));
    }
}

impl<S> Effect<S> for Keep {
    const KEEPS: bool = true;
    fn emit(self, out: &mut Emits) {
        out.keep = true;
    }
    fn describe(_: &mut Vec<ChartEffect>) {}
}

/// An optional effect; the chart always shows it.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Option<Sends<PayFee>>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let fee = scanned.fees.first().map(|&cents| send(PayFee { id: self.id, cents }));
///         (self, fee)
///     }
/// }
/// # fn main() {}
/// ```
impl<S, E: Effect<S>> Effect<S> for Option<E> {
    const KEEPS: bool = E::KEEPS;
    fn emit(self, out: &mut Emits) {
        if let Some(effect) = self {
            effect.emit(out);
        }
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        E::describe(out);
    }
}

/// One effect for each element, in order; the chart shows one.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// impl On<Scanned> for Travelling {
///     type Then = (Travelling, Vec<Sends<PayFee>>);
///
///     fn on(self, scanned: Scanned, _: &Moment) -> Self::Then {
///         let fees = scanned.fees.iter().map(|&cents| send(PayFee { id: self.id, cents })).collect();
///         (self, fees)
///     }
/// }
/// # fn main() {}
/// ```
impl<S, E: Effect<S>> Effect<S> for Vec<E> {
    const KEEPS: bool = E::KEEPS;
    fn emit(self, out: &mut Emits) {
        for effect in self {
            effect.emit(out);
        }
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        E::describe(out);
    }
}
