//! What the effects of a function ask of the saga: another function for each outcome of a command that is sent, and for
//! each timer that is set.
//!
//! [`Then`] gathers it as a type, `Needs`, and `#[saga]` asks for it at the signature. The saga and the function go
//! along as types, `G` and `F`, so that the error names them: `F` is a type parameter that has the function's name,
//! which rustc prints without a path.

use super::{Accepts, Begin, Then};
use std::marker::PhantomData;

/// State `S` is entered with the command `C`: a function for each message of the tuples `L`, its outcome, and `U`, what
/// it is given up with.
#[expect(clippy::type_complexity, reason = "names of types for the compiler's errors, with nothing inside")]
pub struct Outcomes<S, C, L, U>(PhantomData<fn() -> (S, C, L, U)>);

/// State `S` is entered with the timer `T`.
pub struct TimerIn<S, T>(PhantomData<fn() -> (S, T)>);

/// The deadline `T` fires in whatever state the enum `E` is by then.
pub struct DeadlineOf<E, T>(PhantomData<fn() -> (E, T)>);

/// What function `F` of saga `G` returns leads nowhere where a function is missing.
///
/// It has one impl, and that for a type parameter: rustc lists the impls of the outermost trait beside an error of
/// ours, but not such.
pub trait Complete<G, F> {}
impl<T: Then, G, F> Complete<G, F> for T where T::Needs: Taken<G, F> {}

/// The same for a start where the states share data.
pub trait CompleteStart<G, F> {}
impl<T: Begin, G, F> CompleteStart<G, F> for T where T::Needs: Taken<G, F> {}

/// The functions that are needed exist.
pub trait Taken<G, F> {}

/// What several effects need; of one, without a tuple around it, which errors would print.
macro_rules! needs {
    ($one:ident) => { $one::Needs };
    ($($effect:ident)*) => { ($($effect::Needs,)*) };
}
pub(super) use needs;

macro_rules! all_of {
    ($($need:ident)*) => {
        impl<G, F, $($need: Taken<G, F>),*> Taken<G, F> for ($($need,)*) {}
    };
}
all_of!();
all_of!(A);
all_of!(A B);
all_of!(A B C);
all_of!(A B C D);
all_of!(A B C D E);
all_of!(A B C D E H);
all_of!(A B C D E H I);
all_of!(A B C D E H I J);

macro_rules! outcomes {
    ($($m:ident)*) => {
        impl<G, F, S, C, $($m),*> Taken<G, F> for Outcomes<S, C, ($($m,)*), ()>
        where
            $((S, $m): OutcomeTaken<S, $m, C, G, F>),*
        {
        }

        impl<G, F, S, C, $($m,)* U> Taken<G, F> for Outcomes<S, C, ($($m,)*), (U,)>
        where
            $((S, $m): OutcomeTaken<S, $m, C, G, F>,)*
            (S, U): OutcomeTaken<S, U, C, G, F>
        {
        }
    };
}
outcomes!();
outcomes!(A);
outcomes!(A B);
outcomes!(A B D);
outcomes!(A B D E);
outcomes!(A B D E H);
outcomes!(A B D E H I);
outcomes!(A B D E H I J);
outcomes!(A B D E H I J K);
outcomes!(A B D E H I J K L);
outcomes!(A B D E H I J K L M);
outcomes!(A B D E H I J K L M N);
outcomes!(A B D E H I J K L M N O);

impl<G, F, S, T> Taken<G, F> for TimerIn<S, T> where (S, T): TimerTaken<S, T, G, F> {}
impl<G, F, E, T> Taken<G, F> for DeadlineOf<E, T> where (E, T): DeadlineTaken<E, T, G, F> {}

// What follows is `Accepts`, with the reason in the text of the error. `Self` is the pair of the others: rustc prints
// where a type stands that lacks a trait, and a pair stands nowhere.

#[diagnostic::on_unimplemented(
    message = "`{G}::{F}` enters `{S}` and sends `{C}`, but no function takes (`{S}`, `{M}`)",
    label = "no function takes (`{S}`, `{M}`)",
    note = "`{M}` is an outcome of `{C}`: write `fn name(_: {S}, _: {M}) -> ..` in the `#[saga]` block"
)]
pub trait OutcomeTaken<S, M, C, G, F> {}

#[diagnostic::do_not_recommend]
impl<S: Accepts<M>, M, C, G, F> OutcomeTaken<S, M, C, G, F> for (S, M) {}

#[diagnostic::on_unimplemented(
    message = "`{G}::{F}` enters `{S}` and sets the timer `{T}`, but no function takes (`{S}`, `{T}`)",
    label = "no function takes (`{S}`, `{T}`)",
    note = "write `fn name(_: {S}, _: {T}) -> ..` in the `#[saga]` block"
)]
pub trait TimerTaken<S, T, G, F> {}

#[diagnostic::do_not_recommend]
impl<S: Accepts<T>, T, G, F> TimerTaken<S, T, G, F> for (S, T) {}

#[diagnostic::on_unimplemented(
    message = "`{G}::{F}` sets the deadline `{T}`, but no function takes it for the whole enum `{E}`",
    label = "no function takes (`self`, `{T}`)",
    note = "it fires in whatever state is current by then: write `fn name(self, _: {T}) -> ..` in the `#[saga]` block"
)]
pub trait DeadlineTaken<E, T, G, F> {}

#[diagnostic::do_not_recommend]
impl<E: Accepts<T>, T, G, F> DeadlineTaken<E, T, G, F> for (E, T) {}
