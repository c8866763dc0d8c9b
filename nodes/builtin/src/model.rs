//! `model.load`: opens a model and hands out its parts.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device};
use kino_node::{Cx, Error, Inputs, NodeDef, Outputs, Part, Result, Services, Value};
use kino_port::{
    Fact, Facts, PlanError, PortType, Read, Signature, StepInfo, Traits, edge, ports, text,
};
use kino_world::Folders;

use crate::infer::{InferResult, refuse};
use crate::models::{DitHandle, Handle, Models, OpenModel, TextHandle, TextPart, VaeHandle};
use crate::source::Source;

/// Opens a model and hands out its parts.
pub(crate) static LOAD: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("model.load"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            text("source", "").required().file().about(
                "`embedded:shapes`, a folder in the diffusers layout (relative to the graph), or \
                 `hub:OWNER/NAME`."
            ),
            text("compute", "auto").choices(&COMPUTE).about(
                "The type to compute in. `auto`: bf16 where the weights are bf16 and the device \
                 has bf16 arithmetic, else f32."
            ),
        ],
        outputs: ports![
            edge("text_encoder", PortType::TextEncoder).about("Turns prompts into embeddings."),
            edge("image_encoder", PortType::ImageEncoder).about("Turns images into embeddings."),
            edge("dit", PortType::Dit)
                .about("The diffusion transformer: gives the velocity of patches."),
            edge("vae", PortType::Vae).about("The autoencoder: frames to latents and back."),
        ],
        traits: Traits::LIGHT,
    },
    infer,
    run,
};

const ABOUT: &str = "Opens a model and hands out its parts. A model is a folder in the diffusers \
layout: model_index.json beside transformer/, vae/, text_encoder/, tokenizer/ and scheduler/. \
Only configs are read here; the weights of a part are memory-mapped safetensors, read by the \
first node that computes with it and then shared by all. Pickle files are refused.\n\n\
`hub:OWNER/NAME` is looked up in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME); nothing is \
downloaded: `hf download OWNER/NAME` puts a model there.\n\n\
Example:\n    \"model\": (op: \"model.load\", with: {\"source\": \"embedded:shapes\"}),";

