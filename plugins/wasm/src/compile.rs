//! Compiling a component within bounds, and a word to the user where that takes a while.
//!
//! A component is a stranger's file, and compiling it takes time and memory that grow with what it
//! holds, in odd cases faster than its size. So where there is a program for it, it is compiled in
//! a process of its own, which is ended when it needs too much; else its size alone is bounded.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use kino_host::code;
use kino_node::{Error, Result};

use crate::stop::root;

/// The largest component, in bytes.
const MOST_BYTES: usize = 128 << 20;
/// What a process that compiles may use up.
const BOUNDS: CompileBounds = CompileBounds { time: Duration::from_secs(300), memory: 4 << 30 };
/// After this long, the user is told.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a process that compiles is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The exit code of a process that could not compile: why stands where the code would.
const REFUSED: i32 = 3;
/// The exit code of a program in Rust that panicked.
const PANICKED: i32 = 101;

/// What compiling may use up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompileBounds {
    pub(crate) time: Duration,
    /// Bytes of the process.
    pub(crate) memory: u64,
}

/// Is told of a plugin whose component takes longer than half a second to compile.
pub type CompileNotice = Arc<dyn Fn(&str) + Send + Sync>;

/// How components are compiled.
#[derive(Clone, Default)]
pub struct CompileOptions {
    /// A program that calls [`compile_in_this_process`] with the arguments that follow its own, and
    /// its own arguments.
    pub program: Option<(PathBuf, Vec<String>)>,
    /// Is told where compiling takes a while.
    pub notice: Option<CompileNotice>,
}

/// Compiles a component to what [`wasmtime::component::Component::deserialize`] takes.
///
/// # Errors
/// When it cannot be compiled, or only beyond the bounds, and when `stopped` says so.
pub(crate) fn compile(
    engine: &wasmtime::Engine,
    pooled: bool,
    plugin: &str,
    component: &[u8],
    options: &CompileOptions,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<u8>> {
    if component.len() > MOST_BYTES {
        let (found, most) = (component.len().div_ceil(1 << 20), MOST_BYTES >> 20);
        return Err(Error::advised(
            format!("this component has {found} MB, at most {most} are compiled"),
            "leave out what it does not need (`wasm-tools strip` takes away debugging information)",
        )
        .with_code(code::LIMIT));
    }
    let _notice = options.notice.as_ref().map(|notice| LateNotice::new(plugin, notice));
    if let Some((program, args)) = &options.program {
        match in_child(program, args, pooled, component, BOUNDS, stopped) {
            Ok(Some(code)) => return Ok(code),
            Err(error) => return Err(error),
            Ok(None) => tracing::debug!("{} does not compile components", program.display()),
        }
    }
    engine.precompile_component(component).map_err(|error| refusal(&root(&error)))
}

/// What is said of a component that the compiler refuses.
fn refusal(cause: &str) -> Error {
    if cause.contains("component model async feature") {
        return asynchronous(cause);
    }
    Error::advised(
        format!("this component cannot be compiled: {cause}"),
        "the file is damaged, or uses what WebAssembly 2.0 with SIMD does not have",
    )
}

/// What is said of a component that is built for asynchronous calls.
pub(crate) fn asynchronous(what: &str) -> Error {
    Error::advised(
        format!("this component is built for WASI 0.3 or asynchronous calls: {what}"),
        "plugins are components of WASI 0.2: build it without asynchronous functions (with jco and \
         QuickJS: `--backend-qjs-disable-async`)",
    )
}

/// Tells of a plugin after a while, unless it is dropped before.
struct LateNotice(Option<mpsc::Sender<()>>);

impl LateNotice {
    fn new(plugin: &str, notice: &CompileNotice) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        let (plugin, notice) = (plugin.to_owned(), Arc::clone(notice));
        let wait = move || {
            if let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(PATIENCE) {
                notice(&plugin);
            }
        };
        // Where there is no thread left, nobody is told.
        let _ = std::thread::Builder::new().name("compile notice".into()).spawn(wait);
        LateNotice(Some(sender))
    }
}

impl Drop for LateNotice {
    fn drop(&mut self) {
        // The thread ends when nobody can send any more.
        self.0.take();
    }
}

