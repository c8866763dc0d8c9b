//! The call that a plugin is in: why it failed, what it logs, how far it is, what it may read.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use kino_abi::{KINO_CANCELLED, KINO_OK, KinoCall, KinoStatus, KinoStr, KinoValue};
use kino_host::{CallCx, PluginValue};
use kino_node::Error;

use super::pass::{last_error, lent, text, to_status, write_result};

/// What a `KinoCall` points to: a call with what the plugin said of its failure.
pub(crate) struct ActiveCall<'a> {
    pub(crate) call: &'a CallCx<'a>,
    failure: Mutex<Option<(String, String)>>,
}

impl<'a> ActiveCall<'a> {
    pub(crate) fn new(call: &'a CallCx<'a>) -> Self {
        ActiveCall { call, failure: Mutex::new(None) }
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
    /// What a plugin said in its entry, where there is no call.
    static ENTRY_ERROR: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// What a plugin said of its refusal to start.
pub(crate) fn entry_error() -> Option<(String, String)> {
    ENTRY_ERROR.take()
}
/// The call behind a pointer.
///
/// # Safety
/// `call` is null or was given to the plugin by [`Current::raw`], and has not returned yet.
pub(super) unsafe fn current<'a>(call: *mut KinoCall) -> Option<&'a ActiveCall<'a>> {
    // SAFETY: as the caller promises.
    unsafe { call.cast_const().cast::<ActiveCall<'a>>().as_ref() }
}

// SAFETY of all functions of the table: plugins hold the contract of `kino_abi`, which says of each
// argument what it points to and how long it lives. Native plugins are trusted with it by name.

pub(super) unsafe extern "C" fn fail(call: *mut KinoCall, message: KinoStr, hint: KinoStr) {
    // SAFETY: see above.
    let (mut said, current) = unsafe { ((text(message), text(hint)), current(call)) };
    // A plugin that passes on why a host function failed has no more than its message.
    if said.1.is_empty() {
        said.1 = last_error(
            |message, hint| if message == said.0 { hint.to_owned() } else { String::new() },
        );
    }
    match current {
        Some(current) => {
            *current.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        }
        None => ENTRY_ERROR.set(Some(said)),
    }
}

pub(super) unsafe extern "C" fn error() -> KinoStr {
    // The text stays where it is until this thread's next call fails.
    last_error(|message, _| lent(message.as_bytes()))
}

pub(super) unsafe extern "C" fn log(
    call: *mut KinoCall,
    level: u32,
    target: KinoStr,
    message: KinoStr,
) {
    // SAFETY: see above.
    let (current, target, message) = unsafe { (current(call), text(target), text(message)) };
    let _ = to_status(|| {
        if let Some(current) = current {
            current.call.log(level, &target, &message);
        }
        Ok(())
    });
}

pub(super) unsafe extern "C" fn progress(call: *mut KinoCall, step: u64, of: u64) {
    // SAFETY: see above.
    let current = unsafe { current(call) };
    let _ = to_status(|| {
        if let Some(current) = current {
            current.call.progress(step, of);
        }
        Ok(())
    });
}

pub(super) unsafe extern "C" fn cancelled(call: *mut KinoCall) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current(call) }.is_some_and(|current| current.call.cancel.is_cancelled()))
}

pub(super) unsafe extern "C" fn wants(call: *mut KinoCall, index: usize) -> u32 {
    // SAFETY: see above.
    u32::from(unsafe { current(call) }.is_some_and(|current| current.call.wants(index)))
}

pub(super) unsafe extern "C" fn stream(call: *mut KinoCall) -> *mut c_void {
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

pub(super) unsafe extern "C" fn read_file(
    call: *mut KinoCall,
    path: KinoStr,
    to: *mut *mut KinoValue,
) -> KinoStatus {
    // SAFETY: see above.
    unsafe {
        write_result(to, || {
            let current = current(call).ok_or_else(|| Error::failed("there is no call"))?;
            Ok(Some(PluginValue::Bytes(current.call.files.read(&text(path))?.into())))
        })
    }
}
