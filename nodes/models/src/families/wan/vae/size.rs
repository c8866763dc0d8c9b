//! Sizes known before anything runs: shapes of latents and frames, and what they cost in memory.

use candle_core::DType;

use super::decoder::{GROUP, first_apart, level_channels};
use super::resample::at_once;
use crate::error::{Error, Result};
use crate::families::wan::autoencoder::VaeConfig;
use crate::tile::{Tile, joining_bytes, tile_sizes};

/// Channels of a frame.
const RGB: usize = 3;

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
    [config.frames(frames), height * space, width * space, RGB]
}

/// Bytes that a pass needs besides the weights and the clip itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryPeak {
    /// Kept between chunks.
    pub cache: usize,
    /// Alive at once inside the dearest block, besides the cache.
    pub live: usize,
}

impl MemoryPeak {
    /// Both together.
    pub fn total(&self) -> usize {
        self.cache + self.live
    }
}

/// Walks the layers of a network and adds up what they keep and hold.
struct Tally {
    peak: MemoryPeak,
    /// Frames, height and width of the activations.
    at: [usize; 3],
    /// Bytes of a number.
    each: usize,
    /// Chunks of the clip. Of one, the frame is alone: no chunk is longer. Of two, nothing is kept
    /// but the first frame; behind the last chunk nothing is.
    chunks: usize,
    /// What a shortcut around the level keeps alive meanwhile.
    held: usize,
}

impl Tally {
    fn new(at: [usize; 3], chunks: usize, dtype: DType) -> Self {
        Self { peak: MemoryPeak::default(), at, each: dtype.size_in_bytes(), chunks, held: 0 }
    }

    /// Values of `channels` on this level.
    fn values(&self, channels: usize) -> usize {
        self.at.iter().product::<usize>() * channels * self.each
    }

    /// A padded frame.
    fn padded(&self, channels: usize) -> usize {
        let [_, h, w] = self.at;
        (h + 2) * (w + 2) * channels * self.each
    }

    /// A convolution over space and time keeps two padded frames of its input.
    fn causal(&mut self, channels: usize) {
        self.peak.cache += (self.chunks - 1).min(2) * self.padded(channels);
    }

    /// A convolution over time alone keeps so many frames as they are, past the first chunks that
    /// it does not look at.
    fn temporal(&mut self, channels: usize, [frames, past]: [usize; 2]) {
        let [_, h, w] = self.at;
        if self.chunks > past {
            self.peak.cache += frames * h * w * channels * self.each;
        }
    }

    fn live(&mut self, bytes: usize) {
        self.peak.live = self.peak.live.max(bytes + self.held);
    }

    /// A level begins whose input its shortcut reads at the end.
    fn hold(&mut self, is_residual: bool, channels: usize) {
        self.held = if is_residual { self.values(channels) } else { 0 };
    }

    /// The shortcut's own result, rearranged once on the way, beside that of the level.
    fn shortcut(&mut self, is_residual: bool, channels: usize, larger: usize) {
        if is_residual {
            self.live(larger + 3 * self.values(channels));
        }
        self.held = 0;
    }

    /// Input, padded activation and result are alive together; so is the shortcut where channels
    /// change. Of two frames the padded activation itself is kept, beside what was kept of the ones
    /// before; what is kept of a longer chunk is a copy.
    fn residual(&mut self, [cin, cout]: [usize; 2]) {
        self.causal(cin);
        self.causal(cout);
        let shortcut = if cin == cout { 0 } else { self.values(cout) };
        let activation = match (self.chunks, self.at[0]) {
            (1, _) => self.padded(cin.max(cout)),
            (_, 2) => 2 * self.padded(cin.max(cout)),
            _ => self.values(cout) + 2 * self.padded(cout),
        };
        self.live(self.values(cin) + self.values(cout) + shortcut + activation);
    }

    /// Input, norm or queries, keys and values, two results.
    fn attention(&mut self, channels: usize) {
        self.live(6 * self.values(channels));
    }

    fn middle(&mut self, channels: usize) {
        self.residual([channels; 2]);
        self.attention(channels);
        self.residual([channels; 2]);
    }
}

