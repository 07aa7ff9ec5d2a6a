//! `Saga`: the dispatch of messages to states, and the chart.

use crate::{single_field, variants};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    DeriveInput, Ident, LitStr, Token, Type, Visibility,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

mod keyword {
    syn::custom_keyword!(by);
    syn::custom_keyword!(echo);
}

/// `Message`, `Message by field.path`, or `Message by echo`.
struct Listed {
    message: Type,
    by: By,
}

enum By {
    IdField,
    Path(Punctuated<Ident, Token![.]>),
    Echo,
}

impl Parse for Listed {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let message = input.parse()?;
        if !input.peek(keyword::by) {
            return Ok(Self { message, by: By::IdField });
        }
        input.parse::<keyword::by>()?;
        if input.peek(keyword::echo) {
            input.parse::<keyword::echo>()?;
            return Ok(Self { message, by: By::Echo });
        }
        Ok(Self { message, by: By::Path(Punctuated::parse_separated_nonempty(input)?) })
    }
}

/// `#[saga(name = "..", id = field: Type, version = 2)]`.
struct SagaAttribute {
    name: LitStr,
    id: Ident,
    id_type: Type,
    version: Option<syn::LitInt>,
}

impl Parse for SagaAttribute {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let (mut name, mut id, mut version) = (None, None, None);
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "name" => name = Some(input.parse()?),
                "id" => {
                    let field: Ident = input.parse()?;
                    input.parse::<Token![:]>()?;
                    id = Some((field, input.parse()?));
                }
                "version" => version = Some(input.parse()?),
                _ => {
                    return Err(syn::Error::new_spanned(
                        key,
                        "known here: `name = \"..\"`, `id = field: Type`, `version = 1`",
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what: &str| input.error(format!("a saga needs {what}"));
        let (id, id_type) = id.ok_or_else(|| missing("its key: `id = order_id: Uuid`"))?;
        Ok(Self { name: name.ok_or_else(|| missing("`name = \"..\"`"))?, id, id_type, version })
    }
}

fn listed(attrs: &[syn::Attribute], name: &str) -> syn::Result<Vec<Listed>> {
    let mut all = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        all.extend(attr.parse_args_with(Punctuated::<Listed, Token![,]>::parse_terminated)?);
    }
    Ok(all)
}

fn types(attrs: &[syn::Attribute], name: &str) -> syn::Result<Vec<Type>> {
    Ok(listed(attrs, name)?.into_iter().map(|listed| listed.message).collect())
}

struct StateVariant<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    done: bool,
    accepts: Vec<Type>,
    ignore: Vec<Type>,
    defer: Vec<Type>,
    reject: Vec<Type>,
}

/// Every message of the saga once, with the way to its key.
struct Message {
    ty: Type,
    variant: Ident,
    key: Key,
    starts: bool,
}

enum Key {
    Body(TokenStream),
    Envelope,
}

