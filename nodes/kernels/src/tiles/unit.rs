//! A unit with tiles, as the loops use it and the instructions are it.

/// Rows of a tile, and the most words of a row.
pub(crate) const TILE: usize = 16;
/// Rows of a tile, and words of a row, for products of `depth` words: 0 to 3 hold sums, 4 and 5 the
/// left factor, 6 and 7 the right one.
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn shape(tile: usize, depth: usize) -> [usize; 2] {
    match tile {
        4 | 5 => [TILE, depth],
        6 | 7 => [depth, TILE],
        _ => [TILE, TILE],
    }
}

/// A unit with eight tiles, which hold products as [`shape`] says.
///
/// # Safety
/// Nothing but an implementation's own methods may change what its tiles hold.
pub(crate) trait Tiles {
    /// Sets a tile to zeros.
    fn zero<const T: usize>(&mut self);

    /// Reads a tile from its rows of words, `step` words apart.
    ///
    /// # Safety
    /// The rows lie in memory that may be read.
    unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize);

    /// Writes a tile as its rows of words, `step` words apart.
    ///
    /// # Safety
    /// The rows lie in memory that may be written.
    unsafe fn store<const T: usize>(&self, to: *mut u32, step: usize);

    /// Adds to the sums of tile `SUMS` the products of words of the rows of `A` and the columns of
    /// `B`: for each row m and column n, Σₖ A[m, k]·B[k, n] over words k of pairs of bf16.
    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self);

    /// The same of words of four bytes with signs; the sums are whole numbers.
    fn multiply_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self);
}
