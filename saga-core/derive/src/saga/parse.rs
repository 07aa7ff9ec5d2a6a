//! The attributes of a saga as they stand in the source.

use crate::{each_of_its_own, name_fault, single_field, variants, without_parameters};
use syn::{
    Attribute, DeriveInput, Ident, LitInt, LitStr, Token, Type, Visibility,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

mod keyword {
    syn::custom_keyword!(by);
    syn::custom_keyword!(echo);
    syn::custom_keyword!(from);
    syn::custom_keyword!(anyone);
}

/// `Message`, `Message by field.path`, `Message by echo`, each perhaps with `from anyone`.
pub(super) struct Listed {
    pub(super) message: Type,
    pub(super) by: Option<By>,
    pub(super) anyone: bool,
}

/// Where the instance's id stands, when a message says so.
#[derive(Clone, PartialEq)]
pub(super) enum By {
    Path(Punctuated<Ident, Token![.]>),
    Echo,
}

impl Parse for Listed {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut listed = Self { message: input.parse()?, by: None, anyone: false };
        while !input.is_empty() && !input.peek(Token![,]) {
            if listed.by.is_none() && input.peek(keyword::by) {
                listed.by = Some(By::parse(input)?);
            } else if !listed.anyone && input.peek(keyword::from) && input.peek2(keyword::anyone) {
                input.parse::<keyword::from>()?;
                input.parse::<keyword::anyone>()?;
                listed.anyone = true;
            } else {
                return Err(input.error("known after a message: `by field.path` or `by echo`, and `from anyone`"));
            }
        }
        Ok(listed)
    }
}

impl By {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.parse::<keyword::by>()?;
        if input.peek(keyword::echo) && !input.peek2(Token![.]) {
            input.parse::<keyword::echo>()?;
            return Ok(Self::Echo);
        }
        Ok(Self::Path(Punctuated::parse_separated_nonempty(input)?))
    }
}

/// `#[saga(name = "..", id = field: Type, version = 2)]`.
struct SagaAttribute {
    name: LitStr,
    id: Ident,
    id_type: Type,
    version: u32,
}

impl Parse for SagaAttribute {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut name, mut id, mut version) = (None, None, None);
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "name" if name.is_none() => name = Some(input.parse()?),
                "id" if id.is_none() => {
                    let field: Ident = input.parse()?;
                    input.parse::<Token![:]>()?;
                    id = Some((field, input.parse()?));
                }
                "version" if version.is_none() => version = Some(version_number(&input.parse()?)?),
                "name" | "id" | "version" => return Err(syn::Error::new_spanned(key, "given twice")),
                _ => {
                    let known = "known here: `name = \"..\"`, `id = field: Type`, `version = 1`";
                    return Err(syn::Error::new_spanned(key, known));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what: &str| input.error(format!("a saga needs {what}"));
        let (id, id_type) = id.ok_or_else(|| missing("its key: `id = order_id: Uuid`"))?;
        let name: LitStr = name.ok_or_else(|| missing("`name = \"..\"`"))?;
        if let Some(fault) = name_fault(&name.value()) {
            return Err(syn::Error::new_spanned(name, fault));
        }
        Ok(Self { name, id, id_type, version: version.unwrap_or(1) })
    }
}

/// The tables store a version in 31 bits.
fn version_number(literal: &LitInt) -> syn::Result<u32> {
    let number = literal.base10_parse::<u32>().ok().filter(|number| (1..=i32::MAX as u32).contains(number));
    number.ok_or_else(|| syn::Error::new_spanned(literal, format!("a version is a number from 1 to {}", i32::MAX)))
}

/// A saga as it was written.
pub(super) struct Definition<'a> {
    pub(super) ident: &'a Ident,
    pub(super) visibility: &'a Visibility,
    pub(super) name: LitStr,
    pub(super) id: Ident,
    pub(super) id_type: Type,
    pub(super) version: u32,
    pub(super) starts: Vec<Listed>,
    /// Taken in every state that is not done and does not list them itself.
    pub(super) anywhere: Taken,
    pub(super) states: Vec<State<'a>>,
}

