//! `Then`.

use crate::{single_field, variants};
use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let ident = &input.ident;
    let mut names = Vec::new();
    let mut thens = Vec::new();
    for variant in variants(input, "the branches of a transition")? {
        names.push(&variant.ident);
        thens.push(single_field(variant)?);
    }
    let first = thens[0];
    let labels = names.iter().map(|name| name.to_string());
    Ok(quote! {
        impl ::saga_core::Then for #ident {
            type Saga = <#first as ::saga_core::Then>::Saga;
            fn apply(self, out: &mut ::saga_core::Emits) -> Self::Saga {
                match self { #(Self::#names(then) => ::saga_core::Then::apply(then, out)),* }
            }
            fn edges(from: &'static str, on: &'static str, _: &'static str, out: &mut ::std::vec::Vec<::saga_core::ChartEdge>) {
                #(<#thens as ::saga_core::Then>::edges(from, on, #labels, out);)*
            }
        }
    })
}
