//! Files that appear whole or not at all.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::{NamedTempFile, TempPath};

use crate::{Error, Result};

/// How the names of files end that are being written.
const PARTIAL: &str = ".partial";

/// How the names of files end that are closed and only wait for their names.
const WAITING: &str = ".waiting";

/// After this long a waiting file was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A file in the making: written under a temporary name beside its target, renamed by
/// [`WholeFile::finish`], removed if dropped before. It is locked while it is written, by which
/// other processes know that it was not left over by one that was killed.
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
        clean(folder);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{}.", name.chars().take(80).collect::<String>());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PARTIAL);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = locked(&builder, folder).map_err(Error::io("written", target))?;
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
        let failed = || Error::io("written", &self.target);
        self.file.flush().and_then(|()| self.file.as_file().sync_all()).map_err(failed())?;
        // Closing gives up the lock, so the name has to say before that this is no left-over.
        let waiting = self.file.path().with_extension(&WAITING[1..]);
        fs::rename(self.file.path(), &waiting).map_err(failed())?;
        let file = TempPath::try_from_path(waiting).map_err(failed())?;
        Ok(WaitingFile { file, target: self.target })
    }

    /// The file itself.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }
}

/// A temporary file of which nobody else thinks that it was left over.
fn locked(builder: &tempfile::Builder<'_, '_>, folder: &Path) -> io::Result<NamedTempFile> {
    loop {
        let file = builder.tempfile_in(folder)?;
        // Where files cannot be locked, nobody removes what is not locked either.
        let _ = file.as_file().lock();
        // Between being made and being locked it may have been taken for a left-over.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes what killed processes left in a folder; once a process, as nobody else leaves anything.
fn clean(folder: &Path) {
    static CLEANED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut cleaned = CLEANED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    if cleaned.get_or_insert_default().insert(known) {
        sweep(folder);
    }
}

/// Removes the temporary files of a folder that nobody writes.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // What cannot be removed does no harm: its name is never read.
        let _ = match temporary(&entry.file_name().to_string_lossy()) {
            Some(PARTIAL) => remove_unlocked(&entry.path()),
            Some(_) => remove_old(&entry),
            None => Ok(()),
        };
    }
}

/// How a temporary name ends, `.NAME.RANDOM.partial` or `.NAME.RANDOM.waiting`; nothing for other
/// names.
fn temporary(name: &str) -> Option<&'static str> {
    let ending = [PARTIAL, WAITING].into_iter().find(|ending| name.ends_with(ending))?;
    let (target, random) = name.strip_prefix('.')?.strip_suffix(ending)?.rsplit_once('.')?;
    let drawn = random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (drawn && !target.is_empty()).then_some(ending)
}

/// Removes a file unless a process is writing it.
fn remove_unlocked(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Removes a file that has waited for too long.
fn remove_old(entry: &fs::DirEntry) -> io::Result<()> {
    match entry.metadata()?.modified()?.elapsed() {
        Ok(age) if age > ABANDONED => fs::remove_file(entry.path()),
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let others = [".a.mp4.partial", ".b.mp4.12.partial", "c.mp4.AbCd12.partial", "d.mp4"];
        let left = [".a.mp4.AbCd12.partial", ".frame_00001.png.zZ0123.waiting"];
        for name in others.iter().chain(&left) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let old = File::options().write(true).open(folder.path().join(left[1])).unwrap();
        old.set_modified(std::time::SystemTime::now() - 2 * ABANDONED).unwrap();
        let file = WholeFile::create(&folder.path().join("a.mp4")).unwrap();
        file.finish().unwrap();
        let mut expected: Vec<_> = others.iter().map(|name| (*name).to_owned()).collect();
        expected.push("a.mp4".to_owned());
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn files_that_are_being_written_or_wait_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let writing = WholeFile::create(&folder.path().join("a.mp4")).unwrap();
        let waiting = WholeFile::create(&folder.path().join("b.png")).unwrap().wait().unwrap();
        sweep(folder.path());
        assert_eq!(names(folder.path()).len(), 2);
        waiting.finish().unwrap();
        writing.finish().unwrap();
        assert_eq!(names(folder.path()), ["a.mp4", "b.png"]);
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(WholeFile::create(&folder.path().join("a.mp4")).unwrap());
        drop(WholeFile::create(&folder.path().join("b.png")).unwrap().wait().unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
