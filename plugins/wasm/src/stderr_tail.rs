//! What a plugin said of errors in the call that ended it: a panic's message, a traceback.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES: usize = 20;
/// Bytes that are kept.
const BYTES: usize = 2048;

/// How lines begin that a runtime says of every end, whatever the cause.
const NOTES: &[&str] = &[
    "note: run with `RUST_BACKTRACE",
    "Redirecting call to abort() to",
    "thread '",
    "Stack:",
    "Python function threw an unexpected exception",
    "wasm trap:",
];

/// How the report of a panic begins; its message is the next line.
const PANIC: &str = "panicked at ";

/// The last lines that were said of errors.
#[derive(Default)]
pub(crate) struct StderrTail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl StderrTail {
    /// Nothing was said yet.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.bytes = 0;
    }

    /// Keeps the lines of a message; of many, the last ones.
    pub(crate) fn add(&mut self, message: &str) {
        for line in message.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let line = &line[..line.floor_char_boundary(BYTES)];
            self.bytes += line.len();
            self.lines.push_back(line.to_owned());
            while self.lines.len() > LINES || self.bytes > BYTES {
                self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            }
        }
    }

    /// What went wrong, then what was said beside it, a line each; none where nothing was said.
    pub(crate) fn told(&self) -> Option<String> {
        let is_note = |line: &str| NOTES.iter().any(|note| line.trim_start().starts_with(note));
        let lines = self.lines.iter().map(String::as_str).filter(|line| !is_note(line));
        let lines: Vec<&str> = lines.collect();
        let after = |(at, line): (usize, &&str)| line.starts_with(PANIC).then_some(at + 1);
        let head = lines.iter().enumerate().rev().find_map(after).filter(|at| *at < lines.len());
        let is_text = |line: &&str| !line.starts_with([' ', '\t']);
        let head =
            head.or_else(|| lines.iter().rposition(is_text)).or(lines.len().checked_sub(1))?;
        let mut told = lines[head].trim().to_owned();
        for (_, line) in lines.iter().enumerate().filter(|(at, _)| *at != head) {
            told.push_str("\n  ");
            told.push_str(line);
        }
        Some(told)
    }
}
