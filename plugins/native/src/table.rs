//! The table of functions that plugins call: the engine's values behind the C table.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kino_abi::host_table::{
    Backend, HostError, HostResult, NamedValues, TensorLayout, call_pointer, host_table,
};
use kino_abi::{
    DLDataType, KINO_BOOL, KINO_BYTES, KINO_CANCELLED, KINO_INT, KINO_LIST, KINO_OK, KINO_OPAQUE,
    KINO_REAL, KINO_RECORD, KINO_TENSOR, KINO_TEXT, KinoCall, KinoHost, KinoKind, KinoStatus,
};
use kino_host::{CallCx, PluginValue, ValueKind};
use kino_node::{Error, Value};

use crate::allocator::allocator;
use crate::dlpack::{device, from_dl, to_dl};

/// What a `KinoCall` points to: a call with what the plugin said of its failure.
pub(crate) struct ActiveCall<'a> {
    pub(crate) call: &'a CallCx<'a>,
    failure: Mutex<Option<(String, String)>>,
}

impl<'a> ActiveCall<'a> {
    pub(crate) fn new(call: &'a CallCx<'a>) -> Self {
        ActiveCall { call, failure: Mutex::new(None) }
    }

    pub(crate) fn raw(&self) -> *mut KinoCall {
        call_pointer(self)
    }

    /// The error that a status stands for, if it is one.
    pub(crate) fn error(&self, status: KinoStatus) -> Option<Error> {
        match status {
            KINO_OK => None,
            KINO_CANCELLED => Some(self.call.cancelled()),
            _ => {
                let said = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (message, hint) = said.unwrap_or_else(|| {
                    (
                        format!("the plugin `{}` failed and did not say why", self.call.plugin),
                        String::new(),
                    )
                });
                let hint = Some(hint).filter(|hint| !hint.is_empty());
                Some(Error::failed(message).with_hint(hint))
            }
        }
    }
}

thread_local! {
    /// What a plugin said in its entry, where there is no call.
    static ENTRY_ERROR: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// What a plugin said of its refusal to start.
pub(crate) fn entry_error() -> Option<(String, String)> {
    ENTRY_ERROR.take()
}

/// The table; it lives as long as the process.
pub(crate) fn host() -> &'static KinoHost {
    static WORDS: OnceLock<String> = OnceLock::new();
    static HOST: OnceLock<Host> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let ops = kino_host::ops::NAMES.iter().map(|name| format!("op.{name}"));
        ops.collect::<Vec<_>>().join(" ")
    });
    &HOST.get_or_init(|| Host(host_table::<EngineValues>(words))).0
}

/// The table holds pointers to texts that never change.
struct Host(KinoHost);
// SAFETY: the table is never written after it was made, and its texts are static.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// The engine's values as plugins have handles of them.
struct EngineValues;

/// An error of the engine as the table tells it.
fn told(error: Error) -> HostError {
    match error {
        Error::Cancelled => HostError::Cancelled,
        other => HostError::Failed {
            message: other.to_string(),
            hint: other.hint().unwrap_or_default().to_owned(),
        },
    }
}

fn made(value: PluginValue) -> HostResult<Arc<PluginValue>> {
    Ok(Arc::new(value))
}

fn parts(parts: NamedValues<PluginValue>) -> Vec<(Arc<str>, PluginValue)> {
    let part =
        |(name, value): (String, Arc<PluginValue>)| (Arc::from(name), Arc::unwrap_or_clone(value));
    parts.into_iter().map(part).collect()
}

impl Backend for EngineValues {
    type Value = PluginValue;
    type Call<'a> = ActiveCall<'a>;
    type Keeper = PluginValue;

    fn fail(call: Option<&ActiveCall<'_>>, message: String, hint: String) {
        let said = Some((message, hint));
        match call {
            Some(call) => *call.failure.lock().unwrap_or_else(PoisonError::into_inner) = said,
            None => ENTRY_ERROR.set(said),
        }
    }

    fn log(call: &ActiveCall<'_>, level: u32, target: &str, message: &str) {
        call.call.log(level, target, message);
    }

    fn progress(call: &ActiveCall<'_>, step: u64, of: u64) {
        call.call.progress(step, of);
    }

    fn cancelled(call: &ActiveCall<'_>) -> bool {
        call.call.cancel.is_cancelled()
    }

    fn wants(call: &ActiveCall<'_>, output: usize) -> bool {
        call.call.wants(output)
    }

    fn stream(call: &ActiveCall<'_>) -> *mut c_void {
        stream_of(call.call.device)
    }

    fn read_file(call: &ActiveCall<'_>, path: &str) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Bytes(call.call.files.read(path).map_err(told)?.into()))
    }

