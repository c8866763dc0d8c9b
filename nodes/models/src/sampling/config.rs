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

/// A scheduler's config, with the keys of diffusers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SchedulerConfig {
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

impl SchedulerConfig {
    const FILE: &'static str = "scheduler/scheduler_config.json";

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
            return refuse(&format!("the scheduler `{}`", self.class));
        };
        let flow = self.prediction_type.as_deref() == Some("flow_prediction");
        if kind.is_multistep() && !(self.use_flow_sigmas && flow) {
            return refuse("multistep solvers for other than flow models");
        }
        if kind == ScheduleKind::UniPc && !self.predict_x0 {
            return refuse("UniPC on predictions of the noise");
        }
        let algorithm = self.algorithm_type.as_deref().unwrap_or("dpmsolver++");
        // `deis` is what configs say that were made from one of DEIS: diffusers reads it so, too.
        if kind == ScheduleKind::DpmSolver && !["dpmsolver++", "deis"].contains(&algorithm) {
            return refuse(&format!("the algorithm_type `{algorithm}`"));
        }
        let refused = [
            (self.use_dynamic_shifting, "use_dynamic_shifting"),
            (self.use_karras_sigmas, "use_karras_sigmas"),
            (self.use_exponential_sigmas, "use_exponential_sigmas"),
            (self.use_beta_sigmas, "use_beta_sigmas"),
            (self.invert_sigmas, "invert_sigmas"),
            (self.stochastic_sampling, "stochastic_sampling"),
            (self.thresholding, "thresholding"),
            (self.use_lu_lambdas, "use_lu_lambdas"),
            (self.scale_factors.as_ref().is_some_and(|scales| !scales.is_empty()), "scale_factors"),
            (self.shift_terminal.is_some(), "shift_terminal"),
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
        require_sizes(folder, Self::FILE, &[("num_train_timesteps", self.num_train_timesteps)])
    }

    /// The stepper that the model was made for.
    pub fn kind(&self) -> ScheduleKind {
        // Other classes were refused when the config was read.
        ScheduleKind::of_class(&self.class).unwrap_or(ScheduleKind::UniPc)
    }

    /// How far noise levels are pushed towards noise: 1 leaves them, 3 suits 480p, 5 suits 720p.
    pub fn shift(&self) -> f64 {
        self.flow_shift.or(self.shift).unwrap_or(1.0)
    }
}
