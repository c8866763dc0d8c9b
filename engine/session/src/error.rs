//! What can go wrong, with the place where it is written and what to do about it.

use kino_graph::{Diagnostics, Location};
use kino_host::PluginError;
use kino_runtime::StepFailure;

/// What went wrong. Whoever shows it renders it: see [`Error::hint`] and [`Error::place`].
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was asked for something that cannot be: a graph, a device, an input that is not there, a
    /// plugin that may not be loaded.
    #[error("{message}")]
    Usage {
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The graph, or the file of settings, has problems: each with its place in the text, and a hint
    /// where one is known.
    #[error("{0}")]
    Graph(Diagnostics),
    /// The machine did not allow it: a file, a thread, a device.
    #[error("{message}")]
    World {
        /// What, and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Nodes of a run failed.
    #[error("{}", told(.0))]
    Nodes(Vec<StepFailure>),
    /// The run was cancelled before it was through.
    #[error("the run was cancelled")]
    Cancelled,
}

/// The result of whatever can go wrong here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn told(failures: &[StepFailure]) -> String {
    let line = |one: &StepFailure| format!("`{}` ({}): {}", one.name, one.op, one.message);
    failures.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage { message: message.into(), hint: None }
    }

    /// Something outside went wrong.
    pub fn world(message: impl Into<String>) -> Self {
        Error::World { message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn advising(mut self, advice: impl Into<String>) -> Self {
        if let Error::Usage { hint, .. } | Error::World { hint, .. } = &mut self {
            *hint = Some(advice.into());
        }
        self
    }

    /// What to do about it, where that is known; of several problems the first.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Usage { hint, .. } | Error::World { hint, .. } => hint.as_deref(),
            Error::Graph(problems) => problems.list.first()?.hint.as_deref(),
            Error::Nodes(failures) => failures.first()?.hint.as_deref(),
            Error::Cancelled => None,
        }
    }

    /// Where in the graph's text it is; of several problems the first.
    pub fn location(&self) -> Option<Location> {
        match self {
            Error::Graph(problems) => problems.list.first()?.location,
            _ => None,
        }
    }
}

/// What stands against a plugin.
impl From<PluginError> for Error {
    fn from(error: PluginError) -> Self {
        Error::Usage { message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}

/// Why a model was not fetched.
impl From<kino_hub::Error> for Error {
    fn from(error: kino_hub::Error) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        match error {
            kino_hub::Error::Cancelled => Error::Cancelled,
            error if error.is_usage() => Error::Usage { message, hint },
            _ => Error::World { message, hint },
        }
    }
}

/// What a plugin or a node says.
impl From<kino_node::Error> for Error {
    fn from(error: kino_node::Error) -> Self {
        match error {
            kino_node::Error::Cancelled => Error::Cancelled,
            error => {
                Error::Usage { message: error.to_string(), hint: error.hint().map(str::to_owned) }
            }
        }
    }
}
