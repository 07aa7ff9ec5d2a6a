//! Attributes that are not ours.

use quote::ToTokens;
use syn::{Attribute, ext::IdentExt};

/// Those of Rust, of serde and of tracing.
const KNOWN: [&str; 21] = [
    "allow",
    "automatically_derived",
    "cfg_attr",
    "cold",
    "default",
    "deny",
    "deprecated",
    "derive",
    "doc",
    "expect",
    "forbid",
    "inline",
    "instrument",
    "must_use",
    "non_exhaustive",
    "optimize",
    "repr",
    "rustfmt",
    "serde",
    "track_caller",
    "warn",
];

/// Refuses `#[cfg(..)]`: the compiler takes away what it stands at later than the macro has read it.
pub(crate) fn no_cfg(attr: &Attribute, place: &str) -> syn::Result<()> {
    if attr.path().is_ident("cfg") {
        let fault = format!("`#[cfg(..)]` cannot stand {place}: put it at the whole enum or block, one for each case");
        return Err(syn::Error::new_spanned(attr, fault));
    }
    Ok(())
}

/// Refuses an attribute that is most likely one of `ours`, misspelt. One with a path is another macro's.
pub(crate) fn known(attr: &Attribute, place: &str, ours: &str) -> syn::Result<()> {
    let Some(name) = attr.path().get_ident().map(|name| name.unraw().to_string()) else { return Ok(()) };
    if KNOWN.contains(&name.as_str()) {
        return Ok(());
    }
    no_cfg(attr, place)?;
    let fault = format!(
        "`#[{name}]` is not known {place}. Known here: {ours}. Another macro's attribute is written with its path, \
         `#[its_crate::{name}]`"
    );
    Err(syn::Error::new_spanned(attr.to_token_stream(), fault))
}
