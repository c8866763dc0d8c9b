//! DPM-Solver++ for flow models: a multistep solver on predictions of the data.
//!
//! Lu et al., arXiv:2211.01095 (algorithm 2, "2M", where the order is 2), as diffusers'
//! `scheduling_dpmsolver_multistep.py` has it with `use_flow_sigmas` and `flow_prediction`.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::config::{SchedulerConfig, SolverType};
use super::levels::lambda;
use super::sum::{SolverMethod, StepAt, StepNoise, weighted_sum};
use crate::error::Result;

/// Runs of fewer steps than this lower the order towards their end, where a config asks for it.
const FEW_STEPS: usize = 15;

/// How a second-order step takes its derivative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DpmDerivative {
    /// At the middle of the step.
    #[default]
    Midpoint,
    /// As Heun's method, from both ends.
    Heun,
}

/// What a config may choose about DPM-Solver++.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DpmOptions {
    /// Order of the solver, 1 to 3.
    pub order: usize,
    /// The form of the second-order step.
    pub derivative: DpmDerivative,
    /// Whether short runs lower the order towards the last step.
    pub lower_order_final: bool,
    /// Whether the last step is of order 1 in any run.
    pub euler_at_final: bool,
}

impl Default for DpmOptions {
    fn default() -> Self {
        let derivative = DpmDerivative::Midpoint;
        Self { order: 2, derivative, lower_order_final: true, euler_at_final: false }
    }
}

impl From<&SchedulerConfig> for DpmOptions {
    /// The options of UniPC that both have hold as well: so diffusers' `from_config` reads them.
    fn from(config: &SchedulerConfig) -> Self {
        Self {
            order: config.solver_order,
            derivative: match config.solver_type {
                SolverType::Heun => DpmDerivative::Heun,
                _ => DpmDerivative::Midpoint,
            },
            lower_order_final: config.lower_order_final,
            euler_at_final: config.euler_at_final,
        }
    }
}

/// The method and all it remembers between steps.
#[derive(Debug)]
pub struct DpmSolver {
    options: DpmOptions,
    /// Data predictions of the latest steps, newest first.
    predictions: VecDeque<Tensor>,
}

impl SolverMethod for DpmSolver {
    fn step(
        &mut self,
        at: StepAt<'_>,
        velocity: &Tensor,
        sample: &Tensor,
        _: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        // x₀ = x − σ·v.
        let predicted = weighted_sum(&[(1.0, sample), (-at.sigmas().0, velocity)])?;
        self.predictions.push_front(predicted);
        self.predictions.truncate(self.options.order);
        let weights = Weights::new(at, self.order_now(at), self.options);
        let mut terms: Vec<(f64, &Tensor)> =
            weights.predictions.iter().copied().zip(&self.predictions).collect();
        if weights.sample != 0.0 {
            terms.push((weights.sample, sample));
        }
        weighted_sum(&terms)
    }
}

impl DpmSolver {
    /// The method before its first step.
    pub fn new(options: DpmOptions) -> Self {
        Self { options, predictions: VecDeque::new() }
    }

    /// The order that history and the distance to the end allow.
    fn order_now(&self, at: StepAt<'_>) -> usize {
        let DpmOptions { order, lower_order_final, euler_at_final, .. } = self.options;
        let steps = at.schedule.steps();
        let left = steps - at.index;
        let lowered = lower_order_final && steps < FEW_STEPS;
        // A step to σ = 0 has h = ∞, where only order 1 has a limit.
        let to_data = at.sigmas().1 == 0.0;
        let most = match left {
            1 if to_data || lowered || euler_at_final => 1,
            2 if lowered => 2,
            _ => 3,
        };
        order.min(most).min(self.predictions.len())
    }
}

/// What a step from level s to level t weighs the sample and the predictions with.
struct Weights {
    sample: f64,
    /// Newest first.
    predictions: Vec<f64>,
}

impl Weights {
    /// With e = exp(−h) − 1 and h = λₜ − λₛ, the order 1 is σₜ/σₛ·x − αₜ·e·m₀ (equation 9 of the
    /// paper). Order 2 adds −½·αₜ·e·D (midpoint) or αₜ·(e/h + 1)·D (Heun) with D = (m₀ − m₁)/r₀ and
    /// r₀ = (λₛ − λₛ₋₁)/h; order 3 is written in differences of the same kind.
    fn new(at: StepAt<'_>, order: usize, options: DpmOptions) -> Self {
        let (sigmas, index) = (at.schedule.sigmas(), at.index);
        let (from, to) = at.sigmas();
        let alpha = 1.0 - to;
        let h = lambda(to) - lambda(from);
        let e = (-h).exp_m1();
        // The distance between the levels that lie `i` and `i + 1` steps back, in steps of h.
        let ratio = |i: usize| (lambda(sigmas[index - i]) - lambda(sigmas[index - i - 1])) / h;
        let of_newest = -alpha * e;
        let predictions = match order {
            1 => vec![of_newest],
            2 => {
                let first = match options.derivative {
                    DpmDerivative::Midpoint => -0.5 * alpha * e,
                    DpmDerivative::Heun => alpha * (e / h + 1.0),
                };
                let first = first / ratio(0);
                vec![of_newest + first, -first]
            }
            _ => {
                let (near, far) = (ratio(0), ratio(1));
                let first = alpha * (e / h + 1.0);
                let second = -alpha * ((e + h) / (h * h) - 0.5);
                let bend = (first * near + second) / (near + far);
                let (first, bend) = ((first + bend) / near, -bend / far);
                vec![of_newest + first, bend - first, -bend]
            }
        };
        Self { sample: to / from, predictions }
    }
}
