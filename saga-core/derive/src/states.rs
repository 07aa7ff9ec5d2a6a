//! `#[states]`: the enum of a saga's states, with a struct for each variant.

mod structs;

use crate::{
    Faults, attributes,
    field::{self, Path},
    masked, saga, text, variants, without_parameters,
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use structs::{implement, structure};
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
    masked: Vec<Masked>,
    found_by: Vec<Path>,
}

/// A field of the data that operators do not see: by its name in Rust, which is checked, or by that in JSON.
#[derive(Clone)]
enum Masked {
    Field(Ident),
    Json(LitStr),
}

impl Parse for Masked {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) { input.parse().map(Self::Json) } else { input.parse().map(Self::Field) }
    }
}

impl Masked {
    fn field(&self) -> Option<&Ident> {
        match self {
            Self::Field(field) => Some(field),
            Self::Json(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Field(field) => field.unraw().to_string(),
            Self::Json(name) => name.value(),
        }
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut found = Self { data: None, masked: Vec::new(), found_by: Vec::new() };
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if key == "data" && found.data.is_none() {
                input.parse::<Token![=]>()?;
                found.data = Some(input.parse()?);
            } else if key == "masked" && found.data.is_some() {
                let names;
                syn::parenthesized!(names in input);
                found.masked.extend(Punctuated::<Masked, Token![,]>::parse_terminated(&names)?);
            } else if key == "fields" && found.data.is_some() {
                let names;
                syn::parenthesized!(names in input);
                found.found_by.extend(names.parse_terminated(Path::parse_separated_nonempty, Token![,])?);
            } else {
                let known = "known here: `data = Type`, what every state knows, and after it `masked(field, ..)` and \
                             `fields(field, ..)`";
                return Err(syn::Error::new_spanned(key, known));
            }
            input.parse::<Option<Token![,]>>()?;
        }
        Ok(found)
    }
}

/// The states as they were written.
pub(crate) struct States {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) data: Option<Type>,
    masked: Vec<Masked>,
    /// Fields of the data by which operators find instances.
    pub(crate) found_by: Vec<Path>,
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
    /// Fields of its own and of the data that operators do not see, by their names in JSON.
    pub(crate) masked: Vec<String>,
    /// Fields of its own by which operators find instances.
    pub(crate) found_by: Vec<Path>,
}

const OURS: [&str; 7] = ["done", "legacy", "waits", "was", "ignores", "defers", "rejects"];

impl States {
    /// The states, as far as they can be read, with what is wrong with them.
    ///
    /// # Errors
    /// When there is nothing to go on with.
    pub(crate) fn of(
        arguments: syn::Result<Arguments>,
        input: &DeriveInput,
    ) -> syn::Result<(Self, Option<syn::Error>)> {
        without_parameters(input, "a saga", "its instances are stored under one name")?;
        let mut faults = Faults::default();
        for attr in &input.attrs {
            if let Some(name) = OURS.iter().find(|name| attr.path().is_ident(name)) {
                let fault = format!("`#[{name}]` belongs to a state, not to the enum");
                faults.add(syn::Error::new_spanned(attr, fault));
            }
        }
        let mut states: Vec<State> = Vec::new();
        for variant in variants(input, "the states of a saga are")? {
            let state = State::of(variant, &input.attrs, &mut faults);
            match states.iter().find(|other| other.ty == state.ty) {
                Some(other) => {
                    let fault = format!(
                        "`{}` and `{}` hold the same type: each state needs a struct of its own",
                        state.ident, other.ident
                    );
                    faults.add(syn::Error::new_spanned(&state.ty, fault));
                }
                None => states.push(state),
            }
        }
        former_names(&states, &mut faults);
        let data = arguments.unwrap_or_else(|error| {
            faults.add(error);
            Arguments { data: None, masked: Vec::new(), found_by: Vec::new() }
        });
        let of_data: Vec<String> = data.masked.iter().map(Masked::name).collect();
        states.iter_mut().for_each(|state| state.masked.extend_from_slice(&of_data));
        let Arguments { data, masked, found_by } = data;
        // a name is masked in all states: an operator sees the rows of each
        let hidden: Vec<String> = states.iter().flat_map(|state| state.masked.iter().cloned()).collect();
        let of_states = states.iter().flat_map(|state| field::faults(&found_by, &state.found_by, &hidden));
        let all = field::faults(&[], &found_by, &hidden).into_iter().chain(of_states);
        all.for_each(|fault| faults.add(fault));
        let (ident, visibility) = (input.ident.clone(), input.vis.clone());
        Ok((Self { ident, visibility, data, masked, found_by, states }, faults.0))
    }

