//! Noise levels of a run.
//!
//! A rectified flow runs from noise (σ = 1) to data (σ = 0) along x(σ) = (1−σ)·x₀ + σ·noise; the
//! model gives the velocity v = noise − x₀. Formulas follow diffusers'
//! `scheduling_unipc_multistep.py`, `scheduling_dpmsolver_multistep.py`,
//! `scheduling_flow_match_euler_discrete.py` and `scheduling_flow_match_lcm.py`. Scalars are f64;
//! levels are rounded to f32 as there, because the multistep solvers take logarithms of 1 − σ near
//! σ = 1, where that rounding shows.

use super::config::{ScheduleKind, SchedulerConfig, Spacing};
use crate::error::{Error, Result};

/// How far below 1 multistep solvers start, so that ln(1 − σ) is finite.
const BELOW_ONE: f64 = 1e-6;

/// The noise levels of a run and the timesteps at which the model is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    sigmas: Vec<f64>,
    timesteps: Vec<f64>,
}

impl Schedule {
    /// The levels that `kind` makes for a number of steps.
    ///
    /// `shift` pushes levels towards noise: σ' = shift·σ/(1 + (shift − 1)·σ). `train` is the number
    /// of timesteps that the model was trained on (1000).
    ///
    /// # Errors
    /// When `steps` or `train` is 0 or `shift` is not above 0.
    pub fn new(kind: ScheduleKind, steps: usize, shift: f64, train: usize) -> Result<Self> {
        if steps == 0 || train == 0 || !(shift.is_finite() && shift > 0.0) {
            return Err(Error::input(format!(
                "a schedule needs at least one step and a shift above 0, not {steps} and {shift}"
            )));
        }
        let train = train as f64;
        Ok(match kind {
            ScheduleKind::UniPc => Self::unipc(steps, shift, train),
            ScheduleKind::DpmSolver => Self::dpm_solver(steps, shift, train),
            ScheduleKind::Euler | ScheduleKind::Lcm => Self::euler(steps, shift, train),
        })
    }

    /// The levels that a model's config asks for, made by `kind`: shifted by `shift`, or where that
    /// is not given as the config says for a clip of so many tokens.
    ///
    /// # Errors
    /// As [`Schedule::new`], and when the levels depend on tokens and neither `shift` nor `tokens`
    /// is given.
    pub fn of(
        config: &SchedulerConfig,
        kind: ScheduleKind,
        steps: usize,
        (shift, tokens): (Option<f64>, Option<usize>),
    ) -> Result<Self> {
        let shift = match (shift, tokens) {
            (Some(shift), _) => shift,
            (None, Some(tokens)) => config.shift_of(tokens),
            (None, None) if config.is_dynamic() => {
                return Err(Error::input(
                    "the noise levels depend on how many tokens there are, and that is not said",
                ));
            }
            (None, None) => config.shift(),
        };
        let train = config.num_train_timesteps;
        let plain = Self::new(kind, steps, shift, train)?; // checks them, too
        if kind.is_multistep() {
            return Ok(plain);
        }
        let train = train as f64;
        let mut asked = Vec::new();
        let levels = match (config.spacing(), config.is_dynamic()) {
            // In f32, as numpy computes with the levels that a pipeline gives.
            (Spacing::Steps, _) => {
                let levels = linspace(1.0, 1.0 / steps as f64, steps).into_iter();
                let shifted = if config.is_dynamic() { time_shifted } else { shifted_f32 };
                levels.map(|level| f64::from(shifted(level as f32, shift as f32))).collect()
            }
            // The model is asked at the levels as they were before they were shifted.
            (Spacing::LinearQuadratic, _) => {
                let plain = linear_quadratic(steps).into_iter();
                asked = plain.map(|level| f64::from(level as f32 * train as f32)).collect();
                asked.iter().map(|t| shifted(to_f32(t / train), shift)).collect()
            }
            (Spacing::Trained, true) => {
                let levels = linspace(train, f64::from(1.0 / train as f32) * train, steps);
                levels.into_iter().map(|level| shifted(level / train, shift)).collect()
            }
            (Spacing::Trained, false) if config.terminal().is_none() => return Ok(plain),
            (Spacing::Trained, false) => plain.sigmas[..steps].to_vec(),
        };
        let levels = stretched(levels, config.terminal());
        let mut sigmas: Vec<f64> = levels.into_iter().map(to_f32).collect();
        if asked.is_empty() {
            asked = sigmas.iter().map(|sigma| to_f32(sigma * train)).collect();
        }
        sigmas.push(0.0);
        Ok(Self { sigmas, timesteps: asked })
    }

