//! Where tensors lie in a file that is to be written, and the header that says so: safetensors and
//! GGUF (version 3). Nothing here writes a file, or knows where the numbers come from.

use serde_json::{Map, Value, json};

use super::gguf;
use crate::error::{Error, Result};

/// The type of a tensor's elements, as both formats call it, and the tensor's bytes.
#[derive(Debug, Clone)]
pub(crate) struct NewTensor {
    pub(crate) name: String,
    /// As both formats call it (`F32`, `BF16`), or one of them (`F8_E4M3`, `Q8_0`).
    pub(crate) type_name: String,
    pub(crate) shape: Vec<usize>,
    /// Its bytes.
    pub(crate) length: u64,
}

/// A file that is to be written: its header, then the tensors in order.
#[derive(Debug)]
pub(crate) struct FileLayout {
    pub(crate) header: Vec<u8>,
    /// Which of the tensors that were given comes next, and how many zeros follow it.
    pub(crate) order: Vec<(usize, u64)>,
    /// The length of the file.
    pub(crate) length: u64,
}

/// Types of safetensors from the widest, so that each tensor begins at a multiple of its element.
const BY_WIDTH: [&[&str]; 4] = [
    &["F64", "I64", "U64", "C64"],
    &["F32", "I32", "U32"],
    &["F16", "BF16", "I16", "U16"],
    &[], // all others
];

/// A safetensors file. Its data begin at a multiple of eight bytes, as those do that the public
/// library writes.
pub(crate) fn lay_out_safetensors(
    tensors: &[NewTensor],
    metadata: &[(&str, String)],
) -> FileLayout {
    let width = |tensor: &NewTensor| {
        let wide = BY_WIDTH.iter().position(|types| types.contains(&&*tensor.type_name));
        wide.unwrap_or(BY_WIDTH.len())
    };
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|index| (width(&tensors[*index]), &tensors[*index].name));
    let mut entries = Map::new();
    // What transformers asks for.
    let mut said = Map::from_iter([("format".to_owned(), "pt".into())]);
    said.extend(metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into())));
    entries.insert("__metadata__".to_owned(), said.into());
    let mut at = 0;
    for tensor in order.iter().map(|index| &tensors[*index]) {
        let end = at + tensor.length;
        let entry = json!({
            "dtype": tensor.type_name, "shape": tensor.shape, "data_offsets": [at, end],
        });
        entries.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let header = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
    let length = header.len() as u64 + at;
    FileLayout { header, order: order.into_iter().map(|index| (index, 0)).collect(), length }
}

/// A value of GGUF's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// A number.
    U32(u32),
    /// A number with a fraction.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Numbers with fractions.
    F32s(Vec<f32>),
    /// Whole numbers.
    I32s(Vec<i32>),
}

impl GgufValue {
    /// Its number in the format; of a list that of its items.
    const fn kind(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::I32s(_) => 5,
            Self::F32(_) | Self::F32s(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) | Self::Texts(_) => 8,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        const LIST: u32 = 9;
        let list = |out: &mut Vec<u8>, count: usize| {
            out.extend(LIST.to_le_bytes());
            out.extend(self.kind().to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::Texts(items) => {
                list(out, items.len());
                items.iter().for_each(|item| text(out, item));
                return;
            }
            Self::F32s(items) => {
                list(out, items.len());
                items.iter().for_each(|item| out.extend(item.to_le_bytes()));
                return;
            }
            Self::I32s(items) => {
                list(out, items.len());
                items.iter().for_each(|item| out.extend(item.to_le_bytes()));
                return;
            }
            _ => out.extend(self.kind().to_le_bytes()),
        }
        match self {
            Self::U32(value) => out.extend(value.to_le_bytes()),
            Self::F32(value) => out.extend(value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Text(value) => text(out, value),
            Self::Texts(_) | Self::F32s(_) | Self::I32s(_) => {}
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Dimensions that ggml's tensors have at most. Files of video models have five for the kernels of
/// three-dimensional convolutions, which ComfyUI-GGUF, diffusers and stable-diffusion.cpp read.
const GGML_DIMENSIONS: usize = 4;

/// A GGUF file. The shape of what has more dimensions than ggml also stands in the metadata, where
/// ComfyUI-GGUF looks for it first.
///
/// # Errors
/// When ggml has no such type.
pub(crate) fn lay_out_gguf(
    tensors: &[NewTensor],
    metadata: &[(String, GgufValue)],
) -> Result<FileLayout> {
    let shapes = tensors.iter().filter(|tensor| tensor.shape.len() > GGML_DIMENSIONS).map(|t| {
        let sizes = t.shape.iter().map(|size| i32::try_from(*size).unwrap_or(i32::MAX));
        (format!("{}{}", gguf::ORIGINAL_SHAPE, t.name), GgufValue::I32s(sizes.collect()))
    });
    let entries: Vec<_> = metadata.iter().cloned().chain(shapes).collect();
    let mut header = gguf::MAGIC.to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in &entries {
        text(&mut header, key);
        value.write(&mut header);
    }
    let (mut at, mut order) = (0u64, Vec::with_capacity(tensors.len()));
    for (index, tensor) in tensors.iter().enumerate() {
        let number = gguf::number_of(&tensor.type_name).ok_or_else(|| {
            let NewTensor { name, type_name, .. } = tensor;
            Error::input(format!("`{name}` is stored as {type_name}, which GGUF files have not"))
        })?;
        text(&mut header, &tensor.name);
        // A number alone is a list of one.
        let shape = if tensor.shape.is_empty() { &[1][..] } else { &tensor.shape };
        header.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
        header.extend(number.to_le_bytes());
        header.extend(at.to_le_bytes());
        let end = at + tensor.length;
        at = end.next_multiple_of(gguf::ALIGNMENT);
        order.push((index, at - end));
    }
    header.resize(header.len().next_multiple_of(gguf::ALIGNMENT as usize), 0);
    let length = header.len() as u64 + at;
    Ok(FileLayout { header, order, length })
}
