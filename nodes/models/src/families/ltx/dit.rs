//! The transformer of LTX-Video (arXiv:2501.00103; diffusers' `transformer_ltx.py`): velocity of
//! latent pixels.
//!
//! Tokens are packed over clips of any sizes: linear layers run on all at once, self-attention
//! stays within a clip, and positions start anew in each.

mod block;
mod rope;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use kino_kernels::{self as kernels, LinearEpilogue};

use super::transformer::TransformerConfig;
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::model::{Embedding, Packed};
use crate::patch::Grid;
use crate::timestep::sinusoids;
use crate::weight::{BlockList, Blocks, Linear, Weights};
use block::{Block, BlockText, Clip, Modulation, joined};
pub(super) use rope::Scale;
use rope::rotation;

/// Rotation tables are kept for so many grids.
const KEPT_TABLES: usize = 16;
/// Width of the sinusoids of a timestep.
const FREQ_DIM: usize = 256;
/// Epsilon of the last norm.
const OUT_EPS: f64 = 1e-6;

/// A text as the blocks read it: keys and values of every block's cross-attention, of the rows that
/// count, each `[heads, rows, head_dim]`.
#[derive(Debug)]
pub(super) struct Context(Vec<(Tensor, Tensor)>);

/// Cosines and sines by grid and frame rate.
type Tables = HashMap<(Grid, u64), (Tensor, Tensor)>;

/// The transformer.
#[derive(Debug)]
pub(super) struct Dit {
    config: TransformerConfig,
    /// Frames and pixels that a latent pixel stands for.
    scale: Scale,
    device: Device,
    dtype: DType,
    enter: Linear,
    time: [Linear; 2],
    time_projection: Linear,
    caption: [Linear; 2],
    blocks: Blocks<Block>,
    texts: Blocks<BlockText>,
    out_table: Tensor, // [2, dim], f32
    out: Linear,
    tables: Mutex<Tables>,
}

