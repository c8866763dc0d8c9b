//! Operations that move elements without changing them.

use super::super::array::Array;
use super::super::held::Outcome;
use super::{Call, index_of, joined, place, resolve, spread};
use crate::DType;

pub(super) fn reshape(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let shape = call.sizes("shape")?;
    let known: i64 = shape.iter().filter(|&&size| size != -1).product();
    let open = shape.iter().filter(|&&size| size == -1).count();
    let refused = || format!("{:?} cannot take the shape {shape:?}", a.dims);
    if open > 1 || shape.iter().any(|&size| size < -1) {
        return Err(refused());
    }
    let missing = if known > 0 { a.count() as i64 / known } else { 0 };
    let dims: Vec<_> =
        shape.iter().map(|&size| if size == -1 { missing } else { size } as usize).collect();
    if dims.iter().product::<usize>() != a.count() {
        return Err(refused());
    }
    Ok(a.moved(&dims, Some))
}

pub(super) fn permute(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let order = call.sizes("dims")?;
    let order: Vec<_> =
        order.iter().map(|&dim| resolve(dim, a.dims.len())).collect::<Outcome<_>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted != (0..a.dims.len()).collect::<Vec<_>>() {
        return Err(format!("{order:?} does not name every dimension of {:?} once", a.dims));
    }
    let dims: Vec<_> = order.iter().map(|&dim| a.dims[dim]).collect();
    Ok(a.moved(&dims, |index| {
        let mut from = vec![0; dims.len()];
        order.iter().zip(place(index, &dims)).for_each(|(&dim, at)| from[dim] = at);
        Some(index_of(&from, &a.dims))
    }))
}

/// Moves along one dimension: `from` says for a place where to look, if anywhere.
fn along(a: &Array, dim: usize, size: usize, from: impl Fn(usize) -> Option<usize>) -> Array {
    let mut dims = a.dims.clone();
    dims[dim] = size;
    a.moved(&dims, |index| {
        let mut place = place(index, &dims);
        place[dim] = from(place[dim])?;
        Some(index_of(&place, &a.dims))
    })
}

pub(super) fn slice(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let (dim, start, len) = (call.dim(a)?, call.size("start")?, call.size("len")?);
    if start.checked_add(len).is_none_or(|end| end > a.dims[dim]) {
        return Err(format!("{start}..+{len} reaches past dimension {dim} of {:?}", a.dims));
    }
    Ok(along(a, dim, len, |at| Some(start + at)))
}

pub(super) fn concat(call: &Call<'_>) -> Outcome<Array> {
    let first = *call.tensors.first().ok_or("expected one tensor or more")?;
    let dim = call.dim(first)?;
    let mut dims = first.dims.clone();
    dims[dim] = 0;
    for part in call.tensors {
        let fits = part.dims.len() == dims.len()
            && part.dtype == first.dtype
            && (0..dims.len()).all(|at| at == dim || part.dims[at] == dims[at]);
        if !fits {
            let (a, b) = (&first.dims, &part.dims);
            return Err(format!("{a:?} and {b:?} do not join along dimension {dim}"));
        }
        dims[dim] += part.dims[dim];
    }
    let (mut made, size) = (Array::zeros(first.dtype, &dims), first.dtype.size());
    let mut before = 0;
    for part in call.tensors {
        for index in 0..part.count() {
            let mut to = place(index, &part.dims);
            to[dim] += before;
            let to = index_of(&to, &dims) * size;
            made.bytes_mut()[to..to + size].copy_from_slice(&part.bytes()[index * size..][..size]);
        }
        before += part.dims[dim];
    }
    Ok(made)
}

fn indices(of: &Array, size: usize) -> Outcome<Vec<usize>> {
    if !matches!(of.dtype, DType::U32 | DType::I64) {
        return Err(format!("indices must be u32 or i64, found {}", of.dtype));
    }
    let check = |index: usize| {
        let found = of.get(index);
        if found >= 0.0 && found < size as f64 {
            return Ok(found as usize);
        }
        Err(format!("index {found} lies outside of 0..{size}"))
    };
    (0..of.count()).map(check).collect()
}

pub(super) fn gather(call: &Call<'_>) -> Outcome<Array> {
    let [a, at] = call.exactly()?;
    let dim = call.dim(a)?;
    let fits = a.dims.len() == at.dims.len()
        && (0..a.dims.len()).all(|other| other == dim || at.dims[other] <= a.dims[other]);
    if !fits {
        return Err(format!("indices {:?} do not fit {:?}", at.dims, a.dims));
    }
    let indices = indices(at, a.dims[dim])?;
    Ok(a.moved(&at.dims, |index| {
        let mut from = place(index, &at.dims);
        from[dim] = indices[index];
        Some(index_of(&from, &a.dims))
    }))
}

pub(super) fn index_select(call: &Call<'_>) -> Outcome<Array> {
    let [a, at] = call.exactly()?;
    let dim = call.dim(a)?;
    if at.dims.len() != 1 {
        return Err(format!("expected indices [n], found {:?}", at.dims));
    }
    let indices = indices(at, a.dims[dim])?;
    Ok(along(a, dim, indices.len(), |at| Some(indices[at])))
}

pub(super) fn broadcast(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let dims: Vec<_> = call.sizes("shape")?.iter().map(|&size| size.max(0) as usize).collect();
    if joined(&a.dims, &dims)? != dims {
        return Err(format!("{:?} does not broadcast to {dims:?}", a.dims));
    }
    Ok(a.moved(&dims, |index| Some(spread(index, &dims, &a.dims))))
}

pub(super) fn flip(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let dims = call.sizes("dims")?;
    let dims: Vec<_> =
        dims.iter().map(|&dim| resolve(dim, a.dims.len())).collect::<Outcome<_>>()?;
    Ok(a.moved(&a.dims, |index| {
        let mut place = place(index, &a.dims);
        dims.iter().for_each(|&dim| place[dim] = a.dims[dim] - 1 - place[dim]);
        Some(index_of(&place, &a.dims))
    }))
}

pub(super) fn pad(call: &Call<'_>) -> Outcome<Array> {
    let a = call.only()?;
    let (dim, before, after) = (call.dim(a)?, call.size("before")?, call.size("after")?);
    let size = a.dims[dim];
    let mode = call.text("mode")?;
    let edge = match mode.as_str() {
        "zeros" => false,
        "edge" if size > 0 => true,
        other => return Err(format!("cannot pad {:?} in the mode `{other}`", a.dims)),
    };
    Ok(along(a, dim, before + size + after, |at| match at.checked_sub(before) {
        Some(at) if at < size => Some(at),
        beyond => edge.then_some(if beyond.is_some() { size - 1 } else { 0 }),
    }))
}
