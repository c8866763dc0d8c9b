//! The innermost product of bf16 and of whole numbers of eight bits in tiles: Intel's AMX (Software
//! Developer's Manual, volume 2, `TDPBF16PS` and `TDPBSSD`).
//!
//! A tile is a register of 16 rows of 64 bytes. One instruction multiplies a tile of 16 rows of 16
//! words (pairs of bf16, or four bytes) by one of 16 words of 16 columns, and adds to 16×16 sums of
//! f32, or of whole numbers of 32 bits. Four tiles of sums, two of rows and two of columns are the
//! eight that there are: a block of 32×32 sums, for which each tile that is loaded is used twice.
//!
//! A panel lies as tiles need it: a word of all columns is a row of a tile. Where words or rows are
//! no multiple of 16, zeros stand in for the rest. For blocks of fewer words tiles are configured
//! as shallow as those.

mod unit;

use crate::micro::COLUMNS;
#[cfg(test)]
use unit::shape;
pub(crate) use unit::{TILE, Tiles};

/// Rows that are computed at a time.
pub(crate) const ROWS: usize = 2 * TILE;

/// c = a·b, or c += a·b: `rows` rows (at most [`ROWS`]) of [`COLUMNS`] sums, `step` apart in `c`,
/// and those of rows of zeros up to a multiple of [`TILE`].
///
/// `a` holds a tile after another, of each 16 words one or two; `b` any number of words of
/// [`COLUMNS`] columns.
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn multiply(
    tiles: &mut impl Tiles,
    rows: usize,
    (a, b): (&[u32], &[u32]),
    (c, step): (&mut [f32], usize),
    accumulate: bool,
) {
    let padded = rows.next_multiple_of(TILE);
    assert!(rows > 0 && rows <= ROWS && b.len().is_multiple_of(COLUMNS));
    assert!(a.len() == (b.len() / COLUMNS).next_multiple_of(TILE) * padded);
    assert!(step >= COLUMNS && c.len() >= (padded - 1) * step + COLUMNS);
    let before = accumulate.then_some((c.as_ptr().cast(), step));
    let after = (c.as_mut_ptr().cast(), step);
    // SAFETY: the factors and the sums lie in their slices with these sizes.
    unsafe {
        match padded {
            TILE => sums::<_, false, false>(tiles, a.as_ptr(), b, before, after),
            _ => sums::<_, false, true>(tiles, a.as_ptr(), b, before, after),
        }
    }
}

/// The sums of products of bytes with signs: `out` are those of `rows` rows, a multiple of
/// [`TILE`], of [`COLUMNS`]. The factors are as those of [`multiply`].
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn sum_bytes(
    tiles: &mut impl Tiles,
    rows: usize,
    (a, b): (&[u32], &[u32]),
    out: &mut [i32],
) {
    assert!(rows == TILE || rows == ROWS);
    assert!(b.len().is_multiple_of(COLUMNS) && out.len() == rows * COLUMNS);
    assert!(a.len() == (b.len() / COLUMNS).next_multiple_of(TILE) * rows);
    let after = (out.as_mut_ptr().cast(), COLUMNS);
    // SAFETY: the factors and the sums lie in their slices with these sizes.
    unsafe {
        match rows {
            TILE => sums::<_, true, false>(tiles, a.as_ptr(), b, None, after),
            _ => sums::<_, true, true>(tiles, a.as_ptr(), b, None, after),
        }
    }
}

/// The same of as few words as tiles are configured for, `depth`: those of a row of `a` lie beside
/// one another, `line` from the next.
///
/// # Panics
/// When a factor or the sums do not lie in their slices.
pub(crate) fn sum_few_bytes(
    tiles: &mut impl Tiles,
    (rows, depth): (usize, usize),
    (a, line, b): (&[u32], usize, &[u32]),
    out: &mut [i32],
) {
    assert!((rows == TILE || rows == ROWS) && depth <= TILE && depth <= line);
    assert!(a.len() == rows * line && b.len() == depth * COLUMNS && out.len() == rows * COLUMNS);
    let (a, b, to) = (a.as_ptr(), b.as_ptr(), out.as_mut_ptr().cast());
    // SAFETY: the factors and the sums lie in their slices with these sizes.
    unsafe {
        match rows {
            TILE => {
                begin::<_, false>(tiles, None);
                add_products::<_, true, false>(tiles, (a, line), b);
                end::<_, false>(tiles, (to, COLUMNS));
            }
            _ => {
                begin::<_, true>(tiles, None);
                add_products::<_, true, true>(tiles, (a, line), b);
                end::<_, true>(tiles, (to, COLUMNS));
            }
        }
    }
}

