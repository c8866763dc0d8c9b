//! What a convolution is given: packed weights, and frames with their past.

use std::sync::Arc;

use candle_core::{DType, Tensor, bail};
use half::bf16;

use crate::dense::{fast, fast_mixed, tensor};
use crate::micro::{COLUMNS, Precision};
use crate::number::Number;
use crate::packed::PackedMatrix;
use crate::winograd::{self, WinogradWeights};
use crate::{Result, direct, math};

/// Weights of a convolution, packed once when they are loaded.
#[derive(Debug, Clone)]
pub struct ConvWeights {
    held: Held,
    pub(crate) bias: Option<Tensor>,
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) channels: [usize; 2],
}

/// The numbers of a kernel.
#[derive(Debug, Clone)]
enum Held {
    /// As a tensor, `[kt, kh, kw·cin, cout]`: on a device, of a type that is not packed, or with
    /// gradients.
    Rows(Tensor),
    /// Those of f32 and bf16 on the CPU.
    Packed(PackedWeights),
}

/// Weights as convolutions on the CPU read them.
#[derive(Debug, Clone)]
pub(crate) struct PackedWeights {
    /// `[cout, kt·kh·kw·cin]`, where cin is filled up with zeros to whole words.
    pub(crate) matrix: PackedMatrix,
    /// `[kt, kh, kw·cin, lanes]`: channels padded to whole vectors, where [`direct`] is faster.
    pub(crate) padded: Option<Arc<[f32]>>,
    /// Transformed, where that takes fewer products.
    pub(crate) winograd: Option<WinogradWeights>,
}

impl PackedWeights {
    /// Packs weights `[cout, cin, kt, kh, kw]` in their own type.
    fn new(weight: &Tensor, stride: [usize; 3]) -> Result<Self> {
        let winograd = match weight.dtype() {
            DType::F32 => WinogradWeights::new(weight, stride)?,
            _ => None,
        };
        Ok(Self { matrix: panels(weight)?, padded: pad_channels(weight)?, winograd })
    }
}

impl ConvWeights {
    /// Bytes that weights of f32, `[cout, cin, kt, kh, kw]` or `[cout, cin, kh, kw]`, take on the CPU
    /// beside their numbers, where their stride is 1: those of transformed kernels.
    pub fn bytes_beside(shape: &[usize]) -> u64 {
        let numbers = match *shape {
            [cout, cin, kh, kw] => winograd::numbers([cout, cin, 1, kh, kw]),
            [cout, cin, kt, kh, kw] => winograd::numbers([cout, cin, kt, kh, kw]),
            _ => None,
        };
        numbers.map_or(0, |numbers| numbers as u64 * 4)
    }

    /// Packs `weight`, `[cout, cin, kt, kh, kw]` or `[cout, cin, kh, kw]`, and `bias`, `[cout]`.
    ///
    /// `stride` is that of time, height and width.
    pub fn pack(weight: &Tensor, bias: Option<&Tensor>, stride: [usize; 3]) -> Result<Self> {
        let weight = if weight.rank() == 4 { weight.unsqueeze(2)? } else { weight.clone() };
        let (cout, cin, kt, kh, kw) = weight.dims5()?;
        if stride.contains(&0) || [cout, cin, kt, kh, kw].contains(&0) {
            bail!("conv: weight {:?} with stride {stride:?}", weight.dims());
        }
        if let Some(bias) = bias
            && bias.dims() != [cout]
        {
            bail!("conv: bias {:?} for {cout} channels", bias.dims());
        }
        let (kernel, channels) = ([kt, kh, kw], [cin, cout]);
        let held = match fast_mixed(&[&weight]) {
            true => Held::Packed(PackedWeights::new(&weight, stride)?),
            false => Held::Rows(rows(&weight)?),
        };
        Ok(Self { held, bias: bias.cloned(), kernel, stride, channels })
    }

    /// Kernel size in time, height and width.
    pub fn kernel(&self) -> [usize; 3] {
        self.kernel
    }

    /// Steps in time, height and width.
    pub fn stride(&self) -> [usize; 3] {
        self.stride
    }

    /// Channels in and out.
    pub fn channels(&self) -> [usize; 2] {
        self.channels
    }

