//! The product of activations and a weight matrix, and what becomes of its sums.

use candle_core::{DType, Device, Tensor, bail};

use crate::blocks::{BlockType, row_numbers};
use crate::dense::{Dense, Numbers, fast_mixed, tensor};
use crate::int8::RoundedRows;
use crate::micro::Precision;
use crate::number::Number;
use crate::pack::Lines;
use crate::packed::{PackedMatrix, SumScale, WeightScale};
use crate::product::product;
use crate::rotate::rotate_groups;
use crate::rows::{PerRow, Rows, rows_of};
use crate::tier::by_tier;
use crate::{Result, card, composite, math};

/// What becomes of the sums of a linear layer, after its bias. It costs no pass over memory.
#[derive(Debug, Clone, Copy, Default)]
pub enum LinearEpilogue<'a> {
    /// Nothing.
    #[default]
    None,
    /// GELU in its tanh form.
    GeluTanh,
    /// They are added to a tensor of the shape of the result.
    Add(&'a Tensor),
    /// They are multiplied by a gate, and added: to + y·gate, as [`crate::gate_add`].
    GateAdd {
        /// Of the shape of the result.
        to: &'a Tensor,
        /// `[out]` (or `[1, out]`), or one row for each.
        gate: &'a Tensor,
    },
    /// They are multiplied by a tensor of the shape of the result.
    Times(&'a Tensor),
}

impl<'a> LinearEpilogue<'a> {
    /// The same of a result that is there already.
    pub fn apply(&self, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(y.clone()),
            Self::GeluTanh => crate::gelu_tanh(y),
            Self::Add(to) => crate::add(to, y),
            Self::GateAdd { to, gate } => crate::gate_add(to, y, gate),
            Self::Times(by) => crate::multiply(by, y),
        }
    }

    /// The tensors that it reads.
    fn operands(&self) -> impl Iterator<Item = &'a Tensor> {
        let (one, other) = match *self {
            Self::None | Self::GeluTanh => (None, None),
            Self::Add(tensor) | Self::Times(tensor) => (Some(tensor), None),
            Self::GateAdd { to, gate } => (Some(to), Some(gate)),
        };
        one.into_iter().chain(other)
    }
}

/// x·Wᵀ + b over the last dimension, with the factors multiplied as they are.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[…, out]`, in the
/// type of `x`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    check(x, [out, inner], bias)?;
    let operands: Vec<&Tensor> = bias.into_iter().chain([x, weight]).collect();
    if !fast_mixed(&operands) || operands.iter().any(|t| t.dtype() != x.dtype()) {
        return composite::linear(x, weight, bias);
    }
    let packed = PackedMatrix::pack(weight, Precision::of(x.dtype()))?;
    linear_packed(x, &packed, bias, LinearEpilogue::None)
}

/// x·Wᵀ + b over the last dimension with a matrix that was packed for it, and what `epilogue` makes
/// of it. The factors are multiplied in the precision of the matrix, whatever the type of `x`.
///
/// Shapes: `x` `[…, in]` in f32 or bf16 on the CPU, the matrix `[out, in]`, `bias` `[out]`; the
/// result is `[…, out]`, in the type of `x`.
pub fn linear_packed(
    x: &Tensor,
    weight: &PackedMatrix,
    bias: Option<&Tensor>,
    epilogue: LinearEpilogue,
) -> Result<Tensor> {
    let [out, inner] = weight.dims();
    check(x, [out, inner], bias)?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out;
    }
    let rotated = weight.rotated().map(|group| rotate_groups(x, group)).transpose()?;
    let x = rotated.as_ref().unwrap_or(x);
    if x.elem_count() == 0 || out == 0 {
        return Tensor::zeros(shape, x.dtype(), x.device());
    }
    let operands: Vec<&Tensor> = bias.into_iter().chain(epilogue.operands()).collect();
    if !fast_mixed(&[x]) || !fast_mixed(&operands) {
        bail!("linear: a packed matrix multiplies f32 and bf16 on the CPU, without gradients");
    }
    match DenseEpilogue::new(&epilogue, &shape)? {
        Some(dense) => multiplied(x, weight, bias, &dense, shape),
        None => epilogue.apply(&multiplied(x, weight, bias, &DenseEpilogue::None, shape)?),
    }
}

