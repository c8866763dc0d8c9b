//! `text.generate`: what a language model writes.

mod answer;
mod endpoint;
mod instructions;

use std::borrow::Cow;
use std::sync::Arc;

use kino_models::language::{Answer, GenerateRequest, LanguageSpec, Sampling};
use kino_models::noise::philox;
use kino_node::{Cx, Inputs, NodeDef, Outputs, Result, Services, Value};
use kino_port::{
    Facts, NodeTraits, PlanError, PortType, Signature, StepInfo, edge, int, ports, real, text,
};

use crate::error::{IntoNode, check_cancel};
use crate::files::doubled;
use crate::infer::{InferCx, InferResult, refuse};
use crate::models::{Models, OpenNetwork, network_error, network_file};

use answer::{checked, note_cut};
pub use endpoint::{AskText, TextAnswer, TextEndpoint, TextRequest};
use instructions::{FAMILIES, told};

/// Has a language model write a text.
pub(crate) static GENERATE: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("text.generate"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(ABOUT),
        inputs: ports![
            text("model", "").required().choices(&MODELS).file().about(
                "A language model as a GGUF file: relative to the graph, by its name in `LLM` or \
                 `text_encoders` of a folder of the setting `models`, or `hf:OWNER/NAME/PATH`. Or \
                 `endpoint`: the one that your settings name."
            ),
            text("prompt", "").required().about("What it is asked: for a video, a few words."),
            text("family", "wan").choices(&FAMILIES).about(
                "Whose prompts it shall write: what it is told to make of the prompt. With `-image`: \
                 for a video that begins with a picture. `none` tells it nothing."
            ),
            text("instruction", "").about("What it is told instead of what `family` says."),
            real("temperature", 0.7).within(0.0, 5.0).about(
                "How freely it chooses words; 0 takes the likeliest one each time, whatever the seed."
            ),
            int("top_k", 20)
                .between(0, 1 << 20)
                .about("Only so many of the likeliest tokens are drawn from; 0 for all."),
            real("top_p", 0.8)
                .within(0.0, 1.0)
                .about("Only the likeliest tokens that together have this probability."),
            real("min_p", 0.0).within(0.0, 1.0).about(
                "Only tokens that have this part of the probability of the likeliest one."
            ),
            int("seed", 0)
                .between(0, u64::MAX as i128)
                .draws()
                .about("Which words are drawn: one seed always gives the same text."),
            int("max_tokens", 512)
                .between(1, 1 << 15)
                .unit("tokens")
                .about("The longest answer; a token is about four letters, or one Chinese character."),
            text("stop", "").about("The answer ends before this text."),
        ],
        outputs: ports![edge("text", PortType::Text).about("What it wrote.")],
        traits: NodeTraits::EXPENSIVE,
    },
    infer,
    run,
};

const ABOUT: &str = "Has a language model write a text: above all, the long prompt that video models \
were trained on, of a few words. The model is a GGUF file that was trained to follow instructions \
(llama, qwen2 and qwen3, which Llama, Mistral, SmolLM, Qwen2.5 and Qwen3 have), with the tokenizer and \
the chat template that it brings along; its matrices stay in their blocks. What a model thinks before \
it answers is turned off where its template can, and taken out of the text.\n\n\
What it is told is what the authors of each family of video models ask of prompts: subject, action, \
surroundings, light, camera, style; with a picture, the motion. `instruction` replaces it. The same \
inputs give the same text on one machine, and are not computed again. Tokens are drawn by Philox \
4x32-10 keyed by the seed.\n\n\
`endpoint` asks a server of OpenAI's form (llama.cpp, Ollama, vLLM, OpenAI) that you have named in your \
settings: `llm_url` is its address, `llm_model` the model, and the variable that `llm_key` names \
(KINO_LLM_API_KEY) has the key. Unless you have named one, nothing is sent; a graph cannot name one. \
`top_k` and `min_p` are not sent. Its answer is kept, and stands in what the graph writes, so that \
this runs again without it.\n\n\
It costs one pass over the weights for each token of the answer.\n\n\
Example:\n    \"full\": (op: \"text.generate\", in: {\"prompt\": \"inputs.prompt\"}, with: {\"model\": \
\"Qwen3-4B-Q4_K_M.gguf\", \"family\": \"wan\", \"seed\": 7}),";

