//! With what the kernels in `cuda/` are started.

use candle_core::{DType, Layout};

use crate::{BlockType, ConvInput, ConvWeights};

/// Queries of a block, and keys that it looks at together (`QUERIES`, `KEYS` in `attention.cuh`).
const QUERIES: usize = 64;
const KEYS: usize = 64;
/// The widths of a head that there are kernels for; narrower ones are filled up with zeros.
const WIDTHS: [usize; 3] = [64, 80, 128];
/// Pixels and channels of a block (`PIXELS`, `CHANNELS` in `conv.cuh`).
const PIXELS: u64 = 128;
const CHANNELS: u64 = 64;
/// Numbers of two bytes that are read at once; of four bytes it is half as many.
const READ_AT_ONCE: usize = 8;
/// Rows that are multiplied by a matrix in blocks where it lies, at most (`FEW_ROWS` in
/// `blocks.cuh`); for more it is widened.
pub(super) const FEW_ROWS: usize = 8;
/// Numbers that a block of threads rotates, or one group where that is more; the longest group.
const ROTATED: usize = 1024;
const LONGEST_GROUP: usize = 4096;

/// A kernel, its grid of blocks, what a block has, and what it is given behind its buffers: those
/// that it reads, then the one that it writes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// Bytes of shared memory.
    pub(super) shared: u32,
    pub(super) values: Vec<Value>,
}

/// An argument that is no buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Int(i32),
    Long(i64),
    Float(f32),
    Attention(AttentionSizes),
    Conv(ConvSizes),
}

/// `AttentionSizes` of `attention.cuh`: strides count numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct AttentionSizes {
    pub(super) query: [i64; 2],
    pub(super) key: [i64; 2],
    pub(super) value: [i64; 2],
    pub(super) bias: [i64; 3],
    pub(super) out: [i64; 2],
    pub(super) queries: i32,
    pub(super) keys: i32,
    pub(super) width: i32,
    pub(super) scale: f32,
}

impl AttentionSizes {
    /// Those of `[heads, n, d]` and twice `[heads, m, d]`. The result lies by tokens if the queries
    /// do. None where numbers are too many for the kernel.
    pub(super) fn new([q, k, v]: [&Layout; 3], bias: Option<&Layout>, scale: f64) -> Option<Self> {
        let [heads, n, d] = *q.dims() else { return None };
        let by_token = is_by_token(q);
        let strides = |layout: &Layout| [layout.stride()[0] as i64, layout.stride()[1] as i64];
        let bias = bias.map_or(&[0; 3][..], Layout::stride);
        Some(Self {
            query: strides(q),
            key: strides(k),
            value: strides(v),
            bias: [bias[0] as i64, bias[1] as i64, bias[2] as i64],
            out: if by_token { [d, heads * d] } else { [n * d, d] }.map(|stride| stride as i64),
            queries: i32::try_from(n).ok()?,
            keys: i32::try_from(k.dims()[1]).ok()?,
            width: d as i32,
            scale: scale as f32,
        })
    }
}

/// Whether a tensor `[heads, n, d]` is a view of `[n, heads, d]`.
pub(super) fn is_by_token(layout: &Layout) -> bool {
    layout.dims()[0] > 1 && layout.stride()[0] < layout.stride()[1]
}

/// Whether a kernel reads a tensor `[heads, length, d]` where it lies: the numbers of a head side
/// by side, and each row where 16 bytes may begin.
pub(super) fn is_readable(layout: &Layout) -> bool {
    let stride = layout.stride();
    let places = [layout.start_offset(), stride[0], stride[1]];
    stride[2] == 1 && places.iter().all(|place| place.is_multiple_of(READ_AT_ONCE))
}

/// Attention of `heads` heads; none where no kernel takes the type or the width.
pub(super) fn attention(dtype: DType, heads: usize, sizes: &AttentionSizes) -> Option<Launch> {
    let width = sizes.width as usize;
    let room = WIDTHS.into_iter().find(|room| width <= *room)?;
    if !width.is_multiple_of(READ_AT_ONCE) || heads > 65_535 {
        return None;
    }
    // Rows of shared memory are 16 bytes longer than a head.
    let (threads, shared) = match dtype {
        DType::F32 => (256, 4 * ((QUERIES + KEYS) * (room + 4) + QUERIES * (KEYS + 4))),
        _ => (128, 2 * 2 * KEYS * (room + 8)),
    };
    let blocks = sizes.queries.unsigned_abs().div_ceil(QUERIES as u32);
    Some(Launch {
        kernel: format!("attention_{}_{room}", name(dtype)?),
        grid: [blocks, heads as u32, 1],
        threads,
        shared: shared as u32,
        values: vec![Value::Attention(*sizes)],
    })
}

/// `ConvSizes` of `conv.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ConvSizes {
    /// Frames, rows, columns, channels of the result.
    pub(super) out: [i32; 4],
    /// Rows and columns of the input, and its channels.
    pub(super) input: [i32; 3],
    pub(super) zeros: i32,
    pub(super) past: i32,
    pub(super) kernel: [i32; 3],
    pub(super) stride: [i32; 3],
}

