//! Blocks of a network: all in memory, or some of them read from their files ahead of use.
//!
//! A network that keeps its layers in a [`Blocks`] runs in less memory than its weights take. One
//! thread a pass reads the blocks that do not stay, in order, and makes them ready for use, or has
//! them copied to a card, while the one before computes (double buffering): two of them are in
//! memory at a time. Which blocks stay is no business of the network's, and changes no number.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kino_kernels as kernels;

use super::block_memory::{BlockMemory, IdleCopies, ReadBlock};
use super::residency::BlockList;
use super::weights::Weights;
use crate::error::{Error, Result};

/// How often one that waits for a block looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// Threads that make blocks of weights: while one waits for what is small, the other goes on.
const LOADERS: usize = 2;

/// What makes a block, by its number, in the memory of a pass.
type Load<T> = Arc<dyn Fn(usize, &BlockMemory) -> Result<T> + Send + Sync>;

/// Blocks of one kind, in order.
pub struct Blocks<T> {
    /// Those that stay.
    kept: Vec<Option<T>>,
    load: Load<T>,
    copies: IdleCopies,
}

impl<T: Send + 'static> Blocks<T> {
    /// The blocks of a list, each made by `load` of its number and of the weights `0`, `1`, … in
    /// this scope. Those are read that stay in memory.
    ///
    /// # Errors
    /// When `load` fails.
    pub fn load(
        weights: &Weights,
        list: BlockList,
        load: impl Fn(usize, &Weights) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let copies = IdleCopies::new(weights.device());
        if weights.is_probing() {
            let kept = weights.ask_for_blocks(list, &load)?.into_iter().map(Some).collect();
            let gone =
                |_, _: &_| Err(Error::input("weights that are not read are not computed with"));
            return Ok(Self { kept, load: Arc::new(gone), copies });
        }
        let stays: Vec<usize> =
            (0..list.count).filter(|index| weights.stays(list.name, *index)).collect();
        let mut kept: Vec<Option<T>> = (0..list.count).map(|_| None).collect();
        let own = |index: usize| load(index, &weights.scope(index));
        for (index, block) in stays.iter().zip(load_all(&stays, &own)?) {
            kept[*index] = Some(block);
        }
        // What is read again in every pass is kept for nobody.
        let passing = weights.unstored();
        let again =
            move |index, memory: &BlockMemory| load(index, &passing.scope(index).placed_in(memory));
        Ok(Self { kept, load: Arc::new(again), copies })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Begins a pass over some of them, in rising order. Those that are not in memory are read from
    /// here on, until the pass is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn pass(&self, range: Range<usize>) -> Result<BlockPass<'_, T>> {
        let numbers: Vec<usize> =
            range.filter(|index| self.kept.get(*index).is_some_and(Option::is_none)).collect();
        let reader = match numbers.is_empty() {
            true => None,
            false => Some(Reader::start(Arc::clone(&self.load), numbers, self.copies.clone())?),
        };
        Ok(BlockPass { blocks: self, reader })
    }

    /// What `compute` makes of each, in order.
    ///
    /// # Errors
    /// When a block cannot be read, or `compute` fails.
    pub fn each<R>(&self, mut compute: impl FnMut(usize, &T) -> Result<R>) -> Result<Vec<R>> {
        let mut pass = self.pass(0..self.len())?;
        (0..self.len()).map(|index| pass.with(index, |block| compute(index, block))).collect()
    }
}

impl<T> fmt::Debug for Blocks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.iter().flatten().count();
        write!(f, "Blocks({} of {} in memory)", kept, self.kept.len())
    }
}

/// A pass over blocks in rising order.
pub struct BlockPass<'b, T> {
    blocks: &'b Blocks<T>,
    reader: Option<Reader<T>>,
}

impl<T: Send + 'static> BlockPass<'_, T> {
    /// Computes with a block. Numbers rise from call to call; some may be left out.
    ///
    /// # Errors
    /// When it cannot be read (the error names the file), this thread's work is cancelled
    /// meanwhile, it is none of the pass, or `compute` fails.
    pub fn with<R>(&mut self, index: usize, compute: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        if let Some(Some(block)) = self.blocks.kept.get(index) {
            return compute(block);
        }
        let reader = self.reader.as_ref();
        let reader = reader.ok_or_else(|| Error::input(format!("no block {index} is read")))?;
        let block = reader.take(index)?;
        compute(&block)
    }
}

/// A block that was read, or why it was not, with its number.
type Numbered<T> = (usize, Result<ReadBlock<T>>);

