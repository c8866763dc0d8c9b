//! A linear map from latents to colours, for previews that cost nothing.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;

/// Latents that are decoded to find the map, and their height and width.
const PROBES: usize = 12;
const SIDE: usize = 5;

/// colour = latent·matrix + bias: the linear part of a decoder, one colour a latent pixel.
#[derive(Debug, Clone)]
pub struct RgbMap {
    /// `[z, 3]`
    matrix: Tensor,
    /// `[3]`
    bias: Tensor,
}

impl RgbMap {
    /// Derives the map from the decoder: decodes a few small latents of noise, one frame each, and
    /// fits the mean colour under each latent pixel by least squares.
    ///
    /// `decode` gives the one frame `[H, W, 3]` of a latent frame `[z, h, w]`, not clamped; a latent
    /// pixel is a square of `side` pixels.
    ///
    /// # Errors
    /// When decoding fails.
    pub fn derive(
        channels: usize,
        side: usize,
        mut decode: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let mut fit = LeastSquares::new(channels + 1);
        let mut noise = Noise(0x5eed);
        for _ in 0..PROBES {
            let latent: Vec<f32> = (0..channels * SIDE * SIDE).map(|_| noise.next()).collect();
            let latent = Tensor::from_vec(latent, (channels, SIDE, SIDE), &Device::Cpu)?;
            let colours = colours(&decode(&latent)?, side)?;
            let pixels: Vec<Vec<f32>> = latent.reshape((channels, ()))?.t()?.to_vec2()?;
            for (pixel, colour) in pixels.iter().zip(&colours) {
                fit.add(pixel, colour);
            }
        }
        let solution = fit.solve();
        let (slopes, bias) = solution.split_at(channels * 3);
        let matrix = Tensor::from_vec(slopes.to_vec(), (channels, 3), &Device::Cpu)?;
        Ok(Self { matrix, bias: Tensor::from_vec(bias.to_vec(), 3, &Device::Cpu)? })
    }

    /// The slope of each colour in each latent channel, `[z, 3]`.
    pub fn matrix(&self) -> &Tensor {
        &self.matrix
    }

    /// The colour of a latent of zeros in −1…1, `[3]`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// A small picture of one latent frame: `[z, h, w]` → `[h, w, 3]` in 0…1, f32 on the CPU.
    ///
    /// # Errors
    /// When the latent has another number of channels.
    pub fn apply(&self, latent: &Tensor) -> Result<Tensor> {
        let latent = latent.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let (channels, h, w) = latent.dims3()?;
        let pixels = latent.reshape((channels, h * w))?.t()?.contiguous()?; // [h·w, z]
        let colours = pixels.matmul(&self.matrix)?.broadcast_add(&self.bias)?;
        Ok(colours.affine(0.5, 0.5)?.clamp(0f32, 1f32)?.reshape((h, w, 3))?)
    }
}

/// The mean colour of the frame under each latent pixel, row by row.
fn colours(frame: &Tensor, side: usize) -> Result<Vec<Vec<f32>>> {
    let blocks = frame.reshape((SIDE, side, SIDE, side * 3))?;
    let blocks = blocks.reshape((SIDE * side, SIDE, side, 3))?.mean(2)?; // [H, w, 3]
    let blocks = blocks.reshape((SIDE, side, SIDE, 3))?.mean(1)?; // [h, w, 3]
    Ok(blocks.reshape((SIDE * SIDE, 3))?.to_device(&Device::Cpu)?.to_vec2()?)
}

/// Noise of variance 1, near enough to normal for a fit (the sum of twelve uniform numbers).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| self.uniform()).sum();
        (sum - 6.0) as f32
    }

    /// SplitMix64, its top 53 bits as a number in 0…1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Normal equations of three colours on the same unknowns; the last unknown is the constant.
struct LeastSquares {
    unknowns: usize,
    /// Each row: products with every unknown, then with the three colours.
    rows: Vec<Vec<f64>>,
}

impl LeastSquares {
    fn new(unknowns: usize) -> Self {
        Self { unknowns, rows: vec![vec![0.0; unknowns + 3]; unknowns] }
    }

    fn add(&mut self, pixel: &[f32], colour: &[f32]) {
        let line: Vec<f64> =
            pixel.iter().chain(&[1.0]).chain(colour).map(|value| f64::from(*value)).collect();
        for (row, factor) in self.rows.iter_mut().zip(&line) {
            row.iter_mut().zip(&line).for_each(|(sum, value)| *sum += factor * value);
        }
    }

    /// Gauss–Jordan elimination; the matrix is positive definite, so that no row need be swapped.
    /// The result is `[unknowns, 3]`.
    fn solve(mut self) -> Vec<f32> {
        for pivot in 0..self.unknowns {
            self.rows[pivot][pivot] += 1e-6; // for a channel that never varies
            let scale = self.rows[pivot][pivot].recip();
            self.rows[pivot].iter_mut().for_each(|value| *value *= scale);
            let line = self.rows[pivot].clone();
            for (index, row) in self.rows.iter_mut().enumerate() {
                if index != pivot {
                    let factor = row[pivot];
                    row.iter_mut().zip(&line).for_each(|(value, p)| *value -= factor * p);
                }
            }
        }
        let unknowns = self.unknowns;
        self.rows.iter().flat_map(|row| row[unknowns..].iter().map(|value| *value as f32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{LeastSquares, Noise};

    #[test]
    fn least_squares_finds_the_line() {
        let (mut fit, mut noise) = (LeastSquares::new(3), Noise(1));
        for _ in 0..50 {
            let (x, y) = (noise.next(), noise.next());
            fit.add(&[x, y], &[2.0 * x - y + 0.5, y, -3.0]);
        }
        let expected = [2.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.5, 0.0, -3.0];
        for (found, expected) in fit.solve().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }
}
