//! The two tables: what a host offers and what a plugin offers.

use std::ffi::{c_char, c_void};

use crate::{DLDataType, DLDevice, DLManagedTensorVersioned, DLTensor};

/// UTF-8 text or bytes: pointer and length. Borrowed; null with length 0 where there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KinoStr {
    /// The first byte.
    pub data: *const c_char,
    /// The number of bytes.
    pub len: usize,
}

/// What a value is: one of the `KINO_…` kinds below, or one of a later version: pass on what you
/// do not know.
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
/// A tensor.
pub const KINO_TENSOR: KinoKind = 5;
/// Several values, each with its name where it has one.
pub const KINO_LIST: KinoKind = 6;
/// A value of a named type with named fields, such as Frames (DESCRIPTOR.md has each type's
/// fields), or a plugin's own type.
pub const KINO_RECORD: KinoKind = 7;
/// Bytes, such as a file's contents.
pub const KINO_BYTES: KinoKind = 8;
/// A value that can only be passed on, such as parts of models.
pub const KINO_OPAQUE: KinoKind = 9;

/// Types that only pointers lead to.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    /// A value of the host. Const pointers are lent, others belong to whoever has them.
    KinoValue;
    /// One call of a plugin by the host; valid until that call returns.
    KinoCall;
    /// Why a function failed.
    KinoError;
    /// An instance of a node; the plugin decides what it is.
    KinoInstance;
    /// A tensor that is being written.
    KinoTensorBuilder;
    /// Frames that are being made.
    KinoFramesBuilder;
}

/// A value with a name: a field of a record, or an item of a list (whose name may be empty).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KinoField {
    /// The name.
    pub name: KinoStr,
    /// The value; lent.
    pub value: *const KinoValue,
}

/// The type of `kino_plugin`. It is the same in every version of the contract.
pub type KinoEntry = unsafe extern "C" fn(host: *const KinoHost) -> *const KinoPlugin;

/// What a plugin offers. All functions are there, also those that have nothing to do.
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
    /// What the plugin can do beyond what `minor` says, as words with spaces between them. None are
    /// defined yet: leave it empty.
    pub capabilities: KinoStr,
    /// The nodes and types, as JSON (DESCRIPTOR.md); lives as long as the library.
    pub descriptor: KinoStr,
    /// Makes an instance of a node, which belongs to the host until `close`; null is one, too.
    /// `saved` is what `save` of an earlier build gave; its `data` is null where there is nothing. A
    /// plugin that cannot use it fails, and the host opens again without.
    pub open: unsafe extern "C" fn(
        call: *mut KinoCall,
        node: KinoStr,
        saved: KinoStr,
        instance: *mut *mut KinoInstance,
    ) -> *mut KinoError,
    /// Computes. `inputs` are in the descriptor's order. Defaults are filled in: null stands only
    /// where nothing feeds an optional port. The plugin writes a value, which it gives away, or null
    /// to every place of `outputs`. After a failure the host releases what was written.
    pub run: unsafe extern "C" fn(
        call: *mut KinoCall,
        instance: *mut KinoInstance,
        inputs: *const *const KinoValue,
        input_count: usize,
        outputs: *mut *mut KinoValue,
        output_count: usize,
    ) -> *mut KinoError,
    /// Gives the state that a newer build may restore, as a value of kind KINO_BYTES, or null where
    /// there is none.
    pub save: unsafe extern "C" fn(
        call: *mut KinoCall,
        instance: *mut KinoInstance,
        state: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// Ends an instance.
    pub close: unsafe extern "C" fn(instance: *mut KinoInstance),
    /// Says that no instance is left and none will be opened. The code stays mapped.
    pub shutdown: unsafe extern "C" fn(),
}

