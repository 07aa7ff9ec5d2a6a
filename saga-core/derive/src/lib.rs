//! The derives of Sagabus: `Message`, `Event`, `Reply`, `Command`, `Outcome`, `Then`; and the
//! attributes `states`, `saga` and `handlers`.
//!
//! Use them through the package `sagabus`: the generated code refers to it.

mod attributes;
mod block;
mod field;
mod handlers;
mod masked;
mod message;
mod outcome;
mod quiet;
mod saga;
mod states;
mod then;
mod words;

use proc_macro::TokenStream;
use syn::{DeriveInput, Token, Type, Variant, parse_macro_input, punctuated::Punctuated};

macro_rules! derive {
    ($(#[$doc:meta])* $function:ident, $name:ident, [$($attribute:ident)*], $expand:expr) => {
        $(#[$doc])*
        #[proc_macro_derive($name, attributes($($attribute),*))]
        pub fn $function(input: TokenStream) -> TokenStream {
            let input = parse_macro_input!(input as DeriveInput);
            let expand: fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream> = $expand;
            quiet::quiet(expand(&input).unwrap_or_else(|error| error.to_compile_error())).into()
        }
    };
}

derive!(
    /// A timer of a saga: a message from an instance to itself.
    ///
    /// `#[message(name = "ordering.PaymentOverdue")]`; without it the name is the type's. The name is stored with each
    /// timer that waits, so it must not change.
    message, Message, [message masked], message::timer
);
derive!(
    /// An event: something that happened, for everyone who subscribed.
    ///
    /// `#[masked]` at a field, here as at every message: operators see `•••` in its place.
    ///
    /// `#[event(from = "ordering")]` names it `ordering.TypeName`, `#[event(name = "..")]` anything.
    event, Event, [event masked], message::event
);
derive!(
    /// An answer and nothing else: it goes to the requester. It cannot be published or subscribed to.
    ///
    /// `#[reply(from = "payment")]` names it `payment.TypeName`, `#[reply(name = "..")]` anything. An answer that
    /// others may see as well derives `Event` instead.
    reply, Reply, [reply masked], message::reply
);
derive!(
    /// A command: an order to one endpoint.
    ///
    /// `#[command(to = "payment", outcome = PaymentOutcome)]`; its name is `payment.TypeName` unless `name = ".."` says
    /// otherwise. Without `outcome` no answer comes back.
    ///
    /// `gives_up = PaymentFailed`: when the handler's retries end, or it fails for good, the saga that sent the command
    /// gets this message instead of the command being held; `GiveUp` says how it is made.
    ///
    /// `priority = low`: it waits in a queue of its own, `payment.low`, from which a process takes an eighth of what it
    /// takes from the other.
    command, Command, [command masked], message::command
);
derive!(
    /// The possible outcomes of a command: an enum whose variants each hold one answer, a type that derives `Reply` or
    /// `Event`.
    ///
    /// It also derives `From<Answer>` for each variant, so a handler returns `Ok(PaymentCompleted { .. }.into())`.
    outcome, Outcome, [outcome], outcome::expand
);
derive!(
    #[doc = include_str!("then.md")]
    then,
    Then,
    [starts],
    then::expand
);

/// The states of a saga: an enum with a variant for each.
///
/// It writes a struct for each variant, with the variant's fields, and derives `Debug`, `Clone`, `PartialEq`,
/// `Serialize` and `Deserialize` for it. A variant may hold a struct of your own instead:
/// `AwaitingPayment(AwaitingPayment)`.
/// The transitions follow in a [`#[saga]`](macro@saga) block, which also says what `data`, `#[done]` and the other
/// attributes mean.
#[proc_macro_attribute]
pub fn states(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = states::expand(&arguments.into(), &item.into());
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}

#[doc = include_str!("saga.md")]
#[proc_macro_attribute]
pub fn saga(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = saga::block(&arguments.into(), item.into());
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}

#[doc = include_str!("handlers.md")]
#[proc_macro_attribute]
pub fn handlers(_: TokenStream, item: TokenStream) -> TokenStream {
    handlers::expand(item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// What the macro that [`states`] writes calls.
#[doc(hidden)]
#[proc_macro]
pub fn __saga(input: TokenStream) -> TokenStream {
    saga::both(input.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// The single unnamed field of a variant.
fn single_field(variant: &Variant) -> syn::Result<&Type> {
    match &variant.fields {
        syn::Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => Err(syn::Error::new_spanned(
            variant,
            format!("variant `{0}` must hold exactly one value: `{0}({0})`", variant.ident),
        )),
    }
}

/// The variants of an enum, or an error that says an enum is needed. `what` ends in its verb.
fn variants<'a>(input: &'a DeriveInput, what: &str) -> syn::Result<&'a Punctuated<Variant, Token![,]>> {
    match &input.data {
        syn::Data::Enum(data) if !data.variants.is_empty() => Ok(&data.variants),
        _ => Err(syn::Error::new_spanned(&input.ident, format!("{what} an enum with at least one variant"))),
    }
}

/// Refuses two variants that hold one type: each would get its own `From`, and rustc would report only the conflict
/// between them.
fn each_of_its_own(variants: &Punctuated<Variant, Token![,]>, rule: &str) -> syn::Result<()> {
    let mut seen: Vec<(&Type, &Variant)> = Vec::new();
    for variant in variants {
        let ty = single_field(variant)?;
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == ty) {
            let (name, other) = (&variant.ident, &other.ident);
            return Err(syn::Error::new_spanned(ty, format!("`{name}` and `{other}` hold the same type: {rule}")));
        }
        seen.push((ty, variant));
    }
    Ok(())
}

/// Refuses type parameters, lifetimes and constants.
fn without_parameters(input: &DeriveInput, what: &str, why: &str) -> syn::Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(syn::Error::new_spanned(&input.generics, format!("{what} has no parameters: {why}")))
}

/// All that is wrong, in one error: each mistake is told, not the first alone.
#[derive(Default)]
struct Faults(Option<syn::Error>);

impl Faults {
    fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(faults) => faults.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `value`, if nothing is wrong.
    fn or<T>(self, value: Option<T>) -> syn::Result<T> {
        match (self.0, value) {
            (None, Some(value)) => Ok(value),
            (Some(faults), _) => Err(faults),
            (None, None) => unreachable!("what is missing is a fault"),
        }
    }

    /// As tokens: none if nothing is wrong.
    fn told(&self) -> Option<proc_macro2::TokenStream> {
        self.0.as_ref().map(syn::Error::to_compile_error)
    }
}

/// A function `maker` that returns `value`, of type `made<arguments, F>`. `F` is a type parameter that has the name of
/// the user's function (or branch): errors about that one print it, without a path.
fn named_maker(
    maker: &syn::Ident,
    name: &syn::Ident,
    made: &proc_macro2::TokenStream,
    arguments: &proc_macro2::TokenStream,
    value: &proc_macro2::TokenStream,
) -> proc_macro2::TokenStream {
    let (alias, marker) = (quote::format_ident!("{maker}_of"), marker(name));
    quote::quote! {
        // outside of the function, where the parameter hides no type or module of its name
        #[allow(dead_code, non_camel_case_types)]
        type #alias<__F> = #made<#arguments, __F>;
        #[allow(dead_code, non_camel_case_types)]
        fn #maker<#marker>() -> #alias<#marker> { #value }
    }
}

/// For an editor, the name is the function's alone.
fn marker(name: &syn::Ident) -> syn::Ident {
    let mut marker = name.clone();
    marker.set_span(proc_macro2::Span::call_site());
    marker
}

/// A type as a person writes it.
fn text(ty: &Type) -> String {
    use quote::ToTokens;
    ty.to_token_stream().to_string().replace(' ', "")
}

/// A field's name as a number, for a const parameter: FNV-1a of 64 bits.
fn field_key(field: &syn::Ident) -> u64 {
    use syn::ext::IdentExt;
    field
        .unraw()
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Names travel as AMQP short strings (at most 255 bytes) and name exchanges and queues.
const NAME_BYTES_MAX: usize = 255;

/// Why a logical name is not valid.
fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("a name must not be empty".into())
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!("a name has at most {NAME_BYTES_MAX} bytes; this one has {}", name.len()))
    } else if name.chars().any(char::is_control) {
        Some("a name has no control characters".into())
    } else {
        None
    }
}
