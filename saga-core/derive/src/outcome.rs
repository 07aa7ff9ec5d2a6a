//! `Outcome`.

use crate::{each_of_its_own, single_field, variants, without_parameters};
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::{DeriveInput, Type, spanned::Spanned};

/// What asks whether a state takes all messages of an outcome is implemented for tuples up to this length.
const VARIANTS_MAX: usize = 12;

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    Ok(whole(input).unwrap_or_else(|error| {
        let (error, stand_in) = (error.to_compile_error(), stand_in(input));
        quote!(#error #stand_in)
    }))
}

/// What stands in for an outcome that is wrong, so that its command and its handler add no errors to the one that
/// matters: it can be made of whatever its variants hold.
fn stand_in(input: &DeriveInput) -> TokenStream {
    let (outcome, (parameters, arguments, condition)) = (&input.ident, input.generics.split_for_impl());
    let variants = match &input.data {
        syn::Data::Enum(data) => data.variants.iter().collect(),
        _ => Vec::new(),
    };
    let mut held: Vec<&Type> = Vec::new();
    for ty in variants.iter().filter(|it| it.fields.len() == 1).flat_map(|it| &it.fields).map(|field| &field.ty) {
        if input.generics.params.is_empty() && !held.contains(&ty) {
            held.push(ty);
        }
    }
    quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #[automatically_derived]
            impl #parameters __sagabus::Outcome for #outcome #arguments #condition {
                type Messages = ();
                fn types() -> ::std::vec::Vec<&'static str> { ::std::unreachable!() }
                fn encode(self) -> ::std::option::Option<__sagabus::Encoded> { ::std::unreachable!() }
            }
            #[automatically_derived]
            impl #parameters __sagabus::ReadOutcome for #outcome #arguments #condition {
                fn read(_: &str, _: &[u8]) -> ::std::result::Result<Self, __sagabus::ReadError> {
                    ::std::unreachable!()
                }
            }
            #(
                #[automatically_derived]
                impl ::std::convert::From<#held> for #outcome {
                    fn from(_: #held) -> Self { ::std::unreachable!() }
                }
            )*
        };
    }
}

fn whole(input: &DeriveInput) -> syn::Result<TokenStream> {
    let outcome = &input.ident;
    without_parameters(input, "an outcome", "each variant holds one message")?;
    refuse_attributes(input)?;
    let variants = variants(input, "an outcome is")?;
    if variants.len() > VARIANTS_MAX {
        return Err(syn::Error::new_spanned(outcome, format!("an outcome has at most {VARIANTS_MAX} variants")));
    }
    let names: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let messages = variants.iter().map(single_field).collect::<syn::Result<Vec<_>>>()?;
    each_of_its_own(variants, "each variant needs a message of its own")?;

    let answers: Vec<_> = (0..messages.len()).map(|n| format_ident!("__ANSWER_{n}")).collect();
    let values = messages.iter().map(|ty| quote_spanned!(ty.span()=> ::sagabus::__private::answer::<#ty>()));
    Ok(quote! {
        const _: () = {
            use ::sagabus::__private as __sagabus;
            #(const #answers: __sagabus::AnswerOf<#messages> = #values;)*

            #[automatically_derived]
            impl __sagabus::Outcome for #outcome {
                type Messages = (#(#messages,)*);
                fn types() -> ::std::vec::Vec<&'static str> {
                    ::std::vec![#(#answers.type_name),*]
                }
                fn encode(self) -> ::std::option::Option<__sagabus::Encoded> {
                    ::std::option::Option::Some(match &self {
                        #(Self::#names(message) => (#answers.encode)(message)),*
                    })
                }
            }
            #[automatically_derived]
            impl __sagabus::ReadOutcome for #outcome {
                fn read(type_name: &str, body: &[u8]) -> ::std::result::Result<Self, __sagabus::ReadError> {
                    #(
                        if type_name == #answers.type_name {
                            return (#answers.decode)(body).map(Self::#names);
                        }
                    )*
                    ::std::result::Result::Err(__sagabus::no_outcome(type_name, &Self::types()))
                }
            }
            #(
                #[automatically_derived]
                impl ::std::convert::From<#messages> for #outcome {
                    fn from(message: #messages) -> Self { Self::#names(message) }
                }
            )*
        };
    })
}

fn refuse_attributes(input: &DeriveInput) -> syn::Result<()> {
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident("outcome")) {
        attr.parse_nested_meta(|meta| {
            Err(meta.error(if meta.path.is_ident("reply") {
                "`#[outcome(reply)]` is gone: derive `Reply` instead of `Event` for answers that nobody else may see"
            } else {
                "an outcome has no attributes"
            }))
        })?;
    }
    Ok(())
}
