//! Copies of blocks beside computing ([`super::copies`]) on a card that is simulated: two streams
//! whose work is done late and in a random order, as far as events allow one, and memory that is
//! given again as soon as streams allow that. What kernels find in memory is compared with what was
//! to be copied there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{DType, Error, bail};

use super::copies::{Card, Copies, Stream};
use crate::random::Random;
use crate::{Result, cancelled_by, is_cancelled};

/// Bytes that are copied at a time here.
const PIECE: usize = 32;

/// What is left out, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LeftOut {
    Nothing,
    /// Kernels wait for no copies.
    ComputeWaits,
    /// The host waits for no copy before it writes page-locked memory again.
    StagingWaits,
    /// A block's copies wait for nothing that was let go.
    CopyWaits,
}

/// A point in a stream: behind so much of its work.
type Point = (Stream, usize);

enum Work {
    Wait(Point),
    /// Memory is given: it holds something else from now on.
    Allocate(usize),
    Copy {
        bytes: Vec<u8>,
        to: usize,
        at: usize,
    },
    /// A kernel that reads memory, and what is to be there.
    Compute {
        reads: usize,
        expected: Vec<u8>,
    },
    Free(usize),
}

struct State {
    random: Random,
    left_out: LeftOut,
    /// Whether the compute stream does anything.
    computes: bool,
    /// Each stream does less than that at a time.
    pace: [usize; 2],
    /// Work that is not done yet, of the compute stream and the copy stream.
    work: [VecDeque<Work>; 2],
    /// How much was given to them.
    given: [usize; 2],
    /// Up to where the work of the compute stream comes before what the copy stream is given.
    behind_compute: usize,
    memory: Vec<Vec<u8>>,
    /// Memory that was freed, and the point in the compute stream.
    freed: Vec<(usize, usize)>,
    computed: usize,
    faults: Vec<&'static str>,
}

impl State {
    fn give(&mut self, stream: Stream, work: Work) {
        self.work[stream as usize].push_back(work);
        self.given[stream as usize] += 1;
    }

    fn is_past(&self, (stream, point): Point) -> bool {
        self.given[stream as usize] - self.work[stream as usize].len() >= point
    }

    /// Does what comes next in a stream, if it waits for nothing.
    fn step(&mut self, stream: usize) -> bool {
        if let Some(Work::Wait(point)) = self.work[stream].front()
            && !self.is_past(*point)
        {
            return false;
        }
        match self.work[stream].pop_front() {
            None => return false,
            Some(Work::Wait(_)) => {}
            Some(Work::Allocate(place) | Work::Free(place)) => self.memory[place].fill(0xa5),
            Some(Work::Copy { bytes, to, at }) => {
                self.memory[to][at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Some(Work::Compute { reads, expected }) => {
                self.computed += 1;
                if self.memory[reads] != expected {
                    self.faults.push("a kernel found something else than its weights");
                }
            }
        }
        true
    }

    /// Some time passes, in which one stream may do more than the other, or nothing for long.
    fn pass_time(&mut self) {
        for stream in usize::from(!self.computes)..2 {
            if self.random.below(16) == 0 {
                self.pace[stream] = [1, 2, 9][self.random.below(3)];
            }
            for _ in 0..self.random.below(self.pace[stream]) {
                self.step(stream);
            }
        }
    }

    /// All is done that was given.
    fn finish(&mut self) {
        while self.step(0) || self.step(1) {}
        assert!(self.work.iter().all(VecDeque::is_empty), "the streams wait for each other");
    }
}

#[derive(Clone)]
struct Simulated(Arc<Mutex<State>>);

impl Simulated {
    fn new(random: Random, left_out: LeftOut) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            left_out,
            computes: true,
            pace: [1; 2],
            work: Default::default(),
            given: [0; 2],
            behind_compute: 0,
            memory: Vec::new(),
            freed: Vec::new(),
            computed: 0,
            faults: Vec::new(),
        })))
    }

    /// The card, after some time.
    fn later(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap();
        state.pass_time();
        state
    }
}

/// Memory of the card, freed as cudarc does it: behind its last write, in the compute stream.
struct Memory {
    card: Simulated,
    place: usize,
    written: Point,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut card = self.card.later();
        card.give(Stream::Compute, Work::Wait(self.written));
        card.give(Stream::Compute, Work::Free(self.place));
        let point = card.given[Stream::Compute as usize];
        card.freed.push((self.place, point));
    }
}

/// Page-locked memory, and the last copy out of it.
struct Staging {
    card: Simulated,
    bytes: Vec<u8>,
    read: Mutex<Point>,
}

impl Staging {
    fn check(&self, fault: &'static str) {
        let mut card = self.card.later();
        if !card.is_past(*self.read.lock().unwrap()) {
            card.faults.push(fault);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.check("page-locked memory was freed while it was copied");
    }
}

impl Card for Simulated {
    type Memory = Memory;
    type Staging = Staging;
    type Event = Mutex<Point>;

