//! The FLUX.1 transformer (diffusers' `transformer_flux.py`): velocity of patches.
//!
//! Text and picture are one sequence in every attention, the text first: in the double blocks each
//! has layers of its own, in the single ones they share them. What the noise level, the guidance
//! and the text as a whole say arrives as shifts, scales and gates (AdaLN-Zero).

mod block;
mod condition;
mod rope;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use kino_kernels as kernels;

use super::transformer::TransformerConfig;
use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::model::Packed;
use crate::patch::Grid;
use crate::sampling::StepCache;
use crate::weight::{BlockList, Blocks, Linear, Weights};
use block::{DoubleBlock, EPS, SingleBlock};
pub use condition::Context;
use condition::{Conditioner, FinalModulation};
use rope::Rotation;

/// Rotations are kept for so many grids and lengths of text.
const KEPT_TABLES: usize = 16;

/// A picture on its way through the blocks.
struct Picture {
    /// Its text, `[rows, dim]`.
    text: Tensor,
    /// Its patches, `[tokens, dim]`; in the single blocks those behind the text.
    x: Tensor,
    /// The SiLU of what steers the blocks, `[1, dim]`.
    steering: Tensor,
    rotation: Rotation,
}

impl Picture {
    /// Through a double block.
    fn double(&mut self, block: &DoubleBlock) -> Result<()> {
        let both = (&self.text, &self.x);
        (self.text, self.x) = block.forward(both, &self.steering, &self.rotation)?;
        Ok(())
    }

    /// Through a single block.
    fn single(&mut self, block: &SingleBlock) -> Result<()> {
        self.x = block.forward(&self.x, &self.steering, &self.rotation)?;
        Ok(())
    }
}

/// The transformer.
#[derive(Debug)]
pub struct Dit {
    config: TransformerConfig,
    device: Device,
    dtype: DType,
    patches: Linear,
    text: Linear,
    conditioner: Conditioner,
    double: Blocks<DoubleBlock>,
    single: Blocks<SingleBlock>,
    modulation: FinalModulation,
    out: Linear,
    rotations: Mutex<HashMap<(Grid, usize), Rotation>>,
}

