//! The types of the WIT world, as they cross.

use candle_core::DType;
use kino_node::Error;
use wasmtime::component::{ComponentType, Lift, Lower};

/// What a value is.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum WitKind {
    #[component(name = "text")]
    Text,
    #[component(name = "int")]
    Int,
    #[component(name = "real")]
    Real,
    #[component(name = "truth")]
    Truth,
    #[component(name = "tensor")]
    Tensor,
    #[component(name = "items")]
    Items,
    #[component(name = "fields")]
    Fields,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "opaque")]
    Opaque,
}

impl From<kino_host::ValueKind> for WitKind {
    fn from(kind: kino_host::ValueKind) -> Self {
        match kind {
            kino_host::ValueKind::Text => WitKind::Text,
            kino_host::ValueKind::Int => WitKind::Int,
            kino_host::ValueKind::Real => WitKind::Real,
            kino_host::ValueKind::Bool => WitKind::Truth,
            kino_host::ValueKind::Tensor => WitKind::Tensor,
            kino_host::ValueKind::List => WitKind::Items,
            kino_host::ValueKind::Record => WitKind::Fields,
            kino_host::ValueKind::Bytes => WitKind::Bytes,
            kino_host::ValueKind::Opaque => WitKind::Opaque,
        }
    }
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Elements {
    #[component(name = "u8")]
    U8,
    #[component(name = "u32")]
    U32,
    #[component(name = "i16")]
    I16,
    #[component(name = "i32")]
    I32,
    #[component(name = "i64")]
    I64,
    #[component(name = "bf16")]
    BF16,
    #[component(name = "f16")]
    F16,
    #[component(name = "f32")]
    F32,
    #[component(name = "f64")]
    F64,
}

impl Elements {
    /// The same type in candle's words.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Elements::U8 => DType::U8,
            Elements::U32 => DType::U32,
            Elements::I16 => DType::I16,
            Elements::I32 => DType::I32,
            Elements::I64 => DType::I64,
            Elements::BF16 => DType::BF16,
            Elements::F16 => DType::F16,
            Elements::F32 => DType::F32,
            Elements::F64 => DType::F64,
        }
    }

    /// The type of a tensor, where plugins see such tensors.
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::U8 => Elements::U8,
            DType::U32 => Elements::U32,
            DType::I16 => Elements::I16,
            DType::I32 => Elements::I32,
            DType::I64 => Elements::I64,
            DType::BF16 => Elements::BF16,
            DType::F16 => Elements::F16,
            DType::F32 => Elements::F32,
            DType::F64 => Elements::F64,
            _ => return None,
        })
    }
}

/// The whole number high·2^64 + low.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Wide {
    low: u64,
    high: i64,
}

impl From<i128> for Wide {
    fn from(int: i128) -> Self {
        Wide { low: int as u64, high: (int >> 64) as i64 }
    }
}

impl From<Wide> for i128 {
    fn from(wide: Wide) -> Self {
        i128::from(wide.high) << 64 | i128::from(wide.low)
    }
}

/// A tensor's element type and dimensions.
#[derive(Clone, ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Shape {
    pub(crate) dtype: Elements,
    pub(crate) dims: Vec<u64>,
}

/// Why a call did not succeed, in the plugin's words.
#[derive(Clone, Debug, ComponentType, Lift, Lower)]
#[component(variant)]
pub(crate) enum Failure {
    #[component(name = "cancelled")]
    Cancelled,
    #[component(name = "failed")]
    Failed((String, String)),
}

/// A result that the plugin sees.
pub(crate) type WitResult<T> = std::result::Result<T, String>;

/// What the plugin gets to hear of an error.
pub(crate) fn to_wire(error: Error) -> String {
    match error {
        Error::Failed { message, hint: Some(hint), .. } => format!("{message} ({hint})"),
        other => other.to_string(),
    }
}
