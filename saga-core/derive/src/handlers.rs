//! `#[handlers]`: a block of functions, each of which handles a message.

use crate::text;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Expr, FnArg, GenericArgument, Generics, ImplItem, ImplItemFn, ItemImpl, LitStr, PathArguments, Type,
    punctuated::Punctuated, spanned::Spanned,
};

pub(crate) fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let mut block: ItemImpl = syn::parse2(item)?;
    if let Some((_, name, _)) = &block.trait_ {
        return Err(syn::Error::new_spanned(
            name,
            "`#[handlers]` stands at a plain `impl YourHandlers`, not at a trait's",
        ));
    }
    let mut handlers = Vec::new();
    for item in &mut block.items {
        if let ImplItem::Fn(function) = item {
            handlers.push(Handler::of(function)?);
            function.attrs.retain(|attr| !attr.path().is_ident("handler"));
        }
    }
    let Some(first) = handlers.first() else {
        return Err(syn::Error::new_spanned(&block.self_ty, "a block of handlers has at least one function"));
    };
    for handler in &handlers[1..] {
        if (&handler.database, &handler.generics) != (&first.database, &first.generics) {
            let fault = format!(
                "`{}` and `{}` use different databases: the handlers of a block share one, `{}`",
                first.name,
                handler.name,
                text(&first.database)
            );
            return Err(syn::Error::new_spanned(&handler.database, fault));
        }
    }
    for (n, handler) in handlers.iter().enumerate() {
        if let Some(other) = handlers[..n].iter().find(|other| other.message == handler.message) {
            let message = text(&handler.message);
            let fault = format!(
                "`{}` and `{}` both handle `{message}`: a command has one handler; for an event, put the second one \
                 into a block of its own and name it, `#[handler(name = \"..\")]`",
                other.name, handler.name
            );
            return Err(syn::Error::new_spanned(&handler.message, fault));
        }
    }
    let (of, database) = (&block.self_ty, &first.database);
    let generics = merged(&block.generics, &first.generics);
    let (parameters, _, condition) = generics.split_for_impl();
    let impls = handlers.iter().map(|handler| handler.implement(of, &generics));
    let added = handlers.iter().map(Handler::add);
    Ok(quote! {
        #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_async)]
        #block
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(#impls)*
            #[automatically_derived]
            impl #parameters __sagabus::Handlers<#database> for #of #condition {
                fn __add(
                    self: ::std::sync::Arc<Self>,
                    builder: __sagabus::EndpointBuilder<#database>,
                ) -> __sagabus::EndpointBuilder<#database> {
                    builder #(#added)*
                }
            }
        };
    })
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

/// `#[handler(name = "..", retries = .., shares_transactions)]`.
#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    retries: Option<Expr>,
    shares_transactions: bool,
}

impl Handler {
    fn of(function: &ImplItemFn) -> syn::Result<Self> {
        let signature = &function.sig;
        let name = &signature.ident;
        let fault = |at: &dyn ToTokens, text: &str| {
            Err(syn::Error::new_spanned(at.to_token_stream(), format!("handler `{name}`: {text}")))
        };
        let shape = "it takes `&self`, the message, and its surroundings, `cx: &mut Context<'_, Postgres>`";
        if signature.asyncness.is_none() {
            return fault(&signature.fn_token, "a handler is an `async fn`");
        }
        let mut inputs = signature.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() && receiver.mutability.is_none() => {}
            _ => return fault(&signature.ident, shape),
        }
        let (Some(FnArg::Typed(message)), Some(FnArg::Typed(context)), None) =
            (inputs.next(), inputs.next(), inputs.next())
        else {
            return fault(&signature.ident, shape);
        };
        let (batch, message) = match &*message.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                match parameters(&reference.elem, "Batch").last() {
                    Some(message) => (true, *message),
                    None => return fault(&message.ty, "the message comes by value, or as `&mut Batch<'_, Message>`"),
                }
            }
            Type::Reference(_) => return fault(&message.ty, "the message comes by value"),
            by_value => (false, by_value),
        };
        let named = if batch { "BatchContext" } else { "Context" };
        let database = match &*context.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                parameters(&reference.elem, named).last().copied()
            }
            _ => None,
        };
        let Some(database) = database else {
            return fault(&context.ty, &format!("its surroundings are `&mut {named}<'_, Database>`"));
        };
        let syn::ReturnType::Type(_, result) = &signature.output else {
            return fault(
                &signature.ident,
                "it returns `Result<Outcome, HandlerError>`; for an event, `Result<(), ..>`",
            );
        };
        Ok(Self {
            name: name.clone(),
            message: message.clone(),
            batch,
            database: database.clone(),
            generics: signature.generics.clone(),
            later: Answer::of(result),
            result: result.to_token_stream(),
            options: Options::of(&function.attrs)?,
        })
    }

    fn implement(&self, of: &Type, generics: &Generics) -> TokenStream {
        let Self { name, message, batch, database, result, options, .. } = self;
        let (parameters, _, condition) = generics.split_for_impl();
        let label = options.name.as_ref().map(|name| quote!(fn name(&self) -> &'static str { #name }));
        let always = (self.later == Answer::Later).then(|| quote!(.map(__sagabus::Either::B)));
        let call = quote_spanned!(result.span()=> <#of>::#name(self, message, cx).await #always);
        let outcome = quote!(<#message as __sagabus::Message>::Outcome);
        let (implemented, taken, context, returned) = if *batch {
            let taken = quote!(&mut __sagabus::Batch<'_, #message>);
            (quote!(HandleBatch), taken, quote!(BatchContext), quote!(()))
        } else if self.later != Answer::Now {
            let returned = quote!(__sagabus::Either<#outcome, __sagabus::Later>);
            (quote!(HandleLater), quote!(#message), quote!(Context), returned)
        } else {
            (quote!(Handle), quote!(#message), quote!(Context), outcome)
        };
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

    fn add(&self) -> TokenStream {
        let Self { message, batch, options: Options { retries, shares_transactions, .. }, .. } = self;
        let add = match (batch, self.later) {
            (true, _) => quote!(__batch_handler),
            (false, Answer::Now) => quote!(__handler),
            (false, Answer::Later | Answer::Either) => quote!(__later_handler),
        };
        let retries = retries.as_ref().map(|retries| quote!(.retries(#retries)));
        let shares = shares_transactions.then(|| quote!(.shares_transactions()));
        let options = quote!(<__sagabus::HandlerOptions as ::std::default::Default>::default() #retries #shares);
        quote!(.#add::<#message>(::std::sync::Arc::clone(&self), #options))
    }
}

impl Options {
    fn of(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut options = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("handler")) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    options.name = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("retries") {
                    options.retries = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("shares_transactions") {
                    options.shares_transactions = true;
                } else {
                    return Err(
                        meta.error("known here: `name = \"..\"`, `retries = Retries::..`, `shares_transactions`")
                    );
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
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
