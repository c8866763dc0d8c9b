//! The kernels on a card.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::driver::sys::CUfunction_attribute;
use candle_core::cuda::cudarc::driver::{
    CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda::{CudaDType, CudaDevice, CudaStorageSlice, WrapErr};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, DType, Device, Layout, Shape, Storage, Tensor, bail,
};
use half::{bf16, f16};

use super::launch::{self, AttentionSizes, ConvSizes, Launch, Value, is_by_token, is_readable};
use crate::blocks::row_numbers;
use crate::{BlockType, ConvInput, ConvWeights, Epilogue, Result, composite};

/// Of `cuda/kernels.cu`; empty where what stood for nvcc made nothing.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
const MODULE: &str = "kino-kernels";
/// Shared memory that a block may have without asking for more.
const USUAL_SHARED: u32 = 48 << 10;

/// Whether the kernels of this crate can be used on a device.
///
/// # Errors
/// Why not, where it is an NVIDIA card: candle's operations are taken then.
pub fn check_device(device: &Device) -> std::result::Result<(), String> {
    static LOADED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let Device::Cuda(device) = device else { return Ok(()) };
    // All cards of a machine have one driver.
    LOADED.get_or_init(|| load(device)).clone()
}

fn load(device: &CudaDevice) -> std::result::Result<(), String> {
    if PTX.trim().is_empty() {
        return Err(String::from("this kino was built without nvcc"));
    }
    match device.get_or_load_custom_func("widen_e4m3_f32", MODULE, PTX) {
        Ok(_) => Ok(()),
        // A trace of calls may follow.
        Err(error) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Bytes that are free in the memory of an NVIDIA card; none for any other device.
pub fn device_memory(device: &Device) -> Option<u64> {
    let Device::Cuda(device) = device else { return None };
    let (free, _) = device.cuda_stream().context().mem_get_info().ok()?;
    Some(free as u64)
}

/// Whether a kernel may take these tensors: on a card that has the kernels, some numbers, no
/// gradient to keep.
fn on_card(tensors: &[&Tensor]) -> bool {
    let takes = |t: &&Tensor| t.device().is_cuda() && t.elem_count() > 0 && !t.track_op();
    tensors.iter().all(takes) && tensors.iter().all(|t| check_device(t.device()).is_ok())
}

/// See [`crate::attention_with_bias`]; the shapes were checked.
pub(crate) fn attention(
    operands: [&Tensor; 3],
    bias: Option<&Tensor>,
    scale: f64,
) -> Option<Result<Tensor>> {
    let dtype = operands[0].dtype();
    let is_taken = on_card(&operands) && operands.iter().all(|t| t.dtype() == dtype);
    if !is_taken || bias.is_some_and(|bias| !on_card(&[bias])) {
        return None;
    }
    let heads = operands[0].dims()[0];
    let sizes = AttentionSizes::new(operands.map(Tensor::layout), None, scale)?;
    launch::attention(dtype, heads, &sizes)?;
    Some(attend(operands, bias, scale))
}

fn attend(operands: [&Tensor; 3], bias: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let readable = |t: &Tensor| match is_readable(t.layout()) {
        true => Ok(t.clone()),
        false => t.force_contiguous(),
    };
    let [q, k, v] = operands;
    let (q, k, v) = (readable(q)?, readable(k)?, readable(v)?);
    let (heads, n, d) = q.dims3()?;
    let shape = (heads, n, k.dim(1)?);
    let bias = bias.map(|bias| bias.to_dtype(DType::F32)?.broadcast_as(shape)).transpose()?;
    let layouts = [q.layout(), k.layout(), v.layout()];
    let sizes = AttentionSizes::new(layouts, bias.as_ref().map(Tensor::layout), scale);
    let launch = sizes.and_then(|sizes| launch::attention(q.dtype(), heads, &sizes));
    let is_by_token = is_by_token(q.layout());
    let shape = if is_by_token { [n, heads, d] } else { [heads, n, d] };
    let operands = [Some(&q), Some(&k), Some(&v), bias.as_ref()];
    let mixed = run("attention", launch, &operands, q.dtype(), (&shape).into())?;
    if is_by_token { mixed.transpose(0, 1) } else { Ok(mixed) }
}

/// See [`crate::conv_sum`]; the shapes were checked, `size` is that of the result without padding.
pub(crate) fn conv_sum(
    parts: &[(ConvInput, &ConvWeights)],
    epilogue: &Epilogue,
    size: [usize; 4],
) -> Option<Result<Tensor>> {
    let dtype = parts.first()?.0.frames.dtype();
    let mut launches = Vec::new();
    for (input, weights) in parts {
        let operands = [Some(input.frames), input.past, weights.bias()];
        let operands: Vec<&Tensor> = operands.into_iter().flatten().collect();
        if !on_card(&operands) || operands.iter().any(|t| t.dtype() != dtype) {
            return None;
        }
        launches.push(launch::conv(dtype, &ConvSizes::new(input, weights, size)?)?);
    }
    let all = parts.iter().zip(launches);
    let sums = all.map(|((input, weights), launch)| convolve(*input, weights, launch, size));
    let sum = sums.reduce(|sum, part| sum? + part?)?;
    Some(sum.and_then(|sum| composite::finish(sum, epilogue)))
}

fn convolve(
    input: ConvInput,
    weights: &ConvWeights,
    launch: Launch,
    size: [usize; 4],
) -> Result<Tensor> {
    let frames = whole(input.frames)?;
    let past = input.past.map(whole).transpose()?;
    let rows = weights.rows()?.to_dtype(frames.dtype())?;
    let bias = weights.bias().map(|bias| bias.to_dtype(DType::F32)?.contiguous()).transpose()?;
    let operands = [past.as_ref(), Some(&frames), Some(&rows), bias.as_ref()];
    run("conv", Some(launch), &operands, frames.dtype(), (&size).into())
}

/// A contiguous tensor that begins where 16 bytes may.
fn whole(t: &Tensor) -> Result<Tensor> {
    match t.is_contiguous() && t.layout().start_offset().is_multiple_of(8) {
        true => Ok(t.clone()),
        false => t.force_contiguous(),
    }
}

/// See [`crate::rms_norm_rope`]; the shapes were checked.
pub(crate) fn rms_norm_rope(
    x: &Tensor,
    others: [&Tensor; 3],
    eps: f64,
    heads: usize,
) -> Option<Result<Tensor>> {
    let (n, width) = x.dims2().ok()?;
    let d = width / heads;
    if !on_card(&[x]) || !on_card(&others) {
        return None;
    }
    let launch = launch::rms_norm_rope(x.dtype(), n, [width, d / 2], eps)?;
    let turned = || {
        let x = x.contiguous()?;
        let wide = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous();
        let [weight, cos, sin] = others;
        let (weight, cos, sin) = (wide(weight)?, wide(cos)?, wide(sin)?);
        let operands = [Some(&x), Some(&weight), Some(&cos), Some(&sin)];
        run("rms_norm_rope", Some(launch), &operands, x.dtype(), (n, heads, d).into())
    };
    Some(turned())
}

/// The numbers of bytes in E4M3, times `scale`, in `dtype`.
pub(crate) fn widen_e4m3(bytes: &Tensor, scale: f32, dtype: DType) -> Option<Result<Tensor>> {
    if !on_card(&[bytes]) || bytes.dtype() != DType::U8 {
        return None;
    }
    let launch = launch::widen_e4m3(dtype, bytes.elem_count(), scale)?;
    let widened = || {
        let bytes = bytes.contiguous()?;
        run("widen_e4m3", Some(launch), &[Some(&bytes)], dtype, bytes.shape().clone())
    };
    Some(widened())
}

/// The numbers of signed bytes `[out, inner]`, those of a row times its scale, in `dtype`.
pub(crate) fn widen_int8(bytes: &Tensor, scales: &Tensor, dtype: DType) -> Option<Result<Tensor>> {
    let (_, inner) = bytes.dims2().ok()?;
    if !on_card(&[bytes, scales]) || bytes.dtype() != DType::U8 || scales.dtype() != DType::F32 {
        return None;
    }
    let launch = launch::widen_int8(dtype, inner, bytes.elem_count())?;
    let widened = || {
        let (bytes, scales) = (whole(bytes)?, whole(scales)?);
        let operands = [Some(&bytes), Some(&scales)];
        run("widen_int8", Some(launch), &operands, dtype, bytes.shape().clone())
    };
    Some(widened())
}

/// The numbers of rows of blocks, in `dtype`.
pub(crate) fn widen_blocks(
    bytes: &Tensor,
    blocks: BlockType,
    dtype: DType,
) -> Option<Result<Tensor>> {
    let inner = row_numbers(bytes, blocks).ok()?;
    let rows = bytes.dim(0).ok()?;
    let launch = launch::widen_blocks(dtype, blocks, rows * inner)?;
    let widened = || {
        let shape = (rows, inner).into();
        run("widen_blocks", Some(launch), &[Some(&whole(bytes)?)], dtype, shape)
    };
    on_card(&[bytes]).then(widened)
}

/// x·Wᵀ of a few rows and a matrix in blocks; the shapes were checked.
pub(crate) fn multiply_blocks(
    x: &Tensor,
    bytes: &Tensor,
    blocks: BlockType,
) -> Option<Result<Tensor>> {
    let (outs, inner) = (bytes.dim(0).ok()?, row_numbers(bytes, blocks).ok()?);
    let rows = x.elem_count() / inner.max(1);
    let launch = launch::multiply_blocks(x.dtype(), blocks, rows, [outs, inner])?;
    let multiplied = || {
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(outs);
        let (x, bytes) = (whole(x)?, whole(bytes)?);
        let operands = [Some(&x), Some(&bytes)];
        run("multiply_blocks", Some(launch), &operands, x.dtype(), shape.into())
    };
    on_card(&[x, bytes]).then(multiplied)
}

/// See [`crate::rotate_groups`]; the shape was checked.
pub(crate) fn rotate_groups(x: &Tensor, group: usize) -> Option<Result<Tensor>> {
    let launch = launch::rotate_groups(x.dtype(), group, x.elem_count())?;
    let rotated = || {
        let x = x.contiguous()?;
        run("rotate_groups", Some(launch), &[Some(&x)], x.dtype(), x.shape().clone())
    };
    on_card(&[x]).then(rotated)
}

/// Starts a kernel that reads `operands` (none: a null pointer) and writes numbers of `dtype`.
fn run(
    name: &'static str,
    launch: Option<Launch>,
    operands: &[Option<&Tensor>],
    dtype: DType,
    shape: Shape,
) -> Result<Tensor> {
    let Some(launch) = launch else { bail!("{name}: more numbers than a kernel counts") };
    let Some(first) = operands.iter().flatten().next() else { bail!("{name}: no operand") };
    first.apply_op1_no_bwd(&Kernel { name, launch, operands, dtype, shape })
}

/// A kernel about to be started, as an operation of candle's.
struct Kernel<'a> {
    name: &'static str,
    launch: Launch,
    operands: &'a [Option<&'a Tensor>],
    dtype: DType,
    shape: Shape,
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: a kernel of a card was given numbers of the CPU", self.name)
    }

    fn cuda_fwd(&self, storage: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = storage.device();
        let out = match self.dtype {
            DType::F32 => self.start::<f32>(device)?,
            DType::BF16 => self.start::<bf16>(device)?,
            DType::F16 => self.start::<f16>(device)?,
            other => bail!("{}: no kernel writes {other:?}", self.name),
        };
        Ok((out, self.shape.clone()))
    }
}

