//! Where each message has the id of its instance.

use super::Emit;
use crate::{
    field_key, marker, named_maker,
    saga::{
        check::{Key, Message},
        pieces::{dotted, of_path},
    },
    text,
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, ext::IdentExt, spanned::Spanned};

/// The function that says where a message has a part of the id.
fn made(message: &Message<'_>, part: usize) -> Ident {
    format_ident!("__key_{}_{part}", message.variant)
}

impl Emit<'_> {
    pub(super) fn id_type(&self) -> TokenStream {
        let types = self.definition.id.iter().map(|(_, ty)| ty);
        match self.definition.id.as_slice() {
            [(_, ty)] => quote!(#ty),
            _ => quote!((#(#types),*)),
        }
    }

    /// For each message that has the id in its own fields, and for each part: the one place that asks whether it does.
    pub(super) fn keys(&self) -> TokenStream {
        let parts = self.definition.id.iter().enumerate();
        let part_types = parts.clone().map(|(n, (_, part))| {
            let name = format_ident!("__Part{n}");
            quote!(#[allow(dead_code)] type #name = #part;)
        });
        let in_fields = self.messages.iter().filter(|message| matches!(message.key, Key::Fields));
        // one that begins an instance is no timer, which has a field of every type
        let first = in_fields.clone().find(|message| message.starts).map(|message| &message.variant);
        let each = in_fields.map(|message| {
            let Message { ty, variant, starts, .. } = message;
            // names that no field hides; all stands at the message, so that rustc points there
            let name = format_ident!("__Message{variant}", span = ty.span());
            let function = Ident::new(if *starts { "first_part" } else { "part" }, ty.span());
            let makers = parts.clone().map(|(n, (field, part))| {
                let (made, key, marker) = (made(message, n), field_key(field), marker(field));
                let part_type = format_ident!("__Part{n}", span = ty.span());
                let value = match first.filter(|first| *first != variant) {
                    Some(first) => {
                        let first = format_ident!("__Message{first}", span = ty.span());
                        quote_spanned! {ty.span()=>
                            ::sagabus::__private::Further::<#first, #part_type, #key, #name>::#function::<_, #marker>()
                        }
                    }
                    None => quote_spanned! {ty.span()=>
                        ::sagabus::__private::Of::<#name>::#function::<#part_type, _, #marker, #key>()
                    },
                };
                named_maker(&made, field, &quote!(__sagabus::Part), &quote!(#ty, #part, #key), &value)
            });
            let alias = format_ident!("__Message{variant}"); // not at the message, as in `seen`
            quote!(type #alias = #ty; #(#makers)*)
        });
        quote!(#(#part_types)* #(#each)*)
    }

    /// Operators see ids and aliases, and search by them: what a message masks is none.
    fn seen(&self) -> TokenStream {
        let all = self.messages.iter().flat_map(|Message { ty, key, .. }| {
            let fields: Vec<&Ident> = match key {
                Key::Fields => self.definition.id.iter().map(|(field, _)| field).collect(),
                Key::Paths(paths) => paths.iter().filter_map(|path| path.first()).collect(),
                Key::Envelope => Vec::new(),
                Key::Alias(alias) => alias.path.first().into_iter().collect(),
            };
            fields.into_iter().map(move |field| {
                let name = field.unraw().to_string();
                let fault = format!("`{name}` of `{}` is masked, but operators see what names an instance", text(ty));
                let assertion = quote_spanned! {ty.span()=>
                    ::sagabus::__private::refuse::<()>(__sagabus::masks(__sagabus::Of::<#ty>::MASKED, #name), #fault)
                };
                // the constant is not at the message: rustc would offer `Message<Message>` for one that is missing
                quote!(const _: () = #assertion;)
            })
        });
        all.collect()
    }

    pub(super) fn id(&self) -> TokenStream {
        let seen = self.seen();
        let arms = self.messages.iter().map(|message| {
            let Message { ty, variant, key, .. } = message;
            let parts: Vec<_> = match key {
                Key::Envelope | Key::Alias(_) => {
                    return quote!(__SagaInput::#variant(_) => ::std::option::Option::None);
                }
                Key::Fields => {
                    let made = (0..self.definition.id.len()).map(|n| made(message, n));
                    let part = |made| {
                        quote!(match (#made::<()>().of)(message) {
                            ::std::option::Option::Some(part) => part,
                            ::std::option::Option::None => return ::std::option::Option::None,
                        })
                    };
                    made.map(part).collect()
                }
                Key::Paths(paths) => {
                    let parts = paths.iter().zip(&self.definition.id);
                    parts.map(|(path, (_, part))| of_path(path, part)).collect()
                }
            };
            let id = match parts.as_slice() {
                [part] => quote!(#part),
                parts => quote!((#(#parts),*)),
            };
            quote! {
                __SagaInput::#variant(message) => {
                    let message: &#ty = message;
                    ::std::option::Option::Some(#id)
                }
            }
        });
        quote! {
            fn __id(message: &__SagaInput) -> ::std::option::Option<<Self as __sagabus::Saga>::Id> {
                #seen
                match message { #(#arms,)* }
            }
        }
    }

    /// Where a message has its id, as a person finds it.
    pub(super) fn id_field(&self) -> TokenStream {
        let plain = dotted(self.definition.id.iter().map(|(field, _)| [field]));
        let arms = self.messages.iter().filter_map(|Message { ty, key, .. }| {
            let place = match key {
                Key::Fields => return None,
                Key::Envelope => String::new(),
                Key::Paths(paths) => dotted(paths.iter()),
                Key::Alias(alias) => dotted([&alias.path].into_iter()),
            };
            Some(quote!(__sagabus::Of::<#ty>::TYPE => #place))
        });
        quote! {
            fn __id_field(type_name: &str) -> &'static str {
                match type_name { #(#arms,)* _ => #plain }
            }
        }
    }
}
