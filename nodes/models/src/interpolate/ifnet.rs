//! IFNet of RIFE 4.x (arXiv:2011.06294; github.com/hzwer/Practical-RIFE, MIT): blocks that refine
//! the flow from a moment between two frames to both of them, from coarse to fine.
//!
//! Versions differ in channels, in the number of blocks and in whether a block hands features to
//! the next; shapes say all of it. Names are those of Practical-RIFE (`block0`) and of ComfyUI's
//! files (`blocks.0`).

use std::sync::Arc;

use candle_core::{DType, Tensor};
use kino_kernels::{
    Activation, ConvInput, ConvWeights, Epilogue, Filter, concat_channels, conv_sum, pad_plane,
    pixel_shuffle, resize, shrink_bilinear, warp,
};

use crate::cancel::CheckCancel;
use crate::checkpoint::PartFiles;
use crate::error::Result;
use crate::mirror::mirrored_to;
use crate::model::{Interpolator, InterpolatorSpec, PreparedFrame};
use crate::names::{Names, inside};
use crate::weight::Weights;

const RGB: usize = 3;
/// The leaky ReLU's slope.
const SLOPE: f32 = 0.2;
/// Channels of the flow to both frames, and of the mask between them.
const FLOW: usize = 4;
const MASK: usize = 1;
/// How often a block halves what it is given: sides are multiples of this at its scale.
const HALVED: usize = 4;
/// Blocks that any version has at most.
const MOST_BLOCKS: usize = 8;
const BORDER: [usize; 4] = [1; 4];

/// The channels of a block.
#[derive(Clone, Copy)]
struct BlockSize {
    channels: usize,
    residuals: usize,
}

/// A network of this kind, by its sizes.
pub(super) struct IfnetSpec {
    wrapper: &'static str,
    /// What stands before a block's number.
    block: &'static str,
    /// Channels inside the encoder of frames, and of its features.
    head: [usize; 2],
    blocks: Vec<BlockSize>,
    /// Channels of what a block gives: flow, mask, and features for the next.
    given: usize,
    /// How many of the features the next block reads.
    handed_on: usize,
}

/// Recognises a file of this kind.
pub(super) fn recognise(files: &PartFiles) -> Option<Result<Arc<dyn InterpolatorSpec>>> {
    ["blocks.", "block"].into_iter().find_map(|block| {
        let first = format!("{block}0.conv0.0.0.weight");
        let names = Names::having(files, &first)?;
        Some(spec(names, block))
    })
}

fn spec(names: Names<'_>, block: &'static str) -> Result<Arc<dyn InterpolatorSpec>> {
    let unknown = |what: &str| names.unsupported(format!("RIFE {what}"));
    if names.shape("encode.cnn0.weight").is_none() {
        return Err(unknown("before 4.13 (without `encode.cnn0`)"));
    }
    let [inner, colours, _] = names.kernel("encode.cnn0.weight")?;
    let [_, features, _] = names.kernel("encode.cnn3.weight")?; // [in, out, 4, 4]
    let count = names.count(|index| format!("{block}{index}.conv0.0.0.weight"));
    if colours != RGB || !(2..=MOST_BLOCKS).contains(&count) {
        return Err(unknown(&format!("of {count} blocks for {colours} colours")));
    }
    let mut blocks = Vec::with_capacity(count);
    let mut given = None;
    for index in 0..count {
        let [channels, _, _] = names.kernel(&format!("{block}{index}.conv0.1.0.weight"))?;
        let residuals = names.count(|conv| format!("{block}{index}.convblock.{conv}.conv.weight"));
        // [in, out, 4, 4]; four channels become a square of pixels.
        let [_, out, _] = names.kernel(&format!("{block}{index}.lastconv.0.weight"))?;
        if out % 4 != 0 || out / 4 < FLOW + MASK || *given.get_or_insert(out / 4) != out / 4 {
            return Err(unknown(&format!("whose block {index} gives {out} channels")));
        }
        blocks.push(BlockSize { channels, residuals });
    }
    let given = given.unwrap_or(FLOW + MASK);
    // The second block reads both frames and their features, the moment, the mask and the flow,
    // and in later versions what the block before it found.
    let [_, read, _] = names.kernel(&format!("{block}1.conv0.0.0.weight"))?;
    let plain = 2 * RGB + 2 * features + 1 + MASK + FLOW;
    let handed_on = given - FLOW - MASK;
    let handed_on = match read {
        _ if read == plain => 0,
        _ if read == plain + handed_on => handed_on,
        _ => return Err(unknown(&format!("whose blocks read {read} channels"))),
    };
    let (wrapper, head) = (names.wrapper, [inner, features]);
    Ok(Arc::new(IfnetSpec { wrapper, block, head, blocks, given, handed_on }))
}

