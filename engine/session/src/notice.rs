//! What an engine tells beside the events of runs: what takes a while before anything runs.

use std::fmt;
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
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Compiling { plugin } => {
                write!(f, "compiling the plugin `{plugin}` for this machine, which is done once")
            }
        }
    }
}

/// Hears what an engine tells.
pub type OnNotice = Arc<dyn Fn(&Notice) + Send + Sync>;
