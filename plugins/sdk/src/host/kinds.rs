//! What is known of a value and of where it lies, in native builds as in components.

pub use kino_contract::ValueKind;

/// Where a tensor's elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The main memory.
    Cpu,
    /// The memory of an NVIDIA GPU, by its number.
    Cuda(usize),
    /// The memory of an Apple GPU, by its number.
    Metal(usize),
}
