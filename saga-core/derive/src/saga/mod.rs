//! `#[saga]`: a block of functions, each a transition.
//!
//! The attribute hands the block, as it is, and its signatures to the macro that `#[states]` wrote beside the enum;
//! that one calls `__saga!`, which sees both.

mod check;
mod emit;
mod fallback;
mod function;
mod parse;
mod pieces;
mod returned;

use crate::{
    Faults, attributes, block,
    quiet::quiet,
    states::{States, handover},
};
use emit::Emit;
pub(crate) use fallback::of as fallback;
use function::{Function, Of};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, ImplItem};

/// `#[saga(..)]` on the block.
pub(crate) fn block(arguments: &TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let Ok((mut block, bodies)) = block::parse(item.clone()) else {
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
    let mut faults = Faults::default();
    let is_plain = if let Some((_, name, _)) = &block.trait_ {
        faults.add(syn::Error::new_spanned(name, "`#[saga]` stands at a plain `impl YourEnum`, not at a trait's"));
        false
    } else if path.path.get_ident().is_none() {
        let fault = "`#[saga]` stands at `impl YourEnum`, without a path and without parameters";
        faults.add(syn::Error::new_spanned(path, fault));
        false
    } else {
        // here and not in `__saga!`: what is missing is missing between the parentheses of this attribute
        faults.keep(syn::parse2::<parse::SagaArguments>(arguments.clone()));
        true
    };
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attr| is_ours(attr) || faults.keep(attributes::known(attr, PLACE, KNOWN)).is_some());
        }
    }
    let signatures = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => {
            let (attributes, signature) = (function.attrs.iter().filter(|attr| is_ours(attr)), &function.sig);
            Some(quote!(#(#attributes)* #signature;))
        }
        _ => None,
    });
    let (handover, signatures) = (handover(&saga), signatures.collect::<TokenStream>());
    let given = is_plain.then(|| quote!({ #arguments } { #signatures }));
    let told = faults.told();
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            function.attrs.retain(|attr| !is_ours(attr));
        }
    }
    block::restore(&mut block, bodies);
    Ok(quote! {
        #told
        #handover! {
            {
                #[allow(
                    clippy::needless_pass_by_value,
                    clippy::needless_pass_by_ref_mut,
                    clippy::unnecessary_wraps
                )]
                #block
            }
            #given
        }
    })
}

const OURS: [&str; 3] = ["when", "on", "starts"];

fn is_ours(attr: &Attribute) -> bool {
    OURS.iter().any(|name| attr.path().is_ident(name))
}

const PLACE: &str = "at a transition";
const KNOWN: &str = "`#[when(..)]`, `#[on(anyone)]`, `#[starts(reject)]`, `#[starts(return)]`";

/// `__saga! { {arguments of states} {the enum} {arguments of saga} {signatures} }`, without the last two when the block
/// is not one of transitions.
pub(crate) fn both(input: TokenStream) -> syn::Result<TokenStream> {
    let parse::Both { states, item, block } = syn::parse2(input)?;
    let (states, _) = States::of(Ok(states), &item)?;
    let Some((arguments, functions)) = block else { return Ok(fallback::of(&states)) };
    let mut faults = Faults::default();
    let functions = functions.iter().map(|(attributes, signature)| Function::of(&states, attributes, signature));
    let functions: Vec<_> = functions.filter_map(|function| faults.keep(function)).flatten().collect();
    // what is missing may be in a function that could not be read
    if faults.is_empty() && functions.iter().all(|function| function.of != Of::Start) {
        let fault = "no function begins the saga: one takes a message alone, `fn placed(placed: OrderPlaced) -> ..`";
        faults.add(syn::Error::new_spanned(&states.ident, fault));
    }
    let all_read = faults.is_empty();
    check::each_once(&states, &functions, &mut faults);
    // `block` has told what is wrong with the arguments
    let definition = arguments.ok().filter(|_| all_read).map(|it| parse::Definition::new(&states, it, functions));
    let messages = definition.as_ref().map(|definition| check::messages(definition, &mut faults));
    Ok(match (&definition, &messages) {
        (Some(definition), Some(messages)) if faults.is_empty() => quiet(Emit { definition, messages }.all()),
        _ => {
            let (told, fallback) = (faults.told(), fallback::of(&states));
            quote!(#told #fallback)
        }
    })
}