impl ConvSizes {
    /// Those of a convolution whose result is `size`. None where numbers are too many.
    pub(super) fn new(input: &ConvInput, weights: &ConvWeights, size: [usize; 4]) -> Option<Self> {
        fn narrow<const N: usize>(numbers: [usize; N]) -> Option<[i32; N]> {
            let fits = numbers.iter().all(|number| i32::try_from(*number).is_ok());
            fits.then(|| numbers.map(|number| number as i32))
        }
        let [_, rows, columns, channels] = *input.frames.dims() else { return None };
        let past = input.past.map_or(0, |past| past.dims()[0]);
        let [zeros, past] = narrow([input.zeros, past])?;
        Some(Self {
            out: narrow(size)?,
            input: narrow([rows, columns, channels])?,
            zeros,
            past,
            kernel: narrow(weights.kernel())?,
            stride: narrow(weights.stride())?,
        })
    }
}

/// A convolution; none where no kernel takes the type or the channels, of which 16 bytes are read
/// at once.
pub(super) fn conv(dtype: DType, sizes: &ConvSizes) -> Option<Launch> {
    let at_once = 16 / dtype.size_in_bytes() as i32;
    let [frames, rows, columns, channels] = sizes.out;
    if channels % at_once != 0 || sizes.input[2] % at_once != 0 {
        return None;
    }
    let pixels = [frames, rows, columns].map(i64::from).iter().product::<i64>();
    let blocks = [(pixels as u64).div_ceil(PIXELS), (channels as u64).div_ceil(CHANNELS)];
    // Two pieces of the inputs, [PIXELS, depth], and of the weights, [depth, CHANNELS]; rows are 16
    // bytes longer.
    let (threads, depth, between) = if dtype == DType::F32 { (256, 16, 4) } else { (128, 32, 8) };
    let piece = PIXELS * (depth + between) + depth * (CHANNELS + between);
    Some(Launch {
        kernel: format!("conv_{}", name(dtype)?),
        grid: [
            i32::try_from(blocks[0]).ok()?.unsigned_abs(),
            u16::try_from(blocks[1]).ok()?.into(),
            1,
        ],
        threads,
        shared: (2 * piece) as u32 * dtype.size_in_bytes() as u32,
        values: vec![Value::Conv(*sizes)],
    })
}

/// The norm and rotation of rows of `width` numbers, in heads of `2·half`.
pub(super) fn rms_norm_rope(
    dtype: DType,
    rows: usize,
    [width, half]: [usize; 2],
    eps: f64,
) -> Option<Launch> {
    let [width, half] = [i32::try_from(width).ok()?, i32::try_from(half).ok()?];
    let values = vec![Value::Int(width), Value::Int(half), Value::Float(eps as f32)];
    let launch = in_a_row(format!("rms_norm_rope_{}", name(dtype)?), rows, values)?;
    // A sum of each of eight warps.
    Some(Launch { shared: 32, ..launch })
}

/// The widening of `count` bytes into `dtype`, four by each thread.
pub(super) fn widen_e4m3(dtype: DType, count: usize, scale: f32) -> Option<Launch> {
    let values = vec![Value::Float(scale), Value::Long(count as i64)];
    in_a_row(format!("widen_e4m3_{}", name(dtype)?), count.div_ceil(4 * 256), values)
}

/// The widening of `count` bytes in rows of `inner`, each with its scale, into `dtype`, four by
/// each thread.
pub(super) fn widen_int8(dtype: DType, inner: usize, count: usize) -> Option<Launch> {
    let values = vec![Value::Long(inner as i64), Value::Long(count as i64)];
    in_a_row(format!("widen_int8_{}", name(dtype)?), count.div_ceil(4 * 256), values)
}

/// The widening of blocks of `count` numbers into `dtype`, eight by each thread.
pub(super) fn widen_blocks(dtype: DType, blocks: BlockType, count: usize) -> Option<Launch> {
    let kernel = format!("widen_{}_{}", blocks.name(), name(dtype)?);
    in_a_row(kernel, count.div_ceil(8 * 256), vec![Value::Long(count as i64)])
}

/// The product of a few rows and a matrix `[outs, inner]` in blocks, of which each of eight warps
/// reads a row; none where they are too many.
pub(super) fn multiply_blocks(
    dtype: DType,
    blocks: BlockType,
    rows: usize,
    [outs, inner]: [usize; 2],
) -> Option<Launch> {
    if rows > FEW_ROWS {
        return None;
    }
    let kernel = format!("multiply_{}_{}", blocks.name(), name(dtype)?);
    let sizes = [i32::try_from(rows).ok()?, i32::try_from(inner).ok()?, i32::try_from(outs).ok()?];
    in_a_row(kernel, outs.div_ceil(8), sizes.map(Value::Int).into())
}

/// The rotation of `count` numbers in groups; none where a group is too long.
pub(super) fn rotate_groups(dtype: DType, group: usize, count: usize) -> Option<Launch> {
    if group > LONGEST_GROUP {
        return None;
    }
    let span = ROTATED.max(group);
    let scale = 1.0 / (group as f32).sqrt();
    let sizes = [group, span].map(|size| Value::Int(size as i32));
    let values = sizes.into_iter().chain([Value::Float(scale), Value::Long(count as i64)]);
    let kernel = format!("rotate_groups_{}", name(dtype)?);
    let launch = in_a_row(kernel, count.div_ceil(span), values.collect())?;
    Some(Launch { shared: 4 * span as u32, ..launch })
}

/// Blocks of 256 threads in a row; none where they are more than a grid has.
fn in_a_row(kernel: String, blocks: usize, values: Vec<Value>) -> Option<Launch> {
    let blocks = i32::try_from(blocks).ok()?;
    let grid = [blocks.unsigned_abs(), 1, 1];
    Some(Launch { kernel, grid, threads: 256, shared: 0, values })
}

/// A type in the name of a kernel.
fn name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::BF16 => Some("bf16"),
        DType::F16 => Some("f16"),
        _ => None,
    }
}
