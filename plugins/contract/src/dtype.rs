//! Types of a tensor's elements.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// Bytes; also truth values: 0 or 1.
    U8,
    /// Whole numbers of 32 bits, unsigned.
    U32,
    /// Whole numbers of 16 bits.
    I16,
    /// Whole numbers of 32 bits.
    I32,
    /// Whole numbers of 64 bits.
    I64,
    /// bfloat16.
    Bf16,
    /// IEEE 754 half precision.
    F16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl DType {
    /// Every type, in the order of the contract.
    pub const ALL: [DType; 9] = [
        DType::U8,
        DType::U32,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::Bf16,
        DType::F16,
        DType::F32,
        DType::F64,
    ];

    /// Its name in the contract: `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::U8 => "u8",
            DType::U32 => "u32",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// The type of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::I16 | DType::Bf16 | DType::F16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// Whether its numbers have fractions.
    pub fn is_float(self) -> bool {
        matches!(self, DType::Bf16 | DType::F16 | DType::F32 | DType::F64)
    }

    /// The least and the greatest whole number of a type; none where numbers have fractions.
    pub fn range(self) -> Option<[i64; 2]> {
        match self {
            DType::U8 => Some([0, u8::MAX.into()]),
            DType::U32 => Some([0, u32::MAX.into()]),
            DType::I16 => Some([i16::MIN.into(), i16::MAX.into()]),
            DType::I32 => Some([i32::MIN.into(), i32::MAX.into()]),
            DType::I64 => Some([i64::MIN, i64::MAX]),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
