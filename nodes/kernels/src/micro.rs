//! The innermost product: a few rows times some columns, whose sums stay in registers.
//!
//! Both factors are packed in words of 32 bits ([`crate::pack`]): a word is an f32, or a pair of
//! bf16 that follow one another along the sum. So there is one shape of loop for both, and what a
//! word is worth is one instruction of the tier. Where bf16 has no instruction of its own, its two
//! halves are widened and multiplied as f32; all tiers compute the same sums but for the rounding
//! of f32.

use candle_core::DType;

use crate::number::Slice;
use crate::tier;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::tier::Tier;

#[cfg(target_arch = "aarch64")]
mod neon;

/// The type in which the factors of a product are multiplied; sums are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    F32,
    /// Rounded to bf16.
    Bf16,
    /// Rounded to whole numbers of eight bits, each row of activations with a scale of its own.
    Int8,
    /// The same with a scale for each 32 numbers of a row.
    Int8Blocks,
}

impl Precision {
    /// That of tensors of a type: bf16 of bf16, else f32.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// Words that `length` numbers along the sum take.
    pub(crate) fn words(self, length: usize) -> usize {
        match self {
            Self::F32 => length,
            Self::Bf16 => length.div_ceil(2),
            Self::Int8 => length.div_ceil(4),
            Self::Int8Blocks => length.div_ceil(BLOCK) * BLOCK_WORDS,
        }
    }

    /// Numbers in a word.
    pub(crate) fn in_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 | Self::Int8Blocks => 4,
        }
    }

    /// Words of a sum at a time: those of a panel fit the first-level cache, and blocks are whole.
    pub(crate) fn depth(self) -> usize {
        match self {
            Self::Int8Blocks => DEPTH / BLOCK_WORDS * BLOCK_WORDS,
            _ => DEPTH,
        }
    }
}

/// Words of a sum at a time: those of a panel fit the first-level cache.
pub(crate) const DEPTH: usize = 256;
/// Numbers that share a scale in [`Precision::Int8Blocks`], as in ggml's Q8_0.
pub(crate) const BLOCK: usize = 32;
/// Words of them, that of the scale included.
pub(crate) const BLOCK_WORDS: usize = BLOCK / 4 + 1;
/// Rows that are computed at a time: their sums fill the registers of AVX-512.
pub(crate) const ROWS: usize = 12;
/// Columns that are computed at a time.
pub(crate) const COLUMNS: usize = 32;

/// c = a·b, or c += a·b: `rows` rows (at most [`ROWS`]) of [`COLUMNS`] sums, `step` apart in `c`.
///
/// `a` holds `depth` times `rows` words, `b` `depth` times [`COLUMNS`]; with `PAIRS` a word is a
/// pair of bf16, else an f32.
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn multiply<const PAIRS: bool>(
    rows: usize,
    (a, b): (&[u32], &[u32]),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let depth = b.len() / COLUMNS;
    assert!(rows > 0 && rows <= ROWS && a.len() == depth * rows && b.len() == depth * COLUMNS);
    assert!(step >= COLUMNS && c.len() >= (rows - 1) * step + COLUMNS);
    let a = Left { words: a.as_ptr(), line: rows };
    let (b, c) = (b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the factors and the sums lie in their slices, as asserted above.
    unsafe { choose::<PAIRS, true>(Block { rows, depth, a, b, c, step, accumulate }) }
}

/// The same of rows that are not packed: they lie `line` numbers apart, each contiguous.
/// Neighbouring rows may overlap.
///
/// `b` holds as many words as are read of each row, times [`COLUMNS`], in the type of `a`.
///
/// # Panics
/// When numbers begin amid a word, or do not lie in their slice.
pub(crate) fn multiply_rows(
    rows: usize,
    (a, line): (Slice, usize),
    b: &[u32],
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let depth = b.len() / COLUMNS;
    let (pairs, words, length) = match a {
        Slice::F32(numbers) => (false, numbers.as_ptr().cast(), numbers.len()),
        Slice::Bf16(numbers) => (true, numbers.as_ptr().cast(), numbers.len()),
    };
    let each = if pairs { 2 } else { 1 };
    assert!(rows > 0 && rows <= ROWS && b.len() == depth * COLUMNS && line.is_multiple_of(each));
    assert!((rows - 1) * line + depth * each <= length, "rows lie outside their slice");
    assert!(step >= COLUMNS && c.len() >= (rows - 1) * step + COLUMNS);
    let a = Left { words, line: line / each };
    let block = Block { rows, depth, a, b: b.as_ptr(), c: c.as_mut_ptr(), step, accumulate };
    // SAFETY: the factors and the sums lie in their slices, as asserted above.
    unsafe {
        match pairs {
            true => choose::<true, false>(block),
            false => choose::<false, false>(block),
        }
    }
}

/// A product of some rows: where its factors and its sums lie.
///
/// `a` holds `depth` words of each of `rows` rows, `b` `depth` times [`COLUMNS`]; `c` has `rows`
/// rows of [`COLUMNS`] sums, `step` apart, that nobody else uses.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    depth: usize,
    a: Left,
    b: *const u32,
    c: *mut f32,
    step: usize,
    accumulate: bool,
}

