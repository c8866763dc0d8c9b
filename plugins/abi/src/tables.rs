//! The two tables: what a host offers and what a plugin offers.

use std::ffi::c_void;

use crate::{DLDataType, DLManagedTensorVersioned};

/// UTF-8 text or bytes: pointer and length. Borrowed; null with length 0 where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KinoStr {
    /// The first byte.
    pub data: *const u8,
    /// The number of bytes.
    pub len: usize,
}

/// How a function ended: [`KINO_OK`], [`KINO_FAILED`] or [`KINO_CANCELLED`].
pub type KinoStatus = i32;
/// It did what it should.
pub const KINO_OK: KinoStatus = 0;
/// It could not; the reason has been said.
pub const KINO_FAILED: KinoStatus = 1;
/// It stopped because the run was cancelled.
pub const KINO_CANCELLED: KinoStatus = 2;

/// What a value is: one of the `KINO_…` kinds below.
pub type KinoKind = u32;
/// No value.
pub const KINO_NONE: KinoKind = 0;
/// UTF-8 text; also paths.
pub const KINO_TEXT: KinoKind = 1;
/// A whole number of 128 bits.
pub const KINO_INT: KinoKind = 2;
/// A 64-bit floating-point number.
pub const KINO_REAL: KinoKind = 3;
/// True or false.
pub const KINO_BOOL: KinoKind = 4;
/// A tensor. So are values of the types Mask, ImageConditioning and Sigmas (f64, `[steps + 1]`).
pub const KINO_TENSOR: KinoKind = 5;
/// Several values, each with its name where it has one.
pub const KINO_LIST: KinoKind = 6;
/// A value of a named type with named fields: Frames, Latent, Patches, Conditioning, or a plugin's
/// own type.
pub const KINO_RECORD: KinoKind = 7;
/// Bytes, such as a file's contents.
pub const KINO_BYTES: KinoKind = 8;
/// A value that can only be passed on: parts of models, guiders.
pub const KINO_OPAQUE: KinoKind = 9;

/// A value of the host; plugins see only pointers to it.
#[repr(C)]
pub struct KinoValue {
    _private: [u8; 0],
}

/// One call of a plugin by the host; valid until that call returns.
#[repr(C)]
pub struct KinoCall {
    _private: [u8; 0],
}

/// An instance of a node; the plugin decides what lies behind the pointer.
pub type KinoInstance = c_void;

/// A value with a name: a field of a record, or an item of a list (whose name may be empty).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KinoField {
    /// The name.
    pub name: KinoStr,
    /// The value; lent, not given.
    pub value: *mut KinoValue,
}

/// The one symbol that a plugin exports, under the name `kino_plugin`. Its signature is the same in
/// every version of the contract.
///
/// `host` stays valid as long as the process lives. Returns a static table, or null after `fail`.
pub type KinoEntry = unsafe extern "C" fn(host: *const KinoHost) -> *const KinoPlugin;

/// What a plugin offers.
#[repr(C)]
pub struct KinoPlugin {
    /// `KINO_MAGIC`.
    pub magic: u64,
    /// `KINO_MAJOR` of the header that the plugin was built with.
    pub major: u32,
    /// `KINO_MINOR` of that header.
    pub minor: u32,
    /// The size of this table in bytes.
    pub size: usize,
    /// What the plugin can do beyond what `minor` says; words with spaces between them.
    pub capabilities: KinoStr,
    /// The nodes and types, as JSON (`DESCRIPTOR.md`); lives as long as the library.
    pub descriptor: KinoStr,
    /// Makes an instance of a node. `saved` is what `save` of an earlier build gave, or null; a
    /// plugin that cannot use it fails, and the host opens again without. On [`KINO_OK`],
    /// `instance` belongs to the host until `close`.
    pub open: unsafe extern "C" fn(
        call: *mut KinoCall,
        node: KinoStr,
        saved: KinoStr,
        instance: *mut *mut KinoInstance,
    ) -> KinoStatus,
    /// Computes. `inputs` are in the descriptor's order, null where nothing feeds a port; they are
    /// lent. The plugin writes a value, which it gives away, or null to every place of `outputs`.
    /// After a failure the host releases what was written.
    pub run: unsafe extern "C" fn(
        call: *mut KinoCall,
        instance: *mut KinoInstance,
        inputs: *const *mut KinoValue,
        input_count: usize,
        outputs: *mut *mut KinoValue,
        output_count: usize,
    ) -> KinoStatus,
    /// Gives the state that a newer build may restore, as a value of kind [`KINO_BYTES`], or null
    /// where there is none.
    pub save: unsafe extern "C" fn(
        call: *mut KinoCall,
        instance: *mut KinoInstance,
        state: *mut *mut KinoValue,
    ) -> KinoStatus,
    /// Ends an instance. It must not fail; a panic within must be caught.
    pub close: unsafe extern "C" fn(instance: *mut KinoInstance),
    /// Says that no instance is left and none will be opened. The code stays mapped.
    pub shutdown: unsafe extern "C" fn(),
}

