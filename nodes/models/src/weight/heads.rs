//! The heads of an attention.

use candle_core::Tensor;
use kino_kernels as kernels;

use crate::error::Result;

/// How many heads an attention has, and their width.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// How many there are.
    pub count: usize,
    /// Channels of each.
    pub width: usize,
}

impl Heads {
    /// `[tokens, dim]` as `[tokens, heads, width]`.
    ///
    /// # Errors
    /// When `dim` is not that of all heads.
    pub fn split(self, x: &Tensor) -> Result<Tensor> {
        Ok(x.reshape(((), self.count, self.width))?)
    }

    /// Attention itself, scaled by 1/√width. Shapes: `[heads, tokens, width]` to `[tokens, dim]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn mix(self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        self.joined(&kernels::attention(query, key, value, self.scale())?)
    }

    /// The same with `bias` added to the scores, which broadcasts to `[heads, tokens, keys]`.
    ///
    /// # Errors
    /// As [`Heads::mix`].
    pub fn mix_with_bias(
        self,
        query: &Tensor,
        (key, value): (&Tensor, &Tensor),
        bias: &Tensor,
    ) -> Result<Tensor> {
        self.joined(&kernels::attention_with_bias(query, key, value, bias, self.scale())?)
    }

    /// Numbers of keys and values that are packed at a time beside these, which are of so many
    /// bytes: those of some heads.
    pub fn packed(self, keys: usize, number: usize) -> u128 {
        let at_once = kernels::heads_at_once([self.count, keys, self.width], number);
        [2, at_once, keys, self.width].into_iter().map(|n| n as u128).product()
    }

    fn scale(self) -> f64 {
        1.0 / (self.width as f64).sqrt()
    }

    /// `[heads, tokens, width]` to `[tokens, dim]`.
    fn joined(self, mixed: &Tensor) -> Result<Tensor> {
        Ok(mixed.transpose(0, 1)?.reshape(((), self.count * self.width))?)
    }
}
