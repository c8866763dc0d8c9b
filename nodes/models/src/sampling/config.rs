//! `scheduler/scheduler_config.json`: the noise levels a model was trained for.

use serde::Deserialize;

use crate::checkpoint::{ModelFiles, invalid, require_sizes, unsupported};
use crate::error::Result;

/// The stepper that a config names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScheduleKind {
    /// `UniPCMultistepScheduler` with flow sigmas.
    UniPc,
    /// `FlowMatchEulerDiscreteScheduler`.
    Euler,
    /// `DPMSolverMultistepScheduler` with flow sigmas.
    DpmSolver,
    /// `FlowMatchLCMScheduler`.
    Lcm,
}

impl ScheduleKind {
    const CLASSES: [(&'static str, Self); 4] = [
        ("UniPCMultistepScheduler", Self::UniPc),
        ("FlowMatchEulerDiscreteScheduler", Self::Euler),
        ("DPMSolverMultistepScheduler", Self::DpmSolver),
        ("FlowMatchLCMScheduler", Self::Lcm),
    ];

    /// The stepper that a class of diffusers stands for.
    fn of_class(class: &str) -> Option<Self> {
        Self::CLASSES.iter().find(|(name, _)| *name == class).map(|(_, kind)| *kind)
    }

    /// Whether its steps use predictions of earlier ones: such are taken in λ, and ask the model
    /// at whole timesteps.
    pub fn is_multistep(self) -> bool {
        matches!(self, Self::UniPc | Self::DpmSolver)
    }
}

/// The variants of a multistep solver, as configs name them. Each solver knows its own, and takes
/// those of others as its default, as diffusers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// UniPC with B(h) = h (arXiv:2302.04867, §3.4).
    Bh1,
    /// UniPC with B(h) = e^h − 1.
    #[default]
    Bh2,
    /// DPM-Solver++ with the derivative at the middle of a step.
    Midpoint,
    /// DPM-Solver++ with the derivative of both ends.
    Heun,
    /// A variant of DEIS, which neither solver has.
    LogRho,
}

/// What is made of the number of tokens when levels are shifted by it (`time_shift_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TimeShift {
    /// The shift is e^μ.
    #[default]
    Exponential,
    /// The shift is μ.
    Linear,
}

/// How the levels of an Euler schedule lie before they are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Spacing {
    /// As the scheduler does by itself: evenly down to the lowest level that was trained.
    #[default]
    Trained,
    /// Evenly from 1 to 1/steps, so that the last step is as long as the others: what the pipelines
    /// of FLUX and LTX-Video hand to their scheduler.
    Steps,
    /// Slowly down to 0.975 in the first half of the steps, then along a parabola to 0: what the
    /// pipeline of LTX-Video 0.9.5 hands to its scheduler.
    LinearQuadratic,
}

/// A scheduler's config, with the keys of diffusers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SchedulerConfig {
    /// How levels lie before they are shifted: the family says it, no config does.
    #[serde(skip)]
    spacing: Spacing,
    #[serde(rename = "_class_name")]
    class: String,
    #[serde(default)]
    flow_shift: Option<f64>,
    #[serde(default)]
    shift: Option<f64>,
    /// Noise levels that the model was trained on: timesteps run from 0 to this.
    #[serde(default = "thousand")]
    pub num_train_timesteps: usize,
    /// Order of a multistep solver, 1 to 3.
    #[serde(default = "second")]
    pub solver_order: usize,
    /// The variant of a multistep solver.
    #[serde(default)]
    pub solver_type: SolverType,
    /// Steps after which UniPC's corrector is not applied.
    #[serde(default)]
    pub disable_corrector: Vec<usize>,
    /// Whether a multistep solver lowers its order towards the end.
    #[serde(default = "yes")]
    pub lower_order_final: bool,
    /// Whether the last step of DPM-Solver++ is of order 1 in any run.
    #[serde(default)]
    pub euler_at_final: bool,
    #[serde(default)]
    prediction_type: Option<String>,
    #[serde(default)]
    final_sigmas_type: Option<String>,
    #[serde(default = "yes")]
    predict_x0: bool,
    #[serde(default)]
    algorithm_type: Option<String>,
    #[serde(default)]
    scale_factors: Option<Vec<f64>>,
    #[serde(default)]
    use_lu_lambdas: bool,
    #[serde(default)]
    use_flow_sigmas: bool,
    #[serde(default)]
    use_dynamic_shifting: bool,
    #[serde(default = "base_shift")]
    base_shift: f64,
    #[serde(default = "max_shift")]
    max_shift: f64,
    #[serde(default = "base_tokens")]
    base_image_seq_len: usize,
    #[serde(default = "max_tokens")]
    max_image_seq_len: usize,
    #[serde(default)]
    time_shift_type: TimeShift,
    #[serde(default)]
    use_karras_sigmas: bool,
    #[serde(default)]
    use_exponential_sigmas: bool,
    #[serde(default)]
    use_beta_sigmas: bool,
    #[serde(default)]
    invert_sigmas: bool,
    #[serde(default)]
    stochastic_sampling: bool,
    #[serde(default)]
    thresholding: bool,
    #[serde(default)]
    shift_terminal: Option<f64>,
}

