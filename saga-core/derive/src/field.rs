//! `#[field]`: what operators find instances by.

use crate::masked;
use syn::{Attribute, Fields, Ident, Token, punctuated::Punctuated};

/// A field, or a field of one: `order.id`.
pub(crate) type Path = Punctuated<Ident, Token![.]>;

/// Each field is a row of its own, and an instance is listed with all of them.
const FIELDS_MAX: usize = 8;

pub(crate) fn is_mark(attr: &Attribute) -> bool {
    attr.path().is_ident("field")
}

/// The marked fields of a state.
pub(crate) fn marked(fields: &Fields) -> syn::Result<Vec<Path>> {
    let mut all = Vec::new();
    for field in fields {
        let Some(mark) = field.attrs.iter().find(|attr| is_mark(attr)) else { continue };
        let syn::Meta::Path(_) = &mark.meta else {
            return Err(syn::Error::new_spanned(mark, "`#[field]` stands alone"));
        };
        let Some(ident) = &field.ident else {
            let fault = "`#[field]` stands at a field with a name, which is written in the enum";
            return Err(syn::Error::new_spanned(mark, fault));
        };
        if field.attrs.iter().any(masked::is_mark) {
            return Err(is_masked(ident));
        }
        all.push(Path::from_iter([ident.clone()]));
    }
    Ok(all)
}

/// What is wrong with fields that an instance has beside these others, where these names are masked.
pub(crate) fn faults(others: &[Path], fields: &[Path], masked: &[String]) -> Vec<syn::Error> {
    let (mut seen, mut faults): (Vec<&Path>, _) = (others.iter().collect(), Vec::new());
    for path in fields {
        if seen.contains(&path) {
            let fault = "two fields of an instance have this name: operators find it by a name and a value";
            faults.push(syn::Error::new_spanned(path, fault));
            continue;
        }
        seen.push(path);
        if seen.len() == FIELDS_MAX + 1 {
            faults.push(syn::Error::new_spanned(path, format!("an instance has at most {FIELDS_MAX} fields")));
        }
        let hidden = path.first().filter(|first| masked.iter().any(|it| masked::is_same(it, first)));
        faults.extend(hidden.map(is_masked));
    }
    faults
}

fn is_masked(field: &Ident) -> syn::Error {
    let fault = format!("`{field}` is masked: what operators do not see is no field that they search by");
    syn::Error::new_spanned(field, fault)
}
