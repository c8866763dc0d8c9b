//! The blocks beside the main ones of Wan VACE (arXiv:2503.07598; diffusers'
//! `transformer_wan_vace.py`): they read a control, and what they find is added to the main ones.

use candle_core::Tensor;

use super::block::{Block, BlockContext, BlockText, Clip};
use super::condition::{Modulation, ProjectedText};
use super::ends::load_patch_embedding;
use crate::error::{Error, Result};
use crate::families::wan::transformer::{ControlConfig, TransformerConfig};
use crate::patch::Grid;
use crate::weight::{BlockList, BlockPass, Blocks, Linear, Weights};

/// The control's own blocks.
#[derive(Debug)]
pub(super) struct ControlBlocks {
    patch_embedding: Linear,
    proj_in: Linear,
    blocks: Blocks<ControlBlock>,
    texts: Blocks<BlockText>,
    /// The main block after which each adds.
    after: Vec<usize>,
    /// Width of a patch of the control.
    width: usize,
}

/// One of them.
#[derive(Debug)]
struct ControlBlock {
    block: Block,
    proj_out: Linear,
}

impl ControlBlocks {
    pub(super) fn load(
        config: &TransformerConfig,
        control: &ControlConfig,
        weights: &Weights,
    ) -> Result<Self> {
        let (dim, count) = (config.dim(), control.layers.len());
        let own = weights.scope("vace_blocks");
        let (of_block, of_text) = (config.clone(), config.clone());
        let block = move |_, weights: &Weights| {
            Ok(ControlBlock {
                block: Block::load(&of_block, weights)?,
                proj_out: Linear::load(&weights.scope("proj_out"), dim, dim)?,
            })
        };
        let text = move |_, weights: &Weights| BlockText::load(&of_text, weights);
        let embedding = weights.scope("vace_patch_embedding");
        Ok(Self {
            patch_embedding: load_patch_embedding(config, control.channels, &embedding)?,
            proj_in: Linear::load(&own.scope(0).scope("proj_in"), dim, dim)?,
            blocks: Blocks::load(&own, BlockList::new("control", count), block)?,
            texts: Blocks::load(&own, BlockList::once("control texts", count), text)?,
            after: control.layers.clone(),
            width: control.channels * config.patch_volume(),
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Keys and values of a projected text and of projected pictures, for each block.
    pub(super) fn context(
        &self,
        text: &ProjectedText,
        image: Option<&Tensor>,
    ) -> Result<Vec<BlockContext>> {
        self.texts.each(|_, own| own.context(text, image))
    }

    /// Begins a pass, or says that no clip has a control that counts.
    ///
    /// Shapes: `x` are the latents' tokens before the first main block, `[tokens, dim]`; `control`
    /// `[tokens, c·pt·ph·pw]`. `strengths` has one for each of `grids`.
    pub(super) fn begin<'a>(
        &'a self,
        x: &Tensor,
        control: Option<&Tensor>,
        (strengths, grids): (&[f64], &[Grid]),
    ) -> Result<Option<Control<'a>>> {
        let Some(control) = control.filter(|_| strengths.iter().any(|strength| *strength != 0.0))
        else {
            return Ok(None);
        };
        if strengths.len() != grids.len() {
            let (found, clips) = (strengths.len(), grids.len());
            return Err(Error::input(format!("{found} strengths for {clips} clips: one a clip")));
        }
        if control.dims() != [x.dim(0)?, self.width] {
            return Err(Error::input(format!(
                "a control of the shape {:?}; this transformer reads [{}, {}]",
                control.dims(),
                x.dim(0)?,
                self.width
            )));
        }
        let control = control.to_device(x.device())?.to_dtype(x.dtype())?;
        let embedded = self.patch_embedding.forward(&control)?; // [tokens, dim]
        let state = (self.proj_in.forward(&embedded)? + x)?;
        let strength = Strength::of(strengths, grids, x)?;
        let pass = self.blocks.pass(0..self.len())?;
        Ok(Some(Control { pass, after: &self.after, state, strength, next: 0 }))
    }
}

/// How strongly a control counts.
enum Strength {
    /// As in training.
    Whole,
    /// The same for all tokens.
    All(f64),
    /// For each token, `[tokens, 1]`.
    Each(Tensor),
}

impl Strength {
    fn of(strengths: &[f64], grids: &[Grid], like: &Tensor) -> Result<Self> {
        match strengths.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => match *first {
                1.0 => Ok(Self::Whole),
                strength => Ok(Self::All(strength)),
            },
            _ => {
                let of_clip = |(strength, grid): (&f64, &Grid)| {
                    std::iter::repeat_n(*strength as f32, grid.tokens())
                };
                let each: Vec<f32> = strengths.iter().zip(grids).flat_map(of_clip).collect();
                let each = Tensor::from_vec(each, (like.dim(0)?, 1), like.device())?;
                Ok(Self::Each(each.to_dtype(like.dtype())?))
            }
        }
    }

    fn times(&self, hint: Tensor) -> Result<Tensor> {
        match self {
            Self::Whole => Ok(hint),
            Self::All(strength) => Ok((hint * *strength)?),
            Self::Each(each) => Ok(hint.broadcast_mul(each)?),
        }
    }
}

/// A control on its way through its blocks. Each runs when the main block is done after which it
/// adds, so that one result is held at a time.
pub(super) struct Control<'a> {
    pass: BlockPass<'a, ControlBlock>,
    after: &'a [usize],
    state: Tensor, // [tokens, dim]
    strength: Strength,
    next: usize,
}

impl Control<'_> {
    /// The index of the own block that adds after the main block `after`, where one does.
    pub(super) fn due(&self, after: usize) -> Option<usize> {
        self.after.get(self.next).filter(|own| **own == after).map(|_| self.next)
    }

    /// Runs the block that is due: what is added to the main tokens, `[tokens, dim]`.
    pub(super) fn step(
        &mut self,
        (added, rows): (&Tensor, Option<&Tensor>),
        clips: &[Clip<'_>],
        rotation: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let (state, index) = (&self.state, self.next);
        self.next += 1;
        let (state, hint) = self.pass.with(index, |own| {
            let modulation: Modulation = own.block.modulation(added, rows)?;
            let state = own.block.forward(state, &modulation, clips, rotation)?;
            let hint = own.proj_out.forward(&state)?;
            Ok((state, hint))
        })?;
        self.state = state;
        self.strength.times(hint)
    }
}
