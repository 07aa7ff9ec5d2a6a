//! The fields of the data and of the states by which operators find instances.

use super::{Emit, alias::place};
use crate::{
    saga::{parse::Path, pieces::dotted},
    states::State,
};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Ident;

impl Emit<'_> {
    /// What an instance has. Nothing where no field is one: the trait says so.
    pub(super) fn fields(&self) -> TokenStream {
        let states = self.definition.states;
        let own: Vec<&State> = states.states.iter().filter(|state| !state.found_by.is_empty()).collect();
        if states.found_by.is_empty() && own.is_empty() {
            return TokenStream::new();
        }
        let of_data = states.found_by.iter().map(|path| value(path, "data"));
        let arms = own.iter().map(|State { ident, found_by, .. }| {
            let each = found_by.iter().map(|path| value(path, "state"));
            quote!(Self::#ident(state) => fields.extend([#(#each),*]))
        });
        let arms: Vec<_> = arms.collect();
        // what is unreachable or says nothing would be a warning in the user's build
        let rest = (arms.len() < states.states.len()).then(|| quote!(_ => {}));
        let all = match arms.is_empty() {
            true => quote!(::std::vec![#(#of_data),*]),
            false => quote! {
                let mut fields = ::std::vec![#(#of_data),*];
                match self { #(#arms,)* #rest }
                fields
            },
        };
        quote! {
            #[allow(unused_variables)]
            fn __fields(
                &self,
                data: &<Self as __sagabus::Saga>::Data,
            ) -> ::std::vec::Vec<(&'static str, ::std::option::Option<::std::string::String>)> {
                #all
            }
        }
    }
}

/// A field with its name. It stands where the path does, so that rustc points there.
fn value(path: &Path, of: &str) -> TokenStream {
    let place = place(path);
    let of = Ident::new(of, place);
    let (name, field) = (dotted([path].into_iter()), quote_spanned!(place=> ::sagabus::__private::field::<_>));
    let value = quote_spanned!(place=> &#of.#path);
    quote!((#name, #field(#value)))
}
