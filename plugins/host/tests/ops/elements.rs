//! Element by element.

use candle_core::DType;
use kino_host::ops;

use crate::array::{Array, FLOATS, Rng, WHOLE, all_types, layouts, rounded};
use crate::check;

/// Pairs of shapes that broadcast, and what to.
const PAIRS: [(&[usize], &[usize], &[usize]); 9] = [
    (&[], &[], &[]),
    (&[3, 5], &[3, 5], &[3, 5]),
    (&[3, 1], &[4], &[3, 4]),
    (&[], &[2, 3], &[2, 3]),
    (&[2, 3, 4], &[1], &[2, 3, 4]),
    (&[1, 3, 1, 2], &[2, 1, 3, 1], &[2, 3, 3, 2]),
    (&[0, 4], &[1, 4], &[0, 4]),
    (&[1], &[0], &[0]),
    (&[7, 1], &[7, 1], &[7, 1]),
];

fn joined(a: &Array, b: &Array, dims: &[usize], dtype: DType, of: fn(f64, f64) -> f64) -> Array {
    Array::made(dtype, dims, |place| of(a.spread(place), b.spread(place)))
}

#[test]
fn two_are_joined() {
    let rng = &mut Rng::new();
    type Of = fn(f64, f64) -> f64;
    let cases: [(&str, Of); 5] = [
        ("add", |a, b| a + b),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
        ("min", f64::min),
        ("max", f64::max),
    ];
    for (name, of) in cases {
        for dtype in all_types() {
            for (left, right, dims) in PAIRS {
                let (a, mut b) =
                    (Array::random(rng, dtype, left), Array::random(rng, dtype, right));
                let mut a = a;
                if name == "sub" && matches!(dtype, DType::U8 | DType::U32) {
                    a = a.map(|x| x + 20.0); // no wrapping here
                    b = b.map(|x| x.abs());
                }
                check(name, &[&a, &b], "", &joined(&a, &b, dims, dtype, of));
            }
        }
    }
}

#[test]
fn quotients_of_whole_numbers_are_cut() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (left, right, dims) in PAIRS {
            let a = Array::random(rng, dtype, left);
            let b = Array::random(rng, dtype, right);
            let b = b.map(|x| if x.abs() < 0.1 { 1.0 } else { x });
            let of = if dtype.is_int() { |a: f64, b: f64| (a / b).trunc() } else { |a, b| a / b };
            check("div", &[&a, &b], "{}", &joined(&a, &b, dims, dtype, of));
        }
    }
}

#[test]
fn comparisons_give_u8() {
    let rng = &mut Rng::new();
    type Holds = fn(&f64, &f64) -> bool;
    let cases: [(&str, Holds); 6] = [
        ("eq", f64::eq),
        ("ne", f64::ne),
        ("lt", f64::lt),
        ("le", f64::le),
        ("gt", f64::gt),
        ("ge", f64::ge),
    ];
    for (name, holds) in cases {
        for dtype in all_types() {
            for (left, right, dims) in PAIRS {
                let [mut a, b] = [left, right].map(|dims| Array::random(rng, dtype, dims));
                if let (Some(first), Some(other)) = (a.data.first_mut(), b.data.first()) {
                    *first = *other;
                }
                let expected = Array::made(DType::U8, dims, |place| {
                    f64::from(u8::from(holds(&a.spread(place), &b.spread(place))))
                });
                check(name, &[&a, &b], "", &expected);
            }
        }
    }
}

#[test]
fn where_picks() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (left, right, dims) in PAIRS {
            let condition = Array::random(rng, DType::U8, right).map(|x| x % 3.0);
            let [a, b] = [left, dims].map(|dims| Array::random(rng, dtype, dims));
            let expected = Array::made(dtype, dims, |place| match condition.spread(place) {
                0.0 => b.spread(place),
                _ => a.spread(place),
            });
            check("where", &[&condition, &a, &b], "", &expected);
        }
    }
}

#[test]
fn powers() {
    let rng = &mut Rng::new();
    for dtype in FLOATS {
        for (left, right, dims) in PAIRS {
            let a = Array::random(rng, dtype, left).map(f64::abs);
            let b = Array::random(rng, dtype, right);
            check("pow", &[&a, &b], "", &joined(&a, &b, dims, dtype, f64::powf));
            let a = Array::random(rng, dtype, left);
            let b = b.map(f64::round);
            check("pow", &[&a, &b], "", &joined(&a, &b, dims, dtype, f64::powf));
        }
    }
}