impl IfnetSpec {
    /// The scale of a block: the coarsest first, the last at full size.
    fn scale(&self, index: usize) -> usize {
        1 << (self.blocks.len() - 1 - index)
    }

    /// Sides are multiples of this.
    fn multiple(&self) -> usize {
        HALVED * self.scale(0)
    }
}

impl InterpolatorSpec for IfnetSpec {
    fn name(&self) -> &str {
        "RIFE"
    }

    /// The last block works at full size. Both frames, their features, and what was found so far
    /// stand beside what it is given: features as they are warped, all inputs side by side, and the
    /// first activation at half the size.
    fn memory(&self, size: [usize; 2]) -> u64 {
        let [height, width] = size.map(|side| side.next_multiple_of(self.multiple()) as u128);
        let (features, found) = (self.head[1], MASK + FLOW + self.handed_on);
        let held = 2 * (RGB + features) + 2 * RGB + 1 + found;
        let read = 2 * (RGB + features) + 1 + found;
        let narrowest = self.blocks.last().map_or(0, |block| block.channels);
        let channels = held + 2 * features + FLOW + read + narrowest.div_ceil(8);
        u64::try_from(4 * height * width * channels as u128).unwrap_or(u64::MAX)
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Interpolator>> {
        let weights = inside(weights, self.wrapper);
        let [inner, features] = self.head;
        let encode = weights.scope("encode");
        let head = Head {
            convs: [
                Layer::read(&encode.scope("cnn0"), [RGB, inner], 2)?,
                Layer::read(&encode.scope("cnn1"), [inner, inner], 1)?,
                Layer::read(&encode.scope("cnn2"), [inner, inner], 1)?,
            ],
            last: Layer::read_transposed(&encode.scope("cnn3"), [inner, features])?,
        };
        let first = 2 * RGB + 2 * features + 1;
        let later = first + MASK + FLOW + self.handed_on;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (index, size) in self.blocks.iter().enumerate() {
            let block = weights.scope(format!("{}{index}", self.block));
            let read = if index == 0 { first } else { later };
            let [half, c] = [size.channels / 2, size.channels];
            let residual =
                |conv: usize| Layer::read_residual(&block.scope("convblock").scope(conv), c);
            blocks.push(Block {
                down: [
                    Layer::read(&block.scope("conv0.0.0"), [read, half], 2)?,
                    Layer::read(&block.scope("conv0.1.0"), [half, c], 2)?,
                ],
                residuals: (0..size.residuals).map(residual).collect::<Result<_>>()?,
                last: Layer::read_transposed(&block.scope("lastconv.0"), [c, 4 * self.given])?,
                scale: self.scale(index),
            });
        }
        let (multiple, handed_on) = (self.multiple(), self.handed_on);
        Ok(Arc::new(Ifnet { head, blocks, multiple, handed_on }))
    }
}

/// A convolution 3×3.
struct Layer(ConvWeights);

impl Layer {
    fn read(weights: &Weights, [cin, cout]: [usize; 2], stride: usize) -> Result<Self> {
        let weight = weights.get("weight", (cout, cin, 3, 3))?;
        let bias = weights.get("bias", cout)?;
        Ok(Self(ConvWeights::pack(&weight, Some(&bias), [1, stride, stride])?))
    }

