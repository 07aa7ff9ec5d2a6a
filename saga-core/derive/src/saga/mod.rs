//! `#[saga]`: a block of functions, each a transition.
//!
//! The attribute leaves the block as it is and hands its signatures to the macro that `#[states]` wrote beside the enum;
//! that one calls `__saga!`, which sees both.

mod check;
mod emit;
mod fallback;
mod function;
mod parse;

use crate::states::{States, handover};
use emit::Emit;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, ImplItem, ItemImpl};

/// `#[saga(..)]` on the block.
pub(crate) fn block(arguments: &TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut block: ItemImpl = syn::parse2(item)?;
    let syn::Type::Path(path) = &*block.self_ty else {
        return Err(syn::Error::new_spanned(&block.self_ty, "`#[saga]` stands at `impl YourEnum`"));
    };
    let Some(saga) = path.path.get_ident().cloned() else {
        let fault = "`#[saga]` stands at `impl YourEnum`, without a path and without parameters";
        return Err(syn::Error::new_spanned(path, fault));
    };
    if let Some((_, name, _)) = &block.trait_ {
        return Err(syn::Error::new_spanned(name, "`#[saga]` stands at a plain `impl YourEnum`, not at a trait's"));
    }
    let signatures = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => {
            let (attributes, signature) = (function.attrs.iter().filter(|attr| is_ours(attr)), &function.sig);
            Some(quote!(#(#attributes)* #signature;))
        }
        _ => None,
    });
    let (handover, signatures) = (handover(&saga), signatures.collect::<TokenStream>());
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attr| !is_ours(attr));
        }
    }
    Ok(quote! {
        #[allow(clippy::needless_pass_by_value, clippy::needless_pass_by_ref_mut, clippy::unnecessary_wraps)]
        #block
        #handover! { { #arguments } { #signatures } }
    })
}

fn is_ours(attr: &Attribute) -> bool {
    ["on", "starts"].iter().any(|name| attr.path().is_ident(name))
}

/// `__saga! { {arguments of states} {the enum} {arguments of saga} {signatures} }`.
pub(crate) fn both(input: TokenStream) -> syn::Result<TokenStream> {
    let parse::Both { states, item, arguments, functions } = syn::parse2(input)?;
    let states = States::of(states, &item)?;
    let expanded = parse::Definition::of(&states, arguments, functions).and_then(|definition| {
        let messages = check::messages(&definition)?;
        Ok(Emit { definition: &definition, messages: &messages }.all())
    });
    Ok(expanded.unwrap_or_else(|error| {
        let (error, fallback) = (error.to_compile_error(), fallback::of(&states));
        quote!(#error #fallback)
    }))
}
