//! The host's side of the C table: a [`KinoHost`] made of a [`Backend`].
//!
//! How values are counted, how texts, errors and panics cross, how tensors are lent and written is
//! the same for every host and stands here once, with all the unsafe code that it takes. A backend
//! says in safe Rust what its values are. The engine's host of native libraries is one; the host
//! that the SDK runs plugins' own tests with is another.
//!
//! # Safety
//! Plugins hold the contract of this crate, which says of each argument what it points to and how
//! long it lives: in all functions of the table that is what makes their blocks of unsafe code
//! sound. A value's pointer comes from [`into_raw`] of the same backend, a call's pointer from
//! [`call_pointer`], a builder's and an error's from the table itself.

mod backend;
mod handle;
mod lent;
mod pass;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use crate::{
    DL_CPU, DLDataType, DLDevice, DLManagedTensorVersioned, DLTensor, KINO_BOOL, KINO_MAJOR,
    KINO_MINOR, KINO_NONE, KinoCall, KinoError, KinoField, KinoFramesBuilder, KinoHost, KinoKind,
    KinoStr, KinoTensorBuilder, KinoValue,
};

pub use backend::{Backend, HostError, HostResult, NamedValues, TensorLayout};
pub use handle::{from_raw, into_raw};
pub use pass::{call_pointer, error_from_raw, error_into_raw, lend, lent_bytes};

use handle::{Handle, absent, write_value};
use lent::{Given, View, lend_managed, no_device};
use pass::{lent_text, of, outcome, quietly};

/// The table of a backend.
pub fn host_table<B: Backend>() -> KinoHost {
    KinoHost {
        size: size_of::<KinoHost>(),
        major: KINO_MAJOR,
        minor: KINO_MINOR,
        capabilities: lend(b""),
        fail: fail::<B>,
        new_error,
        error_message,
        error_hint,
        error_code,
        release_error,
        has: has::<B>,
        log: log::<B>,
        progress: progress::<B>,
        cancelled: cancelled::<B>,
        wants: wants::<B>,
        read_file: read_file::<B>,
        retain: retain::<B>,
        release: release::<B>,
        kind: kind::<B>,
        type_name: type_name::<B>,
        get_i64: get_number::<B, i64>,
        get_u64: get_number::<B, u64>,
        get_wide: get_wide::<B>,
        get_f64: get_f64::<B>,
        get_bool: get_bool::<B>,
        get_bytes: get_bytes::<B>,
        len: len::<B>,
        item: item::<B>,
        field: field::<B>,
        new_text: new_text::<B>,
        new_bytes: new_bytes::<B>,
        new_i64: new_number::<B, i64>,
        new_u64: new_number::<B, u64>,
        new_wide: new_wide::<B>,
        new_f64: new_f64::<B>,
        new_bool: new_bool::<B>,
        new_list: new_list::<B>,
        new_record: new_record::<B>,
        view_tensor: view_tensor::<B>,
        new_tensor_builder: new_tensor_builder::<B>,
        builder_view: builder_view::<B>,
        finish_tensor: finish_tensor::<B>,
        release_tensor_builder: release_tensor_builder::<B>,
        new_frames_builder: new_frames_builder::<B>,
        push_frames: push_frames::<B>,
        finish_frames: finish_frames::<B>,
        release_frames_builder: release_frames_builder::<B>,
        op: op::<B>,
        call: call::<B>,
        stream: stream::<B>,
        device: device::<B>,
        new_tensor_on: new_tensor_on::<B>,
        take_tensor: take_tensor::<B>,
        view_tensor_on: view_tensor_on::<B>,
    }
}

/// What a pointer to a value leads to.
///
/// # Safety
/// `value` is null or a value of the backend that lives on for `'a`.
unsafe fn handle<'a, B: Backend>(value: *const KinoValue) -> HostResult<&'a Handle<B>> {
    // SAFETY: as the caller promises.
    unsafe { value.cast::<Handle<B>>().as_ref() }.ok_or_else(absent)
}

