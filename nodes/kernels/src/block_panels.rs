//! Matrices of blocks in panels: the same numbers as in the file, in the order in which products
//! read them.
//!
//! A block of a file holds numbers that follow one another along a row. Here the blocks of the 32
//! rows of a panel lie beside one another: what widens them works on 32 columns at a time and
//! writes words where the innermost product reads them. No matrix is ever there in a wider type.
//!
//! Of each block of a panel there are, for 32 columns each: `d` (halves), `m` where the form has
//! minima, for every group its scale and its minimum (a byte each, where there are several groups),
//! and for every number its bits. Those are bytes for numbers of eight bits; else the low four bits
//! of two columns a byte (where there are four), then the other bits, each in a word of 32.

use std::ops::Range;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Result;
use crate::blocks::{BlockType, Parts};
use crate::buffer::filled;
use crate::interleave::interleave;
use crate::micro::{COLUMNS, Precision};
use crate::number::round;
use crate::recycle::Reused;
use crate::tier::by_tier;

/// A matrix of blocks in panels of 32 rows.
#[derive(Clone)]
pub(crate) struct BlockPanels {
    form: BlockType,
    /// `[panels, blocks of a row, bytes of a block of a panel]`
    bytes: Arc<Reused<u8>>,
    /// Bytes of a panel.
    panel: usize,
}

/// Where the parts of a block of a panel lie.
#[derive(Clone, Copy)]
struct Places {
    least: usize,
    /// Scales and minima of groups, `[groups, 1 or 2, 32]`; none of one group alone.
    groups: usize,
    /// Bytes of the scales and minima of one group.
    of_group: usize,
    numbers: usize,
    end: usize,
}

const HALVES: usize = 2 * COLUMNS;

impl Places {
    const fn of(form: BlockType) -> Self {
        let least = HALVES;
        let groups = if form.has_minima() { least + HALVES } else { least };
        let count = form.numbers() / form.group();
        let of_group = match (count, form.has_minima()) {
            (1, _) => 0,
            (_, true) => 2 * COLUMNS,
            (_, false) => COLUMNS,
        };
        let numbers = groups + count * of_group;
        Self { least, groups, of_group, numbers, end: numbers + form.numbers() * bytes_of(form) }
    }
}

/// Bytes of one number of all columns.
const fn bytes_of(form: BlockType) -> usize {
    form.bits() * COLUMNS / 8
}

impl BlockPanels {
    /// Those of a matrix, packed by [`BlockPanels::pack_panel`].
    pub(crate) fn new(form: BlockType, bytes: Reused<u8>, panel: usize) -> Self {
        Self { form, bytes: Arc::new(bytes), panel }
    }

    /// Packs rows of blocks, `row` bytes each.
    pub(crate) fn pack(form: BlockType, rows: &[u8], row: usize) -> Result<Self> {
        let out = rows.len() / row.max(1);
        let panel = Self::panel_bytes(form, row);
        let bytes = filled(out.div_ceil(COLUMNS) * panel, panel, |index, panel| {
            pack_panel(form, &rows[index * COLUMNS * row..], row, panel);
        })?;
        Ok(Self::new(form, bytes.into(), panel))
    }

    /// Bytes of a panel of rows of `row` bytes.
    pub(crate) fn panel_bytes(form: BlockType, row: usize) -> usize {
        row / form.bytes() * Places::of(form).end
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The name of its form.
    pub(crate) fn name(&self) -> &'static str {
        self.form.name()
    }

    /// The words of some numbers of a panel, which begin and end with a block.
    pub(crate) fn widen(
        &self,
        panel: usize,
        numbers: Range<usize>,
        precision: Precision,
        words: &mut [u32],
    ) {
        let count = self.form.numbers();
        debug_assert!(numbers.start.is_multiple_of(count) && numbers.end.is_multiple_of(count));
        let end = Places::of(self.form).end;
        let panel = &self.bytes[panel * self.panel..][..self.panel];
        let bytes = &panel[numbers.start / count * end..numbers.end / count * end];
        widen(self.form, bytes, precision == Precision::Bf16, words);
    }
}

