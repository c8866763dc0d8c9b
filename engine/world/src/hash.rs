//! Hashes of files, remembered by their stamps.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kino_port::{FileStamp, path_to_text};
use serde::{Deserialize, Serialize};

use crate::{AtomicFile, Error, InputFile, Result};

/// The blake3 hash of a file's contents, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    hash_contents(&mut InputFile::open(path)?, &|| false)
}

/// The hash of what follows in a file, unless `stopped` says so before.
fn hash_contents(file: &mut InputFile, stopped: &dyn Fn() -> bool) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        if stopped() {
            return Err(Error::refused("reading it was cancelled", ""));
        }
        let read = file.read(&mut buffer).map_err(Error::io("read", file.path()))?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

/// A file's contents and what the file was like that held them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// The blake3 hash of the contents, in hexadecimal.
    pub hash: String,
    /// The stamp that the file had before and after it was read.
    pub stamp: FileStamp,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    /// The file's stamp as text.
    stamp: String,
    hash: String,
    /// When it was used last, counted in uses of the table.
    #[serde(default)]
    used: u64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// How often entries were used.
    uses: u64,
    /// The file does not have all entries.
    unsaved: bool,
    /// When the file was written last.
    saved: Option<Instant>,
}

/// Hashes of files by path and stamp; kept in the process and, if given a place, on disk.
///
/// Several processes may share the table: one that loses an update hashes again. The file begins
/// with a checksum of the rest, so one that is damaged counts as empty. It is written as a whole:
/// where many files are new, now and then, and when the cache is saved or dropped.
#[derive(Default)]
pub struct HashCache {
    table: Mutex<Table>,
    place: Option<PathBuf>,
    /// Held by whoever writes the file.
    saving: Mutex<()>,
}

/// More files than this are not remembered: those that were used longest ago go.
const MOST: usize = 1 << 14;
/// So many stay then.
const KEPT: usize = MOST / 8 * 7;
/// The file is written at most so often while files are hashed.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest table that is read, in bytes.
const LONGEST_TABLE: u64 = 64 << 20;
/// A file that changes while it is read is read again so often.
const TRIES: usize = 3;

impl HashCache {
    /// A table kept in the process alone.
    pub fn new() -> Self {
        HashCache::default()
    }

    /// The table at `place`; a missing or damaged one begins empty. What killed processes left of
    /// it is removed: where no file is new, nothing is written there, which would remove it.
    pub fn at(place: PathBuf) -> Self {
        place.parent().into_iter().for_each(crate::remove_leftovers);
        let entries = load(&place).unwrap_or_default();
        let uses = entries.values().map(|entry| entry.used).max().unwrap_or(0);
        let table = Table { entries, uses, ..Table::default() };
        HashCache { table: Mutex::new(table), place: Some(place), saving: Mutex::default() }
    }

    /// The hash of a file's contents, with the stamp that belongs to them.
    ///
    /// # Errors
    /// When it cannot be read, or changes all the while.
    pub fn hash(&self, path: &Path) -> Result<FileHash> {
        self.hash_unless(path, &|| false)
    }

    /// As [`HashCache::hash`], unless `stopped` says so while a large file is read.
    ///
    /// # Errors
    /// As [`HashCache::hash`], and when it was stopped.
    pub fn hash_unless(&self, path: &Path, stopped: &dyn Fn() -> bool) -> Result<FileHash> {
        self.hash_at(path, SystemTime::now(), stopped)
    }

    /// As [`HashCache::hash_unless`], of a file that is open; it is left at its beginning.
    ///
    /// # Errors
    /// As [`HashCache::hash_unless`].
    pub fn hash_opened(
        &self,
        file: &mut InputFile,
        stopped: &dyn Fn() -> bool,
    ) -> Result<FileHash> {
        let hash = self.hash_opened_at(file, SystemTime::now(), stopped)?;
        file.rewind().map_err(Error::io("read", file.path()))?;
        Ok(hash)
    }

    fn hash_at(
        &self,
        path: &Path,
        now: SystemTime,
        stopped: &dyn Fn() -> bool,
    ) -> Result<FileHash> {
        self.hash_opened_at(&mut InputFile::open(path)?, now, stopped)
    }

