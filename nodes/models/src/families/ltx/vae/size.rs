//! Bytes that encoding and decoding need besides weights and results.

use candle_core::DType;

use super::super::autoencoder::VaeConfig;
use crate::tile::{Tile, joining_bytes, tile_sizes};

/// Activations of a residual block that are alive together: what came in, what was normalised,
/// with its border, and the sum of a convolution with the copies of its ends.
const ALIVE: u128 = 4;

/// The largest of the activations of a level, in numbers, for frames of `size` pixels.
fn largest(levels: impl Iterator<Item = (u128, [u128; 3])>, [frames, h, w]: [u128; 3]) -> u128 {
    let level = |(channels, [temporal, down, across]): (u128, [u128; 3])| {
        let along = |length: u128, factor: u128| length.div_ceil(factor).max(1);
        channels * along(frames, temporal) * along(h, down) * along(w, across)
    };
    levels.map(level).max().unwrap_or(0)
}

fn bytes(numbers: u128, dtype: DType) -> u64 {
    u64::try_from(numbers.saturating_mul(dtype.size_in_bytes() as u128)).unwrap_or(u64::MAX)
}

/// Encoding so many frames of `[height, width]` pixels in `dtype`, chunk by chunk.
pub(in super::super) fn encode_peak(
    config: &VaeConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> u64 {
    let [high, wide] = largest_tile(size, tile);
    let chunk = frames.min(config.temporal_factor()) as u128;
    let patch = config.patch_size as u128;
    let (mut factors, mut levels) = ([1, patch, patch], Vec::new());
    let mut kept = 0_u128;
    for block in config.down_blocks() {
        let [cin, cout] = block.channels.map(|channels| channels as u128);
        levels.push((cin, factors));
        // Two frames of every convolution stay from chunk to chunk.
        let plane = |channels| largest([(channels, factors)].into_iter(), [1, high, wide]);
        kept += 4 * (block.layers as u128 + 1) * plane(cin);
        if let Some(down) = block.downsample {
            let by = match down {
                super::super::autoencoder::Downsample::Strided => [2; 3],
                super::super::autoencoder::Downsample::Folded(by) => by.map(|f| f as u128),
            };
            factors = std::array::from_fn(|axis| factors[axis] * by[axis]);
        }
        levels.push((cout, factors));
    }
    let [channels, layers] = config.encoder_middle();
    let plane = largest([(channels as u128, factors)].into_iter(), [1, high, wide]);
    kept += 4 * (layers as u128 + 1) * plane;
    bytes(ALIVE * largest(levels.into_iter(), [chunk, high, wide]) + kept, dtype)
}

/// Decoding to so many frames of `[height, width]` pixels in `dtype`, whole.
pub(in super::super) fn decode_peak(
    config: &VaeConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> u64 {
    let [high, wide] = largest_tile(size, tile);
    let (temporal, spatial) = (config.temporal_factor() as u128, config.spatial_factor() as u128);
    let (mut factors, mut levels) = ([temporal, spatial, spatial], Vec::new());
    for block in config.up_blocks() {
        if block.doubles {
            factors = factors.map(|factor| (factor / 2).max(1));
        }
        levels.push((block.channels as u128, factors));
    }
    let whole = largest(levels.into_iter(), [frames as u128, high, wide]);
    let joining = joining_bytes(frames, size, tile, 3) as u64;
    // The frames as the last layer gives them, folded, and spread.
    let last = 6 * frames as u128 * high * wide;
    bytes(ALIVE * whole, dtype).saturating_add(bytes(last, DType::F32)).saturating_add(joining)
}

/// Height and width of the largest tile.
fn largest_tile(size: [usize; 2], tile: Option<Tile>) -> [u128; 2] {
    let sizes = tile_sizes(size, tile).into_iter();
    let largest = sizes.max_by_key(|[high, wide]| high.saturating_mul(*wide)).unwrap_or(size);
    largest.map(|side| side as u128)
}
