//! What the contract with plugins means, on both of its sides.
//!
//! `kino-abi` holds its form in memory; this crate reads what passes as text: the [`Descriptor`] of
//! a plugin's nodes, and calls of operations on tensors ([`ops`]) and of functions on values
//! ([`calls`]). The engine's hosts and the SDK's
//! reference host both use it, so that what a plugin's own tests take, the engine takes, too.

mod agree;
pub mod calls;
pub mod descriptor;
mod dtype;
mod frames;
mod has;
pub mod ops;
pub mod path;
pub mod records;
mod value;

pub use agree::{Agree, Agreement, Disagreement, Pictures, advice as advice_on};
pub use descriptor::{Descriptor, NodeSpec, TypeSpec, is_word};
pub use dtype::DType;
pub use frames::{FramesSize, frame_rate};
pub use has::{has, names};
pub use kino_port::code;
pub use value::ValueKind;
