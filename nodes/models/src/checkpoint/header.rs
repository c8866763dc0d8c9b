//! What a file of weights says of its tensors, whatever its format: names, types, shapes, places.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::DType;
use kino_kernels::BlockType;

/// A form in which numbers are stored that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// Each number alone.
    Plain(DType),
    /// Numbers of eight bits with five of exponent, each alone; scales may stand beside them.
    E5m2,
    /// Whole numbers of eight bits; scales beside them, and what was done before they were rounded,
    /// stand in tensors of their own.
    Int8,
    /// Blocks of numbers that share their scales (GGUF).
    Blocks(BlockType),
}

impl StoredType {
    /// Whether a number has eight bits, some of exponent.
    pub(crate) fn is_fp8(self) -> bool {
        matches!(self, StoredType::Plain(DType::F8E4M3) | StoredType::E5m2)
    }
}

/// Where a file says what the config of its part was, as JSON: so a model whose sizes do not follow
/// from its weights alone stands alone, too. What else reads such files passes over it.
pub(crate) const CONFIG: &str = "kinograph.config";

/// Where the authors of LTX-Video, and who converts their files, say what the configs of its parts
/// were, as JSON.
pub(crate) const AUTHORS_CONFIG: &str = "config";

/// A tensor as a header tells of it.
#[derive(Clone)]
pub(crate) struct StoredTensor {
    /// Its name in the file.
    pub(crate) name: String,
    /// Whether it is some rows of what has that name.
    pub(crate) is_rows: bool,
    /// The form in which it is stored, where that is read.
    pub(crate) stored: Option<StoredType>,
    /// What its format calls that form.
    pub(crate) type_name: Cow<'static, str>,
    pub(crate) shape: Vec<usize>,
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) length: u64,
}

/// The header of a file of weights: every tensor lies inside the file, and no name stands twice.
#[derive(Clone)]
pub(crate) struct Header {
    /// Where the data begin; all before them is the header.
    pub(crate) data_start: u64,
    /// In the order of their places.
    pub(crate) tensors: Vec<StoredTensor>,
    /// What the file says about itself.
    pub(crate) metadata: HashMap<String, String>,
}
