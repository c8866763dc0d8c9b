//! `schedule` and `guide.cfg`: the noise levels of a run, and what steers it.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::Tensor;
use kino_models::sampling::guidance;
use kino_models::sampling::{Schedule, ScheduleKind, SchedulerConfig};
use kino_node::{
    Cancel, ClipFact, Cx, Guider, GuiderHandle, GuiderState, Inputs, NodeDef, Outputs, Patches,
    PatchesFact, Result, SamplingStep, Services, Sigmas, SigmasFact, Value, ValueType, no_infer,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Sigma, Signature, StepInfo, count, edge,
    optional, ports, real, text,
};

use crate::error::IntoNode;
use crate::infer::{InferCx, InferResult, refuse};
use crate::models::DitHandle;

/// The most steps of a run.
pub(crate) const MAX_STEPS: i128 = 1000;

/// The noise levels of a run.
pub(crate) static SCHEDULE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("schedule"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(SCHEDULE_ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit)
                .about("The transformer whose model's scheduler is followed."),
            count("steps", 20)
                .between(1, MAX_STEPS)
                .unit("steps")
                .about("Steps from noise to data."),
            real("shift", 1.0)
                .within(0.01, 100.0)
                .or_none()
                .about("How far levels are pushed towards noise; the model's own if not given."),
            text("kind", "flow")
                .choices(&KINDS)
                .about("How levels are spaced: `flow`, as the model's scheduler does."),
            optional("patches", PortType::Patches)
                .about("What will be sampled: some models' levels depend on the size of a clip."),
        ],
        outputs: ports![
            edge("sigmas", PortType::Sigmas)
                .about("Noise levels, one a step and the one after the last (0).")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_schedule,
    run: run_schedule,
};

const SCHEDULE_ABOUT: &str = "Makes the noise levels of a run, for `dit.sample` to walk down. \
Levels are unitless: 1 is pure noise, 0 is data. They fall evenly and are then shifted towards \
noise, σ' = shift·σ/(1 + (shift − 1)·σ), as the scheduler that the model names does (diffusers' \
scheduling_unipc_multistep.py, scheduling_dpmsolver_multistep.py, \
scheduling_flow_match_euler_discrete.py, scheduling_flow_match_lcm.py). Usual shifts: 3 for 480 \
lines, 5 for 720. Models whose shift grows with the number of a clip's patches (FLUX, LTX-Video) need \
the `patches` for it, or a `shift`. `dit.sample` makes the same levels by itself; this node is for looking at them \
or changing them.\n\n\
Example:\n    \"sigmas\": (op: \"schedule\", in: {\"dit\": \"model.dit\"}, with: {\"steps\": 20, \
\"shift\": 3.0}),";