    fn staging(&self, bytes: usize) -> Result<Staging> {
        let read = Mutex::new((Stream::Copy, 0));
        Ok(Staging { card: self.clone(), bytes: vec![0; bytes], read })
    }

    fn bytes<'a>(&self, staging: &'a mut Staging) -> &'a mut [u8] {
        staging.check("page-locked memory was written while it was copied");
        &mut staging.bytes
    }

    /// Memory that was freed is given again where the freeing comes before what the copy stream
    /// does from now on.
    fn allocate(&self, dtype: DType, count: usize) -> Result<Memory> {
        let mut card = self.later();
        let bytes = count * dtype.size_in_bytes();
        let behind = card.behind_compute;
        let fits = |(place, freed): &(usize, usize)| {
            card.memory[*place].len() == bytes && *freed <= behind
        };
        let place = match card.freed.iter().position(fits) {
            Some(index) => card.freed.swap_remove(index).0,
            None => {
                card.memory.push(vec![0; bytes]);
                card.memory.len() - 1
            }
        };
        card.give(Stream::Copy, Work::Allocate(place));
        let written = (Stream::Copy, card.given[Stream::Copy as usize]);
        Ok(Memory { card: self.clone(), place, written })
    }

    unsafe fn copy(
        &self,
        staging: &Staging,
        bytes: usize,
        memory: &mut Memory,
        at: usize,
    ) -> Result<()> {
        let mut card = self.later();
        let bytes = staging.bytes[..bytes].to_vec();
        card.give(Stream::Copy, Work::Copy { bytes, to: memory.place, at });
        memory.written = (Stream::Copy, card.given[Stream::Copy as usize]);
        *staging.read.lock().unwrap() = memory.written;
        Ok(())
    }

    fn event(&self) -> Result<Mutex<Point>> {
        Ok(Mutex::new((Stream::Copy, 0)))
    }

    fn record(&self, event: &Mutex<Point>, stream: Stream) -> Result<()> {
        *event.lock().unwrap() = (stream, self.later().given[stream as usize]);
        Ok(())
    }

    fn wait(&self, stream: Stream, event: &Mutex<Point>) -> Result<()> {
        let mut card = self.later();
        let left_out = match stream {
            Stream::Compute => LeftOut::ComputeWaits,
            Stream::Copy => LeftOut::CopyWaits,
        };
        if card.left_out != left_out {
            let point = *event.lock().unwrap();
            if let (Stream::Copy, (Stream::Compute, behind)) = (stream, point) {
                card.behind_compute = card.behind_compute.max(behind);
            }
            card.give(stream, Work::Wait(point));
        }
        Ok(())
    }

    fn has_passed(&self, event: &Mutex<Point>) -> Result<bool> {
        let card = self.later();
        Ok(card.left_out == LeftOut::StagingWaits || card.is_past(*event.lock().unwrap()))
    }

    fn finish_copies(&self) -> Result<()> {
        let mut card = self.0.lock().unwrap();
        while !card.work[Stream::Copy as usize].is_empty() {
            assert!(card.step(1) || card.step(0), "the streams wait for each other");
        }
        Ok(())
    }
}

/// A block on the card: its tensors, what they hold, and the end of their copies.
struct Block {
    tensors: Vec<(Memory, Vec<u8>)>,
    copied: Mutex<Point>,
}

/// The thread that computes, which goes on at random moments of the one that reads.
struct Computing<'c> {
    copies: &'c Copies<Simulated>,
    card: Simulated,
    /// The block that it has, and how many kernels are still to be started with it.
    block: Option<(Block, usize)>,
}

impl Computing<'_> {
    /// It has another block, whose first kernels wait for its copies.
    fn take(&mut self, block: Block) {
        assert!(self.block.is_none());
        self.copies.compute_behind(&block.copied).unwrap();
        let kernels = self.card.later().random.below(6);
        self.block = Some((block, kernels));
    }

    /// Starts a kernel; behind the last the block is let go.
    fn go_on(&mut self) {
        match &mut self.block {
            None => {}
            Some((block, kernels)) if *kernels > 0 => {
                *kernels -= 1;
                let mut card = self.card.later();
                let which = card.random.below(block.tensors.len());
                let (memory, expected) = &block.tensors[which];
                let work = Work::Compute { reads: memory.place, expected: expected.clone() };
                card.give(Stream::Compute, work);
            }
            Some(_) => {
                self.block = None;
                self.copies.let_go().unwrap();
            }
        }
    }

    fn let_go(&mut self) {
        while self.block.is_some() {
            self.go_on();
        }
    }
}

/// The tensors of each block, in bytes; a pass may fail in one.
struct Pass {
    tensors: Vec<usize>,
    blocks: usize,
    fails: bool,
}

