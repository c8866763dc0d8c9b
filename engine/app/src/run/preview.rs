//! Preview pictures as files: the newest of every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kino_node::Preview;
use kino_session::Event;

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

    /// Keeps the picture of an event that has one.
    pub(crate) fn see(&self, event: &Event) {
        if let Event::Progress { name, preview: Some(picture), .. } = event {
            self.keep(name, picture);
        }
    }

    /// Keeps a picture. When it cannot be written, a warning is logged once and the run goes on.
    fn keep(&self, node: &str, preview: &Preview) {
        let path = self.folder.join(format!("{}.png", node.replace('/', "-")));
        let written = encode(preview)
            .map_err(|error| Failure::world(error.to_string()))
            .and_then(|png| files::write(&path, &png));
        if let Err(error) = written
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("A preview could not be kept: {error}.");
        }
    }
}

fn encode(preview: &Preview) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, preview.width, preview.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&preview.rgb)?;
    Ok(bytes)
}
