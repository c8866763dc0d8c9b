//! The table of functions that plugins call: the engine's values behind the C table.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use kino_abi::host_table::{
    Backend, HostError, HostResult, NamedValues, TensorLayout, call_pointer, error_from_raw,
    host_table,
};
use kino_abi::{
    DLDataType, KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_OPAQUE, KINO_REAL, KINO_RECORD,
    KINO_TENSOR, KINO_TEXT, KinoCall, KinoError, KinoHost, KinoKind,
};
use kino_host::ops::OpLimits;
use kino_host::{CallCx, FramesDraft, PluginValue, ValueKind};
use kino_node::{Error, Value};
use kino_port::code;

use crate::allocator::{TensorDraft, allocator};
use crate::dlpack::{device, from_dl, to_dl};

/// What a `KinoCall` points to.
pub(crate) struct ActiveCall<'a>(&'a CallCx<'a>);

impl<'a> ActiveCall<'a> {
    pub(crate) fn new(call: &'a CallCx<'a>) -> Self {
        ActiveCall(call)
    }

    pub(crate) fn raw(&self) -> *mut KinoCall {
        call_pointer(self)
    }

    /// How a function of the plugin ended.
    ///
    /// # Safety
    /// `error` is what the plugin returned: null, or an error of the table that it gave away.
    pub(crate) unsafe fn ended(&self, error: *mut KinoError) -> kino_node::Result<()> {
        // SAFETY: as the caller promises.
        let Some(HostError { message, hint, code }) = (unsafe { error_from_raw(error) }) else {
            return Ok(());
        };
        if code == code::CANCELLED {
            return Err(self.0.cancelled());
        }
        let message = match message.is_empty() {
            true => format!("the plugin `{}` failed and did not say why", self.0.plugin),
            false => message,
        };
        Err(self.0.failure(message, hint, code))
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
    static HOST: OnceLock<Host> = OnceLock::new();
    &HOST.get_or_init(|| Host(host_table::<EngineValues>())).0
}

/// The table holds pointers to texts that never change.
struct Host(KinoHost);
// SAFETY: the table is never written after it was made, and its texts are static.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// The engine's values as plugins have handles of them.
pub(crate) struct EngineValues;

/// An error of the engine as the table tells it.
fn told(error: Error) -> HostError {
    HostError {
        message: error.to_string(),
        hint: error.hint().unwrap_or_default().to_owned(),
        code: error.code().to_owned(),
    }
}

fn parts(parts: NamedValues<PluginValue>) -> Vec<(Arc<str>, PluginValue)> {
    parts.into_iter().map(|(name, value)| (Arc::from(name), value)).collect()
}

/// What an operation may do: any size, until the run is cancelled.
fn within<T>(
    call: Option<&ActiveCall<'_>>,
    f: impl FnOnce(&OpLimits<'_>) -> kino_node::Result<T>,
) -> HostResult<T> {
    let check = || match call.is_some_and(|call| call.0.cancel.is_cancelled()) {
        true => Err(Error::Cancelled),
        false => Ok(()),
    };
    f(&OpLimits { most: u64::MAX, check: &check }).map_err(told)
}

impl Backend for EngineValues {
    type Value = PluginValue;
    type Call<'a> = ActiveCall<'a>;
    type Keeper = PluginValue;
    type TensorBuilder = TensorDraft;
    type FramesBuilder = FramesDraft;

    fn refuse(message: String, hint: String) {
        ENTRY_ERROR.set(Some((message, hint)));
    }

    fn has(name: &str) -> bool {
        kino_host::has(name)
    }

    fn log(call: &ActiveCall<'_>, level: u32, target: &str, message: &str) {
        call.0.log(level, target, message);
    }

    fn progress(call: &ActiveCall<'_>, step: u64, of: u64) {
        call.0.progress(step, of);
    }

    fn cancelled(call: &ActiveCall<'_>) -> bool {
        call.0.cancel.is_cancelled()
    }

    fn wants(call: &ActiveCall<'_>, output: usize) -> bool {
        call.0.wants(output)
    }

    fn stream(call: &ActiveCall<'_>) -> *mut c_void {
        stream_of(call.0.device)
    }

    fn read_file(call: &ActiveCall<'_>, path: &str) -> HostResult<PluginValue> {
        Ok(PluginValue::Bytes(call.0.files.read(path).map_err(told)?.into()))
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

    fn item(value: &PluginValue, index: usize) -> HostResult<(&str, PluginValue)> {
        Ok((value.name(index), value.item(index).map_err(told)?))
    }

    fn field(value: &PluginValue, name: &str) -> HostResult<Option<PluginValue>> {
        value.field(name).map_err(told)
    }

    fn new_text(text: String) -> HostResult<PluginValue> {
        Ok(PluginValue::Value(Value::Text(text.into())))
    }

    fn new_bytes(bytes: &[u8]) -> HostResult<PluginValue> {
        Ok(PluginValue::Bytes(bytes.into()))
    }

    fn new_int(int: i128) -> HostResult<PluginValue> {
        Ok(PluginValue::Value(Value::Int(int)))
    }

    fn new_real(real: f64) -> HostResult<PluginValue> {
        Ok(PluginValue::Value(Value::Real(real)))
    }

    fn new_bool(truth: bool) -> HostResult<PluginValue> {
        Ok(PluginValue::Value(Value::Bool(truth)))
    }

    fn new_list(items: NamedValues<PluginValue>) -> HostResult<PluginValue> {
        Ok(PluginValue::List(parts(items).into()))
    }

    fn new_record(ty: &str, fields: NamedValues<PluginValue>) -> HostResult<PluginValue> {
        allocator().record(ty, parts(fields)).map_err(told)
    }

    fn view(value: &PluginValue) -> HostResult<(TensorLayout, PluginValue)> {
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

    fn new_tensor(
        _: Option<&ActiveCall<'_>>,
        dtype: DLDataType,
        shape: &[usize],
        zeroed: bool,
    ) -> HostResult<TensorDraft> {
        allocator().tensor(from_dl(dtype).map_err(told)?, shape, zeroed).map_err(told)
    }

    fn memory(draft: &mut TensorDraft) -> HostResult<TensorLayout> {
        let (dtype, shape, data) = draft.memory().map_err(told)?;
        Ok(TensorLayout::row_major(data, to_dl(dtype).map_err(told)?, signed(shape)))
    }

    fn finish_tensor(draft: TensorDraft) -> HostResult<PluginValue> {
        draft.finish().map_err(told)
    }

    fn new_frames(call: Option<&ActiveCall<'_>>, fps: Option<f64>) -> HostResult<FramesDraft> {
        let ledger = allocator().ledger(call.map(|call| call.0.ledger));
        FramesDraft::new(ledger.as_ref(), fps).map_err(told)
    }

    fn push_frames(frames: &mut FramesDraft, chunk: &PluginValue) -> HostResult<()> {
        frames.push(chunk).map_err(told)
    }

    fn finish_frames(frames: FramesDraft) -> HostResult<PluginValue> {
        frames.finish().map_err(told)
    }

    fn op(
        call: Option<&ActiveCall<'_>>,
        name: &str,
        tensors: &[&PluginValue],
        attributes: &str,
    ) -> HostResult<PluginValue> {
        within(call, |limits| {
            let tensors = tensors.iter().map(|value| value.tensor());
            let tensors = tensors.collect::<kino_node::Result<Vec<_>>>()?;
            let made = kino_host::ops::apply_within(name, &tensors, attributes, limits)?;
            Ok(PluginValue::Value(Value::Tensor(made)))
        })
    }

    fn call(
        call: Option<&ActiveCall<'_>>,
        name: &str,
        values: &[&PluginValue],
        attributes: &str,
    ) -> HostResult<PluginValue> {
        let ledger = allocator().ledger(call.map(|call| call.0.ledger));
        within(call, |limits| {
            let values: Vec<_> = values.iter().map(|value| (*value).clone()).collect();
            let made = kino_host::calls::call(name, &values, attributes, limits, ledger.as_ref())?;
            let made = made.into_iter().map(|value| (Arc::from(""), value));
            Ok(PluginValue::List(made.collect()))
        })
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
