//! What can go wrong while models are fetched.

use std::io;
use std::path::{Path, PathBuf};

use kino_port::{escape_line, format_bytes};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network is not to be used.
    #[error("HF_HUB_OFFLINE is set, so that nothing of {0} is fetched")]
    Offline(String),
    /// `HF_ENDPOINT` is no address.
    #[error("HF_ENDPOINT={0} is no address")]
    Endpoint(String),
    /// The hub wants to know who asks, or does not let this user read.
    #[error("{what}: the hub does not give it ({status}{}){}", with_colon(said), if *has_token { "" } else { "; no token was sent" })]
    Denied {
        /// What was asked for.
        what: String,
        /// The address of the model's page.
        page: String,
        /// 401 or 403.
        status: u16,
        /// What the hub says about it.
        said: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// There is no such model, revision or file.
    #[error("{what} is not on the hub (404{})", with_colon(said))]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the hub says about it.
        said: String,
    },
    /// The hub does not do what it should.
    #[error("{what}: the hub answers {status}{}", with_colon(said))]
    Status {
        /// What was asked for.
        what: String,
        /// Its answer.
        status: u16,
        /// What it says about it.
        said: String,
    },
    /// No answer came, or it ended early.
    #[error("{what}: {reason}")]
    Network {
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// What the hub says is none of what it may say.
    #[error("{what}: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
    /// What arrived is not what was asked for.
    #[error("{path}: what arrived has the hash {found}, expected {expected}")]
    Hash {
        /// The file.
        path: String,
        /// The hash of what arrived.
        found: String,
        /// That of the hub.
        expected: String,
    },
    /// There is not enough room.
    #[error("{} has {} free, and {} are needed", folder.display(), format_bytes(*free), format_bytes(*needed))]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Free bytes of its disk.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The operating system refused.
    #[error("{} cannot be {action}: {source}", path.display())]
    Io {
        /// What was tried, such as `written`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not say which files are meant.
    #[error("{message}")]
    Selection {
        /// What was found.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The caller asked to stop. What has arrived stays.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// An error of the system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Error::Network { .. } => true,
            Error::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// Whether the user asked for what cannot be, before anything was tried.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Endpoint(_) | Error::Selection { .. } | Error::Offline(_))
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Offline(_) => "unset HF_HUB_OFFLINE to fetch it".to_owned(),
            Error::Endpoint(_) => "write https://HOST, or unset it".to_owned(),
            Error::Denied { page, has_token, .. } => {
                let token = match has_token {
                    false => "put a token of yours into HF_TOKEN, or into the file `token` of HF_HOME (`hf auth login` does)",
                    true => "its token must be allowed to read this model",
                };
                format!("{token}; a model whose licence is to be accepted first says so on {page}")
            }
            Error::NotFound { .. } => {
                "check how it is written; a private model is found with a token alone (HF_TOKEN)"
                    .to_owned()
            }
            Error::Network { .. } | Error::Status { .. } => {
                "the same command goes on where it ended; HF_ENDPOINT names another hub, HTTPS_PROXY \
                 a proxy"
                    .to_owned()
            }
            Error::Hash { .. } => {
                "what arrived was thrown away; a proxy or mirror on the way may have changed it"
                    .to_owned()
            }
            Error::NoSpace { .. } => {
                "free some space, or name another folder in HF_HUB_CACHE".to_owned()
            }
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free some space; the same command goes on where it ended".to_owned()
                }
                _ => "HF_HUB_CACHE names another folder".to_owned(),
            },
            Error::Selection { hint, .. } => hint.clone(),
            Error::Answer { .. } | Error::Cancelled => return None,
        };
        Some(text)
    }
}

/// What the hub said, behind its number, on one line.
fn with_colon(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!(": {}", escape_line(said)),
    }
}
