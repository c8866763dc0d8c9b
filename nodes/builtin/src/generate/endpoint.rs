//! A language model behind an endpoint: asked only where the user has named one, and not where the
//! answer is known.

use std::sync::Arc;

use kino_models::language::without_thoughts;
use kino_node::{Answers, Cx, Inputs, Result, Services};
use kino_port::{Fact, Facts, Literal, PlanError, StepInfo};

use super::answer::{checked, note_cut};
use super::instructions::told;
use crate::error::IntoNode;
use crate::files::cancellable;
use crate::infer::{InferCx, InferResult, refuse};

/// A language model that the user has named: a service of the process. What a graph says has no
/// part in where questions go.
#[derive(Clone)]
pub struct TextEndpoint(pub Arc<dyn AskText>);

/// Asks a language model elsewhere.
pub trait AskText: Send + Sync {
    /// What identifies it, in words: its address and model.
    fn name(&self) -> &str;

    /// What it has answered to the same question before.
    fn earlier(&self, question: &str) -> Option<String>;

    /// What it answers.
    ///
    /// # Errors
    /// When it does not answer.
    fn ask(&self, request: &TextRequest) -> Result<TextAnswer>;

    /// Keeps an answer for [`AskText::earlier`].
    fn keep(&self, question: &str, answer: &str);
}

/// What a language model elsewhere answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextAnswer {
    /// What it wrote.
    pub text: String,
    /// Whether it ended at [`TextRequest::max_tokens`], and not where the model ends it.
    pub is_cut: bool,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct TextRequest {
    /// What the model is told to do; empty where nothing.
    pub instruction: String,
    /// What it is asked.
    pub prompt: String,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// How freely it chooses words.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// The seed.
    pub seed: u64,
    /// The answer ends before this text; empty where nowhere.
    pub stop: String,
}

impl TextRequest {
    /// What identifies it: a hash of all of it, in hexadecimal.
    fn question(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in [&self.instruction, &self.prompt, &self.stop] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for number in [self.max_tokens as u64, self.seed] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [self.temperature, self.top_p] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What is asked, if all of it is known before anything runs.
    fn of_facts(facts: &Facts, told: &str) -> Option<Self> {
        let real = |port: &str| match facts.get(port)?.literal()? {
            Literal::Real(number) => Some(*number),
            Literal::Int(number) => Some(*number as f64),
            _ => None,
        };
        Some(TextRequest {
            instruction: told.to_owned(),
            prompt: facts.text("prompt")?.to_owned(),
            max_tokens: usize::try_from(facts.int("max_tokens")?).ok()?,
            temperature: real("temperature")?,
            top_p: real("top_p")?,
            seed: u64::try_from(facts.int("seed")?).ok()?,
            stop: facts.text("stop")?.to_owned(),
        })
    }

    fn of_inputs(inputs: &Inputs<'_>, told: &str) -> Result<Self> {
        Ok(TextRequest {
            instruction: told.to_owned(),
            prompt: inputs.text("prompt")?.to_owned(),
            max_tokens: inputs.int("max_tokens")?,
            temperature: inputs.real("temperature")?,
            top_p: inputs.real("top_p")?,
            seed: inputs.int("seed")?,
            stop: inputs.text("stop")?.to_owned(),
        })
    }
}

fn no_endpoint() -> PlanError {
    PlanError::at("model", "no endpoint of a language model is set, and no answer is recorded")
        .hint(
            "name one: `kino config set llm_url http://localhost:11434/v1` and `kino config set \
             llm_model NAME`; or give `model` a GGUF file",
        )
        .of_machine()
}

/// What is known of the answer.
pub(super) fn infer(services: &Services, facts: &Facts) -> InferResult {
    let mut review = InferCx::new(facts);
    let own = facts.text("instruction").unwrap_or_default();
    let told = review.take(told(own, facts.text("family").unwrap_or("none"))).unwrap_or_default();
    let endpoint = services.find::<TextEndpoint>();
    let answers = services.find::<Answers>();
    let answer = |text: &str| vec![Fact::Literal(Literal::text(text.to_owned()))];
    let request = TextRequest::of_facts(facts, told);
    if let Some(question) = request.map(|request| request.question()) {
        let recorded = answers.as_ref().and_then(|answers| answers.recorded(&question));
        if let Some(text) = recorded {
            let key = [b"recorded", text.as_bytes()].concat();
            if let Some(answers) = &answers {
                answers.note(&question, text);
            }
            return review.finish(StepInfo { outputs: answer(text), key, ..StepInfo::default() });
        }
        if let Some(endpoint) = endpoint.as_ref().filter(|_| !services.only_checks())
            && let Some(text) = endpoint.0.earlier(&question)
        {
            if let Some(answers) = &answers {
                answers.note(&question, &text);
            }
            let key = endpoint.0.name().as_bytes().to_vec();
            return review.finish(StepInfo { outputs: answer(&text), key, ..StepInfo::default() });
        }
    }
    match endpoint {
        Some(endpoint) => {
            let key = endpoint.0.name().as_bytes().to_vec();
            review.finish(StepInfo { key, ..StepInfo::default() })
        }
        None => {
            review.error(no_endpoint());
            review.finish(StepInfo::default())
        }
    }
}

/// The answer: the recorded one, an earlier one, or a new one.
pub(super) fn run(cx: &Cx<'_>, inputs: &Inputs<'_>, told: &str) -> Result<String> {
    let request = TextRequest::of_inputs(inputs, told)?;
    let question = request.question();
    let answers = cx.services.find::<Answers>();
    let note = |text: String| {
        if let Some(answers) = &answers {
            answers.note(&question, &text);
        }
        text
    };
    if let Some(text) = answers.as_ref().and_then(|answers| answers.recorded(&question)) {
        return Ok(note(text.to_owned()));
    }
    let endpoint = cx.services.find::<TextEndpoint>();
    let endpoint = Arc::clone(&endpoint.ok_or_else(|| refuse(no_endpoint()))?.0);
    if let Some(text) = endpoint.earlier(&question) {
        return Ok(note(text));
    }
    cx.check_cancel()?;
    let asked = Arc::clone(&endpoint);
    let max_tokens = request.max_tokens;
    let TextAnswer { text, is_cut } = cancellable(cx.cancel, move || asked.ask(&request))??;
    let answer = checked(without_thoughts(&text).node()?)?;
    if is_cut {
        note_cut(cx, max_tokens, max_tokens);
    }
    endpoint.keep(&question, &answer);
    Ok(note(answer))
}
