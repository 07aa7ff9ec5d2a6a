//! What `#[derive(Saga)]` writes: one anonymous constant, so that no name of ours enters the user's module.

use super::{
    check::{Key, Message, text},
    parse::{Definition, Listed, State},
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Type, ext::IdentExt, spanned::Spanned};

pub(super) struct Emit<'a> {
    pub(super) definition: &'a Definition<'a>,
    pub(super) messages: &'a [Message],
}

/// A transition: of one state, or of the enum in all states that inherit it.
struct Transition<'a> {
    /// The constant that holds it.
    constant: Ident,
    message: &'a Message,
    /// The state that has it; none for the enum.
    own: Option<&'a State<'a>>,
    /// The states in which it applies.
    states: Vec<&'a State<'a>>,
}

impl Emit<'_> {
    pub(super) fn all(&self) -> TokenStream {
        let transitions = self.transitions();
        let states = self.definition.states.iter().map(|state| self.state(state));
        let accepts = self.accepts();
        let constants = transitions.iter().map(|transition| self.constant(transition));
        let starts = self.start_constants();
        let names = self.names();
        let input = self.input();
        let saga = self.saga(&transitions);
        quote! {
            const _: () = {
                use ::sagabus::__private as __sagabus;
                #(#states)*
                #accepts
                #(#constants)*
                #starts
                #names
                #input
                #saga
            };
        }
    }

    fn message(&self, ty: &Type) -> &Message {
        self.messages.iter().find(|message| message.ty == *ty).expect("`check` listed every message")
    }

    fn transitions(&self) -> Vec<Transition<'_>> {
        let states = &self.definition.states;
        let own = states.iter().flat_map(|state| state.takes.types().map(move |ty| (Some(state), ty, vec![state])));
        let inherited = self.definition.anywhere.types().map(|ty| {
            let heirs = states.iter().filter(|state| !state.done && state.takes.types().all(|own| own != ty));
            (None, ty, heirs.collect())
        });
        let numbered = own.chain(inherited).enumerate().map(|(n, (own, ty, states))| {
            let constant = format_ident!("__TRANSITION_{n}");
            Transition { constant, message: self.message(ty), own, states }
        });
        numbered.collect()
    }

    /// What each variant's struct is.
    fn state(&self, state: &State<'_>) -> TokenStream {
        let saga = self.definition.ident;
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

    /// Which state takes which message: its own, and what it inherits from the enum.
    fn accepts(&self) -> TokenStream {
        let Definition { ident: saga, anywhere, states, .. } = self.definition;
        let accepts = |ty: &Type, message: &Type| {
            quote! {
                #[automatically_derived]
                impl __sagabus::Accepts<#message> for #ty { type Saga = #saga; }
            }
        };
        let of_enum = anywhere.types().map(|message| {
            quote! {
                #[automatically_derived]
                impl __sagabus::Accepts<#message> for #saga { type Saga = Self; }
            }
        });
        let of_states = states.iter().flat_map(|state| {
            let own: Vec<_> = state.takes.types().collect();
            let inherited = anywhere.types().filter(|ty| !state.done && !own.contains(ty));
            let all = own.iter().copied().chain(inherited);
            all.map(|message| accepts(state.ty, message)).collect::<Vec<_>>()
        });
        quote!(#(#of_states)* #(#of_enum)*)
    }

    /// A transition as a constant: the one place that asks for the user's `impl On`, so a missing one is one error.
    fn constant(&self, transition: &Transition<'_>) -> TokenStream {
        let saga = self.definition.ident;
        let Transition { constant, message: Message { ty, timer, .. }, own, .. } = transition;
        let value = |from: TokenStream| quote_spanned!(ty.span()=> __sagabus::transition::<#from, #ty>());
        let (from, value, keeps) = match own {
            Some(State { ident, ty: state, .. }) => {
                let (label, name) = (ident.unraw().to_string(), text(ty));
                let fault = format!("`{label}` on `{name}`: `Keep` is for a transition into the same state");
                let assertion = quote_spanned! {ty.span()=>
                    ::std::assert!(#constant.keeps.only_in(#label), #fault)
                };
                (quote!(#state), value(quote!(#state)), quote!(const _: () = #assertion;))
            }
            None => (quote!(#saga), value(quote!(#saga)), quote!()),
        };
        let kind = timer.then(|| {
            let fault = format!("`{}` is listed in `#[timer(..)]`: a timer derives `Message`", text(ty));
            let assertion = quote_spanned!(ty.span()=> ::std::assert!(__sagabus::is_timer::<#ty>(), #fault));
            quote!(const _: () = #assertion;)
        });
        quote! {
            #[allow(dead_code)] // of the enum, when every state has its own
            const #constant: __sagabus::Transition<#from, #ty, #saga> = #value;
            #keeps
            #kind
        }
    }

    fn start_constants(&self) -> TokenStream {
        let saga = self.definition.ident;
        let each = self.definition.starts.iter().enumerate().map(|(n, Listed { message: ty, .. })| {
            let constant = format_ident!("__START_{n}");
            let value = quote_spanned!(ty.span()=> __sagabus::start::<#saga, #ty>());
            let fault = format!("`Keep` and `Stay` have nothing to keep where `{}` starts the saga", text(ty));
            let assertion = quote_spanned!(ty.span()=> ::std::assert!(#constant.keeps.nowhere(), #fault));
            quote! {
                const #constant: __sagabus::Start<#saga, #ty> = #value;
                const _: () = #assertion;
            }
        });
        quote!(#(#each)*)
    }

    /// One type under two spellings would be two messages, and the second would never arrive.
    fn names(&self) -> TokenStream {
        let each = self.messages.iter().enumerate().skip(1).map(|(n, Message { ty, .. })| {
            let before = self.messages[..n].iter().map(|message| &message.ty);
            let fault = format!(
                "`{}` has the name of another message of this saga: if it is the same type, spell it the same way",
                text(ty)
            );
            let condition = quote_spanned! {ty.span()=>
                !__sagabus::contains(&[#(<#before as __sagabus::Message>::TYPE),*], <#ty as __sagabus::Message>::TYPE)
            };
            let assertion = quote_spanned!(ty.span()=> ::std::assert!(#condition, #fault));
            quote!(const _: () = #assertion;)
        });
        quote!(#(#each)*)
    }

    /// The enum of all messages, decoded.
    fn input(&self) -> TokenStream {
        let visibility = self.definition.visibility;
        let types = self.messages.iter().map(|message| &message.ty);
        let variants = self.messages.iter().map(|message| &message.variant);
        quote! {
            #[doc(hidden)]
            #[allow(missing_docs, private_interfaces, unreachable_pub, clippy::large_enum_variant)]
            #visibility enum __SagaInput { #(#variants(#types)),* }
        }
    }

    fn saga(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let Definition { ident: saga, name, version, id_type, .. } = self.definition;
        let (read, id) = (self.read(), self.id());
        let (start, step) = (self.start(), self.step(transitions));
        let (load, names, store) = (self.load(), self.state_names(), self.store());
        let chart = self.chart(transitions);
        quote! {
            #[automatically_derived]
            impl __sagabus::Saga for #saga {
                const NAME: &'static str = #name;
                const VERSION: u32 = #version;
                type Id = #id_type;
                type In = __SagaInput;
                #read
                #id
                #start
                #step
                #load
                #names
                #store
                #chart
            }
        }
    }

    fn read(&self) -> TokenStream {
        let name = &self.definition.name;
        let arms = self.messages.iter().map(|Message { ty, variant, .. }| {
            quote! {
                <#ty as __sagabus::Message>::TYPE => __sagabus::decode::<#ty>(body).map(__SagaInput::#variant)
            }
        });
        quote! {
            fn __read(
                type_name: &str,
                body: &[u8],
            ) -> ::std::result::Result<Self::In, __sagabus::ReadError> {
                match type_name { #(#arms,)* other => __sagabus::unknown(#name, other) }
            }
        }
    }

    fn id(&self) -> TokenStream {
        let id_type = &self.definition.id_type;
        let arms = self.messages.iter().map(|Message { ty, variant, key, .. }| {
            let id = match key {
                Key::Envelope => return quote!(__SagaInput::#variant(_) => ::std::option::Option::None),
                Key::IdField(field) => {
                    quote_spanned!(field.span()=> &__sagabus::IdFieldOrByPathOrByEcho::<#ty>::of(message).#field)
                }
                Key::Path(path) => quote!(&message.#path),
            };
            quote! {
                __SagaInput::#variant(message) => {
                    let message: &#ty = message;
                    let id: &#id_type = #id;
                    ::std::option::Option::Some(::std::clone::Clone::clone(id))
                }
            }
        });
        quote! {
            fn __id(message: &Self::In) -> ::std::option::Option<Self::Id> {
                match message { #(#arms,)* }
            }
        }
    }

    fn start(&self) -> TokenStream {
        let starts = &self.definition.starts;
        let arms = starts.iter().enumerate().map(|(n, listed)| {
            let (constant, variant) = (format_ident!("__START_{n}"), &self.message(&listed.message).variant);
            quote!(__SagaInput::#variant(message) => ::std::result::Result::Ok((#constant.begin)(message, at, out)))
        });
        // an unreachable arm would be a warning in the user's build
        let rest = (starts.len() < self.messages.len()).then(|| quote!(other => ::std::result::Result::Err(other)));
        quote! {
            fn __start(
                message: Self::In,
                at: &__sagabus::Moment,
                out: &mut __sagabus::Emits,
            ) -> ::std::result::Result<Self, Self::In> {
                match message { #(#arms,)* #rest }
            }
        }
    }

    fn step(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let made = transitions.iter().filter(|transition| !transition.states.is_empty());
        let arms = made.map(|Transition { constant, message, own, states }| {
            let (variant, idents) = (&message.variant, states.iter().map(|state| state.ident));
            let pattern = match own {
                Some(State { ident, .. }) => quote!(Self::#ident(state)),
                None => quote!(state @ (#(Self::#idents(_))|*)),
            };
            quote! {
                (#pattern, __SagaInput::#variant(message)) =>
                    ::std::result::Result::Ok((#constant.go)(state, message, at, out))
            }
        });
        let pairs: usize = transitions.iter().map(|transition| transition.states.len()).sum();
        let all = self.definition.states.len() * self.messages.len();
        let rest = (pairs < all).then(|| quote!(other => ::std::result::Result::Err(other)));
        let unused = (pairs == 0).then(|| quote!(let _ = (at, out);));
        quote! {
            fn __step(
                self,
                message: Self::In,
                at: &__sagabus::Moment,
                out: &mut __sagabus::Emits,
            ) -> ::std::result::Result<Self, (Self, Self::In)> {
                #unused
                match (self, message) { #(#arms,)* #rest }
            }
        }
    }

    fn load(&self) -> TokenStream {
        let arms = self.definition.states.iter().map(|State { ident, ty, .. }| {
            let label = ident.unraw().to_string();
            quote!(#label => __sagabus::load::<#ty>(state, data).map(Self::#ident))
        });
        quote! {
            fn __load(state: &str, data: &str) -> ::std::result::Result<Self, __sagabus::ReadError> {
                match state { #(#arms,)* other => __sagabus::unknown_state(other) }
            }
        }
    }

    fn state_names(&self) -> TokenStream {
        let arms = self.definition.states.iter().map(|State { ident, .. }| {
            let label = ident.unraw().to_string();
            quote!(Self::#ident(_) => #label)
        });
        quote!(fn state_name(&self) -> &'static str { match self { #(#arms,)* } })
    }

    fn store(&self) -> TokenStream {
        let idents = self.definition.states.iter().map(|state| state.ident);
        quote! {
            fn __store(&self) -> ::std::string::String {
                match self { #(Self::#idents(state) => __sagabus::store(state),)* }
            }
        }
    }

    fn chart(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let Definition { name, version, starts, states, .. } = self.definition;
        let start_edges = (0..starts.len()).map(|n| {
            let constant = format_ident!("__START_{n}");
            quote!((#constant.edges)(&mut edges);)
        });
        let edges_of = |own: bool| {
            let transitions = transitions.iter().filter(move |transition| transition.own.is_some() == own);
            states.iter().flat_map(move |state| {
                let its = transitions.clone().filter(|t| t.states.iter().any(|other| other.ident == state.ident));
                let label = state.ident.unraw().to_string();
                its.map(move |Transition { constant, .. }| quote!((#constant.edges)(#label, &mut edges);))
            })
        };
        let edges = edges_of(true).chain(edges_of(false));
        let chart_states = states.iter().map(|state| {
            let (label, done) = (state.ident.unraw().to_string(), state.done);
            let names = |list: &[Listed]| {
                let types = list.iter().map(|listed| &listed.message);
                quote!(::std::vec![#(<#types as __sagabus::Message>::TYPE),*])
            };
            let (ignores, defers, rejects) = (names(&state.ignores), names(&state.defers), names(&state.rejects));
            quote!(__sagabus::state(#label, #done, #ignores, #defers, #rejects))
        });
        let messages = self
            .messages
            .iter()
            .map(|Message { ty, starts, anyone, .. }| quote!(__sagabus::message::<#ty>(#starts, #anyone)));
        quote! {
            fn chart() -> __sagabus::Chart {
                let mut edges = ::std::vec::Vec::new();
                #(#start_edges)*
                #(#edges)*
                __sagabus::chart(
                    #name,
                    #version,
                    ::std::vec![#(#chart_states),*],
                    ::std::vec![#(#messages),*],
                    edges,
                )
            }
        }
    }
}