/// Sums of pairs of bf16, or of `BYTES`: those of one tile of rows, or `TWO`.
///
/// # Safety
/// `a` holds a tile of each 16 words, or two, and the sums are as many rows of [`COLUMNS`] words,
/// so many apart.
unsafe fn sums<T: Tiles, const BYTES: bool, const TWO: bool>(
    tiles: &mut T,
    a: *const u32,
    b: &[u32],
    before: Option<(*const u32, usize)>,
    after: (*mut u32, usize),
) {
    // SAFETY: the contract of the sums is this function's.
    unsafe { begin::<T, TWO>(tiles, before) };
    let of_words = if TWO { ROWS * TILE } else { TILE * TILE };
    let (whole, rest) = b.as_chunks::<{ TILE * COLUMNS }>();
    for (index, b) in whole.iter().enumerate() {
        // SAFETY: `a` holds tiles for each 16 words of `b`.
        unsafe {
            let a = a.add(index * of_words);
            add_products::<T, BYTES, TWO>(tiles, (a, TILE), b.as_ptr());
        }
    }
    if !rest.is_empty() {
        // What follows the panel must not meet the zeros of `a`: it may be no number.
        let mut filled = [0; TILE * COLUMNS];
        filled[..rest.len()].copy_from_slice(rest);
        // SAFETY: as above, for the last words.
        unsafe {
            let a = a.add(whole.len() * of_words);
            add_products::<T, BYTES, TWO>(tiles, (a, TILE), filled.as_ptr());
        }
    }
    // SAFETY: as where the sums were begun.
    unsafe { end::<T, TWO>(tiles, after) };
}

/// The sums to add to, or zeros: tiles 0 and 1 hold those of the upper rows, 2 and 3 those of the
/// lower.
///
/// # Safety
/// The sums are rows of one tile, or `TWO`, of [`COLUMNS`] words, so many apart.
#[inline(always)]
unsafe fn begin<T: Tiles, const TWO: bool>(tiles: &mut T, before: Option<(*const u32, usize)>) {
    let Some((c, step)) = before else {
        tiles.zero::<0>();
        tiles.zero::<1>();
        tiles.zero::<2>();
        tiles.zero::<3>();
        return;
    };
    // SAFETY: the rows are those of the contract.
    unsafe {
        tiles.load::<0>(c, step);
        tiles.load::<1>(c.add(TILE), step);
        if TWO {
            tiles.load::<2>(c.add(TILE * step), step);
            tiles.load::<3>(c.add(TILE * step + TILE), step);
        }
    }
}

/// Writes the sums.
///
/// # Safety
/// As [`begin`].
#[inline(always)]
unsafe fn end<T: Tiles, const TWO: bool>(tiles: &T, (c, step): (*mut u32, usize)) {
    // SAFETY: the rows are those of the contract.
    unsafe {
        tiles.store::<0>(c, step);
        tiles.store::<1>(c.add(TILE), step);
        if TWO {
            tiles.store::<2>(c.add(TILE * step), step);
            tiles.store::<3>(c.add(TILE * step + TILE), step);
        }
    }
}

/// Adds the products of as many words as tiles are configured for.
///
/// # Safety
/// `a` holds the rows of one tile, or `TWO`, `line` words apart, `b` words of [`COLUMNS`] columns.
#[inline(always)]
unsafe fn add_products<T: Tiles, const BYTES: bool, const TWO: bool>(
    tiles: &mut T,
    (a, line): (*const u32, usize),
    b: *const u32,
) {
    // SAFETY: `b` has the rows of two tiles, `a` what the contract says.
    unsafe {
        tiles.load::<6>(b, COLUMNS);
        tiles.load::<4>(a, line);
        add::<T, BYTES, 0, 4, 6>(tiles);
        tiles.load::<7>(b.add(TILE), COLUMNS);
        add::<T, BYTES, 1, 4, 7>(tiles);
        if TWO {
            tiles.load::<5>(a.add(TILE * line), line);
            add::<T, BYTES, 2, 5, 6>(tiles);
            add::<T, BYTES, 3, 5, 7>(tiles);
        }
    }
}

