//! The Wan transformer (arXiv:2503.20314; diffusers' `transformer_wan.py`): velocity of patches.
//!
//! It works on *patches*, `[tokens, c·pt·ph·pw]`, packed over clips of any sizes: linear layers run
//! on all tokens at once, self-attention stays within a clip, and positions start anew in each.

mod block;
mod condition;
mod ends;
mod pass;
mod rope;
mod vace;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use kino_kernels as kernels;

pub use rope::rope_tables;

use crate::cancel::CheckCancel;
use crate::error::{Error, Result};
use crate::families::wan::transformer::TransformerConfig;
use crate::model::{Packed, Timesteps};
use crate::patch::Grid;
use crate::sampling::{StepCache, StepCacheRule, TeaCacheInput};
use crate::weight::{BlockList, BlockPass, Blocks, Linear, Weights};
use block::{Block, BlockContext, BlockText, Clip};
use condition::{Embedder, Modulation};
use ends::{load_out, load_patch_embedding};
use pass::Pass;
use vace::ControlBlocks;

/// Rotation tables are kept for so many grids.
const KEPT_TABLES: usize = 16;

/// A text, and pictures where the transformer reads them, as the blocks read them: keys and values
/// of every block's cross-attention.
///
/// Computed once a run, not once a step.
#[derive(Debug, Clone)]
pub struct Context {
    blocks: Vec<BlockContext>,
    control: Vec<BlockContext>,
}

/// The transformer.
#[derive(Debug)]
pub struct Dit {
    config: TransformerConfig,
    device: Device,
    dtype: DType,
    patch_embedding: Linear,
    embedder: Embedder,
    blocks: Blocks<Block>,
    texts: Blocks<BlockText>,
    /// The blocks beside the main ones (Wan VACE).
    control: Option<ControlBlocks>,
    out_table: Tensor, // [2, dim], f32
    out: Linear,
    tables: Mutex<HashMap<Grid, (Tensor, Tensor)>>,
}

impl Dit {
    /// Takes the weights from a `transformer` folder.
    ///
    /// # Errors
    /// When a weight is missing or has another shape than `config` says.
    pub fn load(config: &TransformerConfig, weights: &Weights) -> Result<Self> {
        let dim = config.dim();
        let (own, count) = (weights.scope("blocks"), config.num_layers);
        let (of_block, of_text) = (config.clone(), config.clone());
        let block = move |_, weights: &Weights| Block::load(&of_block, weights);
        let text = move |_, weights: &Weights| BlockText::load(&of_text, weights);
        let control = config.control();
        let control = control.map(|control| ControlBlocks::load(config, &control, weights));
        let table = weights.get_as("scale_shift_table", (1, 2, dim), DType::F32)?;
        Ok(Self {
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.dtype(),
            patch_embedding: load_patch_embedding(
                config,
                config.in_channels,
                &weights.scope("patch_embedding"),
            )?,
            embedder: Embedder::load(config, &weights.scope("condition_embedder"))?,
            blocks: Blocks::load(&own, BlockList::new("blocks", count), block)?,
            texts: Blocks::load(&own, BlockList::once("texts", count), text)?,
            control: control.transpose()?,
            out_table: table.squeeze(0)?,
            out: load_out(config, &weights.scope("proj_out"))?,
            tables: Mutex::default(),
        })
    }

    /// The sizes.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The compute type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Transformer blocks, those beside the main ones included, and so calls of `check_cancel` in
    /// one [`Dit::velocity`] with a control.
    pub fn block_count(&self) -> usize {
        self.blocks.len() + self.control.as_ref().map_or(0, ControlBlocks::len)
    }

    /// Projects a text for all blocks.
    ///
    /// Shape: `text` is `[rows, text_dim]`, zero past the prompt; no row is masked.
    ///
    /// # Errors
    /// When the width is not `text_dim`, or the transformer reads pictures too.
    pub fn context(&self, text: &Tensor) -> Result<Context> {
        self.context_with(text, None)
    }

    /// Projects a text, and the states of pictures, for all blocks.
    ///
    /// Shapes: `text` is `[rows, text_dim]`, zero past the prompt; `image` is `[rows, image_dim]`,
    /// picture after picture. No row is masked.
    ///
    /// # Errors
    /// When a width is another, or pictures are missing, or the transformer reads none.
    pub fn context_with(&self, text: &Tensor, image: Option<&Tensor>) -> Result<Context> {
        let (rows, width) = text.dims2()?;
        if width != self.config.text_dim || rows == 0 {
            return Err(Error::input(format!(
                "the text has the shape [{rows}, {width}]; this transformer reads [rows, {}]",
                self.config.text_dim
            )));
        }
        let text = self.embedder.text(text, (&self.device, self.dtype))?;
        let image = self.image(image)?;
        let blocks = self.texts.each(|_, block| block.context(&text, image.as_ref()))?;
        let control = self.control.as_ref().map(|own| own.context(&text, image.as_ref()));
        Ok(Context { blocks, control: control.transpose()?.unwrap_or_default() })
    }

