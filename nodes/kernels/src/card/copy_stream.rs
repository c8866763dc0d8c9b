//! The stream of a card on which blocks are copied, by cudarc. What was read of its source:
//!
//! - A `CudaSlice` belongs to a stream. It knows its last read and write as events, on whatever
//!   streams those were: each use of it by cudarc or candle waits for the last write, and to drop
//!   it has its own stream wait for both and free it (`cuMemFreeAsync`). This holds as long as the
//!   context has streams of its own and event tracking is on.
//! - candle takes `slice.stream()` for its device's stream in places. So what it gets belongs to
//!   the compute stream, though it is allocated on the copy stream: memory allocated on the compute
//!   stream could be written only behind what that has to do, and nothing would overlap.
//! - CUDA's memory pools give memory that one stream freed to another as soon as an event makes the
//!   other wait for the freeing (`CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES`, on by default).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::cuda::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtrMut, DeviceRepr, PinnedHostSlice,
    result,
};
use candle_core::cuda::{CudaDType, CudaStorageSlice, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Storage, Tensor, bail};
use half::bf16;

use super::copies::{Card, Copies, Stream};
use crate::Result;

/// Bytes that are copied at a time: enough that starting a copy costs nothing beside it. Plans
/// count the page-locked memory, twice as much, as what is held of a weight while it is read.
const PIECE: usize = 4 << 20;

/// Copies of blocks of weights to an NVIDIA card, beside what it computes.
///
/// One thread makes blocks with it, one after the other ([`CardCopies::block`]), another computes
/// with them: before each it says so ([`CardCopies::compute_behind`]), and when it has let go what
/// it computed with ([`CardCopies::let_go`]).
pub struct CardCopies {
    copies: Copies<Streams>,
    device: CudaDevice,
}

/// Where the copies of a block end.
pub struct BlockCopied(CudaEvent);

impl fmt::Debug for CardCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardCopies({:?})", self.device)
    }
}

impl CardCopies {
    /// Copies to a device; none where it is no card, or one without what they need: page-locked
    /// memory, memory in the order of streams, cudarc's tracking of events.
    pub fn new(device: &Device) -> Option<Self> {
        let Device::Cuda(device) = device else { return None };
        let compute = device.cuda_stream();
        let context = Arc::clone(compute.context());
        if !context.is_managing_stream_synchronization() || !context.has_async_alloc() {
            return None;
        }
        let copy = context.new_stream().ok()?;
        let streams = Streams { context, compute, copy };
        Some(Self { copies: Copies::new(streams, PIECE).ok()?, device: device.clone() })
    }

    /// A block of which `load` makes the tensors with [`CardCopies::tensor`], and where their copies
    /// end. They begin when the card has done with what was let go last.
    ///
    /// # Errors
    /// When `load` fails, or the card.
    pub fn block<T, E: From<Error>>(
        &self,
        load: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, BlockCopied), E> {
        self.copies.begin()?;
        let block = load()?;
        Ok((block, BlockCopied(self.copies.end()?)))
    }

    /// A tensor on the card, whose copy may be still under way: whatever uses it on the card waits
    /// for that. `fill` gives its numbers of a range, as bytes, piece by piece in order.
    ///
    /// # Errors
    /// When `fill` fails, the card has no memory, this thread's work is cancelled, or the type is none
    /// of weights (f32, bf16, U8).
    pub fn tensor<E: From<Error>>(
        &self,
        dtype: DType,
        shape: &[usize],
        fill: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), E>,
    ) -> Result<Tensor, E> {
        let slice = self.copies.copied(dtype, shape.iter().product(), fill)?;
        let storage = CudaStorage { slice, device: self.device.clone() };
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    /// Before the first kernel of a block.
    ///
    /// # Errors
    /// When the card fails.
    pub fn compute_behind(&self, copied: &BlockCopied) -> Result<()> {
        self.copies.compute_behind(&copied.0)
    }

    /// When blocks that were computed with were let go.
    ///
    /// # Errors
    /// When the card fails.
    pub fn let_go(&self) -> Result<()> {
        self.copies.let_go()
    }
}

/// The two streams of a card.
struct Streams {
    context: Arc<CudaContext>,
    compute: Arc<CudaStream>,
    copy: Arc<CudaStream>,
}

/// Page-locked memory, and where it begins: cudarc waits for an event of its own whenever that is
/// asked for.
struct Pinned {
    first: *mut u8,
    memory: PinnedHostSlice<u8>,
}

