//! Gathers lines, so that thousands of quick nodes do not cost a system call each; none waits long.
//! What a reader leaves unread is bounded: progress gives way to newer progress, and whoever adds
//! results waits. No run does: its events are queued before they come here.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::terminal;

/// How long a line waits at most for others.
const PATIENCE: Duration = Duration::from_millis(40);
/// As many bytes are written at once without waiting.
const ENOUGH: usize = 1 << 16;
/// With so many bytes unread, only the newest progress of each step waits.
const BEHIND: usize = 1 << 20;
/// With so many bytes unread, whoever adds more waits for the reader.
const MOST_WAITING: usize = 16 << 20;

/// Where lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    /// The output stream.
    Out,
    /// The error stream.
    Err,
}

/// Whose progress a line tells: of which run, of which step.
pub(crate) type ProgressOf = (Option<u64>, Arc<str>);

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The newest progress of each step since the reader is behind; it follows what waits.
    late: Vec<(ProgressOf, Vec<u8>)>,
    is_over: bool,
    /// Whether the reader went away.
    is_closed: bool,
}

/// What waits, whom to wake when something does, and who writes: the last is locked for as long as
/// a reader takes, the first never.
struct Parts {
    state: Mutex<State>,
    /// Something waits, or nothing will any more.
    woken: Condvar,
    /// Something was written.
    room: Condvar,
    writer: Mutex<Box<dyn Write + Send>>,
}

type Shared = Arc<Parts>;

/// Lines on their way to a stream. A reader that went away stops nothing: a run is worth more than
/// its progress.
pub(crate) struct Gather {
    shared: Shared,
    thread: Option<JoinHandle<()>>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Progress that is late comes after all that waits, and before what comes now.
    fn settle_late(&mut self) {
        for (_, line) in self.late.drain(..) {
            self.waiting.extend(line);
        }
    }
}

/// Writes what waits. Whoever writes takes the lines after it became the writer, so that they keep
/// their order; lines can be added meanwhile.
fn write(shared: &Shared) {
    let mut writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = lock(shared);
    state.settle_late();
    let lines = std::mem::take(&mut state.waiting);
    drop(state);
    if lines.is_empty() {
        return;
    }
    shared.room.notify_all();
    let written = writer.write_all(&lines).and_then(|()| writer.flush());
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        lock(shared).is_closed = true;
        shared.room.notify_all();
    }
}

impl Gather {
    /// Gathers for a stream.
    pub(crate) fn new(stream: Stream) -> Self {
        match stream {
            Stream::Out => Gather::to(terminal::lines_out()),
            Stream::Err => Gather::to(terminal::lines_err()),
        }
    }

    fn to(writer: Box<dyn Write + Send>) -> Self {
        let (state, writer) = (Mutex::default(), Mutex::new(writer));
        let shared = Arc::new(Parts { state, woken: Condvar::new(), room: Condvar::new(), writer });
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("lines".into());
        let thread = thread.spawn(move || write_in_time(&watched)).ok();
        Gather { shared, thread }
    }

    /// Adds lines; waits only for a reader that has left very much unread.
    pub(crate) fn push(&self, lines: &[u8]) {
        let mut state = lock(&self.shared);
        while state.waiting.len() >= MOST_WAITING && !state.is_closed && self.thread.is_some() {
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.settle_late();
        self.add(state, lines);
    }

    /// Adds a line of progress, which a reader that is behind may miss when newer progress of the
    /// same step comes; waits for nobody.
    pub(crate) fn push_progress(&self, of: ProgressOf, line: Vec<u8>) {
        let mut state = lock(&self.shared);
        if state.waiting.len() < BEHIND {
            return self.add(state, &line);
        }
        match state.late.iter_mut().find(|(known, _)| *known == of) {
            Some((_, late)) => *late = line,
            None => state.late.push((of, line)),
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State>, lines: &[u8]) {
        if state.is_closed {
            return;
        }
        let before = state.waiting.len();
        state.waiting.extend_from_slice(lines);
        let is_enough = before <= ENOUGH && state.waiting.len() > ENOUGH;
        drop(state);
        if self.thread.is_none() {
            write(&self.shared);
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
        write(&self.shared);
    }
}

fn write_in_time(shared: &Shared) {
    let mut state = lock(shared);
    while !state.is_over {
        if state.waiting.is_empty() && state.late.is_empty() {
            state = shared.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let waits = |state: &mut State| !state.is_over && state.waiting.len() <= ENOUGH;
        let waited = shared.woken.wait_timeout_while(state, PATIENCE, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        write(shared);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// A reader that reads nothing until it is told to, and then all.
    struct Stalled {
        go: Receiver<()>,
        read: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error once the other end is gone, which is what it waits for.
            let _ = self.go.recv();
            let _ = self.read.send(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (Gather, Sender<()>, Receiver<Vec<u8>>) {
        let ((go, gate), (read, reads)) = (mpsc::channel(), mpsc::channel());
        (Gather::to(Box::new(Stalled { go: gate, read })), go, reads)
    }

    fn lines(reads: &Receiver<Vec<u8>>) -> Vec<String> {
        let text = String::from_utf8(reads.try_iter().flatten().collect()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_stalled_reader_loses_progress_alone() {
        let (gather, go, reads) = stalled();
        let picture = "x".repeat(10_000);
        for step in 0..10_000 {
            for name in ["a", "b"] {
                let line = format!("progress {name} {step} {picture}\n");
                gather.push_progress((None, name.into()), line.into_bytes());
            }
            if step % 100 == 0 {
                gather.push(format!("result {step}\n").as_bytes());
            }
            let state = lock(&gather.shared);
            let late: usize = state.late.iter().map(|(_, line)| line.len()).sum();
            assert!(state.waiting.len() + late < 4 * BEHIND, "{}", state.waiting.len());
        }
        drop(go);
        drop(gather);
        let lines = lines(&reads);
        let results = lines.iter().filter_map(|line| line.strip_prefix("result "));
        let results: Vec<u32> = results.map(|step| step.parse().unwrap()).collect();
        assert_eq!(results, (0..100).map(|at| at * 100).collect::<Vec<_>>());
        for name in ["a", "b"] {
            let of =
                lines.iter().filter_map(|line| line.strip_prefix(&format!("progress {name} ")));
            let steps = of.map(|line| line.split(' ').next().unwrap().parse().unwrap());
            let steps: Vec<u32> = steps.collect();
            assert!(steps.is_sorted() && steps.len() < 500, "{}", steps.len());
            assert_eq!(steps.last(), Some(&9999), "the newest is told");
        }
    }

    #[test]
    fn whoever_adds_results_waits_for_a_reader_that_left_too_many() {
        let (gather, go, reads) = stalled();
        let line = [vec![b'r'; 1 << 16], vec![b'\n']].concat();
        let count = 3 * MOST_WAITING / line.len();
        std::thread::scope(|scope| {
            let adds = scope.spawn(|| (0..count).for_each(|_| gather.push(&line)));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!adds.is_finished(), "nobody has read anything");
            assert!(lock(&gather.shared).waiting.len() <= MOST_WAITING + line.len());
            drop(go);
        });
        drop(gather);
        assert_eq!(lines(&reads).len(), count, "and none is lost");
    }

    /// A reader that goes away.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_keeps_nobody() {
        let gather = Gather::to(Box::new(Gone));
        let line = vec![b'x'; 1 << 20];
        (0..100).for_each(|_| gather.push(&line));
        gather.flush();
        gather.push(&line);
        let state = lock(&gather.shared);
        assert!(state.is_closed && state.waiting.is_empty());
    }
}