/// A value that the plugin shows.
///
/// # Safety
/// As [`handle`].
unsafe fn borrow<'a, B: Backend>(value: *const KinoValue) -> HostResult<&'a B::Value> {
    // SAFETY: as the caller promises.
    Ok(&unsafe { handle::<B>(value) }?.value)
}

/// The call behind a pointer.
///
/// # Safety
/// `call` is null or comes from [`call_pointer`] of the backend's type, and has not returned yet.
unsafe fn current<'a, B: Backend>(call: *mut KinoCall) -> Option<&'a B::Call<'a>> {
    // SAFETY: as the caller promises.
    unsafe { call.cast_const().cast::<B::Call<'a>>().as_ref() }
}

/// So many things that the plugin shows.
///
/// # Safety
/// `first` points to `count` things that live on for `'a`.
unsafe fn array<'a, T>(first: *const T, count: usize) -> HostResult<&'a [T]> {
    match count {
        0 => Ok(&[]),
        _ if first.is_null() => Err(HostError::new(format!("{count} were expected, found null"))),
        // SAFETY: not null, and as the caller promises.
        _ => Ok(unsafe { std::slice::from_raw_parts(first, count) }),
    }
}

/// Values with their names that a plugin shows.
///
/// # Safety
/// `fields` points to `count` fields whose names are lent and whose values are alive.
unsafe fn named<B: Backend>(
    fields: *const KinoField,
    count: usize,
) -> HostResult<NamedValues<B::Value>> {
    // SAFETY: as the caller promises; so for each field.
    unsafe {
        let read =
            |field: &KinoField| Ok((lent_text(field.name), borrow::<B>(field.value)?.clone()));
        array(fields, count)?.iter().map(read).collect()
    }
}

/// Values that a plugin shows.
///
/// # Safety
/// `values` points to `count` values that live on for `'a`.
unsafe fn several<'a, B: Backend>(
    values: *const *const KinoValue,
    count: usize,
) -> HostResult<Vec<&'a B::Value>> {
    // SAFETY: as the caller promises.
    unsafe { array(values, count)?.iter().map(|value| borrow::<B>(*value)).collect() }
}

/// The dimensions of a tensor.
///
/// # Safety
/// `shape` points to `ndim` numbers.
unsafe fn sizes(shape: *const i64, ndim: usize) -> HostResult<Vec<usize>> {
    let size =
        |dim: &i64| usize::try_from(*dim).map_err(|_| HostError::new(format!("{dim} is no size")));
    // SAFETY: as the caller promises.
    unsafe { array(shape, ndim)?.iter().map(size).collect() }
}

// SAFETY of all functions that follow: as the documentation of this module says.

unsafe extern "C" fn fail<B: Backend>(_: *mut KinoCall, message: KinoStr, hint: KinoStr) {
    // SAFETY: see above.
    let (message, hint) = unsafe { (lent_text(message), lent_text(hint)) };
    quietly(|| B::refuse(message, hint));
}

unsafe extern "C" fn new_error(message: KinoStr, hint: KinoStr, code: KinoStr) -> *mut KinoError {
    // SAFETY: see above.
    let (message, hint, code) = unsafe { (lent_text(message), lent_text(hint), lent_text(code)) };
    error_into_raw(HostError { message, hint, code })
}

/// A text of an error; lives as long as it.
///
/// # Safety
/// `error` is null or one of the table's.
unsafe fn said(error: *const KinoError, of: impl Fn(&HostError) -> &str) -> KinoStr {
    // SAFETY: as the caller promises.
    lend(unsafe { error.cast::<HostError>().as_ref() }.map_or("", of).as_bytes())
}

unsafe extern "C" fn error_message(error: *const KinoError) -> KinoStr {
    // SAFETY: see above.
    unsafe { said(error, |error| &error.message) }
}

unsafe extern "C" fn error_hint(error: *const KinoError) -> KinoStr {
    // SAFETY: see above.
    unsafe { said(error, |error| &error.hint) }
}

