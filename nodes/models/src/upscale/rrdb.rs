//! RRDBNet of the ESRGAN family (arXiv:1809.00219, arXiv:2107.10833): dense blocks in residual
//! blocks, then nearest enlargement by 2 and a convolution as often as the factor asks.
//!
//! Three layouts of names hold the same network: the first ESRGAN's (`model.0`, `model.1.sub.N`,
//! …), that of BSRGAN and RealSR (`RRDB_trunk.N`), and Real-ESRGAN's (`body.N.rdb1`). Those for a
//! factor below 4 begin with squares of pixels spread over channels (pixel unshuffle).

use std::sync::Arc;

use candle_core::Tensor;
use kino_kernels::{Activation, Epilogue, gate_add, pad_plane, upsample_nearest2};

use super::layers::{BORDER, RGB, bordered, enlarged_bytes, plane_bytes, without_border};
use crate::cancel::CheckCancel;
use crate::checkpoint::PartFiles;
use crate::error::{Error, Result};
use crate::mirror::mirrored_to;
use crate::model::{Upscaler, UpscalerSpec};
use crate::names::{Names, inside, square_side};
use crate::weight::{Conv, Weights};

/// The leaky ReLU's slope.
const SLOPE: f32 = 0.2;
/// How much of a block's result is added to what entered it.
const RESIDUAL: f32 = 0.2;
/// Convolutions of a dense block, and dense blocks of a residual block.
const CONVOLUTIONS: usize = 5;
const DENSE_BLOCKS: usize = 3;
/// Doublings that any such network has at most.
const MOST_DOUBLINGS: usize = 4;

/// Where the layers lie under their names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `model.0`, `model.1.sub.N.RDB1.conv1.0`, …: a sequence in which every module counts.
    Sequence,
    /// `conv_first`, `RRDB_trunk.N.RDB1.conv1`, `trunk_conv`, `upconv1`, `HRconv`, `conv_last`.
    Trunk,
    /// `conv_first`, `body.N.rdb1.conv1`, `conv_body`, `conv_up1`, `conv_hr`, `conv_last`.
    Body,
}

/// A layer of the network.
#[derive(Clone, Copy)]
enum Layer {
    First,
    /// Residual block, dense block in it, convolution in that; all from 0.
    Dense([usize; 3]),
    /// After this many residual blocks.
    Trunk(usize),
    /// The convolution behind a doubling, from 0.
    Up(usize),
    /// Before the last, after this many doublings.
    High(usize),
    Last(usize),
}

impl Layout {
    fn name(self, layer: Layer) -> String {
        match (self, layer) {
            (Self::Sequence, Layer::First) => "model.0".to_owned(),
            (Self::Sequence, Layer::Dense([block, dense, conv])) => {
                format!("model.1.sub.{block}.RDB{}.conv{}.0", dense + 1, conv + 1)
            }
            (Self::Sequence, Layer::Trunk(blocks)) => format!("model.1.sub.{blocks}"),
            // Each doubling is three modules: enlargement, convolution, activation.
            (Self::Sequence, Layer::Up(index)) => format!("model.{}", 3 * (index + 1)),
            (Self::Sequence, Layer::High(doublings)) => format!("model.{}", 3 * doublings + 2),
            (Self::Sequence, Layer::Last(doublings)) => format!("model.{}", 3 * doublings + 4),
            (_, Layer::First) => "conv_first".to_owned(),
            (_, Layer::Last(_)) => "conv_last".to_owned(),
            (Self::Trunk, Layer::Dense([block, dense, conv])) => {
                format!("RRDB_trunk.{block}.RDB{}.conv{}", dense + 1, conv + 1)
            }
            (Self::Trunk, Layer::Trunk(_)) => "trunk_conv".to_owned(),
            (Self::Trunk, Layer::Up(index)) => format!("upconv{}", index + 1),
            (Self::Trunk, Layer::High(_)) => "HRconv".to_owned(),
            (Self::Body, Layer::Dense([block, dense, conv])) => {
                format!("body.{block}.rdb{}.conv{}", dense + 1, conv + 1)
            }
            (Self::Body, Layer::Trunk(_)) => "conv_body".to_owned(),
            (Self::Body, Layer::Up(index)) => format!("conv_up{}", index + 1),
            (Self::Body, Layer::High(_)) => "conv_hr".to_owned(),
        }
    }

    /// The name of a layer's kernel.
    fn weight(self, layer: Layer) -> String {
        self.name(layer) + ".weight"
    }

