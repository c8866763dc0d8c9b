//! What goes wrong in a node.

/// Why a node did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// An input does not fit.
    #[error("input `{port}`: {message}")]
    Input {
        /// The input's name.
        port: String,
        /// What was expected and what was found.
        message: String,
    },
    /// The node cannot go on; the message says why.
    #[error("{message}")]
    Failed {
        /// What went wrong, where.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The node's code broke, or was stopped where it was: a panic, a trap, a limit, a promise that
    /// it did not keep.
    #[error("{message}")]
    Broken {
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(candle_core::Error),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// An operation that was interrupted was cancelled: kernels look while they compute, see
/// [`CancelScope`](crate::CancelScope).
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        fn is_interrupted(error: &candle_core::Error) -> bool {
            use candle_core::Error as Tensor;
            match error {
                Tensor::Io(error) => error.kind() == std::io::ErrorKind::Interrupted,
                Tensor::WithBacktrace { inner, .. }
                | Tensor::Context { inner, .. }
                | Tensor::WithPath { inner, .. } => is_interrupted(inner),
                _ => false,
            }
        }
        if is_interrupted(&error) { Error::Cancelled } else { Error::Tensor(error) }
    }
}

/// A result of a node.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure in one sentence.
    pub fn failed(message: impl Into<String>) -> Self {
        Error::Failed { message: message.into(), hint: None }
    }

    /// A failure in one sentence, with advice.
    pub fn advised(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Failed { message: message.into(), hint: Some(hint.into()) }
    }

    /// The node's code broke, or was stopped, in one sentence with advice.
    pub fn broken(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Broken { message: message.into(), hint: hint.into() }
    }

    /// The same failure, said to be of some place; its advice stays.
    pub fn within(self, place: impl std::fmt::Display) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Broken { message, hint } => {
                Error::Broken { message: format!("{place}: {message}"), hint }
            }
            other => {
                let hint = other.hint().map(str::to_owned);
                Error::Failed { message: format!("{place}: {other}"), hint }
            }
        }
    }

    /// An input that does not fit.
    pub fn input(port: &str, message: impl Into<String>) -> Self {
        Error::Input { port: port.to_owned(), message: message.into() }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Failed { hint, .. } => hint.as_deref(),
            Error::Broken { hint, .. } => Some(hint),
            _ => None,
        }
    }
}
