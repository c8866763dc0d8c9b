//! The two processes that compute in turns, and what the system says they took: processor time,
//! wall time, and the most memory since it was last asked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What went wrong, as a sentence.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Clock ticks a second in `/proc`, on every Linux that there is (`USER_HZ`).
const TICKS: f64 = 100.0;

/// When whoever still computes is ended, so that one that hangs does not hold up everything.
static DEADLINE: OnceLock<Instant> = OnceLock::new();

/// Has every side ended that still computes at this time; what it was asked is an error then.
pub(crate) fn end_at(deadline: Instant) {
    // Set once, by whoever drives.
    let _ = DEADLINE.set(deadline);
}

/// How long a side may still compute.
fn left() -> Duration {
    match DEADLINE.get() {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => Duration::MAX,
    }
}

const TOO_LATE: &str = "ended, for the time is over";

/// What one call took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Processor seconds of all threads.
    pub(crate) cpu: f64,
    /// Seconds on the clock.
    pub(crate) wall: f64,
    /// The most resident bytes meanwhile.
    pub(crate) peak: u64,
}

impl Spent {
    /// The least of each of two: whatever else a machine does only adds.
    pub(crate) fn least(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            wall: self.wall.min(other.wall),
            peak: self.peak.min(other.peak),
        }
    }

    /// A part of what this took beyond another; the peak is this one's.
    fn beyond(self, other: Self, part: f64) -> Self {
        Self {
            cpu: (self.cpu - other.cpu) * part,
            wall: (self.wall - other.wall) * part,
            peak: self.peak,
        }
    }
}

/// A process that computes as it is told.
pub(crate) struct Side {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
    name: &'static str,
    threads: usize,
    /// Resident bytes before anything was loaded, and those of the weights.
    pub(crate) base: u64,
    pub(crate) weights: u64,
}

