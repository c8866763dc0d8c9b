//! `model.load`: opens a model and hands out its parts.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device};
use kino_models::model::{Component, DenoiserSpec, ImageEncoderSpec, TextEncoderSpec, VideoVae};
use kino_node::{Cx, Error, Inputs, ModelPart, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Fact, Facts, NodeTraits, PlanError, PlannedRead, PortType, Signature, StepInfo, edge, ports,
    text,
};
use kino_world::Folders;

use crate::error::{is_of_machine, of_model};
use crate::files::policy;
use crate::infer::{InferResult, refuse};
use crate::models::{DitHandle, Handle, LowNoise, MissingPart, Models, OpenModel};
use crate::source::{ModelFolders, ModelSource};

/// Opens a model and hands out its parts.
pub(crate) static LOAD: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("model.load"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            text("source", "").required().file().about(
                "`embedded:shapes`, a folder in the diffusers layout (relative to the graph, or to a \
                 folder of the setting `models`), or `hub:OWNER/NAME`."
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
        traits: NodeTraits::LIGHT,
    },
    infer,
    run,
};

const ABOUT: &str = "Opens a model and hands out its parts. A model is a folder in the diffusers \
layout: model_index.json beside transformer/, vae/, text_encoder/, tokenizer/ and scheduler/, and \
where the model has them transformer_2/ (a second expert, for low noise levels), image_encoder/ and \
image_processor/. \
Only configs are read here; the weights of a part are safetensors files, read by the first node \
that computes with it, then shared by all, and let go where memory ends. Pickle files are refused.\n\n\
`hub:OWNER/NAME` is looked up in the local Hugging Face cache (HF_HUB_CACHE, HF_HOME); nothing is \
downloaded: `hf download OWNER/NAME` puts a model there.\n\n\
Example:\n    \"model\": (op: \"model.load\", with: {\"source\": \"embedded:shapes\"}),";

