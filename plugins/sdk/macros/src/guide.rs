//! A guider: asked once a step for the velocity to follow.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, ItemImpl, Result, Signature, Type, parse_quote};

use crate::attributes::{NodeKeys, docs};
use crate::function::{allow, marker};
use crate::methods::{about_of, check_block, find, made_by, refuse};
use crate::ports::{Expansion, Params, is_called, local, params, result_of, spec, taken};

/// How many inputs of a run stand before the parameters: step, of, sigma and two velocities.
const BEFORE: usize = 5;
/// How many arguments of the function those are.
const GIVEN: usize = 3;

/// A function as a guider.
pub(crate) fn from_function(keys: &NodeKeys, mut function: ItemFn) -> Result<TokenStream> {
    let found = params(&mut function.sig)?;
    let name = &function.sig.ident;
    let made = Made {
        node: parse_quote!(#name),
        held: parse_quote!(()),
        begin: quote!(::kino_plugin::Result::Ok(())),
        call: quote!(#name),
    };
    let node = node(keys, &docs(&function.attrs), &function.sig, found, made)?;
    let (marker, allow) = (marker(&function), allow());
    Ok(quote!(#allow #function #marker #node))
}

/// An `impl` block as a guider.
pub(crate) fn from_methods(keys: &NodeKeys, mut methods: ItemImpl) -> Result<TokenStream> {
    check_block(&methods)?;
    let why = "a guider is begun for every sampling run, by `begin()`";
    refuse(&mut methods, &["run", "load", "save", "restore"], why)?;
    let about = about_of(&methods, "guide");
    let ty = (*methods.self_ty).clone();
    let Some(guide) = find(&mut methods, "guide") else {
        return Err(Error::new_spanned(&ty, expected("guide(&mut self, ")));
    };
    let found = params(&mut guide.sig)?;
    if !found.has_self {
        return Err(Error::new_spanned(&guide.sig, "`guide` takes `&mut self` (or `&self`)"));
    }
    let signature = guide.sig.clone();
    let begin = made_by(&mut methods, "begin")?;
    let made = Made { node: ty.clone(), held: ty, begin, call: quote!(self.0.guide) };
    let node = node(keys, &about, &signature, found, made)?;
    let allow = allow();
    Ok(quote!(#allow #methods #node))
}

fn expected(head: &str) -> String {
    format!(
        "expected `{head}cx: &mut Cx, step: SamplingStep, with_text: Tensor, without_text: Tensor, …) \
         -> Result<Tensor>`"
    )
}

/// What stands for the node, what an instance holds, how it is made, and what is called.
struct Made {
    node: Type,
    held: Type,
    begin: TokenStream,
    call: TokenStream,
}

fn node(
    keys: &NodeKeys,
    about: &str,
    signature: &Signature,
    found: Params,
    made: Made,
) -> Result<Expansion> {
    let named = keys.outputs.first().or(keys.like.as_ref());
    if let Some(named) = named {
        return Err(Error::new(named.span(), "a guider has one output, `guider`, like no input"));
    }
    if keys.heavy || keys.expensive {
        let message = "`heavy` and `expensive` mean nothing for a guider: it runs within a sampler";
        return Err(Error::new(keys.id.span(), message));
    }
    if let Some(name) = keys.same_size.iter().chain(&keys.same_count).next() {
        return Err(Error::new(name.span(), "a guider has no pictures among its parameters"));
    }
    let mut before = found.params;
    // `Moment` is what `SamplingStep` was called; plugins that say so are built as before.
    let was_called = before.first().is_some_and(|param| is_called(param.ty(), "Moment"));
    let types = [if was_called { "Moment" } else { "SamplingStep" }, "Tensor", "Tensor"];
    let fit = before.iter().zip(types).all(|(param, name)| is_called(param.ty(), name));
    if before.len() < GIVEN || !fit {
        let head = if found.has_self { "guide(&mut self, " } else { "guide(" };
        return Err(Error::new_spanned(&signature.inputs, expected(head)));
    }
    let parameters = before.split_off(GIVEN);
    if let Some(key) = before.iter().find_map(|given| given.key()) {
        return Err(Error::new(key.span(), "the engine gives this: it is no input of the node"));
    }
    let given = ["step", "of", "sigma", "with_text", "without_text"];
    if let Some(taken) = parameters.iter().find(|param| given.contains(&param.name().as_str())) {
        let message = format!("`{}` is given to a guider: expected another name", taken.name());
        return Err(Error::new(taken.span(), message));
    }
    let velocities = &before[1..];
    let (take_velocities, with) = taken(velocities, BEFORE - velocities.len());
    let (takes, given) = taken(&parameters, BEFORE);
    let [cx, inputs, step] = ["cx", "inputs", "step"].map(local);
    let cx = found.has_cx.then(|| quote!(#cx,));
    let Made { node, held, begin, call } = made;
    let now = if was_called { quote!(::core::convert::Into::into(#step)) } else { quote!(#step) };
    let given = quote!(#cx #now, #(#with,)* #(#given),*);
    let (gives, call) = result_of(signature, quote!(#call(#given)))?;
    let output =
        quote!(::std::vec![::kino_plugin::node::PortSpec::output::<::kino_plugin::Guider>(
            "guider", ""
        )]);
    Ok(Expansion {
        node,
        spec: spec(keys, about, &parameters, output, &["guider"]),
        held,
        open: begin,
        takes: quote!(
            let #step = ::kino_plugin::node::sampling_step(#inputs)?;
            #take_velocities
            #takes
        ),
        gives,
        call,
        save: None,
    })
}
