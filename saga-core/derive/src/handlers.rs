//! `#[handlers]`: a block of functions, each of which handles a message.

mod lifetimes;
mod options;
mod repair;

use crate::{Faults, attributes, block, marker, quiet::quiet, text};
use options::Options;
use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use repair::repair;
use syn::{
    Attribute, FnArg, GenericArgument, Generics, ImplItem, ImplItemFn, ItemImpl, PathArguments, Signature, Type,
    punctuated::Punctuated, spanned::Spanned,
};

pub(crate) fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let (mut block, bodies) = block::parse(item)?;
    let mut faults = Faults::default();
    if let Some((_, name, _)) = &block.trait_ {
        let fault = "`#[handlers]` stands at a plain `impl YourHandlers`, not at a trait's";
        return Err(syn::Error::new_spanned(name, fault));
    }
    let functions = |item: &ImplItem| matches!(item, ImplItem::Fn(_));
    if !block.items.iter().any(functions) {
        faults.add(syn::Error::new_spanned(&block.self_ty, "a block of handlers has at least one function"));
    }
    let used = block.items.iter().find_map(database_of).map_or_else(|| "Database".into(), text);
    let mut handlers = Vec::new();
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            let handler = faults.keep(Handler::of(function, &used));
            if handler.is_none() {
                repair(function);
            }
            handlers.extend(handler);
            function
                .attrs
                .retain(|attr| !is_ours(attr) && faults.keep(attributes::known(attr, "at a handler", KNOWN)).is_some());
        }
    }
    agree(&handlers, &mut faults);
    let rest = match (handlers.first(), faults.told()) {
        (Some(first), None) => quiet(all(&block, first, &handlers)),
        (_, told) => {
            let fallback = fallback(&block);
            quote!(#told #fallback)
        }
    };
    block::restore(&mut block, bodies);
    Ok(quote! {
        #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_async)]
        #block
        #rest
    })
}

fn is_ours(attr: &Attribute) -> bool {
    attr.path().is_ident("handler")
}

const KNOWN: &str =
    "`#[handler(name = \"..\", retries = Retries::.., limit = \"..\", key = field, shares_transactions)]`";

/// What must hold between the handlers of a block.
fn agree(handlers: &[Handler], faults: &mut Faults) {
    for (n, handler) in handlers.iter().enumerate() {
        let first = &handlers[0];
        let (names, database) = (format!("`{}` and `{}`", first.name, handler.name), text(&first.database));
        if handler.database != first.database {
            let fault = format!("{names} use different databases: the handlers of a block share one, `{database}`");
            faults.add(syn::Error::new_spanned(&handler.database, fault));
        } else if handler.generics != first.generics {
            let of = first.generics.to_token_stream().to_string();
            let of = of.replace("< ", "<").replace(" >", ">").replace(" :", ":");
            let fault = format!(
                "{names} say different things of `{database}`: the handlers of a block share one database, and its \
                 conditions as `{}` has them, `{of}`",
                first.name
            );
            faults.add(syn::Error::new_spanned(&handler.name, fault));
        }
        if let Some(other) = handlers[..n].iter().find(|other| other.message == handler.message) {
            let message = text(&handler.message);
            let fault = format!(
                "`{}` and `{}` both handle `{message}`: a command has one handler; for an event, put the second one \
                 into a block of its own and name it, `#[handler(name = \"..\")]`",
                other.name, handler.name
            );
            faults.add(syn::Error::new_spanned(&handler.message, fault));
        }
    }
}

/// The database of a function, as far as it can be read: for the texts about other functions.
fn database_of(item: &ImplItem) -> Option<&Type> {
    let ImplItem::Fn(function) = item else { return None };
    function.sig.inputs.iter().find_map(|input| match input {
        FnArg::Typed(typed) => surroundings(&typed.ty),
        FnArg::Receiver(_) => None,
    })
}

/// The database of a context, in whatever way it is taken.
fn surroundings(ty: &Type) -> Option<&Type> {
    let ty = if let Type::Reference(reference) = ty { &reference.elem } else { ty };
    ["Context", "BatchContext"].into_iter().find_map(|name| parameters(ty, name).last().copied())
}

