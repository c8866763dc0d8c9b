//! What stands in place of an item whose attribute is wrong, so that the error is the only one: the
//! item itself, and traits without a body.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{DeriveInput, Error, FnArg, ImplItem, Item, Signature};

use crate::function::marker;

/// In place of a node.
pub(crate) fn node(error: &Error, original: TokenStream) -> TokenStream {
    let error = error.to_compile_error();
    match syn::parse2(original.clone()) {
        Ok(Item::Fn(mut function)) => {
            strip(&mut function.sig);
            let (marker, node) = (marker(&function), stub_node(&function.sig.ident));
            quote!(#error #function #marker #node)
        }
        Ok(Item::Impl(mut methods)) => {
            for member in &mut methods.items {
                if let ImplItem::Fn(method) = member {
                    strip(&mut method.sig);
                }
            }
            let plain = methods.trait_.is_none() && methods.generics.params.is_empty();
            let node = plain.then(|| stub_node(&methods.self_ty));
            quote!(#error #methods #node)
        }
        _ => quote!(#error #original),
    }
}

/// The attributes on parameters are known to the macros only.
fn strip(signature: &mut Signature) {
    for argument in &mut signature.inputs {
        if let FnArg::Typed(typed) = argument {
            typed.attrs.clear();
        }
    }
}

fn stub_node(ty: &impl ToTokens) -> TokenStream {
    quote! {
        impl ::kino_plugin::node::Node for #ty {
            const ID: &'static str = "";

            fn spec() -> ::kino_plugin::node::NodeSpec {
                ::core::unreachable!()
            }

            fn open(
                _: &mut ::kino_plugin::Cx,
                _: ::core::option::Option<&[u8]>,
            ) -> ::kino_plugin::Result<::std::boxed::Box<dyn ::kino_plugin::node::Instance>> {
                ::core::unreachable!()
            }
        }
    }
}

/// In place of a port type: the item, unless its derive leaves it where it is.
pub(crate) fn port_type(error: &Error, original: TokenStream, is_derive: bool) -> TokenStream {
    let error = error.to_compile_error();
    let item = (!is_derive).then(|| original.clone());
    let Some(name) = plain_name(original) else { return quote!(#error #item) };
    quote! {
        #error
        #item

        impl ::kino_plugin::port::Typed for #name {
            fn type_name() -> ::std::string::String {
                ::core::unreachable!()
            }
        }

        impl ::kino_plugin::port::FromValue for #name {
            fn from_value(_: ::kino_plugin::Value) -> ::kino_plugin::Result<Self> {
                ::core::unreachable!()
            }
        }

        impl ::kino_plugin::port::IntoValue for #name {
            fn into_value(self) -> ::kino_plugin::Result<::kino_plugin::Value> {
                ::core::unreachable!()
            }
        }
    }
}

/// In place of a choice: it can also stand in attributes.
pub(crate) fn choice(error: &Error, original: TokenStream) -> TokenStream {
    let literal = plain_name(original.clone()).map(|name| {
        quote! {
            impl ::kino_plugin::scalars::Literal for #name {
                fn json(self) -> ::kino_plugin::json::Value {
                    ::core::unreachable!()
                }
            }
        }
    });
    let ports = port_type(error, original, true);
    quote!(#ports #literal)
}

/// In place of outputs.
pub(crate) fn outputs(error: &Error, original: TokenStream) -> TokenStream {
    let error = error.to_compile_error();
    let Some(name) = plain_name(original) else { return error };
    quote! {
        #error

        impl ::kino_plugin::port::Outputs for #name {
            fn ports(_: &[&str]) -> ::std::vec::Vec<::kino_plugin::node::PortSpec> {
                ::core::unreachable!()
            }

            fn give_all(self) -> ::kino_plugin::Result<
                ::std::vec::Vec<::core::option::Option<::kino_plugin::Value>>,
            > {
                ::core::unreachable!()
            }
        }
    }
}

/// The name of a type without generics.
fn plain_name(item: TokenStream) -> Option<syn::Ident> {
    let item: DeriveInput = syn::parse2(item).ok()?;
    item.generics.params.is_empty().then_some(item.ident)
}
