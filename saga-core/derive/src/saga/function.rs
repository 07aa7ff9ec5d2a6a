//! A function of the block, as a transition.

use super::returned::returned;
use crate::{Faults, states::States, text};
use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, FnArg, Ident, ReturnType, Signature, Token, Type, ext::IdentExt, punctuated::Punctuated};

/// A transition or a start.
#[derive(Clone)]
pub(super) struct Function {
    pub(super) name: Ident,
    pub(super) of: Of,
    pub(super) message: Type,
    /// What it returns, with the enum's name in the place of `Self`.
    pub(super) then: TokenStream,
    /// How it is called with `self` or the state, `message`, `data` and `at`.
    pub(super) arguments: Vec<TokenStream>,
    /// `#[on(anyone)]`.
    pub(super) anyone: bool,
    /// `#[starts(reject)]`.
    pub(super) rejects_repeats: bool,
    /// `#[starts(return)]`.
    pub(super) returns_repeats: bool,
}

/// Whose transition it is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Of {
    /// It begins an instance.
    Start,
    /// Of every state that is not done and has none of its own.
    Enum,
    /// Of one state, by its place in the enum.
    State(usize),
}

impl Function {
    /// One, or with `#[when(..)]` one for each state that it names.
    pub(super) fn of(states: &States, attributes: &[Attribute], signature: &Signature) -> syn::Result<Vec<Self>> {
        let mut faults = Faults::default();
        let mut function = faults.keep(Self::read(states, signature));
        let (when, attributes): (Vec<_>, Vec<_>) = attributes.iter().partition(|attr| attr.path().is_ident("when"));
        for attr in attributes {
            let read = match &mut function {
                Some(function) => function.attribute(attr),
                None => word(attr).map(drop),
            };
            faults.keep(read.map_err(|(at, text)| {
                syn::Error::new_spanned(at, format!("`{}::{}`: {text}", states.ident, signature.ident))
            }));
        }
        let places =
            when.into_iter().map(|attr| faults.keep(places(states, &signature.ident, function.as_ref(), attr)));
        let places: Vec<usize> = places.flatten().flatten().collect();
        let function = faults.or(function)?;
        if places.is_empty() {
            return Ok(vec![function]);
        }
        Ok(places.into_iter().map(|place| function.at(states, place)).collect())
    }

    /// The enum's function as that of one state.
    fn at(&self, states: &States, place: usize) -> Self {
        let (saga, state) = (&states.ident, &states.states[place].ident);
        let arguments = self.arguments.iter().map(|argument| match argument.to_string().as_str() {
            "self" => quote!(#saga::#state(self)),
            _ => argument.clone(),
        });
        Self { of: Of::State(place), arguments: arguments.collect(), ..self.clone() }
    }

    fn read(states: &States, signature: &Signature) -> syn::Result<Self> {
        let fault = |at: &dyn ToTokens, text: &str| {
            let name = format!("`{}::{}`", states.ident, signature.ident);
            syn::Error::new_spanned(at.to_token_stream(), format!("{name}: {text}"))
        };
        if let Some(token) = &signature.asyncness {
            return Err(fault(token, "a transition only decides: what waits is the work of a command's handler"));
        }
        let none = |at: &dyn ToTokens, text: &str| {
            fault(at, &format!("{text}. A function that is no transition belongs into another `impl` block"))
        };
        if !signature.generics.params.is_empty() {
            return Err(none(&signature.generics, "a transition has no parameters of its own"));
        }
        let place = |ty: &Type| states.states.iter().position(|state| state.ty == *ty);
        let (mut receiver, mut values, mut arguments) = (false, Vec::new(), Vec::new());
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(it) if it.reference.is_some() => {
                    return Err(none(it, "a transition takes the state by value: `self`"));
                }
                FnArg::Receiver(_) => {
                    receiver = true;
                    arguments.push(quote!(self));
                }
                FnArg::Typed(typed) => match &*typed.ty {
                    Type::Reference(reference) => arguments.push(by_reference(states, reference).ok_or_else(|| {
                        let data = states.data.as_ref().map_or_else(
                            || "; for what every state knows, write `#[states(data = YourStruct)]`".to_owned(),
                            |data| format!(", `&{0}` and `&mut {0}`", text(data)),
                        );
                        match place(&reference.elem) {
                            Some(_) => {
                                fault(reference, &format!("a state is taken by value: `{}`", text(&reference.elem)))
                            }
                            None => none(reference, &format!("by reference, a transition takes `&Moment`{data}")),
                        }
                    })?),
                    Type::ImplTrait(it) => {
                        return Err(none(it, "a transition has no parameters of its own: name the type"));
                    }
                    by_value if is_plain(by_value) => {
                        let plain = format!("`{}` is neither a state nor a message", text(by_value));
                        return Err(none(by_value, &plain));
                    }
                    by_value => {
                        values.push(by_value);
                        arguments.push(quote!(message));
                    }
                },
            }
        }
        let (of, message) = match (receiver, values.as_slice()) {
            (false, [message]) if place(message).is_some() => {
                return Err(fault(message, "takes a state and no message: `fn name(_: State, _: Message) -> ..`"));
            }
            (false, [message]) => (Of::Start, *message),
            (true, [message]) => (Of::Enum, *message),
            (false, [state, message]) => match place(state) {
                Some(place) => {
                    let first = arguments.iter().position(|argument| argument.to_string() == "message");
                    arguments[first.unwrap_or_default()] = quote!(self);
                    (Of::State(place), *message)
                }
                None if place(message).is_some() => return Err(fault(state, "the state comes before the message")),
                None => return Err(fault(state, &states.unknown(state))),
            },
            _ => {
                let text = "a function of a `#[saga]` block is a transition. It takes a state and a message, `self` \
                            and a message, or the message that begins; other functions have an `impl` of their own";
                return Err(fault(&signature.ident, text));
            }
        };
        if place(message).is_some() {
            return Err(fault(message, &of_one_name(message)));
        }
        let ReturnType::Type(_, then) = &signature.output else {
            return Err(fault(
                &signature.ident,
                "a transition returns the next state: `-> State` or `-> (State, Effect, ..)`",
            ));
        };
        let borrows = |input: &&FnArg| match input {
            FnArg::Typed(typed) => matches!(&*typed.ty, Type::Reference(it) if states.data.as_ref() == Some(&*it.elem)),
            FnArg::Receiver(_) => false,
        };
        if let (Of::Start, Some(input)) = (of, signature.inputs.iter().find(borrows)) {
            return Err(fault(input, "there is no data yet where an instance begins: this function returns it"));
        }
        returned(states, of, then).map_or(Ok(()), |(at, text)| Err(fault(at, &text)))?;
        Ok(Self {
            name: signature.ident.clone(),
            of,
            message: message.clone(),
            then: named(then.to_token_stream(), &states.ident),
            arguments,
            anyone: false,
            rejects_repeats: false,
            returns_repeats: false,
        })
    }

    /// Reads `#[on(..)]` or `#[starts(..)]`.
    fn attribute(&mut self, attr: &Attribute) -> Result<(), (TokenStream, &'static str)> {
        let word = word(attr)?;
        let begins = self.of == Of::Start;
        let text = match attr.path().get_ident().map(Ident::to_string).as_deref() {
            Some("on") => {
                self.anyone = true;
                return Ok(());
            }
            _ if !begins => "`#[starts(..)]` is for a function that begins an instance",
            _ if self.rejects_repeats || self.returns_repeats => {
                "a repeated start is rejected or answered again, not both"
            }
            _ => {
                self.rejects_repeats = word == "reject";
                self.returns_repeats = word == "return";
                return Ok(());
            }
        };
        Err((word.to_token_stream(), text))
    }
}

