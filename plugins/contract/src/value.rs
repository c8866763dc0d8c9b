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

impl ValueKind {
    /// Every kind.
    pub const ALL: [ValueKind; 9] = [
        ValueKind::Text,
        ValueKind::Int,
        ValueKind::Real,
        ValueKind::Bool,
        ValueKind::Tensor,
        ValueKind::List,
        ValueKind::Record,
        ValueKind::Bytes,
        ValueKind::Opaque,
    ];

    /// Its name in the contract: `text`.
    pub fn name(self) -> &'static str {
        match self {
            ValueKind::Text => "text",
            ValueKind::Int => "int",
            ValueKind::Real => "real",
            ValueKind::Bool => "bool",
            ValueKind::Tensor => "tensor",
            ValueKind::List => "list",
            ValueKind::Record => "record",
            ValueKind::Bytes => "bytes",
            ValueKind::Opaque => "opaque",
        }
    }

    /// The kind of this name; one that nobody knows yet can only be passed on.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(ValueKind::Opaque)
    }
}
