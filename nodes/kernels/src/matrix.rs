//! Products of matrices, each on one thread, and their results cut into tiles for many.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::Result;
use crate::cancel::CancelFlag;
use crate::kernel::Kernel;
use crate::micro::{COLUMNS, Precision, ROWS, multiply, multiply_at};
use crate::number::Slice;
use crate::pack::Lines;
use crate::tier;

/// Terms of a sum at a time.
const DEPTH: usize = 256;
/// What multiplies where `gemm` does not.
const KERNEL: Kernel = Kernel::Vectors(Precision::F32);

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

    fn lines(self) -> Lines<'a> {
        let numbers = Slice::F32(self.data);
        Lines { numbers, first: 0, line: self.row_step, along: self.column_step }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows * columns == 0
            || (rows - 1) * self.row_step + (columns - 1) * self.column_step < self.data.len()
    }
}

/// A rectangle of a matrix that is being written: rows `step` apart, each contiguous.
pub(crate) struct TileMut<'a, T = f32> {
    start: *mut T,
    step: usize,
    /// Rows of the whole matrix that the tile covers.
    pub(crate) rows: Range<usize>,
    /// Columns of the whole matrix that the tile covers.
    pub(crate) columns: Range<usize>,
    whole: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is exclusive access to its rectangle, as `&mut [T]` is to a slice: it is made
// from a whole `&mut [T]`, or by `Unfilled::fill`, whose rectangles do not overlap.
unsafe impl<T: Send> Send for TileMut<'_, T> {}

impl<T: Copy + Default> TileMut<'_, T> {
    /// Writes zeros; the tile's memory need not have been initialised before.
    fn clear(&mut self) {
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                // SAFETY: the place lies in the memory that this tile stands for, exclusively ours.
                unsafe { self.start.add(row * self.step + column).write(T::default()) };
            }
        }
    }

    /// One row of the tile.
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows.len());
        // SAFETY: the rectangle lies inside the slice that this tile borrows (checked when it was
        // made), `row` is one of its rows, and `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(row * self.step), self.columns.len())
        }
    }
}

impl<'a> TileMut<'a> {
    /// A whole slice as a matrix of `columns`, rows `step` apart.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, step: usize) -> Self {
        assert!(columns <= step || rows <= 1, "rows overlap");
        let end = if rows * columns == 0 { 0 } else { (rows - 1) * step + columns };
        assert!(end <= data.len(), "{rows} rows of {columns}, {step} apart, in {}", data.len());
        let start = data.as_mut_ptr();
        Self { start, step, rows: 0..rows, columns: 0..columns, whole: PhantomData }
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
        if !tier::gemm_has_it() {
            return self.multiply_packed(k, lhs, rhs, accumulate);
        }
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

    /// The same by the kernels of this crate, in whatever tier: they pack both factors, which costs
    /// more than `gemm` does here.
    fn multiply_packed(&mut self, k: usize, lhs: Matrix, rhs: Matrix, accumulate: bool) {
        let (m, n) = (self.rows.len(), self.columns.len());
        let (left, right) = (lhs.lines(), rhs.lines().transposed());
        let panels = n.div_ceil(COLUMNS);
        with_words([m.div_ceil(ROWS) * ROWS * DEPTH, panels * COLUMNS * DEPTH], |a, b| {
            for start in (0..k).step_by(DEPTH) {
                let depth = start..(start + DEPTH).min(k);
                let length = depth.len();
                for (index, b) in b.chunks_exact_mut(COLUMNS * length).take(panels).enumerate() {
                    let first = index * COLUMNS;
                    let count = COLUMNS.min(n - first);
                    right.skip(first).pack_panel(Precision::F32, count, depth.clone(), b);
                }
                let accumulate = accumulate || start > 0;
                for first in (0..m).step_by(ROWS) {
                    let count = ROWS.min(m - first);
                    let a = &mut a[..count * length];
                    left.skip(first).pack_block(KERNEL, count, depth.clone(), a);
                    for (index, b) in b.chunks_exact(COLUMNS * length).take(panels).enumerate() {
                        self.add_block([first, index * COLUMNS], count, (a, b), accumulate);
                    }
                }
            }
        });
    }

    /// The sums of some rows and columns from `[row, column]` on.
    fn add_block(
        &mut self,
        [row, column]: [usize; 2],
        rows: usize,
        factors: (&[u32], &[u32]),
        accumulate: bool,
    ) {
        let wide = COLUMNS.min(self.columns.len() - column);
        if wide == COLUMNS {
            // SAFETY: these rows and columns lie in the rectangle, which is exclusively ours.
            unsafe {
                let place = self.start.add(row * self.step + column);
                multiply_at(Precision::F32, rows, factors, (place, self.step), accumulate);
            }
            return;
        }
        let mut sums = [0.0; ROWS * COLUMNS];
        multiply(Precision::F32, rows, factors, (&mut sums, COLUMNS), false);
        for (index, sums) in sums.chunks_exact(COLUMNS).take(rows).enumerate() {
            let places = &mut self.row(row + index)[column..];
            for (place, sum) in places.iter_mut().zip(sums) {
                *place = if accumulate { *place + sum } else { *sum };
            }
        }
    }
}

