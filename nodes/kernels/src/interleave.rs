//! Rows of bytes side by side, as panels hold them: number `c` of row `r` is byte `32·c + r`.

use crate::micro::COLUMNS;
use crate::tier::by_tier;

by_tier! {
    /// Interleaves up to 32 rows of `inner` bytes: a panel, which is zeros.
    pub(crate) fn interleave<FMA>(rows: &[u8], inner: usize, panel: &mut [u8]) {
        let count = (rows.len() / inner.max(1)).min(COLUMNS);
        let whole = inner - inner % SQUARE;
        for first in (0..count).step_by(SQUARE) {
            let rows = &rows[first * inner..];
            let count = SQUARE.min(count - first);
            for start in (0..whole).step_by(SQUARE) {
                let mut square = [[0; SQUARE]; SQUARE];
                for (row, numbers) in square.iter_mut().zip(rows.chunks_exact(inner)).take(count) {
                    row.copy_from_slice(&numbers[start..start + SQUARE]);
                }
                let panel = panel[start * COLUMNS..].chunks_exact_mut(COLUMNS);
                for (column, numbers) in panel.zip(transposed(square)) {
                    column[first..first + SQUARE].copy_from_slice(&numbers);
                }
            }
            for (column, row) in rows.chunks_exact(inner).take(count).enumerate() {
                let places = panel[whole * COLUMNS..].chunks_exact_mut(COLUMNS);
                places.zip(&row[whole..]).for_each(|(places, byte)| places[first + column] = *byte);
            }
        }
    }
}

/// Rows and columns of a square of bytes that registers hold.
const SQUARE: usize = 16;

/// Rows become columns: where rows i and i + 8 are interleaved, the highest bit of a row's number
/// becomes the lowest of a column's; after four times all have.
#[inline(always)]
fn transposed(mut square: [[u8; SQUARE]; SQUARE]) -> [[u8; SQUARE]; SQUARE] {
    for _ in 0..SQUARE.ilog2() {
        let mut next = [[0; SQUARE]; SQUARE];
        for row in 0..SQUARE / 2 {
            let (one, other) = (square[row], square[row + SQUARE / 2]);
            for half in 0..2 {
                for column in 0..SQUARE / 2 {
                    let from = half * SQUARE / 2 + column;
                    next[2 * row + half][2 * column] = one[from];
                    next[2 * row + half][2 * column + 1] = other[from];
                }
            }
        }
        square = next;
    }
    square
}
