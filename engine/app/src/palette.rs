//! The nodes that a graph can use, and the files that they come from.

use std::path::PathBuf;
use std::sync::Arc;

use kino_node::Registry;

use crate::engine;
use crate::failure::Failure;
use crate::library::Opened;

/// The nodes that a graph can use.
pub(crate) struct Palette {
    /// The nodes; the same as before unless one of the files changed.
    pub(crate) registry: Arc<Registry>,
    /// The files and folders that nodes come from: after a change in one of them, ask again.
    pub(crate) files: Vec<PathBuf>,
}

/// Nodes that cannot be used as they stand.
pub(crate) struct Unusable {
    /// Why.
    pub(crate) failure: Failure,
    /// The files and folders whose change may mend it.
    pub(crate) files: Vec<PathBuf>,
}

/// Finds nodes for graphs, and keeps those that it has found.
pub(crate) struct Palettes {
    built_in: Arc<Registry>,
}

impl Palettes {
    /// Has the built-in nodes.
    pub(crate) fn new() -> Self {
        Palettes { built_in: Arc::new(engine::registry()) }
    }

    /// The nodes that every graph can use.
    pub(crate) fn built_in(&self) -> Arc<Registry> {
        Arc::clone(&self.built_in)
    }

    /// The nodes for a graph, as they stand now.
    ///
    /// # Errors
    /// When those that the graph uses cannot be loaded.
    pub(crate) fn of(&mut self, _graph: &Opened) -> Result<Palette, Box<Unusable>> {
        Ok(Palette { registry: Arc::clone(&self.built_in), files: Vec::new() })
    }
}
