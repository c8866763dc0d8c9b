//! `kino watch --json` as a program sees it.

#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;

use crate::common::Place;

/// Nothing that is waited for takes so long, however busy the machine is.
const FOR_EVER: Duration = Duration::from_secs(120);

/// A watch under way; it is killed when dropped.
pub(crate) struct Watching {
    child: Child,
    lines: Receiver<Value>,
    /// All that it said so far.
    pub(crate) seen: Vec<Value>,
    /// What it said until it waited for the first change.
    pub(crate) first: Vec<Value>,
}

impl Watching {
    /// Starts a watch and waits until it has nothing left to do.
    #[track_caller]
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        Watching::start_with(place, args, |_| {})
    }

    /// The same, with the command changed before.
    #[track_caller]
    pub(crate) fn start_with(
        place: &Place,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut watch = Watching::begin_with(place, args, change);
        watch.first = watch.until(|line| line["event"] == "waiting");
        watch
    }

    /// Starts a watch.
    pub(crate) fn begin(place: &Place, args: &[&str]) -> Self {
        Watching::begin_with(place, args, |_| {})
    }

    fn begin_with(place: &Place, args: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = place.command(&[&["watch", "--json"], args].concat());
        change(&mut command);
        let log = fs::File::create(place.path("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Watching { child, lines, seen: Vec::new(), first: Vec::new() }
    }

    /// The lines up to one that fits.
    #[track_caller]
    pub(crate) fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let begin = self.seen.len();
        loop {
            let line = self.lines.recv_timeout(FOR_EVER);
            let line = line.unwrap_or_else(|_| panic!("no such line: {:#?}", &self.seen[begin..]));
            let is_it = fits(&line);
            self.seen.push(line);
            if is_it {
                return self.seen[begin..].to_vec();
            }
        }
    }

    /// The lines that follow a change, until there is nothing left to do.
    #[track_caller]
    pub(crate) fn after(&mut self, change: impl FnOnce()) -> Vec<Value> {
        change();
        let mut seen = self.until(|line| line["event"] == "changed");
        seen.extend(self.until(|line| line["event"] == "waiting"));
        seen
    }

    /// How often an event of this name was seen of a node.
    pub(crate) fn count(&self, event: &str, node: &str) -> usize {
        self.seen.iter().filter(|line| line["event"] == event && line["name"] == node).count()
    }

    /// The process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C and returns the exit code.
    pub(crate) fn interrupt(&mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of the nodes that were computed, in the order of the alphabet.
pub(crate) fn evaluated(lines: &[Value]) -> Vec<String> {
    let started = lines.iter().filter(|line| line["event"] == "started");
    let mut names: Vec<_> = started.map(|line| line["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Saves a file as careful editors do: another one, which then takes its name.
pub(crate) fn replace(path: &Path, text: &str) {
    let other = path.with_extension("tmp");
    fs::write(&other, text).unwrap();
    fs::rename(other, path).unwrap();
}
