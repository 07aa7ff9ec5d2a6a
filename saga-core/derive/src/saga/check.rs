//! What must hold between the functions and the attributes, and the list of messages that follows from them.

use super::{
    function::{Function, Of},
    parse::{AliasOf, By, Definition, Path},
};
use crate::{
    Faults,
    states::{State, States},
    text,
};
use quote::format_ident;
use syn::{Ident, Type};

/// A message of the saga, once, with the way to its key.
pub(super) struct Message<'a> {
    pub(super) ty: Type,
    /// Its variant of the enum of all messages.
    pub(super) variant: Ident,
    pub(super) key: Key<'a>,
    pub(super) starts: bool,
    pub(super) rejects_repeats: bool,
    pub(super) returns_repeats: bool,
    pub(super) anyone: bool,
}

/// Where the instance's id stands.
pub(super) enum Key<'a> {
    /// In the fields that the saga names; a timer has them nowhere and comes back by itself.
    Fields,
    Paths(&'a [Path]),
    Envelope,
    /// By another value, which the instance has in its data.
    Alias(&'a AliasOf),
}

/// Each alias is a row of its own, and is looked up by itself.
const ALIASES_MAX: usize = 4;

/// Every message of the saga once, in the order in which they are written, and what is wrong with their ways to the id.
pub(super) fn messages<'a>(definition: &'a Definition<'_>, faults: &mut Faults) -> Vec<Message<'a>> {
    let mut all: Vec<Message<'a>> = Vec::new();
    let of = |all: &mut Vec<Message<'a>>, ty: &Type| {
        all.iter().position(|message| message.ty == *ty).unwrap_or_else(|| {
            let (variant, ty) = (format_ident!("M{}", all.len()), ty.clone());
            let (starts, rejects_repeats, returns_repeats, anyone) = (false, false, false, false);
            all.push(Message { ty, variant, key: Key::Fields, starts, rejects_repeats, returns_repeats, anyone });
            all.len() - 1
        })
    };
    for function in &definition.functions {
        let n = of(&mut all, &function.message);
        all[n].starts |= function.of == Of::Start;
        all[n].rejects_repeats |= function.rejects_repeats;
        all[n].returns_repeats |= function.returns_repeats;
        all[n].anyone |= function.anyone;
    }
    for (_, _, ty) in definition.states.states.iter().flat_map(lists) {
        of(&mut all, ty);
    }
    for (n, (ty, by)) in definition.by.iter().enumerate() {
        let given_twice = definition.by[..n].iter().any(|(other, _)| other == ty);
        let message = all.iter_mut().find(|message| message.ty == *ty);
        if let Some(key) = faults.keep(key(definition, ty, by, given_twice, message.as_deref()))
            && let Some(message) = message
        {
            message.key = key;
        }
    }
    aliases(definition, &mut all, faults);
    all
}

/// How a message that `by` names finds its instance.
fn key<'a>(
    definition: &Definition<'_>,
    ty: &Type,
    by: &'a By,
    given_twice: bool,
    message: Option<&Message<'_>>,
) -> syn::Result<Key<'a>> {
    let name = text(ty);
    let fault = |fault: String| Err(syn::Error::new_spanned(ty, fault));
    if given_twice {
        return fault(format!("`by` names `{name}` twice: a message finds its instance one way"));
    }
    let Some(message) = message else { return fault(format!("`by` names `{name}`, but no function takes it")) };
    match by {
        By::Echo if message.starts => {
            let fields: Vec<_> = definition.id.iter().map(|(field, _)| format!("path.to.{field}")).collect();
            let path = if fields.len() == 1 { fields.concat() } else { format!("({})", fields.join(", ")) };
            let why = "begins an instance, so its envelope names none yet";
            fault(format!("`{name}` {why}: say which field has the id, `{name} = {path}`"))
        }
        By::Echo if message.anyone => {
            let why = "is taken from anyone, and what is not an answer to the instance names none in its envelope";
            fault(format!("`{name}` {why}: say which field has the id, or take `#[on(anyone)]` away"))
        }
        By::Echo => Ok(Key::Envelope),
        By::Paths(paths) if paths.len() == definition.id.len() => Ok(Key::Paths(paths)),
        By::Paths(_) => {
            let fields = definition.id.iter().map(|(field, _)| field.to_string());
            let example = fields.collect::<Vec<_>>().join(", ");
            fault(match definition.id.len() {
                1 => format!("the id has one part: `{name} = path.to.{example}`"),
                parts => format!("the id has {parts} parts: a path for each, `{name} = ({example})`"),
            })
        }
    }
}

