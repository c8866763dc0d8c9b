//! The reference host's table of functions.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Arc, OnceLock};

use kino_abi::{
    KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_MAJOR, KINO_MINOR, KINO_NONE, KINO_OPAQUE,
    KINO_REAL, KINO_RECORD, KINO_TENSOR, KINO_TEXT, KinoCall, KinoHost, KinoKind, KinoStatus,
    KinoStr, KinoValue,
};

use super::call::CallState;
use super::held::{Held, Outcome};
use super::makers::{
    new_bool, new_bytes, new_frames, new_int, new_list, new_real, new_record, new_text, push_frames,
};
use super::operations::compute;
use super::pass::{ended, give, held, last_error, raw, text};
use super::views::{new_tensor, view_tensor, write_tensor};
use crate::host::strings::lend;

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
    &TABLE.get_or_init(make).0
}

fn make() -> Table {
    let capabilities: Vec<_> =
        kino_contract::ops::NAMES.iter().map(|name| format!("op.{name}")).collect();
    let capabilities: &'static str = Box::leak(capabilities.join(" ").into_boxed_str());
    Table(KinoHost {
        size: size_of::<KinoHost>(),
        major: KINO_MAJOR,
        minor: KINO_MINOR,
        capabilities: lend(capabilities),
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
        new_tensor_unwritten: new_tensor,
    })
}

/// # Safety
/// `call` must be null or a call of the reference host that lasts.
unsafe fn state<'a>(call: *mut KinoCall) -> Option<&'a CallState> {
    // SAFETY: as this function demands.
    unsafe { call.cast::<CallState>().as_ref() }
}

// In all functions that follow, the contract makes the plugin pass valid places, strings that are
// lent for the call, its own live values, and the call that it was given.

unsafe extern "C" fn fail(call: *mut KinoCall, message: KinoStr, hint: KinoStr) {
    // SAFETY: as said above.
    let (call, message, hint) = unsafe { (state(call), text(message), text(hint)) };
    match call {
        Some(call) => call.fail(message, hint),
        None => eprintln!("{message} ({hint})"),
    }
}

unsafe extern "C" fn error() -> KinoStr {
    last_error()
}

unsafe extern "C" fn log(call: *mut KinoCall, level: u32, target: KinoStr, message: KinoStr) {
    // SAFETY: as said above.
    if let (Some(call), target, message) = unsafe { (state(call), text(target), text(message)) } {
        call.log(level, target, message);
    }
}

unsafe extern "C" fn progress(call: *mut KinoCall, step: u64, of: u64) {
    // SAFETY: as said above.
    if let Some(call) = unsafe { state(call) } {
        call.progress(step, of);
    }
}

unsafe extern "C" fn cancelled(call: *mut KinoCall) -> u32 {
    // SAFETY: as said above.
    unsafe { state(call) }.map_or(0, |call| u32::from(call.cancelled()))
}

unsafe extern "C" fn wants(call: *mut KinoCall, index: usize) -> u32 {
    // SAFETY: as said above.
    unsafe { state(call) }.map_or(0, |call| u32::from(call.wants(index)))
}

unsafe extern "C" fn stream(_: *mut KinoCall) -> *mut c_void {
    null_mut()
}

unsafe extern "C" fn read_file(
    call: *mut KinoCall,
    path: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        let path = text(path);
        let read = state(call).ok_or_else(|| "there is no call".to_owned());
        let read = read.and_then(|call| call.file(&path));
        give(read.map(|bytes| Arc::new(Held::Bytes(bytes))), to)
    }
}

unsafe extern "C" fn retain(value: *mut KinoValue) -> *mut KinoValue {
    // SAFETY: as said above.
    if unsafe { held(value) }.is_ok() {
        // SAFETY: the value is alive, so its count can be raised.
        unsafe { Arc::increment_strong_count(value.cast_const().cast::<Held>()) };
    }
    value
}

unsafe extern "C" fn release(value: *mut KinoValue) {
    if !value.is_null() {
        // SAFETY: the plugin gives up a count that it owns.
        unsafe { Arc::decrement_strong_count(value.cast_const().cast::<Held>()) };
    }
}

unsafe extern "C" fn kind(value: *mut KinoValue) -> KinoKind {
    // SAFETY: as said above.
    match unsafe { held(value) } {
        Err(_) => KINO_NONE,
        Ok(Held::Text(_)) => KINO_TEXT,
        Ok(Held::Int(_)) => KINO_INT,
        Ok(Held::Real(_)) => KINO_REAL,
        Ok(Held::Bool(_)) => KINO_BOOL,
        Ok(Held::Tensor(_)) => KINO_TENSOR,
        Ok(Held::List(_)) => KINO_LIST,
        Ok(Held::Record(..) | Held::Frames(_)) => KINO_RECORD,
        Ok(Held::Bytes(_)) => KINO_BYTES,
        Ok(Held::Opaque(_)) => KINO_OPAQUE,
    }
}

unsafe extern "C" fn type_name(value: *mut KinoValue) -> KinoStr {
    // SAFETY: as said above; the name lives as long as the value.
    lend(unsafe { held(value) }.map_or("", Held::type_name))
}

unsafe extern "C" fn get_int(value: *mut KinoValue, low: *mut u64, high: *mut i64) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        ended(held(value).and_then(Held::int).map(|int| {
            low.write(int as u64);
            high.write((int >> 64) as i64);
        }))
    }
}

unsafe extern "C" fn get_real(value: *mut KinoValue, real: *mut f64) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { ended(held(value).and_then(Held::real).map(|found| real.write(found))) }
}

unsafe extern "C" fn get_bytes(value: *mut KinoValue, to: *mut KinoStr) -> KinoStatus {
    // SAFETY: as said above; the bytes live as long as the value.
    unsafe {
        let found = held(value).and_then(Held::bytes);
        ended(found.map(|it| to.write(KinoStr { data: it.as_ptr(), len: it.len() })))
    }
}

unsafe extern "C" fn len(value: *mut KinoValue) -> usize {
    // SAFETY: as said above.
    unsafe { held(value) }.map_or(0, Held::len)
}

unsafe extern "C" fn item(
    value: *mut KinoValue,
    index: usize,
    name: *mut KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above; the name lives as long as the value.
    unsafe {
        let found = held(value).and_then(|value| value.item(index));
        give(
            found.map(|(found, item)| {
                name.write(lend(found));
                item
            }),
            to,
        )
    }
}

unsafe extern "C" fn field(
    value: *mut KinoValue,
    name: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        let found = held(value).and_then(|value| value.field(&text(name)));
        ended(found.map(|found| to.write(found.map_or(null_mut(), raw))))
    }
}

unsafe extern "C" fn op(
    name: KinoStr,
    tensors: *const *mut KinoValue,
    count: usize,
    attributes: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        let arrays: Outcome<Vec<_>> =
            (0..count).map(|index| held(tensors.add(index).read())?.array()).collect();
        let made = arrays.and_then(|arrays| compute(&text(name), &arrays, &text(attributes)));
        give(made.map(Held::tensor), to)
    }
}
