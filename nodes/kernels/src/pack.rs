//! How factors of products lie in memory: in words, lines interleaved.
//!
//! A word holds what is multiplied at a time along the sum (an f32, or two bf16). Runs of words of
//! a line lie side by side, then those of the next line: the innermost loop reads one run of
//! memory. In panels of the right factor a run is one word, in blocks of the left one it is what
//! the kernel asks for. A line is a row of the left factor or a column of the right one.

use std::ops::Range;

use crate::Result;
use crate::buffer::filled;
use crate::kernel::Kernel;
use crate::micro::{COLUMNS, Precision};
use crate::number::{Number, Slice};
use crate::tiles;

/// What lines are packed of.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Numbers, of which words are made.
    Numbers(Slice<'a>),
    /// Words as they are multiplied.
    Words(&'a [u32]),
}

/// Lines in memory: number (or word) `k` of line `l` is number `first + l·line + k·along`.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) first: usize,
    pub(crate) line: usize,
    pub(crate) along: usize,
}

impl<'a> Lines<'a> {
    /// Rows `step` apart, each contiguous.
    pub(crate) fn rows(numbers: Slice<'a>, step: usize) -> Self {
        Self { source: Source::Numbers(numbers), first: 0, line: step, along: 1 }
    }

    /// The same of words.
    pub(crate) fn of_words(words: &'a [u32], step: usize) -> Self {
        Self { source: Source::Words(words), first: 0, line: step, along: 1 }
    }

    /// Lines from number `line` on.
    pub(crate) fn skip(self, line: usize) -> Self {
        Self { first: self.first + line * self.line, ..self }
    }

    /// The same with lines and what follows along them exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { line: self.along, along: self.line, ..self }
    }

    /// Packs numbers `depth` of the first `count` lines as words of [`COLUMNS`] columns, of which
    /// those from `count` on are zeros. `depth` begins at a whole word.
    pub(crate) fn pack_panel(
        self,
        precision: Precision,
        count: usize,
        depth: Range<usize>,
        out: &mut [u32],
    ) {
        self.pack(precision, count, depth, Interleave { lines: COLUMNS, run: 1 }, out);
    }

    /// Packs numbers `depth` of `count` lines as a block of rows. `depth` begins at a whole run.
    pub(crate) fn pack_block(
        self,
        kernel: Kernel,
        count: usize,
        depth: Range<usize>,
        out: &mut [u32],
    ) {
        let layout = kernel.layout();
        let form = Interleave { lines: layout.padded_rows(count), run: layout.run };
        self.pack(kernel.precision(), count, depth, form, out);
    }

    fn pack(
        self,
        precision: Precision,
        count: usize,
        depth: Range<usize>,
        form: Interleave,
        out: &mut [u32],
    ) {
        let Interleave { lines, run } = form;
        debug_assert!(count <= lines && depth.start.is_multiple_of(precision.in_word()));
        debug_assert!(out.len() == precision.words(depth.len()).next_multiple_of(run) * lines);
        if count < lines {
            out.fill(0);
        }
        match self.source {
            Source::Numbers(Slice::F32(numbers)) => {
                pack(numbers, self, precision, count, depth, form, out);
            }
            Source::Numbers(Slice::Bf16(numbers)) => {
                pack(numbers, self, precision, count, depth, form, out);
            }
            Source::Words(words) => {
                pack_words(words, self, count, precision.words(depth.len()), form, out);
            }
        }
    }
}

/// Word `w` of line `l` is number `(w / run·lines + l)·run + w % run`.
#[derive(Clone, Copy)]
struct Interleave {
    lines: usize,
    run: usize,
}

impl Interleave {
    /// Puts words into the places of a line, until one of them ends.
    #[inline(always)]
    fn put(self, words: &[u32; CHUNK], line: usize, out: &mut [u32]) {
        const RUN: usize = tiles::TILE;
        if self.run == 1 {
            let places = out[line..].iter_mut().step_by(self.lines);
            places.zip(words).for_each(|(place, word)| *place = *word);
            return;
        }
        debug_assert!(self.run == RUN, "runs of known length are not copied by calls");
        let places = out[line * RUN..].chunks_mut(self.lines * RUN);
        for (place, run) in places.zip(words.as_chunks::<RUN>().0) {
            place[..RUN].copy_from_slice(run);
        }
    }
}

/// Words of a line that are made at a time.
const CHUNK: usize = 32;

/// Packs whole lines of `depth` words.
fn pack_words(
    words: &[u32],
    lines: Lines,
    count: usize,
    depth: usize,
    form: Interleave,
    out: &mut [u32],
) {
    let Interleave { lines: width, run } = form;
    for line in 0..count {
        let words = &words[lines.first + line * lines.line..][..depth];
        if run == 1 {
            let places = out[line..].iter_mut().step_by(width);
            places.zip(words).for_each(|(place, word)| *place = *word);
            continue;
        }
        for (words, out) in words.chunks(run).zip(out.chunks_exact_mut(width * run)) {
            let (place, rest) = out[line * run..][..run].split_at_mut(words.len());
            place.copy_from_slice(words);
            rest.fill(0);
        }
    }
}

