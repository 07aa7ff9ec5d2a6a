//! Sagas: state machines. A transition is a pure function from a state and a message to the next state and its effects.

mod chart;
#[doc(hidden)] // the derives use it, by way of `__private`
pub(crate) mod derived;
mod effect;
mod id;
pub(crate) mod logic;
mod run;
mod transition;

pub use chart::{Chart, ChartEdge, ChartEffect, ChartMessage, ChartState};
pub use effect::*;
pub use id::SagaId;
pub use run::{Disposition, Rules};
pub use transition::*;

use crate::ReadError;

/// A saga: an enum of its states. `#[derive(Saga)]` writes this; a user writes [`Starts`] and [`On`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    label = "needs `#[derive(Saga)]`",
    note = "a saga is an enum whose variants each hold one state"
)]
pub trait Saga: Sized + Send + 'static {
    /// The logical name, on the wire and in the database.
    const NAME: &'static str;
    /// The version of its definition; stored with every instance.
    const VERSION: u32;
    /// The business key.
    type Id: SagaId;
    /// All messages it takes, decoded.
    #[doc(hidden)]
    type In: Send + 'static;

    // The names below must not collide with a user's: `Starts::start` and a hidden `start` would be ambiguous in every
    // unit test.
    #[doc(hidden)]
    fn __read(type_name: &str, body: &[u8]) -> Result<Self::In, ReadError>;
    #[doc(hidden)]
    fn __id(message: &Self::In) -> Option<Self::Id>;
    #[doc(hidden)]
    fn __start(message: Self::In, at: &Moment, out: &mut Emits) -> Result<Self, Self::In>;
    #[doc(hidden)]
    fn __step(self, message: Self::In, at: &Moment, out: &mut Emits) -> Result<Self, (Self, Self::In)>;
    #[doc(hidden)]
    fn __load(state: &str, data: &str) -> Result<Self, ReadError>;
    /// The name of the state that the instance is in, as in the database and on charts.
    fn state_name(&self) -> &'static str;
    #[doc(hidden)]
    fn __store(&self) -> String;

    /// The state chart, read from the types: every edge that they allow.
    fn chart() -> Chart;
}

/// One variant's struct. Written by `#[derive(Saga)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state of a saga",
    label = "not a state",
    note = "a transition returns a state, or a tuple `(State, Effect, …)`; a state is a variant of the saga's enum"
)]
pub trait State: Into<Self::Saga> {
    /// The enum it is a variant of.
    type Saga: Saga;
    /// The variant's name, in the database and on charts.
    const NAME: &'static str;
    /// Whether the process is over in it.
    const DONE: bool;
}

/// The state (or the whole enum) lists the message in `#[on(..)]` or `#[timer(..)]`. Written by `#[derive(Saga)]`.
#[diagnostic::on_unimplemented(
    message = "state `{Self}` has no transition for `{M}`",
    label = "`{M}` is not listed at `{Self}`",
    note = "add `{M}` to the `#[on(..)]` (or `#[timer(..)]`) of `{Self}` and write `impl On<{M}> for {Self}`"
)]
pub trait Accepts<M>: Sized {
    /// The saga.
    type Saga;
}

/// Accepts every message of the tuple `L`: what [`Sends`] asks of the state that waits for a command's outcome.
pub trait AcceptsAll<L> {}

impl<S> AcceptsAll<()> for S {}
macro_rules! accepts_all {
    ($($m:ident)+) => { impl<S, $($m),+> AcceptsAll<($($m,)+)> for S where $(S: Accepts<$m>),+ {} };
}
accepts_all!(A);
accepts_all!(A B);
accepts_all!(A B C);
accepts_all!(A B C D);
accepts_all!(A B C D E);
accepts_all!(A B C D E F);
accepts_all!(A B C D E F G);
accepts_all!(A B C D E F G H);
accepts_all!(A B C D E F G H I);
accepts_all!(A B C D E F G H I J);
accepts_all!(A B C D E F G H I J K);
accepts_all!(A B C D E F G H I J K L);
