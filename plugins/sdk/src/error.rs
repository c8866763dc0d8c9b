//! Why a node did not finish.

use std::borrow::Cow;
use std::fmt;

use kino_contract::code;

/// What nodes and most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a node did not finish.
///
/// Every `std::error::Error` turns into it by `?`; [`Error::hint`] adds what to do about it.
#[derive(Clone, PartialEq, Eq)]
pub enum Error {
    /// The run was cancelled: [`crate::Cx::check_cancel`] says so.
    Cancelled,
    /// It could not do what it should.
    #[non_exhaustive]
    Failed {
        /// Where, what was expected, what was found.
        message: Cow<'static, str>,
        /// What to do about it; may be empty.
        hint: Cow<'static, str>,
        /// A name for programs, see [`Error::code`]; may be empty.
        code: Cow<'static, str>,
    },
}

impl Error {
    /// An error with its message: where, what was expected, what was found.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        let none = Cow::Borrowed("");
        Error::Failed { message: message.into(), hint: none.clone(), code: none }
    }

    /// The same error with advice: what the user can do about it.
    #[must_use]
    pub fn hint(self, advice: impl Into<Cow<'static, str>>) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Failed { message, code, .. } => {
                Error::Failed { message, hint: advice.into(), code }
            }
        }
    }

    /// The same error with a name for programs: at most 64 of `a-z`, `0-9`, `-`, `.`, `_`;
    /// anything else is left off.
    #[must_use]
    pub fn with_code(self, code: impl Into<Cow<'static, str>>) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Failed { message, hint, .. } => {
                Error::Failed { message, hint, code: code::or_none(code.into()) }
            }
        }
    }

    /// The same error with the place where it happened before its message.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Error::Cancelled => Error::Cancelled,
            Error::Failed { message, hint, code } => {
                Error::Failed { message: format!("{place}: {message}").into(), hint, code }
            }
        }
    }

    /// The message.
    pub fn message(&self) -> &str {
        match self {
            Error::Cancelled => "the run was cancelled",
            Error::Failed { message, .. } => message,
        }
    }

    /// What to do about it; may be empty.
    pub fn advice(&self) -> &str {
        match self {
            Error::Cancelled => "",
            Error::Failed { hint, .. } => hint,
        }
    }

    /// A name for programs: of an error of the engine one of [`crate::code`], such as
    /// `not-granted`; of an error of this plugin what [`Error::with_code`] gave, or nothing.
    pub fn code(&self) -> &str {
        match self {
            Error::Cancelled => code::CANCELLED,
            Error::Failed { code, .. } => code,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        match self {
            Error::Failed { hint, .. } if !hint.is_empty() => write!(f, " ({hint})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Error::new(message)
    }
}

/// Ends the node with an error: `bail!("expected 3 channels, found {n}")`.
#[macro_export]
macro_rules! bail {
    ($($message:tt)*) => {
        return ::core::result::Result::Err($crate::Error::new(::std::format!($($message)*)))
    };
}

/// Ends the node with an error unless something holds:
/// `ensure!(n == 3, "expected 3 channels, found {n}")`.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($message:tt)*) => {
        if !$holds {
            $crate::bail!($($message)*);
        }
    };
}
