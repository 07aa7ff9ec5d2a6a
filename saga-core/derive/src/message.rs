//! `Message`, `Event`, `Reply`, `Command`.

use crate::{field_key, masked, name_fault, without_parameters};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, LitStr, Type, ext::IdentExt, spanned::Spanned};

#[derive(Default)]
struct Attributes {
    name: Option<LitStr>,
    namespace: Option<LitStr>,
    outcome: Option<Type>,
    gives_up: Option<Type>,
    priority: Option<Ident>,
}

/// Reads `#[attribute(name = "..", <namespace> = "..", outcome = Type)]`.
fn attributes(input: &DeriveInput, attribute: &str, namespace: &str) -> syn::Result<Attributes> {
    let mut found = Attributes::default();
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident(attribute)) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                set(&mut found.name, &meta)
            } else if meta.path.is_ident(namespace) {
                set(&mut found.namespace, &meta)
            } else if attribute == "command" && meta.path.is_ident("outcome") {
                set(&mut found.outcome, &meta)
            } else if attribute == "command" && meta.path.is_ident("gives_up") {
                set(&mut found.gives_up, &meta)
            } else if attribute == "command" && meta.path.is_ident("priority") {
                set(&mut found.priority, &meta)?;
                match &found.priority {
                    Some(priority) if priority != "low" && priority != "normal" => {
                        Err(syn::Error::new_spanned(priority, "a priority is `low` or `normal`"))
                    }
                    _ => Ok(()),
                }
            } else {
                Err(meta.error(match attribute {
                    "command" => {
                        "known here: `to = \"endpoint\"`, `outcome = Type`, `gives_up = Type`, `priority = low`, \
                         `name = \"..\"`"
                    }
                    "event" | "reply" => "known here: `from = \"service\"`, `name = \"..\"`",
                    _ => "known here: `name = \"..\"`",
                }))
            }
        })?;
    }
    Ok(found)
}

fn set<T: syn::parse::Parse>(slot: &mut Option<T>, meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
    if slot.is_some() {
        return Err(meta.error("given twice"));
    }
    *slot = Some(meta.value()?.parse()?);
    Ok(())
}

impl Attributes {
    /// Whether a command goes to the queue for those that can wait.
    fn can_wait(&self) -> bool {
        self.priority.as_ref().is_some_and(|priority| priority == "low")
    }

    /// The logical name: the one given, or the service's name followed by the type's.
    fn type_name(&self, input: &DeriveInput) -> syn::Result<String> {
        let ident = &input.ident;
        let said = self.name.as_ref().or(self.namespace.as_ref());
        let name = match (&self.name, &self.namespace) {
            (Some(name), _) => name.value(),
            (None, Some(namespace)) => format!("{}.{}", namespace.value(), ident.unraw()),
            (None, None) => ident.unraw().to_string(),
        };
        let empty = said.is_some_and(|said| said.value().is_empty());
        match said.zip(name_fault(if empty { "" } else { &name })) {
            Some((said, fault)) => Err(syn::Error::new_spanned(said, fault)),
            None => Ok(name),
        }
    }
}

