//! `#[saga]`: a block of functions, each a transition.
//!
//! The attribute leaves the block as it is and hands its signatures to the macro that `#[states]` wrote beside the
//! enum; that one calls `__saga!`, which sees both.

mod check;
mod emit;
mod fallback;
mod function;
mod parse;
mod pieces;

use crate::states::{States, handover};
use emit::Emit;
pub(crate) use fallback::of as fallback;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, ImplItem, ItemImpl};

/// `#[saga(..)]` on the block.
pub(crate) fn block(arguments: &TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let Ok(mut block) = syn::parse2::<ItemImpl>(item.clone()) else {
        let first = item.into_iter().find(|token| token.to_string() != "#");
        let fault = "`#[saga(..)]` stands at the `impl` of an enum; the enum has `#[states]`";
        return Err(syn::Error::new_spanned(first, fault));
    };
    let syn::Type::Path(path) = &*block.self_ty else {
        return Err(syn::Error::new_spanned(&block.self_ty, "`#[saga]` stands at `impl YourEnum`"));
    };
    let Some(saga) = path.path.segments.last().map(|segment| segment.ident.clone()) else {
        return Err(syn::Error::new_spanned(path, "`#[saga]` stands at `impl YourEnum`"));
    };
    let fault = if let Some((_, name, _)) = &block.trait_ {
        Some(syn::Error::new_spanned(name, "`#[saga]` stands at a plain `impl YourEnum`, not at a trait's"))
    } else if path.path.get_ident().is_none() {
        let fault = "`#[saga]` stands at `impl YourEnum`, without a path and without parameters";
        Some(syn::Error::new_spanned(path, fault))
    } else {
        // here and not in `__saga!`: what is missing is missing between the parentheses of this attribute
        syn::parse2::<parse::SagaArguments>(arguments.clone()).err()
    };
    let signatures = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => {
            let (attributes, signature) = (function.attrs.iter().filter(|attr| is_ours(attr)), &function.sig);
            Some(quote!(#(#attributes)* #signature;))
        }
        _ => None,
    });
    let (handover, signatures) = (handover(&saga), signatures.collect::<TokenStream>());
    let (error, given) = match fault {
        Some(error) => (error.to_compile_error(), TokenStream::new()),
        None => (TokenStream::new(), quote!({ #arguments } { #signatures })),
    };
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attr| !is_ours(attr));
        }
    }
    Ok(quote! {
        #[allow(clippy::needless_pass_by_value, clippy::needless_pass_by_ref_mut, clippy::unnecessary_wraps)]
        #block
        #error
        #handover! { #given }
    })
}

fn is_ours(attr: &Attribute) -> bool {
    ["on", "starts"].iter().any(|name| attr.path().is_ident(name))
}

/// `__saga! { {arguments of states} {the enum} {arguments of saga} {signatures} }`, without the last two when they are
/// wrong.
pub(crate) fn both(input: TokenStream) -> syn::Result<TokenStream> {
    let parse::Both { states, item, block } = syn::parse2(input)?;
    let (states, _) = States::of(Ok(states), &item)?;
    let Some((arguments, functions)) = block else { return Ok(fallback::of(&states)) };
    let expanded = parse::Definition::of(&states, arguments, functions).and_then(|definition| {
        let messages = check::messages(&definition)?;
        Ok(Emit { definition: &definition, messages: &messages }.all())
    });
    Ok(expanded.unwrap_or_else(|error| {
        let (error, fallback) = (error.to_compile_error(), fallback::of(&states));
        quote!(#error #fallback)
    }))
}
