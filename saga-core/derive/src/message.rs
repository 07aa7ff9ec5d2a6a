//! `Message`, `Event`, `Reply`, `Command`.

use crate::{
    Faults, field_key, masked, name_fault, without_parameters,
    words::{each, quoted},
};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Ident, LitStr, Token, Type, ext::IdentExt, parse::ParseStream, spanned::Spanned};

#[derive(Default)]
struct Attributes {
    name: Option<LitStr>,
    namespace: Option<LitStr>,
    outcome: Option<Type>,
    gives_up: Option<Type>,
    priority: Option<Ident>,
}

/// Reads `#[attribute(name = "..", <namespace> = "..", outcome = Type)]`, as far as it can be read.
fn attributes(input: &DeriveInput, attribute: &str, namespace: &str, faults: &mut Faults) -> Attributes {
    let mut found = Attributes::default();
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident(attribute)) {
        let mut wrong = Faults::default();
        let read = |input: ParseStream<'_>| each(input, &mut wrong, |input| found.read(input, attribute, namespace));
        faults.keep(attr.parse_args_with(read));
        wrong.0.into_iter().for_each(|error| faults.add(error));
    }
    found
}

fn set<T>(slot: &mut Option<T>, key: &Ident, value: syn::Result<T>) -> syn::Result<()> {
    if slot.is_some() {
        return Err(syn::Error::new_spanned(key, "given twice"));
    }
    *slot = Some(value?);
    Ok(())
}

fn text(key: &Ident, input: ParseStream<'_>) -> syn::Result<LitStr> {
    input.parse::<Token![=]>()?;
    quoted(&key.to_string(), input)
}

/// The value after `=`.
fn value<T: syn::parse::Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

