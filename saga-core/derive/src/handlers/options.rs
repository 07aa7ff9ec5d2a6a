//! The options of a handler.

use super::is_ours;
use crate::words::quoted;
use proc_macro2::Ident;
use syn::{Attribute, Expr, LitStr, Token, punctuated::Punctuated};

/// `#[handler(name = "..", retries = .., limit = "..", key = field, shares_transactions)]`.
#[derive(Default)]
pub(super) struct Options {
    pub(super) name: Option<LitStr>,
    pub(super) retries: Option<Expr>,
    pub(super) limit: Option<LitStr>,
    /// `order.customer`
    pub(super) key: Option<Punctuated<Ident, Token![.]>>,
    pub(super) shares_transactions: bool,
}

impl Options {
    pub(super) fn of(attrs: &[Attribute]) -> syn::Result<Self> {
        let mut options = Self::default();
        for attr in attrs.iter().filter(|attr| is_ours(attr)) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    options.name = Some(quoted("name", meta.value()?)?);
                } else if meta.path.is_ident("retries") {
                    options.retries = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("limit") {
                    options.limit = Some(quoted("limit", meta.value()?)?);
                } else if meta.path.is_ident("key") {
                    options.key = Some(Punctuated::parse_separated_nonempty(meta.value()?)?);
                } else if meta.path.is_ident("shares_transactions") {
                    options.shares_transactions = true;
                } else {
                    return Err(meta.error(
                        "known here: `name = \"..\"`, `retries = Retries::..`, `limit = \"..\"`, `key = field`, \
                         `shares_transactions`",
                    ));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}
