//! Functions on values that plugins call by name, with any number of results. The contract is
//! `plugins/abi/OPERATIONS.md`.
//!
//! [`kino_contract::calls::plan`] checks a call; here it is computed. Whatever a plugin passes
//! gives results or an error, never a panic, within the bounds of an operation.

use std::cmp::Ordering;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use kino_contract::calls::{Argument, CallPlan, plan};
use kino_contract::code;
use kino_contract::ops::{MAX_BYTES, Operand};
use kino_node::{Error, Frames, Ledger, Result, Value};
use kino_port::PortType;

use crate::draft::FramesDraft;
use crate::ops::{OpLimits, of_candle, refused};
use crate::value::PluginValue;

/// Rows that are sorted between two looks at whether to go on.
const ROWS: usize = 1 << 12;

/// Calls one function within bounds; `attributes` is a JSON object, or empty where there are none.
/// Frames that come out take memory of the ledger; without one they are only gathered, as in a
/// process that passes them on.
///
/// # Errors
/// When there is no such function, values or attributes do not fit, a result would be larger than
/// the bounds, and what `check` says.
pub fn call(
    name: &str,
    values: &[PluginValue],
    attributes: &str,
    bounds: &OpLimits<'_>,
    ledger: Option<&Arc<Ledger>>,
) -> Result<Vec<PluginValue>> {
    let at = |error: Error| match error {
        Error::Tensor(error) => Error::failed(format!("call {name}: {error}")),
        error => error.within(format_args!("call {name}")),
    };
    let shapes: Vec<_> = values.iter().map(Shape::of).collect::<Result<_>>().map_err(at)?;
    let arguments: Vec<_> = shapes.iter().zip(values).map(Shape::argument).collect();
    let plan = plan(name, &arguments, attributes).map_err(refused)?;
    let bounds = OpLimits { most: bounds.most.min(MAX_BYTES), check: bounds.check };
    let call = Call { values, bounds: &bounds, ledger };
    call.run(&plan).map_err(at)
}

/// What is known of a value before a function is planned.
enum Shape {
    Tensor(kino_contract::DType, Vec<usize>),
    Frames(usize),
    Other,
}

impl Shape {
    fn of(value: &PluginValue) -> Result<Self> {
        if value.type_name() == "Frames" {
            let count = value.field("count")?.map(|count| count.int()).transpose()?;
            let count = count.and_then(|count| usize::try_from(count).ok());
            return Ok(count.map_or(Shape::Other, Shape::Frames));
        }
        match value.is_tensor() {
            true => {
                let (dtype, dims) = value.shape()?;
                Ok(Shape::Tensor(of_candle(dtype)?, dims))
            }
            false => Ok(Shape::Other),
        }
    }

    fn argument<'a>((shape, value): (&'a Shape, &'a PluginValue)) -> Argument<'a> {
        match shape {
            Shape::Tensor(dtype, dims) => Argument::Tensor(Operand { dtype: *dtype, dims }),
            Shape::Frames(count) => Argument::Frames(*count),
            Shape::Other => Argument::Other(value.type_name()),
        }
    }
}

/// One call, whose values fit its plan.
struct Call<'a> {
    values: &'a [PluginValue],
    bounds: &'a OpLimits<'a>,
    ledger: Option<&'a Arc<Ledger>>,
}

fn tensor(tensor: Tensor) -> PluginValue {
    PluginValue::Value(Value::Tensor(tensor))
}

/// A part of a tensor along a dimension; candle does not take those without elements.
fn narrow(whole: &Tensor, dim: usize, start: usize, size: usize) -> Result<Tensor> {
    let mut shape = whole.dims().to_vec();
    shape[dim] = size;
    match shape.contains(&0) {
        true => Ok(Tensor::zeros(shape, whole.dtype(), whole.device())?),
        false => Ok(whole.narrow(dim, start, size)?),
    }
}

