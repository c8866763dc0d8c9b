//! The table of functions that plugins call. Every function holds its own panics: nothing unwinds
//! into a plugin.

use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kino_abi::{
    DLDataType, DLManagedTensorVersioned, KINO_BOOL, KINO_BYTES, KINO_CANCELLED, KINO_FAILED,
    KINO_INT, KINO_LIST, KINO_MAJOR, KINO_MINOR, KINO_NONE, KINO_OK, KINO_OPAQUE, KINO_REAL,
    KINO_RECORD, KINO_TENSOR, KINO_TEXT, KinoCall, KinoField, KinoHost, KinoKind, KinoStatus,
    KinoStr, KinoValue,
};
use kino_host::{Call, Item, Kind};
use kino_node::{Error, Result, Value};

use crate::maker::maker;
use crate::view;

/// What a `KinoCall` points to: a call with what the plugin said of its failure.
pub(crate) struct Current<'a> {
    pub(crate) call: &'a Call<'a>,
    failure: Mutex<Option<(String, String)>>,
}

impl<'a> Current<'a> {
    pub(crate) fn new(call: &'a Call<'a>) -> Self {
        Current { call, failure: Mutex::new(None) }
    }

    pub(crate) fn raw(&self) -> *mut KinoCall {
        std::ptr::from_ref(self).cast_mut().cast()
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
                Some(Error::Failed { message, hint })
            }
        }
    }
}

thread_local! {
    /// Why the last function failed on this thread.
    static ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// What a plugin said in its entry, where there is no call.
    static REFUSAL: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// What a plugin said of its refusal to start.
pub(crate) fn refusal() -> Option<(String, String)> {
    REFUSAL.take()
}

/// A text of a plugin.
///
/// # Safety
/// `text` points to `len` bytes for the time of the call, as the contract demands of strings.
pub(crate) unsafe fn bytes<'a>(text: KinoStr) -> &'a [u8] {
    if text.data.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: not null, and as the caller promises.
    unsafe { std::slice::from_raw_parts(text.data, text.len) }
}

/// As [`bytes`]; what is no UTF-8 is replaced.
///
/// # Safety
/// As [`bytes`].
unsafe fn text(text: KinoStr) -> String {
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { bytes(text) }).into_owned()
}

fn lent(text: &[u8]) -> KinoStr {
    KinoStr { data: text.as_ptr(), len: text.len() }
}

/// Gives a value away: whoever has the pointer owns a count.
pub(crate) fn give(item: Item) -> *mut KinoValue {
    Arc::into_raw(Arc::new(item)).cast_mut().cast()
}

/// Takes back what was given away.
///
/// # Safety
/// `value` is null or comes from [`give`], and its count belongs to the caller.
pub(crate) unsafe fn take(value: *mut KinoValue) -> Option<Arc<Item>> {
    // SAFETY: not null and from `Arc::into_raw` in `give`, as the caller promises.
    (!value.is_null()).then(|| unsafe { Arc::from_raw(value.cast_const().cast::<Item>()) })
}

/// Looks at a value that somebody else owns.
///
/// # Safety
/// `value` is null or comes from [`give`] and lives on for the time of the call.
unsafe fn look<'a>(value: *mut KinoValue) -> Result<&'a Item> {
    // SAFETY: as the caller promises.
    unsafe { value.cast_const().cast::<Item>().as_ref() }
        .ok_or_else(|| Error::failed("a value was expected, found null"))
}

/// Another count of a value that somebody else owns.
///
/// # Safety
/// As [`look`], and not null.
unsafe fn share(value: *mut KinoValue) -> Result<Arc<Item>> {
    if value.is_null() {
        return Err(Error::failed("a value was expected, found null"));
    }
    let item = value.cast_const().cast::<Item>();
    // SAFETY: it comes from `Arc::into_raw` and is alive, as the caller promises.
    unsafe {
        Arc::increment_strong_count(item);
        Ok(Arc::from_raw(item))
    }
}

/// Does what a function of the table does: errors and panics become a status.
fn answer(f: impl FnOnce() -> Result<()>) -> KinoStatus {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => KINO_OK,
        Ok(Err(Error::Cancelled)) => KINO_CANCELLED,
        Ok(Err(error)) => {
            ERROR.set(error.to_string());
            KINO_FAILED
        }
        Err(_) => {
            ERROR.set("the host panicked: this is a bug of Kinograph; please report it".to_owned());
            KINO_FAILED
        }
    }
}

/// As [`answer`], and writes the item that comes out.
///
/// # Safety
/// `to` can be written.
unsafe fn answer_with(
    to: *mut *mut KinoValue,
    f: impl FnOnce() -> Result<Option<Item>>,
) -> KinoStatus {
    answer(|| {
        let item = f()?;
        // SAFETY: as the caller promises.
        unsafe { to.write(item.map_or(std::ptr::null_mut(), give)) };
        Ok(())
    })
}

