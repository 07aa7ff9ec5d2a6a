//! `Then`.

use crate::{single_field, variants, without_parameters};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, GenericArgument, PathArguments, PathSegment, Type, ext::IdentExt, spanned::Spanned};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let branches = &input.ident;
    without_parameters(input, "the branches of a transition", "each variant names its state")?;
    let variants = variants(input, "the branches of a transition are")?;
    let names: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let thens = variants.iter().map(single_field).collect::<syn::Result<Vec<_>>>()?;
    let begins = input.attrs.iter().any(|attr| attr.path().is_ident("starts"));
    let saga = saga_of(thens[0], begins);
    let labels: Vec<_> = names.iter().map(|name| name.unraw().to_string()).collect();
    let constants: Vec<_> = (0..names.len()).map(|n| format_ident!("__BRANCH_{n}")).collect();
    // one constant for each branch, the one place that asks whether it is right
    let values = thens.iter().map(|ty| {
        let place = Span::call_site().located_at(ty.span());
        quote_spanned!(place=> __branch())
    });
    let (one, from, made, implementation) = if begins {
        let one = quote!(Begin);
        let made = quote!((T::Saga, <T::Saga as __sagabus::Saga>::Data));
        let implementation = quote! {
            fn begin(self, out: &mut __sagabus::Emits) -> (#saga, <#saga as __sagabus::Saga>::Data) {
                match self { #(Self::#names(begin) => (#constants.go)(begin, out)),* }
            }
            fn edges(on: &'static str, _: &'static str, out: &mut __Edges) {
                #((#constants.edges)(on, #labels, out);)*
            }
        };
        (one, quote!(), made, implementation)
    } else {
        let implementation = quote! {
            fn apply(self, out: &mut __sagabus::Emits) -> #saga {
                match self { #(Self::#names(then) => (#constants.go)(then, out)),* }
            }
            fn edges(from: &'static str, on: &'static str, _: &'static str, out: &mut __Edges) {
                #((#constants.edges)(from, on, #labels, out);)*
            }
        };
        (quote!(Then), quote!(&'static str,), quote!(T::Saga), implementation)
    };
    let go = if begins { quote!(begin) } else { quote!(apply) };
    let of_saga = if begins { quote!((#saga, <#saga as __sagabus::Saga>::Data)) } else { saga.clone() };
    Ok(quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            type __Edges = ::std::vec::Vec<__sagabus::ChartEdge>;
            struct __Branch<T, G> {
                go: fn(T, &mut __sagabus::Emits) -> G,
                edges: fn(#from &'static str, &'static str, &mut __Edges),
            }
            const fn __branch<T: __sagabus::#one>() -> __Branch<T, #made> {
                __Branch { go: T::#go, edges: T::edges }
            }
            #(const #constants: __Branch<#thens, #of_saga> = #values;)*
            #[automatically_derived]
            impl __sagabus::#one for #branches {
                type Saga = #saga;
                #implementation
            }
        };
    })
}

/// The saga of a branch, by its state: that a state lacks a function is no matter here.
fn saga_of(then: &Type, begins: bool) -> TokenStream {
    let part = |path: &syn::TypePath, name: &str| match path.path.segments.last() {
        Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(types), .. }) if ident == name => {
            types.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            })
        }
        _ => None,
    };
    let stay = |ty: &Type| match ty {
        Type::Path(path) => part(path, "Stay"),
        _ => None,
    };
    let state = match then {
        Type::Tuple(tuple) => tuple.elems.iter().nth(usize::from(begins)),
        _ => None,
    };
    match (then, state) {
        (_, Some(state)) => {
            stay(state).map_or_else(|| quote!(<#state as __sagabus::State>::Saga), |saga| quote!(#saga))
        }
        (Type::Path(path), None) => match (part(path, "Either"), stay(then)) {
            (Some(first), _) => saga_of(&first, begins),
            (_, Some(saga)) => quote!(#saga),
            _ if begins => quote!(<#then as __sagabus::Begin>::Saga),
            _ => quote!(<#then as __sagabus::Then>::Saga),
        },
        _ if begins => quote!(<#then as __sagabus::Begin>::Saga),
        _ => quote!(<#then as __sagabus::Then>::Saga),
    }
}
