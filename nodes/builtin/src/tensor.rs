//! `tensor.read` and `tensor.write`: tensors in safetensors files.

use std::borrow::Cow;
use std::path::Path;

use kino_node::{
    Cx, Error, Inputs, NodeDef, Outputs, Result, Services, TensorFact, Value, tensor_fact,
};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, list,
    path as path_port, ports, text,
};
use kino_world::{InputFile, TensorInfo, write_tensors};

use crate::error::{IntoNode, at_port};
use crate::files::{PlannedInput, open, output, target, target_key, written};
use crate::infer::{InferCx, InferResult, named_facts, refuse};

/// Reads a tensor.
pub(crate) static READ: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("tensor.read"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(READ_ABOUT),
        inputs: ports![
            path_port("path").about("A safetensors file, relative to the graph."),
            text("name", "").about("The tensor's name; not needed where the file holds one."),
        ],
        outputs: ports![edge("tensor", PortType::Tensor).about("The tensor, as it is stored.")],
        traits: NodeTraits::LIGHT,
    },
    infer: infer_read,
    run: read,
};

const READ_ABOUT: &str = "Reads one tensor of a safetensors file. A tensor connects to any port \
that holds one, and must have that port's shape: a latent `[c, f, h, w]` (or with a leading batch \
of one), frames `[f, h, w, 3]` in 0…1, embeddings `[rows, dim]`, noise levels `[steps + 1]`. \
Levels of whole numbers are brought to 0…1: 255 of U8 is 1. Pickle files are refused.\n\n\
Example:\n    // sampling from given noise\n    \"noise\": (op: \"tensor.read\", with: {\"path\": \
\"start.safetensors\", \"name\": \"latents\"}),";

/// Writes tensors.
pub(crate) static WRITE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("tensor.write"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(WRITE_ABOUT),
        inputs: ports![
            list("tensors", PortType::Tensor).named().about(
                "A map from names to whatever holds a tensor: latents, frames, patches, embeddings."
            ),
            path_port("path")
                .about("Where to write, under the output folder: a .safetensors file."),
        ],
        outputs: ports![edge("file", PortType::File).about("The file that was written.")],
        traits: NodeTraits::SINK,
    },
    infer: infer_write,
    run: run_write,
};

const WRITE_ABOUT: &str = "Writes tensors into one safetensors file, each under its name. \
Whatever holds a tensor can be written: a latent as `[c, f, h, w]`, frames as `[f, h, w, 3]` in \
0…1, patches as `[tokens, c·pt·ph·pw]`, the prompt's embeddings, noise levels. The file appears \
whole or not at all.\n\n\
Example:\n    \"file\": (op: \"tensor.write\", in: {\"tensors\": {\"latent\": \"latent\", \
\"steps\": \"sample.trace\"}}, with: {\"path\": \"{graph}.safetensors\"}),";

/// The tensor that a graph asks for.
fn pick(file: &mut InputFile, infos: &[TensorInfo], name: &str) -> Result<TensorInfo, PlanError> {
    if let Some(info) = infos.iter().find(|info| info.name == name) {
        return Ok(info.clone());
    }
    match infos {
        [one] if name.is_empty() => Ok(one.clone()),
        [] if name.is_empty() => {
            let message = format!("{} holds no tensor that is read", file.path().display());
            Err(PlanError::at("path", message))
        }
        several if name.is_empty() => {
            let names: Vec<&str> = several.iter().take(12).map(|info| info.name.as_str()).collect();
            let message =
                format!("{} holds {} tensors: which one?", file.path().display(), several.len());
            Err(PlanError::at("name", message).hint(format!("such as: {}", names.join(", "))))
        }
        _ => match file.read_tensor(name) {
            // Fails before it reads any data, and knows the names that are near.
            Err(error) => Err(at_port("name")(error)),
            Ok(_) => Err(PlanError::at("path", "the file has just changed")),
        },
    }
}

fn infer_read(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(path) = facts.text("path") else { return review.finish(StepInfo::default()) };
    let source = review.take(PlannedInput::look(services, path));
    let Some(mut source) = source else { return review.finish(StepInfo::default()) };
    let infos = review.take(source.file.tensor_info().map_err(at_port("path")));
    let Some(infos) = infos else { return review.finish(StepInfo::default()) };
    let mut infer = StepInfo { key: source.key(), ..StepInfo::default() };
    if let Some(name) = facts.text("name")
        && let Some(info) = review.take(pick(&mut source.file, &infos, name))
    {
        infer.memory = bytes_to_read(&info);
        let fact = TensorFact { shape: info.shape, dtype: info.dtype };
        infer.outputs = vec![Fact::typed(fact)];
    }
    infer.reads = vec![source.read];
    review.finish(infer)
}

fn read(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let mut file = open(cx, inputs.text("path")?)?;
    let infos = file.tensor_info().node()?;
    let info = pick(&mut file, &infos, inputs.text("name")?).map_err(refuse)?;
    // The file may have been named by an edge, so that nothing was set aside for it.
    cx.services.ledger.check(bytes_to_read(&info), &format!("the tensor `{}`", info.name))?;
    let tensor = file.read_tensor(&info.name).node()?;
    Ok(vec![Some(Value::Tensor(tensor.to_device(cx.device())?))])
}

/// What reading a tensor takes: its bytes, and the tensor that is made of them. The file holds as
/// many, so the product is none that overflows.
fn bytes_to_read(info: &TensorInfo) -> u64 {
    2 * (info.shape.iter().product::<usize>() * info.dtype.size_in_bytes()) as u64
}

/// The bytes of a value's tensor, as far as they are known.
fn bytes(fact: &Fact) -> u64 {
    tensor_fact(fact).map_or(0, |tensor| 4 * tensor.shape.iter().product::<usize>() as u64)
}

const NAMELESS: &str = "every tensor needs a name";
const NAMELESS_HINT: &str = "write a map: \"tensors\": {\"latent\": \"node.latent\"}";

fn check_extension(path: &str) -> Result<(), PlanError> {
    let fits = Path::new(path).extension().is_some_and(|end| end == "safetensors");
    if fits {
        return Ok(());
    }
    let message = format!("tensors are written as .safetensors, found `{path}`");
    Err(PlanError::at("path", message).hint("end the path with .safetensors"))
}

fn infer_write(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let items = named_facts(facts, "tensors");
    if items.iter().any(|(name, _)| name.is_none()) {
        review.error(PlanError::at("tensors", NAMELESS).hint(NAMELESS_HINT));
    }
    let Some(path) = facts.text("path") else { return review.finish(StepInfo::default()) };
    let place = review.take(target(services, path));
    review.take(check_extension(path));
    let key = place.map(|place| target_key(&place)).unwrap_or_default();
    let memory = 2 * items.iter().map(|(_, fact)| bytes(fact)).sum::<u64>();
    review.finish(StepInfo { key, memory, ..StepInfo::default() })
}

fn run_write(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let path = inputs.text("path")?;
    check_extension(path).map_err(refuse)?;
    let place = output(cx.services, path)?;
    let named = |(name, value): (Option<std::sync::Arc<str>>, &Value)| {
        let name = name.ok_or_else(|| Error::advised(NAMELESS, NAMELESS_HINT))?;
        Ok((name.to_string(), value.tensor()?))
    };
    let tensors = inputs.items("tensors").into_iter().map(named).collect::<Result<Vec<_>>>()?;
    cx.check_cancel()?;
    write_tensors(&place, &tensors).node()?;
    Ok(vec![Some(written(vec![place])?)])
}
