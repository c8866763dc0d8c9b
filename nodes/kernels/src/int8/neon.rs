//! Sums of products of whole numbers in NEON's 32 registers of four lanes.
//!
//! The compiler has no intrinsics for these instructions yet; an assembler takes them as they are.

use std::arch::aarch64::*;
use std::arch::asm;

use super::COLUMNS;

/// Rows whose sums are held at a time: with half the columns they fill 24 registers.
const ROWS: usize = 6;
/// Words in a register.
const LANES: usize = 4;
/// Registers of words that half the columns have.
const REGISTERS: usize = COLUMNS / 2 / LANES;

/// By `sdot` (FEAT_DotProd), which adds four products to each lane.
///
/// # Safety
/// As [`super::Sum`] says.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn sdot(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
    // SAFETY: the caller's contract.
    unsafe { in_blocks::<Sdot>(rows, a, b, sums) }
}

/// By `smmla` (FEAT_I8MM), which multiplies two rows of eight numbers by two columns.
///
/// # Safety
/// As [`super::Sum`] says.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn smmla(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
    // SAFETY: the caller's contract.
    unsafe { in_blocks::<Smmla>(rows, a, b, sums) }
}

/// Some rows of half the columns: `a` holds a word of each row every `rows` words, `b` and `sums`
/// those of the columns every [`COLUMNS`].
#[derive(Clone, Copy)]
struct Block {
    a: *const u32,
    rows: usize,
    depth: usize,
    b: *const u32,
    sums: *mut i32,
}

impl Block {
    /// Four words of the columns.
    ///
    /// # Safety
    /// They lie inside.
    #[inline(always)]
    unsafe fn columns(self, k: usize, register: usize) -> uint32x4_t {
        // SAFETY: the caller's contract.
        unsafe { vld1q_u32(self.b.add(k * COLUMNS + register * LANES)) }
    }

    /// A word of a row.
    ///
    /// # Safety
    /// It lies inside.
    #[inline(always)]
    unsafe fn row(self, k: usize, row: usize) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { *self.a.add(k * self.rows + row) }
    }

    /// Writes four sums of a row.
    ///
    /// # Safety
    /// They lie inside.
    #[inline(always)]
    unsafe fn write(self, row: usize, register: usize, sums: int32x4_t) {
        // SAFETY: the caller's contract.
        unsafe { vst1q_s32(self.sums.add(row * COLUMNS + register * LANES), sums) }
    }
}

/// How the sums of a block are computed.
trait Loop {
    /// Those of `R` rows.
    ///
    /// # Safety
    /// The factors and sums lie where the block says, on a processor with the instructions.
    unsafe fn write<const R: usize>(block: Block);
}

/// All sums, by blocks.
///
/// # Safety
/// As [`super::Sum`] says.
#[inline(always)]
unsafe fn in_blocks<L: Loop>(rows: usize, a: &[u32], b: &[u32], sums: &mut [i32]) {
    let depth = b.len() / COLUMNS;
    for column in [0, COLUMNS / 2] {
        for row in (0..rows).step_by(ROWS) {
            // SAFETY: half the columns are computed, of as many rows as are left; where there are
            // no words, none is read.
            unsafe {
                let b = b.as_ptr().wrapping_add(column);
                let sums = sums.as_mut_ptr().add(row * COLUMNS + column);
                let block = Block { a: a.as_ptr().wrapping_add(row), rows, depth, b, sums };
                match rows - row {
                    1 => L::write::<1>(block),
                    2 => L::write::<2>(block),
                    3 => L::write::<3>(block),
                    4 => L::write::<4>(block),
                    5 => L::write::<5>(block),
                    _ => L::write::<ROWS>(block),
                }
            }
        }
    }
}

struct Sdot;

