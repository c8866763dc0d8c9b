//! kino-kernels: tensor operations that candle lacks or does slowly.
//!
//! Every function takes and returns [`candle_core::Tensor`] and works on any device, for f32, bf16
//! and f16. There is one mechanism: on the CPU, f32 data take a fast path (rayon outermost,
//! vectorised loops inside), and so do bf16 data in all that a transformer does; everything else,
//! and whatever must keep a gradient, takes the same formula written in candle's operations
//! ([`composite`]). The tests hold the two against each other, and the fast paths against f64.
//!
//! # Products
//!
//! Linear layers multiply by a [`PackedMatrix`], packed once when it is loaded: panels of 32
//! outputs, interleaved along the sum, of f32, of pairs of bf16, of eight bits a number, or of
//! ggml's blocks. What is narrower than its product is widened a piece of a panel at a time, into
//! the words that the product reads, so that no matrix ever lies in memory in a wider type. Whole
//! numbers of eight bits are exact in bf16, too: their scales multiply the sums. The innermost loop
//! is chosen by tier (AMX tiles, AVX-512 with `vdpbf16ps`, AVX-512, AVX2, NEON with `bfdot`, NEON,
//! plain) and, where there are tiles, by the number of rows. Sums are f32, and what becomes of them
//! ([`LinearEpilogue`]) is done before they are written. Attention packs keys and values in the
//! same way. Convolutions multiply by panels of packed weights and read their inputs where they
//! lie; those of f32 by kernels of 3×3 take fewer products (Winograd's), and those into a
//! few channels keep all sums of some pixels in registers.
//!
//! # Cards
//!
//! On an NVIDIA card (the feature `cuda`) attention, convolutions, the norm and rotation of queries
//! and keys, and the widening of E4M3, int8 and ggml's blocks have kernels of our own (`card`); all
//! else is candle's operations. Blocks of weights are copied there while others compute
//! ([`CardCopies`]).
//!
//! # Numbers
//!
//! Work is split by sizes, never by the number of threads, so that results depend on neither the
//! number of threads nor their timing. They do depend on the kernel tier ([`tier`]), in the last
//! bits.
//!
//! # What of candle is avoided here
//!
//! - Views: the fast paths look at strides; what they cannot walk is made contiguous by
//!   `force_contiguous` (`Tensor::copy` of a view clones its whole storage).
//! - `upsample_bilinear2d` (wrong on a view when the size stays): [`resize`] has its own weights.
//! - `upsample_nearest2d` and CPU `conv2d` (slow, and no bf16): [`upsample_nearest2`], [`conv`].
//! - `softmax_last_dim`, `rope` and `flash_attn` of candle-nn, which drop gradients silently: a
//!   tensor that tracks operations takes the composite form, which keeps them.
//! - Nesting: no candle operation of more than a few thousand numbers runs inside a rayon task, so
//!   that its second thread pool is never entered from the first.
//!
//! # Errors
//!
//! All functions fail with a [`candle_core::Error`] when shapes or devices do not fit. The fast
//! paths also fail while they compute, once somebody has cancelled them: see [`cancelled_by`].

#![deny(unsafe_op_in_unsafe_fn)]

mod activation;
#[cfg(test)]
mod against_f64;
mod attention;
mod block_panels;
mod blocks;
mod buffer;
mod cancel;
mod card;
pub mod composite;
mod conv;
mod conv_output;
mod conv_panels;
mod conv_weights;
mod dense;
mod direct;
mod e4m3;
mod epilogue;
mod filter;
mod group;
mod int8;
mod interleave;
mod kernel;
mod layout;
mod linear;
mod math;
mod matrix;
mod micro;
mod norm;
mod number;
mod pack;
mod packed;
mod pieces;
mod plane;
mod product;
mod quantize;
#[cfg(test)]
mod random;
mod recycle;
mod resize;
mod rotate;
mod rows;
mod tasks;
mod tier;
mod tiles;
mod warp;
mod winograd;

pub use activation::{
    add, clamp_finite, gelu, gelu_tanh, multiply, rms_norm_rope, rope_interleaved, silu,
    span_attention,
};
pub use attention::{attention, attention_by_distance, attention_with_bias, heads_at_once};
pub use blocks::{BlockType, widen_blocks};
pub use cancel::{
    CancelGuard, IsCancelled, cancellation, cancelled_by, check_cancelled, is_cancelled,
};
pub use card::{BlockCopied, CardCopies, check_device, device_memory};
pub use conv::{conv, conv_sum};
pub use conv_weights::{ConvInput, ConvWeights};
pub use e4m3::e4m3;
pub use epilogue::{Activation, Epilogue};
pub use filter::Filter;
pub use group::{group_norm, group_norm_silu};
pub use layout::{GroupNorm, Padding};
pub use linear::{
    LinearEpilogue, linear, linear_blocks, linear_e4m3, linear_int8, linear_packed, widen_rows,
};
pub use micro::Precision;
pub use norm::{gate_add, layer_norm, modulate, rms_norm, softmax_last};
pub use packed::{PackedMatrix, WeightScale};
pub use pieces::PieceWise;
pub use plane::{
    channel_norm, channel_norm_silu, halves_to_frames, pad_plane, pixel_shuffle, upsample_nearest2,
};
pub use product::PACKED_ROWS;
pub use quantize::{E4M3_MAX, quantize_blocks, to_e4m3};
pub use recycle::Recycler;
pub use resize::{resize, resize_levels};
pub use rotate::rotate_groups;
pub use tier::{CPU_VARIABLE, check_cpu, has_bf16_products, machine, threads, tier};
pub use warp::{concat_channels, shrink_bilinear, warp};

/// A result of this crate: errors are candle's.
pub type Result<T, E = candle_core::Error> = std::result::Result<T, E>;