/// The call behind a pointer.
///
/// # Safety
/// `call` is null or was given to the plugin by [`Current::raw`], and has not returned yet.
unsafe fn current<'a>(call: *mut KinoCall) -> Option<&'a Current<'a>> {
    // SAFETY: as the caller promises.
    unsafe { call.cast_const().cast::<Current<'a>>().as_ref() }
}

/// A field list of a plugin.
///
/// # Safety
/// `fields` points to `count` fields whose names and values hold the contract.
unsafe fn fields(fields: *const KinoField, count: usize) -> Result<Vec<(Arc<str>, Item)>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if fields.is_null() {
        return Err(Error::failed("fields were expected, found null"));
    }
    // SAFETY: not null, and as the caller promises; so for each field below.
    let fields = unsafe { std::slice::from_raw_parts(fields, count) };
    let read = |field: &KinoField| unsafe {
        // SAFETY: as above.
        Ok((Arc::from(text(field.name)), look(field.value)?.clone()))
    };
    fields.iter().map(read).collect()
}

// SAFETY of all functions of the table: plugins hold the contract of `kino_abi`, which says of each
// argument what it points to and how long it lives. Native plugins are trusted with it by name.

unsafe extern "C" fn fail(call: *mut KinoCall, message: KinoStr, hint: KinoStr) {
    // SAFETY: see above.
    let (said, current) = unsafe { ((text(message), text(hint)), current(call)) };
    match current {
        Some(current) => {
            *current.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
        None => REFUSAL.set(Some(said)),
    }
}

unsafe extern "C" fn error() -> KinoStr {
    // The text stays where it is until this thread's next call fails.
    ERROR.with_borrow(|error| lent(error.as_bytes()))
}

unsafe extern "C" fn log(call: *mut KinoCall, level: u32, target: KinoStr, message: KinoStr) {
    // SAFETY: see above.
    let (current, target, message) = unsafe { (current(call), text(target), text(message)) };
    let _ = answer(|| {
        if let Some(current) = current {
            current.call.log(level, &target, &message);
        }
        Ok(())
    });
}

unsafe extern "C" fn progress(call: *mut KinoCall, step: u64, of: u64) {
    // SAFETY: see above.
    let current = unsafe { current(call) };
    let _ = answer(|| {
        if let Some(current) = current {
            current.call.progress(step, of);
        }
        Ok(())
    });
}

unsafe extern "C" fn cancelled(call: *mut KinoCall) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current(call) }.is_some_and(|current| current.call.cancel.is_cancelled()))
}

unsafe extern "C" fn wants(call: *mut KinoCall, index: usize) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current(call) }.is_some_and(|current| current.call.wants(index)))
}

unsafe extern "C" fn stream(call: *mut KinoCall) -> *mut c_void {
    // SAFETY: see above.
    unsafe { current(call) }.map_or(std::ptr::null_mut(), |current| stream_of(current.call.device))
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

unsafe extern "C" fn read_file(
    call: *mut KinoCall,
    path: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe {
        answer_with(to, || {
            let current = current(call).ok_or_else(|| Error::failed("there is no call"))?;
            Ok(Some(Item::Bytes(current.call.files.read(&text(path))?.into())))
        })
    }
}

unsafe extern "C" fn retain(value: *mut KinoValue) -> *mut KinoValue {
    if !value.is_null() {
        // SAFETY: see above: it comes from `give` and is alive.
        unsafe { Arc::increment_strong_count(value.cast_const().cast::<Item>()) };
    }
    value
}

unsafe extern "C" fn release(value: *mut KinoValue) {
    // SAFETY: see above: the count belongs to the caller.
    let item = unsafe { take(value) };
    let _ = answer(|| {
        drop(item);
        Ok(())
    });
}

unsafe extern "C" fn kind(value: *mut KinoValue) -> KinoKind {
    // SAFETY: see above.
    match unsafe { look(value) }.map(Item::kind) {
        Err(_) => KINO_NONE,
        Ok(Kind::Text) => KINO_TEXT,
        Ok(Kind::Int) => KINO_INT,
        Ok(Kind::Real) => KINO_REAL,
        Ok(Kind::Bool) => KINO_BOOL,
        Ok(Kind::Tensor) => KINO_TENSOR,
        Ok(Kind::List) => KINO_LIST,
        Ok(Kind::Record) => KINO_RECORD,
        Ok(Kind::Bytes) => KINO_BYTES,
        Ok(Kind::Opaque) => KINO_OPAQUE,
    }
}

unsafe extern "C" fn type_name(value: *mut KinoValue) -> KinoStr {
    // SAFETY: see above.
    unsafe { look(value) }.map_or(lent(b""), |item| lent(item.type_name().as_bytes()))
}

unsafe extern "C" fn get_int(value: *mut KinoValue, low: *mut u64, high: *mut i64) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        let int = look(value)?.int()?;
        low.write(int as u64);
        high.write((int >> 64) as i64);
        Ok(())
    })
}

unsafe extern "C" fn get_real(value: *mut KinoValue, real: *mut f64) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        real.write(look(value)?.real()?);
        Ok(())
    })
}