impl Loop for Sdot {
    #[inline(always)]
    unsafe fn write<const R: usize>(block: Block) {
        // SAFETY: every processor of this architecture has NEON; `sdot` reads and writes these
        // registers alone. The words and sums lie inside.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); REGISTERS]; R];
            for k in 0..block.depth {
                let columns: [_; REGISTERS] = std::array::from_fn(|i| block.columns(k, i));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let row = vdupq_n_u32(block.row(k, row));
                    for (sums, columns) in sums.iter_mut().zip(columns) {
                        asm!(
                            "sdot {sums:v}.4s, {row:v}.16b, {columns:v}.16b",
                            sums = inout(vreg) *sums,
                            row = in(vreg) row,
                            columns = in(vreg) columns,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (i, sums) in sums.into_iter().enumerate() {
                    block.write(row, i, sums);
                }
            }
        }
    }
}

struct Smmla;

impl Smmla {
    /// Two words of two rows, one row after the other: at odd `k` there may be no second word, and
    /// zeros stand in for it. The last row may be its own neighbour.
    #[inline(always)]
    unsafe fn rows<const R: usize, const BOTH: bool>(
        block: Block,
        k: usize,
        pair: usize,
    ) -> uint32x4_t {
        // SAFETY: the words lie inside, as the callers vouch.
        unsafe {
            let [upper, lower] = [2 * pair, (2 * pair + 1).min(R - 1)];
            let of = |k| vset_lane_u32::<1>(block.row(k, lower), vdup_n_u32(block.row(k, upper)));
            let (first, none) = (of(k), vdup_n_u32(0));
            let second = if BOTH { of(k + 1) } else { none };
            vzip1q_u32(vcombine_u32(first, none), vcombine_u32(second, none))
        }
    }

    /// Adds the products of words `k` and, with `BOTH`, `k` + 1: sums `[pair][register]` are those
    /// of two columns, of the upper row and then of the lower.
    #[inline(always)]
    unsafe fn add<const R: usize, const BOTH: bool>(
        block: Block,
        k: usize,
        sums: &mut [[[int32x4_t; 2]; REGISTERS]],
    ) {
        // SAFETY: every processor of this architecture has NEON; `smmla` reads and writes these
        // registers alone. The words lie inside, as the callers vouch.
        unsafe {
            let mut rows = [vdupq_n_u32(0); ROWS / 2];
            for (pair, rows) in rows.iter_mut().enumerate().take(sums.len()) {
                *rows = Self::rows::<R, BOTH>(block, k, pair);
            }
            for i in 0..REGISTERS {
                let first = block.columns(k, i);
                let second = if BOTH { block.columns(k + 1, i) } else { vdupq_n_u32(0) };
                let columns = [vzip1q_u32(first, second), vzip2q_u32(first, second)];
                for (sums, rows) in sums.iter_mut().zip(rows) {
                    for (sums, columns) in sums[i].iter_mut().zip(columns) {
                        asm!(
                            "smmla {sums:v}.4s, {rows:v}.16b, {columns:v}.16b",
                            sums = inout(vreg) *sums,
                            rows = in(vreg) rows,
                            columns = in(vreg) columns,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
    }
}

impl Loop for Smmla {
    #[inline(always)]
    unsafe fn write<const R: usize>(block: Block) {
        // SAFETY: every processor of this architecture has NEON. The words and sums lie inside.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; REGISTERS]; ROWS / 2];
            let sums = &mut sums[..R.div_ceil(2)];
            for k in (0..block.depth / 2 * 2).step_by(2) {
                Self::add::<R, true>(block, k, sums);
            }
            if block.depth % 2 == 1 {
                Self::add::<R, false>(block, block.depth - 1, sums);
            }
            for (pair, sums) in sums.iter().enumerate() {
                for (i, [first, second]) in sums.iter().enumerate() {
                    let [first, second] = [*first, *second].map(|sums| vreinterpretq_s64_s32(sums));
                    let upper = vreinterpretq_s32_s64(vzip1q_s64(first, second));
                    block.write(2 * pair, i, upper);
                    if 2 * pair + 1 < R {
                        let lower = vreinterpretq_s32_s64(vzip2q_s64(first, second));
                        block.write(2 * pair + 1, i, lower);
                    }
                }
            }
        }
    }
}