fn key(listed: &Listed, id: &Ident) -> Key {
    match &listed.by {
        By::IdField => Key::Body(quote!(#id)),
        By::Path(path) => Key::Body(quote!(#path)),
        By::Echo => Key::Envelope,
    }
}

fn add(messages: &mut Vec<Message>, ty: &Type, key: Key, starts: bool) {
    match messages.iter_mut().find(|message| message.ty == *ty) {
        Some(known) => known.starts |= starts,
        None => {
            let variant = format_ident!("M{}", messages.len());
            messages.push(Message { ty: ty.clone(), variant, key, starts });
        }
    }
}

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let saga = &input.ident;
    let visibility: &Visibility = &input.vis;
    let attribute =
        input.attrs.iter().find(|attr| attr.path().is_ident("saga")).ok_or_else(|| {
            syn::Error::new_spanned(saga, "a saga needs `#[saga(name = \"..\", id = order_id: Uuid)]`")
        })?;
    let SagaAttribute { name, id, id_type, version } = attribute.parse_args()?;
    let version = version.map_or_else(|| quote!(1), |version| quote!(#version));

    let starts = listed(&input.attrs, "starts")?;
    if starts.is_empty() {
        return Err(syn::Error::new_spanned(saga, "a saga begins with a message: `#[starts(OrderPlaced)]`"));
    }
    let enum_on = listed(&input.attrs, "on")?;
    let enum_timers = types(&input.attrs, "timer")?;

    let mut messages = Vec::new();
    for listed in &starts {
        add(&mut messages, &listed.message, key(listed, &id), true);
    }
    let mut states = Vec::new();
    for variant in variants(input, "a saga")? {
        let on = listed(&variant.attrs, "on")?;
        let timers = types(&variant.attrs, "timer")?;
        for listed in &on {
            add(&mut messages, &listed.message, key(listed, &id), false);
        }
        for timer in &timers {
            add(&mut messages, timer, Key::Envelope, false);
        }
        let by_order = ["ignores", "defers", "rejects"].map(|name| listed(&variant.attrs, name));
        let [ignore, defer, reject] = by_order;
        let (ignore, defer, reject) = (ignore?, defer?, reject?);
        for listed in ignore.iter().chain(&defer).chain(&reject) {
            add(&mut messages, &listed.message, key(listed, &id), false);
        }
        let plain = |list: Vec<Listed>| list.into_iter().map(|listed| listed.message).collect::<Vec<_>>();
        states.push(StateVariant {
            ident: &variant.ident,
            ty: single_field(variant)?,
            done: variant.attrs.iter().any(|attr| attr.path().is_ident("done")),
            accepts: plain(on).into_iter().chain(timers).collect(),
            ignore: plain(ignore),
            defer: plain(defer),
            reject: plain(reject),
        });
    }
    for listed in &enum_on {
        add(&mut messages, &listed.message, key(listed, &id), false);
    }
    for timer in &enum_timers {
        add(&mut messages, timer, Key::Envelope, false);
    }
    let enum_accepts: Vec<&Type> = enum_on.iter().map(|listed| &listed.message).chain(&enum_timers).collect();

    let per_state = states.iter().map(|state| {
        let StateVariant { ident, ty, done, accepts, .. } = state;
        let label = ident.to_string();
        let inherited = enum_accepts.iter().filter(|m| !state.done && !accepts.contains(m));
        quote! {
            impl ::saga_core::State for #ty {
                type Saga = #saga;
                const NAME: &'static str = #label;
                const DONE: bool = #done;
            }
            impl ::std::convert::From<#ty> for #saga { fn from(state: #ty) -> Self { Self::#ident(state) } }
            impl ::saga_core::Then for #ty {
                type Saga = #saga;
                fn apply(self, _: &mut ::saga_core::Emits) -> #saga { self.into() }
                fn edges(from: &'static str, on: &'static str, branch: &'static str, out: &mut ::std::vec::Vec<::saga_core::ChartEdge>) {
                    ::saga_core::bare_edge::<Self>(from, on, branch, out);
                }
            }
            #(impl ::saga_core::Accepts<#accepts> for #ty {})*
            #(impl ::saga_core::Accepts<#inherited> for #ty {})*
        }
    });

    let in_enum = format_ident!("{saga}In");
    let (message_types, message_variants): (Vec<_>, Vec<_>) = messages.iter().map(|m| (&m.ty, &m.variant)).unzip();
    let message_starts = messages.iter().map(|m| m.starts);
    let ids = messages.iter().map(|Message { ty, variant, key, .. }| match key {
        Key::Body(path) => quote! {
            #in_enum::#variant(message) => {
                let message: &#ty = message;
                let id: &#id_type = &message.#path;
                ::std::option::Option::Some(::std::clone::Clone::clone(id))
            }
        },
        Key::Envelope => quote!(#in_enum::#variant(_) => ::std::option::Option::None,),
    });
    let variant_of = |ty: &Type| {
        let found = messages.iter().find(|message| message.ty == *ty);
        found.map(|message| &message.variant).expect("every listed message was added above")
    };
    let start_arms = starts.iter().map(|listed| {
        let (ty, variant) = (&listed.message, variant_of(&listed.message));
        quote!(#in_enum::#variant(message) => ::std::result::Result::Ok(d::begin::<Self, #ty>(message, at, out)),)
    });
    let own_arms = states.iter().flat_map(|state| {
        let (ident, ty) = (state.ident, state.ty);
        let in_enum = &in_enum;
        state.accepts.iter().map(move |message| {
            let variant = variant_of(message);
            quote!((Self::#ident(state), #in_enum::#variant(message)) => d::go::<#ty, #message>(state, message, at, out),)
        })
    });
    let enum_arms = enum_accepts.iter().map(|ty| {
        let variant = variant_of(ty);
        quote!((state, #in_enum::#variant(message)) if !state.is_done() => d::go::<Self, #ty>(state, message, at, out),)
    });
    let (state_idents, state_types): (Vec<_>, Vec<_>) = states.iter().map(|s| (s.ident, s.ty)).unzip();
    let state_labels: Vec<_> = state_idents.iter().map(|ident| ident.to_string()).collect();
    let start_types = starts.iter().map(|listed| &listed.message);
    let own_edges = states.iter().flat_map(|state| {
        let (ty, label) = (state.ty, state.ident.to_string());
        state.accepts.iter().map(move |m| quote!(d::edges::<#ty, #m>(#label, &mut edges);))
    });
    let enum_edges = states.iter().filter(|state| !state.done).flat_map(|state| {
        let label = state.ident.to_string();
        let not_own = enum_accepts.iter().filter(|m| !state.accepts.contains(m));
        not_own.map(move |m| quote!(d::edges::<#saga, #m>(#label, &mut edges);)).collect::<Vec<_>>()
    });
    let chart_states = states.iter().map(|state| {
        let (label, done) = (state.ident.to_string(), state.done);
        let list = |types: &[Type]| quote!(::std::vec![#(<#types as ::saga_core::Message>::TYPE.into()),*]);
        let (ignore, defer, reject) = (list(&state.ignore), list(&state.defer), list(&state.reject));
        quote!(::saga_core::ChartState { name: #label.into(), done: #done, ignore: #ignore, defer: #defer, reject: #reject })
    });

    Ok(quote! {
        #(#per_state)*
        #(impl ::saga_core::Accepts<#enum_accepts> for #saga {})*

        #[doc(hidden)]
        #[allow(missing_docs, clippy::large_enum_variant)]
        #visibility enum #in_enum { #(#message_variants(#message_types)),* }

        impl #saga {
            fn is_done(&self) -> bool {
                match self { #(Self::#state_idents(_) => <#state_types as ::saga_core::State>::DONE),* }
            }
        }

        const _: () = {
            use ::saga_core::derived as d;

            #[allow(unreachable_patterns)]
            impl ::saga_core::Saga for #saga {
                const NAME: &'static str = #name;
                const VERSION: u32 = #version;
                type Id = #id_type;
                type In = #in_enum;

                fn read(type_name: &str, body: &[u8]) -> ::std::result::Result<Self::In, ::saga_core::ReadError> {
                    match type_name {
                        #(<#message_types as ::saga_core::Message>::TYPE => d::read::<#message_types>(body).map(#in_enum::#message_variants),)*
                        other => d::unknown(#name, other),
                    }
                }
                fn id(message: &Self::In) -> ::std::option::Option<Self::Id> {
                    match message { #(#ids)* }
                }
                fn start(message: Self::In, at: &::saga_core::Moment, out: &mut ::saga_core::Emits) -> ::std::result::Result<Self, Self::In> {
                    match message { #(#start_arms)* other => ::std::result::Result::Err(other) }
                }
                fn step(self, message: Self::In, at: &::saga_core::Moment, out: &mut ::saga_core::Emits) -> ::std::result::Result<Self, (Self, Self::In)> {
                    ::std::result::Result::Ok(match (self, message) {
                        #(#own_arms)*
                        #(#enum_arms)*
                        other => return ::std::result::Result::Err(other),
                    })
                }
                fn load(state: &str, data: &str) -> ::std::result::Result<Self, ::saga_core::ReadError> {
                    match state {
                        #(#state_labels => d::load::<#state_types>(state, data).map(Self::#state_idents),)*
                        other => ::std::result::Result::Err(::saga_core::ReadError(::std::format!("unknown state `{other}`"))),
                    }
                }
                fn state_name(&self) -> &'static str {
                    match self { #(Self::#state_idents(_) => #state_labels),* }
                }
                fn store(&self) -> ::std::string::String {
                    match self { #(Self::#state_idents(state) => d::store(state)),* }
                }
                fn chart() -> ::saga_core::Chart {
                    let mut edges = ::std::vec::Vec::new();
                    #(d::start_edges::<Self, #start_types>(&mut edges);)*
                    #(#own_edges)*
                    #(#enum_edges)*
                    ::saga_core::Chart {
                        saga: #name.into(),
                        version: #version,
                        states: ::std::vec![#(#chart_states),*],
                        messages: ::std::vec![#(d::message::<#message_types>(#message_starts)),*],
                        edges,
                    }
                }
            }
        };
    })
}
