//! Files that appear whole or not at all.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::{NamedTempFile, TempPath};

use crate::{Error, Result};

/// How the names of files end that are being written.
const PARTIAL: &str = ".partial";

/// How the names of files end that are closed and only wait for their names.
const WAITING: &str = ".waiting";

/// What the file is called whose lock says that the files which wait beside it are wanted.
const ANCHOR: &str = ".kino-waits.";

/// So many bytes of a file's name stand in its temporary name, which also has to fit.
const LONGEST_SHOWN: usize = 160;

/// Where files cannot be locked, one so old was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A file in the making: written under a temporary name beside its target, renamed by
/// [`AtomicFile::finish`], removed if dropped before. It is locked while it is written, by which
/// other processes know that it was not left over by one that was killed.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
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
        let prefix = format!(".{}.", &name[..name.floor_char_boundary(LONGEST_SHOWN)]);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(PARTIAL);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = locked(&builder, folder).map_err(Error::io("written", target))?;
        Ok(AtomicFile { file, target: target.to_owned() })
    }

    /// Where the file will stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where it lies while it is being written.
    pub(crate) fn place(&self) -> &Path {
        self.file.path()
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
        // Closing gives up the lock, so the name has to say before whose lock counts from then on.
        let anchor = Anchor::of(self.file.path().parent().unwrap_or(Path::new(".")));
        let anchor = anchor.map_err(failed())?;
        let waiting = self.file.path().with_extension(format!("{}{WAITING}", anchor.id));
        fs::rename(self.file.path(), &waiting).map_err(failed())?;
        let file = TempPath::try_from_path(waiting).map_err(failed())?;
        Ok(WaitingFile { file, target: self.target, _anchor: anchor })
    }

    /// The file itself.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }
}

/// Tries whether files can be written in a folder, which may be missing: whatever would hold it is
/// there, and takes a file. Nothing is left behind.
///
/// # Errors
/// When it cannot be made or written.
pub fn check_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|part| part.symlink_metadata().is_ok());
    let there = there.filter(|part| !part.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        let source = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(Error::Io { action: "made", path: folder.to_owned(), source });
    }
    let action = if there == folder { "written" } else { "made" };
    // It has no name, so that nobody who is killed here leaves it behind.
    tempfile::tempfile_in(there).map(drop).map_err(Error::io(action, folder))
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

/// A locked file beside files that are closed and wait for their names. There are as many of those
/// as a sequence has frames, too many to keep open and locked.
#[derive(Debug)]
struct Anchor {
    _file: NamedTempFile,
    /// The letters drawn for its name, which stand in the names of the files that wait.
    id: String,
}

impl Anchor {
    /// The one of this process in a folder; it goes with the last file that waits there.
    fn of(folder: &Path) -> io::Result<Arc<Self>> {
        static ANCHORS: Mutex<BTreeMap<PathBuf, Weak<Anchor>>> = Mutex::new(BTreeMap::new());
        let mut anchors = ANCHORS.lock().unwrap_or_else(PoisonError::into_inner);
        anchors.retain(|_, anchor| anchor.strong_count() > 0);
        let known = folder.canonicalize()?;
        if let Some(anchor) = anchors.get(&known).and_then(Weak::upgrade) {
            return Ok(anchor);
        }
        let mut builder = tempfile::Builder::new();
        let file = locked(builder.prefix(ANCHOR).suffix(PARTIAL), folder)?;
        let name = file.path().file_name().unwrap_or_default().to_string_lossy();
        let id = name.strip_prefix(ANCHOR).and_then(|name| name.strip_suffix(PARTIAL));
        let id = id.unwrap_or_default().to_owned();
        let anchor = Arc::new(Anchor { _file: file, id });
        anchors.insert(known, Arc::downgrade(&anchor));
        Ok(anchor)
    }
}

/// Removes what killed processes left in a folder; once a process, as nobody else leaves anything.
fn clean(folder: &Path) {
    static CLEANED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut cleaned = CLEANED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    if cleaned.get_or_insert_default().insert(known) {
        remove_leftovers(folder);
    }
}

/// Removes the temporary files of a folder that no process writes any more: those of killed ones.
/// For a folder whose files are up to date; writing a file removes them as well.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What cannot be removed does no harm: its name is never read.
        let _ = match temporary(&name) {
            Some(Temporary::Partial) => remove_unlocked(&entry.path()),
            Some(Temporary::Waiting(anchor)) => {
                let anchor = folder.join(format!("{ANCHOR}{anchor}{PARTIAL}"));
                if is_locked(&anchor) { Ok(()) } else { fs::remove_file(entry.path()) }
            }
            None => Ok(()),
        };
    }
}

/// What a temporary name says.
#[derive(Debug, PartialEq, Eq)]
enum Temporary<'n> {
    /// `.NAME.RANDOM.partial`: it is locked as long as it is written.
    Partial,
    /// `.NAME.RANDOM.ANCHOR.waiting`: its anchor is locked as long as it waits.
    Waiting(&'n str),
}

