//! The plugin's side of the C table: catches panics, says why, hands values over.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Once;

use kino_abi::{
    HOST_SIZE_2_0, KINO_MAGIC, KINO_MAJOR, KINO_MINOR, KinoCall, KinoError, KinoHost, KinoInstance,
    KinoPlugin, KinoStr, KinoValue,
};

use crate::host::CallRef;
use crate::host::native::{enter_call, host, install, raised};
use crate::host::strings::{bytes, lend};
use crate::node::{Instance, Plugin, descriptor};
use crate::{Cx, Error, Result, Value, code};

/// A plugin's table; its descriptor lives as long as the library.
pub struct Table(pub(crate) KinoPlugin);

// SAFETY: the table is never written after it is made, and what it points to neither.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the symbol `kino_plugin` does.
///
/// # Safety
/// `host` must be null or the table of a host, valid as long as the process lives.
pub unsafe fn entry<P: Plugin>(
    given: *const KinoHost,
    table: &'static std::sync::OnceLock<Table>,
) -> *const KinoPlugin {
    // SAFETY: as this function demands.
    if !unsafe { fits(given) } {
        return std::ptr::null();
    }
    // SAFETY: it fits this contract, and lives as long as the process.
    unsafe { install(given) };
    let made = guarded(null_mut(), || {
        watch_panics();
        crate::log::install();
        if table.get().is_none() {
            let _ = table.set(make_table::<P>()?);
        }
        Ok(())
    });
    if let Err(error) = made {
        // SAFETY: there is no call in the entry; both texts are lent.
        unsafe { (host().fail)(null_mut(), lend(error.message()), lend(error.advice())) };
        return std::ptr::null();
    }
    table.get().map_or(std::ptr::null(), |table| &raw const table.0)
}

/// Whether a host's table is of this contract; says why not through the table, where it has that.
///
/// # Safety
/// As for [`entry`].
unsafe fn fits(given: *const KinoHost) -> bool {
    if given.is_null() {
        return false;
    }
    // SAFETY: `size`, `major` and `fail` stand at the same place in every version; the table is
    // not read beyond the size that it says.
    unsafe {
        let size = (&raw const (*given).size).read();
        if size < std::mem::offset_of!(KinoHost, new_error) {
            return false;
        }
        let (major, minor) =
            ((&raw const (*given).major).read(), (&raw const (*given).minor).read());
        if major == KINO_MAJOR && size >= HOST_SIZE_2_0 {
            return true;
        }
        let message = format!(
            "the plugin is built for version {KINO_MAJOR}.{KINO_MINOR} of the contract, this \
             Kinograph offers {major}.{minor}"
        );
        let hint = match major < KINO_MAJOR {
            true => "use a newer Kinograph, or build the plugin with this one's SDK",
            false => "build the plugin with this Kinograph's SDK: `kino plugin build`",
        };
        let fail = (&raw const (*given).fail).read();
        fail(null_mut(), lend(&message), lend(hint));
        false
    }
}

pub(crate) fn make_table<P: Plugin>() -> Result<Table> {
    let descriptor: &'static str = Box::leak(descriptor(P::NODES)?.into_boxed_str());
    Ok(Table(KinoPlugin {
        magic: KINO_MAGIC,
        major: KINO_MAJOR,
        minor: KINO_MINOR,
        size: std::mem::size_of::<KinoPlugin>(),
        capabilities: lend(""),
        descriptor: lend(descriptor),
        open: open::<P>,
        run,
        save,
        close,
        shutdown,
    }))
}

/// Remembers where this plugin panics during a call, for the message, instead of printing it. The
/// hook is that of the plugin's own standard library.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !INSIDE.try_with(Cell::get).unwrap_or(false) {
                return before(panic);
            }
            let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line()));
            let _ = PANICKED_AT.try_with(|at| {
                if let Ok(mut at) = at.try_borrow_mut() {
                    *at = place.unwrap_or_default();
                }
            });
        }));
    });
}

