//! A guider: asked once a step for the velocity to follow.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, ItemImpl, Result, Signature, Type};

use crate::attributes::{NodeKeys, docs};
use crate::function::marker;
use crate::methods::{about_of, check_block, find, made_by};
use crate::ports::{Params, is_called, params, result_of, spec, taken};

/// How many inputs of a run stand before the parameters: step, of, sigma and two velocities.
const BEFORE: usize = 5;
/// How many arguments of the function those are.
const GIVEN: usize = 3;

/// A function as a guider.
pub(crate) fn from_function(keys: &NodeKeys, mut function: ItemFn) -> Result<TokenStream> {
    let found = params(&mut function.sig)?;
    let name = &function.sig.ident;
    let ty: Type = syn::parse_quote!(#name);
    let node = node(
        keys,
        &docs(&function.attrs),
        &ty,
        &function.sig,
        found,
        &Made {
            held: syn::parse_quote!(()),
            begin: quote!(::kino_plugin::Result::Ok(())),
            call: quote!(#name),
        },
    )?;
    let marker = marker(&function);
    let allow = allow();
    Ok(quote!(#allow #function #marker #node))
}

/// An `impl` block as a guider.
pub(crate) fn from_methods(keys: &NodeKeys, mut methods: ItemImpl) -> Result<TokenStream> {
    check_block(&methods)?;
    let about = about_of(&methods, "guide");
    let ty = (*methods.self_ty).clone();
    let Some(guide) = find(&mut methods, "guide") else {
        return Err(Error::new_spanned(&ty, expected()));
    };
    let found = params(&mut guide.sig)?;
    if !found.has_self {
        return Err(Error::new_spanned(&guide.sig, "`guide` takes `&mut self` (or `&self`)"));
    }
    let signature = guide.sig.clone();
    let begin = made_by(&mut methods, "begin")?;
    let made = Made { held: ty.clone(), begin, call: quote!(self.0.guide) };
    let node = node(keys, &about, &ty, &signature, found, &made)?;
    let allow = allow();
    Ok(quote!(#allow #methods #node))
}

fn allow() -> TokenStream {
    quote!(#[allow(clippy::too_many_arguments, reason = "a node has as many ports as it needs")])
}

fn expected() -> &'static str {
    "expected `guide(&mut self, cx: &mut Cx, moment: Moment, with_text: Tensor, \
     without_text: Tensor, …) -> Result<Tensor>`"
}

/// What an instance holds, how it is made, and what is called.
struct Made {
    held: Type,
    begin: TokenStream,
    call: TokenStream,
}

fn node(
    keys: &NodeKeys,
    about: &str,
    ty: &Type,
    signature: &Signature,
    found: Params,
    made: &Made,
) -> Result<TokenStream> {
    let mut before = found.params;
    if before.len() < GIVEN || !is_called(before[0].ty(), "Moment") {
        return Err(Error::new_spanned(&signature.inputs, expected()));
    }
    let parameters = before.split_off(GIVEN);
    let velocities = &before[1..];
    let (take_velocities, with) = taken(velocities, BEFORE - velocities.len());
    let (takes, given) = taken(&parameters, BEFORE);
    let cx = found.has_cx.then(|| quote!(cx,));
    let (Made { held, begin, call }, given) = (made, quote!(#cx moment, #(#with,)* #(#given),*));
    let (given_ty, call) = result_of(signature, quote!(#call(#given)))?;
    let output =
        quote!(::std::vec![::kino_plugin::node::PortSpec::output::<::kino_plugin::Guider>(
            "guider", ""
        )]);
    let spec = spec(keys, about, &parameters, output, &["guider"]);
    Ok(quote! {
        const _: () = {
            struct Held(#held);

            impl ::kino_plugin::node::Instance for Held {
                #[allow(unused_variables)]
                fn run(
                    &mut self,
                    cx: &mut ::kino_plugin::Cx,
                    inputs: &mut [::core::option::Option<::kino_plugin::Value>],
                ) -> ::kino_plugin::Result<
                    ::std::vec::Vec<::core::option::Option<::kino_plugin::Value>>,
                > {
                    let moment = ::kino_plugin::node::moment(inputs)?;
                    #take_velocities
                    #takes
                    let made: #given_ty = #call?;
                    ::kino_plugin::port::Outputs::give_all(made)
                }
            }

            impl ::kino_plugin::node::Node for #ty {
                #spec

                #[allow(unused_variables)]
                fn open(
                    cx: &mut ::kino_plugin::Cx,
                    saved: ::core::option::Option<&[u8]>,
                ) -> ::kino_plugin::Result<::std::boxed::Box<dyn ::kino_plugin::node::Instance>> {
                    let begun: ::kino_plugin::Result<#held> = #begin;
                    ::kino_plugin::Result::Ok(::std::boxed::Box::new(Held(begun?)))
                }
            }
        };
    })
}