    /// The states of pictures at the width of the blocks.
    fn image(&self, image: Option<&Tensor>) -> Result<Option<Tensor>> {
        match (image, self.embedder.image()) {
            (None, None) => Ok(None),
            (Some(image), Some(embedder)) => {
                let (rows, width) = image.dims2()?;
                let own = self.config.image_dim.unwrap_or(0);
                if width != own || rows == 0 {
                    return Err(Error::input(format!(
                        "images have the shape [{rows}, {width}]; this transformer reads [rows, \
                         {own}]"
                    )));
                }
                let image = image.to_device(&self.device)?;
                Ok(Some(embedder.forward(&image, self.dtype)?)) // [rows, dim]
            }
            (Some(_), None) => Err(Error::input("this transformer reads no images")),
            (None, Some(_)) => {
                Err(Error::input("this transformer reads images, and there is none"))
            }
        }
    }

    /// The embedding of timesteps that the last modulation adds. Shape: `[timesteps, dim]`.
    ///
    /// One timestep at a time, so that a clip's numbers do not depend on what it is packed with.
    ///
    /// # Errors
    /// When there are none, or a tensor operation fails.
    pub fn time_embedding(&self, timesteps: &[f64]) -> Result<Tensor> {
        each_row(timesteps, |timestep| self.embedder.time(*timestep, &self.device))
    }

    /// The velocity of packed patches: noise − data, as the model sees it at `timesteps`.
    ///
    /// Shapes: `patches` and the result are `[tokens, c·pt·ph·pw]`, the result in f32; `grids` has
    /// each clip's grid in order, `contexts` one text a clip. `check_cancel` runs after every block
    /// and may cancel.
    ///
    /// # Errors
    /// When grids, timesteps or contexts do not fit the patches, or `check_cancel` cancels.
    pub fn velocity(
        &self,
        patches: &Tensor,
        grids: &[Grid],
        timesteps: Timesteps<'_>,
        contexts: &[&Context],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let latents = Packed {
            patches,
            extra: None,
            grids,
            timesteps,
            strengths: &[],
            frame_rate: None,
            guidance: None,
        };
        self.velocity_of(&latents, contexts, check_cancel)
    }

    /// The velocity of packed latents, with the channels beside them where the transformer reads
    /// some; otherwise as [`Dit::velocity`]. Without a control that counts, a transformer that reads
    /// one is the one that it was made from.
    ///
    /// # Errors
    /// As [`Dit::velocity`], and when these channels are missing or have another width.
    pub fn velocity_of(
        &self,
        latents: &Packed<'_>,
        contexts: &[&Context],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (pass, x) = self.pass(latents, contexts)?;
        let x = self.blocks(&pass, (x.clone(), x), 0, check_cancel)?;
        self.finish(&x, &pass)
    }

