//! What a component exports: its nodes, called by the engine.

use std::marker::PhantomData;
use std::sync::{Mutex, Once, PoisonError};

use crate::host::wasm::bindings::exports::kino::plugin::node::{Failure, Guest};
use crate::host::wasm::bindings::kino::plugin::host;
use crate::host::{CallRef, log};
use crate::node::{Instance, Plugin, descriptor};
use crate::{Cx, Error, Value};

/// The one instance of a component.
static INSTANCE: Mutex<Option<Box<dyn Instance>>> = Mutex::new(None);

/// Sends events and panics to the engine's log.
fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        crate::log::install();
        std::panic::set_hook(Box::new(|panic| log(1, "panic", &panic.to_string())));
    });
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Failure::Cancelled,
            Error::Failed { message, hint, .. } => {
                Failure::Failed((message.into_owned(), hint.into_owned()))
            }
        }
    }
}

/// The exports of a plugin.
pub struct Exports<P>(PhantomData<P>);

impl<P: Plugin> Guest for Exports<P> {
    fn describe() -> String {
        begin();
        match descriptor(P::NODES) {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("{error}"),
        }
    }

    fn open(node: String, saved: Option<Vec<u8>>) -> std::result::Result<(), Failure> {
        begin();
        let def = P::NODES
            .iter()
            .find(|def| def.id == node)
            .ok_or_else(|| Error::new(format!("there is no node `{node}` here")))?;
        let opened = (def.open)(&mut Cx::new(CallRef), saved.as_deref())?;
        *INSTANCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    }

    fn run(
        inputs: Vec<Option<host::Value>>,
    ) -> std::result::Result<Vec<Option<host::Value>>, Failure> {
        let mut given: Vec<_> = inputs.into_iter().map(|input| input.map(Value)).collect();
        let mut instance = INSTANCE.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = instance.as_mut().ok_or_else(not_open)?;
        let made = instance.run(&mut Cx::new(CallRef), &mut given)?;
        Ok(made.into_iter().map(|value| value.map(|value| value.0)).collect())
    }

    fn save() -> std::result::Result<Option<Vec<u8>>, Failure> {
        let mut instance = INSTANCE.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = instance.as_mut().ok_or_else(not_open)?;
        Ok(instance.save(&mut Cx::new(CallRef))?)
    }
}

fn not_open() -> Error {
    Error::new("no node is open")
}