const COMPUTE: [Cow<'static, str>; 3] =
    [Cow::Borrowed("auto"), Cow::Borrowed("f32"), Cow::Borrowed("bf16")];

/// A part as a handle, or why there is none.
type FoundPart<S> = std::result::Result<Arc<Handle<S>>, MissingPart>;

/// The parts of a model, in the order of the outputs.
struct Parts {
    text: FoundPart<dyn TextEncoderSpec>,
    image: FoundPart<dyn ImageEncoderSpec>,
    dit: FoundPart<dyn DenoiserSpec>,
    vae: FoundPart<dyn VideoVae>,
}

impl Parts {
    /// The parts of the model that the graph calls `name`.
    fn of(model: &Arc<OpenModel>, name: &str, compute: &str, device: &Device) -> Self {
        let choice = (compute, device);
        let parts = &model.parts;
        Parts {
            text: part(model, parts.text_encoder.as_ref(), (name, "text encoder"), choice),
            image: part(model, parts.image_encoder.as_ref(), (name, "image encoder"), choice),
            dit: dit(model, name, choice),
            vae: part(model, parts.vae.as_ref(), (name, "VAE"), choice),
        }
    }

    /// The compute types, which change the numbers.
    fn key(&self, model: &OpenModel) -> Vec<u8> {
        let mut key = model.fingerprint().to_vec();
        let dtypes = [
            self.text.as_ref().ok().map(|part| part.dtype),
            self.image.as_ref().ok().map(|part| part.dtype),
            self.dit.as_ref().ok().map(|part| part.dtype),
            self.dit.as_ref().ok().and_then(|part| Some(part.low_noise.as_ref()?.part.dtype)),
            self.vae.as_ref().ok().map(|part| part.dtype),
        ];
        for dtype in dtypes {
            key.extend(dtype.map_or("-", |dtype| dtype.as_str()).as_bytes());
            key.push(b' ');
        }
        key
    }
}

fn missing(model: &str, part: &str) -> MissingPart {
    let message = format!("the model `{model}` has no {part}");
    MissingPart { message, hint: None, of_machine: false }
}

/// The transformer, with the expert of low noise levels where there are two.
fn dit(model: &Arc<OpenModel>, name: &str, choice: (&str, &Device)) -> FoundPart<dyn DenoiserSpec> {
    let parts = &model.parts;
    let named = (name, "transformer");
    let high = handle(model, parts.denoiser.as_ref(), named, choice)?;
    let Some(low) = &parts.low_noise else { return Ok(Arc::new(high)) };
    let part = part(model, Some(&low.denoiser), named, choice)?;
    let low_noise = Some(LowNoise { below: low.below, part });
    Ok(Arc::new(DitHandle { low_noise, ..high }))
}

/// A part as a handle that is shared.
fn part<S: ?Sized>(
    model: &Arc<OpenModel>,
    component: Option<&Component<S>>,
    names: (&str, &str),
    choice: (&str, &Device),
) -> FoundPart<S> {
    handle(model, component, names, choice).map(Arc::new)
}

/// A part as a handle, if its config and its weight files are there.
fn handle<S: ?Sized>(
    model: &Arc<OpenModel>,
    component: Option<&Component<S>>,
    (model_name, name): (&str, &str),
    (compute, device): (&str, &Device),
) -> Result<Handle<S>, MissingPart> {
    let Some(Component { part, spec }) = component else { return Err(missing(model_name, name)) };
    let unreadable = |error: kino_models::Error| MissingPart {
        message: error.to_string(),
        hint: None,
        of_machine: is_of_machine(&error),
    };
    let files = model.checkpoint.part(part).map_err(unreadable)?;
    let identity = model.checkpoint.identity(part).map_err(unreadable)?;
    let stored = files.main_dtype().unwrap_or(DType::F32);
    let (model, spec) = (Arc::clone(model), Arc::clone(spec));
    Ok(Handle {
        dtype: compute_type(compute, stored, device),
        model,
        spec,
        files,
        identity,
        low_noise: None,
        adapters: Vec::new(),
    })
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
    let policy = policy(services);
    let of_user = services.find::<ModelFolders>();
    let of_user = of_user.as_deref().cloned().unwrap_or_default();
    let found = ModelSource::find(source, &folders.graph, &of_user, &policy)?;
    found.check_files(&policy)?;
    let model = models.open(&found);
    let model = model.map_err(|error| of_model("source", &error))?;
    if policy.narrows_reading() {
        // Nobody has turned a link between the two.
        found.check_files(&policy)?;
        if !model.checkpoint.is_current() {
            let message = format!("{source} was exchanged while it was opened");
            return Err(PlanError::at("source", message));
        }
    }
    Ok(model)
}

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let (Some(source), Some(compute)) = (facts.text("source"), facts.text("compute")) else {
        return Ok(StepInfo::default());
    };
    let model = open(services, source).map_err(|error| vec![error])?;
    let parts = Parts::of(&model, source, compute, &services.device);
    if let (Ok(vae), Ok(models)) = (&parts.vae, services.get::<Models>()) {
        models.know(vae);
    }
    let hash = blake3::Hash::from_bytes(model.fingerprint()).to_hex().to_string();
    Ok(StepInfo {
        key: parts.key(&model),
        outputs: vec![fact(parts.text), fact(parts.image), fact(parts.dit), fact(parts.vae)],
        reads: vec![PlannedRead { path: source.to_owned(), hash, ..PlannedRead::default() }],
        ..StepInfo::default()
    })
}

fn fact<T: Send + Sync + 'static>(part: std::result::Result<Arc<T>, MissingPart>) -> Fact {
    match part {
        Ok(part) => Fact::Typed(part),
        Err(missing) => Fact::typed(missing),
    }
}

/// The model that the plan was made with; without a plan, the one that lies there now.
fn planned(cx: &Cx<'_>, source: &str) -> Result<Arc<OpenModel>> {
    let Some(read) = cx.reads.iter().find(|read| read.path == source) else {
        return open(cx.services, source).map_err(refuse);
    };
    if let Some(model) = cx.services.get::<Models>()?.opened(&read.hash) {
        return Ok(model);
    }
    // It is not open any more. What lies there now will do if it is the same.
    let model = open(cx.services, source).map_err(refuse)?;
    match blake3::Hash::from_bytes(model.fingerprint()).to_hex().as_str() == read.hash {
        true => Ok(model),
        false => Err(Error::failed(format!("{source} has changed since the plan was made"))),
    }
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let source = inputs.text("source")?;
    let model = planned(cx, source)?;
    let parts = Parts::of(&model, source, inputs.text("compute")?, cx.device());
    if let Ok(vae) = &parts.vae {
        cx.services.get::<Models>()?.know(vae);
    }
    Ok(vec![
        value(cx.wants(0), PortType::TextEncoder, parts.text)?,
        value(cx.wants(1), PortType::ImageEncoder, parts.image)?,
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
        Ok(handle) => Ok(Some(Value::Part(ModelPart { ty, handle }))),
        Err(MissingPart { message, hint, .. }) if wanted => {
            Err(Error::failed(message).with_hint(hint))
        }
        Err(_) => Ok(None),
    }
}
