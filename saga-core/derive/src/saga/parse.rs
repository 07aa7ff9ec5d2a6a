//! The attributes of `#[saga]`, and the definition that they and the functions make.

use super::function::{Function, Of};
use crate::{
    Faults, name_fault,
    states::{Arguments, States},
    words::{each, quoted},
};
use proc_macro2::{Group, Span, TokenStream, TokenTree};
use syn::{
    Attribute, DeriveInput, Ident, LitInt, LitStr, Signature, Token, Type, braced, parenthesized,
    parse::{Parse, ParseStream},
};

mod keyword {
    syn::custom_keyword!(echo);
}

/// What `__saga!` is given.
pub(super) struct Both {
    pub(super) states: Arguments,
    pub(super) item: DeriveInput,
    /// The attribute's arguments and the functions, if the block is one of transitions.
    pub(super) block: Option<(syn::Result<SagaArguments>, Vec<Written>)>,
}

/// A function, with the attributes that are ours.
pub(super) type Written = (Vec<Attribute>, Signature);

impl Parse for Both {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let part = |input: ParseStream<'_>| {
            let content;
            braced!(content in input);
            content.parse::<TokenStream>()
        };
        let (states, item) = (part(input)?, part(input)?);
        if input.is_empty() {
            return Ok(Self { states: syn::parse2(states)?, item: syn::parse2(item)?, block: None });
        }
        let arguments = part(input)?;
        // the enum comes out of a macro: without that, errors at it do not tell of the macro
        let place = arguments.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
        let (states, item) = (syn::parse2(as_written(states, place))?, syn::parse2(as_written(item, place))?);
        let arguments = syn::parse2(arguments);
        let signatures;
        braced!(signatures in input);
        let mut functions = Vec::new();
        while !signatures.is_empty() {
            functions.push((Attribute::parse_outer(&signatures)?, signatures.parse()?));
            signatures.parse::<Token![;]>()?;
        }
        Ok(Self { states, item, block: Some((arguments, functions)) })
    }
}

/// Each token where it stands, as if it were written like `place`.
fn as_written(tokens: TokenStream, place: Span) -> TokenStream {
    let each = tokens.into_iter().map(|token| {
        let span = token.span().resolved_at(place);
        let mut token = match token {
            TokenTree::Group(group) => Group::new(group.delimiter(), as_written(group.stream(), place)).into(),
            other => other,
        };
        token.set_span(span);
        token
    });
    each.collect()
}

pub(super) use crate::field::Path;

/// Where a message that names no id itself has it.
pub(super) enum By {
    /// One path for each part of the id.
    Paths(Vec<Path>),
    /// In the envelope: it answers a command of the instance.
    Echo,
}

/// `reference = CardSettled.settled.reference`: a field of the data, and where a message has it.
pub(super) struct AliasOf {
    pub(super) field: Path,
    pub(super) message: Type,
    pub(super) path: Path,
}

/// `#[saga(name = "..", id = field: Type, version = 2, by(Message = path), alias(field = Message.path))]`.
pub(super) struct SagaArguments {
    name: LitStr,
    id: Vec<(Ident, Type)>,
    version: u32,
    by: Vec<(Type, By)>,
    aliases: Vec<AliasOf>,
}

/// What has been read of them.
#[derive(Default)]
struct Said {
    keys: Vec<String>,
    /// Words that are none of these.
    unknown: Vec<String>,
    name: Option<LitStr>,
    id: Option<Vec<(Ident, Type)>>,
    version: Option<u32>,
    by: Vec<(Type, By)>,
    aliases: Vec<AliasOf>,
}

impl Said {
    fn read(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let key: Ident = input.parse()?;
        let name = key.to_string();
        if name == "by" {
            self.by.extend(in_parentheses::<ByOf>(input)?.into_iter().map(|by| (by.0, by.1)));
            return Ok(());
        }
        if name == "alias" {
            self.aliases.extend(in_parentheses::<AliasOf>(input)?);
            return Ok(());
        }
        if self.keys.contains(&name) {
            return Err(syn::Error::new_spanned(key, "given twice"));
        }
        if !["name", "id", "version"].contains(&name.as_str()) {
            let known = "known here: `name = \"..\"`, `id = field: Type`, `version = 1`, `by(Message = path)`, \
                         `alias(field = Message.path)`";
            self.unknown.push(name);
            return Err(syn::Error::new_spanned(key, known));
        }
        self.keys.push(name.clone());
        input.parse::<Token![=]>()?;
        match name.as_str() {
            "name" => {
                let name = quoted("name", input)?;
                if let Some(fault) = name_fault(&name.value()) {
                    return Err(syn::Error::new_spanned(name, fault));
                }
                self.name = Some(name);
            }
            "id" => self.id = Some(id_fields(input)?),
            _ => self.version = Some(version_number(&input.parse()?)?),
        }
        Ok(())
    }

