//! Chat templates: what a model was trained to read around the texts of a conversation, written in
//! Jinja by whoever made its file.
//!
//! Of Jinja this reads what such templates use, with the settings of transformers
//! (`apply_chat_template`), and names what it does not. A template is a stranger's: how long it
//! works, how deep it goes and how much it makes is bounded.

mod eval;
mod lex;
mod meter;
mod methods;
mod parse;
mod value;

use std::collections::HashMap;

use eval::Renderer;
use value::Value;

/// The longest template that is read, in bytes.
const LONGEST: usize = 256 << 10;

/// What was said, and by whom.
#[derive(Debug, Clone)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// Names that a template knows beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChatNames<'a> {
    /// The token that begins a text.
    pub bos: &'a str,
    /// The token that ends one.
    pub eos: &'a str,
    /// Whether a model that thinks before it answers may.
    pub thinking: bool,
}

/// Messages as a template writes them, with the beginning of the answer behind them.
///
/// # Errors
/// When the template is none, uses what is not read, refuses the messages, or goes on for too long.
pub fn render(
    template: &str,
    messages: &[Message],
    names: ChatNames<'_>,
) -> Result<String, String> {
    if template.len() > LONGEST {
        return Err(format!("it is {} bytes long; {LONGEST} are read at most", template.len()));
    }
    let template = template.replace("\r\n", "\n");
    let nodes = parse::parse(&template)?;
    let messages = messages.iter().map(|message| {
        let entry = |name: &str, text: &str| (name.into(), Value::text(text));
        Value::map(vec![entry("role", message.role), entry("content", &message.content)])
    });
    let messages = Value::list(messages.collect::<Result<_, _>>()?)?;
    let known = HashMap::from([
        ("messages", messages),
        ("bos_token", Value::text(names.bos)),
        ("eos_token", Value::text(names.eos)),
        ("tools", Value::None),
        ("documents", Value::None),
        ("add_generation_prompt", Value::Bool(true)),
        ("enable_thinking", Value::Bool(names.thinking)),
    ]);
    Renderer::render(&nodes, known)
}
