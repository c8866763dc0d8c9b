//! The host's side of the C table: a [`KinoHost`] made of a [`Backend`].
//!
//! How values are counted, how texts, errors and panics cross, and how tensors are lent is the same
//! for every host and stands here once, with all the unsafe code that it takes. A backend says in
//! safe Rust what its values are. The engine's host of native libraries is one; the host that the
//! SDK runs plugins' own tests with is another.
//!
//! # Safety
//! Plugins hold the contract of this crate, which says of each argument what it points to and how
//! long it lives: in all functions of the table that is what makes their blocks of unsafe code
//! sound. A value's pointer comes from [`into_raw`] of the same backend, a call's pointer from
//! [`call_pointer`].

mod backend;
mod pass;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

use crate::{
    DL_BITS_FLAG_READ_ONLY, DLDataType, DLManagedTensorVersioned, DLPackVersion, DLTensor,
    KINO_MAJOR, KINO_MINOR, KINO_NONE, KinoCall, KinoField, KinoHost, KinoKind, KinoStatus,
    KinoStr, KinoValue,
};

pub use backend::{Backend, HostError, HostResult, NamedValues, TensorLayout};
pub use pass::{call_pointer, from_raw, into_raw, lend, lent_bytes};

use pass::{absent, lent_text, to_status, with_last_error, write_value};

/// The table of a backend. `capabilities` are words that live as long as the table.
pub fn host_table<B: Backend>(capabilities: &'static str) -> KinoHost {
    KinoHost {
        size: size_of::<KinoHost>(),
        major: KINO_MAJOR,
        minor: KINO_MINOR,
        capabilities: lend(capabilities.as_bytes()),
        fail: fail::<B>,
        error,
        log: log::<B>,
        progress: progress::<B>,
        cancelled: cancelled::<B>,
        wants: wants::<B>,
        stream: stream::<B>,
        read_file: read_file::<B>,
        retain: retain::<B>,
        release: release::<B>,
        kind: kind::<B>,
        type_name: type_name::<B>,
        get_int: get_int::<B>,
        get_real: get_real::<B>,
        get_bytes: get_bytes::<B>,
        len: len::<B>,
        item: item::<B>,
        field: field::<B>,
        new_text: new_text::<B>,
        new_bytes: new_bytes::<B>,
        new_int: new_int::<B>,
        new_real: new_real::<B>,
        new_bool: new_bool::<B>,
        new_list: new_list::<B>,
        new_record: new_record::<B>,
        new_frames: new_frames::<B>,
        push_frames: push_frames::<B>,
        new_tensor: new_tensor::<B>,
        view_tensor: view_tensor::<B>,
        write_tensor: write_tensor::<B>,
        op: op::<B>,
        new_tensor_unwritten: new_tensor_unwritten::<B>,
    }
}

/// A value that the plugin owns.
///
/// # Safety
/// `value` is null or a value of the backend that lives on for `'a`.
unsafe fn borrow<'a, B: Backend>(value: *mut KinoValue) -> HostResult<&'a B::Value> {
    // SAFETY: as the caller promises.
    unsafe { value.cast_const().cast::<B::Value>().as_ref() }.ok_or_else(absent)
}

/// Another count of a value that the plugin owns.
///
/// # Safety
/// As [`borrow`].
unsafe fn another<B: Backend>(value: *mut KinoValue) -> HostResult<Arc<B::Value>> {
    if value.is_null() {
        return Err(absent());
    }
    let value = value.cast_const().cast::<B::Value>();
    // SAFETY: it comes from `Arc::into_raw` and is alive, as the caller promises.
    unsafe {
        Arc::increment_strong_count(value);
        Ok(Arc::from_raw(value))
    }
}

/// The call behind a pointer.
///
/// # Safety
/// `call` is null or comes from [`call_pointer`] of the backend's type, and has not returned yet.
unsafe fn current<'a, B: Backend>(call: *mut KinoCall) -> Option<&'a B::Call<'a>> {
    // SAFETY: as the caller promises.
    unsafe { call.cast_const().cast::<B::Call<'a>>().as_ref() }
}

/// Values with their names that a plugin passes.
///
/// # Safety
/// `fields` points to `count` fields whose names are lent and whose values are alive.
unsafe fn named<B: Backend>(
    fields: *const KinoField,
    count: usize,
) -> HostResult<NamedValues<B::Value>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if fields.is_null() {
        return Err(HostError::new("fields were expected, found null"));
    }
    // SAFETY: not null, and as the caller promises; so for each field below.
    let fields = unsafe { std::slice::from_raw_parts(fields, count) };
    // SAFETY: as above.
    let read =
        |field: &KinoField| unsafe { Ok((lent_text(field.name), another::<B>(field.value)?)) };
    fields.iter().map(read).collect()
}

// SAFETY of all functions that follow: as the documentation of this module says.

