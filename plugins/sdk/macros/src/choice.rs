//! An enum as a Text with choices.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result, Variant};

/// Implements what a port needs.
pub(crate) fn expand(item: DeriveInput) -> Result<TokenStream> {
    let name = &item.ident;
    let Data::Enum(data) = &item.data else {
        return Err(Error::new_spanned(name, "expected an enum"));
    };
    let texts = data.variants.iter().map(text_of).collect::<Result<Vec<_>>>()?;
    for (index, text) in texts.iter().enumerate() {
        if texts[..index].iter().any(|other| other.value() == text.value()) {
            return Err(Error::new(text.span(), format!("two choices are \"{}\"", text.value())));
        }
    }
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    Ok(quote! {
        impl #name {
            /// Its name in graphs.
            pub fn name(&self) -> &'static str {
                match self {
                    #(#name::#variants => #texts),*
                }
            }
        }

        impl ::kino_plugin::port::Typed for #name {
            fn type_name() -> ::std::string::String {
                ::std::string::String::from("Text")
            }

            fn describe(port: &mut ::kino_plugin::node::PortSpec) {
                port.add_choices(&[#(#texts),*]);
            }
        }

        impl ::kino_plugin::port::FromValue for #name {
            fn from_value(value: ::kino_plugin::Value) -> ::kino_plugin::Result<Self> {
                match value.as_text()?.as_str() {
                    #(#texts => ::kino_plugin::Result::Ok(#name::#variants),)*
                    other => ::kino_plugin::Result::Err(::kino_plugin::node::no_choice(
                        other,
                        &[#(#texts),*],
                    )),
                }
            }
        }

        impl ::kino_plugin::port::IntoValue for #name {
            fn into_value(self) -> ::kino_plugin::Result<::kino_plugin::Value> {
                ::kino_plugin::Value::text(self.name())
            }
        }

        impl ::kino_plugin::scalars::Literal for #name {
            fn json(self) -> ::kino_plugin::json::Value {
                ::kino_plugin::json::Value::from(self.name())
            }
        }
    })
}

fn text_of(variant: &Variant) -> Result<LitStr> {
    if !matches!(variant.fields, Fields::Unit) {
        return Err(Error::new_spanned(variant, "a choice has no fields"));
    }
    let given = variant.attrs.iter().find(|attribute| attribute.path().is_ident("choice"));
    match given {
        Some(given) => given.parse_args(),
        None => {
            let ident = variant.ident.to_string();
            let mut text = String::new();
            for letter in ident.chars() {
                if letter.is_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.extend(letter.to_lowercase());
            }
            Ok(LitStr::new(&text, variant.ident.span()))
        }
    }
}
