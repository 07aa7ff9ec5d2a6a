//! `Saga`: the dispatch of messages to states, and the chart.
//!
//! The attributes are parsed as they stand (`parse`), checked as a whole and turned into a list of messages (`check`),
//! and written out (`emit`). When something is wrong, `fallback` stands in.

mod check;
mod emit;
mod fallback;
mod parse;

use proc_macro2::TokenStream;
use syn::DeriveInput;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let written = parse::Definition::of(input).and_then(|definition| {
        let messages = check::messages(&definition)?;
        Ok(emit::Emit { definition: &definition, messages: &messages }.all())
    });
    Ok(written.unwrap_or_else(|error| {
        let (error, fallback) = (error.to_compile_error(), fallback::of(input));
        quote::quote!(#error #fallback)
    }))
}