unsafe extern "C" fn fail<B: Backend>(call: *mut KinoCall, message: KinoStr, hint: KinoStr) {
    // SAFETY: see above.
    let (call, message, mut hint) =
        unsafe { (current::<B>(call), lent_text(message), lent_text(hint)) };
    // A plugin that passes on why a host function failed has no more than its message.
    if hint.is_empty() {
        hint = with_last_error(|last, advice| match last == message {
            true => advice.to_owned(),
            false => String::new(),
        });
    }
    B::fail(call, message, hint);
}

unsafe extern "C" fn error() -> KinoStr {
    // The text stays where it is until this thread's next call fails.
    with_last_error(|message, _| lend(message.as_bytes()))
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
    to_status(|| {
        call.into_iter().for_each(|call| B::log(call, level, &target, &message));
        Ok(())
    });
}

unsafe extern "C" fn progress<B: Backend>(call: *mut KinoCall, step: u64, of: u64) {
    // SAFETY: see above.
    let call = unsafe { current::<B>(call) };
    to_status(|| {
        call.into_iter().for_each(|call| B::progress(call, step, of));
        Ok(())
    });
}

unsafe extern "C" fn cancelled<B: Backend>(call: *mut KinoCall) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current::<B>(call) }.is_some_and(B::cancelled))
}

unsafe extern "C" fn wants<B: Backend>(call: *mut KinoCall, index: usize) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current::<B>(call) }.is_some_and(|call| B::wants(call, index)))
}

unsafe extern "C" fn stream<B: Backend>(call: *mut KinoCall) -> *mut c_void {
    // SAFETY: see above.
    unsafe { current::<B>(call) }.map_or(null_mut(), B::stream)
}

unsafe extern "C" fn read_file<B: Backend>(
    call: *mut KinoCall,
    path: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe {
        write_value(to, || {
            let call = current::<B>(call).ok_or_else(|| HostError::new("there is no call"))?;
            B::read_file(call, &lent_text(path))
        })
    }
}

unsafe extern "C" fn retain<B: Backend>(value: *mut KinoValue) -> *mut KinoValue {
    if !value.is_null() {
        // SAFETY: see above: it comes from `into_raw` and is alive.
        unsafe { Arc::increment_strong_count(value.cast_const().cast::<B::Value>()) };
    }
    value
}

unsafe extern "C" fn release<B: Backend>(value: *mut KinoValue) {
    // SAFETY: see above: the count belongs to the caller.
    let value = unsafe { from_raw::<B::Value>(value) };
    to_status(|| {
        drop(value);
        Ok(())
    });
}

unsafe extern "C" fn kind<B: Backend>(value: *mut KinoValue) -> KinoKind {
    // SAFETY: see above.
    unsafe { borrow::<B>(value) }.map_or(KINO_NONE, B::kind)
}

unsafe extern "C" fn type_name<B: Backend>(value: *mut KinoValue) -> KinoStr {
    // SAFETY: see above; the name lives as long as the value.
    lend(unsafe { borrow::<B>(value) }.map_or("", B::type_name).as_bytes())
}

unsafe extern "C" fn get_int<B: Backend>(
    value: *mut KinoValue,
    low: *mut u64,
    high: *mut i64,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        let int = B::int(borrow::<B>(value)?)?;
        low.write(int as u64);
        high.write((int >> 64) as i64);
        Ok(())
    })
}

unsafe extern "C" fn get_real<B: Backend>(value: *mut KinoValue, real: *mut f64) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        real.write(B::real(borrow::<B>(value)?)?);
        Ok(())
    })
}

unsafe extern "C" fn get_bytes<B: Backend>(value: *mut KinoValue, to: *mut KinoStr) -> KinoStatus {
    // SAFETY: see above; the bytes live as long as the value.
    to_status(|| unsafe {
        to.write(lend(B::bytes(borrow::<B>(value)?)?));
        Ok(())
    })
}

unsafe extern "C" fn len<B: Backend>(value: *mut KinoValue) -> usize {
    // SAFETY: see above.
    unsafe { borrow::<B>(value) }.map_or(0, B::len)
}

unsafe extern "C" fn item<B: Backend>(
    value: *mut KinoValue,
    index: usize,
    name: *mut KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above; the name lives as long as the value.
    unsafe {
        write_value(to, || {
            let (found, item) = B::item(borrow::<B>(value)?, index)?;
            if !name.is_null() {
                name.write(lend(found.as_bytes()));
            }
            Ok(item)
        })
    }
}

unsafe extern "C" fn field<B: Backend>(
    value: *mut KinoValue,
    name: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        let found = B::field(borrow::<B>(value)?, &lent_text(name))?;
        to.write(found.map_or(null_mut(), into_raw));
        Ok(())
    })
}

unsafe extern "C" fn new_text<B: Backend>(text: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_text(lent_text(text))) }
}

unsafe extern "C" fn new_bytes<B: Backend>(bytes: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_bytes(lent_bytes(bytes))) }
}

unsafe extern "C" fn new_int<B: Backend>(
    low: u64,
    high: i64,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    let int = i128::from(high) << 64 | i128::from(low);
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_int(int)) }
}

unsafe extern "C" fn new_real<B: Backend>(real: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_real(real)) }
}

unsafe extern "C" fn new_bool<B: Backend>(truth: u32, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_bool(truth != 0)) }
}

