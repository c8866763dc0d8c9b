//! Step caches: passes of a denoiser whose inner blocks are not computed, since little has changed
//! since they last were. What they added then is added again.
//!
//! Each sequence of tokens (a clip with one text) has a cache of its own, so a clip that is packed
//! with others is sampled as it is alone. It decides by how far something has changed that costs
//! little: `‖a − b‖₁ / ‖b‖₁`.
//!
//! - First-Block cache (ParaAttention; diffusers' `hooks/first_block_cache.py`): what the first
//!   block adds, against what it added when all blocks were last computed.
//! - TeaCache (arXiv:2411.19108; `teacache_forward` of `TeaCache4Wan2.1/teacache_generate.py`,
//!   github.com/ali-vilab/TeaCache): the timestep's embedding against that of the step before, put
//!   through a polynomial that was fitted to the model, and summed since all was last computed.

use candle_core::{DType, Tensor};
use serde::Deserialize;

use crate::error::{Error, Result};

/// A step cache, by how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepCacheKind {
    /// TeaCache.
    TeaCache,
    /// First-Block cache.
    FirstBlock,
}

/// How a cache tells that little has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StepCacheRule {
    /// By what the first block adds.
    FirstBlock,
    /// By the timestep's embedding.
    TeaCache(TeaCacheFit),
}

/// What was fitted to one model for TeaCache.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeaCacheFit {
    /// Of the polynomial that turns changes of the input into changes of the output, from the
    /// fourth power down.
    pub coefficients: [f64; 5],
    /// What is looked at.
    pub input: TeaCacheInput,
    /// So many first steps are always computed ("retention steps").
    pub first_steps: usize,
}

/// What TeaCache looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeaCacheInput {
    /// The embedding of the timestep.
    Embedding,
    /// Its projection to the shifts, scales and gates of the blocks.
    Projection,
}

impl StepCacheRule {
    /// Which cache it is of.
    pub fn kind(&self) -> StepCacheKind {
        match self {
            Self::FirstBlock => StepCacheKind::FirstBlock,
            Self::TeaCache(_) => StepCacheKind::TeaCache,
        }
    }

    /// How many of the first steps of a run are always computed.
    pub fn first_steps(&self) -> usize {
        match self {
            Self::FirstBlock => 1,
            Self::TeaCache(fit) => fit.first_steps.max(1),
        }
    }
}

impl TeaCacheFit {
    /// The polynomial at `change`: how much the output is taken to have changed.
    pub fn rescaled(&self, change: f64) -> f64 {
        self.coefficients.iter().fold(0.0, |value, coefficient| value * change + coefficient)
    }
}

/// What one sequence of tokens keeps from step to step of a run.
#[derive(Debug, Clone)]
pub struct StepCache {
    rule: StepCacheRule,
    threshold: f64,
    /// What the next pass is compared with.
    compared: Option<Tensor>,
    /// What the blocks added when they were last computed.
    residual: Option<Tensor>,
    /// The change since then, for TeaCache.
    accumulated: f64,
    step: usize,
    steps: usize,
    computed: usize,
    reused: usize,
}

impl StepCache {
    /// An empty one. The larger the threshold, the more is reused.
    pub fn new(rule: StepCacheRule, threshold: f64) -> Self {
        let (compared, residual, accumulated) = (None, None, 0.0);
        let (step, steps, computed, reused) = (0, 0, 0, 0);
        Self { rule, threshold, compared, residual, accumulated, step, steps, computed, reused }
    }

    /// How it decides.
    pub fn rule(&self) -> &StepCacheRule {
        &self.rule
    }

    /// Tells it which step of how many of a run the next pass is of.
    pub fn begin_step(&mut self, step: usize, steps: usize) {
        (self.step, self.steps) = (step, steps);
    }

    /// Whether the blocks must be computed in this pass: always in the first steps and in the last,
    /// else where `looked_at`, which is what the rule looks at, has changed by more than the
    /// threshold. What must be computed is to be told by [`StepCache::keep`].
    ///
    /// # Errors
    /// When shapes differ from those of the steps before.
    pub fn must_compute(&mut self, looked_at: &Tensor) -> Result<bool> {
        let is_forced = self.residual.is_none()
            || self.step < self.rule.first_steps()
            || self.step + 1 >= self.steps;
        let before = self.compared.as_ref().filter(|_| !is_forced);
        let change = before.map(|before| relative_change(looked_at, before)).transpose()?;
        // A change that is no number is a large one.
        let must = match (&self.rule, change) {
            (_, None) => true,
            (StepCacheRule::FirstBlock, Some(change)) => change.is_nan() || change > self.threshold,
            (StepCacheRule::TeaCache(fit), Some(change)) => {
                self.accumulated += fit.rescaled(change);
                self.accumulated.is_nan() || self.accumulated >= self.threshold
            }
        };
        if must {
            self.accumulated = 0.0;
            self.computed += 1;
        } else {
            self.reused += 1;
        }
        if must || self.rule.kind() == StepCacheKind::TeaCache {
            self.compared = Some(looked_at.clone());
        }
        Ok(must)
    }

