//! What a host says of its values, in safe Rust.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::{DL_CPU, DLDataType, DLDevice, KinoKind};

/// Why a function of a host or of a plugin failed: what a `KinoError` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// What was found, where, and what was expected.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// A name for programs; may be empty.
    pub code: String,
}

impl HostError {
    /// A failure with nothing to advise.
    pub fn new(message: impl Into<String>) -> Self {
        HostError::coded("invalid", message)
    }

    /// The same with a code.
    pub fn coded(code: &str, message: impl Into<String>) -> Self {
        HostError { message: message.into(), hint: String::new(), code: code.to_owned() }
    }
}

impl From<String> for HostError {
    fn from(message: String) -> Self {
        HostError::new(message)
    }
}

/// What a function of a host gives.
pub type HostResult<T> = Result<T, HostError>;

/// Values on their way into a list or a record, with their names.
pub type NamedValues<V> = Vec<(String, V)>;

/// Where and how a tensor lies.
pub struct TensorLayout {
    /// The first element; null where the host does not lend the memory of the device.
    pub data: *mut u8,
    /// Where it lies.
    pub device: DLDevice,
    /// The type of the elements.
    pub dtype: DLDataType,
    /// The dimensions.
    pub shape: Vec<i64>,
    /// Elements from one to the next along each dimension.
    pub strides: Vec<i64>,
}

/// The main memory.
pub(crate) const CPU: DLDevice = DLDevice { device_type: DL_CPU, device_id: 0 };

impl TensorLayout {
    /// Row-major without gaps, in main memory.
    pub fn row_major(data: *mut u8, dtype: DLDataType, shape: Vec<i64>) -> Self {
        let strides = row_major(&shape);
        TensorLayout { data, device: CPU, dtype, shape, strides }
    }
}

/// The strides of a tensor without gaps.
pub(crate) fn row_major(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for at in (1..strides.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    strides
}

/// What a host's values are, and what can be done with them.
pub trait Backend: Sized + 'static {
    /// What a plugin has handles of. Clones share what they lead to.
    type Value: Clone + Send + Sync + 'static;
    /// A call that a plugin is in.
    type Call<'a>: 'a;
    /// What keeps the elements of a tensor where they are, beside the value itself.
    type Keeper: Send + Sync + 'static;
    /// A tensor that is being written.
    type TensorBuilder: Send + 'static;
    /// Frames that are being made.
    type FramesBuilder: Send + 'static;

    /// A plugin says in its entry why it refuses to start.
    fn refuse(message: String, hint: String);
    /// Whether the host has something: `op.NAME` and so on.
    fn has(name: &str) -> bool;
    /// The plugin logs a message; levels go from 1 (error) to 5 (tracing).
    fn log(call: &Self::Call<'_>, level: u32, target: &str, message: &str);
    /// The plugin says how far it is.
    fn progress(call: &Self::Call<'_>, step: u64, of: u64);
    /// Whether the run was cancelled.
    fn cancelled(call: &Self::Call<'_>) -> bool;
    /// Whether anybody reads an output.
    fn wants(call: &Self::Call<'_>, output: usize) -> bool;
    /// The stream that tensors on a device are ordered by.
    fn stream(_call: &Self::Call<'_>) -> *mut c_void {
        null_mut()
    }
    /// A granted file as a value of bytes.
    ///
    /// # Errors
    /// When it is not granted, or cannot be read. So for all that follow: when the value is
    /// something else, or what is asked for does not fit.
    fn read_file(call: &Self::Call<'_>, path: &str) -> HostResult<Self::Value>;

    /// What a value is.
    fn kind(value: &Self::Value) -> KinoKind;
    /// The name of its type.
    fn type_name(value: &Self::Value) -> &str;
    /// The whole number; of true or false 1 or 0.
    fn int(value: &Self::Value) -> HostResult<i128>;
    /// The real number.
    fn real(value: &Self::Value) -> HostResult<f64>;
    /// The text or the bytes.
    fn bytes(value: &Self::Value) -> HostResult<&[u8]>;
    /// The number of items or fields.
    fn len(value: &Self::Value) -> usize;
    /// An item or field by its index, with its name.
    fn item(value: &Self::Value, index: usize) -> HostResult<(&str, Self::Value)>;
    /// A field by its name.
    fn field(value: &Self::Value, name: &str) -> HostResult<Option<Self::Value>>;

    /// Makes a text.
    fn new_text(text: String) -> HostResult<Self::Value>;
    /// Makes bytes.
    fn new_bytes(bytes: &[u8]) -> HostResult<Self::Value>;
    /// Makes a whole number.
    fn new_int(int: i128) -> HostResult<Self::Value>;
    /// Makes a real number.
    fn new_real(real: f64) -> HostResult<Self::Value>;
    /// Makes true or false.
    fn new_bool(truth: bool) -> HostResult<Self::Value>;
    /// Makes a list.
    fn new_list(items: NamedValues<Self::Value>) -> HostResult<Self::Value>;
    /// Makes a record of a type.
    fn new_record(ty: &str, fields: NamedValues<Self::Value>) -> HostResult<Self::Value>;

    /// A tensor to be read where it lies. The elements stay where they are as long as both the
    /// value and the keeper live.
    fn view(value: &Self::Value) -> HostResult<(TensorLayout, Self::Keeper)>;
    /// Begins a tensor in main memory: zeros, or whatever lies there.
    fn new_tensor(
        call: Option<&Self::Call<'_>>,
        dtype: DLDataType,
        shape: &[usize],
        zeroed: bool,
    ) -> HostResult<Self::TensorBuilder>;
    /// Where it is written: memory that is row-major and stays where it is until it is finished or
    /// dropped.
    fn memory(builder: &mut Self::TensorBuilder) -> HostResult<TensorLayout>;
    /// The tensor.
    fn finish_tensor(builder: Self::TensorBuilder) -> HostResult<Self::Value>;

    /// Begins frames, of a rate where that is known.
    fn new_frames(
        call: Option<&Self::Call<'_>>,
        fps: Option<f64>,
    ) -> HostResult<Self::FramesBuilder>;
    /// Appends a chunk.
    fn push_frames(frames: &mut Self::FramesBuilder, chunk: &Self::Value) -> HostResult<()>;
    /// The frames.
    fn finish_frames(frames: Self::FramesBuilder) -> HostResult<Self::Value>;

    /// Computes one operation on tensors.
    fn op(
        call: Option<&Self::Call<'_>>,
        name: &str,
        tensors: &[&Self::Value],
        attributes: &str,
    ) -> HostResult<Self::Value>;
    /// Computes one function on values; its results are a list.
    fn call(
        call: Option<&Self::Call<'_>>,
        name: &str,
        values: &[&Self::Value],
        attributes: &str,
    ) -> HostResult<Self::Value>;
}