/// Where the words of the left factor lie: packed, word `k` of row `r` is number `k·line + r`; else
/// `r·line + k`. They need not be aligned.
#[derive(Clone, Copy)]
struct Left {
    words: *const u32,
    line: usize,
}

impl Left {
    const fn place<const PACKED: bool>(self, row: usize, k: usize) -> usize {
        if PACKED { k * self.line + row } else { row * self.line + k }
    }
}

impl Block {
    /// Word `k` of a row of the left factor.
    ///
    /// # Safety
    /// It lies inside.
    #[inline(always)]
    unsafe fn word<const PACKED: bool>(self, row: usize, k: usize) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { self.a.words.add(self.a.place::<PACKED>(row, k)).read_unaligned() }
    }

    /// What of the product is left from a row and a column on.
    ///
    /// # Safety
    /// They are of its rows and columns. Of the result, no more columns are read and written than
    /// are left.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    unsafe fn skip<const PACKED: bool>(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's contract.
        unsafe {
            let words = self.a.words.add(self.a.place::<PACKED>(row, 0));
            Self {
                rows: self.rows - row,
                a: Left { words, ..self.a },
                b: self.b.add(column),
                c: self.c.add(row * self.step + column),
                ..self
            }
        }
    }
}

/// Calls the function of the tier.
///
/// # Safety
/// The block is as [`Block`] says.
unsafe fn choose<const PAIRS: bool, const PACKED: bool>(block: Block) {
    // SAFETY: the caller's contract is that of the functions; a tier is current only where its
    // instructions were detected.
    unsafe {
        match (tier::current(), PAIRS) {
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512 | Tier::Avx512Bf16 | Tier::Amx, false) => {
                x86::avx512_f32::<PACKED>(block);
            }
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512Bf16 | Tier::Amx, true) => x86::avx512_bf16::<PACKED>(block),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512, true) => x86::avx512_widened::<PACKED>(block),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx2, false) => x86::avx2_f32::<PACKED>(block),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx2, true) => x86::avx2_widened::<PACKED>(block),
            #[cfg(target_arch = "aarch64")]
            (Tier::Neon | Tier::NeonBf16, false) => neon::product::<neon::Single, PACKED>(block),
            #[cfg(target_arch = "aarch64")]
            (Tier::NeonBf16, true) => neon::bf16::<PACKED>(block),
            #[cfg(target_arch = "aarch64")]
            (Tier::Neon, true) => neon::product::<neon::Widened, PACKED>(block),
            _ => portable::<PAIRS, PACKED>(block),
        }
    }
}

/// The first number of a word of two bf16.
#[inline(always)]
fn first(word: u32) -> f32 {
    f32::from_bits(word << 16)
}

