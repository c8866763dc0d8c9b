//! The same operations written in candle's: slow, for every device and type, and the reference of
//! the fast paths. Norms, softmax and modulation are computed in f32 whatever the type.

use candle_core::{D, DType, Tensor, bail};

use crate::blocks::{BlockType, widen_rows};
use crate::e4m3::E4M3;
use crate::filter::{Window, matrix};
use crate::{Activation, ConvInput, ConvWeights, Epilogue, GroupNorm, Padding, Result};

/// Queries per block of [`attention`], so that memory does not grow with their number squared.
const QUERY_BLOCK: usize = 1024;

/// See [`crate::linear`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (out, inner) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    if dims.last() != Some(&inner) {
        bail!(
            "linear: input {dims:?} does not end in {inner}, as the weight [{out}, {inner}] asks"
        );
    }
    let rows = x.elem_count() / inner.max(1);
    let x = x.contiguous()?.reshape((rows, inner))?;
    let y = x.matmul(&weight.t()?)?; // [rows, out]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    y.reshape(dims)
}

/// See [`crate::linear_e4m3`].
pub fn linear_e4m3(
    x: &Tensor,
    weight: &Tensor,
    scale: f32,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let table = Tensor::new(&E4M3.map(|number| number * scale), weight.device())?;
    // As U32, since candle's `index_select` takes an index of 255 in U8 for none at all.
    let bytes = weight.flatten_all()?.to_dtype(DType::U32)?;
    let wide = table.index_select(&bytes, 0)?.reshape(weight.dims())?;
    linear(x, &wide.to_dtype(x.dtype())?, bias)
}

/// See [`crate::linear_blocks`].
pub fn linear_blocks(
    x: &Tensor,
    weight: &Tensor,
    blocks: BlockType,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let wide = widen_rows(weight, blocks)?.to_device(x.device())?;
    linear(x, &wide.to_dtype(x.dtype())?, bias)
}

/// See [`crate::linear_int8`].
pub fn linear_int8(
    x: &Tensor,
    weight: &Tensor,
    scales: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let wide = signed_bytes(weight)?.broadcast_mul(&scales.unsqueeze(1)?)?;
    linear(x, &wide.to_dtype(x.dtype())?, bias)
}

/// Bytes that are whole numbers in two's complement, as f32.
///
/// No table is looked up: candle's `index_select` takes an index of 255 in U8 for none at all.
pub fn signed_bytes(bytes: &Tensor) -> Result<Tensor> {
    let unsigned = bytes.to_dtype(DType::F32)?;
    let negative = unsigned.ge(128.0)?.to_dtype(DType::F32)?;
    unsigned - (negative * 256.0)?
}

/// See [`crate::rotate_groups`].
pub fn rotate_groups(x: &Tensor, group: usize) -> Result<Tensor> {
    // H₄ is negative where the places of row and column add up to 3, digit by digit in base 4.
    let sign = |row: usize, column: usize| {
        let digits = (0..group.ilog2()).step_by(2);
        let negative = digits.filter(|at| (row >> at & 3) + (column >> at & 3) == 3).count();
        if negative.is_multiple_of(2) { 1.0 } else { -1.0 }
    };
    let scale = 1.0 / (group as f32).sqrt();
    let pairs = (0..group).flat_map(|row| (0..group).map(move |column| (row, column)));
    let matrix: Vec<f32> = pairs.map(|(row, column)| sign(row, column) * scale).collect();
    let matrix = Tensor::from_vec(matrix, (group, group), x.device())?.to_dtype(x.dtype())?;
    x.contiguous()?.reshape(((), group))?.matmul(&matrix)?.reshape(x.dims())
}

/// See [`crate::softmax_last`].
pub fn softmax_last(x: &Tensor) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let top = wide.max_keepdim(D::Minus1)?.detach();
    let e = wide.broadcast_sub(&top)?.exp()?;
    let sum = e.sum_keepdim(D::Minus1)?;
    e.broadcast_div(&sum)?.to_dtype(x.dtype())
}

/// See [`crate::attention`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor> {
    let (_, queries, _) = q.dims3()?;
    let keys = k.transpose(1, 2)?.contiguous()?; // [heads, d, m]
    let v = v.contiguous()?;
    let mut blocks = Vec::new();
    for start in (0..queries).step_by(QUERY_BLOCK) {
        let q = q.narrow(1, start, QUERY_BLOCK.min(queries - start))?.contiguous()?;
        let scores = (q.matmul(&keys)? * scale)?; // [heads, block, m]
        blocks.push(softmax_last(&scores)?.matmul(&v)?);
    }
    Tensor::cat(&blocks, 1)
}

