//! Values as plugins see them: opaque, with accessors. Engine types that consist of several parts
//! are records with named fields.

use std::sync::Arc;

use candle_core::DType;
use kino_contract::{ValueKind, code};
use kino_node::{Error, Field, Frames, Opaque, Result, Value};
use kino_port::FieldRule;

use crate::error::invalid;

/// A value on its way into a plugin or out of it. Clones share the contents.
#[derive(Clone)]
pub enum PluginValue {
    /// A value of the engine.
    Value(Value),
    /// Bytes, such as a file's contents.
    Bytes(Arc<[u8]>),
    /// A field that can only be passed on.
    Opaque(Opaque),
    /// The chunks of frames; spilled ones are read when they are asked for.
    Chunks(Arc<Frames>),
    /// Several items, each with its name, which may be empty.
    List(Arc<[(Arc<str>, PluginValue)]>),
    /// A tensor in memory that belongs to somebody else.
    SharedTensor(Arc<SharedTensor>),
    /// A record that is not turned into a value here, but where it goes.
    Fields(Arc<str>, Arc<[(Arc<str>, PluginValue)]>),
    /// A value that stays where it came from: what it is called there, and its number.
    Remote(Arc<str>, u64),
}

/// A tensor, row-major without gaps, in memory that belongs to somebody else.
pub struct SharedTensor {
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements; as many bytes as type and shape say.
    pub memory: Box<dyn AsRef<[u8]> + Send + Sync>,
}

fn cannot<T>(what: &str, item: &PluginValue) -> Result<T> {
    Err(Error::coded(code::WRONG_KIND, format!("expected {what}, found {}", item.type_name())))
}

impl From<Field> for PluginValue {
    fn from(field: Field) -> Self {
        let int = |value: usize| Value::Int(value as i128);
        PluginValue::Value(match field {
            Field::Tensor(tensor) => Value::Tensor(tensor),
            Field::Text(text) => Value::Text(text.into()),
            Field::Int(value) => int(value),
            Field::Real(value) => Value::Real(value),
            Field::Ints(values) => {
                Value::List(values.into_iter().map(|value| (None, int(value))).collect())
            }
            Field::Content(content) => Value::Typed(content.into()),
            Field::Record(name, fields) => {
                let field = |(name, field)| (name, PluginValue::from(field));
                return PluginValue::Fields(name.into(), fields.into_iter().map(field).collect());
            }
            Field::Opaque(opaque) => return PluginValue::Opaque(opaque),
        })
    }
}

impl PluginValue {
    /// What it is.
    pub fn kind(&self) -> ValueKind {
        match self {
            PluginValue::Value(value) => match value {
                Value::Text(_) => ValueKind::Text,
                Value::Int(_) => ValueKind::Int,
                Value::Real(_) => ValueKind::Real,
                Value::Bool(_) => ValueKind::Bool,
                Value::Tensor(_) => ValueKind::Tensor,
                Value::List(_) => ValueKind::List,
                Value::Typed(typed) => match typed.def().named() {
                    Some(row) if !row.fields.is_empty() => ValueKind::Record,
                    _ => ValueKind::Opaque,
                },
                Value::Custom(_) => ValueKind::Record,
                Value::Part(_) | Value::File(_) => ValueKind::Opaque,
            },
            PluginValue::Bytes(_) => ValueKind::Bytes,
            PluginValue::SharedTensor(_) => ValueKind::Tensor,
            PluginValue::Fields(..) => ValueKind::Record,
            PluginValue::List(_) | PluginValue::Chunks(_) => ValueKind::List,
            PluginValue::Opaque(_) | PluginValue::Remote(..) => ValueKind::Opaque,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            PluginValue::Value(Value::Custom(record)) => &record.ty,
            PluginValue::Value(Value::Part(part)) => part.ty.named().map_or("Part", |row| row.name),
            PluginValue::Value(value) => value.type_name(),
            PluginValue::Bytes(_) => "Bytes",
            PluginValue::SharedTensor(_) => "Tensor",
            PluginValue::Fields(ty, _) | PluginValue::Remote(ty, _) => ty,
            PluginValue::List(_) | PluginValue::Chunks(_) => "List",
            PluginValue::Opaque(opaque) => opaque.name,
        }
    }

    /// The whole number; of a truth value 0 or 1.
    ///
    /// # Errors
    /// When it is something else; so for all that follow.
    pub fn int(&self) -> Result<i128> {
        match self {
            PluginValue::Value(Value::Int(value)) => Ok(*value),
            PluginValue::Value(Value::Bool(value)) => Ok(i128::from(*value)),
            other => cannot("Int", other),
        }
    }

