//! Plugins that behave.

use crate::bindings::kino::plugin::host::{self, FramesBuilder, TensorBuilder, Value};
use crate::bindings::wasi;
use crate::{Instance, Outcome, failed, first, one, text};

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
    ("good.all", "Any", "Text", false),
    ("good.shared", "Int", "Int", true),
    ("good.last", "Int", "Int", true),
];

/// Bytes of frames that are worked on at a time.
const PIECE: u64 = 256 << 10;

pub(crate) fn run(instance: &Instance, name: &str, inputs: Vec<Option<Value>>) -> Outcome {
    match name {
        "echo" => Ok(inputs),
        "empty" => one(host::new_s64(1)?),
        "gain" => gain(first(inputs)?),
        "state" => add(instance, first(inputs)?),
        "keep" => keep(instance, first(inputs)?),
        "shared" | "last" => shared(name, first(inputs)?.as_s64()?),
        "wasi" => surroundings(),
        "nap" => {
            wasi::clocks::monotonic_clock::subscribe_duration(30_000_000).block();
            text("slept")
        }
        "square" => {
            let x = first(inputs)?;
            one(host::op("mul", &[&x, &x], "{}")?)
        }
        "rotate" => {
            let x = first(inputs)?;
            let turned = host::op("permute", &[&x], r#"{"dims": [1, 0]}"#)?;
            let bytes = turned.read(0, turned.size()? as u32)?;
            one(host::new_tensor(&turned.dtype()?, &turned.dims()?, &bytes)?)
        }
        "file" => {
            let bytes = host::read_file(&first(inputs)?.as_text()?)?;
            text(&String::from_utf8_lossy(&bytes.read(0, bytes.size()? as u32)?))
        }
        "parts" => parts(&first(inputs)?),
        "all" => all(&first(inputs)?),
        _ => Err(failed("there is no such node")),
    }
}

/// Frames times two, piece by piece.
fn gain(frames: Value) -> Outcome {
    let fps = match frames.field("fps")? {
        Some(fps) => Some(fps.as_f64()?),
        None => None,
    };
    let chunks = frames.field("chunks")?.ok_or_else(|| failed("frames without chunks"))?;
    let out = FramesBuilder::new(fps)?;
    for at in 0..chunks.len() {
        let (_, chunk) = chunks.item(at)?;
        let dtype = chunk.dtype()?;
        if dtype != "f32" {
            return Err(failed("frames are f32"));
        }
        let bytes = chunk.size()?;
        let result = TensorBuilder::new(&dtype, &chunk.dims()?)?;
        let mut offset = 0;
        while offset < bytes {
            let length = PIECE.min(bytes - offset);
            let mut piece = chunk.read(offset, length as u32)?;
            for value in piece.chunks_exact_mut(4) {
                let x = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
                value.copy_from_slice(&(x * 2.0).to_le_bytes());
            }
            result.write(offset, &piece)?;
            offset += length;
        }
        out.push(&TensorBuilder::finish(result)?)?;
        host::progress(at + 1, chunks.len());
    }
    one(FramesBuilder::finish(out)?)
}

/// Adds to what it remembers.
fn add(instance: &Instance, more: Value) -> Outcome {
    let total = instance.total.get() + more.as_s64()?;
    instance.total.set(total);
    one(host::new_s64(total)?)
}

/// Keeps its input for good; says how many it has.
fn keep(instance: &Instance, value: Value) -> Outcome {
    let mut kept = instance.kept.borrow_mut();
    kept.push(value);
    let count = kept.iter().filter(|value| !value.type_name().is_empty()).count();
    one(host::new_u64(count as u64)?)
}

/// Adds to what all that share an instance of the component have, which is no good style. What is
/// less than 0 panics, and the greatest number never ends.
fn shared(name: &str, more: i64) -> Outcome {
    use std::sync::atomic::{AtomicI64, Ordering};
    static SHARED: AtomicI64 = AtomicI64::new(0);
    let before = SHARED.fetch_add(more, Ordering::Relaxed);
    match more {
        i64::MAX => loop {
            std::hint::black_box(());
        },
        ..0 => panic!("less than nothing"),
        _ => {}
    }
    let alive = crate::ALIVE.load(Ordering::Relaxed);
    one(host::new_s64(if name == "last" { alive } else { before + more })?)
}

/// Asks everything of the host that nobody else here asks.
fn all(list: &Value) -> Outcome {
    let truth = list.item(0)?.1;
    let wide = list.item(1)?.1;
    let (low, high) = wide.as_wide()?;
    let again = host::new_wide(low, high)?.as_wide()? == (low, high);
    let tensor = host::new_tensor("u8", &[2], &[7, 8])?;
    let made = host::new_list(&[
        ("bool".to_owned(), &host::new_bool(truth.as_bool()?)?),
        ("u64".to_owned(), &host::new_u64(u64::MAX)?),
        ("real".to_owned(), &host::new_f64(0.5)?),
        ("tensor".to_owned(), &tensor.clone()),
        ("text".to_owned(), &host::new_text("größe")?),
    ])?;
    let mut kinds = Vec::new();
    for at in 0..made.len() {
        let (name, item) = made.item(at)?;
        kinds.push(format!("{name} {}", item.kind()));
    }
    let too_large = match made.item(1)?.1.as_s64() {
        Ok(_) => String::new(),
        Err(crate::Failure::Failed(error)) => error.code,
        Err(crate::Failure::Cancelled) => "cancelled".to_owned(),
    };
    let has = ["op.matmul", "op.later", "type.Frames", "dtype.f32", "call.nothing"].map(host::has);
    text(&format!(
        "{again} {too_large} {} {} {} {} {} {has:?} {} {} {}",
        made.item(1)?.1.as_u64()?,
        tensor.device()?,
        tensor.dtype()?,
        tensor.size()?,
        made.item(4)?.1.size()?,
        host::wants(0),
        host::cancelled(),
        kinds.join(", "),
    ))
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
        parts.push(list.item(at)?);
    }
    let fields: Vec<(String, &Value)> =
        parts.iter().enumerate().map(|(at, (name, part))| (format!("{name}{at}"), part)).collect();
    one(host::new_record("guests.parts", &fields)?)
}
