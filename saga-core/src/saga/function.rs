//! What the functions of a `#[saga]` block and the branches of an enum with `derive(Then)` do, as values.
//!
//! Each is made at one place, which asks whether the function's result is one: a result that is none gives one error.

use super::{
    Accepts, Begin, ChartEdge, Emits, Moment, On, Saga, Starts, Then,
    needs::{Complete, CompleteStart},
};
use std::marker::PhantomData;

/// What function `F` of a `#[saga]` block does, for saga `G`.
#[doc(hidden)]
pub struct Transition<S, M, G: Saga, F> {
    pub go: fn(S, M, &mut G::Data, &Moment, &mut Emits) -> G,
    /// The edges that leave the named state on the named message.
    pub edges: fn(&'static str, &'static str, &mut Vec<ChartEdge>),
    function: PhantomData<fn() -> F>,
}

#[doc(hidden)]
pub fn transition<S: On<M>, M, F>() -> Transition<S, M, <S as Accepts<M>>::Saga, F>
where
    S::Then: Then<Saga = <S as Accepts<M>>::Saga> + Complete<<S as Accepts<M>>::Saga, F>,
{
    Transition {
        go: |state, message, data, at, out| state.on(message, data, at).apply(out),
        edges: |from, on, out| <S::Then as Then>::edges(from, on, "", out),
        function: PhantomData,
    }
}

/// What a start of `S` does.
#[doc(hidden)]
pub struct Start<S: Saga, M, F> {
    pub begin: fn(M, &Moment, &mut Emits) -> (S, S::Data),
    pub edges: fn(&'static str, &mut Vec<ChartEdge>),
    function: PhantomData<fn() -> F>,
}

/// Where the states share nothing.
#[doc(hidden)]
pub fn start<S: Starts<M> + Saga<Data = ()>, M, F>() -> Start<S, M, F>
where
    S::Then: Then<Saga = S> + Complete<S, F>,
{
    Start {
        begin: |message, at, out| (S::start(message, at).apply(out), ()),
        edges: |on, out| <S::Then as Then>::edges("", on, "", out),
        function: PhantomData,
    }
}

/// Where the states share data.
#[doc(hidden)]
pub fn start_with_data<S: Starts<M>, M, F>() -> Start<S, M, F>
where
    S::Then: Begin<Saga = S> + CompleteStart<S, F>,
{
    Start {
        begin: |message, at, out| S::start(message, at).begin(out),
        edges: |on, out| <S::Then as Begin>::edges(on, "", out),
        function: PhantomData,
    }
}

/// What branch `F` of the enum `E` does, written by [`derive(Then)`](derive@crate::Then): the state, and the data where
/// it begins an instance.
#[doc(hidden)]
pub struct Branch<T, N, E, F> {
    pub go: fn(T, &mut Emits) -> N,
    /// From the named state, on the named message, under the branch's own name.
    pub edges: fn(&'static str, &'static str, &'static str, &mut Vec<ChartEdge>),
    branch: PhantomData<fn() -> (E, F)>,
}

#[doc(hidden)]
pub fn branch<T: Then + Complete<E, F>, E, F>() -> Branch<T, T::Saga, E, F> {
    Branch { go: T::apply, edges: T::edges, branch: PhantomData }
}

#[doc(hidden)]
#[expect(clippy::type_complexity, reason = "names of types for the compiler's errors, with nothing inside")]
pub fn first_branch<T: Begin + CompleteStart<E, F>, E, F>() -> Branch<T, (T::Saga, <T::Saga as Saga>::Data), E, F> {
    Branch { go: T::begin, edges: |_, on, branch, out| T::edges(on, branch, out), branch: PhantomData }
}
