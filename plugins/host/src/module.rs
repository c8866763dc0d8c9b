//! What a host of plugins implements: artifacts that are loaded, and instances of their nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use candle_core::Device;
use kino_contract::{Descriptor, code};
use kino_node::{Cancel, Error, FilePolicy, GraphId, Ledger, Progress, Result, Value};
use kino_port::PlannedRead;

/// One loaded build of a plugin. It is dropped when its last instance is.
pub trait Module: Send + Sync {
    /// What it says of its nodes.
    fn descriptor(&self) -> &Descriptor;

    /// Makes an instance of a node; `saved` is the state of an earlier build's instance.
    ///
    /// # Errors
    /// When the plugin fails, or breaks its contract.
    fn open(
        &self,
        node: &str,
        saved: Option<&[u8]>,
        call: &CallCx<'_>,
    ) -> Result<Box<dyn Instance>>;
}

/// An instance of a node. Dropping it closes it.
pub trait Instance: Send {
    /// Computes outputs, in the descriptor's order, from inputs in its order.
    ///
    /// # Errors
    /// When the plugin fails, is stopped, or breaks its contract. The instance is not used again
    /// where [`Instance::is_broken`] says so.
    fn run(&mut self, call: &CallCx<'_>, inputs: &[Option<Value>]) -> Result<Vec<Option<Value>>>;

    /// The state for a newer build, where it has one.
    ///
    /// # Errors
    /// When the plugin fails.
    fn save(&mut self, call: &CallCx<'_>) -> Result<Option<Vec<u8>>>;

    /// Counts what the instance goes on holding of the engine's values, now that a call is over,
    /// as memory that it uses. Where code is not held to its limits, nothing is counted.
    ///
    /// # Errors
    /// When that is more than it may use; the instance is broken then.
    fn charge_retained(&mut self, _call: &CallCx<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether it can never run again: it trapped, or its process ended.
    fn is_broken(&self) -> bool;
}

/// Files that a plugin may read.
pub trait PluginFiles: Send + Sync {
    /// The contents of a granted file; `path` is relative to the graph.
    ///
    /// # Errors
    /// When nothing grants it, it leads elsewhere, or it cannot be read.
    fn read(&self, path: &str) -> Result<Vec<u8>>;

    /// Everything that may be read as it stands now: it enters the keys of the plugin's nodes.
    ///
    /// # Errors
    /// When it cannot be looked at, and [`Error::Cancelled`] when `stopped` says so before.
    fn fingerprint_grants(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>>;

    /// Where on this machine all that may be read lies; empty where nothing may.
    fn places(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// The files that a plugin may read, in a run that may read no more than a policy allows.
pub(crate) struct FilesOfRun<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) files: &'a dyn PluginFiles,
    pub(crate) policy: &'a FilePolicy,
}

impl FilesOfRun<'_> {
    /// Whether the run may read all that was granted to the plugin.
    ///
    /// # Errors
    /// When it may not: a plugin reads no more than the graph that uses it.
    pub(crate) fn check(&self) -> Result<()> {
        let plugin = self.plugin;
        let check = |place: PathBuf| self.policy.check_model(&place);
        self.files.places().into_iter().try_for_each(check).map_err(|error| {
            let hint = error.hint().unwrap_or_default();
            let hint = format!("{hint}; `kino plugin trust {plugin}` grants other files");
            Error::advised(format!("what the plugin `{plugin}` was granted: {error}"), hint)
        })
    }
}

impl PluginFiles for FilesOfRun<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.check()?;
        self.files.read(path)
    }

    fn fingerprint_grants(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>> {
        self.check()?;
        self.files.fingerprint_grants(stopped)
    }

    fn places(&self) -> Vec<PathBuf> {
        self.files.places()
    }
}

/// No files at all.
pub struct NoFiles;

impl PluginFiles for NoFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        Err(Error::advised(
            format!("`{path}` may not be read: no files were granted"),
            "the plugin's manifest asks for files, and `kino plugin trust` grants them",
        )
        .with_code(code::NOT_GRANTED))
    }

    fn fingerprint_grants(&self, _: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>> {
        Ok(Vec::new())
    }
}

/// What a plugin may use up in one call. Native code in the engine's own process is not held to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of memory, tensors that it made included.
    pub memory: u64,
    /// How long a call may take.
    pub time: Duration,
}

impl Default for Limits {
    /// 1 GiB, 60 seconds.
    fn default() -> Self {
        Limits { memory: 1 << 30, time: Duration::from_secs(60) }
    }
}

/// Hears messages of a plugin: level, target, message.
pub type LogSink<'a> = dyn Fn(u32, &str, &str) + Sync + 'a;

