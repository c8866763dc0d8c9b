//! A watched file or folder as it was when it was looked at: which files there are, and the hash of
//! each one's contents.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kino_port::FileStamp;

use super::change::FileChangeKind;
use crate::InputFile;

/// Of files longer than this only the ends are hashed, with length and time: weights of models.
const LARGE: u64 = 64 << 20;
/// As much of each end of a large file.
const END: u64 = 64 << 10;
/// More files or folders than this in one folder are not looked at.
pub(super) const MAX_FILES: usize = 10_000;

/// A file's or folder's own number, where the system has such.
fn number_of(about: &Metadata) -> u64 {
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(about);
    #[cfg(not(unix))]
    let number = about.created().map_or(0, |time| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64)
    });
    number
}

/// The number of what stands at a path.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|about| number_of(&about))
}

/// What kind of thing stands at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Missing,
    File,
    Folder,
}

/// The files at a path, unread: the file itself under the empty name, or all those in the folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    kind: Kind,
    stamps: BTreeMap<PathBuf, FileStamp>,
    /// The folder and all those in it, without links.
    pub(super) folders: Vec<PathBuf>,
    /// Whether there is more than was looked at.
    pub(super) is_cut: bool,
}

impl Listing {
    pub(super) fn of(path: &Path) -> Self {
        let mut listing = Listing::default();
        match fs::metadata(path) {
            Ok(about) if about.is_dir() => {
                listing.kind = Kind::Folder;
                listing.enter(path, Path::new(""), &mut HashSet::new());
            }
            Ok(about) => {
                listing.kind = Kind::File;
                listing.stamps.insert(PathBuf::new(), FileStamp::of(&about));
            }
            Err(_) => {}
        }
        listing
    }

    fn enter(&mut self, folder: &Path, name: &Path, seen: &mut HashSet<PathBuf>) {
        let Ok(place) = folder.canonicalize() else { return };
        if !seen.insert(place.clone()) {
            return;
        }
        self.folders.push(place);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.stamps.len() >= MAX_FILES || self.folders.len() >= MAX_FILES {
                self.is_cut = true;
                return;
            }
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            match fs::metadata(&path) {
                Ok(about) if about.is_dir() => self.enter(&path, &name, seen),
                Ok(about) => drop(self.stamps.insert(name, FileStamp::of(&about))),
                Err(_) => {}
            }
        }
    }
}

/// A file that was read.
#[derive(Clone, Debug)]
struct Print {
    stamp: FileStamp,
    /// Whether the stamp says enough: the file had not changed for a while when it was read.
    settled: bool,
    hash: [u8; 32],
}

/// How a path stood when it was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    kind: Kind,
    files: BTreeMap<PathBuf, Print>,
}

impl Snapshot {
    /// Looks at a path, and reads what may have changed since `before`; none if it changes
    /// meanwhile.
    pub(super) fn look(path: &Path, before: Option<&Snapshot>) -> Option<Self> {
        let Listing { kind, stamps, .. } = Listing::of(path);
        let known = |name: &Path, stamp: &FileStamp| {
            let print = before?.files.get(name)?;
            (print.settled && print.stamp == *stamp).then(|| print.clone())
        };
        let mut files = BTreeMap::new();
        for (name, stamp) in &stamps {
            let print = match known(name, stamp) {
                Some(print) => print,
                None => {
                    let settled = stamp.is_settled(SystemTime::now());
                    Print { stamp: *stamp, settled, hash: hash(&place(path, name), stamp) }
                }
            };
            files.insert(name.clone(), print);
        }
        let after = Listing::of(path);
        (after.kind == kind && after.stamps == stamps).then_some(Snapshot { kind, files })
    }

    /// Whether the path stands like this, going by lengths and times.
    pub(super) fn seems_to_be(&self, path: &Path) -> bool {
        let now = Listing::of(path);
        now.kind == self.kind
            && now.stamps.len() == self.files.len()
            && now.stamps.iter().zip(&self.files).all(|(now, was)| now == (was.0, &was.1.stamp))
    }

    /// Whether this looks like the middle of a change: gone, or emptied.
    pub(super) fn is_half_of(&self, before: &Snapshot) -> bool {
        match self.kind {
            Kind::Missing => before.kind != Kind::Missing,
            _ => self.files.iter().any(|(name, print)| {
                let was = before.files.get(name).map_or(0, |was| was.stamp.length);
                print.stamp.length == 0 && was > 0
            }),
        }
    }

    /// What changed, going by contents.
    pub(super) fn becomes(&self, now: &Snapshot) -> Option<FileChangeKind> {
        let hashes = |snapshot: &Snapshot| -> Vec<(PathBuf, [u8; 32])> {
            snapshot.files.iter().map(|(name, print)| (name.clone(), print.hash)).collect()
        };
        match (self.kind, now.kind) {
            (Kind::Missing, Kind::Missing) => None,
            (Kind::Missing, _) => Some(FileChangeKind::Appeared),
            (_, Kind::Missing) => Some(FileChangeKind::Vanished),
            (was, is) => {
                (was != is || hashes(self) != hashes(now)).then_some(FileChangeKind::Changed)
            }
        }
    }
}

fn place(path: &Path, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() { path.to_owned() } else { path.join(name) }
}

/// The hash of a file's contents; one that cannot be read is told from others by its stamp, and so
/// are pipes and devices, which would be read for ever.
fn hash(path: &Path, stamp: &FileStamp) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let file = InputFile::open(path).map_err(std::io::Error::other);
    let read = file.and_then(|mut file| {
        if stamp.length <= LARGE {
            return hasher.update_reader(file).map(drop);
        }
        hasher.update(format!("{stamp:?}").as_bytes());
        let mut end = Vec::new();
        file.by_ref().take(END).read_to_end(&mut end)?;
        file.seek(SeekFrom::End(-(END as i64)))?;
        file.take(END).read_to_end(&mut end)?;
        hasher.update(&end);
        Ok(())
    });
    if read.is_err() {
        hasher.reset().update(format!("unreadable {stamp:?}").as_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that has no end to speak of is looked at in part, and says so.
    #[test]
    fn a_folder_of_too_many_files_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: String| drop(fs::File::create(folder.path().join(name)).unwrap());
        fs::create_dir(folder.path().join("in")).unwrap();
        (0..MAX_FILES).for_each(|at| file(format!("in/{at}")));
        let listing = Listing::of(folder.path());
        assert!(!listing.is_cut && listing.stamps.len() == MAX_FILES);
        file("in/more".to_owned());
        let listing = Listing::of(folder.path());
        assert!(listing.is_cut && listing.stamps.len() == MAX_FILES);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_looked_at_and_never_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        fs::write(at("file"), "text").unwrap();
        let snapshot = Snapshot::look(folder.path(), None).unwrap();
        assert_eq!(snapshot.files.len(), 3);
        for name in ["pipe", "zero", "file"] {
            let snapshot = Snapshot::look(&at(name), None).unwrap();
            assert_eq!(snapshot.files.len(), 1, "{name}");
        }
    }
}
