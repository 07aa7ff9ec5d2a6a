//! What the code written by `#[derive(Saga)]` calls, beside [`Transition`](super::Transition) and
//! [`Start`](super::Start).

use super::{Chart, ChartEdge, ChartMessage, ChartState, ReadError, State};
use crate::{Message, MessageKind};
use serde::{Serialize, de::DeserializeOwned};
use std::ops::Deref;

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