    /// conv(x)·β + x as one convolution: its kernel times β, with 1 in the middle of each channel's
    /// own.
    fn read_residual(weights: &Weights, c: usize) -> Result<Self> {
        let conv = weights.scope("conv");
        let beta = weights.get("beta", (1, c, 1, 1))?.reshape((c, 1, 1, 1))?;
        let kernel = conv.get("weight", (c, c, 3, 3))?.broadcast_mul(&beta)?;
        let bias = (conv.get("bias", c)? * beta.reshape(c)?)?;
        let itself = Tensor::eye(c, DType::F32, weights.device())?.reshape((c, c, 1, 1))?;
        let itself = itself.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let kernel = (kernel + itself.to_dtype(weights.dtype())?)?;
        Ok(Self(ConvWeights::pack(&kernel, Some(&bias), [1, 1, 1])?))
    }

    /// A transposed convolution 4×4 with stride 2 as one of 3×3 whose channels are spread over
    /// squares of 2×2: to each of four pixels, 2×2 of the input count.
    fn read_transposed(weights: &Weights, [cin, cout]: [usize; 2]) -> Result<Self> {
        let weight = weights.get("weight", (cin, cout, 4, 4))?;
        let bias = weights.get("bias", cout)?;
        let zero = weight.narrow(2, 0, 1)?.narrow(3, 0, 1)?.zeros_like()?;
        // The tap of the 4×4 kernel that stands at a place of the 3×3 one; none where it is 0.
        const TAPS: [[Option<usize>; 3]; 2] = [[Some(3), Some(1), None], [None, Some(2), Some(0)]];
        let mut squares = Vec::with_capacity(4);
        for down in TAPS {
            for across in TAPS {
                let mut rows = Vec::with_capacity(3);
                for ky in down {
                    let mut row = Vec::with_capacity(3);
                    for kx in across {
                        row.push(match (ky, kx) {
                            (Some(ky), Some(kx)) => weight.narrow(2, ky, 1)?.narrow(3, kx, 1)?,
                            _ => zero.clone(),
                        });
                    }
                    rows.push(Tensor::cat(&row, 3)?);
                }
                squares.push(Tensor::cat(&rows, 2)?.transpose(0, 1)?.contiguous()?); // [out, in, 3, 3]
            }
        }
        let kernel = Tensor::stack(&squares, 1)?.reshape((4 * cout, cin, 3, 3))?;
        let bias = bias.reshape((cout, 1))?.broadcast_as((cout, 4))?.force_contiguous()?;
        let bias = bias.reshape(4 * cout)?;
        Ok(Self(ConvWeights::pack(&kernel, Some(&bias), [1, 1, 1])?))
    }

