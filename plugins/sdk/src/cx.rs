//! What a node can ask of the engine while it runs.

use crate::host::CallRef;
use crate::{Error, Result};

/// The running call: progress, cancelling, files.
///
/// It can be shared with threads that end before the node does.
pub struct Cx {
    call: CallRef,
}

impl Cx {
    pub(crate) fn new(call: CallRef) -> Self {
        Cx { call }
    }

    /// Reports that `step` of `of` pieces of work are done.
    pub fn progress(&self, step: usize, of: usize) {
        self.call.progress(step as u64, of as u64);
    }

    /// Whether the run was cancelled.
    pub fn cancelled(&self) -> bool {
        self.call.cancelled()
    }

    /// Ends the node if the run was cancelled; ask between pieces of work, some times a second.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if so.
    pub fn check_cancel(&self) -> Result<()> {
        if self.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Whether anybody reads the output of this index; one that is not read may be left out.
    pub fn wants(&self, output: usize) -> bool {
        self.call.wants(output)
    }

    /// A file that the user granted to this plugin, whole; the path is relative to the graph.
    ///
    /// # Errors
    /// When it was not granted, or cannot be read.
    pub fn read(&self, path: impl AsRef<str>) -> Result<Vec<u8>> {
        self.call.read(path.as_ref())
    }

    /// The same as text.
    ///
    /// # Errors
    /// When it was not granted, cannot be read, or is not UTF-8.
    pub fn read_text(&self, path: impl AsRef<str>) -> Result<String> {
        let path = path.as_ref();
        String::from_utf8(self.read(path)?)
            .map_err(|_| Error::new(format!("`{path}` is not text in UTF-8")))
    }

    /// The stream that tensors on a CUDA device are ordered by, as a `CUstream`; null elsewhere.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn stream(&self) -> *mut std::ffi::c_void {
        self.call.stream()
    }
}
