//! `lora.apply`: a transformer with adapters beside its weights.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use kino_models::weight::{LayerNames, LoraMatch, LoraSpec};
use kino_node::{Cx, Inputs, ModelPart, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, ports, real, text,
};

use crate::files::doubled;
use crate::infer::{InferCx, InferResult, refuse};
use crate::models::{
    AdapterHandle, DitHandle, LowNoise, Models, OpenNetwork, network_error, network_file,
};

/// A transformer with adapters beside its weights.
pub(crate) static APPLY: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("lora.apply"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            edge("dit", PortType::Dit).about("The transformer; it may have adapters already."),
            text("path", "")
                .required()
                .file()
                .about(
                    "A LoRA as a safetensors file: relative to the graph, by its name in `loras` of a \
                     folder of the setting `models`, or `hf:OWNER/NAME/PATH`. Empty: none."
                ),
            real("strength", 1.0).within(-100.0, 100.0).about(
                "How strongly it counts: 1 as in training, 0 not at all, below 0 against it."
            ),
            text("part", "auto").choices(&PARTS).about(
                "Which of two experts (Wan 2.2 A14B) it changes: that of `high` or of `low` noise \
                 levels. `auto`: the one that the file's name says (high_noise, low_noise), or both."
            ),
            text(LOW_NOISE, "").file().about(
                "The file for the expert of low noise levels, of a LoRA that has one for each expert; \
                 that of `path` then changes the other. Empty: none."
            ),
            real("low_noise_strength", 1.0)
                .within(-100.0, 100.0)
                .about("How strongly that of `low_noise` counts."),
        ],
        outputs: ports![edge("dit", PortType::Dit).about("The transformer with the LoRA.")],
        traits: NodeTraits::LIGHT,
    },
    infer,
    run,
};

const ABOUT: &str = "Puts a LoRA (arXiv:2106.09685) beside the weights of a transformer: each layer \
that it names gives W·x + strength·alpha/rank·B·A·x. The weights stay as they are and are shared \
with every other use of the model; several nodes one after another put several beside them. Names \
are understood as diffusers and PEFT, kohya, and the authors of the model write them \
(`transformer.`, `lora_unet_`, `diffusion_model.`), with whole differences of weights and biases \
(`.diff`, `.diff_b`). A file of which no layer is the transformer's is an error, one of another \
size too; of one that also has other layers, the plan names some.\n\n\
The LoRAs of a few steps (LightX2V and others) are used without guidance: `steps` 4, `guidance` 1, \
`scheduler` \"lcm\" or \"euler\", and for Wan 2.2 A14B two files, one an expert: `path` and \
`low_noise`. Without a file the transformer stays as it is.\n\n\
Example:\n    \"fast\": (op: \"lora.apply\", in: {\"dit\": \"model.dit\"}, with: {\"path\": \
\"fast_4_steps.safetensors\"}),";

/// What ComfyUI calls the folder of LoRAs.
const KINDS: [&str; 1] = ["loras"];

const PARTS: [Cow<'static, str>; 3] =
    [Cow::Borrowed("auto"), Cow::Borrowed("high"), Cow::Borrowed("low")];

/// The port of the file for the expert of low noise levels.
const LOW_NOISE: &str = "low_noise";

/// Which experts are changed: that of high noise levels, that of low ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Experts {
    high: bool,
    low: bool,
}

impl Experts {
    const BOTH: Self = Experts { high: true, low: true };
    pub(crate) const HIGH: Self = Experts { high: true, low: false };
    pub(crate) const LOW: Self = Experts { high: false, low: true };

    /// What the name of a file says; both where it says neither.
    pub(crate) fn said_by(path: &str) -> Self {
        Self::of("auto", path)
    }

    /// What `part` says; `auto` is what the file's name says.
    fn of(part: &str, path: &str) -> Self {
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let says = |expert: &str| {
            words.iter().any(|word| *word == expert || *word == format!("{expert}noise"))
        };
        match part {
            "high" => Self::HIGH,
            "low" => Self::LOW,
            _ if says("high") != says("low") => Experts { high: says("high"), low: says("low") },
            _ => Self::BOTH,
        }
    }
}

/// A file that a graph names, and what it changes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LoraFile<'a> {
    port: &'static str,
    path: &'a str,
    strength: f64,
    experts: Experts,
}