    /// Whether a field of the data is masked, in whatever case JSON has its name.
    pub(crate) fn masks(&self, field: &Ident) -> bool {
        self.masked.iter().any(|masked| masked::is_same(&masked.name(), field))
    }

    /// What is to be said of a type that is none of the states.
    pub(crate) fn unknown(&self, ty: &Type) -> String {
        let names: Vec<_> = self.states.iter().map(|state| format!("`{}`", text(&state.ty))).collect();
        format!("`{}` is not a state of `{}`; its states are {}", text(ty), self.ident, names.join(", "))
    }
}

/// A name that a state once had means this state alone: else what is stored would be read as one state and judged as
/// another.
fn former_names(states: &[State], faults: &mut Faults) {
    for (n, state) in states.iter().enumerate() {
        for (place, was) in state.was.iter().enumerate() {
            let name = was.value();
            let before = states[..n].iter().flat_map(|other| &other.was).chain(&state.was[..place]);
            let fault = if states.iter().any(|other| other.ident.unraw() == name) {
                format!("`{name}` is a state of its own: instances that are stored as `{name}` are in that one")
            } else if before.map(LitStr::value).any(|other| other == name) {
                format!("`#[was(\"{name}\")]` stands twice: instances that are stored as `{name}` are in one state")
            } else {
                continue;
            };
            faults.add(syn::Error::new_spanned(was, fault));
        }
    }
}