fn thousand() -> usize {
    1000
}

fn second() -> usize {
    2
}

fn yes() -> bool {
    true
}

fn base_shift() -> f64 {
    0.5
}

fn max_shift() -> f64 {
    1.15
}

fn base_tokens() -> usize {
    256
}

fn max_tokens() -> usize {
    4096
}

impl SchedulerConfig {
    const FILE: &'static str = "scheduler/scheduler_config.json";

    /// That `model_index.json` names another class than the scheduler's own config, which is the one
    /// that is read; none where they agree, or one of them is silent.
    pub fn other_in_index(files: &impl ModelFiles) -> Option<String> {
        let read = |path: &str| files.json::<serde_json::Value>(path).ok();
        let (index, own) = (read("model_index.json")?, read(Self::FILE)?);
        let (named, own) = (index["scheduler"][1].as_str()?, own["_class_name"].as_str()?);
        (named != own).then(|| {
            let [named, own] = [named, own].map(kino_port::escape_line);
            let file = Self::FILE;
            format!(
                "model_index.json names the scheduler {named}, {file} {own}: the latter is taken"
            )
        })
    }

    /// Reads and checks `scheduler/scheduler_config.json`.
    ///
    /// # Errors
    /// When it is missing, lacks a key, or asks for levels that this version does not make.
    pub fn read(folder: &impl ModelFiles) -> Result<Self> {
        let config: Self = folder.json(Self::FILE)?;
        config.check(folder)?;
        Ok(config)
    }

    fn check(&self, folder: &impl ModelFiles) -> Result<()> {
        let refuse = |what: &str| Err(unsupported(folder, Self::FILE, what));
        let Some(kind) = ScheduleKind::of_class(&self.class) else {
            let known: Vec<&str> = ScheduleKind::CLASSES.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            return refuse(&format!("the scheduler `{}` (other than {known})", self.class));
        };
        let flow = self.prediction_type.as_deref() == Some("flow_prediction");
        if kind.is_multistep() && !(self.use_flow_sigmas && flow) {
            return refuse(
                "a multistep solver for other than flow models (without `use_flow_sigmas: true` and \
                 `prediction_type: \"flow_prediction\"`)",
            );
        }
        if kind == ScheduleKind::UniPc && !self.predict_x0 {
            return refuse("UniPC on predictions of the noise");
        }
        let algorithm = self.algorithm_type.as_deref().unwrap_or("dpmsolver++");
        // `deis` is what configs say that were made from one of DEIS: diffusers reads it so, too.
        if kind == ScheduleKind::DpmSolver && !["dpmsolver++", "deis"].contains(&algorithm) {
            return refuse(&format!("the algorithm_type `{algorithm}`"));
        }
        // The levels of multistep solvers are made by other formulas.
        let refused = [
            (kind.is_multistep() && self.use_dynamic_shifting, "use_dynamic_shifting"),
            (self.use_karras_sigmas, "use_karras_sigmas"),
            (self.use_exponential_sigmas, "use_exponential_sigmas"),
            (self.use_beta_sigmas, "use_beta_sigmas"),
            (self.invert_sigmas, "invert_sigmas"),
            (self.stochastic_sampling, "stochastic_sampling"),
            (self.thresholding, "thresholding"),
            (self.use_lu_lambdas, "use_lu_lambdas"),
            (self.scale_factors.as_ref().is_some_and(|scales| !scales.is_empty()), "scale_factors"),
            (kind.is_multistep() && self.shift_terminal.is_some(), "shift_terminal"),
            (self.final_sigmas_type.as_deref().is_some_and(|t| t != "zero"), "final_sigmas_type"),
        ];
        if let Some((_, key)) = refused.iter().find(|(set, _)| *set) {
            return refuse(&format!("the scheduler option `{key}`"));
        }
        if !(1..=3).contains(&self.solver_order) {
            return refuse("a solver_order other than 1, 2 or 3");
        }
        if !(self.shift().is_finite() && self.shift() > 0.0) || self.num_train_timesteps == 0 {
            let reason = "the shift and num_train_timesteps must be greater than 0";
            return Err(invalid(folder, Self::FILE, reason));
        }
        self.check_dynamic(folder)?;
        require_sizes(folder, Self::FILE, &[("num_train_timesteps", self.num_train_timesteps)])
    }

