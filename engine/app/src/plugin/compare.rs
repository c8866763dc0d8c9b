//! How the outputs of two builds, or of two ways to cut frames, differ.

use std::sync::Arc;

use kino_node::{Record, Value};

/// How far numbers may differ, in units of the largest magnitude around them or 1: what sums in
/// another order lose.
const TOLERANCE: f64 = 1e-5;
/// The square root of the largest f32. A number beyond it does not come from sums of ordinary ones:
/// it says nothing of how far the others may differ.
const EXTREME: f64 = 1.8e19;

/// How two lists of outputs differ, if they do.
pub(crate) fn difference(a: &[Option<Value>], b: &[Option<Value>]) -> Option<String> {
    a.iter().zip(b).enumerate().find_map(|(index, (a, b))| {
        let what = match (a, b) {
            (Some(a), Some(b)) => value_difference(a, b)?,
            (None, None) => return None,
            _ => "is there once only".to_owned(),
        };
        Some(format!("output {index} {what}"))
    })
}

/// How two values differ, if they do; numbers may by what their sums lose.
fn value_difference(a: &Value, b: &Value) -> Option<String> {
    let numbers = |value: &Value| -> Option<(Vec<usize>, Vec<f64>)> {
        let tensor = match value {
            Value::Real(number) => return Some((Vec::new(), vec![*number])),
            value => value.tensor().ok()?,
        };
        let flat = tensor.to_dtype(candle_core::DType::F64).ok()?.flatten_all().ok()?;
        Some((tensor.dims().to_vec(), flat.to_vec1().ok()?))
    };
    match (a, b) {
        (Value::Custom(a), Value::Custom(b))
            if a.ty == b.ty && a.fields.len() == b.fields.len() =>
        {
            let mut pairs = a.fields.iter().zip(&b.fields);
            pairs.find_map(|((name, a), (_, b))| {
                Some(format!("field `{name}` {}", value_difference(a, b)?))
            })
        }
        (Value::Typed(a), Value::Typed(b)) if !(a.more().is_empty() && b.more().is_empty()) => {
            let (x, y) = (a.clone().with_more(Vec::new()), b.clone().with_more(Vec::new()));
            let whole = |of: &[(Arc<str>, Value)]| {
                Value::Custom(Arc::new(Record { ty: "".into(), fields: of.to_vec() }))
            };
            value_difference(&Value::Typed(x), &Value::Typed(y))
                .or_else(|| value_difference(&whole(a.more()), &whole(b.more())))
        }
        (Value::List(a), Value::List(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b.iter()).enumerate();
            pairs.find_map(|(index, ((_, a), (_, b)))| {
                Some(format!("item {index} {}", value_difference(a, b)?))
            })
        }
        (a, b) => {
            let (Some((shape, x)), Some((other, y))) = (numbers(a), numbers(b)) else {
                return (format!("{a:?}") != format!("{b:?}"))
                    .then(|| format!("is {a:?} and {b:?}"));
            };
            if shape != other {
                return Some(format!("is {shape:?} and {other:?}"));
            }
            let scale = common_scale(&x).max(common_scale(&y));
            let mut pairs = x.iter().zip(&y);
            let far = pairs.find(|(x, y)| !is_close(**x, **y, scale))?;
            Some(format!("differs: {:e} and {:e}", far.0, far.1))
        }
    }
}

/// The largest magnitude that is not extreme; at least 1.
fn common_scale(numbers: &[f64]) -> f64 {
    let magnitudes = numbers.iter().map(|number| number.abs());
    magnitudes.filter(|magnitude| *magnitude < EXTREME).fold(1.0, f64::max)
}

/// Whether two numbers are the same but for what sums lose; what is not a number is only like what
/// is not a number, and an infinity only like itself.
fn is_close(x: f64, y: f64, scale: f64) -> bool {
    if !x.is_finite() || !y.is_finite() {
        return x == y || (x.is_nan() && y.is_nan());
    }
    (x - y).abs() <= TOLERANCE * scale.max(x.abs()).max(y.abs())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    fn differ(a: &[f32], b: &[f32]) -> bool {
        let value = |numbers: &[f32]| {
            vec![Some(Value::Tensor(Tensor::new(numbers, &Device::Cpu).unwrap()))]
        };
        difference(&value(a), &value(b)).is_some()
    }

    /// One extreme number does not hide what the others are.
    #[test]
    fn extreme_numbers_hide_nothing() {
        let base = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-40, 0.25];
        assert!(!differ(&base, &base));
        let others =
            [(0, 0.0), (1, f32::MAX), (2, f32::INFINITY), (3, 1e38), (4, 0.5), (6, 0.2501)];
        for (at, other) in others {
            let mut changed = base;
            changed[at] = other;
            assert!(differ(&base, &changed), "{at}: {other}");
            assert!(differ(&changed, &base), "{at}: {other}");
        }
    }

    /// What a sum in another order gives is the same, beside numbers of the sum's size too.
    #[test]
    fn what_sums_lose_is_no_difference() {
        assert!(!differ(&[1000.0, 0.001], &[1000.001, 0.002]));
        assert!(differ(&[1000.0, 0.001], &[1000.0, 0.1]));
        assert!(!differ(&[f32::MAX, 1.0], &[f32::MAX * 0.999_999, 1.000_001]));
        assert!(differ(&[1.0, 2.0], &[1.0, f32::NAN]));
    }
}
