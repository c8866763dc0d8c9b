//! Classifier-free guidance: how velocities with and without the text become one.

use candle_core::{D, DType, Device, Tensor};

use crate::error::{Error, Result};

/// Classifier-free guidance within a part of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CfgScale {
    /// How far to go from the velocity without text towards that with text; 1 is no guidance.
    pub scale: f64,
    /// Where in the run guidance begins: 0 is the first step.
    pub from: f64,
    /// Where in the run guidance ends: 1 is after the last step.
    pub to: f64,
    /// How much of the contrast that guidance adds is taken back: 0 none, 1 all.
    pub rescale: f64,
}

impl CfgScale {
    /// Guidance by `scale` in every step.
    pub fn new(scale: f64) -> Self {
        Self { scale, from: 0.0, to: 1.0, rescale: 0.0 }
    }

    /// Whether step `step` of `steps` is guided, so that the velocity without text is needed.
    ///
    /// Limiting guidance to an interval is arXiv:2404.07724.
    pub fn guides(&self, step: usize, steps: usize) -> bool {
        let at = step as f64 / steps.max(1) as f64;
        self.scale != 1.0 && (self.from..self.to).contains(&at)
    }

    /// The guided velocity of packed patches.
    ///
    /// Shapes: `with_text`, `without` and the result are `[tokens, width]`; `tokens` of each clip
    /// add up to the rows.
    ///
    /// # Errors
    /// When shapes or devices differ, or the clips do not add up to the rows.
    pub fn apply(&self, with_text: &Tensor, without: &Tensor, tokens: &[usize]) -> Result<Tensor> {
        let guided = classifier_free(with_text, without, self.scale)?;
        if self.rescale == 0.0 {
            return Ok(guided);
        }
        rescaled(&guided, with_text, self.rescale, tokens)
    }
}

/// u + s·(c − u) (arXiv:2207.12598, in the form that calls s = 1 no guidance).
///
/// Shapes: any, all alike.
///
/// # Errors
/// When shapes or devices differ.
pub fn classifier_free(with_text: &Tensor, without: &Tensor, scale: f64) -> Result<Tensor> {
    Ok((without + ((with_text - without)? * scale)?)?)
}

/// Takes back the contrast that guidance added (arXiv:2305.08891, §3.4), clip by clip.
///
/// φ·g·std(c)/std(g) + (1 − φ)·g, where g is the guided velocity and c that with text.
///
/// Shapes: `guided`, `with_text` and the result are `[tokens, width]`; `tokens` of each clip add up
/// to the rows.
///
/// # Errors
/// When shapes or devices differ, or the clips do not add up to the rows.
pub fn rescaled(
    guided: &Tensor,
    with_text: &Tensor,
    factor: f64,
    tokens: &[usize],
) -> Result<Tensor> {
    let rows = guided.dim(0)?;
    if tokens.iter().sum::<usize>() != rows {
        return Err(Error::input(format!("clips of {tokens:?} tokens do not add up to {rows}")));
    }
    let mut clips = Vec::with_capacity(tokens.len());
    let mut start = 0;
    for &count in tokens {
        let clip = guided.narrow(0, start, count)?; // [tokens of the clip, width]
        let wanted = deviation(&with_text.narrow(0, start, count)?)?;
        let found = deviation(&clip)?;
        // A clip without any contrast has none to take back.
        let ratio = if found > 0.0 { wanted / found } else { 1.0 };
        clips.push((clip * (factor * ratio + 1.0 - factor))?);
        start += count;
    }
    Ok(Tensor::cat(&clips, 0)?)
}

/// Standard deviation of all elements.
fn deviation(tensor: &Tensor) -> Result<f64> {
    // On the CPU: not every device has f64.
    let flat = tensor.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(flat.var(D::Minus1)?.sqrt()?.to_scalar::<f64>()?)
}
