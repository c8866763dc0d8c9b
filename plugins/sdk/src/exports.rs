//! What a component exports: its nodes, called by the engine.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Once;

use crate::host::wasm::bindings::exports::kino::plugin::node::{self, Failure, Guest};
use crate::host::wasm::bindings::kino::plugin::host;
use crate::host::{CallRef, log};
use crate::node::{Instance, Plugin, descriptor};
use crate::{Cx, Error, Value};

/// Sends events and panics to the engine's log.
fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        crate::log::install();
        std::panic::set_hook(Box::new(|panic| log(1, "panic", &panic.to_string())));
    });
}

/// The exports of a plugin.
pub struct Exports<P>(PhantomData<P>);

/// An instance of a node of a plugin.
pub struct Opened<P>(RefCell<Box<dyn Instance>>, PhantomData<P>);

impl<P: Plugin> Guest for Exports<P> {
    type Instance = Opened<P>;

    fn describe() -> String {
        begin();
        match descriptor(P::NODES) {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<P: Plugin> node::GuestInstance for Opened<P> {
    fn open(node: String, saved: Option<Vec<u8>>) -> std::result::Result<node::Instance, Failure> {
        begin();
        let def = P::NODES
            .iter()
            .find(|def| def.id == node)
            .ok_or_else(|| Error::new(format!("there is no node `{node}` here")))?;
        let opened = (def.open)(&mut Cx::new(CallRef), saved.as_deref())?;
        Ok(node::Instance::new(Opened::<P>(RefCell::new(opened), PhantomData)))
    }

    fn run(
        &self,
        inputs: Vec<Option<host::Value>>,
    ) -> std::result::Result<Vec<Option<host::Value>>, Failure> {
        let mut given: Vec<_> = inputs.into_iter().map(|input| input.map(Value)).collect();
        let made = self.0.borrow_mut().run(&mut Cx::new(CallRef), &mut given)?;
        Ok(made.into_iter().map(|value| value.map(|value| value.0)).collect())
    }

    fn save(&self) -> std::result::Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.borrow_mut().save(&mut Cx::new(CallRef))?)
    }
}