#[inline(always)]
fn add<T: Tiles, const BYTES: bool, const SUMS: usize, const A: usize, const B: usize>(
    tiles: &mut T,
) {
    match BYTES {
        true => tiles.multiply_bytes::<SUMS, A, B>(),
        false => tiles.multiply::<SUMS, A, B>(),
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::AmxTiles;

/// Tiles that there are none of.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) enum AmxTiles {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl AmxTiles {
    pub(crate) fn configure(_: usize) -> Option<Self> {
        None
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl Tiles for AmxTiles {
    fn zero<const T: usize>(&mut self) {
        match *self {}
    }

    unsafe fn load<const T: usize>(&mut self, _: *const u32, _: usize) {
        match *self {}
    }

    unsafe fn store<const T: usize>(&self, _: *mut u32, _: usize) {
        match *self {}
    }

    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        match *self {}
    }

    fn multiply_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        match *self {}
    }
}

/// Tiles in plain memory that do exactly what the instructions do.
#[cfg(test)]
pub(crate) struct SoftwareTiles {
    tiles: [[[u32; TILE]; TILE]; 8],
    depth: usize,
}

#[cfg(test)]
impl SoftwareTiles {
    /// Those that are configured for products of so many words.
    pub(crate) fn new(depth: usize) -> Self {
        Self { tiles: [[[0; TILE]; TILE]; 8], depth }
    }
}

#[cfg(test)]
impl Tiles for SoftwareTiles {
    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = [[0; TILE]; TILE];
    }

    /// What lies beyond the shape becomes zeros.
    unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize) {
        self.zero::<T>();
        let [rows, words] = shape(T, self.depth);
        for (index, row) in self.tiles[T][..rows].iter_mut().enumerate() {
            // SAFETY: the caller vouches for the rows.
            let from = unsafe { std::slice::from_raw_parts(from.add(index * step), words) };
            row[..words].copy_from_slice(from);
        }
    }

    unsafe fn store<const T: usize>(&self, to: *mut u32, step: usize) {
        let [rows, words] = shape(T, self.depth);
        for (index, row) in self.tiles[T][..rows].iter().enumerate() {
            // SAFETY: the caller vouches for the rows.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(index * step), words) };
            to.copy_from_slice(&row[..words]);
        }
    }

    /// The even numbers of the words are summed by fused multiply-add from the first word on, the
    /// odd ones likewise, then both together are added to the sum; rounding is to the nearest, and
    /// what is denormal counts as zero.
    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.tiles[A], self.tiles[B]);
        for (sums, a) in self.tiles[SUMS].iter_mut().zip(a) {
            for (n, sum) in sums.iter_mut().enumerate() {
                let [mut even, mut odd] = [0.0f32; 2];
                for (a, b) in a.iter().zip(b.map(|row| row[n])) {
                    even = flushed(normal(a << 16).mul_add(normal(b << 16), even));
                    let upper = 0xffff_0000;
                    odd = flushed(normal(a & upper).mul_add(normal(b & upper), odd));
                }
                *sum = flushed(normal(*sum) + flushed(even + odd)).to_bits();
            }
        }
    }

    /// Sums wrap around, and none of them is held at a limit.
    fn multiply_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.tiles[A], self.tiles[B]);
        for (sums, a) in self.tiles[SUMS].iter_mut().zip(a) {
            for (n, sum) in sums.iter_mut().enumerate() {
                for (a, b) in a.iter().zip(b.map(|row| row[n])) {
                    for (a, b) in a.to_le_bytes().into_iter().zip(b.to_le_bytes()) {
                        let product = i32::from(a as i8) * i32::from(b as i8);
                        *sum = sum.wrapping_add_signed(product);
                    }
                }
            }
        }
    }
}

/// A number by its bits, zero in place of a denormal.
#[cfg(test)]
fn normal(bits: u32) -> f32 {
    flushed(f32::from_bits(bits))
}

