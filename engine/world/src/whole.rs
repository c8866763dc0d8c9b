//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::{Error, Result};

/// A file in the making: written under a temporary name beside its target, renamed by [`WholeFile::finish`], removed if
/// dropped before.
#[derive(Debug)]
pub struct WholeFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl WholeFile {
    /// Opens a file that will stand at `target`; missing folders are made.
    ///
    /// # Errors
    /// When the folder cannot be made or written, or the target is a folder.
    pub fn create(target: &Path) -> Result<Self> {
        if target.is_dir() {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(Error::Io { action: "written", path: target.to_owned(), source });
        }
        let folder = target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::io("made", folder))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{}.", name.chars().take(80).collect::<String>());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(Error::io("written", target))?;
        Ok(WholeFile { file, target: target.to_owned() })
    }

    /// Where the file will stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Turns what the system said into an error that names the file.
    pub fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io("written", &self.target)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the last bytes cannot be written or the file cannot be renamed.
    pub fn finish(mut self) -> Result<PathBuf> {
        let failed = Error::io("written", &self.target);
        self.file.flush().and_then(|()| self.file.as_file().sync_all()).map_err(failed)?;
        let renamed = self.file.persist(&self.target).map_err(|error| error.error);
        renamed.map_err(Error::io("written", &self.target))?;
        Ok(self.target)
    }

    /// Closes the file, which then waits under its temporary name.
    ///
    /// # Errors
    /// When the last bytes cannot be written.
    pub(crate) fn wait(mut self) -> Result<WaitingFile> {
        let failed = Error::io("written", &self.target);
        self.file.flush().and_then(|()| self.file.as_file().sync_all()).map_err(failed)?;
        Ok(WaitingFile { file: self.file.into_temp_path(), target: self.target })
    }

    /// The file itself.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }
}

/// A file that is written and closed and lacks only its name: many may wait at once.
#[derive(Debug)]
pub(crate) struct WaitingFile {
    file: TempPath,
    target: PathBuf,
}

impl WaitingFile {
    /// Puts the file in its place.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let renamed = self.file.persist(&self.target).map_err(|error| error.error);
        renamed.map_err(Error::io("written", &self.target))?;
        Ok(self.target)
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for WholeFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}
