//! SRVGGNetCompact of Real-ESRGAN: convolutions 3×3 with PReLU between them, pixel shuffle, and the
//! frame enlarged by nearest beside it (realesrgan/archs/srvgg_arch.py, BSD-3-Clause).

use std::sync::Arc;

use candle_core::Tensor;
use kino_kernels::{Activation, Epilogue, pad_plane, pixel_shuffle};

use super::layers::{BORDER, RGB, bordered, plane_bytes};
use crate::cancel::CheckCancel;
use crate::checkpoint::PartFiles;
use crate::error::Result;
use crate::model::{Upscaler, UpscalerSpec};
use crate::names::{Names, inside, square_side};
use crate::weight::{Conv, Weights};

/// A network of this kind, by its sizes.
pub(super) struct SrvggSpec {
    wrapper: &'static str,
    features: usize,
    /// Convolutions, the last included.
    convolutions: usize,
    factor: usize,
}

/// Recognises a file of this kind.
pub(super) fn recognise(files: &PartFiles) -> Option<Result<Arc<dyn UpscalerSpec>>> {
    let names = Names::having(files, "body.1.weight")?;
    // Its second layer is a PReLU: one slope a channel.
    let is_prelu = names.shape("body.1.weight").is_some_and(|shape| shape.len() == 1);
    (is_prelu && names.shape("body.0.weight").is_some()).then(|| spec(names))
}

fn spec(names: Names<'_>) -> Result<Arc<dyn UpscalerSpec>> {
    // Layers alternate: convolution 2i, PReLU 2i + 1; the last is a convolution.
    let convolutions = names.count(|index| format!("body.{}.weight", 2 * index));
    let [features, colours, side] = names.kernel("body.0.weight")?;
    let last = format!("body.{}.weight", 2 * convolutions.saturating_sub(1));
    let [spread, _, _] = names.kernel(&last)?;
    if colours != RGB || side != 3 {
        return Err(names.unsupported(format!(
            "SRVGGNetCompact for {colours} colours with kernels of {side}×{side}"
        )));
    }
    let factor = square_side(spread, RGB).ok_or_else(|| {
        names.wrong(format!("`{last}` gives {spread} channels, which are no squares of RGB"))
    })?;
    Ok(Arc::new(SrvggSpec { wrapper: names.wrapper, features, convolutions, factor }))
}

impl UpscalerSpec for SrvggSpec {
    fn name(&self) -> &str {
        "SRVGGNetCompact"
    }

    fn factor(&self) -> usize {
        self.factor
    }

    fn reach(&self) -> usize {
        self.convolutions
    }

    /// Two activations are alive at once; at the end one with the channels that are spread, then
    /// those with the result.
    fn memory(&self, size: [usize; 2]) -> u64 {
        let features = plane_bytes(size, self.features);
        let spread = plane_bytes(size, RGB * self.factor * self.factor);
        let most = features.saturating_mul(2).max(features.saturating_add(spread));
        most.max(spread.saturating_mul(2))
    }

    fn load(&self, weights: &Weights) -> Result<Arc<dyn Upscaler>> {
        let weights = inside(weights, self.wrapper).scope("body");
        let mut layers = Vec::with_capacity(self.convolutions);
        let last = self.convolutions - 1;
        for index in 0..self.convolutions {
            let cin = if index == 0 { RGB } else { self.features };
            let spread = RGB * self.factor * self.factor;
            let cout = if index == last { spread } else { self.features };
            let conv = Conv::load_parts(&weights.scope(2 * index), &[cin], cout, 3)?;
            let slopes = (index < last)
                .then(|| weights.scope(2 * index + 1).get("weight", cout))
                .transpose()?;
            layers.push((conv, slopes));
        }
        Ok(Arc::new(Srvgg { layers, factor: self.factor }))
    }
}

/// The loaded network: convolutions with the slopes of the PReLU behind each.
struct Srvgg {
    layers: Vec<(Conv, Option<Tensor>)>,
    factor: usize,
}

impl Upscaler for Srvgg {
    fn upscale(&self, frames: &Tensor, check_cancel: &mut CheckCancel<'_>) -> Result<Tensor> {
        let mut x = pad_plane(frames, BORDER)?;
        for (conv, slopes) in &self.layers {
            check_cancel()?;
            let epilogue = match slopes {
                Some(slopes) => bordered(Activation::Prelu(slopes)),
                None => Epilogue::default(),
            };
            // Assigning frees each activation as soon as the next one stands.
            x = conv.finished(&[&x], &epilogue)?;
        }
        check_cancel()?;
        Ok(pixel_shuffle(&x, self.factor, Some(frames))?)
    }
}
