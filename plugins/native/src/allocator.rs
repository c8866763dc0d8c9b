//! How values that a plugin makes come to be: in this process, tensors are the engine's own; in a
//! worker process, they lie in memory that the engine's process sees, too.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytemuck::Pod;
use candle_core::DType;
use kino_host::{FillElements, FramesBuffer, PluginValue, TensorBuffer};
use kino_node::{Error, Ledger, Result};

/// Makes what a plugin asks for.
pub(crate) trait TensorAllocator: Send + Sync {
    /// A tensor of zeros.
    fn tensor(&self, dtype: DType, shape: &[usize]) -> Result<PluginValue>;
    /// A tensor whose elements are whatever lies there, for who writes all of them.
    fn uninit(&self, dtype: DType, shape: &[usize]) -> Result<PluginValue> {
        self.tensor(dtype, shape)
    }
    /// Frames in the making.
    fn frames(&self, fps: Option<f64>) -> Result<PluginValue>;
    /// Appends to frames in the making.
    fn push(&self, frames: &PluginValue, chunk: &PluginValue) -> Result<()>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>;
    /// From here on a tensor of this maker does not change: somebody reads it or takes it up.
    fn seal(&self, _tensor: &PluginValue) -> Result<()> {
        Ok(())
    }
    /// Where the elements of a tensor of this maker can be written, until [`Maker::give_back`].
    fn lend(&self, tensor: &PluginValue) -> Result<*mut u8>;
    /// Ends what [`Maker::lend`] began.
    fn give_back(&self, tensor: &PluginValue);
}

static ALLOCATOR: OnceLock<Box<dyn TensorAllocator>> = OnceLock::new();

/// The maker of this process.
pub(crate) fn allocator() -> &'static dyn TensorAllocator {
    &**ALLOCATOR.get_or_init(|| Box::new(InProcess))
}

/// Sets the maker of this process, before the first plugin is loaded.
pub(crate) fn set_allocator(allocator: Box<dyn TensorAllocator>) {
    let _ = ALLOCATOR.set(allocator);
}

/// The engine's own process.
struct InProcess;

impl TensorAllocator for InProcess {
    fn tensor(&self, dtype: DType, shape: &[usize]) -> Result<PluginValue> {
        Ok(PluginValue::TensorBuffer(Arc::new(TensorBuffer::zeros(dtype, shape, u64::MAX)?)))
    }

    fn uninit(&self, dtype: DType, shape: &[usize]) -> Result<PluginValue> {
        Ok(PluginValue::TensorBuffer(Arc::new(TensorBuffer::filled(
            dtype,
            shape,
            u64::MAX,
            &Uninit,
        )?)))
    }

    fn frames(&self, fps: Option<f64>) -> Result<PluginValue> {
        Ok(PluginValue::FramesBuffer(Arc::new(FramesBuffer::new(&ledger(), fps)?)))
    }

    fn push(&self, frames: &PluginValue, chunk: &PluginValue) -> Result<()> {
        match frames {
            PluginValue::FramesBuffer(growing) => growing.push(&chunk.tensor()?),
            other => Err(Error::failed(format!("{} takes no frames", other.type_name()))),
        }
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        PluginValue::record(ty, fields)
    }

    fn lend(&self, tensor: &PluginValue) -> Result<*mut u8> {
        match tensor {
            PluginValue::TensorBuffer(draft) => Ok(draft.lend()?.data),
            other => Err(Error::failed(format!("this {} cannot be written", other.type_name()))),
        }
    }

    fn give_back(&self, tensor: &PluginValue) {
        if let PluginValue::TensorBuffer(draft) = tensor {
            draft.give_back();
        }
    }
}

/// Leaves memory as it is: its plugin writes all of it before anybody reads.
struct Uninit;

impl FillElements for Uninit {
    fn fill<T: Pod>(&self, elements: &mut Vec<T>, count: usize) {
        elements.clear();
        elements.reserve_exact(count);
        // SAFETY: there is room for `count` elements, for which any bits do. The contract of
        // `new_tensor_unwritten` has the plugin write all of them before it gives the view back;
        // until then a draft is not read.
        unsafe { elements.set_len(count) };
    }
}

thread_local! {
    /// The memory ledger of the call that runs on this thread.
    static LEDGER: RefCell<Option<Arc<Ledger>>> = const { RefCell::new(None) };
}

/// The ledger of the latest call, for frames that a thread of a plugin's own makes.
static LATEST: Mutex<Weak<Ledger>> = Mutex::new(Weak::new());
/// What such frames may take where no call was made yet, in bytes.
const MODEST: u64 = 1 << 30;

/// Does `f`; the frames that it makes take leases of this ledger.
pub(crate) fn with_ledger<T>(ledger: &Arc<Ledger>, f: impl FnOnce() -> T) -> T {
    remember(ledger);
    let before = LEDGER.replace(Some(Arc::clone(ledger)));
    let result = f();
    LEDGER.set(before);
    result
}

fn remember(ledger: &Arc<Ledger>) {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::ptr::eq(latest.as_ptr(), Arc::as_ptr(ledger)) {
        *latest = Arc::downgrade(ledger);
    }
}

fn ledger() -> Arc<Ledger> {
    let set = LEDGER.with_borrow(Clone::clone);
    set.or_else(|| LATEST.lock().unwrap_or_else(PoisonError::into_inner).upgrade())
        .unwrap_or_else(|| Ledger::new(MODEST))
}
