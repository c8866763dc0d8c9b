//! Plugins that behave.

use crate::bindings::kino::plugin::host::{self, Dtype, Shape, Value, Wide};
use crate::bindings::wasi;
use crate::{Outcome, STATE, failed, first, ok, one, text};

/// Id, input, output, whether it has state.
pub(crate) const NODES: &[(&str, &str, &str, bool)] = &[
    ("good.echo", "Any", "Any", false),
    ("good.empty", "", "Int", false),
    ("good.gain", "Frames", "Frames", false),
    ("good.state", "Int", "Int", true),
    ("good.keep", "Any", "Int", true),
    ("good.wasi", "", "Text", false),
    ("good.nap", "", "Text", false),
    ("good.square", "Tensor", "Tensor", false),
    ("good.rotate", "Tensor", "Tensor", false),
    ("good.file", "Text", "Text", false),
    ("good.parts", "Any", "Any", false),
];

/// Bytes of frames that are worked on at a time.
const PIECE: u64 = 256 << 10;

pub(crate) fn run(name: &str, inputs: Vec<Option<Value>>) -> Outcome {
    match name {
        "echo" => Ok(inputs),
        "empty" => one(ok(host::new_int(Wide { low: 1, high: 0 }))?),
        "gain" => gain(first(inputs)?),
        "state" => add(first(inputs)?),
        "keep" => keep(first(inputs)?),
        "wasi" => surroundings(),
        "nap" => {
            wasi::clocks::monotonic_clock::subscribe_duration(30_000_000).block();
            text("slept")
        }
        "square" => {
            let x = first(inputs)?;
            one(ok(host::op("mul", &[&x, &x], "{}"))?)
        }
        "rotate" => {
            let x = first(inputs)?;
            let turned = ok(host::op("permute", &[&x], r#"{"dims": [1, 0]}"#))?;
            let shape = ok(turned.shape())?;
            let copy = ok(host::new_tensor(&shape))?;
            let bytes = shape.dims.iter().product::<u64>() * 4;
            ok(copy.write(0, &ok(turned.read(0, bytes))?))?;
            one(copy)
        }
        "file" => {
            let bytes = ok(host::read_file(&ok(first(inputs)?.as_text())?))?;
            text(&String::from_utf8_lossy(&ok(bytes.read(0, bytes.len()))?))
        }
        "parts" => parts(&first(inputs)?),
        _ => Err(failed("there is no such node")),
    }
}

/// Frames times two, piece by piece.
fn gain(frames: Value) -> Outcome {
    let fps = match ok(frames.field("fps"))? {
        Some(fps) => Some(ok(fps.as_real())?),
        None => None,
    };
    let chunks = ok(frames.field("chunks"))?.ok_or_else(|| failed("frames without chunks"))?;
    let out = ok(host::new_frames(fps))?;
    for at in 0..chunks.len() {
        let (_, chunk) = ok(chunks.item(at))?;
        let Shape { dtype, dims } = ok(chunk.shape())?;
        if !matches!(dtype, Dtype::F32) {
            return Err(failed("frames are f32"));
        }
        let bytes = dims.iter().product::<u64>() * 4;
        let result = ok(host::new_tensor(&Shape { dtype, dims }))?;
        let mut offset = 0;
        while offset < bytes {
            let length = PIECE.min(bytes - offset);
            let mut piece = ok(chunk.read(offset, length))?;
            for value in piece.chunks_exact_mut(4) {
                let x = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                value.copy_from_slice(&(x * 2.0).to_le_bytes());
            }
            ok(result.write(offset, &piece))?;
            offset += length;
        }
        ok(out.push(&result))?;
        host::progress(at + 1, chunks.len());
    }
    one(out)
}

/// Adds to what it remembers.
fn add(more: Value) -> Outcome {
    let more = ok(more.as_int())?.low as i64;
    let total = STATE.with_borrow_mut(|state| {
        state.total += more;
        state.total
    });
    one(ok(host::new_int(Wide { low: total as u64, high: total >> 63 }))?)
}

/// Keeps its input for good; says how many it has.
fn keep(value: Value) -> Outcome {
    let count = STATE.with_borrow_mut(|state| {
        state.kept.push(value);
        state.kept.iter().filter(|value| !value.type_name().is_empty()).count()
    });
    one(ok(host::new_int(Wide { low: count as u64, high: 0 }))?)
}

/// What it can see of the world.
fn surroundings() -> Outcome {
    let out = wasi::cli::stdout::get_stdout();
    out.blocking_write_and_flush(b"hello from within\n").map_err(|_| failed("no output"))?;
    let environment = wasi::cli::environment::get_environment().len();
    let arguments = wasi::cli::environment::get_arguments().len();
    let folders = wasi::filesystem::preopens::get_directories().len();
    let time = wasi::clocks::wall_clock::now().seconds;
    let random = wasi::random::random::get_random_u64();
    let before = wasi::clocks::monotonic_clock::now();
    let goes_on = (0..1_000_000).any(|_| wasi::clocks::monotonic_clock::now() > before);
    text(&format!("{environment} {arguments} {folders} {time} {random:x} {goes_on}"))
}

/// Takes a list apart and puts it together as a record of its own.
fn parts(list: &Value) -> Outcome {
    let mut parts = Vec::new();
    for at in 0..list.len() {
        parts.push(ok(list.item(at))?);
    }
    let fields: Vec<(String, &Value)> =
        parts.iter().enumerate().map(|(at, (name, part))| (format!("{name}{at}"), part)).collect();
    one(ok(host::new_fields("guests.parts", &fields))?)
}
