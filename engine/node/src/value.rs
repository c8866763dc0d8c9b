//! The values that travel along edges: immutable and shared.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{CpuStorage, Storage, Tensor};
use kino_port::{Literal, PortType};

use crate::{Conditioning, Error, Frames, Guider, Latent, Named, Patches, Result, Sigmas};

/// A part of a model, opaque to the engine.
#[derive(Clone)]
pub struct Part {
    /// Which part: TextEncoder, ImageEncoder, Dit, Vae.
    pub ty: PortType,
    /// The part itself; the nodes know its type.
    pub handle: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({})", self.ty)
    }
}

/// A file that a node wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileOut {
    /// Where it stands.
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
    Part(Part),
    /// Text embeddings.
    Conditioning(Arc<Conditioning>),
    /// A latent.
    Latent(Arc<Latent>),
    /// Packed patches.
    Patches(Arc<Patches>),
    /// Noise levels.
    Sigmas(Sigmas),
    /// A guider.
    Guider(Arc<dyn Guider>),
    /// Video frames.
    Frames(Arc<Frames>),
    /// A tensor.
    Tensor(Tensor),
    /// A file that was written.
    File(Arc<FileOut>),
    /// Several values, each with its name where it has one.
    List(Arc<[Named<Value>]>),
    /// A value of a type of a plugin's own.
    Custom(Arc<Record>),
}

/// A value of a plugin's own type: named fields.
#[derive(Clone, Debug)]
pub struct Record {
    /// The type's name, such as `example.depth`.
    pub ty: Arc<str>,
    /// The fields, in the order in which they were given.
    pub fields: Vec<(Arc<str>, Value)>,
}

impl Value {
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
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "Text",
            Value::Int(_) => "Int",
            Value::Real(_) => "Real",
            Value::Bool(_) => "Bool",
            Value::Part(_) => "a part of a model",
            Value::Conditioning(_) => "Conditioning",
            Value::Latent(_) => "Latent",
            Value::Patches(_) => "Patches",
            Value::Sigmas(_) => "Sigmas",
            Value::Guider(_) => "Guider",
            Value::Frames(_) => "Frames",
            Value::Tensor(_) => "Tensor",
            Value::File(_) => "File",
            Value::List(_) => "List",
            Value::Custom(_) => "a value of a plugin's own type",
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
            Value::Latent(latent) => Ok(latent.tensor.clone()),
            Value::Patches(patches) => Ok(patches.tokens.clone()),
            Value::Conditioning(conditioning) => conditioning.positive.text().cloned(),
            Value::Frames(frames) => frames.whole(),
            Value::Sigmas(sigmas) => {
                let levels: Vec<f32> = sigmas.0.iter().map(|sigma| sigma.0 as f32).collect();
                Ok(Tensor::new(levels, &candle_core::Device::Cpu)?)
            }
            other => Err(Error::failed(format!("{} holds no tensor", other.kind()))),
        }
    }

    /// The bytes of tensor data that the value keeps alive in memory.
    pub fn bytes(&self) -> u64 {
        let of = storage_bytes;
        match self {
            Value::Tensor(tensor) => of(tensor),
            Value::Latent(latent) => of(&latent.tensor),
            Value::Patches(patches) => of(&patches.tokens),
            Value::Conditioning(both) => {
                both.positive.tensors().chain(both.negative.tensors()).map(of).sum()
            }
            Value::Frames(frames) => frames.resident(),
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
            Value::Frames(frames) => frames.bytes() - frames.resident(),
            Value::List(items) => items.iter().map(|(_, item)| item.spilled()).sum(),
            Value::Custom(record) => record.fields.iter().map(|(_, field)| field.spilled()).sum(),
            _ => 0,
        }
    }

    /// The bytes among [`Value::bytes`] that no lease of the value's own counts.
    pub fn unleased(&self) -> u64 {
        match self {
            Value::Frames(frames) => frames.unleased(),
            Value::List(items) => items.iter().map(|(_, item)| item.unleased()).sum(),
            Value::Custom(record) => record.fields.iter().map(|(_, field)| field.unleased()).sum(),
            other => other.bytes(),
        }
    }

    /// Whether somebody else holds it, so that dropping it frees no frames.
    pub fn is_shared(&self) -> bool {
        match self {
            Value::Frames(frames) => Arc::strong_count(frames) > 1,
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

/// The bytes that a tensor keeps alive: all of its storage, however small a part it shows.
fn storage_bytes(tensor: &Tensor) -> u64 {
    let (storage, _) = tensor.storage_and_layout();
    let elements = match &*storage {
        Storage::Cpu(CpuStorage::U8(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::U32(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::I64(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::BF16(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F16(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F32(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F64(elements)) => elements.len(),
        // What a device allocated is not said.
        _ => tensor.elem_count(),
    };
    (elements * tensor.dtype().size_in_bytes()) as u64
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Tensor(tensor) => write!(f, "Tensor{:?}", tensor.dims()),
            Value::Latent(latent) => write!(f, "Latent{:?}", latent.tensor.dims()),
            Value::Frames(frames) => write!(f, "{frames:?}"),
            Value::File(file) => write!(f, "File({})", file.path.display()),
            Value::List(items) => {
                f.debug_list().entries(items.iter().map(|(_, item)| item)).finish()
            }
            Value::Custom(record) => write!(f, "{} {:?}", record.ty, record.fields),
            other => f.write_str(other.kind()),
        }
    }
}
