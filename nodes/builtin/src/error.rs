//! Errors of the libraries below as errors of nodes.

use kino_node::{Cancel, Error};
use kino_port::PlanError;

/// Turns a library's error into a node's: its message stays, and cancelled stays cancelled.
pub(crate) trait IntoNode<T> {
    /// The same result with a node's error.
    fn node(self) -> kino_node::Result<T>;
}

impl<T> IntoNode<T> for kino_models::Result<T> {
    fn node(self) -> kino_node::Result<T> {
        self.map_err(|error| match error {
            kino_models::Error::Cancelled => Error::Cancelled,
            kino_models::Error::Tensor(error) => error.into(),
            kino_models::Error::FileMissing { file, hint } => {
                Error::advised(format!("{file} is missing"), hint)
            }
            other => Error::failed(other.to_string()),
        })
    }
}

impl<T> IntoNode<T> for kino_world::Result<T> {
    fn node(self) -> kino_node::Result<T> {
        self.map_err(|error| Error::Failed {
            hint: error.hint().map(str::to_owned),
            message: error.to_string(),
        })
    }
}

/// What models call between their blocks: an error once the run is cancelled.
pub(crate) fn check_cancel(cancel: &Cancel) -> impl FnMut() -> kino_models::Result<()> {
    let cancel = cancel.clone();
    move || match cancel.is_cancelled() {
        true => Err(kino_models::Error::Cancelled),
        false => Ok(()),
    }
}

/// What is wrong with a file, as an error to the input that names it.
pub(crate) fn at_port(port: &'static str) -> impl Fn(kino_world::Error) -> PlanError {
    move |error| {
        let planned = PlanError::at(port, error.to_string());
        match error.hint() {
            Some(hint) => planned.hint(hint),
            None => planned,
        }
    }
}

/// What stands against what an input names, as an error of the plan.
pub(crate) fn at_input(port: &'static str) -> impl Fn(Error) -> PlanError {
    move |error| {
        let planned = PlanError::at(port, error.to_string());
        match error.hint() {
            Some(hint) => planned.hint(hint),
            None => planned,
        }
    }
}
