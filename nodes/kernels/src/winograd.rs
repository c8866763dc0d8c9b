//! Convolution by kernels of 3×3 with fewer products: Winograd's minimal filtering F(2×2, 3×3)
//! (A. Lavin, S. Gray, arXiv:1509.09308).
//!
//! A tile of 2×2 pixels of the result reads 4×4 of the input. In place of 36 products of a channel
//! it takes 16, between the transformed input Bᵀ·d·B and the transformed kernel G·g·Gᵀ; their sums
//! over channels, frames and parts are products of matrices, one for each of the 16 places, and
//! Aᵀ·m·A of them is the tile. The transforms add and halve, so that f32 loses about a bit.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::Result;
use crate::math::LANES;
use crate::matrix::even_cuts;
use crate::micro::DEPTH;
use crate::micro::{COLUMNS, Precision, ROWS, multiply_rows};
use crate::number::Slice;
use crate::packed::PackedMatrix;
use crate::tier::by_tier;

/// Pixels of a side of a tile of the result, and of what it reads.
pub(crate) const TILE: usize = 2;
const SPAN: usize = 4;
/// Products that a tile takes, of each channel.
const PLACES: usize = SPAN * SPAN;
/// Channels from which the transforms are small beside the products.
const LEAST_CHANNELS: [usize; 2] = [16, COLUMNS + 1];
/// Numbers that transformed weights may have: they are 16/9 of what they were, and held beside it.
const MOST_WEIGHTS: usize = 1 << 22;
/// Numbers of tiles that are transformed at a time: they stay in the second-level cache.
const ROOM: usize = 144 * 1024;

/// Transformed weights of a convolution, `[kt·16·cout, cin]`, where cout is filled up to whole
/// panels.
#[derive(Debug, Clone)]
pub(crate) struct WinogradWeights(PackedMatrix);

impl WinogradWeights {
    /// Transforms weights `[cout, cin, kt, kh, kw]` of f32 on the CPU, where that is faster.
    pub(crate) fn new(weight: &Tensor, stride: [usize; 3]) -> Result<Option<Self>> {
        let (cout, cin, kt, kh, kw) = weight.dims5()?;
        let wide = cout.next_multiple_of(COLUMNS);
        let numbers = numbers([cout, cin, kt, kh, kw]).filter(|_| stride[1..] == [1, 1]);
        let Some(numbers) = numbers else { return Ok(None) };
        let kernels = weight.permute((2, 0, 1, 3, 4))?.force_contiguous()?.flatten_all()?;
        let kernels = kernels.to_vec1::<f32>()?; // [kt, cout, cin, 3, 3]
        let mut all = vec![0.0; numbers];
        for (index, kernel) in kernels.as_chunks::<9>().0.iter().enumerate() {
            let (frame, out, channel) = (index / cin / cout, index / cin % cout, index % cin);
            for (place, number) in transformed_kernel(kernel).into_iter().enumerate() {
                all[((frame * PLACES + place) * wide + out) * cin + channel] = number;
            }
        }
        let all = Tensor::from_vec(all, (kt * PLACES * wide, cin), &Device::Cpu)?;
        PackedMatrix::pack(&all, Precision::F32).map(|matrix| Some(Self(matrix)))
    }
}

/// The numbers of transformed weights `[cout, cin, kt, kh, kw]`; none where products of the weights
/// as they are take less time.
pub(crate) fn numbers([cout, cin, kt, kh, kw]: [usize; 5]) -> Option<usize> {
    let [least_in, least_out] = LEAST_CHANNELS;
    let numbers = cout.checked_next_multiple_of(COLUMNS)?.checked_mul(kt * PLACES * cin)?;
    let fits = [kh, kw] == [3, 3] && cin >= least_in && cout >= least_out;
    (fits && numbers <= MOST_WEIGHTS).then_some(numbers)
}

/// G·g·Gᵀ with the rows (1, 0, 0), (½, ½, ½), (½, −½, ½), (0, 0, 1) of G.
fn transformed_kernel(kernel: &[f32; 9]) -> [f32; PLACES] {
    const G: [[f64; 3]; SPAN] =
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    std::array::from_fn(|place| {
        let (down, across) = (G[place / SPAN], G[place % SPAN]);
        let row =
            |r: usize| -> f64 { (0..3).map(|c| f64::from(kernel[r * 3 + c]) * across[c]).sum() };
        (0..3).map(|r| down[r] * row(r)).sum::<f64>() as f32
    })
}

