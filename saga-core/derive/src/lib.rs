//! The derives of `saga-core`: `Message`, `Event`, `Command`, `Outcome`, `Saga`, `Then`. Use them through `saga_core`.

mod message;
mod outcome;
mod saga;
mod then;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

macro_rules! derive {
    ($(#[$doc:meta])* $function:ident, $name:ident, [$($attribute:ident)*], $expand:expr) => {
        $(#[$doc])*
        #[proc_macro_derive($name, attributes($($attribute),*))]
        pub fn $function(input: TokenStream) -> TokenStream {
            let input = parse_macro_input!(input as DeriveInput);
            let expand: fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream> = $expand;
            expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
        }
    };
}

derive!(
    /// A timer of a saga: a message from an instance to itself. `#[message(name = "ordering.PaymentOverdue")]`; the default name is the type's.
    message, Message, [message], message::timer
);
derive!(
    /// An event. `#[event(from = "ordering")]` names it `ordering.TypeName`, `#[event(name = "..")]` anything.
    event, Event, [event], message::event
);
derive!(
    /// A command. `#[command(to = "payment", outcome = PaymentOutcome)]`; its name is `payment.TypeName` unless `name = ".."` says otherwise.
    command, Command, [command], message::command
);
derive!(
    /// What can come back of a command: an enum whose variants each hold one event. `#[outcome(reply)]` sends it to the asker alone.
    outcome, Outcome, [outcome], outcome::expand
);
derive!(
    /// A saga: an enum whose variants each hold one state. See `saga_core` for the attributes.
    saga, Saga, [saga starts on timer done ignores defers rejects], saga::expand
);
derive!(
    /// The named branches of a transition: an enum whose variants each hold a state or a tuple `(State, Effect, ..)`.
    then, Then, [], then::expand
);

/// The single unnamed field of a variant.
fn single_field(variant: &syn::Variant) -> syn::Result<&syn::Type> {
    match &variant.fields {
        syn::Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => Err(syn::Error::new_spanned(
            variant,
            format!("variant `{0}` must hold exactly one value: `{0}({0})`", variant.ident),
        )),
    }
}

/// The variants of an enum, or an error that says an enum is needed.
fn variants<'a>(
    input: &'a DeriveInput,
    what: &str,
) -> syn::Result<&'a syn::punctuated::Punctuated<syn::Variant, syn::Token![,]>> {
    match &input.data {
        syn::Data::Enum(data) if !data.variants.is_empty() => Ok(&data.variants),
        _ => Err(syn::Error::new_spanned(&input.ident, format!("{what} is an enum with at least one variant"))),
    }
}