/// The places of the states that `#[when(..)]` names.
fn places(states: &States, name: &Ident, function: Option<&Function>, attr: &Attribute) -> syn::Result<Vec<usize>> {
    let saga = &states.ident;
    let fault = |at: &dyn ToTokens, text: String| {
        syn::Error::new_spanned(at.to_token_stream(), format!("`{saga}::{name}`: {text}"))
    };
    if function.is_some_and(|function| function.of != Of::Enum) {
        return Err(fault(attr, "`#[when(..)]` is for a function that takes `self`, in several states".into()));
    }
    let named = attr.parse_args_with(Punctuated::<Type, Token![,]>::parse_terminated);
    let named = named.ok().filter(|named| !named.is_empty());
    let named = named.ok_or_else(|| fault(attr, "name the states: `#[when(OneState, AnotherState)]`".into()))?;
    let mut places = Vec::new();
    for ty in &named {
        match states.states.iter().position(|state| state.ty == *ty) {
            Some(place) if places.contains(&place) => return Err(fault(ty, format!("`{}` is named twice", text(ty)))),
            Some(place) => places.push(place),
            None => return Err(fault(ty, states.unknown(ty))),
        }
    }
    Ok(places)
}

/// The word of `#[on(..)]` or `#[starts(..)]`.
fn word(attr: &Attribute) -> Result<Ident, (TokenStream, &'static str)> {
    let (words, known): (&[&str], _) = match attr.path().is_ident("on") {
        true => (&["anyone"], "known here: `#[on(anyone)]`"),
        false => (&["reject", "return"], "known here: `#[starts(reject)]`, `#[starts(return)]`"),
    };
    let word = attr.parse_args_with(Ident::parse_any).map_err(|_| (attr.to_token_stream(), known))?;
    if words.iter().any(|it| word == it) { Ok(word) } else { Err((word.to_token_stream(), known)) }
}

/// A state where a message is expected: most likely there are two types of this name.
pub(super) fn of_one_name(ty: &Type) -> String {
    let name = text(ty);
    format!(
        "`{name}` is a state and no message: states become structs of this module, so a message of the same name has \
         another name here, `use ..::{name} as {name}Message`, or is renamed"
    )
}

/// Types that are never messages.
fn is_plain(ty: &Type) -> bool {
    const PLAIN: [&str; 17] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128",
        "usize", "String",
    ];
    match ty {
        Type::Path(path) => path.path.get_ident().is_some_and(|it| PLAIN.iter().any(|plain| it == plain)),
        Type::Tuple(_) | Type::Array(_) | Type::Slice(_) => true,
        _ => false,
    }
}

/// An argument that is not the state and not the message.
fn by_reference(states: &States, reference: &syn::TypeReference) -> Option<TokenStream> {
    let mutable = reference.mutability.is_some();
    if states.data.as_ref() == Some(&*reference.elem) {
        return Some(if mutable { quote!(data) } else { quote!(&*data) });
    }
    let Type::Path(path) = &*reference.elem else { return None };
    (!mutable && path.path.segments.last()?.ident == "Moment").then(|| quote!(at))
}

/// `Self` is another type in the impl that a transition is written into.
fn named(tokens: TokenStream, saga: &Ident) -> TokenStream {
    let replaced = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            let mut saga = saga.clone();
            saga.set_span(ident.span());
            TokenTree::Ident(saga)
        }
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), named(group.stream(), saga));
            inner.set_span(group.span());
            TokenTree::Group(inner)
        }
        other => other,
    });
    replaced.collect()
}
