//! A node's ports as the descriptor tells them, and what fits into them.

use kino_contract::Descriptor;
use kino_port::{Literal, Port, PortType};

use crate::{Error, Kind, Result, Value};

/// A node's ports.
pub(super) struct Ports {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<String>,
    pub(super) guider: bool,
}

/// What a guider's run gets before its parameters.
const MOMENT: [(&str, PortType); 5] = [
    ("step", PortType::Int),
    ("of", PortType::Int),
    ("sigma", PortType::Real),
    ("with_text", PortType::Tensor),
    ("without_text", PortType::Tensor),
];

impl Ports {
    /// Reads a node of a descriptor, as strictly as the engine.
    pub(super) fn read(descriptor: &str, id: &str) -> Result<Self> {
        let descriptor = Descriptor::read(descriptor).map_err(Error::new)?;
        let node = descriptor.node(id);
        let node = node.ok_or_else(|| Error::new(format!("there is no node `{id}`")))?;
        let before = MOMENT.into_iter().filter(|_| node.guider);
        let before = before.map(|(name, ty)| kino_port::edge(name, ty));
        let inputs = before.chain(node.signature.inputs.iter().cloned()).collect();
        let outputs = node.signature.outputs.iter().map(|port| port.name.to_string()).collect();
        Ok(Ports { inputs, outputs, guider: node.guider })
    }

    /// The index of an input.
    pub(super) fn input(&self, name: &str) -> Result<usize> {
        let found = self.inputs.iter().position(|port| port.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = self.inputs.iter().map(|port| &*port.name).collect();
            Error::new(format!("there is no input `{name}`, only {}", names.join(", ")))
        })
    }

    /// The index of an output.
    pub(super) fn output(&self, name: &str) -> Result<usize> {
        let found = self.outputs.iter().position(|output| output == name);
        found.ok_or_else(|| {
            Error::new(format!("there is no output `{name}`, only {}", self.outputs.join(", ")))
        })
    }
}

/// What arrives at a port that is given a value, or none: the value, checked as a graph's text
/// would be; the default; nothing.
pub(super) fn fed(port: &Port, value: Option<Value>) -> Result<Option<Value>> {
    let at = |error: Error| error.at(format!("input `{}`", port.name));
    let Some(value) = value else {
        if port.is_required() {
            return Err(Error::new(format!("input `{}` must be fed", port.name)));
        }
        return port.default.as_ref().map(made).transpose();
    };
    let written = match value.kind() {
        Kind::Text => Literal::text(value.as_text()?),
        Kind::Int => Literal::Int(value.as_int()?),
        Kind::Real => Literal::Real(value.as_real()?),
        Kind::Bool => Literal::Bool(value.as_int()? != 0),
        _ => return Ok(Some(value)),
    };
    let admitted =
        port.admit(written).map_err(|refusal| Error::new(refusal.message)).map_err(at)?;
    made(&admitted).map(Some)
}

fn made(literal: &Literal) -> Result<Value> {
    match literal {
        Literal::Text(text) => Value::text(text),
        Literal::Int(int) => Value::int(*int),
        Literal::Real(real) => Value::real(*real),
        Literal::Bool(truth) => Value::truth(*truth),
        Literal::List(items) => {
            let items = items.iter().map(made).collect::<Result<Vec<_>>>()?;
            let items: Vec<_> = items.iter().map(|item| ("", item)).collect();
            Value::list(&items)
        }
    }
}
