//! Preview pictures as files: the newest of every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kino_session::{Event, RunEvent};

use crate::failure::Failure;
use crate::files;

/// A folder that holds the newest preview of every node as `NODE.png`.
pub(crate) struct Previews {
    folder: PathBuf,
    warned: AtomicBool,
}

impl Previews {
    /// Pictures into this folder, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn into_folder(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(|error| {
            Failure::world(format!("the folder {} cannot be made: {error}", folder.display()))
        })?;
        Ok(Previews { folder: folder.to_owned(), warned: AtomicBool::new(false) })
    }

    /// Keeps the picture of an event that has one. When it cannot be written, a warning is logged
    /// once and the run goes on.
    pub(crate) fn see(&self, event: &RunEvent) {
        let (Event::Progress { name, .. }, Some(png)) = (&event.event, event.preview_png()) else {
            return;
        };
        let path = self.folder.join(format!("{}.png", name.replace('/', "-")));
        if let Err(error) = files::write(&path, &png)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("A preview could not be kept: {error}.");
        }
    }
}
