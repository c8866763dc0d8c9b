//! What a part is converted to, and what becomes of a tensor then.

use candle_core::DType;
use kino_kernels::BlockType;

use crate::checkpoint::{NarrowWeight, SingleFormat, StoredType};

/// The type that numbers are converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertTo {
    /// As they are.
    Same,
    /// Each number alone: f32, f16 or bf16.
    Plain(DType),
    /// Matrices of eight bits a number (E4M3) with a scale each, as ComfyUI has them.
    ScaledFp8,
    /// Matrices in ggml's blocks.
    Blocks(BlockType),
}

impl ConvertTo {
    /// The types by their names, such as `bf16` and `q4_k`.
    pub fn named() -> Vec<(String, Self)> {
        let plain = [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];
        let plain = plain.map(|(name, dtype)| (name.to_owned(), Self::Plain(dtype)));
        let blocks = BlockType::ALL.iter().rev();
        let blocks = blocks.map(|blocks| (blocks.name().to_lowercase(), Self::Blocks(*blocks)));
        plain.into_iter().chain([("fp8".to_owned(), Self::ScaledFp8)]).chain(blocks).collect()
    }
}

/// Where a part goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into a model in the diffusers layout.
    Folder,
    /// Into a file of its own.
    File(SingleFormat),
}

/// What becomes of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Their bytes stay as they are.
    Stored,
    Plain(DType),
    Fp8,
    Blocks(BlockType),
}

/// Tensors of so many numbers stay exact in GGUF files (ComfyUI-GGUF's `QUANTIZATION_THRESHOLD`).
const SMALL: usize = 1024;

/// What the choice depends on beside the type that is asked for.
pub(super) struct About<'a> {
    pub(super) stored: StoredType,
    pub(super) shape: &'a [usize],
    pub(super) narrow: NarrowWeight,
    /// Whether what the numbers are multiplied by goes along, or is 1.
    pub(super) is_whole: bool,
}

impl About<'_> {
    fn is_large(&self) -> bool {
        self.shape.iter().product::<usize>() > SMALL
    }

    fn is_matrix(&self) -> bool {
        self.shape.len() == 2
    }

    /// What these numbers become, or none where only a type that is asked for would say so.
    pub(super) fn target(&self, to: ConvertTo, destination: Destination) -> Option<Target> {
        let found = match (to, destination) {
            (ConvertTo::Same, Destination::File(SingleFormat::Safetensors)) => match self.stored {
                StoredType::Blocks(_) => return None,
                _ => return Some(Target::Stored),
            },
            (ConvertTo::Same, _) => match self.stored {
                StoredType::Blocks(blocks)
                    if destination == Destination::File(SingleFormat::Gguf) =>
                {
                    Target::Blocks(blocks)
                }
                StoredType::Plain(DType::F32 | DType::F16 | DType::BF16) => self.exact(destination),
                _ => return None,
            },
            (ConvertTo::Plain(dtype), Destination::File(SingleFormat::Gguf)) => {
                self.plain_in_gguf(dtype)
            }
            (ConvertTo::Plain(dtype), _) => Target::Plain(dtype),
            (ConvertTo::ScaledFp8, _) => match self.narrow == NarrowWeight::Any && self.is_matrix()
            {
                true => Target::Fp8,
                false => self.exact(destination),
            },
            (ConvertTo::Blocks(blocks), _) => self.blocks(blocks, destination),
        };
        let is_same = match (found, self.stored) {
            (Target::Plain(to), StoredType::Plain(own)) => to == own,
            (Target::Blocks(to), StoredType::Blocks(own)) => to == own,
            _ => false,
        };
        Some(if is_same && self.is_whole { Target::Stored } else { found })
    }

    /// Blocks of this form, or of Q8_0 where rows are no whole number of those, or none at all.
    fn blocks(&self, blocks: BlockType, destination: Destination) -> Target {
        let &[_, row] = self.shape else { return self.exact(destination) };
        let fits = |blocks: &BlockType| blocks.bytes_of(row).is_some();
        let found = [blocks, BlockType::Q8_0].into_iter().find(fits);
        match (self.narrow, found) {
            (NarrowWeight::Never, _) | (_, None) => self.exact(destination),
            (_, Some(found)) => Target::Blocks(found),
        }
    }

    /// No number changes: halves stay halves, and what is narrower becomes f32.
    fn exact(&self, destination: Destination) -> Target {
        match (self.stored, destination) {
            (StoredType::Plain(dtype @ (DType::F32 | DType::F16)), _) => Target::Plain(dtype),
            // Readers of GGUF take bf16 as a packed form, which only matrices have.
            (StoredType::Plain(DType::BF16), Destination::File(SingleFormat::Gguf)) => {
                match self.is_matrix() && self.is_large() {
                    true => Target::Plain(DType::BF16),
                    false => Target::Plain(DType::F32),
                }
            }
            (StoredType::Plain(DType::BF16), _) => Target::Plain(DType::BF16),
            _ => Target::Plain(DType::F32),
        }
    }

    /// As ComfyUI-GGUF's converter has it: what is small, and tables of modulation, stay f32.
    fn plain_in_gguf(&self, dtype: DType) -> Target {
        let is_kernel = self.shape.len() >= 4;
        match dtype {
            DType::F16 if self.is_large() && (self.is_matrix() || is_kernel) => {
                Target::Plain(dtype)
            }
            DType::BF16 if self.is_large() && self.is_matrix() => Target::Plain(dtype),
            _ => Target::Plain(DType::F32),
        }
    }
}
