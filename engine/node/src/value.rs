//! The values that travel along edges: immutable and shared.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use kino_port::{Literal, PortType};

use crate::types::{Content, ValueType, storage_bytes};
use crate::{Error, Result, SpillFile};

/// A part of a model, opaque to the engine.
#[derive(Clone)]
pub struct ModelPart {
    /// Which part: TextEncoder, ImageEncoder, Dit, Vae.
    pub ty: PortType,
    /// The part itself; the nodes know its type.
    pub handle: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for ModelPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelPart({})", self.ty)
    }
}

/// A file that a node wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutputFile {
    /// Where it stands.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// The blake3 hash of its contents, in hexadecimal.
    pub hash: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What travels along an edge. Cloning is cheap: contents are shared.
#[derive(Clone)]
pub enum Value {
    /// A text or a path.
    Text(Arc<str>),
    /// A whole number.
    Int(i128),
    /// A real number.
    Real(f64),
    /// True or false.
    Bool(bool),
    /// A part of a model.
    Part(ModelPart),
    /// A tensor.
    Tensor(Tensor),
    /// A file that was written.
    File(Arc<OutputFile>),
    /// Several values, each with its name where it has one.
    List(Arc<[Named<Value>]>),
    /// A value of a type of the table: frames, latents, conditioning, and so on.
    Typed(Typed),
    /// A value of a type of a plugin's own.
    Custom(Arc<Record>),
}

/// A field of a record, with its name.
pub type RecordField = (Arc<str>, Value);

/// A value of a type of the table. Cloning is cheap: contents are shared.
///
/// To plugins it is an open record: beside the fields of its type it may have others, which stay
/// with the value on its way, and of which its type knows nothing.
#[derive(Clone)]
pub struct Typed {
    content: Content,
    more: Option<Arc<[RecordField]>>,
}

impl From<Content> for Typed {
    fn from(content: Content) -> Self {
        Typed { content, more: None }
    }
}

impl Deref for Typed {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.content.fmt(f)
    }
}

impl Typed {
    /// A value of a type.
    pub fn new<T: ValueType>(value: Arc<T>) -> Self {
        Content::new(value).into()
    }

    /// The same value with these fields beside those of its type.
    #[must_use]
    pub fn with_more(self, fields: Vec<RecordField>) -> Self {
        Typed { more: (!fields.is_empty()).then(|| fields.into()), ..self }
    }

    /// The fields beside those of its type.
    pub fn more(&self) -> &[RecordField] {
        self.more.as_deref().unwrap_or_default()
    }

    /// The value with its tensors on a device.
    ///
    /// # Errors
    /// When they cannot be brought there.
    pub fn to_device(&self, device: &Device) -> Result<Typed> {
        let more = self.more().iter();
        let more = more.map(|(name, field)| Ok((Arc::clone(name), field.to_device(device)?)));
        let more = more.collect::<Result<_>>()?;
        Ok(Typed::from(self.content.to_device(device)?).with_more(more))
    }

    /// See [`Value::bytes`].
    pub fn bytes(&self) -> u64 {
        self.content.bytes() + self.more().iter().map(|(_, field)| field.bytes()).sum::<u64>()
    }

    /// See [`Value::spilled`].
    pub fn spilled(&self) -> u64 {
        self.content.spilled() + self.more().iter().map(|(_, field)| field.spilled()).sum::<u64>()
    }

    /// See [`Value::unleased`].
    pub fn unleased(&self) -> u64 {
        self.content.unleased() + self.more().iter().map(|(_, field)| field.unleased()).sum::<u64>()
    }

    /// See [`Value::moved_to`].
    ///
    /// # Errors
    /// When the file cannot be made or written, or may not hold as much.
    pub fn moved_to(&self, file: &SpillFile) -> Result<Option<Typed>> {
        let moved = self.content.moved_to(file)?;
        Ok(moved.map(|content| Typed { content, more: self.more.clone() }))
    }

    /// Whether somebody else holds it, so that dropping it frees nothing.
    pub fn is_shared(&self) -> bool {
        self.content.is_shared() || self.more().iter().any(|(_, field)| field.is_shared())
    }
}

/// An item of a list with its name, where it has one.
pub type Named<T> = (Option<Arc<str>>, T);

/// A value of a plugin's own type: named fields.
#[derive(Clone, Debug)]
pub struct Record {
    /// The type's name, such as `example.depth`.
    pub ty: Arc<str>,
    /// The fields, in the order in which they were given.
    pub fields: Vec<RecordField>,
}

impl<T: ValueType> From<T> for Value {
    fn from(value: T) -> Self {
        Value::Typed(Typed::new(Arc::new(value)))
    }
}

impl<T: ValueType> From<Arc<T>> for Value {
    fn from(value: Arc<T>) -> Self {
        Value::Typed(Typed::new(value))
    }
}

impl Value {
    /// The value, if it is of a type of the table.
    pub fn get<T: ValueType>(&self) -> Option<&T> {
        match self {
            Value::Typed(value) => value.get(),
            _ => None,
        }
    }

    /// The value, shared, if it is of a type of the table.
    pub fn shared<T: ValueType>(&self) -> Option<Arc<T>> {
        match self {
            Value::Typed(value) => value.shared(),
            _ => None,
        }
    }

    /// The value that a literal stands for.
    pub fn from_literal(literal: &Literal) -> Self {
        match literal {
            Literal::Text(text) => Value::Text(Arc::from(&**text)),
            Literal::Int(value) => Value::Int(*value),
            Literal::Real(value) => Value::Real(*value),
            Literal::Bool(value) => Value::Bool(*value),
            Literal::List(items) => {
                Value::List(items.iter().map(|item| (None, Value::from_literal(item))).collect())
            }
        }
    }

