//! Which innermost product computes, and how the blocks of rows lie that it reads.
//!
//! All read the same panels of the right factor, so that a matrix is packed once for any of them.

use crate::int8;
use crate::micro::{self, Precision};
use crate::tier;
use crate::tiles::{self, AmxTiles, Tiles};

/// An innermost product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Sums in vector registers ([`micro`]): every tier has it, for numbers of either precision.
    Vectors(Precision),
    /// Sums in tiles ([`tiles`]): of bf16 and of whole numbers.
    Tiles(Precision),
}

/// How blocks of rows lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLayout {
    /// Rows of a block; the last may have fewer.
    pub(crate) rows: usize,
    /// Rows of zeros are added to a block up to a multiple of this; their sums are computed, too.
    pub(crate) row_unit: usize,
    /// Words of a row that lie side by side, then those of the next row; words of zeros are added
    /// to rows up to a multiple of it.
    pub(crate) run: usize,
}

impl RowLayout {
    /// Rows, those of zeros included.
    pub(crate) fn padded_rows(self, rows: usize) -> usize {
        rows.next_multiple_of(self.row_unit)
    }

    /// Words of a row, those of zeros included.
    pub(crate) fn padded_depth(self, words: usize) -> usize {
        words.next_multiple_of(self.run)
    }
}

/// Whether so many rows are whole blocks of every kernel.
pub(crate) const fn are_whole_blocks(rows: usize) -> bool {
    rows.is_multiple_of(micro::ROWS) && rows.is_multiple_of(tiles::ROWS)
}

/// Rows from which tiles are taken: up to four, vectors multiply 2 KiB of a panel (16 words of 32
/// columns) in at most 128 cycles, one `vdpbf16ps` a cycle. To read them takes as long from beyond
/// the second-level cache (about 16 bytes a cycle), and longer from memory. Tiles would wait for
/// the same bytes, multiply twelve rows of zeros, and write as many.
const LEAST_ROWS: usize = 5;

impl Kernel {
    /// The one for a product of so many rows. It is the same on any number of threads, and for all
    /// tasks of the product.
    pub(crate) fn of(precision: Precision, rows: usize) -> Self {
        match precision {
            Precision::F32 => Self::Vectors(precision),
            _ if rows >= LEAST_ROWS && tier::has_tiles() => Self::Tiles(precision),
            _ => Self::Vectors(precision),
        }
    }

    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::Vectors(precision) | Self::Tiles(precision) => precision,
        }
    }

    pub(crate) const fn layout(self) -> RowLayout {
        match self {
            Self::Vectors(_) => RowLayout { rows: micro::ROWS, row_unit: 1, run: 1 },
            Self::Tiles(precision) => {
                let run = match precision {
                    Precision::Int8Blocks => micro::BLOCK_WORDS,
                    _ => tiles::TILE,
                };
                RowLayout { rows: tiles::ROWS, row_unit: tiles::TILE, run }
            }
        }
    }

    /// Products of two numbers that take about 10 µs.
    pub(crate) fn products_in_10_us(self) -> usize {
        match self {
            Self::Vectors(Precision::F32 | Precision::Bf16) => 1 << 20,
            Self::Vectors(Precision::Int8 | Precision::Int8Blocks) => 1 << 22,
            Self::Tiles(Precision::Int8) => 1 << 24,
            Self::Tiles(_) => 1 << 23,
        }
    }

    /// Makes this thread ready to multiply, until the result is dropped.
    pub(crate) fn start(self) -> Multiplier {
        match self {
            Self::Vectors(precision) => Multiplier::Vectors(precision),
            Self::Tiles(precision) => {
                let depth = match precision {
                    Precision::Int8Blocks => micro::BLOCK / precision.in_word(),
                    _ => tiles::TILE,
                };
                match AmxTiles::configure(depth) {
                    Some(tiles) => Multiplier::Tiles(tiles, precision),
                    #[cfg(test)]
                    None => {
                        Multiplier::Software(Box::new(tiles::SoftwareTiles::new(depth)), precision)
                    }
                    #[cfg(not(test))]
                    None => unreachable!("tiles are taken where they are granted"),
                }
            }
        }
    }
}

/// A kernel at work on a thread. Nothing that may run another's work on this thread (such as rayon)
/// is called meanwhile: tiles are the thread's own state.
pub(crate) enum Multiplier {
    Vectors(Precision),
    Tiles(AmxTiles, Precision),
    /// What the instructions do, computed without them.
    #[cfg(test)]
    Software(Box<tiles::SoftwareTiles>, Precision),
}

impl Multiplier {
    /// c = a·b, or c += a·b: `rows` rows of 32 sums, `step` apart in `c`, and those of
    /// the rows of zeros in the layout of the block.
    ///
    /// `a` holds a block of rows in the kernel's layout, `b` a panel of as many words.
    ///
    /// # Panics
    /// When a factor or the sums do not lie in their slices.
    pub(crate) fn multiply(
        &mut self,
        rows: usize,
        factors: (&[u32], &[u32]),
        sums: (&mut [f32], usize),
        accumulate: bool,
    ) {
        match self {
            Self::Vectors(precision) => match precision {
                Precision::F32 => micro::multiply::<false>(rows, factors, sums, accumulate),
                Precision::Bf16 => micro::multiply::<true>(rows, factors, sums, accumulate),
                Precision::Int8 => int8::multiply(false, rows, factors, sums, accumulate),
                Precision::Int8Blocks => int8::multiply(true, rows, factors, sums, accumulate),
            },
            Self::Tiles(tiles, precision) => {
                multiply_in_tiles(tiles, *precision, rows, factors, sums, accumulate);
            }
            #[cfg(test)]
            Self::Software(tiles, precision) => {
                multiply_in_tiles(&mut **tiles, *precision, rows, factors, sums, accumulate);
            }
        }
    }
}

fn multiply_in_tiles(
    tiles: &mut impl Tiles,
    precision: Precision,
    rows: usize,
    factors: (&[u32], &[u32]),
    sums: (&mut [f32], usize),
    accumulate: bool,
) {
    match precision {
        Precision::Int8 => int8::multiply_rows_in_tiles(tiles, rows, factors, sums, accumulate),
        Precision::Int8Blocks => {
            int8::multiply_blocks_in_tiles(tiles, rows, factors, sums, accumulate);
        }
        Precision::F32 | Precision::Bf16 => {
            tiles::multiply(tiles, rows, factors, sums, accumulate);
        }
    }
}
