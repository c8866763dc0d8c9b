//! The reference host's functions that make values.
//!
//! In all of them the contract makes the plugin pass valid places, strings that are lent for the
//! call, and its own live values: that is what "as said above" means.

use std::sync::Arc;

use kino_abi::{KinoField, KinoStatus, KinoStr, KinoValue};

use super::held::{Handle, Held, Outcome};
use super::pass::{ended, give, held, shared, text};
use crate::host::strings::bytes;

pub(super) unsafe extern "C" fn new_text(of: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        let text = String::from_utf8(bytes(of).to_vec());
        let text = text.map_err(|_| "a text must be UTF-8".to_owned());
        give(text.map(|text| Arc::new(Held::Text(text))), to)
    }
}

pub(super) unsafe extern "C" fn new_bytes(of: KinoStr, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { give(Ok(Arc::new(Held::Bytes(bytes(of).to_vec()))), to) }
}

pub(super) unsafe extern "C" fn new_int(
    low: u64,
    high: i64,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    let int = i128::from(high) << 64 | i128::from(low);
    // SAFETY: as said above.
    unsafe { give(Ok(Arc::new(Held::Int(int))), to) }
}

pub(super) unsafe extern "C" fn new_real(real: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { give(Ok(Arc::new(Held::Real(real))), to) }
}

pub(super) unsafe extern "C" fn new_bool(truth: u32, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { give(Ok(Arc::new(Held::Bool(truth != 0))), to) }
}

/// # Safety
/// `fields` must point to `count` fields whose values are alive.
unsafe fn named(fields: *const KinoField, count: usize) -> Outcome<Vec<(String, Handle)>> {
    (0..count)
        .map(|index| {
            // SAFETY: as this function demands.
            unsafe {
                let field = fields.add(index).read();
                Ok((text(field.name), shared(field.value)?))
            }
        })
        .collect()
}

pub(super) unsafe extern "C" fn new_list(
    items: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { give(named(items, count).map(|items| Arc::new(Held::List(items))), to) }
}

pub(super) unsafe extern "C" fn new_record(
    name: KinoStr,
    fields: *const KinoField,
    count: usize,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe {
        let name = text(name);
        let fields = named(fields, count).and_then(|fields| checked(&name, fields));
        give(fields.map(|fields| Arc::new(Held::Record(name, fields))), to)
    }
}

/// Checks that a record of an engine type has its fields.
fn checked(name: &str, fields: Vec<(String, Handle)>) -> Outcome<Vec<(String, Handle)>> {
    let needed: &[&str] = match name {
        "Latent" => &["tensor"],
        "Conditioning" => &["positive", "negative"],
        "Patches" => &["tokens", "clips", "patch"],
        own if own.contains('.') => &[],
        _ => return Err(format!("a plugin cannot make a record of type `{name}`")),
    };
    match needed.iter().find(|needed| !fields.iter().any(|(field, _)| field == *needed)) {
        Some(missing) => Err(format!("a record of type {name} needs a field `{missing}`")),
        None => Ok(fields),
    }
}

pub(super) unsafe extern "C" fn new_frames(fps: f64, to: *mut *mut KinoValue) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { give(Held::frames(fps), to) }
}

pub(super) unsafe extern "C" fn push_frames(
    frames: *mut KinoValue,
    chunk: *mut KinoValue,
) -> KinoStatus {
    // SAFETY: as said above.
    unsafe { ended(held(frames).and_then(|frames| frames.push(&shared(chunk)?))) }
}