/// A frame under a kernel's frame `tap`, with the weights that meet it.
pub(crate) struct Tap<'a> {
    pub(crate) frame: &'a [f32],
    pub(crate) weights: &'a WinogradWeights,
    pub(crate) tap: usize,
    /// Channels, and pixels of a row and of a column.
    pub(crate) cin: usize,
    pub(crate) size: [usize; 2],
}

/// Tiles of a result of so many channels, filled up to whole panels, and the widest input's.
#[derive(Clone, Copy)]
pub(crate) struct Channels {
    pub(crate) most_in: usize,
    pub(crate) out: usize,
}

impl Channels {
    fn wide(self) -> usize {
        self.out.next_multiple_of(COLUMNS)
    }

    /// Tiles that are computed together: whole blocks of rows of a product.
    pub(crate) fn tiles(self) -> usize {
        let fits = ROOM / (PLACES * (self.most_in + self.wide()));
        (fits / ROWS).clamp(1, 8) * ROWS
    }

    /// Numbers that [`sums`] needs.
    pub(crate) fn room(self) -> usize {
        let of = |channels| PLACES * apart(self.tiles(), channels);
        of(self.most_in) + of(self.wide())
    }
}

/// How far the 16 numbers of a channel of a tile lie apart: not by a power of two, since they would
/// share a set of the first-level cache.
fn apart(tiles: usize, channels: usize) -> usize {
    tiles * channels + LANES
}

/// The sums of tiles at pixels `corners` of the result, from all taps: for each pixel of a tile and
/// each of its two rows, [`Sums::row`] gives them.
pub(crate) fn sums<'r>(
    taps: &[Tap],
    corners: &[[usize; 2]],
    channels: Channels,
    room: &'r mut [f32],
) -> Sums<'r> {
    let (count, wide) = (corners.len(), channels.wide());
    let (products, inputs) = room.split_at_mut(PLACES * apart(count, wide));
    if taps.is_empty() {
        products.fill(0.0);
    }
    for (index, tap) in taps.iter().enumerate() {
        let step = apart(count, tap.cin);
        let inputs = &mut inputs[..PLACES * step];
        for (place, corner) in corners.iter().enumerate() {
            let inputs = &mut inputs[place * tap.cin..];
            transform_input(tap.frame, tap.places(*corner), tap.cin, inputs, step);
        }
        tap.multiply(inputs, count, (&mut *products, wide), index > 0);
    }
    Sums { products, count, wide }
}

impl Tap<'_> {
    /// Where the 4×4 pixels begin that a tile reads. Of a tile that the result ends in, those
    /// beyond the input are its last: they count for pixels alone that are beyond the result.
    fn places(&self, [y, x]: [usize; 2]) -> [usize; PLACES] {
        let [width, height] = self.size;
        std::array::from_fn(|place| {
            let row = (y + place / SPAN).min(height - 1);
            let column = (x + place % SPAN).min(width - 1);
            (row * width + column) * self.cin
        })
    }

    /// Adds the products of `[16, count, cin]` and the weights to `[16, count, wide]`, of both of
    /// which the 16 lie [`apart`].
    fn multiply(
        &self,
        inputs: &[f32],
        count: usize,
        (products, wide): (&mut [f32], usize),
        accumulate: bool,
    ) {
        let mut room = Vec::new();
        let panels = wide / COLUMNS;
        let pieces = inputs.chunks_exact(apart(count, self.cin));
        let sums = products.chunks_exact_mut(apart(count, wide));
        for (place, (inputs, products)) in pieces.zip(sums).enumerate() {
            for depth in even_cuts(0..self.cin, DEPTH, 1) {
                let accumulate = accumulate || depth.start > 0;
                for panel in 0..panels {
                    let of_place = (self.tap * PLACES + place) * panels + panel;
                    let weights = self.weights.0.panel(of_place, depth.clone(), &mut room);
                    for block in (0..count).step_by(ROWS) {
                        let rows = ROWS.min(count - block);
                        let inputs = Slice::F32(&inputs[block * self.cin + depth.start..]);
                        let products = &mut products[block * wide + panel * COLUMNS..];
                        multiply_rows(
                            rows,
                            (inputs, self.cin),
                            weights,
                            (products, wide),
                            accumulate,
                        );
                    }
                }
            }
        }
    }
}

/// The sums of tiles, `[16, tiles, channels]`, still transformed.
pub(crate) struct Sums<'r> {
    products: &'r [f32],
    count: usize,
    wide: usize,
}

