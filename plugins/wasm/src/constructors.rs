//! Values that plugins make.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use kino_host::{FramesBuffer, PluginValue, TensorBuffer, dtype_of_name};
use kino_node::{Error, Result, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, ResourceType, WasmList};

use crate::store::{MemoryCharge, ResourceEntry, StoreState, unfolded};
use crate::types::{WitResult, to_wire};

type Context<'a> = StoreContextMut<'a, StoreState>;
type Parts = Vec<(String, Resource<ResourceEntry>)>;
/// What a function that makes a value gives.
type Outcome = wasmtime::Result<WitResult<Resource<ResourceEntry>>>;

/// A tensor that is being written: a handle of another type than values have, of an entry in the
/// same table.
struct TensorDraft;
/// Frames that are being made, likewise.
struct FramesDraft;

/// Adds the functions.
pub(crate) fn add(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    scalars(host)?;
    host.func_wrap("new-list", |mut cx: Context<'_>, (items,): (Parts,)| {
        let list = |items: Vec<(Arc<str>, PluginValue)>| Ok(PluginValue::List(items.into()));
        Ok((combined(cx.data_mut(), items, |_| 0, list)?,))
    })?;
    host.func_wrap("new-record", |mut cx: Context<'_>, (ty, fields): (String, Parts)| {
        let record = |fields| PluginValue::record(&ty, fields);
        Ok((combined(cx.data_mut(), fields, unfolded, record)?,))
    })?;
    host.func_wrap(
        "new-tensor",
        |mut cx: Context<'_>, (dtype, dims, elements): (String, Vec<u64>, WasmList<u8>)| {
            let bytes = elements.as_le_slice(&cx);
            let made = tensor(cx.data(), &dtype, &dims, bytes);
            Ok((give(cx.data_mut(), made)?,))
        },
    )?;
    tensors(host)?;
    frames(host)
}

fn scalars(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    fn free(
        mut cx: Context<'_>,
        value: Value,
    ) -> wasmtime::Result<(WitResult<Resource<ResourceEntry>>,)> {
        let entry = ResourceEntry::free(PluginValue::Value(value));
        Ok((Ok(cx.data_mut().give(entry)?),))
    }
    host.func_wrap("new-text", |mut cx: Context<'_>, (text,): (String,)| {
        let bytes = text.len() as u64;
        Ok((charged(cx.data_mut(), bytes, |_| Ok(PluginValue::Value(Value::Text(text.into()))))?,))
    })?;
    host.func_wrap("new-bytes", |mut cx: Context<'_>, (bytes,): (WasmList<u8>,)| {
        let bytes: Arc<[u8]> = bytes.as_le_slice(&cx).into();
        Ok((charged(cx.data_mut(), bytes.len() as u64, |_| Ok(PluginValue::Bytes(bytes)))?,))
    })?;
    host.func_wrap("new-bool", |cx: Context<'_>, (truth,): (bool,)| free(cx, Value::Bool(truth)))?;
    host.func_wrap("new-s64", |cx: Context<'_>, (int,): (i64,)| free(cx, Value::Int(int.into())))?;
    host.func_wrap("new-u64", |cx: Context<'_>, (int,): (u64,)| free(cx, Value::Int(int.into())))?;
    host.func_wrap("new-wide", |cx: Context<'_>, (low, high): (u64, i64)| {
        free(cx, Value::Int(i128::from(high) << 64 | i128::from(low)))
    })?;
    host.func_wrap("new-f64", |cx: Context<'_>, (real,): (f64,)| free(cx, Value::Real(real)))
}

fn tensors(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.resource("tensor-builder", ResourceType::host::<TensorDraft>(), |mut cx, rep| {
        cx.data_mut().take(rep)?;
        Ok(())
    })?;
    host.func_wrap(
        "[static]tensor-builder.new",
        |mut cx: Context<'_>, (dtype, dims): (String, Vec<u64>)| {
            let state = cx.data_mut();
            Ok((match buffer(state, &dtype, &dims) {
                Ok(entry) => Ok(Resource::<TensorDraft>::new_own(state.give(entry)?.rep())),
                Err(error) => Err(to_wire(error)),
            },))
        },
    )?;
    host.func_wrap(
        "[method]tensor-builder.write",
        |cx: Context<'_>, (draft, offset, bytes): (Resource<TensorDraft>, u64, WasmList<u8>)| {
            let bytes = bytes.as_le_slice(&cx);
            let outcome = match &cx.data().entry(draft.rep())?.item {
                PluginValue::TensorBuffer(draft) => draft.write(offset, bytes),
                other => Err(misplaced(other)),
            };
            Ok((outcome.map_err(to_wire),))
        },
    )?;
    host.func_wrap(
        "[static]tensor-builder.finish",
        |mut cx: Context<'_>, (draft,): (Resource<TensorDraft>,)| {
            Ok((finish(&mut cx, draft.rep())?,))
        },
    )
}