/// What decoding `frames` frames of `size` = (height, width) pixels needs, computing
/// in `dtype`: one is an image, of more it matters only in tiles how many there are.
pub fn decode_peak(
    config: &VaeConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> MemoryPeak {
    let chunks = chunks(config, frames);
    let mut peak = largest_of_tiles(size, tile, |size| decode_tally(config, size, (chunks, dtype)));
    let chunk = chunk_bytes(config, size, chunks);
    // In tiles, the last chunk is unfolded and clamped beside the others.
    let joining = joining_bytes(frames, size, tile, RGB);
    peak.live += if joining > 0 { 2 * chunk + joining } else { chunk };
    peak.live += kept_of_one(&peak, chunks, tile);
    peak
}

/// What encoding `frames` frames of `size` = (height, width) pixels needs, as for decoding.
pub fn encode_peak(
    config: &VaeConfig,
    (frames, size): (usize, [usize; 2]),
    tile: Option<Tile>,
    dtype: DType,
) -> MemoryPeak {
    let chunks = chunks(config, frames);
    let mut peak = largest_of_tiles(size, tile, |size| encode_tally(config, size, (chunks, dtype)));
    peak.live += chunk_bytes(config, size, chunks);
    peak.live += kept_of_one(&peak, chunks, tile);
    peak
}

/// What the allocator has not given back to the system within the second or less that a single
/// frame takes, measured: buffers of the levels behind. Later chunks take them again, and later
/// tiles about half of them.
fn kept_of_one(peak: &MemoryPeak, chunks: usize, tile: Option<Tile>) -> usize {
    match (chunks, tile) {
        (1, None) => peak.live / 2,
        (1, Some(_)) => peak.live / 4,
        _ => 0,
    }
}

/// One tile is worked on after another.
fn largest_of_tiles(
    size: [usize; 2],
    tile: Option<Tile>,
    tally: impl Fn([usize; 2]) -> MemoryPeak,
) -> MemoryPeak {
    tile_sizes(size, tile).into_iter().map(tally).fold(MemoryPeak::default(), |largest, peak| {
        MemoryPeak { cache: largest.cache.max(peak.cache), live: largest.live.max(peak.live) }
    })
}

/// Chunks of a clip: one frame, then as many as a latent frame stands for.
fn chunks(config: &VaeConfig, frames: usize) -> usize {
    1 + frames.saturating_sub(1).div_ceil(config.temporal_factor())
}

/// Bytes of the longest chunk of whole frames.
fn chunk_bytes(config: &VaeConfig, size: [usize; 2], chunks: usize) -> usize {
    size[0] * size[1] * chunk(config, chunks) * RGB * size_of::<f32>()
}

/// Frames of the longest chunk.
fn chunk(config: &VaeConfig, chunks: usize) -> usize {
    if chunks == 1 { 1 } else { config.temporal_factor() }
}

fn decode_tally(
    config: &VaeConfig,
    [height, width]: [usize; 2],
    (chunks, dtype): (usize, DType),
) -> MemoryPeak {
    let space = config.spatial_factor();
    let mut tally = Tally::new([1, height / space, width / space], chunks, dtype);
    tally.causal(config.z_dim);
    let levels = level_channels(config);
    if let Some([top, _]) = levels.first() {
        tally.middle(*top);
    }
    let mut last = 0;
    let (apart, mut whole) = (first_apart(config), 0);
    for (level, &[cin, out]) in levels.iter().enumerate() {
        if level == apart {
            // The chunk is held while its frames go on in groups.
            let widest = levels.last().map_or(0, |[_, out]| *out);
            let group =
                at_once(tally.at[0], height * width * widest / config.patch().pow(2), GROUP);
            whole = if group < tally.at[0] { tally.values(cin) } else { 0 };
            tally.at[0] = group;
        }
        tally.hold(config.is_residual, cin);
        tally.residual([cin, out]);
        (0..config.num_res_blocks).for_each(|_| tally.residual([out, out]));
        if let Some(&temporal) = config.temperal_downsample.iter().rev().nth(level) {
            let mut before = tally.values(out);
            if temporal && chunks > 1 {
                // The first chunk does not enter it, and the second keeps where a third comes.
                tally.temporal(out, [2, 2]);
                tally.at[0] *= 2;
                before += tally.values(out);
            }
            tally.at = [tally.at[0], 2 * tally.at[1], 2 * tally.at[2]];
            let narrowed = if config.is_residual { out } else { out / 2 };
            let frames = tally.at[0];
            let group = at_once(frames, tally.at[1] * tally.at[2] * out, 1);
            let results = if group < frames { 2 } else { 1 };
            let grown = tally.values(out) / frames * group;
            tally.live(before + grown + results * tally.values(narrowed));
            tally.shortcut(config.is_residual, out, 0);
        }
        tally.held = 0;
        last = out;
    }
    tally.causal(last);
    tally.peak.live += whole;
    tally.peak
}

fn encode_tally(
    config: &VaeConfig,
    [height, width]: [usize; 2],
    (chunks, dtype): (usize, DType),
) -> MemoryPeak {
    let patch = config.patch();
    let at = [chunk(config, chunks), height / patch, width / patch];
    let mut tally = Tally::new(at, chunks, dtype);
    tally.causal(config.in_channels);
    let mut channels = config.base_dim;
    let mut scale = 1.0;
    for (level, mult) in config.dim_mult.iter().enumerate() {
        let out = config.base_dim * mult;
        tally.hold(config.is_residual, channels);
        let rearranged = tally.values(channels);
        for _ in 0..config.num_res_blocks {
            tally.residual([channels, out]);
            channels = out;
            if config.attn_scales.contains(&scale) && !config.is_residual {
                tally.attention(out);
            }
        }
        if let Some(&temporal) = config.temperal_downsample.get(level) {
            tally.live(3 * tally.values(out));
            tally.at = [tally.at[0], tally.at[1] / 2, tally.at[2] / 2];
            if temporal {
                tally.temporal(out, [1, 1]);
                tally.at[0] = tally.at[0].div_ceil(2);
            }
            scale /= 2.0;
        }
        tally.shortcut(config.is_residual, out, rearranged);
    }
    tally.middle(channels);
    tally.causal(channels);
    tally.peak
}
