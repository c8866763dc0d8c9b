//! `vae/config.json`: the sizes of `AutoencoderKLLTXVideo`, in the forms of 0.9.0, 0.9.1 and 0.9.5.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::error::Result;

/// The autoencoder's config, with the keys of diffusers and its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct VaeConfig {
    #[serde(rename = "_class_name")]
    class: String,
    in_channels: usize,
    out_channels: usize,
    /// Channels of the latent.
    pub(super) latent_channels: usize,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    decoder_block_out_channels: Vec<usize>,
    layers_per_block: Vec<usize>,
    decoder_layers_per_block: Vec<usize>,
    spatio_temporal_scaling: Vec<bool>,
    decoder_spatio_temporal_scaling: Vec<bool>,
    decoder_inject_noise: Vec<bool>,
    downsample_type: Vec<String>,
    upsample_residual: Vec<bool>,
    upsample_factor: Vec<usize>,
    /// Whether the decoder is told how noisy a latent is.
    pub(super) timestep_conditioning: bool,
    /// Pixels along a side that are folded into channels.
    pub(super) patch_size: usize,
    patch_size_t: usize,
    /// Epsilon of the norm before a shortcut.
    pub(super) resnet_norm_eps: f64,
    /// What normalised latents are multiplied by.
    pub(super) scaling_factor: f64,
    encoder_causal: bool,
    /// Whether the decoder sees only frames before.
    pub(super) decoder_causal: bool,
    spatial_compression_ratio: Option<usize>,
    temporal_compression_ratio: Option<usize>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        let channels = vec![128, 256, 512, 512];
        let (layers, scaling) = (vec![4, 3, 3, 3, 4], vec![true, true, true, false]);
        Self {
            class: String::new(),
            in_channels: 3,
            out_channels: 3,
            latent_channels: 128,
            block_out_channels: channels.clone(),
            down_block_types: vec![OLD.to_owned(); 4],
            decoder_block_out_channels: channels,
            layers_per_block: layers.clone(),
            decoder_layers_per_block: layers,
            spatio_temporal_scaling: scaling.clone(),
            decoder_spatio_temporal_scaling: scaling,
            decoder_inject_noise: vec![false; 5],
            downsample_type: vec!["conv".to_owned(); 4],
            upsample_residual: vec![false; 4],
            upsample_factor: vec![1; 4],
            timestep_conditioning: false,
            patch_size: 4,
            patch_size_t: 1,
            resnet_norm_eps: 1e-6,
            scaling_factor: 1.0,
            encoder_causal: true,
            decoder_causal: false,
            spatial_compression_ratio: None,
            temporal_compression_ratio: None,
        }
    }
}

/// Blocks of the encoder before 0.9.5, and from then on.
const OLD: &str = "LTXVideoDownBlock3D";
const NEW: &str = "LTXVideo095DownBlock3D";
/// The most blocks of a network and layers of a block: far above what any model has.
const MAX_BLOCKS: usize = 12;
const MAX_LAYERS: usize = 256;

/// What halves the sides at the end of a block of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Downsample {
    /// A convolution that moves by two.
    Strided,
    /// Frames, rows and columns folded into channels, beside a mean of them.
    Folded([usize; 3]),
}

impl Downsample {
    fn factors(self) -> [usize; 3] {
        match self {
            Self::Strided => [2; 3],
            Self::Folded(factors) => factors,
        }
    }
}

/// A block of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DownBlock {
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    /// Residual layers before it changes size.
    pub(super) layers: usize,
    /// What halves the sides; it changes the channels, too, where it folds.
    pub(super) downsample: Option<Downsample>,
}

/// A block of the decoder; the first has no upsampling and is called the middle one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UpBlock {
    /// Channels that come in where a layer before upsampling changes them.
    pub(super) widened_from: Option<usize>,
    /// Channels of its residual layers.
    pub(super) channels: usize,
    pub(super) layers: usize,
    /// Whether the sides are doubled.
    pub(super) doubles: bool,
    /// By how much doubling divides the channels.
    pub(super) factor: usize,
    /// Whether what comes in is added to what doubling gives.
    pub(super) is_residual: bool,
    /// Whether its layers add noise.
    pub(super) adds_noise: bool,
}

impl VaeConfig {
    pub(super) const FILE: &'static str = "vae/config.json";
    /// The class that is run.
    pub(super) const CLASS: &'static str = "AutoencoderKLLTXVideo";

