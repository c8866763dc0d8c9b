//! The interface `kino:plugin/host`: values, and what is asked of them.

use std::collections::BTreeSet;

use candle_core::{Device, DeviceLocation, Tensor};
use kino_host::PluginValue;
use kino_node::{Error, Result, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};

use crate::store::{MemoryCharge, ResourceEntry, StoreState, size};
use crate::types::{WitResult, to_wire};

/// The name of the interface.
pub(crate) const HOST: &str = "kino:plugin/host@2.0.0";

type Handle = Resource<ResourceEntry>;
type Context<'a> = StoreContextMut<'a, StoreState>;

/// Adds all functions of the interface under its name.
pub(crate) fn add(linker: &mut Linker<StoreState>, name: &str) -> wasmtime::Result<()> {
    let mut host = linker.instance(name)?;
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

/// The functions of an interface of the contract, as a component imports them: `new-text`,
/// `[method]value.read`. They are read off the WIT text, since a linker does not tell.
pub(crate) fn functions_of(interface: &str) -> BTreeSet<String> {
    let begin = format!("interface {interface} {{");
    let lines = kino_host::WIT.lines().skip_while(|line| *line != begin).skip(1);
    let mut resource = None;
    let mut names = BTreeSet::new();
    for line in lines.take_while(|line| *line != "}") {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix("resource ") {
            resource = name.split([' ', '{']).next();
        } else if line == "}" {
            resource = None;
        } else if let Some((name, ty)) = line.split_once(": ") {
            match (resource, ty) {
                (Some(of), ty) if ty.starts_with("static func(") => {
                    names.insert(format!("[static]{of}.{name}"));
                }
                (Some(of), ty) if ty.starts_with("func(") => {
                    names.insert(format!("[method]{of}.{name}"));
                }
                (None, ty) if ty.starts_with("func(") => {
                    names.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    names
}

/// What is asked of a value that gives an answer at once, by a function of this name.
fn ask<T>(
    cx: &Context<'_>,
    name: &str,
    value: &Handle,
    ask: impl FnOnce(&PluginValue) -> Result<T>,
) -> wasmtime::Result<(WitResult<T>,)> {
    let answer = ask(&cx.data().entry(value.rep())?.item);
    Ok((answer.map_err(|error| to_wire(error.within(name))),))
}

fn scalars(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.kind", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(value.rep())?.item.kind().name(),))
    })?;
    host.func_wrap("[method]value.type-name", |cx: Context<'_>, (value,): (Handle,)| {
        Ok((cx.data().entry(value.rep())?.item.type_name().to_owned(),))
    })?;
    host.func_wrap("[method]value.as-text", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-text", &value, |item| item.text().map(str::to_owned))
    })?;
    host.func_wrap("[method]value.as-bool", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-bool", &value, PluginValue::truth)
    })?;
    host.func_wrap("[method]value.as-s64", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-s64", &value, narrow::<i64>)
    })?;
    host.func_wrap("[method]value.as-u64", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-u64", &value, narrow::<u64>)
    })?;
    host.func_wrap("[method]value.as-wide", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-wide", &value, |item| item.int().map(|int| (int as u64, (int >> 64) as i64)))
    })?;
    host.func_wrap("[method]value.as-f64", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "as-f64", &value, PluginValue::real)
    })?;
    host.func_wrap("[method]value.len", |cx: Context<'_>, (value,): (Handle,)| {
        let len = cx.data().entry(value.rep())?.item.len();
        Ok((u32::try_from(len).unwrap_or(u32::MAX),))
    })
}

/// The whole number in 64 bits.
fn narrow<T: TryFrom<i128>>(item: &PluginValue) -> Result<T> {
    let int = item.int()?;
    T::try_from(int).map_err(|_| {
        let signed = if int < 0 { "unsigned number" } else { "number" };
        let what = format!("{int} is no {signed} of 64 bits");
        Error::coded(kino_host::code::INVALID, what)
    })
}

fn parts(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.item", |mut cx: Context<'_>, args: (Handle, u32)| {
        let (value, index) = args;
        Ok((match part(cx.data(), &value, index as usize)? {
            Ok((name, part)) => Ok((name, cx.data_mut().give(part)?)),
            Err(error) => Err(to_wire(error.within("item"))),
        },))
    })?;
    host.func_wrap("[method]value.field", |mut cx: Context<'_>, args: (Handle, String)| {
        let (value, name) = args;
        let entry = cx.data().entry(value.rep())?;
        let found = entry.item.field(&name).map_err(|error| to_wire(error.within("field")));
        let found = found.map(|item| item.map(|item| entry.part(item)));
        Ok((match found {
            Ok(Some(part)) => Ok(Some(cx.data_mut().give(part)?)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        },))
    })?;
    host.func_wrap("[method]value.clone", |mut cx: Context<'_>, (value,): (Handle,)| {
        let again = cx.data().entry(value.rep())?.again();
        Ok((cx.data_mut().give(again)?,))
    })
}

fn tensors(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]value.dtype", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "dtype", &value, |item| Ok(item.shape()?.0.as_str()))
    })?;
    host.func_wrap("[method]value.dims", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "dims", &value, |item| {
            Ok(item.shape()?.1.into_iter().map(|dim| dim as u64).collect::<Vec<_>>())
        })
    })?;
    host.func_wrap("[method]value.device", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "device", &value, |item| Ok(device(item.tensor()?.device())))
    })?;
    host.func_wrap("[method]value.size", |cx: Context<'_>, (value,): (Handle,)| {
        ask(&cx, "size", &value, |item| match item {
            PluginValue::Bytes(_) | PluginValue::Value(Value::Text(_)) => {
                Ok(item.bytes()?.len() as u64)
            }
            tensor => {
                let (dtype, dims) = tensor.shape()?;
                Ok((dims.iter().product::<usize>() * dtype.size_in_bytes()) as u64)
            }
        })
    })?;
    host.func_wrap("[method]value.read", |mut cx: Context<'_>, args: (Handle, u64, u32)| {
        let (value, offset, length) = args;
        let plain = match plain(cx.data_mut(), &value)? {
            Ok(plain) => plain,
            Err(error) => return Ok((Err(to_wire(error.within("read"))),)),
        };
        let read = plain.read(offset, length.into());
        Ok((read.map_err(|error| to_wire(error.within("read"))),))
    })
}

/// Where a tensor lies.
fn device(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// An item of a list. A chunk of frames that lies in a file takes memory of the plugin's.
fn part(
    state: &StoreState,
    value: &Handle,
    index: usize,
) -> wasmtime::Result<Result<(String, ResourceEntry)>> {
    let entry = state.entry(value.rep())?;
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
    let entry = state.entry(value.rep())?;
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
            let entry = state.entry_mut(value.rep())?;
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
