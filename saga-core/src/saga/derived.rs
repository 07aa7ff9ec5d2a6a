//! What the code written by `#[states]` and `#[saga]` calls, beside [`Transition`](super::Transition) and
//! [`Start`](super::Start), and beside `crate::probe`.

use super::{Chart, ChartEdge, ChartMessage, ChartState, ReadError, State, Upcast};
use crate::message::unquoted;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::marker::PhantomData;

/// Whether one of `names` is `name`. What has none is no message, and another error says so.
pub const fn contains(names: &[&str], name: &str) -> bool {
    let mut n = if name.is_empty() { names.len() } else { 0 };
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

pub fn unknown<T>(saga: &str, type_name: &str) -> Result<T, ReadError> {
    Err(ReadError(format!("`{type_name}` is not a message of saga `{saga}`")))
}

pub fn unknown_state<T>(state: &str) -> Result<T, ReadError> {
    Err(ReadError(format!("unknown state `{state}`")))
}

/// What is stored where the states share data.
#[derive(Serialize, Deserialize)]
struct Stored<D, S> {
    data: D,
    state: S,
}

pub fn store<S: State + Serialize>(state: &S) -> String {
    serde_json::to_string(state).unwrap_or_else(|error| panic!("state {} does not encode: {error}", S::NAME))
}

pub fn store_with_data<S: State + Serialize, D: Serialize>(state: &S, data: &D) -> String {
    serde_json::to_string(&Stored { data, state })
        .unwrap_or_else(|error| panic!("state {} does not encode with its data: {error}", S::NAME))
}

/// Splits what was stored into data and state, each still JSON. An older version of the saga may have had no data:
/// then that is `null`, for an `Upcast` whose old form is `()`.
pub fn parts<'a>(state: &str, is_older: bool, json: &'a str) -> Result<(&'a str, &'a str), ReadError> {
    match serde_json::from_str::<Stored<&RawValue, &RawValue>>(json) {
        Ok(stored) => Ok((stored.data.get(), stored.state.get())),
        Err(_) if is_older => Ok(("null", json)),
        Err(error) => Err(ReadError(format!("state `{state}` with its data: {}", unquoted(&error.to_string())))),
    }
}

/// A part of what was stored, to be read in the form of one version: `None` when that version has no form of its own.
///
/// This and [`Newest`] choose by method resolution, where a trait bound cannot: an impl for `Form` is found before one
/// for `&Form`. So the macro need not know for which versions the user wrote an `Upcast`.
pub struct Form<T, const V: u32>(pub PhantomData<T>);

pub trait Older<T> {
    fn read(&self, what: &str, json: &str) -> Option<Result<T, ReadError>>;
}

impl<T: Upcast<V>, const V: u32> Older<T> for Form<T, V> {
    fn read(&self, what: &str, json: &str) -> Option<Result<T, ReadError>> {
        let old = serde_json::from_str(json);
        let old = old.map_err(|error| ReadError(format!("{what} as of version {V}: {}", unquoted(&error.to_string()))));
        Some(old.and_then(|old| {
            T::upcast(old).map_err(|error| ReadError(format!("{what}: upcast from version {V}: {error}")))
        }))
    }
}

pub trait Newest<T> {
    fn read(&self, what: &str, json: &str) -> Option<Result<T, ReadError>>;
}

impl<T, const V: u32> Newest<T> for &Form<T, V> {
    fn read(&self, _: &str, _: &str) -> Option<Result<T, ReadError>> {
        None
    }
}

/// Reads the present form.
pub fn load<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, ReadError> {
    // what a state holds is nobody's business: neither a log's nor an operator's who sees it masked
    serde_json::from_str(json).map_err(|error| ReadError(format!("{what}: {}", unquoted(&error.to_string()))))
}

/// Reads the present form of a state, whether it had fields before or not: one without is stored as `null`.
pub fn load_state<T: DeserializeOwned + Serialize>(what: &str, json: &str) -> Result<T, ReadError> {
    let read = load(what, json).or_else(|error| match json {
        "null" => load(what, "{}").map_err(|_| error),
        _ if json.starts_with('{') && size_of::<T>() == 0 => load(what, "null").map_err(|_| error),
        _ => Err(error),
    })?;
    // a state whose fields may all be missing would read what is stored with data as none of them
    let is_lost = json.starts_with(r#"{"data":"#)
        && serde_json::from_str::<Stored<&RawValue, &RawValue>>(json).is_ok()
        && serde_json::to_value(&read).is_ok_and(|read| read.get("data").is_none());
    if is_lost {
        let why = "it was stored with data, and the saga's states share none any more: read both through an `Upcast`";
        return Err(ReadError(format!("{what}: {why}")));
    }
    Ok(read)
}

pub fn chart(
    saga: &str,
    version: u32,
    (id, has_data): (&str, bool),
    states: Vec<ChartState>,
    messages: Vec<ChartMessage>,
    edges: Vec<ChartEdge>,
) -> Chart {
    Chart { saga: saga.into(), version, id: id.into(), has_data, states, messages, edges }
}

/// Marks the edges that functions of the whole enum make.
pub fn inherited(edges: &mut [ChartEdge]) {
    edges.iter_mut().for_each(|edge| edge.inherited = true);
}