    /// The literal that it is, if it is one of text, a number or a truth value.
    pub fn literal(&self) -> Option<Literal> {
        Some(match self {
            Value::Text(text) => Literal::text(text.to_string()),
            Value::Int(value) => Literal::Int(*value),
            Value::Real(value) => Literal::Real(*value),
            Value::Bool(value) => Literal::Bool(*value),
            _ => return None,
        })
    }

    /// What kind of value it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "Text",
            Value::Int(_) => "Int",
            Value::Real(_) => "Real",
            Value::Bool(_) => "Bool",
            Value::Part(_) => "a part of a model",
            Value::Typed(value) => value.def().name(),
            Value::Tensor(_) => "Tensor",
            Value::File(_) => "File",
            Value::List(_) => "List",
            Value::Custom(_) => "a value of a plugin's own type",
        }
    }

    /// The shape of the one tensor that it holds; none where it holds none.
    pub fn shape(&self) -> Option<Vec<usize>> {
        match self {
            Value::Tensor(tensor) => Some(tensor.dims().to_vec()),
            Value::Typed(value) => value.shape(),
            _ => None,
        }
    }

    /// Whether it holds one tensor of numbers.
    pub fn holds_tensor(&self) -> bool {
        self.shape().is_some()
    }

    /// The size in words, for a plugin's promise that two values are of one size; the same for all
    /// values of a kind that has no size.
    pub fn extent(&self) -> String {
        match self {
            Value::Typed(value) => value.extent(),
            Value::Tensor(tensor) => format!("{:?}", tensor.dims()),
            other => other.type_name().to_owned(),
        }
    }

    /// The tensor that this value holds: a latent's `[c, f, h, w]`, frames as `[f, h, w, 3]`,
    /// packed patches, the prompt's embeddings, noise levels as `[steps + 1]` f32.
    ///
    /// # Errors
    /// When the value holds no tensor, or spilled frames cannot be read.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Value::Tensor(tensor) => Ok(tensor.clone()),
            Value::Typed(value) => value.tensor(),
            other => Err(Error::failed(format!("{} holds no tensor", other.type_name()))),
        }
    }

    /// The value with its tensors on a device; parts of models and plugins' own records stay where
    /// they are.
    ///
    /// # Errors
    /// When they cannot be brought there.
    pub fn to_device(&self, device: &Device) -> Result<Value> {
        Ok(match self {
            Value::Tensor(tensor) => Value::Tensor(tensor.to_device(device)?),
            Value::Typed(value) => Value::Typed(value.to_device(device)?),
            Value::List(items) => {
                let items = items.iter();
                let items = items.map(|(name, item)| Ok((name.clone(), item.to_device(device)?)));
                Value::List(items.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    /// The bytes of tensor data that the value keeps alive in memory.
    pub fn bytes(&self) -> u64 {
        match self {
            Value::Tensor(tensor) => storage_bytes(tensor),
            Value::Typed(value) => value.bytes(),
            Value::List(items) => items.iter().map(|(_, item)| item.bytes()).sum(),
            Value::Custom(record) => record.fields.iter().map(|(_, field)| field.bytes()).sum(),
            Value::Text(text) => text.len() as u64,
            _ => 0,
        }
    }
}

impl Value {
    /// The bytes of frames that lie in temporary files.
    pub fn spilled(&self) -> u64 {
        match self {
            Value::Typed(value) => value.spilled(),
            Value::List(items) => items.iter().map(|(_, item)| item.spilled()).sum(),
            Value::Custom(record) => record.fields.iter().map(|(_, field)| field.spilled()).sum(),
            _ => 0,
        }
    }

    /// The same value with its frames in a temporary file; none where it has none in memory.
    ///
    /// # Errors
    /// When the file cannot be made or written, or may not hold as much.
    pub fn moved_to(&self, file: &SpillFile) -> Result<Option<Value>> {
        match self {
            Value::Typed(value) => Ok(value.moved_to(file)?.map(Value::Typed)),
            _ => Ok(None),
        }
    }

    /// The bytes among [`Value::bytes`] that no lease of the value's own counts.
    pub fn unleased(&self) -> u64 {
        match self {
            Value::Typed(value) => value.unleased(),
            Value::List(items) => items.iter().map(|(_, item)| item.unleased()).sum(),
            Value::Custom(record) => record.fields.iter().map(|(_, field)| field.unleased()).sum(),
            other => other.bytes(),
        }
    }

    /// Whether somebody else holds it, so that dropping it frees no frames.
    pub fn is_shared(&self) -> bool {
        match self {
            Value::Typed(value) => value.is_shared(),
            Value::List(items) => {
                Arc::strong_count(items) > 1 || items.iter().any(|(_, item)| item.is_shared())
            }
            Value::Custom(record) => {
                Arc::strong_count(record) > 1
                    || record.fields.iter().any(|(_, field)| field.is_shared())
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Tensor(tensor) => write!(f, "Tensor{:?}", tensor.dims()),
            Value::Typed(value) => write!(f, "{value:?}"),
            Value::File(file) => write!(f, "File({})", file.path.display()),
            Value::List(items) => {
                f.debug_list().entries(items.iter().map(|(_, item)| item)).finish()
            }
            Value::Custom(record) => write!(f, "{} {:?}", record.ty, record.fields),
            other => f.write_str(other.type_name()),
        }
    }
}
