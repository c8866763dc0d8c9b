//! What can go wrong while models are read and run.

use std::fmt;

use candle_core::DType;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A weight as messages call it: by the name that stands in its file, which a viewer shows, with
/// the one that the diffusers layout has for it, where that is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightName {
    /// The name in the diffusers layout, by which networks ask for it.
    pub name: Box<str>,
    /// The name in the file, where it is another.
    pub in_file: Option<Box<str>>,
    /// Whether the file has it as some rows of what has that name.
    pub is_rows: bool,
}

impl fmt::Display for WeightName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, in_file, is_rows } = self;
        match (in_file, is_rows) {
            (None, _) => write!(f, "`{name}`"),
            (Some(own), false) => write!(f, "`{own}` (`{name}` in the diffusers layout)"),
            (Some(own), true) => {
                write!(f, "`{own}` (some rows of it are `{name}` in the diffusers layout)")
            }
        }
    }
}

/// Everything that can go wrong while a model is read or run.
///
/// Files are named with the folder they lie in, so that a message stands alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller asked to stop; nothing was computed to the end.
    #[error("cancelled")]
    Cancelled,

    /// The operating system refused a file.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file, with its folder.
        file: String,
        /// Why.
        source: std::io::Error,
    },

    /// A file that the model needs is not there.
    #[error("{file} is missing: {hint}")]
    FileMissing {
        /// The file, with its folder.
        file: String,
        /// What to do.
        hint: String,
    },

    /// A pickle was found where weights should be.
    #[error(
        "{file} is a Python pickle (.pt, .ckpt, .bin). Loading one runs the code inside it, so it \
         is refused whatever its name; convert it to safetensors, or take the safetensors file \
         that most model pages offer beside it"
    )]
    Pickle {
        /// The file, with its folder.
        file: String,
    },

    /// A safetensors file whose header cannot be read.
    #[error("{file} is not a valid safetensors file: {reason}")]
    Safetensors {
        /// The file, with its folder.
        file: String,
        /// What the header lacks.
        reason: String,
    },

    /// A GGUF file whose header cannot be read.
    #[error("{file} is not a valid GGUF file: {reason}; download it again")]
    Gguf {
        /// The file, with its folder.
        file: String,
        /// What is wrong with the header.
        reason: String,
    },

    /// A file of weights that ends before its last tensor.
    #[error("{file} is truncated: expected {expected} bytes, found {found}; download it again")]
    Truncated {
        /// The file, with its folder.
        file: String,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },

    /// A file that is not any more what it was when it was opened.
    #[error("{file} changed while it ran")]
    Changed {
        /// The file, with its folder.
        file: String,
    },

    /// What takes the bytes of a file that is written did not take them.
    #[error("{0}")]
    Write(std::io::Error),

    /// There is no memory for a weight.
    #[error("{file}: there is no memory for a weight of {bytes} bytes")]
    OutOfMemory {
        /// The file, with its folder.
        file: String,
        /// The size of the weight.
        bytes: u64,
    },

    /// The weights of a part could not be read when the model was opened.
    #[error("{0}")]
    Part(String),

    /// A weight that the architecture needs is not in the file.
    #[error("{file} has no weight {name}{}", nearest.as_ref().map(|n| format!("; the nearest name it has is `{n}`")).unwrap_or_default())]
    MissingWeight {
        /// The file or folder that was searched.
        file: String,
        /// What it would be called.
        name: WeightName,
        /// The name of the most similar one that exists, in the file.
        nearest: Option<String>,
    },

    /// A weight of eight bits has no scale, where others of its file have one, or it is marked as one
    /// that has.
    #[error(
        "{file}: {weight} is stored in eight bits, and its scale {name} is missing: the file is \
         incomplete; download it again, or take the model in bf16"
    )]
    MissingScale {
        /// The file or folder that was searched.
        file: String,
        /// The weight.
        weight: WeightName,
        /// How its scale would be called.
        name: WeightName,
    },

    /// A weight has another shape than the config says.
    #[error("{file}: weight {name}: expected {expected:?}, found {found:?}")]
    WeightShape {
        /// The file, with its folder.
        file: String,
        /// The weight.
        name: WeightName,
        /// The shape that follows from the config.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A weight is stored in a type that is not read.
    #[error(
        "{file}: weight {name} is stored as {dtype}; this version reads F32, F16, BF16, F8_E4M3, \
         F8_E5M2, matrices of I8 that ComfyUI made, and GGUF's Q2_K to Q6_K, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0"
    )]
    WeightType {
        /// The file, with its folder.
        file: String,
        /// The weight.
        name: WeightName,
        /// The stored type.
        dtype: String,
    },

    /// A config file that does not say what it must.
    #[error("{file}: {reason}")]
    Config {
        /// The file, with its folder.
        file: String,
        /// The key and what is wrong with it.
        reason: String,
    },

    /// A model that is known, but needs what this version does not do.
    #[error("{file}: {what} is not supported yet")]
    Unsupported {
        /// The file, with its folder.
        file: String,
        /// What the model needs.
        what: String,
    },

    /// Arguments of a function that do not fit together.
    #[error("{0}")]
    Input(String),

    /// A compute type in which the models do not run.
    #[error("models compute in f32 or bf16, not in {0:?}")]
    ComputeType(DType),

    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

/// A kernel that was cancelled while it computed is no failure.
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        match kino_kernels::is_cancelled(&error) {
            true => Self::Cancelled,
            false => Self::Tensor(error),
        }
    }
}

impl Error {
    /// An [`Error::Input`] from anything that prints.
    pub(crate) fn input(reason: impl Into<String>) -> Self {
        Self::Input(reason.into())
    }
}
