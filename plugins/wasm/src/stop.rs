//! Why a plugin was stopped, and how that is said.

use std::time::Duration;

use kino_host::{Limits, code};
use kino_node::Error;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::stderr_tail::StderrTail;

/// Why the host stopped a plugin in the middle of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("the run was cancelled")]
    Cancelled,
    #[error("it took longer than the {} it may take", seconds(*.0))]
    Time(Duration),
    #[error("it holds more than {0} values at a time")]
    Handles(usize),
    #[error("a handle of it leads to nothing")]
    Stray,
    #[error("it called `{0}`, which plugins may not use")]
    Forbidden(String),
    #[error("it ended itself")]
    Exit,
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// What is known of a plugin when it was stopped.
pub(crate) struct StopContext<'a> {
    /// The plugin's id.
    pub(crate) plugin: &'a str,
    pub(crate) limits: Limits,
    /// What it said of errors, such as a panic's message.
    pub(crate) said: &'a StderrTail,
    /// Whether it was refused memory.
    pub(crate) memory_refused: bool,
}

impl StopContext<'_> {
    /// What the user is told of a plugin that was stopped by wasmtime or by the host.
    pub(crate) fn to_error(&self, error: &wasmtime::Error) -> Error {
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return self.stop_error(stop);
        }
        if self.memory_refused {
            return self.out_of_memory();
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return Error::advised(
                format!(
                    "the plugin `{}` cannot be opened: too many instances of plugins are open in \
                     this process",
                    self.plugin
                ),
                "run fewer graphs at the same time",
            );
        }
        let trap = error.downcast_ref::<Trap>();
        let said = self.said.told();
        if let (Some(Trap::UnreachableCodeReached), Some(said)) = (trap, &said) {
            return self.bug(format!("panicked: {said}"));
        }
        let what = match trap {
            Some(Trap::StackOverflow) => "ran out of stack: its recursion is too deep".to_owned(),
            Some(Trap::UnreachableCodeReached) => {
                "stopped itself, as after a panic without a message".to_owned()
            }
            Some(Trap::MemoryOutOfBounds) => "reached beyond its memory".to_owned(),
            Some(trap) => format!("was stopped: {trap}"),
            None => format!("broke the contract: {}", root(error)),
        };
        match said {
            Some(said) => self.bug(format!("{what}; it said: {said}")),
            None => self.bug(what),
        }
    }

    /// What the user is told of a plugin that the host stopped.
    pub(crate) fn stop_error(&self, stop: &Stop) -> Error {
        let plugin = self.plugin;
        match stop {
            Stop::Cancelled => Error::Cancelled,
            Stop::Time(limit) => Error::broken(
                format!("the plugin `{plugin}` was stopped: {stop}"),
                format!(
                    "`kino plugin trust {plugin} --seconds {}` lets it take longer",
                    (limit.as_secs_f64() * 10.0).ceil().max(1.0)
                ),
            )
            .with_code(code::LIMIT),
            Stop::Forbidden(_) => Error::broken(
                format!("the plugin `{plugin}` was stopped: {stop}"),
                "plugins reach neither network, files, environment nor processes; files that were \
                 granted are read through the context (`cx.read`)",
            )
            .with_code(code::NOT_GRANTED),
            Stop::Handles(_) => self.bug(format!("was stopped: {stop}")).with_code(code::LIMIT),
            Stop::Stray | Stop::Exit => self.bug(format!("was stopped: {stop}")),
        }
    }

    fn out_of_memory(&self) -> Error {
        let (plugin, bytes) = (self.plugin, self.limits.memory);
        let megabytes = bytes.div_ceil(1 << 20);
        Error::broken(
            format!("the plugin `{plugin}` needs more than the {megabytes} MB it may use"),
            format!(
                "`kino plugin trust {plugin} --memory {}MB` lets it use more",
                megabytes.saturating_mul(4)
            ),
        )
        .with_code(code::LIMIT)
    }

    fn bug(&self, what: String) -> Error {
        Error::broken(
            format!("the plugin `{}` {what}", self.plugin),
            "this is a bug of the plugin; please report it to its author",
        )
    }
}

/// The innermost cause, in one line.
pub(crate) fn root(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
