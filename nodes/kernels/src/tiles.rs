//! The innermost product of bf16 in tiles: Intel's AMX (Software Developer's Manual, volume 2,
//! `TDPBF16PS`).
//!
//! A tile is a register of 16 rows of 64 bytes. One instruction multiplies a tile of 16 rows of 16
//! words (pairs of bf16) by one of 16 words of 16 columns, and adds to 16×16 sums of f32. Four
//! tiles of sums, two of rows and two of columns are the eight that there are: a block of 32×32
//! sums, for which each tile that is loaded is used twice.
//!
//! A panel lies as tiles need it: a word of all columns is a row of a tile. Where words or rows are
//! no multiple of 16, zeros stand in for the rest.

use crate::micro::COLUMNS;

/// Rows of a tile, and words of a row.
pub(crate) const TILE: usize = 16;
/// Rows that are computed at a time.
pub(crate) const ROWS: usize = 2 * TILE;

/// A unit with eight tiles.
///
/// # Safety
/// Nothing but an implementation's own methods may change what its tiles hold.
pub(crate) trait Tiles {
    /// Sets a tile to zeros.
    fn zero<const T: usize>(&mut self);

    /// Reads a tile from rows of 16 words, `step` words apart.
    ///
    /// # Safety
    /// The rows lie in memory that may be read.
    unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize);

    /// Writes a tile as rows of 16 numbers, `step` numbers apart.
    ///
    /// # Safety
    /// The rows lie in memory that may be written.
    unsafe fn store<const T: usize>(&self, to: *mut f32, step: usize);

    /// Adds to the sums of tile `SUMS` the products of words of the rows of `A` and the columns of
    /// `B`: for each row m and column n, Σₖ A[m, k]·B[k, n] over 16 words k.
    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self);
}

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
    // SAFETY: the factors and the sums lie in their slices with these sizes.
    unsafe {
        match padded {
            TILE => sums::<_, false>(tiles, a.as_ptr(), b, (c.as_mut_ptr(), step), accumulate),
            _ => sums::<_, true>(tiles, a.as_ptr(), b, (c.as_mut_ptr(), step), accumulate),
        }
    }
}

/// The same for one tile of rows, or `TWO`: tiles 0 and 1 hold the sums of the upper rows, 2 and 3
/// those of the lower.
///
/// # Safety
/// `a` holds a tile of each 16 words, or two, and `c` as many rows of [`COLUMNS`] numbers, `step`
/// apart.
unsafe fn sums<T: Tiles, const TWO: bool>(
    tiles: &mut T,
    a: *const u32,
    b: &[u32],
    (c, step): (*mut f32, usize),
    accumulate: bool,
) {
    // SAFETY: `c` has rows of two tiles, as many as the contract says.
    unsafe {
        if accumulate {
            tiles.load::<0>(c.cast(), step);
            tiles.load::<1>(c.add(TILE).cast(), step);
            if TWO {
                tiles.load::<2>(c.add(TILE * step).cast(), step);
                tiles.load::<3>(c.add(TILE * step + TILE).cast(), step);
            }
        } else {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
        }
    }
    let of_words = if TWO { ROWS * TILE } else { TILE * TILE };
    let (whole, rest) = b.as_chunks::<{ TILE * COLUMNS }>();
    for (index, b) in whole.iter().enumerate() {
        // SAFETY: `a` holds tiles for each 16 words of `b`.
        unsafe { add_products::<T, TWO>(tiles, a.add(index * of_words), b) };
    }
    if !rest.is_empty() {
        // What follows the panel must not meet the zeros of `a`: it may be no number.
        let mut filled = [0; TILE * COLUMNS];
        filled[..rest.len()].copy_from_slice(rest);
        // SAFETY: as above, for the last words.
        unsafe { add_products::<T, TWO>(tiles, a.add(whole.len() * of_words), &filled) };
    }
    // SAFETY: as where the sums were loaded.
    unsafe {
        tiles.store::<0>(c, step);
        tiles.store::<1>(c.add(TILE), step);
        if TWO {
            tiles.store::<2>(c.add(TILE * step), step);
            tiles.store::<3>(c.add(TILE * step + TILE), step);
        }
    }
}

