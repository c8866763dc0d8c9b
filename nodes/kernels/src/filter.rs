//! Filters of resizing, and the pixels that each output pixel is mixed from.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Tensor};

use crate::Result;

/// How colours between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// The mean of the area that a pixel covers: exact where sizes are divided by whole numbers.
    Area,
    /// A triangle, one pixel to each side.
    Bilinear,
    /// Catmull-Rom's cubic (a = −1/2), two pixels to each side.
    Bicubic,
    /// A windowed sinc, three pixels to each side: the sharpest. It overshoots at edges.
    #[default]
    Lanczos,
}

impl Filter {
    /// All filters, by quality.
    pub const ALL: [Self; 5] =
        [Self::Nearest, Self::Area, Self::Bilinear, Self::Bicubic, Self::Lanczos];

    /// Its name in graphs: `nearest`, `area`, `bilinear`, `bicubic`, `lanczos`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Area => "area",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        }
    }

    /// Pixels to each side at the original size.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Area => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Weight at a distance in pixels.
    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Nearest | Self::Area => f64::from(x <= 0.5),
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let angle = x * std::f64::consts::PI;
    if angle == 0.0 { 1.0 } else { libm::sin(angle) / angle }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = Self::ALL.into_iter().find(|filter| filter.name() == name);
        known
            .ok_or_else(|| format!("no filter `{name}`: nearest, area, bilinear, bicubic, lanczos"))
    }
}

/// The pixels that one output pixel is mixed from.
pub(crate) struct Window {
    pub(crate) start: usize,
    pub(crate) weights: Vec<f32>,
}

/// The windows of all output pixels along one axis.
pub(crate) fn windows(filter: Filter, from: usize, to: usize) -> Vec<Window> {
    if filter == Filter::Area {
        return (0..to).map(|i| covered(i, from, to)).collect();
    }
    let step = from as f64 / to as f64;
    let widening = step.max(1.0);
    (0..to).map(|i| window(filter, from, (i as f64 + 0.5) * step, widening)).collect()
}

/// The pixels of `from` that pixel `i` of `to` covers, each by the part of it that is covered.
fn covered(i: usize, from: usize, to: usize) -> Window {
    // In units of 1/to of an input pixel, where all edges are whole numbers.
    let (begin, end) = (i as u128 * from as u128, (i + 1) as u128 * from as u128);
    let (start, last) = (begin / to as u128, (end - 1) / to as u128);
    let weights = (start..=last).map(|x| {
        let part = end.min((x + 1) * to as u128) - begin.max(x * to as u128);
        (part as f64 / from as f64) as f32
    });
    Window { start: start as usize, weights: weights.collect() }
}

fn window(filter: Filter, length: usize, centre: f64, widening: f64) -> Window {
    let (start, weights) = exact(filter, length, centre, widening);
    Window { start, weights: weights.into_iter().map(|weight| weight as f32).collect() }
}

/// The first pixel that one output pixel is mixed from, and the weights from there on.
fn exact(filter: Filter, length: usize, centre: f64, widening: f64) -> (usize, Vec<f64>) {
    if filter == Filter::Nearest {
        return ((centre as usize).min(length - 1), vec![1.0]);
    }
    let support = filter.support() * widening;
    let start = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(length).max(start + 1);
    let weights = (start..end).map(|x| filter.weight((x as f64 + 0.5 - centre) / widening));
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    (start, weights.iter().map(|weight| weight / sum).collect())
}

/// Bits behind the point of the weights with which Pillow mixes bytes (`PRECISION_BITS`).
pub(crate) const WEIGHT_BITS: u32 = 22;

/// As [`windows`], the weights as whole numbers of 2⁻²² (`normalize_coeffs_8bpc` of Pillow's
/// `Resample.c`).
pub(crate) fn byte_windows(filter: Filter, from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let step = from as f64 / to as f64;
    let window = |i: usize| {
        let (start, weights) = exact(filter, from, (i as f64 + 0.5) * step, step.max(1.0));
        let whole = |weight: f64| (weight * f64::from(1u32 << WEIGHT_BITS)).round() as i64;
        (start, weights.into_iter().map(whole).collect())
    };
    (0..to).map(window).collect()
}

/// The windows of one axis as a matrix `[to, from]`, for the composite form.
pub(crate) fn matrix(windows: &[Window], from: usize, like: &Tensor) -> Result<Tensor> {
    let mut weights = vec![0f32; windows.len() * from];
    for (window, row) in windows.iter().zip(weights.chunks_exact_mut(from)) {
        row[window.start..][..window.weights.len()].copy_from_slice(&window.weights);
    }
    Tensor::from_vec(weights, (windows.len(), from), like.device())?.to_dtype(DType::F32)
}