fn all(block: &ItemImpl, first: &Handler, handlers: &[Handler]) -> TokenStream {
    let (of, database) = (&block.self_ty, &first.database);
    let generics = merged(&block.generics, &first.generics);
    let (parameters, _, condition) = generics.split_for_impl();
    let checks = handlers.iter().enumerate().map(|(n, handler)| handler.check(n, of, &generics));
    let impls = handlers.iter().map(|handler| handler.implement(of, &generics));
    let added = handlers.iter().map(|handler| handler.add(of));
    quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #[allow(unused_imports)]
            use __sagabus::{AddsNone as _, NoMessage as _};
            #(#checks)*
            #(#impls)*
            #[automatically_derived]
            impl #parameters __sagabus::Handlers<#database> for #of #condition {
                fn __add(
                    self: ::std::sync::Arc<Self>,
                    builder: __sagabus::EndpointBuilder<#database>,
                ) -> __sagabus::EndpointBuilder<#database> {
                    #(#added)*
                    builder
                }
            }
        };
    }
}

/// What stands in for a block that is wrong, so that its uses add no errors to those that matter.
fn fallback(block: &ItemImpl) -> TokenStream {
    let of = &block.self_ty;
    let mut generics = block.generics.clone();
    generics.params.push(syn::parse_quote!(__Db: ::sagabus::__private::Store));
    let (parameters, _, condition) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #parameters ::sagabus::__private::Handlers<__Db> for #of #condition {
            fn __add(
                self: ::std::sync::Arc<Self>,
                _: ::sagabus::__private::EndpointBuilder<__Db>,
            ) -> ::sagabus::__private::EndpointBuilder<__Db> {
                ::std::unreachable!()
            }
        }
    }
}

struct Handler {
    name: syn::Ident,
    message: Type,
    batch: bool,
    database: Type,
    /// Of the function: its database, when it works on several.
    generics: Generics,
    result: TokenStream,
    later: Answer,
    options: Options,
}

/// When the handler answers.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Now,
    Later,
    /// It returns `Either<Outcome, Later>`.
    Either,
}

impl Answer {
    fn of(result: &Type) -> Self {
        let named = |name: &str| {
            parameters(result, "Result").first().copied().filter(|ok| last_ident(ok).is_some_and(|it| it == name))
        };
        if named("Later").is_some() {
            return Self::Later;
        }
        let second = named("Either").and_then(|either| parameters(either, "Either").last().copied());
        if second.is_some_and(|it| last_ident(it).is_some_and(|it| it == "Later")) { Self::Either } else { Self::Now }
    }
}

impl Handler {
    /// `used` is the database that the block uses.
    fn of(function: &ImplItemFn, used: &str) -> syn::Result<Self> {
        let mut faults = Faults::default();
        let options = faults.keep(Options::of(&function.attrs));
        let read = Self::read(&function.sig, used)
            .map_err(|(at, text)| syn::Error::new_spanned(at, format!("handler `{}`: {text}", function.sig.ident)));
        let handler = faults.keep(read);
        faults.or(handler.zip(options).map(|(handler, options)| Self { options, ..handler }))
    }

    /// What the signature says, or what is wrong with it and where.
    fn read(signature: &Signature, used: &str) -> Result<Self, (TokenStream, String)> {
        let name = &signature.ident;
        let fault = |at: &dyn ToTokens, text: &str| Err((at.to_token_stream(), text.to_owned()));
        if signature.asyncness.is_none() {
            return fault(&signature.fn_token, "a handler is an `async fn`");
        }
        let (message, context) = Self::inputs(signature, used)?;
        let (batch, message) = match message {
            Type::Reference(reference) if reference.mutability.is_some() => {
                match parameters(&reference.elem, "Batch").last() {
                    Some(message) => (true, *message),
                    None => return fault(message, "the message comes by value, or as `&mut Batch<'_, Message>`"),
                }
            }
            Type::Reference(_) => return fault(message, "the message comes by value"),
            by_value => (false, by_value),
        };
        let named = if batch { "BatchContext" } else { "Context" };
        let database = match context {
            Type::Reference(reference) if reference.mutability.is_some() => {
                parameters(&reference.elem, named).last().copied()
            }
            _ => None,
        };
        let Some(database) = database else {
            return fault(context, &format!("its surroundings are `&mut {named}<'_, {used}>`"));
        };
        let syn::ReturnType::Type(_, result) = &signature.output else {
            return fault(name, "it returns `Result<Outcome, HandlerError>`; for an event, `Result<(), ..>`");
        };
        lifetimes::check(signature, result, used)?;
        Ok(Self {
            name: name.clone(),
            message: message.clone(),
            batch,
            database: database.clone(),
            generics: lifetimes::without(&signature.generics),
            later: Answer::of(result),
            result: result.to_token_stream(),
            options: Options::default(),
        })
    }

