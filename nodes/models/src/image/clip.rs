//! The CLIP vision encoder (arXiv:2103.00020; transformers' `modeling_clip.py`): a picture to the
//! states of its patches before the last layer.

use candle_core::{DType, Tensor};

use super::config::ClipConfig;
use crate::cancel::CheckCancel;
use crate::clip::Layer;
use crate::error::{Error, Result};
use crate::weight::{LayerNorm, Linear, Weights};

/// The encoder, without its last layer: what is read are the states before it.
#[derive(Debug)]
pub struct ClipVision {
    config: ClipConfig,
    patches: Linear,
    class: Tensor,     // [1, hidden], f32
    positions: Tensor, // [rows, hidden], f32
    norm: LayerNorm,
    layers: Vec<Layer>,
    dtype: DType,
}

impl ClipVision {
    /// Takes the weights from an `image_encoder` folder; their names may begin with `vision_model`.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &ClipConfig, weights: &Weights) -> Result<Self> {
        let (dtype, device) = (weights.dtype(), weights.device().clone());
        let named = weights.contains("vision_model.embeddings.class_embedding");
        weights.leave("visual_projection.");
        let weights = if named { &weights.scope("vision_model") } else { weights };
        let (width, side) = (config.hidden_size, config.patch_size);
        let embeddings = weights.scope("embeddings");
        let kernel = embeddings.get("patch_embedding.weight", (width, 3, side, side))?;
        let kernel = weights.pack(kernel.reshape((width, 3 * side * side))?)?;
        let class = embeddings.get_as("class_embedding", width, DType::F32)?;
        let positions = (config.rows(), width);
        // What is read are the states before the last layer.
        weights.leave(&format!("encoder.layers.{}.", config.num_hidden_layers - 1));
        weights.leave("post_layernorm.");
        let layers = (0..config.num_hidden_layers - 1)
            .map(|index| {
                Layer::load(&config.layers(), &weights.scope("encoder.layers").scope(index))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            patches: Linear::new(kernel, None),
            class: class.reshape((1, width))?.to_device(&device)?,
            positions: embeddings.get_as("position_embedding.weight", positions, DType::F32)?,
            norm: LayerNorm::load(&weights.scope("pre_layrnorm"), width, config.layer_norm_eps)?,
            layers,
            config: config.clone(),
            dtype,
        })
    }

    /// The states of a picture before the last layer; `check_cancel` runs after every layer.
    ///
    /// Shapes: `pixels` `[3, size, size]`, normalised; the result is `[rows, hidden]`.
    ///
    /// # Errors
    /// When the size is another, or `check_cancel` cancels.
    pub fn encode(&self, pixels: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let (config, found) = (&self.config, pixels.dims());
        if found != [3, config.image_size, config.image_size] {
            return Err(Error::input(format!(
                "a picture {found:?}; this encoder reads [3, {0}, {0}]",
                config.image_size
            )));
        }
        let pixels = pixels.to_device(self.positions.device())?;
        let (n, side) = (config.patches(), config.patch_size);
        let whole = pixels.narrow(1, 0, n * side)?.narrow(2, 0, n * side)?;
        let patches = whole.reshape(&[3, n, side, n, side][..])?.permute([1, 3, 0, 2, 4])?;
        let patches = patches.contiguous()?.reshape((n * n, 3 * side * side))?;
        let patches = self.patches.forward(&patches.to_dtype(self.dtype)?)?; // [n·n, hidden]
        let all = Tensor::cat(&[&self.class, &patches.to_dtype(DType::F32)?], 0)?;
        let x = (all + &self.positions)?.to_dtype(self.dtype)?; // [rows, hidden]
        let mut x = self.norm.forward(&x)?;
        for layer in &self.layers {
            x = layer.forward(&x, None)?;
            check_cancel()?;
        }
        Ok(x)
    }
}
