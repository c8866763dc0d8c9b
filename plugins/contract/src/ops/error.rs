//! Why an operation is not computed.

use std::fmt;

use crate::{DType, code};

/// The result of a check.
pub type Result<T> = std::result::Result<T, OpError>;

/// Why an operation is not computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpError {
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// A name for programs, one of [`mod@code`].
    pub code: &'static str,
}

impl OpError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        OpError { message: message.into(), hint: None, code: code::INVALID }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        OpError { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        OpError { code, ..self }
    }

    /// The same, with the operation before it.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        OpError { message: format!("op {name}: {}", self.message), ..self }
    }

    /// A whole number is divided by 0.
    #[must_use]
    pub fn zero_divisor(dtype: DType) -> Self {
        OpError::new(format!("a whole number ({dtype}) by 0"))
    }

    /// A sum of whole numbers is none of its type.
    #[must_use]
    pub fn sum_leaves(dtype: DType) -> Self {
        OpError::new(format!("the sum leaves the range of {dtype}")).hint("`cast` to i64 first")
    }

    /// An index is negative or too great.
    #[must_use]
    pub fn outside(index: i64, dims: &[usize], dim: usize) -> Self {
        OpError::new(format!("index {index} lies outside dimension {dim} of {dims:?}"))
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hint {
            Some(hint) => write!(f, "{} ({hint})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for OpError {}
