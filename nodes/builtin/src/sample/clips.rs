//! Velocities of packed clips, each with its own text, with and without.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kino_models::cancel::CheckCancel;
use kino_models::model::{
    Embedding, EmbeddingSpec, Embeddings, GivenInput, Projected, TimestepInput, Timesteps,
};
use kino_models::patch::Grid;
use kino_models::sampling::StepCache;

use kino_node::{
    Clip, ClipFact, Conditioning, Control, Error, Given, GuiderState, ImageConditioning, Patches,
    Result, SamplingStep,
};
use kino_port::{PlanError, StreamedWeights};

use super::cache::CacheChoice;
use super::control::{control_channels, strengths};
use super::given::{Held, extra_channels};
use crate::error::IntoNode;
use crate::models::{DitHandle, LoadedDit, Models, streamed};
use crate::patches::grid_of;

/// Up to so many tokens, the passes with and without text run as one. Measured on two cores with
/// the embedded model: at 16 tokens one pass takes three quarters of the time of two, at 120 the
/// same, and from 480 on it takes longer, because the activations no longer fit the processor's
/// cache.
const BATCHED_TOKENS: usize = 64;

/// Whether the passes with and without text run as one. The choice depends on nothing but sizes, so
/// that the same run always gives the same bytes.
pub(super) fn batched(tokens: usize) -> bool {
    tokens <= BATCHED_TOKENS
}

/// A text, and what an image encoder saw, as the denoiser reads them.
pub(super) struct Text {
    positive: Embeddings,
    negative: Embeddings,
    /// Made by the denoiser that computes.
    with: Option<Projected>,
    /// Made when a step is first guided: without guidance it is never needed.
    without: Option<Projected>,
}

impl Text {
    pub(super) fn new(text: &Conditioning, image: Option<&ImageConditioning>) -> Self {
        let with_image = |embeddings: &kino_node::Embeddings| {
            let mut named = by_name(embeddings);
            if let Some(image) = image {
                let embedding = Embedding { tensor: image.tensor.clone(), mask: None };
                named.insert(EmbeddingSpec::IMAGE.to_owned(), embedding);
            }
            named
        };
        let (positive, negative) = (with_image(&text.positive), with_image(&text.negative));
        Text { positive, negative, with: None, without: None }
    }
}

/// Conditioning as models take it.
fn by_name(embeddings: &kino_node::Embeddings) -> Embeddings {
    let named = |embedding: &kino_node::Embedding| {
        let (tensor, mask) = (embedding.tensor.clone(), embedding.mask.clone());
        (embedding.name.to_string(), Embedding { tensor, mask })
    };
    embeddings.iter().map(named).collect()
}

/// The text of each clip, as an index among the texts: one for all, by name, or in order.
pub(super) fn texts_of_clips(
    texts: &[Option<&str>],
    clips: &[ClipFact],
) -> Result<Vec<usize>, PlanError> {
    items_of_clips("text", "text", texts, clips)
}

/// The item of a list port that each clip has, as an index: one for all, by name, or in order.
/// `noun` is what an item is called.
pub(super) fn items_of_clips(
    port: &str,
    noun: &str,
    items: &[Option<&str>],
    clips: &[ClipFact],
) -> Result<Vec<usize>, PlanError> {
    if items.len() == 1 {
        return Ok(vec![0; clips.len()]);
    }
    if items.len() != clips.len() {
        let expected = match clips.len() {
            1 => format!("expected one {noun} for one clip"),
            count => format!("expected one {noun}, or one for each of the {count} clips"),
        };
        return Err(PlanError::at(port, format!("{expected}, found {}", items.len())));
    }
    let named = items.iter().all(Option::is_some) && clips.iter().all(|clip| clip.name.is_some());
    if !named {
        return Ok((0..clips.len()).collect());
    }
    let item_of = |clip: &ClipFact| {
        items.iter().position(|item| *item == clip.name.as_deref()).ok_or_else(|| {
            let names: Vec<&str> = items.iter().flatten().copied().collect();
            let clip = clip.name.as_deref().unwrap_or_default();
            PlanError::at(port, format!("there is no {noun} for the clip `{clip}`"))
                .hint(format!("the {noun}s are: {}", names.join(", ")))
        })
    };
    clips.iter().map(item_of).collect()
}

/// A denoiser in memory, and the part that it is.
type Computing = (Arc<DitHandle>, LoadedDit);

