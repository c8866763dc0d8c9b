//! What a node is given and what it gives.

use std::any::Any;
use std::sync::Arc;

use kino_port::{Fact, Facts, Port, PortType};

use crate::types::{ValueType, from_tensor};
use crate::value::{ModelPart, Named, Value};
use crate::{Error, Result};

/// The values at a node's inputs, by port name.
pub struct Inputs<'a> {
    ports: &'a [Port],
    values: &'a [Option<Value>],
}

/// The values at a node's outputs, in the signature's order; none where nobody reads it.
pub type Outputs = Vec<Option<Value>>;

impl<'a> Inputs<'a> {
    /// Values in the order of `ports`.
    pub fn new(ports: &'a [Port], values: &'a [Option<Value>]) -> Self {
        Inputs { ports, values }
    }

    /// The value at a port, if something feeds it.
    pub fn get(&self, port: &str) -> Option<&'a Value> {
        let index = self.ports.iter().position(|candidate| candidate.name == port)?;
        self.values.get(index)?.as_ref()
    }

    /// All values in the ports' order, each as its port takes it; at a list port a list.
    ///
    /// # Errors
    /// When a value does not fit its port, its range or its choices, wherever it comes from.
    pub fn fitted(&self) -> Result<Vec<Option<Value>>> {
        let mut values = self.values.to_vec();
        fit_values(self.ports, &mut values)?;
        Ok(values)
    }

    /// What is known of inputs that have arrived: literals as they are; of the rest, that something
    /// feeds them.
    pub(crate) fn facts(&self) -> Facts {
        let fact = |port: &Port, value: Option<&Value>| match value {
            Some(value) => Some(value.literal().map_or(Fact::Unknown, Fact::Literal)),
            None => port.lazy.then_some(Fact::Unknown),
        };
        let values = self.values.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let entries = self.ports.iter().zip(values);
        Facts::new(
            entries.map(|(port, value)| (Arc::from(&*port.name), fact(port, value))).collect(),
        )
    }

    fn need(&self, port: &str) -> Result<&'a Value> {
        self.get(port).ok_or_else(|| Error::input(port, "nothing feeds it"))
    }

    fn mismatch<T>(port: &str, expected: &str, found: &Value) -> Result<T> {
        Err(Error::input(port, format!("expected {expected}, found {}", found.type_name())))
    }

    /// The text or path at a port.
    ///
    /// # Errors
    /// When nothing or something else is there; so for all that follow.
    pub fn text(&self, port: &str) -> Result<&'a str> {
        match self.need(port)? {
            Value::Text(text) => Ok(text),
            other => Self::mismatch(port, "Text", other),
        }
    }

    /// The whole number at a port, as any integer type that holds it.
    pub fn int<T: TryFrom<i128>>(&self, port: &str) -> Result<T> {
        match self.need(port)? {
            Value::Int(value) => T::try_from(*value).map_err(|_| {
                Error::input(port, format!("{value} does not fit {}", std::any::type_name::<T>()))
            }),
            other => Self::mismatch(port, "Int", other),
        }
    }

    /// The real number at a port; whole numbers widen.
    pub fn real(&self, port: &str) -> Result<f64> {
        match self.need(port)? {
            Value::Real(value) => Ok(*value),
            Value::Int(value) => Ok(*value as f64),
            other => Self::mismatch(port, "Real", other),
        }
    }

    /// The truth value at a port.
    pub fn bool(&self, port: &str) -> Result<bool> {
        match self.need(port)? {
            Value::Bool(value) => Ok(*value),
            other => Self::mismatch(port, "Bool", other),
        }
    }

    /// The part of a model at a port, as its own type.
    pub fn part<T: Any + Send + Sync>(&self, port: &str) -> Result<Arc<T>> {
        match self.need(port)? {
            Value::Part(ModelPart { handle, ty }) => Arc::clone(handle).downcast().map_err(|_| {
                Error::input(port, format!("this {ty} is not one that the node can use"))
            }),
            other => Self::mismatch(port, "a part of a model", other),
        }
    }

    /// The value of a type at a port; a tensor of the shape that the type's rule says will do where
    /// the rule lets it.
    pub fn value<T: ValueType>(&self, port: &str) -> Result<Arc<T>> {
        typed(port, self.need(port)?)
    }

    /// The value of a type at a port, if something feeds it.
    pub fn optional<T: ValueType>(&self, port: &str) -> Result<Option<Arc<T>>> {
        self.get(port).map(|value| typed(port, value)).transpose()
    }

    /// The values of a type at a list port, each with its name where it has one.
    pub fn list<T: ValueType>(&self, port: &str) -> Result<Vec<Named<Arc<T>>>> {
        let items = self.items(port).into_iter();
        items.map(|(name, value)| Ok((name, typed(port, value)?))).collect()
    }

    /// The values of a list port with their names; one where a single value feeds it, none where
    /// nothing does.
    pub fn items(&self, port: &str) -> Vec<Named<&'a Value>> {
        match self.get(port) {
            None => Vec::new(),
            Some(Value::List(items)) => {
                items.iter().map(|(name, value)| (name.clone(), value)).collect()
            }
            Some(one) => vec![(None, one)],
        }
    }
}

