//! `text.encode`, `text.join` and `text.pick`: prompts and their embeddings.

use std::borrow::Cow;

use kino_models::model::PromptLoss;
use kino_node::{
    Conditioning, ConditioningFact, Cx, Embeddings, Error, Inputs, NodeDef, Outputs, Result,
    Services, Value,
};
use kino_port::{
    Fact, Facts, Literal, MAX_TEXT, NodeTraits, PlanError, PortType, Signature, StepInfo, bool,
    edge, int, list, ports, text,
};

use crate::error::{IntoNode, check_cancel};
use crate::infer::{InferCx, InferResult, f32_bytes, known_texts, refuse};
use crate::models::{Models, TextHandle, streamed};

/// Turns a prompt into the embeddings that a transformer reads.
pub(crate) static ENCODE: NodeDef =
    NodeDef {
        signature: Signature {
            name: Cow::Borrowed("text.encode"),
            version: Cow::Borrowed("1"),
            about: Cow::Borrowed(ENCODE_ABOUT),
            inputs: ports![
                edge("encoder", PortType::TextEncoder).about("The text encoder of a model."),
                text("prompt", "").required().about("What the result shall show."),
                text("negative", "").about("What it shall not show; guidance leads away from it."),
            ],
            outputs: ports![edge("conditioning", PortType::Conditioning).about(
                "The embeddings of both, each `[rows, dim]`, zero past the end of the text."
            )],
            traits: NodeTraits::EXPENSIVE,
        },
        infer: infer_encode,
        run: encode,
    };

const ENCODE_ABOUT: &str = "Turns a prompt, and a negative prompt, into the embeddings that a \
transformer reads. For Wan the text is cleaned up (broken characters mended, HTML entities \
resolved, white space folded), cut into tokens, encoded, and padded with zero rows to the model's \
text length (at most 512); other families' texts are cut and padded as their pipelines do. Tokens \
past the length are cut off. Shapes: `[rows, dim]`, twice; where a model has two encoders (FLUX: T5 \
and CLIP), what both give, one of them a vector `[dim]`.\n\n\
It costs one pass of the encoder over each of the two texts, and its weights: most of the memory \
of a large model. Of two encoders one is in memory at a time.\n\n\
Example:\n    \"text\": (op: \"text.encode\", in: {\"encoder\": \"model.text_encoder\"}, with: \
{\"prompt\": \"a red circle moves right on a white background\"}),";

fn infer_encode(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let Some(part) = review.part::<TextHandle>("encoder") else {
        return review.finish(StepInfo::default());
    };
    let outputs = part.all().flat_map(|one| one.spec.outputs());
    let embeddings: Vec<(String, Vec<usize>)> =
        outputs.map(|spec| (spec.name.to_string(), spec.shape())).collect();
    // One encoder computes at a time, and leaves where the next needs its place.
    let budget = services.device_ledger().budget();
    let held = part.all().map(|one| {
        let beside = beside(&part, one);
        (beside, one.fit(budget, beside))
    });
    let held: Vec<_> = held.collect();
    let gives_text =
        |one: &TextHandle| one.spec.outputs().iter().any(|output| output.name == Embeddings::TEXT);
    let (mut warnings, mut tokens) = (Vec::new(), part.all().any(gives_text).then_some(0));
    'texts: for (port, text) in ["prompt", "negative"].map(|port| (port, facts.text(port))) {
        let Some(text) = text else {
            tokens = None;
            continue;
        };
        for one in part.all() {
            let loss = one.spec.loss(&one.model.checkpoint, text);
            let loss = loss.map_err(|error| PlanError::at("encoder", error.to_string()));
            // What an encoder refuses of one text it refuses of the other.
            let Some(loss) = review.take(loss) else { break 'texts };
            if gives_text(one) {
                tokens = tokens.zip(loss.tokens).map(|(most, tokens)| most.max(tokens));
            }
            warnings.extend(lost(&part, one, port, &loss));
        }
    }
    // One row more stands for all that follow.
    let distinct_rows = tokens.map(|tokens| tokens + 1);
    review.finish(StepInfo {
        warnings,
        outputs: vec![Fact::typed(ConditioningFact { embeddings, distinct_rows })],
        memory: held
            .iter()
            .map(|(beside, fit)| beside.saturating_add(fit.bytes))
            .max()
            .unwrap_or(0),
        weights: match held.as_slice() {
            [(_, fit)] => vec![part.planned_fit(fit)],
            // A step keeps the weights that it names.
            _ => Vec::new(),
        },
        streamed: held.iter().find_map(|(_, fit)| streamed(fit)),
        ..StepInfo::default()
    })
}