    /// Shapes: `x` `[1, h + 2, w + 2, cin]`; the result with a border where one is asked.
    fn forward(&self, x: &Tensor, activate: bool, border: bool) -> Result<Tensor> {
        let activation = if activate { Activation::LeakyRelu(SLOPE) } else { Activation::None };
        let padding = if border { BORDER } else { [0; 4] };
        let epilogue = Epilogue { activation, padding, ..Epilogue::default() };
        Ok(conv_sum(&[(ConvInput::new(x), &self.0)], &epilogue)?)
    }
}

/// What a network sees in a frame.
struct Head {
    convs: [Layer; 3],
    last: Layer,
}

impl Head {
    /// Shapes: `[1, h, w, 3]` to `[1, h, w, features]`.
    fn forward(&self, frame: &Tensor) -> Result<Tensor> {
        let mut x = pad_plane(frame, BORDER)?;
        for conv in &self.convs {
            x = conv.forward(&x, true, true)?;
        }
        Ok(pixel_shuffle(&self.last.forward(&x, false, false)?, 2, None)?)
    }
}

/// One refinement of the flow.
struct Block {
    down: [Layer; 2],
    residuals: Vec<Layer>,
    last: Layer,
    scale: usize,
}

impl Block {
    /// Shapes: `inputs` `[1, h, w, cᵢ]` each, in the order in which the block reads them; the
    /// result is `[1, h, w, given]`, its flow in pixels of the block's scale.
    fn forward(&self, inputs: &[&Tensor], check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let small = inputs.iter().map(|input| Ok(shrink_bilinear(input, self.scale)?));
        let small = small.collect::<Result<Vec<_>>>()?;
        let mut x = concat_channels(&small.iter().collect::<Vec<_>>(), BORDER)?;
        drop(small);
        for layer in self.down.iter().chain(&self.residuals) {
            check_cancel()?;
            x = layer.forward(&x, true, true)?;
        }
        check_cancel()?;
        let x = pixel_shuffle(&self.last.forward(&x, false, false)?, 2, None)?;
        let x = pixel_shuffle(&x, 2, None)?;
        let (_, h, w, _) = x.dims4()?;
        Ok(resize(&x, h * self.scale, w * self.scale, Filter::Bilinear)?)
    }
}

/// The loaded network.
struct Ifnet {
    head: Head,
    blocks: Vec<Block>,
    multiple: usize,
    handed_on: usize,
}

impl Interpolator for Ifnet {
    fn prepare(&self, frame: &Tensor) -> Result<PreparedFrame> {
        let (_, h, w, _) = frame.dims4()?;
        let frame = mirrored_to(&mirrored_to(frame, 1, self.multiple)?, 2, self.multiple)?;
        let frame = frame.clamp(0f32, 1f32)?;
        let features = self.head.forward(&frame)?;
        Ok(PreparedFrame { frame, features, size: [h, w] })
    }

    fn between(
        &self,
        first: &PreparedFrame,
        second: &PreparedFrame,
        at: f32,
        check_cancel: &mut CheckCancel<'_>,
    ) -> Result<Tensor> {
        let (_, h, w, _) = first.frame.dims4()?;
        let moment = Tensor::full(at, (1, h, w, 1), first.frame.device())?;
        let mut warped = [first.frame.clone(), second.frame.clone()];
        let mut found: Option<[Tensor; 3]> = None; // flow, mask, what is handed on
        for block in &self.blocks {
            let scale = block.scale as f64;
            let x = match &found {
                None => {
                    let [a, b] = &warped;
                    let inputs = [a, b, &first.features, &second.features, &moment];
                    block.forward(&inputs, check_cancel)?
                }
                Some([flow, mask, handed_on]) => {
                    let [to_first, to_second] = halves(flow)?;
                    let features =
                        [warp(&first.features, &to_first)?, warp(&second.features, &to_second)?];
                    let scaled = (flow / scale)?;
                    let [a, b] = &warped;
                    let mut inputs = vec![a, b, &features[0], &features[1], &moment, mask];
                    if self.handed_on > 0 {
                        inputs.push(handed_on);
                    }
                    inputs.push(&scaled);
                    block.forward(&inputs, check_cancel)?
                }
            };
            let step = (x.narrow(3, 0, FLOW)?.contiguous()? * scale)?;
            let flow = match &found {
                Some([flow, ..]) => (flow + step)?,
                None => step,
            };
            let mask = x.narrow(3, FLOW, MASK)?.contiguous()?;
            let rest = x.narrow(3, FLOW + MASK, self.handed_on.max(1))?.contiguous()?;
            let [to_first, to_second] = halves(&flow)?;
            warped = [warp(&first.frame, &to_first)?, warp(&second.frame, &to_second)?];
            found = Some([flow, mask, rest]);
        }
        let [a, b] = &warped;
        let Some([_, mask, _]) = found else { return Ok(a.clone()) };
        let mask = (mask.neg()?.exp()? + 1.0)?.recip()?;
        let mixed = (b + (a - b)?.broadcast_mul(&mask)?)?;
        let [h, w] = first.size;
        Ok(mixed.narrow(1, 0, h)?.narrow(2, 0, w)?.contiguous()?)
    }
}

/// The flow to the first frame and that to the second.
fn halves(flow: &Tensor) -> Result<[Tensor; 2]> {
    let half = |from: usize| flow.narrow(3, from, FLOW / 2)?.contiguous();
    Ok([half(0)?, half(FLOW / 2)?])
}
