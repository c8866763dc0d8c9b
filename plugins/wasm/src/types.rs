//! The types of the WIT world, as they cross.

use kino_host::CallCx;
use kino_node::Error;
use wasmtime::component::{ComponentType, Lift, Lower};

/// What went wrong.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct WitError {
    message: String,
    hint: String,
    code: String,
}

/// Why a call did not succeed, in both directions.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
pub(crate) enum Failure {
    #[component(name = "cancelled")]
    Cancelled,
    #[component(name = "failed")]
    Failed(WitError),
}

/// A result as it crosses.
pub(crate) type WitResult<T> = std::result::Result<T, Failure>;

/// What the plugin gets to hear of an error.
pub(crate) fn to_wire(error: Error) -> Failure {
    match error {
        Error::Cancelled => Failure::Cancelled,
        other => Failure::Failed(WitError {
            hint: other.hint().unwrap_or_default().to_owned(),
            code: other.code().to_owned(),
            message: other.to_string(),
        }),
    }
}

impl Failure {
    /// What a plugin's own failure means.
    pub(crate) fn into_error(self, call: &CallCx<'_>) -> Error {
        match self {
            Failure::Cancelled => call.cancelled(),
            Failure::Failed(WitError { message, hint, code }) => call.failure(message, hint, code),
        }
    }
}