impl Dit {
    /// Takes the weights from a `transformer` folder.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub(super) fn load(
        config: &TransformerConfig,
        scale: Scale,
        weights: &Weights,
    ) -> Result<Self> {
        let (dim, channels) = (config.dim(), config.in_channels);
        let (own, count) = (weights.scope("transformer_blocks"), config.num_layers);
        let (of_block, of_text) = (config.clone(), config.clone());
        let block = move |_, weights: &Weights| Block::load(&of_block, weights);
        let text = move |_, weights: &Weights| BlockText::load(&of_text, weights);
        let time = weights.scope("time_embed");
        let embedder = time.scope("emb.timestep_embedder");
        let caption = weights.scope("caption_projection");
        Ok(Self {
            config: config.clone(),
            scale,
            device: weights.device().clone(),
            dtype: weights.dtype(),
            enter: Linear::load(&weights.scope("proj_in"), channels, dim)?,
            // Timesteps stay f32 whatever the compute type.
            time: [
                Linear::load_f32(&embedder.scope("linear_1"), FREQ_DIM, dim)?,
                Linear::load_f32(&embedder.scope("linear_2"), dim, dim)?,
            ],
            time_projection: Linear::load(&time.scope("linear"), dim, 6 * dim)?,
            caption: [
                Linear::load(&caption.scope("linear_1"), config.caption_channels, dim)?,
                Linear::load(&caption.scope("linear_2"), dim, dim)?,
            ],
            blocks: Blocks::load(&own, BlockList::new("blocks", count), block)?,
            texts: Blocks::load(&own, BlockList::once("texts", count), text)?,
            out_table: weights.get_as("scale_shift_table", (2, dim), DType::F32)?,
            out: Linear::load(&weights.scope("proj_out"), dim, channels)?,
            tables: Mutex::default(),
        })
    }

    /// Projects a text for all blocks. Rows that its mask leaves out are not read at all, which is
    /// the same as a score of −10,000 for them.
    ///
    /// # Errors
    /// When the width is not `caption_channels`, or no row counts.
    pub(super) fn context(&self, text: &Embedding) -> Result<Context> {
        let (rows, width) = text.tensor.dims2()?;
        let own = self.config.caption_channels;
        if width != own || rows == 0 {
            return Err(Error::input(format!(
                "the text has the shape [{rows}, {width}]; this transformer reads [rows, {own}]"
            )));
        }
        let read = match &text.mask {
            Some(mask) => {
                let mask: Vec<f32> = mask.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                let counts: Vec<u32> =
                    (0..rows as u32).filter(|row| mask.get(*row as usize) != Some(&0.0)).collect();
                if counts.is_empty() {
                    return Err(Error::input("the mask of the text leaves no row of it"));
                }
                let counts = Tensor::new(counts, text.tensor.device())?;
                text.tensor.index_select(&counts, 0)?
            }
            None => text.tensor.clone(),
        };
        let text = read.to_device(&self.device)?.to_dtype(self.dtype)?;
        let [first, second] = &self.caption;
        let text = second.forward(&first.finished(&text, LinearEpilogue::GeluTanh)?)?; // [rows, dim]
        Ok(Context(self.texts.each(|_, block| block.context(&text))?))
    }

    /// The velocity of packed latents: noise − data, in f32 and of the shape of the patches.
    /// `check_cancel` runs after every block and may cancel.
    ///
    /// # Errors
    /// When grids, timesteps or contexts do not fit the patches, or `check_cancel` cancels.
    pub(super) fn velocity(
        &self,
        latents: &Packed<'_>,
        contexts: &[&Context],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let Packed { patches, grids, timesteps, frame_rate, .. } = *latents;
        self.check(patches, grids, contexts)?;
        let fps = frame_rate
            .filter(|fps| fps.is_finite() && *fps > 0.0)
            .ok_or_else(|| Error::input("this transformer is told the frame rate, and none is"))?;
        let (values, rows) = timesteps.distinct(grids)?;
        // One timestep at a time, so that a clip's numbers do not depend on what it is packed with.
        let embedded = values.iter().map(|timestep| self.embedded(*timestep));
        let embedded = embedded.collect::<Result<Vec<_>>>()?; // each [1, dim]
        let projected = embedded.iter().map(|time| self.projected(time));
        let projected = Tensor::cat(&projected.collect::<Result<Vec<_>>>()?, 0)?; // [distinct, 6, dim]
        let rows = (values.len() > 1).then(|| Tensor::new(rows, &self.device)).transpose()?;
        let (cos, sin) = self.rotations(grids, fps)?;
        let patches = patches.to_device(&self.device)?.to_dtype(self.dtype)?;
        let mut x = self.enter.forward(&patches)?; // [tokens, dim]
        let mut blocks = self.blocks.pass(0..self.blocks.len())?;
        for index in 0..self.blocks.len() {
            x = blocks.with(index, |block| {
                let clips = clips(grids, contexts.iter().map(|context| &context.0[index]));
                let modulation = block.modulation(&projected, rows.as_ref())?;
                block.forward(&x, &modulation, &clips, (&cos, &sin))
            })?;
            check_cancel()?;
        }
        drop(blocks);
        let time = Tensor::cat(&embedded, 0)?.unsqueeze(1)?; // [distinct, 1, dim]
        let table = self.out_table.unsqueeze(0)?.broadcast_add(&time)?; // [distinct, 2, dim]
        let last = Modulation::new(table, rows);
        let x = kernels::modulate(&x, &last.part(0)?, &last.part(1)?, OUT_EPS)?;
        Ok(self.out.forward(&x)?.to_dtype(DType::F32)?) // [tokens, c]
    }

    /// The embedding of a timestep, `[1, dim]` in f32.
    fn embedded(&self, timestep: f64) -> Result<Tensor> {
        let [first, second] = &self.time;
        let waves = sinusoids(timestep, FREQ_DIM, &self.device)?;
        second.forward(&kernels::silu(&first.forward(&waves)?)?)
    }

    /// What it adds to the blocks' tables, `[1, 6, dim]` in f32.
    fn projected(&self, embedded: &Tensor) -> Result<Tensor> {
        let projected = kernels::silu(&embedded.to_dtype(self.dtype)?)?;
        let projected = self.time_projection.forward(&projected)?.to_dtype(DType::F32)?;
        Ok(projected.reshape((1, 6, self.config.dim()))?)
    }

    fn check(&self, patches: &Tensor, grids: &[Grid], contexts: &[&Context]) -> Result<()> {
        let (tokens, width) = patches.dims2()?;
        let own = self.config.in_channels;
        if width != own {
            return Err(Error::input(format!(
                "patches are {width} wide; this transformer reads {own}"
            )));
        }
        let expected: usize = grids.iter().map(Grid::tokens).sum();
        if expected != tokens || tokens == 0 {
            return Err(Error::input(format!(
                "{tokens} patches do not fill the grids {grids:?}, which hold {expected}"
            )));
        }
        if contexts.len() != grids.len() {
            let (texts, clips) = (contexts.len(), grids.len());
            return Err(Error::input(format!("{texts} texts for {clips} clips: one a clip")));
        }
        match contexts.iter().find(|context| context.0.len() != self.blocks.len()) {
            Some(_) => Err(Error::input("a text was projected by another transformer")),
            None => Ok(()),
        }
    }

    /// The rotation of every packed token. Shapes: twice `[tokens, dim/2]`, f32.
    fn rotations(&self, grids: &[Grid], fps: f64) -> Result<(Tensor, Tensor)> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() > KEPT_TABLES {
            tables.clear();
        }
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for grid in grids {
            let key = (*grid, fps.to_bits());
            let (c, s) = match tables.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let dim = self.config.dim();
                    place.insert(rotation(*grid, self.scale, fps, (dim, &self.device))?)
                }
            };
            cos.push(c.clone());
            sin.push(s.clone());
        }
        Ok((joined(cos)?, joined(sin)?))
    }
}

/// Where each clip's tokens lie, with the keys and values of its text in a block.
fn clips<'a>(grids: &[Grid], texts: impl Iterator<Item = &'a (Tensor, Tensor)>) -> Vec<Clip<'a>> {
    let mut start = 0;
    let mut clip = |(grid, text): (&Grid, &'a (Tensor, Tensor))| {
        let clip = Clip { start, tokens: grid.tokens(), text };
        start += clip.tokens;
        clip
    };
    grids.iter().zip(texts).map(&mut clip).collect()
}
