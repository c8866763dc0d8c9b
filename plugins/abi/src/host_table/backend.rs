//! What a host says of its values, in safe Rust.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use crate::{DL_CPU, DLDataType, DLDevice, KinoKind};

/// Why a function of a host fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The run was cancelled.
    Cancelled,
    /// Anything else: what was found and expected, and what to do about it, which may be empty.
    Failed {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl HostError {
    /// A failure with nothing to advise.
    pub fn new(message: impl Into<String>) -> Self {
        HostError::Failed { message: message.into(), hint: String::new() }
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
pub type NamedValues<V> = Vec<(String, Arc<V>)>;

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

impl TensorLayout {
    /// Row-major without gaps, in main memory.
    pub fn row_major(data: *mut u8, dtype: DLDataType, shape: Vec<i64>) -> Self {
        let mut strides = vec![1; shape.len()];
        for at in (1..strides.len()).rev() {
            strides[at - 1] = strides[at] * shape[at];
        }
        let device = DLDevice { device_type: DL_CPU, device_id: 0 };
        TensorLayout { data, device, dtype, shape, strides }
    }
}

/// What a host's values are, and what can be done with them.
pub trait Backend: Sized + 'static {
    /// What a plugin has handles of. Handles are counted; what they lead to is shared.
    type Value: Send + Sync + 'static;
    /// A call that a plugin is in.
    type Call<'a>: 'a;
    /// What keeps the elements of a lent tensor where they are, beside the value itself.
    type Keeper: Send + 'static;

    /// The plugin says why it is about to fail; in its entry there is no call.
    fn fail(call: Option<&Self::Call<'_>>, message: String, hint: String);
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
    fn read_file(call: &Self::Call<'_>, path: &str) -> HostResult<Arc<Self::Value>>;

    /// What a value is.
    fn kind(value: &Self::Value) -> KinoKind;
    /// The name of its type.
    fn type_name(value: &Self::Value) -> &str;
    /// The whole number.
    fn int(value: &Self::Value) -> HostResult<i128>;
    /// The real number.
    fn real(value: &Self::Value) -> HostResult<f64>;
    /// The text or the bytes.
    fn bytes(value: &Self::Value) -> HostResult<&[u8]>;
    /// The number of items or fields.
    fn len(value: &Self::Value) -> usize;
    /// An item or field by its index, with its name.
    fn item(value: &Self::Value, index: usize) -> HostResult<(&str, Arc<Self::Value>)>;
    /// A field by its name.
    fn field(value: &Self::Value, name: &str) -> HostResult<Option<Arc<Self::Value>>>;

    /// Makes a text.
    fn new_text(text: String) -> HostResult<Arc<Self::Value>>;
    /// Makes bytes.
    fn new_bytes(bytes: &[u8]) -> HostResult<Arc<Self::Value>>;
    /// Makes a whole number.
    fn new_int(int: i128) -> HostResult<Arc<Self::Value>>;
    /// Makes a real number.
    fn new_real(real: f64) -> HostResult<Arc<Self::Value>>;
    /// Makes a truth value.
    fn new_bool(truth: bool) -> HostResult<Arc<Self::Value>>;
    /// Makes a list.
    fn new_list(items: NamedValues<Self::Value>) -> HostResult<Arc<Self::Value>>;
    /// Makes a record of a type.
    fn new_record(ty: &str, fields: NamedValues<Self::Value>) -> HostResult<Arc<Self::Value>>;
    /// Begins frames, of a rate where that is known.
    fn new_frames(fps: Option<f64>) -> HostResult<Arc<Self::Value>>;
    /// Appends a chunk to frames in the making.
    fn push_frames(frames: &Self::Value, chunk: &Arc<Self::Value>) -> HostResult<()>;

    /// Makes a tensor to be written: zeros, or where `unwritten` whatever lies there.
    fn new_tensor(
        dtype: DLDataType,
        shape: &[usize],
        unwritten: bool,
    ) -> HostResult<Arc<Self::Value>>;
    /// A tensor to be read where it lies. The elements stay where they are as long as both the
    /// value and the keeper live.
    fn view(value: &Self::Value) -> HostResult<(TensorLayout, Self::Keeper)>;
    /// A tensor to be written, until [`Backend::written`].
    fn write(value: &Self::Value) -> HostResult<TensorLayout>;
    /// Ends what [`Backend::write`] began.
    fn written(value: &Self::Value);
    /// Computes one operation.
    fn op(name: &str, tensors: &[&Self::Value], attributes: &str) -> HostResult<Arc<Self::Value>>;
}
