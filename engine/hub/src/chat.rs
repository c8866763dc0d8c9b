//! Questions to a language model behind an endpoint of OpenAI's form (`POST /chat/completions`):
//! one that the user has named, and no other.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use kino_port::escape_line;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::access::Token;

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest answer that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// So much is shown of what an endpoint says about an error.
const SHOWN: usize = 300;

/// A language model behind an endpoint.
#[derive(Clone, Debug)]
pub struct ChatEndpoint {
    /// The address, such as `http://localhost:11434/v1`.
    pub url: String,
    /// The model, as the endpoint calls it.
    pub model: String,
    /// The key; none for an endpoint that asks for none.
    pub key: Option<Token>,
    /// How long an answer may take.
    pub patience: Duration,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct ChatQuestion<'a> {
    /// What the model is told to do; empty where nothing.
    pub instruction: &'a str,
    /// What it is asked.
    pub prompt: &'a str,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// How freely it chooses words.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: f64,
    /// The seed, where the endpoint knows one.
    pub seed: u64,
    /// The answer ends before this text; empty where nowhere.
    pub stop: &'a str,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatAnswer {
    /// What the model wrote.
    pub text: String,
    /// Whether it ended at [`ChatQuestion::max_tokens`], and not where the model ends it.
    pub is_cut: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct ChatError {
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ChatError {}

/// What is wrong with the address of an endpoint, if anything is.
pub fn address_error(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match host {
        _ if url.contains(|c: char| c.is_whitespace() || c.is_control()) => Some("it has blanks"),
        None => Some("it begins with neither https:// nor http://"),
        Some("") => Some("it names no host"),
        Some(host) if host.contains('@') => Some("it has a user's name or a password in it"),
        Some(_) if url.contains(['?', '#']) => Some("it has a query behind its path"),
        Some(_) => None,
    }
}

/// Whether an address leads to this machine, where nobody listens between.
fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    matches!(host, "localhost" | "::1") || host.starts_with("127.")
}

/// Asks an endpoint. Redirects are not followed: the key goes to the address that was named.
///
/// # Errors
/// When no answer comes in time, it is refused, or it is no answer of that form.
pub fn chat(endpoint: &ChatEndpoint, question: &ChatQuestion<'_>) -> Result<ChatAnswer, ChatError> {
    let failed = |message: String, hint| Err(ChatError { message, hint });
    let at = &endpoint.url;
    if let Some(wrong) = address_error(at) {
        return failed(format!("{} is no address: {wrong}", escape_line(at)), SET_URL);
    }
    if endpoint.key.is_some() && at.starts_with("http://") && !is_local(at) {
        return failed(
            format!("{at} is not encrypted, and the key is not sent over it"),
            "set an address that begins with https://, or unset the variable with the key",
        );
    }
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(endpoint.patience))
        .user_agent(concat!("kinograph/", env!("CARGO_PKG_VERSION")))
        .build();
    let address = format!("{}/chat/completions", at.trim_end_matches('/'));
    let mut request = config.new_agent().post(&address).header("Content-Type", "application/json");
    if let Some(key) = &endpoint.key {
        request = request.header("Authorization", key.header());
    }
    let answer = request.send(body(endpoint, question).as_bytes());
    let answer = answer.map_err(|error| no_answer(endpoint, &error))?;
    let status = answer.status().as_u16();
    let mut text = Vec::new();
    let reader = answer.into_body().into_with_config().limit(LONGEST + 1).reader();
    if let Err(error) = reader.take(LONGEST + 1).read_to_end(&mut text) {
        return failed(format!("the answer of {at} ended early: {error}"), AGAIN);
    }
    if text.len() as u64 > LONGEST {
        return failed(format!("{at} answers more than {LONGEST} bytes"), SET_URL);
    }
    let answer: Option<Value> = serde_json::from_slice(&text).ok();
    if !(200..300).contains(&status) {
        return Err(refused(endpoint, status, answer.as_ref(), &text));
    }
    let Some(answer) = answer else {
        return failed(format!("{at} does not answer with JSON: {}", shown(&text)), SET_URL);
    };
    read(at, &answer).unwrap_or_else(|| {
        failed(
            format!("the answer of {at} has no `choices[0].message.content`: {}", shown(&text)),
            SET_URL,
        )
    })
}

/// What an endpoint answers, or why it does not; none where it says neither.
fn read(at: &str, answer: &Value) -> Option<Result<ChatAnswer, ChatError>> {
    let choice = &answer["choices"][0];
    let message = &choice["message"];
    let failed = |message: String, hint| Some(Err(ChatError { message, hint }));
    if let Some(refusal) = message["refusal"].as_str().filter(|said| !said.trim().is_empty()) {
        return failed(format!("{at} refuses to answer: {}", shown(refusal.as_bytes())), REWORD);
    }
    let reason = choice["finish_reason"].as_str();
    if reason == Some("content_filter") {
        return failed(format!("the filter of {at} stopped the answer (content_filter)"), REWORD);
    }
    let is_cut = reason == Some("length");
    match message["content"].as_str() {
        None | Some("") if is_cut => {
            let message = format!("{at} came to no answer within the tokens that it may write");
            failed(message, "raise `max_tokens`: what it thinks before it answers counts, too")
        }
        content => Some(Ok(ChatAnswer { text: content?.to_owned(), is_cut })),
    }
}

