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
                     folder of the setting `models`, or `hf:OWNER/NAME/PATH`."
                ),
            real("strength", 1.0).within(-100.0, 100.0).about(
                "How strongly it counts: 1 as in training, 0 not at all, below 0 against it."
            ),
            text("part", "auto").choices(&PARTS).about(
                "Which of two experts (Wan 2.2 A14B) it changes: that of `high` or of `low` noise \
                 levels. `auto`: the one that the file's name says (high_noise, low_noise), or both."
            ),
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
`scheduler` \"lcm\" or \"euler\", and for Wan 2.2 A14B two files, one an expert.\n\n\
Example:\n    \"fast\": (op: \"lora.apply\", in: {\"dit\": \"model.dit\"}, with: {\"path\": \
\"fast_4_steps.safetensors\"}),";

/// What ComfyUI calls the folder of LoRAs.
const KINDS: [&str; 1] = ["loras"];

const PARTS: [Cow<'static, str>; 3] =
    [Cow::Borrowed("auto"), Cow::Borrowed("high"), Cow::Borrowed("low")];

/// Which experts are changed: that of high noise levels, that of low ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Experts {
    high: bool,
    low: bool,
}

impl Experts {
    const BOTH: Self = Experts { high: true, low: true };

    /// What `part` says; `auto` is what the file's name says.
    fn of(part: &str, path: &str) -> Self {
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let says = |expert: &str| {
            words.iter().any(|word| *word == expert || *word == format!("{expert}noise"))
        };
        match part {
            "high" => Experts { high: true, low: false },
            "low" => Experts { high: false, low: true },
            _ if says("high") != says("low") => Experts { high: says("high"), low: says("low") },
            _ => Self::BOTH,
        }
    }
}

fn open(
    services: &Services,
    path: &str,
    planned: Option<&str>,
) -> Result<Arc<OpenNetwork<LoraSpec>>, PlanError> {
    let source = network_file(services, ("path", path), &KINDS, "a LoRA is a safetensors file")?;
    let models = services.get::<Models>().map_err(|error| PlanError::new(error.to_string()))?;
    models.open_lora(&source, planned).map_err(network_error("path"))?.allowed(services, "path")
}

/// The transformer with the adapters of an opened file. Those that count 0 times are held against
/// it and left out, so that its numbers are those without them, bit by bit.
fn applied(
    part: &DitHandle,
    opened: &Arc<OpenNetwork<LoraSpec>>,
    strength: f64,
    experts: Experts,
) -> Result<(DitHandle, Vec<Arc<LoraMatch>>), PlanError> {
    let adapter = |part: &DitHandle| {
        let names = |layer: &str| LayerNames {
            original: part.spec.original_name(layer),
            fused: part.spec.fused_name(layer),
        };
        let matched = opened.spec.match_to(opened.files(), &part.files, &names);
        let matched = matched.map_err(|error| PlanError::at("path", error.to_string()))?;
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
fn unused(opened: &OpenNetwork<LoraSpec>, matches: &[Arc<LoraMatch>]) -> Vec<PlanError> {
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
        let warning = PlanError::at("path", message).hint(hint);
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
        warnings.push(PlanError::at("path", message).hint(hint));
    }
    if !spec.unread().is_empty() {
        let (count, some) = (spec.unread().len(), some_of(spec.unread()));
        let message = match count {
            1 => format!("its tensor {some} is of no kind that is known, and changes nothing"),
            _ => format!(
                "{count} of its tensors are of no kind that is known, and change nothing: {some}"
            ),
        };
        warnings.push(PlanError::at("path", message));
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
fn other_expert(part: &DitHandle, chosen: &str, path: &str) -> Option<PlanError> {
    let said = Experts::of("auto", path);
    let file = part.files.file_names().next().map_or("", |(name, _)| name);
    let beside = match (&part.low_noise, chosen) {
        (None, _) => Experts::of("auto", file),
        (Some(_), chosen) => Experts::of(chosen, path),
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
    Some(PlanError::at("path", message).hint("the experts of Wan 2.2 A14B have a file each"))
}

/// One transformer has no experts to choose of.
fn check_part(part: &DitHandle, chosen: &str) -> Result<(), PlanError> {
    match chosen {
        "high" | "low" if part.low_noise.is_none() => {
            let message = format!("this transformer has no expert of {chosen} noise levels");
            Err(PlanError::at("part", message).hint("it is one for all: leave `part` out"))
        }
        _ => Ok(()),
    }
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let dit = review.part::<DitHandle>("dit");
    let path = facts.text("path");
    let opened = path.and_then(|path| review.take(open(services, path, None)));
    let (Some(path), Some(opened)) = (path, opened) else {
        return review.finish(StepInfo::default());
    };
    let info = StepInfo {
        key: opened.identity().to_vec(),
        reads: opened.reads(path),
        warnings: doubled(services, ("path", path), &KINDS).into_iter().collect(),
        ..StepInfo::default()
    };
    let strength = facts.real("strength");
    let (Some(dit), Some(strength), Some(chosen)) = (dit, strength, facts.text("part")) else {
        return review.finish(info);
    };
    review.take(check_part(&dit, chosen));
    let applied = review.take(applied(&dit, &opened, strength, Experts::of(chosen, path)));
    let mut warnings = info.warnings;
    warnings.extend(other_expert(&dit, chosen, path));
    warnings.extend(applied.iter().flat_map(|(_, of)| unused(&opened, of)));
    let info = StepInfo { warnings, ..info };
    let output = applied.map_or(Fact::Unknown, |(part, _)| Fact::Typed(Arc::new(part)));
    review.finish(StepInfo { outputs: vec![output], ..info })
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let dit = inputs.part::<DitHandle>("dit")?;
    let (path, chosen) = (inputs.text("path")?, inputs.text("part")?);
    check_part(&dit, chosen).map_err(refuse)?;
    // The file that the plan was made with; without a plan, the one that lies there now.
    let planned = cx.reads.iter().find(|read| read.path == path).map(|read| &*read.hash);
    let opened = open(cx.services, path, planned).map_err(refuse)?;
    let experts = Experts::of(chosen, path);
    let applied = applied(&dit, &opened, inputs.real("strength")?, experts);
    let (part, _) = applied.map_err(refuse)?;
    Ok(vec![Some(Value::Part(ModelPart { ty: PortType::Dit, handle: Arc::new(part) }))])
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
