//! Sinusoidal embeddings of timesteps, which networks of several families read.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// [cos | sin] of t·10000^(−i/half).
///
/// Shape: `[1, width]`, in f32.
///
/// Computed in f32 like `get_timestep_embedding` of diffusers: at t near 1000 the rounding of a
/// frequency shows in the fifth digit of its cosine, so frequencies are rounded as there.
pub(crate) fn sinusoids(timestep: f64, width: usize, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    let frequency = |i: usize| exp_f32(-(10_000f64.ln() as f32) * i as f32 / half as f32);
    let angles: Vec<f64> = (0..half).map(|i| f64::from(timestep as f32 * frequency(i))).collect();
    let cosines = angles.iter().map(|angle| angle.cos() as f32);
    let sines = angles.iter().map(|angle| angle.sin() as f32);
    Ok(Tensor::from_iter(cosines.chain(sines), device)?.unsqueeze(0)?) // [1, width]
}

/// eˣ in f32, within 0.56 units in the last place: 2^(k/128)·(1 + r + r²/2), where x·128/ln 2 = k +
/// r·128/ln 2 and k is an integer.
///
/// The vector maths library behind the reference values takes this many terms. An exact eˣ rounds
/// the other way for one frequency in a hundred, and moves velocities by up to 2e-5.
fn exp_f32(x: f32) -> f32 {
    let per_step = std::f64::consts::LN_2 / 128.0;
    let x = f64::from(x);
    let k = (x / per_step).round_ties_even();
    let r = x - k * per_step;
    ((k / 128.0).exp2() * (1.0 + r + r * r / 2.0)) as f32
}
