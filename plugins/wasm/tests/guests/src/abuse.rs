//! Plugins that try what they should not.

use std::hint::black_box;

use crate::bindings::kino::plugin::host::{self, Dtype, Shape, Value, Wide};
use crate::bindings::wasi;
use crate::{Outcome, failed, first, ok, one};

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
];

#[link(wasm_import_module = "kino:plugin/host@1.0.0")]
unsafe extern "C" {
    #[link_name = "[method]value.kind"]
    fn kind_of(handle: u32) -> u32;
    #[link_name = "[resource-drop]value"]
    fn drop_of(handle: u32);
    #[link_name = "new-bytes"]
    fn new_bytes(data: u32, length: u32, result: u32);
}

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
                all.push(ok(host::new_tensor(&shape(&[1 << 20])))?);
            }
        }
        "tensor" => match ok(first(inputs)?.as_int())?.low {
            0 => one(ok(host::new_tensor(&shape(&[1 << 40])))?),
            1 => one(ok(host::new_tensor(&shape(&[u64::MAX, 2])))?),
            2 => one(ok(host::new_tensor(&shape(&[1; 1000])))?),
            _ => one(ok(host::new_tensor(&shape(&[0, u64::MAX])))?),
        },
        "frames" => {
            let frames = ok(host::new_frames(None))?;
            let chunk = ok(host::new_tensor(&shape(&[4, 64, 64, 3])))?;
            loop {
                ok(frames.push(&chunk))?;
            }
        }
        "op" => {
            let column = ok(host::new_tensor(&shape(&[1 << 16, 1])))?;
            let row = ok(host::new_tensor(&shape(&[1, 1 << 16])))?;
            one(ok(host::op("add", &[&column, &row], "{}"))?)
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
        "read_file" => one(ok(host::read_file(&ok(first(inputs)?.as_text())?))?),
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
                value = ok(host::new_items(&[(String::new(), &value)]))?;
            }
        }
        "wide" => {
            let mut value = int(0);
            loop {
                let twice = [(String::new(), &value), (String::new(), &value)];
                value = ok(host::new_items(&twice))?;
            }
        }
        // SAFETY: a number that is no handle is the host's affair.
        "stray" => return one(int(unsafe { kind_of(123_456) }.into())),
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
                all.push(ok(host::new_bytes(&vec![1; 1 << 20]))?);
            }
        }
        "noise" => {
            for at in 0..100_000 {
                host::log(3, "noise", &format!("{at}"));
            }
            host::log(3, "noise", &"long ".repeat(100_000));
        }
        "cancelled" => return Err(crate::Failure::Cancelled),
        "read" => {
            let value = first(inputs)?;
            ok(value.read(u64::MAX, 16))?;
        }
        "attributes" => {
            let x = ok(host::new_tensor(&shape(&[2])))?;
            let attributes = r#"{"mul": NaN, "add": 1e999}"#;
            return one(ok(host::op("affine", &[&x], attributes))?);
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
            let x = ok(host::new_tensor(&shape(&[1, 64, 512, 512])))?;
            let weight = ok(host::new_tensor(&shape(&[64, 64, 64, 64])))?;
            one(ok(host::op("conv2d", &[&x, &weight], "{}"))?)
        }
        "views" => loop {
            let x = ok(host::new_tensor(&shape(&[1 << 24])))?;
            let whole = ok(host::op("affine", &[&x], r#"{"mul": 1.0, "add": 1.0}"#))?;
            let attributes = r#"{"dim": 0, "start": 0, "len": 1}"#;
            all.push(ok(host::op("slice", &[&whole], attributes))?);
        },
        "records" => {
            let bytes = ok(host::new_bytes(&vec![1; 8 << 20]))?;
            loop {
                let field = (String::new(), &bytes);
                all.push(ok(host::new_fields("guests.bytes", &[field]))?);
            }
        }
        "chunks" | "no_pixels" => {
            let frames = ok(host::new_frames(None))?;
            let width = u64::from(name == "chunks");
            let chunk = ok(host::new_tensor(&shape(&[1, width, width, 3])))?;
            loop {
                ok(frames.push(&chunk))?;
            }
        }
        _ => Err(failed("there is no such node")),
    }
}

fn int(low: u64) -> Value {
    host::new_int(Wide { low, high: 0 }).unwrap()
}

fn shape(dims: &[u64]) -> Shape {
    Shape { dtype: Dtype::F32, dims: dims.to_vec() }
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
