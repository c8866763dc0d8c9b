//! Products of matrices, each on one thread, and their results cut into tiles for many.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

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

// SAFETY: a tile is exclusive access to its rectangle, as `&mut [f32]` is to a slice: the only
// constructors take a whole `&mut [f32]`, or cut one into rectangles that do not overlap.
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

/// Cuts a matrix of `[rows, columns]` into tiles of about `tile` and fills them in parallel.
///
/// How it is cut depends on the sizes alone.
pub(crate) fn for_each_tile(
    data: &mut [f32],
    [rows, columns]: [usize; 2],
    tile: [usize; 2],
    fill: impl Fn(TileMut) + Sync + Send,
) {
    let whole = TileMut::new(data, rows, columns, columns);
    let mut tiles = Vec::new();
    for rows in even_cuts(rows, tile[0]) {
        for columns in even_cuts(columns, tile[1]) {
            let first = rows.start * whole.step + columns.start;
            // SAFETY: the first element of a rectangle inside the whole; the rectangles come from
            // disjoint ranges of rows and columns, so that no two of them overlap.
            let start = unsafe { whole.start.add(first) };
            let rows = rows.clone();
            tiles.push(TileMut { start, step: whole.step, rows, columns, whole: PhantomData });
        }
    }
    tiles.into_par_iter().for_each(fill);
}

/// Cuts a length into ranges of at most `most`, all nearly equal.
fn even_cuts(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = length.div_ceil(most.max(1));
    (0..count).map(move |i| length * i / count..length * (i + 1) / count)
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on a buffer of this thread; what it holds at first is left from earlier work.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out meanwhile, so that work which comes back here gets a buffer of its own.
    let mut buffer = SCRATCH.take();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    SCRATCH.set(buffer);
    result
}
