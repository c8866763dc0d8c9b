//! Values that plugins make.

use std::sync::Arc;

use kino_host::{Draft, Growing, Item};
use kino_node::{Error, Result, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource, WasmList};

use crate::imports::{Said, said};
use crate::store::{Entry, Own, unfolded};
use crate::types::{Shape, Wide};

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 16;

type Context<'a> = StoreContextMut<'a, Own>;
type Parts = Vec<(String, Resource<Entry>)>;

/// Adds the functions.
pub(crate) fn add(host: &mut LinkerInstance<'_, Own>) -> wasmtime::Result<()> {
    host.func_wrap("new-text", |mut cx: Context<'_>, (text,): (String,)| {
        let bytes = text.len() as u64;
        Ok((paid(cx.data_mut(), bytes, |_| Ok(Item::Value(Value::Text(text.into()))))?,))
    })?;
    host.func_wrap("new-bytes", |mut cx: Context<'_>, (bytes,): (WasmList<u8>,)| {
        let bytes: Arc<[u8]> = bytes.as_le_slice(&cx).into();
        Ok((paid(cx.data_mut(), bytes.len() as u64, |_| Ok(Item::Bytes(bytes)))?,))
    })?;
    host.func_wrap("new-int", |mut cx: Context<'_>, (int,): (Wide,)| {
        let value = Value::Int(int.into());
        Ok((paid(cx.data_mut(), 0, |_| Ok(Item::Value(value)))?,))
    })?;
    host.func_wrap("new-real", |mut cx: Context<'_>, (real,): (f64,)| {
        Ok((paid(cx.data_mut(), 0, |_| Ok(Item::Value(Value::Real(real))))?,))
    })?;
    host.func_wrap("new-truth", |mut cx: Context<'_>, (truth,): (bool,)| {
        Ok((paid(cx.data_mut(), 0, |_| Ok(Item::Value(Value::Bool(truth))))?,))
    })?;
    host.func_wrap("new-items", |mut cx: Context<'_>, (items,): (Parts,)| {
        let list = |items: Vec<(Arc<str>, Item)>| Ok(Item::List(items.into()));
        Ok((combined(cx.data_mut(), items, |_| 0, list)?,))
    })?;
    host.func_wrap("new-fields", |mut cx: Context<'_>, (ty, fields): (String, Parts)| {
        let record = |fields| Item::record(&ty, fields);
        Ok((combined(cx.data_mut(), fields, unfolded, record)?,))
    })?;
    host.func_wrap("new-frames", |mut cx: Context<'_>, (fps,): (Option<f64>,)| {
        let frames = |own: &mut Own| {
            let ledger = own.ledger.as_ref().ok_or_else(|| Error::failed("there is no call"))?;
            Ok(Item::Growing(Arc::new(Growing::new(ledger, fps)?)))
        };
        Ok((paid(cx.data_mut(), 0, frames)?,))
    })?;
    host.func_wrap("new-tensor", |mut cx: Context<'_>, (shape,): (Shape,)| {
        let own = cx.data_mut();
        let outcome = draft(own, &shape);
        Ok((match outcome {
            Ok(entry) => Ok(own.give(entry)?),
            Err(error) => Err(said(error)),
        },))
    })
}

/// A tensor of zeros.
fn draft(own: &mut Own, shape: &Shape) -> Result<Entry> {
    if shape.dims.len() > MOST_DIMENSIONS {
        return Err(Error::failed(format!("a tensor has at most {MOST_DIMENSIONS} dimensions")));
    }
    let dims = shape.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX));
    let dims: Vec<usize> = dims.collect();
    let dtype = shape.dtype.dtype();
    let each = dtype.size_in_bytes() as u64;
    // Also where one dimension is 0, the others stay within what can be counted.
    let most = shape.dims.iter().try_fold(each, |bytes, dim| bytes.checked_mul((*dim).max(1)));
    let most = most.filter(|most| i64::try_from(*most).is_ok());
    most.ok_or_else(|| Error::failed(format!("no tensor has the shape {dims:?}")))?;
    let bytes = shape.dims.iter().product::<u64>() * each;
    let charge = own.charge(bytes)?;
    let mut entry = Entry::free(Item::Draft(Arc::new(Draft::zeros(dtype, &dims, bytes)?)));
    entry.pay(charge);
    Ok(entry)
}

/// A value that takes some bytes of the plugin's memory.
pub(crate) fn paid(
    own: &mut Own,
    bytes: u64,
    make: impl FnOnce(&mut Own) -> Result<Item>,
) -> wasmtime::Result<Said<Resource<Entry>>> {
    let charge = match own.charge(bytes) {
        Ok(charge) => charge,
        Err(error) => return Ok(Err(said(error))),
    };
    Ok(match make(own) {
        Ok(item) => {
            let mut entry = Entry::free(item);
            if bytes > 0 {
                entry.pay(charge);
            }
            Ok(own.give(entry)?)
        }
        Err(error) => Err(said(error)),
    })
}

fn combined(
    own: &mut Own,
    parts: Parts,
    more: impl Fn(&Item) -> u64,
    make: impl FnOnce(Vec<(Arc<str>, Item)>) -> Result<Item>,
) -> wasmtime::Result<Said<Resource<Entry>>> {
    Ok(match own.combine(parts, more, make)? {
        Ok(entry) => Ok(own.give(entry)?),
        Err(error) => Err(said(error)),
    })
}