    /// How often the network doubles.
    fn doublings(self, names: &Names<'_>) -> Option<usize> {
        // In a sequence the numbers of the last layers say it; those between have other names.
        let fits = |doublings: &usize| {
            let doublings = *doublings;
            [Layer::High(doublings), Layer::Last(doublings)]
                .into_iter()
                .chain((0..doublings).map(Layer::Up))
                .all(|layer| names.shape(&self.weight(layer)).is_some())
        };
        (0..=MOST_DOUBLINGS).rev().find(fits)
    }
}

/// A network of this kind, by its sizes.
pub(super) struct RrdbSpec {
    wrapper: &'static str,
    layout: Layout,
    blocks: usize,
    features: usize,
    /// Channels that each convolution of a dense block adds.
    growth: usize,
    doublings: usize,
    /// The side of the squares of pixels that become channels at the beginning.
    unshuffle: usize,
}

/// Recognises a file of this kind.
pub(super) fn recognise(files: &PartFiles) -> Option<Result<Arc<dyn UpscalerSpec>>> {
    let layouts = [Layout::Body, Layout::Trunk, Layout::Sequence];
    layouts.into_iter().find_map(|layout| {
        let dense = layout.weight(Layer::Dense([0; 3]));
        let names = Names::having(files, &dense)?;
        names.shape(&layout.weight(Layer::First))?;
        Some(spec(names, layout))
    })
}

fn spec(names: Names<'_>, layout: Layout) -> Result<Arc<dyn UpscalerSpec>> {
    let dense = layout.name(Layer::Dense([0; 3]));
    let block = dense.rsplit_once(".conv1").map_or(dense.as_str(), |(block, _)| block);
    if names.shape(&format!("{block}.conv1x1.weight")).is_some() {
        return Err(names.unsupported("ESRGAN+ (dense blocks with a 1×1 convolution)"));
    }
    let [features, cin, side] = names.kernel(&layout.weight(Layer::First))?;
    let [growth, _, _] = names.kernel(&layout.weight(Layer::Dense([0; 3])))?;
    let blocks = names.count(|block| layout.weight(Layer::Dense([block, 0, 0])));
    let doublings = layout.doublings(&names).ok_or_else(|| {
        let last = layout.weight(Layer::Last(2));
        names.wrong(format!("the layers behind the blocks are missing (such as `{last}`)"))
    })?;
    let [colours, _, _] = names.kernel(&layout.weight(Layer::Last(doublings)))?;
    let unshuffle = square_side(cin, RGB).filter(|side| 1 << doublings >= *side);
    let Some(unshuffle) = unshuffle.filter(|_| colours == RGB && side == 3) else {
        return Err(names.unsupported(format!(
            "RRDBNet of {cin} channels to {colours} colours with kernels of {side}×{side}"
        )));
    };
    if (1 << doublings) % unshuffle != 0 {
        return Err(names.unsupported(format!(
            "RRDBNet that spreads squares of {unshuffle} and enlarges {} times",
            1 << doublings
        )));
    }
    let wrapper = names.wrapper;
    Ok(Arc::new(RrdbSpec { wrapper, layout, blocks, features, growth, doublings, unshuffle }))
}

impl RrdbSpec {
    /// Input channels of convolution `index` of a dense block, by tensor.
    fn dense_inputs(&self, index: usize) -> Vec<usize> {
        let mut inputs = vec![self.growth; index + 1];
        inputs[0] = self.features;
        inputs
    }
}

impl UpscalerSpec for RrdbSpec {
    fn name(&self) -> &str {
        "RRDBNet"
    }

    fn factor(&self) -> usize {
        (1 << self.doublings) / self.unshuffle
    }

    /// All convolutions before the enlargement, and two pixels for those behind it.
    fn reach(&self) -> usize {
        (self.blocks * DENSE_BLOCKS * CONVOLUTIONS + 4) * self.unshuffle
    }

    fn multiple(&self) -> usize {
        self.unshuffle
    }

