//! What a convolution is given: packed weights, and frames with their past.

use candle_core::{DType, Tensor, bail};
use half::bf16;

use crate::dense::{fast, fast_mixed, tensor};
use crate::micro::{COLUMNS, Precision};
use crate::packed::PackedMatrix;
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
pub(crate) enum Held {
    /// As tensors.
    Rows {
        /// `[kt, kh, kw·cin, cout]`
        rows: Tensor,
        /// The same with channels padded to whole vectors, where those are few.
        padded: Option<Tensor>,
    },
    /// As products read them, `[cout, kt·kh·kw·cin]`, where cin is filled up with zeros to whole
    /// words: those of bf16 on the CPU.
    Panels(PackedMatrix),
}

impl ConvWeights {
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
        let held = match weight.dtype() == DType::BF16 && fast_mixed(&[&weight]) {
            true => Held::Panels(panels(&weight)?),
            false => {
                let rows = weight.permute((2, 3, 4, 1, 0))?.force_contiguous()?;
                let rows = rows.reshape((kt, kh, kw * cin, cout))?; // [kt, kh, kw·cin, cout]
                let padded = pad_channels(&rows, cout)?;
                Held::Rows { rows, padded }
            }
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

    /// The weights, `[kt, kh, kw·cin, cout]`: a copy where they are packed for products of bf16.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn rows(&self) -> Result<Tensor> {
        let matrix = match &self.held {
            Held::Rows { rows, .. } => return Ok(rows.clone()),
            Held::Panels(matrix) => matrix,
        };
        let ([kt, kh, kw], [cin, cout]) = (self.kernel, self.channels);
        let wide = numbers(matrix)?.reshape((cout, kt, kh, kw, self.word_channels()))?;
        let rows = wide.narrow(4, 0, cin)?.permute((1, 2, 3, 4, 0))?.force_contiguous()?;
        rows.reshape((kt, kh, kw * cin, cout))
    }

    /// The form in which they are held.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Input channels as the packed weights have them: whole words.
    pub(crate) fn word_channels(&self) -> usize {
        let [cin, _] = self.channels;
        match &self.held {
            Held::Rows { .. } => cin,
            Held::Panels(matrix) => cin.next_multiple_of(matrix.precision().in_word()),
        }
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

/// Weights `[cout, cin, kt, kh, kw]` of bf16 in panels.
fn panels(weight: &Tensor) -> Result<PackedMatrix> {
    let (cout, cin, ..) = weight.dims5()?;
    let missing = cin % Precision::Bf16.in_word();
    let weight = weight.permute((0, 2, 3, 4, 1))?.pad_with_zeros(4, 0, missing)?;
    PackedMatrix::pack(&weight.force_contiguous()?.reshape((cout, ()))?, Precision::Bf16)
}

/// The numbers of a matrix of bf16 that is packed.
fn numbers(matrix: &PackedMatrix) -> Result<Tensor> {
    let [out, inner] = matrix.dims();
    let (mut numbers, mut room) = (vec![bf16::ZERO; out * inner], Vec::new());
    for (panel, rows) in numbers.chunks_mut(COLUMNS * inner).enumerate() {
        let words = matrix.panel(panel, 0..matrix.depth(), &mut room);
        for (row, numbers) in rows.chunks_exact_mut(inner).enumerate() {
            let words = words[row..].iter().step_by(COLUMNS);
            for (pair, word) in numbers.chunks_mut(2).zip(words) {
                let halves = [*word as u16, (word >> 16) as u16];
                pair.iter_mut()
                    .zip(halves)
                    .for_each(|(number, bits)| *number = bf16::from_bits(bits));
            }
        }
    }
    tensor(numbers, (out, inner))
}

/// Weights for [`direct`], where it can be used.
fn pad_channels(packed: &Tensor, cout: usize) -> Result<Option<Tensor>> {
    let lanes = cout.next_multiple_of(math::LANES);
    let size = packed.elem_count() / cout * lanes;
    if cout > direct::MAX_CHANNELS || size > direct::MAX_WEIGHTS || !fast(&[packed]) {
        return Ok(None);
    }
    let missing = lanes - cout;
    packed.pad_with_zeros(3, 0, missing)?.force_contiguous().map(Some)
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
