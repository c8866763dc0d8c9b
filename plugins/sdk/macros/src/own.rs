//! A struct as a port type of the plugin.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DeriveInput, LitStr, Result};

use crate::attributes::{check_dotted, docs};
use crate::outputs::named_fields;

/// The struct as it is, and how it becomes a record and back.
pub(crate) fn expand(type_name: &LitStr, item: DeriveInput) -> Result<TokenStream> {
    check_dotted(type_name)?;
    let (name, about) = (&item.ident, docs(&item.attrs));
    let fields = named_fields(&item)?;
    let (mut takes, mut gives, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for field in &fields {
        let (Some(ident), ty) = (&field.ident, &field.ty) else { continue };
        let (key, about) = (ident.unraw().to_string(), docs(&field.attrs));
        told.push(quote!(::kino_plugin::node::PortSpec::input::<#ty>(#key, #about)));
        takes.push(quote! {
            #ident: <#ty as ::kino_plugin::port::Input>::take(value.field(#key)?)
                .map_err(|error| error.at(::core::concat!("field `", #key, "`")))?
        });
        gives.push(quote! {
            if let ::core::option::Option::Some(value) =
                <#ty as ::kino_plugin::port::Output>::give(self.#ident)?
            {
                fields.push((#key, value));
            }
        });
    }
    Ok(quote! {
        #item

        impl ::kino_plugin::port::Typed for #name {
            fn type_name() -> ::std::string::String {
                ::std::string::String::from(#type_name)
            }

            fn describe(port: &mut ::kino_plugin::node::PortSpec) {
                port.add_type(#type_name, #about, || ::std::vec![#(#told),*]);
            }
        }

        impl ::kino_plugin::port::FromValue for #name {
            fn from_value(value: ::kino_plugin::Value) -> ::kino_plugin::Result<Self> {
                ::kino_plugin::node::expect_record(&value, #type_name)?;
                ::kino_plugin::Result::Ok(#name { #(#takes),* })
            }
        }

        impl ::kino_plugin::port::IntoValue for #name {
            fn into_value(self) -> ::kino_plugin::Result<::kino_plugin::Value> {
                let mut fields = ::std::vec::Vec::new();
                #(#gives)*
                let fields: ::std::vec::Vec<_> =
                    fields.iter().map(|(name, value)| (*name, value)).collect();
                ::kino_plugin::Value::record(#type_name, &fields)
            }
        }
    })
}
