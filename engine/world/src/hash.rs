//! Hashes of files, remembered by length and modification time.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, WholeFile};

/// The blake3 hash of a file's contents, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    length: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    hash: String,
}

/// Hashes of files by path, length and modification time; kept in the process and, if given a
/// place, on disk.
///
/// Several processes may share the table: one that loses an update hashes again.
#[derive(Default)]
pub struct Hashes {
    table: Mutex<HashMap<String, Entry>>,
    place: Option<PathBuf>,
}

/// More files than this are not remembered on disk.
const MOST: usize = 4096;

impl Hashes {
    /// A table kept in the process alone.
    pub fn new() -> Self {
        Hashes::default()
    }

    /// The table at `place`; a missing or broken one begins empty.
    pub fn at(place: PathBuf) -> Self {
        let bytes = std::fs::read(&place).unwrap_or_default();
        let table = serde_json::from_slice(&bytes).unwrap_or_default();
        Hashes { table: Mutex::new(table), place: Some(place) }
    }

    /// The blake3 hash of a file's contents, in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hash(&self, path: &Path) -> Result<String> {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        let (length, modified) = (metadata.len(), modified(&metadata));
        let name = std::path::absolute(path)
            .unwrap_or_else(|_| path.to_owned())
            .to_string_lossy()
            .into_owned();
        if let Some(entry) = self.lock().get(&name)
            && (entry.length, entry.modified) == (length, modified)
        {
            return Ok(entry.hash.clone());
        }
        let hash = hash_file(path)?;
        if !settled(modified) {
            return Ok(hash);
        }
        let mut table = self.lock();
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(name, Entry { length, modified, hash: hash.clone() });
        self.save(&table);
        Ok(hash)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table that cannot be kept costs a hash next time, nothing else.
    fn save(&self, table: &HashMap<String, Entry>) {
        let Some(place) = &self.place else { return };
        let write = || -> Result<PathBuf> {
            let mut file = WholeFile::create(place)?;
            serde_json::to_writer(file.file(), table)
                .map_err(|error| Error::content(place, error.to_string()))?;
            file.finish()
        };
        if let Err(error) = write() {
            tracing::debug!("The table of hashes was not kept: {error}.");
        }
    }
}

/// Nanoseconds since 1970; 0 where the system does not say.
fn modified(metadata: &Metadata) -> u64 {
    let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    time.map_or(0, |since| since.as_nanos() as u64)
}

/// Whether the last change is so long ago that another one would show in the time. A file may
/// change twice within one tick of a file system's clock (up to two seconds) and keep its length,
/// so younger hashes are not remembered.
fn settled(modified: u64) -> bool {
    let modified = UNIX_EPOCH + Duration::from_nanos(modified);
    SystemTime::now().duration_since(modified).is_ok_and(|age| age > Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_hashed_again_and_a_broken_table_begins_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (file, table) = (folder.path().join("x"), folder.path().join("hashes.json"));
        std::fs::write(&file, "one").unwrap();
        std::fs::write(&table, "no table").unwrap();
        let first = Hashes::at(table.clone()).hash(&file).unwrap();
        assert_eq!(first, blake3::hash(b"one").to_hex().to_string());
        assert_eq!(Hashes::at(table.clone()).hash(&file).unwrap(), first);
        std::fs::write(&file, "two, longer").unwrap();
        assert_eq!(Hashes::at(table).hash(&file).unwrap(), hash_file(&file).unwrap());
        assert!(
            hash_file(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("there is no such file")
        );
    }

    #[test]
    fn a_hash_is_remembered_once_the_file_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let (file, table) = (folder.path().join("x"), folder.path().join("hashes.json"));
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let write = |text: &str, time: Option<SystemTime>| {
            std::fs::write(&file, text).unwrap();
            if let Some(time) = time {
                File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
            }
        };
        let hashes = Hashes::at(table.clone());
        write("one", None);
        let first = hashes.hash(&file).unwrap();
        write("two", None);
        assert_ne!(hashes.hash(&file).unwrap(), first, "same length, perhaps the same time");
        write("one", Some(hour_ago));
        assert_eq!(hashes.hash(&file).unwrap(), first);
        // Another process finds it in the table: the same time and length are taken for the same
        // contents.
        write("two", Some(hour_ago));
        assert_eq!(Hashes::at(table).hash(&file).unwrap(), first);
    }
}
