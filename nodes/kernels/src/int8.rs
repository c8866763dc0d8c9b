//! Products of whole numbers of eight bits: activations are rounded to them, too.
//!
//! A word holds four numbers that follow one another along the sum. Sums of whole numbers are
//! exact, and what they are multiplied by is so in one order, without fused operations: every tier
//! gives the same bits.
//!
//! Where each row has one scale ([`Precision::Int8`]) the sums of a piece of at most 1,024 numbers
//! stay below 2²⁴, which f32 holds exactly. Where each 32 numbers have theirs
//! ([`Precision::Int8Blocks`]), those of both factors follow them as a ninth word, an f32. Vectors
//! and tiles give the sums; what becomes of them is the same for both.

use crate::Result;
use crate::buffer::{filled, with_scratch};
use crate::micro::{BLOCK, BLOCK_WORDS, COLUMNS, Precision, ROWS};
use crate::number::{Number, Slice};
use crate::tier::{self, Tier, by_tier};
use crate::tiles::{self, TILE, Tiles};

/// The largest number that activations are rounded to: with it, no sum of two products with bytes
/// overflows 16 bits (AVX2).
const MOST: f32 = 127.0;

/// Activations rounded to whole numbers, in words, row after row.
pub(crate) struct RoundedRows {
    words: Vec<u32>,
    /// Words of a row, of which one more holds its scale.
    depth: usize,
}

/// Rows that one task rounds.
const ROUNDED_ROWS: usize = 8;

impl RoundedRows {
    /// Rounds rows of `inner` numbers to multiples of a 127th of the largest of a row, or of each
    /// 32 of it.
    pub(crate) fn new(x: Slice, rows: usize, inner: usize, precision: Precision) -> Result<Self> {
        let depth = precision.words(inner);
        let line = depth + 1;
        let words = filled(rows * line, ROUNDED_ROWS * line, |task, out| {
            for (index, out) in out.chunks_exact_mut(line).enumerate() {
                let start = (task * ROUNDED_ROWS + index) * inner;
                with_scratch(inner, |numbers| {
                    match x {
                        Slice::F32(x) => numbers.copy_from_slice(&x[start..start + inner]),
                        Slice::Bf16(x) => half::bf16::widen(&x[start..start + inner], numbers),
                    }
                    round_row(numbers, precision, out);
                });
            }
        })?;
        Ok(Self { words, depth })
    }

    /// The words, and how far one row lies from the next.
    pub(crate) fn words(&self) -> (&[u32], usize) {
        (&self.words, self.depth + 1)
    }

    /// What the sums of a row are multiplied by.
    pub(crate) fn scale(&self, row: usize) -> f32 {
        f32::from_bits(self.words[row * (self.depth + 1) + self.depth])
    }
}

/// Rounds a row; its scale follows it, 1 where its blocks have theirs.
fn round_row(numbers: &[f32], precision: Precision, out: &mut [u32]) {
    let depth = out.len() - 1;
    out[depth] = match precision {
        Precision::Int8Blocks => {
            for (numbers, words) in numbers.chunks(BLOCK).zip(out.chunks_mut(BLOCK_WORDS)) {
                words[BLOCK / 4] = round(numbers, &mut words[..BLOCK / 4]).to_bits();
            }
            1.0f32.to_bits()
        }
        _ => round(numbers, &mut out[..depth]).to_bits(),
    };
}

by_tier! {
    /// Rounds numbers that share a scale, the even one where two are equally near, and gives the
    /// scale: no number where one of them is none, so that the sums are none either.
    fn round<FMA>(numbers: &[f32], words: &mut [u32]) -> f32 {
        // Bits are ordered as the numbers are, and NaN is beyond all.
        let largest = numbers.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        let inverse = MOST / largest;
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        // To add 1.5·2²³ leaves whole numbers, in two's complement in the lowest bits.
        let byte = |x: f32| (x * inverse + 12_582_912.0).to_bits() & 0xff;
        let (whole, rest) = numbers.as_chunks::<4>();
        for (word, [a, b, c, d]) in words.iter_mut().zip(whole) {
            *word = byte(*a) | byte(*b) << 8 | byte(*c) << 16 | byte(*d) << 24;
        }
        if let (Some(word), false) = (words.get_mut(whole.len()), rest.is_empty()) {
            *word = rest.iter().rev().fold(0, |word, x| word << 8 | byte(*x));
        }
        largest / MOST
    }
}

