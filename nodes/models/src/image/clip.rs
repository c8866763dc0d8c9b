//! The CLIP vision encoder (arXiv:2103.00020; transformers' `modeling_clip.py`): a picture to the
//! states of its patches before the last layer.

use candle_core::{DType, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use super::config::{Activation, ClipConfig};
use crate::cancel::CheckCancel;
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
        let weights = if named { &weights.scope("vision_model") } else { weights };
        let (width, side) = (config.hidden_size, config.patch_size);
        let embeddings = weights.scope("embeddings");
        let kernel = embeddings.get("patch_embedding.weight", (width, 3, side, side))?;
        let kernel = weights.pack(kernel.reshape((width, 3 * side * side))?)?;
        let class = embeddings.get_as("class_embedding", width, DType::F32)?;
        let positions = (config.rows(), width);
        // What is read are the states before the last layer.
        let layers = (0..config.num_hidden_layers - 1)
            .map(|index| Layer::load(config, &weights.scope("encoder.layers").scope(index)))
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
            x = layer.forward(&x)?;
            check_cancel()?;
        }
        Ok(x)
    }
}

/// Attention and feed-forward, each after a norm and added to its input.
#[derive(Debug)]
struct Layer {
    norms: [LayerNorm; 2],
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    widen: Linear,
    narrow: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn load(config: &ClipConfig, weights: &Weights) -> Result<Self> {
        let (width, inner, eps) =
            (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = weights.scope("self_attn");
        let linear = |name: &str| Linear::load(&attention.scope(name), width, width);
        let norm = |name: &str| LayerNorm::load(&weights.scope(name), width, eps);
        let feed = weights.scope("mlp");
        Ok(Self {
            norms: [norm("layer_norm1")?, norm("layer_norm2")?],
            query: linear("q_proj")?,
            key: linear("k_proj")?,
            value: linear("v_proj")?,
            out: linear("out_proj")?,
            widen: Linear::load(&feed.scope("fc1"), width, inner)?,
            narrow: Linear::load(&feed.scope("fc2"), inner, width)?,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// `[rows, hidden]` → the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let y = self.norms[0].forward(x)?;
        let split = |t: Tensor| t.reshape((rows, self.heads, ()))?.transpose(0, 1);
        let (query, key) = (split(self.query.forward(&y)?)?, split(self.key.forward(&y)?)?);
        let value = split(self.value.forward(&y)?)?; // [heads, rows, head]
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let mixed = kernels::attention(&query, &key, &value, scale)?;
        let mixed = mixed.transpose(0, 1)?.reshape((rows, width))?;
        let x = self.out.finished(&mixed, LinearEpilogue::Add(x))?;
        let y = self.widen.forward(&self.norms[1].forward(&x)?)?;
        let y = match self.activation {
            Activation::Gelu => kernels::gelu(&y)?,
            Activation::QuickGelu => {
                let gate = ((&y * -1.702)?.exp()? + 1.0)?.recip()?; // the logistic function
                (y * gate)?
            }
        };
        self.narrow.finished(&y, LinearEpilogue::Add(&x))
    }
}
