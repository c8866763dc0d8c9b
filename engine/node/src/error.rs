//! What goes wrong in a node.

use std::borrow::Cow;
use std::io::ErrorKind;

use kino_port::code;

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
        /// A name for programs, see [`kino_port::code`]; empty where it has none.
        code: Cow<'static, str>,
    },
    /// The node's code broke, or was stopped where it was: a panic, a trap, a limit, a promise that
    /// it did not keep.
    #[error("{message}")]
    Broken {
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
        /// A name for programs; [`code::BROKEN`] unless something else is known.
        code: Cow<'static, str>,
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
        Error::Failed { message: message.into(), hint: None, code: Cow::Borrowed("") }
    }

    /// A failure in one sentence, with advice.
    pub fn advised(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Error::Failed { message: message.into(), hint, code: Cow::Borrowed("") }
    }

    /// A failure in one sentence, with a name for programs.
    pub fn coded(code: &'static str, message: impl Into<String>) -> Self {
        let code = Cow::Borrowed(code);
        Error::Failed { message: message.into(), hint: None, code }
    }

    /// The node's code broke, or was stopped, in one sentence with advice.
    pub fn broken(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let code = Cow::Borrowed(code::BROKEN);
        Error::Broken { message: message.into(), hint: hint.into(), code }
    }

    /// The same failure with this advice, or none.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Broken { message, code, .. } => {
                Error::Broken { message, hint: hint.unwrap_or_default(), code }
            }
            other => {
                let code = Cow::Owned(other.code().to_owned());
                Error::Failed { message: other.to_string(), hint, code }
            }
        }
    }

    /// The same failure with a name for programs; what is no [`code::is_code`] is left off.
    #[must_use]
    pub fn with_code(self, code: impl Into<Cow<'static, str>>) -> Self {
        let code = code::or_none(code.into());
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Broken { message, hint, .. } => Error::Broken { message, hint, code },
            other => {
                let hint = other.hint().map(str::to_owned);
                Error::Failed { message: other.to_string(), hint, code }
            }
        }
    }

    /// The same failure with a name for programs where it has none yet.
    #[must_use]
    pub fn or_code(self, code: &'static str) -> Self {
        if self.code().is_empty() { self.with_code(code) } else { self }
    }

    /// A name for programs, see [`kino_port::code`]; empty where it has none.
    pub fn code(&self) -> &str {
        match self {
            Error::Cancelled => code::CANCELLED,
            Error::Input { .. } => code::INVALID,
            Error::Failed { code, .. } | Error::Broken { code, .. } => code,
            Error::Tensor(_) => "",
            Error::Io(error) => match error.kind() {
                ErrorKind::NotFound => code::NOT_FOUND,
                ErrorKind::OutOfMemory => code::OUT_OF_MEMORY,
                _ => code::IO,
            },
        }
    }

    /// The same failure, said to be of some place; its advice stays.
    pub fn within(self, place: impl std::fmt::Display) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Broken { message, hint, code } => {
                Error::Broken { message: format!("{place}: {message}"), hint, code }
            }
            other => {
                let hint = other.hint().map(str::to_owned);
                let code = Cow::Owned(other.code().to_owned());
                Error::Failed { message: format!("{place}: {other}"), hint, code }
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
