//! Elements that move.

use candle_core::DType;

use crate::array::{Array, Rng, all_types, place, with};
use crate::check;

#[test]
fn shapes() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (from, wanted, to) in [
            (&[2usize, 3, 4] as &[usize], "[4, 6]", &[4usize, 6] as &[usize]),
            (&[2, 3, 4], "[-1, 2]", &[12, 2]),
            (&[1], "[]", &[]),
            (&[], "[1, -1]", &[1, 1]),
            (&[0, 3], "[3, 0]", &[3, 0]),
            (&[0, 3], "[3, -1]", &[3, 0]),
            (&[5], "[5, 1, 1]", &[5, 1, 1]),
        ] {
            let x = Array::random(rng, dtype, from);
            let expected = Array::new(dtype, to, x.data.clone());
            check("reshape", &[&x], &format!(r#"{{"shape": {wanted}}}"#), &expected);
        }
    }
}

#[test]
fn orders_and_parts() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        let x = Array::random(rng, dtype, &[2, 3, 4]);
        let turned = Array::made(dtype, &[4, 2, 3], |at| x.at(&[at[1], at[2], at[0]]));
        check("permute", &[&x], r#"{"dims": [2, 0, 1]}"#, &turned);
        check("permute", &[&x], r#"{"dims": [-1, -3, 1]}"#, &turned);
        let part = Array::made(dtype, &[2, 2, 4], |at| x.at(&[at[0], at[1] + 1, at[2]]));
        check("slice", &[&x], r#"{"dim": 1, "start": 1, "len": 2}"#, &part);
        let none = Array::new(dtype, &[2, 3, 0], vec![]);
        check("slice", &[&x], r#"{"dim": -1, "start": 4, "len": 0}"#, &none);
        let flipped = Array::made(dtype, &[2, 3, 4], |at| x.at(&[1 - at[0], at[1], 3 - at[2]]));
        check("flip", &[&x], r#"{"dims": [0, -1]}"#, &flipped);
        check("flip", &[&x], r#"{"dims": []}"#, &x);
        check("flip", &[&none], r#"{"dims": [0, 2]}"#, &none);
        let scalar = Array::random(rng, dtype, &[]);
        check("permute", &[&scalar], r#"{"dims": []}"#, &scalar);
        for same in [&x, &none, &scalar] {
            check("contiguous", &[same], "", same);
            check("to_host", &[same], "", same);
        }
    }
}

#[test]
fn contiguous_is_row_major() {
    let x = Array::random(&mut Rng::new(), DType::F32, &[2, 1, 3]);
    for layout in crate::layouts() {
        let found = kino_host::ops::apply("contiguous", &[x.tensor(layout)], "").unwrap();
        assert_eq!(found.stride(), [3, 3, 1]);
    }
}

#[test]
fn joined() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (dim, shapes) in [
            (0, vec![vec![2, 3], vec![1, 3], vec![0, 3]]),
            (1, vec![vec![2, 0], vec![2, 3], vec![2, 1]]),
            (2, vec![vec![2, 3, 4], vec![2, 3, 1]]),
            (0, vec![vec![3]]),
            (0, vec![vec![0], vec![0]]),
            (1, vec![vec![0, 2], vec![0, 3]]),
        ] {
            let parts: Vec<_> = shapes.iter().map(|dims| Array::random(rng, dtype, dims)).collect();
            let mut dims = shapes[0].clone();
            dims[dim] = shapes.iter().map(|shape| shape[dim]).sum();
            let expected = Array::made(dtype, &dims, |place| {
                let mut at = place[dim];
                for part in &parts {
                    if at < part.dims[dim] {
                        return part.at(&with(place, dim, at));
                    }
                    at -= part.dims[dim];
                }
                unreachable!()
            });
            let parts: Vec<_> = parts.iter().collect();
            check("concat", &parts, &format!(r#"{{"dim": {dim}}}"#), &expected);
        }
    }
}

#[test]
fn repeated() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (from, to) in [
            (&[3usize, 1] as &[usize], &[2usize, 3, 4] as &[usize]),
            (&[], &[2, 2]),
            (&[], &[]),
            (&[1, 4], &[0, 4]),
            (&[5], &[5]),
        ] {
            let x = Array::random(rng, dtype, from);
            let expected = Array::made(dtype, to, |place| x.spread(place));
            check("broadcast", &[&x], &format!(r#"{{"shape": {to:?}}}"#), &expected);
        }
    }
}

#[test]
fn padded() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for (dims, dim, before, after) in [
            (&[3usize] as &[usize], 0, 2, 1),
            (&[2, 3, 4], 1, 0, 3),
            (&[2, 3, 4], 2, 2, 0),
            (&[2, 1], 1, 0, 0),
            (&[0, 2], 1, 1, 1),
            (&[2, 1, 2], 1, 5, 5),
        ] {
            let x = Array::random(rng, dtype, dims);
            let mut wide = dims.to_vec();
            wide[dim] += before + after;
            for mode in ["zeros", "edge"] {
                let expected = Array::made(dtype, &wide, |place| {
                    let at = place[dim] as i64 - before as i64;
                    let within = at.clamp(0, dims[dim] as i64 - 1);
                    if mode == "zeros" && at != within {
                        return 0.0;
                    }
                    x.at(&with(place, dim, within as usize))
                });
                let attributes = format!(
                    r#"{{"dim": {dim}, "before": {before}, "after": {after}, "mode": "{mode}"}}"#
                );
                check("pad", &[&x], &attributes, &expected);
            }
        }
        let none = Array::new(dtype, &[0], vec![]);
        let zeros = Array::new(dtype, &[3], vec![0.0; 3]);
        let attributes = r#"{"dim": 0, "before": 1, "after": 2, "mode": "zeros"}"#;
        check("pad", &[&none], attributes, &zeros);
    }
}

#[test]
fn at_indices() {
    let rng = &mut Rng::new();
    for dtype in all_types() {
        for kind in [DType::U32, DType::I64] {
            for (dims, dim, count) in [
                (&[5usize] as &[usize], 0, 9),
                (&[2, 3, 4], 1, 2),
                (&[2, 3, 4], 2, 7),
                (&[2, 3, 4], 0, 0),
                (&[1, 1], 1, 3),
                (&[0, 3], 1, 2),
            ] {
                let x = Array::random(rng, dtype, dims);
                let size = dims[dim];
                let at = Array::made(kind, &[count], |_| rng.below(size) as f64);
                let mut found = dims.to_vec();
                found[dim] = count;
                let of = |place: &[usize]| x.at(&with(place, dim, at.at(&[place[dim]]) as usize));
                let attributes = format!(r#"{{"dim": {dim}}}"#);
                check("index_select", &[&x, &at], &attributes, &Array::made(dtype, &found, of));
                // In other dimensions fewer indices than elements are enough.
                let fewer: Vec<_> = (0..dims.len())
                    .map(|other| if other == dim { count } else { dims[other].min(2) })
                    .collect();
                let at = Array::made(kind, &fewer, |_| rng.below(size) as f64);
                let of = |place: &[usize]| x.at(&with(place, dim, at.at(place) as usize));
                check("gather", &[&x, &at], &attributes, &Array::made(dtype, &fewer, of));
            }
        }
    }
    assert_eq!(place(5, &[2, 3]), [1, 2]);
}