/// Makes each of the values, in the order of `ports`, what its port takes; at a list port a list.
/// One that is so already stays as it is.
///
/// # Errors
/// When a value does not fit its port, its range or its choices, wherever it comes from.
pub fn fit_values(ports: &[Port], values: &mut Vec<Option<Value>>) -> Result<()> {
    values.resize(ports.len(), None);
    for (port, value) in ports.iter().zip(values) {
        let Some(value) = value else { continue };
        match value {
            Value::List(items) if port.is_list() => {
                if !items.iter().all(|(_, item)| is_held(port, item)) {
                    let items =
                        items.iter().map(|(name, item)| Ok((name.clone(), held(port, item)?)));
                    *value = Value::List(items.collect::<Result<_>>()?);
                }
            }
            one if port.is_list() => *one = Value::List([(None, held(port, one)?)].into()),
            one if is_held(port, one) => {}
            one => *one = held(port, one)?,
        }
    }
    Ok(())
}

/// Whether a port takes a value just as it is. This is asked of every input of every step.
fn is_held(port: &Port, value: &Value) -> bool {
    let is_within = || value.literal().is_none_or(|literal| port.check(&literal).is_ok());
    value.fits(&port.ty)
        && match value {
            Value::Text(text) => port.allows(text),
            Value::Int(_) | Value::Bool(_) => port.range.is_none() || is_within(),
            Value::Real(value) => port.range.is_none() && !value.is_nan() || is_within(),
            _ => true,
        }
}

/// A value as a port takes it, within the port's range and choices.
fn held(port: &Port, value: &Value) -> Result<Value> {
    let value = fit(&port.name, value, &port.ty)?;
    if let Some(literal) = value.literal() {
        let admitted = port.coerce(literal);
        admitted.map_err(|refusal| Error::input(&port.name, refusal.message))?;
    }
    Ok(value)
}

fn fit(port: &str, value: &Value, ty: &PortType) -> Result<Value> {
    value.fit(ty).map_err(|error| unfit(port, &error))
}

/// What does not fit an input, with the advice that there is.
fn unfit(port: &str, error: &Error) -> Error {
    let told = Error::input(port, error.to_string());
    match error.hint() {
        Some(hint) => told.with_hint(Some(hint.to_owned())),
        None => told,
    }
}

/// The value of a type.
fn typed<T: ValueType>(port: &str, value: &Value) -> Result<Arc<T>> {
    if let Some(value) = value.shared() {
        return Ok(value);
    }
    match value {
        Value::Tensor(tensor) => {
            let value = from_tensor::<T>(tensor);
            value.map(Arc::new).map_err(|error| unfit(port, &error))
        }
        other => Inputs::mismatch(port, &T::PORT.to_string(), other),
    }
}