/// Clips, packed, with their texts.
pub(super) struct Packed {
    part: Arc<DitHandle>,
    /// The denoiser that computes, and of which part it is: of two experts one at a time.
    dit: Option<Computing>,
    grids: Vec<Grid>,
    texts: Vec<Text>,
    /// For each clip the index of its text.
    of_clip: Vec<usize>,
    /// How the noise level is told.
    timesteps: TimestepInput,
    /// The channels beside the latents' own, `[tokens, e·pt·ph·pw]`.
    extra: Option<Tensor>,
    /// How strongly each clip follows its control, where there are some.
    strengths: Vec<f64>,
    /// How strongly the texts lead, where the transformer is told.
    guidance: Option<f64>,
    /// The tokens that are given.
    held: Option<Held>,
    clips: Vec<Clip>,
    /// Frames a second, where the denoiser is told.
    frame_rate: Option<f64>,
    cache: Option<CacheChoice>,
    /// Of each clip, with text and without; those of the denoiser that computes.
    caches: Vec<StepCache>,
    /// Bytes that are needed beside the weights.
    beside: u64,
    /// Where weights did not fit into memory: what became of them.
    streamed: Option<StreamedWeights>,
    /// Passes that were reused and all, of denoisers that have computed before.
    passes: (usize, usize),
}

/// A clip on its way through the transformer, with its text or without.
#[derive(Clone, Copy)]
struct Call<'a> {
    clip: usize,
    without: bool,
    context: &'a Projected,
}

/// What leads each of packed clips beside its text.
pub(super) struct Leading {
    /// What is given of it.
    pub(super) given: Vec<Option<Arc<Given>>>,
    /// What it follows.
    pub(super) control: Vec<Option<Arc<Control>>>,
}

impl Packed {
    /// `texts` are the texts, and for each clip the index of its own.
    pub(super) fn new(
        part: &Arc<DitHandle>,
        patches: &Patches,
        (texts, of_clip): (Vec<Text>, Vec<usize>),
        (leading, device): (&Leading, &Device),
    ) -> Result<Self> {
        let inputs = part.spec.inputs();
        let grids = patches.clips.iter().map(grid_of).collect();
        let [pt, ph, pw] = patches.patch;
        let shape = |clip: &Clip| {
            let [t, h, w] = clip.grid;
            [clip.channels, t * pt, h * ph, w * pw]
        };
        let shapes: Vec<[usize; 4]> = patches.clips.iter().map(shape).collect();
        let clips: Vec<_> = shapes.iter().copied().zip(leading.given.iter().cloned()).collect();
        let extra = match inputs.given {
            GivenInput::Control => control_channels(inputs, &shapes, &leading.control, device)?,
            _ => extra_channels(inputs, &clips, device)?,
        };
        let strengths = match extra {
            Some(_) if inputs.given == GivenInput::Control => strengths(&leading.control),
            _ => Vec::new(),
        };
        let held = match inputs.given {
            GivenInput::Tokens => Held::of(&clips, inputs.patch, device)?,
            GivenInput::None | GivenInput::Channels | GivenInput::Control => None,
        };
        let (part, timesteps) = (Arc::clone(part), inputs.timesteps);
        Ok(Packed {
            part,
            dit: None,
            grids,
            texts,
            of_clip,
            timesteps,
            extra,
            strengths,
            guidance: None,
            held,
            clips: patches.clips.clone(),
            frame_rate: inputs.frame_rate,
            cache: None,
            caches: Vec::new(),
            passes: (0, 0),
            beside: 0,
            streamed: None,
        })
    }

    /// The same where so many bytes are needed beside the weights.
    pub(super) fn beside(self, bytes: u64) -> Self {
        Packed { beside: bytes, ..self }
    }

    /// What became of weights that did not fit into memory, where some did not.
    pub(super) fn streamed(&self) -> Option<StreamedWeights> {
        self.streamed
    }

    /// The same with a step cache.
    pub(super) fn with_cache(self, cache: Option<CacheChoice>) -> Self {
        Packed { cache, ..self }
    }

    /// The same for a transformer that is told how strongly texts lead.
    pub(super) fn with_guidance(self, guidance: Option<f64>) -> Self {
        Packed { guidance, ..self }
    }

    /// The same with clips of another frame rate than the denoiser's own.
    pub(super) fn at_frame_rate(self, frame_rate: Option<f64>) -> Self {
        Packed { frame_rate, ..self }
    }

    /// How many passes of how many were reused, where there is a step cache.
    pub(super) fn reused(&self) -> Option<(usize, usize)> {
        self.cache?;
        let add = |(reused, all): (usize, usize), cache: &StepCache| {
            let (computed, again) = cache.passes();
            (reused + again, all + computed + again)
        };
        Some(self.caches.iter().fold(self.passes, add))
    }

