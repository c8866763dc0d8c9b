//! UniPC for flow models: a multistep predictor with a corrector that costs no model call.
//!
//! Zhao et al., arXiv:2302.04867, in the data-prediction form of diffusers'
//! `scheduling_unipc_multistep.py` with `use_flow_sigmas`.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::config::{SchedulerConfig, SolverType};
use super::levels::{Schedule, lambda};
use super::sum::{SolverMethod, StepAt, StepNoise, weighted_sum};
use crate::error::Result;

/// What a config may choose about UniPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniPcOptions {
    /// Order of the predictor, 1 to 3.
    pub order: usize,
    /// The variant of B(h).
    pub solver: SolverType,
    /// Whether the order falls towards the last step.
    pub lower_order_final: bool,
    /// Steps after which the corrector is not applied.
    pub disable_corrector: Vec<usize>,
}

impl Default for UniPcOptions {
    fn default() -> Self {
        let solver = SolverType::Bh2;
        Self { order: 2, solver, lower_order_final: true, disable_corrector: Vec::new() }
    }
}

impl From<&SchedulerConfig> for UniPcOptions {
    fn from(config: &SchedulerConfig) -> Self {
        Self {
            order: config.solver_order,
            solver: config.solver_type,
            lower_order_final: config.lower_order_final,
            disable_corrector: config.disable_corrector.clone(),
        }
    }
}

/// The method and all it remembers between steps.
#[derive(Debug)]
pub struct UniPc {
    options: UniPcOptions,
    /// Data predictions of the latest steps, newest first.
    predictions: VecDeque<Tensor>,
    /// The corrected sample from which the latest step started, and the order of that step.
    last: Option<(Tensor, usize)>,
}

impl SolverMethod for UniPc {
    fn step(
        &mut self,
        at: StepAt<'_>,
        velocity: &Tensor,
        sample: &Tensor,
        _: &mut StepNoise<'_>,
    ) -> Result<Tensor> {
        // x₀ = x − σ·v, from the sample as the model saw it.
        let predicted = weighted_sum(&[(1.0, sample), (-at.sigmas().0, velocity)])?;
        let sample = match &self.last {
            Some((last, order)) if !self.options.disable_corrector.contains(&(at.index - 1)) => {
                self.correct(at, last, &predicted, *order)?
            }
            _ => sample.clone(),
        };
        self.predictions.push_front(predicted);
        self.predictions.truncate(self.options.order);
        let order = self.order_now(at);
        let next = self.predict(at, &sample, order)?;
        self.last = Some((sample, order));
        Ok(next)
    }
}

impl UniPc {
    /// The method before its first step.
    pub fn new(options: UniPcOptions) -> Self {
        Self { options, predictions: VecDeque::new(), last: None }
    }

    /// The order that history and the distance to the end allow.
    fn order_now(&self, at: StepAt<'_>) -> usize {
        let left = at.schedule.steps() - at.index;
        let order = self.options.order.min(self.predictions.len());
        // A step to σ = 0 has h = ∞, where only order 1 has a limit.
        let to_data = at.sigmas().1 == 0.0;
        match (self.options.lower_order_final, to_data) {
            (_, true) => 1,
            (true, false) => order.min(left),
            (false, false) => order,
        }
    }

    /// UniP: from level `index` to the next one.
    fn predict(&self, at: StepAt<'_>, sample: &Tensor, order: usize) -> Result<Tensor> {
        let step = Step::new(at.schedule, at.index, order, self.options.solver);
        let rho = match order {
            1 => Vec::new(),
            2 => vec![0.5], // exact enough for two points: diffusers fixes it too
            _ => solve(step.matrix(order - 1), step.right_side(order - 1)),
        };
        step.combine(sample, &self.predictions, &rho, None)
    }

