//! A node's ports as the descriptor tells them, and what arrives at them.

use kino_abi::host_table::{HostError, from_raw, into_raw};
use kino_contract::descriptor::GUIDER_INPUTS;
use kino_contract::{Agreement, Descriptor, Pictures};
use kino_port::{Literal, Port, PortType, Range};

use super::fit::fit;
use super::table::HeldValues;
use crate::port::FromValue;
use crate::{Error, Frames, Result, Tensor, Value, ValueKind, bail};

/// A node's ports.
pub(super) struct Ports {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// For each output, the input whose size it keeps.
    like: Vec<Option<usize>>,
    /// Which inputs' pictures must agree, and the node that says so.
    agree: Vec<Agreement>,
    id: String,
}

impl Ports {
    /// Reads a node of a descriptor, as strictly as the engine.
    pub(super) fn read(descriptor: &str, id: &str) -> Result<Self> {
        let descriptor = Descriptor::read(descriptor).map_err(Error::new)?;
        let node = descriptor.node(id);
        let node = node.ok_or_else(|| Error::new(format!("there is no node `{id}`")))?;
        let mut inputs = node.signature.inputs.to_vec();
        if !node.guider {
            let outputs = node.signature.outputs.to_vec();
            let (like, agree) = (node.like.clone(), node.agree.clone());
            return Ok(Ports { inputs, outputs, like, agree, id: id.to_owned() });
        }
        // It gets the moment, and gives a velocity instead of its output.
        inputs.splice(0..0, GUIDER_INPUTS.map(|(name, ty)| kino_port::edge(name, ty)));
        let velocity = kino_port::edge("velocity", PortType::Tensor);
        let like = inputs.iter().position(|port| port.name == "with_text");
        let (outputs, like, agree) = (vec![velocity], vec![like], Vec::new());
        Ok(Ports { inputs, outputs, like, agree, id: id.to_owned() })
    }

    /// Holds inputs against what the node says of them.
    pub(super) fn agree(&self, values: &[Option<Value>]) -> Result<()> {
        for agreement in &self.agree {
            let mut pictures = Vec::new();
            for index in &agreement.inputs {
                let name = &self.inputs[*index].name;
                match values.get(*index).and_then(Option::as_ref) {
                    Some(list) if list.kind() == ValueKind::List => {
                        for at in 0..list.len() {
                            pictures.push(pictures_of(name, &list.item(at)?.1)?);
                        }
                    }
                    Some(value) => pictures.push(pictures_of(name, value)?),
                    None => {}
                }
            }
            agreement.check(&self.id, &pictures).map_err(|error| {
                Error::new(error.message).hint(kino_contract::advice_on(agreement.what))
            })?;
        }
        Ok(())
    }

    /// The index of an input.
    pub(super) fn input(&self, name: &str) -> Result<usize> {
        index(&self.inputs, "input", name)
    }

    /// The index of an output.
    pub(super) fn output(&self, name: &str) -> Result<usize> {
        index(&self.outputs, "output", name)
    }

    /// What a run gave, held against what the node promised; what nobody wants is dropped.
    pub(super) fn given(
        &self,
        outputs: Vec<Option<Value>>,
        inputs: &[Option<Value>],
        unwanted: &[usize],
    ) -> Result<Vec<Option<Value>>> {
        let given = |(index, output): (usize, Option<Value>)| {
            let port = &self.outputs[index];
            if unwanted.contains(&index) {
                return Ok(None);
            }
            let Some(output) = output else {
                bail!("the node gave nothing at `{}`", port.name);
            };
            let at = |error: Error| {
                error.at(format!("the node breaks its promise: output `{}`", port.name))
            };
            let output = fitted(output, &port.ty).map_err(at)?;
            if let Some((index, Some(input))) = self.like[index].map(|at| (at, &inputs[at])) {
                let (found, promised) = (extent(&output)?, extent(input)?);
                let name = &self.inputs[index].name;
                if found != promised {
                    return Err(at(Error::new(format!(
                        "{found} is not like `{name}`, {promised}"
                    ))));
                }
            }
            Ok(Some(output))
        };
        outputs.into_iter().enumerate().map(given).collect()
    }
}