impl Kernel<'_> {
    fn start<T: CudaDType + DeviceRepr>(&self, device: &CudaDevice) -> Result<CudaStorage> {
        let launch = &self.launch;
        let function = device.get_or_load_custom_func(&launch.kernel, MODULE, PTX)?;
        if launch.shared > USUAL_SHARED {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, launch.shared as i32).w()?;
        }
        // SAFETY: every kernel writes all of its result, which nobody reads before.
        let mut out: CudaSlice<T> = unsafe { device.alloc(self.shape.elem_count())? };
        let locked: Vec<_> =
            self.operands.iter().map(|t| t.map(Tensor::storage_and_layout)).collect();
        let mut views = Vec::new();
        for operand in &locked {
            let view = operand.as_ref().map(|(storage, layout)| bytes_from(storage, layout));
            views.push(view.transpose()?);
        }
        let mut arguments = function.builder();
        for view in &views {
            match view {
                Some(view) => arguments.arg(view),
                None => arguments.arg(&0u64),
            };
        }
        arguments.arg(&mut out);
        for value in &launch.values {
            match value {
                Value::Int(value) => arguments.arg(value),
                Value::Long(value) => arguments.arg(value),
                Value::Float(value) => arguments.arg(value),
                Value::Attention(sizes) => arguments.arg(sizes),
                Value::Conv(sizes) => arguments.arg(sizes),
            };
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        // SAFETY: the arguments are those of the kernel, in its order; `launch` made its sizes from
        // the layouts of these operands, and the kernel stays within them (`emulated`).
        unsafe { arguments.launch(config) }.w()?;
        Ok(CudaStorage::wrap_cuda_slice(out, device.clone()))
    }
}

// SAFETY: plain numbers in the order of C.
unsafe impl DeviceRepr for AttentionSizes {}
// SAFETY: likewise.
unsafe impl DeviceRepr for ConvSizes {}

/// The memory of a tensor on a card, from its first number on.
fn bytes_from<'a>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, u8>> {
    fn whole<T>(slice: &CudaSlice<T>, first: usize) -> Option<CudaView<'_, u8>> {
        let bytes = std::mem::size_of::<T>();
        // SAFETY: numbers are bytes, too.
        let view = unsafe { slice.transmute::<u8>(slice.len() * bytes)? };
        view.try_slice(first * bytes..)
    }
    let first = layout.start_offset();
    let view = match storage {
        Storage::Cuda(storage) => match &storage.slice {
            CudaStorageSlice::U8(slice) => whole(slice, first),
            CudaStorageSlice::F32(slice) => whole(slice, first),
            CudaStorageSlice::BF16(slice) => whole(slice, first),
            CudaStorageSlice::F16(slice) => whole(slice, first),
            _ => None,
        },
        _ => None,
    };
    match view {
        Some(view) => Ok(view),
        None => {
            bail!("a kernel of a card was given {:?} on {:?}", storage.dtype(), storage.device())
        }
    }
}
