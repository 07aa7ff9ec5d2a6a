//! What goes out with a transition, as types.

use super::{
    ChartEffect, Within,
    needs::{DeadlineOf, Outcomes, TimerIn},
};
use crate::{Answer, Cancellable, Command, Encoded, Event, Message, Outcome, Timer, message::answers_to};
use std::time::Duration;

/// Something that goes out with a transition into state `S`, in the transaction that stores the state: both happen or
/// neither.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an effect",
    label = "not an effect",
    note = "effects: Sends, SendsAny, Publishes, Replies, After, Deadline, Cancels, Reenter; Option and Vec of them"
)]
pub trait Effect<S> {
    /// What the saga must take.
    #[doc(hidden)]
    type Needs;
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
    /// Timers that are taken back, by type and key, and commands, by type, before those in `emits` are set or sent.
    pub cancels: Vec<(&'static str, String)>,
    /// The state is entered anew, although it was not left.
    pub anew: bool,
    /// The transition said that it stays in its state: another one would be an edge that is not on the chart.
    pub stays: bool,
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
    /// Back to the instance after this time; until then another one may replace it.
    Timer {
        /// How long it waits.
        delay: Duration,
        /// Tells timers of one type apart.
        key: String,
        /// It outlives the state that set it.
        deadline: bool,
    },
}

/// Sends the command `C` to its one handler.
///
/// The state entered must take every message of the command's outcome, and the one that it [gives up](crate::GiveUp)
/// with, else the transition does not compile. The answer goes to this instance alone.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> (Travelling, Sends<PayFee>) {
///     let fee = PayFee { id: it.id, cents: scanned.fees.iter().sum() };
///     (it, send(fee))
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sends<C>(pub C);
/// Publishes the event `E` to every subscriber.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> (Travelling, Publishes<ParcelMoved>) {
///     let moved = ParcelMoved { id: it.id, place: scanned.place };
///     (it, publish(moved))
/// }
/// # }
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
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, _: Scanned) -> (Arrived, Replies<ParcelArrived>) {
///     (Arrived, reply(ParcelArrived { id: it.id }))
/// }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Replies<M>(pub M);
/// A timer of the state entered: it comes back to the instance after the delay, and is deleted when the state is left.
///
/// An instance has one living timer of each type: setting it again replaces it, even if it is on its way. A transition
/// into the same state keeps the timers that it does not set. For several of one type at once, see
/// [`keyed`](Self::keyed). The database's clock decides when the time has come; more than a thousand years are a
/// thousand years.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, _: Scanned) -> (Travelling, After<Silent>) {
///     (it, after(days(3), Silent {})) // three days from now, whatever was set before
/// }
/// fn silent(_: Travelling, _: Silent) -> Arrived { Arrived }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct After<T>(Due<T>);
/// A timer of the whole saga: it fires in whatever state the instance is by then, and is deleted when the saga is done.
///
/// A function of the whole enum (`self`) takes it.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// fn packed(packed: ParcelPacked) -> (Travelling, Deadline<Lost>) {
///     (Travelling { id: packed.id, scans: 0 }, deadline(days(60), Lost {}))
/// }
/// fn scanned(_: Travelling, _: Scanned) -> Arrived { Arrived }
/// fn lost(self, _: Lost) -> Arrived { Arrived }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Deadline<T>(Due<T>);

#[derive(Debug, Clone, PartialEq)]
struct Due<T> {
    delay: Duration,
    message: T,
    key: String,
}

macro_rules! timer {
    ($($name:ident)+) => {$(
        impl<T> $name<T> {
            /// The same under a key: of one type, an instance has one living timer for each key.
            pub fn keyed(mut self, key: impl std::fmt::Display) -> Self {
                self.0.key = key.to_string();
                self
            }

            /// The message that comes back.
            pub fn message(&self) -> &T {
                &self.0.message
            }

            /// How long it waits.
            pub fn delay(&self) -> Duration {
                self.0.delay
            }
        }
    )+};
}
timer!(After Deadline);

impl<T: Message> Due<T> {
    fn emit(self, deadline: bool, out: &mut Emits) {
        push(out, Route::Timer { delay: self.delay, key: self.key, deadline }, &self.message);
    }
}

/// Takes back the timer `T`, even if it is on its way; or the commands `T` that the instance has sent and that are not
/// answered.
///
/// Of a timer, nothing comes any more. A command may have been handled by now, so its outcome may still come, and the
/// states keep their transitions for it. What is taken back never runs:
///
/// - a command that waits in the outbox, because its endpoint has no queue yet, say, does not leave;
/// - one that waits at its endpoint for a retry or, held, for a person is settled there as discarded, with a note;
/// - one that is still on its way is a duplicate when it comes.
///
/// To one that has left, a small message goes after it. It cannot overtake a command in the same queue, and a handler
/// that is running may commit first. What was handled stays handled: to undo that, send another command. A saga that
/// takes a command in begins at once, so it is taken back from such an endpoint only before it comes. An instance
/// remembers the latest 200 unanswered commands of the types that its saga takes back.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// #     fn scanned(it: Travelling, _: Scanned) -> (Travelling, Sends<PayFee>, After<Silent>) {
/// #         let fee = PayFee { id: it.id, cents: 1 };
/// #         (it, send(fee), after(days(3), Silent {}))
/// #     }
/// fn silent(_: Travelling, _: Silent) -> (Arrived, Cancels<PayFee>) { (Arrived, cancel()) }
/// # }
/// # fn main() {}
/// ```
///
/// A timer:
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// fn packed(packed: ParcelPacked) -> (Travelling, After<Silent>) {
///     (Travelling { id: packed.id, scans: 0 }, after(days(3), Silent {}))
/// }
/// fn scanned(it: Travelling, _: Scanned) -> (Travelling, Cancels<Silent>) { (it, cancel()) }
/// fn silent(_: Travelling, _: Silent) -> Arrived { Arrived }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Cancels<T> {
    key: String,
    timer: std::marker::PhantomData<fn() -> T>,
}

