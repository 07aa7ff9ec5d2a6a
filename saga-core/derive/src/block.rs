//! An `impl` block whose functions need not parse: while somebody writes in one of them, an editor asks the macros what
//! is there, and an answer without the block would have nothing to offer.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::quote;
use syn::{ImplItem, ItemImpl};

/// The block and, if its functions do not parse, their bodies: the block has empty ones then.
pub(crate) fn parse(item: TokenStream) -> syn::Result<(ItemImpl, Vec<TokenTree>)> {
    syn::parse2(item.clone()).map(|block| (block, Vec::new())).or_else(|error| {
        let (item, bodies) = without_bodies(item);
        let block: ItemImpl = syn::parse2(item)?;
        let functions = block.items.iter().filter(|item| matches!(item, ImplItem::Fn(_))).count();
        if bodies.len() == functions { Ok((block, bodies)) } else { Err(error) }
    })
}

/// The functions of a block have their bodies again, as they were written.
pub(crate) fn restore(block: &mut ItemImpl, bodies: Vec<TokenTree>) {
    let mut bodies = bodies.into_iter();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        let Some(body) = bodies.next() else { break };
        let (attributes, visibility, signature) = (&function.attrs, &function.vis, &function.sig);
        *item = ImplItem::Verbatim(quote!(#(#attributes)* #visibility #signature #body));
    }
}

fn without_bodies(item: TokenStream) -> (TokenStream, Vec<TokenTree>) {
    let (mut tokens, mut bodies) = (item.into_iter().collect::<Vec<_>>(), Vec::new());
    if let Some(TokenTree::Group(block)) = tokens.last_mut() {
        let mut in_function = false;
        let each = block.stream().into_iter().map(|token| match &token {
            TokenTree::Ident(word) if word == "fn" => {
                in_function = true;
                token
            }
            TokenTree::Group(body) if in_function && body.delimiter() == Delimiter::Brace => {
                in_function = false;
                let empty = emptied(body, TokenStream::new());
                bodies.push(token);
                empty.into()
            }
            _ => token,
        });
        let content = each.collect();
        *block = emptied(block, content);
    }
    (tokens.into_iter().collect(), bodies)
}

/// The group where it stands, with other content.
fn emptied(group: &Group, content: TokenStream) -> Group {
    let mut other = Group::new(group.delimiter(), content);
    other.set_span(group.span());
    other
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;

    fn tokens(code: &str) -> TokenStream {
        code.parse().expect("these are tokens")
    }

    /// Without blanks, which differ with what has printed the tokens.
    fn plain(code: impl ToString) -> String {
        code.to_string().split_whitespace().collect()
    }

    /// `it.` is where a person waits for the fields.
    #[test]
    fn a_transition_that_is_being_written_keeps_its_tokens_and_the_other_transitions() {
        let block = "impl Process {
            fn placed(it: Placed) -> Waiting { Waiting { id: it.id } }
            #[when(Waiting)]
            fn paid(self, it: Paid) -> Done { Done { id: it. } }
        }";
        let expanded = crate::saga::block(&tokens(r#"name = "process", id = id: u64"#), tokens(block));
        let expanded = plain(expanded.expect("the block is one of transitions"));
        for part in [
            "fn placed(it: Placed) -> Waiting { Waiting { id: it.id } }",
            "fn paid(self, it: Paid) -> Done { Done { id: it. } }",
            "fn placed(it: Placed) -> Waiting;",
            "#[when(Waiting)] fn paid(self, it: Paid) -> Done;",
        ] {
            assert!(expanded.contains(&plain(part)), "`{part}` was expected in {expanded}");
        }
    }

    #[test]
    fn a_handler_that_is_being_written_keeps_its_tokens_and_the_other_handlers() {
        let block = "impl Payments {
            async fn pay<Db: Books>(&self, it: Pay, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> { cx. }
            async fn refund<Db: Books>(&self, it: Refund, _: &mut Context<'_, Db>) -> Result<(), HandlerError> {
                Ok(())
            }
        }";
        let expanded = plain(crate::handlers::expand(tokens(block)).expect("the block is one of handlers"));
        for part in ["-> Result<(), HandlerError> { cx. }", "{ Ok(()) }", "Handle<Pay,", "Handle<Refund,"] {
            assert!(expanded.contains(&plain(part)), "`{part}` was expected in {expanded}");
        }
    }

    #[test]
    fn a_block_that_is_none_is_told() {
        let told = super::parse(tokens("impl Process { fn paid: u8 }")).expect_err("this is no block");
        assert!(!told.to_string().is_empty());
    }
}
