//! Plugins that try what they should not.

use std::hint::black_box;

use crate::bindings::kino::plugin::host::{self, FramesBuilder, TensorBuilder, Value};
use crate::bindings::wasi;
use crate::{Failure, Outcome, failed, first, one};

pub(crate) const NODES: &[&str] = &[
    "abuse.panic_load",
    "abuse.refuse",
    "abuse.loop",
    "abuse.recursion",
    "abuse.memory",
    "abuse.tensors",
    "abuse.tensor",
    "abuse.frames",
    "abuse.op",
    "abuse.handles",
    "abuse.trap",
    "abuse.panic_run",
    "abuse.outputs",
    "abuse.read_file",
    "abuse.folder",
    "abuse.network",
    "abuse.exit",
    "abuse.sleep",
    "abuse.poll_nothing",
    "abuse.random",
    "abuse.deep",
    "abuse.wide",
    "abuse.stray",
    "abuse.dropped",
    "abuse.beyond",
    "abuse.bytes",
    "abuse.noise",
    "abuse.cancelled",
    "abuse.read",
    "abuse.attributes",
    "abuse.long_op",
    "abuse.views",
    "abuse.records",
    "abuse.chunks",
    "abuse.no_pixels",
    "abuse.http",
    "abuse.traceback",
    "abuse.script",
    "abuse.exact",
    "abuse.call",
];

#[link(wasm_import_module = "kino:plugin/host@2.0.0")]
unsafe extern "C" {
    #[link_name = "[method]value.kind"]
    fn kind_of(handle: u32, result: u32);
    #[link_name = "[resource-drop]value"]
    fn drop_of(handle: u32);
    #[link_name = "new-bytes"]
    fn new_bytes(data: u32, length: u32, result: u32);
}

/// What an exception of a plugin in Python prints.
const TRACEBACK: &[u8] = b"Traceback (most recent call last):\n  File \"/app.py\", line 12, in run\n\
    ValueError: the clip is too dark\n\n\
    thread '<unnamed>' panicked at runtime/src/lib.rs:454:17:\n\
    Python function threw an unexpected exception\n\
    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
/// What one of a plugin in JavaScript prints.
const SCRIPT: &[u8] = b"exception thrown while running post promise handlers\n\
    Error: the clip is too dark\nStack:\n  run@app.js:12:11\n\
    Redirecting call to abort() to mozalloc_abort\n";

pub(crate) fn run(name: &str, inputs: Vec<Option<Value>>) -> Outcome {
    match name {
        "loop" => loop {
            black_box(());
        },
        "recursion" => one(int(recurse(1))),
        "memory" => memory(),
        "tensors" => {
            let mut all = Vec::new();
            loop {
                all.push(zeros(&[1 << 20])?);
            }
        }
        "tensor" => match first(inputs)?.as_s64()? {
            0 => one(zeros(&[1 << 40])?),
            1 => one(zeros(&[u64::MAX, 2])?),
            2 => one(zeros(&[1; 1000])?),
            _ => one(zeros(&[0, u64::MAX])?),
        },
        "frames" => {
            let frames = FramesBuilder::new(None)?;
            let chunk = zeros(&[4, 64, 64, 3])?;
            loop {
                frames.push(&chunk)?;
            }
        }
        "op" => {
            let column = zeros(&[1 << 16, 1])?;
            let row = zeros(&[1, 1 << 16])?;
            one(host::op("add", &[&column, &row], "{}")?)
        }
        "handles" => {
            let mut all = Vec::new();
            loop {
                all.push(int(all.len() as u64));
            }
        }
        "trap" => std::process::abort(),
        "panic_run" => panic!("nobody knows why"),
        "outputs" => Ok((0..3).map(|at| Some(int(at))).collect()),
        "read_file" => one(host::read_file(&first(inputs)?.as_text()?)?),
        _ => more(name, inputs),
    }
}