    /// Has the expert of this timestep compute from here on, and says whether it is that of low
    /// noise levels. The one before is let go first, so that it may leave memory.
    pub(super) fn compute_at(&mut self, models: &Models, timestep: f64) -> Result<bool> {
        let part = Arc::clone(self.part.at(timestep));
        let is_low = !Arc::ptr_eq(&part, &self.part);
        if self.dit.as_ref().is_some_and(|(current, _)| Arc::ptr_eq(current, &part)) {
            return Ok(is_low);
        }
        self.dit = None;
        self.passes = self.reused().unwrap_or_default();
        self.caches = match &self.cache {
            Some(cache) => cache.caches(&*part.spec, &self.clips),
            None => Vec::new(),
        };
        for text in &mut self.texts {
            (text.with, text.without) = (None, None);
        }
        let fit = part.fit_run(models.budget(), self.beside);
        self.streamed = streamed(&fit).or(self.streamed);
        let dit = models.dit_as(&part, &fit)?;
        for text in &mut self.texts {
            text.with = Some(dit.project(&text.positive).node()?);
        }
        self.dit = Some((part, dit));
        Ok(is_low)
    }

    /// The denoiser that computes.
    fn dit(&self) -> Result<&LoadedDit> {
        let dit = self.dit.as_ref().map(|(_, dit)| dit);
        dit.ok_or_else(|| Error::failed("no denoiser was chosen for this step"))
    }

    /// The latents with what is given in its place. Shapes: `x` and the result are `[tokens,
    /// c·pt·ph·pw]`.
    pub(super) fn placed(&self, x: &Tensor) -> Result<Tensor> {
        self.held.as_ref().map_or_else(|| Ok(x.clone()), |held| held.place(x))
    }

    /// The guided velocity of all clips. Shapes: `x` and the result are `[tokens, c·pt·ph·pw]`.
    pub(super) fn guided(
        &mut self,
        x: &Tensor,
        timestep: f64,
        step: SamplingStep,
        guidances: &mut [Box<dyn GuiderState>],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let all: Vec<usize> = (0..self.grids.len()).collect();
        let guided: Vec<usize> =
            all.iter().copied().filter(|clip| guidances[*clip].guides(step)).collect();
        self.prepare(&guided)?;
        // Taken out while texts are borrowed.
        let mut caches = std::mem::take(&mut self.caches);
        caches.iter_mut().for_each(|cache| cache.begin_step(step.index, step.count));
        let velocities = self.velocities(x, timestep, (&all, &guided), &mut caches, check_cancel);
        self.caches = caches;
        let (with_text, without) = velocities?;
        let Some(without) = without else { return Ok(with_text) };
        let mut joined = Vec::with_capacity(all.len());
        let (mut at, mut at_without) = (0, 0);
        for (clip, grid) in self.grids.iter().enumerate() {
            let mut velocity = with_text.narrow(0, at, grid.tokens())?;
            at += grid.tokens();
            if guided.contains(&clip) {
                let without = without.narrow(0, at_without, grid.tokens())?;
                at_without += grid.tokens();
                velocity = guidances[clip].guide(step, &velocity, &without)?;
            }
            joined.push(velocity);
        }
        match joined.len() {
            1 => Ok(joined.remove(0)),
            _ => Ok(Tensor::cat(&joined, 0)?),
        }
    }

    /// The velocity of all clips with text, and of those that are guided without, if any are.
    fn velocities(
        &self,
        x: &Tensor,
        timestep: f64,
        (all, guided): (&[usize], &[usize]),
        caches: &mut [StepCache],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let x = &self.placed(x)?;
        let (with, without) = (self.calls(all, false)?, self.calls(guided, true)?);
        let mut velocity =
            |calls: &[Call<'_>]| self.velocity(x, timestep, calls, caches, check_cancel);
        if guided.is_empty() {
            return Ok((velocity(&with)?, None));
        }
        let tokens = self.tokens(all);
        if batched(tokens) {
            let both = velocity(&[with, without].concat())?; // [tokens with + without, width]
            let without = both.narrow(0, tokens, self.tokens(guided))?;
            return Ok((both.narrow(0, 0, tokens)?, Some(without)));
        }
        let with_text = velocity(&with)?;
        Ok((with_text, Some(velocity(&without)?)))
    }

    /// Makes the contexts of the negative prompts of these clips.
    fn prepare(&mut self, clips: &[usize]) -> Result<()> {
        for clip in clips {
            let index = self.of_clip[*clip];
            if self.texts[index].without.is_none() {
                let without = self.dit()?.project(&self.texts[index].negative).node()?;
                self.texts[index].without = Some(without);
            }
        }
        Ok(())
    }

    /// Which clips to pass through the transformer, and with which text.
    fn calls(&self, clips: &[usize], without: bool) -> Result<Vec<Call<'_>>> {
        let call = |clip: &usize| {
            let text = &self.texts[self.of_clip[*clip]];
            let context = if without { &text.without } else { &text.with };
            let missing = || Error::failed("a text was not projected for this step");
            Ok(Call { clip: *clip, without, context: context.as_ref().ok_or_else(missing)? })
        };
        clips.iter().map(call).collect()
    }