/// All pairs of what is special, against the powers of the standard library.
#[test]
fn powers_of_special_numbers() {
    let special = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, f64::INFINITY, f64::NAN];
    let special: Vec<_> = special.into_iter().chain([f64::NEG_INFINITY]).collect();
    let count = special.len();
    for dtype in [DType::F32, DType::F64] {
        let a = Array::new(dtype, &[count, 1], special.clone());
        let b = Array::new(dtype, &[count], special.clone());
        check("pow", &[&a, &b], "", &joined(&a, &b, &[count, count], dtype, f64::powf));
        for exponent in &special {
            let b = Array::new(dtype, &[1], vec![*exponent]);
            check("pow", &[&a, &b], "", &joined(&a, &b, &[count, 1], dtype, f64::powf));
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// By its series, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

const SHAPES: [&[usize]; 6] = [&[], &[1], &[0], &[5], &[3, 1, 4], &[2, 0, 3]];

#[test]
fn functions_of_real_numbers() {
    let rng = &mut Rng::new();
    type Of = fn(f64) -> f64;
    let cases: [(&str, Of); 18] = [
        ("neg", |x| -x),
        ("abs", f64::abs),
        ("exp", f64::exp),
        ("log", f64::ln),
        ("sqrt", f64::sqrt),
        ("recip", f64::recip),
        ("sin", f64::sin),
        ("cos", f64::cos),
        ("tanh", f64::tanh),
        ("sigmoid", sigmoid),
        ("relu", |x| x.max(0.0)),
        ("silu", |x| x * sigmoid(x)),
        ("gelu", |x| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))),
        ("erf", erf),
        ("floor", f64::floor),
        ("ceil", f64::ceil),
        ("round", f64::round),
        ("sign", |x| if x == 0.0 { 0.0 } else { x.signum() }),
    ];
    for (name, of) in cases {
        for dtype in FLOATS {
            for dims in SHAPES {
                let x = Array::random(rng, dtype, dims);
                let x = if name == "recip" { x.map(|x| x.signum() * (1.0 + x.abs())) } else { x };
                check(name, &[&x], "", &x.map(of));
            }
        }
        let halves = Array::new(DType::F32, &[4], vec![0.5, -0.5, 2.5, 1.5]);
        check(name, &[&halves], "", &halves.map(of));
    }
}