impl Call<'_> {
    fn run(&self, plan: &CallPlan) -> Result<Vec<PluginValue>> {
        match plan {
            CallPlan::Split { dim, sizes } => {
                let whole = self.values[0].tensor()?;
                let mut start = 0;
                let part = |size: &usize| {
                    let part = narrow(&whole, *dim, start, *size)?;
                    start += size;
                    Ok(tensor(part))
                };
                sizes.iter().map(part).collect()
            }
            CallPlan::TopK { dim, k, largest } => {
                let (values, indices) = self.topk(*dim, *k, *largest)?;
                Ok(vec![tensor(values), tensor(indices)])
            }
            CallPlan::FramesSlice { start, count } => Ok(vec![self.frames_slice(*start, *count)?]),
            CallPlan::Fit(ty) => Ok(vec![self.fit(&self.values[0], ty)?]),
            CallPlan::With(fields) => Ok(vec![self.with(fields)?]),
        }
    }

    /// Refuses results of more bytes than are allowed.
    fn room(&self, bytes: u64) -> Result<()> {
        let most = self.bounds.most;
        if bytes <= most {
            return Ok(());
        }
        Err(Error::coded(
            code::LIMIT,
            format!("results of {bytes} bytes are larger than the {most} bytes that are allowed"),
        ))
    }

    fn topk(&self, dim: usize, k: usize, largest: bool) -> Result<(Tensor, Tensor)> {
        let x = self.values[0].tensor()?;
        let mut shape = x.dims().to_vec();
        shape[dim] = k;
        let chosen = shape.iter().product::<usize>() as u64;
        self.room(chosen.saturating_mul(x.dtype().size_in_bytes() as u64 + 4))?;
        if chosen == 0 {
            let empty = |dtype| Tensor::zeros(shape.as_slice(), dtype, x.device());
            return Ok((empty(x.dtype())?, empty(DType::U32)?));
        }
        // Rows along the dimension, one after another, in main memory: no device sorts stably.
        let last = x.rank() - 1;
        let rows = x.transpose(dim, last)?.contiguous()?.to_device(&Device::Cpu)?;
        let mut turned = rows.dims().to_vec();
        turned[last] = k;
        let (values, indices) = match x.dtype() {
            DType::U8 => self.rows::<u8>(&rows, k, largest),
            DType::U32 => self.rows::<u32>(&rows, k, largest),
            DType::I16 => self.rows::<i16>(&rows, k, largest),
            DType::I32 => self.rows::<i32>(&rows, k, largest),
            DType::I64 => self.rows::<i64>(&rows, k, largest),
            DType::F16 => self.rows::<f16>(&rows, k, largest),
            DType::BF16 => self.rows::<bf16>(&rows, k, largest),
            DType::F64 => self.rows::<f64>(&rows, k, largest),
            _ => self.rows::<f32>(&rows, k, largest),
        }?;
        let back = |flat: Tensor| -> Result<Tensor> {
            let turned = flat.reshape(turned.as_slice())?.transpose(dim, last)?;
            Ok(turned.contiguous()?.to_device(x.device())?)
        };
        Ok((back(values)?, back(indices)?))
    }

    /// The chosen elements of each row, and their places in it, one row after another.
    fn rows<T: WithDType + PartialOrd>(
        &self,
        rows: &Tensor,
        k: usize,
        largest: bool,
    ) -> Result<(Tensor, Tensor)> {
        let elements = rows.flatten_all()?.to_vec1::<T>()?;
        let size = rows.dims().last().copied().unwrap_or(0).max(1);
        let count = elements.len() / size;
        let (mut values, mut indices) = (Vec::<T>::new(), Vec::<u32>::new());
        let room = values.try_reserve_exact(count * k).is_ok();
        if !room || indices.try_reserve_exact(count * k).is_err() {
            return Err(Error::coded(code::OUT_OF_MEMORY, "not enough memory for the results"));
        }
        let mut places: Vec<u32> = Vec::with_capacity(size);
        for (at, row) in elements.chunks_exact(size).enumerate() {
            if at % (ROWS / size.min(ROWS)).max(1) == 0 {
                (self.bounds.check)()?;
            }
            places.clear();
            places.extend(0..size as u32);
            let better = |a: &u32, b: &u32| {
                let order = order(row[*a as usize], row[*b as usize]);
                let order = if largest { order.reverse() } else { order };
                order.then(a.cmp(b))
            };
            if k < size {
                places.select_nth_unstable_by(k - 1, better);
            }
            places[..k].sort_unstable_by(better);
            values.extend(places[..k].iter().map(|place| row[*place as usize]));
            indices.extend_from_slice(&places[..k]);
        }
        let length = values.len();
        let values = Tensor::from_vec(values, length, &Device::Cpu)?;
        Ok((values, Tensor::from_vec(indices, length, &Device::Cpu)?))
    }

    fn frames_slice(&self, start: usize, count: usize) -> Result<PluginValue> {
        let frames = &self.values[0];
        let missing = || Error::coded(code::INVALID, "these frames have no chunks");
        let chunks = frames.field("chunks")?.ok_or_else(missing)?;
        let fps = frames.field("fps")?.map(|fps| fps.real()).transpose()?;
        let mut slice = FramesDraft::new(self.ledger, fps)?;
        let (mut at, end) = (0, start + count);
        for index in 0..chunks.len() {
            if at >= end {
                break;
            }
            (self.bounds.check)()?;
            let length = match &chunks {
                PluginValue::Chunks(frames) => frames.chunk_len(index),
                other => other.item(index)?.shape()?.1.first().copied().unwrap_or(0),
            };
            let (from, to) = (start.max(at), end.min(at + length));
            if from < to {
                let chunk = chunks.item(index)?;
                match to - from == length {
                    true => slice.push(&chunk)?,
                    false => {
                        let part = chunk.tensor()?.narrow(0, from - at, to - from)?;
                        slice.push(&tensor(part))?;
                    }
                }
            }
            at += length;
        }
        let slice = slice.finish()?;
        let mut fields: Vec<(Arc<str>, PluginValue)> = Vec::new();
        for (record, is_kept) in [(&slice, true), (frames, false)] {
            for index in 0..record.len() {
                let name = record.name(index);
                if is_kept || !is_known(name) {
                    fields.push((Arc::from(name), record.item(index)?));
                }
            }
        }
        match fields.len() == slice.len() {
            true => Ok(slice),
            false => remade(&slice, fields),
        }
    }

    fn fit(&self, value: &PluginValue, ty: &PortType) -> Result<PluginValue> {
        match (ty, value) {
            // In a process of its own a plugin's host knows of these what they are called.
            (PortType::Any, PluginValue::Remote(..)) => return Ok(value.clone()),
            (_, PluginValue::Remote(name, _)) if ty.to_string() == **name => {
                return Ok(value.clone());
            }
            (_, PluginValue::Remote(name, _)) => {
                let message = format!("expected {ty}, found {name}");
                return Err(Error::coded(code::WRONG_KIND, message));
            }
            (PortType::List(of), PluginValue::List(items)) => {
                let items =
                    items.iter().map(|(name, item)| Ok((name.clone(), self.fit(item, of)?)));
                return Ok(PluginValue::List(items.collect::<Result<_>>()?));
            }
            _ => {}
        }
        if *ty == PortType::Tensor && value.is_tensor() && value.type_name() != "Frames" {
            return Ok(tensor(value.tensor()?));
        }
        let value = value.clone().into_value()?;
        if *ty == PortType::Tensor
            && let Some(frames) = value.get::<Frames>()
        {
            self.room(frames.bytes())?;
        }
        Ok(PluginValue::Value(value.fit(ty).map_err(|error| error.or_code(code::WRONG_KIND))?))
    }

    fn with(&self, names: &[String]) -> Result<PluginValue> {
        let record = &self.values[0];
        if record.kind() != kino_contract::ValueKind::Record {
            let found = record.type_name();
            return Err(Error::coded(
                code::WRONG_KIND,
                format!("expected a record, found {found}"),
            ));
        }
        let mut fields = Vec::with_capacity(record.len() + names.len());
        for index in 0..record.len() {
            let name = record.name(index);
            if !names.iter().any(|other| other == name) {
                fields.push((Arc::from(name), record.item(index)?));
            }
        }
        let new = names.iter().zip(&self.values[1..]);
        fields.extend(new.map(|(name, value)| (Arc::from(name.as_str()), value.clone())));
        remade(record, fields)
    }
}

/// A record of the same type with these fields.
fn remade(record: &PluginValue, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
    match record {
        // It becomes a value where it goes, and so does what it is made of.
        PluginValue::Fields(ty, _) => Ok(PluginValue::Fields(ty.clone(), fields.into())),
        record => PluginValue::record(record.type_name(), fields),
    }
}

/// Whether Frames have a field of this name by their type.
fn is_known(name: &str) -> bool {
    PortType::Frames.named().is_some_and(|row| row.field(name).is_some())
}

/// A total order in which what is not a number is the greatest.
fn order<T: PartialOrd>(a: T, b: T) -> Ordering {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(&b).unwrap_or_else(|| is_nan(&a).cmp(&is_nan(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_total() {
        let nan = f32::NAN;
        assert_eq!(order(nan, f32::INFINITY), Ordering::Greater);
        assert_eq!(order(f32::INFINITY, nan), Ordering::Less);
        assert_eq!(order(nan, nan), Ordering::Equal);
        assert_eq!(order(-0.0, 0.0), Ordering::Equal);
    }
}
