//! Values as plugins read and make them.

use std::sync::Arc;

use kino_abi::{
    KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_NONE, KINO_OPAQUE, KINO_REAL, KINO_RECORD,
    KINO_TENSOR, KINO_TEXT, KinoField, KinoKind, KinoStatus, KinoStr, KinoValue,
};
use kino_host::{PluginValue, ValueKind};
use kino_node::Value;

use super::pass::{borrow, bytes, fields, from_raw, lent, text, to_status, write_result};
use crate::allocator::allocator;

// SAFETY of all functions of the table: plugins hold the contract of `kino_abi`, which says of each
// argument what it points to and how long it lives. Native plugins are trusted with it by name.

pub(super) unsafe extern "C" fn retain(value: *mut KinoValue) -> *mut KinoValue {
    if !value.is_null() {
        // SAFETY: see above: it comes from `give` and is alive.
        unsafe { Arc::increment_strong_count(value.cast_const().cast::<PluginValue>()) };
    }
    value
}

pub(super) unsafe extern "C" fn release(value: *mut KinoValue) {
    // SAFETY: see above: the count belongs to the caller.
    let item = unsafe { from_raw(value) };
    let _ = to_status(|| {
        drop(item);
        Ok(())
    });
}

pub(super) unsafe extern "C" fn kind(value: *mut KinoValue) -> KinoKind {
    // SAFETY: see above.
    match unsafe { borrow(value) }.map(PluginValue::kind) {
        Err(_) => KINO_NONE,
        Ok(ValueKind::Text) => KINO_TEXT,
        Ok(ValueKind::Int) => KINO_INT,
        Ok(ValueKind::Real) => KINO_REAL,
        Ok(ValueKind::Bool) => KINO_BOOL,
        Ok(ValueKind::Tensor) => KINO_TENSOR,
        Ok(ValueKind::List) => KINO_LIST,
        Ok(ValueKind::Record) => KINO_RECORD,
        Ok(ValueKind::Bytes) => KINO_BYTES,
        Ok(ValueKind::Opaque) => KINO_OPAQUE,
    }
}

pub(super) unsafe extern "C" fn type_name(value: *mut KinoValue) -> KinoStr {
    // SAFETY: see above.
    unsafe { borrow(value) }.map_or(lent(b""), |item| lent(item.type_name().as_bytes()))
}

pub(super) unsafe extern "C" fn get_int(
    value: *mut KinoValue,
    low: *mut u64,
    high: *mut i64,
) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        let int = borrow(value)?.int()?;
        low.write(int as u64);
        high.write((int >> 64) as i64);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn get_real(value: *mut KinoValue, real: *mut f64) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        real.write(borrow(value)?.real()?);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn get_bytes(value: *mut KinoValue, to: *mut KinoStr) -> KinoStatus {
    // SAFETY: see above.
    to_status(|| unsafe {
        to.write(lent(borrow(value)?.bytes()?));
        Ok(())
    })
}

pub(super) unsafe extern "C" fn len(value: *mut KinoValue) -> usize {
    // SAFETY: see above.
    unsafe { borrow(value) }.map_or(0, PluginValue::len)
}

pub(super) unsafe extern "C" fn item(
    value: *mut KinoValue,
    index: usize,
    name: *mut KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe {
        write_result(to, || {
            let value = borrow(value)?;
            if !name.is_null() {
                name.write(lent(value.name(index).as_bytes()));
            }
            value.item(index).map(Some)
        })
    }
}

pub(super) unsafe extern "C" fn field(
    value: *mut KinoValue,
    name: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || borrow(value)?.field(&text(name))) }
}

pub(super) unsafe extern "C" fn new_text(said: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::Value(Value::Text(text(said).into()))))) }
}

pub(super) unsafe extern "C" fn new_bytes(said: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::Bytes(bytes(said).into())))) }
}

pub(super) unsafe extern "C" fn new_int(
    low: u64,
    high: i64,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    let int = i128::from(high) << 64 | i128::from(low);
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::Value(Value::Int(int))))) }
}

pub(super) unsafe extern "C" fn new_real(real: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::Value(Value::Real(real))))) }
}

pub(super) unsafe extern "C" fn new_bool(truth: u32, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::Value(Value::Bool(truth != 0))))) }
}

pub(super) unsafe extern "C" fn new_list(
    items: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || Ok(Some(PluginValue::List(fields(items, count)?.into())))) }
}

pub(super) unsafe extern "C" fn new_record(
    ty: KinoStr,
    given: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe { write_result(to, || allocator().record(&text(ty), fields(given, count)?).map(Some)) }
}
