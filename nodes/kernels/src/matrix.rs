//! Results of products, cut into tiles for many threads.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Result;
use crate::cancel::CancelFlag;
use crate::tasks::each;

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

/// Matrices of one size, one after the other in memory, that are filled some rows at a time, and of
/// these some columns at a time.
pub(crate) struct Unfilled<T> {
    numbers: Vec<T>,
    groups: usize,
    size: [usize; 2],
    /// Rows of each that are filled.
    filled: usize,
    /// Of the rows behind them, up to which row, and up to which column, there are some.
    begun: [usize; 2],
    cancel: CancelFlag,
}

impl<T: Copy + Default + Send> Unfilled<T> {
    /// `groups` matrices of `[rows, columns]`.
    pub(crate) fn new(groups: usize, size: [usize; 2]) -> Self {
        let numbers = Vec::with_capacity(groups * size[0] * size[1]);
        Self { numbers, groups, size, filled: 0, begun: [0; 2], cancel: CancelFlag::of_thread() }
    }

    /// Fills the next rows of all matrices in parallel tiles, `fill(group, tile)`, which begin as
    /// zeros. Where they do not reach the last column, the next are of the same rows, and the
    /// columns behind.
    ///
    /// # Panics
    /// When the ranges do not follow one another.
    pub(crate) fn fill(
        &mut self,
        rows: &[Range<usize>],
        columns: &[Range<usize>],
        fill: impl Fn(usize, TileMut<'_, T>) + Sync + Send,
    ) {
        let [height, width] = self.size;
        let (end, [band, across]) = (follow(self.filled, rows), self.begun);
        let right = follow(across, columns);
        assert!(end <= height && right <= width && (across == 0 || end == band));
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
        each(tiles, |(group, mut tile)| {
            if !cancel.is_raised() {
                tile.clear();
                fill(group, tile);
            }
        });
        (self.filled, self.begun) =
            if right == width { (end, [end, 0]) } else { (self.filled, [end, right]) };
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