impl Attributes {
    fn read(&mut self, input: ParseStream<'_>, attribute: &str, namespace: &str) -> syn::Result<()> {
        let key = input.call(Ident::parse_any)?;
        if key == "name" {
            set(&mut self.name, &key, text(&key, input))
        } else if key == namespace {
            set(&mut self.namespace, &key, text(&key, input))
        } else if attribute == "command" && key == "outcome" {
            set(&mut self.outcome, &key, value(input))
        } else if attribute == "command" && key == "gives_up" {
            set(&mut self.gives_up, &key, value(input))
        } else if attribute == "command" && key == "priority" {
            if input.peek2(LitStr) {
                let text = value::<LitStr>(input)?;
                return Err(syn::Error::new_spanned(text, "a priority is `low` or `normal`, without quotes"));
            }
            set(&mut self.priority, &key, value(input))?;
            match &self.priority {
                Some(priority) if priority != "low" && priority != "normal" => {
                    Err(syn::Error::new_spanned(priority, "a priority is `low` or `normal`"))
                }
                _ => Ok(()),
            }
        } else {
            // most likely a word misspelt: with the outcome that was meant, its handler adds no error to this one
            let is_outcome = attribute == "command" && key.to_string().starts_with('o') && self.outcome.is_none();
            self.outcome = if is_outcome { value(input).ok() } else { self.outcome.take() };
            Err(syn::Error::new_spanned(
                key,
                match attribute {
                    "command" => {
                        "known here: `to = \"endpoint\"`, `outcome = Type`, `gives_up = Type`, `priority = low`, \
                         `name = \"..\"`"
                    }
                    "event" | "reply" => "known here: `from = \"service\"`, `name = \"..\"`",
                    _ => "known here: `name = \"..\"`",
                },
            ))
        }
    }

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

/// The message, with what its kind adds to it; if it is wrong, what stands in for it.
fn kind(
    input: &DeriveInput,
    kind: &str,
    (attribute, namespace): (&str, &str),
    more: impl FnOnce(&Attributes) -> syn::Result<TokenStream>,
) -> syn::Result<TokenStream> {
    let mut faults = Faults::default();
    let found = attributes(input, attribute, namespace, &mut faults);
    if faults.is_empty() {
        let whole = more(&found).and_then(|more| Ok((message(input, &found, kind)?, more)));
        if let Some((message, more)) = faults.keep(whole) {
            return Ok(quote!(#message #more));
        }
    }
    let (told, stand_in) = (faults.told(), stand_in(input, &found, kind));
    Ok(quote!(#told #stand_in))
}

pub(crate) fn timer(input: &DeriveInput) -> syn::Result<TokenStream> {
    kind(input, "Timer", ("message", ""), |_| {
        let (timer, cancellable) = (implement(&input.ident, "Timer"), implement(&input.ident, "Cancellable"));
        Ok(quote!(#timer {} #cancellable {}))
    })
}

pub(crate) fn event(input: &DeriveInput) -> syn::Result<TokenStream> {
    kind(input, "Event", ("event", "from"), |_| {
        let (answer, event) = (implement(&input.ident, "Answer"), implement(&input.ident, "Event"));
        Ok(quote!(#answer {} #event {}))
    })
}

pub(crate) fn reply(input: &DeriveInput) -> syn::Result<TokenStream> {
    kind(input, "Reply", ("reply", "from"), |_| {
        let answer = implement(&input.ident, "Answer");
        Ok(quote!(#answer {}))
    })
}

pub(crate) fn command(input: &DeriveInput) -> syn::Result<TokenStream> {
    kind(input, "Command", ("command", "to"), |found| {
        let ident = &input.ident;
        let Some(to) = &found.namespace else {
            let fault = "a command says which endpoint handles it: `#[command(to = \"endpoint\")]`";
            return Err(syn::Error::new_spanned(ident, fault));
        };
        if let Some(fault) = name_fault(&to.value()) {
            return Err(syn::Error::new_spanned(to, fault));
        }
        let (command, cancellable) = (implement(ident, "Command"), implement(ident, "Cancellable"));
        let queue = found.can_wait().then(|| format!("{}.low", to.value())); // as `endpoint::low` has it
        let queue = queue.map(|queue| quote!(const QUEUE: &'static str = #queue;));
        let given_up = found.gives_up.as_ref().map(|ty| quote!(#ty,));
        Ok(quote!(#command {
            const TO: &'static str = #to;
            #queue
            type GivenUp = (#given_up);
        } #cancellable {}))
    })
}

/// What stands in for a message that is wrong, so that its uses add no errors to those that matter.
fn stand_in(input: &DeriveInput, found: &Attributes, kind: &str) -> TokenStream {
    let (ident, kind_name, generics) = (&input.ident, format_ident!("{kind}"), &input.generics);
    let (parameters, arguments, condition) = generics.split_for_impl();
    let outcome = found.outcome.as_ref().map_or_else(|| quote!(()), |outcome| quote!(#outcome));
    // its parameters have no bounds, and a message is sent
    let mut with_bounds = generics.clone();
    with_bounds.make_where_clause().predicates.push(syn::parse_quote!(Self: Send + Sync + 'static));
    let bounds = if generics.params.is_empty() { condition } else { with_bounds.where_clause.as_ref() };
    let head = |name: &str| {
        let name = format_ident!("{name}");
        quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl #parameters ::sagabus::__private::#name for #ident #arguments #bounds
        }
    };
    let more = match kind {
        "Timer" => vec![("Timer", quote!()), ("Cancellable", quote!())],
        "Event" => vec![("Answer", quote!()), ("Event", quote!())],
        "Reply" => vec![("Answer", quote!())],
        _ => vec![
            (
                "Command",
                quote!(
                    const TO: &'static str = "";
                    type GivenUp = ();
                ),
            ),
            ("Cancellable", quote!()),
        ],
    };
    let more = more.into_iter().map(|(name, items)| {
        let head = head(name);
        quote!(#head { #items })
    });
    let fields = match (kind, generics.params.is_empty()) {
        (_, false) => quote!(),
        ("Timer", _) => timer_fields(ident),
        _ => fields(input),
    };
    let message = head("Message");
    quote! {
        #message {
            const TYPE: &'static str = "";
            const KIND: ::sagabus::__private::MessageKind = ::sagabus::__private::MessageKind::#kind_name;
            type Outcome = #outcome;
            fn __encode(&self) -> ::std::result::Result<::std::vec::Vec<u8>, ::std::string::String> {
                ::std::unreachable!()
            }
            fn __decode(_: &[u8]) -> ::std::result::Result<Self, ::std::string::String> { ::std::unreachable!() }
        }
        #(#more)*
        #fields
    }
}
