//! What is wrong with a function's result, where the types' names tell; the compiler sees the rest.

use super::function::{Of, of_one_name};
use crate::{states::States, text};
use syn::{GenericArgument, Ident, PathArguments, Type};

const EFFECTS: [&str; 8] = ["After", "Cancels", "Deadline", "Publishes", "Reenter", "Replies", "Sends", "SendsAny"];

/// Where it is, and what it is.
pub(super) type Wrong<'a> = (&'a Type, String);

pub(super) fn returned<'a>(states: &States, of: Of, then: &'a Type) -> Option<Wrong<'a>> {
    if let Some((ident, arguments)) = named(then).filter(|_| !is_state(states, then)) {
        match (ident.to_string().as_str(), arguments.as_slice()) {
            ("Either", branches) => return branches.iter().find_map(|branch| returned(states, of, branch)),
            ("Result", [ok, ..]) => {
                let ok = text(ok);
                let fault = format!(
                    "a transition cannot fail, for what it knows is stored: return `{ok}`, and where it must not go \
                     on, another state, `Either<{ok}, ..>`"
                );
                return Some((then, fault));
            }
            ("Option", [some]) if !is_effect(some) => {
                let fault = format!(
                    "a transition returns a state in any case: where it does not go on, the one that it was given, or \
                     `Stay<Self>`: `Either<{}, ..>`",
                    text(some)
                );
                return Some((then, fault));
            }
            _ => {}
        }
    }
    let parts: Vec<&Type> = match then {
        Type::Tuple(tuple) => tuple.elems.iter().collect(),
        other => vec![other],
    };
    let (first, rest) = parts.split_first()?;
    let of_effects = parts.iter().filter(|part| is_effect(part)).filter_map(|part| named(part)).flat_map(|(_, of)| of);
    if let Some(state) = of_effects.into_iter().find(|ty| is_state(states, ty)) {
        return Some((state, of_one_name(state)));
    }
    effect_first(states, of, then, &parts).or_else(|| state_first(states, of, then, (first, rest)))
}

/// An effect where the data or the state should be.
fn effect_first<'a>(states: &States, of: Of, then: &'a Type, parts: &[&'a Type]) -> Option<Wrong<'a>> {
    let data = states.data.as_ref().filter(|_| of == Of::Start);
    let place = usize::from(data.is_some_and(|data| parts.first() == Some(&data)));
    let wrong = parts.get(place).filter(|part| !is_state(states, part) && is_effect(part))?;
    let state = parts.iter().find(|part| is_state(states, part)).map_or_else(|| "State".into(), |state| text(state));
    let effects = parts.iter().filter(|part| !is_state(states, part) && Some(**part) != data).map(|part| text(part));
    let all = data.map(text).into_iter().chain([state]).chain(effects).collect::<Vec<_>>().join(", ");
    let what =
        if data.is_some() { "the data and the state come first, then the" } else { "the state comes first, then its" };
    let at = if parts.len() == 1 { then } else { wrong };
    Some((at, format!("`{}` is an effect: {what} effects, `({all})`", text(wrong))))
}

fn state_first<'a>(
    states: &States,
    of: Of,
    then: &'a Type,
    (first, rest): (&'a Type, &[&'a Type]),
) -> Option<Wrong<'a>> {
    let state = text(first);
    match &states.data {
        Some(data) if of == Of::Start && is_state(states, first) => {
            let data = text(data);
            return Some((
                then,
                format!("begins an instance, so what every state knows comes first: `({data}, {state}, ..)`"),
            ));
        }
        Some(data) if of != Of::Start && data == first => {
            return Some((
                first,
                format!("only a start returns the data; here it is changed in place, `&mut {state}`"),
            ));
        }
        Some(_) if of == Of::Start => return None,
        _ => {}
    }
    let wrong = rest.iter().find(|part| is_state(states, part))?;
    let (state, wrong_state) = (text(first), text(wrong));
    if is_state(states, first) {
        let branches = format!("enters one state; of two ways to go on, it returns `Either<{state}, {wrong_state}>`");
        return Some((wrong, branches));
    }
    Some((
        first,
        format!(
            "`{state}` comes before the state; is it what every state knows? Then write `#[states(data = {state})]`"
        ),
    ))
}

fn is_state(states: &States, ty: &Type) -> bool {
    states.states.iter().any(|state| state.ty == *ty)
}

/// An effect by its name, or an `Option` or a `Vec` of one.
fn is_effect(ty: &Type) -> bool {
    named(ty).is_some_and(|(name, of)| match of.as_slice() {
        [one] if name == "Option" || name == "Vec" => is_effect(one),
        of => (!of.is_empty() || name == "Reenter") && EFFECTS.iter().any(|effect| name == effect),
    })
}

/// The last name of a type, and its parameters that are types.
fn named(ty: &Type) -> Option<(&Ident, Vec<&Type>)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let types = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().collect(),
        _ => Vec::new(),
    };
    let types = types.into_iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    Some((&last.ident, types.collect()))
}