impl Sums<'_> {
    /// Writes the sums of row `row` of a tile: of its first pixel, and of its second where the
    /// result has that.
    pub(crate) fn row(&self, tile: usize, row: usize, pixels: &mut [f32], channels: usize) {
        let products = &self.products[tile * self.wide..];
        transform_sums(products, apart(self.count, self.wide), row, pixels, channels);
    }
}

by_tier! {
    /// Bᵀ·d·B of each channel of the pixels that begin at `places`; results lie `step` apart.
    fn transform_input<FMA>(
        frame: &[f32],
        places: [usize; PLACES],
        cin: usize,
        out: &mut [f32],
        step: usize,
    ) {
        let whole = cin / LANES * LANES;
        for channel in (0..whole).step_by(LANES) {
            input_lanes::<LANES>(frame, &places, channel, out, step);
        }
        for channel in whole..cin {
            input_lanes::<1>(frame, &places, channel, out, step);
        }
    }
}

by_tier! {
    /// Row `row` of Aᵀ·m·A of each channel, whose numbers lie `step` apart.
    fn transform_sums<FMA>(
        products: &[f32],
        step: usize,
        row: usize,
        pixels: &mut [f32],
        channels: usize,
    ) {
        let whole = channels / LANES * LANES;
        for channel in (0..whole).step_by(LANES) {
            sum_lanes::<LANES>(products, step, row, pixels, channel..channels);
        }
        for channel in whole..channels {
            sum_lanes::<1>(products, step, row, pixels, channel..channels);
        }
    }
}

/// The numbers of some channels.
type Lanes<const N: usize> = [f32; N];

#[inline(always)]
fn lanes<const N: usize>(numbers: &[f32], at: usize) -> Lanes<N> {
    let mut lanes = [0.0; N];
    lanes.copy_from_slice(&numbers[at..at + N]);
    lanes
}

#[inline(always)]
fn add<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    let mut sum = a;
    sum.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    sum
}

#[inline(always)]
fn subtract<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    let mut rest = a;
    rest.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
    rest
}

/// Bᵀ·d with the rows (1, 0, −1, 0), (0, 1, 1, 0), (0, −1, 1, 0), (0, 1, 0, −1) of Bᵀ.
#[inline(always)]
fn spread<const N: usize>([a, b, c, d]: [Lanes<N>; SPAN]) -> [Lanes<N>; SPAN] {
    [subtract(a, c), add(b, c), subtract(c, b), subtract(b, d)]
}

/// A row of Aᵀ·m: (1, 1, 1, 0) or (0, 1, −1, −1).
#[inline(always)]
fn gather<const N: usize>(row: usize, [a, b, c, d]: [Lanes<N>; SPAN]) -> Lanes<N> {
    match row {
        0 => add(add(a, b), c),
        _ => subtract(subtract(b, c), d),
    }
}

#[inline(always)]
fn input_lanes<const N: usize>(
    frame: &[f32],
    places: &[usize; PLACES],
    channel: usize,
    out: &mut [f32],
    step: usize,
) {
    let mut columns = [[[0.0; N]; SPAN]; SPAN];
    for (column, numbers) in columns.iter_mut().enumerate() {
        let mut pixels = [[0.0; N]; SPAN];
        for (row, pixel) in pixels.iter_mut().enumerate() {
            *pixel = lanes(frame, places[row * SPAN + column] + channel);
        }
        *numbers = spread(pixels);
    }
    for row in 0..SPAN {
        let [a, b, c, d] = columns;
        for (column, numbers) in spread([a[row], b[row], c[row], d[row]]).iter().enumerate() {
            let place = (row * SPAN + column) * step + channel;
            out[place..place + N].copy_from_slice(numbers);
        }
    }
}

/// `channels` are those from the first of these lanes on.
#[inline(always)]
fn sum_lanes<const N: usize>(
    products: &[f32],
    step: usize,
    row: usize,
    pixels: &mut [f32],
    channels: Range<usize>,
) {
    let Range { start, end } = channels;
    let mut columns = [[0.0; N]; SPAN];
    for (column, sums) in columns.iter_mut().enumerate() {
        let mut numbers = [[0.0; N]; SPAN];
        for (down, number) in numbers.iter_mut().enumerate() {
            *number = lanes(products, (down * SPAN + column) * step + start);
        }
        *sums = gather(row, numbers);
    }
    for (index, pixel) in pixels.chunks_exact_mut(end).take(TILE).enumerate() {
        pixel[start..start + N].copy_from_slice(&gather(index, columns));
    }
}