    /// The truth value.
    ///
    /// # Errors
    /// When it is something else; so for all that follow.
    pub fn truth(&self) -> Result<bool> {
        match self {
            PluginValue::Value(Value::Bool(value)) => Ok(*value),
            other => cannot("Bool", other),
        }
    }

    /// The real number; whole numbers widen.
    pub fn real(&self) -> Result<f64> {
        match self {
            PluginValue::Value(Value::Real(value)) => Ok(*value),
            PluginValue::Value(Value::Int(value)) => Ok(*value as f64),
            other => cannot("Real", other),
        }
    }

    /// The text.
    pub fn text(&self) -> Result<&str> {
        match self {
            PluginValue::Value(Value::Text(text)) => Ok(text),
            other => cannot("Text", other),
        }
    }

    /// The text, or the bytes.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self {
            PluginValue::Value(Value::Text(text)) => Ok(text.as_bytes()),
            PluginValue::Bytes(bytes) => Ok(bytes),
            other => cannot("Text or Bytes", other),
        }
    }

    /// The number of items or fields; 0 for all that has neither.
    pub fn len(&self) -> usize {
        match self {
            PluginValue::Value(Value::List(items)) => items.len(),
            PluginValue::Value(Value::Custom(record)) => record.fields.len(),
            PluginValue::List(items) | PluginValue::Fields(_, items) => items.len(),
            PluginValue::Chunks(frames) => frames.chunk_count(),
            other => other.field_names().len(),
        }
    }

    /// Whether it has neither items nor fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the fields of a record of the engine: those of its type that are there, then
    /// those of which its type does not know.
    fn field_names(&self) -> Vec<&str> {
        match self {
            PluginValue::Value(Value::Typed(typed)) => {
                let rules = typed.def().named().map_or(&[][..], |row| row.fields);
                let is_there = |rule: &&FieldRule| {
                    rule.content.is_chunks() || matches!(typed.field(rule.name), Ok(Some(_)))
                };
                let known = rules.iter().filter(is_there).map(|rule| rule.name);
                known.chain(typed.more().iter().map(|(name, _)| &**name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The name of an item or field.
    pub fn name(&self, index: usize) -> &str {
        match self {
            PluginValue::Value(Value::List(items)) => {
                items.get(index).and_then(|(name, _)| name.as_deref()).unwrap_or_default()
            }
            PluginValue::Value(Value::Custom(record)) => {
                record.fields.get(index).map(|(name, _)| &**name).unwrap_or_default()
            }
            PluginValue::List(items) | PluginValue::Fields(_, items) => {
                items.get(index).map(|(name, _)| &**name).unwrap_or_default()
            }
            other => other.field_names().get(index).copied().unwrap_or_default(),
        }
    }

    /// An item or field by its index.
    pub fn item(&self, index: usize) -> Result<PluginValue> {
        let missing = || invalid(format!("it has no item {index}, only {}", self.len()));
        match self {
            PluginValue::Value(Value::List(items)) => items
                .get(index)
                .map(|(_, value)| PluginValue::Value(value.clone()))
                .ok_or_else(missing),
            PluginValue::Value(Value::Custom(record)) => {
                let field = record.fields.get(index);
                field.map(|(_, value)| PluginValue::Value(value.clone())).ok_or_else(missing)
            }
            PluginValue::List(items) | PluginValue::Fields(_, items) => {
                items.get(index).map(|(_, item)| item.clone()).ok_or_else(missing)
            }
            PluginValue::Chunks(frames) if index < self.len() => {
                Ok(PluginValue::Value(Value::Tensor(frames.chunk(index)?)))
            }
            PluginValue::Chunks(_) => Err(missing()),
            other => {
                let names = other.field_names();
                other.field(names.get(index).ok_or_else(missing)?)?.ok_or_else(missing)
            }
        }
    }

    /// A field by its name; none where it has none.
    pub fn field(&self, name: &str) -> Result<Option<PluginValue>> {
        Ok(match self {
            PluginValue::Value(Value::Custom(record)) => {
                let field = record.fields.iter().find(|(field, _)| **field == *name);
                field.map(|(_, value)| PluginValue::Value(value.clone()))
            }
            PluginValue::Fields(_, fields) => {
                fields.iter().find(|(field, _)| **field == *name).map(|(_, item)| item.clone())
            }
            PluginValue::Value(Value::Typed(typed)) => match (name, typed.shared::<Frames>()) {
                ("chunks", Some(frames)) => Some(PluginValue::Chunks(frames)),
                _ => match typed.field(name)? {
                    Some(field) => Some(PluginValue::from(field)),
                    None => {
                        let more = typed.more().iter().find(|(field, _)| **field == *name);
                        more.map(|(_, value)| PluginValue::Value(value.clone()))
                    }
                },
            },
            _ => None,
        })
    }
}
