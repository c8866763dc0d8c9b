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
    // The version of the crate is that of its nodes, too.
    check(quote!(id = "a.b"), item(), &[]);
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
            "there is no key `sink`: expected id, version, about, heavy, expensive, output, outputs, \
             like, same_size, same_count or part",
        ],
    );
    check(quote!(id = "a.b", same_size("a", "x")), item(), &["there is no input `x`"]);
    let alone = "expected two inputs or more, which must agree";
    check(quote!(id = "a.b", same_count("a")), item(), &[alone]);
    check(quote!(id = "a.b", part), item(), &["`part` is for guiders: #[guider(…, part)]"]);
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
            "there is no key `defualt` here: expected one of default, range, step, unit, choices, \
             draws, about, name",
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
        &["a node cannot be generic, nor name lifetimes: it gives what it owns"],
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
fn names_and_places() {
    let of = |item| errors(quote!(id = "a.b", version = "1"), item, false);
    assert_eq!(
        of(quote!(
            fn f(frames: Frames, cx: &mut Cx) -> Frames {
                frames
            }
        )),
        ["`cx: &mut Cx` comes before the inputs"]
    );
    assert!(
        of(quote!(
            fn f(r#type: f64) -> f64 {
                r#type
            }
        ))
        .is_empty()
    );
    assert!(
        of(quote!(
            fn f(#[param(default = 1 << 40)] a: u64) -> f64 {
                1.0
            }
        ))
        .is_empty()
    );
    let seven = quote!(
        fn f(a: f64) -> (f64, f64, f64, f64, f64, f64, f64) {
            todo()
        }
    );
    assert!(of(seven)[0].starts_with("six outputs at most"));
    let twice = syn::parse2(quote!(
        enum A {
            #[choice("a")]
            B,
            #[choice("a")]
            C,
        }
    ))
    .unwrap();
    let error = crate::choice::expand(twice).unwrap_err();
    assert_eq!(error.to_string(), "two choices are \"a\"");
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
        quote!(impl A {
            fn run(&self) -> f64 {
                1.0
            }
            fn restore(cx: &mut Cx) -> A {
                A
            }
            fn save(&self) -> Vec<u8> {
                vec![]
            }
        }),
        &["expected `restore(cx: &mut Cx, saved: &[u8])`"],
    );
    check(
        keys(),
        quote!(impl A { fn run(&self) -> f64 { 1.0 } fn save(&self) -> Vec<u8> { vec![] } }),
        &["`save`: it is of no use without `restore`"],
    );
    check(
        keys(),
        quote!(impl A { fn run(&self) -> f64 { 1.0 } fn begin() -> A { A } }),
        &["`begin`: this is a method of guiders: #[guider(…)]"],
    );
    check(
        keys(),
        quote!(impl Clone for A { fn run(&self) -> f64 { 1.0 } }),
        &["expected a plain `impl` block, not one of a trait"],
    );
    let of_guider = |item| errors(keys(), item, true);
    let guide =
        quote!(impl A { fn guide(&mut self, cx: &mut Cx, with: Tensor) -> Tensor { with } });
    let expected = "expected `guide(&mut self, cx: &mut Cx, step: SamplingStep, with_text: \
                    Tensor, without_text: Tensor, …) -> Result<Tensor>`";
    assert_eq!(of_guider(guide), [expected]);
    // A forgotten velocity does not swallow a parameter.
    let expected = "expected `guide(cx: &mut Cx, step: SamplingStep, with_text: Tensor, \
                    without_text: Tensor, …) -> Result<Tensor>`";
    let forgotten = quote!(
        fn f(m: SamplingStep, with: Tensor, eta: f64) -> Tensor {
            with
        }
    );
    assert_eq!(of_guider(forgotten), [expected]);
    let loading = quote!(impl A {
        fn guide(&mut self, m: SamplingStep, a: Tensor, b: Tensor) -> Tensor {
            a
        }
        fn load() -> A {
            A
        }
    });
    let begun = "`load`: a guider is begun for every sampling run, by `begin()`";
    assert_eq!(of_guider(loading), [begun]);
    let named = quote!(
        fn f(m: SamplingStep, a: Tensor, b: Tensor, sigma: f64) -> Tensor {
            a
        }
    );
    assert_eq!(of_guider(named), ["`sigma` is given to a guider: expected another name"]);
    let keyed = quote!(
        fn f(m: SamplingStep, #[param(default = 1)] a: Tensor, b: Tensor) -> Tensor {
            a
        }
    );
    assert_eq!(of_guider(keyed), ["the engine gives this: it is no input of the node"]);
    let whole = || {
        quote!(
            fn f(m: SamplingStep, a: Tensor, b: Tensor) -> Tensor {
                a
            }
        )
    };
    assert!(of_guider(whole()).is_empty());
    assert_eq!(
        errors(quote!(id = "a.b", version = "1", output = "x"), whole(), true),
        ["a guider has one output, `guider`, like no input"]
    );
    assert!(errors(quote!(id = "a.b", version = "1", heavy), whole(), true)[0].contains("`heavy`"));
}