unsafe extern "C" fn error_code(error: *const KinoError) -> KinoStr {
    // SAFETY: see above.
    unsafe { said(error, |error| &error.code) }
}

unsafe extern "C" fn release_error(error: *mut KinoError) {
    // SAFETY: see above: it belongs to the caller.
    drop(unsafe { error_from_raw(error) });
}

unsafe extern "C" fn has<B: Backend>(name: KinoStr) -> u32 {
    // SAFETY: see above.
    u32::from(B::has(&unsafe { lent_text(name) }))
}

unsafe extern "C" fn log<B: Backend>(
    call: *mut KinoCall,
    level: u32,
    target: KinoStr,
    message: KinoStr,
) {
    // SAFETY: see above.
    let (call, target, message) =
        unsafe { (current::<B>(call), lent_text(target), lent_text(message)) };
    quietly(|| call.into_iter().for_each(|call| B::log(call, level, &target, &message)));
}

unsafe extern "C" fn progress<B: Backend>(call: *mut KinoCall, step: u64, of: u64) {
    // SAFETY: see above.
    let call = unsafe { current::<B>(call) };
    quietly(|| call.into_iter().for_each(|call| B::progress(call, step, of)));
}

unsafe extern "C" fn cancelled<B: Backend>(call: *mut KinoCall) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current::<B>(call) }.is_some_and(B::cancelled))
}

unsafe extern "C" fn wants<B: Backend>(call: *mut KinoCall, index: usize) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current::<B>(call) }.is_some_and(|call| B::wants(call, index)))
}

unsafe extern "C" fn read_file<B: Backend>(
    call: *mut KinoCall,
    path: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe {
        write_value::<B>("", to, || {
            let call = current::<B>(call);
            let call = of("read_file", call.ok_or_else(|| HostError::new("there is no call")))?;
            B::read_file(call, &lent_text(path))
        })
    }
}

unsafe extern "C" fn retain<B: Backend>(value: *const KinoValue) -> *mut KinoValue {
    if !value.is_null() {
        // SAFETY: see above: it comes from `into_raw` and is alive.
        unsafe { Arc::increment_strong_count(value.cast::<Handle<B>>()) };
    }
    value.cast_mut()
}

unsafe extern "C" fn release<B: Backend>(value: *mut KinoValue) {
    if !value.is_null() {
        // SAFETY: see above: the count belongs to the caller.
        let handle = unsafe { Arc::from_raw(value.cast_const().cast::<Handle<B>>()) };
        quietly(|| drop(handle));
    }
}

unsafe extern "C" fn kind<B: Backend>(value: *const KinoValue) -> KinoKind {
    // SAFETY: see above.
    unsafe { borrow::<B>(value) }.map_or(KINO_NONE, B::kind)
}

unsafe extern "C" fn type_name<B: Backend>(value: *const KinoValue) -> KinoStr {
    // SAFETY: see above; the name lives as long as the value.
    lend(unsafe { borrow::<B>(value) }.map_or("", B::type_name).as_bytes())
}

/// A whole number of 64 bits, and what its functions in the table are called.
trait Number: TryFrom<i128> + Into<i128> {
    const GET: &str;
    const NEW: &str;
    const BITS: &str;
}

impl Number for i64 {
    const GET: &str = "get_i64";
    const NEW: &str = "new_i64";
    const BITS: &str = "i64";
}

impl Number for u64 {
    const GET: &str = "get_u64";
    const NEW: &str = "new_u64";
    const BITS: &str = "u64";
}

unsafe extern "C" fn get_number<B: Backend, N: Number>(
    value: *const KinoValue,
    to: *mut N,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome(N::GET, || unsafe {
        let int = B::int(borrow::<B>(value)?)?;
        let number = N::try_from(int).map_err(|_| {
            let ty = N::BITS;
            HostError::new(format!("expected a whole number that fits into {ty}, found {int}"))
        })?;
        to.write(number);
        Ok(())
    })
}

