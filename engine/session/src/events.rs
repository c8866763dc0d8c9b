//! The stream of events of runs. Whoever listens is called on a thread of its own, so that a slow
//! listener stops nobody: while it is behind, progress is lost, and nothing else.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use kino_node::RunId;
use kino_runtime::Event;
use serde::Serialize;

/// Behind by so many events, a listener gets the newest progress of each step alone.
const BEHIND: usize = 256;

/// So long after some events a listener is left alone, and hears all that came meanwhile together:
/// to wake it costs more than most steps of a run.
const PAUSE: Duration = Duration::from_micros(500);

/// Something that happened in a run.
#[derive(Clone, Debug, Serialize)]
pub struct RunEvent {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// In which run.
    #[serde(serialize_with = "number")]
    pub run: RunId,
}

impl RunEvent {
    /// The picture of a result in the making that it brings, as a PNG file.
    pub fn preview_png(&self) -> Option<Vec<u8>> {
        let Event::Progress { preview: Some(preview), .. } = &self.event else { return None };
        let encode = || {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, preview.width, preview.height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.write_header()?.write_image_data(&preview.rgb)?;
            Ok::<_, png::EncodingError>(bytes)
        };
        encode().inspect_err(|error| tracing::debug!(%error, "There is no preview.")).ok()
    }
}

fn number<S: serde::Serializer>(run: &RunId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(run.0)
}

/// Something that can be queued for a listener.
pub(crate) trait Queued: Send + 'static {
    /// The event of a run, where it is one.
    fn of_run(&mut self) -> Option<&mut RunEvent>;
}

impl Queued for RunEvent {
    fn of_run(&mut self) -> Option<&mut RunEvent> {
        Some(self)
    }
}

struct State<T> {
    waiting: VecDeque<T>,
    is_over: bool,
    /// The listener waits for an event, and has to be woken.
    sleeps: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events on their way to a listener.
pub(crate) struct EventQueue<T> {
    shared: Arc<Shared<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Queued> EventQueue<T> {
    /// Starts a listener.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(listener: impl FnMut(T) + Send + 'static) -> std::io::Result<Self> {
        let state = Mutex::new(State { waiting: VecDeque::new(), is_over: false, sleeps: false });
        let shared = Arc::new(Shared { state, wake: Condvar::new() });
        let heard = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("events".into());
        let thread = thread.spawn(move || listen(&heard, listener))?;
        Ok(EventQueue { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Adds an event; never waits for the listener.
    pub(crate) fn push(&self, mut event: T) {
        let mut state = self.shared.state();
        if state.waiting.len() >= BEHIND && replaces(&mut state.waiting, &mut event) {
            return;
        }
        state.waiting.push_back(event);
        if std::mem::take(&mut state.sleeps) {
            self.shared.wake.notify_one();
        }
    }

    /// How many events the listener has not begun to hear.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.state().waiting.len()
    }

    /// The thread on which the listener is called, until it has heard all.
    pub(crate) fn thread(&self) -> Option<ThreadId> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().map(|thread| thread.thread().id())
    }

    /// Waits until the listener has heard all.
    pub(crate) fn finish(&self) {
        self.shared.state().is_over = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<T> Drop for EventQueue<T> {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.wake.notify_one();
    }
}

/// Puts progress in the place of older progress of the same step that waits still.
fn replaces<T: Queued>(waiting: &mut VecDeque<T>, event: &mut T) -> bool {
    let Some(new) = event.of_run() else { return false };
    let Event::Progress { name, .. } = &new.event else { return false };
    let name = Arc::clone(name);
    for before in waiting.iter_mut().rev().take(2 * BEHIND) {
        let Some(before) = before.of_run().filter(|before| before.run == new.run) else { continue };
        let Event::Progress { name: known, preview: old, .. } = &mut before.event else { continue };
        if *known != name {
            continue;
        }
        // The newest picture is kept although a step without one followed.
        if let Event::Progress { preview, .. } = &mut new.event
            && preview.is_none()
        {
            *preview = old.take();
        }
        std::mem::swap(before, new);
        return true;
    }
    false
}

fn listen<T>(shared: &Shared<T>, mut listener: impl FnMut(T)) {
    let mut is_muted = false;
    loop {
        let mut state = shared.state();
        while state.waiting.is_empty() && !state.is_over {
            state.sleeps = true;
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.waiting.is_empty() {
            return;
        }
        let events = std::mem::take(&mut state.waiting);
        drop(state);
        for event in events {
            if is_muted {
                continue;
            }
            if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
                is_muted = true;
                tracing::error!("The listener panicked; further events are lost.");
            }
        }
        let pause = |state: &mut State<T>| !state.is_over;
        let _ = shared.wake.wait_timeout_while(shared.state(), PAUSE, pause);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn progress(name: &str, step: u64) -> RunEvent {
        let (name, seconds_left, preview) = (name.into(), None, None);
        let event = Event::Progress { name, step, of: 100_000, seconds_left, preview };
        RunEvent { event, run: RunId(1) }
    }

    fn started(name: &str) -> RunEvent {
        RunEvent { event: Event::Started { name: name.into(), op: "x".into() }, run: RunId(1) }
    }

    #[test]
    fn a_slow_listener_loses_progress_alone_and_stops_nobody() {
        let (go, gate) = mpsc::channel::<()>();
        let (heard, hears) = mpsc::channel();
        let queue = EventQueue::start(move |event: RunEvent| {
            let _ = gate.recv();
            let _ = heard.send(event);
        })
        .unwrap();
        for at in 0..1000 {
            queue.push(started(&at.to_string()));
            for step in 0..100 {
                queue.push(progress("slow", at * 100 + step));
            }
        }
        assert!(queue.shared.state().waiting.len() < 3000);
        drop(go);
        queue.finish();
        let all: Vec<RunEvent> = hears.try_iter().collect();
        let begun = all.iter().filter(|one| matches!(one.event, Event::Started { .. }));
        assert_eq!(begun.count(), 1000);
        let steps: Vec<u64> = all
            .iter()
            .filter_map(|one| match one.event {
                Event::Progress { step, .. } => Some(step),
                _ => None,
            })
            .collect();
        assert_eq!(steps.last(), Some(&99_999), "the newest is told");
        assert!(steps.is_sorted() && steps.len() < 3000);
    }
}
