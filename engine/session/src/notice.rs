//! What an engine tells beside the events of runs: what takes a while before anything runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that an engine's user should hear of while it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The component of a plugin is being compiled, which takes longer than half a second. The
    /// code is kept, where the engine keeps any.
    Compiling {
        /// The plugin's id.
        plugin: String,
    },
    /// No GPU can be used of those that this binary was built for: the CPU computes.
    NoGpu {
        /// Why.
        reason: String,
    },
    /// The GPU computes without the kernels that this binary brings for it: slower, in more of its
    /// memory.
    NoGpuKernels {
        /// Why.
        reason: String,
    },
    /// A plugin that lies with the graph is used in place of one of the user's own.
    Shadowed {
        /// The id of both.
        plugin: String,
        /// The folder of the one that is used.
        used: PathBuf,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Compiling { plugin } => {
                write!(f, "compiling the plugin `{plugin}` for this machine, which is done once")
            }
            Notice::NoGpu { reason } => write!(f, "computing on the CPU: {reason}"),
            Notice::NoGpuKernels { reason } => {
                write!(f, "computing without kino's own kernels, in more memory: {reason}")
            }
            Notice::Shadowed { plugin, used } => write!(
                f,
                "the plugin `{plugin}` in {} is used, which lies with the graph, not your own",
                used.display()
            ),
        }
    }
}

/// Hears what an engine tells.
pub type OnNotice = Arc<dyn Fn(&Notice) + Send + Sync>;
