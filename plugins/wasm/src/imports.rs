//! The interface `kino:plugin/host`: values, and what is asked of them.

use candle_core::{Device, Tensor};
use kino_host::{PluginValue, ValueKind};
use kino_node::{Error, Result, Value};
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, WasmList};
use wasmtime::{AsContext, StoreContextMut};

use crate::store::{MemoryCharge, ResourceEntry, StoreState, size};
use crate::types::{Elements, Shape, Wide, WitKind, to_wire};

/// The name of the interface.
pub(crate) const HOST: &str = "kino:plugin/host@1.0.0";

type Handle = Resource<ResourceEntry>;
type Context<'a> = StoreContextMut<'a, StoreState>;
/// Adds all functions of the interface.
pub(crate) fn add(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    let mut host = linker.instance(HOST)?;
    let drop = |mut cx: Context<'_>, rep| {
        cx.data_mut().take(rep)?;
        Ok(())
    };
    host.resource("value", ResourceType::host::<ResourceEntry>(), drop)?;
    scalars(&mut host)?;
    parts(&mut host)?;
    tensors(&mut host)?;
    crate::constructors::add(&mut host)?;
    crate::requests::add(&mut host)
}

fn scalars(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.kind", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((WitKind::from(cx.data().entry(&value)?.item.kind()),))
    })?;
    host.func_wrap("[method]value.type-name", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(&value)?.item.type_name().to_owned(),))
    })?;
    host.func_wrap("[method]value.as-int", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(&value)?.item.int().map(Wide::from).map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.as-real", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(&value)?.item.real().map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.as-text", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(&value)?.item.text().map(str::to_owned).map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.len", |cx: Context<'_>, (value,): (Handle,)| {
        let item = &cx.data().entry(&value)?.item;
        let len = match item.kind() {
            ValueKind::Bytes => item.bytes().map_or(0, <[u8]>::len),
            _ => item.len(),
        };
        Ok((len as u64,))
    })
}

fn parts(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.item", |mut cx: Context<'_>, args: (Handle, u64)| {
        let (value, index) = args;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok((match part(cx.data(), &value, index)? {
            Ok((name, part)) => Ok((name, cx.data_mut().give(part)?)),
            Err(error) => Err(to_wire(error)),
        },))
    })?;
    host.func_wrap("[method]value.field", |mut cx: Context<'_>, args: (Handle, String)| {
        let (value, name) = args;
        let entry = cx.data().entry(&value)?;
        let found = entry.item.field(&name).map_err(to_wire);
        let found = found.map(|item| item.map(|item| entry.part(item)));
        Ok((match found {
            Ok(Some(part)) => Ok(Some(cx.data_mut().give(part)?)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        },))
    })?;
    host.func_wrap("[method]value.another", |mut cx: Context<'_>, (value,): (Handle,)| {
        let again = cx.data().entry(&value)?.again();
        Ok((cx.data_mut().give(again)?,))
    })
}

fn tensors(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.shape", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((shape(&cx.data().entry(&value)?.item).map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.read", |mut cx: Context<'_>, args: (Handle, u64, u64)| {
        let (value, offset, length) = args;
        let plain = match plain(cx.data_mut(), &value)? {
            Ok(plain) => plain,
            Err(error) => return Ok((Err(to_wire(error)),)),
        };
        Ok((plain.read(offset, length).map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.write", |cx: Context<'_>, args: (Handle, u64, WasmList<u8>)| {
        let (value, offset, bytes) = args;
        let bytes = bytes.as_le_slice(cx.as_context());
        let outcome = match &cx.data().entry(&value)?.item {
            PluginValue::TensorBuffer(draft) => draft.write(offset, bytes),
            other => Err(Error::failed(format!(
                "this {} cannot be written: only tensors from new-tensor can",
                other.type_name()
            ))),
        };
        Ok((outcome.map_err(to_wire),))
    })?;
    host.func_wrap("[method]value.push", |mut cx: Context<'_>, args: (Handle, Handle)| {
        let (value, chunk) = args;
        let state = cx.data_mut();
        let frames = state.entry(&value)?.item.clone();
        let chunk = state.entry(&chunk)?.item.tensor();
        let outcome = match chunk.and_then(|chunk| push(state, &frames, &chunk)) {
            Ok(charge) => {
                state.entry_mut(&value)?.pay(charge);
                Ok(())
            }
            Err(error) => Err(to_wire(error)),
        };
        Ok((outcome,))
    })
}

fn shape(item: &PluginValue) -> Result<Shape> {
    let (dtype, dims) = item.shape()?;
    let dtype = Elements::of(dtype)
        .ok_or_else(|| Error::failed(format!("plugins do not see tensors of {dtype:?}")))?;
    Ok(Shape { dtype, dims: dims.into_iter().map(|dim| dim as u64).collect() })
}

fn push(state: &mut StoreState, frames: &PluginValue, chunk: &Tensor) -> Result<MemoryCharge> {
    let PluginValue::FramesBuffer(growing) = frames else {
        return Err(Error::failed(format!(
            "a chunk cannot be appended to this {}, only to frames from new-frames",
            frames.type_name()
        )));
    };
    let charge = state.count_frames(chunk)?;
    growing.push(chunk)?;
    Ok(charge)
}

/// An item of a list. A chunk of frames that lies in a file takes memory of the plugin's.
fn part(
    state: &StoreState,
    value: &Handle,
    index: usize,
) -> wasmtime::Result<Result<(String, ResourceEntry)>> {
    let entry = state.entry(value)?;
    let charge = match &entry.item {
        PluginValue::Chunks(frames) if frames.is_spilled(index) => {
            let pixels = 3 * frames.chunk_len(index) * frames.height() * frames.width();
            state.charge(4 * pixels as u64).map(Some)
        }
        _ => Ok(None),
    };
    Ok(charge.and_then(|charge| {
        let item = entry.item.item(index)?;
        let mut part = entry.part(item);
        charge.into_iter().for_each(|charge| part.pay(charge));
        Ok((entry.item.name(index).to_owned(), part))
    }))
}

/// The value as it can be read piece by piece: a tensor that lies elsewhere, or with gaps, is
/// brought to main memory once.
fn plain(state: &mut StoreState, value: &Handle) -> wasmtime::Result<Result<PluginValue>> {
    let entry = state.entry(value)?;
    if let Some(plain) = &entry.plain {
        return Ok(Ok(plain.clone()));
    }
    let made = match &entry.item {
        bytes @ PluginValue::Bytes(_) => Ok((bytes.clone(), None)),
        text @ PluginValue::Value(Value::Text(_)) => Ok((text.clone(), None)),
        item => item.tensor().and_then(|tensor| flat(state, tensor)),
    };
    Ok(match made {
        Ok((plain, charge)) => {
            let entry = state.entry_mut(value)?;
            entry.plain = Some(plain.clone());
            if let Some(charge) = charge {
                entry.pay(charge);
            }
            Ok(plain)
        }
        Err(error) => Err(error),
    })
}

/// A tensor in main memory without gaps, and what that costs.
fn flat(state: &StoreState, tensor: Tensor) -> Result<(PluginValue, Option<MemoryCharge>)> {
    if matches!(tensor.device(), Device::Cpu) && tensor.is_contiguous() {
        return Ok((PluginValue::Value(Value::Tensor(tensor)), None));
    }
    let charge = state.charge(size(&tensor))?;
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    Ok((PluginValue::Value(Value::Tensor(tensor)), Some(charge)))
}