/// Runs the plugin's code so that nothing unwinds out of it.
fn guarded(call: *mut KinoCall, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let outer = (enter_call(call), INSIDE.replace(true));
    let ended = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic)));
    enter_call(outer.0);
    INSIDE.set(outer.1);
    ended
}

/// As [`guarded`], and tells the host how it ended.
fn guard(call: *mut KinoCall, work: impl FnOnce() -> Result<()>) -> *mut KinoError {
    guarded(call, work).map_or_else(|error| raised(&error), |()| null_mut())
}

/// The message of a panic.
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into());
    // What was thrown may itself panic when it is dropped.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    let place = PANICKED_AT.take();
    let place = if place.is_empty() { place } else { format!(" at {place}") };
    Error::new(format!("the plugin panicked{place}: {message}"))
        .hint("this is a fault of the plugin: report it to its author")
        .with_code(code::BROKEN)
}

/// What `KinoInstance` points to.
type Held = Box<dyn Instance>;

unsafe extern "C" fn open<P: Plugin>(
    call: *mut KinoCall,
    node: KinoStr,
    saved: KinoStr,
    instance: *mut *mut KinoInstance,
) -> *mut KinoError {
    guard(call, || {
        // SAFETY: the contract lends both strings for the call.
        let (node, state) = unsafe { (bytes(node), bytes(saved)) };
        let def = P::NODES.iter().find(|def| def.id.as_bytes() == node).ok_or_else(|| {
            Error::new(format!("there is no node `{}` here", String::from_utf8_lossy(node)))
        })?;
        let state = (!saved.data.is_null()).then_some(state);
        let opened: Held = (def.open)(&mut Cx::new(CallRef(call)), state)?;
        // SAFETY: the contract gives a place for the instance.
        unsafe { instance.write(Box::into_raw(Box::new(opened)).cast()) };
        Ok(())
    })
}

unsafe extern "C" fn run(
    call: *mut KinoCall,
    instance: *mut KinoInstance,
    inputs: *const *const KinoValue,
    input_count: usize,
    outputs: *mut *mut KinoValue,
    output_count: usize,
) -> *mut KinoError {
    guard(call, || {
        // SAFETY: `open` made the pointer; the contract never runs one instance twice at a time.
        let instance = unsafe { &mut *instance.cast::<Held>() };
        let mut given: Vec<Option<Value>> = (0..input_count)
            // SAFETY: the contract lends that many values or nulls for the call.
            .map(|index| unsafe { Value::from_lent(inputs.add(index).read()) })
            .collect();
        let made = instance.run(&mut Cx::new(CallRef(call)), &mut given)?;
        if made.len() != output_count {
            return Err(Error::new(format!(
                "{output_count} outputs were asked for, the node has {}",
                made.len()
            )));
        }
        for (index, value) in made.into_iter().enumerate() {
            // SAFETY: the contract gives a place for each output, which takes over the value.
            unsafe { outputs.add(index).write(value.map_or(null_mut(), Value::into_raw)) };
        }
        Ok(())
    })
}

unsafe extern "C" fn save(
    call: *mut KinoCall,
    instance: *mut KinoInstance,
    state: *mut *mut KinoValue,
) -> *mut KinoError {
    guard(call, || {
        // SAFETY: as in `run`.
        let instance = unsafe { &mut *instance.cast::<Held>() };
        let saved = instance.save(&mut Cx::new(CallRef(call)))?;
        let saved = saved.map(|saved| Value::bytes(&saved)).transpose()?;
        // SAFETY: the contract gives a place for the state, which takes over the value.
        unsafe { state.write(saved.map_or(null_mut(), Value::into_raw)) };
        Ok(())
    })
}

unsafe extern "C" fn close(instance: *mut KinoInstance) {
    if instance.is_null() {
        return;
    }
    let outer = INSIDE.replace(true);
    // SAFETY: `open` made the pointer, and the contract closes it once.
    let held = unsafe { Box::from_raw(instance.cast::<Held>()) };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(held))) {
        // `close` cannot fail; what was not dropped is leaked.
        drop(panicked(panic));
    }
    INSIDE.set(outer);
}

unsafe extern "C" fn shutdown() {}
