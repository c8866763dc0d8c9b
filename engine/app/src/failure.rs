//! How the command ends: what went wrong, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use kino_graph::Diagnostics;

/// How a command ended that did what it could. The numbers are documented in `kino help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Good,
    /// A node failed; what is known of it has been printed.
    NodeFailed,
    /// The graph is bad; its diagnostics have been printed.
    BadGraph,
    /// The run was cancelled.
    Cancelled,
}

impl Exit {
    /// The code for the shell.
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Exit::Good => 0,
            Exit::NodeFailed => 1,
            Exit::BadGraph => 2,
            Exit::Cancelled => CANCELLED,
        })
    }
}

/// The exit code of a run that was cancelled: 128 and the number of SIGINT.
pub(crate) const CANCELLED: u8 = 130;

/// Why a command could not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was asked for something that cannot be.
    #[error("{message}")]
    Usage {
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The graph has problems.
    #[error("{0}")]
    Graph(Diagnostics),
    /// The world did not allow it.
    #[error("{message}")]
    World {
        /// What, and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It was cancelled before anything ran.
    #[error("cancelled")]
    Cancelled,
    /// Printing failed; a closed pipe is no failure.
    #[error("printing failed: {0}")]
    Print(#[from] io::Error),
}

/// What the engine could not do. Runs that failed or were cancelled are told by themselves.
impl From<kino_session::Error> for Failure {
    fn from(error: kino_session::Error) -> Self {
        match error {
            kino_session::Error::Usage { message, hint } => Failure::Usage { message, hint },
            kino_session::Error::Graph(problems) => Failure::Graph(problems),
            kino_session::Error::World { message, hint } => Failure::World { message, hint },
            kino_session::Error::Cancelled => Failure::Cancelled,
            other => {
                Failure::World { message: other.to_string(), hint: other.hint().map(str::to_owned) }
            }
        }
    }
}

/// What to say of a plugin that cannot be used.
pub(crate) fn failure(error: &kino_node::Error) -> Failure {
    Failure::Usage { message: error.to_string(), hint: error.hint().map(str::to_owned) }
}

impl Failure {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage { message: message.into(), hint: None }
    }

    /// Something outside went wrong.
    pub(crate) fn world(message: impl Into<String>) -> Self {
        Failure::World { message: message.into(), hint: None }
    }

    /// The same failure with advice.
    pub(crate) fn hint(mut self, advice: impl Into<String>) -> Self {
        if let Failure::Usage { hint, .. } | Failure::World { hint, .. } = &mut self {
            *hint = Some(advice.into());
        }
        self
    }

    /// Whether it only means that nobody reads on.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The code for the shell.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Failure::Usage { .. } | Failure::Graph(_) => Exit::BadGraph.code(),
            Failure::World { .. } | Failure::Print(_) => Exit::NodeFailed.code(),
            Failure::Cancelled => Exit::Cancelled.code(),
        }
    }
}
