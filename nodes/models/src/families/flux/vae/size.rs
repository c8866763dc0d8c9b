//! What both networks cost in memory, known before anything runs.

use candle_core::DType;

use crate::families::flux::autoencoder::AutoencoderConfig;
use crate::tile::{Tile, joining_bytes, tile_sizes};

/// Adds up what is alive at once in the dearest block.
struct Tally {
    peak: u128,
    /// Height and width of the activations.
    at: [usize; 2],
    /// Bytes of a number.
    each: usize,
}

impl Tally {
    /// Numbers of `channels` of this size.
    fn values(&self, channels: usize) -> u128 {
        self.at.iter().map(|side| *side as u128).product::<u128>() * channels as u128
    }

    /// The same with a border.
    fn padded(&self, channels: usize) -> u128 {
        let [h, w] = self.at.map(|side| side as u128 + 2);
        h * w * channels as u128
    }

    fn live(&mut self, numbers: u128) {
        self.peak = self.peak.max(self.each as u128 * numbers);
    }

    /// A convolution of what is there: input, its padded copy, output.
    fn conv(&mut self, [cin, cout]: [usize; 2]) {
        self.live(self.values(cin) + self.padded(cin) + self.values(cout));
    }

    /// Input, padded activation and result are alive together; so is the shortcut where channels
    /// change.
    fn residual(&mut self, [cin, cout]: [usize; 2]) {
        let shortcut = if cin == cout { 0 } else { self.values(cout) };
        let [first, second] = [cin, cout].map(|channels| self.padded(channels));
        let (input, result) = (self.values(cin), self.values(cout));
        self.live(input + first.max(second + shortcut) + result);
    }

    /// Two residual blocks, and between them attention: input, norm, queries, keys and values, the
    /// last two packed as well, the result.
    fn middle(&mut self, channels: usize, has_attention: bool) {
        self.residual([channels; 2]);
        if has_attention {
            self.live(8 * self.values(channels));
        }
    }
}

/// What both directions have in common: the larger of all tiles, and what joining them holds.
fn peak(
    (frames, size, tile): (usize, [usize; 2], Option<Tile>),
    depth: usize,
    pass: impl Fn([usize; 2]) -> u128,
) -> u64 {
    let largest = tile_sizes(size, tile).into_iter().map(pass).max().unwrap_or(0);
    let joined = joining_bytes(frames, size, tile, depth) as u128;
    u64::try_from(largest + joined).unwrap_or(u64::MAX)
}

/// Bytes that encoding frames of `[height, width]` pixels needs besides weights and results,
/// computing in `dtype`.
pub fn encode_peak(
    config: &AutoencoderConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> u64 {
    let depth = config.latent_channels.div_ceil(config.spatial_factor().pow(2));
    peak((frames, size, tile), depth, |size| {
        let widths = &config.block_out_channels;
        let mut tally = Tally { peak: 0, at: size, each: dtype.size_in_bytes() };
        tally.conv([3, widths[0]]);
        let mut before = widths[0];
        for (index, out) in widths.iter().enumerate() {
            tally.residual([before, *out]);
            if config.layers_per_block > 1 {
                tally.residual([*out; 2]);
            }
            before = *out;
            if index + 1 < widths.len() {
                tally.conv([*out; 2]); // less: its result is a quarter
                tally.at = tally.at.map(|side| side / 2);
            }
        }
        tally.middle(before, config.mid_block_add_attention);
        tally.peak
    })
}

/// Bytes that decoding to frames of `[height, width]` pixels needs besides weights and results,
/// computing in `dtype`.
pub fn decode_peak(
    config: &AutoencoderConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> u64 {
    peak((frames, size, tile), 3, |size| {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let factor = config.spatial_factor();
        let mut tally =
            Tally { peak: 0, at: size.map(|side| side / factor), each: dtype.size_in_bytes() };
        tally.conv([config.latent_channels, widths[0]]);
        tally.middle(widths[0], config.mid_block_add_attention);
        let mut before = widths[0];
        for (index, out) in widths.iter().enumerate() {
            tally.residual([before, *out]);
            tally.residual([*out; 2]);
            before = *out;
            if index + 1 < widths.len() {
                let small = tally.values(*out);
                tally.at = tally.at.map(|side| 2 * side);
                tally.live(small + tally.padded(*out) + tally.values(*out));
            }
        }
        tally.conv([before, 3]);
        tally.peak
    })
}