fn message(input: &DeriveInput, found: &Attributes, kind: &str) -> syn::Result<TokenStream> {
    without_parameters(input, "a message", "its name on the wire stands for one type")?;
    let ident = &input.ident;
    let name = found.type_name(input)?;
    let kind_name = format_ident!("{kind}");
    let outcome = found.outcome.as_ref().map_or_else(|| quote!(()), |outcome| quote!(#outcome));
    let body = quote_spanned!(ident.span()=> ::sagabus::__private::body::<#ident>());
    let implement = implement(ident, "Message");
    let endpoint = found.namespace.iter().filter(|_| kind == "Command");
    let can_wait = found.can_wait();
    let masked = match &input.data {
        syn::Data::Struct(data) => masked::names(&input.attrs, &data.fields)?,
        syn::Data::Enum(data) => {
            // where the variant's fields are in the JSON depends on serde's attributes
            let fields = data.variants.iter().flat_map(|variant| &variant.fields);
            match fields.flat_map(|field| &field.attrs).find(|attr| masked::is_mark(attr)) {
                Some(mark) => return Err(syn::Error::new_spanned(mark, "only a field of a struct can be masked")),
                None => Vec::new(),
            }
        }
        syn::Data::Union(_) => Vec::new(),
    };
    let masked = (!masked.is_empty()).then(|| quote!(const MASKED: &'static [&'static str] = &[#(#masked),*];));
    let gives_up = found.gives_up.iter().map(|ty| {
        let made = quote_spanned!(ty.span()=> ::sagabus::__private::gives_up::<#ident, #ty>());
        quote! {
            const GIVES_UP: ::std::option::Option<::sagabus::__private::GivesUp> = ::std::option::Option::Some(#made);
        }
    });
    let fields = if kind == "Timer" { timer_fields(ident) } else { fields(input) };
    Ok(quote! {
        const _: () = #body;
        #implement {
            const TYPE: &'static str = #name;
            const KIND: ::sagabus::__private::MessageKind = ::sagabus::__private::MessageKind::#kind_name;
            type Outcome = #outcome;
            #(const ENDPOINT: ::std::option::Option<&'static str> = ::std::option::Option::Some(#endpoint);)*
            const CAN_WAIT: bool = #can_wait;
            #masked
            #(#gives_up)*
            fn __encode(&self) -> ::std::result::Result<::std::vec::Vec<u8>, ::std::string::String> {
                #[allow(unused_imports)]
                use ::sagabus::__private::NoJson as _;
                ::sagabus::__private::Json::<Self>::encode(self)
            }
            fn __decode(json: &[u8]) -> ::std::result::Result<Self, ::std::string::String> {
                #[allow(unused_imports)]
                use ::sagabus::__private::NoJson as _;
                ::sagabus::__private::Json::<Self>::decode(json)
            }
        }
        #fields
    })
}

/// Each field, so that a saga finds the one with its id.
fn fields(input: &DeriveInput) -> TokenStream {
    let syn::Data::Struct(syn::DataStruct { fields: syn::Fields::Named(fields), .. }) = &input.data else {
        return TokenStream::new();
    };
    let message = &input.ident;
    let each = fields.named.iter().filter_map(|field| {
        let (name, ty) = (field.ident.as_ref()?, &field.ty);
        let key = field_key(name);
        Some(quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl ::sagabus::__private::KeyField<#ty, #key> for #message {
                fn key(&self) -> ::std::option::Option<&#ty> { ::std::option::Option::Some(&self.#name) }
            }
        })
    });
    quote!(#(#each)*)
}

/// A timer needs none.
fn timer_fields(timer: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        #[diagnostic::do_not_recommend]
        impl<__T, const __NAME: u64> ::sagabus::__private::KeyField<__T, __NAME> for #timer {
            fn key(&self) -> ::std::option::Option<&__T> { ::std::option::Option::None }
        }
    }
}

/// The head of an impl. It has no conditions: a message without serde's traits gives one error, at the message. rustc
/// shall not list it where another type lacks the trait.
fn implement(ident: &Ident, name: &str) -> TokenStream {
    let name = format_ident!("{name}");
    quote! {
        #[automatically_derived]
        #[diagnostic::do_not_recommend]
        impl ::sagabus::__private::#name for #ident
    }
}

pub(crate) fn timer(input: &DeriveInput) -> syn::Result<TokenStream> {
    let message = message(input, &attributes(input, "message", "")?, "Timer")?;
    let (timer, cancellable) = (implement(&input.ident, "Timer"), implement(&input.ident, "Cancellable"));
    Ok(quote!(#message #timer {} #cancellable {}))
}

pub(crate) fn event(input: &DeriveInput) -> syn::Result<TokenStream> {
    let message = message(input, &attributes(input, "event", "from")?, "Event")?;
    let (answer, event) = (implement(&input.ident, "Answer"), implement(&input.ident, "Event"));
    Ok(quote!(#message #answer {} #event {}))
}

pub(crate) fn reply(input: &DeriveInput) -> syn::Result<TokenStream> {
    let message = message(input, &attributes(input, "reply", "from")?, "Reply")?;
    let answer = implement(&input.ident, "Answer");
    Ok(quote!(#message #answer {}))
}

pub(crate) fn command(input: &DeriveInput) -> syn::Result<TokenStream> {
    let found = attributes(input, "command", "to")?;
    let ident = &input.ident;
    let Some(to) = &found.namespace else {
        return Err(syn::Error::new_spanned(
            ident,
            "a command says which endpoint handles it: `#[command(to = \"endpoint\")]`",
        ));
    };
    if let Some(fault) = name_fault(&to.value()) {
        return Err(syn::Error::new_spanned(to, fault));
    }
    let message = message(input, &found, "Command")?;
    let (command, cancellable) = (implement(ident, "Command"), implement(ident, "Cancellable"));
    let queue = found.can_wait().then(|| format!("{}.low", to.value())); // as `endpoint::low` has it
    let queue = queue.map(|queue| quote!(const QUEUE: &'static str = #queue;));
    let given_up = found.gives_up.as_ref().map(|ty| quote!(#ty,));
    Ok(quote!(#message #command {
        const TO: &'static str = #to;
        #queue
        type GivenUp = (#given_up);
    } #cancellable {}))
}
