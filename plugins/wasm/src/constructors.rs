//! Values that plugins make.

use std::sync::Arc;

use candle_core::DType;
use kino_host::{FramesDraft, PluginValue, TensorBuffer, dtype_of_name};
use kino_node::{Error, Result, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, ResourceType, WasmList};

use crate::store::{Draft, ResourceEntry, StoreState, unfolded};
use crate::types::{WitResult, to_wire};

type Context<'a> = StoreContextMut<'a, StoreState>;
type Parts = Vec<(String, Resource<ResourceEntry>)>;
/// What a function that makes a value gives.
type Outcome = wasmtime::Result<WitResult<Resource<ResourceEntry>>>;

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
    type Builder = Resource<Draft<TensorBuffer>>;
    let ty = ResourceType::host::<Draft<TensorBuffer>>();
    host.resource("tensor-builder", ty, |mut cx, rep| {
        cx.data_mut().tensors.take(rep)?;
        Ok(())
    })?;
    host.func_wrap(
        "[static]tensor-builder.new",
        |mut cx: Context<'_>, (dtype, dims): (String, Vec<u64>)| {
            let state = cx.data_mut();
            Ok((match buffer(state, &dtype, &dims) {
                Ok(draft) => Ok(Builder::new_own(state.tensors.push(draft)?)),
                Err(error) => Err(to_wire(error.within("tensor-builder.new"))),
            },))
        },
    )?;
    host.func_wrap(
        "[method]tensor-builder.write",
        |cx: Context<'_>, (draft, offset, bytes): (Builder, u64, WasmList<u8>)| {
            let bytes = bytes.as_le_slice(&cx);
            let written = cx.data().tensors.get(draft.rep())?.making.write(offset, bytes);
            Ok((written.map_err(|error| to_wire(error.within("tensor-builder.write"))),))
        },
    )?;
    host.func_wrap("[static]tensor-builder.finish", |mut cx: Context<'_>, (draft,): (Builder,)| {
        let state = cx.data_mut();
        let draft = state.tensors.take(draft.rep())?;
        Ok((give(state, draft.finish(tensor_of))?,))
    })
}

fn frames(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    type Builder = Resource<Draft<FramesDraft>>;
    let ty = ResourceType::host::<Draft<FramesDraft>>();
    host.resource("frames-builder", ty, |mut cx, rep| {
        cx.data_mut().frames.take(rep)?;
        Ok(())
    })?;
    host.func_wrap("[static]frames-builder.new", |mut cx: Context<'_>, (fps,): (Option<f64>,)| {
        let state = cx.data_mut();
        let frames = match &state.ledger {
            Some(ledger) => FramesDraft::new(Some(ledger), fps),
            None => Err(Error::failed("there is no call")),
        };
        Ok((match frames {
            Ok(frames) => Ok(Builder::new_own(state.frames.push(Draft::new(frames))?)),
            Err(error) => Err(to_wire(error.within("frames-builder.new"))),
        },))
    })?;
    host.func_wrap(
        "[method]frames-builder.push",
        |mut cx: Context<'_>, (draft, chunk): (Builder, Resource<ResourceEntry>)| {
            let state = cx.data_mut();
            let chunk = state.entry(chunk.rep())?.item.clone();
            let charge = chunk.tensor().and_then(|tensor| state.count_frames(&tensor));
            let draft = state.frames.get_mut(draft.rep())?;
            let pushed = charge.and_then(|charge| {
                draft.making.push(&chunk)?;
                draft.pay(charge);
                Ok(())
            });
            Ok((pushed.map_err(|error| to_wire(error.within("frames-builder.push"))),))
        },
    )?;
    host.func_wrap("[static]frames-builder.finish", |mut cx: Context<'_>, (draft,): (Builder,)| {
        let state = cx.data_mut();
        let draft = state.frames.take(draft.rep())?;
        Ok((give(state, draft.finish(FramesDraft::finish))?,))
    })
}

/// A tensor of zeros that is to be written.
fn buffer(state: &StoreState, dtype: &str, dims: &[u64]) -> Result<Draft<TensorBuffer>> {
    let dtype: DType = dtype_of_name(dtype)?;
    let dims = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX));
    let dims = dims.collect::<Vec<_>>();
    let bytes = TensorBuffer::size(dtype, &dims)?;
    let charge = state.charge(bytes)?;
    let mut draft = Draft::new(TensorBuffer::zeros(dtype, &dims, bytes)?);
    draft.pay(charge);
    Ok(draft)
}

fn tensor_of(buffer: TensorBuffer) -> Result<PluginValue> {
    Ok(PluginValue::Value(Value::Tensor(buffer.finish()?)))
}

/// A tensor of elements that are all there.
fn tensor(state: &StoreState, dtype: &str, dims: &[u64], bytes: &[u8]) -> Result<ResourceEntry> {
    let draft = buffer(state, dtype, dims)?;
    let expected = TensorBuffer::size(draft.making.dtype(), draft.making.shape())?;
    if bytes.len() as u64 != expected {
        return Err(invalid(format!(
            "a tensor {dims:?} of {dtype} has {expected} bytes, found {}",
            bytes.len()
        )));
    }
    draft.making.write(0, bytes)?;
    draft.finish(tensor_of)
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