/// What `#[on(..)]` and `#[timer(..)]` list.
pub(super) struct Taken {
    pub(super) on: Vec<Listed>,
    pub(super) timers: Vec<Type>,
}

/// One variant.
pub(super) struct State<'a> {
    pub(super) ident: &'a Ident,
    pub(super) ty: &'a Type,
    pub(super) done: bool,
    pub(super) takes: Taken,
    pub(super) ignores: Vec<Listed>,
    pub(super) defers: Vec<Listed>,
    pub(super) rejects: Vec<Listed>,
}

impl<'a> Definition<'a> {
    pub(super) fn of(input: &'a DeriveInput) -> syn::Result<Self> {
        let ident = &input.ident;
        without_parameters(input, "a saga", "its instances are stored under one name")?;
        misplaced(&input.attrs, &["done", "ignores", "defers", "rejects"], "belongs to a state, not to the enum")?;
        let mut attributes = input.attrs.iter().filter(|attr| attr.path().is_ident("saga"));
        let attribute = attributes.next().ok_or_else(|| {
            syn::Error::new_spanned(ident, "a saga needs `#[saga(name = \"..\", id = order_id: Uuid)]`")
        })?;
        if let Some(second) = attributes.next() {
            return Err(syn::Error::new_spanned(second, "a saga has one `#[saga(..)]`"));
        }
        let SagaAttribute { name, id, id_type, version } = attribute.parse_args()?;
        let starts = listed(&input.attrs, "starts")?;
        if starts.is_empty() {
            return Err(syn::Error::new_spanned(ident, "a saga begins with a message: `#[starts(OrderPlaced)]`"));
        }
        let variants = variants(input, "a saga")?;
        each_of_its_own(variants, "each state needs a struct of its own")?;
        let states = variants.iter().map(State::of).collect::<syn::Result<_>>()?;
        let anywhere = Taken::of(&input.attrs)?;
        Ok(Self { ident, visibility: &input.vis, name, id, id_type, version, starts, anywhere, states })
    }
}

impl<'a> State<'a> {
    fn of(variant: &'a syn::Variant) -> syn::Result<Self> {
        let attrs = &variant.attrs;
        misplaced(attrs, &["saga", "starts"], "belongs to the enum, not to a state")?;
        misplaced(attrs, &["ignore"], "is Rust's own attribute, for tests: write `#[ignores(..)]`")?;
        Ok(Self {
            ident: &variant.ident,
            ty: single_field(variant)?,
            done: attrs.iter().any(|attr| attr.path().is_ident("done")),
            takes: Taken::of(attrs)?,
            ignores: listed(attrs, "ignores")?,
            defers: listed(attrs, "defers")?,
            rejects: listed(attrs, "rejects")?,
        })
    }
}

impl Taken {
    fn of(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut timers = Vec::new();
        for timer in listed(attrs, "timer")? {
            if timer.by.is_some() || timer.anyone {
                let rule = "a timer comes back to the instance that set it: no `by` and no `from`";
                return Err(syn::Error::new_spanned(timer.message, rule));
            }
            timers.push(timer.message);
        }
        Ok(Self { on: listed(attrs, "on")?, timers })
    }

    /// Every message in it.
    pub(super) fn types(&self) -> impl Iterator<Item = &Type> {
        self.on.iter().map(|listed| &listed.message).chain(&self.timers)
    }
}

fn listed(attrs: &[Attribute], name: &str) -> syn::Result<Vec<Listed>> {
    let mut all = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        all.extend(attr.parse_args_with(Punctuated::<Listed, Token![,]>::parse_terminated)?);
    }
    Ok(all)
}

fn misplaced(attrs: &[Attribute], names: &[&str], why: &str) -> syn::Result<()> {
    for attr in attrs {
        if let Some(name) = names.iter().find(|name| attr.path().is_ident(name)) {
            return Err(syn::Error::new_spanned(attr, format!("`#[{name}]` {why}")));
        }
    }
    Ok(())
}