/// The files that a graph names: one, one for each expert, or none.
///
/// # Errors
/// When `part` says which expert is changed where the files do.
fn named<'a>(
    (path, strength): (&'a str, f64),
    (low_noise, low_strength): (&'a str, f64),
    chosen: &str,
) -> Result<Vec<LoraFile<'a>>, PlanError> {
    if !low_noise.is_empty() && chosen != "auto" {
        let message =
            "`low_noise` is the file for one expert, which makes `path` that for the other";
        return Err(PlanError::at("part", message).hint("leave `part` out"));
    }
    let experts = match low_noise {
        "" => Experts::of(chosen, path),
        _ => Experts { high: true, low: false },
    };
    let first = LoraFile { port: "path", path, strength, experts };
    let second = LoraFile {
        port: LOW_NOISE,
        path: low_noise,
        strength: low_strength,
        experts: Experts { high: false, low: true },
    };
    Ok([first, second].into_iter().filter(|file| !file.path.is_empty()).collect())
}

fn open(
    services: &Services,
    file: &LoraFile<'_>,
    planned: Option<&str>,
) -> Result<Arc<OpenNetwork<LoraSpec>>, PlanError> {
    let LoraFile { port, path, .. } = *file;
    let source = network_file(services, (port, path), &KINDS, "a LoRA is a safetensors file")?;
    let models = services.get::<Models>().map_err(|error| PlanError::new(error.to_string()))?;
    models.open_lora(&source, planned).map_err(network_error(port))?.allowed(services, port)
}

/// The transformer with the adapters of an opened file. Those that count 0 times are held against
/// it and left out, so that its numbers are those without them, bit by bit.
fn applied(
    part: &DitHandle,
    opened: &Arc<OpenNetwork<LoraSpec>>,
    file: &LoraFile<'_>,
) -> Result<(DitHandle, Vec<Arc<LoraMatch>>), PlanError> {
    let LoraFile { port, strength, experts, .. } = *file;
    let adapter = |part: &DitHandle| {
        let names = |layer: &str| LayerNames {
            original: part.spec.original_name(layer),
            fused: part.spec.fused_name(layer),
        };
        let matched = opened.spec.match_to(opened.files(), &part.files, &names);
        let matched = matched.map_err(|error| PlanError::at(port, error.to_string()))?;
        let matched = Arc::new(matched);
        Ok(AdapterHandle { opened: Arc::clone(opened), matched, strength })
    };
    let counts = |adapter: &AdapterHandle| adapter.strength != 0.0;
    let Some(low) = &part.low_noise else {
        let own = adapter(part)?;
        let unmatched = vec![Arc::clone(&own.matched)];
        return Ok((part.with(Some(own).filter(counts), None), unmatched));
    };
    let of_low = experts.low.then(|| adapter(&low.part)).transpose()?;
    let own = experts.high.then(|| adapter(part)).transpose()?;
    let matched = [&own, &of_low].into_iter().flatten();
    let matched = matched.map(|adapter| Arc::clone(&adapter.matched)).collect();
    let changed = Arc::new(low.part.with(of_low.filter(counts), None));
    let low = LowNoise { below: low.below, part: changed };
    Ok((part.with(own.filter(counts), Some(low)), matched))
}

