//! What plugins see of values.

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