/// See [`crate::attention_with_bias`].
pub fn attention_with_bias(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    let keys = k.transpose(1, 2)?.contiguous()?; // [heads, d, m]
    let scores = (q.contiguous()?.matmul(&keys)? * scale)?; // [heads, n, m]
    let scores = scores.broadcast_add(&bias.to_dtype(scores.dtype())?)?;
    softmax_last(&scores)?.matmul(&v.contiguous()?)
}

/// See [`crate::attention_by_distance`].
pub fn attention_by_distance(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    scale: f64,
) -> Result<Tensor> {
    let (heads, n, m) = (q.dim(0)?, q.dim(1)?, k.dim(1)?);
    let pairs = (0..n).flat_map(|query| (0..m).map(move |key| (key + n - 1 - query) as u32));
    let pairs = Tensor::from_iter(pairs, q.device())?;
    let bias = bias.contiguous()?.index_select(&pairs, 1)?.reshape((heads, n, m))?;
    attention_with_bias(q, k, v, &bias, scale)
}

/// See [`crate::layer_norm`].
pub fn layer_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let mut y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.to_dtype(DType::F32)?)?;
    }
    y.to_dtype(x.dtype())
}

/// See [`crate::rms_norm`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let y = wide.broadcast_div(&(mean + eps)?.sqrt()?)?;
    y.broadcast_mul(&weight.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}

/// See [`crate::modulate`].
pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    let y = layer_norm(&x.to_dtype(DType::F32)?, None, None, eps)?;
    let scale = (scale.to_dtype(DType::F32)? + 1.0)?;
    let y = y.broadcast_mul(&scale)?.broadcast_add(&shift.to_dtype(DType::F32)?)?;
    y.to_dtype(x.dtype())
}

/// See [`crate::gate_add`].
pub fn gate_add(x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let wide = y.to_dtype(DType::F32)?.broadcast_mul(&gate.to_dtype(DType::F32)?)?;
    (x.to_dtype(DType::F32)? + wide)?.to_dtype(x.dtype())
}

/// See [`crate::rope_interleaved`].
pub fn rope_interleaved(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (n, heads, d) = x.dims3()?;
    let pairs = x.to_dtype(DType::F32)?.reshape((n, heads, d / 2, 2))?; // [n, heads, d/2, 2]
    let (a, b) = (pairs.narrow(3, 0, 1)?, pairs.narrow(3, 1, 1)?);
    let cos = cos.to_dtype(DType::F32)?.reshape((n, 1, d / 2, 1))?;
    let sin = sin.to_dtype(DType::F32)?.reshape((n, 1, d / 2, 1))?;
    let real = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let imaginary = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Tensor::cat(&[real, imaginary], 3)?.reshape((n, heads, d))?.to_dtype(x.dtype())
}

/// See [`crate::rms_norm_rope`].
pub fn rms_norm_rope(
    x: &Tensor,
    weight: &Tensor,
    eps: f64,
    heads: usize,
    (cos, sin): (&Tensor, &Tensor),
) -> Result<Tensor> {
    let (n, width) = x.dims2()?;
    let normed = rms_norm(&x.to_dtype(DType::F32)?, weight, eps)?;
    let turned = rope_interleaved(&normed.reshape((n, heads, width / heads))?, cos, sin)?;
    turned.to_dtype(x.dtype())
}

/// See [`crate::conv`]; `size` is that of the result.
pub fn conv(
    input: ConvInput,
    weights: &ConvWeights,
    residual: Option<&Tensor>,
    size: [usize; 4],
) -> Result<Tensor> {
    conv_sum(&[(input, weights)], &Epilogue { residual, ..Epilogue::default() }, size)
}

/// See [`crate::conv_sum`]; `size` is that of the result, without padding.
pub fn conv_sum(
    parts: &[(ConvInput, &ConvWeights)],
    epilogue: &Epilogue,
    size: [usize; 4],
) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (input, weights) in parts {
        let y = one_conv(*input, weights, size)?;
        sum = Some(match sum {
            Some(sum) => (sum + y)?,
            None => y,
        });
    }
    let Some(y) = sum else { bail!("conv: nothing to convolve") };
    finish(y, epilogue)
}

/// What an epilogue makes of the sum of convolutions.
pub(crate) fn finish(y: Tensor, epilogue: &Epilogue) -> Result<Tensor> {
    let mut y = match epilogue.activation {
        Activation::None => y,
        Activation::Prelu(slopes) => leaky(&y, &slopes.to_dtype(y.dtype())?)?,
        Activation::LeakyRelu(slope) => {
            leaky(&y, &Tensor::new(slope, y.device())?.to_dtype(y.dtype())?)?
        }
        Activation::Silu => y.silu()?,
    };
    if epilogue.scale != 1.0 {
        y = (y * f64::from(epilogue.scale))?;
    }
    let y = pad_plane(&y, epilogue.padding)?;
    let Some(residual) = epilogue.residual else { return Ok(y) };
    // The borders of the residual do not count: the result's are zeros.
    let [top, bottom, left, right] = epilogue.padding;
    let (_, high, wide, _) = residual.dims4()?;
    let inner = residual.narrow(1, top, high - top - bottom)?;
    let inner = inner.narrow(2, left, wide - left - right)?;
    y + pad_plane(&inner, epilogue.padding)?
}