/// What is known of frames, or of a mask.
fn pictures_of(name: &str, value: &Value) -> Result<Pictures> {
    let is_mask = value.type_name() == "Mask";
    let (count, height, width) = match is_mask {
        false => {
            let frames = Frames::from_value(value.clone())?;
            (frames.count(), frames.height(), frames.width())
        }
        true => match *Tensor::of(value.clone())?.dims() {
            [count, height, width] => (count, height, width),
            _ => (1, 0, 0),
        },
    };
    let (count, height, width) = (Some(count), Some(height), Some(width));
    Ok(Pictures { input: name.to_owned(), count, height, width, is_mask })
}

fn index(ports: &[Port], what: &str, name: &str) -> Result<usize> {
    let found = ports.iter().position(|port| port.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = ports.iter().map(|port| &*port.name).collect();
        Error::new(format!("there is no {what} `{name}`, only {}", names.join(", ")))
    })
}

/// The size of a value, in words.
fn extent(value: &Value) -> Result<String> {
    let dims = |value: Value| Ok(format!("{:?}", Tensor::of(value)?.dims()));
    match value.type_name().as_str() {
        "Frames" => {
            let frames = Frames::from_value(value.clone())?;
            let (count, width, height) = (frames.count(), frames.width(), frames.height());
            Ok(match frames.fps() {
                Some(fps) => format!("{count} frames of {width}x{height}, {fps} a second"),
                None => format!("{count} frames of {width}x{height}"),
            })
        }
        "Tensor" => dims(value.clone()),
        other => match tensor_field(other) {
            Some(field) => value.field(field)?.map_or(Ok(String::new()), dims),
            None => Ok(other.to_owned()),
        },
    }
}

/// What arrives at a port that is given a value, or none: the value as the port takes it; the
/// default; nothing.
pub(super) fn fed(port: &Port, value: Option<Value>) -> Result<Option<Value>> {
    let Some(value) = value else {
        if port.is_required() {
            return Err(Error::new(format!("input `{}` must be fed", port.name)));
        }
        return port.default.as_ref().map(made).transpose();
    };
    let at = |error: Error| error.at(format!("input `{}`", port.name));
    if !port.is_list() {
        return held(port, value).map(Some).map_err(at);
    }
    let items = match value.kind() {
        ValueKind::List => {
            (0..value.len()).map(|index| value.item(index)).collect::<Result<_>>()?
        }
        _ => vec![(String::new(), value)],
    };
    let items = items.into_iter().map(|(name, item)| Ok((name, held(port, item)?)));
    let items = items.collect::<Result<Vec<_>>>().map_err(at)?;
    list(&items).map(Some)
}

fn list(items: &[(String, Value)]) -> Result<Value> {
    let items: Vec<_> = items.iter().map(|(name, item)| (name.as_str(), item)).collect();
    Value::list(&items)
}

/// A value as a port takes it, within the port's range and choices. `"random"` is 7, or what of
/// the range is nearest to it.
fn held(port: &Port, value: Value) -> Result<Value> {
    let draws = port.draws && value.kind() == ValueKind::Text && value.as_text()? == "random";
    let value = match port.range {
        Some(Range::Int { min, max, .. }) if draws => Value::int(7.clamp(min, max))?,
        _ if draws => Value::int(7)?,
        _ => fitted(value, &port.ty)?,
    };
    let written = match value.kind() {
        ValueKind::Text => Literal::text(value.as_text()?),
        ValueKind::Int => Literal::Int(value.as_int()?),
        ValueKind::Real => Literal::Real(value.as_real()?),
        ValueKind::Bool => Literal::Bool(value.as_int()? != 0),
        _ => return Ok(value),
    };
    port.coerce(written).map_err(|refusal| Error::new(refusal.message))?;
    Ok(value)
}

/// A value as a port of type `ty` takes it.
fn fitted(value: Value, ty: &PortType) -> Result<Value> {
    // SAFETY: the value is one of the reference host, and is given away.
    let value = unsafe { from_raw::<HeldValues>(value.into_raw()) };
    let fitted = value.map(|value| fit(&value, ty)).transpose();
    let fitted = fitted.map_err(|HostError { message, hint, code }| {
        Error::new(message).hint(hint).with_code(code)
    })?;
    // SAFETY: the value is one of the reference host, with the count that it was made with.
    let fitted = fitted.and_then(|value| unsafe { Value::from_raw(into_raw::<HeldValues>(value)) });
    fitted.ok_or_else(|| Error::new("there is no value"))
}

/// The field of a record that is its tensor: the first, but for frames, which come in chunks.
fn tensor_field(record: &str) -> Option<&'static str> {
    let row = PortType::NAMED.iter().find(|row| row.name == record)?;
    row.tensor_field()
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