    /// The message and the surroundings, or the part that is missing.
    fn inputs<'a>(signature: &'a Signature, used: &str) -> Result<(&'a Type, &'a Type), (TokenStream, String)> {
        let Signature { ident, inputs, .. } = signature;
        let fault = |at: &dyn ToTokens, text: &str| Err((at.to_token_stream(), text.to_owned()));
        match inputs.first() {
            Some(FnArg::Receiver(it)) if it.reference.is_none() || it.mutability.is_some() => {
                return fault(it, "it takes `&self`: several messages are handled at the same time");
            }
            Some(FnArg::Receiver(_)) => {}
            _ => return fault(ident, &format!("`&self` is missing: `async fn {ident}(&self, ..)`")),
        }
        let typed = inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        });
        match typed.collect::<Vec<_>>().as_slice() {
            [message, context] => Ok((*message, *context)),
            [] => fault(ident, "the message and its surroundings are missing: `&self, message: Message, ..`"),
            [one] if surroundings(one).is_some() => {
                fault(ident, "the message is missing: it stands between `&self` and the surroundings")
            }
            [_] => fault(ident, &format!("its surroundings are missing: `cx: &mut Context<'_, {used}>` comes last")),
            [_, .., last] => {
                let many = inputs.iter().nth(2).map_or_else(|| last.to_token_stream(), ToTokens::to_token_stream);
                fault(&many, "a parameter too many: it takes `&self`, the message, and its surroundings")
            }
        }
    }

    /// What it returns, if it answers by that: the type that its message asks for.
    fn returned(&self) -> Option<TokenStream> {
        let message = &self.message;
        let outcome = quote!(<#message as __sagabus::Message>::Outcome);
        match (self.batch, self.later) {
            (true, _) | (_, Answer::Later) => None,
            (_, Answer::Now) => Some(outcome),
            (_, Answer::Either) => Some(quote!(__sagabus::Either<#outcome, __sagabus::Later>)),
        }
    }

    /// The one place that asks whether it handles a message and returns its outcome. A function, because the types may
    /// have parameters.
    fn check(&self, n: usize, of: &Type, generics: &Generics) -> TokenStream {
        let Self { name, message, result, .. } = self;
        let (checked, result) = (format_ident!("__check_{n}"), without_self(result.clone(), of));
        // the name hides no module that the types begin with
        let hides = mentions(&quote!(#of #message #result), name);
        let marker = marker(&if hides { format_ident!("{name}_") } else { name.clone() });
        // a batch of what is none is refused where it stands
        let is_message =
            (!self.batch).then(|| quote_spanned!(message.span()=> ::sagabus::__private::is_message::<#message>();));
        let answered = match self.later {
            Answer::Either => format_ident!("answered_or_later", span = result.span()),
            Answer::Now | Answer::Later => format_ident!("answered", span = result.span()),
        };
        let answers = self.returned().map(|_| {
            quote_spanned!(result.span()=> ::sagabus::__private::Of::<#message>::#answered::<#result, #of, #marker>())
        });
        let mut generics = generics.clone();
        generics.params.push(syn::parse_quote!(#marker));
        let (parameters, _, condition) = generics.split_for_impl();
        quote! {
            #[allow(dead_code, non_camel_case_types, clippy::extra_unused_type_parameters)]
            fn #checked #parameters() #condition {
                #is_message
                #answers
            }
        }
    }

    fn implement(&self, of: &Type, generics: &Generics) -> TokenStream {
        let Self { name, message, batch, database, result, options, later, .. } = self;
        let label = options.name.as_ref().map(|name| quote!(fn name(&self) -> &'static str { #name }));
        let call = quote_spanned!(result.span()=> <#of>::#name(self, message, cx).await);
        let (returned, call) = match (self.returned(), later) {
            (Some(returned), _) => (returned, quote!(__sagabus::AnswersFor::answer(#call))),
            (None, Answer::Later) if !batch => {
                let outcome = quote!(<#message as __sagabus::Message>::Outcome);
                let always = quote_spanned!(result.span()=> #call.map(__sagabus::Either::B));
                (quote!(__sagabus::Either<#outcome, __sagabus::Later>), always)
            }
            (None, _) => (quote!(()), call),
        };
        let (implemented, taken, context) = match (batch, later) {
            (true, _) => (quote!(HandleBatch), quote!(&mut __sagabus::Batch<'_, #message>), quote!(BatchContext)),
            (false, Answer::Now) => (quote!(Handle), quote!(#message), quote!(Context)),
            (false, _) => (quote!(HandleLater), quote!(#message), quote!(Context)),
        };
        // where they do not hold, `check` has the error, and this is not used
        let mut conditions = generics.clone();
        let condition = conditions.make_where_clause();
        condition.predicates.push(syn::parse_quote!(for<'__x> #message: __sagabus::MessageFor<'__x>));
        if self.returned().is_some() {
            condition.predicates.push(syn::parse_quote!(for<'__x> #result: __sagabus::AnswersFor<'__x, #returned>));
        }
        let (parameters, _, condition) = conditions.split_for_impl();
        quote! {
            #[__sagabus::async_trait]
            impl #parameters __sagabus::#implemented<#message, #database> for #of #condition {
                async fn handle(
                    &self,
                    message: #taken,
                    cx: &mut __sagabus::#context<'_, #database>,
                ) -> ::std::result::Result<#returned, __sagabus::HandlerError> {
                    #call
                }
                #label
            }
        }
    }

    fn add(&self, of: &Type) -> TokenStream {
        let Self { message, batch, database, options, .. } = self;
        let add = match (batch, self.later) {
            (true, _) => quote!(batch_handler),
            (false, Answer::Now) => quote!(handler),
            (false, Answer::Later | Answer::Either) => quote!(later_handler),
        };
        let Options { retries, limit, key, shares_transactions, .. } = options;
        let retries = retries.as_ref().map(|retries| quote!(.retries(#retries)));
        let limit = limit.as_ref().map(|limit| quote!(.limit(#limit)));
        let key = key.as_ref().map(|key| {
            let read = quote_spanned!(key.span()=> |message| ::std::string::ToString::to_string(&message.#key));
            quote!(.key::<#message, _>(#read))
        });
        let shares = shares_transactions.then(|| quote!(.shares_transactions()));
        let options =
            quote!(<__sagabus::HandlerOptions as ::std::default::Default>::default() #retries #limit #key #shares);
        quote!(let builder = __sagabus::Adds::<#of, #message, #database>::#add(builder, &self, #options);)
    }
}

/// `Self` is no type in a function that stands alone.
fn without_self(tokens: TokenStream, of: &Type) -> TokenStream {
    let each = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => of.to_token_stream(),
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), without_self(group.stream(), of));
            inner.set_span(group.span());
            TokenTree::Group(inner).into()
        }
        other => other.into(),
    });
    each.collect()
}

fn mentions(tokens: &TokenStream, name: &syn::Ident) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(&group.stream(), name),
        _ => false,
    })
}

fn last_ident(ty: &Type) -> Option<&syn::Ident> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().map(|last| &last.ident)
}

/// The type parameters of a type with this name; none when it has another name, or no parameters.
fn parameters<'a>(ty: &'a Type, name: &str) -> Vec<&'a Type> {
    let Type::Path(path) = ty else { return Vec::new() };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == name) else { return Vec::new() };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// The parameters of the block and of its functions.
fn merged(block: &Generics, function: &Generics) -> Generics {
    let mut all = block.clone();
    all.params.extend(function.params.iter().cloned());
    if let Some(condition) = &function.where_clause {
        let predicates: Punctuated<_, _> = condition.predicates.clone();
        all.make_where_clause().predicates.extend(predicates);
    }
    all
}
