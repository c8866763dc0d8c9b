//! A function as a node.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result, parse_quote};

use crate::attributes::{NodeKeys, docs};
use crate::ports::{Expansion, local, outputs, params, result_of, spec, taken};

/// The function as it is, a type of its name that stands for the node, and the node.
pub(crate) fn expand(keys: &NodeKeys, mut function: ItemFn) -> Result<TokenStream> {
    let found = params(&mut function.sig)?;
    if found.has_self {
        return Err(Error::new_spanned(&function.sig, "put the attribute before the `impl` block"));
    }
    let (name, cx) = (&function.sig.ident, local("cx"));
    let cx = found.has_cx.then(|| quote!(#cx,));
    let (takes, given) = taken(&found.params, 0);
    let (gives, call) = result_of(&function.sig, quote!(#name(#cx #(#given),*)))?;
    let outputs = outputs(keys, &found.params, &gives)?;
    let about = docs(&function.attrs);
    let node = Expansion {
        node: parse_quote!(#name),
        spec: spec(keys, &about, &found.params, outputs, &[]),
        held: parse_quote!(()),
        open: quote!(::kino_plugin::Result::Ok(())),
        takes,
        gives,
        call,
        save: None,
    };
    let (marker, allow) = (marker(&function), allow());
    Ok(quote!(#allow #function #marker #node))
}

/// A node has as many ports as it needs.
pub(crate) fn allow() -> TokenStream {
    quote! {
        #[allow(
            clippy::too_many_arguments,
            clippy::type_complexity,
            reason = "a node has as many ports as it needs"
        )]
    }
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
