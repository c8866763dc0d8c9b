//! Film grain: noise that is strongest where a picture is neither black nor white.

use std::f64::consts::TAU;

use kino_plugin::prelude::*;

/// Adds the grain of film to frames.
///
/// Each pixel gets normal noise, the same for its three channels, times `strength` · 4y(1 − y),
/// where y is its luminance: black and white stay clean. The noise follows from the seed, the
/// frame's number and the place in the frame, and from nothing else.
#[node(id = "film.grain", version = "1.0.0", like = "frames")]
pub fn film_grain(
    cx: &mut Cx,
    frames: Frames,
    /// Standard deviation of the grain in middle grey.
    #[param(default = 0.06, range = 0.0..=1.0)]
    strength: f64,
    /// Distance from one grain to the next.
    #[param(default = 1.0, range = 1.0..=16.0, unit = "px")]
    size: f64,
    /// The same seed gives the same grain.
    #[param(draws, default = 0)]
    seed: u64,
) -> Result<Frames> {
    let (rows, columns) = (Taps::new(frames.height(), size), Taps::new(frames.width(), size));
    frames.map_frames(cx, |frame, out, index| {
        let grains = normals(mix(seed ^ mix(index as u64)), rows.grains * columns.grains);
        let pixels = frame.rgb.chunks_exact(3).zip(out.chunks_exact_mut(3));
        for (at, (rgb, out)) in pixels.enumerate() {
            let (row, column) = (at / frame.width, at % frame.width);
            let grain = between(&grains, &rows, &columns, row, column);
            let luminance = 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]; // BT.709
            let grain = strength as f32 * 4.0 * luminance * (1.0 - luminance) * grain;
            for (out, value) in out.iter_mut().zip(rgb) {
                *out = (value + grain).clamp(0.0, 1.0);
            }
        }
        Ok(())
    })
}

/// Along one side of the picture: the grain before each pixel, and how far it lies behind.
struct Taps {
    at: Vec<(usize, f32)>,
    grains: usize,
}

impl Taps {
    fn new(pixels: usize, size: f64) -> Self {
        let tap = |pixel: usize| (pixel as f64 / size).floor();
        let at = (0..pixels).map(|i| (tap(i) as usize, (i as f64 / size - tap(i)) as f32));
        let at: Vec<_> = at.collect();
        let grains = at.last().map_or(0, |(grain, _)| grain + 2);
        Taps { at, grains }
    }
}

/// The grain at a pixel: between the four around it, with variance 1 everywhere.
fn between(grains: &[f32], rows: &Taps, columns: &Taps, row: usize, column: usize) -> f32 {
    let ((r, down), (c, right)) = (rows.at[row], columns.at[column]);
    let first = r * columns.grains + c;
    let [a, b] = [grains[first], grains[first + 1]];
    let [below_a, below_b] = [grains[first + columns.grains], grains[first + columns.grains + 1]];
    let upper = a * (1.0 - right) + b * right;
    let lower = below_a * (1.0 - right) + below_b * right;
    let spread = |t: f32| t * t + (1.0 - t) * (1.0 - t);
    (upper * (1.0 - down) + lower * down) / (spread(right) * spread(down)).sqrt()
}

/// Normal numbers that follow from a key: the Box-Muller transform of hashes of their indices.
///
/// The functions of libm give the same bits in every build.
fn normals(key: u64, count: usize) -> Vec<f32> {
    let uniform = |at: u64| (mix(key.wrapping_add(at)) >> 11) as f64 / (1u64 << 53) as f64;
    let pair = |at: u64| {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(2 * at)));
        let (sin, cos) = libm::sincos(TAU * uniform(2 * at + 1));
        [(radius * cos) as f32, (radius * sin) as f32]
    };
    (0..count.div_ceil(2) as u64).flat_map(pair).take(count).collect()
}

/// Scatters the bits of a number: SplitMix64 (Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

kino_plugin::plugin!(film_grain);
