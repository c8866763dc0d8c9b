//! What is known of a value and of where it lies, in native builds as in components.

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// UTF-8 text or a path.
    Text,
    /// A whole number.
    Int,
    /// A real number.
    Real,
    /// True or false.
    Bool,
    /// A tensor; also a mask, image conditioning, noise levels.
    Tensor,
    /// Several values.
    List,
    /// A value of a named type with named fields.
    Record,
    /// Bytes, such as a file's contents.
    Bytes,
    /// A value that can only be passed on: parts of models, guiders.
    Opaque,
}

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