/// Adds the products of 16 words.
///
/// # Safety
/// `a` holds one tile, or `TWO`.
#[inline(always)]
unsafe fn add_products<T: Tiles, const TWO: bool>(
    tiles: &mut T,
    a: *const u32,
    b: &[u32; TILE * COLUMNS],
) {
    // SAFETY: `b` has 16 rows of two tiles, `a` what the contract says.
    unsafe {
        tiles.load::<6>(b.as_ptr(), COLUMNS);
        tiles.load::<4>(a, TILE);
        tiles.multiply::<0, 4, 6>();
        tiles.load::<7>(b.as_ptr().add(TILE), COLUMNS);
        tiles.multiply::<1, 4, 7>();
        if TWO {
            tiles.load::<5>(a.add(TILE * TILE), TILE);
            tiles.multiply::<2, 5, 6>();
            tiles.multiply::<3, 5, 7>();
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    //! The instructions. Their intrinsics are unstable; an assembler takes them as they are.

    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;
    use std::sync::OnceLock;

    use super::{TILE, Tiles};

    /// An instruction that changes tiles. All are named as changed, for want of a way to name one
    /// by a constant: the compiler itself keeps nothing in them, so that they hold from one
    /// instruction to the next what that left.
    macro_rules! on_tiles {
        ($instruction:literal, $($operand:tt)*) => {
            asm!(
                $instruction,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                $($operand)*
            )
        };
    }

    /// This thread's tiles, configured as long as this lives. A thread has one at a time.
    pub(crate) struct AmxTiles {
        /// Tiles are of the thread that configured them.
        not_send: PhantomData<*mut ()>,
    }

    /// Palette 1, and of each of its eight tiles the bytes of a row and the rows.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    const CONFIGURATION: Configuration = {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut tile = 0;
        while tile < 8 {
            row_bytes[tile] = 4 * TILE as u16;
            rows[tile] = TILE as u8;
            tile += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    };

    impl AmxTiles {
        /// Whether this processor multiplies tiles of bf16, and the kernel lets this process.
        fn are_granted() -> bool {
            static GRANTED: OnceLock<bool> = OnceLock::new();
            *GRANTED.get_or_init(|| exist() && are_permitted())
        }

        /// Configures the tiles of this thread where they are granted: they hold zeros.
        pub(crate) fn configure() -> Option<Self> {
            if !Self::are_granted() {
                return None;
            }
            // SAFETY: the processor has the instruction, the kernel grants the registers, and 64
            // bytes of a configuration that this processor knows are read.
            unsafe {
                on_tiles!(
                    "ldtilecfg [{from}]",
                    from = in(reg) &CONFIGURATION,
                    options(nostack, preserves_flags, readonly)
                );
            }
            Some(Self { not_send: PhantomData })
        }
    }

    impl Drop for AmxTiles {
        /// Gives the tiles back, which the kernel would save with the thread otherwise.
        fn drop(&mut self) {
            // SAFETY: the processor has the instruction: there are tiles.
            unsafe { on_tiles!("tilerelease", options(nostack, preserves_flags, nomem)) };
        }
    }

    /// Whether the processor has tiles, and products of bf16 in them.
    fn exist() -> bool {
        const BF16_AND_TILE: u32 = (1 << 22) | (1 << 24);
        const TILES: u32 = 0x1d;
        // Leaf 7 tells of the instructions, leaf 0x1d of palette 1: tiles, bytes of a row, rows.
        if __cpuid_count(0, 0).eax < TILES
            || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE
        {
            return false;
        }
        let palette = __cpuid_count(TILES, 1);
        palette.ebx == (8 << 16) | (4 * TILE as u32) && palette.ecx & 0xffff == TILE as u32
    }

    /// Asks Linux for the tiles' registers, for all threads of this process
    /// (Documentation/arch/x86/xstate.rst): a thread that touched them unasked would be killed.
    fn are_permitted() -> bool {
        const ARCH_PRCTL: u64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XFEATURE_XTILEDATA: u64 = 18;
        let mut answer = ARCH_PRCTL;
        // SAFETY: this call reads and writes no memory of the process.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack)
            );
        }
        answer == 0
    }

    impl Tiles for AmxTiles {
        #[inline(always)]
        fn zero<const T: usize>(&mut self) {
            // SAFETY: the tiles are configured, and this tile is one of them.
            unsafe {
                on_tiles!(
                    "tilezero tmm{t}",
                    t = const T,
                    options(nostack, preserves_flags, nomem)
                );
            }
        }

        #[inline(always)]
        unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize) {
            // SAFETY: the tiles are configured; the caller vouches for the memory.
            unsafe {
                on_tiles!(
                    "tileloadd tmm{t}, [{from} + {step}*1]",
                    t = const T,
                    from = in(reg) from,
                    step = in(reg) 4 * step,
                    options(nostack, preserves_flags, readonly)
                );
            }
        }

        #[inline(always)]
        unsafe fn store<const T: usize>(&self, to: *mut f32, step: usize) {
            // SAFETY: the tiles are configured; the caller vouches for the memory.
            unsafe {
                asm!(
                    "tilestored [{to} + {step}*1], tmm{t}",
                    t = const T,
                    to = in(reg) to,
                    step = in(reg) 4 * step,
                    options(nostack, preserves_flags)
                );
            }
        }

        #[inline(always)]
        fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
            // SAFETY: the tiles are configured with shapes that fit one another.
            unsafe {
                on_tiles!(
                    "tdpbf16ps tmm{sums}, tmm{a}, tmm{b}",
                    sums = const SUMS,
                    a = const A,
                    b = const B,
                    options(nostack, preserves_flags, nomem)
                );
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::AmxTiles;

/// Tiles that there are none of.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) enum AmxTiles {}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
impl AmxTiles {
    pub(crate) fn configure() -> Option<Self> {
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

    unsafe fn store<const T: usize>(&self, _: *mut f32, _: usize) {
        match *self {}
    }

    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        match *self {}
    }
}

/// Tiles in plain memory that do exactly what the instructions do.
#[cfg(test)]
pub(crate) struct SoftwareTiles([[[u32; TILE]; TILE]; 8]);

#[cfg(test)]
impl Default for SoftwareTiles {
    fn default() -> Self {
        Self([[[0; TILE]; TILE]; 8])
    }
}

#[cfg(test)]
impl Tiles for SoftwareTiles {
    fn zero<const T: usize>(&mut self) {
        self.0[T] = [[0; TILE]; TILE];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize) {
        for (index, row) in self.0[T].iter_mut().enumerate() {
            // SAFETY: the caller vouches for the rows.
            *row = unsafe { *from.add(index * step).cast() };
        }
    }

    unsafe fn store<const T: usize>(&self, to: *mut f32, step: usize) {
        for (index, row) in self.0[T].iter().enumerate() {
            // SAFETY: the caller vouches for the rows.
            unsafe { *to.add(index * step).cast() = row.map(f32::from_bits) };
        }
    }

    /// The even numbers of the words are summed by fused multiply-add from the first word on, the
    /// odd ones likewise, then both together are added to the sum; rounding is to the nearest, and
    /// what is denormal counts as zero.
    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.0[A], self.0[B]);
        for (sums, a) in self.0[SUMS].iter_mut().zip(a) {
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
            let packed = PackedRows::in_task(lines, Kernel::Tiles, self.rows, self.inner);
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
                let found = case.run(&mut SoftwareTiles::default(), accumulate);
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
        let mut tiles = SoftwareTiles::default();
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
        (tiles.0[4], tiles.0[6]) = (a, b);
        tiles.multiply::<0, 4, 6>();
        assert_eq!(f32::from_bits(tiles.0[0][0][0]), 2.0, "of 1·1 three times, one is lost");
        assert_eq!(tiles.0[0][1][1], 0);
    }

    /// Where the processor has tiles, its sums are the software's, bit for bit.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn the_instructions_compute_what_the_software_does() {
        let Some(mut tiles) = AmxTiles::configure() else {
            println!("skipped: no tiles are granted here");
            return;
        };
        for case in cases(213) {
            for accumulate in [false, true] {
                let found = case.run(&mut tiles, accumulate);
                let expected = case.run(&mut SoftwareTiles::default(), accumulate);
                let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&expected), "{}×{}", case.rows, case.inner);
            }
        }
    }
}