    /// The weights, `[kt, kh, kw·cin, cout]`: a copy where they are packed.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn rows(&self) -> Result<Tensor> {
        let matrix = match &self.held {
            Held::Rows(rows) => return Ok(rows.clone()),
            Held::Packed(packed) => &packed.matrix,
        };
        let ([kt, kh, kw], [cin, cout]) = (self.kernel, self.channels);
        let wide = numbers(matrix)?.reshape((cout, kt, kh, kw, self.word_channels()))?;
        let rows = wide.narrow(4, 0, cin)?.permute((1, 2, 3, 4, 0))?.force_contiguous()?;
        rows.reshape((kt, kh, kw * cin, cout))
    }

    /// The weights as convolutions on the CPU read them: none where they are not packed.
    pub(crate) fn packed(&self) -> Option<&PackedWeights> {
        match &self.held {
            Held::Rows(_) => None,
            Held::Packed(packed) => Some(packed),
        }
    }

    /// Input channels as the packed weights have them: whole words.
    pub(crate) fn word_channels(&self) -> usize {
        let in_word = self.packed().map_or(1, |packed| packed.matrix.precision().in_word());
        self.channels[0].next_multiple_of(in_word)
    }

    /// The bias, `[cout]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Steps of a window of `kernel` over `length`.
    pub(crate) fn steps(&self, axis: usize, length: usize) -> Result<usize> {
        match length.checked_sub(self.kernel[axis]) {
            Some(room) => Ok(room / self.stride[axis] + 1),
            None => bail!("conv: an axis of {length} under a kernel of {}", self.kernel[axis]),
        }
    }
}

/// Weights `[cout, cin, kt, kh, kw]` as `[kt, kh, kw·cin, cout]`.
fn rows(weight: &Tensor) -> Result<Tensor> {
    let (cout, cin, kt, kh, kw) = weight.dims5()?;
    let rows = weight.permute((2, 3, 4, 1, 0))?.force_contiguous()?;
    rows.reshape((kt, kh, kw * cin, cout))
}

/// Weights `[cout, cin, kt, kh, kw]` in panels, in their own type.
fn panels(weight: &Tensor) -> Result<PackedMatrix> {
    let (cout, cin, ..) = weight.dims5()?;
    let precision = Precision::of(weight.dtype());
    let missing = cin.next_multiple_of(precision.in_word()) - cin;
    let weight = weight.permute((0, 2, 3, 4, 1))?.pad_with_zeros(4, 0, missing)?;
    PackedMatrix::pack(&weight.force_contiguous()?.reshape((cout, ()))?, precision)
}

/// The numbers of a matrix that is packed.
fn numbers(matrix: &PackedMatrix) -> Result<Tensor> {
    match matrix.precision() {
        Precision::F32 => unpacked(matrix, |word| [f32::from_bits(word)]),
        Precision::Bf16 => {
            unpacked(matrix, |word| [word as u16, (word >> 16) as u16].map(bf16::from_bits))
        }
        Precision::Int8 | Precision::Int8Blocks => unreachable!("convolutions are not rounded"),
    }
}

/// The same, where a word holds `N` numbers.
fn unpacked<T: Number, const N: usize>(
    matrix: &PackedMatrix,
    numbers_of: impl Fn(u32) -> [T; N],
) -> Result<Tensor> {
    let [out, inner] = matrix.dims();
    let (mut numbers, mut room) = (vec![T::default(); out * inner], Vec::new());
    for (panel, rows) in numbers.chunks_mut(COLUMNS * inner).enumerate() {
        let words = matrix.panel(panel, 0..matrix.depth(), &mut room);
        for (row, numbers) in rows.chunks_exact_mut(inner).enumerate() {
            let words = words[row..].iter().step_by(COLUMNS);
            for (numbers, word) in numbers.chunks_mut(N).zip(words) {
                numbers.copy_from_slice(&numbers_of(*word)[..numbers.len()]);
            }
        }
    }
    tensor(numbers, (out, inner))
}

/// Weights `[cout, cin, kt, kh, kw]` for [`direct`], where it is faster.
fn pad_channels(weight: &Tensor) -> Result<Option<Arc<[f32]>>> {
    let cout = weight.dim(0)?;
    let lanes = cout.next_multiple_of(math::LANES);
    let size = weight.elem_count() / cout * lanes;
    if cout > direct::MAX_CHANNELS || size > direct::MAX_WEIGHTS || !fast(&[weight]) {
        return Ok(None);
    }
    let padded = rows(weight)?.pad_with_zeros(3, 0, lanes - cout)?;
    Ok(Some(padded.flatten_all()?.to_vec1()?.into()))
}

/// Frames that enter a convolution: `zeros` black ones, then the past, then the new.
#[derive(Debug, Clone, Copy)]
pub struct ConvInput<'a> {
    /// Frames of zeros before everything; they cost nothing.
    pub zeros: usize,
    /// Frames kept from the chunk before, `[p, h, w, c]`.
    pub past: Option<&'a Tensor>,
    /// The frames of this chunk, `[t, h, w, c]`.
    pub frames: &'a Tensor,
}

impl<'a> ConvInput<'a> {
    /// Frames without a past.
    pub fn new(frames: &'a Tensor) -> Self {
        Self { zeros: 0, past: None, frames }
    }
}