// SAFETY: the memory is its own, and belongs to no thread.
unsafe impl Send for Pinned {}

impl Streams {
    fn stream(&self, stream: Stream) -> &Arc<CudaStream> {
        match stream {
            Stream::Compute => &self.compute,
            Stream::Copy => &self.copy,
        }
    }

    /// Memory that belongs to the compute stream, allocated in the order of the copy stream.
    fn numbers<T: CudaDType + DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        self.context.bind_to_thread().w()?;
        // SAFETY: the stream is one of the context that is bound. The memory is written before it is
        // read: whoever asks for it copies into all of it (`Copies::copied`).
        let address =
            unsafe { result::malloc_async(self.copy.cu_stream(), count * size_of::<T>()) };
        // SAFETY: it has just so many bytes, and nobody else frees it.
        let mut memory = unsafe { self.compute.upgrade_device_ptr(address.w()?, count) };
        // Its allocation counts as a write: it is not freed before, whatever becomes of it.
        drop(memory.device_ptr_mut(&self.copy));
        Ok(memory)
    }

    fn copy_into<T>(&self, bytes: &[u8], memory: &mut CudaSlice<T>, at: usize) -> Result<()> {
        let length = memory.num_bytes();
        // SAFETY: numbers are bytes, too.
        let whole = unsafe { memory.transmute_mut::<u8>(length) };
        match whole {
            Some(mut whole) if at + bytes.len() <= length => {
                self.copy.memcpy_htod(bytes, &mut whole.slice_mut(at..at + bytes.len())).w()
            }
            _ => bail!("{} bytes at {at} of {length} are copied to a card", bytes.len()),
        }
    }
}

impl Card for Streams {
    type Memory = CudaStorageSlice;
    type Staging = Pinned;
    type Event = CudaEvent;

    fn staging(&self, bytes: usize) -> Result<Pinned> {
        // SAFETY: it is written before it is read. Without flags it is cached as other memory.
        let mut memory = unsafe { self.context.alloc_pinned_with_flags::<u8>(bytes, 0) }.w()?;
        let first = memory.as_mut_ptr().w()?;
        // SAFETY: these are its bytes; now they are such that references to them may be made.
        unsafe { first.write_bytes(0, bytes) };
        Ok(Pinned { first, memory })
    }

    fn bytes<'a>(&self, staging: &'a mut Pinned) -> &'a mut [u8] {
        // SAFETY: its bytes, which were initialised, as long as it is borrowed.
        unsafe { std::slice::from_raw_parts_mut(staging.first, staging.memory.len()) }
    }

    fn allocate(&self, dtype: DType, count: usize) -> Result<CudaStorageSlice> {
        Ok(match dtype {
            DType::U8 => CudaStorageSlice::U8(self.numbers(count)?),
            DType::F32 => CudaStorageSlice::F32(self.numbers(count)?),
            DType::BF16 => CudaStorageSlice::BF16(self.numbers::<bf16>(count)?),
            other => bail!("weights of {other:?} are not copied to a card"),
        })
    }

    unsafe fn copy(
        &self,
        staging: &Pinned,
        bytes: usize,
        memory: &mut CudaStorageSlice,
        at: usize,
    ) -> Result<()> {
        let length = bytes.min(staging.memory.len());
        // SAFETY: its bytes; while they are copied nobody writes them, as this function demands.
        let bytes = unsafe { std::slice::from_raw_parts(staging.first, length) };
        match memory {
            CudaStorageSlice::U8(memory) => self.copy_into(bytes, memory, at),
            CudaStorageSlice::F32(memory) => self.copy_into(bytes, memory, at),
            CudaStorageSlice::BF16(memory) => self.copy_into(bytes, memory, at),
            _ => bail!("such weights are not copied to a card"),
        }
    }

    fn event(&self) -> Result<CudaEvent> {
        self.context.new_event(None).w()
    }

    fn record(&self, event: &CudaEvent, stream: Stream) -> Result<()> {
        event.record(self.stream(stream)).w()
    }

    fn wait(&self, stream: Stream, event: &CudaEvent) -> Result<()> {
        self.stream(stream).wait(event).w()
    }

    fn has_passed(&self, event: &CudaEvent) -> Result<bool> {
        self.context.bind_to_thread().w()?;
        event.try_is_complete().w()
    }

    fn finish_copies(&self) -> Result<()> {
        self.copy.synchronize().w()
    }
}
