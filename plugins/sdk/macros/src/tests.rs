//! What is said of wrong attributes.

use quote::quote;
use syn::Item;

use crate::attributes::NodeKeys;
use crate::{function, guide, methods};

/// Expands an item under `#[node(…)]`, or `#[guider(…)]`, and gives the errors.
fn errors(
    keys: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
    guider: bool,
) -> Vec<String> {
    let expanded = syn::parse2::<NodeKeys>(keys).and_then(|keys| match syn::parse2(item)? {
        Item::Fn(item) if guider => guide::from_function(&keys, item),
        Item::Fn(item) => function::expand(&keys, item),
        Item::Impl(item) if guider => guide::from_methods(&keys, item),
        Item::Impl(item) => methods::expand(&keys, item),
        _ => unreachable!("tests give functions and blocks"),
    });
    match expanded {
        Ok(_) => Vec::new(),
        Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
    }
}

#[track_caller]
fn check(keys: proc_macro2::TokenStream, item: proc_macro2::TokenStream, expected: &[&str]) {
    assert_eq!(errors(keys, item, false), expected);
}

#[test]
fn keys_of_a_node() {
    let item = || {
        quote!(
            fn f(a: f64) -> f64 {
                a
            }
        )
    };
    check(quote!(id = "a.b", version = "1"), item(), &[]);
    check(quote!(id = "a.b"), item(), &["`version = \"1.0.0\"` is missing"]);
    check(quote!(version = "1"), item(), &["`id = \"example.gain\"` is missing"]);
    check(quote!(id = "a.b", id = "a.c", version = "1"), item(), &["`id` is given twice"]);
    let dotted = "expected words of a-z, 0-9 and _ with points between them, such as \
                  \"example.gain\"";
    for id in ["gain", "A.b", "a..b", "a.1", "a.b "] {
        check(quote!(id = #id, version = "1"), item(), &[dotted]);
    }
    check(
        quote!(id = "a.b", version = "1", sink),
        item(),
        &[
            "there is no key `sink`: expected id, version, about, heavy, expensive, guider, output, \
           outputs or like",
        ],
    );
    check(quote!(id = "a.b", version = "1", like = "x"), item(), &["there is no input `x`"]);
}

#[test]
fn parameters() {
    let keys = || quote!(id = "a.b", version = "1");
    check(
        keys(),
        quote!(
            fn f(#[param(defualt = 1)] a: f64, #[port(unit)] b: f64, C: f64) -> f64 {
                a
            }
        ),
        &[
            "there is no key `defualt`: expected default, range, step, unit, choices, draws, \
             about, name or like",
            "expected `=`",
            "expected a name of a-z, 0-9 and _ that begins with a letter, such as \"frames\"",
        ],
    );
    check(
        keys(),
        quote!(
            fn f((a, b): (f64, f64)) -> f64 {
                a
            }
        ),
        &["expected a name: it becomes the port's name"],
    );
    let mutable = "inputs are immutable: expected `&` without `mut`";
    check(
        keys(),
        quote!(
            fn f(a: &mut Tensor) -> f64 {
                a
            }
        ),
        &[mutable],
    );
    check(
        keys(),
        quote!(
            fn f(a: f64) {
                a
            }
        ),
        &["a node gives something: expected a result such as `-> Result<Frames>`"],
    );
    check(
        keys(),
        quote!(
            fn f<T>(a: T) -> T {
                a
            }
        ),
        &["a node cannot be generic"],
    );
    check(
        keys(),
        quote!(
            async fn f(a: f64) -> f64 {
                a
            }
        ),
        &["a node cannot be async"],
    );
}

#[test]
fn blocks() {
    let keys = || quote!(id = "a.b", version = "1");
    check(
        keys(),
        quote!(impl A { fn load() -> A { A } }),
        &["expected a method `run(&mut self, cx: &mut Cx, …)`"],
    );
    check(
        keys(),
        quote!(impl A { fn run(a: f64) -> f64 { a } }),
        &["`run` takes `&mut self` (or `&self`)"],
    );
    check(
        keys(),
        quote!(impl A { fn run(&self) -> f64 { 1.0 } fn load(path: &str) -> A { A } }),
        &["expected `load(cx: &mut Cx)` or `load()`"],
    );
    check(
        keys(),
        quote!(impl A { fn run(&self) -> f64 { 1.0 } fn restore(cx: &mut Cx) -> A { A } }),
        &["expected `restore(cx: &mut Cx, saved: &[u8])`"],
    );
    check(
        keys(),
        quote!(impl Clone for A { fn run(&self) -> f64 { 1.0 } }),
        &["expected a plain `impl` block, not one of a trait"],
    );
    let guide =
        quote!(impl A { fn guide(&mut self, cx: &mut Cx, with: Tensor) -> Tensor { with } });
    let expected = "expected `guide(&mut self, cx: &mut Cx, moment: Moment, with_text: Tensor, \
                    without_text: Tensor, …) -> Result<Tensor>`";
    assert_eq!(errors(keys(), guide, true), [expected]);
}
