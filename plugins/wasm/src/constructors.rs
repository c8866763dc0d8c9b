//! Values that plugins make.

use std::sync::Arc;

use kino_host::{FramesBuffer, PluginValue, TensorBuffer};
use kino_node::{Error, Result, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, WasmList};

use crate::store::{ResourceEntry, StoreState, unfolded};
use crate::types::{Shape, Wide, WitResult, to_wire};

type Context<'a> = StoreContextMut<'a, StoreState>;
type Parts = Vec<(String, Resource<ResourceEntry>)>;

/// Adds the functions.
pub(crate) fn add(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("new-text", |mut cx: Context<'_>, (text,): (String,)| {
        let bytes = text.len() as u64;
        Ok((charged(cx.data_mut(), bytes, |_| Ok(PluginValue::Value(Value::Text(text.into()))))?,))
    })?;
    host.func_wrap("new-bytes", |mut cx: Context<'_>, (bytes,): (WasmList<u8>,)| {
        let bytes: Arc<[u8]> = bytes.as_le_slice(&cx).into();
        Ok((charged(cx.data_mut(), bytes.len() as u64, |_| Ok(PluginValue::Bytes(bytes)))?,))
    })?;
    host.func_wrap("new-int", |mut cx: Context<'_>, (int,): (Wide,)| {
        let value = Value::Int(int.into());
        Ok((charged(cx.data_mut(), 0, |_| Ok(PluginValue::Value(value)))?,))
    })?;
    host.func_wrap("new-real", |mut cx: Context<'_>, (real,): (f64,)| {
        Ok((charged(cx.data_mut(), 0, |_| Ok(PluginValue::Value(Value::Real(real))))?,))
    })?;
    host.func_wrap("new-truth", |mut cx: Context<'_>, (truth,): (bool,)| {
        Ok((charged(cx.data_mut(), 0, |_| Ok(PluginValue::Value(Value::Bool(truth))))?,))
    })?;
    host.func_wrap("new-items", |mut cx: Context<'_>, (items,): (Parts,)| {
        let list = |items: Vec<(Arc<str>, PluginValue)>| Ok(PluginValue::List(items.into()));
        Ok((combined(cx.data_mut(), items, |_| 0, list)?,))
    })?;
    host.func_wrap("new-fields", |mut cx: Context<'_>, (ty, fields): (String, Parts)| {
        let record = |fields| PluginValue::record(&ty, fields);
        Ok((combined(cx.data_mut(), fields, unfolded, record)?,))
    })?;
    host.func_wrap("new-frames", |mut cx: Context<'_>, (fps,): (Option<f64>,)| {
        let frames = |state: &mut StoreState| {
            let ledger = state.ledger.as_ref().ok_or_else(|| Error::failed("there is no call"))?;
            Ok(PluginValue::FramesBuffer(Arc::new(FramesBuffer::new(ledger, fps)?)))
        };
        Ok((charged(cx.data_mut(), 0, frames)?,))
    })?;
    host.func_wrap("new-tensor", |mut cx: Context<'_>, (shape,): (Shape,)| {
        let state = cx.data_mut();
        let outcome = zeros(state, &shape);
        Ok((match outcome {
            Ok(entry) => Ok(state.give(entry)?),
            Err(error) => Err(to_wire(error)),
        },))
    })
}

/// A tensor of zeros.
fn zeros(state: &StoreState, shape: &Shape) -> Result<ResourceEntry> {
    let dims = shape.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX));
    let (dtype, dims) = (shape.dtype.dtype(), dims.collect::<Vec<_>>());
    let bytes = TensorBuffer::size(dtype, &dims)?;
    let charge = state.charge(bytes)?;
    let buffer = Arc::new(TensorBuffer::zeros(dtype, &dims, bytes)?);
    let mut entry = ResourceEntry::free(PluginValue::TensorBuffer(buffer));
    entry.pay(charge);
    Ok(entry)
}

/// A value that takes some bytes of the plugin's memory.
pub(crate) fn charged(
    state: &mut StoreState,
    bytes: u64,
    make: impl FnOnce(&mut StoreState) -> Result<PluginValue>,
) -> wasmtime::Result<WitResult<Resource<ResourceEntry>>> {
    let charge = match state.charge(bytes) {
        Ok(charge) => charge,
        Err(error) => return Ok(Err(to_wire(error))),
    };
    Ok(match make(state) {
        Ok(item) => {
            let mut entry = ResourceEntry::free(item);
            if bytes > 0 {
                entry.pay(charge);
            }
            Ok(state.give(entry)?)
        }
        Err(error) => Err(to_wire(error)),
    })
}

fn combined(
    state: &mut StoreState,
    parts: Parts,
    more: impl Fn(&PluginValue) -> u64,
    make: impl FnOnce(Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>,
) -> wasmtime::Result<WitResult<Resource<ResourceEntry>>> {
    Ok(match state.combine(parts, more, make)? {
        Ok(entry) => Ok(state.give(entry)?),
        Err(error) => Err(to_wire(error)),
    })
}
