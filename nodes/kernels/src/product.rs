//! The product of packed factors, in tiles that fit the caches.

use std::cell::RefCell;
use std::ops::Range;

use crate::Result;
use crate::buffer::with_scratch;
use crate::matrix::{TileMut, Unfilled, even_cuts};
use crate::micro::{COLUMNS, ROWS, multiply};
use crate::number::Number;
use crate::pack::{Lines, PackedRows, RowBlocks, Slice};
use crate::packed::PackedMatrix;

/// Words of a sum at a time: those of a panel fit the first-level cache.
pub(crate) const DEPTH: usize = 256;
/// Rows that are packed at a time: few beside a matrix of activations, and enough for the weights
/// to be read from memory seldom.
pub const PACKED_ROWS: usize = 128 * ROWS;
/// Rows and columns of a task: what it reads again and again stays in the second-level cache.
const TILE: [usize; 2] = [16 * ROWS, 8 * COLUMNS];
/// Products of two numbers below which a task is not cut further: about 10 µs.
const LEAST: usize = 1 << 20;
/// Tasks that are enough for any number of threads that shares a small product.
const SHARES: usize = 8;

thread_local! {
    static PANEL: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// c = a·b for some blocks of rows, and some panels of which words `depth` are read, as many as `a`
/// has: the sums of row `r` of block `i` lie from `(i·ROWS + r)·step` on, counted from the first
/// block.
pub(crate) fn blocks(
    a: RowBlocks,
    rows: Range<usize>,
    (b, depth): (&PackedMatrix, Range<usize>),
    panels: Range<usize>,
    (c, step): (&mut [f32], usize),
) {
    let mut room = PANEL.take();
    for start in (0..a.depth).step_by(DEPTH) {
        let words = start..(start + DEPTH).min(a.depth);
        let of_panel = depth.start + words.start..depth.start + words.end;
        for (across, panel) in panels.clone().enumerate() {
            let panel = b.panel(panel, of_panel.clone(), &mut room);
            for (down, block) in rows.clone().enumerate() {
                let (a, count) = a.block(block, words.clone());
                let c = &mut c[down * ROWS * step + across * COLUMNS..];
                multiply(b.precision(), count, (a, panel), (c, step), start > 0);
            }
        }
    }
    PANEL.set(room);
}

/// x·Wᵀ: `finish(row, columns, sums, out)` writes some columns of a row from their sums.
///
/// `x` is `[rows, inner]`, row-major; the result is `[rows, out]`.
pub(crate) fn product<T: Number>(
    x: Slice,
    rows: usize,
    weight: &PackedMatrix,
    finish: impl Fn(usize, Range<usize>, &mut [f32], &mut [T]) + Sync + Send,
) -> Result<Vec<T>> {
    let [out, inner] = weight.dims();
    let lines = Lines::rows(x, inner);
    let [most, wide] = tile(rows, out, inner);
    let columns = even_cuts(0..out, wide, COLUMNS);
    let mut result = Unfilled::new(1, [rows, out]);
    for start in (0..rows).step_by(PACKED_ROWS) {
        let slab = start..(start + PACKED_ROWS).min(rows);
        let packed = PackedRows::new(lines.skip(start), weight.precision(), slab.len(), inner)?;
        let packed = packed.view();
        result.fill(&even_cuts(slab, most, ROWS), &columns, |_, mut tile: TileMut<T>| {
            let (rows, columns) = (tile.rows.clone(), tile.columns.clone());
            let first = (rows.start - start) / ROWS;
            let blocks_of = first..first + rows.len().div_ceil(ROWS);
            let panels = columns.start / COLUMNS..columns.end.div_ceil(COLUMNS);
            let step = panels.len() * COLUMNS;
            with_scratch(blocks_of.len() * ROWS * step, |sums| {
                let all = (weight, 0..weight.depth());
                blocks(packed, blocks_of, all, panels, (sums, step));
                for (row, sums) in sums.chunks_exact_mut(step).take(rows.len()).enumerate() {
                    let sums = &mut sums[..columns.len()];
                    finish(rows.start + row, columns.clone(), sums, tile.row(row));
                }
            });
        });
    }
    result.finish()
}

/// The tile of a product: smaller where there would be few tasks, so that small products are
/// shared by threads, too.
fn tile(rows: usize, out: usize, inner: usize) -> [usize; 2] {
    let wanted = (rows * out * inner / LEAST).clamp(1, SHARES);
    let [mut most, mut wide] = TILE;
    while rows.div_ceil(most) * out.div_ceil(wide) < wanted {
        if wide > COLUMNS {
            wide /= 2;
        } else if most > ROWS {
            most = (most / 2).next_multiple_of(ROWS);
        } else {
            break;
        }
    }
    [most, wide]
}
