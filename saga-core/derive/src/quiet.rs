//! Our own names stand nowhere.
//!
//! Code that we write stands at the user's tokens, so that rustc points there. An editor takes that the other way
//! round: asked about a type in a signature, it would tell of each function of ours that stands there as well. rustc
//! points from the first token of an expression to the last; where those are no names, names need no place. So such a
//! call has type parameters, if only `::<_>`.

use proc_macro2::{Group, Span, TokenStream, TokenTree};

/// Takes their places from the names of paths that begin with `::sagabus` or `__sagabus`.
pub(crate) fn quiet(tokens: TokenStream) -> TokenStream {
    let (mut ours, mut outer) = (false, Vec::new());
    // the two tokens before: `::` continues a path, and `->` closes no parameters
    let mut before = [' ', ' '];
    let quieted = tokens.into_iter().map(|token| {
        let now = match &token {
            TokenTree::Punct(punct) => punct.as_char(),
            TokenTree::Ident(_) => 'a',
            TokenTree::Group(_) | TokenTree::Literal(_) => ' ',
        };
        let [_, last] = before;
        let follows = before == [':', ':'];
        let token = match token {
            TokenTree::Group(group) => {
                let mut quieted = Group::new(group.delimiter(), quiet(group.stream()));
                quieted.set_span(group.span());
                TokenTree::Group(quieted)
            }
            TokenTree::Ident(mut ident) => {
                ours = ident == "__sagabus" || (follows && (ours || ident == "sagabus"));
                if ours {
                    ident.set_span(Span::call_site());
                }
                TokenTree::Ident(ident)
            }
            other => other,
        };
        match now {
            '<' => outer.push(std::mem::take(&mut ours)),
            '>' if last != '-' => ours = outer.pop().unwrap_or_default(),
            'a' | ':' => {}
            _ => ours = false,
        }
        before = [last, now];
        token
    });
    quieted.collect()
}
