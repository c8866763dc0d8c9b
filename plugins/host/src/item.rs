//! Values as plugins see them: opaque, with accessors. Engine types that consist of several parts
//! are records with named fields.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use kino_node::{Clip, Error, Frames, Result, Space, Value};

use crate::draft::Draft;
use crate::growing::{Growing, Pushed};

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text or a path.
    Text,
    /// A whole number.
    Int,
    /// A real number.
    Real,
    /// True or false.
    Bool,
    /// A tensor, also of noise levels.
    Tensor,
    /// Several items.
    List,
    /// Named fields.
    Record,
    /// Bytes.
    Bytes,
    /// Something that can only be passed on.
    Opaque,
}

/// A value on its way into a plugin or out of it. Clones share the contents.
#[derive(Clone)]
pub enum Item {
    /// A value of the engine.
    Value(Value),
    /// Bytes, such as a file's contents.
    Bytes(Arc<[u8]>),
    /// A tensor in the making.
    Draft(Arc<Draft>),
    /// Frames in the making.
    Growing(Arc<Growing>),
    /// Frames in the making that are only gathered here.
    Pushed(Arc<Pushed>),
    /// The space of a latent.
    Space(Option<Space>),
    /// The clips of packed patches.
    Clips(Arc<[Clip]>),
    /// The chunks of frames; spilled ones are read when they are asked for.
    Chunks(Arc<Frames>),
    /// Several items, each with its name, which may be empty.
    List(Arc<[(Arc<str>, Item)]>),
    /// A tensor in memory that belongs to somebody else.
    Shared(Arc<Shared>),
    /// A record that is not turned into a value here, but where it goes.
    Fields(Arc<str>, Arc<[(Arc<str>, Item)]>),
    /// A value that stays where it came from: what it is called there, and its number.
    Elsewhere(Arc<str>, u64),
}

/// A tensor, row-major without gaps, in memory that belongs to somebody else.
pub struct Shared {
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements; as many bytes as type and shape say.
    pub memory: Box<dyn AsRef<[u8]> + Send + Sync>,
}

fn cannot<T>(what: &str, item: &Item) -> Result<T> {
    Err(Error::failed(format!("expected {what}, found {}", item.type_name())))
}

/// The names that the fields of a record have, in their order.
const LATENT: [&str; 2] = ["tensor", "space"];
const CONDITIONING: [&str; 2] = ["positive", "negative"];
const PATCHES: [&str; 3] = ["tokens", "clips", "patch"];
const FRAMES: [&str; 5] = ["chunks", "fps", "count", "height", "width"];