impl<T: Timer> Cancels<T> {
    /// The same for the timer under a key.
    pub fn keyed(mut self, key: impl std::fmt::Display) -> Self {
        self.key = key.to_string();
        self
    }
}

/// The state is entered anew, although the transition leads into the state that it leaves: all timers of the state go,
/// and outcomes of commands sent before no longer [answer this entry](super::Moment::answers_this_entry).
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, _: Scanned) -> (Travelling, Reenter) { (it, Reenter) }
/// # }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reenter;

// These have no bounds: that a function sends what is no command is told once, where its signature names the effect.

/// Sends a command. See [`Sends`].
pub fn send<C>(command: C) -> Sends<C> {
    Sends(command)
}
/// Publishes an event. See [`Publishes`].
pub fn publish<E>(event: E) -> Publishes<E> {
    Publishes(event)
}
/// Answers the message that started the saga. See [`Replies`].
pub fn reply<M>(message: M) -> Replies<M> {
    Replies(message)
}
/// Sets a timer of the state entered. See [`After`].
pub fn after<T>(delay: Duration, timer: T) -> After<T> {
    After(Due { delay, message: timer, key: String::new() })
}
/// Sets a timer of the whole saga. See [`Deadline`].
pub fn deadline<T>(delay: Duration, timer: T) -> Deadline<T> {
    Deadline(Due { delay, message: timer, key: String::new() })
}
/// Takes a timer back, or commands. See [`Cancels`].
pub fn cancel<T>() -> Cancels<T> {
    Cancels { key: String::new(), timer: std::marker::PhantomData }
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

impl<S, C: Command> Effect<S> for Sends<C> {
    type Needs = Outcomes<S, C, <C::Outcome as Outcome>::Messages, C::GivenUp>;
    fn emit(self, out: &mut Emits) {
        push(out, Route::Command { to: C::QUEUE }, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<C>("send", Some(C::TO), answers_to::<C>()));
    }
}

impl<S, E: Event> Effect<S> for Publishes<E> {
    type Needs = ();
    fn emit(self, out: &mut Emits) {
        push(out, Route::Event, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<E>("publish", None, vec![]));
    }
}

impl<S, M: Answer> Effect<S> for Replies<M> {
    type Needs = ();
    fn emit(self, out: &mut Emits) {
        push(out, Route::Reply, &self.0);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<M>("reply", None, vec![]));
    }
}

impl<S, T: Timer> Effect<S> for After<T> {
    type Needs = TimerIn<S, T>;
    fn emit(self, out: &mut Emits) {
        self.0.emit(false, out);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("after", None, vec![]));
    }
}

/// A deadline fires in whatever state is current, so the enum must take it, not the state entered.
impl<S: Within, T: Timer> Effect<S> for Deadline<T> {
    type Needs = DeadlineOf<S::Saga, T>;
    fn emit(self, out: &mut Emits) {
        self.0.emit(true, out);
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("deadline", None, vec![]));
    }
}

impl<S, T: Cancellable> Effect<S> for Cancels<T> {
    type Needs = ();
    fn emit(self, out: &mut Emits) {
        out.cancels.push((T::TYPE, self.key));
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        out.push(effect::<T>("cancel", None, vec![]));
    }
}

impl<S> Effect<S> for Reenter {
    type Needs = ();
    fn emit(self, out: &mut Emits) {
        out.anew = true;
    }
    fn describe(_: &mut Vec<ChartEffect>) {}
}

/// An optional effect; the chart always shows it.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> (Travelling, Option<Sends<PayFee>>) {
///     let fee = scanned.fees.first().map(|&cents| send(PayFee { id: it.id, cents }));
///     (it, fee)
/// }
/// # }
/// # fn main() {}
/// ```
impl<S, E: Effect<S>> Effect<S> for Option<E> {
    type Needs = E::Needs;
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
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// fn scanned(it: Travelling, scanned: Scanned) -> (Travelling, Vec<Sends<PayFee>>) {
///     let fees = scanned.fees.iter().map(|&cents| send(PayFee { id: it.id, cents })).collect();
///     (it, fees)
/// }
/// # }
/// # fn main() {}
/// ```
impl<S, E: Effect<S>> Effect<S> for Vec<E> {
    type Needs = E::Needs;
    fn emit(self, out: &mut Emits) {
        for effect in self {
            effect.emit(out);
        }
    }
    fn describe(out: &mut Vec<ChartEffect>) {
        E::describe(out);
    }
}
