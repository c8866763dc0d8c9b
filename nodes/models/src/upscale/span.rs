//! SPAN (arXiv:2311.12770): blocks of three convolutions with an attention that has no parameters,
//! four of their results joined, then pixel shuffle (github.com/hongyuanyu/SPAN, Apache-2.0).
//!
//! Each convolution 3×3 was trained as a chain of 1×1, 3×3 and 1×1 with a 1×1 beside it; they are
//! put together when they are read. Files without the chain hold the result.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use kino_kernels::{Activation, Epilogue, pad_plane, pixel_shuffle, span_attention};

use super::layers::{BORDER, RGB, bordered, plane_bytes, without_border};
use crate::cancel::CheckCancel;
use crate::checkpoint::{LARGEST_SIZE, PartFiles};
use crate::error::{Error, Result};
use crate::model::{Upscaler, UpscalerSpec};
use crate::names::{Names, inside, square_side};
use crate::weight::{Conv, Weights};

/// The mean colour that is subtracted, and what the rest is multiplied by.
const MEAN: [f32; RGB] = [0.4488, 0.4371, 0.4040];
const RANGE: f64 = 255.0;

/// A network of this kind, by its sizes.
pub(super) struct SpanSpec {
    wrapper: &'static str,
    features: usize,
    blocks: usize,
    factor: usize,
    /// Whether colours are centred and stretched first.
    norm: bool,
}

/// Recognises a file of this kind.
pub(super) fn recognise(files: &PartFiles) -> Option<Result<Arc<dyn UpscalerSpec>>> {
    let names = Names::having(files, "block_1.c1_r.eval_conv.weight")
        .or_else(|| Names::having(files, "block_1.c1_r.sk.weight"))?;
    names.shape("conv_cat.weight")?;
    Some(spec(names))
}

fn spec(names: Names<'_>) -> Result<Arc<dyn UpscalerSpec>> {
    let first = ["conv_1.sk.weight", "conv_1.eval_conv.weight"];
    let first = first.into_iter().find(|name| names.shape(name).is_some());
    let [features, colours, _] = names.kernel(first.unwrap_or("conv_1.eval_conv.weight"))?;
    let [spread, _, side] = names.kernel("upsampler.0.weight")?;
    if colours != RGB || side != 3 {
        return Err(names.unsupported(format!("SPAN for {colours} colours")));
    }
    let factor = square_side(spread, RGB).ok_or_else(|| {
        names.wrong(format!("`upsampler.0.weight` gives {spread} channels: no squares of RGB"))
    })?;
    let has = |block: &str, part: &str| names.shape(&format!("{block}.{part}.weight")).is_some();
    let is_block = |index: &usize| {
        let conv = format!("block_{index}.c1_r");
        has(&conv, "sk") || has(&conv, "eval_conv")
    };
    let blocks = (1..).take_while(is_block).count();
    let norm = names.shape("no_norm").is_none();
    Ok(Arc::new(SpanSpec { wrapper: names.wrapper, features, blocks, factor, norm }))
}

impl UpscalerSpec for SpanSpec {
    fn name(&self) -> &str {
        "SPAN"
    }

    fn factor(&self) -> usize {
        self.factor
    }

    fn reach(&self) -> usize {
        3 * self.blocks + 3
    }

