//! What a plugin wants of the engine while it runs. It runs on a stack of its own, as a coroutine:
//! what needs the engine's call is asked for here and done on the engine's stack.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use kino_host::{CallCx, PluginValue, calls, ops};
use kino_node::{Error, Result};

use crate::stop::Stop;

/// Messages that wait to be passed on; more than these are dropped.
const MAX_EVENTS: usize = 4096;
/// How long a sleeping plugin is left alone.
const NAP: Duration = Duration::from_millis(5);

/// Something to be done before the plugin goes on.
pub(crate) enum Request {
    /// One operation on tensors, with the most bytes that the result may take.
    Op { name: String, tensors: Vec<Tensor>, attributes: String, most: u64 },
    /// One function on values, with the most bytes that a result may take.
    Call { name: String, values: Vec<PluginValue>, attributes: String, most: u64 },
    /// A file's contents.
    Read(String),
    /// Nothing before that time.
    Sleep(Instant),
}

/// What came of a request.
pub(crate) enum Answer {
    Tensor(Result<Tensor>),
    Values(Result<Vec<PluginValue>>),
    Bytes(Result<Vec<u8>>),
    Awake,
}

/// Something that the plugin tells.
enum HostEvent {
    Log { level: u32, target: String, message: String },
    Progress { step: u64, of: u64 },
}

#[derive(Default)]
enum RequestSlot {
    #[default]
    Empty,
    Asked(Request),
    Answered(Answer),
}

#[derive(Default)]
struct State {
    slot: RequestSlot,
    events: VecDeque<HostEvent>,
    dropped: usize,
}

/// The mailbox between a plugin and the engine.
#[derive(Clone, Default)]
pub(crate) struct HostQueue(Arc<Mutex<State>>);

impl HostQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a request and waits for what comes of it.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        self.lock().slot = RequestSlot::Asked(request);
        std::future::poll_fn(|_| {
            let mut state = self.lock();
            match std::mem::take(&mut state.slot) {
                RequestSlot::Answered(answer) => Poll::Ready(answer),
                other => {
                    state.slot = other;
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn event(&self, event: HostEvent) {
        let mut state = self.lock();
        match state.events.len() < MAX_EVENTS {
            true => state.events.push_back(event),
            false => state.dropped += 1,
        }
    }

    /// Leaves a message for the log.
    pub(crate) fn log(&self, level: u32, target: String, message: String) {
        self.event(HostEvent::Log { level, target, message });
    }

    /// Leaves how far the plugin is.
    pub(crate) fn progress(&self, step: u64, of: u64) {
        self.event(HostEvent::Progress { step, of });
    }

    /// Passes on what the plugin told.
    pub(crate) fn deliver(&self, call: &CallCx<'_>) {
        let (events, dropped) = {
            let mut state = self.lock();
            if state.events.is_empty() {
                return;
            }
            (std::mem::take(&mut state.events), std::mem::take(&mut state.dropped))
        };
        for event in events {
            match event {
                HostEvent::Log { level, target, message } => call.log(level, &target, &message),
                HostEvent::Progress { step, of } => call.progress(step, of),
            }
        }
        if dropped > 0 {
            call.log(2, "kino", &format!("{dropped} more messages were dropped"));
        }
    }

    /// Does what the plugin waits for; a sleep that is not over stays.
    fn serve(&self, call: &CallCx<'_>, stop: &dyn Fn() -> Option<Stop>) {
        let slot = std::mem::take(&mut self.lock().slot);
        let RequestSlot::Asked(request) = slot else {
            self.lock().slot = slot;
            return;
        };
        let slot = match request {
            Request::Op { name, tensors, attributes, most } => {
                let made = guarded(&name, stop, |check| {
                    let limits = ops::OpLimits { most, check };
                    ops::apply_within(&name, &tensors, &attributes, &limits)
                });
                RequestSlot::Answered(Answer::Tensor(made))
            }
            Request::Call { name, values, attributes, most } => {
                let made = guarded(&name, stop, |check| {
                    let limits = ops::OpLimits { most, check };
                    calls::call(&name, &values, &attributes, &limits, Some(call.ledger))
                });
                RequestSlot::Answered(Answer::Values(made))
            }
            Request::Read(path) => RequestSlot::Answered(Answer::Bytes(call.files.read(&path))),
            Request::Sleep(until) => {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(NAP));
                match left > NAP {
                    true => RequestSlot::Asked(Request::Sleep(until)),
                    false => RequestSlot::Answered(Answer::Awake),
                }
            }
        };
        self.lock().slot = slot;
    }
}

/// One operation; a panic within it is an error like any other. `work` gets what to ask between
/// pieces of it.
fn guarded<T>(
    name: &str,
    stop: &dyn Fn() -> Option<Stop>,
    work: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<T>,
) -> Result<T> {
    // Why it stops is told by `drive`, before the plugin goes on.
    let check = || stop().map_or(Ok(()), |_| Err(Error::Cancelled));
    let apply = || work(&check);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply)).unwrap_or_else(|_| {
        Err(Error::failed(format!(
            "op {name}: the host panicked; this is a bug of Kinograph, please report it"
        )))
    })
}

/// Lets a plugin run to its end, with all that it asks for on the way. It yields at every tick of
/// the engine's clock, and is stopped there if the run was cancelled or its time is over.
pub(crate) fn drive<T>(
    queue: &HostQueue,
    call: &CallCx<'_>,
    future: impl Future<Output = wasmtime::Result<T>>,
) -> Result<wasmtime::Result<T>, Stop> {
    let limit = call.limits.time;
    let until = Instant::now().checked_add(limit);
    let stop = || {
        if call.cancel.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        until.is_some_and(|until| Instant::now() >= until).then_some(Stop::Time(limit))
    };
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let polled = future.as_mut().poll(&mut context);
        queue.deliver(call);
        if let Poll::Ready(outcome) = polled {
            return Ok(outcome);
        }
        if let Some(stop) = stop() {
            return Err(stop);
        }
        queue.serve(call, &stop);
        if let Some(stop) = stop() {
            return Err(stop);
        }
    }
}
