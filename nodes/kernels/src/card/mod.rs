//! Kernels of our own for NVIDIA's cards, where candle's operations keep too much in memory or
//! read it too often: attention without a matrix of scores, convolutions whose inputs are read
//! where they lie, the norm and rotation of queries and keys in one pass, weights of eight bits and
//! in ggml's blocks widened for a product, or multiplied by a few rows where they lie, the rotation
//! of activations that such weights ask for. And copies of weights that go on while the card
//! computes ([`CardCopies`]).
//!
//! The CUDA C lies in `cuda/`; the build script makes PTX of it, which the driver compiles for the
//! card. Each function here gives none where its kernel does not take the operands (another device,
//! a gradient to keep, another type or width) or the kernels cannot be had; then candle's
//! operations do the same ([`crate::composite`]). [`launch`] says with what a kernel is started, so
//! that the tests start an emulation with the same ([`emulated`]).

#[cfg(any(feature = "cuda", test))]
mod copies;
#[cfg(feature = "cuda")]
mod copy_stream;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod emulated;
#[cfg(any(feature = "cuda", test))]
mod launch;
#[cfg(test)]
mod simulated;

#[cfg(feature = "cuda")]
pub use copy_stream::{BlockCopied, CardCopies};
#[cfg(feature = "cuda")]
pub(crate) use cuda::{
    attention, conv_sum, multiply_blocks, rms_norm_rope, rotate_groups, widen_blocks, widen_e4m3,
    widen_int8,
};
#[cfg(feature = "cuda")]
pub use cuda::{check_device, device_memory};
#[cfg(not(feature = "cuda"))]
pub use without::{BlockCopied, CardCopies, check_device, device_memory};
#[cfg(not(feature = "cuda"))]
pub(crate) use without::{
    attention, conv_sum, multiply_blocks, rms_norm_rope, rotate_groups, widen_blocks, widen_e4m3,
    widen_int8,
};

/// What stands for the kernels in a build without them.
#[cfg(not(feature = "cuda"))]
mod without {
    use std::ops::Range;

    use candle_core::{DType, Device, Error, Tensor};

    use crate::{BlockType, ConvInput, ConvWeights, Epilogue, Result};

    /// Copies of blocks of weights to an NVIDIA card, beside what it computes: there are none.
    #[derive(Debug)]
    pub enum CardCopies {}

    /// Where the copies of a block end.
    pub enum BlockCopied {}

    impl CardCopies {
        /// Copies to a device; none where it is no card, or one without what they need.
        pub fn new(_: &Device) -> Option<Self> {
            None
        }

        /// A block of which `load` makes the tensors, and where their copies end.
        ///
        /// # Errors
        /// When `load` fails, or the card.
        pub fn block<T, E: From<Error>>(
            &self,
            _: impl FnOnce() -> Result<T, E>,
        ) -> Result<(T, BlockCopied), E> {
            match *self {}
        }

        /// A tensor on the card of the numbers that `fill` gives.
        ///
        /// # Errors
        /// When `fill` fails, or the card.
        pub fn tensor<E: From<Error>>(
            &self,
            _: DType,
            _: &[usize],
            _: impl FnMut(Range<usize>, &mut [u8]) -> Result<(), E>,
        ) -> Result<Tensor, E> {
            match *self {}
        }

        /// Before the first kernel of a block.
        ///
        /// # Errors
        /// When the card fails.
        pub fn compute_behind(&self, _: &BlockCopied) -> Result<()> {
            match *self {}
        }

        /// When blocks that were computed with were let go.
        ///
        /// # Errors
        /// When the card fails.
        pub fn let_go(&self) -> Result<()> {
            match *self {}
        }
    }

    /// Whether the kernels of this crate can be used on a device.
    ///
    /// # Errors
    /// Why not, where it is an NVIDIA card: candle's operations are taken then.
    pub fn check_device(_: &Device) -> std::result::Result<(), String> {
        Ok(())
    }

    /// Bytes that are free in the memory of an NVIDIA card; none for any other device.
    pub fn device_memory(_: &Device) -> Option<u64> {
        None
    }

    pub(crate) fn attention(_: [&Tensor; 3], _: Option<&Tensor>, _: f64) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn conv_sum(
        _: &[(ConvInput, &ConvWeights)],
        _: &Epilogue,
        _: [usize; 4],
    ) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn rms_norm_rope(
        _: &Tensor,
        _: [&Tensor; 3],
        _: f64,
        _: usize,
    ) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn widen_e4m3(_: &Tensor, _: f32, _: DType) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn widen_int8(_: &Tensor, _: &Tensor, _: DType) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn widen_blocks(_: &Tensor, _: BlockType, _: DType) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn multiply_blocks(_: &Tensor, _: &Tensor, _: BlockType) -> Option<Result<Tensor>> {
        None
    }

    pub(crate) fn rotate_groups(_: &Tensor, _: usize) -> Option<Result<Tensor>> {
        None
    }
}