unsafe extern "C" fn get_bytes(value: *mut KinoValue, to: *mut KinoStr) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        to.write(lent(look(value)?.bytes()?));
        Ok(())
    })
}

unsafe extern "C" fn len(value: *mut KinoValue) -> usize {
    // SAFETY: see above.
    unsafe { look(value) }.map_or(0, Item::len)
}

unsafe extern "C" fn item(
    value: *mut KinoValue,
    index: usize,
    name: *mut KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe {
        answer_with(to, || {
            let value = look(value)?;
            if !name.is_null() {
                name.write(lent(value.name(index).as_bytes()));
            }
            value.item(index).map(Some)
        })
    }
}

unsafe extern "C" fn field(
    value: *mut KinoValue,
    name: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || look(value)?.field(&text(name))) }
}

unsafe extern "C" fn new_text(said: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::Value(Value::Text(text(said).into()))))) }
}

unsafe extern "C" fn new_bytes(said: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::Bytes(bytes(said).into())))) }
}

unsafe extern "C" fn new_int(low: u64, high: i64, to: *mut *mut KinoValue) -> KinoStatus {
    let int = i128::from(high) << 64 | i128::from(low);
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::Value(Value::Int(int))))) }
}

unsafe extern "C" fn new_real(real: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::Value(Value::Real(real))))) }
}

unsafe extern "C" fn new_bool(truth: u32, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::Value(Value::Bool(truth != 0))))) }
}

unsafe extern "C" fn new_list(
    items: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || Ok(Some(Item::List(fields(items, count)?.into())))) }
}

unsafe extern "C" fn new_record(
    ty: KinoStr,
    given: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || maker().record(&text(ty), fields(given, count)?).map(Some)) }
}

unsafe extern "C" fn new_frames(fps: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { answer_with(to, || maker().frames((!fps.is_nan()).then_some(fps)).map(Some)) }
}

unsafe extern "C" fn push_frames(frames: *mut KinoValue, chunk: *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe { maker().push(look(frames)?, look(chunk)?) })
}

unsafe extern "C" fn new_tensor(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe {
        answer_with(to, || maker().tensor(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some))
    }
}

unsafe extern "C" fn new_tensor_unwritten(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe {
        answer_with(to, || maker().unwritten(view::from_dl(dtype)?, &sizes(shape, ndim)?).map(Some))
    }
}

/// The dimensions of a tensor.
///
/// # Safety
/// `shape` points to `ndim` numbers.
unsafe fn sizes(shape: *const i64, ndim: usize) -> Result<Vec<usize>> {
    // SAFETY: as the caller promises.
    let shape = if ndim == 0 { &[] } else { unsafe { std::slice::from_raw_parts(shape, ndim) } };
    let size =
        |dim: &i64| usize::try_from(*dim).map_err(|_| Error::failed(format!("{dim} is no size")));
    shape.iter().map(size).collect()
}

unsafe extern "C" fn view_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        to.write(view::read(share(value)?)?);
        Ok(())
    })
}

unsafe extern "C" fn write_tensor(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    answer(|| unsafe {
        to.write(view::write(share(value)?)?);
        Ok(())
    })
}

unsafe extern "C" fn op(
    name: KinoStr,
    tensors: *const *mut KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `tensors` points to `count` values.
    unsafe {
        answer_with(to, || {
            let tensors = if count == 0 { &[] } else { std::slice::from_raw_parts(tensors, count) };
            let tensors = tensors.iter().map(|value| look(*value)?.tensor());
            let tensors = tensors.collect::<Result<Vec<_>>>()?;
            let result = kino_host::ops::apply(&text(name), &tensors, &text(attributes))?;
            Ok(Some(Item::Value(Value::Tensor(result))))
        })
    }
}

/// The table; it lives as long as the process.
pub(crate) fn host() -> &'static KinoHost {
    static WORDS: OnceLock<String> = OnceLock::new();
    static HOST: OnceLock<Host> = OnceLock::new();
    let words = WORDS.get_or_init(|| {
        let ops = kino_host::ops::NAMES.iter().map(|name| format!("op.{name}"));
        ops.collect::<Vec<_>>().join(" ")
    });
    &HOST
        .get_or_init(|| {
            Host(KinoHost {
                size: size_of::<KinoHost>(),
                major: KINO_MAJOR,
                minor: KINO_MINOR,
                capabilities: lent(words.as_bytes()),
                fail,
                error,
                log,
                progress,
                cancelled,
                wants,
                stream,
                read_file,
                retain,
                release,
                kind,
                type_name,
                get_int,
                get_real,
                get_bytes,
                len,
                item,
                field,
                new_text,
                new_bytes,
                new_int,
                new_real,
                new_bool,
                new_list,
                new_record,
                new_frames,
                push_frames,
                new_tensor,
                view_tensor,
                write_tensor,
                op,
                new_tensor_unwritten,
            })
        })
        .0
}

/// The table holds pointers to texts that never change.
struct Host(KinoHost);
// SAFETY: the table is never written after it was made, and its texts are static.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}