    fn hash_opened_at(
        &self,
        file: &mut InputFile,
        now: SystemTime,
        stopped: &dyn Fn() -> bool,
    ) -> Result<FileHash> {
        let path = file.path().to_owned();
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = path_to_text(&absolute).into_owned();
        let mut stamp = file.stamp();
        for _ in 0..TRIES {
            if let Some(hash) = self.lock().find(&name, &stamp) {
                return Ok(FileHash { hash, stamp });
            }
            file.rewind().map_err(Error::io("read", &path))?;
            let hash = hash_contents(file, stopped)?;
            let after = file.stamp_now()?;
            if after == stamp {
                // Another change in the same tick of the file system's clock would not show.
                if stamp.is_settled(now) {
                    self.remember(name, &stamp, &hash, Instant::now());
                }
                return Ok(FileHash { hash, stamp });
            }
            stamp = after;
        }
        Err(Error::content(&path, "it changes while it is read")
            .advise("try again when nothing writes it any more"))
    }

    fn remember(&self, name: String, stamp: &FileStamp, hash: &str, now: Instant) {
        let mut table = self.lock();
        table.insert(name, stamp.to_string(), hash.to_owned());
        let due = table.saved.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL);
        drop(table);
        if due {
            self.save_at(now);
        }
    }

    /// Writes the table down where files are new in it. One that cannot be kept costs hashes next
    /// time, nothing else.
    pub fn save(&self) {
        self.save_at(Instant::now());
    }

    fn save_at(&self, now: Instant) {
        let Some(place) = &self.place else { return };
        // One after the other, so that no older table takes the place of a newer one.
        let _alone = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = self.lock();
        if !std::mem::take(&mut table.unsaved) {
            return;
        }
        table.saved = Some(now);
        let entries = table.entries.clone();
        drop(table);
        let write = || -> Result<PathBuf> {
            let json = serde_json::to_string(&entries)
                .map_err(|error| Error::content(place, error.to_string()))?;
            let mut file = AtomicFile::create(place)?;
            let text = format!("{}\n{json}", checksum(&json));
            std::io::Write::write_all(&mut file, text.as_bytes()).map_err(file.failed())?;
            file.finish()
        };
        if let Err(error) = write() {
            tracing::debug!("The table of hashes was not kept: {error}.");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HashCache {
    fn drop(&mut self) {
        self.save();
    }
}

impl Table {
    fn find(&mut self, name: &str, stamp: &FileStamp) -> Option<String> {
        let entry = self.entries.get_mut(name).filter(|entry| entry.stamp == stamp.to_string())?;
        self.uses += 1;
        entry.used = self.uses;
        Some(entry.hash.clone())
    }

    fn insert(&mut self, name: String, stamp: String, hash: String) {
        self.uses += 1;
        self.entries.insert(name, Entry { stamp, hash, used: self.uses });
        self.unsaved = true;
        if self.entries.len() > MOST {
            let mut uses: Vec<_> = self.entries.values().map(|entry| entry.used).collect();
            let (_, least, _) = uses.select_nth_unstable_by(KEPT - 1, |a, b| b.cmp(a));
            let least = *least;
            self.entries.retain(|_, entry| entry.used >= least);
        }
    }
}

fn checksum(json: &str) -> String {
    blake3::hash(json.as_bytes()).to_hex().to_string()
}

/// The table in a file, unless it is damaged.
fn load(place: &Path) -> Option<HashMap<String, Entry>> {
    let text = crate::read_text(place, LONGEST_TABLE).ok()?;
    let (sum, json) = text.split_once('\n')?;
    if sum != checksum(json) {
        tracing::debug!("The table of hashes is damaged; it begins empty.");
        return None;
    }
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;

    /// A time at which all changes so far lie far back.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    fn hash_of(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex().to_string()
    }

    #[test]
    fn a_changed_file_is_hashed_again_and_a_broken_table_begins_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (file, table) = (folder.path().join("x"), folder.path().join("hashes.json"));
        fs::write(&file, "one").unwrap();
        fs::write(&table, "no table").unwrap();
        let first = HashCache::at(table.clone()).hash_at(&file, later(), &|| false).unwrap();
        assert_eq!(first.hash, hash_of(b"one"));
        assert_eq!(HashCache::at(table.clone()).hash(&file).unwrap(), first);
        fs::write(&file, "two, longer").unwrap();
        assert_eq!(HashCache::at(table).hash(&file).unwrap().hash, hash_file(&file).unwrap());
        let none = hash_file(&folder.path().join("none")).unwrap_err().to_string();
        assert!(none.contains("there is no such file"));
    }

    /// Puts another hash into the table, so that it shows whether the table is asked.
    fn falsify(hashes: &HashCache) {
        hashes.lock().entries.values_mut().for_each(|entry| entry.hash = "false".to_owned());
    }

    #[test]
    fn a_hash_is_remembered_once_the_file_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, "one").unwrap();
        let hashes = HashCache::new();
        hashes.hash(&file).unwrap();
        falsify(&hashes);
        assert_eq!(hashes.hash_at(&file, later(), &|| false).unwrap().hash, hash_of(b"one"));
        falsify(&hashes);
        assert_eq!(hashes.hash(&file).unwrap().hash, "false");
    }

    #[cfg(unix)]
    #[test]
    fn other_contents_of_the_same_length_and_time_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let write = |text: &str| {
            // Longer than a tick of the clock that file systems take their times from.
            std::thread::sleep(Duration::from_millis(20));
            fs::write(&file, text).unwrap();
            File::options().write(true).open(&file).unwrap().set_modified(hour_ago).unwrap();
        };
        let hashes = HashCache::new();
        write("one");
        assert_eq!(hashes.hash_at(&file, later(), &|| false).unwrap().hash, hash_of(b"one"));
        write("two");
        assert_eq!(hashes.hash_at(&file, later(), &|| false).unwrap().hash, hash_of(b"two"));
        // Another file under the same name, with the times of the one before.
        let other = folder.path().join("y");
        fs::write(&other, "six").unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(hour_ago).unwrap();
        fs::rename(&other, &file).unwrap();
        assert_eq!(hashes.hash_at(&file, later(), &|| false).unwrap().hash, hash_of(b"six"));
    }

    #[test]
    fn the_table_is_written_now_and_then_and_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("hashes.json");
        let hashes = HashCache::at(place.clone());
        let (begun, stamp) = (Instant::now(), FileStamp::default());
        let add = |number: usize, now| hashes.remember(format!("{number}"), &stamp, "hash", now);
        let saved = || load(&place).map_or(0, |entries| entries.len());
        (0..1000).for_each(|number| add(number, begun));
        assert_eq!(saved(), 1);
        add(1000, begun + INTERVAL);
        assert_eq!(saved(), 1001);
        add(1001, begun + INTERVAL);
        hashes.save();
        assert_eq!(saved(), 1002);
        fs::remove_file(&place).unwrap();
        hashes.save();
        assert!(!place.exists(), "nothing is new");
        add(1002, begun + INTERVAL);
        drop(hashes);
        assert_eq!(saved(), 1003);
    }

    #[test]
    fn the_files_that_were_used_longest_ago_go() {
        let hashes = HashCache::new();
        let stamp = FileStamp::default();
        for number in 0..MOST {
            hashes.remember(format!("{number}"), &stamp, "hash", Instant::now());
        }
        let find = |number: usize| hashes.lock().find(&format!("{number}"), &stamp);
        assert!(find(0).is_some());
        hashes.remember("new".to_owned(), &stamp, "hash", Instant::now());
        assert_eq!(hashes.lock().entries.len(), KEPT);
        assert!(find(0).is_some() && find(MOST - 1).is_some());
        assert!(find(1).is_none() && hashes.lock().find("new", &stamp).is_some());
    }

    #[test]
    fn a_flipped_bit_in_the_table_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let (file, table) = (folder.path().join("x"), folder.path().join("hashes.json"));
        fs::write(&file, "one").unwrap();
        HashCache::at(table.clone()).hash_at(&file, later(), &|| false).unwrap();
        let whole = fs::read(&table).unwrap();
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(&table, bytes).unwrap();
                let found = HashCache::at(table.clone()).hash(&file).unwrap();
                assert_eq!(found.hash, hash_of(b"one"), "bit {bit} of byte {at}");
            }
        }
    }
}
