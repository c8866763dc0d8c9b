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

/// What waits, whom to wake when something does, and who writes: the last is locked for as long as
/// a reader takes, the first never.
#[derive(Default)]
struct Parts {
    state: Mutex<State>,
    woken: Condvar,
    writer: Mutex<()>,
}

type Shared = Arc<Parts>;

/// Lines on their way to a stream. A reader that went away stops nothing: a run is worth more than
/// its progress.
pub(crate) struct Gather {
    stream: Stream,
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what waits. Whoever writes takes the lines after it became the writer, so that they keep
/// their order; lines can be added meanwhile.
fn write(stream: Stream, shared: &Shared) {
    let _writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = std::mem::take(&mut lock(shared).waiting);
    if lines.is_empty() {
        return;
    }
    let written = match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        }
        Stream::Err => io::stderr().write_all(&lines),
    };
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        lock(shared).is_closed = true;
    }
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

    /// Adds lines; a reader that is slow keeps nobody here.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = lock(&self.shared);
        let before = state.waiting.len();
        state.waiting.extend_from_slice(lines);
        let is_enough = before <= ENOUGH && state.waiting.len() > ENOUGH;
        drop(state);
        if self.thread.is_none() {
            write(self.stream, &self.shared);
        } else if before == 0 || is_enough {
            self.shared.woken.notify_one();
        }
    }

    /// Whether nobody reads what is written.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.shared).is_closed
    }

    /// Writes what waits now.
    pub(crate) fn flush(&self) {
        write(self.stream, &self.shared);
    }
}

fn write_in_time(stream: Stream, shared: &Shared) {
    let mut state = lock(shared);
    while !state.is_over {
        if state.waiting.is_empty() {
            state = shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let waits = |state: &mut State| !state.is_over && state.waiting.len() <= ENOUGH;
        let waited = shared.woken.wait_timeout_while(state, PATIENCE, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        write(stream, shared);
        state = lock(shared);
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.flush();
    }
}