impl Dit {
    /// Takes the weights from a `transformer` folder.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let (dim, width) = (config.dim(), config.in_channels);
        let (of_double, of_single) = (config.clone(), config.clone());
        Ok(Self {
            patches: Linear::load(&weights.scope("x_embedder"), width, dim)?,
            text: Linear::load(
                &weights.scope("context_embedder"),
                config.joint_attention_dim,
                dim,
            )?,
            conditioner: Conditioner::load(config, &weights.scope("time_text_embed"))?,
            double: Blocks::load(
                &weights.scope("transformer_blocks"),
                BlockList::new("double", config.num_layers),
                move |_, weights| DoubleBlock::load(&of_double, weights),
            )?,
            single: Blocks::load(
                &weights.scope("single_transformer_blocks"),
                BlockList::new("single", config.num_single_layers),
                move |_, weights| SingleBlock::load(&of_single, weights),
            )?,
            modulation: FinalModulation::load(dim, &weights.scope("norm_out"))?,
            out: Linear::load(&weights.scope("proj_out"), dim, width)?,
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.dtype(),
            rotations: Mutex::default(),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Projects a text: its rows, and the vector of all of it.
    ///
    /// Shapes: `rows` `[rows, joint_attention_dim]`, of which none is masked; `pooled`
    /// `[pooled_projection_dim]`.
    ///
    /// # Errors
    /// When a width is another.
    pub fn context(&self, rows: &Tensor, pooled: &Tensor) -> Result<Context> {
        let (text, vector) = (self.config.joint_attention_dim, self.config.pooled_projection_dim);
        if rows.dims().len() != 2 || rows.dim(1)? != text || pooled.dims() != [vector] {
            return Err(Error::input(format!(
                "a text of {:?} and {:?}; this transformer reads [rows, {text}] and [{vector}]",
                rows.dims(),
                pooled.dims()
            )));
        }
        let rows = rows.to_device(&self.device)?.to_dtype(self.dtype)?;
        let pooled = pooled.to_device(&self.device)?.to_dtype(DType::F32)?.unsqueeze(0)?;
        Ok(Context { rows: self.text.forward(&rows)?, pooled: self.conditioner.pooled(&pooled)? })
    }

    /// The velocity of packed pictures, one after another.
    ///
    /// Shapes: the patches and the result are `[tokens, in_channels]`, the result in f32.
    /// `check_cancel` runs after every block and may cancel.
    ///
    /// # Errors
    /// When grids, timesteps or contexts do not fit the patches, or `check_cancel` cancels.
    pub fn velocity_of(
        &self,
        latents: &Packed<'_>,
        contexts: &[&Context],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let mut pictures = self.begin(latents, contexts)?;
        let mut chosen: Vec<&mut Picture> = pictures.iter_mut().collect();
        self.run_blocks(&mut chosen, 0, check_cancel)?;
        self.finish(&pictures)
    }

    /// The same where each picture has a step cache that looks at the first block (First-Block cache,
    /// as diffusers' `FirstBlockCacheConfig`): of those that it lets reuse what the blocks added
    /// before, no other block is run.
    ///
    /// # Errors
    /// As [`Dit::velocity_of`], and when there are not as many caches as pictures.
    pub fn velocity_cached(
        &self,
        latents: &Packed<'_>,
        contexts: &[&Context],
        caches: &mut [&mut StepCache],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let mut pictures = self.begin(latents, contexts)?;
        if caches.len() != pictures.len() {
            let (found, count) = (caches.len(), pictures.len());
            return Err(Error::input(format!("{found} step caches for {count} pictures")));
        }
        let mut first = self.double.pass(0..1)?;
        let embedded: Vec<Tensor> = pictures.iter().map(|own| own.x.clone()).collect();
        first.with(0, |block| pictures.iter_mut().try_for_each(|own| own.double(block)))?;
        drop(first);
        check_cancel()?;
        let mut chosen = Vec::new();
        for (own, (cache, embedded)) in pictures.iter_mut().zip(caches.iter_mut().zip(&embedded)) {
            match cache.must_compute(&(&own.x - embedded)?)? {
                true => chosen.push((own, cache)),
                false => own.x = cache.reuse(&own.x)?,
            }
        }
        if !chosen.is_empty() {
            let before: Vec<Tensor> = chosen.iter().map(|(own, _)| own.x.clone()).collect();
            let mut computed: Vec<&mut Picture> =
                chosen.iter_mut().map(|(own, _)| &mut **own).collect();
            self.run_blocks(&mut computed, 1, check_cancel)?;
            for ((own, cache), before) in chosen.iter_mut().zip(before) {
                cache.keep((&own.x - before)?);
            }
        }
        self.finish(&pictures)
    }

    /// Pictures before the first block.
    fn begin(&self, latents: &Packed<'_>, contexts: &[&Context]) -> Result<Vec<Picture>> {
        let Packed { patches, grids, timesteps, guidance, .. } = *latents;
        let tokens: usize = grids.iter().map(Grid::tokens).sum();
        let width = self.config.in_channels;
        if patches.dims() != [tokens, width] || grids.is_empty() || contexts.len() != grids.len() {
            return Err(Error::input(format!(
                "patches {:?} of {} pictures with {} texts; expected [{tokens}, {width}] and a \
                 text for each",
                patches.dims(),
                grids.len(),
                contexts.len()
            )));
        }
        let patches = patches.to_device(&self.device)?.to_dtype(self.dtype)?;
        let (values, rows) = timesteps.distinct(grids)?;
        let mut start = 0;
        let mut pictures = Vec::with_capacity(grids.len());
        for (grid, context) in grids.iter().zip(contexts) {
            let own = patches.narrow(0, start, grid.tokens())?;
            let timestep = values[rows[start] as usize];
            start += grid.tokens();
            let steering = self.conditioner.steering((timestep, guidance), context)?;
            pictures.push(Picture {
                text: context.rows.clone(),
                x: self.patches.forward(&own)?,
                steering: steering.to_dtype(self.dtype)?,
                rotation: self.rotation(*grid, context.rows.dim(0)?)?,
            });
        }
        Ok(pictures)
    }

    /// The velocities of pictures behind the last block, `[tokens, in_channels]` in f32.
    fn finish(&self, pictures: &[Picture]) -> Result<Tensor> {
        let velocities = pictures.iter().map(|picture| {
            let (shift, scale) = self.modulation.of(&picture.steering)?;
            let x = kernels::modulate(&picture.x, &shift, &scale, EPS)?;
            Ok(self.out.forward(&x)?.to_dtype(DType::F32)?)
        });
        let mut velocities = velocities.collect::<Result<Vec<_>>>()?;
        match velocities.len() {
            1 => Ok(velocities.remove(0)),
            _ => Ok(Tensor::cat(&velocities, 0)?),
        }
    }

    /// All pictures through one block after another, behind the first `done` double ones.
    fn run_blocks(
        &self,
        pictures: &mut [&mut Picture],
        done: usize,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<()> {
        let mut double = self.double.pass(done..self.double.len())?;
        for index in done..self.double.len() {
            double
                .with(index, |block| pictures.iter_mut().try_for_each(|own| own.double(block)))?;
            check_cancel()?;
        }
        drop(double);
        let rows: Vec<usize> = pictures.iter().map(|own| own.text.dims()[0]).collect();
        for own in pictures.iter_mut() {
            own.x = Tensor::cat(&[&own.text, &own.x], 0)?; // [rows + tokens, dim]
        }
        let mut single = self.single.pass(0..self.single.len())?;
        for index in 0..self.single.len() {
            single
                .with(index, |block| pictures.iter_mut().try_for_each(|own| own.single(block)))?;
            check_cancel()?;
        }
        for (own, rows) in pictures.iter_mut().zip(rows) {
            own.x = own.x.narrow(0, rows, own.x.dim(0)? - rows)?.contiguous()?;
        }
        Ok(())
    }

    fn rotation(&self, grid: Grid, rows: usize) -> Result<Rotation> {
        let known = || self.rotations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&(grid, rows)) {
            return Ok(found.clone());
        }
        let made = Rotation::new(grid, rows, self.config.axes_dims_rope, &self.device)?;
        let mut tables = known();
        if tables.len() >= KEPT_TABLES {
            tables.clear();
        }
        tables.insert((grid, rows), made.clone());
        Ok(made)
    }
}
