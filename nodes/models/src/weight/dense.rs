//! What a layer multiplies by, and adapters beside it.

use candle_core::{DType, Device, Tensor};
use kino_kernels::{self as kernels, BlockType, LinearEpilogue, PackedMatrix, Precision};

use crate::error::{Error, Result};

/// What the numbers of a weight are multiplied by.
#[derive(Debug, Clone)]
pub enum Scale {
    /// All by one.
    One(f32),
    /// Those of each row by its own, `[rows]` in f32.
    Rows(Tensor),
}

/// The matrix of a linear layer, in the form in which it is held.
#[derive(Debug, Clone)]
pub enum Weight {
    /// Numbers of one type, `[out, inner]`: f32 or bf16.
    Dense(Tensor),
    /// Packed for the kernels of the CPU: f32, bf16, numbers of eight bits, or blocks.
    Packed(PackedMatrix),
    /// Numbers of eight bits (E4M3), which are widened where they are multiplied.
    E4m3 {
        /// The numbers as bytes, `[out, inner]` in U8.
        bytes: Tensor,
        /// What they are multiplied by.
        scale: Scale,
    },
    /// Whole numbers of eight bits, which are widened where they are multiplied.
    Int8 {
        /// The numbers as bytes, `[out, inner]` in U8.
        bytes: Tensor,
        /// What those of a row are multiplied by, `[out]` in f32.
        scales: Tensor,
        /// How many numbers of a row were rotated together, if they were
        /// ([`kino_kernels::rotate_groups`]).
        group: Option<usize>,
    },
    /// Numbers in blocks that share their scales, which are widened where they are multiplied.
    Blocks {
        /// The blocks as bytes, `[out, bytes of a row]` in U8.
        bytes: Tensor,
        /// Their form.
        blocks: BlockType,
    },
}

impl Weight {
    /// The same numbers as they are multiplied fastest in products of `dtype`: dense ones are packed
    /// on the CPU. Others are packed there while they are read.
    ///
    /// # Errors
    /// When it is no matrix.
    pub fn packed(self, dtype: DType) -> Result<Self> {
        Ok(match self {
            Self::Dense(weight) if matches!(weight.device(), Device::Cpu) => {
                Self::Packed(PackedMatrix::pack(&weight, Precision::of(dtype))?)
            }
            other => other,
        })
    }

    /// x·Wᵀ + bias, and what `epilogue` makes of it. Shapes: `x` `[…, inner]`; the result
    /// `[…, out]`.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn multiply(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        epilogue: LinearEpilogue<'_>,
    ) -> Result<Tensor> {
        let y = match self {
            Self::Packed(weight) => return Ok(kernels::linear_packed(x, weight, bias, epilogue)?),
            Self::Dense(weight) => kernels::linear(x, weight, bias)?,
            Self::E4m3 { bytes, scale: Scale::One(scale) } => {
                kernels::linear_e4m3(x, bytes, *scale, bias)?
            }
            Self::E4m3 { bytes, scale: Scale::Rows(scales) } => {
                let sums = kernels::linear_e4m3(x, bytes, 1.0, None)?.to_dtype(DType::F32)?;
                let y = sums.broadcast_mul(scales)?.to_dtype(x.dtype())?;
                bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(&bias.to_dtype(x.dtype())?))?
            }
            // x·Wᵀ = (x·H)·(W·H)ᵀ, since H is orthogonal.
            Self::Int8 { bytes, scales, group: Some(group) } => {
                kernels::linear_int8(&kernels::rotate_groups(x, *group)?, bytes, scales, bias)?
            }
            Self::Int8 { bytes, scales, group: None } => {
                kernels::linear_int8(x, bytes, scales, bias)?
            }
            Self::Blocks { bytes, blocks } => kernels::linear_blocks(x, bytes, *blocks, bias)?,
        };
        Ok(epilogue.apply(&y)?)
    }

    /// Some of its rows, widened; those of a packed matrix are not to be had. Shapes: `ids` `[n]` in
    /// U32; the result `[n, inner]`.
    ///
    /// # Errors
    /// When an id is none of a row.
    pub fn rows(&self, ids: &Tensor, dtype: DType) -> Result<Tensor> {
        let device = ids.device();
        let rows = match self {
            Self::Packed(_) => return Err(Error::input("rows of a packed matrix are not read")),
            Self::Dense(weight) => weight.index_select(ids, 0)?,
            Self::E4m3 { bytes, scale } => {
                let factor = if let Scale::One(scale) = scale { *scale } else { 1.0 };
                let numbers: Vec<f32> =
                    (0..=255).map(|byte| kernels::e4m3(byte) * factor).collect();
                let bytes = bytes.index_select(ids, 0)?;
                let table = Tensor::from_vec(numbers, 256, device)?;
                // As U32, since an index of 255 in U8 would be none.
                let bytes = bytes.to_dtype(DType::U32)?;
                let wide = table.index_select(&bytes.flatten_all()?, 0)?.reshape(bytes.dims())?;
                match scale {
                    Scale::One(_) => wide,
                    Scale::Rows(scales) => {
                        wide.broadcast_mul(&scales.index_select(ids, 0)?.unsqueeze(1)?)?
                    }
                }
            }
            Self::Int8 { bytes, scales, group } => {
                let wide = kernels::composite::signed_bytes(&bytes.index_select(ids, 0)?)?;
                let scales = scales.index_select(ids, 0)?.unsqueeze(1)?; // [n, 1]
                let wide = wide.broadcast_mul(&scales)?;
                match group {
                    Some(group) => kernels::rotate_groups(&wide, *group)?,
                    None => wide,
                }
            }
            Self::Blocks { bytes, blocks } => {
                kernels::widen_rows(&bytes.index_select(ids, 0)?, *blocks)?.to_device(device)?
            }
        };
        Ok(rows.to_dtype(dtype)?)
    }
}

/// A change of a weight by a matrix of low rank (LoRA, arXiv:2106.09685): scale·B·A.
///
/// It is applied beside the weight, which is shared and stays as it is.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// A, `[rank, inner]`.
    pub down: Tensor,
    /// B, `[out, rank]`.
    pub up: Tensor,
    /// How strongly it counts.
    pub scale: f64,
}

impl Adapter {
    /// What it adds to a layer's result: (scale·x·Aᵀ)·Bᵀ.
    ///
    /// # Errors
    /// When shapes or types differ.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let narrow = (kernels::linear(x, &self.down, None)? * self.scale)?; // […, rank]
        Ok(kernels::linear(&narrow, &self.up, None)?)
    }

    /// What it adds to the weight itself, scale·B·A, `[out, inner]`.
    ///
    /// # Errors
    /// When shapes differ.
    pub(super) fn product(&self) -> Result<Tensor> {
        Ok((self.up.matmul(&self.down)? * self.scale)?)
    }

    /// The same in another type.
    pub(super) fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let (down, up) = (self.down.to_dtype(dtype)?, self.up.to_dtype(dtype)?);
        Ok(Self { down, up, scale: self.scale })
    }
}
