//! What the code written by `#[derive(Saga)]` calls.
//!
//! Each transition and each start is one constant. So the user's `impl` is required in one place, and a missing one
//! gives one error.

use super::{
    Accepts, Chart, ChartEdge, ChartMessage, ChartState, Emits, Keeps, Moment, On, ReadError, Starts, State, Then,
};
use crate::{Message, MessageKind};
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Deref;

/// What `On<M>` of `S` is, for saga `G`.
pub struct Transition<S, M, G> {
    pub go: fn(S, M, &Moment, &mut Emits) -> G,
    /// The edges that leave the named state.
    pub edges: fn(&'static str, &mut Vec<ChartEdge>),
    pub keeps: Keeps,
}

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
pub struct Start<S, M> {
    pub begin: fn(M, &Moment, &mut Emits) -> S,
    pub edges: fn(&mut Vec<ChartEdge>),
    pub keeps: Keeps,
}

pub const fn start<S: Starts<M>, M: Message>() -> Start<S, M> {
    Start { begin: begin::<S, M>, edges: start_edges::<S, M>, keeps: <<S as Starts<M>>::Then as Then>::KEEPS }
}

fn begin<S: Starts<M>, M>(message: M, at: &Moment, out: &mut Emits) -> S {
    S::start(message, at).apply(out)
}

fn start_edges<S: Starts<M>, M: Message>(out: &mut Vec<ChartEdge>) {
    <<S as Starts<M>>::Then as Then>::edges("", M::TYPE, "", out);
}

/// A message whose id is in the field that the saga names: rustc prints this type's name when the field is missing.
pub struct IdFieldOrByPathOrByEcho<'a, M>(&'a M);

impl<'a, M> IdFieldOrByPathOrByEcho<'a, M> {
    pub fn of(message: &'a M) -> Self {
        Self(message)
    }
}

impl<M> Deref for IdFieldOrByPathOrByEcho<'_, M> {
    type Target = M;
    fn deref(&self) -> &M {
        self.0
    }
}

/// Whether one of `names` is `name`.
pub const fn contains(names: &[&str], name: &str) -> bool {
    let mut n = 0;
    while n < names.len() {
        if same(names[n], name) {
            return true;
        }
        n += 1;
    }
    false
}

pub(super) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

pub const fn is_timer<M: Message>() -> bool {
    matches!(M::KIND, MessageKind::Timer)
}

pub fn read<M: Message>(body: &[u8]) -> Result<M, ReadError> {
    crate::message::decode(body).map_err(ReadError)
}

pub fn unknown<T>(saga: &str, type_name: &str) -> Result<T, ReadError> {
    Err(ReadError(format!("`{type_name}` is not a message of saga `{saga}`")))
}

pub fn load<S: DeserializeOwned>(state: &str, data: &str) -> Result<S, ReadError> {
    serde_json::from_str(data).map_err(|error| ReadError(format!("state `{state}`: {error}")))
}

pub fn unknown_state<T>(state: &str) -> Result<T, ReadError> {
    Err(ReadError(format!("unknown state `{state}`")))
}

pub fn store<S: State + Serialize>(state: &S) -> String {
    serde_json::to_string(state).unwrap_or_else(|error| panic!("state {} does not encode: {error}", S::NAME))
}

pub fn chart(
    saga: &str,
    version: u32,
    states: Vec<ChartState>,
    messages: Vec<ChartMessage>,
    edges: Vec<ChartEdge>,
) -> Chart {
    Chart { saga: saga.into(), version, states, messages, edges }
}

pub fn state(name: &str, done: bool, ignore: Vec<&str>, defer: Vec<&str>, reject: Vec<&str>) -> ChartState {
    let names = |list: Vec<&str>| list.into_iter().map(Into::into).collect();
    ChartState { name: name.into(), done, ignore: names(ignore), defer: names(defer), reject: names(reject) }
}

pub fn message<M: Message>(starts: bool, anyone: bool) -> ChartMessage {
    ChartMessage { type_name: M::TYPE.into(), kind: M::KIND, starts, anyone }
}
