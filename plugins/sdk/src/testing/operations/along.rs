//! Operations along dimensions.

use kino_contract::ops::{Extremum, OpError, ReduceOp, Result};

use super::super::array::Array;
use super::call::{OpCall, index_of, place};
use super::elements::least;
use crate::DType;

/// The elements that become one, for each element of what is left of a shape without `gone`.
fn groups(a: &Array, gone: &[usize]) -> Vec<Vec<usize>> {
    let mut kept = a.dims.clone();
    gone.iter().for_each(|&dim| kept[dim] = 1);
    let mut groups = vec![Vec::new(); kept.iter().product()];
    for index in 0..a.count() {
        let mut place = place(index, &a.dims);
        gone.iter().for_each(|&dim| place[dim] = 0);
        groups[index_of(&place, &kept)].push(index);
    }
    groups
}

/// The sum, mean, greatest or least over dimensions.
pub(super) fn reduce(call: &OpCall<'_>, by: ReduceOp, dims: &[usize]) -> Result<Array> {
    let (a, shape) = (call.tensors[0], &call.plan.shape);
    let groups = groups(a, dims);
    if a.dtype.is_float() {
        let of = |group: &Vec<usize>| {
            let numbers = group.iter().map(|&index| a.get(index));
            match by {
                ReduceOp::Sum => numbers.sum(),
                ReduceOp::Mean => numbers.sum::<f64>() / group.len() as f64,
                ReduceOp::Extreme(Extremum::Min) => numbers.fold(f64::INFINITY, least),
                ReduceOp::Extreme(Extremum::Max) => {
                    -numbers.fold(f64::INFINITY, |best, x| least(best, -x))
                }
            }
        };
        return Ok(Array::real(a.dtype, shape, |index| of(&groups[index])));
    }
    let of = |group: &Vec<usize>| {
        let numbers = group.iter().map(|&index| a.int(index));
        match by {
            ReduceOp::Extreme(Extremum::Min) => numbers.min().unwrap_or(0),
            ReduceOp::Extreme(Extremum::Max) => numbers.max().unwrap_or(0),
            ReduceOp::Sum | ReduceOp::Mean => numbers.sum(),
        }
    };
    let made =
        groups.iter().map(|group| in_range(of(group), a.dtype)).collect::<Result<Vec<_>>>()?;
    Ok(Array::whole(a.dtype, shape, |index| made[index]))
}

/// Refuses a sum that is none of its type. Those of i64 wrap around.
fn in_range(sum: i128, dtype: DType) -> Result<i128> {
    let [min, max] = dtype.range().unwrap_or_default();
    match dtype == DType::I64 || (i128::from(min)..=i128::from(max)).contains(&sum) {
        true => Ok(sum),
        false => Err(OpError::sum_leaves(dtype)),
    }
}

/// The index of the greatest or least, the first of equals; what is not a number comes first.
pub(super) fn arg(call: &OpCall<'_>, of: Extremum, dim: usize) -> Array {
    let a = call.tensors[0];
    let lines = groups(a, &[dim]);
    let better = |one: usize, than: usize| match a.dtype.is_float() {
        true => {
            let (one, than) = (a.get(one), a.get(than));
            !than.is_nan()
                && (one.is_nan() || if of == Extremum::Max { one > than } else { one < than })
        }
        false if of == Extremum::Max => a.int(one) > a.int(than),
        false => a.int(one) < a.int(than),
    };
    let best = |line: &Vec<usize>| {
        let mut best = 0;
        for at in 1..line.len() {
            if better(line[at], line[best]) {
                best = at;
            }
        }
        best as i128
    };
    Array::whole(DType::U32, &call.plan.shape, |index| best(&lines[index]))
}

/// e^(x − greatest), divided by its sum.
pub(super) fn softmax(a: &Array, dim: usize) -> Array {
    let mut made = Array::zeros(a.dtype, &a.dims);
    for line in groups(a, &[dim]) {
        let most = line.iter().map(|&index| a.get(index)).fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<_> = line.iter().map(|&index| (a.get(index) - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        line.iter().zip(powers).for_each(|(&index, power)| made.set(index, power / sum));
    }
    made
}

/// The running sum.
pub(super) fn cumsum(a: &Array, dim: usize) -> Result<Array> {
    let mut made = Array::zeros(a.dtype, &a.dims);
    for line in groups(a, &[dim]) {
        let (mut real, mut whole) = (0.0, 0);
        for index in line {
            if a.dtype.is_float() {
                real += a.get(index);
                made.set(index, real);
            } else {
                whole += a.int(index);
                made.set_int(index, in_range(whole, a.dtype)?);
            }
        }
    }
    Ok(made)
}