#[test]
fn functions_of_whole_numbers() {
    let rng = &mut Rng::new();
    for dtype in WHOLE {
        for dims in SHAPES {
            let x = Array::random(rng, dtype, dims);
            for name in ["floor", "ceil", "round"] {
                check(name, &[&x], "", &x);
            }
            check("abs", &[&x], "", &x.map(f64::abs));
            check("relu", &[&x], "", &x.map(|x| x.max(0.0)));
            let sign = |x: f64| if x == 0.0 { 0.0 } else { x.signum() };
            check("sign", &[&x], "", &x.map(sign));
            if !matches!(dtype, DType::U8 | DType::U32) {
                check("neg", &[&x], "", &x.map(|x| -x));
            }
            check("affine", &[&x], r#"{"mul": 3, "add": 2.0}"#, &x.map(|x| 3.0 * x + 2.0));
            check("clamp", &[&x], r#"{"min": 0.5, "max": 4.9}"#, &x.map(|x| x.clamp(1.0, 4.0)));
            check("clamp", &[&x], r#"{"min": -1e30, "max": 1e30}"#, &x);
            check("clamp", &[&x], r#"{"min": null, "max": 3}"#, &x.map(|x| x.min(3.0)));
        }
    }
}

#[test]
fn affine_and_clamp_of_real_numbers() {
    let rng = &mut Rng::new();
    for dtype in FLOATS {
        for dims in SHAPES {
            let x = Array::random(rng, dtype, dims);
            check("affine", &[&x], r#"{"mul": -1.5, "add": 0.25}"#, &x.map(|x| -1.5 * x + 0.25));
            check("clamp", &[&x], r#"{"min": -1, "max": 0.5}"#, &x.map(|x| x.clamp(-1.0, 0.5)));
            check("clamp", &[&x], r#"{"min": 0, "max": null}"#, &x.map(|x| x.max(0.0)));
        }
    }
}

/// What is not a number stays so.
#[test]
fn what_is_not_a_number_stays() {
    let nan = f64::NAN;
    for dtype in FLOATS {
        let a = Array::new(dtype, &[4], vec![nan, 1.0, nan, 2.0]);
        let b = Array::new(dtype, &[4], vec![1.0, nan, nan, 3.0]);
        let kept = |last| Array::new(dtype, &[4], vec![nan, nan, nan, last]);
        check("min", &[&a, &b], "", &kept(2.0));
        check("max", &[&a, &b], "", &kept(3.0));
        let relu = Array::new(dtype, &[4], vec![nan, 1.0, nan, 2.0]);
        check("relu", &[&a], "", &relu);
        check("clamp", &[&a], r#"{"min": 0, "max": 2}"#, &relu);
        check("eq", &[&a, &a], "", &Array::new(DType::U8, &[4], vec![0.0, 1.0, 0.0, 1.0]));
    }
}

/// Whole numbers wrap around, as in NumPy.
#[test]
fn whole_numbers_wrap() {
    let u8s = |x: &[f64]| Array::new(DType::U8, &[x.len()], x.to_vec());
    check("add", &[&u8s(&[200.0]), &u8s(&[100.0])], "", &u8s(&[44.0]));
    check("sub", &[&u8s(&[1.0]), &u8s(&[2.0])], "", &u8s(&[255.0]));
    check("affine", &[&u8s(&[100.0])], r#"{"mul": 3, "add": -1}"#, &u8s(&[43.0]));
    let least = Array::new(DType::I64, &[1], vec![i64::MIN as f64]);
    let minus = Array::new(DType::I64, &[1], vec![-1.0]);
    check("div", &[&least, &minus], "", &least);
    check("neg", &[&least], "", &least);
    check("abs", &[&least], "", &least);
}

#[test]
fn casts() {
    let rng = &mut Rng::new();
    for from in all_types() {
        for to in all_types() {
            let attributes = format!(r#"{{"dtype": "{}"}}"#, to.as_str());
            for dims in SHAPES {
                let x = Array::random(rng, from, dims);
                let x = if to.is_int() && !from.is_int() { x.map(f64::abs) } else { x };
                let x = match to {
                    DType::U8 | DType::U32 => x.map(f64::abs),
                    _ => x,
                };
                let expected =
                    Array::new(to, dims, x.data.iter().map(|x| rounded(*x, to)).collect());
                check("cast", &[&x], &attributes, &expected);
            }
        }
    }
    let x = Array::new(DType::F32, &[4], vec![-1.9, 1.9, f64::NAN, 300.0]);
    let cut = Array::new(DType::I64, &[4], vec![-1.0, 1.0, 0.0, 300.0]);
    check("cast", &[&x], r#"{"dtype": "i64"}"#, &cut);
    let exact = Array::new(DType::I64, &[1], vec![(1i64 << 40) as f64]).tensor(layouts()[0]);
    let back = ops::apply("cast", &[exact], r#"{"dtype": "f64"}"#).unwrap();
    assert_eq!(back.to_vec1::<f64>().unwrap(), [1099511627776.0]);
}

/// Large ones take other ways: in parallel, block by block.
#[test]
fn large_ones() {
    let rng = &mut Rng::new();
    for dtype in [DType::F32, DType::BF16, DType::I64] {
        let (a, b) = (Array::random(rng, dtype, &[401, 257]), Array::random(rng, dtype, &[257]));
        check("add", &[&a, &b], "", &joined(&a, &b, &[401, 257], dtype, |a, b| a + b));
        check("max", &[&b, &a], "", &joined(&b, &a, &[401, 257], dtype, f64::max));
        check("abs", &[&a], "", &a.map(f64::abs));
        let sums = (0..401).map(|row| (0..257).map(|column| a.at(&[row, column])).sum()).collect();
        check("sum", &[&a], r#"{"dims": [1]}"#, &Array::new(dtype, &[401], sums));
    }
}