by_tier! {
    /// Packs up to 32 rows of `inner` bytes into a panel of words, which is zeros.
    pub(crate) fn pack_quads<FMA>(rows: &[u8], inner: usize, panel: &mut [u32]) {
        for (column, row) in rows.chunks_exact(inner).take(COLUMNS).enumerate() {
            let words = panel[column..].iter_mut().step_by(COLUMNS);
            for (word, bytes) in words.zip(row.chunks(4)) {
                *word = quad(bytes);
            }
        }
    }
}

by_tier! {
    /// Packs up to 32 rows of Q8_0's blocks, `row` bytes each, into a panel of words.
    pub(crate) fn pack_blocks<FMA>(rows: &[u8], row: usize, panel: &mut [u32]) {
        const BYTES: usize = BLOCK + 2;
        for (column, row) in rows.chunks_exact(row).take(COLUMNS).enumerate() {
            let blocks = panel.chunks_exact_mut(BLOCK_WORDS * COLUMNS);
            for (block, bytes) in blocks.zip(row.as_chunks::<BYTES>().0) {
                let mut words = block[column..].iter_mut().step_by(COLUMNS);
                let scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32().to_bits();
                let numbers = bytes[2..].chunks_exact(4).map(quad);
                words.by_ref().zip(numbers.chain([scale])).for_each(|(word, of)| *word = of);
            }
        }
    }
}

/// The word of at most four bytes.
#[inline(always)]
fn quad(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// c = a·b, or c += a·b, of words of [`Precision::Int8`], or of whole `blocks`, as
/// [`crate::micro::multiply`].
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn multiply(
    blocks: bool,
    rows: usize,
    (a, b): (&[u32], &[u32]),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let depth = b.len() / COLUMNS;
    assert!(rows > 0 && rows <= ROWS && a.len() == depth * rows);
    assert!(b.len() == depth * COLUMNS && c.len() >= (rows - 1) * step + COLUMNS);
    begin(rows, c, step, accumulate);
    let words = if blocks { BLOCK_WORDS } else { depth };
    debug_assert!(words == 0 || depth.is_multiple_of(words));
    let sum = sums_of(tier::current()).next().unwrap_or(portable);
    for (a, b) in a.chunks_exact((words * rows).max(1)).zip(b.chunks_exact(words * COLUMNS)) {
        let numbers = if blocks { words - 1 } else { words };
        let (a, scales) = a.split_at(numbers * rows);
        let (b, of_columns) = b.split_at(numbers * COLUMNS);
        let mut sums = [0i32; ROWS * COLUMNS];
        let sums = &mut sums[..rows * COLUMNS];
        // SAFETY: the sizes are as asserted; rows are rounded to at most 127.
        unsafe { sum(rows, a, b, sums) };
        add(sums, scales, of_columns, c, step);
    }
}

/// The same of words of [`Precision::Int8`], as [`tiles::multiply`].
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn multiply_rows_in_tiles(
    tiles: &mut impl Tiles,
    rows: usize,
    factors: (&[u32], &[u32]),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    begin(rows, c, step, accumulate);
    let padded = rows.next_multiple_of(TILE);
    let mut sums = [0i32; tiles::ROWS * COLUMNS];
    tiles::sum_bytes(tiles, padded, factors, &mut sums[..padded * COLUMNS]);
    add(&sums[..rows * COLUMNS], &[], &[], c, step);
}

/// The same of whole blocks of [`Precision::Int8Blocks`]: of each, `a` holds all rows, one after
/// the other.
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn multiply_blocks_in_tiles(
    tiles: &mut impl Tiles,
    rows: usize,
    (a, b): (&[u32], &[u32]),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    const NUMBERS: usize = BLOCK_WORDS - 1;
    begin(rows, c, step, accumulate);
    let padded = rows.next_multiple_of(TILE);
    let (a, b) = (a.chunks_exact(padded * BLOCK_WORDS), b.chunks_exact(BLOCK_WORDS * COLUMNS));
    assert!(a.len() == b.len() && a.remainder().is_empty() && b.remainder().is_empty());
    for (a, b) in a.zip(b) {
        let mut sums = [0i32; tiles::ROWS * COLUMNS];
        let sums = &mut sums[..padded * COLUMNS];
        let (b, of_columns) = b.split_at(NUMBERS * COLUMNS);
        tiles::sum_few_bytes(tiles, (padded, NUMBERS), (a, BLOCK_WORDS, b), sums);
        let mut scales = [0; tiles::ROWS];
        for (scale, row) in scales.iter_mut().zip(a.as_chunks::<BLOCK_WORDS>().0) {
            *scale = row[NUMBERS];
        }
        add(&sums[..rows * COLUMNS], &scales, of_columns, c, step);
    }
}

/// Zeros where sums are not added to what there is.
fn begin(rows: usize, c: &mut [f32], step: usize, accumulate: bool) {
    if !accumulate {
        c.chunks_mut(step).take(rows).for_each(|row| row[..COLUMNS].fill(0.0));
    }
}

by_tier! {
    /// Adds sums of whole numbers, times their scales where there are such.
    fn add<FMA>(sums: &[i32], of_rows: &[u32], of_columns: &[u32], c: &mut [f32], step: usize) {
        for (row, (sums, c)) in sums.as_chunks::<COLUMNS>().0.iter().zip(c.chunks_mut(step)).enumerate()
        {
            let places = c.iter_mut().zip(sums);
            match of_rows.get(row).map(|bits| f32::from_bits(*bits)) {
                None => places.for_each(|(place, sum)| *place += *sum as f32),
                Some(scale) => places.zip(of_columns).for_each(|((place, sum), of_column)| {
                    *place += *sum as f32 * f32::from_bits(*of_column) * scale;
                }),
            }
        }
    }
}

/// Adds the products of whole numbers to sums, which are zeros: `rows` rows of [`COLUMNS`].
///
/// # Safety
/// On a processor with its instructions, `a` holds `rows` words of each [`COLUMNS`] of `b`, no
/// number of `a` is −128, and `sums` are `rows` times [`COLUMNS`].
type Sum = unsafe fn(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]);

