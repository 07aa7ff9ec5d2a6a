//! What `#[saga]` writes: one anonymous constant, so that no name of ours enters the user's module.

mod alias;
mod chart;
mod field;
mod key;

use super::{
    check::Message,
    function::{Function, Of},
    parse::Definition,
    pieces::at,
};
use crate::{
    named_maker,
    states::{self, State},
    text,
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Type, ext::IdentExt, spanned::Spanned};

pub(super) struct Emit<'a> {
    pub(super) definition: &'a Definition<'a>,
    pub(super) messages: &'a [Message<'a>],
}

/// A transition: of one state, or of the enum in all states that inherit it.
struct Transition<'a> {
    /// The function that makes it.
    made: Ident,
    message: &'a Message<'a>,
    function: &'a Function,
    /// The state that has it; none for the enum.
    own: Option<&'a State>,
    /// The states in which it applies.
    states: Vec<&'a State>,
}

impl Emit<'_> {
    pub(super) fn all(&self) -> TokenStream {
        let transitions = self.transitions();
        let (thens, accepts) = (states::thens(self.definition.states), self.accepts());
        let each = transitions.iter().map(|transition| self.transition(transition));
        let (starts, keys) = (self.starts(), self.keys());
        let names = self.names();
        let input = self.input();
        let saga = self.saga(&transitions);
        quote! {
            const _: () = {
                use ::sagabus::__private as __sagabus;
                #[allow(unused_imports)]
                use __sagabus::{NamesNone as _, NoFurther as _, NoMessage as _};
                #thens
                #accepts
                #(#each)*
                #starts
                #keys
                #names
                #input
                #saga
            };
        }
    }

    fn message(&self, ty: &Type) -> &Message<'_> {
        self.messages.iter().find(|message| message.ty == *ty).expect("`check` listed every message")
    }

    /// Those of the states in the order of the states, then those of the enum.
    fn transitions(&self) -> Vec<Transition<'_>> {
        let (definition, states) = (self.definition, &self.definition.states.states);
        let own =
            (0..states.len()).flat_map(|place| definition.of_kind(Of::State(place)).map(move |it| (Some(place), it)));
        let of_enum = definition.of_kind(Of::Enum).map(|function| (None, function));
        let numbered = own.chain(of_enum).enumerate().map(|(n, (place, function))| {
            let made = format_ident!("__transition_{n}");
            let own = place.map(|place| &states[place]);
            let states = own.map_or_else(|| self.heirs(&function.message), |own| vec![own]);
            Transition { made, message: self.message(&function.message), function, own, states }
        });
        numbered.collect()
    }

    /// The states that inherit a transition of the enum.
    fn heirs(&self, message: &Type) -> Vec<&State> {
        let definition = self.definition;
        let states = definition.states.states.iter().enumerate();
        let heirs = states.filter(|(place, state)| {
            let says = |list: &[Type]| list.contains(message);
            !state.done
                && definition.of_kind(Of::State(*place)).all(|own| own.message != *message)
                && !(says(&state.ignores) || says(&state.defers) || says(&state.rejects))
        });
        heirs.map(|(_, state)| state).collect()
    }

    /// Which state takes which message: its own, and what it inherits from the enum.
    fn accepts(&self) -> TokenStream {
        let saga = &self.definition.states.ident;
        let accepts = |ty: &TokenStream, message: &Type| {
            quote! {
                #[automatically_derived]
                impl __sagabus::Accepts<#message> for #ty { type Saga = #saga; }
            }
        };
        let each = self.transitions().into_iter().flat_map(|Transition { own, message, states, .. }| {
            let of_enum = own.is_none().then(|| accepts(&quote!(#saga), &message.ty));
            let of_states = states.iter().map(|State { ty, .. }| accepts(&quote!(#ty), &message.ty));
            of_states.chain(of_enum).collect::<Vec<_>>()
        });
        // what it ignores, defers or rejects has its place too
        let said = self.definition.states.states.iter().flat_map(|state| {
            let lists = state.ignores.iter().chain(&state.defers).chain(&state.rejects);
            let ty = &state.ty;
            lists.map(|message| accepts(&quote!(#ty), message)).collect::<Vec<_>>()
        });
        quote!(#(#each)* #(#said)*)
    }

    /// The function as a trait, and the transition as a value, the one place that asks whether it returns one.
    fn transition(&self, transition: &Transition<'_>) -> TokenStream {
        let saga = &self.definition.states.ident;
        let Transition { made, message: Message { ty, .. }, function, own, .. } = transition;
        let Function { name, then, arguments, .. } = function;
        let from = own.map_or_else(|| quote!(#saga), |State { ty, .. }| quote!(#ty));
        let arguments_of = quote!(#from, #ty, #saga);
        let maker = named_maker(made, name, &quote!(__sagabus::Transition), &arguments_of, &at(then, "transition"));
        quote! {
            #[automatically_derived]
            impl __sagabus::On<#ty> for #from {
                type Then = #then;
                #[allow(unused_variables)]
                fn on(
                    self,
                    message: #ty,
                    data: &mut <#saga as __sagabus::Saga>::Data,
                    at: &__sagabus::Moment,
                ) -> <Self as __sagabus::On<#ty>>::Then {
                    #saga::#name(#(#arguments),*)
                }
            }
            #maker
        }
    }

    fn starts(&self) -> TokenStream {
        let saga = &self.definition.states.ident;
        let start = match self.definition.states.data {
            Some(_) => "start_with_data",
            None => "start",
        };
        let each = self.definition.of_kind(Of::Start).enumerate().map(|(n, function)| {
            let Function { name, message, then, arguments, .. } = function;
            let (made, made_of) = (format_ident!("__start_{n}"), quote!(__sagabus::Start));
            let maker = named_maker(&made, name, &made_of, &quote!(#saga, #message), &at(then, start));
            quote! {
                #[automatically_derived]
                impl __sagabus::Starts<#message> for #saga {
                    type Then = #then;
                    #[allow(unused_variables)]
                    fn start(
                        message: #message,
                        at: &__sagabus::Moment,
                    ) -> <Self as __sagabus::Starts<#message>>::Then {
                        #saga::#name(#(#arguments),*)
                    }
                }
                #maker
            }
        });
        quote!(#(#each)*)
    }

    /// Each is a message. And one type under two spellings would be two, and the second would never arrive.
    fn names(&self) -> TokenStream {
        let messages = self.messages.iter().map(|Message { ty, .. }| {
            let is_message = quote_spanned!(ty.span()=> ::sagabus::__private::is_message::<#ty>());
            quote!(const _: () = #is_message;)
        });
        let each = self.messages.iter().enumerate().skip(1).map(|(n, Message { ty, .. })| {
            let before = self.messages[..n].iter().map(|message| &message.ty);
            let fault = format!(
                "`{}` has the name of another message of this saga: if it is the same type, spell it the same way",
                text(ty)
            );
            let condition = quote_spanned! {ty.span()=>
                __sagabus::contains(&[#(__sagabus::Of::<#before>::TYPE),*], __sagabus::Of::<#ty>::TYPE)
            };
            let assertion = quote_spanned!(ty.span()=> ::sagabus::__private::refuse::<()>(#condition, #fault));
            quote!(const _: () = #assertion;)
        });
        quote!(#(#messages)* #(#each)*)
    }

    /// The enum of all messages, decoded.
    fn input(&self) -> TokenStream {
        let visibility = &self.definition.states.visibility;
        let types = self.messages.iter().map(|message| &message.ty);
        let variants = self.messages.iter().map(|message| &message.variant);
        quote! {
            #[doc(hidden)]
            #[allow(missing_docs, private_interfaces, unreachable_pub, clippy::large_enum_variant)]
            #visibility enum __SagaInput { #(#variants(#types)),* }
        }
    }

    fn saga(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let Definition { name, version, .. } = self.definition;
        let saga = &self.definition.states.ident;
        let (id_type, data) = (self.id_type(), self.data());
        let (read, id, id_field, alias) = (self.read(), self.id(), self.id_field(), self.alias());
        let (gives_up, fields) = (self.gives_up(), self.fields());
        let (start, step) = (self.start(), self.step(transitions));
        let (load, names, store) = (self.load(), self.state_names(), self.store());
        let chart = self.chart(transitions);
        quote! {
            #[automatically_derived]
            impl __sagabus::Within for #saga { type Saga = #saga; }
            #[automatically_derived]
            impl __sagabus::Saga for #saga {
                const NAME: &'static str = #name;
                const VERSION: u32 = #version;
                type Id = #id_type;
                type Data = #data;
                type In = __SagaInput;
                #read
                #id
                #id_field
                #gives_up
                #alias
                #fields
                #start
                #step
                #load
                #names
                #store
                #chart
            }
        }
    }

    fn data(&self) -> TokenStream {
        self.definition.states.data.as_ref().map_or_else(|| quote!(()), |data| quote!(#data))
    }

    fn read(&self) -> TokenStream {
        let name = &self.definition.name;
        let arms = self.messages.iter().map(|Message { ty, variant, .. }| {
            quote! {
                __sagabus::Of::<#ty>::TYPE => __sagabus::Of::<#ty>::decode(body).map(__SagaInput::#variant)
            }
        });
        quote! {
            fn __read(
                type_name: &str,
                body: &[u8],
            ) -> ::std::result::Result<__SagaInput, __sagabus::ReadError> {
                match type_name { #(#arms,)* other => __sagabus::unknown(#name, other) }
            }
        }
    }

    /// What the sender of a message gets that a state rejects. Nothing where none is: the trait says so.
    fn gives_up(&self) -> TokenStream {
        let states = &self.definition.states.states;
        let rejected = self.messages.iter().filter(|Message { ty, rejects_repeats, .. }| {
            *rejects_repeats || states.iter().any(|state| state.rejects.contains(ty))
        });
        let arms: Vec<_> = rejected
            .map(|Message { ty, .. }| quote!(__sagabus::Of::<#ty>::TYPE => __sagabus::Of::<#ty>::GIVES_UP))
            .collect();
        if arms.is_empty() {
            return TokenStream::new();
        }
        quote! {
            fn __gives_up(type_name: &str) -> ::std::option::Option<__sagabus::GivesUp> {
                match type_name { #(#arms,)* _ => ::std::option::Option::None }
            }
        }
    }

    fn start(&self) -> TokenStream {
        let starts: Vec<_> = self.definition.of_kind(Of::Start).collect();
        let arms = starts.iter().enumerate().map(|(n, function)| {
            let (made, variant) = (format_ident!("__start_{n}"), &self.message(&function.message).variant);
            quote!(__SagaInput::#variant(message) => ::std::result::Result::Ok((#made::<()>().begin)(message, at, out)))
        });
        // an unreachable arm would be a warning in the user's build
        let rest = (starts.len() < self.messages.len()).then(|| quote!(other => ::std::result::Result::Err(other)));
        quote! {
            fn __start(
                message: __SagaInput,
                at: &__sagabus::Moment,
                out: &mut __sagabus::Emits,
            ) -> ::std::result::Result<(Self, <Self as __sagabus::Saga>::Data), __SagaInput> {
                match message { #(#arms,)* #rest }
            }
        }
    }

    fn step(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let some = transitions.iter().filter(|transition| !transition.states.is_empty());
        let arms = some.map(|Transition { made, message, own, states, .. }| {
            let (variant, idents) = (&message.variant, states.iter().map(|state| &state.ident));
            let pattern = match own {
                Some(State { ident, .. }) => quote!(Self::#ident(state)),
                None => quote!(state @ (#(Self::#idents(_))|*)),
            };
            quote! {
                (#pattern, __SagaInput::#variant(message)) =>
                    ::std::result::Result::Ok((#made::<()>().go)(state, message, data, at, out))
            }
        });
        let pairs: usize = transitions.iter().map(|transition| transition.states.len()).sum();
        let all = self.definition.states.states.len() * self.messages.len();
        let rest = (pairs < all).then(|| quote!(other => ::std::result::Result::Err(other)));
        let unused = (pairs == 0).then(|| quote!(let _ = (data, at, out);));
        quote! {
            fn __step(
                self,
                data: &mut <Self as __sagabus::Saga>::Data,
                message: __SagaInput,
                at: &__sagabus::Moment,
                out: &mut __sagabus::Emits,
            ) -> ::std::result::Result<Self, (Self, __SagaInput)> {
                #unused
                match (self, message) { #(#arms,)* #rest }
            }
        }
    }

    fn load(&self) -> TokenStream {
        let version = self.definition.version;
        // in the form of the oldest version that is not older than the stored one and has a form of its own
        let read = |ty: &dyn quote::ToTokens, load: TokenStream| {
            let older = (1..version).map(|version| {
                quote! {
                    if version <= #version
                        && let ::std::option::Option::Some(read) =
                            (&__sagabus::Form::<#ty, #version>(::std::marker::PhantomData)).read(what, json)
                    {
                        return read;
                    }
                }
            });
            quote!((|what: &str, json: &str| { #(#older)* __sagabus::#load::<#ty>(what, json) }))
        };
        let (data, of_data) = match &self.definition.states.data {
            Some(data) => {
                let reads = read(data, quote!(load));
                (
                    quote! {
                        let (data, json) = __sagabus::parts(state, version < #version, json)?;
                        let data = #reads("the saga's data", data)?;
                    },
                    quote!(data),
                )
            }
            None => (quote!(), quote!(())),
        };
        let arms = self.definition.states.states.iter().map(|State { ident, ty, was, .. }| {
            let label = ident.unraw().to_string();
            let (what, reads) = (format!("state `{label}`"), read(ty, quote!(load_state)));
            quote!(#label #(| #was)* => (Self::#ident(#reads(#what, json)?), #of_data))
        });
        quote! {
            #[allow(unused_imports, unused_variables)]
            fn __load(
                state: &str,
                version: u32,
                json: &str,
            ) -> ::std::result::Result<(Self, <Self as __sagabus::Saga>::Data), __sagabus::ReadError> {
                use __sagabus::{Newest as _, Older as _};
                #data
                ::std::result::Result::Ok(match state { #(#arms,)* other => return __sagabus::unknown_state(other) })
            }
        }
    }

    fn state_names(&self) -> TokenStream {
        let arms = self.definition.states.states.iter().map(|State { ident, .. }| {
            let label = ident.unraw().to_string();
            quote!(Self::#ident(_) => #label)
        });
        quote!(fn state_name(&self) -> &'static str { match self { #(#arms,)* } })
    }

    fn store(&self) -> TokenStream {
        let idents = self.definition.states.states.iter().map(|state| &state.ident);
        let store = match self.definition.states.data {
            Some(_) => quote!(__sagabus::store_with_data(state, data)),
            None => quote!(__sagabus::store(state)),
        };
        quote! {
            #[allow(unused_variables)]
            fn __store(&self, data: &<Self as __sagabus::Saga>::Data) -> ::std::string::String {
                match self { #(Self::#idents(state) => #store,)* }
            }
        }
    }
}
