//! Packed clips on their way through the blocks, and all that leads them there.

use candle_core::Tensor;

use crate::error::Result;
use crate::patch::Grid;

/// What a pass of some packed clips takes with it. `C` is a clip's text as the blocks read it.
pub(super) struct Pass<'a, C> {
    /// The control, `[tokens, c·pt·ph·pw]`, where there is one.
    pub(super) control: Option<Tensor>,
    /// How strongly each clip follows it; empty where there is none.
    pub(super) strengths: Vec<f64>,
    pub(super) grids: Vec<Grid>,
    pub(super) contexts: Vec<&'a C>,
    /// The embedding of each distinct timestep, `[distinct, dim]`.
    pub(super) time: Tensor,
    /// What each adds to the blocks' tables, `[distinct, 6, dim]`.
    pub(super) modulation: Tensor,
    /// The timestep that the first token of each clip has, among the distinct ones.
    pub(super) timesteps: Vec<usize>,
    /// That of every token, `[tokens]`; none where there is one for all.
    pub(super) rows: Option<Tensor>,
    /// Cosines and sines, twice `[tokens, head_dim/2]`.
    pub(super) rotation: (Tensor, Tensor),
}

impl<C> Pass<'_, C> {
    /// The pass of some of its clips, in their order.
    pub(super) fn of_clips(&self, chosen: &[usize]) -> Result<Self> {
        let rows_of = |packed: &Tensor| self.rows_of(packed, chosen);
        let (cos, sin) = &self.rotation;
        Ok(Self {
            control: self.control.as_ref().map(rows_of).transpose()?,
            strengths: match self.strengths.is_empty() {
                true => Vec::new(),
                false => chosen.iter().map(|clip| self.strengths[*clip]).collect(),
            },
            grids: chosen.iter().map(|clip| self.grids[*clip]).collect(),
            contexts: chosen.iter().map(|clip| self.contexts[*clip]).collect(),
            time: self.time.clone(),
            modulation: self.modulation.clone(),
            timesteps: chosen.iter().map(|clip| self.timesteps[*clip]).collect(),
            rows: self.rows.as_ref().map(rows_of).transpose()?,
            rotation: (rows_of(cos)?, rows_of(sin)?),
        })
    }

    /// The rows of some clips of a packed tensor; no copy where they are all or one.
    pub(super) fn rows_of(&self, packed: &Tensor, chosen: &[usize]) -> Result<Tensor> {
        if chosen.len() == self.grids.len() {
            return Ok(packed.clone());
        }
        match chosen {
            [clip] => self.clip(packed, *clip),
            _ => {
                let clips = chosen.iter().map(|clip| self.clip(packed, *clip));
                Ok(Tensor::cat(&clips.collect::<Result<Vec<_>>>()?, 0)?)
            }
        }
    }

    /// The rows of one clip of a packed tensor.
    pub(super) fn clip(&self, packed: &Tensor, clip: usize) -> Result<Tensor> {
        let start = self.grids[..clip].iter().map(Grid::tokens).sum();
        Ok(packed.narrow(0, start, self.grids[clip].tokens())?)
    }
}