#[test]
fn ranges() {
    let of = |range: proc_macro2::TokenStream| {
        let item = quote!(
            fn f(#[param(range = #range)] a: i64) -> f64 {
                1.0
            }
        );
        errors(quote!(id = "a.b", version = "1"), item, false)
    };
    assert!(of(quote!(1..=MOST)).is_empty());
    assert!(of(quote!(-1..)).is_empty());
    assert!(of(quote!(RANGE)).is_empty());
    assert_eq!(of(quote!(0..4)), ["a range includes its end: expected `least..=greatest`"]);
}

#[test]
fn keys_that_mean_nothing_are_refused() {
    let item = quote!(
        fn f(#[param(like = "b")] a: i64) -> f64 {
            1.0
        }
    );
    let [error] = &errors(quote!(id = "a.b", version = "1"), item, false)[..] else { panic!() };
    assert!(error.starts_with("there is no key `like` here: expected one of default"), "{error}");
    let outputs = |field: proc_macro2::TokenStream| {
        let item = syn::parse2(quote!(struct Out { #field })).unwrap();
        crate::outputs::expand(item).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(outputs(quote!(#[output(like = "a", name = "b")] a: Frames)).is_ok());
    let error = outputs(quote!(#[output(default = 1)] a: Frames)).unwrap_err();
    assert_eq!(error, "there is no key `default` here: expected one of about, name, like");
}

/// Where an attribute is wrong, the item stays what `plugin!` and other items expect: its error is
/// the only one.
#[test]
fn what_is_wrong_still_is_a_node() {
    let error = syn::Error::new(proc_macro2::Span::call_site(), "wrong");
    let node = |item| crate::failed::node(&error, item).to_string();
    let function = node(quote!(
        fn gain(#[param(defualt = 1)] a: f64) -> f64 {
            a
        }
    ));
    assert!(!function.contains("defualt"), "{function}");
    assert!(function.contains("struct gain { }"), "{function}");
    assert!(function.contains("node :: Node for gain"), "{function}");
    let methods = node(quote!(impl Grain { fn run(#[param(x)] a: f64) {} }));
    assert!(methods.contains("node :: Node for Grain"), "{methods}");
    let derived = crate::failed::choice(
        &error,
        quote!(
            enum Kind {
                A(u8),
            }
        ),
    )
    .to_string();
    assert!(!derived.contains("enum Kind"), "{derived}");
    for name in ["Typed", "FromValue", "IntoValue", "Literal"] {
        assert!(derived.contains(&format!(":: {name} for Kind")), "{name}: {derived}");
    }
    let own = crate::failed::port_type(
        &error,
        quote!(
            struct Depth(u8);
        ),
        false,
    )
    .to_string();
    assert!(own.contains("struct Depth (u8) ;") && own.contains("IntoValue for Depth"), "{own}");
}
