//! What several tests of this crate need.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that can be started at once.
///
/// Another process writes it: while this one has it open for writing, a test that starts a program
/// on another thread hands that on for a moment, and starting the script fails ("text file busy").
pub(crate) fn write_program(path: &Path, script: &str) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut writes = command.spawn().unwrap();
    writes.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writes.wait().unwrap().success(), "{} is not written", path.display());
}
