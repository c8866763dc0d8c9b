//! Which step cache a run has.

use std::borrow::Cow;

use kino_models::model::DenoiserSpec;
use kino_models::sampling::{StepCache, StepCacheKind, StepCacheRule};
use kino_node::Clip;
use kino_port::PlanError;

use crate::models::DitHandle;
use crate::patches::grid_of;

/// What `cache_kind` may be.
pub(super) const KINDS: [Cow<'static, str>; 3] =
    [Cow::Borrowed("auto"), Cow::Borrowed("teacache"), Cow::Borrowed("first_block")];

/// A step cache that the transformer has, both of its experts where there are two.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheChoice {
    pub(super) kind: StepCacheKind,
    threshold: f64,
    /// How many of the first steps are always computed.
    first_steps: usize,
}

impl CacheChoice {
    /// What is asked for: none where the threshold is 0.
    pub(super) fn new(
        part: &DitHandle,
        threshold: f64,
        kind: &str,
        clips: &[Clip],
    ) -> Result<Option<Self>, PlanError> {
        if threshold <= 0.0 {
            return Ok(None);
        }
        let of = |kind: StepCacheKind| {
            let high = rules(&*part.spec, kind, clips)?;
            let low = part.low_noise.as_ref();
            let low = low.map_or(Some(Vec::new()), |low| rules(&*low.part.spec, kind, clips))?;
            let first_steps = high.iter().chain(&low).map(StepCacheRule::first_steps).max();
            Some(Self { kind, threshold, first_steps: first_steps.unwrap_or(1) })
        };
        let first_block = of(StepCacheKind::FirstBlock);
        let found = match kind {
            "teacache" => of(StepCacheKind::TeaCache),
            "first_block" => first_block,
            _ => of(StepCacheKind::TeaCache).or(first_block),
        };
        if found.is_some() {
            return Ok(found);
        }
        Err(match (kind, first_block) {
            ("teacache", Some(_)) => {
                let message = "TeaCache needs a polynomial that was fitted to the model, and none \
                               is published for this one";
                PlanError::at("cache_kind", message).hint("\"first_block\" needs none")
            }
            _ => PlanError::at("cache", "this transformer has no step cache")
                .hint("leave `cache` out: every step is computed then"),
        })
    }

    /// Empty caches of a transformer: of each clip one with text and one without.
    pub(super) fn caches(&self, spec: &dyn DenoiserSpec, clips: &[Clip]) -> Vec<StepCache> {
        let rules = rules(spec, self.kind, clips).unwrap_or_default();
        let empty = |rule| StepCache::new(rule, self.threshold);
        rules.into_iter().flat_map(|rule| [empty(rule), empty(rule)]).collect()
    }

    /// A warning where so few steps are run that none is reused.
    pub(super) fn idle(&self, steps: usize) -> Option<PlanError> {
        let first = self.first_steps;
        (steps <= first + 1).then(|| {
            let first = if first == 1 { "first".to_owned() } else { format!("first {first}") };
            let message = format!(
                "nothing is reused in {steps} steps: the {first} and the last are always computed"
            );
            PlanError::at("cache", message).hint("leave it out, or take more `steps`")
        })
    }
}

/// How a cache of this kind decides for each clip, if the transformer has it for all.
fn rules(
    spec: &dyn DenoiserSpec,
    kind: StepCacheKind,
    clips: &[Clip],
) -> Option<Vec<StepCacheRule>> {
    clips.iter().map(|clip| spec.step_cache(kind, grid_of(clip))).collect()
}