/// Has a program compile; none where the program cannot do that.
fn in_child(
    program: &Path,
    args: &[String],
    pooled: bool,
    component: &[u8],
    bounds: CompileBounds,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("component"), folder.path().join("code"));
    fs::write(&from, component)?;
    let mut child = Command::new(program)
        .args(args)
        .arg(if pooled { "pooled" } else { "plain" })
        .args([&from, &to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status = match watch(&mut child, bounds, stopped) {
        Ok(status) => status,
        Err(error) => {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    };
    match status.code() {
        Some(0) => Ok(fs::read(&to).ok()),
        Some(REFUSED) => Err(refusal(&fs::read_to_string(&to)?)),
        // What ends a process of its own is not tried in this one.
        None | Some(PANICKED) => Err(Error::advised(
            format!("compiling this component ended its process: {status}"),
            "this is a bug of the compiler, or the machine has no memory left",
        )),
        // A program of another kind.
        Some(_) => Ok(None),
    }
}

/// Waits for the end of a process that compiles.
///
/// # Errors
/// When it needs more than it may, or `stopped` says so.
fn watch(
    child: &mut Child,
    bounds: CompileBounds,
    stopped: &dyn Fn() -> bool,
) -> Result<std::process::ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stopped() {
            return Err(Error::Cancelled);
        }
        let beyond = if begun.elapsed() > bounds.time {
            format!("longer than {} s", bounds.time.as_secs_f64())
        } else if memory_of(child.id()) > bounds.memory {
            format!("more than {} MB of memory", bounds.memory >> 20)
        } else {
            std::thread::sleep(LOOK);
            continue;
        };
        return Err(Error::advised(
            format!("compiling this component takes {beyond}"),
            "it is larger than plugins are, or made to exhaust the compiler: ask its author",
        )
        .with_code(code::LIMIT));
    }
}

/// The memory of a process in bytes, where the system tells (Linux).
fn memory_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Compiles a component for a parent that has started this process with these arguments, which
/// follow those of [`CompileOptions::program`]. Gives the exit code.
pub fn compile_in_this_process(arguments: &[OsString]) -> i32 {
    let [pooled, from, to] = arguments else { return 2 };
    let made = || -> wasmtime::Result<Vec<u8>> {
        let engine = wasmtime::Engine::new(&crate::config::config(pooled == "pooled"))?;
        engine.precompile_component(&fs::read(from)?)
    };
    let (told, exit) = match made() {
        Ok(code) => (code, 0),
        Err(error) => (root(&error).into_bytes(), REFUSED),
    };
    match fs::write(to, told) {
        Ok(()) => exit,
        Err(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn who_waits_is_told_once_and_late() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let notice: CompileNotice = {
            let told = Arc::clone(&told);
            Arc::new(move |plugin: &str| told.lock().unwrap().push(plugin.to_owned()))
        };
        drop(LateNotice::new("quick", &notice));
        let slow = LateNotice::new("slow", &notice);
        std::thread::sleep(PATIENCE + Duration::from_millis(300));
        drop(slow);
        assert_eq!(*told.lock().unwrap(), ["slow"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_compiles_is_ended_beyond_its_bounds() {
        let run = |script: &str, bounds, stopped: &dyn Fn() -> bool| {
            let args = ["-c", script, "sh"].map(str::to_owned);
            let begun = Instant::now();
            let made = in_child(Path::new("/bin/sh"), &args, true, &[], bounds, stopped);
            assert!(begun.elapsed() < Duration::from_secs(20));
            made.unwrap_err()
        };
        let bounds = CompileBounds { time: Duration::from_millis(200), memory: 1 << 40 };
        let error = run("exec sleep 60", bounds, &|| false);
        assert_eq!(error.to_string(), "compiling this component takes longer than 0.2 s");
        assert_eq!(error.code(), code::LIMIT);
        for ended in ["exit 101", "kill -6 $$"] {
            let error = run(ended, BOUNDS, &|| false).to_string();
            assert!(error.starts_with("compiling this component ended its process"), "{error}");
        }
        let error = run("exec sleep 60", BOUNDS, &|| true);
        assert!(matches!(error, Error::Cancelled));
        if cfg!(target_os = "linux") {
            let bounds = CompileBounds { memory: 1 << 10, ..BOUNDS };
            let error = run("exec sleep 60", bounds, &|| false);
            assert_eq!(
                error.to_string(),
                "compiling this component takes more than 0 MB of memory"
            );
        }
    }
}