/// Bytes that encoding needs beside the weights of one of the encoders: it computes, and all give
/// two results.
fn beside(part: &TextHandle, one: &TextHandle) -> u64 {
    let results = part.all().flat_map(|one| one.spec.outputs());
    let results = results.map(|spec| f32_bytes(&spec.shape()));
    let work = one.spec.memory(one.dtype).saturating_add(one.scratch());
    results.fold(work, |sum, bytes| sum.saturating_add(2 * bytes))
}

/// Says what of a text one of the model's encoders will not read.
fn lost(part: &TextHandle, one: &TextHandle, port: &str, loss: &PromptLoss) -> Vec<PlanError> {
    /// So much of what is lost is shown.
    const SHOWN: usize = 60;
    let mut lost = Vec::new();
    if !loss.cut.is_empty() {
        let begin: String = loss.cut.chars().take(SHOWN).collect();
        let more = if loss.cut.chars().count() > SHOWN { "…" } else { "" };
        let message = match (part.others.len(), one.spec.outputs()) {
            (0, _) | (_, []) => format!(
                "the text is longer than the model reads: `{begin}{more}` and what follows is left \
                 out"
            ),
            (_, [output, ..]) => format!(
                "the text is longer than the encoder of `{}` reads: `{begin}{more}` and what follows \
                 is left out there",
                output.name
            ),
        };
        lost.push(PlanError::at(port, message).hint("say what matters first, in fewer words"));
    }
    if let [words @ .., last] = loss.unknown.as_slice() {
        let shown = |word: &String| match word.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("`{}…`", &word[..end]),
            None => format!("`{word}`"),
        };
        let (words, last) = (words.iter().take(12).map(shown).collect::<Vec<_>>(), shown(last));
        let (words, they) = match words.as_slice() {
            [] => (last, "it means"),
            words => (format!("{} and {last}", words.join(", ")), "they mean"),
        };
        let message = format!("the model does not know {words}: {they} nothing to it");
        let hint = "use words that it knows: `kino nodes model.load` lists those of \
                    embedded:shapes";
        lost.push(PlanError::at(port, message).hint(hint));
    }
    lost
}

fn encode(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let part = inputs.part::<TextHandle>("encoder")?;
    let (prompt, negative) = (inputs.text("prompt")?, inputs.text("negative")?);
    let models = cx.services.get::<Models>()?;
    let texts = if prompt == negative { &[prompt][..] } else { &[prompt, negative] };
    let (mut done, of) = (0, part.all().count() * texts.len());
    let mut all = vec![Embeddings::default(); texts.len()];
    for one in part.all() {
        cx.check_cancel()?;
        let fit = one.fit(models.budget(), beside(&part, one));
        let encoder = models.text_encoder_as(one, &fit)?;
        if let Some(streamed) = streamed(&fit) {
            cx.note(streamed.to_string());
        }
        for (all, text) in all.iter_mut().zip(texts) {
            let encoded = encoder.encode(text, &mut check_cancel(cx.cancel)).node()?;
            *all =
                encoded.into_iter().try_fold(std::mem::take(all), |all, (name, embedding)| {
                    all.with(&name, embedding.tensor, embedding.mask)
                })?;
            done += 1;
            cx.progress(done, of);
        }
    }
    let mut all = all.into_iter();
    let positive = all.next().unwrap_or_default();
    let negative = all.next().unwrap_or_else(|| positive.clone());
    Ok(vec![Some(Value::from(Conditioning { positive, negative }))])
}

/// Joins texts to one.
pub(crate) static JOIN: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("text.join"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(JOIN_ABOUT),
        inputs: ports![
            list("parts", PortType::Text).about("The texts, in order; empty ones are left out."),
            text("separator", ", ").about("What stands between two of them."),
        ],
        outputs: ports![edge("text", PortType::Text).about("The joined text.")],
        traits: NodeTraits::PORTABLE,
    },
    infer: infer_join,
    run: join,
};

const JOIN_ABOUT: &str = "Joins texts to one. Empty parts are left out, so that an optional part \
leaves no separator behind.\n\n\
Example:\n    // one style for many prompts\n    \"prompt\": (op: \"text.join\", in: {\"parts\": \
[\"inputs.prompt\", \"inputs.style\"]}),";