/// What of a file changes nothing: layers that a transformer has not, tensors of no known kind.
fn unused(
    port: &'static str,
    opened: &OpenNetwork<LoraSpec>,
    matches: &[Arc<LoraMatch>],
) -> Vec<PlanError> {
    let spec = &opened.spec;
    let mut warnings: Vec<PlanError> = Vec::new();
    for matched in matches.iter().filter(|matched| !matched.unmatched.is_empty()) {
        let (count, of) = (matched.unmatched.len(), spec.len());
        let some = some_of(&matched.unmatched);
        let message = match count {
            1 => {
                format!("of its {of} layers the transformer has not {some}, which changes nothing")
            }
            _ => format!(
                "of its {of} layers the transformer has not {count}, which change nothing: {some}"
            ),
        };
        let hint = "the file was made for another model of this family: for one with other inputs \
                    (image to video, VACE), or with more blocks";
        let warning = PlanError::at(port, message).hint(hint);
        // Two experts mostly lack the same.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let mut misfits: Vec<&String> = matches.iter().flat_map(|matched| &matched.misfits).collect();
    misfits.dedup();
    if let Some(first) = misfits.first() {
        let message = match misfits.len() {
            1 => format!("one of its layers changes nothing: {first}"),
            count => format!("{count} of its layers change nothing: {first}"),
        };
        let hint = "the others fit: a LoRA for text to video has other sizes where a model for \
                    pictures reads these, and the other way round";
        warnings.push(PlanError::at(port, message).hint(hint));
    }
    if !spec.unread().is_empty() {
        let (count, some) = (spec.unread().len(), some_of(spec.unread()));
        let message = match count {
            1 => format!("its tensor {some} is of no kind that is known, and changes nothing"),
            _ => format!(
                "{count} of its tensors are of no kind that is known, and change nothing: {some}"
            ),
        };
        warnings.push(PlanError::at(port, message));
    }
    warnings
}

/// The first few of names, and how many more there are.
fn some_of(names: &[String]) -> String {
    /// So many are named.
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// That the name of a file says another expert than the one that it is put beside.
fn other_expert(part: &DitHandle, file: &LoraFile<'_>) -> Option<PlanError> {
    let said = Experts::of("auto", file.path);
    let beside = match &part.low_noise {
        None => Experts::of("auto", part.files.file_names().next().map_or("", |(name, _)| name)),
        Some(_) => file.experts,
    };
    if said == Experts::BOTH || beside == Experts::BOTH || said == beside {
        return None;
    }
    let name = |experts: Experts| if experts.high { "high" } else { "low" };
    let message = format!(
        "it is called a LoRA of the expert of {} noise levels, and stands beside that of {} ones",
        name(said),
        name(beside)
    );
    let hint = "the experts of Wan 2.2 A14B have a file each";
    Some(PlanError::at(file.port, message).hint(hint))
}

/// One transformer has no experts to choose of.
fn check_part(part: &DitHandle, chosen: &str, low_noise: &str) -> Result<(), PlanError> {
    let (port, expert) = match (chosen, low_noise) {
        _ if part.low_noise.is_some() => return Ok(()),
        ("auto", "") => return Ok(()),
        ("auto", _) => (LOW_NOISE, "low"),
        (chosen, _) => ("part", chosen),
    };
    let message = format!("this transformer has no expert of {expert} noise levels");
    Err(PlanError::at(port, message).hint(format!("it is one for all: leave `{port}` out")))
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let dit = review.part::<DitHandle>("dit");
    let (path, low) = (facts.text("path"), facts.text(LOW_NOISE));
    let strengths = (facts.real("strength"), facts.real("low_noise_strength"));
    let (Some(path), Some(low), Some(chosen)) = (path, low, facts.text("part")) else {
        return review.finish(StepInfo::default());
    };
    // Strengths that only the run gives change nothing of what is checked here.
    let counted = (strengths.0.unwrap_or(1.0), strengths.1.unwrap_or(1.0));
    let files = review.take(named((path, counted.0), (low, counted.1), chosen));
    let files = files.unwrap_or_default();
    let mut info = StepInfo::default();
    let mut opened = Vec::new();
    for file in &files {
        let Some(network) = review.take(open(services, file, None)) else { continue };
        info.key.extend(network.identity());
        info.reads.extend(network.reads(file.path));
        info.warnings.extend(doubled(services, (file.port, file.path), &KINDS));
        opened.push((file, network));
    }
    let Some(dit) = dit else { return review.finish(info) };
    review.take(check_part(&dit, chosen, low));
    let mut part = Some(Arc::clone(&dit)).filter(|_| opened.len() == files.len());
    for (file, network) in &opened {
        info.warnings.extend(other_expert(&dit, file));
        let Some(before) = &part else { continue };
        let changed = review.take(applied(before, network, file));
        part = changed.map(|(changed, matches)| {
            info.warnings.extend(unused(file.port, network, &matches));
            Arc::new(changed)
        });
    }
    let is_known = strengths.0.is_some() && strengths.1.is_some();
    info.outputs = vec![part.filter(|_| is_known).map_or(Fact::Unknown, |part| Fact::Typed(part))];
    review.finish(info)
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mut dit = inputs.part::<DitHandle>("dit")?;
    let (path, chosen) = (inputs.text("path")?, inputs.text("part")?);
    let low_noise = inputs.text(LOW_NOISE)?;
    check_part(&dit, chosen, low_noise).map_err(refuse)?;
    let strengths = (inputs.real("strength")?, inputs.real("low_noise_strength")?);
    let files = named((path, strengths.0), (low_noise, strengths.1), chosen).map_err(refuse)?;
    for file in files {
        // The file that the plan was made with; without a plan, the one that lies there now.
        let planned = cx.reads.iter().find(|read| read.path == file.path).map(|read| &*read.hash);
        let opened = open(cx.services, &file, planned).map_err(refuse)?;
        let (changed, _) = applied(&dit, &opened, &file).map_err(refuse)?;
        dit = Arc::new(changed);
    }
    Ok(vec![Some(Value::Part(ModelPart { ty: PortType::Dit, handle: dit }))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_which_expert_it_is_for() {
        let auto = |path: &str| Experts::of("auto", path);
        let (high, low) = (Experts { high: true, low: false }, Experts { high: false, low: true });
        for (path, expected) in [
            ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors", high),
            ("loras/Wan22-LowNoise-rank64.safetensors", low),
            ("high_noise/style.safetensors", Experts::BOTH),
            ("highlight.safetensors", Experts::BOTH),
            ("high_and_low.safetensors", Experts::BOTH),
        ] {
            assert_eq!(auto(path), expected, "{path}");
        }
        assert_eq!(Experts::of("low", "x_high_noise.safetensors"), low);
    }
}