#[cfg(test)]
fn flushed(number: f32) -> f32 {
    if number.is_subnormal() { 0.0f32.copysign(number) } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::micro::Precision;
    use crate::number::Slice;
    use crate::pack::{Lines, PackedRows};
    use crate::random::Random;

    /// Factors of bf16 and what a block of their product holds at first.
    struct Case {
        rows: usize,
        inner: usize,
        x: Vec<f32>,
        /// `[inner, COLUMNS]`
        y: Vec<f32>,
        /// The same packed, and then what is no number.
        panel: Vec<u32>,
        before: Vec<f32>,
    }

    /// Numbers between two rows of sums.
    const STEP: usize = COLUMNS + 3;

    impl Case {
        fn new(random: &mut Random, rows: usize, inner: usize) -> Self {
            let mut halves = |count: usize| -> Vec<f32> {
                let half = |x: f32| half::bf16::from_f32(x).to_f32();
                (0..count).map(|_| half(random.number())).collect()
            };
            let (x, y) = (halves(rows * inner), halves(inner * COLUMNS));
            let words = inner.div_ceil(2) * COLUMNS;
            let mut panel = vec![f32::NAN.to_bits(); words + TILE * COLUMNS];
            let columns = Lines::rows(Slice::F32(&y), COLUMNS).transposed();
            columns.pack_panel(Precision::Bf16, COLUMNS, 0..inner, &mut panel[..words]);
            let before = (0..ROWS * STEP).map(|_| random.number()).collect();
            Self { rows, inner, x, y, panel, before }
        }

        fn run(&self, tiles: &mut impl Tiles, accumulate: bool) -> Vec<f32> {
            let lines = Lines::rows(Slice::F32(&self.x), self.inner);
            let packed =
                PackedRows::in_task(lines, Kernel::Tiles(Precision::Bf16), self.rows, self.inner);
            let words = self.inner.div_ceil(2);
            let (block, rows) = packed.view().block(0, 0..words);
            let panel = &self.panel[..words * COLUMNS];
            let mut sums = self.before.clone();
            multiply(tiles, rows, (block, panel), (&mut sums, STEP), accumulate);
            sums
        }
    }

    fn cases(seed: u64) -> Vec<Case> {
        let mut random = Random::new(seed);
        let mut sizes = vec![[1, 1], [16, 32], [17, 33], [32, 512], [31, 511]];
        sizes.extend((0..40).map(|_| [1 + random.below(ROWS), 1 + random.below(200)]));
        sizes.into_iter().map(|[rows, inner]| Case::new(&mut random, rows, inner)).collect()
    }

    /// Rows and words that fill their tiles, and such that do not.
    #[test]
    fn a_block_of_sums_is_that_of_f64() {
        for case in cases(211) {
            for accumulate in [false, true] {
                let found = case.run(&mut SoftwareTiles::new(TILE), accumulate);
                for (place, found) in found.iter().enumerate() {
                    let (row, column) = (place / STEP, place % STEP);
                    let before = case.before[place];
                    if row >= case.rows.next_multiple_of(TILE) || column >= COLUMNS {
                        assert_eq!(*found, before, "nothing beside the sums is written");
                        continue;
                    }
                    if row >= case.rows {
                        continue;
                    }
                    let products = (0..case.inner).map(|k| {
                        let x = f64::from(case.x[row * case.inner + k]);
                        x * f64::from(case.y[k * COLUMNS + column])
                    });
                    let first = if accumulate { f64::from(before) } else { 0.0 };
                    let expected = first + products.sum::<f64>();
                    let limit = 1e-7 * (case.inner as f64 + 8.0);
                    let gap = (f64::from(*found) - expected).abs();
                    let [rows, inner] = [case.rows, case.inner];
                    assert!(gap <= limit, "{rows}×{inner} at {row}, {column}: off by {gap:.1e}");
                }
            }
        }
    }

    /// The formula of the manual: even and odd numbers apart, and no denormals.
    #[test]
    fn one_product_rounds_as_the_manual_says() {
        let mut tiles = SoftwareTiles::new(TILE);
        let word = |even: f32, odd: f32| (even.to_bits() >> 16) | (odd.to_bits() & 0xffff_0000);
        // 2^24 + 1 is rounded away within the even numbers, and so is what the sum adds to it.
        let large = 4096.0;
        let mut a = [[0; TILE]; TILE];
        a[0][..3].copy_from_slice(&[word(large, 1.0), word(1.0, 1.0), word(-large, 0.0)]);
        let mut b = [[0; TILE]; TILE];
        for (row, words) in [word(large, 1.0), word(1.0, 1.0), word(large, 0.0)].iter().enumerate()
        {
            b[row][0] = *words;
        }
        // A product that is denormal, and factors that are.
        a[1][0] = word(f32::MIN_POSITIVE, 1e-39);
        b[0][1] = word(0.5, 1.0);
        (tiles.tiles[4], tiles.tiles[6]) = (a, b);
        tiles.multiply::<0, 4, 6>();
        assert_eq!(f32::from_bits(tiles.tiles[0][0][0]), 2.0, "of 1·1 three times, one is lost");
        assert_eq!(tiles.tiles[0][1][1], 0);
    }

    /// Factors of bytes: rows and words that fill their tiles, and such that do not.
    struct Bytes {
        rows: usize,
        a: Vec<[i8; 4]>,
        b: Vec<[i8; 4]>,
    }

    impl Bytes {
        /// Of some lengths along the sum. Every byte occurs.
        fn cases(seed: u64, lengths: impl Fn(&mut Random) -> usize) -> Vec<Self> {
            let mut random = Random::new(seed);
            let case = |index: usize| {
                let (rows, depth) = ([TILE, ROWS][index % 2], lengths(&mut random));
                let mut words = |count: usize| -> Vec<[i8; 4]> {
                    (0..count)
                        .map(|_| (random.bits() as u32).to_le_bytes().map(|byte| byte as i8))
                        .collect()
                };
                Self { rows, a: words(rows * depth), b: words(depth * COLUMNS) }
            };
            (0..20).map(case).collect()
        }

        fn depth(&self) -> usize {
            self.b.len() / COLUMNS
        }

        /// The words of the left factor as tiles of `run` words a row, and those of the right one.
        fn words(&self, run: usize) -> [Vec<u32>; 2] {
            let word = |bytes: &[i8; 4]| u32::from_le_bytes(bytes.map(|byte| byte as u8));
            let mut a = vec![0; self.depth().next_multiple_of(run) * self.rows];
            for (place, bytes) in self.a.iter().enumerate() {
                let (row, k) = (place / self.depth(), place % self.depth());
                a[(k / run * self.rows + row) * run + k % run] = word(bytes);
            }
            [a, self.b.iter().map(word).collect()]
        }

        fn sums(&self, tiles: &mut impl Tiles) -> Vec<i32> {
            let ([a, b], mut out) = (self.words(TILE), vec![7; self.rows * COLUMNS]);
            sum_bytes(tiles, self.rows, (&a, &b), &mut out);
            out
        }

        /// The same of tiles that are as shallow as the factors, beside other words.
        fn few_sums(&self, tiles: &mut impl Tiles) -> Vec<i32> {
            let ([a, b], mut out) = (self.words(self.depth() + 1), vec![7; self.rows * COLUMNS]);
            sum_few_bytes(tiles, (self.rows, self.depth()), (&a, self.depth() + 1, &b), &mut out);
            out
        }

        fn expected(&self) -> Vec<i32> {
            let depth = self.depth();
            let sum = |place: usize| {
                let (row, column) = (place / COLUMNS, place % COLUMNS);
                let words = (0..depth).flat_map(|k| {
                    self.a[row * depth + k].into_iter().zip(self.b[k * COLUMNS + column])
                });
                words.map(|(a, b)| i32::from(a) * i32::from(b)).sum()
            };
            (0..self.rows * COLUMNS).map(sum).collect()
        }
    }

    #[test]
    fn sums_of_bytes_are_those_of_whole_numbers() {
        for case in Bytes::cases(214, |random| 1 + random.below(256)) {
            assert_eq!(case.sums(&mut SoftwareTiles::new(TILE)), case.expected());
        }
        for case in Bytes::cases(215, |random| 1 + random.below(TILE)) {
            assert_eq!(case.few_sums(&mut SoftwareTiles::new(case.depth())), case.expected());
        }
    }

    /// Where the processor has tiles, its sums are the software's, bit for bit.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn the_instructions_compute_what_the_software_does() {
        let Some(mut tiles) = AmxTiles::configure(TILE) else {
            println!("skipped: no tiles are granted here");
            return;
        };
        for case in cases(213) {
            for accumulate in [false, true] {
                let found = case.run(&mut tiles, accumulate);
                let expected = case.run(&mut SoftwareTiles::new(TILE), accumulate);
                let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&expected), "{}×{}", case.rows, case.inner);
            }
        }
        for case in Bytes::cases(216, |random| 1 + random.below(256)) {
            assert_eq!(case.sums(&mut tiles), case.expected());
        }
        drop(tiles);
        for case in Bytes::cases(217, |random| 1 + random.below(TILE)) {
            let mut tiles = AmxTiles::configure(case.depth()).expect("there were tiles");
            assert_eq!(case.few_sums(&mut tiles), case.expected());
        }
    }
}
