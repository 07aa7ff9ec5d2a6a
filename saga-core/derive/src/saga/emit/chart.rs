//! The chart: states, messages and edges.

use super::{Emit, Transition};
use crate::{
    saga::{
        check::{Key, Message},
        function::Of,
        parse::Definition,
        pieces::chart_state,
    },
    text,
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;

impl Emit<'_> {
    pub(super) fn chart(&self, transitions: &[Transition<'_>]) -> TokenStream {
        let Definition { name, version, .. } = self.definition;
        let states = &self.definition.states.states;
        let start_edges = self.definition.of_kind(Of::Start).enumerate().map(|(n, function)| {
            let (made, message) = (format_ident!("__start_{n}"), &function.message);
            quote!((#made::<()>().edges)(__sagabus::Of::<#message>::TYPE, &mut edges);)
        });
        let edges_of = |own: bool| {
            let transitions = transitions.iter().filter(move |transition| transition.own.is_some() == own);
            states.iter().flat_map(move |state| {
                let its = transitions.clone().filter(|t| t.states.iter().any(|other| other.ident == state.ident));
                let label = state.ident.unraw().to_string();
                its.map(move |Transition { made, message: Message { ty, .. }, .. }| {
                    quote!((#made::<()>().edges)(#label, __sagabus::Of::<#ty>::TYPE, &mut edges);)
                })
            })
        };
        let (own, inherited) = (edges_of(true), edges_of(false));
        let chart_states = states.iter().map(chart_state);
        let messages = self.messages.iter().map(|message| {
            let Message { ty, starts, rejects_repeats, anyone, .. } = message;
            let returning = message.returns_repeats.then(|| quote!(.returning()));
            let by_echo = matches!(message.key, Key::Envelope).then(|| quote!(.by_echo()));
            quote!(__sagabus::Of::<#ty>::chart(#starts, #rejects_repeats, #anyone) #returning #by_echo)
        });
        let id = self.definition.id.iter().map(|(field, ty)| format!("{}: {}", field.unraw(), text(ty)));
        let (id, has_data) = (id.collect::<Vec<_>>().join(", "), self.definition.states.data.is_some());
        quote! {
            fn chart() -> __sagabus::Chart {
                let mut edges = ::std::vec::Vec::new();
                #(#start_edges)*
                #(#own)*
                let own = edges.len();
                #(#inherited)*
                __sagabus::inherited(&mut edges[own..]);
                __sagabus::chart(
                    #name,
                    #version,
                    (#id, #has_data),
                    ::std::vec![#(#chart_states),*],
                    ::std::vec![#(#messages),*],
                    edges,
                )
            }
        }
    }
}