/// max(x, 0) + slope·min(x, 0).
fn leaky(x: &Tensor, slopes: &Tensor) -> Result<Tensor> {
    let below = (x - x.relu()?)?;
    x.relu()? + below.broadcast_mul(slopes)?
}

fn one_conv(
    input: ConvInput,
    weights: &ConvWeights,
    [t, h, w, cout]: [usize; 4],
) -> Result<Tensor> {
    let frames = match input.past {
        Some(past) => Tensor::cat(&[past, input.frames], 0)?,
        None => input.frames.clone(),
    };
    let frames = frames.pad_with_zeros(0, input.zeros, 0)?;
    let ([kt, kh, kw], [cin, _]) = (weights.kernel(), weights.channels());
    let (stride, rows) = (weights.stride(), weights.rows()?);
    let mut sum: Option<Tensor> = None;
    for (dt, dh, dw) in taps(kt, kh, kw) {
        let x = every(&frames, 0, dt, stride[0], t)?;
        let x = every(&every(&x, 1, dh, stride[1], h)?, 2, dw, stride[2], w)?;
        let x = x.force_contiguous()?.reshape((t * h * w, cin))?;
        let tap = rows.get(dt)?.get(dh)?.narrow(0, dw * cin, cin)?; // [cin, cout]
        let y = x.matmul(&tap.force_contiguous()?)?;
        sum = Some(match sum {
            Some(sum) => (sum + y)?,
            None => y,
        });
    }
    let Some(mut y) = sum else { bail!("conv: a kernel without taps") };
    if let Some(bias) = weights.bias() {
        y = y.broadcast_add(bias)?;
    }
    y.reshape((t, h, w, cout))
}

fn taps(kt: usize, kh: usize, kw: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..kt).flat_map(move |t| (0..kh).flat_map(move |h| (0..kw).map(move |w| (t, h, w))))
}

/// `count` slices of an axis, from `start` on, `step` apart.
fn every(x: &Tensor, axis: usize, start: usize, step: usize, count: usize) -> Result<Tensor> {
    if step == 1 {
        return x.narrow(axis, start, count);
    }
    let places: Vec<u32> = (0..count).map(|i| (start + i * step) as u32).collect();
    x.contiguous()?.index_select(&Tensor::new(places, x.device())?, axis)
}

/// See [`crate::channel_norm`].
pub fn channel_norm(x: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let norm = wide.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    let root = (x.dim(D::Minus1)? as f64).sqrt();
    let y = (wide.broadcast_div(&norm)? * root)?;
    y.broadcast_mul(&gamma.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}

/// See [`crate::group_norm`].
pub fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let wide = x.to_dtype(DType::F32)?.reshape((t, h * w, norm.groups, ()))?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(3)?.mean_keepdim(1)?)?;
    let variance = centred.sqr()?.mean_keepdim(3)?.mean_keepdim(1)?;
    let y = centred.broadcast_div(&(variance + norm.eps)?.sqrt()?)?.reshape((t, h, w, c))?;
    let y = y.broadcast_mul(&norm.weight.to_dtype(DType::F32)?)?;
    y.broadcast_add(&norm.bias.to_dtype(DType::F32)?)?.to_dtype(x.dtype())
}

/// See [`crate::pad_plane`].
pub fn pad_plane(x: &Tensor, [top, bottom, left, right]: Padding) -> Result<Tensor> {
    x.pad_with_zeros(1, top, bottom)?.pad_with_zeros(2, left, right)
}

/// See [`crate::upsample_nearest2`].
pub fn upsample_nearest2(x: &Tensor, padding: Padding) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let x = x.contiguous()?.reshape((t, h, 1, w, 1, c))?;
    let x = x.broadcast_as((t, h, 2, w, 2, c))?.force_contiguous()?;
    pad_plane(&x.reshape((t, 2 * h, 2 * w, c))?, padding)
}

/// See [`crate::halves_to_frames`].
pub fn halves_to_frames(x: &Tensor) -> Result<Tensor> {
    let (t, h, w, twice) = x.dims4()?;
    let x = x.contiguous()?.reshape((t, h, w, 2, twice / 2))?;
    x.permute((0, 3, 1, 2, 4))?.force_contiguous()?.reshape((2 * t, h, w, twice / 2))
}