unsafe extern "C" fn get_wide<B: Backend>(
    value: *const KinoValue,
    low: *mut u64,
    high: *mut i64,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("get_wide", || unsafe {
        let int = B::int(borrow::<B>(value)?)?;
        low.write(int as u64);
        high.write((int >> 64) as i64);
        Ok(())
    })
}

unsafe extern "C" fn get_f64<B: Backend>(value: *const KinoValue, to: *mut f64) -> *mut KinoError {
    // SAFETY: see above.
    outcome("get_f64", || unsafe {
        to.write(B::real(borrow::<B>(value)?)?);
        Ok(())
    })
}

unsafe extern "C" fn get_bool<B: Backend>(value: *const KinoValue, to: *mut u32) -> *mut KinoError {
    // SAFETY: see above.
    outcome("get_bool", || unsafe {
        let value = borrow::<B>(value)?;
        if B::kind(value) != KINO_BOOL {
            let message = format!("expected Bool, found {}", B::type_name(value));
            return Err(HostError::coded("wrong-kind", message));
        }
        to.write(u32::from(B::int(value)? != 0));
        Ok(())
    })
}

unsafe extern "C" fn get_bytes<B: Backend>(
    value: *const KinoValue,
    to: *mut KinoStr,
) -> *mut KinoError {
    // SAFETY: see above; the bytes live as long as the value.
    outcome("get_bytes", || unsafe {
        to.write(lend(B::bytes(borrow::<B>(value)?)?));
        Ok(())
    })
}

unsafe extern "C" fn len<B: Backend>(value: *const KinoValue) -> usize {
    // SAFETY: see above.
    unsafe { borrow::<B>(value) }.map_or(0, B::len)
}

unsafe extern "C" fn item<B: Backend>(
    value: *const KinoValue,
    index: usize,
    name: *mut KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above; the name lives as long as the value.
    unsafe {
        write_value::<B>("item", to, || {
            let (found, item) = B::item(borrow::<B>(value)?, index)?;
            if !name.is_null() {
                name.write(lend(found.as_bytes()));
            }
            Ok(item)
        })
    }
}

unsafe extern "C" fn field<B: Backend>(
    value: *const KinoValue,
    name: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("field", || unsafe {
        let found = B::field(borrow::<B>(value)?, &lent_text(name))?;
        to.write(found.map_or(null_mut(), into_raw::<B>));
        Ok(())
    })
}

unsafe extern "C" fn new_text<B: Backend>(
    text: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>("new_text", to, || B::new_text(lent_text(text))) }
}

unsafe extern "C" fn new_bytes<B: Backend>(
    bytes: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>("new_bytes", to, || B::new_bytes(lent_bytes(bytes))) }
}

unsafe extern "C" fn new_number<B: Backend, N: Number>(
    number: N,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>(N::NEW, to, || B::new_int(number.into())) }
}

unsafe extern "C" fn new_wide<B: Backend>(
    low: u64,
    high: i64,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    let int = i128::from(high) << 64 | i128::from(low);
    // SAFETY: see above.
    unsafe { write_value::<B>("new_wide", to, || B::new_int(int)) }
}

unsafe extern "C" fn new_f64<B: Backend>(real: f64, to: *mut *mut KinoValue) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>("new_f64", to, || B::new_real(real)) }
}

unsafe extern "C" fn new_bool<B: Backend>(truth: u32, to: *mut *mut KinoValue) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>("new_bool", to, || B::new_bool(truth != 0)) }
}

unsafe extern "C" fn new_list<B: Backend>(
    items: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe { write_value::<B>("new_list", to, || B::new_list(named::<B>(items, count)?)) }
}

unsafe extern "C" fn new_record<B: Backend>(
    ty: KinoStr,
    fields: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe {
        write_value::<B>("", to, || {
            let fields = of("new_record", named::<B>(fields, count))?;
            B::new_record(&lent_text(ty), fields)
        })
    }
}