const KINDS: [Cow<'static, str>; 1] = [Cow::Borrowed("flow")];

fn infer_schedule(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    if let Some(part) = review.part::<DitHandle>("dit")
        && !facts.is_fed("shift")
    {
        let config = part.spec.scheduler();
        match facts.typed::<PatchesFact>("patches") {
            Some(patches) => drop(review.take(tokens(config, &patches.clips))),
            None if config.is_dynamic() && !facts.is_fed("patches") => {
                review.error(unsized_levels())
            }
            None => {}
        }
    }
    let Some(steps) = review.size("steps") else { return review.finish(StepInfo::default()) };
    let outputs = vec![Fact::typed(SigmasFact { steps })];
    review.finish(StepInfo { outputs, ..StepInfo::default() })
}

/// Levels that depend on the size of a clip, where that is not said.
fn unsized_levels() -> PlanError {
    let message = "the noise levels of this model depend on the size of a clip";
    PlanError::at("patches", message).hint("feed `patches`, or give a `shift`")
}

/// The tokens of each clip, where the levels depend on them: packed clips have one schedule. None
/// where they do not, or a size is not known yet.
///
/// # Errors
/// When clips of different sizes are packed.
pub(crate) fn tokens(
    config: &SchedulerConfig,
    clips: &[ClipFact],
) -> Result<Option<usize>, PlanError> {
    if !config.is_dynamic() {
        return Ok(None);
    }
    let known: Option<Vec<usize>> = clips.iter().map(ClipFact::tokens).collect();
    let Some((first, rest)) = known.as_deref().and_then(<[usize]>::split_first) else {
        return Ok(None);
    };
    let Some(other) = rest.iter().find(|other| *other != first) else { return Ok(Some(*first)) };
    let message = format!(
        "the noise levels of this model depend on the size of a clip, and clips of {first} and of \
         {other} patches are packed here"
    );
    Err(PlanError::at("patches", message).hint("sample them apart, or give a `shift`"))
}

/// The levels of the model's own scheduler, or of another kind with its settings: for a given
/// shift, or that of these clips.
pub(crate) fn levels(
    config: &SchedulerConfig,
    kind: ScheduleKind,
    steps: usize,
    (shift, clips): (Option<f64>, Option<&[ClipFact]>),
) -> Result<Schedule> {
    let tokens = match (shift, clips) {
        (None, Some(clips)) => tokens(config, clips).map_err(refuse)?,
        (None, None) if config.is_dynamic() => return Err(refuse(unsized_levels())),
        _ => None,
    };
    Schedule::of(config, kind, steps, (shift, tokens)).node()
}

fn run_schedule(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<DitHandle>("dit")?;
    let shift = inputs.get("shift").is_some().then(|| inputs.real("shift")).transpose()?;
    let config = part.spec.scheduler();
    let patches = inputs.optional::<Patches>("patches")?.map(|patches| patches.fact());
    let clips = patches.as_ref().map(|patches| &*patches.clips);
    let schedule = levels(config, config.kind(), inputs.int("steps")?, (shift, clips))?;
    let sigmas = unrounded(&schedule, config.num_train_timesteps).into_iter().map(Sigma).collect();
    Ok(vec![Some(Value::from(Sigmas(sigmas)))])
}

/// The levels in f64, such that they round to the schedule's and have its timesteps.
///
/// A schedule holds its levels as the f32 that the scheduler computes with, but cut its timesteps
/// off before rounding: 0.667 is timestep 667, its f32 would be 666.
fn unrounded(schedule: &Schedule, train: usize) -> Vec<f64> {
    let train = train as f64;
    let whole = schedule.timesteps().iter().all(|timestep| timestep.fract() == 0.0);
    let mut levels = schedule.sigmas().to_vec();
    for (level, timestep) in levels.iter_mut().zip(schedule.timesteps()).filter(|_| whole) {
        let cut = |level: f64| (level * train).trunc();
        if cut(*level) == *timestep {
            continue;
        }
        let border = if cut(*level) < *timestep { *timestep } else { timestep + 1.0 };
        *level = border / train;
        while cut(*level) < *timestep {
            *level = level.next_up();
        }
        while cut(*level) > *timestep {
            *level = level.next_down();
        }
    }
    levels
}

/// Classifier-free guidance.
pub(crate) static GUIDE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("guide.cfg"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(GUIDE_ABOUT),
        inputs: ports![
            real("scale", 4.0).within(0.0, 100.0).about(
                "How far from \"without text\" towards \"with text\" and beyond; 1 is no guidance."
            ),
            real("from", 0.0)
                .within(0.0, 1.0)
                .about("Where in the run guidance begins: 0 is the first step."),
            real("to", 1.0)
                .within(0.0, 1.0)
                .about("Where in the run guidance ends: 1 is after the last step."),
            real("rescale", 0.0)
                .within(0.0, 1.0)
                .about("How much of the contrast that guidance adds is taken back."),
        ],
        outputs: ports![
            edge("guider", PortType::Guider).about("Joins velocities with and without text.")
        ],
        traits: NodeTraits::LIGHT,
    },
    infer: no_infer,
    run: run_guide,
};

const GUIDE_ABOUT: &str = "Classifier-free guidance for `dit.sample`: v = u + scale·(c − u), \
where c is the velocity with the prompt and u that with the negative prompt (arXiv:2207.12598). \
`from` and `to` limit it to a part of the run (arXiv:2404.07724); steps that are not guided cost \
half. `rescale` brings the spread of v back towards that of c, against burnt colours \
(arXiv:2305.08891, section 3.4).\n\n\
Example:\n    // guide the first half only\n    \"guider\": (op: \"guide.cfg\", with: {\"scale\": \
5.0, \"to\": 0.5}),";

fn run_guide(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let guidance = guidance::CfgScale {
        scale: inputs.real("scale")?,
        from: inputs.real("from")?,
        to: inputs.real("to")?,
        rescale: inputs.real("rescale")?,
    };
    Ok(vec![Some(Value::from(GuiderHandle(Arc::new(ClassifierFree(guidance)))))])
}

/// Classifier-free guidance as a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassifierFree(pub(crate) guidance::CfgScale);

impl Guider for ClassifierFree {
    fn begin(&self, _: &Cancel) -> Box<dyn GuiderState> {
        Box::new(*self)
    }
}

impl GuiderState for ClassifierFree {
    fn guides(&self, step: SamplingStep) -> bool {
        self.0.guides(step.index, step.count)
    }

    fn guide(&mut self, _: SamplingStep, with_text: &Tensor, without: &Tensor) -> Result<Tensor> {
        let tokens = with_text.dim(0)?;
        self.0.apply(with_text, without, &[tokens]).node()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels that go through a graph as a value are asked at the same timesteps as those made on
    /// the spot.
    #[test]
    fn levels_survive_being_a_value() {
        let (unipc, dpm) = (ScheduleKind::UniPc, ScheduleKind::DpmSolver);
        for kind in [unipc, ScheduleKind::Euler, dpm, ScheduleKind::Lcm] {
            for steps in 1..120 {
                for shift in [0.5, 1.0, 3.0, 5.0, 8.0, 16.0] {
                    let made = Schedule::new(kind, steps, shift, 1000).unwrap();
                    let falls = made.sigmas().windows(2).all(|w| w[1] < w[0]);
                    if !kind.is_multistep() && !falls {
                        continue;
                    }
                    let given = Schedule::from_sigmas(kind, &unrounded(&made, 1000), 1000).unwrap();
                    assert_eq!(given, made, "{kind:?}, {steps} steps, shift {shift}");
                }
            }
        }
    }
}
