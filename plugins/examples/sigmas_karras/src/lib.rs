//! Noise levels that are close together where there is little noise.

use kino_plugin::prelude::*;

/// Makes the noise levels of Karras et al. (arXiv:2206.00364, equation 5) for `dit.sample`.
///
/// In the paper, data with noise is x₀ + σ·n, and the levels are
/// σᵢ = (σmax^(1/ρ) + i/(N − 1)·(σmin^(1/ρ) − σmax^(1/ρ)))^ρ for i = 0…N − 1, then 0. The models
/// here are flows, (1 − s)·x₀ + s·n, which has the same ratio of noise to data where s = σ/(1 + σ):
/// levels fall from just below 1 (noise) to 0 (data).
#[node(id = "sigmas.karras", version = "1.0.0")]
pub fn sigmas_karras(
    /// Steps from noise to data.
    #[param(default = 20, range = 1..=1000, unit = "steps")]
    steps: usize,
    /// Noise before the last step, in units of the data's spread.
    #[param(default = 0.02, range = 0.0001..=10.0)]
    sigma_min: f64,
    /// Noise at the first step, in units of the data's spread.
    #[param(default = 80.0, range = 0.01..=10000.0)]
    sigma_max: f64,
    /// How much closer together levels of little noise are; 1 is evenly spaced in σ.
    #[param(default = 7.0, range = 1.0..=20.0)]
    rho: f64,
) -> Result<Sigmas> {
    ensure!(
        sigma_min < sigma_max,
        "`sigma_min` ({sigma_min}) must be less than `sigma_max` ({sigma_max})"
    );
    let (first, last) = (libm::pow(sigma_max, 1.0 / rho), libm::pow(sigma_min, 1.0 / rho));
    let level = |step: usize| {
        let along = step as f64 / (steps - 1).max(1) as f64;
        let sigma = libm::pow(first + along * (last - first), rho);
        sigma / (1.0 + sigma)
    };
    Ok(Sigmas((0..steps).map(level).chain([0.0]).collect()))
}

kino_plugin::plugin!(sigmas_karras);
