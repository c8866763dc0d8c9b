//! What a plugin asks of the engine: operations, files, the log, progress.

use kino_host::{PluginValue, storage_of};
use kino_node::{Error, Value};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource};

use crate::constructors::charged;
use crate::queue::{Answer, Request};
use crate::store::{ResourceEntry, StoreState, size};
use crate::types::{WitResult, to_wire};

/// The longest message that is passed on.
const LONGEST: usize = 1 << 14;
/// The most tensors of one operation.
const MAX_TENSORS: usize = 4096;

type Context<'a> = StoreContextMut<'a, StoreState>;
type Outcome = wasmtime::Result<(WitResult<Resource<ResourceEntry>>,)>;

/// Adds the functions.
pub(crate) fn add(host: &mut LinkerInstance<'_, StoreState>) -> wasmtime::Result<()> {
    host.func_wrap_async(
        "op",
        |cx: Context<'_>, args: (String, Vec<Resource<ResourceEntry>>, String)| {
            Box::new(op(cx, args.0, args.1, args.2))
        },
    )?;
    host.func_wrap_async("read-file", |cx: Context<'_>, (path,): (String,)| {
        Box::new(read_file(cx, path))
    })?;
    host.func_wrap("log", |mut cx: Context<'_>, args: (u32, String, String)| {
        let (level, target, message) = args;
        log(cx.data_mut(), level, target, message);
        Ok(())
    })?;
    host.func_wrap("progress", |cx: Context<'_>, (step, of): (u64, u64)| {
        cx.data().queue.progress(step, of);
        Ok(())
    })?;
    host.func_wrap("cancelled", |cx: Context<'_>, ()| Ok((cx.data().cancel.is_cancelled(),)))?;
    host.func_wrap("wants", |cx: Context<'_>, (output,): (u32,)| {
        Ok((cx.data().wanted.get(output as usize).copied().unwrap_or(false),))
    })
}

/// Passes a message on; the last one of an error is kept to explain a trap.
pub(crate) fn log(state: &mut StoreState, level: u32, mut target: String, mut message: String) {
    for text in [&mut target, &mut message] {
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
    }
    if level <= 1 {
        state.last_error = Some(message.clone());
    }
    state.queue.log(level, target, message);
}

async fn op(
    mut cx: Context<'_>,
    name: String,
    handles: Vec<Resource<ResourceEntry>>,
    attributes: String,
) -> Outcome {
    if handles.len() > MAX_TENSORS {
        let found = handles.len();
        return Ok((Err(format!("op {name}: at most {MAX_TENSORS} tensors, found {found}")),));
    }
    let state = cx.data();
    let mut tensors = Vec::with_capacity(handles.len());
    let mut backings = Vec::with_capacity(handles.len());
    for handle in &handles {
        let entry = state.entry(handle)?;
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
                cx.data_mut().entry_mut(handle)?.share(backing);
            }
            made
        }
        Answer::Tensor(Err(error)) => Err(to_wire(error)),
        _ => Err(to_wire(unanswered())),
    },))
}

async fn read_file(mut cx: Context<'_>, path: String) -> Outcome {
    let queue = cx.data().queue.clone();
    Ok((match queue.ask(Request::Read(path)).await {
        Answer::Bytes(Ok(bytes)) => {
            charged(cx.data_mut(), bytes.len() as u64, |_| Ok(PluginValue::Bytes(bytes.into())))?
        }
        Answer::Bytes(Err(error)) => Err(to_wire(error)),
        _ => Err(to_wire(unanswered())),
    },))
}

fn unanswered() -> Error {
    Error::failed("the engine did not answer")
}
