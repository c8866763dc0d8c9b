//! What a language model answered, if it is a text of a graph.

use kino_node::{Error, Result};
use kino_port::MAX_TEXT;

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
