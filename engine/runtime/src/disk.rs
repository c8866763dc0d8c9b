//! The cache on disk: a folder of entries named by key, shared by any number of processes.
//!
//! An entry appears by renaming a finished temporary file, so a reader sees it whole or not at all.
//! A reader that finds nothing, or something broken, has a miss; a writer that cannot write goes
//! without. Neither is an error.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use kino_node::{Frames, Result, Value};
use tempfile::NamedTempFile;

use crate::entry::{self, Header, Verified};

/// The folder of this form of entries; another form gets another name.
const FORM: &str = "values-1";
const ENTRY: &str = "entry";
/// Temporary files older than this were left behind by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// After this many entries of our own we look at what other processes added.
const LOOK_EVERY: u64 = 64;
const UNKNOWN: u64 = u64::MAX;

/// Results of expensive steps on disk, found by key.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    limit: u64,
    /// About how many bytes lie in the folder; unknown until first needed.
    about: AtomicU64,
    stores: AtomicU64,
    warned: AtomicBool,
}

struct Found {
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
}

impl DiskCache {
    /// A cache in `folder`, which need not exist, of at most `limit_bytes`: the least recently used
    /// entries go first.
    pub fn open(folder: impl AsRef<Path>, limit_bytes: u64) -> Self {
        DiskCache {
            folder: folder.as_ref().join(FORM),
            limit: limit_bytes,
            about: AtomicU64::new(UNKNOWN),
            stores: AtomicU64::new(0),
            warned: AtomicBool::new(false),
        }
    }

    /// The bytes of all entries.
    pub fn size(&self) -> u64 {
        self.list().iter().map(|found| found.bytes).sum()
    }

    /// Removes all entries and returns how many bytes they had.
    ///
    /// # Errors
    /// When an entry cannot be removed.
    pub fn clear(&self) -> std::io::Result<u64> {
        let mut freed = 0;
        for found in self.list() {
            match fs::remove_file(&found.path) {
                Ok(()) => freed += found.bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.about.store(UNKNOWN, Ordering::Relaxed);
        Ok(freed)
    }

    /// `folder/ab/abcd….entry`
    fn path(&self, key: &[u8; 32]) -> PathBuf {
        let name = blake3::Hash::from(*key).to_hex();
        self.folder.join(&name[..2]).join(&*name).with_extension(ENTRY)
    }

    /// What the entry of this key claims to be, not verified.
    pub(crate) fn peek(&self, key: &[u8; 32]) -> Option<Header> {
        entry::peek(key, &self.path(key))
    }

    /// The entry of this key, verified, if it holds all `wanted` outputs; it counts as used now.
    pub(crate) fn find(&self, key: &[u8; 32], wanted: &[bool]) -> Option<Verified> {
        let path = self.path(key);
        let file = File::open(&path).ok()?;
        let _ = file.set_modified(SystemTime::now());
        match entry::verify(key, file) {
            Ok(found) => covers(&found.header.holds, wanted).then_some(found),
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
        let _ = fs::remove_file(path);
    }

    /// Removes an entry, if there is one.
    pub(crate) fn forget(&self, key: &[u8; 32]) {
        let _ = fs::remove_file(self.path(key));
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
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut temporary = tempfile::Builder::new().prefix("tmp-").tempfile_in(folder)?;
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
            for found in entries.iter().filter(|found| found.path != newest) {
                if total <= goal {
                    break;
                }
                if fs::remove_file(&found.path).is_ok() {
                    total -= found.bytes;
                }
            }
        }
        self.about.store(total, Ordering::Relaxed);
    }

    /// All entries; temporary files left behind are removed on the way.
    fn list(&self) -> Vec<Found> {
        let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten());
        files.flatten().filter_map(|file| look(&file)).collect()
    }
}

/// Whether an entry that holds `holds` has all of `wanted`.
pub(crate) fn covers(holds: &[bool], wanted: &[bool]) -> bool {
    holds.len() == wanted.len() && holds.iter().zip(wanted).all(|(holds, wanted)| *holds || !wanted)
}

/// About how long a value is when it is stored.
fn length(value: &Value) -> u64 {
    match value {
        Value::Typed(typed) => typed.get().map_or_else(|| typed.bytes(), Frames::bytes),
        Value::List(items) => items.iter().map(|(_, item)| length(item)).sum(),
        Value::Custom(record) => record.fields.iter().map(|(_, field)| length(field)).sum(),
        other => other.bytes(),
    }
}

fn look(file: &fs::DirEntry) -> Option<Found> {
    let path = file.path();
    let metadata = file.metadata().ok()?;
    let modified = metadata.modified().ok()?;
    if path.extension().is_some_and(|extension| extension == ENTRY) {
        return Some(Found { path, bytes: metadata.len(), modified });
    }
    let is_temporary = file.file_name().to_string_lossy().starts_with("tmp-");
    if is_temporary && modified.elapsed().is_ok_and(|age| age > ABANDONED) {
        let _ = fs::remove_file(&path);
    }
    None
}

fn persist(temporary: NamedTempFile, path: &Path) -> Result<()> {
    temporary.persist(path).map(drop).map_err(|error| error.error.into())
}
