//! A language model in a file: what is known of it before its weights are read, and what it writes.

use candle_core::DType;

use super::config::LanguageConfig;
use super::decoder::Decoder;
use super::sampling::Sampling;
use super::template::{self, ChatNames, Message};
use super::tokens::ChatTokens;
use crate::cancel::CheckCancel;
use crate::checkpoint::{FileMetadata, PartFiles};
use crate::error::{Error, Result};
use crate::weight::Weights;
use std::sync::Arc;

const TEMPLATE: &str = "tokenizer.chat_template";

/// Bytes that a tokenizer takes for each of its tokens: texts, merges, and tables of both.
/// Estimated for vocabularies of 150 thousand tokens.
const TOKENIZER_BYTES: u64 = 600;
/// Tokens of a prompt that pass together, at most.
const AT_ONCE: u64 = 128;
/// Rows of a matrix in blocks that are widened at a time.
const WIDENED: u64 = 1024;

/// How the thoughts of a model begin and end that thinks before it answers.
const THOUGHTS: [&str; 2] = ["<think>", "</think>"];

/// What is known of a language model before its weights are read.
#[derive(Debug)]
pub struct LanguageSpec {
    config: LanguageConfig,
    template: String,
}

/// What is asked of a language model.
#[derive(Debug, Clone)]
pub struct GenerateRequest<'a> {
    /// What it is told to do; empty where nothing.
    pub instruction: &'a str,
    /// What it is asked.
    pub prompt: &'a str,
    /// Tokens of the answer at most, its thoughts included.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The answer ends before this text; empty where nowhere.
    pub stop: &'a str,
}

/// What a language model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Whether it ended where no more tokens were allowed or fit, and not where the model ends it.
    pub is_cut: bool,
}

/// The keys of the metadata that are read.
fn keeps(key: &str) -> bool {
    LanguageConfig::keeps(key) || ChatTokens::keeps(key) || key == TEMPLATE
}

fn metadata(files: &PartFiles) -> Result<FileMetadata> {
    let what = "a language model that is no GGUF file".to_owned();
    let file = files.describe().to_owned();
    files.gguf_metadata(&keeps)?.ok_or(Error::Unsupported { file, what })
}

/// What a language model is, whether it can be asked anything or not.
#[derive(Debug, Clone)]
pub struct LanguageSummary {
    /// Its sizes.
    pub config: LanguageConfig,
    /// Whether it says how it is asked: base models do not.
    pub has_template: bool,
}

impl LanguageSummary {
    /// Whether a file has the weights of a language model, by the names that llama.cpp gives them,
    /// whatever its architecture.
    pub fn is_one(files: &PartFiles) -> bool {
        let has = |name: &str| files.shape(name).is_some();
        has("token_embd.weight") && has("output_norm.weight")
    }

    /// That of the language model in a file. No weight is read.
    ///
    /// # Errors
    /// When it is no GGUF file, of an architecture that is not read, or lacks its sizes.
    pub fn read(files: &PartFiles) -> Result<Self> {
        let metadata = metadata(files)?;
        let has_template = metadata.text(TEMPLATE)?.is_some();
        Ok(Self { config: LanguageConfig::read(&metadata, files)?, has_template })
    }
}

/// What the language model in a file is. No weight is read.
///
/// # Errors
/// When it is no GGUF file, of an architecture that is not read, or lacks its sizes, its tokenizer
/// or its chat template.
pub fn read_language_model(files: &PartFiles) -> Result<Arc<LanguageSpec>> {
    let metadata = metadata(files)?;
    let config = LanguageConfig::read(&metadata, files)?;
    ChatTokens::check(&metadata)?;
    let Some(template) = metadata.text(TEMPLATE)? else {
        return Err(metadata.wrong(
            TEMPLATE,
            "is missing: a base model follows no instruction; take its instruct or chat form",
        ));
    };
    Ok(Arc::new(LanguageSpec { template: template.to_owned(), config }))
}

impl LanguageSpec {
    /// Its sizes.
    pub fn config(&self) -> &LanguageConfig {
        &self.config
    }

    /// Its chat template.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// Bytes that its tokenizer takes beside the weights.
    pub fn tokenizer_bytes(&self) -> u64 {
        TOKENIZER_BYTES * self.config.vocabulary as u64
    }

    /// Tokens of a request at most, where its texts are `bytes` long; fewer than the model's context.
    /// A token is two bytes at least, but for rare texts.
    pub fn tokens(&self, bytes: usize, max_tokens: usize) -> usize {
        /// Those that a template has.
        const OF_TEMPLATE: usize = 64;
        let prompt = bytes / 2 + OF_TEMPLATE;
        prompt.saturating_add(max_tokens).min(self.config.context)
    }

    /// Bytes that a request of so many tokens, the answer included, needs besides the weights.
    pub fn memory(&self, tokens: usize) -> u64 {
        let config = &self.config;
        let wide = |size: usize| size as u64;
        let heads = wide(config.heads * config.head);
        // Keys and values of one layer are packed for each pass.
        let packed = 2 * wide(config.kv_heads * config.head) * wide(tokens);
        let activations = AT_ONCE * (4 * wide(config.width) + 3 * wide(config.inner) + 4 * heads);
        let scores = 2 * AT_ONCE * wide(config.heads) * wide(tokens);
        let logits = 8 * wide(config.vocabulary);
        let widened = 2 * WIDENED * wide(config.inner.max(config.width));
        let work = packed + activations + scores + logits + widened;
        config.cache_bytes(tokens).saturating_add(4 * work)
    }