/// Where the tensor of a value lies: asked once.
fn seen<B: Backend>(handle: &Handle<B>) -> HostResult<&View<B>> {
    if handle.view.get().is_none() {
        let (layout, keeper) = B::view(&handle.value)?;
        // Where two threads come at the same time, the first one's stays.
        let _ = handle.view.set(Box::new(View::new(layout, Some(keeper))));
    }
    handle.view.get().map(|view| &**view).ok_or_else(absent)
}

unsafe extern "C" fn view_tensor<B: Backend>(
    value: *const KinoValue,
    to: *mut DLTensor,
) -> *mut KinoError {
    // SAFETY: see above; the view lives as long as the value.
    outcome("view_tensor", || unsafe {
        to.write(seen(handle::<B>(value)?)?.tensor());
        Ok(())
    })
}

/// What the pointer to a tensor's builder leads to.
struct Draft<B: Backend> {
    builder: B::TensorBuilder,
    view: Option<View<B>>,
}

/// Begins a tensor.
///
/// # Safety
/// `shape` points to `ndim` numbers, `to` can be written, `call` is null or lasts.
unsafe fn begin<B: Backend>(
    call: *mut KinoCall,
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    zeroed: bool,
    to: *mut *mut KinoTensorBuilder,
) -> HostResult<()> {
    // SAFETY: as the caller promises.
    unsafe {
        let builder = B::new_tensor(current::<B>(call), dtype, &sizes(shape, ndim)?, zeroed)?;
        to.write(Box::into_raw(Box::new(Draft::<B> { builder, view: None })).cast());
    }
    Ok(())
}

unsafe extern "C" fn new_tensor_builder<B: Backend>(
    call: *mut KinoCall,
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    zeroed: u32,
    to: *mut *mut KinoTensorBuilder,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("new_tensor_builder", || unsafe {
        begin::<B>(call, dtype, shape, ndim, zeroed != 0, to)
    })
}

fn no_builder() -> HostError {
    HostError::new("a builder was expected, found null")
}

unsafe extern "C" fn builder_view<B: Backend>(
    builder: *mut KinoTensorBuilder,
    to: *mut DLTensor,
) -> *mut KinoError {
    // SAFETY: see above: the builder is the table's, and one thread uses it.
    outcome("builder_view", || unsafe {
        let draft = builder.cast::<Draft<B>>().as_mut().ok_or_else(no_builder)?;
        let view = match draft.view.take() {
            Some(view) => view,
            None => View::new(B::memory(&mut draft.builder)?, None),
        };
        to.write(draft.view.insert(view).tensor());
        Ok(())
    })
}

/// What leads to a builder, taken back.
///
/// # Safety
/// `builder` is null or comes from a box of the same type, and belongs to the caller.
unsafe fn taken<T, P>(builder: *mut P) -> Option<Box<T>> {
    // SAFETY: as the caller promises.
    (!builder.is_null()).then(|| unsafe { Box::from_raw(builder.cast::<T>()) })
}

unsafe extern "C" fn finish_tensor<B: Backend>(
    builder: *mut KinoTensorBuilder,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above: the builder belongs to the caller.
    unsafe {
        write_value::<B>("finish_tensor", to, || {
            let draft = taken::<Draft<B>, _>(builder).ok_or_else(no_builder)?;
            B::finish_tensor(draft.builder)
        })
    }
}

unsafe extern "C" fn release_tensor_builder<B: Backend>(builder: *mut KinoTensorBuilder) {
    // SAFETY: see above: the builder belongs to the caller.
    let draft = unsafe { taken::<Draft<B>, _>(builder) };
    quietly(|| drop(draft));
}

unsafe extern "C" fn new_frames_builder<B: Backend>(
    call: *mut KinoCall,
    fps: f64,
    to: *mut *mut KinoFramesBuilder,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("new_frames_builder", || unsafe {
        let frames = B::new_frames(current::<B>(call), (!fps.is_nan()).then_some(fps))?;
        to.write(Box::into_raw(Box::new(frames)).cast());
        Ok(())
    })
}