by_tier! {
    /// Packs up to 32 rows, `row` bytes each, into a panel, which is zeros.
    pub(crate) fn pack_panel<FMA>(form: BlockType, rows: &[u8], row: usize, panel: &mut [u8]) {
        let (places, count) = (Places::of(form), form.numbers());
        let mut parts = Parts::new();
        // The numbers of the blocks, by rows and by columns.
        let mut room = [[0; COLUMNS * MOST]; 2];
        let [by_row, by_column] = room.each_mut().map(|room| &mut room[..COLUMNS * count]);
        for (index, out) in panel.chunks_exact_mut(places.end).enumerate() {
            let blocks = rows.chunks_exact(row).map(|row| &row[index * form.bytes()..]);
            for ((column, block), q) in blocks.enumerate().zip(by_row.chunks_exact_mut(count)) {
                parts.read(form, &block[..form.bytes()]);
                put_scales(form, places, &parts, column, out);
                q.copy_from_slice(&parts.q[..count]);
            }
            interleave(by_row, count, by_column);
            let numbers = out[places.numbers..].chunks_exact_mut(bytes_of(form));
            for (out, q) in numbers.zip(by_column.as_chunks().0) {
                put_bits(form.bits(), q, out);
            }
        }
    }
}

/// The most numbers of a block.
const MOST: usize = 256;

/// Puts what scales a block where it belongs in the block of a panel.
#[inline(always)]
fn put_scales(form: BlockType, places: Places, parts: &Parts, column: usize, out: &mut [u8]) {
    out[2 * column..][..2].copy_from_slice(&parts.d.to_le_bytes());
    if form.has_minima() {
        out[places.least + 2 * column..][..2].copy_from_slice(&parts.m.to_le_bytes());
    }
    if places.of_group > 0 {
        let groups = out[places.groups..places.numbers].chunks_exact_mut(places.of_group);
        for (group, (s, t)) in groups.zip(parts.s.iter().zip(&parts.t)) {
            group[column] = *s as u8;
            if form.has_minima() {
                group[COLUMNS + column] = *t;
            }
        }
    }
}

/// The bits of one number of each column.
#[inline(always)]
fn put_bits(bits: usize, q: &[u8; COLUMNS], out: &mut [u8]) {
    if bits == 8 {
        out.copy_from_slice(q);
        return;
    }
    let (low, planes) = out.split_at_mut(if bits >= 4 { COLUMNS / 2 } else { 0 });
    let (first, second) = q.split_at(COLUMNS / 2);
    for ((out, first), second) in low.iter_mut().zip(first).zip(second) {
        *out = first & 15 | second << 4;
    }
    let from = if bits >= 4 { 4 } else { 0 };
    for (bit, out) in (from..bits).zip(planes.as_chunks_mut::<4>().0) {
        let set = |all, (column, q): (usize, &u8)| all | u32::from(q >> bit & 1) << column;
        *out = q.iter().enumerate().fold(0, set).to_le_bytes();
    }
}

by_tier! {
    /// The words of blocks of a panel: numbers of f32, or pairs of bf16.
    fn widen<FMA>(form: BlockType, bytes: &[u8], pairs: bool, words: &mut [u32]) {
        match form.bits() {
            2 => widen_bits::<2>(form, bytes, pairs, words),
            3 => widen_bits::<3>(form, bytes, pairs, words),
            4 => widen_bits::<4>(form, bytes, pairs, words),
            5 => widen_bits::<5>(form, bytes, pairs, words),
            6 => widen_bits::<6>(form, bytes, pairs, words),
            _ => widen_bits::<8>(form, bytes, pairs, words),
        }
    }
}

/// The numbers of one group of 32 columns: scale·(q − offset) − least.
struct Group {
    scale: [f32; COLUMNS],
    least: [f32; COLUMNS],
    offset: i32,
}

#[inline(always)]
fn widen_bits<const BITS: usize>(form: BlockType, bytes: &[u8], pairs: bool, words: &mut [u32]) {
    let places = Places::of(form);
    let each = bytes_of(form);
    let of_block = form.numbers() * COLUMNS / if pairs { 2 } else { 1 };
    let of_group = form.group() * COLUMNS / if pairs { 2 } else { 1 };
    for (block, words) in bytes.chunks_exact(places.end).zip(words.chunks_exact_mut(of_block)) {
        let d = halves(block);
        let m = if form.has_minima() { halves(&block[places.least..]) } else { [0.0; COLUMNS] };
        let numbers = block[places.numbers..].chunks_exact(form.group() * each);
        for (index, (numbers, words)) in numbers.zip(words.chunks_exact_mut(of_group)).enumerate() {
            let mut group = Group { scale: d, least: m, offset: i32::from(form.offset()) };
            if places.of_group > 0 {
                let scales = &block[places.groups + index * places.of_group..][..places.of_group];
                for (scale, s) in group.scale.iter_mut().zip(scales) {
                    *scale *= f32::from(*s as i8);
                }
                for (least, t) in group.least.iter_mut().zip(&scales[places.of_group - COLUMNS..]) {
                    *least *= f32::from(*t);
                }
            }
            if pairs {
                let numbers = numbers.chunks_exact(2 * each);
                for (numbers, words) in numbers.zip(words.as_chunks_mut::<COLUMNS>().0) {
                    let (lower, upper) = numbers.split_at(each);
                    let lower = group.numbers::<BITS>(lower);
                    let upper = group.numbers::<BITS>(upper);
                    for ((word, low), high) in words.iter_mut().zip(lower).zip(upper) {
                        *word = u32::from(round(low)) | u32::from(round(high)) << 16;
                    }
                }
            } else {
                let numbers = numbers.chunks_exact(each);
                for (numbers, words) in numbers.zip(words.as_chunks_mut::<COLUMNS>().0) {
                    let numbers = group.numbers::<BITS>(numbers);
                    words.iter_mut().zip(numbers).for_each(|(word, y)| *word = y.to_bits());
                }
            }
        }
    }
}

