//! `#[states]`: the enum of a saga's states, with a struct for each variant.

use crate::{without_parameters, variants};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Attribute, DeriveInput, Fields, Ident, LitStr, Token, Type, Variant, Visibility,
    ext::IdentExt,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

/// `#[states(data = Order)]`.
#[derive(Clone)]
pub(crate) struct Arguments {
    pub(crate) data: Option<Type>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.is_empty() {
            return Ok(Self { data: None });
        }
        let key: Ident = input.parse()?;
        if key != "data" {
            return Err(syn::Error::new_spanned(key, "known here: `data = Type`, what every state knows"));
        }
        input.parse::<Token![=]>()?;
        let data = Some(input.parse()?);
        input.parse::<Option<Token![,]>>()?;
        Ok(Self { data })
    }
}

/// The states as they were written.
pub(crate) struct States {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) data: Option<Type>,
    pub(crate) states: Vec<State>,
}

/// One variant.
pub(crate) struct State {
    pub(crate) ident: Ident,
    /// The struct that it holds.
    pub(crate) ty: Type,
    /// Whether that struct is written here, and not the user's own.
    written: bool,
    fields: Fields,
    /// Attributes that are not ours.
    attributes: Vec<Attribute>,
    pub(crate) done: bool,
    pub(crate) legacy: bool,
    pub(crate) waits: bool,
    pub(crate) was: Vec<LitStr>,
    pub(crate) ignores: Vec<Type>,
    pub(crate) defers: Vec<Type>,
    pub(crate) rejects: Vec<Type>,
}

const OURS: [&str; 7] = ["done", "legacy", "waits", "was", "ignores", "defers", "rejects"];

impl States {
    pub(crate) fn of(arguments: Arguments, input: &DeriveInput) -> syn::Result<Self> {
        without_parameters(input, "a saga", "its instances are stored under one name")?;
        for attr in &input.attrs {
            if let Some(name) = OURS.iter().find(|name| attr.path().is_ident(name)) {
                let fault = format!("`#[{name}]` belongs to a state, not to the enum");
                return Err(syn::Error::new_spanned(attr, fault));
            }
        }
        let states = variants(input, "the states of a saga")?.iter().map(State::of).collect::<syn::Result<Vec<_>>>()?;
        for (n, state) in states.iter().enumerate() {
            if let Some(other) = states[..n].iter().find(|other| other.ty == state.ty) {
                let fault = format!(
                    "`{}` and `{}` hold the same type: each state needs a struct of its own",
                    state.ident, other.ident
                );
                return Err(syn::Error::new_spanned(&state.ty, fault));
            }
        }
        let (ident, visibility) = (input.ident.clone(), input.vis.clone());
        Ok(Self { ident, visibility, data: arguments.data, states })
    }
}