    /// UniC: repeats the step from the previous level, now knowing the prediction at its end.
    fn correct(
        &self,
        at: StepAt<'_>,
        last: &Tensor,
        predicted: &Tensor,
        order: usize,
    ) -> Result<Tensor> {
        let step = Step::new(at.schedule, at.index - 1, order, self.options.solver);
        let mut rho = match order {
            1 => vec![0.5],
            _ => solve(step.matrix(order), step.right_side(order)),
        };
        let of_end = rho.pop().unwrap_or(0.5);
        step.combine(last, &self.predictions, &rho, Some((of_end, predicted)))
    }
}

/// The scalars of one step from level s to level t.
struct Step {
    sigma_ratio: f64,
    alpha: f64,
    /// −h, where h is the step in λ = ln((1−σ)/σ).
    hh: f64,
    /// B(h) of the chosen variant.
    b: f64,
    /// (λᵢ − λₛ)/h of earlier levels, newest first, and 1 for the end of the step.
    ratios: Vec<f64>,
}

impl Step {
    fn new(schedule: &Schedule, index: usize, order: usize, solver: SolverType) -> Self {
        let sigmas = schedule.sigmas();
        let (from, to) = (sigmas[index], sigmas[index + 1]);
        let h = lambda(to) - lambda(from);
        let ratio = |i: usize| (lambda(sigmas[index - i]) - lambda(from)) / h;
        let ratios = (1..order).map(ratio).chain([1.0]).collect();
        let hh = -h;
        let b = match solver {
            SolverType::Bh1 => hh,
            _ => hh.exp_m1(),
        };
        Self { sigma_ratio: to / from, alpha: 1.0 - to, hh, b, ratios }
    }

    /// Row i holds the ratios to the power i.
    fn matrix(&self, size: usize) -> Vec<Vec<f64>> {
        (0..size).map(|i| self.ratios[..size].iter().map(|r| r.powi(i as i32)).collect()).collect()
    }

    /// i!·φᵢ₊₁(hh)·hh/B, the moments that the weights must meet.
    fn right_side(&self, size: usize) -> Vec<f64> {
        let mut phi = self.hh.exp_m1() / self.hh - 1.0;
        let mut factorial = 1.0;
        let mut moments = Vec::with_capacity(size);
        for i in 1..=size {
            moments.push(phi * factorial / self.b);
            factorial *= (i + 1) as f64;
            phi = phi / self.hh - 1.0 / factorial;
        }
        moments
    }

    /// σₜ/σₛ·x − α·(e^hh − 1)·m₀ − α·B·(Σ ρᵢ·(mᵢ − m₀)/rᵢ + ρ·(mₜ − m₀)), sorted by tensor.
    fn combine(
        &self,
        sample: &Tensor,
        predictions: &VecDeque<Tensor>,
        rho: &[f64],
        end: Option<(f64, &Tensor)>,
    ) -> Result<Tensor> {
        let mut of_newest = -self.alpha * self.hh.exp_m1();
        let mut terms = Vec::with_capacity(rho.len() + 3);
        for (i, (rho, ratio)) in rho.iter().zip(&self.ratios).enumerate() {
            let weight = -self.alpha * self.b * rho / ratio;
            terms.push((weight, &predictions[i + 1]));
            of_newest -= weight;
        }
        if let Some((rho, predicted)) = end {
            let weight = -self.alpha * self.b * rho;
            terms.push((weight, predicted));
            of_newest -= weight;
        }
        terms.push((of_newest, &predictions[0]));
        if self.sigma_ratio != 0.0 {
            terms.push((self.sigma_ratio, sample));
        }
        weighted_sum(&terms)
    }
}

/// Solves a small dense system by elimination with row exchange.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for column in 0..n {
        let size = |row: &usize| matrix[*row][column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (above, below) = matrix.split_at_mut(column + 1);
        let top = &above[column];
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / top[column];
            row.iter_mut().zip(top).for_each(|(value, top)| *value -= factor * top);
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| matrix[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right
}
