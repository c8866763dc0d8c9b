//! `image_encoder/config.json` and `image_processor/preprocessor_config.json`: the sizes of a CLIP
//! vision encoder, and how pictures are made ready for it.

use kino_kernels::Filter;
use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_positive, require_sizes, unsupported};
use crate::clip::{Activation, LayerSizes};
use crate::error::Result;

/// The sizes of `CLIPVisionModel`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ClipConfig {
    model_type: String,
    /// Width of a token.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Pixels along each side of a picture.
    pub image_size: usize,
    /// Pixels along each side of a patch.
    pub patch_size: usize,
    /// Channels of a picture.
    #[serde(default = "rgb")]
    pub num_channels: usize,
    /// Epsilon of the norms.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// The activation of the feed-forward layers.
    #[serde(default = "quick")]
    pub hidden_act: Activation,
}

fn rgb() -> usize {
    3
}

fn epsilon() -> f64 {
    1e-5
}

fn quick() -> Activation {
    Activation::QuickGelu
}

/// The most layers.
const MAX_LAYERS: usize = 1024;

impl ClipConfig {
    const FILE: &'static str = "image_encoder/config.json";

    /// Reads and checks `image_encoder/config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, contradicts itself, or is not CLIP.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let file = Self::FILE;
        if self.model_type != "clip_vision_model" {
            let what = format!("the image encoder `{}`", self.model_type);
            return Err(unsupported(folder, file, what));
        }
        if self.num_channels != 3 {
            return Err(unsupported(
                folder,
                file,
                "an image encoder for other than three channels",
            ));
        }
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
        ];
        require_sizes(folder, file, &sizes)?;
        require_positive(folder, file, &[("layer_norm_eps", self.layer_norm_eps)])?;
        let reason = if self.num_hidden_layers > MAX_LAYERS {
            format!("{} layers, which no model has", self.num_hidden_layers)
        } else if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            "`hidden_size` must be a multiple of `num_attention_heads`".to_owned()
        } else if self.patch_size > self.image_size {
            "`patch_size` is larger than `image_size`".to_owned()
        } else {
            return Ok(());
        };
        Err(invalid(folder, file, reason))
    }

    /// The sizes of its layers.
    pub(super) fn layers(&self) -> LayerSizes {
        LayerSizes {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            eps: self.layer_norm_eps,
            activation: self.hidden_act,
        }
    }

    /// Patches along each side; what is left over at the right and below is not seen.
    pub fn patches(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Rows that a picture becomes: its patches, and one for all of it.
    pub fn rows(&self) -> usize {
        self.patches() * self.patches() + 1
    }
}

/// A size as the processor's config writes it: one number, or named ones.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shortest { shortest_edge: usize },
    Both { height: usize, width: usize },
}

/// How `CLIPImageProcessor` makes a picture ready.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PrepareConfig {
    size: Size,
    #[serde(default)]
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_center_crop: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    #[serde(default = "bicubic")]
    resample: u32,
    /// Mean of each channel, of pixels in 0…1.
    pub image_mean: [f64; 3],
    /// Standard deviation of each channel.
    pub image_std: [f64; 3],
}

fn yes() -> bool {
    true
}

/// Pillow's number of the bicubic filter.
fn bicubic() -> u32 {
    3
}

impl PrepareConfig {
    const FILE: &'static str = "image_processor/preprocessor_config.json";

    /// Reads and checks `image_processor/preprocessor_config.json` for an encoder.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or makes pictures that the encoder does not read.
    pub fn read(folder: &impl ModelFiles, encoder: &ClipConfig) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder, encoder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles, encoder: &ClipConfig) -> Result<()> {
        let file = Self::FILE;
        let steps = [self.do_resize, self.do_rescale, self.do_normalize];
        if steps.contains(&false) {
            let what = "an image processor that leaves out do_resize, do_rescale or do_normalize";
            return Err(unsupported(folder, file, what));
        }
        if self.filter().is_none() {
            let what = format!("an image processor with the filter {}", self.resample);
            return Err(unsupported(folder, file, what));
        }
        let deviations = self.image_std.map(|std| ("image_std", std));
        require_positive(folder, file, &deviations)?;
        // The least that a picture of any shape becomes, and what is cut out of it.
        let least = match self.size {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => (side, side),
            Size::Both { height, width } => (height, width),
        };
        require_sizes(folder, file, &[("size", least.0), ("size", least.1)])?;
        let side = encoder.image_size;
        let made = if self.crops() { (side, side) } else { least };
        if self.crop() != (side, side) || made != (side, side) || least.0.min(least.1) < side {
            let reason = format!("pictures of another size than the encoder's {side}x{side}");
            return Err(invalid(folder, file, reason));
        }
        Ok(())
    }

    fn crops(&self) -> bool {
        self.do_center_crop
    }

    /// Height and width of the part that is cut out of the middle.
    pub(super) fn crop(&self) -> (usize, usize) {
        match self.crop_size.as_ref().filter(|_| self.do_center_crop).unwrap_or(&self.size) {
            Size::Side(side) | Size::Shortest { shortest_edge: side } => (*side, *side),
            Size::Both { height, width } => (*height, *width),
        }
    }

    /// Height and width to which a picture is brought before it is cut.
    pub(super) fn resized(&self, height: usize, width: usize) -> (usize, usize) {
        match self.size {
            Size::Both { height, width } => (height, width),
            Size::Side(side) | Size::Shortest { shortest_edge: side } => {
                let long = |long: usize, short: usize| {
                    let scaled = side as u128 * long as u128 / short.max(1) as u128;
                    usize::try_from(scaled).unwrap_or(usize::MAX)
                };
                match height <= width {
                    true => (side, long(width, height)),
                    false => (long(height, width), side),
                }
            }
        }
    }

    /// The filter, by Pillow's numbers.
    pub(super) fn filter(&self) -> Option<Filter> {
        match self.resample {
            0 => Some(Filter::Nearest),
            1 => Some(Filter::Lanczos),
            2 => Some(Filter::Bilinear),
            3 => Some(Filter::Bicubic),
            _ => None,
        }
    }
}
