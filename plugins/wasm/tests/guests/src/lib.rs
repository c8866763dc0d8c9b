//! Plugins for the tests of the sandbox: good ones, and ones that try what they should not. They
//! stand on the contract alone, without the SDK.

mod abuse;
mod good;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI64, Ordering};

#[allow(warnings)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../abi/wit", "wit"],
        world: "kino:guests/guests",
        generate_all,
    });
}

use bindings::exports::kino::plugin::node::{self, Failure, Guest, GuestInstance};
use bindings::kino::plugin::host::{self, Value};
use bindings::kino::plugin::types;

/// Tests write other numbers here, in the finished component.
static MODE: [u8; 8] = *b"MODE=000";

/// A node that runs: inputs to outputs.
type Outcome = Result<Vec<Option<Value>>, Failure>;

/// An instance of a node.
struct Instance {
    node: String,
    total: Cell<i64>,
    kept: RefCell<Vec<Value>>,
}

/// Instances that were opened and not closed.
static ALIVE: AtomicI64 = AtomicI64::new(0);

impl Drop for Instance {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Plugin;

fn failed(message: impl Into<String>) -> Failure {
    let (message, hint, code) = (message.into(), String::new(), String::new());
    Failure::Failed(types::Error { message, hint, code })
}

fn one(value: Value) -> Outcome {
    Ok(vec![Some(value)])
}

fn text(text: &str) -> Outcome {
    one(host::new_text(text)?)
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
    type Instance = Instance;

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
}

impl GuestInstance for Instance {
    fn open(node: String, saved: Option<Vec<u8>>) -> Result<node::Instance, Failure> {
        std::panic::set_hook(Box::new(|info| {
            let text = info.payload_as_str().unwrap_or("?");
            host::log(1, "guests", text);
        }));
        if node == "abuse.panic_load" {
            panic!("it could not be loaded");
        }
        if node == "abuse.refuse" {
            return Err(Failure::Failed(types::Error {
                message: "it will not".to_owned(),
                hint: "ask somebody else".to_owned(),
                code: "guests.unwilling".to_owned(),
            }));
        }
        let total = match saved {
            Some(saved) => match saved.try_into() {
                Ok(bytes) => i64::from_le_bytes(bytes),
                Err(_) => return Err(failed("the state is not one of this plugin")),
            },
            None => 0,
        };
        ALIVE.fetch_add(1, Ordering::Relaxed);
        let (total, kept) = (Cell::new(total), RefCell::default());
        Ok(node::Instance::new(Instance { node, total, kept }))
    }

    fn run(&self, inputs: Vec<Option<Value>>) -> Outcome {
        match self.node.split_once('.') {
            Some(("good", name)) => good::run(self, name, inputs),
            Some((_, name)) => abuse::run(name, inputs),
            None => Err(failed("there is no such node")),
        }
    }

    fn save(&self) -> Result<Option<Vec<u8>>, Failure> {
        let bytes = self.total.get().to_le_bytes();
        Ok((self.node == "good.state").then(|| bytes.to_vec()))
    }
}

bindings::export!(Plugin with_types_in bindings);
