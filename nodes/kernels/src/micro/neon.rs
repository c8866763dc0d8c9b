//! The innermost product in NEON's 32 registers of four lanes.

use std::arch::aarch64::*;

use super::{Block, COLUMNS};

/// Rows whose sums are held at a time.
const ROWS: usize = 6;
/// Registers of sums that a row has: half its columns. With those of all rows they are 24; four
/// hold words of the right factor, one a word of the left.
const REGISTERS: usize = COLUMNS / 2 / LANES;
/// Words in a register.
const LANES: usize = 4;

/// What a word is worth.
pub(super) trait Step {
    /// The sums, and the products of four words added.
    ///
    /// # Safety
    /// The processor has the instruction, and so has the function that this is compiled into.
    unsafe fn step(sums: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t;
}

/// A word is an f32.
pub(super) struct Single;
/// A word is a pair of bf16, each of which is widened.
pub(super) struct Widened;
/// A word is a pair of bf16, multiplied as such (FEAT_BF16).
struct Pair;

impl Step for Single {
    #[inline(always)]
    unsafe fn step(sums: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
        // SAFETY: every processor of this architecture has NEON.
        unsafe { vfmaq_f32(sums, vreinterpretq_f32_u32(a), vreinterpretq_f32_u32(b)) }
    }
}

impl Step for Widened {
    #[inline(always)]
    unsafe fn step(sums: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
        // SAFETY: every processor of this architecture has NEON.
        unsafe {
            let upper = vdupq_n_u32(0xffff_0000);
            let second = Single::step(sums, vandq_u32(a, upper), vandq_u32(b, upper));
            Single::step(second, vshlq_n_u32::<16>(a), vshlq_n_u32::<16>(b))
        }
    }
}

impl Step for Pair {
    #[inline(always)]
    unsafe fn step(mut sums: float32x4_t, a: uint32x4_t, b: uint32x4_t) -> float32x4_t {
        // The compiler has no intrinsic for it yet.
        // SAFETY: the instruction reads and writes these registers alone, and is there, as the
        // caller's contract demands.
        unsafe {
            std::arch::asm!(
                "bfdot {sums:v}.4s, {a:v}.8h, {b:v}.8h",
                sums = inout(vreg) sums,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

/// Products of pairs of bf16 by `bfdot`.
///
/// # Safety
/// As [`super::portable`], on a processor with FEAT_BF16.
#[target_feature(enable = "neon,bf16")]
pub(super) unsafe fn bf16<const PACKED: bool>(block: Block) {
    // SAFETY: the caller's contract.
    unsafe { product::<Pair, PACKED>(block) }
}

/// The product, half the columns and [`ROWS`] rows at a time.
///
/// # Safety
/// As [`super::portable`], on a processor with the instructions of the step.
#[inline(always)]
pub(super) unsafe fn product<S: Step, const PACKED: bool>(block: Block) {
    for half in [0, COLUMNS / 2] {
        for row in (0..block.rows).step_by(ROWS) {
            // SAFETY: half the columns are computed, of as many rows as are left.
            unsafe {
                let block = block.skip::<PACKED>(row, half);
                match block.rows {
                    1 => of_rows::<S, 1, PACKED>(block),
                    2 => of_rows::<S, 2, PACKED>(block),
                    3 => of_rows::<S, 3, PACKED>(block),
                    4 => of_rows::<S, 4, PACKED>(block),
                    5 => of_rows::<S, 5, PACKED>(block),
                    _ => of_rows::<S, ROWS, PACKED>(block),
                }
            }
        }
    }
}

/// `R` rows of half the columns.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn of_rows<S: Step, const R: usize, const PACKED: bool>(block: Block) {
    let Block { depth, b, c, step, accumulate, .. } = block;
    // SAFETY: every processor of this architecture has NEON.
    let zero = unsafe { vdupq_n_f32(0.0) };
    let mut sums = [[zero; REGISTERS]; R];
    for k in 0..depth {
        // SAFETY: `b` holds the words of this half for each `k`.
        let right: [_; REGISTERS] =
            std::array::from_fn(|i| unsafe { vld1q_u32(b.add(k * COLUMNS + i * LANES)) });
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `a` holds a word of each of `R` rows for each `k`.
            let a = unsafe { vdupq_n_u32(block.word::<PACKED>(row, k)) };
            for (sums, right) in sums.iter_mut().zip(right) {
                // SAFETY: the caller's contract.
                *sums = unsafe { S::step(*sums, a, right) };
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: the numbers of this half lie in each of the rows of `c`.
            unsafe {
                let place = c.add(row * step + i * LANES);
                let before = if accumulate { vld1q_f32(place) } else { zero };
                vst1q_f32(place, vaddq_f32(before, *sums));
            }
        }
    }
}