    /// Bytes that a product takes besides where it widens a whole matrix of a layer: on a card, where
    /// the output's is multiplied by one row, as it is.
    pub fn scratch(&self) -> u64 {
        let config = &self.config;
        let widest = config.inner.max(config.heads * config.head);
        4 * config.width as u64 * widest as u64
    }

    /// Asks for all weights: of [`Weights::probing`] this says what they lack.
    ///
    /// # Errors
    /// When one is missing or does not fit.
    pub fn probe(&self, weights: &Weights) -> Result<()> {
        // The divisors of positions are numbers that are used at once.
        Decoder::load(&self.config, weights).map(drop)
    }

    /// Reads its weights and its tokenizer.
    ///
    /// # Errors
    /// When they cannot be read or do not fit.
    pub fn load(&self, files: &PartFiles, weights: &Weights) -> Result<Arc<LanguageModel>> {
        if weights.dtype() != DType::F32 {
            return Err(Error::ComputeType(weights.dtype()));
        }
        let tokens = ChatTokens::load(&metadata(files)?)?;
        let decoder = Decoder::load(&self.config, weights)?;
        let (template, context) = (self.template.clone(), self.config.context);
        let file = files.describe().to_owned();
        Ok(Arc::new(LanguageModel { decoder, tokens, template, context, file }))
    }
}

/// A language model, its weights read.
#[derive(Debug)]
pub struct LanguageModel {
    decoder: Decoder,
    tokens: ChatTokens,
    template: String,
    context: usize,
    file: String,
}

impl LanguageModel {
    /// The network.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The tokenizer.
    pub fn tokens(&self) -> &ChatTokens {
        &self.tokens
    }

    /// A request as the model reads it.
    ///
    /// # Errors
    /// When the template cannot be rendered, or the tokens leave no room for an answer.
    pub fn prompt(&self, request: &GenerateRequest<'_>) -> Result<Vec<u32>> {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let names = ChatNames { bos: self.tokens.begin(), eos: self.tokens.end(), thinking: false };
        let render = |messages: &[Message]| template::render(&self.template, messages, names);
        let text = match request.instruction {
            "" => render(&[message("user", request.prompt)]),
            instruction => {
                let both = [message("system", instruction), message("user", request.prompt)];
                // Some models were trained without messages of the system, and their templates
                // refuse one: they are told with the question.
                render(&both).or_else(|error| match error.starts_with("it refuses") {
                    true => {
                        render(&[message("user", &format!("{instruction}\n\n{}", request.prompt))])
                    }
                    false => Err(error),
                })
            }
        };
        let text = text.map_err(|error| Error::Config {
            file: self.file.clone(),
            reason: format!("`{TEMPLATE}` cannot be used: {}", kino_port::escape_line(&error)),
        })?;
        let ids = self.tokens.encode_chat(&text)?;
        match ids.len() < self.context {
            true => Ok(ids),
            false => Err(Error::input(format!(
                "the instruction and the prompt are {} tokens long; the model reads {}, its answer \
                 included",
                ids.len(),
                self.context
            ))),
        }
    }

    /// What the model answers, without its thoughts. `uniform` gives the number in 0…1 for each
    /// token of the answer that is drawn; `progress` is told how many tokens were read and written.
    ///
    /// # Errors
    /// When the prompt does not fit, the model only thinks, or it is cancelled.
    pub fn generate(
        &self,
        request: &GenerateRequest<'_>,
        uniform: &dyn Fn(u64) -> f64,
        progress: &mut dyn FnMut(usize),
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Answer> {
        let prompt = self.prompt(request)?;
        let room = (self.context - prompt.len()).min(request.max_tokens);
        let mut cache = self.decoder.cache(prompt.len() + room)?;
        let mut answer: Vec<u32> = Vec::new();
        let whole = |text: &str| Ok(Answer { text: without_thoughts(text)?, is_cut: false });
        let mut ids = prompt;
        while answer.len() < room {
            let logits = self.decoder.logits(&ids, &mut cache, progress, check_cancel)?;
            let at = answer.len() as u64;
            let next = request.sampling.choose(&logits, || uniform(at));
            if self.tokens.is_end(next) {
                return whole(&self.tokens.decode(&answer)?);
            }
            answer.push(next);
            if !request.stop.is_empty() {
                // A token may end in the midst of a character: the whole is looked at.
                let text = self.tokens.decode(&answer)?;
                if let Some(end) = text.find(request.stop) {
                    return whole(&text[..end]);
                }
            }
            ids = vec![next];
        }
        Ok(Answer { text: without_thoughts(&self.tokens.decode(&answer)?)?, is_cut: true })
    }
}

/// An answer without what was thought before it.
///
/// # Errors
/// When it is thoughts alone.
pub fn without_thoughts(answer: &str) -> Result<String> {
    let [begin, end] = THOUGHTS;
    let spoken = match answer.rsplit_once(end) {
        Some((_, spoken)) => spoken,
        None if answer.trim_start().starts_with(begin) => {
            return Err(Error::input(
                "the model thought, and came to no answer within the tokens that it may write: raise \
                 `max_tokens`",
            ));
        }
        None => answer,
    };
    Ok(spoken.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::without_thoughts;

    #[test]
    fn thoughts_are_no_answer() {
        assert_eq!(without_thoughts("<think>\nwell\n</think>\n\nA cat.\n").unwrap(), "A cat.");
        assert_eq!(without_thoughts("well </think> A cat.").unwrap(), "A cat.");
        assert_eq!(without_thoughts(" A cat.").unwrap(), "A cat.");
        let error = without_thoughts("<think>\nwell").unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
    }
}
