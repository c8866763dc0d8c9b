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
use crate::weight::{Linear, Weights};
use block::{DoubleBlock, SingleBlock};
use condition::{Conditioner, FinalModulation};
use rope::Rotation;

/// Rotations are kept for so many grids and lengths of text.
const KEPT_TABLES: usize = 16;
/// Epsilon of the norms.
const EPS: f64 = 1e-6;

/// A text as the blocks read it, made once a run and not once a step.
#[derive(Debug, Clone)]
pub struct Context {
    rows: Tensor,   // [rows, dim]
    pooled: Tensor, // [1, dim], f32
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
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
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
        let blocks = |name: &str| weights.scope(name);
        let (double, single) = (blocks("transformer_blocks"), blocks("single_transformer_blocks"));
        Ok(Self {
            patches: Linear::load(&weights.scope("x_embedder"), width, dim)?,
            text: Linear::load(
                &weights.scope("context_embedder"),
                config.joint_attention_dim,
                dim,
            )?,
            conditioner: Conditioner::load(config, &weights.scope("time_text_embed"))?,
            double: (0..config.num_layers)
                .map(|index| DoubleBlock::load(config, &double.scope(index)))
                .collect::<Result<_>>()?,
            single: (0..config.num_single_layers)
                .map(|index| SingleBlock::load(config, &single.scope(index)))
                .collect::<Result<_>>()?,
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
        let mut velocities = Vec::with_capacity(grids.len());
        for (grid, context) in grids.iter().zip(contexts) {
            let own = patches.narrow(0, start, grid.tokens())?;
            let timestep = values[rows[start] as usize];
            start += grid.tokens();
            let steering = self.conditioner.steering((timestep, guidance), context)?;
            velocities.push(self.picture(&own, *grid, (context, &steering), check_cancel)?);
        }
        match velocities.len() {
            1 => Ok(velocities.remove(0)),
            _ => Ok(Tensor::cat(&velocities, 0)?),
        }
    }

    /// The velocity of one picture. `steering` is the SiLU of what steers the blocks, `[1, dim]`.
    fn picture(
        &self,
        patches: &Tensor,
        grid: Grid,
        (context, steering): (&Context, &Tensor),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let text_rows = context.rows.dim(0)?;
        let rotation = self.rotation(grid, text_rows)?;
        let steering_narrow = steering.to_dtype(self.dtype)?;
        let mut x = self.patches.forward(patches)?; // [tokens, dim]
        let mut text = context.rows.clone(); // [rows, dim]
        for block in &self.double {
            (text, x) = block.forward((&text, &x), &steering_narrow, &rotation)?;
            check_cancel()?;
        }
        let mut both = Tensor::cat(&[text, x], 0)?; // [rows + tokens, dim]
        for block in &self.single {
            both = block.forward(&both, &steering_narrow, &rotation)?;
            check_cancel()?;
        }
        let x = both.narrow(0, text_rows, grid.tokens())?;
        let (shift, scale) = self.modulation.of(&steering_narrow)?;
        let x = kernels::modulate(&x, &shift, &scale, EPS)?;
        Ok(self.out.forward(&x)?.to_dtype(DType::F32)?)
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
