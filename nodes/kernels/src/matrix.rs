//! Products of matrices, each on one thread, and their results cut into tiles for many.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::Result;
use crate::cancel::CancelFlag;

/// A matrix inside a slice: its first element is the first of `data`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after the other, `row_step` apart.
    pub(crate) fn rows(data: &'a [f32], row_step: usize) -> Self {
        Self { data, row_step, column_step: 1 }
    }

    /// The same with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { row_step: self.column_step, column_step: self.row_step, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows * columns == 0
            || (rows - 1) * self.row_step + (columns - 1) * self.column_step < self.data.len()
    }
}

/// A rectangle of a matrix that is being written: rows `step` apart, each contiguous.
pub(crate) struct TileMut<'a> {
    start: *mut f32,
    step: usize,
    /// Rows of the whole matrix that the tile covers.
    pub(crate) rows: Range<usize>,
    /// Columns of the whole matrix that the tile covers.
    pub(crate) columns: Range<usize>,
    whole: PhantomData<&'a mut [f32]>,
}

// SAFETY: a tile is exclusive access to its rectangle, as `&mut [f32]` is to a slice: it is made
// from a whole `&mut [f32]`, or by `filled_by_tiles`, whose rectangles do not overlap.
unsafe impl Send for TileMut<'_> {}

impl<'a> TileMut<'a> {
    /// A whole slice as a matrix of `columns`, rows `step` apart.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, step: usize) -> Self {
        assert!(columns <= step || rows <= 1, "rows overlap");
        let end = if rows * columns == 0 { 0 } else { (rows - 1) * step + columns };
        assert!(end <= data.len(), "{rows} rows of {columns}, {step} apart, in {}", data.len());
        let start = data.as_mut_ptr();
        Self { start, step, rows: 0..rows, columns: 0..columns, whole: PhantomData }
    }

    /// Writes zeros; the tile's memory need not have been initialised before.
    fn clear(&mut self) {
        for row in 0..self.rows.len() {
            // SAFETY: the row lies inside the memory that this tile stands for, exclusively ours.
            unsafe { self.start.add(row * self.step).write_bytes(0, self.columns.len()) };
        }
    }

    /// One row of the tile.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows.len());
        // SAFETY: the rectangle lies inside the slice that this tile borrows (checked when it was
        // made), `row` is one of its rows, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(row * self.step), self.columns.len())
        }
    }

    /// tile = lhs·rhs, or tile += lhs·rhs.
    ///
    /// `lhs` is `[rows, k]`, `rhs` `[k, columns]`. Rows of `lhs` may overlap: those of
    /// neighbouring pixels do.
    ///
    /// # Panics
    /// When a matrix does not lie inside its slice.
    pub(crate) fn multiply(&mut self, k: usize, lhs: Matrix, rhs: Matrix, accumulate: bool) {
        let (m, n) = (self.rows.len(), self.columns.len());
        assert!(lhs.holds(m, k), "lhs [{m}, {k}] lies outside its slice");
        assert!(rhs.holds(k, n), "rhs [{k}, {n}] lies outside its slice");
        // SAFETY: `gemm` touches exactly the elements of the three matrices. lhs and rhs lie inside
        // their slices (asserted above); the result is this tile's rectangle, which lies inside
        // its slice and is exclusively ours.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.start,
                1,
                self.step as isize,
                accumulate,
                lhs.data.as_ptr(),
                lhs.column_step as isize,
                lhs.row_step as isize,
                rhs.data.as_ptr(),
                rhs.column_step as isize,
                rhs.row_step as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

/// Fills `groups` matrices of `[rows, columns]`, one after the other in memory, in parallel tiles
/// of about `tile`: `fill(group, tile)`. Tiles begin as zeros. Fails when it is cancelled between
/// two tiles.
///
/// How they are cut depends on the sizes alone.
pub(crate) fn filled_by_tiles(
    groups: usize,
    [rows, columns]: [usize; 2],
    tile: [usize; 2],
    fill: impl Fn(usize, TileMut) + Sync + Send,
) -> Result<Vec<f32>> {
    let cancel = CancelFlag::of_thread();
    let length = groups * rows * columns;
    let mut out: Vec<f32> = Vec::with_capacity(length);
    let base = out.as_mut_ptr();
    let mut tiles = Vec::new();
    for group in 0..groups {
        for down in even_cuts(rows, tile[0]) {
            for across in even_cuts(columns, tile[1]) {
                let first = (group * rows + down.start) * columns + across.start;
                // SAFETY: `first` is less than `length`, which the capacity holds.
                let start = unsafe { base.add(first) };
                let (rows, columns_of_tile) = (down.clone(), across);
                let tile = TileMut {
                    start,
                    step: columns,
                    rows,
                    columns: columns_of_tile,
                    whole: PhantomData,
                };
                tiles.push((group, tile));
            }
        }
    }
    // The rectangles come from disjoint ranges of rows and columns, so that no two overlap, and
    // nothing else touches `out` until they are gone.
    tiles.into_par_iter().for_each(|(group, mut tile)| {
        if !cancel.is_raised() {
            tile.clear();
            fill(group, tile);
        }
    });
    cancel.check()?;
    // SAFETY: the capacity is at least `length`; the tiles cover `..length`, and each was cleared:
    // `check` fails where one was left out.
    unsafe { out.set_len(length) };
    Ok(out)
}

/// Cuts a length into ranges of at most `most`, all nearly equal.
fn even_cuts(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = length.div_ceil(most.max(1));
    (0..count).map(move |i| length * i / count..length * (i + 1) / count)
}
