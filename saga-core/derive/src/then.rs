//! `Then`.

use crate::{single_field, variants, without_parameters};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, ext::IdentExt};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let branches = &input.ident;
    without_parameters(input, "the branches of a transition", "each variant names its state")?;
    let variants = variants(input, "the branches of a transition")?;
    let names: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let thens = variants.iter().map(single_field).collect::<syn::Result<Vec<_>>>()?;
    let first = thens[0];
    let labels = names.iter().map(|name| name.unraw().to_string());
    let chart_edge = quote!(::std::vec::Vec<__sagabus::ChartEdge>);
    let implementation = if input.attrs.iter().any(|attr| attr.path().is_ident("starts")) {
        quote! {
            impl __sagabus::Begin for #branches {
                type Saga = <#first as __sagabus::Begin>::Saga;
                fn begin(
                    self,
                    out: &mut __sagabus::Emits,
                ) -> (Self::Saga, <Self::Saga as __sagabus::Saga>::Data) {
                    match self { #(Self::#names(begin) => __sagabus::Begin::begin(begin, out)),* }
                }
                fn edges(on: &'static str, _: &'static str, out: &mut #chart_edge) {
                    #(<#thens as __sagabus::Begin>::edges(on, #labels, out);)*
                }
            }
        }
    } else {
        quote! {
            impl __sagabus::Then for #branches {
                type Saga = <#first as __sagabus::Then>::Saga;
                fn apply(self, out: &mut __sagabus::Emits) -> Self::Saga {
                    match self { #(Self::#names(then) => __sagabus::Then::apply(then, out)),* }
                }
                fn edges(from: &'static str, on: &'static str, _: &'static str, out: &mut #chart_edge) {
                    #(<#thens as __sagabus::Then>::edges(from, on, #labels, out);)*
                }
            }
        }
    };
    Ok(quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #[automatically_derived]
            #implementation
        };
    })
}