const COMPUTE: [Cow<'static, str>; 3] =
    [Cow::Borrowed("auto"), Cow::Borrowed("f32"), Cow::Borrowed("bf16")];

/// A part that a model has not, or whose weights cannot be read: said by whoever needs it.
#[derive(Clone, Debug)]
pub struct MissingPart {
    /// What is missing.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The parts of a model, in the order of the outputs.
struct Parts {
    text: std::result::Result<Arc<TextHandle>, MissingPart>,
    image: MissingPart,
    dit: std::result::Result<Arc<DitHandle>, MissingPart>,
    vae: std::result::Result<Arc<VaeHandle>, MissingPart>,
}

impl Parts {
    fn of(model: &Arc<OpenModel>, compute: &str, device: &Device) -> Self {
        let config = &model.config;
        let text = config.text.as_ref().map(|(encoder, tokens)| TextPart {
            encoder: encoder.clone(),
            rows: tokens.text_length(),
        });
        let choice = (compute, device);
        Parts {
            text: part(model, ("text_encoder", "text encoder"), text, choice),
            image: missing(model, "image encoder"),
            dit: part(model, ("transformer", "transformer"), config.transformer.clone(), choice),
            vae: part(model, ("vae", "VAE"), config.vae.clone(), choice),
        }
    }

    /// The compute types, which change the numbers.
    fn key(&self, model: &OpenModel) -> Vec<u8> {
        let mut key = model.fingerprint.to_vec();
        let dtypes = [
            self.text.as_ref().ok().map(|part| part.dtype),
            self.dit.as_ref().ok().map(|part| part.dtype),
            self.vae.as_ref().ok().map(|part| part.dtype),
        ];
        for dtype in dtypes {
            key.extend(dtype.map_or("-", |dtype| dtype.as_str()).as_bytes());
            key.push(b' ');
        }
        key
    }
}

fn missing(model: &OpenModel, name: &str) -> MissingPart {
    let message = format!("the model `{}` has no {name}", model.name);
    MissingPart { message, hint: None }
}

/// A part as a handle, if its config and its weight files are there.
fn part<C>(
    model: &Arc<OpenModel>,
    (folder, name): (&str, &str),
    config: Option<C>,
    (compute, device): (&str, &Device),
) -> std::result::Result<Arc<Handle<C>>, MissingPart> {
    let (Some(config), Some(stored)) = (config, model.stored(folder)) else {
        return Err(missing(model, name));
    };
    let stored = match stored {
        Ok(stored) => *stored,
        Err(message) => return Err(MissingPart { message: message.clone(), hint: None }),
    };
    let dtype = compute_type(compute, stored.dtype, device);
    Ok(Arc::new(Handle { model: Arc::clone(model), config, dtype, stored }))
}

/// The type to compute in.
///
/// The kernels for the CPU compute in f32 whatever the type, so that bf16 would only round there.
fn compute_type(compute: &str, stored: DType, device: &Device) -> DType {
    let native = device.is_metal() || device.is_cuda();
    match compute {
        "bf16" => DType::BF16,
        "auto" if stored == DType::BF16 && native => DType::BF16,
        _ => DType::F32,
    }
}

fn open(services: &Services, source: &str) -> std::result::Result<Arc<OpenModel>, PlanError> {
    let missing = |error: Error| PlanError::new(error.to_string());
    let folders = services.get::<Folders>().map_err(missing)?;
    let models = services.get::<Models>().map_err(missing)?;
    let found = Source::find(source, &folders.graph)?;
    models.open(source, &found).map_err(|error| PlanError::at("source", error.to_string()))
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let (Some(source), Some(compute)) = (facts.text("source"), facts.text("compute")) else {
        return Ok(StepInfo::default());
    };
    let model = open(services, source).map_err(|error| vec![error])?;
    let parts = Parts::of(&model, compute, &services.device);
    if let (Ok(vae), Ok(models)) = (&parts.vae, services.get::<Models>()) {
        models.know(vae);
    }
    let hash = blake3::Hash::from_bytes(model.fingerprint).to_hex().to_string();
    Ok(StepInfo {
        key: parts.key(&model),
        outputs: vec![fact(parts.text), Fact::typed(parts.image), fact(parts.dit), fact(parts.vae)],
        reads: vec![Read { path: source.to_owned(), hash, ..Read::default() }],
        ..StepInfo::default()
    })
}

fn fact<T: Send + Sync + 'static>(part: std::result::Result<Arc<T>, MissingPart>) -> Fact {
    match part {
        Ok(part) => Fact::Typed(part),
        Err(missing) => Fact::typed(missing),
    }
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let model = open(cx.services, inputs.text("source")?).map_err(refuse)?;
    let parts = Parts::of(&model, inputs.text("compute")?, cx.device());
    if let Ok(vae) = &parts.vae {
        cx.services.get::<Models>()?.know(vae);
    }
    Ok(vec![
        value(cx.wants(0), PortType::TextEncoder, parts.text)?,
        value::<()>(cx.wants(1), PortType::ImageEncoder, Err(parts.image))?,
        value(cx.wants(2), PortType::Dit, parts.dit)?,
        value(cx.wants(3), PortType::Vae, parts.vae)?,
    ])
}

/// A part as a value; one that is wanted and missing is an error.
fn value<T: Send + Sync + 'static>(
    wanted: bool,
    ty: PortType,
    part: std::result::Result<Arc<T>, MissingPart>,
) -> Result<Option<Value>> {
    match part {
        Ok(handle) => Ok(Some(Value::Part(Part { ty, handle }))),
        Err(MissingPart { message, hint }) if wanted => Err(Error::Failed { message, hint }),
        Err(_) => Ok(None),
    }
}