impl State {
    fn of(variant: &Variant) -> syn::Result<Self> {
        let ident = variant.ident.clone();
        let (ty, written) = match &variant.fields {
            Fields::Unit | Fields::Named(_) => (syn::parse_quote!(#ident), true),
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => (fields.unnamed[0].ty.clone(), false),
            Fields::Unnamed(_) => {
                let fault = format!("name the fields, `{ident} {{ .. }}`, or hold one struct of your own: `{ident}(..)`");
                return Err(syn::Error::new_spanned(variant, fault));
            }
        };
        let mut state = Self {
            ident,
            ty,
            written,
            fields: variant.fields.clone(),
            attributes: Vec::new(),
            done: false,
            legacy: false,
            waits: false,
            was: Vec::new(),
            ignores: Vec::new(),
            defers: Vec::new(),
            rejects: Vec::new(),
        };
        for attr in &variant.attrs {
            state.read(attr)?;
        }
        Ok(state)
    }

    fn read(&mut self, attr: &Attribute) -> syn::Result<()> {
        let name = attr.path().get_ident().map(Ident::to_string).unwrap_or_default();
        match name.as_str() {
            "done" => flag(&mut self.done, attr),
            "legacy" => flag(&mut self.legacy, attr),
            "waits" => flag(&mut self.waits, attr),
            "was" => list(&mut self.was, attr),
            "ignores" => list(&mut self.ignores, attr),
            "defers" => list(&mut self.defers, attr),
            "rejects" => list(&mut self.rejects, attr),
            "ignore" => {
                let fault = "`#[ignore]` is Rust's own attribute, for tests: write `#[ignores(..)]`";
                Err(syn::Error::new_spanned(attr, fault))
            }
            "on" | "timer" | "starts" => {
                let fault = "what a state takes is written as a function of the `#[saga]` block, not as an attribute";
                Err(syn::Error::new_spanned(attr, fault))
            }
            _ => {
                self.attributes.push(attr.clone());
                Ok(())
            }
        }
    }
}

fn flag(flag: &mut bool, attr: &Attribute) -> syn::Result<()> {
    attr.meta.require_path_only()?;
    *flag = true;
    Ok(())
}

fn list<T: Parse>(list: &mut Vec<T>, attr: &Attribute) -> syn::Result<()> {
    list.extend(attr.parse_args_with(Punctuated::<T, Token![,]>::parse_terminated)?);
    Ok(())
}

/// The macro that hands the enum over to the `#[saga]` block. When the enum is missing, rustc prints its name.
pub(crate) fn handover(saga: &Ident) -> Ident {
    format_ident!("{}_has_its_states_above_its_saga_block", saga.unraw())
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item.clone())?;
    let states = States::of(syn::parse2(arguments.clone())?, &input)?;
    let (saga, visibility) = (&states.ident, &states.visibility);
    let attributes = &input.attrs;
    let structs = states.states.iter().filter(|state| state.written).map(|state| structure(visibility, state));
    let variants = states.states.iter().map(|State { ident, ty, written, attributes, .. }| {
        let attributes = attributes.iter().filter(|attr| !written || attr.path().is_ident("doc"));
        quote!(#(#attributes)* #ident(#ty))
    });
    let impls = states.states.iter().map(|state| implement(saga, state));
    let handover = handover(saga);
    Ok(quote! {
        #(#attributes)*
        #visibility enum #saga { #(#variants),* }
        #(#structs)*
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(#impls)*
        };
        #[doc(hidden)]
        #[allow(unused_macros, non_snake_case)]
        macro_rules! #handover {
            ($($block:tt)*) => { ::sagabus::__private::__saga! { { #arguments } { #item } $($block)* } };
        }
    })
}

/// The struct of a state: its fields are as visible as the enum's would be.
fn structure(visibility: &Visibility, state: &State) -> TokenStream {
    let State { ident, fields, attributes, .. } = state;
    let body = match fields {
        Fields::Named(fields) => {
            let fields = fields.named.iter().map(|field| {
                let syn::Field { attrs, ident, ty, .. } = field;
                quote!(#(#attrs)* #visibility #ident: #ty)
            });
            quote!({ #(#fields),* })
        }
        _ => quote!(;),
    };
    let document = attributes.iter().all(|attr| !attr.path().is_ident("doc")).then(|| {
        let text = format!("The state `{ident}`.");
        quote!(#[doc = #text])
    });
    quote! {
        #document
        #(#attributes)*
        #[derive(
            ::std::fmt::Debug,
            ::std::clone::Clone,
            ::std::cmp::PartialEq,
            ::sagabus::__private::serde::Serialize,
            ::sagabus::__private::serde::Deserialize,
        )]
        #[serde(crate = "::sagabus::__private::serde")]
        #[allow(missing_docs)]
        #visibility struct #ident #body
    }
}

/// What each variant's struct is.
fn implement(saga: &Ident, state: &State) -> TokenStream {
    let State { ident, ty, done, .. } = state;
    let label = ident.unraw().to_string();
    quote! {
        #[automatically_derived]
        impl __sagabus::State for #ty {
            type Saga = #saga;
            const NAME: &'static str = #label;
            const DONE: bool = #done;
            #[allow(unreachable_patterns)] // of an enum with one state
            fn __of(saga: #saga) -> ::std::result::Result<Self, #saga> {
                match saga {
                    #saga::#ident(state) => ::std::result::Result::Ok(state),
                    other => ::std::result::Result::Err(other),
                }
            }
        }
        #[automatically_derived]
        impl ::std::convert::From<#ty> for #saga { fn from(state: #ty) -> Self { Self::#ident(state) } }
        #[automatically_derived]
        impl __sagabus::Then for #ty {
            type Saga = #saga;
            fn apply(self, _: &mut __sagabus::Emits) -> #saga { #saga::#ident(self) }
            fn edges(
                from: &'static str,
                on: &'static str,
                branch: &'static str,
                out: &mut ::std::vec::Vec<__sagabus::ChartEdge>,
            ) {
                __sagabus::bare_edge::<Self>(from, on, branch, out);
            }
        }
    }
}

/// What stands in for states that are wrong, with the error: the `#[saga]` block then adds none of its own.
pub(crate) fn fallback(error: &syn::Error, item: &TokenStream) -> TokenStream {
    let error = error.to_compile_error();
    let Ok(DeriveInput { ident, vis, .. }) = syn::parse2(item.clone()) else { return error };
    let handover = handover(&ident);
    quote! {
        #error
        #vis enum #ident {}
        #[doc(hidden)]
        #[allow(unused_macros, non_snake_case)]
        macro_rules! #handover { ($($block:tt)*) => {}; }
    }
}