fn joined<'a>(parts: impl Iterator<Item = &'a str>, separator: &str) -> String {
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(separator)
}

/// The length of what [`joined`] gives, or more.
fn joined_len<'a>(parts: impl ExactSizeIterator<Item = &'a str>, separator: &str) -> usize {
    let between = separator.len().saturating_mul(parts.len().saturating_sub(1));
    parts.map(str::len).fold(between, usize::saturating_add)
}

/// Texts double quickly when they are joined with themselves.
fn too_long(len: usize) -> Option<String> {
    (len > MAX_TEXT).then(|| format!("the joined text is {len} bytes long, at most {MAX_TEXT} fit"))
}

fn infer_join(_: &Services, facts: &Facts) -> InferResult {
    let (Some(parts), Some(separator)) = (known_texts(facts, "parts"), facts.text("separator"))
    else {
        return Ok(StepInfo::default());
    };
    if let Some(message) = too_long(joined_len(parts.iter().map(String::as_str), separator)) {
        return Err(vec![PlanError::at("parts", message)]);
    }
    let text = joined(parts.iter().map(String::as_str), separator);
    Ok(StepInfo { outputs: vec![Fact::Literal(Literal::text(text))], ..StepInfo::default() })
}

fn join(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let parts = inputs.items("parts").into_iter().map(|(_, value)| match value {
        Value::Text(text) => Ok(&**text),
        other => Err(Error::input("parts", format!("expected Text, found {}", other.type_name()))),
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let separator = inputs.text("separator")?;
    if let Some(message) = too_long(joined_len(parts.iter().copied(), separator)) {
        return Err(Error::input("parts", message));
    }
    let text = joined(parts.into_iter(), separator);
    Ok(vec![Some(Value::Text(text.into()))])
}

/// The most texts that one is picked of.
const MOST_TEXTS: i128 = 1 << 20;

/// One of several texts.
pub(crate) static PICK: NodeDef = NodeDef {
    signature: Signature {
        name: Cow::Borrowed("text.pick"),
        version: Cow::Borrowed("1"),
        about: Cow::Borrowed(PICK_ABOUT),
        inputs: ports![
            list("texts", PortType::Text).about("The texts, in order."),
            int("index", 0)
                .between(0, MOST_TEXTS)
                .required()
                .about("Which one, counted from 0; a number past the last is an error."),
            bool("wrap", false).about("Count on with the first after the last, instead."),
        ],
        outputs: ports![edge("text", PortType::Text).about("The text of that number.")],
        traits: NodeTraits::PORTABLE,
    },
    infer: infer_pick,
    run: pick,
};

const PICK_ABOUT: &str = "Picks one of several texts by its number. In the body of a `repeat`, \
`index` gives each turn its own. What is known before anything runs is picked while planning.\n\n\
Example:\n    // the prompt of this turn\n    \"prompt\": (op: \"text.pick\", in: {\"texts\": \
\"inputs.prompts\", \"index\": \"inputs.index\"}),";

/// The text of a number.
fn picked<'t>(texts: &[&'t str], index: usize, wrap: bool) -> Result<&'t str, PlanError> {
    let at = if wrap { index % texts.len().max(1) } else { index };
    texts.get(at).copied().ok_or_else(|| {
        let message = match texts.len() {
            0 => format!("there are no texts, and number {index} is asked for"),
            1 => format!("there is one text, number 0, and {index} is asked for"),
            count => {
                format!("there are {count} texts, 0 to {}, and {index} is asked for", count - 1)
            }
        };
        PlanError::at("index", message).hint("give more texts, or ask for fewer")
    })
}

fn infer_pick(_: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let known = (known_texts(facts, "texts"), review.size("index"), facts.bool("wrap"));
    let (Some(texts), Some(index), Some(wrap)) = known else {
        return review.finish(StepInfo::default());
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let text = review.take(picked(&texts, index, wrap)).unwrap_or_default().to_owned();
    let outputs = vec![Fact::Literal(Literal::text(text))];
    review.finish(StepInfo { outputs, ..StepInfo::default() })
}

fn pick(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Outputs> {
    let texts = inputs.items("texts").into_iter().map(|(_, value)| match value {
        Value::Text(text) => Ok(&**text),
        other => Err(Error::input("texts", format!("expected Text, found {}", other.type_name()))),
    });
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let (index, wrap) = (inputs.int("index")?, inputs.bool("wrap")?);
    Ok(vec![Some(Value::Text(picked(&texts, index, wrap).map_err(refuse)?.into()))])
}