    /// What levels that depend on the number of tokens are made of.
    fn check_dynamic(&self, folder: &impl ModelFiles) -> Result<()> {
        let wrong = |reason: &str| Err(invalid(folder, Self::FILE, reason));
        if self.shift_terminal.is_some_and(|last| !(0.0..1.0).contains(&last)) {
            return wrong("`shift_terminal` is a noise level, at least 0 and below 1");
        }
        if !self.use_dynamic_shifting {
            return Ok(());
        }
        if !(self.base_shift.is_finite() && self.max_shift.is_finite()) {
            return wrong("`base_shift` and `max_shift` must be finite");
        }
        if self.base_image_seq_len >= self.max_image_seq_len {
            return wrong("`max_image_seq_len` must be above `base_image_seq_len`");
        }
        let sizes = [
            ("base_image_seq_len", self.base_image_seq_len),
            ("max_image_seq_len", self.max_image_seq_len),
        ];
        require_sizes(folder, Self::FILE, &sizes)
    }

    /// The stepper that the model was made for.
    pub fn kind(&self) -> ScheduleKind {
        // Other classes were refused when the config was read.
        ScheduleKind::of_class(&self.class).unwrap_or(ScheduleKind::UniPc)
    }

    /// How far noise levels are pushed towards noise: 1 leaves them, 3 suits 480p, 5 suits 720p.
    /// Where [`SchedulerConfig::is_dynamic`], a number of tokens says it.
    pub fn shift(&self) -> f64 {
        self.flow_shift.or(self.shift).unwrap_or(1.0)
    }

    /// Whether the levels depend on how many tokens a clip has.
    pub fn is_dynamic(&self) -> bool {
        self.use_dynamic_shifting
    }

    /// The shift for a clip of so many tokens.
    ///
    /// Where it depends on them it is e^μ (or μ itself), μ = `base_shift` at `base_image_seq_len`
    /// tokens and `max_shift` at `max_image_seq_len`, linear between and beyond (`calculate_shift`
    /// of diffusers' `pipeline_flux.py`): σ' = e^μ/(e^μ + 1/σ − 1) is the same as a shift of e^μ.
    pub fn shift_of(&self, tokens: usize) -> f64 {
        if !self.is_dynamic() {
            return self.shift();
        }
        let (base, most) = (self.base_image_seq_len as f64, self.max_image_seq_len as f64);
        let slope = (self.max_shift - self.base_shift) / (most - base);
        let mu = tokens as f64 * slope + (self.base_shift - slope * base);
        match self.time_shift_type {
            TimeShift::Exponential => mu.exp(),
            TimeShift::Linear => mu,
        }
    }

    /// The same scheduler with levels that lie otherwise before they are shifted.
    #[must_use]
    pub fn spaced(self, spacing: Spacing) -> Self {
        Self { spacing, ..self }
    }

    /// How levels lie before they are shifted.
    pub fn spacing(&self) -> Spacing {
        self.spacing
    }

    /// The level to which the last one above 0 is stretched, where the config says one.
    pub(super) fn terminal(&self) -> Option<f64> {
        self.shift_terminal.filter(|last| *last > 0.0)
    }
}
