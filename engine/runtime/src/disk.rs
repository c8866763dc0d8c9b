//! The cache on disk: a folder of entries named by key, shared by any number of processes.
//!
//! An entry appears by renaming a finished temporary file, so a reader sees it whole or not at all.
//! A reader that finds nothing, or something broken, has a miss; a writer that cannot write goes
//! without. Neither is an error.

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use kino_node::{Error, Frames, Result, Value};
use tempfile::NamedTempFile;

use crate::entry::{self, Header, Verified};
use crate::wanted::covers;

/// The folder of this form of entries; another form gets another name.
const FORM: &str = "values-2";
/// How the folders of all forms begin: those of older ones are counted and cleared, never read.
const FORMS: &str = "values-";
const ENTRY: &str = "entry";
const TEMPORARY: &str = "tmp-";
/// Where files cannot be locked, temporary files older than this were left behind by a process
/// that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// After this many entries of our own we look at what other processes added.
const LOOK_EVERY: u64 = 64;
const UNKNOWN: u64 = u64::MAX;

/// Results of expensive steps on disk, found by key.
#[derive(Debug)]
pub struct DiskCache {
    root: PathBuf,
    folder: PathBuf,
    limit: u64,
    /// About how many bytes lie in the folder; unknown until first needed.
    about: AtomicU64,
    stores: AtomicU64,
    warned: AtomicBool,
}

/// Something that lies in the cache.
struct Found {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl DiskCache {
    /// A cache in `folder`, which need not exist, of at most `limit_bytes`: the least recently used
    /// entries go first.
    pub fn open(folder: impl AsRef<Path>, limit_bytes: u64) -> Self {
        let root = folder.as_ref().to_owned();
        DiskCache {
            folder: root.join(FORM),
            root,
            limit: limit_bytes,
            about: AtomicU64::new(UNKNOWN),
            stores: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    /// The bytes of all that lies in the cache: entries, those of older versions, and what is being
    /// written. What killed processes left is removed on the way.
    pub fn size(&self) -> u64 {
        self.list().iter().map(|found| found.bytes).sum()
    }

    /// Removes all that lies in the cache but what a process is writing, and returns how many bytes
    /// that were.
    ///
    /// # Errors
    /// When something cannot be removed; all the rest is.
    pub fn clear(&self) -> std::io::Result<u64> {
        let (mut freed, mut failed) = (0, None);
        for folder in self.folders() {
            for path in below(&folder) {
                let Some(found) = look(&path) else { continue };
                let removed = match is_temporary(&path) {
                    true => remove_abandoned(&found),
                    false => remove(&path).map(|()| true),
                };
                match removed {
                    Ok(gone) => freed += if gone { found.bytes } else { 0 },
                    Err(error) => failed = Some(error),
                }
            }
        }
        self.about.store(UNKNOWN, Ordering::Relaxed);
        failed.map_or(Ok(freed), Err)
    }

    /// `folder/ab/abcd….entry`
    fn path(&self, key: &[u8; 32]) -> PathBuf {
        let name = blake3::Hash::from(*key).to_hex();
        self.folder.join(&name[..2]).join(&*name).with_extension(ENTRY)
    }

    /// What the entry of this key claims to be, not verified.
    pub(crate) fn peek(&self, key: &[u8; 32]) -> Option<Header> {
        entry::peek(key, open(&self.path(key))?)
    }

    /// The entry of this key, verified, if it holds all `wanted` outputs; it counts as used now.
    /// Once `stopped` says so, nothing is read any more and nothing is found.
    pub(crate) fn find(
        &self,
        key: &[u8; 32],
        wanted: &[bool],
        stopped: &dyn Fn() -> bool,
    ) -> Option<Verified> {
        let file = open(&self.path(key))?;
        let _ = file.set_modified(SystemTime::now());
        match entry::verify(key, file, stopped) {
            Ok(found) => covers(&found.header.holds, wanted).then_some(found),
            Err(Error::Cancelled) => None,
            Err(error) => {
                self.broken(key, &error.to_string());
                None
            }
        }
    }

    /// Removes an entry that turned out to be broken.
    pub(crate) fn broken(&self, key: &[u8; 32], why: &str) {
        let path = self.path(key);
        tracing::warn!(path = %path.display(), "A cached result is broken and was removed: {why}.");
        let _ = remove(&path);
    }

    /// Removes an entry, if there is one.
    pub(crate) fn forget(&self, key: &[u8; 32]) {
        let _ = remove(&self.path(key));
    }

    /// Stores an entry. When it cannot, a warning is logged once and the run goes on.
    pub(crate) fn store(&self, key: &[u8; 32], header: &Header, outputs: &[Option<Value>]) {
        if let Err(error) = self.try_store(key, header, outputs)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let folder = self.folder.display();
            tracing::warn!(%folder, "A result could not be kept on disk: {error}. The run goes on without.");
        }
    }

    fn try_store(&self, key: &[u8; 32], header: &Header, outputs: &[Option<Value>]) -> Result<()> {
        let about = outputs.iter().flatten().map(length).sum::<u64>();
        if about > self.limit {
            tracing::debug!(about, limit = self.limit, "A result is larger than the whole cache.");
            return Ok(());
        }
        if self.about.load(Ordering::Relaxed) == UNKNOWN {
            // Processes that are killed while they store must not fill the disk together.
            self.about.store(self.size(), Ordering::Relaxed);
        }
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut temporary = locked(folder)?;
        let mut to = BufWriter::with_capacity(1 << 18, temporary.as_file_mut());
        entry::write(key, header, outputs, &mut to)?;
        to.flush()?;
        drop(to);
        let bytes = temporary.as_file().metadata()?.len();
        if bytes > self.limit {
            return Ok(());
        }
        temporary.as_file().sync_data()?;
        persist(temporary, &path)?;
        self.make_room(&path, bytes);
        Ok(())
    }

    /// Removes the least recently used entries when the folder has grown past its limit.
    fn make_room(&self, newest: &Path, added: u64) {
        let stores = self.stores.fetch_add(1, Ordering::Relaxed);
        let about = self.about.load(Ordering::Relaxed);
        let grown = about.saturating_add(added);
        if about != UNKNOWN && !stores.is_multiple_of(LOOK_EVERY) && grown <= self.limit {
            self.about.fetch_add(added, Ordering::Relaxed);
            return;
        }
        // One process at a time, or both would remove as much as one should.
        let lock = File::create(self.folder.join("lock"));
        let Some(_lock) = lock.ok().filter(|lock| lock.try_lock().is_ok()) else { return };
        let mut entries = self.list();
        let mut total: u64 = entries.iter().map(|found| found.bytes).sum();
        if total > self.limit {
            entries.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
            // A little more than needed, so that the next few entries need no such search.
            let goal = self.limit - self.limit / 16;
            for found in
                entries.iter().filter(|found| found.path != newest && !is_temporary(&found.path))
            {
                if total <= goal {
                    break;
                }
                if remove(&found.path).is_ok() {
                    total -= found.bytes;
                }
            }
        }
        self.about.store(total, Ordering::Relaxed);
    }

    /// The folders of all forms of entries.
    fn folders(&self) -> Vec<PathBuf> {
        let is_form = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(FORMS) && path.is_dir()
        };
        children(&self.root).filter(is_form).collect()
    }