/// The thread that reads ahead, until dropped.
struct Reader<T> {
    stop: Arc<AtomicBool>,
    blocks: Option<Receiver<Numbered<T>>>,
    thread: Option<JoinHandle<()>>,
    memory: BlockMemory,
    copies: IdleCopies,
}

impl<T: Send + 'static> Reader<T> {
    /// Reads blocks of these numbers, each when the one before was taken.
    fn start(load: Load<T>, numbers: Vec<usize>, copies: IdleCopies) -> Result<Self> {
        // Without room in between, it waits with the next block until that is taken.
        let (give, blocks) = sync_channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, told) = (kernels::cancellation(), Arc::clone(&stop));
        let cancelled: kernels::IsCancelled = Arc::new(move || {
            told.load(Ordering::Relaxed) || asked.as_ref().is_some_and(|asked| asked())
        });
        // A block that was computed with leaves its memory to the one after the next.
        let memory = copies.begin_pass();
        let of_pass = memory.clone();
        let read = move || {
            let _guard = kernels::cancelled_by(cancelled);
            for number in numbers {
                let block = of_pass.read(|| load(number, &of_pass));
                let failed = block.is_err();
                if give.send((number, block)).is_err() || failed {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kino weights".to_owned()).spawn(read);
        let thread = thread.map_err(|error| {
            Error::input(format!("no thread can be started that reads weights: {error}"))
        })?;
        Ok(Self { stop, blocks: Some(blocks), thread: Some(thread), memory, copies })
    }

    /// The block of this number; those before it are let go.
    fn take(&self, index: usize) -> Result<T> {
        let gone = || Error::input(format!("block {index} is not read in this pass"));
        let blocks = self.blocks.as_ref().ok_or_else(gone)?;
        loop {
            self.memory.let_go()?;
            match blocks.recv_timeout(LOOK) {
                Ok((_, Err(error))) => return Err(error),
                Ok((number, Ok(block))) if number == index => return self.memory.take(block),
                Ok((number, block)) if number < index => drop(block),
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => kernels::check_cancelled()?,
            }
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.blocks = None; // nobody takes what it waits with
        if let Some(thread) = self.thread.take() {
            // When this returns, its memory has been given back. What it says of a panic was told
            // to whoever waited for the block.
            let _ = thread.join();
        }
        self.copies.end_pass(&self.memory);
    }
}

/// Makes all of these blocks on a few threads, which work for this one; the first error ends it.
fn load_all<T: Send>(
    numbers: &[usize],
    load: &(impl Fn(usize) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let places: Vec<Mutex<Option<Result<T>>>> = numbers.iter().map(|_| Mutex::default()).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed))
            .filter(|at| *at < numbers.len() && !failed.load(Ordering::Relaxed))
        {
            let block = load(numbers[at]);
            failed.fetch_or(block.is_err(), Ordering::Relaxed);
            *places[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(block);
        }
    };
    let cancelled = kernels::cancellation();
    std::thread::scope(|scope| {
        for _ in 1..LOADERS.min(numbers.len()) {
            let cancelled = cancelled.clone();
            scope.spawn(|| {
                let _guard = cancelled.map(kernels::cancelled_by);
                work();
            });
        }
        work();
    });
    let blocks = places.into_iter().map(|place| place.into_inner());
    let blocks = blocks.filter_map(|block| block.unwrap_or_else(PoisonError::into_inner));
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use candle_core::{DType, Device, Tensor};

    use super::super::{BlockSizes, Linear, Probe};
    use super::*;

    const COUNT: usize = 8;

    /// Blocks in a file: a layer each, of which the first number is the block's.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Place(tempfile::tempdir().unwrap());
            let layer = |index: usize| {
                let matrix = Tensor::full(index as f32, (64, 64), &Device::Cpu).unwrap();
                (format!("blocks.{index}.weight"), matrix)
            };
            let tensors: HashMap<String, Tensor> = (0..COUNT).map(layer).collect();
            candle_core::safetensors::save(&tensors, place.path()).unwrap();
            place
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("blocks.safetensors")
        }

        fn weights(&self) -> Weights {
            Weights::open(&self.path(), DType::F32, &Device::Cpu).unwrap()
        }

        fn sizes(&self) -> BlockSizes {
            let probe = Arc::new(Probe::default());
            let weights = self.weights().probing(&probe);
            let list = BlockList::new("blocks", COUNT);
            Blocks::load(&weights.scope("blocks"), list, |_, of| Linear::load_plain(of, 64, 64))
                .unwrap();
            let files = crate::checkpoint::DataFile::open(&self.path(), "blocks").unwrap();
            let files = crate::checkpoint::PartFiles::of_file(files).unwrap();
            probe.block_sizes(&files, DType::F32)
        }
    }

    /// A layer that counts how many of its kind there are.
    struct Counted {
        layer: Linear,
        alive: Arc<AtomicUsize>,
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Blocks of which as many stay as fit into `room`, how many there are, and the most at a time.
    fn blocks(place: &Place, room: u64) -> (Blocks<Counted>, usize, [Arc<AtomicUsize>; 2]) {
        let fit = place.sizes().fit(room);
        let resident = fit.residency.as_ref().map_or(COUNT, |_| fit.resident);
        let [alive, most]: [Arc<AtomicUsize>; 2] = Default::default();
        let counts = [Arc::clone(&alive), Arc::clone(&most)];
        let load = move |_, weights: &Weights| {
            let layer = Linear::load_plain(weights, 64, 64)?;
            most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Ok(Counted { layer, alive: Arc::clone(&alive) })
        };
        let weights = place.weights().with_residency(fit.residency);
        let list = BlockList::new("blocks", COUNT);
        let blocks = Blocks::load(&weights.scope("blocks"), list, load).unwrap();
        (blocks, resident, counts)
    }

    fn number(block: &Counted) -> Result<f32> {
        let one = Tensor::full(1f32 / 64.0, (1, 64), &Device::Cpu)?;
        Ok(block.layer.forward(&one)?.flatten_all()?.to_vec1::<f32>()?[5])
    }

    #[test]
    fn a_pass_gives_every_block_and_holds_two_that_do_not_stay() {
        let place = Place::new();
        let expected: Vec<f32> = (0..COUNT).map(|index| index as f32).collect();
        let bytes = 64 * 64 * 4;
        for (room, stay) in [(u64::MAX, COUNT), (6 * bytes, 3), (0, 0)] {
            let (blocks, resident, [alive, most]) = blocks(&place, room);
            assert_eq!((resident, alive.load(Ordering::SeqCst)), (stay, stay));
            for _ in 0..3 {
                assert_eq!(blocks.each(|_, block| number(block)).unwrap(), expected);
                assert_eq!(alive.load(Ordering::SeqCst), stay, "those that do not stay are gone");
            }
            let beside = if stay == COUNT { 0 } else { 2 };
            assert!(most.load(Ordering::SeqCst) <= stay + beside, "{most:?} beside {stay}");
        }
    }

    #[test]
    fn a_pass_over_some_blocks_leaves_others_out_and_may_end_early() {
        let place = Place::new();
        let (blocks, _, [alive, _]) = blocks(&place, 0);
        let mut pass = blocks.pass(2..7).unwrap();
        for index in [2, 5, 6] {
            assert_eq!(pass.with(index, number).unwrap(), index as f32);
        }
        assert!(pass.with(7, number).is_err(), "it is none of the pass");
        drop(pass);
        let mut pass = blocks.pass(0..COUNT).unwrap();
        pass.with(1, number).unwrap();
        assert!(pass.with(0, number).is_err(), "it was let go");
        drop(pass);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        let failed = blocks.each(|index, _| match index {
            3 => Err(Error::Cancelled),
            _ => Ok(()),
        });
        assert!(matches!(failed, Err(Error::Cancelled)));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_file_that_is_cut_meanwhile_is_named_and_a_thread_that_is_cancelled_waits_for_no_block() {
        let place = Place::new();
        let (blocks, _, _) = blocks(&place, 0);
        let guard = kernels::cancelled_by(Arc::new(|| true));
        assert!(matches!(blocks.each(|_, block| number(block)), Err(Error::Cancelled)));
        drop(guard);
        let file = std::fs::OpenOptions::new().write(true).open(place.path()).unwrap();
        file.set_len(40_000).unwrap();
        let failed = blocks.each(|_, block| number(block)).unwrap_err().to_string();
        assert!(failed.ends_with("blocks.safetensors changed while it ran"), "{failed}");
    }

    #[test]
    fn a_load_that_panics_is_an_error_and_not_a_wait() {
        let place = Place::new();
        let (blocks, fit) = (BlockList::new("blocks", COUNT), place.sizes().fit(0));
        let weights = place.weights().with_residency(fit.residency);
        let load = |index, _: &Weights| -> Result<()> { panic!("block {index}") };
        let blocks = Blocks::load(&weights.scope("blocks"), blocks, load).unwrap();
        assert!(blocks.each(|_, ()| Ok(())).is_err());
    }
}
