//! `Message`, `Event`, `Command`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, LitStr, Type};

#[derive(Default)]
struct Attributes {
    name: Option<LitStr>,
    namespace: Option<LitStr>,
    outcome: Option<Type>,
}

/// Reads `#[attribute(name = "..", <namespace> = "..", outcome = Type)]`.
fn attributes(input: &DeriveInput, attribute: &str, namespace: &str) -> syn::Result<Attributes> {
    let mut found = Attributes::default();
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident(attribute)) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                found.name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident(namespace) {
                found.namespace = Some(meta.value()?.parse()?);
            } else if attribute == "command" && meta.path.is_ident("outcome") {
                found.outcome = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error(match attribute {
                    "command" => "known here: `to = \"endpoint\"`, `outcome = Type`, `name = \"..\"`",
                    "event" => "known here: `from = \"service\"`, `name = \"..\"`",
                    _ => "known here: `name = \"..\"`",
                }));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn message(input: &DeriveInput, found: &Attributes, kind: &str) -> TokenStream {
    let ident = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let name = match (&found.name, &found.namespace) {
        (Some(name), _) => name.value(),
        (None, Some(namespace)) => format!("{}.{ident}", namespace.value()),
        (None, None) => ident.to_string(),
    };
    let kind = format_ident!("{kind}");
    let outcome = found.outcome.as_ref().map_or_else(|| quote!(()), |outcome| quote!(#outcome));
    quote! {
        impl #impl_generics ::saga_core::Message for #ident #type_generics #where_clause {
            const TYPE: &'static str = #name;
            const KIND: ::saga_core::MessageKind = ::saga_core::MessageKind::#kind;
            type Outcome = #outcome;
        }
    }
}

pub(crate) fn timer(input: &DeriveInput) -> syn::Result<TokenStream> {
    Ok(message(input, &attributes(input, "message", "")?, "Timer"))
}

pub(crate) fn event(input: &DeriveInput) -> syn::Result<TokenStream> {
    let message = message(input, &attributes(input, "event", "from")?, "Event");
    let ident = &input.ident;
    Ok(quote! { #message impl ::saga_core::Event for #ident {} })
}

pub(crate) fn command(input: &DeriveInput) -> syn::Result<TokenStream> {
    let found = attributes(input, "command", "to")?;
    let ident = &input.ident;
    let Some(to) = &found.namespace else {
        return Err(syn::Error::new_spanned(
            ident,
            "a command says which endpoint handles it: `#[command(to = \"endpoint\")]`",
        ));
    };
    let message = message(input, &found, "Command");
    Ok(quote! { #message impl ::saga_core::Command for #ident { const TO: &'static str = #to; } })
}
