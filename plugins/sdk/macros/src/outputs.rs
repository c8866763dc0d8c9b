//! A struct of outputs.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Field, Fields, LitStr, Result};

use crate::attributes::{OF_OUTPUT, PortKeys, check_name, docs};

/// The named fields of a struct.
pub(crate) fn named_fields(item: &DeriveInput) -> Result<Vec<Field>> {
    match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if item.generics.params.is_empty() => {
                Ok(fields.named.iter().cloned().collect())
            }
            _ => Err(Error::new_spanned(&item.ident, "expected named fields, and no generics")),
        },
        _ => Err(Error::new_spanned(&item.ident, "expected a struct with named fields")),
    }
}

/// Implements `Outputs`.
pub(crate) fn expand(item: DeriveInput) -> Result<TokenStream> {
    let name = &item.ident;
    let (mut ports, mut gives) = (Vec::new(), Vec::new());
    for mut field in named_fields(&item)? {
        let keys = PortKeys::take(&mut field.attrs, &["output"], OF_OUTPUT)?;
        let Some(ident) = &field.ident else { continue };
        let port =
            keys.name.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()));
        check_name(&port)?;
        let about = keys.about.map_or_else(|| docs(&field.attrs), |about| about.value());
        let like = keys.like.map(|like| quote!(.key("like", #like)));
        let ty = &field.ty;
        ports.push(quote! {
            ::kino_plugin::node::PortSpec::output::<#ty>(#port, #about) #like
        });
        gives.push(quote!(<#ty as ::kino_plugin::port::Output>::give(self.#ident)?));
    }
    Ok(quote! {
        impl ::kino_plugin::port::Outputs for #name {
            fn ports(_names: &[&str]) -> ::std::vec::Vec<::kino_plugin::node::PortSpec> {
                ::std::vec![#(#ports),*]
            }

            fn give_all(self) -> ::kino_plugin::Result<
                ::std::vec::Vec<::core::option::Option<::kino_plugin::Value>>,
            > {
                ::kino_plugin::Result::Ok(::std::vec![#(#gives),*])
            }
        }
    })
}
