//! The reference host: values in memory behind the C table.

use std::sync::{Arc, OnceLock};

use kino_abi::host_table::{Backend, HostError, HostResult, NamedValues, TensorLayout, host_table};
use kino_abi::{
    DLDataType, KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_OPAQUE, KINO_REAL, KINO_RECORD,
    KINO_TENSOR, KINO_TEXT, KinoHost, KinoKind,
};
use kino_contract::ValueKind;
use kino_contract::ops::Operand;
use kino_contract::records::{self, Found};
use kino_port::FieldPresence;

use super::array::Array;
use super::call::CallState;
use super::fit::fit;
use super::held::{FramesDraft, Handle, Held, Outcome};
use super::operations::{Host, call, compute, refused};
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
    static TABLE: OnceLock<Table> = OnceLock::new();
    &TABLE.get_or_init(|| Table(host_table::<HeldValues>())).0
}

/// Values in memory as plugins have handles of them.
pub(super) struct HeldValues;

impl Backend for HeldValues {
    type Value = Handle;
    type Call<'a> = CallState;
    type Keeper = ();
    type TensorBuilder = Array;
    type FramesBuilder = FramesDraft;

    fn refuse(message: String, hint: String) {
        eprintln!("{message} ({hint})");
    }

    fn has(name: &str) -> bool {
        kino_contract::has(name)
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

    fn kind(value: &Handle) -> KinoKind {
        match &**value {
            Held::Text(_) => KINO_TEXT,
            Held::Int(_) => KINO_INT,
            Held::Real(_) => KINO_REAL,
            Held::Bool(_) => KINO_BOOL,
            Held::Tensor(_) => KINO_TENSOR,
            Held::List(_) => KINO_LIST,
            Held::Record(..) => KINO_RECORD,
            Held::Bytes(_) => KINO_BYTES,
            Held::Opaque(_) => KINO_OPAQUE,
        }
    }

    fn type_name(value: &Handle) -> &str {
        value.type_name()
    }

    fn int(value: &Handle) -> HostResult<i128> {
        Ok(value.int()?)
    }

    fn real(value: &Handle) -> HostResult<f64> {
        Ok(value.real()?)
    }

    fn bytes(value: &Handle) -> HostResult<&[u8]> {
        Ok(value.bytes()?)
    }

    fn len(value: &Handle) -> usize {
        value.len()
    }

    fn item(value: &Handle, index: usize) -> HostResult<(&str, Handle)> {
        Ok(value.item(index)?)
    }

    fn field(value: &Handle, name: &str) -> HostResult<Option<Handle>> {
        Ok(value.field(name))
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

    fn new_list(items: NamedValues<Handle>) -> HostResult<Handle> {
        Ok(Arc::new(Held::List(items)))
    }

    fn new_record(ty: &str, fields: NamedValues<Handle>) -> HostResult<Handle> {
        check(ty, &fields).map_err(refused)?;
        match ty {
            "Frames" => Ok(framed(fields)?),
            _ => Ok(Arc::new(Held::Record(ty.to_owned(), fields))),
        }
    }

    fn view(value: &Handle) -> HostResult<(TensorLayout, ())> {
        let array = value.array()?;
        Ok((layout(array, array.bytes().as_ptr().cast_mut()), ()))
    }

    fn new_tensor(
        _: Option<&CallState>,
        dtype: DLDataType,
        shape: &[usize],
        _zeroed: bool,
    ) -> HostResult<Array> {
        let dtype = dtype_of(dtype).map_err(|error| HostError::new(error.message()))?;
        kino_contract::ops::fits("a tensor", shape, dtype, kino_contract::ops::MAX_BYTES)
            .map_err(refused)?;
        Ok(Array::zeros(dtype, shape))
    }

    fn memory(array: &mut Array) -> HostResult<TensorLayout> {
        let data = array.pointer();
        Ok(layout(array, data))
    }

    fn finish_tensor(array: Array) -> HostResult<Handle> {
        Ok(Arc::new(Held::Tensor(array)))
    }

    fn new_frames(_: Option<&CallState>, fps: Option<f64>) -> HostResult<FramesDraft> {
        Ok(FramesDraft::new(fps)?)
    }

    fn push_frames(frames: &mut FramesDraft, chunk: &Handle) -> HostResult<()> {
        Ok(frames.push(chunk)?)
    }

    fn finish_frames(frames: FramesDraft) -> HostResult<Handle> {
        Ok(frames.finish()?)
    }

    fn op(
        _: Option<&CallState>,
        name: &str,
        tensors: &[&Handle],
        attributes: &str,
    ) -> HostResult<Handle> {
        let arrays = tensors.iter().map(|tensor| tensor.array()).collect::<Outcome<Vec<_>>>()?;
        Ok(Arc::new(Held::Tensor(compute(name, &arrays, attributes).map_err(refused)?)))
    }

    fn call(
        _: Option<&CallState>,
        name: &str,
        values: &[&Handle],
        attributes: &str,
    ) -> HostResult<Handle> {
        let host = Host { fit, record: HeldValues::new_record };
        let made = call(&host, name, values, attributes)?;
        Ok(Arc::new(Held::List(made.into_iter().map(|made| (String::new(), made)).collect())))
    }
}

fn layout(array: &Array, data: *mut u8) -> TensorLayout {
    let shape = array.dims.iter().map(|&dim| dim as i64).collect();
    TensorLayout::row_major(data, dl_type(array.dtype), shape)
}

/// Frames of their fields: what the host says of frames is said, others are kept.
fn framed(fields: Vec<(String, Handle)>) -> Outcome<Handle> {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, held)| held);
    let mut draft = FramesDraft::new(field("fps").map(|fps| fps.real()).transpose()?)?;
    if let Some(chunks) = field("chunks") {
        (0..chunks.len()).try_for_each(|index| draft.push(&chunks.item(index)?.1))?;
    }
    let made = draft.finish()?;
    let Held::Record(ty, known) = &*made else { return Ok(made) };
    let is_known = |name: &str| {
        records::rules(ty).is_some_and(|rules| rules.iter().any(|rule| rule.name == name))
    };
    let more = fields.iter().filter(|(name, _)| !is_known(name)).cloned();
    Ok(Arc::new(Held::Record(ty.clone(), known.iter().cloned().chain(more).collect())))
}