impl Side {
    /// This program again, with so many threads.
    pub(crate) fn ours(threads: usize) -> Result<Self> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.arg("--serve");
        Self::start(&mut command, threads, "ours")
    }

    /// A peer, by its script.
    pub(crate) fn peer(python: &Path, script: &Path, threads: usize) -> Result<Self> {
        let mut command = Command::new(python);
        command.arg(script).arg("serve");
        let mut side = Self::start(&mut command, threads, "the peer")?;
        side.ask(&json!({ "do": "threads", "count": threads }))?;
        Ok(side)
    }

    /// Has a peer compute with so many threads from now on.
    pub(crate) fn set_threads(&mut self, threads: usize) -> Result<()> {
        self.threads = threads;
        self.ask(&json!({ "do": "threads", "count": threads })).map(drop)
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    fn start(command: &mut Command, threads: usize, name: &'static str) -> Result<Self> {
        let command = with_threads(command, threads);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{name} does not start: {error}"))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(commands), Some(output)) = pipes else {
            return Err(format!("{name} has no pipes"));
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
            // Until nobody waits for them any more.
            lines.map(|line| sender.send(line)).all(|sent| sent.is_ok())
        });
        Ok(Self { child, commands, answers, name, threads, base: 0, weights: 0 })
    }

    /// Tells it something and waits for its answer.
    pub(crate) fn ask(&mut self, command: &Value) -> Result<Value> {
        let name = self.name;
        let io = |error: std::io::Error| format!("{name} is gone: {error}");
        writeln!(self.commands, "{command}").map_err(io)?;
        self.commands.flush().map_err(io)?;
        let line = self.answers.recv_timeout(left());
        let line = line.map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{name}, {}: {TOO_LATE}", command["do"]),
            RecvTimeoutError::Disconnected => format!("{name} ended at {}", command["do"]),
        })?;
        let answer = serde_json::from_str::<Value>(&line);
        let answer = answer.map_err(|error| format!("{name}, {}: {error}", command["do"]))?;
        match answer["error"].as_str() {
            Some(error) => Err(format!("{name}, {}: {error}", command["do"])),
            None => Ok(answer),
        }
    }

    /// Touches what every work uses, then loads a model; what both take is kept apart.
    pub(crate) fn load(&mut self, command: &Value) -> Result<()> {
        self.ask(&json!({ "do": "warm", "compute": command["compute"] }))?;
        self.base = status(self.child.id(), "VmRSS:")?;
        let answer = self.ask(command)?;
        self.weights = answer["weights"].as_u64().unwrap_or(0);
        Ok(())
    }

    /// Tells it something and says what that took.
    pub(crate) fn timed(&mut self, command: &Value) -> Result<Spent> {
        let id = self.child.id();
        // 5 sets the most memory so far back to what there is (proc_pid_clear_refs(5)).
        let cleared = std::fs::write(format!("/proc/{id}/clear_refs"), "5");
        cleared.map_err(|error| format!("the peak cannot be reset: {error}"))?;
        let (before, begun) = (processor_time(id)?, Instant::now());
        let answer = self.ask(command)?;
        let wall = begun.elapsed().as_secs_f64();
        let cpu = processor_time(id)? - before;
        // A side that does more than what is measured says what it had taken when that was done.
        let peak = answer["peak"].as_u64().map_or_else(|| status(id, "VmHWM:"), Ok)?;
        Ok(Spent { cpu, wall, peak })
    }

    /// Computes once and says what that took.
    pub(crate) fn computed(&mut self) -> Result<Spent> {
        self.timed(&json!({ "do": "run" }))
    }

    /// Says what a forward of a whole program takes: half of what three steps take beyond one.
    pub(crate) fn computed_by_steps(&mut self) -> Result<Spent> {
        let run = |steps: usize| json!({ "do": "run", "steps": steps });
        let one = self.timed(&run(1))?;
        Ok(self.timed(&run(3))?.beyond(one, 0.5))
    }

    /// Bytes beyond weights and what there was before them.
    pub(crate) fn extra(&self, peak: u64) -> u64 {
        peak.saturating_sub(self.base + self.weights)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command all of whose libraries use so many threads.
pub(crate) fn with_threads(command: &mut Command, threads: usize) -> &mut Command {
    let names = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"];
    command.envs(names.map(|name| (name, threads.to_string())))
}

/// Runs a program to its end: what it took, and its peak as it was seen every few milliseconds.
pub(crate) fn run_whole(command: &mut Command) -> Result<Spent> {
    let (before, begun) = (time_of_children()?, Instant::now());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("{command:?} does not start: {error}"))?;
    let mut peak = 0;
    let status = loop {
        peak = peak.max(status(child.id(), "VmHWM:").unwrap_or(0));
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if left().is_zero() => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{command:?}: {TOO_LATE}"));
            }
            None => std::thread::sleep(std::time::Duration::from_millis(3)),
        }
    };
    let wall = begun.elapsed().as_secs_f64();
    if !status.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        return Err(format!("{command:?} failed: {said}"));
    }
    Ok(Spent { cpu: time_of_children()? - before, wall, peak })
}

/// Fields of `/proc/ID/stat` behind the name of the program, summed, in seconds.
fn times(id: &str, fields: [usize; 2]) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
    let stat = stat.map_err(|error| format!("/proc/{id}/stat: {error}"))?;
    let words: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |field: usize| words.get(field).and_then(|word| word.parse::<f64>().ok());
    let sum = fields.map(|field| ticks(field).unwrap_or(0.0)).iter().sum::<f64>();
    Ok(sum / TICKS)
}

/// Processor seconds of a process, its own and the system's for it.
fn processor_time(id: u32) -> Result<f64> {
    times(&id.to_string(), [11, 12])
}

/// Processor seconds of all children that have ended.
fn time_of_children() -> Result<f64> {
    times("self", [13, 14])
}

/// A number of `/proc/ID/status`, which is in KiB, in bytes.
fn status(id: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"));
    let text = text.map_err(|error| format!("/proc/{id}/status: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.map(|kib| kib << 10).ok_or_else(|| format!("/proc/{id}/status has no {name}"))
}