/// The second number of a word of two bf16.
#[inline(always)]
fn second(word: u32) -> f32 {
    f32::from_bits(word & 0xffff_0000)
}

/// Columns and rows of the portable form: its sums fit 16 registers of four lanes.
const PORTABLE: [usize; 2] = [4, 8];

/// The product in plain loops.
///
/// # Safety
/// The block is as [`Block`] says.
unsafe fn portable<const PAIRS: bool, const PACKED: bool>(block: Block) {
    const FMA: bool = cfg!(target_arch = "aarch64");
    let Block { rows, depth, b, c, step, accumulate, .. } = block;
    let [most, wide] = PORTABLE;
    for column in (0..COLUMNS).step_by(wide) {
        for row in (0..rows).step_by(most) {
            let count = most.min(rows - row);
            let mut sums = [[0.0f32; PORTABLE[1]]; PORTABLE[0]];
            for k in 0..depth {
                // SAFETY: word `k` of columns `column..column + wide` lies in `b`.
                let b = unsafe { &*b.add(k * COLUMNS + column).cast::<[u32; PORTABLE[1]]>() };
                for (r, sums) in sums.iter_mut().enumerate().take(count) {
                    // SAFETY: word `k` of row `row + r`, one of `rows`, lies in `a`.
                    let a = unsafe { block.word::<PACKED>(row + r, k) };
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = if PAIRS {
                            let upper = crate::math::madd::<FMA>(second(a), second(*b), *sum);
                            crate::math::madd::<FMA>(first(a), first(*b), upper)
                        } else {
                            let (a, b) = (f32::from_bits(a), f32::from_bits(*b));
                            crate::math::madd::<FMA>(a, b, *sum)
                        };
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(count) {
                for (offset, sum) in sums.iter().enumerate() {
                    // SAFETY: the place lies in row `row + r` of `c`, one of `rows`.
                    let place = unsafe { &mut *c.add((row + r) * step + column + offset) };
                    *place = if accumulate { *place + sum } else { *sum };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, COLUMNS};

    /// Calls a function that is made for a number of rows.
    macro_rules! for_rows {
        (@ $call:ident, $count:literal, ($($arg:expr),*)) => { $call::<$count, PACKED>($($arg),*) };
        ($rows:expr, $call:ident, $args:tt, [$($count:literal)*]) => {
            // SAFETY: the callers' contract is that of the function.
            unsafe {
                match $rows {
                    $($count => for_rows!(@ $call, $count, $args),)*
                    _ => {}
                }
            }
        };
    }

    /// A product in registers of 512 bits: `ROWS` rows of two registers of sums.
    macro_rules! wide_product {
        ($(#[$meta:meta])* $name:ident, $step:ident, $features:literal) => {
            $(#[$meta])*
            ///
            /// # Safety
            /// As [`super::portable`], on a processor with these instructions.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<const PACKED: bool>(block: Block) {
                #[target_feature(enable = $features)]
                unsafe fn of<const R: usize, const PACKED: bool>(block: Block) {
                    let Block { depth, b, c, step, accumulate, .. } = block;
                    let mut sums = [[_mm512_setzero_ps(); 2]; R];
                    for k in 0..depth {
                        // SAFETY: `b` holds 32 words for each `k`.
                        let (left, right) = unsafe {
                            let b = b.add(k * COLUMNS);
                            (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast()))
                        };
                        for (row, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: `a` holds `R` words for each `k`.
                            let a = unsafe { block.word::<PACKED>(row, k) };
                            let a = _mm512_set1_epi32(a as i32);
                            sums[0] = $step(sums[0], a, left);
                            sums[1] = $step(sums[1], a, right);
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (half, sum) in sums.iter().enumerate() {
                            // SAFETY: 32 numbers lie in each of the rows of `c`.
                            unsafe {
                                let place = c.add(row * step + half * 16);
                                let before = match accumulate {
                                    true => _mm512_loadu_ps(place),
                                    false => _mm512_setzero_ps(),
                                };
                                _mm512_storeu_ps(place, _mm512_add_ps(before, *sum));
                            }
                        }
                    }
                }
                for_rows!(block.rows, of, (block), [1 2 3 4 5 6 7 8 9 10 11 12]);
            }
        };
    }

    /// The same in registers of 256 bits, of which there are sixteen: at most six rows of two, and
    /// the columns in two halves.
    macro_rules! narrow_product {
        ($(#[$meta:meta])* $name:ident, $step:ident) => {
            $(#[$meta])*
            ///
            /// # Safety
            /// As [`super::portable`], on a processor with these instructions.
            #[target_feature(enable = "avx2,fma")]
            pub(super) unsafe fn $name<const PACKED: bool>(block: Block) {
                #[target_feature(enable = "avx2,fma")]
                unsafe fn of<const R: usize, const PACKED: bool>(block: Block) {
                    let Block { depth, b, c, step, accumulate, .. } = block;
                    let mut sums = [[_mm256_setzero_ps(); 2]; R];
                    for k in 0..depth {
                        // SAFETY: `b` holds 16 words of this half for each `k`.
                        let (left, right) = unsafe {
                            let b = b.add(k * COLUMNS);
                            let left = _mm256_loadu_si256(b.cast());
                            (left, _mm256_loadu_si256(b.add(8).cast()))
                        };
                        for (row, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: `a` holds a word of each of `R` rows for each `k`.
                            let a = unsafe { block.word::<PACKED>(row, k) };
                            let a = _mm256_set1_epi32(a as i32);
                            sums[0] = $step(sums[0], a, left);
                            sums[1] = $step(sums[1], a, right);
                        }
                    }
                    for (row, sums) in sums.iter().enumerate() {
                        for (half, sum) in sums.iter().enumerate() {
                            // SAFETY: 16 numbers of this half lie in each of the rows of `c`.
                            unsafe {
                                let place = c.add(row * step + half * 8);
                                let before = match accumulate {
                                    true => _mm256_loadu_ps(place),
                                    false => _mm256_setzero_ps(),
                                };
                                _mm256_storeu_ps(place, _mm256_add_ps(before, *sum));
                            }
                        }
                    }
                }
                for half in [0, COLUMNS / 2] {
                    for row in (0..block.rows).step_by(6) {
                        // SAFETY: half the columns are computed, of at most six rows.
                        let block = unsafe { block.skip::<PACKED>(row, half) };
                        for_rows!(block.rows.min(6), of, (block), [1 2 3 4 5 6]);
                    }
                }
            }
        };
    }

    wide_product! {
        /// Products of f32.
        avx512_f32, f32_512, "avx512f"
    }
    wide_product! {
        /// Products of pairs of bf16 by `vdpbf16ps`.
        avx512_bf16, pairs_512, "avx512f,avx512bf16"
    }
    wide_product! {
        /// Products of pairs of bf16, each widened to f32.
        avx512_widened, widened_512, "avx512f"
    }
    narrow_product! {
        /// Products of f32.
        avx2_f32, f32_256
    }
    narrow_product! {
        /// Products of pairs of bf16, each widened to f32.
        avx2_widened, widened_256
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn f32_512(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs_512(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: both are 512 bits without invalid values.
        let (a, b) = unsafe {
            (
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        };
        _mm512_dpbf16_ps(sum, a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn widened_512(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let second = f32_512(sum, _mm512_and_si512(a, upper), _mm512_and_si512(b, upper));
        f32_512(second, _mm512_slli_epi32::<16>(a), _mm512_slli_epi32::<16>(b))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn f32_256(sum: __m256, a: __m256i, b: __m256i) -> __m256 {
        _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), sum)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn widened_256(sum: __m256, a: __m256i, b: __m256i) -> __m256 {
        let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        let second = f32_256(sum, _mm256_and_si256(a, upper), _mm256_and_si256(b, upper));
        f32_256(second, _mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b))
    }
}
