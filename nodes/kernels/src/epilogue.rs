//! What a convolution does with its sums before they are written: bias, activation, scale,
//! residual. It costs no pass over memory of its own.

use candle_core::Tensor;

use crate::dense::{Dense, Elements, Numbers};
use crate::layout::Padding;
use crate::tier::by_tier;
use crate::{Result, math};

/// What becomes of the sums of a convolution: activation(sums + bias)·scale + residual.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// What is done with sums and bias.
    pub activation: Activation<'a>,
    /// What the activated sums are multiplied by.
    pub scale: f32,
    /// What is added at the end, of the shape of the result with its padding.
    pub residual: Option<&'a Tensor>,
    /// Zeros that are written around each plane, so that the next convolution can read it.
    pub padding: Padding,
}

impl Default for Epilogue<'_> {
    /// The sums with their bias, without padding.
    fn default() -> Self {
        Self { activation: Activation::None, scale: 1.0, residual: None, padding: [0; 4] }
    }
}

/// A function of each sum.
#[derive(Debug, Clone, Copy, Default)]
pub enum Activation<'a> {
    /// The sum itself.
    #[default]
    None,
    /// x where it is positive, else x·slope of its channel (arXiv:1502.01852). Slopes `[c]`.
    Prelu(&'a Tensor),
    /// x where it is positive, else x·slope.
    LeakyRelu(f32),
    /// x·sigmoid(x).
    Silu,
}

impl<'a> Epilogue<'a> {
    /// The tensors that it reads.
    pub(crate) fn operands(&self) -> impl Iterator<Item = &'a Tensor> {
        let slopes = match self.activation {
            Activation::Prelu(slopes) => Some(slopes),
            _ => None,
        };
        slopes.into_iter().chain(self.residual)
    }
}

/// An epilogue whose tensors can be read.
pub(crate) struct DenseEpilogue {
    slopes: Option<Dense>,
    silu: bool,
    leak: Option<f32>,
    scale: f32,
    residual: Option<Dense>,
}

impl DenseEpilogue {
    pub(crate) fn new(epilogue: &Epilogue) -> Result<Self> {
        let (mut slopes, mut leak, mut silu) = (None, None, false);
        match epilogue.activation {
            Activation::None => {}
            Activation::Prelu(tensor) => slopes = Some(Dense::widened(tensor)?),
            Activation::LeakyRelu(slope) => leak = Some(slope),
            Activation::Silu => silu = true,
        }
        let residual = Dense::optional(epilogue.residual)?;
        Ok(Self { slopes, silu, leak, scale: epilogue.scale, residual })
    }

    /// The same for channels of a bias that may be absent.
    pub(crate) fn read<'a>(&'a self, bias: Option<&'a [f32]>, channels: usize) -> Finish<'a> {
        let activation = match (&self.slopes, self.leak) {
            (Some(slopes), _) => Function::Slopes(slopes.read()),
            (None, Some(leak)) => Function::Leak(leak),
            (None, None) if self.silu => Function::Silu,
            (None, None) => Function::None,
        };
        let bias = bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec);
        Finish {
            bias,
            activation,
            scale: self.scale,
            residual: self.residual.as_ref().map(Dense::numbers),
        }
    }
}

enum Function<'a> {
    None,
    Slopes(Elements<'a>),
    Leak(f32),
    Silu,
}

/// An epilogue with its operands at hand.
pub(crate) struct Finish<'a> {
    bias: Vec<f32>,
    activation: Function<'a>,
    scale: f32,
    residual: Option<Numbers<'a>>,
}

impl Finish<'_> {
    /// Finishes some pixels of sums; the first number of `out` is number `at` of the result.
    pub(crate) fn apply(&self, out: &mut [f32], at: usize) {
        match &self.activation {
            Function::None => add_bias(out, &self.bias),
            Function::Slopes(slopes) => prelu(out, &self.bias, slopes),
            Function::Leak(slope) => leaky_relu(out, &self.bias, *slope),
            Function::Silu => silu(out, &self.bias),
        }
        match &self.residual {
            Some(residual) => residual.with(at..at + out.len(), |residual| {
                add_residual(out, self.scale, residual);
            }),
            None if self.scale != 1.0 => out.iter_mut().for_each(|y| *y *= self.scale),
            None => {}
        }
    }
}

fn add_bias(out: &mut [f32], bias: &[f32]) {
    for pixel in out.chunks_exact_mut(bias.len()) {
        pixel.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

by_tier! {
    fn prelu<FMA>(out: &mut [f32], bias: &[f32], slopes: &[f32]) {
        for pixel in out.chunks_exact_mut(bias.len()) {
            for ((y, b), slope) in pixel.iter_mut().zip(bias).zip(slopes) {
                let x = *y + b;
                *y = if x > 0.0 { x } else { x * slope };
            }
        }
    }
}

by_tier! {
    fn leaky_relu<FMA>(out: &mut [f32], bias: &[f32], slope: f32) {
        for pixel in out.chunks_exact_mut(bias.len()) {
            for (y, b) in pixel.iter_mut().zip(bias) {
                let x = *y + b;
                *y = if x > 0.0 { x } else { x * slope };
            }
        }
    }
}

by_tier! {
    fn silu<FMA>(out: &mut [f32], bias: &[f32]) {
        for pixel in out.chunks_exact_mut(bias.len()) {
            for (y, b) in pixel.iter_mut().zip(bias) {
                *y = math::silu::<FMA>(*y + b);
            }
        }
    }
}

by_tier! {
    fn add_residual<FMA>(out: &mut [f32], scale: f32, residual: &[f32]) {
        if scale == 1.0 {
            out.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        } else {
            out.iter_mut().zip(residual).for_each(|(y, r)| *y = math::madd::<FMA>(*y, scale, *r));
        }
    }
}
