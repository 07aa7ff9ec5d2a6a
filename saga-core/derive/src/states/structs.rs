//! The structs of the states.

use super::{State, States};
use crate::masked;
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Attribute, Fields, Ident, ext::IdentExt};

/// The struct of a state, its fields as visible as the enum's would be.
pub(super) fn structure(States { visibility, .. }: &States, allowed: &[&Attribute], state: &State) -> TokenStream {
    let State { ident, fields, attributes, .. } = state;
    let body = match fields {
        Fields::Named(fields) => {
            let fields = fields.named.iter().map(|field| {
                let syn::Field { ident, ty, .. } = field;
                let attrs = masked::others(field);
                quote!(#(#attrs)* #visibility #ident: #ty)
            });
            quote!({ #(#fields),* })
        }
        // refused, but the other errors shall not be about it
        Fields::Unnamed(fields) => {
            let fields = fields.unnamed.iter().map(|field| &field.ty);
            quote!((#(#visibility #fields),*);)
        }
        Fields::Unit => quote!(;),
    };
    let document = attributes.iter().all(|attr| !attr.path().is_ident("doc")).then(|| {
        let text = format!("The state `{ident}`.");
        quote!(#[doc = #text])
    });
    // where the variant stands: that is what rustc shows when the module has another item of this name
    let place = Span::call_site().located_at(ident.span());
    let item = quote!(#visibility struct #ident #body).into_iter().map(|mut token| {
        token.set_span(token.span().located_at(place));
        token
    });
    let item = item.collect::<TokenStream>();
    quote! {
        #document
        #(#allowed)*
        #[derive(
            ::std::fmt::Debug,
            ::std::clone::Clone,
            ::std::cmp::PartialEq,
            ::sagabus::__private::serde::Serialize,
            ::sagabus::__private::serde::Deserialize,
        )]
        #[serde(crate = "::sagabus::__private::serde")]
        #(#attributes)*
        #[allow(missing_docs)]
        #item
    }
}

/// What each variant's struct is.
pub(super) fn implement(saga: &Ident, state: &State) -> TokenStream {
    let State { ident, ty, done, .. } = state;
    let label = ident.unraw().to_string();
    quote! {
        #[automatically_derived]
        impl __sagabus::State for #ty {
            type Saga = #saga;
            const NAME: &'static str = #label;
            const DONE: bool = #done;
        }
        #[automatically_derived]
        impl __sagabus::Within for #ty { type Saga = #saga; }
        #[automatically_derived]
        impl ::std::convert::From<#ty> for #saga { fn from(state: #ty) -> Self { Self::#ident(state) } }
    }
}