    /// The last convolutions read and write features at the full size; before, a dense block stands
    /// beside what entered its residual block and the network.
    fn memory(&self, size: [usize; 2]) -> u64 {
        let inner = size.map(|side| side.div_ceil(self.unshuffle));
        let large = enlarged_bytes(inner, 1 << self.doublings, self.features);
        let large = large.saturating_mul(9) / 4; // what was doubled is alive while it is
        let grown = (CONVOLUTIONS - 1) * self.growth;
        large.max(plane_bytes(inner, 4 * self.features + grown))
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Upscaler>> {
        let weights = inside(weights, self.wrapper);
        let read = |layer: Layer, inputs: &[usize], cout: usize| {
            Conv::load_parts(&weights.scope(self.layout.name(layer)), inputs, cout, 3)
        };
        let features = [self.features];
        let dense_block = |block: usize, dense: usize| -> Result<DenseBlock> {
            let conv = |index: usize| {
                let last = index + 1 == CONVOLUTIONS;
                let cout = if last { self.features } else { self.growth };
                read(Layer::Dense([block, dense, index]), &self.dense_inputs(index), cout)
            };
            Ok(DenseBlock((0..CONVOLUTIONS).map(conv).collect::<Result<_>>()?))
        };
        let block = |block: usize| -> Result<Vec<DenseBlock>> {
            (0..DENSE_BLOCKS).map(|dense| dense_block(block, dense)).collect()
        };
        let up = |index: usize| read(Layer::Up(index), &features, self.features);
        let first = RGB * self.unshuffle * self.unshuffle;
        let residual = vec![RESIDUAL; self.features];
        Ok(Arc::new(Rrdb {
            first: read(Layer::First, &[first], self.features)?,
            blocks: (0..self.blocks).map(block).collect::<Result<_>>()?,
            trunk: read(Layer::Trunk(self.blocks), &features, self.features)?,
            ups: (0..self.doublings).map(up).collect::<Result<_>>()?,
            high: read(Layer::High(self.doublings), &features, self.features)?,
            last: read(Layer::Last(self.doublings), &features, RGB)?,
            residual: Tensor::from_vec(residual, self.features, weights.device())?,
            unshuffle: self.unshuffle,
            factor: self.factor(),
        }))
    }
}

/// Convolutions that each read what entered the block and the results of all before them.
struct DenseBlock(Vec<Conv>);

impl DenseBlock {
    /// Shapes: `x` and the result `[n, h + 2, w + 2, features]`, with a border of zeros.
    fn forward(&self, x: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let mut parts = vec![x.clone()];
        for (index, conv) in self.0.iter().enumerate() {
            check_cancel()?;
            let inputs: Vec<&Tensor> = parts.iter().collect();
            if index + 1 == self.0.len() {
                let residual = Some(x);
                let end = Epilogue { scale: RESIDUAL, residual, ..bordered(Activation::None) };
                return conv.finished(&inputs, &end);
            }
            let grown = conv.finished(&inputs, &bordered(Activation::LeakyRelu(SLOPE)))?;
            parts.push(grown);
        }
        Err(Error::input("a dense block without convolutions"))
    }
}

/// The loaded network.
struct Rrdb {
    first: Conv,
    blocks: Vec<Vec<DenseBlock>>,
    trunk: Conv,
    ups: Vec<Conv>,
    high: Conv,
    last: Conv,
    /// [`RESIDUAL`] for each feature.
    residual: Tensor,
    unshuffle: usize,
    factor: usize,
}

impl Upscaler for Rrdb {
    fn upscale(&self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let (_, h, w, _) = frames.dims4()?;
        let x = pad_plane(&unshuffled(frames, self.unshuffle)?, BORDER)?;
        let first = self.first.finished(&[&x], &bordered(Activation::None))?;
        let mut x = first.clone();
        for block in &self.blocks {
            let mut y = x.clone();
            for dense in block {
                y = dense.forward(&y, check_cancel)?;
            }
            x = gate_add(&x, &y, &self.residual)?;
        }
        let end = Epilogue { residual: Some(&first), ..bordered(Activation::None) };
        x = self.trunk.finished(&[&x], &end)?;
        drop(first);
        for (index, up) in self.ups.iter().enumerate() {
            check_cancel()?;
            let plain = if index == 0 { without_border(&x)? } else { x };
            x = upsample_nearest2(&plain, BORDER)?;
            drop(plain);
            // A border for the convolution that follows; the next doubling makes its own.
            let padding = if index + 1 == self.ups.len() { BORDER } else { [0; 4] };
            let end = Epilogue { padding, ..bordered(Activation::LeakyRelu(SLOPE)) };
            x = up.finished(&[&x], &end)?;
        }
        check_cancel()?;
        x = self.high.finished(&[&x], &bordered(Activation::LeakyRelu(SLOPE)))?;
        check_cancel()?;
        x = self.last.finished(&[&x], &Epilogue::default())?;
        Ok(x.narrow(1, 0, h * self.factor)?.narrow(2, 0, w * self.factor)?.contiguous()?)
    }
}

/// Squares of `side`² pixels as channels, as torch's `pixel_unshuffle`; where they do not fit, the
/// frame goes on mirrored.
fn unshuffled(frames: &Tensor, side: usize) -> Result<Tensor> {
    if side == 1 {
        return Ok(frames.clone());
    }
    let x = mirrored_to(&mirrored_to(frames, 1, side)?, 2, side)?;
    let (n, h, w, c) = x.dims4()?;
    let x = x.reshape(&[n, h / side, side, w / side, side, c][..])?;
    let x = x.permute([0, 1, 3, 5, 2, 4])?; // [n, h/side, w/side, c, side, side]
    Ok(x.force_contiguous()?.reshape((n, h / side, w / side, c * side * side))?)
}
