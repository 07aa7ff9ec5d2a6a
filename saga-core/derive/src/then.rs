//! `Then`.

use crate::{named_maker, single_field, variants, without_parameters};
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
    let made: Vec<_> = (0..names.len()).map(|n| format_ident!("__branch_{n}")).collect();
    let (one, next, make) = match begins {
        true => (quote!(Begin), quote!((#saga, <#saga as __sagabus::Saga>::Data)), quote!(first_branch)),
        false => (quote!(Then), saga.clone(), quote!(branch)),
    };
    // one function for each branch, the one place that asks whether it is right
    let each = thens.iter().zip(&made).zip(&names).map(|((ty, made), name)| {
        let place = Span::call_site().located_at(ty.span());
        let value = quote_spanned!(place=> ::sagabus::__private::#make());
        named_maker(made, name, &quote!(__sagabus::Branch), &quote!(#ty, #next, #branches), &value)
    });
    let go = quote!(match self { #(Self::#names(branch) => (#made::<()>().go)(branch, out)),* });
    let implementation = if begins {
        quote! {
            fn begin(self, out: &mut __sagabus::Emits) -> #next { #go }
            fn edges(on: &'static str, _: &'static str, out: &mut ::std::vec::Vec<__sagabus::ChartEdge>) {
                #((#made::<()>().edges)("", on, #labels, out);)*
            }
        }
    } else {
        quote! {
            fn apply(self, out: &mut __sagabus::Emits) -> #next { #go }
            fn edges(
                from: &'static str,
                on: &'static str,
                _: &'static str,
                out: &mut ::std::vec::Vec<__sagabus::ChartEdge>,
            ) {
                #((#made::<()>().edges)(from, on, #labels, out);)*
            }
        }
    };
    Ok(quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(#each)*
            #[automatically_derived]
            impl __sagabus::#one for #branches {
                type Saga = #saga;
                type Needs = (); // each branch is asked by itself
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
