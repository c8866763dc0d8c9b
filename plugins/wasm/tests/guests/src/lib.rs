//! Plugins for the tests of the sandbox: good ones, and ones that try what they should not. They
//! stand on the contract alone, without the SDK.

mod abuse;
mod good;

use std::cell::RefCell;

#[allow(warnings)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../abi/wit", "wit"],
        world: "kino:guests/guests",
        generate_all,
    });
}

use bindings::exports::kino::plugin::node::{Failure, Guest};
use bindings::kino::plugin::host::{self, Value};

/// Tests write other numbers here, in the finished component.
static MODE: [u8; 8] = *b"MODE=000";

/// A node that runs: inputs to outputs.
type Outcome = Result<Vec<Option<Value>>, Failure>;

#[derive(Default)]
struct State {
    node: String,
    total: i64,
    kept: Vec<Value>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

struct Plugin;

fn failed(message: impl Into<String>) -> Failure {
    Failure::Failed((message.into(), String::new()))
}

/// A result of the host as the plugin's own.
fn ok<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(failed)
}

fn one(value: Value) -> Outcome {
    Ok(vec![Some(value)])
}

fn text(text: &str) -> Outcome {
    one(ok(host::new_text(text))?)
}

fn first(inputs: Vec<Option<Value>>) -> Result<Value, Failure> {
    inputs.into_iter().flatten().next().ok_or_else(|| failed("an input is missing"))
}

fn mode() -> u32 {
    // SAFETY: it is a static; only the compiler must not know its contents.
    let mode = unsafe { std::ptr::read_volatile(&MODE) };
    mode[5..].iter().fold(0, |mode, digit| mode * 10 + u32::from(digit - b'0'))
}

fn node(id: &str, input: &str, output: &str, state: bool) -> String {
    let input = match input {
        "" => String::new(),
        ty => format!(r#"{{"name": "x", "type": "{ty}"}}"#),
    };
    format!(
        r#"{{"id": "{id}", "version": "1.0.0", "inputs": [{input}], "state": {state},
            "outputs": [{{"name": "y", "type": "{output}"}}]}}"#
    )
}

impl Guest for Plugin {
    fn describe() -> String {
        match mode() {
            1 => return " ".repeat(200 << 20),
            2 => loop {
                std::hint::black_box(());
            },
            3 => return "{\"nodes\": 7}".to_owned(),
            4 => panic!("there is nothing to describe"),
            5 => return " ".repeat(5 << 20),
            6 => return "[".repeat(100_000),
            _ => {}
        }
        let mut nodes: Vec<String> = good::NODES
            .iter()
            .map(|(id, input, output, state)| node(id, input, output, *state))
            .collect();
        nodes.extend(abuse::NODES.iter().map(|id| node(id, "Any", "Any", false)));
        format!("{{\"nodes\": [{}]}}", nodes.join(","))
    }

    fn open(node: String, saved: Option<Vec<u8>>) -> Result<(), Failure> {
        std::panic::set_hook(Box::new(|info| {
            let text = info.payload_as_str().unwrap_or("?");
            host::log(1, "guests", text);
        }));
        if node == "abuse.panic_load" {
            panic!("it could not be loaded");
        }
        if node == "abuse.refuse" {
            let hint = "ask somebody else".to_owned();
            return Err(Failure::Failed(("it will not".to_owned(), hint)));
        }
        let total = match saved {
            Some(saved) => match saved.try_into() {
                Ok(bytes) => i64::from_le_bytes(bytes),
                Err(_) => return Err(failed("the state is not one of this plugin")),
            },
            None => 0,
        };
        STATE.set(State { node, total, kept: Vec::new() });
        Ok(())
    }

    fn run(inputs: Vec<Option<Value>>) -> Outcome {
        let node = STATE.with_borrow(|state| state.node.clone());
        match node.split_once('.') {
            Some(("good", name)) => good::run(name, inputs),
            Some((_, name)) => abuse::run(name, inputs),
            None => Err(failed("there is no such node")),
        }
    }

    fn save() -> Result<Option<Vec<u8>>, Failure> {
        let (node, total) = STATE.with_borrow(|state| (state.node.clone(), state.total));
        Ok((node == "good.state").then(|| total.to_le_bytes().to_vec()))
    }
}

bindings::export!(Plugin with_types_in bindings);
