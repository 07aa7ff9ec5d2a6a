//! `Outcome`.

use crate::{single_field, variants};
use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let ident = &input.ident;
    let mut reply_only = false;
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident("outcome")) {
        attr.parse_nested_meta(|meta| {
            reply_only = meta.path.is_ident("reply");
            if reply_only { Ok(()) } else { Err(meta.error("known here: `reply`")) }
        })?;
    }
    let mut names = Vec::new();
    let mut messages = Vec::new();
    for variant in variants(input, "an outcome")? {
        names.push(&variant.ident);
        messages.push(single_field(variant)?);
    }
    Ok(quote! {
        impl ::saga_core::Outcome for #ident {
            type Messages = (#(#messages,)*);
            const REPLY_ONLY: bool = #reply_only;
            fn types() -> ::std::vec::Vec<&'static str> {
                ::std::vec![#(<#messages as ::saga_core::Message>::TYPE),*]
            }
            fn encode(self) -> ::std::option::Option<::saga_core::Encoded> {
                fn event<E: ::saga_core::Event>(event: &E) -> ::saga_core::Encoded { ::saga_core::Encoded::of(event) }
                ::std::option::Option::Some(match &self { #(Self::#names(message) => event::<#messages>(message)),* })
            }
        }
        #(impl ::std::convert::From<#messages> for #ident { fn from(message: #messages) -> Self { Self::#names(message) } })*
    })
}
