//! Sagas: state machines. A transition is a pure function from a state and a message to the next state and its effects.

mod alias;
mod chart;
mod commands;
#[doc(hidden)] // the derives use it, by way of `__private`
pub(crate) mod derived;
mod effect;
mod field;
mod function;
mod id;
mod itinerary;
mod join;
#[doc(hidden)] // likewise
pub(crate) mod key;
pub(crate) mod logic;
#[doc(hidden)] // likewise
pub(crate) mod needs;
mod progress;
mod rules;
mod run;
mod transition;
mod undo;

#[doc(hidden)]
pub use alias::{Alias, Named, NamesAlias, NamesNone, alias};
pub(crate) use alias::{AliasChanges, Aliases, KnownAliases, alias_key, alias_name};
pub use chart::{Chart, ChartEdge, ChartEffect, ChartMessage, ChartState, Drawing};
pub use commands::{Commands, Names, SendsAny};
pub use effect::*;
#[doc(hidden)]
pub use field::{Field, field};
pub(crate) use field::{FieldChanges, KeptFields, kept_fields};
pub use function::*;
pub use id::SagaId;
pub use itinerary::Itinerary;
pub use join::{All, Gather, Parts};
pub(crate) use progress::{Progress, Replied, SentCommand, SetTimer, step_of_timer};
pub use rules::{Disposition, Rules};
pub use transition::*;
pub use undo::Undo;

use crate::{ReadError, message::GivesUp};
use serde::de::DeserializeOwned;

/// A saga: an enum of its states. [`#[states]`](macro@crate::states) and [`#[saga]`](macro@crate::saga) write this.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a saga",
    label = "needs `#[states]` at the enum and `#[saga(..)]` at its `impl`",
    note = "a saga is an enum of states and a block of functions, each a transition"
)]
pub trait Saga: Sized + Send + 'static {
    /// The logical name, on the wire and in the database.
    const NAME: &'static str;
    /// The version of its definition; stored with every instance.
    const VERSION: u32;
    /// The business key.
    type Id: SagaId;
    /// What every state knows; `()` if the states share nothing.
    type Data: Send + 'static;
    /// All messages it takes, decoded.
    #[doc(hidden)]
    type In: Send + 'static;

    // The names below must not collide with those of a user's transitions.
    #[doc(hidden)]
    fn __read(type_name: &str, body: &[u8]) -> Result<Self::In, ReadError>;
    #[doc(hidden)]
    fn __id(message: &Self::In) -> Option<Self::Id>;
    /// Where a message of this type has the instance's id, for error texts; empty when it is in no field.
    #[doc(hidden)]
    fn __id_field(_type_name: &str) -> &'static str {
        ""
    }
    /// What the sender of a command gets when a state rejects it; `None`: it waits for a person.
    #[doc(hidden)]
    fn __gives_up(_type_name: &str) -> Option<GivesUp> {
        None
    }
    /// The alias by which a message finds its instance, and its value there; `None`: it finds it by its id.
    #[doc(hidden)]
    fn __alias(_message: &Self::In) -> Option<(&'static str, Option<String>)> {
        None
    }
    /// The aliases of an instance, with their values.
    #[doc(hidden)]
    fn __aliases(_data: &Self::Data) -> Vec<(&'static str, Option<String>)> {
        Vec::new()
    }
    /// The names of its aliases.
    #[doc(hidden)]
    const __ALIASES: &'static [&'static str] = &[];
    /// The fields by which operators find an instance, with their values.
    #[doc(hidden)]
    fn __fields(&self, _data: &Self::Data) -> Vec<(&'static str, Option<String>)> {
        Vec::new()
    }
    #[doc(hidden)]
    fn __start(message: Self::In, at: &Moment, out: &mut Emits) -> Result<(Self, Self::Data), Self::In>;
    #[doc(hidden)]
    fn __step(
        self,
        data: &mut Self::Data,
        message: Self::In,
        at: &Moment,
        out: &mut Emits,
    ) -> Result<Self, (Self, Self::In)>;
    #[doc(hidden)]
    fn __load(state: &str, version: u32, json: &str) -> Result<(Self, Self::Data), ReadError>;
    /// The name of the state that the instance is in, as in the database and on charts.
    fn state_name(&self) -> &'static str;
    #[doc(hidden)]
    fn __store(&self, data: &Self::Data) -> String;

    /// The state chart, read from the types: every edge that they allow.
    fn chart() -> Chart;
}

/// One variant's struct. Written by [`#[states]`](macro@crate::states).
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

/// A state, or the whole enum, for effects that are not about one state.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state of a saga",
    label = "not a state",
    note = "a transition returns a state, or a tuple `(State, Effect, …)`; a state is a variant of the saga's enum"
)]
pub trait Within {
    type Saga;
}

/// A function of the `#[saga]` block takes the message in this state, or in the whole enum. Written by
/// [`#[saga]`](macro@crate::saga).
#[diagnostic::on_unimplemented(
    message = "no function takes (`{Self}`, `{M}`)",
    label = "no function takes (`{Self}`, `{M}`)",
    note = "write `fn name(_: {Self}, _: {M}) -> ..` in the `#[saga]` block"
)]
pub trait Accepts<M>: Sized {
    /// The saga.
    type Saga: Saga;
}

/// An older form of a state, or of the data that all states know.
///
/// An instance that was stored by version `V` or an older one, and by no newer one than `V`, is read as
/// [`Old`](Self::Old) and converted. Versions without an `Upcast` are read in the form of the next version.
///
/// ```
/// # use sagabus::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct AwaitingApproval { amount_cents: i64, currency: String }
///
/// /// As version 1 stored it.
/// #[derive(Deserialize)]
/// struct AwaitingApprovalV1 { amount: f64 }
///
/// impl Upcast<1> for AwaitingApproval {
///     type Old = AwaitingApprovalV1;
///     fn upcast(old: AwaitingApprovalV1) -> Result<Self, String> {
///         Ok(Self { amount_cents: (old.amount * 100.0).round() as i64, currency: "EUR".into() })
///     }
/// }
/// ```
pub trait Upcast<const V: u32>: Sized {
    /// What was stored.
    type Old: DeserializeOwned;
    /// The present form of it.
    ///
    /// # Errors
    /// When there is none: the message is held, the instance is paused, and its row stays as it is.
    fn upcast(old: Self::Old) -> Result<Self, String>;
}
