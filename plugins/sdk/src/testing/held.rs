//! Values of the reference host.

use std::sync::Arc;

use kino_contract::{FramesSize, frame_rate};

use super::array::Array;
use super::operations::cast;
use crate::DType;

/// What a function of the reference host gives: a value, or why not.
pub(crate) type Outcome<T> = std::result::Result<T, String>;

/// A value as plugins hold it.
pub(crate) type Handle = Arc<Held>;

/// A value.
pub(crate) enum Held {
    Text(String),
    Int(i128),
    Real(f64),
    Bool(bool),
    Tensor(Array),
    List(Vec<(String, Handle)>),
    Record(String, Vec<(String, Handle)>),
    Bytes(Vec<u8>),
    Opaque(String),
}

impl Held {
    pub(crate) fn type_name(&self) -> &str {
        match self {
            Held::Text(_) => "Text",
            Held::Int(_) => "Int",
            Held::Real(_) => "Real",
            Held::Bool(_) => "Bool",
            Held::Tensor(_) => "Tensor",
            Held::List(_) => "List",
            Held::Record(name, _) | Held::Opaque(name) => name,
            Held::Bytes(_) => "Bytes",
        }
    }

    fn refuse<T>(&self, expected: &str) -> Outcome<T> {
        Err(format!("expected {expected}, found {}", self.type_name()))
    }

    pub(crate) fn int(&self) -> Outcome<i128> {
        match self {
            Held::Int(int) => Ok(*int),
            Held::Bool(truth) => Ok(i128::from(*truth)),
            other => other.refuse("Int"),
        }
    }

    pub(crate) fn real(&self) -> Outcome<f64> {
        match self {
            Held::Real(real) => Ok(*real),
            Held::Int(int) => Ok(*int as f64),
            other => other.refuse("Real"),
        }
    }

    pub(crate) fn bytes(&self) -> Outcome<&[u8]> {
        match self {
            Held::Text(text) => Ok(text.as_bytes()),
            Held::Bytes(bytes) => Ok(bytes),
            other => other.refuse("Text or Bytes"),
        }
    }

    /// The tensor that it is, or holds as its field `tensor`.
    pub(crate) fn array(&self) -> Outcome<&Array> {
        let found = match self {
            Held::Record(_, fields) => fields.iter().find(|(name, _)| name == "tensor"),
            _ => None,
        };
        match found.map_or(self, |(_, field)| field) {
            Held::Tensor(array) => Ok(array),
            other => other.refuse("Tensor"),
        }
    }

    fn parts(&self) -> &[(String, Handle)] {
        match self {
            Held::List(parts) | Held::Record(_, parts) => parts,
            _ => &[],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts().len()
    }

    pub(crate) fn item(&self, index: usize) -> Outcome<(&str, Handle)> {
        let found = self.parts().get(index);
        let missing = || format!("it has no item {index}, only {}", self.len());
        found.map(|(name, item)| (name.as_str(), item.clone())).ok_or_else(missing)
    }

    pub(crate) fn field(&self, name: &str) -> Option<Handle> {
        let Held::Record(_, fields) = self else { return None };
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
    }
}

/// Frames in the making.
pub(crate) struct FramesDraft {
    fps: Option<f64>,
    chunks: Vec<(String, Handle)>,
    size: FramesSize,
}

impl FramesDraft {
    /// No frames yet, of a rate where that is known.
    pub(crate) fn new(fps: Option<f64>) -> Outcome<Self> {
        Ok(FramesDraft { fps: frame_rate(fps)?, chunks: Vec::new(), size: FramesSize::default() })
    }

    pub(crate) fn push(&mut self, chunk: &Handle) -> Outcome<()> {
        let array = chunk.array()?;
        if self.size.push(&array.dims)? {
            let chunk = match array.dtype {
                DType::F32 => chunk.clone(),
                _ => Arc::new(Held::Tensor(cast(array, DType::F32))),
            };
            self.chunks.push((String::new(), chunk));
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Outcome<Handle> {
        let sizes = self.size.fields()?;
        let mut fields = vec![("chunks".to_owned(), Arc::new(Held::List(self.chunks)))];
        fields.extend(self.fps.map(|fps| ("fps".to_owned(), Arc::new(Held::Real(fps)))));
        let int =
            |(name, size): (&str, usize)| (name.to_owned(), Arc::new(Held::Int(size as i128)));
        fields.extend(sizes.map(int));
        Ok(Arc::new(Held::Record("Frames".to_owned(), fields)))
    }
}
