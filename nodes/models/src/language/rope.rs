//! Rotary positions (arXiv:2104.09864), with the ways in which files say that they are stretched.

use std::f64::consts::PI;
use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use kino_kernels as kernels;

use crate::checkpoint::FileMetadata;
use crate::error::{Error, Result};

/// How far apart tokens are, for queries and keys.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Radians a token, for each pair.
    frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    scale: f64,
    /// Whether the numbers of a pair lie beside each other, as llama.cpp writes Llama; else they are
    /// half a head apart (GPT-NeoX).
    interleaved: bool,
}

/// Angles of tokens: `[n, d/2]` each.
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// What the metadata say under `arch.rope`, of heads `d` wide.
    ///
    /// # Errors
    /// When a value is no such value, or the stretching is of a kind that is not read.
    pub(super) fn read(
        metadata: &FileMetadata,
        arch: &str,
        d: usize,
        interleaved: bool,
    ) -> Result<Self> {
        let key = |name: &str| format!("{arch}.rope.{name}");
        let positive = |name: &str| {
            let value = metadata.real(&key(name))?;
            match value {
                Some(value) if value <= 0.0 => {
                    Err(metadata.wrong(&key(name), &format!("is {value}, expected more than 0")))
                }
                value => Ok(value),
            }
        };
        let unsupported = |what: String| Error::Unsupported { file: metadata.file().into(), what };
        if metadata.size(&key("dimension_count"))?.is_some_and(|turned| turned != d) {
            let what = format!("a part of a head that is turned (`{}`)", key("dimension_count"));
            return Err(unsupported(what));
        }
        let base = positive("freq_base")?.unwrap_or(10_000.0);
        let plain: Vec<f64> =
            (0..d / 2).map(|pair| base.powf(-2.0 * pair as f64 / d as f64)).collect();
        let factor = match positive("scaling.factor")? {
            Some(factor) => factor,
            // Older files.
            None => positive("scale_linear")?.unwrap_or(1.0),
        };
        let kind = metadata.text(&key("scaling.type"))?;
        let kind = kind.unwrap_or(if factor == 1.0 { "none" } else { "linear" });
        let (frequencies, scale) = match kind {
            "none" => (plain, 1.0),
            "linear" => (plain.iter().map(|frequency| frequency / factor).collect(), 1.0),
            "yarn" => {
                let original = positive("scaling.original_context_length")?;
                let original = original.ok_or_else(|| {
                    metadata.wrong(&key("scaling.original_context_length"), "is missing")
                })?;
                let fast = positive("scaling.yarn_beta_fast")?.unwrap_or(32.0);
                let slow = positive("scaling.yarn_beta_slow")?.unwrap_or(1.0);
                let frequencies = yarn(&plain, base, factor, original, [fast, slow]);
                let own = positive("scaling.attn_factor")?.unwrap_or(1.0);
                (frequencies, own * (0.1 * factor.ln() + 1.0))
            }
            other => return Err(unsupported(format!("positions stretched by `{other}`"))),
        };
        Ok(Self { frequencies, scale, interleaved })
    }

    /// The same with frequencies divided by these numbers, as files of Llama 3 have them.
    #[must_use]
    pub(super) fn divided(mut self, by: &[f32]) -> Self {
        for (frequency, by) in self.frequencies.iter_mut().zip(by) {
            *frequency /= f64::from(*by);
        }
        self
    }

    /// The angles of tokens.
    ///
    /// # Errors
    /// When the device refuses them.
    pub fn angles(&self, positions: Range<usize>, device: &Device) -> Result<Angles> {
        let (n, half) = (positions.len(), self.frequencies.len());
        let table = |of: fn(f64) -> f64| -> Result<Tensor> {
            let angles = positions
                .clone()
                .flat_map(|at| self.frequencies.iter().map(move |frequency| at as f64 * frequency));
            let values: Vec<f32> = angles.map(|angle| (of(angle) * self.scale) as f32).collect();
            Ok(Tensor::from_vec(values, (n, half), device)?)
        };
        Ok(Angles { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// Turns queries or keys. Shapes: `x` and the result `[n, heads, d]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn turn(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        if self.interleaved {
            return Ok(kernels::rope_interleaved(x, &angles.cos, &angles.sin)?);
        }
        let half = self.frequencies.len();
        let wide = |table: &Tensor| Ok::<_, Error>(table.to_dtype(x.dtype())?.unsqueeze(1)?);
        let (cos, sin) = (wide(&angles.cos)?, wide(&angles.sin)?); // [n, 1, d/2]
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Ok(Tensor::cat(&[first, second], 2)?)
    }

    /// The divisors in a file of Llama 3, `[d/2]`.
    pub(super) const DIVISORS: &str = "rope_freqs.weight";
    /// Their type.
    pub(super) const DIVISORS_TYPE: DType = DType::F32;
}

/// Frequencies by YaRN (arXiv:2309.00071, §3.2): fast ones stay, slow ones are divided by the
/// factor, those between are mixed.
fn yarn(plain: &[f64], base: f64, factor: f64, original: f64, [fast, slow]: [f64; 2]) -> Vec<f64> {
    let d = 2.0 * plain.len() as f64;
    // The pair that turns so many times within the context that the model was trained on.
    let pair = |turns: f64| d * (original / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
    let low = pair(fast).floor().max(0.0);
    let high = pair(slow).ceil().min(d - 1.0);
    let width = if high == low { 0.001 } else { high - low };
    let mix = |(at, frequency): (usize, &f64)| {
        let ramp = ((at as f64 - low) / width).clamp(0.0, 1.0);
        frequency / factor * ramp + frequency * (1.0 - ramp)
    };
    plain.iter().enumerate().map(mix).collect()
}
