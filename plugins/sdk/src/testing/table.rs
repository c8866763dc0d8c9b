//! The reference host: values in memory behind the C table.

use std::sync::{Arc, OnceLock};

use kino_abi::host_table::{Backend, HostError, HostResult, NamedValues, TensorLayout, host_table};
use kino_abi::{
    DLDataType, KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_OPAQUE, KINO_REAL, KINO_RECORD,
    KINO_TENSOR, KINO_TEXT, KinoHost, KinoKind,
};
use kino_port::PortType;

use super::array::Array;
use super::call::CallState;
use super::held::{Handle, Held, Outcome, TensorBuffer};
use super::operations::compute;
use crate::host::dlpack::{dl_type, dtype_of};

/// A table that may be shared between threads.
struct Table(KinoHost);

// SAFETY: the table is never written after it is made, and what it points to neither.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// The reference host's table, to call a plugin's entry with; plugins that no engine has loaded use
/// it by themselves.
pub fn table() -> &'static KinoHost {
    static WORDS: OnceLock<String> = OnceLock::new();
    static TABLE: OnceLock<Table> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let ops = kino_contract::ops::NAMES.iter().map(|name| format!("op.{name}"));
        ops.collect::<Vec<_>>().join(" ")
    });
    &TABLE.get_or_init(|| Table(host_table::<HeldValues>(words))).0
}

/// Values in memory as plugins have handles of them.
struct HeldValues;

impl Backend for HeldValues {
    type Value = Held;
    type Call<'a> = CallState;
    type Keeper = ();

    fn fail(call: Option<&CallState>, message: String, hint: String) {
        match call {
            Some(call) => call.fail(message, hint),
            None => eprintln!("{message} ({hint})"),
        }
    }

    fn log(call: &CallState, level: u32, target: &str, message: &str) {
        call.log(level, target.to_owned(), message.to_owned());
    }

    fn progress(call: &CallState, step: u64, of: u64) {
        call.progress(step, of);
    }

    fn cancelled(call: &CallState) -> bool {
        call.cancelled()
    }

    fn wants(call: &CallState, output: usize) -> bool {
        call.wants(output)
    }

    fn read_file(call: &CallState, path: &str) -> HostResult<Handle> {
        Ok(Arc::new(Held::Bytes(call.file(path)?)))
    }

    fn kind(value: &Held) -> KinoKind {
        match value {
            Held::Text(_) => KINO_TEXT,
            Held::Int(_) => KINO_INT,
            Held::Real(_) => KINO_REAL,
            Held::Bool(_) => KINO_BOOL,
            Held::Tensor(_) => KINO_TENSOR,
            Held::List(_) => KINO_LIST,
            Held::Record(..) | Held::Frames(_) => KINO_RECORD,
            Held::Bytes(_) => KINO_BYTES,
            Held::Opaque(_) => KINO_OPAQUE,
        }
    }

    fn type_name(value: &Held) -> &str {
        value.type_name()
    }

    fn int(value: &Held) -> HostResult<i128> {
        Ok(value.int()?)
    }

    fn real(value: &Held) -> HostResult<f64> {
        Ok(value.real()?)
    }

    fn bytes(value: &Held) -> HostResult<&[u8]> {
        Ok(value.bytes()?)
    }

    fn len(value: &Held) -> usize {
        value.len()
    }

    fn item(value: &Held, index: usize) -> HostResult<(&str, Handle)> {
        Ok(value.item(index)?)
    }

    fn field(value: &Held, name: &str) -> HostResult<Option<Handle>> {
        Ok(value.field(name)?)
    }

    fn new_text(text: String) -> HostResult<Handle> {
        Ok(Arc::new(Held::Text(text)))
    }

    fn new_bytes(bytes: &[u8]) -> HostResult<Handle> {
        Ok(Arc::new(Held::Bytes(bytes.to_vec())))
    }

    fn new_int(int: i128) -> HostResult<Handle> {
        Ok(Arc::new(Held::Int(int)))
    }

    fn new_real(real: f64) -> HostResult<Handle> {
        Ok(Arc::new(Held::Real(real)))
    }

    fn new_bool(truth: bool) -> HostResult<Handle> {
        Ok(Arc::new(Held::Bool(truth)))
    }

    fn new_list(items: NamedValues<Held>) -> HostResult<Handle> {
        Ok(Arc::new(Held::List(items)))
    }

    fn new_record(ty: &str, fields: NamedValues<Held>) -> HostResult<Handle> {
        Ok(Arc::new(Held::Record(ty.to_owned(), checked(ty, fields)?)))
    }

    fn new_frames(fps: Option<f64>) -> HostResult<Handle> {
        Ok(Held::frames(fps)?)
    }

    fn push_frames(frames: &Held, chunk: &Handle) -> HostResult<()> {
        Ok(frames.push(chunk)?)
    }

    fn new_tensor(dtype: DLDataType, shape: &[usize], _unwritten: bool) -> HostResult<Handle> {
        let dtype = dtype_of(dtype).map_err(|error| error.to_string())?;
        kino_contract::ops::fits("a tensor", shape, dtype, kino_contract::ops::MAX_BYTES)
            .map_err(|why| why.to_string())?;
        Ok(Arc::new(Held::Tensor(TensorBuffer::open(Array::zeros(dtype, shape)))))
    }

    fn view(value: &Held) -> HostResult<(TensorLayout, ())> {
        let array = value.array()?;
        Ok((layout(array, array.bytes().as_ptr().cast_mut()), ()))
    }

    fn write(value: &Held) -> HostResult<TensorLayout> {
        let array = value.buffer()?.write()?;
        // SAFETY: the buffer lets one writer in, which is this one until it is written.
        let array = unsafe { &mut *array };
        let data = array.pointer();
        Ok(layout(array, data))
    }

    fn written(value: &Held) {
        if let Ok(buffer) = value.buffer() {
            buffer.written();
        }
    }

    fn op(name: &str, tensors: &[&Held], attributes: &str) -> HostResult<Handle> {
        let arrays = tensors.iter().map(|tensor| tensor.array()).collect::<Outcome<Vec<_>>>()?;
        Ok(Held::tensor(compute(name, &arrays, attributes).map_err(HostError::from)?))
    }
}

fn layout(array: &Array, data: *mut u8) -> TensorLayout {
    let shape = array.dims.iter().map(|&dim| dim as i64).collect();
    TensorLayout::row_major(data, dl_type(array.dtype), shape)
}

/// Checks that a record of an engine type has its fields.
fn checked(name: &str, fields: Vec<(String, Handle)>) -> Outcome<Vec<(String, Handle)>> {
    let row = PortType::NAMED.iter().find(|row| row.name == name);
    let needed = match row.filter(|row| !row.fields.is_empty()) {
        Some(row) => row.needed_fields().map(|field| field.name).collect(),
        None if name.contains('.') => Vec::new(),
        None => return Err(format!("a plugin cannot make a record of type `{name}`")),
    };
    match needed.iter().find(|needed| !fields.iter().any(|(field, _)| field == *needed)) {
        Some(missing) => Err(format!("a record of type {name} needs a field `{missing}`")),
        None => Ok(fields),
    }
}
