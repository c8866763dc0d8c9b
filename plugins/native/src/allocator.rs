//! How values that a plugin makes come to be: in this process, tensors are the engine's own; in a
//! worker process, they lie in memory that the engine's process sees, too.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytemuck::Pod;
use candle_core::DType;
use kino_host::{FillElements, PluginValue, SharedTensor, TensorBuffer};
use kino_node::{Ledger, Result, Value};

/// Makes what a plugin asks for.
pub(crate) trait TensorAllocator: Send + Sync {
    /// A tensor to be written: zeros, or whatever lies there, for who writes all of them.
    fn tensor(&self, dtype: DType, shape: &[usize], zeroed: bool) -> Result<TensorDraft>;
    /// Who holds the memory of frames, where a call has a ledger; none where frames are only
    /// gathered, to be sent.
    fn ledger(&self, of_call: Option<&Arc<Ledger>>) -> Option<Arc<Ledger>>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>;
}

/// A tensor that is being written.
pub(crate) enum TensorDraft {
    /// Memory of the engine.
    Own(TensorBuffer),
    /// Memory that the engine's process sees, too, and where it is written.
    Shared(SharedTensor, SharedMemory),
}

/// Where shared memory is written.
pub(crate) struct SharedMemory(pub(crate) *mut u8);

// SAFETY: the memory belongs to the tensor that the pointer stands beside, not to a thread.
unsafe impl Send for SharedMemory {}

impl TensorDraft {
    /// Its type, its shape, and where it is written; that stays where it is until it is finished.
    pub(crate) fn memory(&mut self) -> Result<(DType, &[usize], *mut u8)> {
        match self {
            TensorDraft::Own(draft) => {
                let data = draft.lend()?.data;
                Ok((draft.dtype(), draft.shape(), data))
            }
            TensorDraft::Shared(tensor, memory) => Ok((tensor.dtype, &tensor.shape, memory.0)),
        }
    }

    /// The tensor.
    pub(crate) fn finish(self) -> Result<PluginValue> {
        match self {
            TensorDraft::Own(draft) => {
                draft.give_back();
                Ok(PluginValue::Value(Value::Tensor(draft.finish()?)))
            }
            TensorDraft::Shared(tensor, _) => Ok(PluginValue::SharedTensor(Arc::new(tensor))),
        }
    }
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
    fn tensor(&self, dtype: DType, shape: &[usize], zeroed: bool) -> Result<TensorDraft> {
        let draft = match zeroed {
            true => TensorBuffer::zeros(dtype, shape, u64::MAX),
            false => TensorBuffer::filled(dtype, shape, u64::MAX, &Uninit),
        };
        Ok(TensorDraft::Own(draft?))
    }

    fn ledger(&self, of_call: Option<&Arc<Ledger>>) -> Option<Arc<Ledger>> {
        Some(of_call.map_or_else(latest, Arc::clone))
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        PluginValue::record(ty, fields)
    }
}

/// Leaves memory as it is: its plugin writes all of it before anybody reads.
struct Uninit;

impl FillElements for Uninit {
    fn fill<T: Pod>(&self, elements: &mut Vec<T>, count: usize) {
        elements.clear();
        elements.reserve_exact(count);
        // SAFETY: there is room for `count` elements, for which any bits do. The contract of
        // `new_tensor_builder` has the plugin write all of them before it finishes the tensor;
        // until then a draft is not read.
        unsafe { elements.set_len(count) };
    }
}

/// The ledger of the latest call, for frames that a thread of a plugin's own makes.
static LATEST: Mutex<Weak<Ledger>> = Mutex::new(Weak::new());
/// What such frames may take where no call was made yet, in bytes.
const MODEST: u64 = 1 << 30;

/// Frames that are made without a call take leases of this ledger from here on.
pub(crate) fn remember(ledger: &Arc<Ledger>) {
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::ptr::eq(latest.as_ptr(), Arc::as_ptr(ledger)) {
        *latest = Arc::downgrade(ledger);
    }
}

fn latest() -> Arc<Ledger> {
    let latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    latest.unwrap_or_else(|| Ledger::new(MODEST))
}
