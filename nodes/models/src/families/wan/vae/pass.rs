//! One pass of a chunk through a network: what each layer kept of the chunk before.

use candle_core::Tensor;

use crate::cancel::CheckCancel;
use crate::error::Result;

/// What a layer keeps from one chunk to the next.
#[derive(Debug, Clone, Default)]
struct Slot {
    started: bool,
    past: Option<Tensor>,
}

/// The feature cache of one network over one stream: a slot for each layer that looks back.
///
/// It holds the last two inputs of every causal convolution, so its size depends on the size of a
/// frame and not on how many there were.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    slots: Vec<Slot>,
}

impl Cache {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let held = self.slots.iter().filter_map(|slot| slot.past.as_ref());
        held.map(|past| past.elem_count() * past.dtype().size_in_bytes()).sum()
    }
}

/// Whether anything comes after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Another one.
    Inner,
    /// Nothing: what layers look back on is not kept.
    Last,
}

/// A chunk on its way through a network.
pub(super) struct Pass<'a> {
    cache: &'a mut Cache,
    chunk: Chunk,
    /// Whether layers keep frames: for the next chunk, or for the next part of this one.
    keeps: bool,
    next: usize,
    check_cancel: &'a mut CheckCancel<'a>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        cache: &'a mut Cache,
        chunk: Chunk,
        check_cancel: &'a mut CheckCancel<'a>,
    ) -> Self {
        Self { cache, chunk, keeps: chunk == Chunk::Inner, next: 0, check_cancel }
    }

    /// Gives the caller the chance to stop.
    pub(super) fn check_cancel(&mut self) -> Result<()> {
        (self.check_cancel)()
    }

    /// Whether the next layer that looks back has seen no chunk yet.
    pub(super) fn is_first(&self) -> bool {
        self.cache.slots.get(self.next).is_none_or(|slot| !slot.started)
    }

    /// Takes the frames that the next layer kept of the chunk before.
    ///
    /// Layers run in one order, so a counter tells them apart; each calls this once a pass and
    /// then [`Pass::keep`].
    pub(super) fn recall(&mut self) -> Option<Tensor> {
        if self.cache.slots.len() == self.next {
            self.cache.slots.push(Slot::default());
        }
        let slot = &mut self.cache.slots[self.next];
        self.next += 1;
        slot.past.take()
    }

    /// Where the next layer that looks back stands among them.
    pub(super) fn place(&self) -> usize {
        self.next
    }

    /// Goes back to a layer: what follows sees a part of the chunk at a time, and this may be its
    /// last part.
    pub(super) fn back_to(&mut self, place: usize, is_last_part: bool) {
        self.next = place;
        self.keeps = self.chunk == Chunk::Inner || !is_last_part;
    }

    /// Keeps frames for the next chunk, in the slot that was recalled last; they are not made where
    /// nothing comes that could look at them.
    ///
    /// # Errors
    /// When they cannot be made.
    pub(super) fn keep(&mut self, past: impl FnOnce() -> Result<Option<Tensor>>) -> Result<()> {
        let past = if self.keeps { past()? } else { None };
        if let Some(last) = self.next.checked_sub(1) {
            self.cache.slots[last] = Slot { started: true, past };
        }
        Ok(())
    }
}
