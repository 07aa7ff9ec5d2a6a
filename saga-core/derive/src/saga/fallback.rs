//! What stands in for a saga whose block is wrong.
//!
//! Without it each use of the saga would add its own errors, "`Order` is not a saga", to the one that matters.

use crate::states::{States, thens};
use proc_macro2::TokenStream;
use quote::quote;

pub(crate) fn of(states: &States) -> TokenStream {
    let saga = &states.ident;
    let data = states.data.as_ref().map_or_else(|| quote!(()), |data| quote!(#data));
    let thens = thens(states);
    let types = states.states.iter().map(|state| &state.ty);
    quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #thens
            impl<__M> __sagabus::Accepts<__M> for #saga { type Saga = #saga; }
            #(impl<__M> __sagabus::Accepts<__M> for #types { type Saga = #saga; })*
            impl __sagabus::Saga for #saga {
                const NAME: &'static str = "";
                const VERSION: u32 = 1;
                type Id = ::std::string::String;
                type Data = #data;
                type In = ();
                fn __read(_: &str, _: &[u8]) -> ::std::result::Result<(), __sagabus::ReadError> {
                    ::std::unreachable!()
                }
                fn __id(_: &()) -> ::std::option::Option<<Self as __sagabus::Saga>::Id> { ::std::unreachable!() }
                fn __start(
                    _: (),
                    _: &__sagabus::Moment,
                    _: &mut __sagabus::Emits,
                ) -> ::std::result::Result<(Self, <Self as __sagabus::Saga>::Data), ()> { ::std::unreachable!() }
                fn __step(
                    self,
                    _: &mut <Self as __sagabus::Saga>::Data,
                    _: (),
                    _: &__sagabus::Moment,
                    _: &mut __sagabus::Emits,
                ) -> ::std::result::Result<Self, (Self, ())> { ::std::unreachable!() }
                fn __load(
                    _: &str,
                    _: u32,
                    _: &str,
                ) -> ::std::result::Result<(Self, <Self as __sagabus::Saga>::Data), __sagabus::ReadError> {
                    ::std::unreachable!()
                }
                fn state_name(&self) -> &'static str { ::std::unreachable!() }
                fn __store(&self, _: &<Self as __sagabus::Saga>::Data) -> ::std::string::String {
                    ::std::unreachable!()
                }
                fn chart() -> __sagabus::Chart { ::std::unreachable!() }
            }
        };
    }
}