    /// All that lies in the cache, what processes are writing included; what killed ones left is
    /// removed on the way.
    fn list(&self) -> Vec<Found> {
        let found = self.folders().into_iter().flat_map(|folder| below(&folder));
        let found = found.filter_map(|path| look(&path));
        found
            .filter(|one| !is_temporary(&one.path) || !matches!(remove_abandoned(one), Ok(true)))
            .collect()
    }
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// What lies in the folders of a form, but for its lock.
fn below(folder: &Path) -> Vec<PathBuf> {
    children(folder).filter(|path| path.is_dir()).flat_map(|path| children(&path)).collect()
}

/// Opens an entry. Whatever else may have taken its name would be waited for, or read, for ever.
fn open(path: &Path) -> Option<File> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    File::open(path).ok()
}

/// Removes whatever lies at a path; what is gone already is no error.
fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A temporary file that is locked as long as it is written, by which other processes know that it
/// was not left behind.
fn locked(folder: &Path) -> std::io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
        // Where files cannot be locked, its age has to tell.
        let _ = file.as_file().lock();
        // Between being made and being locked it may have been taken for a left-over.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

/// About how long a value is when it is stored.
fn length(value: &Value) -> u64 {
    match value {
        Value::Typed(typed) => {
            let more: u64 = typed.more().iter().map(|(_, field)| length(field)).sum();
            typed.get().map_or_else(|| typed.bytes(), |frames| Frames::bytes(frames) + more)
        }
        Value::List(items) => items.iter().map(|(_, item)| length(item)).sum(),
        Value::Custom(record) => record.fields.iter().map(|(_, field)| length(field)).sum(),
        other => other.bytes(),
    }
}

fn look(path: &Path) -> Option<Found> {
    let about = fs::symlink_metadata(path).ok()?;
    Some(Found { path: path.to_owned(), bytes: about.len(), modified: about.modified().ok()? })
}

/// Removes a temporary file unless a process is writing it, and says whether it did.
fn remove_abandoned(found: &Found) -> std::io::Result<bool> {
    let is_file = fs::symlink_metadata(&found.path).is_ok_and(|about| about.is_file());
    let file = is_file.then(|| File::options().write(true).open(&found.path).ok()).flatten();
    // Locked until it is gone: whoever has just made it and waits for the lock sees that it is.
    match file.as_ref().map(File::try_lock) {
        Some(Err(TryLockError::WouldBlock)) => return Ok(false),
        Some(Err(TryLockError::Error(_)))
            if found.modified.elapsed().map_or(true, |age| age < ABANDONED) =>
        {
            return Ok(false);
        }
        _ => {}
    }
    remove(&found.path).map(|()| true)
}

fn persist(temporary: NamedTempFile, path: &Path) -> Result<()> {
    temporary.persist(path).map(drop).map_err(|error| error.error.into())
}