/// What the host offers. Every function is there, up to `size`.
#[repr(C)]
pub struct KinoHost {
    /// The size of this table in bytes.
    pub size: usize,
    /// `KINO_MAJOR` of the host.
    pub major: u32,
    /// `KINO_MINOR` of the host.
    pub minor: u32,
    /// What the host can do, words with spaces between them: `op.NAME` for each operation on
    /// tensors, `cuda` or `metal` where tensors may lie there.
    pub capabilities: KinoStr,

    /// Says why the call is about to fail, and what to do about it (may be empty; where the message
    /// is that of `error`, the host adds what it knows). `call` may be null in the entry.
    pub fail: unsafe extern "C" fn(call: *mut KinoCall, message: KinoStr, hint: KinoStr),
    /// Why the last host function failed on this thread; valid until the next host call.
    pub error: unsafe extern "C" fn() -> KinoStr,
    /// Logs a message. Levels: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
    pub log:
        unsafe extern "C" fn(call: *mut KinoCall, level: u32, target: KinoStr, message: KinoStr),
    /// Reports that `step` of `of` pieces of work are done.
    pub progress: unsafe extern "C" fn(call: *mut KinoCall, step: u64, of: u64),
    /// Whether the run was cancelled: 1 or 0. Ask between pieces of work, then return
    /// [`KINO_CANCELLED`].
    pub cancelled: unsafe extern "C" fn(call: *mut KinoCall) -> u32,
    /// Whether anybody reads output `index`: 1 or 0.
    pub wants: unsafe extern "C" fn(call: *mut KinoCall, index: usize) -> u32,
    /// The stream that tensors on a CUDA device are ordered by, as a `CUstream`; null elsewhere.
    pub stream: unsafe extern "C" fn(call: *mut KinoCall) -> *mut c_void,
    /// Reads a file that the user granted, whole, as a value of kind [`KINO_BYTES`]. `path` is
    /// relative to the graph. Fails where nothing was granted.
    pub read_file: unsafe extern "C" fn(
        call: *mut KinoCall,
        path: KinoStr,
        bytes: *mut *mut KinoValue,
    ) -> KinoStatus,

    /// Counts one owner more; returns the same value.
    pub retain: unsafe extern "C" fn(value: *mut KinoValue) -> *mut KinoValue,
    /// Counts one owner less; the last one frees the value. Null is allowed.
    pub release: unsafe extern "C" fn(value: *mut KinoValue),
    /// What a value is; [`KINO_NONE`] for null.
    pub kind: unsafe extern "C" fn(value: *mut KinoValue) -> KinoKind,
    /// The name of the value's type, such as `Frames` or `example.depth`; lives as long as it.
    pub type_name: unsafe extern "C" fn(value: *mut KinoValue) -> KinoStr,
    /// The whole number `high·2^64 + low`. Also of a truth value: 0 or 1.
    pub get_int:
        unsafe extern "C" fn(value: *mut KinoValue, low: *mut u64, high: *mut i64) -> KinoStatus,
    /// The real number; whole numbers widen.
    pub get_real: unsafe extern "C" fn(value: *mut KinoValue, real: *mut f64) -> KinoStatus,
    /// The text, or the bytes; lives as long as the value.
    pub get_bytes: unsafe extern "C" fn(value: *mut KinoValue, bytes: *mut KinoStr) -> KinoStatus,
    /// The number of items of a list or fields of a record; 0 for all else.
    pub len: unsafe extern "C" fn(value: *mut KinoValue) -> usize,
    /// An item of a list or a field of a record by its index, with its name (which lives as long as
    /// `value`). The item belongs to the caller. Frames that lie in a file are read here.
    pub item: unsafe extern "C" fn(
        value: *mut KinoValue,
        index: usize,
        name: *mut KinoStr,
        item: *mut *mut KinoValue,
    ) -> KinoStatus,
    /// A field of a record by its name; null where it has none. It belongs to the caller.
    pub field: unsafe extern "C" fn(
        value: *mut KinoValue,
        name: KinoStr,
        field: *mut *mut KinoValue,
    ) -> KinoStatus,