/// 32 halves as f32.
#[inline(always)]
fn halves(bytes: &[u8]) -> [f32; COLUMNS] {
    let mut narrow = [f16::ZERO; COLUMNS];
    for (half, bytes) in narrow.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *half = f16::from_le_bytes(*bytes);
    }
    let mut wide = [0.0; COLUMNS];
    narrow.convert_to_f32_slice(&mut wide);
    wide
}

impl Group {
    /// One number of each column.
    #[inline(always)]
    fn numbers<const BITS: usize>(&self, bytes: &[u8]) -> [f32; COLUMNS] {
        let mut q = [0u32; COLUMNS];
        if BITS == 8 {
            q.iter_mut().zip(bytes).for_each(|(q, byte)| *q = u32::from(*byte));
        } else {
            let (low, planes) = bytes.split_at(if BITS >= 4 { 16 } else { 0 });
            let (first, second) = q.split_at_mut(16);
            for ((first, second), byte) in first.iter_mut().zip(second).zip(low) {
                *first = u32::from(*byte & 15);
                *second = u32::from(*byte >> 4);
            }
            let from = if BITS >= 4 { 4 } else { 0 };
            for (plane, bits) in planes.as_chunks::<4>().0.iter().enumerate() {
                let bits = u32::from_le_bytes(*bits);
                for (column, q) in q.iter_mut().enumerate() {
                    *q |= (bits >> column & 1) << (from + plane);
                }
            }
        }
        let mut y = [0.0; COLUMNS];
        for (column, y) in y.iter_mut().enumerate() {
            let whole = (q[column] as i32 - self.offset) as f32;
            *y = self.scale[column] * whole - self.least[column];
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::widen_blocks;
    use crate::number::Number;
    use crate::tier::tests::in_every_tier;

    /// Of every form and in every tier: the bits of the numbers that the blocks stand for.
    #[test]
    fn words_are_the_numbers_of_the_blocks() {
        for form in BlockType::ALL {
            let (out, blocks) = (37, 512 / form.numbers() + 1);
            let row = blocks * form.bytes();
            // No half that is infinite or no number.
            let byte = |i: usize| ((i * 7919 + 13) as f64 * 0.618_034).fract() * 256.0;
            let rows: Vec<u8> = (0..out * row).map(|i| byte(i) as u8 & 0xbb).collect();
            let inner = blocks * form.numbers();
            let mut wide = vec![0.0; out * inner];
            widen_blocks(form, &rows, &mut wide);
            let number = |column: usize, k: usize| match column < out {
                true => wide[column * inner + k],
                false => 0.0,
            };
            in_every_tier(|tier| {
                let panels = BlockPanels::pack(form, &rows, row).unwrap();
                for (panel, from) in [(0, 0), (1, 0), (1, form.numbers())] {
                    let count = inner - from;
                    let mut words = vec![0; count * COLUMNS];
                    panels.widen(panel, from..inner, Precision::F32, &mut words);
                    let mut pairs = vec![0; count / 2 * COLUMNS];
                    panels.widen(panel, from..inner, Precision::Bf16, &mut pairs);
                    for (k, column) in (0..count).flat_map(|k| (0..COLUMNS).map(move |c| (k, c))) {
                        let expected = number(panel * COLUMNS + column, from + k);
                        let found = f32::from_bits(words[k * COLUMNS + column]);
                        // Without regard to the sign of zero.
                        assert!(found == expected, "{tier:?} {form:?}: {found} for {expected}");
                        let pair = pairs[k / 2 * COLUMNS + column] >> (k % 2 * 16);
                        let half = f32::from_bits(pair << 16);
                        let rounded = f32::from_bits(u32::from(expected.half_bits()) << 16);
                        assert!(half == rounded, "{tier:?} {form:?}: {half} for {rounded}");
                    }
                }
            });
        }
    }
}