/// The sums that this processor has instructions for in a tier, the fastest first.
fn sums_of(tier: Tier) -> impl Iterator<Item = Sum> {
    #[cfg(target_arch = "x86_64")]
    let by_vectors: [(bool, Sum); 2] = [
        (tier >= Tier::Avx512 && std::arch::is_x86_feature_detected!("avx512vnni"), x86::vnni),
        (tier >= Tier::Avx2, x86::avx2),
    ];
    #[cfg(target_arch = "aarch64")]
    let by_vectors: [(bool, Sum); 2] = [
        (tier >= Tier::Neon && std::arch::is_aarch64_feature_detected!("i8mm"), neon::smmla),
        (tier >= Tier::Neon && std::arch::is_aarch64_feature_detected!("dotprod"), neon::sdot),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let by_vectors: [(bool, Sum); 0] = [];
    let by_vectors = by_vectors.into_iter().filter(|(is_usable, _)| *is_usable);
    by_vectors.map(|(_, sum)| sum)
}

/// The sums in plain loops.
fn portable(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
    for (a, b) in a.chunks_exact(rows).zip(b.as_chunks::<COLUMNS>().0) {
        for (a, sums) in a.iter().zip(sums.as_chunks_mut::<COLUMNS>().0) {
            let a = a.to_le_bytes().map(|byte| i32::from(byte as i8));
            for (sum, b) in sums.iter_mut().zip(b) {
                let b = b.to_le_bytes().map(|byte| i32::from(byte as i8));
                *sum += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::COLUMNS;

    macro_rules! for_rows {
        ($rows:expr, $call:ident, $args:tt, [$($count:literal)*]) => {
            // SAFETY: the callers' contract is that of the function.
            unsafe {
                match $rows {
                    $($count => for_rows!(@ $call, $count, $args),)*
                    _ => {}
                }
            }
        };
        (@ $call:ident, $count:literal, ($($arg:expr),*)) => { $call::<$count>($($arg),*) };
    }

    /// By `vpdpbusd`, which multiplies bytes without and with a sign: the columns' are raised by
    /// 128, and 128 times the sum of a row's numbers is taken from its sums.
    ///
    /// # Safety
    /// On a processor with these instructions, `a` holds `rows` words of each 32 of `b`, and `sums`
    /// `rows` times 32 numbers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn vnni(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        unsafe fn of<const R: usize>(a: &[u32], b: &[u32], out: &mut [i32]) {
            let sign = _mm512_set1_epi8(-128);
            let mask = (1u16 << R) - 1;
            let mut sums = [[_mm512_setzero_si512(); 2]; R];
            let mut of_rows = _mm512_setzero_si512();
            for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
                // SAFETY: `b` is 32 words, `a` is `R`, and no more of it are read.
                let (left, right, all) = unsafe {
                    (
                        _mm512_loadu_si512(b.as_ptr().cast()),
                        _mm512_loadu_si512(b.as_ptr().add(16).cast()),
                        _mm512_maskz_loadu_epi32(mask, a.as_ptr().cast()),
                    )
                };
                let (left, right) = (_mm512_xor_si512(left, sign), _mm512_xor_si512(right, sign));
                of_rows = _mm512_dpbusd_epi32(of_rows, sign, all);
                for (a, sums) in a.iter().zip(&mut sums) {
                    let a = _mm512_set1_epi32(*a as i32);
                    sums[0] = _mm512_dpbusd_epi32(sums[0], left, a);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], right, a);
                }
            }
            let mut raised = [0i32; 16];
            // SAFETY: sixteen numbers; `out` has 32 of each row.
            unsafe {
                _mm512_storeu_si512(raised.as_mut_ptr().cast(), of_rows);
                for (row, sums) in sums.iter().enumerate() {
                    let raised = _mm512_set1_epi32(raised[row]);
                    for (half, sum) in sums.iter().enumerate() {
                        let place = out.as_mut_ptr().add(row * COLUMNS + half * 16);
                        _mm512_storeu_si512(place.cast(), _mm512_sub_epi32(*sum, raised));
                    }
                }
            }
        }
        for_rows!(rows, of, (a, b, sums), [1 2 3 4 5 6 7 8 9 10 11 12]);
    }

    /// By `vpmaddubsw` of the columns' absolute values and the rows' numbers with their signs:
    /// pairs of products are at most 2·128·127, which 16 bits hold.
    ///
    /// # Safety
    /// As [`vnni`], and no number of `a` is −128.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
        #[target_feature(enable = "avx2")]
        unsafe fn of<const R: usize>(
            (a, rows): (&[u32], usize),
            (b, column): (&[u32], usize),
            out: &mut [i32],
        ) {
            let ones = _mm256_set1_epi16(1);
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for (a, b) in a.chunks(rows).zip(b.as_chunks::<COLUMNS>().0) {
                // SAFETY: 16 words from one of two places of 32.
                let b = [0, 8].map(|from| unsafe {
                    _mm256_loadu_si256(b.as_ptr().add(column + from).cast())
                });
                let sizes = b.map(|b| _mm256_abs_epi8(b));
                for (a, sums) in a[..R].iter().zip(&mut sums) {
                    let a = _mm256_set1_epi32(*a as i32);
                    for ((sum, b), size) in sums.iter_mut().zip(b).zip(sizes) {
                        let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(a, b));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let out = &mut out[row * COLUMNS + column..][..16];
                // SAFETY: sixteen numbers are written.
                unsafe {
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), sums[0]);
                    _mm256_storeu_si256(out.as_mut_ptr().add(8).cast(), sums[1]);
                }
            }
        }
        for column in [0, COLUMNS / 2] {
            for row in (0..rows).step_by(4) {
                let (a, out) = (&a[row.min(a.len())..], &mut sums[row * COLUMNS..]);
                let count = (rows - row).min(4);
                for_rows!(count, of, ((a, rows), (b, column), out), [1 2 3 4]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::random::Random;
    use crate::tier::tests::in_every_tier;
    use crate::{BlockType, LinearEpilogue, PackedMatrix, linear_packed, quantize_blocks};

    fn f64s(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Numbers rounded to multiples of a 127th of the largest of each `length`.
    fn rounded(x: &[f64], length: usize) -> Vec<f64> {
        let one = |x: &[f64]| {
            let largest = x.iter().fold(0.0, |a: f64, b| a.max(b.abs())) as f32;
            let scale = largest / 127.0;
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let round = move |x: &f64| f64::from((*x as f32 * inverse).round_ties_even() * scale);
            x.iter().map(round).collect::<Vec<_>>()
        };
        x.chunks(length.max(1)).flat_map(one).collect()
    }

    /// In every tier the bits are the same. They are the product of the rounded activations, and
    /// near the exact product.
    #[track_caller]
    fn check(what: &str, x: &Tensor, weight: &[f64], length: usize, packed: &PackedMatrix) {
        let [out, inner] = packed.dims();
        let (exact, whole) = (f64s(x), rounded(&f64s(x), length));
        let rows = exact.len() / inner;
        let first = std::sync::Mutex::new(None);
        let product = |x: &[f64], i: usize| -> f64 {
            let (x, w) = (&x[i / out * inner..][..inner], &weight[i % out * inner..]);
            x.iter().zip(w).map(|(x, w)| x * w).sum()
        };
        in_every_tier(|tier| {
            let found = linear_packed(x, packed, None, LinearEpilogue::None).unwrap();
            let found = f64s(&found);
            let (mut off, mut size) = (0.0, 0.0);
            for (i, found) in found.iter().enumerate() {
                let expected = product(&whole, i);
                let magnitude: f64 = (0..inner)
                    .map(|k| (whole[i / out * inner + k] * weight[i % out * inner + k]).abs())
                    .sum();
                let limit = 1e-6 * magnitude.max(1e-30);
                let limit =
                    limit + if x.dtype() == DType::BF16 { expected.abs() / 256.0 } else { 0.0 };
                let gap = (found - expected).abs();
                assert!(gap <= limit, "{what}, {tier:?}, {i}: {found} for {expected}");
                off += (found - product(&exact, i)).powi(2);
                size += product(&exact, i).powi(2);
            }
            let error = (off / size.max(1e-30)).sqrt();
            if inner >= 64 && rows * out >= 64 {
                println!("{what}, {tier:?}: off by {error:.4} of the exact product");
                assert!(error < 0.02, "{what}, {tier:?}: {error}");
            }
            let bits: Vec<u64> = found.iter().map(|x| x.to_bits()).collect();
            let mut first = first.lock().unwrap();
            assert!(first.get_or_insert_with(|| bits.clone()) == &bits, "{what}, {tier:?}: bits");
        });
    }

    /// Each that the processor has, not only the fastest: all bytes, but for rows −128.
    #[test]
    fn every_sum_is_that_of_whole_numbers() {
        let mut random = Random::new(116);
        for rows in 1..=ROWS {
            for depth in [0, 1, 2, random.below(64), random.below(257)] {
                let mut bytes = |count: usize, least: i8| -> Vec<[i8; 4]> {
                    let mut byte = || (random.bits() as i8).max(least);
                    (0..count).map(|_| [byte(), byte(), byte(), byte()]).collect()
                };
                let (a, b) = (bytes(depth * rows, -127), bytes(depth * COLUMNS, -128));
                let expected = |place: usize| -> i32 {
                    let (row, column) = (place / COLUMNS, place % COLUMNS);
                    let words = (0..depth)
                        .flat_map(|k| a[k * rows + row].into_iter().zip(b[k * COLUMNS + column]));
                    words.map(|(a, b)| i32::from(a) * i32::from(b)).sum()
                };
                let expected: Vec<i32> = (0..rows * COLUMNS).map(expected).collect();
                let words = |bytes: &[[i8; 4]]| -> Vec<u32> {
                    bytes.iter().map(|word| quad(&word.map(|byte| byte as u8))).collect()
                };
                let (a, b) = (words(&a), words(&b));
                in_every_tier(|tier| {
                    let all = sums_of(tier::current()).chain([portable as Sum]);
                    for (place, sum) in all.enumerate() {
                        let mut sums = vec![0; rows * COLUMNS];
                        // SAFETY: the processor has the instructions, and the sizes are these.
                        unsafe { sum(rows, &a, &b, &mut sums) };
                        assert!(sums == expected, "{tier:?}, {place}: {rows} rows, {depth} words");
                    }
                });
            }
        }
    }

    fn sizes(random: &mut Random) -> Vec<[usize; 3]> {
        let mut sizes = vec![[1, 1, 1], [5, 3, 33], [12, 2048, 32], [13, 4100, 70], [200, 65, 9]];
        sizes.extend((0..10).map(|_| [random.size(60), random.size(2500), random.size(100)]));
        sizes
    }

    #[test]
    fn every_tier_multiplies_rounded_rows_to_the_same_bits() {
        let mut random = Random::new(117);
        for [rows, inner, out] in sizes(&mut random) {
            // All bytes, −128 too.
            let bytes: Vec<u8> = (0..out * inner).map(|_| random.bits() as u8).collect();
            let scales = random.tensor(&[out], DType::F32);
            let of_rows = f64s(&scales);
            let weight = bytes.iter().enumerate();
            let weight: Vec<f64> =
                weight.map(|(i, byte)| f64::from(*byte as i8) * of_rows[i / inner]).collect();
            let bytes = Tensor::from_vec(bytes, (out, inner), &Device::Cpu).unwrap();
            let dtype = [DType::F32, DType::BF16][random.below(2)];
            let x = random.tensor(&[rows, inner], dtype);
            let packed = PackedMatrix::pack_int8(&bytes, &scales, None, Precision::Int8).unwrap();
            check(&format!("{rows}×{inner}×{out} {dtype:?}"), &x, &weight, inner, &packed);
        }
    }

    #[test]
    fn every_tier_multiplies_rounded_blocks_to_the_same_bits() {
        let mut random = Random::new(118);
        for [rows, inner, out] in sizes(&mut random) {
            let inner = inner.next_multiple_of(BLOCK);
            let wide: Vec<f32> = (0..out * inner).map(|_| random.number()).collect();
            let bytes = quantize_blocks(BlockType::Q8_0, &wide).unwrap();
            let mut weight = vec![0.0; out * inner];
            crate::widen_blocks(BlockType::Q8_0, &bytes, &mut weight);
            let weight: Vec<f64> = weight.into_iter().map(f64::from).collect();
            let bytes = Tensor::from_vec(bytes, (out, inner / BLOCK * 34), &Device::Cpu).unwrap();
            let dtype = [DType::F32, DType::BF16][random.below(2)];
            let x = random.tensor(&[rows, inner], dtype);
            let packed =
                PackedMatrix::pack_blocks(&bytes, BlockType::Q8_0, Precision::Int8Blocks).unwrap();
            check(&format!("{rows}×{inner}×{out} {dtype:?}"), &x, &weight, BLOCK, &packed);
        }
    }

    /// A row that holds what is no number gives none, and its neighbours theirs.
    #[test]
    fn what_is_no_number_stays_none() {
        let bytes = Tensor::ones((32, 64), DType::U8, &Device::Cpu).unwrap();
        let scales = Tensor::ones(32, DType::F32, &Device::Cpu).unwrap();
        let packed = PackedMatrix::pack_int8(&bytes, &scales, None, Precision::Int8).unwrap();
        for odd in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0f32; 192];
            x[70] = odd;
            x[128..].fill(0.0);
            let x = Tensor::from_vec(x, (3, 64), &Device::Cpu).unwrap();
            in_every_tier(|tier| {
                let found = linear_packed(&x, &packed, None, LinearEpilogue::None).unwrap();
                let found = f64s(&found);
                assert!((found[0] - 64.0).abs() < 1e-4, "{tier:?}: {}", found[0]);
                assert!(found[32].is_nan() && found[64] == 0.0, "{tier:?}");
            });
        }
    }

    /// Against products of bf16 of the same weights, in processor time: `cargo test --release -p
    /// kino-kernels int8_beside_bf16 -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn int8_beside_bf16() {
        let mut random = Random::new(119);
        let (inner, out) = (1536, 8960);
        let wide: Vec<f32> = (0..out * inner).map(|_| random.number()).collect();
        let blocks = quantize_blocks(BlockType::Q8_0, &wide).unwrap();
        let blocks = Tensor::from_vec(blocks, (out, inner / BLOCK * 34), &Device::Cpu).unwrap();
        let bytes: Vec<u8> = wide.iter().map(|x| (x * 127.0) as i8 as u8).collect();
        let bytes = Tensor::from_vec(bytes, (out, inner), &Device::Cpu).unwrap();
        let scales = random.tensor(&[out], DType::F32);
        let of_rows =
            |precision| PackedMatrix::pack_int8(&bytes, &scales, None, precision).unwrap();
        let of_blocks =
            |precision| PackedMatrix::pack_blocks(&blocks, BlockType::Q8_0, precision).unwrap();
        let pairs = [
            ("int8", of_rows(Precision::Int8), of_rows(Precision::Bf16)),
            ("Q8_0", of_blocks(Precision::Int8Blocks), of_blocks(Precision::Bf16)),
        ];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for rows in [1, 4, 64, 512] {
            let x = random.tensor(&[rows, inner], DType::BF16);
            for (name, narrow, wide) in &pairs {
                let mut least = [f64::MAX; 2];
                for _ in 0..5 {
                    for (least, matrix) in least.iter_mut().zip([narrow, wide]) {
                        let start = std::time::Instant::now();
                        pool.install(|| linear_packed(&x, matrix, None, LinearEpilogue::None))
                            .unwrap();
                        *least = least.min(start.elapsed().as_secs_f64());
                    }
                }
                let [narrow, wide] = least.map(|seconds| seconds * 1e3);
                println!(
                    "{name} {rows} rows: {narrow:.2} ms, bf16 {wide:.2}, {:.2}",
                    narrow / wide
                );
            }
        }
    }
}
