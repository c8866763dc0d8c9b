//! Along dimensions.

use candle_core::DType;

use crate::array::{Array, FLOATS, Rng, WHOLE, all_types, index, with};
use crate::check;

type Case = (&'static [usize], Option<&'static [i64]>, &'static [usize]);

/// Shapes, dimensions as a plugin writes them, and which those are.
const CASES: [Case; 10] = [
    (&[], None, &[]),
    (&[5], None, &[0]),
    (&[2, 3, 4], None, &[0, 1, 2]),
    (&[2, 3, 4], Some(&[-1]), &[2]),
    (&[2, 3, 4], Some(&[0, 2]), &[0, 2]),
    (&[2, 3, 4], Some(&[-2, 0]), &[0, 1]),
    (&[2, 3, 4], Some(&[]), &[]),
    (&[3, 1, 5], Some(&[1]), &[1]),
    (&[0, 3], Some(&[1]), &[1]),
    (&[1, 7, 1, 3], Some(&[1, 2]), &[1, 2]),
];

fn attributes(dims: Option<&[i64]>, keep: bool) -> String {
    match dims {
        Some(dims) => format!(r#"{{"dims": {dims:?}, "keep": {keep}}}"#),
        None => format!(r#"{{"keep": {keep}}}"#),
    }
}

/// The elements that become one, for each element of the result with its dimensions kept.
fn groups(x: &Array, gone: &[usize]) -> (Vec<usize>, Vec<Vec<f64>>) {
    let mut kept = x.dims.clone();
    gone.iter().for_each(|dim| kept[*dim] = 1);
    let mut groups = vec![Vec::new(); kept.iter().product()];
    for (at, value) in x.data.iter().enumerate() {
        let mut place = crate::array::place(at, &x.dims);
        gone.iter().for_each(|dim| place[*dim] = 0);
        groups[index(&place, &kept)].push(*value);
    }
    (kept, groups)
}

fn reduced(x: &Array, gone: &[usize], keep: bool, of: &dyn Fn(&[f64]) -> f64) -> Array {
    let (kept, groups) = groups(x, gone);
    let left = kept.iter().enumerate().filter(|(dim, _)| keep || !gone.contains(dim));
    let dims: Vec<_> = left.map(|(_, size)| *size).collect();
    Array::new(x.dtype, &dims, groups.iter().map(|group| of(group)).collect())
}

#[test]
fn reductions() {
    let rng = &mut Rng::new();
    type Of = fn(&[f64]) -> f64;
    let cases: [(&str, Of); 4] = [
        ("sum", |group| group.iter().sum()),
        ("mean", |group| group.iter().sum::<f64>() / group.len() as f64),
        ("max_of", |group| group.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ("min_of", |group| group.iter().copied().fold(f64::INFINITY, f64::min)),
    ];
    for (name, of) in cases {
        for dtype in all_types().filter(|dtype| name != "mean" || dtype.is_float()) {
            for (dims, given, gone) in CASES {
                for keep in [false, true] {
                    let x = Array::random(rng, dtype, dims);
                    let expected = reduced(&x, gone, keep, &of);
                    check(name, &[&x], &attributes(given, keep), &expected);
                }
            }
        }
    }
}

#[test]
fn sums_and_means_of_nothing() {
    let nothing = Array::new(DType::F32, &[2, 0], vec![]);
    let zeros = Array::new(DType::F32, &[2], vec![0.0; 2]);
    check("sum", &[&nothing], r#"{"dims": [1]}"#, &zeros);
    check("mean", &[&nothing], r#"{"dims": [1]}"#, &zeros.map(|_| f64::NAN));
}

/// Halves are summed in f32: in their own type these would stop at 256 and 2048.
#[test]
fn sums_of_halves_do_not_stall() {
    for dtype in [DType::BF16, DType::F16] {
        let ones = Array::new(dtype, &[4096], vec![1.0; 4096]);
        let total = Array::new(dtype, &[], vec![4096.0]);
        check("sum", &[&ones], "", &total);
        check("mean", &[&ones], "", &Array::new(dtype, &[], vec![1.0]));
    }
}

#[test]
fn what_is_not_a_number_wins() {
    for dtype in FLOATS {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let x = Array::new(dtype, &[3, 3], vec![1.0, nan, 3.0, nan, 2.0, nan, -inf, inf, inf]);
        let first = Array::new(dtype, &[3], vec![nan, nan, inf]);
        check("max_of", &[&x], r#"{"dims": [1]}"#, &first);
        let last = Array::new(dtype, &[3], vec![nan, nan, -inf]);
        check("min_of", &[&x], r#"{"dims": [1]}"#, &last);
        let at = |places: [f64; 3]| Array::new(DType::U32, &[3], places.to_vec());
        check("argmax", &[&x], r#"{"dim": 1}"#, &at([1.0, 0.0, 1.0]));
        check("argmin", &[&x], r#"{"dim": 1}"#, &at([1.0, 0.0, 0.0]));
    }
}

#[test]
fn the_first_of_equals() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for dims in [&[1usize] as &[usize], &[9], &[2, 3, 4], &[3, 1, 5], &[0, 4], &[1, 6, 1]] {
            for dim in 0..dims.len() {
                // Few values, so that many are equal.
                let x = Array::random(rng, dtype, dims).map(|x| (x.abs() % 3.0).floor());
                for (name, more) in [("argmax", true), ("argmin", false)] {
                    let best = |group: &[f64]| {
                        let mut best = 0;
                        for (at, value) in group.iter().enumerate() {
                            if (more && *value > group[best]) || (!more && *value < group[best]) {
                                best = at;
                            }
                        }
                        best as f64
                    };
                    let keep = rng.below(2) == 1;
                    let mut expected = reduced(&x, &[dim], keep, &best);
                    if x.data.is_empty() && dims[dim] == 0 {
                        continue;
                    }
                    expected.dtype = DType::U32;
                    let dim = dim as i64 - (rng.below(2) * dims.len()) as i64;
                    let given = format!(r#"{{"dim": {dim}, "keep": {keep}}}"#);
                    check(name, &[&x], &given, &expected);
                }
            }
        }
    }
}

#[test]
fn softmax() {
    let rng = &mut Rng::new();
    for dtype in FLOATS {
        for dims in [&[1usize] as &[usize], &[33], &[2, 3, 4], &[3, 1, 5], &[0, 4], &[2, 0]] {
            for dim in 0..dims.len() {
                let x = Array::random(rng, dtype, dims);
                let expected = Array::made(dtype, dims, |place| {
                    let line = (0..dims[dim]).map(|at| x.at(&with(place, dim, at)).exp());
                    x.at(place).exp() / line.sum::<f64>()
                });
                check("softmax", &[&x], &format!(r#"{{"dim": {dim}}}"#), &expected);
            }
        }
        // What differs by much does not overflow, and −∞ has no share.
        let x = Array::new(dtype, &[3], vec![3000.0, 3000.0, f64::NEG_INFINITY]);
        let expected = Array::new(dtype, &[3], vec![0.5, 0.5, 0.0]);
        check("softmax", &[&x], r#"{"dim": -1}"#, &expected);
    }
}

#[test]
fn running_sums() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for dims in [&[1usize] as &[usize], &[17], &[2, 3, 4], &[3, 1, 5], &[0, 4], &[64]] {
            for dim in 0..dims.len() {
                let x =
                    Array::random(rng, dtype, dims).map(|x| if dims[0] > 20 { x / 8.0 } else { x });
                let expected = Array::made(dtype, dims, |place| {
                    (0..=place[dim]).map(|at| x.at(&with(place, dim, at))).sum()
                });
                check("cumsum", &[&x], &format!(r#"{{"dim": {dim}}}"#), &expected);
            }
        }
    }
    let infinite = Array::new(DType::F32, &[3], vec![1.0, f64::INFINITY, 1.0]);
    let after = Array::new(DType::F32, &[3], vec![1.0, f64::INFINITY, f64::INFINITY]);
    check("cumsum", &[&infinite], r#"{"dim": 0}"#, &after);
}

#[test]
fn products_of_matrices() {
    let rng = &mut Rng::new();
    type Case = (&'static [usize], &'static [usize], &'static [usize]);
    let cases: [Case; 11] = [
        (&[2, 3], &[3, 4], &[2, 4]),
        (&[1, 1], &[1, 1], &[1, 1]),
        (&[5, 2, 3], &[3, 4], &[5, 2, 4]),
        (&[2, 3], &[5, 3, 4], &[5, 2, 4]),
        (&[5, 1, 2, 3], &[4, 3, 2], &[5, 4, 2, 2]),
        (&[2, 2, 2, 2, 3], &[2, 2, 2, 3, 1], &[2, 2, 2, 2, 1]),
        (&[2, 0], &[0, 3], &[2, 3]),
        (&[0, 2, 3], &[3, 4], &[0, 2, 4]),
        (&[0, 3], &[3, 4], &[0, 4]),
        (&[33, 70], &[70, 17], &[33, 17]),
        (&[1, 4, 3], &[1, 1, 3, 2], &[1, 1, 4, 2]),
    ];
    for dtype in FLOATS {
        for (left, right, dims) in cases {
            let [a, b] = [left, right].map(|dims| Array::random(rng, dtype, dims));
            let inner = left[left.len() - 1];
            let expected = Array::made(dtype, dims, |place| {
                let (lead, [row, column]) = place.split_at(dims.len() - 2) else { unreachable!() };
                let term = |k: usize| {
                    a.spread(&[lead, &[*row, k]].concat()[..])
                        * b.spread(&[lead, &[k, *column]].concat())
                };
                (0..inner).map(term).sum()
            });
            check("matmul", &[&a, &b], "", &expected);
        }
    }
}

/// Sums that leave their type are refused rather than wrong.
#[test]
fn sums_of_whole_numbers_stay_in_range() {
    for dtype in WHOLE {
        let x = Array::new(dtype, &[3], vec![100.0, 27.0, 100.0]);
        check("sum", &[&x], "", &Array::new(dtype, &[], vec![227.0]));
    }
    let x = Array::new(DType::U8, &[3], vec![100.0, 100.0, 100.0]);
    for (name, attributes) in [("sum", ""), ("cumsum", r#"{"dim": 0}"#)] {
        let found = kino_host::ops::apply(name, &[x.tensor(crate::layouts()[0])], attributes);
        let error = found.unwrap_err();
        assert_eq!(error.to_string(), format!("op {name}: the sum leaves the range of u8"));
        assert_eq!(error.hint(), Some("`cast` to i64 first"));
    }
}