    /// Keeps what the blocks added to the tokens in this pass.
    pub fn keep(&mut self, residual: Tensor) {
        self.residual = Some(residual);
    }

    /// The tokens with what the blocks last added. Shapes: `[tokens, dim]`.
    ///
    /// # Errors
    /// When nothing was kept, or of another shape.
    pub fn reuse(&self, tokens: &Tensor) -> Result<Tensor> {
        let residual = self.residual.as_ref();
        let residual = residual.ok_or_else(|| Error::input("a step cache has nothing to reuse"))?;
        Ok((tokens + residual)?)
    }

    /// Passes that were computed, and that were reused.
    pub fn passes(&self) -> (usize, usize) {
        (self.computed, self.reused)
    }
}

/// mean|a − b| / mean|b|, in f32.
fn relative_change(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
    let mean = |t: Tensor| t.abs()?.mean_all()?.to_scalar::<f32>();
    Ok(f64::from(mean((a - &b)?)?) / f64::from(mean(b)?))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn values(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    /// Whether each of these is computed, as steps of one run.
    fn computed(cache: &mut StepCache, steps: &[f32]) -> Vec<bool> {
        let mut one = |(step, value): (usize, &f32)| {
            cache.begin_step(step, steps.len());
            let must = cache.must_compute(&values(&[*value, -value])).unwrap();
            if must {
                cache.keep(values(&[*value, 0.0]));
            }
            must
        };
        steps.iter().enumerate().map(&mut one).collect()
    }

    #[test]
    fn the_first_block_is_compared_with_when_all_was_last_computed() {
        let mut cache = StepCache::new(StepCacheRule::FirstBlock, 0.1);
        // 8% and 16% off the first; then 8% off the third.
        let found = computed(&mut cache, &[1.0, 1.08, 1.16, 1.25, 1.25]);
        assert_eq!(found, [true, false, true, false, true], "the last is always computed");
        assert_eq!(cache.passes(), (3, 2));
        assert_eq!(
            cache.reuse(&values(&[1.0, 1.0])).unwrap().to_vec1::<f32>().unwrap(),
            [2.25, 1.0]
        );
    }

    #[test]
    fn what_is_no_number_is_computed() {
        for rule in [StepCacheRule::FirstBlock, StepCacheRule::TeaCache(linear(1))] {
            let mut cache = StepCache::new(rule, 0.5);
            let found = computed(&mut cache, &[1.0, f32::NAN, f32::NAN, 1.0, 1.0]);
            assert_eq!(found, [true; 5], "{rule:?}");
            // From nothing, any change is infinite.
            let mut cache = StepCache::new(rule, 0.5);
            assert_eq!(computed(&mut cache, &[0.0, 0.0, 1.0]), [true; 3], "{rule:?}");
        }
    }

    fn linear(first_steps: usize) -> TeaCacheFit {
        let coefficients = [0.0, 0.0, 0.0, 1.0, 0.0];
        TeaCacheFit { coefficients, input: TeaCacheInput::Embedding, first_steps }
    }

    #[test]
    fn changes_are_summed_until_they_reach_the_threshold() {
        let mut cache = StepCache::new(StepCacheRule::TeaCache(linear(2)), 0.25);
        let steps: Vec<f32> = (0..9).map(|step| 1.1f32.powi(step)).collect();
        let found = computed(&mut cache, &steps);
        let expected = [true, true, false, false, true, false, false, true, true];
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_reused_before_anything_was_kept() {
        let mut cache = StepCache::new(StepCacheRule::FirstBlock, 1.0);
        assert!(cache.reuse(&values(&[1.0])).unwrap_err().to_string().contains("nothing to reuse"));
        cache.begin_step(3, 9);
        assert!(cache.must_compute(&values(&[1.0])).unwrap());
        cache.begin_step(4, 9);
        assert!(cache.must_compute(&values(&[1.0])).unwrap(), "the blocks gave nothing");
    }
}