impl Pass {
    /// Reads a block while another is computed with.
    fn read(&self, card: &Simulated, computing: &mut Computing<'_>) -> Result<Block> {
        let copies = computing.copies;
        copies.begin()?;
        let mut tensors = Vec::new();
        for bytes in &self.tensors {
            let expected: Vec<u8> = {
                let mut card = card.later();
                (0..*bytes).map(|_| card.random.bits() as u8).collect()
            };
            let fill = |part: std::ops::Range<usize>, piece: &mut [u8]| {
                if self.fails && card.later().random.below(40) == 0 {
                    bail!("the file ends");
                }
                piece.copy_from_slice(&expected[part]);
                let steps = card.later().random.below(3);
                (0..steps).for_each(|_| computing.go_on());
                Ok::<_, Error>(())
            };
            let memory = copies.copied(DType::U8, *bytes, fill)?;
            tensors.push((memory, expected));
        }
        Ok(Block { tensors, copied: copies.end()? })
    }

    /// All blocks in order, of which some are read and not computed with.
    fn run(&self, card: &Simulated, copies: &Copies<Simulated>) {
        let mut computing = Computing { copies, card: card.clone(), block: None };
        for _ in 0..self.blocks {
            let block = self.read(card, &mut computing);
            computing.let_go();
            let Ok(block) = block else { break };
            let is_left_out = card.later().random.below(8) == 0;
            match is_left_out {
                false => computing.take(block),
                true => {
                    drop(block);
                    copies.let_go().unwrap();
                }
            }
        }
        computing.let_go();
        copies.let_go().unwrap();
    }
}

/// What came of some passes: faults, kernels, and how often the memory of a block was held.
fn passes(seed: u64, left_out: LeftOut, fails: bool) -> (Vec<&'static str>, usize, usize) {
    let mut random = Random::of(seed);
    let tensors: Vec<usize> = (0..1 + random.below(4)).map(|_| 1 + random.below(100)).collect();
    let pass = Pass { blocks: 1 + random.below(8), fails, tensors };
    let card = Simulated::new(random, left_out);
    let copies = Copies::new(card.clone(), PIECE).unwrap();
    for _ in 0..2 {
        pass.run(&card, &copies);
    }
    drop(copies);
    let mut card = card.0.lock().unwrap();
    card.finish();
    let all = card.memory.len();
    assert_eq!(card.freed.len(), all, "all memory is freed");
    (std::mem::take(&mut card.faults), card.computed, all.div_ceil(pass.tensors.len()))
}

const SCHEDULES: u64 = 100;

#[test]
fn blocks_are_copied_beside_computing_into_the_memory_of_two() {
    let mut seeds = Random::new(61);
    let mut kernels = 0;
    for _ in 0..SCHEDULES {
        let seed = seeds.bits();
        for fails in [false, true] {
            let (faults, computed, held) = passes(seed, LeftOut::Nothing, fails);
            assert_eq!(faults, [""; 0], "schedule {seed}");
            assert!(held <= 2, "schedule {seed}: the memory of {held} blocks");
            kernels += computed;
        }
    }
    assert!(kernels > SCHEDULES as usize * 10);
}

#[test]
fn a_block_is_copied_while_another_computes_and_the_next_waits_for_its_memory() {
    let card = Simulated::new(Random::new(63), LeftOut::Nothing);
    card.0.lock().unwrap().computes = false;
    let copies = Copies::new(card.clone(), PIECE).unwrap();
    let looks = AtomicUsize::new(0);
    let _guard = cancelled_by(Arc::new(move || looks.fetch_add(1, Ordering::Relaxed) > 500));
    let pass = Pass { tensors: vec![200, 7], blocks: 3, fails: false };
    let mut computing = Computing { copies: &copies, card: card.clone(), block: None };
    for _ in 0..2 {
        let block = pass.read(&card, &mut computing).unwrap();
        computing.let_go();
        computing.take(block);
    }
    let waits = pass.read(&card, &mut computing).map(|_| ()).unwrap_err();
    assert!(is_cancelled(&waits), "{waits}");
    assert_eq!(card.0.lock().unwrap().computed, 0);
}

#[test]
fn none_of_the_orders_can_be_left_out() {
    let mut seeds = Random::new(62);
    let seeds: Vec<u64> = (0..SCHEDULES).map(|_| seeds.bits()).collect();
    let found = |left_out, is_found: fn(&(Vec<&'static str>, usize, usize)) -> bool| {
        let count = seeds.iter().filter(|seed| is_found(&passes(**seed, left_out, false))).count();
        assert!(count > SCHEDULES as usize / 10, "without {left_out:?}: {count} of {SCHEDULES}");
    };
    found(LeftOut::ComputeWaits, |(faults, ..)| faults.iter().any(|of| of.contains("a kernel")));
    found(LeftOut::StagingWaits, |(faults, ..)| faults.iter().any(|of| of.contains("written")));
    // The pool gives nothing that may be in use: what is held grows instead.
    found(LeftOut::CopyWaits, |(faults, _, held)| faults.is_empty() && *held > 2);
}