unsafe extern "C" fn new_list<B: Backend>(
    items: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_list(named::<B>(items, count)?)) }
}

unsafe extern "C" fn new_record<B: Backend>(
    ty: KinoStr,
    fields: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_record(&lent_text(ty), named::<B>(fields, count)?)) }
}

unsafe extern "C" fn new_frames<B: Backend>(fps: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_value(to, || B::new_frames((!fps.is_nan()).then_some(fps))) }
}

unsafe extern "C" fn push_frames<B: Backend>(
    frames: *mut KinoValue,
    chunk: *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe { B::push_frames(borrow::<B>(frames)?, &another::<B>(chunk)?) })
}

unsafe extern "C" fn new_tensor<B: Backend>(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe { write_value(to, || B::new_tensor(dtype, &sizes(shape, ndim)?, false)) }
}

unsafe extern "C" fn new_tensor_unwritten<B: Backend>(
    dtype: DLDataType,
    shape: *const i64,
    ndim: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `shape` points to `ndim` numbers.
    unsafe { write_value(to, || B::new_tensor(dtype, &sizes(shape, ndim)?, true)) }
}

/// The dimensions of a tensor.
///
/// # Safety
/// `shape` points to `ndim` numbers.
unsafe fn sizes(shape: *const i64, ndim: usize) -> HostResult<Vec<usize>> {
    // SAFETY: as the caller promises.
    let shape = if ndim == 0 { &[] } else { unsafe { std::slice::from_raw_parts(shape, ndim) } };
    let size =
        |dim: &i64| usize::try_from(*dim).map_err(|_| HostError::new(format!("{dim} is no size")));
    shape.iter().map(size).collect()
}

unsafe extern "C" fn view_tensor<B: Backend>(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        let value = another::<B>(value)?;
        let (layout, keeper) = B::view(&value)?;
        to.write(lend_tensor::<B>(value, Some(keeper), layout));
        Ok(())
    })
}

unsafe extern "C" fn write_tensor<B: Backend>(
    value: *mut KinoValue,
    to: *mut *mut DLManagedTensorVersioned,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        let value = another::<B>(value)?;
        let layout = B::write(&value)?;
        to.write(lend_tensor::<B>(value, None, layout));
        Ok(())
    })
}

unsafe extern "C" fn op<B: Backend>(
    name: KinoStr,
    tensors: *const *mut KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above: `tensors` points to `count` values.
    unsafe {
        write_value(to, || {
            let tensors = if count == 0 { &[] } else { std::slice::from_raw_parts(tensors, count) };
            let tensors = tensors.iter().map(|value| borrow::<B>(*value));
            let tensors = tensors.collect::<HostResult<Vec<_>>>()?;
            B::op(&lent_text(name), &tensors, &lent_text(attributes))
        })
    }
}

/// What a view keeps alive.
struct Lent<B: Backend> {
    view: DLManagedTensorVersioned,
    shape: Vec<i64>,
    strides: Vec<i64>,
    value: Arc<B::Value>,
    /// None where the view is to be written.
    keeper: Option<B::Keeper>,
}

fn lend_tensor<B: Backend>(
    value: Arc<B::Value>,
    keeper: Option<B::Keeper>,
    layout: TensorLayout,
) -> *mut DLManagedTensorVersioned {
    let TensorLayout { data, device, dtype, shape, strides } = layout;
    let lent = Box::into_raw(Box::new(Lent::<B> {
        view: DLManagedTensorVersioned {
            version: DLPackVersion { major: 1, minor: 0 },
            manager_ctx: null_mut(),
            deleter: Some(give_back::<B>),
            flags: if keeper.is_some() { DL_BITS_FLAG_READ_ONLY } else { 0 },
            dl_tensor: DLTensor {
                data: data.cast::<c_void>(),
                device,
                ndim: shape.len() as i32,
                dtype,
                shape: null_mut(),
                strides: null_mut(),
                byte_offset: 0,
            },
        },
        shape,
        strides,
        value,
        keeper,
    }));
    // SAFETY: `lent` was just made from a box, and nobody else has seen it yet. What the view points
    // to is reached through it alone.
    unsafe {
        (*lent).view.dl_tensor.shape = (*lent).shape.as_mut_ptr();
        (*lent).view.dl_tensor.strides = (*lent).strides.as_mut_ptr();
        (*lent).view.manager_ctx = lent.cast();
        &raw mut (*lent).view
    }
}

/// The deleter of all views.
///
/// # Safety
/// `view` comes from [`lend_tensor`] and is given back once: the contract of
/// `DLManagedTensorVersioned`.
unsafe extern "C" fn give_back<B: Backend>(view: *mut DLManagedTensorVersioned) {
    if view.is_null() {
        return;
    }
    // SAFETY: by the contract, `view` is one of ours, whose context is what it keeps.
    let lent = unsafe { Box::from_raw((*view).manager_ctx.cast::<Lent<B>>()) };
    to_status(|| {
        if lent.keeper.is_none() {
            B::written(&lent.value);
        }
        drop(lent);
        Ok(())
    });
}
