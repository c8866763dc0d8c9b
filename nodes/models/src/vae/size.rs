//! Sizes known before anything runs: shapes of latents and frames, and what they cost in memory.

use super::decoder::level_channels;
use super::tile::Tile;
use crate::config::VaeConfig;
use crate::error::{Error, Result};

/// The latent of a clip: `[z, f', h, w]`.
///
/// # Errors
/// When the autoencoder cannot hold so many frames or such a size; the message names near ones.
pub fn latent_shape(
    config: &VaeConfig,
    frames: usize,
    height: usize,
    width: usize,
) -> Result<[usize; 4]> {
    let (time, space) = (config.temporal_factor(), config.spatial_factor());
    let Some(latent_frames) = config.latent_frames(frames) else {
        let below = frames.saturating_sub(1) / time * time + 1;
        return Err(Error::input(format!(
            "{frames} frames: the model needs {time}k+1; near are {below} and {}",
            below + time
        )));
    };
    for (axis, length) in [("height", height), ("width", width)] {
        if length == 0 || length % space != 0 {
            let below = (length / space * space).max(space);
            return Err(Error::input(format!(
                "a {axis} of {length}: the model needs a multiple of {space}; near are {below} \
                 and {}",
                below + space
            )));
        }
    }
    Ok([config.z_dim, latent_frames, height / space, width / space])
}

/// The frames that a latent `[z, f', h, w]` decodes to: `[f, H, W, 3]`.
pub fn frames_shape(config: &VaeConfig, [_, frames, height, width]: [usize; 4]) -> [usize; 4] {
    let space = config.spatial_factor();
    [config.frames(frames), height * space, width * space, config.out_channels]
}

/// Bytes that a pass needs in f32, besides the weights and the clip itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peak {
    /// Kept between chunks.
    pub cache: usize,
    /// Alive at once inside the dearest block, besides the cache.
    pub live: usize,
}

impl Peak {
    /// Both together.
    pub fn total(&self) -> usize {
        self.cache + self.live
    }
}

/// Walks the layers of a network and adds up what they keep and hold.
struct Tally {
    peak: Peak,
    /// Frames, height and width of the activations.
    at: [usize; 3],
}

impl Tally {
    fn new(at: [usize; 3]) -> Self {
        Self { peak: Peak::default(), at }
    }

    /// Values of `channels` on this level.
    fn values(&self, channels: usize) -> usize {
        self.at.iter().product::<usize>() * channels * size_of::<f32>()
    }

    /// A convolution over space and time keeps two padded frames of its input.
    fn causal(&mut self, channels: usize) {
        let [_, h, w] = self.at;
        self.peak.cache += 2 * (h + 2) * (w + 2) * channels * size_of::<f32>();
    }

    /// A convolution over time alone keeps so many frames as they are.
    fn temporal(&mut self, channels: usize, frames: usize) {
        let [_, h, w] = self.at;
        self.peak.cache += frames * h * w * channels * size_of::<f32>();
    }

    fn live(&mut self, bytes: usize) {
        self.peak.live = self.peak.live.max(bytes);
    }

    /// Input, padded activation, shortcut and result are alive together.
    fn residual(&mut self, [cin, cout]: [usize; 2]) {
        self.causal(cin);
        self.causal(cout);
        self.live(self.values(cin) + 3 * self.values(cout));
    }

    fn middle(&mut self, channels: usize) {
        self.residual([channels; 2]);
        self.live(6 * self.values(channels)); // attention: x, q, k, v, two results
        self.residual([channels; 2]);
    }
}

/// Tiles of a frame, and the size of the largest, in pixels.
fn tiles(size: [usize; 2], tile: Option<Tile>) -> (usize, [usize; 2]) {
    match tile {
        Some(tile) if size[0] > tile.height || size[1] > tile.width => {
            let count = size[0].div_ceil(tile.stride_height.max(1))
                * size[1].div_ceil(tile.stride_width.max(1));
            (count, [size[0].min(tile.height), size[1].min(tile.width)])
        }
        _ => (1, size),
    }
}

/// What decoding frames of `size` = (height, width) pixels needs, however many there are.
pub fn decode_peak(config: &VaeConfig, size: [usize; 2], tile: Option<Tile>) -> Peak {
    let (count, [height, width]) = tiles(size, tile);
    let space = config.spatial_factor();
    let mut tally = Tally::new([1, height / space, width / space]);
    tally.causal(config.z_dim);
    let levels = level_channels(config);
    if let Some([top, _]) = levels.first() {
        tally.middle(*top);
    }
    let mut last = 0;
    for (level, &[cin, out]) in levels.iter().enumerate() {
        tally.residual([cin, out]);
        (0..config.num_res_blocks).for_each(|_| tally.residual([out, out]));
        if let Some(&temporal) = config.temperal_downsample.iter().rev().nth(level) {
            if temporal {
                tally.temporal(out, 2);
                tally.at[0] *= 2;
            }
            let before = tally.values(out);
            tally.at = [tally.at[0], 2 * tally.at[1], 2 * tally.at[2]];
            tally.live(before + tally.values(out) + tally.values(out / 2));
        }
        last = out;
    }
    tally.causal(last);
    finish(tally, count, size, config.out_channels)
}

/// What encoding frames of `size` = (height, width) pixels needs, however many there are.
pub fn encode_peak(config: &VaeConfig, size: [usize; 2], tile: Option<Tile>) -> Peak {
    let (count, [height, width]) = tiles(size, tile);
    let mut tally = Tally::new([config.temporal_factor(), height, width]);
    tally.causal(config.in_channels);
    let mut channels = config.base_dim;
    for (level, mult) in config.dim_mult.iter().enumerate() {
        let out = config.base_dim * mult;
        for _ in 0..config.num_res_blocks {
            tally.residual([channels, out]);
            channels = out;
        }
        if let Some(&temporal) = config.temperal_downsample.get(level) {
            tally.live(3 * tally.values(out));
            tally.at = [tally.at[0], tally.at[1] / 2, tally.at[2] / 2];
            if temporal {
                tally.temporal(out, 1);
                tally.at[0] /= 2;
            }
        }
    }
    tally.middle(channels);
    tally.causal(channels);
    finish(tally, count, size, config.in_channels)
}

/// Every tile keeps its own past; the blended chunk stands beside the tiles.
fn finish(tally: Tally, count: usize, [height, width]: [usize; 2], channels: usize) -> Peak {
    let chunk = 4 * height * width * channels * size_of::<f32>();
    let joined = if count > 1 { 3 * chunk } else { chunk };
    Peak { cache: tally.peak.cache * count, live: tally.peak.live + joined }
}
