//! What stands in for a saga whose attributes are wrong.
//!
//! Without it each `impl On` of the user would add its own errors, "`Order` is not a saga", to the one that matters.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, DeriveInput, Fields, Token, Type,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

pub(super) fn of(input: &DeriveInput) -> TokenStream {
    let syn::Data::Enum(data) = &input.data else { return TokenStream::new() };
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let saga = &input.ident;
    let mut states: Vec<(&Type, Vec<Type>)> = Vec::new();
    for variant in &data.variants {
        let Fields::Unnamed(fields) = &variant.fields else { continue };
        let Some(ty) = fields.unnamed.first().map(|field| &field.ty) else { continue };
        match states.iter_mut().find(|(known, _)| *known == ty) {
            Some((_, taken)) => add(taken, &variant.attrs),
            None => {
                let mut taken = Vec::new();
                add(&mut taken, &variant.attrs);
                states.push((ty, taken));
            }
        }
    }
    let mut anywhere = Vec::new();
    add(&mut anywhere, &input.attrs);
    let states = states.into_iter().map(|(ty, mut taken)| {
        extend(&mut taken, anywhere.iter().cloned());
        state(saga, ty, &taken)
    });
    quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(#states)*
            #(impl __sagabus::Accepts<#anywhere> for #saga { type Saga = Self; })*
            impl __sagabus::Saga for #saga {
                const NAME: &'static str = "";
                const VERSION: u32 = 1;
                type Id = ::std::string::String;
                type In = ();
                fn __read(_: &str, _: &[u8]) -> ::std::result::Result<(), __sagabus::ReadError> {
                    ::std::unreachable!()
                }
                fn __id(_: &()) -> ::std::option::Option<Self::Id> { ::std::unreachable!() }
                fn __start(
                    _: (),
                    _: &__sagabus::Moment,
                    _: &mut __sagabus::Emits,
                ) -> ::std::result::Result<Self, ()> { ::std::unreachable!() }
                fn __step(
                    self,
                    _: (),
                    _: &__sagabus::Moment,
                    _: &mut __sagabus::Emits,
                ) -> ::std::result::Result<Self, (Self, ())> { ::std::unreachable!() }
                fn __load(_: &str, _: &str) -> ::std::result::Result<Self, __sagabus::ReadError> {
                    ::std::unreachable!()
                }
                fn state_name(&self) -> &'static str { ::std::unreachable!() }
                fn __store(&self) -> ::std::string::String { ::std::unreachable!() }
                fn chart() -> __sagabus::Chart { ::std::unreachable!() }
            }
        };
    }
}

fn state(saga: &syn::Ident, ty: &Type, taken: &[Type]) -> TokenStream {
    quote! {
        impl __sagabus::State for #ty {
            type Saga = #saga;
            const NAME: &'static str = "";
            const DONE: bool = false;
        }
        impl ::std::convert::From<#ty> for #saga { fn from(_: #ty) -> Self { ::std::unreachable!() } }
        impl __sagabus::Then for #ty {
            type Saga = #saga;
            fn apply(self, _: &mut __sagabus::Emits) -> #saga { ::std::unreachable!() }
            fn edges(
                _: &'static str,
                _: &'static str,
                _: &'static str,
                _: &mut ::std::vec::Vec<__sagabus::ChartEdge>,
            ) {}
        }
        #(impl __sagabus::Accepts<#taken> for #ty { type Saga = #saga; })*
    }
}

/// What `on` and `timer` list, as far as it can be read.
fn add(taken: &mut Vec<Type>, attrs: &[Attribute]) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("on") || attr.path().is_ident("timer")) {
        let list = attr.parse_args_with(Punctuated::<Roughly, Token![,]>::parse_terminated);
        extend(taken, list.into_iter().flatten().map(|Roughly(ty)| ty));
    }
}

fn extend(taken: &mut Vec<Type>, more: impl Iterator<Item = Type>) {
    for ty in more {
        if !taken.contains(&ty) {
            taken.push(ty);
        }
    }
}

/// A message, whatever comes after it.
struct Roughly(Type);

impl Parse for Roughly {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let ty = input.parse()?;
        while !input.is_empty() && !input.peek(Token![,]) {
            input.parse::<proc_macro2::TokenTree>()?;
        }
        Ok(Self(ty))
    }
}
