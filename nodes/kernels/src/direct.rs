//! Convolution into few channels, with all sums of some pixels in registers.
//!
//! A product of matrices that is 3, 16 or 32 wide spends its time on loading and storing sums.
//! Here some neighbouring pixels keep theirs over the whole kernel: for each input value of a tap
//! row, one vector of weights meets the values of all these pixels.

use crate::math::{LANES, madd};
use crate::tier::{Tier, by_tier, current};

/// Output channels up to which this way is faster: two vectors.
pub(crate) const MAX_CHANNELS: usize = 2 * LANES;

/// Weights up to which this way is faster: all are read again for each few pixels, from the cache.
pub(crate) const MAX_WEIGHTS: usize = 48 * 1024;

/// Pixels that a row must have: as many as are computed together, at most.
pub(crate) const LEAST_WIDTH: usize = 8;

/// One (time, row) of the kernel over one output row.
#[derive(Clone, Copy)]
pub(crate) struct TapRow<'a> {
    /// The input from the row's first pixel on.
    pub(crate) input: &'a [f32],
    /// `[kw·cin, lanes]`, lanes a multiple of [`LANES`].
    pub(crate) weights: &'a [f32],
    /// Input channels: the distance of two pixels.
    pub(crate) step: usize,
}

/// Sums of `P` pixels, `G` vectors of channels each.
type Sums<const P: usize, const G: usize> = [[[f32; LANES]; G]; P];

/// Computes one row of `out.len() / cout` pixels, at least [`LEAST_WIDTH`] of them.
///
/// `lanes` is the padded number of output channels.
pub(crate) fn row(taps: &[TapRow], lanes: usize, out: &mut [f32], cout: usize) {
    // 32 registers of 16 lanes hold the sums of eight pixels, 16 of 8 lanes those of four or two.
    match (current() >= Tier::Avx512, lanes == LANES) {
        (true, true) => narrow_by_eight(taps, out, cout),
        (true, false) => wide_by_eight(taps, out, cout),
        (false, true) => narrow_by_four(taps, out, cout),
        (false, false) => wide_by_two(taps, out, cout),
    }
}

by_tier! {
    fn narrow_by_eight<FMA>(taps: &[TapRow], out: &mut [f32], cout: usize) {
        pixels::<FMA, 8, 1>(taps, out, cout);
    }
}

by_tier! {
    fn wide_by_eight<FMA>(taps: &[TapRow], out: &mut [f32], cout: usize) {
        pixels::<FMA, 8, 2>(taps, out, cout);
    }
}

by_tier! {
    fn narrow_by_four<FMA>(taps: &[TapRow], out: &mut [f32], cout: usize) {
        pixels::<FMA, 4, 1>(taps, out, cout);
    }
}

by_tier! {
    fn wide_by_two<FMA>(taps: &[TapRow], out: &mut [f32], cout: usize) {
        pixels::<FMA, 2, 2>(taps, out, cout);
    }
}

#[inline(always)]
fn pixels<const FMA: bool, const P: usize, const G: usize>(
    taps: &[TapRow],
    out: &mut [f32],
    cout: usize,
) {
    let width = out.len() / cout;
    let mut x = 0;
    while x < width {
        // The last group overlaps the one before: its pixels are computed again, to the same bits.
        x = x.min(width - P);
        let mut sums: Sums<P, G> = [[[0.0; LANES]; G]; P];
        for tap in taps {
            add::<FMA, P, G>(&tap.input[x * tap.step..], tap.weights, tap.step, &mut sums);
        }
        for (pixel, sums) in out[x * cout..].chunks_exact_mut(cout).zip(&sums) {
            pixel.copy_from_slice(&sums.as_flattened()[..cout]);
        }
        x += P;
    }
}

/// Adds one tap row to the sums of `P` pixels, whose inputs begin `step` apart.
#[inline(always)]
fn add<const FMA: bool, const P: usize, const G: usize>(
    input: &[f32],
    weights: &[f32],
    step: usize,
    sums: &mut Sums<P, G>,
) {
    let weights = weights.as_chunks::<LANES>().0.as_chunks::<G>().0;
    // One check for all reads below: the last pixel's last input.
    assert!((P - 1) * step + weights.len() <= input.len());
    let mut local = *sums;
    for (k, weights) in weights.iter().enumerate() {
        let weights = *weights;
        #[allow(clippy::needless_range_loop)] // the sums must stay an array of constant places
        for p in 0..P {
            // SAFETY: p < P and k < weights.len(), so the index is below the asserted bound.
            let value = unsafe { *input.get_unchecked(p * step + k) };
            for g in 0..G {
                for lane in 0..LANES {
                    local[p][g][lane] = madd::<FMA>(value, weights[g][lane], local[p][g][lane]);
                }
            }
        }
    }
    *sums = local;
}

#[cfg(test)]
mod tests {
    use super::{LEAST_WIDTH, TapRow, row};
    use crate::tier::tests::in_every_tier;

    #[test]
    fn every_tier_sums_the_same() {
        let (step, count) = (3, 9);
        for (cout, lanes) in [(3, 16), (16, 16), (17, 32), (32, 32)] {
            for width in [LEAST_WIDTH, LEAST_WIDTH + 5] {
                let input: Vec<f32> = (0..width * step + count).map(|i| (i % 7) as f32).collect();
                let weights: Vec<f32> = (0..count * lanes).map(|i| (i % 5) as f32 - 2.0).collect();
                let taps = [TapRow { input: &input, weights: &weights, step }; 2];
                in_every_tier(|tier| {
                    let mut out = vec![0.0; width * cout];
                    row(&taps, lanes, &mut out, cout);
                    for (place, found) in out.iter().enumerate() {
                        let (x, channel) = (place / cout, place % cout);
                        let products =
                            (0..count).map(|k| input[x * step + k] * weights[k * lanes + channel]);
                        assert_eq!(*found, 2.0 * products.sum::<f32>(), "{tier:?}, {place}");
                    }
                });
            }
        }
    }
}
