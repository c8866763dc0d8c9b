//! How the command ends: what went wrong, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use kino_host::PluginError;
use kino_session::Error;

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
    /// It was asked for something that cannot be, a graph has problems, or the machine did not
    /// allow it. Runs that failed or were cancelled are told by themselves.
    #[error(transparent)]
    Engine(#[from] kino_session::Error),
    /// Printing failed; a closed pipe is no failure.
    #[error("printing failed: {0}")]
    Print(#[from] io::Error),
}

/// What stands against a plugin.
impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        Failure::Engine(error.into())
    }
}

/// What a node of a plugin says.
impl From<kino_node::Error> for Failure {
    fn from(error: kino_node::Error) -> Self {
        Failure::Engine(error.into())
    }
}

impl Failure {
    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Engine(Error::usage(message))
    }

    /// Something outside went wrong.
    pub(crate) fn world(message: impl Into<String>) -> Self {
        Failure::Engine(Error::world(message))
    }

    /// The same failure with advice.
    pub(crate) fn hint(self, advice: impl Into<String>) -> Self {
        match self {
            Failure::Engine(error) => Failure::Engine(error.advising(advice)),
            other => other,
        }
    }

    /// What to do about it, where that is known.
    pub(crate) fn advice(&self) -> Option<&str> {
        match self {
            Failure::Engine(error) => error.hint(),
            Failure::Print(_) => None,
        }
    }

    /// Whether it only means that nobody reads on.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The code for the shell.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Failure::Engine(Error::Usage { .. } | Error::Graph(_)) => Exit::BadGraph.code(),
            Failure::Engine(Error::Cancelled) => Exit::Cancelled.code(),
            Failure::Engine(_) | Failure::Print(_) => Exit::NodeFailed.code(),
        }
    }
}
