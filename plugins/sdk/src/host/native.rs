//! The host behind the C table.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use kino_abi::{
    KINO_BOOL, KINO_BYTES, KINO_INT, KINO_LIST, KINO_REAL, KINO_RECORD, KINO_TENSOR, KINO_TEXT,
    KinoCall, KinoError, KinoField, KinoHost, KinoStr, KinoValue,
};

use super::kinds::ValueKind;
use super::strings::{bytes, lend, lend_bytes};
use crate::{Error, Result, code};

thread_local! {
    static CALL: Cell<*mut KinoCall> = const { Cell::new(null_mut()) };
}

/// The call that runs on this thread; null outside of one.
pub(super) fn current_call() -> *mut KinoCall {
    CALL.try_with(Cell::get).unwrap_or(null_mut())
}

/// Makes a call the one that runs on this thread, and gives the one before.
pub(crate) fn enter_call(call: *mut KinoCall) -> *mut KinoCall {
    CALL.replace(call)
}

/// The table that the entry was given.
static HOST: AtomicPtr<KinoHost> = AtomicPtr::new(null_mut());

/// Keeps the host's table. Functions that a version after 2.0 adds must be asked for by `size`
/// before they are called: a host of an earlier version lacks them.
///
/// # Safety
/// `host` must be a table of this major version, at least as large as
/// [`kino_abi::HOST_SIZE_2_0`] and as it says, that lives as long as the process does.
pub(crate) unsafe fn install(host: *const KinoHost) {
    HOST.store(host.cast_mut(), Ordering::Release);
}

/// The host's table: the engine's, or the one for tests where no engine has loaded this plugin.
pub(crate) fn host() -> &'static KinoHost {
    let host = HOST.load(Ordering::Acquire);
    if host.is_null() {
        return standby();
    }
    // SAFETY: only `install` stores a pointer; its contract makes it valid for ever.
    unsafe { &*host }
}

#[cfg(feature = "testing")]
fn standby() -> &'static KinoHost {
    crate::testing::table()
}

#[cfg(not(feature = "testing"))]
fn standby() -> &'static KinoHost {
    panic!("no engine has loaded this plugin; tests need the feature `testing` of kino-plugin");
}

/// A host function's outcome as a result.
///
/// # Safety
/// `error` is null, or an error of the installed host that belongs to the caller.
pub(crate) unsafe fn outcome(error: *mut KinoError) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    let host = host();
    // SAFETY: the error is alive until it is released; its texts are copied before.
    let [message, hint, name] = unsafe {
        [host.error_message, host.error_hint, host.error_code]
            .map(|text| String::from_utf8_lossy(bytes(text(error))).into_owned())
    };
    // SAFETY: the error belongs to the caller, as it promises.
    unsafe { (host.release_error)(error) };
    match name == code::CANCELLED {
        true => Err(Error::Cancelled),
        false => Err(Error::new(message).hint(hint).with_code(name)),
    }
}

/// An error as the host gets it.
pub(crate) fn raised(error: &Error) -> *mut KinoError {
    let (message, hint, name) = (error.message(), error.advice(), error.code());
    // SAFETY: the texts are lent for the call.
    unsafe { (host().new_error)(lend(message), lend(hint), lend(name)) }
}

/// A value of the engine: immutable, shared by its clones.
pub struct Value(NonNull<KinoValue>);

// SAFETY: the contract lets functions on values be called from any thread at any time.
unsafe impl Send for Value {}
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Clone for Value {
    fn clone(&self) -> Self {
        // SAFETY: this handle owns a count, so the value is alive; `retain` gives the same pointer.
        unsafe {
            (host().retain)(self.0.as_ptr());
        }
        Value(self.0)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: this handle owns the count that it gives up.
        unsafe { (host().release)(self.0.as_ptr()) }
    }
}

impl Value {
    /// Takes over a pointer with its count; none where it is null.
    ///
    /// # Safety
    /// The caller must own one count of a value of the installed host.
    pub(crate) unsafe fn from_raw(value: *mut KinoValue) -> Option<Self> {
        NonNull::new(value).map(Value)
    }

    /// A handle of a value that is lent; none where it is null.
    ///
    /// # Safety
    /// The value must be alive during the call.
    pub(crate) unsafe fn from_lent(value: *const KinoValue) -> Option<Self> {
        // SAFETY: the value is null or alive; the count is this handle's own.
        unsafe { Value::from_raw((host().retain)(value)) }
    }