fn frames(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.resource("frames-builder", ResourceType::host::<FramesDraft>(), |mut cx, rep| {
        cx.data_mut().take(rep)?;
        Ok(())
    })?;
    host.func_wrap("[static]frames-builder.new", |mut cx: Context<'_>, (fps,): (Option<f64>,)| {
        let state = cx.data_mut();
        let frames = match &state.ledger {
            Some(ledger) => FramesBuffer::new(ledger, fps),
            None => Err(Error::failed("there is no call")),
        };
        Ok((match frames {
            Ok(frames) => {
                let entry = ResourceEntry::free(PluginValue::FramesBuffer(Arc::new(frames)));
                Ok(Resource::<FramesDraft>::new_own(state.give(entry)?.rep()))
            }
            Err(error) => Err(to_wire(error)),
        },))
    })?;
    host.func_wrap(
        "[method]frames-builder.push",
        |mut cx: Context<'_>, (draft, chunk): (Resource<FramesDraft>, Resource<ResourceEntry>)| {
            let state = cx.data_mut();
            let frames = state.entry(draft.rep())?.item.clone();
            let chunk = state.entry(chunk.rep())?.item.tensor();
            let outcome = match chunk.and_then(|chunk| push(state, &frames, &chunk)) {
                Ok(charge) => {
                    state.entry_mut(draft.rep())?.pay(charge);
                    Ok(())
                }
                Err(error) => Err(to_wire(error)),
            };
            Ok((outcome,))
        },
    )?;
    host.func_wrap(
        "[static]frames-builder.finish",
        |mut cx: Context<'_>, (draft,): (Resource<FramesDraft>,)| {
            Ok((finish(&mut cx, draft.rep())?,))
        },
    )
}

/// What is said of a handle that leads to something of another type, which cannot be.
fn misplaced(found: &PluginValue) -> Error {
    Error::failed(format!("a builder leads to a {}", found.type_name()))
}

fn push(state: &mut StoreState, frames: &PluginValue, chunk: &Tensor) -> Result<MemoryCharge> {
    let PluginValue::FramesBuffer(growing) = frames else { return Err(misplaced(frames)) };
    let charge = state.count_frames(chunk)?;
    growing.push(chunk)?;
    Ok(charge)
}

/// The value that a builder has made, which takes the place of the builder in the table.
fn finish(cx: &mut Context<'_>, draft: u32) -> Outcome {
    let state = cx.data_mut();
    let mut entry = state.take(draft)?;
    Ok(match entry.item.into_value() {
        Ok(value) => {
            entry.item = PluginValue::Value(value);
            Ok(state.give(entry)?)
        }
        Err(error) => Err(to_wire(error)),
    })
}

/// A tensor of zeros that is to be written.
fn buffer(state: &StoreState, dtype: &str, dims: &[u64]) -> Result<ResourceEntry> {
    let dtype: DType = dtype_of_name(dtype)?;
    let dims = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX));
    let dims = dims.collect::<Vec<_>>();
    let bytes = TensorBuffer::size(dtype, &dims)?;
    let charge = state.charge(bytes)?;
    let buffer = Arc::new(TensorBuffer::zeros(dtype, &dims, bytes)?);
    let mut entry = ResourceEntry::free(PluginValue::TensorBuffer(buffer));
    entry.pay(charge);
    Ok(entry)
}

/// A tensor of elements that are all there.
fn tensor(state: &StoreState, dtype: &str, dims: &[u64], bytes: &[u8]) -> Result<ResourceEntry> {
    let mut entry = buffer(state, dtype, dims)?;
    if let PluginValue::TensorBuffer(buffer) = &entry.item {
        let expected = TensorBuffer::size(buffer.dtype(), buffer.shape())?;
        if bytes.len() as u64 != expected {
            return Err(invalid(format!(
                "a tensor {dims:?} of {dtype} has {expected} bytes, found {}",
                bytes.len()
            )));
        }
        buffer.write(0, bytes)?;
    }
    entry.item = PluginValue::Value(entry.item.into_value()?);
    Ok(entry)
}

fn invalid(message: String) -> Error {
    Error::coded(kino_host::code::INVALID, message)
}

/// Gives the plugin a handle of what was made.
fn give(state: &mut StoreState, made: Result<ResourceEntry>) -> Outcome {
    Ok(match made {
        Ok(entry) => Ok(state.give(entry)?),
        Err(error) => Err(to_wire(error)),
    })
}

/// A value that takes some bytes of the plugin's memory.
pub(crate) fn charged(
    state: &mut StoreState,
    bytes: u64,
    make: impl FnOnce(&mut StoreState) -> Result<PluginValue>,
) -> Outcome {
    let made = state.charge(bytes).and_then(|charge| {
        let mut entry = ResourceEntry::free(make(state)?);
        if bytes > 0 {
            entry.pay(charge);
        }
        Ok(entry)
    });
    give(state, made)
}

fn combined(
    state: &mut StoreState,
    parts: Parts,
    more: impl Fn(&PluginValue) -> u64,
    make: impl FnOnce(Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue>,
) -> Outcome {
    let made = state.combine(parts, more, make)?;
    give(state, made)
}
