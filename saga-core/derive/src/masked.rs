//! `#[masked]`: fields that operators do not see.

use crate::field;
use quote::ToTokens;
use syn::{Attribute, Field, Fields, Ident, LitStr, ext::IdentExt};

/// Whether a masked name is that of a field, in whatever case JSON has it.
pub(crate) fn is_same(masked: &str, field: &Ident) -> bool {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    plain(masked) == plain(&field.unraw().to_string())
}

pub(crate) fn is_mark(attr: &Attribute) -> bool {
    attr.path().is_ident("masked")
}

/// What at a type makes its JSON another one than its fields.
const SHAPES: [&str; 4] = ["transparent", "into", "from", "try_from"];

/// The attributes of a field that are not ours.
pub(crate) fn others(field: &Field) -> impl Iterator<Item = &Attribute> {
    field.attrs.iter().filter(|attr| !is_mark(attr) && !field::is_mark(attr))
}

/// The marked fields, by the names that they have in JSON: serde's `rename`, `alias` and `rename_all` among them.
pub(crate) fn names(of: &[Attribute], fields: &Fields) -> syn::Result<Vec<String>> {
    let mut all = Vec::new();
    let how = serde(of, &["rename_all"])?;
    for field in fields {
        let Some(mark) = field.attrs.iter().find(|attr| is_mark(attr)) else { continue };
        let syn::Meta::Path(_) = &mark.meta else {
            return Err(syn::Error::new_spanned(mark, "`#[masked]` stands alone"));
        };
        let Some(ident) = &field.ident else {
            return Err(syn::Error::new_spanned(mark, "only a field with a name can be masked"));
        };
        let said = serde(&field.attrs, &["rename", "alias"])?;
        if let Some((key, _)) = how.iter().find(|(key, _)| SHAPES.contains(&key.as_str())) {
            let fault = format!("with `serde({key})` the JSON may have no such field: mask one of a type without it");
            return Err(syn::Error::new_spanned(mark, fault));
        }
        if let Some(hidden) = of.iter().chain(&field.attrs).find(|attr| attr.path().is_ident("cfg_attr")) {
            let fault = "a masked field's name in JSON must be plain to see: not below `cfg_attr`";
            return Err(syn::Error::new_spanned(hidden, fault));
        }
        if said.iter().any(|(key, _)| key == "flatten") {
            return Err(syn::Error::new_spanned(mark, "a flattened field has no name of its own to mask"));
        }
        let plain = ident.unraw().to_string();
        // one to write and one to read, if the two differ
        let cases = how.iter().filter(|(key, _)| key == "rename_all").filter_map(|(_, value)| value.as_deref());
        let cases: Vec<String> = cases.map(|how| cased(&plain, how)).collect();
        all.extend(if cases.is_empty() { vec![plain] } else { cases });
        all.extend(said.into_iter().filter_map(|(_, value)| value));
    }
    Ok(all)
}

/// What serde's attributes say: all their words, with the texts of those that are asked for.
fn serde(attributes: &[Attribute], wanted: &[&str]) -> syn::Result<Vec<(String, Option<String>)>> {
    let mut all = Vec::new();
    for attr in attributes.iter().filter(|attr| attr.path().is_ident("serde")) {
        attr.parse_nested_meta(|meta| {
            let key = meta.path.to_token_stream().to_string();
            if meta.input.peek(syn::token::Paren) {
                // `rename(serialize = "..", deserialize = "..")`
                return meta.parse_nested_meta(|inner| {
                    let value = inner.value()?.parse::<LitStr>()?.value();
                    all.push((key.clone(), wanted.contains(&key.as_str()).then_some(value)));
                    Ok(())
                });
            }
            let value = if meta.input.peek(syn::Token![=]) { Some(meta.value()?.parse::<syn::Expr>()?) } else { None };
            let text = value.and_then(|value| match value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            });
            let text = text.filter(|_| wanted.contains(&key.as_str()));
            all.push((key, text));
            Ok(())
        })?;
    }
    Ok(all)
}

/// A field's name as serde's `rename_all` writes it.
fn cased(name: &str, how: &str) -> String {
    let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
    let capital = |word: &&str| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + rest
    };
    match how {
        "camelCase" => {
            let rest: String = words.iter().skip(1).map(capital).collect();
            words.first().copied().unwrap_or_default().to_owned() + &rest
        }
        "PascalCase" => words.iter().map(capital).collect(),
        "kebab-case" => name.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => name.replace('_', "-").to_uppercase(),
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => name.to_uppercase(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(item: syn::ItemStruct) -> Vec<String> {
        names(&item.attrs, &item.fields).unwrap()
    }

    #[test]
    fn a_masked_field_is_found_by_every_name_that_its_json_may_have() {
        assert_eq!(
            of(syn::parse_quote!(
                struct M {
                    #[masked]
                    card: String,
                    open: u8,
                    #[masked]
                    r#type: u8,
                }
            )),
            ["card", "type"]
        );
        let renamed = of(syn::parse_quote!(
            struct M {
                #[masked]
                #[serde(default, rename = "cardNo", alias = "card_no")]
                card: String,
            }
        ));
        assert_eq!(renamed, ["card", "cardNo", "card_no"]);
        let cased = of(syn::parse_quote!(
            #[serde(rename_all = "camelCase")]
            struct M {
                #[masked]
                card_number: String,
            }
        ));
        assert_eq!(cased, ["cardNumber"]);
        let both = of(syn::parse_quote!(
            #[serde(rename_all(serialize = "camelCase", deserialize = "snake_case"))]
            struct M {
                #[masked]
                card_number: String,
            }
        ));
        assert_eq!(both, ["cardNumber", "card_number"]);
    }

    #[test]
    fn a_type_whose_json_has_other_fields_masks_none() {
        for how in ["transparent", "into = \"Wire\"", "from = \"Wire\"", "try_from = \"Wire\""] {
            let how: syn::Meta = syn::parse_str(&format!("serde({how})")).unwrap();
            let wrong: syn::ItemStruct = syn::parse_quote!(
                #[#how]
                struct M {
                    #[masked]
                    card: Card,
                }
            );
            assert!(names(&wrong.attrs, &wrong.fields).is_err(), "{}", how.to_token_stream());
            let open: syn::ItemStruct = syn::parse_quote!(
                #[#how]
                struct M {
                    card: Card,
                }
            );
            assert!(names(&open.attrs, &open.fields).is_ok(), "nothing is masked");
        }
        let wrong: syn::ItemStruct = syn::parse_quote!(
            struct M {
                #[masked]
                #[cfg_attr(unix, serde(rename = "cardNo"))]
                card: Card,
            }
        );
        assert!(names(&wrong.attrs, &wrong.fields).is_err(), "a name that cannot be seen");
    }

    #[test]
    fn what_cannot_be_masked_is_an_error() {
        let wrong: syn::ItemStruct = syn::parse_quote!(
            struct M {
                #[masked]
                #[serde(flatten)]
                card: Card,
            }
        );
        assert!(names(&wrong.attrs, &wrong.fields).is_err(), "flattened");
        let wrong: syn::ItemStruct = syn::parse_quote!(
            struct M {
                #[masked(all)]
                card: Card,
            }
        );
        assert!(names(&wrong.attrs, &wrong.fields).is_err(), "with an argument");
    }
}