impl Item {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Item::Value(value) => match value {
                Value::Text(_) => Kind::Text,
                Value::Int(_) => Kind::Int,
                Value::Real(_) => Kind::Real,
                Value::Bool(_) => Kind::Bool,
                Value::Tensor(_) | Value::Sigmas(_) => Kind::Tensor,
                Value::List(_) => Kind::List,
                Value::Conditioning(_)
                | Value::Latent(_)
                | Value::Patches(_)
                | Value::Frames(_)
                | Value::Custom(_) => Kind::Record,
                Value::Part(_) | Value::Guider(_) | Value::File(_) => Kind::Opaque,
            },
            Item::Bytes(_) => Kind::Bytes,
            Item::Draft(_) | Item::Shared(_) => Kind::Tensor,
            Item::Growing(_) | Item::Pushed(_) | Item::Fields(..) => Kind::Record,
            Item::List(_) | Item::Chunks(_) => Kind::List,
            Item::Space(_) | Item::Clips(_) | Item::Elsewhere(..) => Kind::Opaque,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Item::Value(Value::Custom(record)) => &record.ty,
            Item::Value(Value::Part(_)) => "Part",
            Item::Value(value) => value.kind(),
            Item::Bytes(_) => "Bytes",
            Item::Draft(_) | Item::Shared(_) => "Tensor",
            Item::Fields(ty, _) | Item::Elsewhere(ty, _) => ty,
            Item::Growing(_) | Item::Pushed(_) => "Frames",
            Item::List(_) | Item::Chunks(_) => "List",
            Item::Space(_) => "Space",
            Item::Clips(_) => "Clips",
        }
    }

    /// The whole number; of a truth value 0 or 1.
    ///
    /// # Errors
    /// When it is something else; so for all that follow.
    pub fn int(&self) -> Result<i128> {
        match self {
            Item::Value(Value::Int(value)) => Ok(*value),
            Item::Value(Value::Bool(value)) => Ok(i128::from(*value)),
            other => cannot("Int", other),
        }
    }

    /// The real number; whole numbers widen.
    pub fn real(&self) -> Result<f64> {
        match self {
            Item::Value(Value::Real(value)) => Ok(*value),
            Item::Value(Value::Int(value)) => Ok(*value as f64),
            other => cannot("Real", other),
        }
    }

    /// The text.
    pub fn text(&self) -> Result<&str> {
        match self {
            Item::Value(Value::Text(text)) => Ok(text),
            other => cannot("Text", other),
        }
    }

    /// The text, or the bytes.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self {
            Item::Value(Value::Text(text)) => Ok(text.as_bytes()),
            Item::Bytes(bytes) => Ok(bytes),
            other => cannot("Text or Bytes", other),
        }
    }

    /// The number of items or fields; 0 for all that has neither.
    pub fn len(&self) -> usize {
        match self {
            Item::Value(Value::List(items)) => items.len(),
            Item::Value(Value::Custom(record)) => record.fields.len(),
            Item::List(items) | Item::Fields(_, items) => items.len(),
            Item::Chunks(frames) => frames.chunk_count(),
            other => other.field_names().len(),
        }
    }

    /// Whether it has neither items nor fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn field_names(&self) -> &'static [&'static str] {
        match self {
            Item::Value(Value::Latent(_)) => &LATENT,
            Item::Value(Value::Conditioning(_)) => &CONDITIONING,
            Item::Value(Value::Patches(_)) => &PATCHES,
            Item::Value(Value::Frames(_)) | Item::Growing(_) | Item::Pushed(_) => &FRAMES,
            _ => &[],
        }
    }

    /// The name of an item or field.
    pub fn name(&self, index: usize) -> &str {
        match self {
            Item::Value(Value::List(items)) => {
                items.get(index).and_then(|(name, _)| name.as_deref()).unwrap_or_default()
            }
            Item::Value(Value::Custom(record)) => {
                record.fields.get(index).map(|(name, _)| &**name).unwrap_or_default()
            }
            Item::List(items) | Item::Fields(_, items) => {
                items.get(index).map(|(name, _)| &**name).unwrap_or_default()
            }
            other => other.field_names().get(index).copied().unwrap_or_default(),
        }
    }

    /// An item or field by its index.
    pub fn item(&self, index: usize) -> Result<Item> {
        let missing = || Error::failed(format!("it has no item {index}, only {}", self.len()));
        match self {
            Item::Value(Value::List(items)) => {
                items.get(index).map(|(_, value)| Item::Value(value.clone())).ok_or_else(missing)
            }
            Item::Value(Value::Custom(record)) => {
                let field = record.fields.get(index);
                field.map(|(_, value)| Item::Value(value.clone())).ok_or_else(missing)
            }
            Item::List(items) | Item::Fields(_, items) => {
                items.get(index).map(|(_, item)| item.clone()).ok_or_else(missing)
            }
            Item::Chunks(frames) => Ok(Item::Value(Value::Tensor(frames.chunk(index)?))),
            other => {
                let name = other.field_names().get(index).ok_or_else(missing)?;
                other.field(name)?.ok_or_else(missing)
            }
        }
    }

    /// A field by its name; none where it has none.
    pub fn field(&self, name: &str) -> Result<Option<Item>> {
        let tensor = |tensor: &Tensor| Some(Item::Value(Value::Tensor(tensor.clone())));
        let int = |value: usize| Some(Item::Value(Value::Int(value as i128)));
        Ok(match self {
            Item::Value(Value::Custom(record)) => {
                let field = record.fields.iter().find(|(field, _)| **field == *name);
                field.map(|(_, value)| Item::Value(value.clone()))
            }
            // Frames that are looked at are done.
            Item::Growing(growing) => {
                return Item::Value(Value::Frames(growing.finish()?)).field(name);
            }
            Item::Pushed(pushed) => return pushed.finish()?.field(name),
            Item::Fields(_, fields) => {
                fields.iter().find(|(field, _)| **field == *name).map(|(_, item)| item.clone())
            }
            Item::Value(Value::Latent(latent)) => match name {
                "tensor" => tensor(&latent.tensor),
                "space" => Some(Item::Space(latent.space.clone())),
                _ => None,
            },
            Item::Value(Value::Conditioning(both)) => match name {
                "positive" => tensor(both.positive.text()?),
                "negative" => tensor(both.negative.text()?),
                _ => None,
            },
            Item::Value(Value::Patches(patches)) => match name {
                "tokens" => tensor(&patches.tokens),
                "clips" => Some(Item::Clips(patches.clips.as_slice().into())),
                "patch" => {
                    let sizes = patches.patch.map(|size| (None, Value::Int(size as i128)));
                    Some(Item::Value(Value::List(Arc::new(sizes))))
                }
                _ => None,
            },
            Item::Value(Value::Frames(frames)) => match name {
                "chunks" => Some(Item::Chunks(Arc::clone(frames))),
                "fps" => frames.fps().map(|fps| Item::Value(Value::Real(fps))),
                "count" => int(frames.count()),
                "height" => int(frames.height()),
                "width" => int(frames.width()),
                _ => None,
            },
            _ => None,
        })
    }
}