/// See [`crate::pixel_shuffle`].
pub fn pixel_shuffle(x: &Tensor, factor: usize, base: Option<&Tensor>) -> Result<Tensor> {
    let (t, h, w, wide) = x.dims4()?;
    let c = wide / (factor * factor);
    let y = x.contiguous()?.reshape(&[t, h, w, c, factor, factor][..])?;
    let y = match base {
        Some(base) => {
            let base = base.contiguous()?.reshape(&[t, h, w, c, 1, 1][..])?;
            y.broadcast_add(&base)?
        }
        None => y,
    };
    let y = y.permute([0, 1, 4, 2, 5, 3])?; // [t, h, factor, w, factor, c]
    y.force_contiguous()?.reshape((t, h * factor, w * factor, c))
}

/// See [`crate::shrink_bilinear`].
pub fn shrink_bilinear(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    let half = factor / 2 - 1;
    let x = x.contiguous()?.reshape(&[t, h / factor, factor, w / factor, factor, c][..])?;
    x.narrow(2, half, 2)?.narrow(4, half, 2)?.mean(4)?.mean(2)
}

/// See [`crate::warp`].
pub fn warp(x: &Tensor, flow: &Tensor) -> Result<Tensor> {
    let (t, h, w, c) = x.dims4()?;
    // Each axis: the place along it, the whole pixel before, and how far the place lies beyond.
    let along = |channel: usize, length: usize, grid: Tensor| {
        let moved = flow.narrow(3, channel, 1)?.to_dtype(DType::F32)?.broadcast_add(&grid)?;
        let place = moved.clamp(0f32, (length - 1) as f32)?;
        let before = place.floor()?;
        Ok::<_, candle_core::Error>(((place - &before)?, before))
    };
    let device = x.device();
    let columns = Tensor::arange(0f32, w as f32, device)?.reshape((1, 1, w, 1))?;
    let rows = Tensor::arange(0f32, h as f32, device)?.reshape((1, h, 1, 1))?;
    let ((across, left), (down, top)) = (along(0, w, columns)?, along(1, h, rows)?);
    let pixels = x.to_dtype(DType::F32)?.contiguous()?.reshape((t * h * w, c))?;
    let frame = Tensor::arange(0u32, t as u32, device)?.to_dtype(DType::F32)?;
    let frame = (frame.reshape((t, 1, 1, 1))? * h as f64)?;
    let at = |dy: f64, dx: f64| {
        let y = (&top + dy)?.clamp(0f32, (h - 1) as f32)?.broadcast_add(&frame)?;
        let x = (&left + dx)?.clamp(0f32, (w - 1) as f32)?;
        let places = ((y * w as f64)? + x)?.to_dtype(DType::U32)?.flatten_all()?;
        pixels.index_select(&places, 0)?.reshape((t, h, w, c))
    };
    let mix = |a: Tensor, b: Tensor, part: &Tensor| &a + (b - &a)?.broadcast_mul(part)?;
    let upper = mix(at(0.0, 0.0)?, at(0.0, 1.0)?, &across)?;
    let lower = mix(at(1.0, 0.0)?, at(1.0, 1.0)?, &across)?;
    mix(upper, lower, &down)?.to_dtype(x.dtype())
}

/// See [`crate::clamp_finite`].
pub fn clamp_finite(x: &Tensor, low: f32, high: f32) -> Result<Option<Tensor>> {
    // 0·v is 0 for every number, NaN for NaN and ±∞, and a sum carries it.
    let sum = (x * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
    (sum == 0.0).then(|| x.clamp(low, high)).transpose()
}

/// See [`crate::span_attention`].
pub fn span_attention(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let one = y.neg()?.exp()?.affine(1.0, 1.0)?;
    (x + y)? * one.recip()?.affine(1.0, -0.5)?
}

/// See [`crate::resize`].
pub(crate) fn resize(frames: &Tensor, rows: &[Window], columns: &[Window]) -> Result<Tensor> {
    let (f, h, w, c) = frames.dims4()?;
    let x = frames.to_dtype(DType::F32)?.contiguous()?.reshape((f * h, w, c))?;
    let across = matrix(columns, w, &x)?.unsqueeze(0)?; // [1, width, w]
    let x = across.broadcast_matmul(&x)?; // [f·h, width, c]
    let x = x.reshape((f, h, columns.len() * c))?;
    let down = matrix(rows, h, &x)?.unsqueeze(0)?; // [1, height, h]
    let x = down.broadcast_matmul(&x)?; // [f, height, width·c]
    x.reshape((f, rows.len(), columns.len(), c))?.to_dtype(frames.dtype())
}