/// What a call of a plugin may reach.
pub struct CallCx<'a> {
    /// The plugin's id, for messages.
    pub plugin: &'a str,
    /// The graph that is run; none outside of one.
    pub graph: Option<&'a GraphId>,
    /// The step's name in the graph.
    pub step: &'a str,
    /// Where tensors are computed.
    pub device: &'a Device,
    /// Who holds how much memory.
    pub ledger: &'a Arc<Ledger>,
    /// The run's cancel flag.
    pub cancel: &'a Cancel,
    /// Whether each output is read by anybody.
    pub wanted: &'a [bool],
    /// Where progress goes.
    pub report: &'a (dyn Fn(Progress) + Sync),
    /// The files that it may read.
    pub files: &'a dyn PluginFiles,
    /// What it may use up.
    pub limits: Limits,
    /// Where messages of the plugin go: level, target, message. None is the engine's log.
    pub log_sink: Option<&'a LogSink<'a>>,
}

impl<'a> CallCx<'a> {
    /// A call of a plugin that no step of a graph makes: on the CPU, with one output that is wanted,
    /// under the limits that hold unless others are given; nobody hears of progress.
    pub fn outside(
        plugin: &'a str,
        ledger: &'a Arc<Ledger>,
        cancel: &'a Cancel,
        files: &'a dyn PluginFiles,
    ) -> Self {
        CallCx {
            plugin,
            graph: None,
            step: "",
            device: &Device::Cpu,
            ledger,
            cancel,
            wanted: &[true],
            report: &|_| {},
            files,
            limits: Limits::default(),
            log_sink: None,
        }
    }
}

impl CallCx<'_> {
    /// The error that a plugin gave. A code that is none is left off, which the log says.
    pub fn failure(&self, message: String, hint: String, code: String) -> Error {
        if !code.is_empty() && !kino_port::code::is_code(&code) {
            let shown: String = code.chars().take(80).collect();
            let warning = format!(
                "the plugin `{}` gave an error the code {shown:?}, which is left off: a code is at \
                 most 64 of a-z, 0-9, `-`, `.` and `_`",
                self.plugin
            );
            self.log(2, "kino", &warning);
        }
        Error::failed(message).with_hint(Some(hint).filter(|hint| !hint.is_empty())).with_code(code)
    }

    /// Passes a message of the plugin on to the log. Levels: 1 error … 5 tracing.
    pub fn log(&self, level: u32, target: &str, message: &str) {
        if let Some(log_sink) = self.log_sink {
            return log_sink(level, target, message);
        }
        let (plugin, node) = (self.plugin, self.step);
        match level {
            1 => tracing::error!(plugin, node, target, "{message}"),
            2 => tracing::warn!(plugin, node, target, "{message}"),
            3 => tracing::info!(plugin, node, target, "{message}"),
            4 => tracing::debug!(plugin, node, target, "{message}"),
            _ => tracing::trace!(plugin, node, target, "{message}"),
        }
    }

    /// What it means that a plugin says it was cancelled.
    pub fn cancelled(&self) -> Error {
        if self.cancel.is_cancelled() {
            return Error::Cancelled;
        }
        Error::failed(format!(
            "the plugin `{}` says that it was cancelled, but nobody cancelled it",
            self.plugin
        ))
    }

    /// Reports that `step` of `of` pieces of work are done.
    pub fn progress(&self, step: u64, of: u64) {
        (self.report)(Progress { step, of, preview: None, note: None });
    }

    /// Whether anybody reads output `index`.
    pub fn wants(&self, index: usize) -> bool {
        self.wanted.get(index).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_code_that_is_none_is_left_off_with_a_warning() {
        let (ledger, cancel) = (Ledger::new(0), Cancel::default());
        let log = Mutex::new(Vec::new());
        let sink = |level: u32, _: &str, message: &str| {
            log.lock().unwrap().push(format!("{level} {message}"));
        };
        let outside = CallCx::outside("film", &ledger, &cancel, &NoFiles);
        let call = CallCx { log_sink: Some(&sink), ..outside };
        let code =
            |code: &str| call.failure("dark".into(), String::new(), code.into()).code().to_owned();
        assert_eq!((code("film.dark"), code("")), ("film.dark".to_owned(), String::new()));
        assert!(log.lock().unwrap().is_empty());
        assert_eq!(code("Film\u{1b}"), "");
        let said = "2 the plugin `film` gave an error the code \"Film\\u{1b}\", which is left off";
        assert!(log.lock().unwrap()[0].starts_with(said), "{log:?}");
    }
}