thread_local! {
    static WORDS: RefCell<[Vec<u32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Runs `work` on two buffers of words of this thread.
fn with_words(lengths: [usize; 2], work: impl FnOnce(&mut [u32], &mut [u32])) {
    let [mut a, mut b] = WORDS.take();
    for (words, length) in [(&mut a, lengths[0]), (&mut b, lengths[1])] {
        words.resize(words.len().max(length), 0);
    }
    work(&mut a[..lengths[0]], &mut b[..lengths[1]]);
    WORDS.set([a, b]);
}

/// Fills `groups` matrices of `[rows, columns]`, one after the other in memory, in parallel tiles
/// of about `tile`: `fill(group, tile)`. Tiles begin as zeros. Fails when it is cancelled between
/// two tiles.
///
/// How they are cut depends on the sizes alone.
pub(crate) fn filled_by_tiles<T: Copy + Default + Send>(
    groups: usize,
    [rows, columns]: [usize; 2],
    tile: [usize; 2],
    fill: impl Fn(usize, TileMut<'_, T>) + Sync + Send,
) -> Result<Vec<T>> {
    let mut out = Unfilled::new(groups, [rows, columns]);
    out.fill(&even_cuts(0..rows, tile[0], 1), &even_cuts(0..columns, tile[1], 1), fill);
    out.finish()
}

/// Matrices of one size, one after the other in memory, that are filled some rows at a time.
pub(crate) struct Unfilled<T> {
    numbers: Vec<T>,
    groups: usize,
    size: [usize; 2],
    /// Rows of each that are filled.
    filled: usize,
    cancel: CancelFlag,
}

impl<T: Copy + Default + Send> Unfilled<T> {
    /// `groups` matrices of `[rows, columns]`.
    pub(crate) fn new(groups: usize, size: [usize; 2]) -> Self {
        let numbers = Vec::with_capacity(groups * size[0] * size[1]);
        Self { numbers, groups, size, filled: 0, cancel: CancelFlag::of_thread() }
    }

    /// Fills the next rows of all matrices in parallel tiles, `fill(group, tile)`, which begin as
    /// zeros.
    ///
    /// # Panics
    /// When the ranges do not follow one another, or do not cover all columns.
    pub(crate) fn fill(
        &mut self,
        rows: &[Range<usize>],
        columns: &[Range<usize>],
        fill: impl Fn(usize, TileMut<'_, T>) + Sync + Send,
    ) {
        let [height, width] = self.size;
        let end = follow(self.filled, rows);
        assert!(end <= height && (follow(0, columns) == width || end == self.filled));
        let base = self.numbers.as_mut_ptr();
        let mut tiles = Vec::with_capacity(self.groups * rows.len() * columns.len());
        for group in 0..self.groups {
            for down in rows {
                for across in columns {
                    let first = (group * height + down.start) * width + across.start;
                    // SAFETY: `first` is at most the capacity.
                    let start = unsafe { base.add(first) };
                    let (rows, columns) = (down.clone(), across.clone());
                    let tile = TileMut { start, step: width, rows, columns, whole: PhantomData };
                    tiles.push((group, tile));
                }
            }
        }
        // The ranges of rows and of columns follow one another, so that no two rectangles overlap,
        // and nothing else touches the memory until they are gone.
        let cancel = &self.cancel;
        let fill_tile = |(group, mut tile): (usize, TileMut<'_, T>)| {
            if !cancel.is_raised() {
                tile.clear();
                fill(group, tile);
            }
        };
        match tiles.len() {
            1 => tiles.into_iter().for_each(fill_tile),
            _ => tiles.into_par_iter().for_each(fill_tile),
        }
        self.filled = end;
    }

    /// The matrices. Fails where it was cancelled.
    ///
    /// # Panics
    /// When rows were left out.
    pub(crate) fn finish(mut self) -> Result<Vec<T>> {
        self.cancel.check()?;
        let [height, width] = self.size;
        assert!(self.filled == height || width == 0, "rows are missing");
        // SAFETY: the capacity is at least this length; tiles covered all rows and columns of each
        // matrix, and each was cleared: `check` fails where one was left out.
        unsafe { self.numbers.set_len(self.groups * height * width) };
        Ok(self.numbers)
    }
}

/// Where ranges end that follow one another from `start` on.
fn follow(start: usize, ranges: &[Range<usize>]) -> usize {
    ranges.iter().fold(start, |end, range| {
        assert!(range.start == end && range.end >= end, "ranges with gaps");
        range.end
    })
}

/// Cuts a range into ranges of at most `most`, all nearly equal, that begin at multiples of `unit`
/// after its start. `most` is a multiple of it.
pub(crate) fn even_cuts(range: Range<usize>, most: usize, unit: usize) -> Vec<Range<usize>> {
    let units = range.len().div_ceil(unit);
    let count = units.div_ceil((most / unit).max(1));
    let place = |index: usize| (range.start + units * index / count * unit).min(range.end);
    (0..count).map(|index| place(index)..place(index + 1)).collect()
}