/// The product itself, of operands that fit.
fn multiplied(
    x: &Tensor,
    weight: &PackedMatrix,
    bias: Option<&Tensor>,
    dense: &DenseEpilogue,
    shape: Vec<usize>,
) -> Result<Tensor> {
    let [out, inner] = weight.dims();
    let (rows, _) = rows_of(x)?;
    let x_dense = Dense::new(x)?;
    let numbers = x_dense.numbers();
    let rounded = match weight.precision() {
        precision @ (Precision::Int8 | Precision::Int8Blocks) => {
            Some(RoundedRows::new(numbers.slice(), rows, inner, precision)?)
        }
        Precision::F32 | Precision::Bf16 => None,
    };
    let lines = match rounded.as_ref().map(RoundedRows::words) {
        Some((words, line)) => Lines::of_words(words, line),
        None => Lines::rows(numbers.slice(), inner),
    };
    let bias = bias.map(Dense::widened).transpose()?;
    let bias = bias.as_ref().map(Dense::read);
    let (bias, rounded) = (bias.as_deref(), rounded.as_ref());
    let finish = Finish { rounded, bias, scale: weight.scale(), end: dense.read(), out };
    match x.dtype() {
        DType::BF16 => tensor(
            product::<half::bf16>(lines, rows, weight, |row, columns, sums, out| {
                finish.row(row, columns, sums);
                half::bf16::narrow(sums, out);
            })?,
            shape,
        ),
        _ => tensor(
            product::<f32>(lines, rows, weight, |row, columns, sums, out| {
                finish.row(row, columns, sums);
                out.copy_from_slice(sums);
            })?,
            shape,
        ),
    }
}

/// x·(scale·W)ᵀ + b over the last dimension, where W is held as E4M3.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]` in U8, `bias` `[out]`; the result is `[…, out]` in
/// the type of `x`.
pub fn linear_e4m3(
    x: &Tensor,
    weight: &Tensor,
    scale: f32,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    if weight.dtype() != DType::U8 {
        bail!("linear_e4m3: a weight of {:?}, expected U8", weight.dtype());
    }
    if let Some(wide) = card::widen_e4m3(weight, scale, x.dtype()) {
        return linear(x, &wide?, bias);
    }
    let operands: Vec<&Tensor> = bias.into_iter().chain([x]).collect();
    if !fast_mixed(&operands) || !matches!(weight.device(), Device::Cpu) {
        return composite::linear_e4m3(x, weight, scale, bias);
    }
    let scale = WeightScale::All(scale);
    let packed = PackedMatrix::pack_e4m3(weight, scale, Precision::of(x.dtype()))?;
    linear_packed(x, &packed, bias, LinearEpilogue::None)
}

/// x·(diag(scales)·W)ᵀ + b over the last dimension, where W is held as signed bytes.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, in]` in U8 (two's complement), `scales` `[out]` in f32,
/// `bias` `[out]`; the result is `[…, out]` in the type of `x`.
pub fn linear_int8(
    x: &Tensor,
    weight: &Tensor,
    scales: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    if weight.dtype() != DType::U8 || scales.dtype() != DType::F32 || scales.dims() != [out] {
        bail!(
            "linear_int8: a weight of {out} rows in {:?}, scales {:?} in {:?}",
            weight.dtype(),
            scales.dims(),
            scales.dtype()
        );
    }
    check(x, [out, inner], bias)?;
    if let Some(wide) = card::widen_int8(weight, scales, x.dtype()) {
        return linear(x, &wide?, bias);
    }
    let operands: Vec<&Tensor> = bias.into_iter().chain([x]).collect();
    if !fast_mixed(&operands) || !matches!(weight.device(), Device::Cpu) {
        return composite::linear_int8(x, weight, scales, bias);
    }
    let packed = PackedMatrix::pack_int8(weight, scales, None, Precision::of(x.dtype()))?;
    linear_packed(x, &packed, bias, LinearEpilogue::None)
}

/// x·Wᵀ + b over the last dimension, where W is held in blocks.
///
/// Shapes: `x` `[…, in]`, `weight` `[out, bytes of a row]` in U8, `bias` `[out]`; the result is
/// `[…, out]` in the type of `x`.
pub fn linear_blocks(
    x: &Tensor,
    weight: &Tensor,
    blocks: BlockType,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    check(x, [weight.dim(0)?, row_numbers(weight, blocks)?], bias)?;
    if let Some(y) = card::multiply_blocks(x, weight, blocks) {
        let y = y?;
        return bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias));
    }
    if let Some(wide) = card::widen_blocks(weight, blocks, x.dtype()) {
        return linear(x, &wide?, bias);
    }
    let operands: Vec<&Tensor> = bias.into_iter().chain([x]).collect();
    if !fast_mixed(&operands) || !matches!(weight.device(), Device::Cpu) {
        return composite::linear_blocks(x, weight, blocks, bias);
    }
    let packed = PackedMatrix::pack_blocks(weight, blocks, Precision::of(x.dtype()))?;
    linear_packed(x, &packed, bias, LinearEpilogue::None)
}