unsafe extern "C" fn push_frames<B: Backend>(
    builder: *mut KinoFramesBuilder,
    chunk: *const KinoValue,
) -> *mut KinoError {
    // SAFETY: see above: the builder is the table's, and one thread uses it.
    outcome("push_frames", || unsafe {
        let frames = builder.cast::<B::FramesBuilder>().as_mut().ok_or_else(no_builder)?;
        B::push_frames(frames, borrow::<B>(chunk)?)
    })
}

unsafe extern "C" fn finish_frames<B: Backend>(
    builder: *mut KinoFramesBuilder,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above: the builder belongs to the caller.
    unsafe {
        write_value::<B>("finish_frames", to, || {
            let frames = taken::<B::FramesBuilder, _>(builder).ok_or_else(no_builder)?;
            B::finish_frames(*frames)
        })
    }
}

unsafe extern "C" fn release_frames_builder<B: Backend>(builder: *mut KinoFramesBuilder) {
    // SAFETY: see above: the builder belongs to the caller.
    let frames = unsafe { taken::<B::FramesBuilder, _>(builder) };
    quietly(|| drop(frames));
}

unsafe extern "C" fn op<B: Backend>(
    call: *mut KinoCall,
    name: KinoStr,
    tensors: *const *const KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe {
        write_value::<B>("", to, || {
            let tensors = of("op", several::<B>(tensors, count))?;
            B::op(current::<B>(call), &lent_text(name), &tensors, &lent_text(attributes))
        })
    }
}

unsafe extern "C" fn call<B: Backend>(
    call: *mut KinoCall,
    name: KinoStr,
    values: *const *const KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above.
    unsafe {
        write_value::<B>("", to, || {
            let values = of("call", several::<B>(values, count))?;
            B::call(current::<B>(call), &lent_text(name), &values, &lent_text(attributes))
        })
    }
}

unsafe extern "C" fn stream<B: Backend>(call: *mut KinoCall) -> *mut c_void {
    // SAFETY: see above.
    unsafe { current::<B>(call) }.map_or(null_mut(), B::stream)
}

unsafe extern "C" fn device<B: Backend>(
    value: *const KinoValue,
    to: *mut DLDevice,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("device", || unsafe {
        to.write(seen(handle::<B>(value)?)?.tensor().device);
        Ok(())
    })
}

unsafe extern "C" fn new_tensor_on<B: Backend>(
    call: *mut KinoCall,
    device: DLDevice,
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoTensorBuilder,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("new_tensor_on", || unsafe {
        match device.device_type {
            DL_CPU => begin::<B>(call, dtype, shape, ndim, false, to),
            other => Err(no_device(other)),
        }
    })
}

unsafe extern "C" fn take_tensor<B: Backend>(
    call: *mut KinoCall,
    given: *mut DLManagedTensorVersioned,
    to: *mut *mut KinoValue,
) -> *mut KinoError {
    // SAFETY: see above: what is given belongs to this function, which gives it back at its end.
    unsafe {
        write_value::<B>("take_tensor", to, || {
            let given = Given::new(given)?;
            let (dtype, shape) = given.shape()?;
            let sizes = sizes(shape.as_ptr(), shape.len())?;
            let mut builder = B::new_tensor(current::<B>(call), dtype, &sizes, false)?;
            let memory = B::memory(&mut builder)?;
            // The memory of a builder is as large as shape and type say.
            given.copy_to(memory.data, &shape, usize::from(dtype.bits).div_ceil(8))?;
            drop(given);
            B::finish_tensor(builder)
        })
    }
}

unsafe extern "C" fn view_tensor_on<B: Backend>(
    _call: *mut KinoCall,
    value: *const KinoValue,
    _reader: *mut c_void,
    to: *mut *mut DLManagedTensorVersioned,
) -> *mut KinoError {
    // SAFETY: see above.
    outcome("view_tensor_on", || unsafe {
        let value = borrow::<B>(value)?;
        let (layout, keeper) = B::view(value)?;
        if layout.device.device_type != DL_CPU {
            return Err(no_device(layout.device.device_type));
        }
        to.write(lend_managed::<B>(value.clone(), View::new(layout, Some(keeper))));
        Ok(())
    })
}