fn pack<T: Number>(
    numbers: &[T],
    lines: Lines,
    precision: Precision,
    count: usize,
    depth: Range<usize>,
    form: Interleave,
    out: &mut [u32],
) {
    let Lines { first, line, along, .. } = lines;
    let width = form.lines;
    if line == 1 && form.run == 1 {
        // What lies side by side in memory does so in the words.
        let row = |k: usize| &numbers[first + k * along..][..count];
        for (out, k) in out.chunks_exact_mut(width).zip(depth.clone().step_by(precision.in_word()))
        {
            match precision {
                Precision::F32 => {
                    out.iter_mut().zip(row(k)).for_each(|(out, number)| *out = number.bits());
                }
                _ => interleave(row(k), (k + 1 < depth.end).then(|| row(k + 1)), out),
            }
        }
        return;
    }
    let step = CHUNK * precision.in_word();
    for (out, start) in out.chunks_mut(CHUNK * width).zip(depth.clone().step_by(step)) {
        let length = step.min(depth.end - start);
        for l in 0..count {
            let place = first + l * line + start * along;
            let mut words = [0; CHUNK];
            if along == 1 {
                line_words(precision, &numbers[place..][..length], &mut words);
            } else {
                let mut run = [T::default(); 2 * CHUNK];
                let from = numbers[place..].iter().step_by(along);
                run[..length].iter_mut().zip(from).for_each(|(run, number)| *run = *number);
                line_words(precision, &run[..length], &mut words);
            }
            form.put(&words, l, out);
        }
    }
}

/// The words of at most [`CHUNK`] words' worth of one line.
#[inline(always)]
fn line_words<T: Number>(precision: Precision, numbers: &[T], words: &mut [u32; CHUNK]) {
    match precision {
        Precision::F32 => {
            words.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.bits());
        }
        _ => {
            let mut halves = [0; 2 * CHUNK];
            T::half_bits_of(numbers, &mut halves[..numbers.len()]);
            for (word, [low, high]) in words.iter_mut().zip(halves.as_chunks::<2>().0) {
                *word = u32::from(*low) | u32::from(*high) << 16;
            }
        }
    }
}

/// Pairs of numbers of two rows; without the second, zeros.
fn interleave<T: Number>(lower: &[T], upper: Option<&[T]>, out: &mut [u32]) {
    for (out, low) in out.iter_mut().zip(lower) {
        *out = u32::from(low.half_bits());
    }
    for (out, high) in out.iter_mut().zip(upper.unwrap_or_default()) {
        *out |= u32::from(high.half_bits()) << 16;
    }
}

/// The left factor of a product, packed in blocks of rows as a kernel reads them, the last with
/// what is left.
pub(crate) struct PackedRows {
    words: Vec<u32>,
    kernel: Kernel,
    rows: usize,
    /// Words of a row, without those that fill a run.
    depth: usize,
}

/// Words that one task packs.
const TASK: usize = 32 * 1024;

impl PackedRows {
    /// Packs `rows` rows of `inner` numbers, in parallel.
    pub(crate) fn new(lines: Lines, kernel: Kernel, rows: usize, inner: usize) -> Result<Self> {
        let of_block = kernel.layout().rows;
        let block = words_of(kernel, of_block, inner).max(1);
        let blocks = (TASK / block).max(1);
        let words = filled(words_of(kernel, rows, inner), blocks * block, |task, out| {
            let first = task * blocks * of_block;
            pack_blocks(lines.skip(first), kernel, rows - first, inner, out);
        })?;
        Ok(Self { words, kernel, rows, depth: kernel.precision().words(inner) })
    }

    /// The same on this thread alone, as a task does.
    pub(crate) fn in_task(lines: Lines, kernel: Kernel, rows: usize, inner: usize) -> Self {
        let mut words = vec![0; words_of(kernel, rows, inner)];
        pack_blocks(lines, kernel, rows, inner, &mut words);
        Self { words, kernel, rows, depth: kernel.precision().words(inner) }
    }

    pub(crate) fn view(&self) -> RowBlocks<'_> {
        RowBlocks { words: &self.words, kernel: self.kernel, rows: self.rows, depth: self.depth }
    }
}

/// Words of so many rows, packed.
fn words_of(kernel: Kernel, rows: usize, inner: usize) -> usize {
    let layout = kernel.layout();
    layout.padded_rows(rows) * layout.padded_depth(kernel.precision().words(inner))
}

/// Packs the first of `rows` rows into blocks, as many as `out` holds.
fn pack_blocks(lines: Lines, kernel: Kernel, rows: usize, inner: usize, out: &mut [u32]) {
    let of_block = kernel.layout().rows;
    let blocks = out.chunks_mut(words_of(kernel, of_block, inner).max(1));
    for (index, out) in blocks.enumerate() {
        let row = index * of_block;
        lines.skip(row).pack_block(kernel, of_block.min(rows - row), 0..inner, out);
    }
}

/// Blocks of packed rows.
#[derive(Clone, Copy)]
pub(crate) struct RowBlocks<'a> {
    words: &'a [u32],
    pub(crate) kernel: Kernel,
    rows: usize,
    pub(crate) depth: usize,
}

impl<'a> RowBlocks<'a> {
    /// Some words of all rows of a block, and how many rows it has. They begin at a whole run.
    pub(crate) fn block(self, index: usize, words: Range<usize>) -> (&'a [u32], usize) {
        let layout = self.kernel.layout();
        let count = layout.rows.min(self.rows - index * layout.rows);
        let start = index * layout.rows * layout.padded_depth(self.depth);
        let place = |word| start + layout.padded_depth(word) * layout.padded_rows(count);
        (&self.words[place(words.start)..place(words.end)], count)
    }
}
