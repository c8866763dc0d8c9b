//! What goes wrong before a plugin runs: its files, the lock file, trust, loading it. What goes
//! wrong in a node of a plugin is a [`kino_node::Error`], as in any other node.

use std::io;
use std::path::{Path, PathBuf};

use kino_contract::code;

/// Why a plugin is not found, not trusted, not pinned or not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A manifest, a lock file or the list of consents says what cannot be.
    #[error("{message}")]
    Malformed {
        /// Where, and what is wrong.
        message: String,
    },
    /// The plugin may not be loaded, or not as it was asked for.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The artifact is no plugin that this engine can run.
    #[error("{message}")]
    Unusable {
        /// What it is, what was expected.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// What a host or the plugin itself says while it is loaded.
impl From<kino_node::Error> for PluginError {
    fn from(error: kino_node::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        PluginError::Unusable { message: error.to_string(), hint }
    }
}

/// A result of finding, trusting and pinning plugins.
pub(crate) type Result<T, E = PluginError> = std::result::Result<T, E>;

/// What a plugin gave does not fit.
pub(crate) fn invalid(message: impl Into<String>) -> kino_node::Error {
    kino_node::Error::coded(code::INVALID, message)
}

impl PluginError {
    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |error| PluginError::File { path: path.to_owned(), error }
    }

    /// A text that says what cannot be.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        PluginError::Malformed { message: message.into() }
    }

    /// A plugin that may not be loaded.
    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        PluginError::Refused { message: message.into(), hint: hint.into() }
    }

    /// The same error, said to be of some place; its advice stays.
    #[must_use]
    pub fn within(self, place: impl std::fmt::Display) -> Self {
        let (message, hint) = (format!("{place}: {self}"), self.hint().map(str::to_owned));
        PluginError::Unusable { message, hint }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            PluginError::Refused { hint, .. } => Some(hint),
            PluginError::Unusable { hint, .. } => hint.as_deref(),
            PluginError::File { .. } | PluginError::Malformed { .. } => None,
        }
    }
}