    fn kind(value: &PluginValue) -> KinoKind {
        match value.kind() {
            ValueKind::Text => KINO_TEXT,
            ValueKind::Int => KINO_INT,
            ValueKind::Real => KINO_REAL,
            ValueKind::Bool => KINO_BOOL,
            ValueKind::Tensor => KINO_TENSOR,
            ValueKind::List => KINO_LIST,
            ValueKind::Record => KINO_RECORD,
            ValueKind::Bytes => KINO_BYTES,
            ValueKind::Opaque => KINO_OPAQUE,
        }
    }

    fn type_name(value: &PluginValue) -> &str {
        value.type_name()
    }

    fn int(value: &PluginValue) -> HostResult<i128> {
        value.int().map_err(told)
    }

    fn real(value: &PluginValue) -> HostResult<f64> {
        value.real().map_err(told)
    }

    fn bytes(value: &PluginValue) -> HostResult<&[u8]> {
        value.bytes().map_err(told)
    }

    fn len(value: &PluginValue) -> usize {
        value.len()
    }

    fn item(value: &PluginValue, index: usize) -> HostResult<(&str, Arc<PluginValue>)> {
        Ok((value.name(index), Arc::new(value.item(index).map_err(told)?)))
    }

    fn field(value: &PluginValue, name: &str) -> HostResult<Option<Arc<PluginValue>>> {
        Ok(value.field(name).map_err(told)?.map(Arc::new))
    }

    fn new_text(text: String) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Value(Value::Text(text.into())))
    }

    fn new_bytes(bytes: &[u8]) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Bytes(bytes.into()))
    }

    fn new_int(int: i128) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Value(Value::Int(int)))
    }

    fn new_real(real: f64) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Value(Value::Real(real)))
    }

    fn new_bool(truth: bool) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::Value(Value::Bool(truth)))
    }

    fn new_list(items: NamedValues<PluginValue>) -> HostResult<Arc<PluginValue>> {
        made(PluginValue::List(parts(items).into()))
    }

    fn new_record(ty: &str, fields: NamedValues<PluginValue>) -> HostResult<Arc<PluginValue>> {
        allocator().record(ty, parts(fields)).map(Arc::new).map_err(told)
    }

    fn new_frames(fps: Option<f64>) -> HostResult<Arc<PluginValue>> {
        allocator().frames(fps).map(Arc::new).map_err(told)
    }

    fn push_frames(frames: &PluginValue, chunk: &Arc<PluginValue>) -> HostResult<()> {
        allocator().push(frames, chunk).map_err(told)
    }

    fn new_tensor(
        dtype: DLDataType,
        shape: &[usize],
        unwritten: bool,
    ) -> HostResult<Arc<PluginValue>> {
        let dtype = from_dl(dtype).map_err(told)?;
        let tensor = match unwritten {
            true => allocator().uninit(dtype, shape),
            false => allocator().tensor(dtype, shape),
        };
        tensor.map(Arc::new).map_err(told)
    }

    fn view(value: &PluginValue) -> HostResult<(TensorLayout, PluginValue)> {
        allocator().seal(value).map_err(told)?;
        let found = value.view().map_err(told)?;
        let layout = TensorLayout {
            data: found.data.cast_mut(),
            device: device(found.location),
            dtype: to_dl(found.dtype).map_err(told)?,
            shape: signed(&found.shape),
            strides: signed(&found.strides),
        };
        Ok((layout, found.keeper))
    }

    fn write(value: &PluginValue) -> HostResult<TensorLayout> {
        let (dtype, shape) = value.shape().map_err(told)?;
        let dtype = to_dl(dtype).map_err(told)?;
        let data = allocator().lend(value).map_err(told)?;
        Ok(TensorLayout::row_major(data, dtype, signed(&shape)))
    }

    fn written(value: &PluginValue) {
        allocator().give_back(value);
    }

    fn op(name: &str, tensors: &[&PluginValue], attributes: &str) -> HostResult<Arc<PluginValue>> {
        let tensor = |value: &&PluginValue| {
            allocator().seal(value)?;
            value.tensor()
        };
        let tensors = tensors.iter().map(tensor).collect::<kino_node::Result<Vec<_>>>();
        let result = kino_host::ops::apply(name, &tensors.map_err(told)?, attributes);
        made(PluginValue::Value(Value::Tensor(result.map_err(told)?)))
    }
}

fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|size| *size as i64).collect()
}

/// The stream that everything on a device is ordered by; null but for CUDA.
#[cfg(feature = "cuda")]
fn stream_of(device: &candle_core::Device) -> *mut c_void {
    match device {
        candle_core::Device::Cuda(cuda) => cuda.cuda_stream().cu_stream().cast(),
        _ => std::ptr::null_mut(),
    }
}

#[cfg(not(feature = "cuda"))]
fn stream_of(_: &candle_core::Device) -> *mut c_void {
    std::ptr::null_mut()
}