    /// Levels linear in σ from 1 to 1/train, shifted; timesteps are cut to integers.
    fn unipc(steps: usize, shift: f64, train: f64) -> Self {
        let mut sigmas = linspace(1.0, 1.0 / train, steps + 1);
        sigmas.truncate(steps);
        sigmas.iter_mut().for_each(|sigma| *sigma = shifted(*sigma, shift));
        below_one(&mut sigmas);
        let timesteps = sigmas.iter().map(|sigma| (sigma * train).trunc()).collect();
        sigmas.push(0.0);
        Self { sigmas: sigmas.into_iter().map(to_f32).collect(), timesteps }
    }

    /// Levels linear in σ from 1 − 1/train to the first above 0, shifted; timesteps are cut to
    /// integers.
    fn dpm_solver(steps: usize, shift: f64, train: f64) -> Self {
        let alphas = linspace(1.0, 1.0 / train, steps + 1);
        let sigmas = alphas[1..].iter().rev().map(|alpha| shifted(1.0 - alpha, shift));
        let mut sigmas: Vec<f64> = sigmas.collect();
        let timesteps = sigmas.iter().map(|sigma| (sigma * train).trunc()).collect();
        sigmas.push(0.0);
        Self { sigmas: sigmas.into_iter().map(to_f32).collect(), timesteps }
    }

    /// Levels linear between the ends of the shifted training levels, and shifted again: the
    /// scheduler of diffusers does both. Timesteps are not cut.
    fn euler(steps: usize, shift: f64, train: f64) -> Self {
        let (shift32, lowest) = (shift as f32, 1.0 / train as f32);
        let lowest = shift32 * lowest / (1.0 + (shift32 - 1.0) * lowest);
        let ends = linspace(train, f64::from(lowest) * train, steps);
        let mut sigmas: Vec<f64> =
            ends.into_iter().map(|timestep| to_f32(shifted(timestep / train, shift))).collect();
        let timesteps = sigmas.iter().map(|sigma| to_f32(sigma * train)).collect();
        sigmas.push(0.0);
        Self { sigmas, timesteps }
    }

    /// Levels that the caller chose, used as they are: no shift is applied.
    ///
    /// They fall from at most 1 to at least 0; usually the last is 0.
    ///
    /// # Errors
    /// When there are fewer than two, they do not fall, or one lies outside 0…1.
    pub fn from_sigmas(kind: ScheduleKind, sigmas: &[f64], train: usize) -> Result<Self> {
        if sigmas.len() < 2 {
            return Err(Error::input("sigmas: at least two levels are needed, a start and an end"));
        }
        if let Some(sigma) = sigmas.iter().find(|sigma| !(0.0..=1.0).contains(*sigma)) {
            return Err(Error::input(format!("sigmas: {sigma} lies outside 0 (data) … 1 (noise)")));
        }
        if let Some(pair) = sigmas.windows(2).find(|pair| pair[1] >= pair[0]) {
            return Err(Error::input(format!(
                "sigmas: levels must fall, but {} follows {}",
                pair[1], pair[0]
            )));
        }
        let mut sigmas = sigmas.to_vec();
        if kind.is_multistep() {
            below_one(&mut sigmas);
        }
        let train = train as f64;
        let timestep = |sigma: &f64| match kind.is_multistep() {
            true => (sigma * train).trunc(),
            false => to_f32(to_f32(*sigma) * train),
        };
        let timesteps = sigmas[..sigmas.len() - 1].iter().map(timestep).collect();
        Ok(Self { sigmas: sigmas.into_iter().map(to_f32).collect(), timesteps })
    }

