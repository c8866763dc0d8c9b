//! Parts of a model that stand alone in a file.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::layout::GgufValue;
use super::part::{Cut, Originals, PartFiles};

/// What the parts of a model are called in the diffusers layout.
pub mod part_names {
    /// The transformer; of two experts that of high noise levels.
    pub const TRANSFORMER: &str = "transformer";
    /// The expert of low noise levels.
    pub const LOW_NOISE: &str = "transformer_2";
    /// The video autoencoder.
    pub const VAE: &str = "vae";
    /// The text encoder.
    pub const TEXT_ENCODER: &str = "text_encoder";
    /// A second text encoder, which reads the same prompt (FLUX: T5 beside CLIP).
    pub const TEXT_ENCODER_2: &str = "text_encoder_2";
    /// The image encoder.
    pub const IMAGE_ENCODER: &str = "image_encoder";
}

/// Gives the name that a weight has in the diffusers layout; none where it has none.
pub type Rename = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How many blocks a network has whose weights' names begin with `prefix`, a number following: up
/// to the last of which any weight is there, so that what a damaged file lacks of one is missed by
/// name instead of making the network smaller.
pub(crate) fn count_blocks<'a>(names: impl IntoIterator<Item = &'a str>, prefix: &str) -> usize {
    let (mut weights, mut last) = (0, None);
    for name in names {
        weights += 1;
        let number = name.strip_prefix(prefix).and_then(|rest| rest.split('.').next());
        last = last.max(number.and_then(|number| number.parse::<usize>().ok()));
    }
    // Each has a weight: a number beyond that is nobody's.
    last.filter(|last| *last < weights).map_or(0, |last| last + 1)
}

/// What a family finds a file to be, by the names and shapes of its weights.
pub struct DetectedPart {
    /// Which part it is: one of [`part_names`].
    pub part: &'static str,
    /// What its config would say in the diffusers layout.
    pub config: Value,
    /// Names of weights, as that layout has them.
    pub rename: Rename,
    /// The way back, for messages about what the file lacks.
    pub originals: Originals,
    /// Layers that the file has as one, where it has some.
    pub cut: Option<Cut>,
}

impl DetectedPart {
    /// A part whose layers are those of the diffusers layout, whatever they are called.
    pub fn new(
        part: &'static str,
        config: Value,
        rename: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let originals = Box::new(|name: &str| vec![name.to_owned()]);
        Self { part, config, rename: Box::new(rename), originals, cut: None }
    }

    /// The same of a file whose names are one of those that `originals` gives for a weight.
    #[must_use]
    pub fn with_originals(
        self,
        originals: impl Fn(&str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self { originals: Box::new(originals), ..self }
    }

    /// The same of a file that has some layers as one.
    #[must_use]
    pub fn with_cut(
        self,
        cut: impl Fn(&str) -> Vec<(String, usize)> + Send + Sync + 'static,
    ) -> Self {
        Self { cut: Some(Box::new(cut)), ..self }
    }
}

/// In which format a part that stands alone is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleFormat {
    /// As ComfyUI and the authors of models share it.
    Safetensors,
    /// As ComfyUI-GGUF, stable-diffusion.cpp and llama.cpp read it.
    Gguf,
}

/// In how few bits a weight may be held where a part is made small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowWeight {
    /// As exactly as it is known: norms, biases, embeddings, heads.
    Never,
    /// In blocks alone: tables of which rows are looked up.
    Blocks,
    /// In blocks, or in eight bits with a scale: the matrices of a network's many layers.
    Any,
}

/// How a part of a model stands alone in a file, as others read it.
pub struct SingleForm {
    /// The name that a weight has there, by its name in the diffusers layout; none where it is left
    /// out.
    pub rename: Rename,
    /// What may be narrow, by the names of the diffusers layout.
    pub narrow: fn(&str) -> NarrowWeight,
    /// `general.architecture` of GGUF files.
    pub architecture: &'static str,
    /// What else stands in the metadata of GGUF files.
    pub metadata: Vec<(String, GgufValue)>,
    /// Tensors of bytes that stand beside the weights, by their names.
    pub beside: Vec<(String, Vec<u8>)>,
    /// What its config says there, where that is not what the model's own says.
    pub config: Option<Value>,
    /// What whoever writes such a file might want to know.
    pub notes: Vec<String>,
}

impl SingleForm {
    /// One of weights alone.
    pub(crate) fn new(
        architecture: &'static str,
        rename: Rename,
        narrow: fn(&str) -> NarrowWeight,
    ) -> Self {
        let (metadata, beside, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { rename, narrow, architecture, metadata, beside, config: None, notes }
    }
}

/// A part that stands alone in a file, opened.
#[derive(Debug)]
pub struct SinglePart {
    /// Which part it is: one of [`part_names`].
    pub part: &'static str,
    /// Where the file lies.
    pub path: PathBuf,
    /// Its weights, by the names of the diffusers layout.
    pub files: Arc<PartFiles>,
}

/// Configs as files hold them: path and contents.
pub(crate) fn written(configs: Vec<(String, Value)>) -> Vec<(String, Vec<u8>)> {
    configs.into_iter().map(|(path, config)| (path, config.to_string().into_bytes())).collect()
}