    /// Makes a text.
    pub new_text: unsafe extern "C" fn(text: KinoStr, value: *mut *mut KinoValue) -> KinoStatus,
    /// Makes bytes.
    pub new_bytes: unsafe extern "C" fn(bytes: KinoStr, value: *mut *mut KinoValue) -> KinoStatus,
    /// Makes the whole number `high·2^64 + low`.
    pub new_int:
        unsafe extern "C" fn(low: u64, high: i64, value: *mut *mut KinoValue) -> KinoStatus,
    /// Makes a real number.
    pub new_real: unsafe extern "C" fn(real: f64, value: *mut *mut KinoValue) -> KinoStatus,
    /// Makes a truth value: 0 is false.
    pub new_bool: unsafe extern "C" fn(truth: u32, value: *mut *mut KinoValue) -> KinoStatus,
    /// Makes a list.
    pub new_list: unsafe extern "C" fn(
        items: *const KinoField,
        count: usize,
        value: *mut *mut KinoValue,
    ) -> KinoStatus,
    /// Makes a record of a type: Latent (tensor, space?), Conditioning (positive, negative),
    /// Patches (tokens, clips, patch), or an own type with any fields.
    pub new_record: unsafe extern "C" fn(
        type_name: KinoStr,
        fields: *const KinoField,
        count: usize,
        value: *mut *mut KinoValue,
    ) -> KinoStatus,
    /// Begins Frames of `fps` frames a second, a number above 0; NaN where that is not known.
    pub new_frames: unsafe extern "C" fn(fps: f64, value: *mut *mut KinoValue) -> KinoStatus,
    /// Appends a tensor `[n, height, width, 3]` of f32 in 0…1 to Frames in the making. The host may
    /// move them to a file, so that long videos fit.
    pub push_frames:
        unsafe extern "C" fn(frames: *mut KinoValue, chunk: *mut KinoValue) -> KinoStatus,

    /// Makes a tensor of zeros in main memory, to be filled through `write_tensor`.
    pub new_tensor: unsafe extern "C" fn(
        dtype: DLDataType,
        shape: *const i64,
        ndim: usize,
        value: *mut *mut KinoValue,
    ) -> KinoStatus,
    /// A read-only view of a tensor where it lies. The caller gives it back by its deleter, at
    /// latest before `shutdown` returns; the view keeps the tensor alive. Its `data` is null where
    /// the host does not lend the memory of that device: operations take such a tensor, and
    /// `to_host` brings it into main memory.
    pub view_tensor: unsafe extern "C" fn(
        value: *mut KinoValue,
        view: *mut *mut DLManagedTensorVersioned,
    ) -> KinoStatus,
    /// A writable view of a tensor from `new_tensor`, as long as nothing else has read it or taken
    /// it up. At most one at a time; it is given back by its deleter, then the tensor can be used.
    pub write_tensor: unsafe extern "C" fn(
        value: *mut KinoValue,
        view: *mut *mut DLManagedTensorVersioned,
    ) -> KinoStatus,
    /// Computes one operation on tensors where they lie (`OPERATIONS.md`): its name, its tensors,
    /// and its attributes as JSON (empty where it has none).
    pub op: unsafe extern "C" fn(
        name: KinoStr,
        tensors: *const *mut KinoValue,
        count: usize,
        attributes: KinoStr,
        value: *mut *mut KinoValue,
    ) -> KinoStatus,

    /// Since 1.1: as `new_tensor`, but nobody has written its elements: the plugin writes all of
    /// them before it gives the view of `write_tensor` back, and reads none before.
    pub new_tensor_unwritten: unsafe extern "C" fn(
        dtype: DLDataType,
        shape: *const i64,
        ndim: usize,
        value: *mut *mut KinoValue,
    ) -> KinoStatus,
}