    /// The same schedule without its first `steps` steps: a run that starts in the middle.
    ///
    /// # Errors
    /// When no step would be left.
    pub fn skip(&self, steps: usize) -> Result<Self> {
        if steps >= self.steps() {
            let all = self.steps();
            return Err(Error::input(format!("{steps} of {all} steps skipped leaves none to run")));
        }
        Ok(Self {
            sigmas: self.sigmas[steps..].to_vec(),
            timesteps: self.timesteps[steps..].to_vec(),
        })
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// Noise levels, one more than steps: unitless, 1 is noise, 0 is data.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// What the model is told at each step: σ·1000, an integer for multistep solvers.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }
}

/// The steps that are run of a start of this strength, cut to a whole number (`get_timesteps` of
/// diffusers' `pipeline_wan_video2video.py`).
pub fn steps_of_strength(steps: usize, strength: f64) -> usize {
    ((steps as f64 * strength) as usize).min(steps)
}

/// λ = ln((1−σ)/σ), half the logarithm of the signal-to-noise ratio: ∞ for data.
pub(super) fn lambda(sigma: f64) -> f64 {
    (1.0 - sigma).ln() - sigma.ln()
}

/// σ' = shift·σ/(1 + (shift − 1)·σ).
fn shifted(sigma: f64, shift: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The same in f32.
fn shifted_f32(sigma: f32, shift: f32) -> f32 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// The same as `time_shift` has it.
fn time_shifted(sigma: f32, shift: f32) -> f32 {
    shift / (shift + (1.0 / sigma - 1.0))
}

/// 1 − x for x from 0 on: linear up to 0.025 in the first half of the steps, then a parabola that
/// goes on with the same slope and ends at 1 (`linear_quadratic_schedule` of diffusers'
/// `pipeline_ltx_condition.py`).
fn linear_quadratic(steps: usize) -> Vec<f64> {
    const THRESHOLD: f64 = 0.025;
    if steps < 2 {
        return vec![1.0];
    }
    let first = steps / 2;
    let (linear, all) = (first as f64, steps as f64);
    let (rest, quadratic) = (linear - THRESHOLD * all, all - linear);
    let square = rest / (linear * quadratic * quadratic);
    let slope = THRESHOLD / linear - 2.0 * rest / (quadratic * quadratic);
    let start = square * linear * linear;
    let at = |i: usize| match (i < first, i as f64) {
        (true, i) => i * THRESHOLD / linear,
        (false, i) => square * i * i + slope * i + start,
    };
    (0..steps).map(|i| 1.0 - at(i)).collect()
}

/// Levels stretched away from 1 until the last is `terminal` (`stretch_shift_to_terminal`). A
/// single level of 1 has nothing to be stretched.
fn stretched(levels: Vec<f64>, terminal: Option<f64>) -> Vec<f64> {
    match (terminal, levels.last()) {
        (Some(terminal), Some(last)) if *last < 1.0 => {
            let factor = (1.0 - last) / (1.0 - terminal);
            levels.iter().map(|level| 1.0 - (1.0 - level) / factor).collect()
        }
        _ => levels,
    }
}

/// Keeps the first level off 1.
fn below_one(sigmas: &mut [f64]) {
    if let Some(first) = sigmas.first_mut()
        && (*first - 1.0).abs() < BELOW_ONE
    {
        *first -= BELOW_ONE;
    }
}

/// `count` numbers from `first` to `last`, both included, computed as numpy does.
fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let step = (last - first) / count.saturating_sub(1).max(1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + first).collect();
    if count > 1 {
        values[count - 1] = last;
    }
    values
}

/// Rounds to the nearest f32.
fn to_f32(value: f64) -> f64 {
    f64::from(value as f32)
}