    /// Reads and checks `vae/config.json`.
    ///
    /// # Errors
    /// When it is missing, contradicts itself, or describes another autoencoder.
    pub(super) fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let file = Self::FILE;
        let refuse = |what: String| Err(unsupported(folder, file, what));
        let wrong = |reason: String| Err(invalid(folder, file, reason));
        if self.class != Self::CLASS {
            return refuse(format!("the autoencoder `{}`", self.class));
        }
        let odd = [
            ("in_channels", self.in_channels == 3),
            ("out_channels", self.out_channels == 3),
            ("patch_size_t", self.patch_size_t == 1),
            ("encoder_causal", self.encoder_causal),
        ];
        if let Some((key, _)) = odd.into_iter().find(|(_, fits)| !fits) {
            return refuse(format!("an autoencoder with this `{key}`"));
        }
        let is_new = self.is_new();
        let types = if is_new { NEW } else { OLD };
        if let Some(other) = self.down_block_types.iter().find(|name| *name != types) {
            return refuse(format!("the entry `{other}` of `down_block_types` beside `{types}`"));
        }
        require_sizes(
            folder,
            file,
            &[("latent_channels", self.latent_channels), ("patch_size", self.patch_size)],
        )?;
        require_positive(
            folder,
            file,
            &[("resnet_norm_eps", self.resnet_norm_eps), ("scaling_factor", self.scaling_factor)],
        )?;
        let widths = |key, values: &[usize]| {
            require_sizes(folder, file, &values.iter().map(|v| (key, *v)).collect::<Vec<_>>())
        };
        widths("block_out_channels", &self.block_out_channels)?;
        widths("decoder_block_out_channels", &self.decoder_block_out_channels)?;
        widths("upsample_factor", &self.upsample_factor)?;
        let down = self.block_out_channels.len().saturating_sub(usize::from(is_new));
        let up = self.decoder_block_out_channels.len();
        let lengths = [
            ("block_out_channels", down, down.clamp(1, MAX_BLOCKS)),
            ("decoder_block_out_channels", up, up.clamp(1, MAX_BLOCKS)),
            ("down_block_types", self.down_block_types.len(), down),
            ("layers_per_block", self.layers_per_block.len(), down + 1),
            ("spatio_temporal_scaling", self.spatio_temporal_scaling.len(), down),
            ("decoder_layers_per_block", self.decoder_layers_per_block.len(), up + 1),
            ("decoder_spatio_temporal_scaling", self.decoder_spatio_temporal_scaling.len(), up),
            ("decoder_inject_noise", self.decoder_inject_noise.len(), up + 1),
            ("upsample_residual", self.upsample_residual.len(), up),
            ("upsample_factor", self.upsample_factor.len(), up),
        ];
        // What is of no use in a form may have any length, as defaults of another have.
        let unused = |key: &str| key.starts_with("upsample") && self.upsample_is_default();
        if let Some((key, found, expected)) =
            lengths.into_iter().find(|(key, found, expected)| found != expected && !unused(key))
        {
            return wrong(format!("`{key}` has {found} entries, {expected} are needed"));
        }
        let layers = self.layers_per_block.iter().chain(&self.decoder_layers_per_block);
        if layers.max().is_some_and(|most| *most > MAX_LAYERS) {
            return wrong(format!("`layers_per_block` has above {MAX_LAYERS} layers"));
        }
        self.check_blocks(folder)
    }

    /// Blocks whose sizes follow from each other.
    fn check_blocks(&self, folder: &impl ModelFiles) -> Result<()> {
        let file = Self::FILE;
        let refuse = |what: &str| Err(unsupported(folder, file, what));
        let wrong = |reason: String| Err(invalid(folder, file, reason));
        if self.is_new() {
            let down = self.spatio_temporal_scaling.len();
            if self.downsample_type.len() != down {
                let found = self.downsample_type.len();
                return wrong(format!("`downsample_type` has {found} entries, {down} are needed"));
            }
            let known = |name: &&String| downsample(name).is_none();
            if let Some(other) = self.downsample_type.iter().find(known) {
                return refuse(&format!("the `downsample_type` `{other}`"));
            }
        }
        for block in self.down_blocks() {
            let [cin, cout] = block.channels;
            match block.downsample {
                Some(Downsample::Folded(factors)) => {
                    let volume: usize = factors.iter().product();
                    let is_whole =
                        cout.is_multiple_of(volume) && (cin * volume).is_multiple_of(cout);
                    if !is_whole {
                        return wrong(format!(
                            "`block_out_channels`: {cin} channels cannot be folded into {cout}"
                        ));
                    }
                }
                _ if self.is_new() && cin != cout => {
                    return wrong(format!(
                        "`block_out_channels`: nothing in a block turns {cin} channels into {cout}"
                    ));
                }
                _ => {}
            }
        }
        let up_blocks = self.up_blocks();
        for block in &up_blocks {
            let widened = block.widened_from.is_some();
            if widened && self.timestep_conditioning {
                return refuse("`timestep_conditioning` with blocks that change channels");
            }
            if widened && (block.adds_noise || block.factor != 1) {
                return refuse(
                    "`decoder_inject_noise` or `upsample_factor` in blocks that change channels",
                );
            }
            let inner = block.channels * block.factor;
            if block.doubles && (inner * 8 / block.factor) % 8 != 0
                || block.is_residual && (inner % 8 != 0 || 8 % block.factor != 0)
            {
                let factor = block.factor;
                return wrong(format!(
                    "`upsample_factor`: {inner} channels cannot be spread with a factor of {factor}"
                ));
            }
        }
        let mut last = up_blocks.first().map_or(0, |middle| middle.channels);
        for block in up_blocks.iter().skip(1) {
            if block.widened_from.is_none() && last != block.channels * block.factor {
                return wrong(format!(
                    "`upsample_factor`: a block takes {} channels and is given {last}",
                    block.channels * block.factor
                ));
            }
            last = block.channels;
        }
        let [temporal, spatial] = [self.temporal_factor(), self.spatial_factor()];
        let doubled = 1 << up_blocks.iter().filter(|block| block.doubles).count();
        if temporal != doubled || spatial != self.patch_size * doubled {
            return wrong(
                "`decoder_spatio_temporal_scaling` does not undo `spatio_temporal_scaling`"
                    .to_owned(),
            );
        }
        for (key, said, own) in [
            ("spatial_compression_ratio", self.spatial_compression_ratio, spatial),
            ("temporal_compression_ratio", self.temporal_compression_ratio, temporal),
        ] {
            if let Some(said) = said.filter(|said| *said != own) {
                return wrong(format!("`{key}` is {said}, its blocks make {own}"));
            }
        }
        Ok(())
    }

    fn is_new(&self) -> bool {
        self.down_block_types.last().is_some_and(|name| name == NEW)
    }

    fn upsample_is_default(&self) -> bool {
        self.upsample_factor.iter().all(|factor| *factor == 1)
            && self.upsample_residual.iter().all(|residual| !residual)
    }

    /// The blocks of the encoder, in the order in which they run.
    pub(super) fn down_blocks(&self) -> Vec<DownBlock> {
        let (is_new, widths) = (self.is_new(), &self.block_out_channels);
        let Some(mut channels) = widths.first().copied() else { return Vec::new() };
        let count = widths.len() - usize::from(is_new);
        (0..count)
            .map(|index| {
                let cin = channels;
                channels = widths.get(index + 1).copied().unwrap_or(widths[index]);
                let scales = self.spatio_temporal_scaling.get(index).copied().unwrap_or(false);
                let kind = match is_new {
                    true => self.downsample_type.get(index).and_then(|name| downsample(name)),
                    false => Some(Downsample::Strided),
                };
                DownBlock {
                    channels: [cin, channels],
                    layers: self.layers_per_block.get(index).copied().unwrap_or(0),
                    downsample: kind.filter(|_| scales),
                }
            })
            .collect()
    }

    /// Channels and layers of the encoder's middle block.
    pub(super) fn encoder_middle(&self) -> [usize; 2] {
        let channels = self.block_out_channels.last().copied().unwrap_or(0);
        [channels, self.layers_per_block.last().copied().unwrap_or(0)]
    }

    /// The blocks of the decoder, the middle one first.
    pub(super) fn up_blocks(&self) -> Vec<UpBlock> {
        fn from_end<T: Copy>(values: &[T], index: usize) -> Option<T> {
            values.iter().rev().nth(index).copied()
        }
        let widths = &self.decoder_block_out_channels;
        let mut channels = widths.last().copied().unwrap_or(0);
        let layers = |index| from_end(&self.decoder_layers_per_block, index).unwrap_or(0);
        let noise = |index| from_end(&self.decoder_inject_noise, index).unwrap_or(false);
        let middle = UpBlock {
            widened_from: None,
            channels,
            layers: layers(0),
            doubles: false,
            factor: 1,
            is_residual: false,
            adds_noise: noise(0),
        };
        let block = |index: usize| {
            let factor = from_end(&self.upsample_factor, index).unwrap_or(1).max(1);
            let cin = channels / factor;
            channels = from_end(widths, index).unwrap_or(0) / factor;
            let doubles = from_end(&self.decoder_spatio_temporal_scaling, index).unwrap_or(false);
            UpBlock {
                widened_from: (cin != channels).then_some(cin),
                channels,
                layers: layers(index + 1),
                doubles,
                factor,
                is_residual: doubles && from_end(&self.upsample_residual, index).unwrap_or(false),
                adds_noise: noise(index + 1),
            }
        };
        let blocks: Vec<UpBlock> = (0..widths.len()).map(block).collect();
        [middle].into_iter().chain(blocks).collect()
    }

    fn factor(&self, axis: usize) -> usize {
        let down = self.down_blocks().into_iter().filter_map(|block| block.downsample);
        down.map(|down| down.factors()[axis]).product()
    }

    /// Frames to one latent frame, after the first: 8 in published models.
    pub(super) fn temporal_factor(&self) -> usize {
        self.factor(0)
    }

    /// Pixels along each side of a latent pixel: 32 in published models.
    pub(super) fn spatial_factor(&self) -> usize {
        self.patch_size * self.factor(1)
    }

    /// Channels of a frame whose pixels are folded.
    pub(super) fn folded_channels(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }
}

fn downsample(name: &str) -> Option<Downsample> {
    match name {
        "conv" => Some(Downsample::Strided),
        "spatial" => Some(Downsample::Folded([1, 2, 2])),
        "temporal" => Some(Downsample::Folded([2, 1, 1])),
        "spatiotemporal" => Some(Downsample::Folded([2, 2, 2])),
        _ => None,
    }
}
