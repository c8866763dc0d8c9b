//! What a language model answered, if it is a text of a graph.

use kino_node::{Cx, Error, Result};
use kino_port::MAX_TEXT;

/// Says that an answer ended after so many `tokens` in the midst of it, of `max_tokens` that it may
/// have: fewer fit into what the model reads.
pub(super) fn note_cut(cx: &Cx<'_>, tokens: usize, max_tokens: usize) {
    let way = match tokens < max_tokens {
        true => "a shorter prompt, or a model that reads more, leaves it room",
        false => "a larger `max_tokens` lets it end",
    };
    cx.note(format!("the answer is cut off after {tokens} tokens: {way}"));
}

/// An answer, if it is one that a text can be.
pub(super) fn checked(answer: String) -> Result<String> {
    if answer.is_empty() {
        let hint = "another seed, another `instruction`, or a larger model may help";
        return Err(Error::advised("the language model answered nothing", hint));
    }
    if answer.len() > MAX_TEXT {
        let message = format!("the answer is {} bytes long, at most {MAX_TEXT} fit", answer.len());
        return Err(Error::failed(message));
    }
    Ok(answer)
}