/// The numbers of rows that are held in blocks, in f32: on a card where its kernels are, else on
/// the CPU.
///
/// Shapes: `rows` `[n, bytes of a row]` in U8; the result `[n, in]`.
pub fn widen_rows(rows: &Tensor, blocks: BlockType) -> Result<Tensor> {
    let on_card = card::widen_blocks(rows, blocks, DType::F32);
    on_card.unwrap_or_else(|| crate::blocks::widen_rows(rows, blocks))
}

fn check(x: &Tensor, [out, inner]: [usize; 2], bias: Option<&Tensor>) -> Result<()> {
    if x.dims().last() != Some(&inner) {
        bail!("linear: input {:?} does not end in {inner} as the weight's rows", x.dims());
    }
    match bias {
        Some(bias) if bias.dims() != [out] => {
            bail!("linear: a bias of {:?} for {out} outputs", bias.dims())
        }
        _ => Ok(()),
    }
}

/// An epilogue whose tensors can be read.
enum DenseEpilogue {
    None,
    GeluTanh,
    Add(Dense),
    GateAdd(Dense, PerRow),
    Times(Dense),
}

impl DenseEpilogue {
    /// `None` where a gate broadcasts in a way that is not by rows.
    fn new(epilogue: &LinearEpilogue, shape: &[usize]) -> Result<Option<Self>> {
        let of_result = |tensor: &Tensor| match tensor.dims() == shape {
            true => Dense::new(tensor),
            false => bail!("linear: {:?} beside a result of {shape:?}", tensor.dims()),
        };
        Ok(Some(match epilogue {
            LinearEpilogue::None => Self::None,
            LinearEpilogue::GeluTanh => Self::GeluTanh,
            LinearEpilogue::Add(to) => Self::Add(of_result(to)?),
            LinearEpilogue::GateAdd { to, gate } => match PerRow::new(gate, to)? {
                Some(gate) => Self::GateAdd(of_result(to)?, gate),
                None => return Ok(None),
            },
            LinearEpilogue::Times(by) => Self::Times(of_result(by)?),
        }))
    }

    fn read(&self) -> End<'_> {
        match self {
            Self::None => End::None,
            Self::GeluTanh => End::GeluTanh,
            Self::Add(to) => End::Add(to.numbers()),
            Self::GateAdd(to, gate) => End::GateAdd(to.numbers(), gate.read()),
            Self::Times(by) => End::Times(by.numbers()),
        }
    }
}

/// The numbers of an epilogue.
enum End<'a> {
    None,
    GeluTanh,
    Add(Numbers<'a>),
    GateAdd(Numbers<'a>, Rows<'a>),
    Times(Numbers<'a>),
}

/// What becomes of sums.
struct Finish<'a> {
    /// The rows, where they were rounded, with their scales.
    rounded: Option<&'a RoundedRows>,
    scale: SumScale<'a>,
    bias: Option<&'a [f32]>,
    end: End<'a>,
    /// Columns of the result.
    out: usize,
}

impl Finish<'_> {
    /// Finishes the sums of some columns of a row.
    fn row(&self, row: usize, columns: std::ops::Range<usize>, sums: &mut [f32]) {
        if let Some(rounded) = self.rounded {
            scale(sums, rounded.scale(row));
        }
        match &self.scale {
            SumScale::One => {}
            SumScale::All(factor) => scale(sums, *factor),
            SumScale::Rows(scales) => times(sums, &scales[columns.clone()]),
        }
        if let Some(bias) = self.bias {
            add(sums, &bias[columns.clone()]);
        }
        let start = row * self.out;
        let range = start + columns.start..start + columns.end;
        match &self.end {
            End::None => {}
            End::GeluTanh => gelu_tanh(sums),
            End::Add(to) => to.with(range, |to| add(sums, to)),
            End::GateAdd(to, gate) => to.with(range, |to| {
                gate.with(row, |gate| gate_add(sums, to, &gate[columns]));
            }),
            End::Times(by) => by.with(range, |by| times(sums, by)),
        }
    }
}

by_tier! {
    fn scale<FMA>(y: &mut [f32], factor: f32) {
        y.iter_mut().for_each(|y| *y *= factor);
    }
}

by_tier! {
    fn add<FMA>(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    }
}

by_tier! {
    fn times<FMA>(y: &mut [f32], x: &[f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
    }
}

by_tier! {
    fn gelu_tanh<FMA>(y: &mut [f32]) {
        y.iter_mut().for_each(|y| *y = math::gelu_tanh::<FMA>(*y));
    }
}

by_tier! {
    fn gate_add<FMA>(y: &mut [f32], to: &[f32], gate: &[f32]) {
        for ((y, to), gate) in y.iter_mut().zip(to).zip(gate) {
            *y = math::madd::<FMA>(*y, *gate, *to);
        }
    }
}
