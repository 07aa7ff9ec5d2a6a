//! Where a message has the id of its instance: what `#[saga]` asks, part by part.

use crate::Message;
use std::marker::PhantomData;

/// The field `NAME` (its FNV-1a hash, because a text cannot be a parameter) of a message, and its type. The derives of
/// messages write one for each field; a timer has none, is one for every type, and comes back by itself.
pub trait KeyField<T, const NAME: u64> {
    fn key(&self) -> Option<&T>;
}

// The two below are `KeyField` with a text that says what is missing. `F` is a type parameter with the field's name.

#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name its instance: it has no field `{F}: {Id}`",
    label = "no field `{F}`",
    note = "say where the id is: `#[saga(.., by({Self} = path.to.{F}))]`",
    note = "or, if it answers a command of the saga, that its envelope names the instance: `by({Self} = echo)`"
)]
pub trait InField<T, const NAME: u64, Id, F>: KeyField<T, NAME> {}

#[diagnostic::do_not_recommend]
impl<M: KeyField<T, NAME>, T, const NAME: u64, Id, F> InField<T, NAME, Id, F> for M {}

#[diagnostic::on_unimplemented(
    message = "`{Self}` begins an instance and does not name it: it has no field `{F}: {Id}`",
    label = "no field `{F}`",
    note = "give it the field, or say which one names the instance: `#[saga(.., by({Self} = path.to.{F}))]`"
)]
pub trait InFirstField<T, const NAME: u64, Id, F>: KeyField<T, NAME> {}

#[diagnostic::do_not_recommend]
impl<M: KeyField<T, NAME>, T, const NAME: u64, Id, F> InFirstField<T, NAME, Id, F> for M {}

/// A part of the id that is in a field of type `T`: of its own type.
#[diagnostic::on_unimplemented(
    message = "the field `{F}` of `{M}` is a `{T}`, but the saga has the id `{F}: {Self}`",
    label = "has `{F}: {T}`",
    note = "make both the same type, or say which field names the instance: `#[saga(.., by({M} = path.to.the.id))]`"
)]
pub trait PartOf<T, M, F>: Same<T> {}

#[diagnostic::do_not_recommend]
impl<Id: Same<T>, T, M, F> PartOf<T, M, F> for Id {}

/// `T` is `Self`. It stands behind [`PartOf`], so that rustc has found the field's type before it looks at this, which
/// leaves `T` no choice: a timer has a field of every type.
pub trait Same<T> {
    fn of(field: &T) -> Self;
}

impl<Id: Clone> Same<Id> for Id {
    fn of(field: &Id) -> Id {
        field.clone()
    }
}

/// Where a part of the id is in the message `M`, if the message `First` has it. An id of another type is wrong in every
/// message, and is told of the first alone.
#[expect(clippy::type_complexity, reason = "names of types for the compiler, with nothing inside")]
pub struct Further<First, Id, const NAME: u64, M>(PhantomData<fn() -> (First, Id, M)>);

impl<First: KeyField<Id, NAME>, Id, const NAME: u64, M: Message> Further<First, Id, NAME, M> {
    pub fn part<T, F>() -> Part<M, Id, NAME, F>
    where
        M: InField<T, NAME, Id, F>,
        Id: PartOf<T, M, F>,
    {
        Part::in_field::<T>()
    }

    /// The same for a message that begins an instance.
    pub fn first_part<T, F>() -> Part<M, Id, NAME, F>
    where
        M: InFirstField<T, NAME, Id, F>,
        Id: PartOf<T, M, F>,
    {
        Part::in_field::<T>()
    }
}

/// What rustc takes where that does not hold, as everywhere in `crate::probe`.
pub trait NoFurther<Id, const NAME: u64, M>: Sized {
    fn part<T, F>() -> Part<M, Id, NAME, F>
    where
        Id: Same<T>,
    {
        unreachable!("this does not compile")
    }
    fn first_part<T, F>() -> Part<M, Id, NAME, F>
    where
        Id: Same<T>,
    {
        unreachable!("this does not compile")
    }
}

impl<First, Id, const NAME: u64, M> NoFurther<Id, NAME, M> for Further<First, Id, NAME, M> {}

/// A part of the id, in the field `NAME` of a message; none in a timer.
pub struct Part<M, Id, const NAME: u64, F> {
    pub of: fn(&M) -> Option<Id>,
    field: PhantomData<fn() -> F>,
}

impl<M, Id, const NAME: u64, F> Part<M, Id, NAME, F> {
    pub(crate) fn in_field<T>() -> Self
    where
        M: KeyField<T, NAME>,
        Id: PartOf<T, M, F>,
    {
        Self { of: |message| KeyField::<T, NAME>::key(message).map(Id::of), field: PhantomData }
    }
}