/// What the host offers. Every function is there, up to `size`. `call` may be null in the functions
/// that make or compute something, where there is none.
#[repr(C)]
pub struct KinoHost {
    /// The size of this table in bytes.
    pub size: usize,
    /// `KINO_MAJOR` of the host.
    pub major: u32,
    /// `KINO_MINOR` of the host.
    pub minor: u32,
    /// Empty: `has` answers. It keeps its place, as all before it do in every version.
    pub capabilities: KinoStr,
    /// For `kino_plugin` alone: says why it is about to return null, and what to do about it (may
    /// be empty). `call` is null.
    pub fail: unsafe extern "C" fn(call: *mut KinoCall, message: KinoStr, hint: KinoStr),

    /// Makes an error, never null: what is wrong, where, what was expected; what the user can do
    /// about it (may be empty); a name for programs (may be empty; else at most 64 of `a-z 0-9 - . _`,
    /// or it is left off; OPERATIONS.md has those of the host).
    pub new_error:
        unsafe extern "C" fn(message: KinoStr, hint: KinoStr, code: KinoStr) -> *mut KinoError,
    /// What is wrong; lives as long as the error. So for the next two.
    pub error_message: unsafe extern "C" fn(error: *const KinoError) -> KinoStr,
    /// What to do about it; may be empty.
    pub error_hint: unsafe extern "C" fn(error: *const KinoError) -> KinoStr,
    /// Its name for programs, such as `not-granted` or `cancelled`; may be empty.
    pub error_code: unsafe extern "C" fn(error: *const KinoError) -> KinoStr,
    /// Gives an error up that is not returned. Null is allowed.
    pub release_error: unsafe extern "C" fn(error: *mut KinoError),

    /// Whether the host has something, 1 or 0: `op.NAME` and `call.NAME` (OPERATIONS.md),
    /// `type.NAME`, `dtype.NAME`.
    pub has: unsafe extern "C" fn(name: KinoStr) -> u32,
    /// Logs a message. Levels: 1 error, 2 warning, 3 information, 4 debugging, 5 tracing.
    pub log:
        unsafe extern "C" fn(call: *mut KinoCall, level: u32, target: KinoStr, message: KinoStr),
    /// Reports that `step` of `of` pieces of work are done.
    pub progress: unsafe extern "C" fn(call: *mut KinoCall, step: u64, of: u64),
    /// Whether the run was cancelled: 1 or 0. Ask between pieces of work, twice a second or more,
    /// then return an error of code `cancelled`, whose texts nobody sees.
    pub cancelled: unsafe extern "C" fn(call: *mut KinoCall) -> u32,
    /// Whether anybody reads output `index`: 1 or 0.
    pub wants: unsafe extern "C" fn(call: *mut KinoCall, index: usize) -> u32,
    /// Reads a file that the user granted, whole, as a value of kind KINO_BYTES. `path` is relative
    /// to the graph.
    pub read_file: unsafe extern "C" fn(
        call: *mut KinoCall,
        path: KinoStr,
        bytes: *mut *mut KinoValue,
    ) -> *mut KinoError,

