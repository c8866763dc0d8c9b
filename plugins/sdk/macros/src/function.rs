//! A function as a node.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result};

use crate::attributes::{NodeKeys, docs};
use crate::ports::{outputs, params, result_of, spec, taken};

/// The function as it is, a type of its name that stands for the node, and the node.
pub(crate) fn expand(keys: &NodeKeys, mut function: ItemFn) -> Result<TokenStream> {
    let found = params(&mut function.sig)?;
    if found.has_self {
        return Err(Error::new_spanned(&function.sig, "put the attribute before the `impl` block"));
    }
    let name = &function.sig.ident;
    let cx = found.has_cx.then(|| quote!(cx,));
    let (takes, given) = taken(&found.params, 0);
    let (ty, call) = result_of(&function.sig, quote!(#name(#cx #(#given),*)))?;
    let outputs = outputs(keys, &found.params, &ty)?;
    let about = docs(&function.attrs);
    let spec = spec(keys, &about, &found.params, outputs, &[]);
    let marker = marker(&function);
    Ok(quote! {
        #[allow(clippy::too_many_arguments, reason = "a node has as many ports as it needs")]
        #function

        #marker

        const _: () = {
            struct Run;

            impl ::kino_plugin::node::Instance for Run {
                #[allow(unused_variables)]
                fn run(
                    &mut self,
                    cx: &mut ::kino_plugin::Cx,
                    inputs: &mut [::core::option::Option<::kino_plugin::Value>],
                ) -> ::kino_plugin::Result<
                    ::std::vec::Vec<::core::option::Option<::kino_plugin::Value>>,
                > {
                    #takes
                    let made: #ty = #call?;
                    ::kino_plugin::port::Outputs::give_all(made)
                }
            }

            impl ::kino_plugin::node::Node for #name {
                #spec

                fn open(
                    _cx: &mut ::kino_plugin::Cx,
                    _saved: ::core::option::Option<&[u8]>,
                ) -> ::kino_plugin::Result<::std::boxed::Box<dyn ::kino_plugin::node::Instance>> {
                    ::kino_plugin::Result::Ok(::std::boxed::Box::new(Run))
                }
            }
        };
    })
}

/// The type that stands for a function: types and functions have names of their own.
pub(crate) fn marker(function: &ItemFn) -> TokenStream {
    let (visibility, name) = (&function.vis, &function.sig.ident);
    let about = format!("The node that [`{name}()`] is.");
    quote! {
        #[doc = #about]
        #[allow(non_camel_case_types)]
        #visibility struct #name {}
    }
}
