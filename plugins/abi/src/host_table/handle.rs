//! Values as plugins have pointers to them: counted, each with where it lies.

use std::sync::{Arc, OnceLock};

use super::backend::{Backend, HostError, HostResult};
use super::lent::View;
use super::pass::outcome;
use crate::{KinoError, KinoValue};

/// What the pointer to a value leads to: the value, and where it lies once somebody has asked.
pub(super) struct Handle<B: Backend> {
    pub(super) value: B::Value,
    pub(super) view: OnceLock<Box<View<B>>>,
}

/// Gives a value away: whoever has the pointer owns a count.
pub fn into_raw<B: Backend>(value: B::Value) -> *mut KinoValue {
    Arc::into_raw(Arc::new(Handle::<B> { value, view: OnceLock::new() })).cast_mut().cast()
}

/// Takes back what was given away.
///
/// # Safety
/// `value` is null or comes from [`into_raw`] of the same backend, and its count belongs to the
/// caller.
pub unsafe fn from_raw<B: Backend>(value: *mut KinoValue) -> Option<B::Value> {
    if value.is_null() {
        return None;
    }
    // SAFETY: not null and from `Arc::into_raw`, as the caller promises.
    let handle = unsafe { Arc::from_raw(value.cast_const().cast::<Handle<B>>()) };
    Some(match Arc::try_unwrap(handle) {
        Ok(handle) => handle.value,
        Err(shared) => shared.value.clone(),
    })
}

pub(super) fn absent() -> HostError {
    HostError {
        hint: "what `field` finds of a field that is not there is null".to_owned(),
        ..HostError::new("a value was expected, found null")
    }
}

/// As [`outcome`], and writes the value that comes out.
///
/// # Safety
/// `to` can be written.
pub(super) unsafe fn write_value<B: Backend>(
    name: &str,
    to: *mut *mut KinoValue,
    work: impl FnOnce() -> HostResult<B::Value>,
) -> *mut KinoError {
    outcome(name, || {
        let value = work()?;
        // SAFETY: as the caller promises.
        unsafe { to.write(into_raw::<B>(value)) };
        Ok(())
    })
}
