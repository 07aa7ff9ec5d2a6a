//! Pieces of what `#[saga]` writes.

use super::parse::Path;
use crate::states::State;
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Ident, Type, ext::IdentExt, spanned::Spanned};

pub(super) fn chart_state(state: &State) -> TokenStream {
    let State { ident, done, legacy, waits, was, ignores, defers, rejects, masked, .. } = state;
    let label = ident.unraw().to_string();
    let names = |types: &[Type]| quote!(&[#(__sagabus::Of::<#types>::TYPE),*]);
    let (ignores, defers, rejects) = (names(ignores), names(defers), names(rejects));
    quote! {
        __sagabus::ChartState::new(#label)
            .done(#done).legacy(#legacy).waits(#waits).was(&[#(#was),*])
            .ignores(#ignores).defers(#defers).rejects(#rejects).masked(&[#(#masked),*])
    }
}

/// A part of the id at a path of fields.
pub(super) fn of_path(path: &Path, part: &Type) -> TokenStream {
    // it stands where the path does, so that rustc points there
    let place = Span::call_site().located_at(path.first().map_or_else(Span::call_site, Ident::span));
    let field = quote_spanned!(place=> &message.#path);
    let expected = quote_spanned!(part.span()=> &#part);
    quote!({
        let part: #expected = #field;
        ::std::clone::Clone::clone(part)
    })
}

/// Paths of fields, as a person writes them.
pub(super) fn dotted<'a, P: IntoIterator<Item = &'a Ident>>(paths: impl Iterator<Item = P>) -> String {
    let one = |path: P| path.into_iter().map(|field| field.unraw().to_string()).collect::<Vec<_>>().join(".");
    paths.map(one).collect::<Vec<_>>().join(", ")
}

/// A call of ours, without type arguments, that stands where the tokens do: rustc points at all of them.
pub(super) fn at(tokens: &TokenStream, function: &str) -> TokenStream {
    let first = tokens.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
    let last = tokens.clone().into_iter().last().map_or_else(Span::call_site, |token| token.span());
    let (function, path) = (Ident::new(function, last), quote_spanned!(first=> ::sagabus::__private::));
    quote_spanned!(last=> #path #function())
}