    /// Gives the pointer with its count away.
    pub(crate) fn into_raw(self) -> *mut KinoValue {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    pub(crate) fn raw(&self) -> *const KinoValue {
        self.0.as_ptr()
    }

    /// Runs a host function that makes a value.
    ///
    /// # Safety
    /// `make` calls a function of the installed host.
    pub(crate) unsafe fn made(
        make: impl FnOnce(*mut *mut KinoValue) -> *mut KinoError,
    ) -> Result<Self> {
        // SAFETY: as the caller promises.
        unsafe { Self::made_or_none(make) }?.ok_or_else(|| Error::new("the host gave no value"))
    }

    /// # Safety
    /// As [`Value::made`].
    unsafe fn made_or_none(
        make: impl FnOnce(*mut *mut KinoValue) -> *mut KinoError,
    ) -> Result<Option<Self>> {
        let mut value = null_mut();
        // SAFETY: errors and values that a host function gives belong to the caller.
        unsafe {
            outcome(make(&mut value))?;
            Ok(Value::from_raw(value))
        }
    }

    /// What it is.
    pub fn kind(&self) -> ValueKind {
        // SAFETY: the value is alive.
        match unsafe { (host().kind)(self.raw()) } {
            KINO_TEXT => ValueKind::Text,
            KINO_INT => ValueKind::Int,
            KINO_REAL => ValueKind::Real,
            KINO_BOOL => ValueKind::Bool,
            KINO_TENSOR => ValueKind::Tensor,
            KINO_LIST => ValueKind::List,
            KINO_RECORD => ValueKind::Record,
            KINO_BYTES => ValueKind::Bytes,
            _ => ValueKind::Opaque,
        }
    }

    /// The name of its type, such as `Frames` or `example.depth`.
    pub fn type_name(&self) -> String {
        // SAFETY: the value is alive, and with it the name, which is copied.
        let name = unsafe { bytes((host().type_name)(self.raw())) };
        String::from_utf8_lossy(name).into_owned()
    }

    /// The whole number; of true or false 1 or 0.
    ///
    /// # Errors
    /// When it is something else; so for all that follow.
    pub fn as_int(&self) -> Result<i128> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: the value is alive, the places are valid.
        unsafe { outcome((host().get_wide)(self.raw(), &mut low, &mut high)) }?;
        Ok(i128::from(high) << 64 | i128::from(low))
    }

    /// The real number; whole numbers widen.
    pub fn as_real(&self) -> Result<f64> {
        let mut real = 0.0;
        // SAFETY: the value is alive, the place is valid.
        unsafe { outcome((host().get_f64)(self.raw(), &mut real)) }?;
        Ok(real)
    }

    /// True or false.
    pub fn as_bool(&self) -> Result<bool> {
        let mut truth = 0;
        // SAFETY: the value is alive, the place is valid.
        unsafe { outcome((host().get_bool)(self.raw(), &mut truth)) }?;
        Ok(truth != 0)
    }

    /// The text.
    pub fn as_text(&self) -> Result<String> {
        String::from_utf8(self.to_bytes()?).map_err(|_| Error::new("a text is not UTF-8"))
    }