fn more(name: &str, inputs: Vec<Option<Value>>) -> Outcome {
    match name {
        "folder" => {
            let _ = wasi::filesystem::types::temporary();
        }
        "network" => {
            use wasi::sockets::{network::IpAddressFamily, tcp_create_socket};
            let _ = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4);
        }
        "exit" => wasi::cli::exit::exit(Ok(())),
        "sleep" => wasi::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000).block(),
        "poll_nothing" => {
            wasi::io::poll::poll(&[]);
        }
        "random" => {
            wasi::random::random::get_random_bytes(u64::MAX);
        }
        "deep" => {
            let mut value = int(0);
            loop {
                value = host::new_list(&[(String::new(), &value)])?;
            }
        }
        "wide" => {
            let mut value = int(0);
            loop {
                let twice = [(String::new(), &value), (String::new(), &value)];
                value = host::new_list(&twice)?;
            }
        }
        // SAFETY: a number that is no handle is the host's affair.
        "stray" => unsafe { kind_of(123_456, 1024) },
        "dropped" => {
            let value = int(1);
            // SAFETY: as above.
            unsafe { drop_of(value.handle()) };
            return Ok(vec![Some(value)]);
        }
        // SAFETY: as above; this asks the host to read all memory and more.
        "beyond" => unsafe { new_bytes(16, u32::MAX - 16, 1024) },
        "bytes" => {
            let mut all = Vec::new();
            loop {
                all.push(host::new_bytes(&vec![1; 1 << 20])?);
            }
        }
        "noise" => {
            for at in 0..100_000 {
                host::log(3, "noise", &format!("{at}"));
            }
            host::log(3, "noise", &"long ".repeat(100_000));
        }
        "cancelled" => return Err(Failure::Cancelled),
        "read" => {
            let value = first(inputs)?;
            value.read(u64::MAX, 16)?;
        }
        "attributes" => {
            let x = zeros(&[2])?;
            let attributes = r#"{"mul": NaN, "add": 1e999}"#;
            return one(host::op("affine", &[&x], attributes)?);
        }
        "http" => {
            use wasi::http::types::{Fields, OutgoingRequest};
            let _ = OutgoingRequest::new(Fields::new());
        }
        "exact" => return exact(first(inputs)?.as_s64()?),
        "call" => return Ok(host::call("nothing", &[], "{}")?.into_iter().map(Some).collect()),
        "traceback" | "script" => {
            let lines: &[u8] = match name {
                "traceback" => TRACEBACK,
                _ => SCRIPT,
            };
            let _ = wasi::cli::stderr::get_stderr().blocking_write_and_flush(lines);
            std::arch::wasm32::unreachable();
        }
        name => return hoard(name),
    }
    Err(failed("it went on"))
}

/// What takes memory or time of the host's.
fn hoard(name: &str) -> Outcome {
    let mut all = Vec::new();
    match name {
        "long_op" => {
            let x = zeros(&[1, 64, 512, 512])?;
            let weight = zeros(&[64, 64, 64, 64])?;
            one(host::op("conv2d", &[&x, &weight], "{}")?)
        }
        "views" => loop {
            let x = zeros(&[1 << 24])?;
            let whole = host::op("affine", &[&x], r#"{"mul": 1.0, "add": 1.0}"#)?;
            let attributes = r#"{"dim": 0, "start": 0, "len": 1}"#;
            all.push(host::op("slice", &[&whole], attributes)?);
        },
        "records" => {
            let bytes = host::new_bytes(&vec![1; 8 << 20])?;
            loop {
                let field = (String::new(), &bytes);
                all.push(host::new_record("guests.bytes", &[field])?);
            }
        }
        "chunks" | "no_pixels" => {
            let frames = FramesBuilder::new(None)?;
            let width = u64::from(name == "chunks");
            let chunk = zeros(&[1, width, width, 3])?;
            loop {
                frames.push(&chunk)?;
            }
        }
        _ => Err(failed("there is no such node")),
    }
}

fn int(int: u64) -> Value {
    host::new_u64(int).unwrap()
}

fn zeros(dims: &[u64]) -> Result<Value, Failure> {
    TensorBuilder::finish(TensorBuilder::new("f32", dims)?)
}

/// Tensors whose elements are not as many bytes as they should be.
fn exact(which: i64) -> Outcome {
    let bytes = vec![0; if which == 0 { 7 } else { 9 }];
    one(host::new_tensor(if which == 2 { "f8" } else { "f32" }, &[2], &bytes)?)
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let large = black_box([depth; 4]);
    recurse(depth + 1) + large[(depth % 4) as usize]
}

fn memory() -> Outcome {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(black_box(vec![1; 8 << 20]));
    }
}
