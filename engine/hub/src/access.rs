//! How the hub is reached: where it is, as whom, and where its cache lies.

use std::env;
use std::fmt;
use std::fs;
use std::time::Duration;

use kino_world::hub::{HubCache, hub_home, path_variable};

use crate::error::{Error, Result};

/// The hub unless another one is named.
const ENDPOINT: &str = "https://huggingface.co";

/// A token of the hub. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as a user writes it; blanks around it go. None where nothing is left, or it cannot
    /// be a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| Token(text.to_owned()))
    }

    /// What the header `Authorization` says.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// How the hub is reached.
#[derive(Clone, Debug)]
pub struct HubAccess {
    /// Where it is, such as `https://huggingface.co`, without a slash at its end.
    pub endpoint: String,
    /// As whom; none for what everybody may read.
    pub token: Option<Token>,
    /// Where its cache lies.
    pub cache: HubCache,
    /// How long the first pause is after a failure; each further one is twice as long.
    pub pause: Duration,
    /// After how long without a byte a connection counts as dead.
    pub patience: Duration,
}

impl HubAccess {
    /// What the environment says, as `huggingface_hub` reads it: `HF_ENDPOINT`; the token of
    /// `HF_TOKEN`, else of the file `HF_TOKEN_PATH` or `token` in `HF_HOME`, unless
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set; the cache of [`HubCache::of_environment`].
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no address.
    pub fn of_environment() -> Result<Self> {
        let endpoint = env::var("HF_ENDPOINT").ok().filter(|text| !text.trim().is_empty());
        let endpoint = endpoint.as_deref().unwrap_or(ENDPOINT).trim().trim_end_matches('/');
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(Error::Endpoint(endpoint.to_owned()));
        }
        Ok(HubAccess {
            endpoint: endpoint.to_owned(),
            token: token(),
            cache: HubCache::of_environment(),
            pause: Duration::from_millis(250),
            patience: Duration::from_secs(30),
        })
    }
}

/// The user's token.
fn token() -> Option<Token> {
    if env::var_os("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| value == "1") {
        return None;
    }
    let of_variable = |name: &str| Token::new(&env::var(name).ok()?);
    let of_file = || {
        let path = path_variable("HF_TOKEN_PATH").unwrap_or_else(|| hub_home().join("token"));
        Token::new(&fs::read_to_string(path).ok()?)
    };
    of_variable("HF_TOKEN").or_else(|| of_variable("HUGGING_FACE_HUB_TOKEN")).or_else(of_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        assert_eq!(Token::new(" hf_x\n").unwrap().header(), "Bearer hf_x");
        assert!(Token::new(" \n").is_none() && Token::new("a\r\nHost: b").is_none());
        assert_eq!(format!("{:?}", Token::new("hf_secret")), "Some(Token)");
    }
}