    /// The same where each clip has a step cache: of those that a cache lets reuse what the blocks
    /// added before, no block is run, or the first alone where that is what is looked at.
    ///
    /// # Errors
    /// As [`Dit::velocity_of`], and when there are not as many caches as clips.
    pub fn velocity_cached(
        &self,
        latents: &Packed<'_>,
        contexts: &[&Context],
        caches: &mut [&mut StepCache],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (pass, embedded) = self.pass(latents, contexts)?;
        if caches.len() != pass.grids.len() {
            let (found, clips) = (caches.len(), pass.grids.len());
            return Err(Error::input(format!("{found} step caches for {clips} clips: one a clip")));
        }
        let by_first_block = caches.iter().any(|cache| *cache.rule() == StepCacheRule::FirstBlock);
        let (x, done) = match by_first_block {
            true => (self.block(&mut self.blocks.pass(0..1)?, 0, &pass, &embedded)?, 1),
            false => (embedded.clone(), 0),
        };
        check_cancel()?;
        let mut chosen = Vec::new();
        for (clip, cache) in caches.iter_mut().enumerate() {
            if cache.must_compute(&looked_at(&pass, (&embedded, &x), (clip, cache.rule()))?)? {
                chosen.push(clip);
            }
        }
        let computed = match chosen.is_empty() {
            true => None,
            false => {
                let before = pass.rows_of(&x, &chosen)?;
                let of_chosen = pass.of_clips(&chosen)?;
                let begun = (pass.rows_of(&embedded, &chosen)?, before.clone());
                let after = self.blocks(&of_chosen, begun, done, check_cancel)?;
                let added = (&after - before)?;
                for (index, clip) in chosen.iter().enumerate() {
                    // A copy, so that a clip's rows do not keep those of all.
                    caches[*clip].keep(of_chosen.clip(&added, index)?.copy()?);
                }
                Some((of_chosen, after))
            }
        };
        let x = match computed {
            Some((_, after)) if chosen.len() == pass.grids.len() => after,
            computed => {
                let after = |clip: usize| match chosen.iter().position(|one| *one == clip) {
                    Some(index) => match &computed {
                        Some((of_chosen, after)) => of_chosen.clip(after, index),
                        None => pass.clip(&x, clip),
                    },
                    None => caches[clip].reuse(&pass.clip(&x, clip)?),
                };
                let clips = (0..pass.grids.len()).map(after).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&clips, 0)?
            }
        };
        self.finish(&x, &pass)
    }

    /// What blocks need to run on packed latents, and the tokens before the first, `[tokens, dim]`.
    fn pass<'a>(
        &self,
        latents: &Packed<'_>,
        contexts: &[&'a Context],
    ) -> Result<(Pass<'a, Context>, Tensor)> {
        let Packed { patches, extra, grids, timesteps, strengths, .. } = *latents;
        self.check(patches, grids, contexts)?;
        let patches = patches.to_device(&self.device)?.to_dtype(self.dtype)?;
        let patches = match self.control {
            Some(_) => patches,
            None => self.with_extra(patches, extra)?,
        };
        let (values, rows) = timesteps.distinct(grids)?;
        let time = self.time_embedding(&values)?; // [distinct, dim]
        let modulation = each_row(&time.chunk(values.len(), 0)?, |time| {
            self.embedder.modulation(time, self.dtype)
        })?; // [distinct, 6, dim]
        let starts = grids.iter().scan(0, |end, grid| {
            *end += grid.tokens();
            Some(*end - grid.tokens())
        });
        let pass = Pass {
            control: extra.filter(|_| self.control.is_some()).cloned(),
            strengths: strengths.to_vec(),
            grids: grids.to_vec(),
            contexts: contexts.to_vec(),
            timesteps: starts.map(|start| rows[start] as usize).collect(),
            rows: Modulation::rows(&rows, values.len(), &self.device)?,
            time,
            modulation,
            rotation: self.rotations(grids)?,
        };
        Ok((pass, self.patch_embedding.forward(&patches)?))
    }

    /// Tokens behind all blocks, `[tokens, dim]`, from those before them all, and those behind the
    /// first `done` main ones.
    fn blocks(
        &self,
        pass: &Pass<'_, Context>,
        (embedded, mut x): (Tensor, Tensor),
        done: usize,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let leads = (&pass.strengths[..], &pass.grids[..]);
        let control = self.control.as_ref();
        let control = control.map(|own| own.begin(&embedded, pass.control.as_ref(), leads));
        let mut control = control.transpose()?.flatten();
        drop(embedded);
        let mut blocks = self.blocks.pass(done..self.blocks.len())?;
        for index in 0..self.blocks.len() {
            if index >= done {
                x = self.block(&mut blocks, index, pass, &x)?;
                check_cancel()?;
            }
            let Some(control) = &mut control else { continue };
            let Some(beside) = control.due(index) else { continue };
            let texts = pass.contexts.iter().map(|context| &context.control[beside]);
            let (added, (cos, sin)) = ((&pass.modulation, pass.rows.as_ref()), &pass.rotation);
            x = (x + control.step(added, &clips(&pass.grids, texts), (cos, sin))?)?;
            check_cancel()?;
        }
        Ok(x)
    }

    /// Tokens behind one main block, `[tokens, dim]`.
    fn block(
        &self,
        blocks: &mut BlockPass<'_, Block>,
        index: usize,
        pass: &Pass<'_, Context>,
        x: &Tensor,
    ) -> Result<Tensor> {
        blocks.with(index, |block| {
            let own = block.modulation(&pass.modulation, pass.rows.as_ref())?;
            let texts = pass.contexts.iter().map(|context| &context.blocks[index]);
            let (cos, sin) = &pass.rotation;
            block.forward(x, &own, &clips(&pass.grids, texts), (cos, sin))
        })
    }

    /// The last modulation, which adds the timestep's embedding and not its projection, and the way
    /// back to patches.
    fn finish(&self, x: &Tensor, pass: &Pass<'_, Context>) -> Result<Tensor> {
        let time = pass.time.to_dtype(self.dtype)?.to_dtype(DType::F32)?.unsqueeze(1)?;
        let table = self.out_table.unsqueeze(0)?.broadcast_add(&time)?; // [distinct, 2, dim]
        let modulation = Modulation::new(table, pass.rows.clone());
        let (shift, scale) = (modulation.part(0)?, modulation.part(1)?);
        let x = kernels::modulate(x, &shift, &scale, self.config.eps)?;
        Ok(self.out.forward(&x)?.to_dtype(DType::F32)?) // [tokens, c·pt·ph·pw]
    }

    /// Patches `[tokens, c·pt·ph·pw]` with those of the channels beside the latents' own.
    fn with_extra(&self, patches: Tensor, extra: Option<&Tensor>) -> Result<Tensor> {
        let own = self.config.patch_dim() - self.config.latent_patch_dim();
        match extra {
            Some(extra) if extra.dims() == [patches.dim(0)?, own] => {
                let extra = extra.to_device(&self.device)?.to_dtype(self.dtype)?;
                Ok(Tensor::cat(&[&patches, &extra], 1)?)
            }
            None if own == 0 => Ok(patches),
            other => {
                let found = other.map_or(&[][..], |extra| extra.dims());
                Err(Error::input(format!(
                    "channels beside the latents {found:?}; this transformer reads [tokens, {own}]"
                )))
            }
        }
    }

    fn check(&self, patches: &Tensor, grids: &[Grid], contexts: &[&Context]) -> Result<()> {
        let (tokens, width) = patches.dims2()?;
        let own = self.config.latent_patch_dim();
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
        let beside = self.control.as_ref().map_or(0, ControlBlocks::len);
        let counts = (self.blocks.len(), beside);
        match contexts.iter().find(|c| (c.blocks.len(), c.control.len()) != counts) {
            Some(_) => Err(Error::input("a text was projected by another transformer")),
            None => Ok(()),
        }
    }

    /// The rotation of every packed token. Shapes: twice `[tokens, head_dim/2]`, f32.
    fn rotations(&self, grids: &[Grid]) -> Result<(Tensor, Tensor)> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() > KEPT_TABLES {
            tables.clear();
        }
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for grid in grids {
            if !tables.contains_key(grid) {
                let (c, s) = rope_tables(*grid, self.config.attention_head_dim, &self.device)?;
                tables.insert(*grid, (c, s));
            }
            let (c, s) = &tables[grid];
            cos.push(c.clone());
            sin.push(s.clone());
        }
        if let ([cos], [sin]) = (cos.as_slice(), sin.as_slice()) {
            return Ok((cos.clone(), sin.clone()));
        }
        Ok((Tensor::cat(&cos, 0)?, Tensor::cat(&sin, 0)?))
    }
}