fn kind_of(value: &Held) -> ValueKind {
    match value {
        Held::Text(_) => ValueKind::Text,
        Held::Int(_) => ValueKind::Int,
        Held::Real(_) => ValueKind::Real,
        Held::Bool(_) => ValueKind::Bool,
        Held::Tensor(_) => ValueKind::Tensor,
        Held::List(_) => ValueKind::List,
        Held::Record(..) => ValueKind::Record,
        Held::Bytes(_) => ValueKind::Bytes,
        Held::Opaque(_) => ValueKind::Opaque,
    }
}

/// Holds the fields of a record against what its type says of them.
fn check(ty: &str, fields: &[(String, Handle)]) -> kino_contract::ops::Result<()> {
    let rules = match records::rules(ty) {
        Some(rules) => rules,
        None if ty.contains('.') => &[],
        None => return Err(records::no_records(ty)),
    };
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    records::check_names(ty, rules, &names)?;
    for (name, value) in fields {
        let rule = rules.iter().find(|rule| rule.name == name);
        let Some(rule) = rule.filter(|rule| rule.presence != FieldPresence::Derived) else {
            continue;
        };
        let array = value.array().ok();
        let found = Found {
            kind: kind_of(value),
            type_name: value.type_name(),
            tensor: array.map(|array| Operand { dtype: array.dtype, dims: &array.dims }),
            text: match &**value {
                Held::Text(text) => Some(text),
                _ => None,
            },
            number: value.real().ok(),
            len: value.len(),
        };
        records::check_field(ty, rule, &found)?;
    }
    Ok(())
}
