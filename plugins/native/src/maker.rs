//! How values that a plugin makes come to be: in this process, tensors are the engine's own; in a
//! worker process, they lie in memory that the engine's process sees, too.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytemuck::Pod;
use candle_core::DType;
use kino_host::{Draft, Fill, Growing, Item};
use kino_node::{Error, Ledger, Result};

/// Makes what a plugin asks for.
pub(crate) trait Maker: Send + Sync {
    /// A tensor of zeros.
    fn tensor(&self, dtype: DType, shape: &[usize]) -> Result<Item>;
    /// A tensor whose elements are whatever lies there, for who writes all of them.
    fn unwritten(&self, dtype: DType, shape: &[usize]) -> Result<Item> {
        self.tensor(dtype, shape)
    }
    /// Frames in the making.
    fn frames(&self, fps: Option<f64>) -> Result<Item>;
    /// Appends to frames in the making.
    fn push(&self, frames: &Item, chunk: &Item) -> Result<()>;
    /// A record.
    fn record(&self, ty: &str, fields: Vec<(Arc<str>, Item)>) -> Result<Item>;
    /// From here on a tensor of this maker does not change: somebody reads it or takes it up.
    fn settle(&self, _tensor: &Item) -> Result<()> {
        Ok(())
    }
    /// Where the elements of a tensor of this maker can be written, until [`Maker::give_back`].
    fn lend(&self, tensor: &Item) -> Result<*mut u8>;
    /// Ends what [`Maker::lend`] began.
    fn give_back(&self, tensor: &Item);
}

static MAKER: OnceLock<Box<dyn Maker>> = OnceLock::new();

/// The maker of this process.
pub(crate) fn maker() -> &'static dyn Maker {
    &**MAKER.get_or_init(|| Box::new(Here))
}

/// Sets the maker of this process, before the first plugin is loaded.
pub(crate) fn set_maker(maker: Box<dyn Maker>) {
    let _ = MAKER.set(maker);
}

/// The engine's own process.
struct Here;

impl Maker for Here {
    fn tensor(&self, dtype: DType, shape: &[usize]) -> Result<Item> {
        Ok(Item::Draft(Arc::new(Draft::zeros(dtype, shape, u64::MAX)?)))
    }

    fn unwritten(&self, dtype: DType, shape: &[usize]) -> Result<Item> {
        Ok(Item::Draft(Arc::new(Draft::filled(dtype, shape, u64::MAX, &Unwritten)?)))
    }

    fn frames(&self, fps: Option<f64>) -> Result<Item> {
        Ok(Item::Growing(Arc::new(Growing::new(&ledger(), fps)?)))
    }

    fn push(&self, frames: &Item, chunk: &Item) -> Result<()> {
        match frames {
            Item::Growing(growing) => growing.push(&chunk.tensor()?),
            other => Err(Error::failed(format!("{} takes no frames", other.type_name()))),
        }
    }

    fn record(&self, ty: &str, fields: Vec<(Arc<str>, Item)>) -> Result<Item> {
        Item::record(ty, fields)
    }

    fn lend(&self, tensor: &Item) -> Result<*mut u8> {
        match tensor {
            Item::Draft(draft) => Ok(draft.lend()?.data),
            other => Err(Error::failed(format!("this {} cannot be written", other.type_name()))),
        }
    }

    fn give_back(&self, tensor: &Item) {
        if let Item::Draft(draft) = tensor {
            draft.give_back();
        }
    }
}

/// Leaves memory as it is: its plugin writes all of it before anybody reads.
struct Unwritten;

impl Fill for Unwritten {
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