    /// The bytes, or those of the text.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut found = KinoStr { data: null(), len: 0 };
        // SAFETY: the value is alive, the place is valid.
        unsafe { outcome((host().get_bytes)(self.raw(), &mut found)) }?;
        // SAFETY: the bytes live as long as the value; they are copied.
        Ok(unsafe { bytes(found) }.to_vec())
    }

    /// The number of items of a list or fields of a record; 0 for all else.
    pub fn len(&self) -> usize {
        // SAFETY: the value is alive.
        unsafe { (host().len)(self.raw()) }
    }

    /// Whether it has neither items nor fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An item or field by its index, with its name, which may be empty.
    pub fn item(&self, index: usize) -> Result<(String, Value)> {
        let mut name = KinoStr { data: null(), len: 0 };
        // SAFETY: the value is alive, the places are valid.
        let item =
            unsafe { Value::made(|item| (host().item)(self.raw(), index, &mut name, item)) }?;
        // SAFETY: the name lives as long as this value; it is copied.
        let name = String::from_utf8_lossy(unsafe { bytes(name) }).into_owned();
        Ok((name, item))
    }

    /// A field by its name; none where it has none.
    pub fn field(&self, name: &str) -> Result<Option<Value>> {
        // SAFETY: the value is alive, the name is lent, the place is valid.
        unsafe { Value::made_or_none(|field| (host().field)(self.raw(), lend(name), field)) }
    }

    /// Makes a text.
    pub fn text(text: &str) -> Result<Self> {
        // SAFETY: the text is lent, the place is valid; so in all that follow.
        unsafe { Value::made(|value| (host().new_text)(lend(text), value)) }
    }

    /// Makes bytes.
    pub fn bytes(bytes: &[u8]) -> Result<Self> {
        // SAFETY: as above.
        unsafe { Value::made(|value| (host().new_bytes)(lend_bytes(bytes), value)) }
    }

    /// Makes a whole number.
    pub fn int(int: i128) -> Result<Self> {
        // SAFETY: as above.
        unsafe { Value::made(|value| (host().new_wide)(int as u64, (int >> 64) as i64, value)) }
    }

    /// Makes a real number.
    pub fn real(real: f64) -> Result<Self> {
        // SAFETY: as above.
        unsafe { Value::made(|value| (host().new_f64)(real, value)) }
    }

    /// Makes a truth value.
    pub fn truth(truth: bool) -> Result<Self> {
        // SAFETY: as above.
        unsafe { Value::made(|value| (host().new_bool)(u32::from(truth), value)) }
    }

    /// Makes a list; a name may be empty.
    pub fn list(items: &[(&str, &Value)]) -> Result<Self> {
        let items = lend_fields(items);
        // SAFETY: the items are lent with their number.
        unsafe { Value::made(|value| (host().new_list)(items.as_ptr(), items.len(), value)) }
    }

    /// Makes a record of a type.
    pub fn record(type_name: &str, fields: &[(&str, &Value)]) -> Result<Self> {
        let fields = lend_fields(fields);
        let (first, count) = (fields.as_ptr(), fields.len());
        // SAFETY: the fields are lent with their number.
        unsafe { Value::made(|value| (host().new_record)(lend(type_name), first, count, value)) }
    }

    /// One operation on tensors.
    pub(crate) fn op(name: &str, tensors: &[&Value], attributes: &str) -> Result<Self> {
        let raw: Vec<_> = tensors.iter().map(|tensor| tensor.raw()).collect();
        let (name, first, count, attributes) =
            (lend(name), raw.as_ptr(), raw.len(), lend(attributes));
        // SAFETY: the tensors are alive and lent with their number; the call lasts, or is null.
        unsafe {
            Value::made(|value| (host().op)(current_call(), name, first, count, attributes, value))
        }
    }

    /// One function on values of any kind (OPERATIONS.md); attributes are JSON, or empty.
    pub fn call(name: &str, values: &[&Value], attributes: &str) -> Result<Vec<Value>> {
        let raw: Vec<_> = values.iter().map(|value| value.raw()).collect();
        let (name, first, count, attributes) =
            (lend(name), raw.as_ptr(), raw.len(), lend(attributes));
        // SAFETY: as in `op`.
        let list = unsafe {
            Value::made(|value| {
                (host().call)(current_call(), name, first, count, attributes, value)
            })
        }?;
        (0..list.len()).map(|index| Ok(list.item(index)?.1)).collect()
    }
}

/// Whether the host has something: `op.NAME`, `call.NAME`, `type.NAME`, `dtype.NAME`.
pub fn has(name: &str) -> bool {
    // SAFETY: the name is lent.
    unsafe { (host().has)(lend(name)) != 0 }
}

fn lend_fields(fields: &[(&str, &Value)]) -> Vec<KinoField> {
    let lend = |(name, value): &(&str, &Value)| KinoField { name: lend(name), value: value.raw() };
    fields.iter().map(lend).collect()
}

/// One call by the host; copies of it must not outlive the call.
#[derive(Clone, Copy)]
pub(crate) struct CallRef(pub(crate) *mut KinoCall);

// SAFETY: functions that take a call may be used from any thread while it lasts.
unsafe impl Send for CallRef {}
// SAFETY: as above.
unsafe impl Sync for CallRef {}

impl CallRef {
    pub(crate) fn progress(self, step: u64, of: u64) {
        // SAFETY: `Cx`, which holds this, lives only during the call.
        unsafe { (host().progress)(self.0, step, of) }
    }

    pub(crate) fn cancelled(self) -> bool {
        // SAFETY: as above.
        unsafe { (host().cancelled)(self.0) != 0 }
    }

    pub(crate) fn wants(self, output: usize) -> bool {
        // SAFETY: as above.
        unsafe { (host().wants)(self.0, output) != 0 }
    }

    pub(crate) fn stream(self) -> *mut c_void {
        // SAFETY: as above.
        unsafe { (host().stream)(self.0) }
    }

    pub(crate) fn read(self, path: &str) -> Result<Vec<u8>> {
        // SAFETY: as above; the path is lent.
        unsafe { Value::made(|bytes| (host().read_file)(self.0, lend(path), bytes)) }?.to_bytes()
    }
}

/// Passes a message to the engine's log, if a call is running on this thread.
pub(crate) fn log(level: u32, target: &str, message: &str) {
    let call = current_call();
    if !call.is_null() {
        // SAFETY: the shim sets the current call only while it lasts.
        unsafe { (host().log)(call, level, lend(target), lend(message)) }
    }
}