    /// What is joined at the end (the first features, those of the first block and from inside the
    /// last) stands beside the four activations that a block works on.
    fn memory(&self, size: [usize; 2]) -> u64 {
        let spread = plane_bytes(size, RGB * self.factor * self.factor);
        let joined = plane_bytes(size, 7 * self.features);
        joined.max(plane_bytes(size, 2 * self.features).saturating_add(spread.saturating_mul(2)))
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Upscaler>> {
        let weights = inside(weights, self.wrapper);
        let c = self.features;
        let block = |index: usize| -> Result<[Conv; 3]> {
            let block = weights.scope(format!("block_{}", index + 1));
            Ok([
                rebuilt(&block.scope("c1_r"), [c, c])?,
                rebuilt(&block.scope("c2_r"), [c, c])?,
                rebuilt(&block.scope("c3_r"), [c, c])?,
            ])
        };
        let spread = RGB * self.factor * self.factor;
        Ok(Arc::new(Span {
            first: rebuilt(&weights.scope("conv_1"), [RGB, c])?,
            blocks: (0..self.blocks).map(block).collect::<Result<_>>()?,
            second: rebuilt(&weights.scope("conv_2"), [c, c])?,
            joined: Conv::load_parts(&weights.scope("conv_cat"), &[c; 4], c, 1)?,
            last: Conv::load_parts(&weights.scope("upsampler.0"), &[c], spread, 3)?,
            mean: self.norm.then(|| Tensor::new(&MEAN, weights.device())).transpose()?,
            factor: self.factor,
        }))
    }
}

/// A convolution 3×3 of its chain: W = W₃·W₂·W₁ + S in the middle,
/// b = W₃·(ΣW₂·b₁ + b₂) + b₃ + s. Without padding inside the chain, as it was made to be used.
fn rebuilt(weights: &Weights, [cin, cout]: [usize; 2]) -> Result<Conv> {
    let Some(&[inner_in, ..]) = weights.shape("conv.0.weight") else {
        return Conv::load_parts(&weights.scope("eval_conv"), &[cin], cout, 3);
    };
    let inner_out = weights.shape("conv.1.weight").and_then(|shape| shape.first().copied());
    let inner_out = inner_out.unwrap_or(cout);
    if ![inner_in, inner_out].iter().all(|n| (1..=LARGEST_SIZE).contains(n)) {
        return Err(Error::input(format!("SPAN: a chain of {inner_in} and {inner_out} channels")));
    }
    let wide = |scope: &str, cout: usize, cin: usize, side: usize| -> Result<[Tensor; 2]> {
        let layer = weights.scope(scope);
        let weight = layer.get_as("weight", (cout, cin, side, side), DType::F32)?;
        let bias = layer.get_as("bias", cout, DType::F32)?;
        // In double precision, as sums of sums follow.
        Ok([weight.to_dtype(DType::F64)?, bias.to_dtype(DType::F64)?])
    };
    let [w1, b1] = wide("conv.0", inner_in, cin, 1)?;
    let [w2, b2] = wide("conv.1", inner_out, inner_in, 3)?;
    let [w3, b3] = wide("conv.2", cout, inner_out, 1)?;
    let [skip, skip_bias] = wide("sk", cout, cin, 1)?;
    let w1 = w1.reshape((inner_in, cin))?;
    let w3 = w3.reshape((cout, inner_out))?;
    // [inner_out, inner_in, 3, 3] → [inner_out·9, inner_in]·[inner_in, cin]
    let taps = w2.permute((0, 2, 3, 1))?.contiguous()?.reshape((inner_out * 9, inner_in))?;
    let taps = taps.matmul(&w1)?.reshape((inner_out, 9 * cin))?;
    let kernel = w3.matmul(&taps)?.reshape((cout, 9, cin))?;
    let middle = kernel.narrow(1, 4, 1)? + skip.reshape((cout, 1, cin))?;
    let kernel = Tensor::cat(&[&kernel.narrow(1, 0, 4)?, &middle?, &kernel.narrow(1, 5, 4)?], 1)?;
    let kernel = kernel.permute((0, 2, 1))?.contiguous()?.reshape((cout, cin, 3, 3))?;
    let summed = w2.sum((2, 3))?.matmul(&b1.reshape((inner_in, 1))?)?; // [inner_out, 1]
    let bias = (summed + b2.reshape((inner_out, 1))?)?;
    let bias = (w3.matmul(&bias)?.reshape(cout)? + b3)?;
    let bias = (bias + skip_bias)?;
    let narrow = |x: Tensor| x.to_dtype(DType::F32)?.to_dtype(weights.dtype());
    Conv::of_parts(&narrow(kernel)?, &narrow(bias)?, &[cin])
}

/// The loaded network.
struct Span {
    first: Conv,
    blocks: Vec<[Conv; 3]>,
    second: Conv,
    joined: Conv,
    last: Conv,
    mean: Option<Tensor>,
    factor: usize,
}

impl Upscaler for Span {
    fn upscale(&self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let x = match &self.mean {
            Some(mean) => (frames.broadcast_sub(mean)? * RANGE)?,
            None => frames.clone(),
        };
        let first = self.first.finished(&[&pad_plane(&x, BORDER)?], &bordered(Activation::None))?;
        let mut x = first.clone();
        let (mut of_first, mut inside_last) = (x.clone(), x.clone());
        for (index, [one, two, three]) in self.blocks.iter().enumerate() {
            check_cancel()?;
            let inside = one.finished(&[&x], &bordered(Activation::Silu))?;
            let y = two.finished(&[&inside], &bordered(Activation::Silu))?;
            check_cancel()?;
            let y = three.finished(&[&y], &bordered(Activation::None))?;
            x = span_attention(&x, &y)?;
            inside_last = inside;
            if index == 0 {
                of_first = x.clone();
            }
        }
        check_cancel()?;
        x = self.second.finished(&[&x], &bordered(Activation::None))?;
        let parts = [&first, &x, &of_first, &inside_last];
        let joined = self.joined.finished(&parts, &Epilogue::default())?;
        drop((first, x, of_first, inside_last));
        // The 1×1 convolution put its bias on the border, too.
        let joined = pad_plane(&without_border(&joined)?, BORDER)?;
        check_cancel()?;
        let spread = self.last.finished(&[&joined], &Epilogue::default())?;
        Ok(pixel_shuffle(&spread, self.factor, None)?)
    }
}