const SET_URL: &str = "the setting `llm_url` is the address of an endpoint of OpenAI's form, up to \
                       and with `/v1`: `kino config` shows it";
const AGAIN: &str = "try again";
const REWORD: &str = "another prompt, another `instruction` or another model may help";

fn body(endpoint: &ChatEndpoint, question: &ChatQuestion<'_>) -> String {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let told = (!question.instruction.is_empty()).then(|| message("system", question.instruction));
    let messages: Vec<Value> = told.into_iter().chain([message("user", question.prompt)]).collect();
    let mut body = json!({
        "model": endpoint.model,
        "messages": messages,
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "top_p": question.top_p,
        // Endpoints read it as a signed number.
        "seed": question.seed & (i64::MAX as u64),
        "stream": false,
    });
    if !question.stop.is_empty() {
        body["stop"] = json!([question.stop]);
    }
    body.to_string()
}

/// Why no answer came.
fn no_answer(endpoint: &ChatEndpoint, error: &ureq::Error) -> ChatError {
    let at = &endpoint.url;
    let message = match error {
        ureq::Error::HostNotFound => format!("no network, or there is no host as in {at}"),
        ureq::Error::Timeout(_) | ureq::Error::BodyStalled => {
            format!("{at} does not answer within {} seconds", endpoint.patience.as_secs())
        }
        ureq::Error::ConnectionFailed => format!("{at} cannot be reached"),
        ureq::Error::Rustls(error) => format!("{at} is not trusted: {error}"),
        other => format!("{at} cannot be reached: {other}"),
    };
    ChatError { message, hint: "is the server running? `kino config` shows its address, `llm_url`" }
}

/// What an answer means that is no success.
fn refused(endpoint: &ChatEndpoint, status: u16, answer: Option<&Value>, text: &[u8]) -> ChatError {
    let at = &endpoint.url;
    let said = answer.and_then(|answer| {
        let error = &answer["error"];
        error["message"].as_str().or_else(|| error.as_str()).map(|said| shown(said.as_bytes()))
    });
    let said = said.unwrap_or_else(|| shown(text));
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let (what, hint) = match status {
        401 | 403 if endpoint.key.is_none() => {
            ("wants a key", "put it into the environment variable that the setting `llm_key` names")
        }
        401 | 403 => (
            "does not take the key",
            "is the right one in the environment variable that the setting `llm_key` names?",
        ),
        404 => (
            "has no such model, or lies elsewhere",
            "`llm_url` is the address up to and with `/v1`, `llm_model` a model that it has",
        ),
        429 => ("is asked too often, or the account is empty", "wait, and try again"),
        500..=599 => ("fails", AGAIN),
        _ => ("refuses the question", SET_URL),
    };
    ChatError { message: format!("{at} {what} ({status}{said})"), hint }
}

/// The beginning of what an endpoint says, on one line.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN)]).into_owned();
    let begin: String = text.trim().chars().take(SHOWN).collect();
    escape_line(&begin).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_a_server() {
        for good in
            ["http://localhost:11434/v1", "https://api.example.com/v1/", "http://[::1]:8080"]
        {
            assert_eq!(address_error(good), None, "{good}");
        }
        for bad in [
            "localhost:80",
            "ftp://a",
            "https://",
            "https://me:pw@a/v1",
            "https://a/ b",
            "http://a?b",
        ] {
            assert!(address_error(bad).is_some(), "{bad}");
        }
        for local in ["http://localhost/v1", "http://127.0.0.1:80", "http://[::1]:80/v1"] {
            assert!(is_local(local), "{local}");
        }
        for far in ["http://localhost.example.com", "http://example.com/localhost", "http://[::2]"]
        {
            assert!(!is_local(far), "{far}");
        }
    }

    #[test]
    fn a_key_does_not_travel_in_the_open() {
        let endpoint = ChatEndpoint {
            url: "http://example.com/v1".to_owned(),
            model: "m".to_owned(),
            key: Token::new("secret"),
            patience: Duration::from_secs(1),
        };
        let question = ChatQuestion {
            instruction: "",
            prompt: "a",
            max_tokens: 1,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: "",
        };
        let error = chat(&endpoint, &question).unwrap_err();
        assert!(error.message.contains("not encrypted"), "{error}");
        assert!(!format!("{error:?}{endpoint:?}").contains("secret"));
    }
}
