//! Velocities of packed clips, each with its own text, with and without.

use std::sync::Arc;

use candle_core::Tensor;
use kino_models::families::wan::dit::{Context, Dit, Timesteps};
use kino_models::patch::Grid;
use kino_node::{Clip, Conditioning, Guidance, Result, SamplingStep};
use kino_port::PlanError;

use crate::error::IntoNode;

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

/// Called after every block; its error stops the pass.
type Tick<'a> = dyn FnMut() -> kino_models::Result<()> + 'a;

/// A text as the transformer's blocks read it.
pub(super) struct Text {
    conditioning: Arc<Conditioning>,
    with: Context,
    /// Made when a step is first guided: without guidance it is never needed.
    without: Option<Context>,
}

impl Text {
    pub(super) fn new(dit: &Dit, conditioning: Arc<Conditioning>) -> Result<Self> {
        let with = dit.context(conditioning.positive.text()?).node()?;
        Ok(Text { conditioning, with, without: None })
    }
}

/// The text of each clip, as an index among the texts: one for all, by name, or in order.
pub(super) fn texts_of_clips(
    texts: &[Option<&str>],
    clips: &[Clip],
) -> Result<Vec<usize>, PlanError> {
    if texts.len() == 1 {
        return Ok(vec![0; clips.len()]);
    }
    if texts.len() != clips.len() {
        let expected = match clips.len() {
            1 => "expected one text for one clip".to_owned(),
            count => format!("expected one text, or one for each of the {count} clips"),
        };
        return Err(PlanError::at("text", format!("{expected}, found {}", texts.len())));
    }
    let named = texts.iter().all(Option::is_some) && clips.iter().all(|clip| clip.name.is_some());
    if !named {
        return Ok((0..clips.len()).collect());
    }
    let text_of = |clip: &Clip| {
        texts.iter().position(|text| *text == clip.name.as_deref()).ok_or_else(|| {
            let names: Vec<&str> = texts.iter().flatten().copied().collect();
            let clip = clip.name.as_deref().unwrap_or_default();
            PlanError::at("text", format!("there is no text for the clip `{clip}`"))
                .hint(format!("the texts are: {}", names.join(", ")))
        })
    };
    clips.iter().map(text_of).collect()
}

/// Clips, packed, with their texts.
pub(super) struct Packed {
    pub(super) dit: Arc<Dit>,
    pub(super) grids: Vec<Grid>,
    pub(super) texts: Vec<Text>,
    /// For each clip the index of its text.
    pub(super) of_clip: Vec<usize>,
    /// Whether the model takes a timestep a token (Wan 2.2 TI2V).
    pub(super) per_token: bool,
}

impl Packed {
    /// The guided velocity of all clips. Shapes: `x` and the result are `[tokens, c·pt·ph·pw]`.
    pub(super) fn guided(
        &mut self,
        x: &Tensor,
        timestep: f64,
        step: SamplingStep,
        guidances: &mut [Box<dyn Guidance>],
        tick: &mut Tick<'_>,
    ) -> Result<Tensor> {
        let all: Vec<usize> = (0..self.grids.len()).collect();
        let guided: Vec<usize> =
            all.iter().copied().filter(|clip| guidances[*clip].guides(step)).collect();
        self.prepare(&guided)?;
        let (with, without) = (self.calls(&all, false), self.calls(&guided, true));
        if guided.is_empty() {
            return self.velocity(x, timestep, &with, tick);
        }
        let tokens = self.tokens(&all);
        let (with_text, without) = if batched(tokens) {
            let both = [with, without].concat();
            let both = self.velocity(x, timestep, &both, tick)?; // [tokens with + without, width]
            (both.narrow(0, 0, tokens)?, both.narrow(0, tokens, self.tokens(&guided))?)
        } else {
            let with_text = self.velocity(x, timestep, &with, tick)?;
            (with_text, self.velocity(x, timestep, &without, tick)?)
        };
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

    /// Makes the contexts of the negative prompts of these clips.
    fn prepare(&mut self, clips: &[usize]) -> Result<()> {
        for clip in clips {
            let text = &mut self.texts[self.of_clip[*clip]];
            if text.without.is_none() {
                text.without = Some(self.dit.context(text.conditioning.negative.text()?).node()?);
            }
        }
        Ok(())
    }

    /// Which clips to pass through the transformer, and with which text.
    fn calls(&self, clips: &[usize], negative: bool) -> Vec<(usize, &Context)> {
        let context = |clip: &usize| {
            let text = &self.texts[self.of_clip[*clip]];
            match (negative, &text.without) {
                (true, Some(without)) => (*clip, without),
                _ => (*clip, &text.with),
            }
        };
        clips.iter().map(context).collect()
    }

    fn tokens(&self, clips: &[usize]) -> usize {
        clips.iter().map(|clip| self.grids[*clip].tokens()).sum()
    }

    /// The velocity of some clips, one after another.
    fn velocity(
        &self,
        x: &Tensor,
        timestep: f64,
        calls: &[(usize, &Context)],
        tick: &mut Tick<'_>,
    ) -> Result<Tensor> {
        let starts: Vec<usize> = self
            .grids
            .iter()
            .scan(0, |end, grid| {
                *end += grid.tokens();
                Some(*end - grid.tokens())
            })
            .collect();
        let clips = calls.iter().map(|(clip, _)| *clip);
        let input = if clips.clone().eq(0..self.grids.len()) {
            x.clone()
        } else {
            let rows = |clip: usize| x.narrow(0, starts[clip], self.grids[clip].tokens());
            Tensor::cat(&clips.clone().map(rows).collect::<candle_core::Result<Vec<_>>>()?, 0)?
        };
        let grids: Vec<Grid> = clips.map(|clip| self.grids[clip]).collect();
        let contexts: Vec<&Context> = calls.iter().map(|(_, context)| *context).collect();
        let count = if self.per_token { input.dim(0)? } else { grids.len() };
        let timesteps = vec![timestep; count];
        let timesteps = match self.per_token {
            true => Timesteps::PerToken(&timesteps),
            false => Timesteps::PerClip(&timesteps),
        };
        self.dit.velocity(&input, &grids, timesteps, &contexts, tick).node()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clips(names: &[Option<&str>]) -> Vec<Clip> {
        let clip = |name: &Option<&str>| Clip {
            name: name.map(str::to_owned),
            grid: [1, 1, 1],
            channels: 16,
            space: None,
        };
        names.iter().map(clip).collect()
    }

    #[test]
    fn texts_go_to_clips_by_name_else_in_order() {
        let (wide, tall) = (Some("wide"), Some("tall"));
        let check = |texts: &[Option<&str>], names: &[Option<&str>]| {
            texts_of_clips(texts, &clips(names)).map_err(|error| error.message)
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
