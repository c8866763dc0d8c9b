//! The attributes of `kino-plugin`, which documents them: use them from there.

mod attributes;
mod choice;
mod failed;
mod function;
mod guide;
mod methods;
mod outputs;
mod own;
mod ports;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::{Error, Item};

use attributes::NodeKeys;

/// Makes a function, or an `impl` block with state, a node of the plugin.
///
/// `#[node(id = "example.gain")]`; more keys: `version = "1.0.0"` (that of the crate unless
/// given), `heavy` (occupies the device),
/// `expensive` (its results are worth keeping on disk), `output = "name"`, `outputs("a", "b")`,
/// `like = "input"` (the output keeps that input's size and rate), `same_size("a", "mask")` (these
/// inputs, frames or masks, are of one width and height), `same_count("a", "b")` (and as many; a
/// mask of one frame stands for all). What does not agree is refused before the graph runs.
///
/// Parameters become ports. `#[param(…)]` or `#[port(…)]` before one takes `default = 1.0`,
/// `range = 0.0..=4.0`, `step = 16`, `unit = "px"`, `choices("fine", "coarse")`, `draws`,
/// `about = "…"`; a documentation comment is `about`, too.
///
/// An `impl` block has `run(&mut self, cx, …)`, and may have `load(cx) -> Result<Self>` (else
/// `Default`), `save(&self) -> Vec<u8>` and `restore(cx, saved: &[u8]) -> Result<Self>`.
#[proc_macro_attribute]
pub fn node(keys: TokenStream, item: TokenStream) -> TokenStream {
    expand(keys, item, false)
}

/// Makes an `impl` block, or a function, a guider: it joins the velocities with and without text
/// once a step.
///
/// `guide(&mut self, cx, step: SamplingStep, with_text: Tensor, without_text: Tensor, …)` gives the
/// velocity to follow; further parameters are the node's inputs. With the key `part` it has the
/// parameters `from` and `to`, the part of the run in which it is asked. `begin() -> Self` (else
/// `Default`) makes the state of one sampling run.
#[proc_macro_attribute]
pub fn guider(keys: TokenStream, item: TokenStream) -> TokenStream {
    expand(keys, item, true)
}

fn expand(keys: TokenStream, item: TokenStream, guider: bool) -> TokenStream {
    let original = item.clone();
    let expanded = syn::parse::<NodeKeys>(keys).and_then(|keys| match syn::parse::<Item>(item)? {
        Item::Fn(function) if guider => guide::from_function(&keys, function),
        Item::Fn(function) => function::expand(&keys, function),
        Item::Impl(methods) if guider => guide::from_methods(&keys, methods),
        Item::Impl(methods) => methods::expand(&keys, methods),
        other => Err(Error::new_spanned(
            other,
            "expected a function, or an `impl` block of a struct with state",
        )),
    });
    expanded.unwrap_or_else(|error| failed::node(&error, original.into())).into()
}

/// Makes a struct of named fields a port type of this plugin: `#[port_type("example.depth")]`.
#[proc_macro_attribute]
pub fn port_type(name: TokenStream, item: TokenStream) -> TokenStream {
    let original = item.clone();
    let expanded = syn::parse(name).and_then(|name| own::expand(&name, syn::parse(item)?));
    expanded.unwrap_or_else(|error| failed::port_type(&error, original.into(), false)).into()
}

/// Makes the fields of a struct the outputs of a node; `#[output(like = "frames")]` on a field
/// says that it keeps that input's size.
#[proc_macro_derive(Outputs, attributes(output))]
pub fn derive_outputs(item: TokenStream) -> TokenStream {
    let original = item.clone();
    let expanded = syn::parse(item).and_then(outputs::expand);
    expanded.unwrap_or_else(|error| failed::outputs(&error, original.into())).into()
}

/// Makes an enum of plain variants a Text with choices; `#[choice("name")]` on a variant names it
/// otherwise than in snake case.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn derive_choice(item: TokenStream) -> TokenStream {
    let original = item.clone();
    let expanded = syn::parse(item).and_then(choice::expand);
    expanded.unwrap_or_else(|error| failed::choice(&error, original.into())).into()
}
