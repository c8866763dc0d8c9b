//! A numbered file a frame. They get their names together, at the end.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use kino_port::NumberedFiles;

use super::writer::{Depth, VideoSpec, VideoWriter};
use crate::atomic_file::WaitingFile;
use crate::{AtomicFile, Error, Result};

/// A format whose files hold one frame.
pub(super) trait FrameFile: VideoWriter + Sized {
    /// Begins a file.
    fn create(path: &Path, spec: &VideoSpec<'_>, depth: Depth) -> Result<Self>;

    /// Writes what is still held; the file then waits for its name.
    fn close(self) -> Result<AtomicFile>;
}

/// A sequence in the making.
pub(super) struct SequenceWriter<F> {
    folder: PathBuf,
    names: NumberedFiles,
    size: (usize, usize),
    depth: Depth,
    metadata: Option<String>,
    waiting: Vec<WaitingFile>,
    of: PhantomData<F>,
}

/// The files that a path such as `frame_%05d.png` names, by their names.
pub(super) fn numbered(path: &Path) -> Option<NumberedFiles> {
    NumberedFiles::of(path.file_name()?.to_str()?)
}

impl<F: FrameFile> SequenceWriter<F> {
    pub(super) fn create(path: &Path, spec: &VideoSpec<'_>, depth: Depth) -> Result<Self> {
        let Some(names) = numbered(path) else {
            return Err(Error::content(path, "expected a number such as %05d in the name"));
        };
        Ok(SequenceWriter {
            folder: path.parent().unwrap_or(Path::new("")).to_owned(),
            names,
            size: (spec.width, spec.height),
            depth,
            metadata: spec.metadata.map(str::to_owned),
            waiting: Vec::new(),
            of: PhantomData,
        })
    }
}

/// Tells of what a longer sequence of the same name left behind this one: whoever reads it takes
/// that for a part of it. It is not removed, since another node may have written it.
fn tell_rest(folder: &Path, names: &NumberedFiles, count: usize) {
    let place = |number: usize| folder.join(names.path(number));
    let rest = (count..).take_while(|number| place(*number).exists()).count();
    if rest > 0 {
        tracing::warn!(
            "Behind the {count} frames that were written, {rest} older files go on with the numbers, \
             from {} on: remove them, or write elsewhere.",
            place(count).display()
        );
    }
}

impl<F: FrameFile> VideoWriter for SequenceWriter<F> {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        let path = self.folder.join(self.names.path(self.waiting.len()));
        let ((width, height), metadata) = (self.size, self.metadata.as_deref());
        let spec =
            VideoSpec { width, height, count: 1, fps: 1.0, metadata, ..VideoSpec::default() };
        let mut file = F::create(&path, &spec, self.depth)?;
        file.push(frame)?;
        self.waiting.push(file.close()?.wait()?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>> {
        let (count, folder, names) = (self.waiting.len(), self.folder, self.names);
        let files = self.waiting.into_iter().map(WaitingFile::finish).collect::<Result<_>>()?;
        tell_rest(&folder, &names, count);
        Ok(files)
    }
}
