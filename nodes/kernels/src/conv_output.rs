//! The result of a sum of convolutions: how it is cut into tasks, where its rows lie, and how sums
//! are finished. It knows nothing of how they are computed.

use std::ops::Range;

use crate::Result;
use crate::epilogue::Finish;
use crate::layout::Padding;
use crate::matrix::{TileMut, Unfilled, even_cuts};
use crate::number::Number;

/// What the tasks of one sum of convolutions share about their result.
pub(crate) struct Output<'a> {
    pub(crate) finish: Finish<'a>,
    pub(crate) cout: usize,
    /// Pixels of an output row, without padding.
    pub(crate) width: usize,
    pub(crate) padding: Padding,
}

/// Some output rows of a frame, and where they lie in the result.
pub(crate) struct Rows {
    pub(crate) frame: usize,
    /// Counted without padding.
    pub(crate) rows: Range<usize>,
    /// Rows of a plane of the result, and numbers of a row, padding included.
    high: usize,
    line: usize,
}

impl Output<'_> {
    /// The result `[t, top + h + bottom, left + w + right, cout]`, by `compute(rows, tile)` for some
    /// whole rows at a time: about `cut.0` of them, of the result with its padding, in multiples of
    /// `cut.1`.
    pub(crate) fn filled<T: Number>(
        &self,
        [t, h, _, _]: [usize; 4],
        cut: (usize, usize),
        compute: impl Fn(&Rows, TileMut<T>) + Sync + Send,
    ) -> Result<Vec<T>> {
        let [top, bottom, left, right] = self.padding;
        let (high, line) = (top + h + bottom, (left + self.width + right) * self.cout);
        let lines = even_cuts(0..high, cut.0, cut.1);
        let mut out = Unfilled::new(t, [high, line]);
        out.fill(&lines, std::slice::from_ref(&(0..line)), |frame, tile: TileMut<T>| {
            let inner = tile.rows.start.max(top)..tile.rows.end.min(top + h);
            if !inner.is_empty() {
                let rows = inner.start - top..inner.end - top;
                compute(&Rows { frame, rows, high, line }, tile);
            }
        });
        out.finish()
    }

    /// Output rows of one task: its sums stay in the second-level cache.
    pub(crate) fn rows_per_task(&self, height: usize) -> usize {
        let pixels = (96 * 1024 / self.cout).clamp(128, 512);
        (pixels / self.width).clamp(1, height)
    }

    /// Finishes the sums of row `row`.
    pub(crate) fn finish(&self, rows: &Rows, row: usize, sums: &mut [f32]) {
        let [top, _, left, _] = self.padding;
        let at = (rows.frame * rows.high + top + row) * rows.line + left * self.cout;
        self.finish.apply(sums, at);
    }

    /// The pixels of output row `row` in a tile, without padding.
    pub(crate) fn line<'t, T: Number>(
        &self,
        tile: &'t mut TileMut<'_, T>,
        row: usize,
    ) -> &'t mut [T] {
        let [top, _, left, _] = self.padding;
        let place = top + row - tile.rows.start;
        &mut tile.row(place)[left * self.cout..][..self.width * self.cout]
    }
}
