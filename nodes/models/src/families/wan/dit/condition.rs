//! What steers the blocks: timesteps, and text before its keys and values.

use candle_core::{DType, Device, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use crate::error::{Error, Result};
use crate::families::wan::transformer::TransformerConfig;
use crate::text::distinct_rows;
use crate::timestep::sinusoids;
use crate::weight::{LayerNorm, Linear, Weights};

/// The condition embedder: timesteps and text to the width of the blocks.
///
/// The timestep's two layers stay f32 whatever the compute type, as in diffusers.
#[derive(Debug)]
pub(super) struct Embedder {
    freq_dim: usize,
    dim: usize,
    time_in: Linear,
    time_out: Linear,
    time_projection: Linear,
    text_in: Linear,
    text_out: Linear,
    image: Option<ImageEmbedder>,
}

impl Embedder {
    pub(super) fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let (dim, freq_dim, text_dim) = (config.dim(), config.freq_dim, config.text_dim);
        let (time, text) = (weights.scope("time_embedder"), weights.scope("text_embedder"));
        Ok(Self {
            freq_dim,
            dim,
            time_in: Linear::load_f32(&time.scope("linear_1"), freq_dim, dim)?,
            time_out: Linear::load_f32(&time.scope("linear_2"), dim, dim)?,
            time_projection: Linear::load(&weights.scope("time_proj"), dim, 6 * dim)?,
            text_in: Linear::load(&text.scope("linear_1"), text_dim, dim)?,
            text_out: Linear::load(&text.scope("linear_2"), dim, dim)?,
            image: config
                .image_dim
                .map(|width| {
                    let weights = weights.scope("image_embedder");
                    ImageEmbedder::load(&weights, [width, dim], config.pos_embed_seq_len)
                })
                .transpose()?,
        })
    }

    /// Pictures at the width of the blocks, where the transformer reads them.
    pub(super) fn image(&self) -> Option<&ImageEmbedder> {
        self.image.as_ref()
    }

    /// The embedding of a timestep. Shape: `[1, dim]`, f32.
    pub(super) fn time(&self, timestep: f64, device: &Device) -> Result<Tensor> {
        let waves = sinusoids(timestep, self.freq_dim, device)?; // [1, freq_dim]
        self.time_out.forward(&kernels::silu(&self.time_in.forward(&waves)?)?)
    }

    /// What timesteps add to the blocks' tables. Shape: `[timesteps, 6, dim]`, f32.
    pub(super) fn modulation(&self, time: &Tensor, dtype: DType) -> Result<Tensor> {
        let projected = self.time_projection.forward(&kernels::silu(&time.to_dtype(dtype)?)?)?;
        Ok(projected.to_dtype(DType::F32)?.reshape(((), 6, self.dim))?)
    }

    /// A text at the width of the blocks. Shape: `text` is `[rows, text_dim]`.
    pub(super) fn text(
        &self,
        text: &Tensor,
        (device, dtype): (&Device, DType),
    ) -> Result<ProjectedText> {
        let kept = distinct_rows(text)?;
        let equal = text.dim(0)? + 1 - kept;
        let rows = text.narrow(0, 0, kept)?.to_device(device)?.to_dtype(dtype)?;
        let rows =
            self.text_out.forward(&self.text_in.finished(&rows, LinearEpilogue::GeluTanh)?)?;
        let bias = (equal > 1).then(|| {
            let mut bias = vec![0.0; kept];
            bias[kept - 1] = (equal as f32).ln();
            Tensor::from_vec(bias, (1, 1, kept), rows.device())
        });
        Ok(ProjectedText { bias: bias.transpose()?, rows })
    }
}

/// A text at the width of the blocks. Past a prompt stand rows of zeros, which no mask leaves out
/// and which are equal in every block: one stands for them all.
#[derive(Debug)]
pub(super) struct ProjectedText {
    /// `[rows, dim]`
    pub(super) rows: Tensor,
    /// What is added to the scores of the rows, `[1, 1, rows]`: ln c where one stands for c, as
    /// c·exp(s) = exp(s + ln c). None where each stands for itself.
    pub(super) bias: Option<Tensor>,
}

/// The epsilon of the norms around the image's two layers.
const IMAGE_EPS: f64 = 1e-5;

/// States of an image encoder to the width of the blocks: norm, two layers, norm.
#[derive(Debug)]
pub(super) struct ImageEmbedder {
    positions: Option<Tensor>, // [rows, width], f32
    norms: [LayerNorm; 2],
    inner: Linear,
    out: Linear,
}

impl ImageEmbedder {
    fn load(weights: &Weights, [width, dim]: [usize; 2], rows: Option<usize>) -> Result<Self> {
        let positions = |rows: usize| {
            let positions = weights.get_as("pos_embed", (1, rows, width), DType::F32)?;
            Ok::<_, Error>(positions.squeeze(0)?)
        };
        let feed = weights.scope("ff.net");
        Ok(Self {
            positions: rows.map(positions).transpose()?,
            norms: [
                LayerNorm::load(&weights.scope("norm1"), width, IMAGE_EPS)?,
                LayerNorm::load(&weights.scope("norm2"), dim, IMAGE_EPS)?,
            ],
            inner: Linear::load(&feed.scope("0.proj"), width, width)?,
            out: Linear::load(&feed.scope(2), width, dim)?,
        })
    }

    /// Shapes: `[rows, width]` to `[rows, dim]`.
    pub(super) fn forward(&self, image: &Tensor, dtype: DType) -> Result<Tensor> {
        let placed = match &self.positions {
            Some(positions) if positions.dims() != image.dims() => {
                let (found, own) = (image.dims(), positions.dims());
                return Err(Error::input(format!(
                    "images {found:?}: this transformer reads {own:?}"
                )));
            }
            Some(positions) => (image.to_dtype(DType::F32)? + positions)?,
            None => image.clone(),
        };
        let x = self.norms[0].forward(&placed.to_dtype(dtype)?)?;
        let x = self.out.forward(&kernels::gelu(&self.inner.forward(&x)?)?)?;
        self.norms[1].forward(&x)
    }
}

/// Rows of shifts, scales and gates, one set a distinct timestep, and which token takes which.
#[derive(Debug)]
pub(super) struct Modulation {
    table: Tensor,        // [distinct, parts, dim], f32
    rows: Option<Tensor>, // [tokens]; none where all tokens take row 0
}

impl Modulation {
    pub(super) fn new(table: Tensor, rows: Option<Tensor>) -> Self {
        Self { table, rows }
    }

    /// The rows of the tokens as a tensor, or none where there is one row for all.
    pub(super) fn rows(rows: &[u32], distinct: usize, device: &Device) -> Result<Option<Tensor>> {
        Ok((distinct > 1).then(|| Tensor::new(rows, device)).transpose()?)
    }

    /// One shift, scale or gate. Shape: `[1, dim]`, or `[tokens, dim]` where tokens differ.
    ///
    /// Gathered when it is used, so that only a few exist at a time.
    pub(super) fn part(&self, index: usize) -> Result<Tensor> {
        let part = self.table.narrow(1, index, 1)?.squeeze(1)?.contiguous()?; // [distinct, dim]
        match &self.rows {
            Some(rows) => Ok(part.index_select(rows, 0)?), // [tokens, dim]
            None => Ok(part),
        }
    }
}
