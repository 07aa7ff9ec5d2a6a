//! Lifetimes in the signature of a handler: they may have names, as long as any caller can give them.

use super::last_ident;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{FnArg, GenericArgument, GenericParam, Generics, Lifetime, PathArguments, Signature, Type, WherePredicate};

/// A function's parameters that are no lifetimes: the block's `impl` has them too.
pub(super) fn without(generics: &Generics) -> Generics {
    let mut others = generics.clone();
    others.params = others.params.into_iter().filter(|it| !matches!(it, GenericParam::Lifetime(_))).collect();
    match others.params.is_empty() && others.where_clause.is_none() {
        true => Generics::default(),
        false => others,
    }
}

/// What a handler is given lives as long as the call, each for itself, and the surroundings hold what lives longer. So
/// a lifetime that says more is one that no caller has; rustc would say so about our code.
///
/// # Errors
/// Where it is, and what it is.
pub(super) fn check(signature: &Signature, result: &Type, used: &str) -> Result<(), (TokenStream, String)> {
    let own = |it: &Lifetime| signature.generics.lifetimes().any(|own| own.lifetime == *it);
    let (mut of_references, mut held_ones, mut batch) = (Vec::new(), Vec::new(), false);
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                of_references.extend(receiver.reference.as_ref().and_then(|(_, it)| it.clone()));
            }
            FnArg::Typed(typed) => {
                let Type::Reference(reference) = &*typed.ty else { continue };
                of_references.extend(reference.lifetime.clone());
                held_ones.extend(held(&reference.elem));
                batch |= last_ident(&reference.elem).is_some_and(|it| it == "BatchContext");
            }
        }
    }
    let all: Vec<&Lifetime> = held_ones.iter().chain(&of_references).collect();
    let is_static = all.iter().find(|it| it.ident == "static").copied();
    let twice = held_ones.iter().find(|it| own(it) && all.iter().filter(|other| other == &it).count() > 1);
    let wrong = is_static.or(twice).cloned().or_else(|| bounded(&signature.generics));
    let Some(wrong) = wrong.or_else(|| named(result.to_token_stream()).into_iter().find(own)) else {
        return Ok(());
    };
    let context = if batch { "BatchContext" } else { "Context" };
    let fault = format!(
        "no caller can give it `{wrong}`: what a handler takes lives as long as the call, each for itself. Leave the \
         lifetimes out: `&self`, and `cx: &mut {context}<'_, {used}>`"
    );
    Err((wrong.to_token_stream(), fault))
}

/// The lifetime that a type has first.
fn held(ty: &Type) -> Option<Lifetime> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Lifetime(lifetime) => Some(lifetime.clone()),
        _ => None,
    }
}

/// A lifetime that must outlive another.
fn bounded(generics: &Generics) -> Option<Lifetime> {
    let in_parameters = generics.lifetimes().find(|it| !it.bounds.is_empty()).map(|it| it.lifetime.clone());
    let mut predicates = generics.where_clause.iter().flat_map(|condition| &condition.predicates);
    in_parameters.or_else(|| {
        predicates.find_map(|predicate| match predicate {
            WherePredicate::Lifetime(it) => Some(it.lifetime.clone()),
            _ => None,
        })
    })
}

/// All lifetimes in there.
fn named(tokens: TokenStream) -> Vec<Lifetime> {
    let (mut all, mut apostrophe) = (Vec::new(), None);
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '\'' => apostrophe = Some(punct.span()),
            TokenTree::Ident(ident) => all.extend(apostrophe.take().map(|apostrophe| Lifetime { apostrophe, ident })),
            TokenTree::Group(group) => all.extend(named(group.stream())),
            _ => {}
        }
    }
    all
}
