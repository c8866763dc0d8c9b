//! Gathers lines, so that thousands of quick nodes do not cost a system call each; none waits long.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a line waits at most for others.
const PATIENCE: Duration = Duration::from_millis(40);
/// As many bytes are written at once without waiting.
const ENOUGH: usize = 1 << 16;

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// The output stream.
    Out,
    /// The error stream.
    Err,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_over: bool,
    /// Whether the reader went away.
    is_closed: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Lines on their way to a stream. A reader that went away stops nothing: a run is worth more than
/// its progress.
pub(crate) struct Gather {
    stream: Stream,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what waits; the lock is held, so that lines keep their order.
fn write(stream: Stream, state: &mut State) {
    if state.waiting.is_empty() {
        return;
    }
    let written = match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(&state.waiting).and_then(|()| out.flush())
        }
        Stream::Err => io::stderr().write_all(&state.waiting),
    };
    state.is_closed |= written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    state.waiting.clear();
}

impl Gather {
    /// Gathers for a stream.
    pub(crate) fn new(stream: Stream) -> Self {
        let shared = Shared::default();
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("lines".into());
        let thread = thread.spawn(move || write_in_time(stream, &watched)).ok();
        Gather { stream, shared, thread }
    }

    /// Adds lines.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = lock(&self.shared);
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(lines);
        if state.waiting.len() > ENOUGH || self.thread.is_none() {
            write(self.stream, &mut state);
        } else if is_first {
            self.shared.1.notify_one();
        }
    }

    /// Whether nobody reads what is written.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.shared).is_closed
    }

    /// Writes what waits now.
    pub(crate) fn flush(&self) {
        write(self.stream, &mut lock(&self.shared));
    }
}

fn write_in_time(stream: Stream, shared: &Shared) {
    let mut state = lock(shared);
    while !state.is_over {
        if state.waiting.is_empty() {
            state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let waited = shared.1.wait_timeout_while(state, PATIENCE, |state| !state.is_over);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        write(stream, &mut state);
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.flush();
    }
}