impl State {
    fn of(variant: &Variant, of_enum: &[Attribute], faults: &mut Faults) -> Self {
        let ident = variant.ident.clone();
        let (ty, written) = match &variant.fields {
            Fields::Unit | Fields::Named(_) => (syn::parse_quote!(#ident), true),
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => (fields.unnamed[0].ty.clone(), false),
            Fields::Unnamed(_) => {
                let fault =
                    format!("name the fields, `{ident} {{ .. }}`, or hold one struct of your own: `{ident}(..)`");
                faults.add(syn::Error::new_spanned(variant, fault));
                (syn::parse_quote!(#ident), true)
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
            masked: Vec::new(),
            found_by: Vec::new(),
        };
        state.found_by = faults.keep(field::marked(&variant.fields)).unwrap_or_default();
        match masked::names(&variant.attrs, &variant.fields) {
            Ok(names) => state.masked = names,
            Err(error) => faults.add(error),
        }
        // a derive of the user's has attributes of its own
        let derived =
            (if written { &variant.attrs } else { of_enum }).iter().any(|attr| attr.path().is_ident("derive"));
        for attr in &variant.attrs {
            faults.keep(state.read(attr, derived));
        }
        state
    }

    fn read(&mut self, attr: &Attribute, derived: bool) -> syn::Result<()> {
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
                attributes::no_cfg(attr, PLACE)?;
                if !derived {
                    attributes::known(attr, PLACE, KNOWN)?;
                }
                self.attributes.push(attr.clone());
                Ok(())
            }
        }
    }
}

const PLACE: &str = "at a state";
const KNOWN: &str = "`#[done]`, `#[waits]`, `#[ignores(..)]`, `#[defers(..)]`, `#[rejects(..)]`, `#[was(\"..\")]`, \
                     `#[legacy]`";

fn flag(flag: &mut bool, attr: &Attribute) -> syn::Result<()> {
    *flag = true;
    match &attr.meta {
        syn::Meta::Path(_) => Ok(()),
        meta => {
            let name = meta.path().get_ident().map(Ident::to_string).unwrap_or_default();
            Err(syn::Error::new_spanned(meta, format!("`#[{name}]` stands alone")))
        }
    }
}

fn list<T: Parse>(list: &mut Vec<T>, attr: &Attribute) -> syn::Result<()> {
    list.extend(attr.parse_args_with(Punctuated::<T, Token![,]>::parse_terminated)?);
    Ok(())
}

/// The macro that hands the enum over to the `#[saga]` block. When the enum is missing, rustc prints its name, and no
/// more: the block goes through the macro too, else each of its states would be an error of its own.
pub(crate) fn handover(saga: &Ident) -> Ident {
    format_ident!("{}_has_its_states_above_its_saga_block", saga.unraw())
}

pub(crate) fn expand(arguments: &TokenStream, item: &TokenStream) -> syn::Result<TokenStream> {
    let Ok(input) = syn::parse2::<DeriveInput>(item.clone()) else {
        let first = item.clone().into_iter().find(|token| token.to_string() != "#");
        return Err(syn::Error::new_spanned(first, "`#[states]` stands at an enum; its `impl` has `#[saga(..)]`"));
    };
    let (states, fault) = match States::of(syn::parse2(arguments.clone()), &input) {
        Ok(read) => read,
        Err(error) => return Ok(nothing(&error, &input)),
    };
    let (saga, visibility) = (&states.ident, &states.visibility);
    let attributes = &input.attrs;
    let allowed: Vec<_> = attributes.iter().filter(|attr| attr.path().is_ident("allow")).collect();
    let structs = states.states.iter().filter(|state| state.written).map(|state| structure(&states, &allowed, state));
    let variants = states.states.iter().map(|State { ident, ty, written, attributes, .. }| {
        let attributes = attributes.iter().filter(|attr| !written || attr.path().is_ident("doc"));
        quote!(#(#attributes)* #ident(#ty))
    });
    let impls = states.states.iter().map(|state| implement(saga, state));
    // rustc finds a name that is none of the data's
    let masked: Vec<_> = states.masked.iter().filter_map(Masked::field).collect();
    let masked = states
        .data
        .as_ref()
        .filter(|_| !masked.is_empty())
        .map(|data| quote!(#[allow(dead_code)] fn __masked(data: &#data) { #(let _ = &data.#masked;)* }));
    let handover = handover(saga);
    // states that are wrong are a saga all the same, so that its uses add no errors to the one that matters
    let fallback = fault.as_ref().map(|error| {
        let (error, fallback) = (error.to_compile_error(), saga::fallback(&states));
        quote!(#error #fallback)
    });
    let both = fault.is_none().then(|| quote!(::sagabus::__private::__saga! { { #arguments } { #item } $($rest)* }));
    let attributes = attributes.iter().filter(|attr| !OURS.iter().any(|name| attr.path().is_ident(name)));
    Ok(quote! {
        #(#attributes)*
        #visibility enum #saga { #(#variants),* }
        #(#structs)*
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(#impls)*
            #masked
        };
        #[doc(hidden)]
        #[allow(unused_macros, non_snake_case)]
        macro_rules! #handover {
            ({ $($block:tt)* } $($rest:tt)*) => { $($block)* #both };
        }
        #fallback
    })
}

/// Each state as the whole result of a transition. The `#[saga]` block writes it: where that is missing, the bound of
/// one trait says so, not of two.
pub(crate) fn thens(states: &States) -> TokenStream {
    let saga = &states.ident;
    let each = states.states.iter().map(|State { ident, ty, .. }| {
        quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl __sagabus::Then for #ty {
                type Saga = #saga;
                type Needs = ();
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
    });
    quote!(#(#each)*)
}

/// What stands in for states of which there are none.
fn nothing(error: &syn::Error, input: &DeriveInput) -> TokenStream {
    let (error, handover) = (error.to_compile_error(), handover(&input.ident));
    let (saga, visibility) = (&input.ident, &input.vis);
    let states = States {
        ident: saga.clone(),
        visibility: visibility.clone(),
        data: None,
        masked: Vec::new(),
        found_by: Vec::new(),
        states: Vec::new(),
    };
    let fallback = saga::fallback(&states);
    quote! {
        #error
        #visibility enum #saga {}
        #fallback
        #[doc(hidden)]
        #[allow(unused_macros, non_snake_case)]
        macro_rules! #handover { ($($block:tt)*) => {}; }
    }
}
