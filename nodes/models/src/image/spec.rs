//! What is known of a CLIP vision encoder before its weights are read.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::clip::ClipVision;
use super::config::{ClipConfig, PrepareConfig};
use super::prepare::prepare;
use crate::cancel::CheckCancel;
use crate::error::Result;
use crate::model::{ImageEncoder, ImageEncoderSpec};
use crate::weight::Weights;

/// A CLIP vision encoder with the processor of its pictures.
pub struct ClipSpec {
    config: ClipConfig,
    prepare: PrepareConfig,
}

impl ClipSpec {
    /// An encoder of these sizes.
    pub fn new(config: ClipConfig, prepare: PrepareConfig) -> Self {
        Self { config, prepare }
    }
}

impl ImageEncoderSpec for ClipSpec {
    fn shape(&self) -> [usize; 2] {
        [self.config.rows(), self.config.hidden_size]
    }

    /// One layer is alive at a time, with the inner activations of its feed-forward.
    fn memory(&self, _: DType) -> u64 {
        let config = &self.config;
        let (rows, wide) = (config.rows() as u128, |n: usize| n as u128);
        let layer = rows * (8 * wide(config.hidden_size) + 3 * wide(config.intermediate_size));
        // The picture, resized and cut.
        let pixels = 6 * wide(config.image_size) * wide(config.image_size) * 3;
        u64::try_from(4 * (layer + pixels)).unwrap_or(u64::MAX)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn ImageEncoder>> {
        let model = ClipVision::load(&self.config, weights)?;
        Ok(Arc::new(Loaded { model, prepare: self.prepare.clone() }))
    }
}

struct Loaded {
    model: ClipVision,
    prepare: PrepareConfig,
}

impl ImageEncoder for Loaded {
    fn encode(&self, picture: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let pixels = prepare(picture, &self.prepare)?;
        Ok(self.model.encode(&pixels, check_cancel)?.to_dtype(DType::F32)?)
    }
}