/// Enters the aliases.
fn aliases<'a>(definition: &'a Definition<'_>, all: &mut [Message<'a>], faults: &mut Faults) {
    let Some(first) = definition.aliases.first() else { return };
    if definition.states.data.is_none() {
        let fault = "an alias is a field of what every state knows: `#[states(data = YourStruct)]`";
        return faults.add(syn::Error::new_spanned(&first.field, fault));
    }
    let mut fields: Vec<&Path> = Vec::new();
    for alias in &definition.aliases {
        let field = &alias.field;
        if !fields.contains(&field) {
            fields.push(field);
            if fields.len() == ALIASES_MAX + 1 {
                faults.add(syn::Error::new_spanned(field, format!("a saga has at most {ALIASES_MAX} aliases")));
            }
            if let Some(masked) = field.first().filter(|first| definition.states.masks(first)) {
                let why = "operators see aliases and search by them: let messages name another value";
                let fault = format!("`{masked}` is masked, but {why}");
                faults.add(syn::Error::new_spanned(field, fault));
            }
        }
        if let Some(message) = faults.keep(with_alias(&alias.message, all)) {
            message.key = Key::Alias(alias);
        }
    }
    let states = definition.states;
    for field in states.found_by.iter().chain(states.states.iter().flat_map(|state| &state.found_by)) {
        if fields.contains(&field) {
            let fault = "it is an alias: operators find the instance by that already";
            faults.add(syn::Error::new_spanned(field, fault));
        }
    }
}

/// The message that an alias is for.
fn with_alias<'m, 'a>(ty: &Type, all: &'m mut [Message<'a>]) -> syn::Result<&'m mut Message<'a>> {
    let (name, message) = (text(ty), all.iter_mut().find(|message| message.ty == *ty));
    let fault = match message {
        None => format!("`alias` names `{name}`, but no function takes it"),
        Some(message) if message.starts => {
            format!("`{name}` begins an instance, which has no alias yet: it names the id")
        }
        Some(message) if matches!(message.key, Key::Fields) => return Ok(message),
        Some(_) => format!("`{name}` is named twice in `by` and `alias`: a message finds its instance one way"),
    };
    Err(syn::Error::new_spanned(ty, fault))
}

/// What a state says about messages in its attributes.
fn lists(state: &State) -> impl Iterator<Item = (&State, &'static str, &Type)> {
    let named = move |list, name| <[Type]>::iter(list).map(move |ty| (state, name, ty));
    let others = named(&state.defers, "defers").chain(named(&state.rejects, "rejects"));
    named(&state.ignores, "ignores").chain(others)
}

/// A state does one thing with a message.
pub(super) fn each_once(states: &States, functions: &[Function], faults: &mut Faults) {
    let saga = &states.ident;
    let whose = |function: &Function| match function.of {
        Of::Start => format!("begin with `{}`", text(&function.message)),
        Of::Enum => format!("take `{}` for the whole enum", text(&function.message)),
        Of::State(place) => format!("take `{}` in `{}`", text(&function.message), states.states[place].ident),
    };
    for (n, function) in functions.iter().enumerate() {
        let same = |other: &&Function| other.of == function.of && other.message == function.message;
        if let Some(other) = functions[..n].iter().find(same) {
            let (a, b) = (&other.name, &function.name);
            let fault = format!("`{saga}::{a}` and `{saga}::{b}` both {}", whose(function));
            faults.add(syn::Error::new_spanned(&function.message, fault));
        }
    }
    for (place, state) in states.states.iter().enumerate() {
        let mut seen: Vec<(&Type, &str)> = Vec::new();
        for (State { ident, .. }, list, ty) in lists(state) {
            let name = text(ty);
            let fault = if let Some((_, other)) = seen.iter().find(|(known, _)| *known == ty) {
                format!("state `{ident}` names `{name}` in `#[{other}(..)]` and in `#[{list}(..)]`: take it out of one")
            } else if let Some(function) = functions.iter().find(|it| it.of == Of::State(place) && it.message == *ty) {
                let function = &function.name;
                format!("state `{ident}` names `{name}` in `#[{list}(..)]`, and `{saga}::{function}` takes it there")
            } else {
                seen.push((ty, list));
                continue;
            };
            faults.add(syn::Error::new_spanned(ty, fault));
        }
    }
}