/// What stands for the endpoint that the user has named.
const ENDPOINT: &str = "endpoint";
const MODELS: [Cow<'static, str>; 1] = [Cow::Borrowed(ENDPOINT)];

/// What ComfyUI calls the folders of language models.
const KINDS: [&str; 3] = ["LLM", "text_encoders", "clip"];

/// Opens the model that a graph names, or the one of a fingerprint.
fn open(
    services: &Services,
    model: &str,
    planned: Option<&str>,
) -> Result<Arc<OpenNetwork<LanguageSpec>>, PlanError> {
    let what = "a language model is `endpoint`, or a GGUF file";
    let source = network_file(services, ("model", model), &KINDS, what)?;
    let models = services.get::<Models>().map_err(|error| PlanError::new(error.to_string()))?;
    let opened = models.open_language_model(&source, planned);
    let opened = opened.map_err(|error| {
        let is_of_others = matches!(error, kino_models::Error::Unsupported { .. });
        let planned = network_error("model")(error);
        if is_of_others { planned.hint(OTHERS) } else { planned }
    });
    opened?.allowed(services, "model")
}

/// What to do with a model that is not read.
const OTHERS: &str = "take a GGUF of one of those, or have a server run this one \
(llama.cpp, Ollama): `kino config set llm_url ADDRESS`, then `model` \"endpoint\"";

fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(model) = facts.text("model") else { return review.finish(StepInfo::default()) };
    if model == ENDPOINT {
        return endpoint::infer(services, facts);
    }
    let Some(opened) = review.take(open(services, model, None)) else {
        return review.finish(StepInfo::default());
    };
    let beside = opened.spec.tokenizer_bytes();
    let weights = opened.planned_with(beside);
    let bytes: u64 = weights.iter().map(|weights| weights.bytes).sum();
    // Texts that are not known yet are as long as most are.
    const USUAL: usize = 1000;
    let prompt = facts.text("prompt").map_or(USUAL, str::len);
    let own = facts.text("instruction").unwrap_or_default();
    let told = review.take(told(own, facts.text("family").unwrap_or("none"))).unwrap_or_default();
    let answer = review.size("max_tokens").unwrap_or(0);
    let tokens = opened.spec.tokens(told.len().saturating_add(prompt), answer);
    review.finish(StepInfo {
        // What is told is a text of this version of the node.
        key: [&opened.identity()[..], told.as_bytes()].concat(),
        reads: opened.reads(model),
        memory: bytes.saturating_add(work(services, &opened.spec, tokens)),
        weights,
        warnings: doubled(services, ("model", model), &KINDS).into_iter().collect(),
        ..StepInfo::default()
    })
}

/// Bytes that a request of so many tokens needs besides the weights.
fn work(services: &Services, spec: &LanguageSpec, tokens: usize) -> u64 {
    let scratch = if services.device.is_cpu() { 0 } else { spec.scratch() };
    spec.memory(tokens).saturating_add(scratch)
}

/// The number in 0…1 by which a token is drawn: 53 bits of Philox keyed by the seed, the counter
/// the token's place.
fn uniform(seed: u64, at: u64) -> f64 {
    let words = |value: u64| [value as u32, (value >> 32) as u32];
    let [low, high] = words(at);
    // A stream of its own: noise counts in the first two words alone.
    let [a, b, ..] = philox([low, high, 1, 0], words(seed));
    ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64 / (1u64 << 53) as f64
}

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let model = inputs.text("model")?;
    let told = told(inputs.text("instruction")?, inputs.text("family")?).map_err(refuse)?;
    if model == ENDPOINT {
        let answer = endpoint::run(cx, inputs, told)?;
        return Ok(vec![Some(Value::Text(answer.into()))]);
    }
    // The model that the plan was made with; without a plan, the one that lies there now.
    let planned = cx.reads.iter().find(|read| read.path == model).map(|read| &*read.hash);
    let opened = open(cx.services, model, planned).map_err(refuse)?;
    let request = GenerateRequest {
        instruction: told,
        prompt: inputs.text("prompt")?,
        max_tokens: inputs.int("max_tokens")?,
        sampling: Sampling {
            temperature: inputs.real("temperature")?,
            top_k: inputs.int("top_k")?,
            top_p: inputs.real("top_p")?,
            min_p: inputs.real("min_p")?,
        },
        stop: inputs.text("stop")?,
    };
    let seed: u64 = inputs.int("seed")?;
    cx.check_cancel()?;
    let loaded = cx.services.get::<Models>()?.language_model(&opened)?;
    let prompt = loaded.prompt(&request).node()?.len();
    // How long the texts are may be known only now: what cannot be had is this node's error.
    let tokens = prompt.saturating_add(request.max_tokens).min(opened.spec.config().context);
    let work = work(cx.services, &opened.spec, tokens);
    cx.services.device_ledger().check(work, "a language model's answer")?;
    let (mut done, of) = (0, tokens);
    let mut progress = |more: usize| {
        done += more;
        cx.progress(done.min(of), of);
    };
    let draw = |at: u64| uniform(seed, at);
    let answer = loaded.generate(&request, &draw, &mut progress, &mut check_cancel(cx.cancel));
    let Answer { text: answer, is_cut } = answer.node()?;
    let answer = checked(answer)?;
    cx.progress(of, of);
    if is_cut {
        note_cut(cx, tokens - prompt, request.max_tokens);
    }
    Ok(vec![Some(Value::Text(answer.into()))])
}
