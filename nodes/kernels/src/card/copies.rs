//! Copies of weights to a card beside what it computes: on a stream of their own, out of
//! page-locked memory, a piece at a time (CUDA C++ Programming Guide, "Overlap of Data Transfer and
//! Kernel Execution"). What that asks of a card is a [`Card`]; nothing here knows how it is called.
//!
//! Blocks of weights are double-buffered: while the compute stream works with one, the copy stream
//! writes the next. Three orders hold that together, of which the host waits for the second alone:
//!
//! 1. A block's kernels come behind its copies ([`Copies::compute_behind`]).
//! 2. Page-locked memory is written again when the copy out of it is over ([`Copies::copied`]).
//! 3. The block after the next begins when the compute stream has come to where the block before
//!    was let go ([`Copies::begin`], [`Copies::let_go`]): then it takes that one's memory, and no
//!    more than two are ever held. What is let go at any other time, unfinished blocks among them,
//!    is freed in the order of the compute stream, behind its copies, by [`Card::Memory`] itself.
//!
//! The tests ([`simulated`](super::simulated)) leave out each in turn, and see what comes of it.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use candle_core::{DType, Error};

use crate::{Result, check_cancelled};

/// Pieces in page-locked memory: while one is copied, another is read.
pub(super) const PIECES: usize = 2;
/// How often the host looks whether a copy is over. It looks instead of waiting, since a wait has
/// CUDA give what its memory pool does not use back to the system, and hears of no cancellation.
const LOOK: Duration = Duration::from_micros(50);

/// A queue of work of a card, done in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Where kernels are started.
    Compute,
    /// Where copies are.
    Copy,
}

/// What copying asks of a card: streams, events and stream-ordered memory as CUDA has them.
pub(super) trait Card {
    /// Memory on the card. It is freed in the order of the compute stream when it is dropped, behind
    /// its allocation and the copies into it.
    type Memory;
    /// Page-locked memory of the host.
    type Staging;
    /// A point in the work of a stream; one that was not recorded yet has passed.
    type Event;

    /// Page-locked memory of so many bytes.
    fn staging(&self, bytes: usize) -> Result<Self::Staging>;

    /// Its bytes, to be written.
    fn bytes<'a>(&self, staging: &'a mut Self::Staging) -> &'a mut [u8];

    /// Memory for so many numbers, allocated in the order of the copy stream.
    fn allocate(&self, dtype: DType, count: usize) -> Result<Self::Memory>;

    /// Has the copy stream copy the first bytes of page-locked memory to `at` in a card's.
    ///
    /// # Safety
    /// `staging` is neither written nor freed before an event that is recorded behind the copy has
    /// passed.
    unsafe fn copy(
        &self,
        staging: &Self::Staging,
        bytes: usize,
        memory: &mut Self::Memory,
        at: usize,
    ) -> Result<()>;

    /// An event that was not recorded yet.
    fn event(&self) -> Result<Self::Event>;

    /// The event is from now on the point behind all that was given to a stream.
    fn record(&self, event: &Self::Event, stream: Stream) -> Result<()>;

    /// What is given to a stream from now on waits for the event as it was recorded last.
    fn wait(&self, stream: Stream, event: &Self::Event) -> Result<()>;

    /// Whether the card has come to an event.
    fn has_passed(&self, event: &Self::Event) -> Result<bool>;

    /// Waits until the copy stream has nothing to do.
    fn finish_copies(&self) -> Result<()>;
}

/// The copies of a pass over blocks: one thread has them made, another one computes.
pub(super) struct Copies<C: Card> {
    card: C,
    /// Bytes that are copied at a time.
    piece: usize,
    staging: Mutex<[Staging<C>; PIECES]>,
    /// Where the compute stream has done with what was let go.
    let_go: C::Event,
}

/// A piece of page-locked memory.
struct Staging<C: Card> {
    memory: C::Staging,
    /// When the last copy out of it is over.
    copied: C::Event,
}

impl<C: Card> Copies<C> {
    /// Copies to a card, so many bytes at a time: numbers of every type, and blocks of ggml's of
    /// every form, as they are read.
    ///
    /// # Errors
    /// When there is no page-locked memory to be had, or the card refuses.
    pub(super) fn new(card: C, piece: usize) -> Result<Self> {
        let staging =
            || Ok::<_, Error>(Staging { memory: card.staging(piece)?, copied: card.event()? });
        let staging = Mutex::new([staging()?, staging()?]);
        let let_go = card.event()?;
        Ok(Self { card, piece, staging, let_go })
    }

    /// Before the copies of a block: they wait until the compute stream has done with what was let
    /// go before the last [`Copies::let_go`].
    pub(super) fn begin(&self) -> Result<()> {
        self.card.wait(Stream::Copy, &self.let_go)
    }

    /// When the thread that computes has let a block go.
    pub(super) fn let_go(&self) -> Result<()> {
        self.card.record(&self.let_go, Stream::Compute)
    }

    /// Behind the copies of a block: what its kernels must wait for.
    pub(super) fn end(&self) -> Result<C::Event> {
        let event = self.card.event()?;
        self.card.record(&event, Stream::Copy)?;
        Ok(event)
    }

    /// Before the first kernel of a block whose copies ended with this event.
    pub(super) fn compute_behind(&self, copied: &C::Event) -> Result<()> {
        self.card.wait(Stream::Compute, copied)
    }

    /// Memory on the card with `count` numbers, whose copies may be still under way. `fill` gives
    /// those of a range, as bytes, piece by piece in order.
    ///
    /// # Errors
    /// When `fill` fails, the card has no memory, or this thread's work is cancelled.
    pub(super) fn copied<E: From<Error>>(
        &self,
        dtype: DType,
        count: usize,
        mut fill: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), E>,
    ) -> Result<C::Memory, E> {
        let size = dtype.size_in_bytes();
        let mut memory = self.card.allocate(dtype, count)?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.piece / size;
        for first in (0..count).step_by(most) {
            let part = first..count.min(first + most);
            // The one that was filled longest ago.
            staging.rotate_left(1);
            let [staging, ..] = &mut *staging;
            self.until_passed(&staging.copied)?;
            let bytes = part.len() * size;
            fill(part, &mut self.card.bytes(&mut staging.memory)[..bytes])?;
            self.copy(staging, bytes, &mut memory, first * size)?;
        }
        Ok(memory)
    }

    fn copy(
        &self,
        staging: &Staging<C>,
        bytes: usize,
        memory: &mut C::Memory,
        at: usize,
    ) -> Result<()> {
        // SAFETY: it is written behind `until_passed` alone, and freed when no copy is under way:
        // see `drop`. Where the event is not recorded, the copy is waited for here.
        let begun = unsafe { self.card.copy(&staging.memory, bytes, memory, at) };
        let begun = begun.and_then(|()| self.card.record(&staging.copied, Stream::Copy));
        if begun.is_err() {
            self.card.finish_copies()?;
        }
        begun
    }

    fn until_passed(&self, event: &C::Event) -> Result<()> {
        while !self.card.has_passed(event)? {
            check_cancelled()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl<C: Card> Drop for Copies<C> {
    fn drop(&mut self) {
        // Page-locked memory must not be freed beneath a copy. Where this fails, the card has
        // failed.
        let _ = self.card.finish_copies();
    }
}
