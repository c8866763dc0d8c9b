//! A node's ports as the descriptor tells them, and what fits into them.

use kino_port::{Arity, Literal, Port, PortType, Range};
use serde_json::Value as Json;

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
    /// Reads a node of a descriptor.
    pub(super) fn read(descriptor: &str, id: &str) -> Result<Self> {
        let descriptor: Json = serde_json::from_str(descriptor)?;
        let nodes = descriptor["nodes"].as_array().cloned().unwrap_or_default();
        let node = nodes.iter().find(|node| node["id"] == id);
        let node = node.ok_or_else(|| Error::new(format!("there is no node `{id}`")))?;
        let list = |key: &str| node[key].as_array().cloned().unwrap_or_default();
        let guider = node["guider"] == Json::Bool(true);
        let before = MOMENT.into_iter().filter(|_| guider);
        let inputs = before.map(|(name, ty)| Ok(kino_port::edge(name, ty)));
        let inputs = inputs.chain(list("inputs").iter().map(port)).collect::<Result<_>>()?;
        let outputs = list("outputs").iter().map(|port| text(port, "name")).collect();
        Ok(Ports { inputs, outputs, guider })
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

fn text(of: &Json, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

fn port(json: &Json) -> Result<Port> {
    let name = text(json, "name");
    let ty: PortType = text(json, "type").parse().map_err(Error::new)?;
    let mut port = kino_port::edge("", ty);
    port.name = name.into();
    port.arity = match json["arity"].as_str() {
        Some("optional") => Arity::Optional,
        Some("list") => Arity::List,
        Some("optional_list") => Arity::OptionalList,
        _ => Arity::One,
    };
    port.range = range(json, &port.ty);
    let choices = json["choices"].as_array().into_iter().flatten();
    port.choices = choices.filter_map(Json::as_str).map(|it| it.to_owned().into()).collect();
    port.draws = json["draws"] == Json::Bool(true);
    if let Some(default) = literal(&json["default"]) {
        let admitted = port.admit(default);
        let admitted = admitted.map_err(|refusal| {
            Error::new(format!("the default of input `{}`: {}", port.name, refusal.message))
        })?;
        port.default = Some(admitted);
    }
    Ok(port)
}

fn range(json: &Json, ty: &PortType) -> Option<Range> {
    let [least, most] = json["range"].as_array()?.as_slice() else { return None };
    let int = |end: &Json| end.as_i64().map(i128::from).or_else(|| end.as_u64().map(i128::from));
    Some(match ty {
        PortType::Real => Range::Real {
            min: least.as_f64().unwrap_or(f64::NEG_INFINITY),
            max: most.as_f64().unwrap_or(f64::INFINITY),
        },
        _ => Range::Int {
            min: int(least).unwrap_or(i128::MIN),
            max: int(most).unwrap_or(i128::MAX),
            step: int(&json["step"]).unwrap_or(1),
        },
    })
}

fn literal(json: &Json) -> Option<Literal> {
    Some(match json {
        Json::Bool(truth) => Literal::Bool(*truth),
        Json::String(text) => Literal::text(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Literal::Int(int.into()),
            (None, Some(int)) => Literal::Int(int.into()),
            (None, None) => Literal::Real(number.as_f64()?),
        },
        _ => return None,
    })
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