    fn tokens(&self, clips: &[usize]) -> usize {
        clips.iter().map(|clip| self.grids[*clip].tokens()).sum()
    }

    /// The velocity of some clips, one after another; `caches` are those of all clips, or none.
    fn velocity(
        &self,
        x: &Tensor,
        timestep: f64,
        calls: &[Call<'_>],
        caches: &mut [StepCache],
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let starts: Vec<usize> = self
            .grids
            .iter()
            .scan(0, |end, grid| {
                *end += grid.tokens();
                Some(*end - grid.tokens())
            })
            .collect();
        let clips = calls.iter().map(|call| call.clip);
        let all = clips.clone().eq(0..self.grids.len());
        let rows_of = |packed: &Tensor| -> Result<Tensor> {
            if all {
                return Ok(packed.clone());
            }
            let rows = |clip: usize| packed.narrow(0, starts[clip], self.grids[clip].tokens());
            Ok(Tensor::cat(&clips.clone().map(rows).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        };
        let (input, extra) = (rows_of(x)?, self.extra.as_ref().map(rows_of).transpose()?);
        let grids: Vec<Grid> = clips.clone().map(|clip| self.grids[clip]).collect();
        let contexts: Vec<&Projected> = calls.iter().map(|call| call.context).collect();
        let timesteps: Vec<f64> = match (self.timesteps, &self.held) {
            (TimestepInput::PerToken, Some(held)) => {
                let all = held.timesteps(timestep);
                let of = |clip: usize| &all[starts[clip]..][..self.grids[clip].tokens()];
                clips.clone().flat_map(of).copied().collect()
            }
            (TimestepInput::PerToken, None) => vec![timestep; input.dim(0)?],
            (TimestepInput::PerClip, _) => vec![timestep; grids.len()],
        };
        let timesteps = match self.timesteps {
            TimestepInput::PerToken => Timesteps::PerToken(&timesteps),
            TimestepInput::PerClip => Timesteps::PerClip(&timesteps),
        };
        let strengths: Vec<f64> = match self.strengths.is_empty() {
            true => Vec::new(),
            false => clips.clone().map(|clip| self.strengths[clip]).collect(),
        };
        let (patches, grids, extra) = (&input, &grids, extra.as_ref());
        let strengths = &strengths;
        let guidance = self.guidance;
        let latents = kino_models::model::Packed {
            patches,
            extra,
            grids,
            timesteps,
            strengths,
            frame_rate: self.frame_rate,
            guidance,
        };
        if caches.is_empty() {
            return self.dit()?.velocity(&latents, &contexts, check_cancel).node();
        }
        let mut places: Vec<Option<&mut StepCache>> = caches.iter_mut().map(Some).collect();
        let of_call = |call: &Call<'_>| {
            let place = places.get_mut(2 * call.clip + usize::from(call.without));
            place.and_then(Option::take)
        };
        let of_calls: Option<Vec<_>> = calls.iter().map(of_call).collect();
        let missing = || Error::failed("a clip has no step cache");
        let mut of_calls = of_calls.ok_or_else(missing)?;
        self.dit()?.velocity_cached(&latents, &contexts, &mut of_calls, check_cancel).node()
    }
}

/// Clips of one latent pixel, for tests.
#[cfg(test)]
pub(super) fn named_clips(names: &[Option<&str>]) -> Vec<ClipFact> {
    let clip = |name: &Option<&str>| ClipFact {
        name: name.map(str::to_owned),
        grid: [Some(1); 3],
        channels: 16,
        space: None,
    };
    names.iter().map(clip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_to_clips_by_name_else_in_order() {
        let (wide, tall) = (Some("wide"), Some("tall"));
        let check = |texts: &[Option<&str>], names: &[Option<&str>]| {
            texts_of_clips(texts, &named_clips(names)).map_err(|error| error.message)
        };
        assert_eq!(check(&[None], &[wide, tall, None]), Ok(vec![0, 0, 0]));
        assert_eq!(check(&[tall, wide], &[wide, tall]), Ok(vec![1, 0]));
        assert_eq!(check(&[None, None], &[wide, tall]), Ok(vec![0, 1]));
        assert_eq!(
            check(&[tall, Some("other")], &[wide, tall]),
            Err("there is no text for the clip `wide`".to_owned())
        );
        assert_eq!(
            check(&[None, None], &[None, None, None]),
            Err("expected one text, or one for each of the 3 clips, found 2".to_owned())
        );
    }
}
