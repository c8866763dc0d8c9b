//! What stands in attributes: defaults, ends of ranges.

use serde_json::Value as Json;

/// A value that can stand in an attribute: a default, an end of a range.
pub trait Literal {
    /// The value in the descriptor.
    fn json(self) -> Json;
}

macro_rules! literals {
    ($($ty:ty),*) => {$(
        impl Literal for $ty {
            fn json(self) -> Json {
                Json::from(self)
            }
        }
    )*};
}

literals!(f32, f64, bool, &str, String, u8, u16, u32, u64, usize, i8, i16, i32, i64);

impl Literal for i128 {
    fn json(self) -> Json {
        serde_json::Number::from_i128(self).map_or(Json::Null, Json::Number)
    }
}

/// A range in an attribute: `0.0..=1.0`, `1..`, `..=9`.
pub trait Bounds {
    /// Both ends, null where there is none.
    fn ends(self) -> (Json, Json);
}

impl<T: Literal> Bounds for std::ops::RangeInclusive<T> {
    fn ends(self) -> (Json, Json) {
        let (least, most) = self.into_inner();
        (least.json(), most.json())
    }
}

impl<T: Literal> Bounds for std::ops::RangeFrom<T> {
    fn ends(self) -> (Json, Json) {
        (self.start.json(), Json::Null)
    }
}

impl<T: Literal> Bounds for std::ops::RangeToInclusive<T> {
    fn ends(self) -> (Json, Json) {
        (Json::Null, self.end.json())
    }
}
