//! The language model behind an endpoint that the user has named in the settings, and what it has
//! answered.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kino_hub::{ChatEndpoint, ChatQuestion, Token};
use kino_node::Error;
use kino_nodes::{AskText, TextAnswer, TextRequest};
use kino_world::AtomicFile;

use crate::settings::Settings;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The variable of the key, unless the setting `llm_key` names another one.
pub(crate) const KEY_VARIABLE: &str = "KINO_LLM_API_KEY";
/// The longest answer that is kept.
const LONGEST: u64 = 4 << 20;

/// The endpoint of a user, and its answers.
pub(crate) struct Endpoint {
    name: String,
    chat: ChatEndpoint,
    /// Where answers are kept; none where they go with the process.
    folder: Option<PathBuf>,
    kept: Mutex<BTreeMap<String, String>>,
}

impl Endpoint {
    /// The endpoint that the settings name; none where they name none.
    pub(crate) fn of(settings: &Settings, cache: Option<PathBuf>) -> Option<Self> {
        let url = settings.text("llm_url")?.to_owned();
        let model = settings.text("llm_model").unwrap_or_default().to_owned();
        let variable = settings.text("llm_key").unwrap_or(KEY_VARIABLE);
        let key = env::var(variable).ok().and_then(|key| Token::new(&key));
        let name = format!("{model} at {url}");
        let hash = blake3::hash(name.as_bytes()).to_hex().to_string();
        let folder = cache.map(|cache| cache.join("answers").join(&hash[..32]));
        let chat = ChatEndpoint { url, model, key, patience: PATIENCE };
        Some(Endpoint { name, chat, folder, kept: Mutex::default() })
    }

    fn file(&self, question: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{question}.txt")))
    }
}

impl AskText for Endpoint {
    fn name(&self) -> &str {
        &self.name
    }

    fn earlier(&self, question: &str) -> Option<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_process = kept.get(question).cloned();
        drop(kept);
        of_process.or_else(|| kino_node::read_regular_text(&self.file(question)?, LONGEST).ok())
    }

    /// Where there is no room for it, it is asked for again in another process.
    fn keep(&self, question: &str, answer: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(question.to_owned(), answer.to_owned());
        let Some(file) = self.file(question) else { return };
        let written = || -> Result<(), kino_world::Error> {
            let mut file = AtomicFile::create(&file)?;
            let failed = file.failed();
            file.write_all(answer.as_bytes()).map_err(failed)?;
            file.finish().map(drop)
        };
        if let Err(error) = written() {
            tracing::debug!(%error, "An answer is not kept.");
        }
    }

    fn ask(&self, request: &TextRequest) -> Result<TextAnswer, Error> {
        if self.chat.model.is_empty() {
            return Err(Error::advised(
                format!("no model of {} is named", self.chat.url),
                "name one that it has: `kino config set llm_model NAME`",
            ));
        }
        let asked = ChatQuestion {
            instruction: &request.instruction,
            prompt: &request.prompt,
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            top_p: request.top_p,
            seed: request.seed,
            stop: &request.stop,
        };
        let answer = kino_hub::chat(&self.chat, &asked);
        let answer = answer.map_err(|error| Error::advised(error.message, error.hint))?;
        Ok(TextAnswer { text: answer.text, is_cut: answer.is_cut })
    }
}