/// What a name says of a temporary file; nothing for other names.
fn temporary(name: &str) -> Option<Temporary<'_>> {
    let drawn = |text: &str| text.len() == 6 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let name = name.strip_prefix('.')?;
    if let Some(name) = name.strip_suffix(PARTIAL) {
        let (target, random) = name.rsplit_once('.')?;
        return (drawn(random) && !target.is_empty()).then_some(Temporary::Partial);
    }
    let (name, anchor) = name.strip_suffix(WAITING)?.rsplit_once('.')?;
    let (target, random) = name
        .rsplit_once('.')
        .filter(|(_, random)| drawn(random))
        // Earlier versions named no anchor.
        .unwrap_or((name, anchor));
    let fits = drawn(random) && drawn(anchor) && !target.is_empty();
    fits.then_some(Temporary::Waiting(anchor))
}

/// Removes a file unless a process is writing it.
fn remove_unlocked(path: &Path) -> io::Result<()> {
    // Locked until it is gone: whoever has just made it and waits for the lock sees that it is.
    let file = File::options().write(true).open(path)?;
    if holds_lock(&file) { Ok(()) } else { fs::remove_file(path) }
}

/// Whether there is such a file, and a process has locked it.
fn is_locked(path: &Path) -> bool {
    File::options().write(true).open(path).is_ok_and(|file| holds_lock(&file))
}

/// Whether another one has locked the file; if not, it is locked from here on.
fn holds_lock(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        // Where files cannot be locked, its age has to tell.
        Err(TryLockError::Error(_)) => {
            let modified = file.metadata().and_then(|about| about.modified());
            modified.map_or(true, |time| time.elapsed().map_or(true, |age| age < ABANDONED))
        }
    }
}

/// A file that is written and closed and lacks only its name: many may wait at once.
#[derive(Debug)]
pub(crate) struct WaitingFile {
    file: TempPath,
    target: PathBuf,
    /// Dropped after the file.
    _anchor: Arc<Anchor>,
}

impl WaitingFile {
    /// Puts the file in its place.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let renamed = self.file.persist(&self.target).map_err(|error| error.error);
        renamed.map_err(Error::io("written", &self.target))?;
        Ok(self.target)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

impl Seek for AtomicFile {
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
        let left = [
            ".a.mp4.AbCd12.partial",
            ".frame_00001.png.zZ0123.waiting",
            ".frame_00001.png.zZ0123.AbCd12.waiting",
        ];
        for name in others.iter().chain(&left) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let file = AtomicFile::create(&folder.path().join("a.mp4")).unwrap();
        file.finish().unwrap();
        let mut expected: Vec<_> = others.iter().map(|name| (*name).to_owned()).collect();
        expected.push("a.mp4".to_owned());
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn files_that_are_being_written_or_wait_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let writing = AtomicFile::create(&folder.path().join("a.mp4")).unwrap();
        let waiting = AtomicFile::create(&folder.path().join("b.png")).unwrap().wait().unwrap();
        remove_leftovers(folder.path());
        // The two, and the anchor of the one that waits.
        assert_eq!(names(folder.path()).len(), 3);
        waiting.finish().unwrap();
        writing.finish().unwrap();
        assert_eq!(names(folder.path()), ["a.mp4", "b.png"]);
    }

    /// What a process does that is killed while a sequence waits; it never returns.
    #[test]
    #[ignore = "runs in a child process, which is then killed"]
    fn child() {
        let folder = PathBuf::from(std::env::var_os("KINO_TEST_WAITING").unwrap());
        let waiting: Vec<_> = ["a.png", "b.png"]
            .map(|name| AtomicFile::create(&folder.join(name)).unwrap().wait().unwrap())
            .into();
        fs::write(folder.join("ready"), "").unwrap();
        loop {
            std::thread::park();
            assert_eq!(waiting.len(), 2);
        }
    }

    #[test]
    fn files_of_a_living_process_wait_and_those_of_a_killed_one_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "atomic_file::tests::child", "--ignored"])
            .env("KINO_TEST_WAITING", folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("ready").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        // However old they are.
        for name in names(folder.path()) {
            let file = File::options().write(true).open(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * ABANDONED).unwrap();
        }
        remove_leftovers(folder.path());
        assert_eq!(names(folder.path()).len(), 4, "two that wait, their anchor, and the marker");
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        remove_leftovers(folder.path());
        remove_leftovers(folder.path());
        assert_eq!(names(folder.path()), ["ready"]);
    }

    #[test]
    fn a_name_may_be_as_long_as_names_are() {
        let folder = tempfile::tempdir().unwrap();
        for name in [format!("{}.png", "a".repeat(251)), "长".repeat(85), "é".repeat(127)] {
            let target = folder.path().join(&name);
            AtomicFile::create(&target).unwrap().finish().unwrap();
            fs::remove_file(&target).unwrap();
            AtomicFile::create(&target).unwrap().wait().unwrap().finish().unwrap();
            assert!(target.is_file(), "{name}");
        }
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(AtomicFile::create(&folder.path().join("a.mp4")).unwrap());
        drop(AtomicFile::create(&folder.path().join("b.png")).unwrap().wait().unwrap());
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
