//! Operations along dimensions.

use serde_json::Value as Json;

use super::super::array::Array;
use super::super::held::Outcome;
use super::{Call, index_of, place, resolve};
use crate::DType;

/// The sum, mean, greatest or least over dimensions.
pub(super) fn reduce(name: &str, call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let given: Option<Vec<i64>> =
        call.get("dims", |json| json.as_array()?.iter().map(Json::as_i64).collect())?;
    let gone = match given {
        Some(dims) => dims.iter().map(|&dim| resolve(dim, a.dims.len())).collect::<Outcome<_>>()?,
        None => (0..a.dims.len()).collect::<Vec<_>>(),
    };
    let kept = reduced(&a.dims, &gone, true);
    let mut groups: Vec<Vec<f64>> = vec![Vec::new(); kept.iter().product()];
    for index in 0..a.count() {
        groups[group(index, &a.dims, &gone)].push(a.get(index));
    }
    if name.ends_with("_of") && groups.iter().any(Vec::is_empty) {
        return Err("there is no element to choose from".into());
    }
    let of = |numbers: &Vec<f64>| match name {
        "sum" => numbers.iter().sum(),
        "mean" => numbers.iter().sum::<f64>() / numbers.len() as f64,
        "max_of" => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        _ => numbers.iter().copied().fold(f64::INFINITY, f64::min),
    };
    let dims = reduced(&a.dims, &gone, call.truth("keep")?);
    Ok(Array::made(a.dtype, &dims, |index| of(&groups[index])))
}

fn reduced(dims: &[usize], gone: &[usize], keep: bool) -> Vec<usize> {
    let dims = dims.iter().enumerate();
    dims.filter_map(|(dim, &size)| match gone.contains(&dim) {
        true => keep.then_some(1),
        false => Some(size),
    })
    .collect()
}

/// Which element of the result an element belongs to.
fn group(index: usize, dims: &[usize], gone: &[usize]) -> usize {
    let mut place = place(index, dims);
    gone.iter().for_each(|&dim| place[dim] = 0);
    index_of(&place, &reduced(dims, gone, true))
}

/// The elements along a dimension, for each place in the others.
fn lines(a: &Array, dim: usize) -> Vec<Vec<usize>> {
    let mut lines = vec![Vec::new(); reduced(&a.dims, &[dim], true).iter().product()];
    for index in 0..a.count() {
        lines[group(index, &a.dims, &[dim])].push(index);
    }
    lines
}

/// The index of the greatest or least, the first of equals.
pub(super) fn arg(name: &str, call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let dim = call.dim(a)?;
    let lines = lines(a, dim);
    if lines.iter().any(Vec::is_empty) {
        return Err("there is no element to choose from".into());
    }
    let better = |one: f64, than: f64| if name == "argmax" { one > than } else { one < than };
    let best = |line: &Vec<usize>| {
        let mut best = 0;
        for (at, &index) in line.iter().enumerate() {
            if better(a.get(index), a.get(line[best])) {
                best = at;
            }
        }
        best as f64
    };
    let dims = reduced(&a.dims, &[dim], call.truth("keep")?);
    Ok(Array::made(DType::U32, &dims, |index| best(&lines[index])))
}

/// e^(x − greatest), divided by its sum.
pub(super) fn softmax(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let mut made = Array::zeros(a.dtype, &a.dims);
    for line in lines(a, call.dim(a)?) {
        let most = line.iter().map(|&index| a.get(index)).fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<_> = line.iter().map(|&index| (a.get(index) - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        line.iter().zip(powers).for_each(|(&index, power)| made.set(index, power / sum));
    }
    Ok(made)
}

/// The running sum.
pub(super) fn cumsum(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let mut made = Array::zeros(a.dtype, &a.dims);
    for line in lines(a, call.dim(a)?) {
        let mut sum = 0.0;
        for index in line {
            sum += a.get(index);
            made.set(index, sum);
        }
    }
    Ok(made)
}
