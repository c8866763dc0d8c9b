//! What a plugin asks of the engine: operations, functions on values, files, the log, progress.

use std::sync::Arc;

use kino_host::{PluginValue, storage_of};
use kino_node::{Error, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource};

use crate::constructors::charged;
use crate::queue::{Answer, Request};
use crate::store::{Backing, MemoryCharge, ResourceEntry, StoreState, held_by, size};
use crate::types::{WitResult, to_wire};

/// The longest message that is passed on.
const LONGEST: usize = 1 << 14;
/// The most values of one operation.
const MAX_VALUES: usize = 4096;

type Context<'a> = StoreContextMut<'a, StoreState>;
type Handles = Vec<Resource<ResourceEntry>>;
type Outcome<T> = wasmtime::Result<(WitResult<T>,)>;

/// Adds the functions.
pub(crate) fn add(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap_async("op", |cx: Context<'_>, args: (String, Handles, String)| {
        Box::new(op(cx, args.0, args.1, args.2))
    })?;
    host.func_wrap_async("call", |cx: Context<'_>, args: (String, Handles, String)| {
        Box::new(call(cx, args.0, args.1, args.2))
    })?;
    host.func_wrap("has", |_, (name,): (String,)| Ok((kino_host::has(&name),)))?;
    host.func_wrap_async("read-file", |cx: Context<'_>, (path,): (String,)| {
        Box::new(read_file(cx, path))
    })?;
    host.func_wrap("log", |mut cx: Context<'_>, args: (u32, String, String)| {
        let (level, target, message) = args;
        log(cx.data_mut(), level, target, message);
        Ok(())
    })?;
    host.func_wrap("progress", |cx: Context<'_>, (step, of): (u32, u32)| {
        cx.data().queue.progress(step.into(), of.into());
        Ok(())
    })?;
    host.func_wrap("cancelled", |cx: Context<'_>, ()| Ok((cx.data().cancel.is_cancelled(),)))?;
    host.func_wrap("wants", |cx: Context<'_>, (output,): (u32,)| {
        Ok((cx.data().wanted.get(output as usize).copied().unwrap_or(false),))
    })
}

/// Passes a message on; those of errors are kept to explain a trap.
pub(crate) fn log(state: &mut StoreState, level: u32, mut target: String, mut message: String) {
    for text in [&mut target, &mut message] {
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
    }
    if level <= 1 {
        state.said.add(&message);
    }
    state.queue.log(level, target, message);
}

fn too_many(name: &str, found: usize) -> Error {
    let what = format!("op {name}: at most {MAX_VALUES} values, found {found}");
    Error::coded(kino_host::code::LIMIT, what)
}

async fn op(
    mut cx: Context<'_>,
    name: String,
    handles: Handles,
    attributes: String,
) -> Outcome<Resource<ResourceEntry>> {
    if handles.len() > MAX_VALUES {
        return Ok((Err(to_wire(too_many(&name, handles.len()))),));
    }
    let state = cx.data();
    let mut tensors = Vec::with_capacity(handles.len());
    let mut backings = Vec::with_capacity(handles.len());
    for handle in &handles {
        let entry = state.entry(handle.rep())?;
        match entry.item.tensor() {
            Ok(tensor) => {
                backings.push((storage_of(&tensor).0, entry.backing()));
                tensors.push(tensor);
            }
            Err(error) => return Ok((Err(to_wire(error)),)),
        }
    }
    let (queue, most) = (state.queue.clone(), state.left());
    let answer = queue.ask(Request::Op { name, tensors, attributes, most }).await;
    Ok((match answer {
        Answer::Tensor(Ok(tensor)) => {
            // A view keeps the memory of what it views, which was paid for then.
            let place = storage_of(&tensor).0;
            let viewed = backings.into_iter().find(|(of, _)| *of == place);
            let bytes = if viewed.is_some() { 0 } else { size(&tensor) };
            let backing = viewed.map(|(_, backing)| backing).unwrap_or_default();
            let made =
                charged(cx.data_mut(), bytes, |_| Ok(PluginValue::Value(Value::Tensor(tensor))))?;
            if let Ok(handle) = &made {
                cx.data_mut().entry_mut(handle.rep())?.share(backing);
            }
            made
        }
        Answer::Tensor(Err(error)) => Err(to_wire(error)),
        _ => Err(to_wire(unanswered())),
    },))
}

async fn call(
    mut cx: Context<'_>,
    name: String,
    handles: Handles,
    attributes: String,
) -> Outcome<Handles> {
    if handles.len() > MAX_VALUES {
        return Ok((Err(to_wire(too_many(&name, handles.len()))),));
    }
    let state = cx.data();
    let mut values = Vec::with_capacity(handles.len());
    let mut backings = Vec::with_capacity(handles.len());
    for handle in &handles {
        let entry = state.entry(handle.rep())?;
        let mut places = Vec::new();
        held_by(&entry.item, &mut |place, _| places.push(place));
        backings.push((places, entry.backing()));
        values.push(entry.item.clone());
    }
    let (queue, most) = (state.queue.clone(), state.left());
    let answer = queue.ask(Request::Call { name, values, attributes, most }).await;
    let made = match answer {
        Answer::Values(Ok(made)) => made,
        Answer::Values(Err(error)) => return Ok((Err(to_wire(error)),)),
        _ => return Ok((Err(to_wire(unanswered())),)),
    };
    let state = cx.data_mut();
    let entries = made.into_iter().map(|item| result_of_call(state, item, &backings));
    let entries = match entries.collect::<kino_node::Result<Vec<_>>>() {
        Ok(entries) => entries,
        Err(error) => return Ok((Err(to_wire(error)),)),
    };
    let mut results = Vec::with_capacity(entries.len());
    for entry in entries {
        results.push(state.give(entry)?);
    }
    Ok((Ok(results),))
}

/// A result of a function, with what pays for its memory: what lies in the memory of what went in
/// was paid for then.
fn result_of_call(
    state: &StoreState,
    item: PluginValue,
    backings: &[(Vec<usize>, Backing)],
) -> kino_node::Result<ResourceEntry> {
    let (mut bytes, mut shared) = (0u64, Vec::new());
    held_by(&item, &mut |place, size| match backings
        .iter()
        .position(|(places, _)| places.contains(&place))
    {
        Some(at) if shared.contains(&at) => {}
        Some(at) => shared.push(at),
        None => bytes = bytes.saturating_add(size),
    });
    let charge: MemoryCharge = state.charge(bytes)?;
    let mut entry = state.entry_of(item)?;
    if bytes > 0 {
        entry.pay(charge);
    }
    shared.into_iter().for_each(|at| entry.share(backings[at].1.clone()));
    Ok(entry)
}

async fn read_file(mut cx: Context<'_>, path: String) -> Outcome<Resource<ResourceEntry>> {
    let queue = cx.data().queue.clone();
    Ok((match queue.ask(Request::Read(path)).await {
        Answer::Bytes(Ok(bytes)) => {
            let bytes: Arc<[u8]> = bytes.into();
            charged(cx.data_mut(), bytes.len() as u64, |_| Ok(PluginValue::Bytes(bytes)))?
        }
        Answer::Bytes(Err(error)) => Err(to_wire(error)),
        _ => Err(to_wire(unanswered())),
    },))
}

fn unanswered() -> Error {
    Error::failed("the engine did not answer")
}
