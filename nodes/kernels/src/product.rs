//! The product of packed factors, in tiles that fit the caches.

use std::cell::RefCell;
use std::ops::Range;

use crate::Result;
use crate::buffer::with_scratch;
use crate::kernel::{Kernel, are_whole_blocks};
use crate::matrix::{TileMut, Unfilled, even_cuts};
use crate::micro::{COLUMNS, DEPTH, ROWS, multiply_rows};
use crate::number::{Number, Slice};
use crate::pack::{Lines, PackedRows, RowBlocks};
use crate::packed::PackedMatrix;

/// Rows that are packed at a time: few beside a matrix of activations, and enough for the weights
/// to be read from memory seldom. They are whole blocks of every kernel.
pub const PACKED_ROWS: usize = 1536;
/// Rows and columns of a task, in whole blocks of every kernel: what it reads again and again stays
/// in the second-level cache.
const TILE: [usize; 2] = [192, 8 * COLUMNS];
const _: () = assert!(are_whole_blocks(PACKED_ROWS) && are_whole_blocks(TILE[0]));
/// Tasks that are enough for any number of threads that shares a small product.
const SHARES: usize = 8;

thread_local! {
    static PANEL: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// c = a·b for some blocks of rows, and some panels of which words `depth` are read, as many as `a`
/// has: the sums of row `r` of block `i` lie from `(i·R + r)·step` on, counted from the first
/// block, where the kernel has blocks of `R` rows.
///
/// With `accumulate` they are added to what lies there.
///
/// Nothing here hands work to other threads: the thread's tiles are in use, where the kernel has
/// them.
pub(crate) fn blocks(
    a: RowBlocks,
    rows: Range<usize>,
    (b, depth): (&PackedMatrix, Range<usize>),
    panels: Range<usize>,
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let mut room = PANEL.take();
    let mut kernel = a.kernel.start();
    let of_block = a.kernel.layout().rows;
    let most = a.kernel.precision().depth();
    for start in (0..a.depth).step_by(most) {
        let words = start..(start + most).min(a.depth);
        let of_panel = depth.start + words.start..depth.start + words.end;
        for (across, panel) in panels.clone().enumerate() {
            let panel = b.panel(panel, of_panel.clone(), &mut room);
            for (down, block) in rows.clone().enumerate() {
                let (a, count) = a.block(block, words.clone());
                let c = &mut c[down * of_block * step + across * COLUMNS..];
                kernel.multiply(count, (a, panel), (c, step), accumulate || start > 0);
            }
        }
    }
    PANEL.set(room);
}

/// The same by vectors, of `rows` rows that are not packed: they lie `line` numbers apart, in the
/// type of the matrix.
pub(crate) fn rows_in_place(
    (a, line): (Slice, usize),
    rows: usize,
    (b, depth): (&PackedMatrix, Range<usize>),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let mut room = PANEL.take();
    let each = b.precision().in_word();
    for words in even_cuts(0..depth.len(), DEPTH, 1) {
        let of_panel = depth.start + words.start..depth.start + words.end;
        for index in 0..b.panels() {
            let panel = b.panel(index, of_panel.clone(), &mut room);
            for row in (0..rows).step_by(ROWS) {
                let a = a.skip(row * line + words.start * each);
                let c = &mut c[row * step + index * COLUMNS..];
                let accumulate = accumulate || words.start > 0;
                multiply_rows(ROWS.min(rows - row), (a, line), panel, (c, step), accumulate);
            }
        }
    }
    PANEL.set(room);
}

/// x·Wᵀ: `finish(row, columns, sums, out)` writes some columns of a row from their sums.
///
/// `x` is `[rows, inner]`; the result is `[rows, out]`.
pub(crate) fn product<T: Number>(
    x: Lines,
    rows: usize,
    weight: &PackedMatrix,
    finish: impl Fn(usize, Range<usize>, &mut [f32], &mut [T]) + Sync + Send,
) -> Result<Vec<T>> {
    let [out, inner] = weight.dims();
    let kernel = Kernel::of(weight.precision(), rows);
    let of_block = kernel.layout().rows;
    let [most, wide] = tile(kernel, [rows, out, inner]);
    let columns = even_cuts(0..out, wide, COLUMNS);
    let mut result = Unfilled::new(1, [rows, out]);
    for start in (0..rows).step_by(PACKED_ROWS) {
        let slab = start..(start + PACKED_ROWS).min(rows);
        let packed = PackedRows::new(x.skip(start), kernel, slab.len(), inner)?;
        let packed = packed.view();
        result.fill(&even_cuts(slab, most, of_block), &columns, |_, mut tile: TileMut<T>| {
            let (rows, columns) = (tile.rows.clone(), tile.columns.clone());
            let first = (rows.start - start) / of_block;
            let blocks_of = first..first + rows.len().div_ceil(of_block);
            let panels = columns.start / COLUMNS..columns.end.div_ceil(COLUMNS);
            let step = panels.len() * COLUMNS;
            with_scratch(blocks_of.len() * of_block * step, |sums| {
                let all = (weight, 0..weight.depth());
                blocks(packed, blocks_of, all, panels, (sums, step), false);
                for (row, sums) in sums.chunks_exact_mut(step).take(rows.len()).enumerate() {
                    let sums = &mut sums[..columns.len()];
                    finish(rows.start + row, columns.clone(), sums, tile.row(row));
                }
            });
        });
    }
    result.finish()
}

/// The tile of a product `[rows, out, inner]`: smaller where there would be few tasks, so that
/// small products are shared by threads, too.
fn tile(kernel: Kernel, [rows, out, inner]: [usize; 3]) -> [usize; 2] {
    let of_block = kernel.layout().rows;
    let wanted = (rows * out * inner / kernel.products_in_10_us()).clamp(1, SHARES);
    let [mut most, mut wide] = TILE;
    while rows.div_ceil(most) * out.div_ceil(wide) < wanted {
        if wide > COLUMNS {
            wide /= 2;
        } else if most > of_block {
            most = (most / 2).next_multiple_of(of_block);
        } else {
            break;
        }
    }
    [most, wide]
}
