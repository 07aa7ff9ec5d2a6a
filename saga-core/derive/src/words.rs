//! The words of an attribute, `key = value, key, ..`.

use crate::Faults;
use proc_macro2::{TokenStream, TokenTree};
use syn::{LitStr, Token, parse::ParseStream};

/// Those of a list that can be read, separated by commas; what is wrong with one hides no other.
pub(crate) fn each<T>(
    input: ParseStream<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(ParseStream<'_>) -> syn::Result<T>,
) -> syn::Result<Vec<T>> {
    let mut all = Vec::new();
    while !input.is_empty() {
        let one = read(input).and_then(|one| match input.is_empty() || input.peek(Token![,]) {
            true => Ok(one),
            false => Err(input.error("expected `,`")),
        });
        all.extend(faults.keep(one));
        rest(input)?;
        input.parse::<Option<Token![,]>>()?;
    }
    Ok(all)
}

/// What is left until the next comma.
pub(crate) fn rest(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    let mut rest = TokenStream::new();
    while !input.is_empty() && !input.peek(Token![,]) {
        rest.extend([input.parse::<TokenTree>()?]);
    }
    Ok(rest)
}

/// The text that stands after `key =`; of one without quotes, how it is written.
pub(crate) fn quoted(key: &str, input: ParseStream<'_>) -> syn::Result<LitStr> {
    if input.peek(LitStr) {
        return input.parse();
    }
    let found = rest(input)?;
    if found.is_empty() {
        return Err(input.error(format!("`{key}` is a text: `{key} = \"..\"`")));
    }
    let text = found.to_string().replace(' ', "");
    Err(syn::Error::new_spanned(found, format!("`{key}` is a text: write it in quotes, `{key} = \"{text}\"`")))
}
