//! The aliases: fields of the data by which messages find their instance.

use super::Emit;
use crate::saga::{
    check::{Key, Message},
    parse::{AliasOf, Path},
    pieces::dotted,
};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

impl Emit<'_> {
    /// What messages name, and what the data has. Nothing where there are none: the trait says so.
    pub(super) fn alias(&self) -> TokenStream {
        let mut fields: Vec<&Path> = Vec::new();
        for AliasOf { field, .. } in &self.definition.aliases {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        if fields.is_empty() {
            return TokenStream::new();
        }
        let given = self.messages.iter().filter_map(|Message { ty, variant, key, .. }| {
            let Key::Alias(AliasOf { field, path, .. }) = key else { return None };
            let (name, of_data) = (dotted([field].into_iter()), of_data(field));
            let place = place(path);
            let value = quote_spanned!(place=> &message.#path);
            let data = quote!(&<Self as __sagabus::Saga>::Data);
            let named = quote_spanned!(place=> ::sagabus::__private::Named::of(#value, |data: #data| #of_data).text());
            Some(quote! {
                __SagaInput::#variant(message) => {
                    let message: &#ty = message;
                    ::std::option::Option::Some((#name, #named))
                }
            })
        });
        let names = fields.iter().map(|field| dotted([*field].into_iter())).collect::<Vec<_>>();
        let has = fields.iter().zip(&names).map(|(field, name)| {
            let (of_data, alias) = (of_data(field), quote_spanned!(place(field)=> ::sagabus::__private::alias::<_>));
            quote!((#name, #alias(#of_data)))
        });
        let timers = self.definition.aliases.iter().map(|AliasOf { message, .. }| {
            let fault = "a timer comes back to the instance that set it: it needs no alias";
            let kind = quote_spanned!(message.span()=> __sagabus::Of::<#message>::KIND);
            let is_timer = quote_spanned!(message.span()=> ::std::matches!(#kind, __sagabus::MessageKind::Timer));
            let assertion = quote_spanned!(message.span()=> ::sagabus::__private::refuse::<()>(#is_timer, #fault));
            quote!(const _: () = #assertion;)
        });
        let (given, has) = (given.collect::<Vec<_>>(), has.collect::<Vec<_>>());
        let rest = (given.len() < self.messages.len()).then(|| quote!(_ => ::std::option::Option::None));
        quote! {
            const __ALIASES: &'static [&'static str] = &[#(#names),*];
            fn __alias(
                message: &__SagaInput,
            ) -> ::std::option::Option<(&'static str, ::std::option::Option<::std::string::String>)> {
                #(#timers)*
                match message { #(#given,)* #rest }
            }
            fn __aliases(
                data: &<Self as __sagabus::Saga>::Data,
            ) -> ::std::vec::Vec<(&'static str, ::std::option::Option<::std::string::String>)> {
                ::std::vec![#(#has),*]
            }
        }
    }
}

/// Where a path stands, so that rustc points there.
pub(super) fn place(path: &Path) -> Span {
    Span::call_site().located_at(path.first().map_or_else(Span::call_site, syn::Ident::span))
}

fn of_data(field: &Path) -> TokenStream {
    let place = place(field);
    quote_spanned!(place=> &data.#field)
}
