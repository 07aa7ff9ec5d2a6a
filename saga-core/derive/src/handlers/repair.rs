//! What is written of a handler that is wrong.

use super::surroundings;
use quote::quote;
use syn::{FnArg, ImplItemFn, Pat, ReturnType, Stmt, Type};

/// The signature of a function that is wrong, so that its body adds no errors to the one about it.
pub(super) fn repair(function: &mut ImplItemFn) {
    let (signature, ends) = (&mut function.sig, matches!(function.block.stmts.last(), Some(Stmt::Expr(_, None))));
    signature.asyncness.get_or_insert_with(Default::default);
    if let (ReturnType::Default, true, Some(FnArg::Typed(message))) =
        (&signature.output, ends, signature.inputs.iter().nth(1))
    {
        let outcome = match &*message.ty {
            Type::Reference(_) => quote!(()),
            message => quote!(<#message as ::sagabus::__private::Message>::Outcome),
        };
        signature.output = syn::parse_quote!(-> ::std::result::Result<#outcome, ::sagabus::__private::HandlerError>);
    }
    for input in &mut signature.inputs {
        let FnArg::Typed(typed) = input else { continue };
        if surroundings(&typed.ty).is_none() {
            continue;
        }
        match (&mut *typed.ty, &mut *typed.pat) {
            (Type::Reference(reference), _) => {
                reference.mutability.get_or_insert_with(Default::default);
            }
            (_, Pat::Ident(name)) => {
                name.mutability.get_or_insert_with(Default::default);
            }
            _ => {}
        }
    }
}