    /// What is missing, if it was not tried.
    fn missing(&self, key: &str, what: &str) -> Option<syn::Error> {
        // a word that begins alike was meant for it
        let meant = self.unknown.iter().any(|unknown| unknown.get(..1) == key.get(..1));
        let tried = meant || self.keys.iter().any(|said| said == key);
        (!tried).then(|| syn::Error::new(Span::call_site(), format!("a saga needs {what}")))
    }
}

impl Parse for SagaArguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut said, mut faults) = (Said::default(), Faults::default());
        each(input, &mut faults, |input| said.read(input))?;
        let missing = [("id", "its key: `id = order_id: Uuid`"), ("name", "`name = \"..\"`")];
        missing.into_iter().filter_map(|(key, what)| said.missing(key, what)).for_each(|error| faults.add(error));
        let Said { name, id, version, by, aliases, .. } = said;
        faults.or(name.zip(id).map(|(name, id)| Self { name, id, version: version.unwrap_or(1), by, aliases }))
    }
}

fn in_parentheses<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    let content;
    parenthesized!(content in input);
    let mut faults = Faults::default();
    let all = each(&content, &mut faults, T::parse)?;
    faults.or(Some(all))
}

/// `order_id: Uuid`, or `(tenant: Uuid, number: u64)`.
fn id_fields(input: ParseStream<'_>) -> syn::Result<Vec<(Ident, Type)>> {
    let field = |input: ParseStream<'_>| {
        let field: Ident = input.parse()?;
        if !input.peek(Token![:]) {
            return Err(syn::Error::new_spanned(&field, format!("the id has a type: `{field}: Uuid`")));
        }
        input.parse::<Token![:]>()?;
        Ok((field, input.parse()?))
    };
    if !input.peek(syn::token::Paren) {
        return Ok(vec![field(input)?]);
    }
    let content;
    let parts = parenthesized!(content in input);
    let fields = content.parse_terminated(field, Token![,])?;
    match fields.len() {
        1..=4 => Ok(fields.into_iter().collect()),
        _ => Err(syn::Error::new(parts.span.join(), "an id has one to four parts")),
    }
}

/// `LabelScanned = label.order`, `Scanned = (a.b, c)`, `Declined = echo`.
struct ByOf(Type, By);

impl Parse for ByOf {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let message: Type = input.parse()?;
        if !input.peek(Token![=]) {
            let fault = "say where the id is: `by(Message = path.to.the.id)` or `by(Message = echo)`";
            return Err(syn::Error::new_spanned(message, fault));
        }
        input.parse::<Token![=]>()?;
        if input.peek(keyword::echo) && !input.peek2(Token![.]) {
            input.parse::<keyword::echo>()?;
            return Ok(Self(message, By::Echo));
        }
        if !input.peek(syn::token::Paren) {
            return Ok(Self(message, By::Paths(vec![Path::parse_separated_nonempty(input)?])));
        }
        let content;
        parenthesized!(content in input);
        let paths = content.parse_terminated(Path::parse_separated_nonempty, Token![,])?;
        Ok(Self(message, By::Paths(paths.into_iter().collect())))
    }
}

impl Parse for AliasOf {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let form =
            "an alias is a field of the data and a field of a message: `alias(reference = CardSettled.reference)`";
        let field = Path::parse_separated_nonempty(input)?;
        if !input.peek(Token![=]) {
            return Err(syn::Error::new_spanned(field, form));
        }
        input.parse::<Token![=]>()?;
        let message: Type = input.parse()?;
        if !input.peek(Token![.]) {
            return Err(syn::Error::new_spanned(message, form));
        }
        input.parse::<Token![.]>()?;
        Ok(Self { field, message, path: Path::parse_separated_nonempty(input)? })
    }
}

/// Each version below may have a form of its own, which is asked for one by one.
const VERSION_MAX: u32 = 1000;

fn version_number(literal: &LitInt) -> syn::Result<u32> {
    let number = literal.base10_parse::<u32>().ok().filter(|number| (1..=VERSION_MAX).contains(number));
    number.ok_or_else(|| syn::Error::new_spanned(literal, format!("a version is a number from 1 to {VERSION_MAX}")))
}

/// A saga as it was written.
pub(super) struct Definition<'a> {
    pub(super) states: &'a States,
    pub(super) name: LitStr,
    pub(super) id: Vec<(Ident, Type)>,
    pub(super) version: u32,
    pub(super) by: Vec<(Type, By)>,
    pub(super) aliases: Vec<AliasOf>,
    pub(super) functions: Vec<Function>,
}

impl<'a> Definition<'a> {
    pub(super) fn new(states: &'a States, arguments: SagaArguments, functions: Vec<Function>) -> Self {
        let SagaArguments { name, id, version, by, aliases } = arguments;
        Self { states, name, id, version, by, aliases, functions }
    }

    /// The functions of this kind.
    pub(super) fn of_kind(&self, of: Of) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(move |function| function.of == of)
    }
}
