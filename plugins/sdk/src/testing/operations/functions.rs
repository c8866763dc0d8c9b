//! Functions on values in their plainest form. [`kino_contract::calls::plan`] says what is to be
//! computed, here as in the engine.

use std::sync::Arc;

use kino_abi::host_table::{HostError, HostResult, NamedValues};
use kino_contract::calls::{Argument, CallPlan, plan};
use kino_contract::ops::{OpError, Operand};
use kino_port::PortType;

use super::super::array::Array;
use super::super::held::{FramesDraft, Handle, Held};
use super::call::{index_of, place};
use crate::DType;

/// What functions need of the host besides.
pub(crate) struct Host {
    /// A value as a port of a type takes it.
    pub(crate) fit: fn(&Handle, &PortType) -> HostResult<Handle>,
    /// A record of a type.
    pub(crate) record: fn(&str, NamedValues<Handle>) -> HostResult<Handle>,
}

/// Why a call is refused, as the table tells it.
pub(crate) fn refused(OpError { message, hint, code }: OpError) -> HostError {
    HostError { message, hint: hint.unwrap_or_default(), code: code.to_owned() }
}

/// Calls a function.
pub(crate) fn call(
    host: &Host,
    name: &str,
    values: &[&Handle],
    attributes: &str,
) -> HostResult<Vec<Handle>> {
    let arguments: Vec<_> = values.iter().map(|value| argument(value)).collect();
    let array = || values[0].array();
    Ok(match plan(name, &arguments, attributes).map_err(refused)? {
        CallPlan::Split { dim, sizes } => {
            let (whole, mut start) = (array()?, 0);
            let part = |size| {
                start += size;
                tensor(part(whole, dim, start - size, size))
            };
            sizes.into_iter().map(part).collect()
        }
        CallPlan::TopK { dim, k, largest } => {
            let (values, indices) = topk(array()?, dim, k, largest);
            vec![tensor(values), tensor(indices)]
        }
        CallPlan::FramesSlice { start, count } => {
            vec![frames_slice(host, values[0], start, count)?]
        }
        CallPlan::Fit(ty) => vec![(host.fit)(values[0], &ty)?],
        CallPlan::With(names) => vec![with(host, values, names)?],
    })
}

fn argument(value: &Handle) -> Argument<'_> {
    let count = value.field("count").and_then(|count| count.int().ok());
    match (value.type_name(), count.and_then(|count| usize::try_from(count).ok())) {
        ("Frames", Some(count)) => Argument::Frames(count),
        (other, _) => match value.array() {
            Ok(array) => Argument::Tensor(Operand { dtype: array.dtype, dims: &array.dims }),
            Err(_) => Argument::Other(other),
        },
    }
}

fn tensor(array: Array) -> Handle {
    Arc::new(Held::Tensor(array))
}

fn part(whole: &Array, dim: usize, start: usize, size: usize) -> Array {
    let mut dims = whole.dims.clone();
    dims[dim] = size;
    whole.moved(&dims, |index| {
        let mut at = place(index, &dims);
        at[dim] += start;
        Some(index_of(&at, &whole.dims))
    })
}

/// The chosen elements along a dimension in order, and their places; what is not a number is the
/// greatest, and of equals the first comes first.
fn topk(a: &Array, dim: usize, k: usize, largest: bool) -> (Array, Array) {
    let mut dims = a.dims.clone();
    dims[dim] = k;
    let order = |x: usize, y: usize| match a.dtype.is_float() {
        false => a.int(x).cmp(&a.int(y)),
        true => {
            let (x, y) = (a.get(x), a.get(y));
            let by_nan = || x.is_nan().cmp(&y.is_nan());
            x.partial_cmp(&y).unwrap_or_else(by_nan)
        }
    };
    let chosen = |index: usize| {
        let mut at = place(index, &dims);
        let nth = std::mem::take(&mut at[dim]);
        let row = |along: usize| {
            let mut at = at.clone();
            at[dim] = along;
            index_of(&at, &a.dims)
        };
        let mut places: Vec<usize> = (0..a.dims[dim]).collect();
        places.sort_by(|&x, &y| match order(row(x), row(y)) {
            order if largest => order.reverse(),
            order => order,
        });
        (row(places[nth]), places[nth])
    };
    let values = a.moved(&dims, |index| Some(chosen(index).0));
    (values, Array::whole(DType::U32, &dims, |index| chosen(index).1 as i128))
}

fn frames_slice(host: &Host, frames: &Handle, start: usize, count: usize) -> HostResult<Handle> {
    let missing = || HostError::new("these frames have no chunks");
    let chunks = frames.field("chunks").ok_or_else(missing)?;
    let fps = frames.field("fps").map(|fps| fps.real()).transpose()?;
    let (mut slice, mut at) = (FramesDraft::new(fps)?, 0);
    for index in 0..chunks.len() {
        let (_, chunk) = chunks.item(index)?;
        let array = chunk.array()?;
        let end = at + array.dims[0];
        let (from, to) = (start.max(at), (start + count).min(end));
        if from < to {
            slice.push(&tensor(part(array, 0, from - at, to - from)))?;
        }
        at = end;
    }
    let slice = slice.finish()?;
    let (Held::Record(ty, known), Held::Record(_, all)) = (&*slice, &**frames) else {
        return Ok(slice);
    };
    let row = PortType::Frames.named();
    let is_more = |name: &str| row.is_some_and(|row| row.field(name).is_none());
    let more: Vec<_> = all.iter().filter(|(name, _)| is_more(name)).cloned().collect();
    match more.is_empty() {
        true => Ok(slice),
        false => (host.record)(ty, known.iter().cloned().chain(more).collect()),
    }
}

fn with(host: &Host, values: &[&Handle], names: Vec<String>) -> HostResult<Handle> {
    let Held::Record(ty, fields) = &**values[0] else {
        let message = format!("expected a record, found {}", values[0].type_name());
        return Err(HostError::coded(kino_contract::code::WRONG_KIND, message));
    };
    let kept = fields.iter().filter(|(name, _)| !names.contains(name)).cloned();
    let new = names.iter().cloned().zip(values[1..].iter().map(|value| (*value).clone()));
    (host.record)(ty, kept.chain(new).collect())
}
