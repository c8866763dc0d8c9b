//! The little of WASI 0.2 that plugins get: standard output becomes log messages, there is a
//! monotonic clock, random numbers are the same in every run, the wall clock stands still, and
//! there are neither arguments, environment nor folders. Everything else ends the plugin when it is
//! called.

use std::time::Duration;

use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{AsContextMut, StoreContextMut};

use crate::queue::Request;
use crate::requests::log;
use crate::stop::Stop;
use crate::store::StoreState;

/// The longest line before it is passed on in pieces.
const LONGEST_LINE: usize = 1 << 14;
/// The most random bytes at once.
const MAX_RANDOM: u64 = 1 << 20;
/// What the wall clock shows: the start of 2000, in seconds since 1970.
const EPOCH: u64 = 946_684_800;

/// A resource as a component asks for it.
pub(crate) type WantedType = ResourceType;

type Context<'a> = StoreContextMut<'a, StoreState>;
type Outcome<T> = wasmtime::Result<(T,)>;

/// The handles, which only differ in their type. The representation of an output is its level in
/// the log; that of a pollable is the time at which it is ready, in milliseconds.
struct Output;
struct Input;
struct Pollable;
struct Trouble;
struct Terminal;
struct Folder;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    Failed(Resource<Trouble>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// Adds one interface of WASI as a component imports it: what is known works, the rest ends the
/// plugin when it is called.
///
/// A type is told by what it is, not by what it is called: `seen` are the resources of the
/// interfaces before, and another name of one of them (`wasi:http` calls its fields headers and
/// trailers) is that one.
pub(crate) fn add(
    linker: &mut Linker<StoreState>,
    engine: &wasmtime::Engine,
    name: &str,
    wanted: &ComponentInstance,
    seen: &mut Vec<WantedType>,
) -> wasmtime::Result<()> {
    let interface = name.split('@').next().unwrap_or(name).to_owned();
    let mut instance = linker.instance(name)?;
    for (function, item) in wanted.exports(engine) {
        match item.ty {
            ComponentItem::Resource(ty) if seen.contains(&ty) => {}
            ComponentItem::Resource(ty) => {
                let resource = resource(&interface, function, seen.len());
                instance.resource(function, resource, |_, _| Ok(()))?;
                seen.push(ty);
            }
            ComponentItem::ComponentFunc(_) => {
                let is_known = known(&mut instance, &interface, function)?;
                if is_known {
                    continue;
                }
                let called = format!("{interface}#{function}");
                instance.func_new(function, move |_, _, _, _| {
                    Err(Stop::Forbidden(called.clone()).into())
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The type of a resource that is the `number`th of a component.
fn resource(interface: &str, name: &str, number: usize) -> ResourceType {
    match (interface, name) {
        ("wasi:io/streams", "output-stream") => ResourceType::host::<Output>(),
        ("wasi:io/streams", "input-stream") => ResourceType::host::<Input>(),
        ("wasi:io/poll", "pollable") => ResourceType::host::<Pollable>(),
        ("wasi:io/error", "error") => ResourceType::host::<Trouble>(),
        ("wasi:cli/terminal-input", "terminal-input")
        | ("wasi:cli/terminal-output", "terminal-output") => ResourceType::host::<Terminal>(),
        ("wasi:filesystem/types", "descriptor") => ResourceType::host::<Folder>(),
        // Never made: only functions that end the plugin take or give these.
        _ => ResourceType::host_dynamic(number as u32),
    }
}

/// Defines a function, if it is one that plugins may call.
fn known(
    to: &mut LinkerInstance<'_, StoreState>,
    interface: &str,
    name: &str,
) -> wasmtime::Result<bool> {
    match interface {
        "wasi:cli/environment"
        | "wasi:cli/exit"
        | "wasi:cli/stdin"
        | "wasi:cli/stdout"
        | "wasi:cli/stderr"
        | "wasi:cli/terminal-stdin"
        | "wasi:cli/terminal-stdout"
        | "wasi:cli/terminal-stderr"
        | "wasi:filesystem/preopens" => surroundings(to, name),
        "wasi:io/streams" => streams(to, name),
        "wasi:io/poll" => poll(to, name),
        "wasi:clocks/monotonic-clock" => monotonic(to, name),
        "wasi:clocks/wall-clock" => wall(to, name),
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            random(to, name)
        }
        _ => Ok(false),
    }
}

fn surroundings(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-environment" => {
            to.func_wrap(name, |_, ()| Ok((Vec::<(String, String)>::new(),)))?;
        }
        "get-arguments" => to.func_wrap(name, |_, ()| Ok((Vec::<String>::new(),)))?,
        "initial-cwd" => to.func_wrap(name, |_, ()| Ok((None::<String>,)))?,
        "get-directories" => {
            to.func_wrap(name, |_, ()| Ok((Vec::<(Resource<Folder>, String)>::new(),)))?;
        }
        "get-stdin" => to.func_wrap(name, |_, ()| Ok((Resource::<Input>::new_own(0),)))?,
        "get-stdout" => to.func_wrap(name, |_, ()| Ok((Resource::<Output>::new_own(3),)))?,
        "get-stderr" => to.func_wrap(name, |_, ()| Ok((Resource::<Output>::new_own(2),)))?,
        "get-terminal-stdin" | "get-terminal-stdout" | "get-terminal-stderr" => {
            to.func_wrap(name, |_, ()| Ok((None::<Resource<Terminal>>,)))?;
        }
        "exit" => to.func_wrap(name, |_, (_,): (Result<(), ()>,)| {
            Err::<(), wasmtime::Error>(Stop::Exit.into())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn streams(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]output-stream.check-write" => {
            to.func_wrap(name, |_, (_,): (Resource<Output>,)| {
                Ok((Ok::<u64, StreamError>(1 << 16),))
            })?;
        }
        "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush" => {
            to.func_wrap(name, |mut cx: Context<'_>, args: (Resource<Output>, Vec<u8>)| {
                print(cx.data_mut(), args.0.rep(), &args.1);
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "[method]output-stream.flush" | "[method]output-stream.blocking-flush" => {
            to.func_wrap(name, |_, (_,): (Resource<Output>,)| Ok((Ok::<(), StreamError>(()),)))?;
        }
        "[method]output-stream.subscribe" => {
            to.func_wrap(name, |_, (_,): (Resource<Output>,)| {
                Ok((Resource::<Pollable>::new_own(0),))
            })?;
        }
        "[method]input-stream.subscribe" => {
            to.func_wrap(name, |_, (_,): (Resource<Input>,)| {
                Ok((Resource::<Pollable>::new_own(0),))
            })?;
        }
        "[method]input-stream.read" | "[method]input-stream.blocking-read" => {
            to.func_wrap(name, |_, (_, _): (Resource<Input>, u64)| {
                Ok((Err::<Vec<u8>, StreamError>(StreamError::Closed),))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Passes on the lines that are complete.
fn print(state: &mut StoreState, level: u32, bytes: &[u8]) {
    let at = usize::from(level == 2);
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = &mut state.wasi.lines[at];
        line.extend_from_slice(&piece[..piece.len().min(LONGEST_LINE)]);
        if !piece.ends_with(b"\n") && line.len() < LONGEST_LINE {
            continue;
        }
        let text = String::from_utf8_lossy(&std::mem::take(line)).trim_end().to_owned();
        if !text.is_empty() {
            pass_on(state, level, text);
        }
    }
}

/// Passes a line on; one of standard error is kept to explain a trap.
fn pass_on(state: &mut StoreState, level: u32, text: String) {
    if level == 2 {
        state.said.add(&text);
    }
    log(state, level, if level == 2 { "stderr" } else { "stdout" }.to_owned(), text);
}

/// Passes on what was printed and ends with no line break: nothing will follow it.
pub(crate) fn flush(state: &mut StoreState) {
    for level in [3, 2] {
        let line = std::mem::take(&mut state.wasi.lines[usize::from(level == 2)]);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            pass_on(state, level, text);
        }
    }
}

/// The pollable of a time after the start, in milliseconds, rounded up.
fn pollable(nanoseconds: u64) -> Resource<Pollable> {
    let milliseconds = nanoseconds.div_ceil(1_000_000);
    Resource::new_own(u32::try_from(milliseconds).unwrap_or(u32::MAX))
}

fn ready(state: &StoreState, pollable: &Resource<Pollable>) -> bool {
    state.wasi.now() / 1_000_000 >= u64::from(pollable.rep())
}

async fn sleep(cx: Context<'_>, milliseconds: u32) {
    let state = cx.data();
    let until = state.wasi.started + Duration::from_millis(milliseconds.into());
    state.queue.clone().ask(Request::Sleep(until)).await;
}

async fn sleep_for_any(mut cx: Context<'_>, all: Vec<Resource<Pollable>>) -> Outcome<Vec<u32>> {
    let Some(first) = all.iter().map(Resource::rep).min() else {
        return Err(Stop::Forbidden("wasi:io/poll#poll of nothing".to_owned()).into());
    };
    if !all.iter().any(|pollable| ready(cx.data(), pollable)) {
        sleep(cx.as_context_mut(), first).await;
    }
    let ready = |(_, pollable): &(u32, &Resource<Pollable>)| ready(cx.data(), pollable);
    Ok(((0..).zip(&all).filter(ready).map(|(at, _)| at).collect(),))
}

fn poll(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "[method]pollable.ready" => {
            to.func_wrap(name, |cx: Context<'_>, (one,): (Resource<Pollable>,)| {
                Ok((ready(cx.data(), &one),))
            })?;
        }
        "[method]pollable.block" => {
            to.func_wrap_async(name, |cx: Context<'_>, (one,): (Resource<Pollable>,)| {
                Box::new(async move {
                    sleep(cx, one.rep()).await;
                    Ok(())
                })
            })?;
        }
        "poll" => {
            to.func_wrap_async(name, |cx: Context<'_>, (all,): (Vec<Resource<Pollable>>,)| {
                Box::new(sleep_for_any(cx, all))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn monotonic(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "now" => to.func_wrap(name, |cx: Context<'_>, ()| Ok((cx.data().wasi.now(),)))?,
        "resolution" => to.func_wrap(name, |_, ()| Ok((1u64,)))?,
        "subscribe-instant" => to.func_wrap(name, |_, (at,): (u64,)| Ok((pollable(at),)))?,
        "subscribe-duration" => to.func_wrap(name, |cx: Context<'_>, (time,): (u64,)| {
            Ok((pollable(cx.data().wasi.now().saturating_add(time)),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn wall(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    let seconds = match name {
        "now" => EPOCH,
        "resolution" => 1,
        _ => return Ok(false),
    };
    to.func_wrap(name, move |_, ()| Ok((Datetime { seconds, nanoseconds: 0 },)))?;
    Ok(true)
}

fn random(to: &mut LinkerInstance<'_, StoreState>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            to.func_wrap(name, |mut cx: Context<'_>, (count,): (u64,)| {
                if count > MAX_RANDOM {
                    let what = format!("wasi:random for {count} bytes at once");
                    return Err(Stop::Forbidden(what).into());
                }
                let wasi = &mut cx.data_mut().wasi;
                Ok(((0..count).map(|_| wasi.draw() as u8).collect::<Vec<u8>>(),))
            })?;
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            to.func_wrap(name, |mut cx: Context<'_>, ()| Ok((cx.data_mut().wasi.draw(),)))?;
        }
        "insecure-seed" => to.func_wrap(name, |mut cx: Context<'_>, ()| {
            let wasi = &mut cx.data_mut().wasi;
            Ok(((wasi.draw(), wasi.draw()),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}