/// What a step cache looks at of a clip; the tokens of all are those before the first block, and
/// behind it where it has run.
fn looked_at(
    pass: &Pass<'_, Context>,
    (embedded, x): (&Tensor, &Tensor),
    (clip, rule): (usize, &StepCacheRule),
) -> Result<Tensor> {
    let of_timestep = |table: &Tensor| table.narrow(0, pass.timesteps[clip], 1);
    Ok(match rule {
        StepCacheRule::FirstBlock => (pass.clip(x, clip)? - pass.clip(embedded, clip)?)?,
        StepCacheRule::TeaCache(fit) => match fit.input {
            TeaCacheInput::Embedding => of_timestep(&pass.time)?,
            TeaCacheInput::Projection => of_timestep(&pass.modulation)?,
        },
    })
}

/// Rows computed one by one and stacked along their first dimension.
fn each_row<T>(items: &[T], row: impl FnMut(&T) -> Result<Tensor>) -> Result<Tensor> {
    Ok(Tensor::cat(&items.iter().map(row).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Where each clip's tokens lie, with the keys and values of its text in a block.
fn clips<'a>(grids: &[Grid], texts: impl Iterator<Item = &'a BlockContext>) -> Vec<Clip<'a>> {
    let mut start = 0;
    let mut clip = |(grid, context): (&Grid, &'a BlockContext)| {
        let clip = Clip { start, tokens: grid.tokens(), context };
        start += clip.tokens;
        clip
    };
    grids.iter().zip(texts).map(&mut clip).collect()
}
