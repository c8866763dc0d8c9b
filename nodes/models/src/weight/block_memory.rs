//! The memory of blocks that are streamed: on the CPU they take what others left, to a card they
//! are copied while others are computed with. How either is done is of the kernels' crate.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use kino_kernels::{BlockCopied, CardCopies, Recycler};

use crate::error::Result;

/// Where the blocks of one pass get their memory from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct BlockMemory {
    recycler: Recycler,
    copies: Option<Arc<CardCopies>>,
}

/// A block that was read; to a card it may be still on its way.
pub(super) struct ReadBlock<T> {
    block: T,
    copied: Option<BlockCopied>,
}

impl BlockMemory {
    /// What matrices of the CPU take and leave.
    pub(super) fn recycler(&self) -> &Recycler {
        &self.recycler
    }

    /// A tensor on the card of the numbers that `fill` gives, a range at a time as bytes; none where
    /// tensors are put on their device whole.
    pub(super) fn copied(
        &self,
        dtype: DType,
        shape: &[usize],
        fill: impl FnMut(Range<usize>, &mut [u8]) -> Result<()>,
    ) -> Option<Result<Tensor>> {
        Some(self.copies.as_ref()?.tensor(dtype, shape, fill))
    }

    /// A block, made by `load` of this memory.
    ///
    /// # Errors
    /// When `load` fails, or the card.
    pub(super) fn read<T>(&self, load: impl FnOnce() -> Result<T>) -> Result<ReadBlock<T>> {
        Ok(match &self.copies {
            None => ReadBlock { block: load()?, copied: None },
            Some(copies) => {
                let (block, copied) = copies.block(load)?;
                ReadBlock { block, copied: Some(copied) }
            }
        })
    }

    /// The block, to be computed with from now on.
    ///
    /// # Errors
    /// When the card fails.
    pub(super) fn take<T>(&self, read: ReadBlock<T>) -> Result<T> {
        if let (Some(copies), Some(copied)) = (&self.copies, &read.copied) {
            copies.compute_behind(copied)?;
        }
        Ok(read.block)
    }

    /// The blocks that were taken before were let go.
    ///
    /// # Errors
    /// When the card fails.
    pub(super) fn let_go(&self) -> Result<()> {
        self.copies.as_ref().map_or(Ok(()), |copies| Ok(copies.let_go()?))
    }
}

/// Copies to a card between two passes: page-locked memory takes long to get.
#[derive(Clone, Debug)]
pub(super) struct IdleCopies {
    device: Device,
    idle: Arc<Mutex<Option<Arc<CardCopies>>>>,
}

impl IdleCopies {
    /// None yet, to a device.
    pub(super) fn new(device: &Device) -> Self {
        Self { device: device.clone(), idle: Arc::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Arc<CardCopies>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of a pass. Passes at the same time have copies of their own.
    pub(super) fn begin_pass(&self) -> BlockMemory {
        let copies = self.idle().take();
        let copies = copies.or_else(|| CardCopies::new(&self.device).map(Arc::new));
        BlockMemory { recycler: Recycler::default(), copies }
    }

    /// A pass is over, and nobody reads for it any more. The next one takes the memory of its last
    /// blocks.
    pub(super) fn end_pass(&self, memory: &BlockMemory) {
        if memory.let_go().is_ok() {
            *self.idle() = memory.copies.clone();
        }
    }
}
