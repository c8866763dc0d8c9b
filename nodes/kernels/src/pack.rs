//! How factors of products lie in memory: in words, lines interleaved.
//!
//! A word holds what is multiplied at a time along the sum (an f32, or two bf16). Word `w` of line
//! `l` is number `w·width + l`, so that the innermost loop reads one run of memory. A line is a row
//! of the left factor or a column of the right one.

use std::ops::Range;

use half::bf16;

use crate::Result;
use crate::buffer::filled;
use crate::micro::{Precision, ROWS};
use crate::number::Number;

/// Numbers of a tensor.
#[derive(Clone, Copy)]
pub(crate) enum Slice<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// Lines of numbers in memory: number `k` of line `l` is number `first + l·line + k·along`.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub(crate) numbers: Slice<'a>,
    pub(crate) first: usize,
    pub(crate) line: usize,
    pub(crate) along: usize,
}

impl<'a> Lines<'a> {
    /// Rows `step` apart, each contiguous.
    pub(crate) fn rows(numbers: Slice<'a>, step: usize) -> Self {
        Self { numbers, first: 0, line: step, along: 1 }
    }

    /// Lines from number `line` on.
    pub(crate) fn skip(self, line: usize) -> Self {
        Self { first: self.first + line * self.line, ..self }
    }

    /// The same with lines and what follows along them exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { line: self.along, along: self.line, ..self }
    }

    /// Packs numbers `depth` of the first `count` lines, `width` words apart; the lines from
    /// `count` to `width` are zeros. `depth` begins at a whole word.
    pub(crate) fn pack(
        self,
        precision: Precision,
        count: usize,
        depth: Range<usize>,
        width: usize,
        out: &mut [u32],
    ) {
        debug_assert!(count <= width && depth.start.is_multiple_of(precision.in_word()));
        if count < width {
            out.fill(0);
        }
        match self.numbers {
            Slice::F32(numbers) => pack(numbers, self, precision, count, depth, width, out),
            Slice::Bf16(numbers) => pack(numbers, self, precision, count, depth, width, out),
        }
    }
}

/// Words of a line that are made at a time.
const CHUNK: usize = 32;

fn pack<T: Number>(
    numbers: &[T],
    lines: Lines,
    precision: Precision,
    count: usize,
    depth: Range<usize>,
    width: usize,
    out: &mut [u32],
) {
    let Lines { first, line, along, .. } = lines;
    if line == 1 {
        // What lies side by side in memory does so in the words.
        let row = |k: usize| &numbers[first + k * along..][..count];
        for (out, k) in out.chunks_exact_mut(width).zip(depth.clone().step_by(precision.in_word()))
        {
            match precision {
                Precision::F32 => {
                    out.iter_mut().zip(row(k)).for_each(|(out, number)| *out = number.bits());
                }
                Precision::Bf16 => interleave(row(k), (k + 1 < depth.end).then(|| row(k + 1)), out),
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
            let places = out[l..].iter_mut().step_by(width);
            places.zip(words).for_each(|(out, word)| *out = word);
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
        Precision::Bf16 => {
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

/// The left factor of a product, packed in blocks of [`ROWS`] rows, the last with what is left.
pub(crate) struct PackedRows {
    words: Vec<u32>,
    rows: usize,
    /// Words of a row.
    depth: usize,
}

/// Words that one task packs.
const TASK: usize = 32 * 1024;

impl PackedRows {
    /// Packs `rows` rows of `inner` numbers, in parallel.
    pub(crate) fn new(
        lines: Lines,
        precision: Precision,
        rows: usize,
        inner: usize,
    ) -> Result<Self> {
        let depth = precision.words(inner);
        let block = (ROWS * depth).max(1);
        let blocks = (TASK / block).max(1);
        let words = filled(rows * depth, blocks * block, |task, out| {
            for (index, out) in out.chunks_mut(block).enumerate() {
                let row = (task * blocks + index) * ROWS;
                let count = ROWS.min(rows - row);
                lines.skip(row).pack(precision, count, 0..inner, count, out);
            }
        })?;
        Ok(Self { words, rows, depth })
    }

    pub(crate) fn view(&self) -> RowBlocks<'_> {
        RowBlocks { words: &self.words, rows: self.rows, depth: self.depth }
    }
}

/// Blocks of packed rows.
#[derive(Clone, Copy)]
pub(crate) struct RowBlocks<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) rows: usize,
    pub(crate) depth: usize,
}

impl<'a> RowBlocks<'a> {
    /// Some words of all rows of a block, and how many rows it has.
    pub(crate) fn block(self, index: usize, words: Range<usize>) -> (&'a [u32], usize) {
        let rows = ROWS.min(self.rows - index * ROWS);
        let start = index * ROWS * self.depth;
        (&self.words[start + words.start * rows..start + words.end * rows], rows)
    }
}
