//! Errors of the libraries below as errors of nodes.

use std::io::ErrorKind;

use kino_node::{Cancel, Error};
use kino_port::{PlanError, code};

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
                Error::advised(format!("{file} is missing"), hint).with_code(code::NOT_FOUND)
            }
            other => Error::failed(other.to_string()),
        })
    }
}

impl<T> IntoNode<T> for kino_world::Result<T> {
    fn node(self) -> kino_node::Result<T> {
        self.map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            let code = match &error {
                kino_world::Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                    code::NOT_FOUND
                }
                kino_world::Error::Io { .. } => code::IO,
                _ => "",
            };
            Error::failed(error.to_string()).with_hint(hint).with_code(code)
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

/// Why a model, or a part of it, cannot be read, as an error to the input that names it: a file
/// that is not here may be on another machine.
pub(crate) fn of_model(port: &str, error: &kino_models::Error) -> PlanError {
    let planned = PlanError::at(port, error.to_string());
    match is_of_machine(error) {
        true => planned.of_machine(),
        false => planned,
    }
}

/// Whether another machine may read what this one cannot.
pub(crate) fn is_of_machine(error: &kino_models::Error) -> bool {
    matches!(error, kino_models::Error::Io { .. } | kino_models::Error::FileMissing { .. })
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