    /// Counts one owner more, who has the pointer that comes back. Null gives null.
    pub retain: unsafe extern "C" fn(value: *const KinoValue) -> *mut KinoValue,
    /// Counts one owner less; the last one frees the value. Null is allowed.
    pub release: unsafe extern "C" fn(value: *mut KinoValue),
    /// What a value is; KINO_NONE for null.
    pub kind: unsafe extern "C" fn(value: *const KinoValue) -> KinoKind,
    /// The name of the value's type, such as `Frames` or `example.depth`; lives as long as it.
    pub type_name: unsafe extern "C" fn(value: *const KinoValue) -> KinoStr,
    /// The whole number; of true or false 1 or 0. Fails where it has more bits.
    pub get_i64: unsafe extern "C" fn(value: *const KinoValue, number: *mut i64) -> *mut KinoError,
    /// The same without a sign.
    pub get_u64: unsafe extern "C" fn(value: *const KinoValue, number: *mut u64) -> *mut KinoError,
    /// The whole number high·2^64 + low: graphs have 128 bits.
    pub get_wide: unsafe extern "C" fn(
        value: *const KinoValue,
        low: *mut u64,
        high: *mut i64,
    ) -> *mut KinoError,
    /// The real number; whole numbers widen.
    pub get_f64: unsafe extern "C" fn(value: *const KinoValue, number: *mut f64) -> *mut KinoError,
    /// True or false, as 1 or 0.
    pub get_bool: unsafe extern "C" fn(value: *const KinoValue, truth: *mut u32) -> *mut KinoError,
    /// The text, or the bytes; lives as long as the value.
    pub get_bytes:
        unsafe extern "C" fn(value: *const KinoValue, bytes: *mut KinoStr) -> *mut KinoError,
    /// The number of items of a list or fields of a record; 0 for all else.
    pub len: unsafe extern "C" fn(value: *const KinoValue) -> usize,
    /// An item of a list or a field of a record by its index, and its name where `name` is not null
    /// (it lives as long as `value`). The item belongs to the caller. Frames that lie in a file are
    /// read here.
    pub item: unsafe extern "C" fn(
        value: *const KinoValue,
        index: usize,
        name: *mut KinoStr,
        item: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// A field of a record by its name; null where it has none, or where `value` is no record. It
    /// belongs to the caller.
    pub field: unsafe extern "C" fn(
        value: *const KinoValue,
        name: KinoStr,
        field: *mut *mut KinoValue,
    ) -> *mut KinoError,

    /// Makes a text. What a function makes belongs to the caller.
    pub new_text: unsafe extern "C" fn(text: KinoStr, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes bytes.
    pub new_bytes:
        unsafe extern "C" fn(bytes: KinoStr, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes a whole number.
    pub new_i64: unsafe extern "C" fn(number: i64, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes a whole number.
    pub new_u64: unsafe extern "C" fn(number: u64, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes the whole number high·2^64 + low.
    pub new_wide:
        unsafe extern "C" fn(low: u64, high: i64, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes a real number.
    pub new_f64: unsafe extern "C" fn(number: f64, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes true or false: 0 is false.
    pub new_bool: unsafe extern "C" fn(truth: u32, value: *mut *mut KinoValue) -> *mut KinoError,
    /// Makes a list.
    pub new_list: unsafe extern "C" fn(
        items: *const KinoField,
        count: usize,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// Makes a record of a type (DESCRIPTOR.md has each type's fields), or of an own type. Fields
    /// that the type does not name are kept. Frames, too, are made of a list `chunks`; `push_frames`
    /// makes them piece by piece.
    pub new_record: unsafe extern "C" fn(
        type_name: KinoStr,
        fields: *const KinoField,
        count: usize,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,

    /// Where a tensor lies and how, good as long as the value. Read it only. `strides` are always
    /// filled. `data` is null where that is no main memory: operations take such a tensor, `to_host`
    /// brings it into main memory, and `view_tensor_on` sees it where it lies. Chunks of Frames are
    /// row-major and lie in main memory always. A record with a field `tensor` is seen as that tensor.
    pub view_tensor:
        unsafe extern "C" fn(value: *const KinoValue, view: *mut DLTensor) -> *mut KinoError,
    /// Begins a tensor in main memory, row-major. Where `zeroed` is 0 its elements are whatever lies
    /// there, all of which the plugin writes. A builder is used by one thread at a time.
    pub new_tensor_builder: unsafe extern "C" fn(
        call: *mut KinoCall,
        dtype: DLDataType,
        shape: *const i64,
        ndim: usize,
        zeroed: u32,
        builder: *mut *mut KinoTensorBuilder,
    ) -> *mut KinoError,
    /// Where its elements are written, good until the builder is finished or released.
    pub builder_view: unsafe extern "C" fn(
        builder: *mut KinoTensorBuilder,
        view: *mut DLTensor,
    ) -> *mut KinoError,
    /// The tensor. The builder is gone, after a failure as well.
    pub finish_tensor: unsafe extern "C" fn(
        builder: *mut KinoTensorBuilder,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// Gives a builder up. Null is allowed.
    pub release_tensor_builder: unsafe extern "C" fn(builder: *mut KinoTensorBuilder),

    /// Begins Frames of `fps` frames a second, a number above 0; NaN where that is not known.
    pub new_frames_builder: unsafe extern "C" fn(
        call: *mut KinoCall,
        fps: f64,
        builder: *mut *mut KinoFramesBuilder,
    ) -> *mut KinoError,
    /// Appends a tensor `[n, height, width, 3]` of f32 in 0…1. The host may move it to a file, so
    /// that long videos fit.
    pub push_frames: unsafe extern "C" fn(
        builder: *mut KinoFramesBuilder,
        chunk: *const KinoValue,
    ) -> *mut KinoError,
    /// The Frames, at least one. The builder is gone, after a failure as well.
    pub finish_frames: unsafe extern "C" fn(
        builder: *mut KinoFramesBuilder,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// Gives a builder up. Null is allowed.
    pub release_frames_builder: unsafe extern "C" fn(builder: *mut KinoFramesBuilder),

    /// One operation on tensors, where they lie (OPERATIONS.md): its name, its tensors, and its
    /// attributes as JSON (empty where it has none).
    pub op: unsafe extern "C" fn(
        call: *mut KinoCall,
        name: KinoStr,
        tensors: *const *const KinoValue,
        count: usize,
        attributes: KinoStr,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// One function on values of any kind (OPERATIONS.md). Its results are a list.
    pub call: unsafe extern "C" fn(
        call: *mut KinoCall,
        name: KinoStr,
        values: *const *const KinoValue,
        count: usize,
        attributes: KinoStr,
        list: *mut *mut KinoValue,
    ) -> *mut KinoError,

    /// The stream that the host's work of this call on a CUDA device is ordered by, as a `CUstream`;
    /// null elsewhere.
    pub stream: unsafe extern "C" fn(call: *mut KinoCall) -> *mut c_void,
    /// Where a tensor lies.
    pub device:
        unsafe extern "C" fn(value: *const KinoValue, device: *mut DLDevice) -> *mut KinoError,
    /// As `new_tensor_builder`, in the memory of a device, unwritten. The plugin's work on it is
    /// ordered before `stream` when it is finished. Fails with code `device` where the host lends no
    /// memory of that device; kDLCPU it always does. So for the next two.
    pub new_tensor_on: unsafe extern "C" fn(
        call: *mut KinoCall,
        device: DLDevice,
        dtype: DLDataType,
        shape: *const i64,
        ndim: usize,
        builder: *mut *mut KinoTensorBuilder,
    ) -> *mut KinoError,
    /// Makes a value of a tensor of the plugin, on the device where it lies, without a copy where
    /// the host can. What writes its elements is ordered before `stream`. The host calls the
    /// `deleter` of `given` once, perhaps later and on another thread; after a failure as well.
    pub take_tensor: unsafe extern "C" fn(
        call: *mut KinoCall,
        given: *mut DLManagedTensorVersioned,
        value: *mut *mut KinoValue,
    ) -> *mut KinoError,
    /// A read-only view that outlives the value, of a tensor on any device that the host lends. Its
    /// elements are there in the order of `reader`, the stream that the plugin reads on (null for
    /// main memory). It is given back by its deleter, on any thread, before `shutdown` returns;
    /// before that, the plugin's work on it is ordered before `stream`.
    pub view_tensor_on: unsafe extern "C" fn(
        call: *mut KinoCall,
        value: *const KinoValue,
        reader: *mut c_void,
        view: *mut *mut DLManagedTensorVersioned,
    ) -> *mut KinoError,
}
