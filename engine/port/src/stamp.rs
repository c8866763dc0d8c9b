//! What tells a file from what it was, without reading it.

use std::fmt;
use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A file's identity and its last change, as the file system tells them. Files of equal stamps are
/// taken for unchanged: who writes a file cannot keep its `changed`, unlike its `modified`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileStamp {
    /// The device that it lies on; 0 where the system does not say.
    pub device: u64,
    /// Its number on that device; 0 where the system does not say.
    pub inode: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When its contents were last changed, as whoever wrote them says: seconds since 1970, and
    /// nanoseconds.
    pub modified: (i64, u32),
    /// When its contents, name or rights were last changed, as the system says.
    pub changed: (i64, u32),
}

/// As long as this after a change, another one may leave the stamp as it is: the clocks of file
/// systems tick in steps of up to two seconds (FAT).
const TICK: Duration = Duration::from_secs(2);

impl FileStamp {
    /// The stamp of a file, by what the system says of it.
    #[cfg(unix)]
    pub fn of(about: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        FileStamp {
            device: about.dev(),
            inode: about.ino(),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec() as u32),
            changed: (about.ctime(), about.ctime_nsec() as u32),
        }
    }

    /// The stamp of a file, by what the system says of it.
    #[cfg(not(unix))]
    pub fn of(about: &Metadata) -> Self {
        let since = |time: std::io::Result<SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            since.map_or((0, 0), |since| (since.as_secs() as i64, since.subsec_nanos()))
        };
        let (modified, made) = (since(about.modified()), since(about.created()));
        FileStamp { length: about.len(), modified, changed: made.max(modified), ..Self::default() }
    }

    /// Whether the last change lies so far back that another one after `now` would show.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let Ok(seconds) = u64::try_from(seconds) else { return true };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > TICK))
    }
}

impl fmt::Display for FileStamp {
    /// All five parts in a form that is the same for equal stamps alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileStamp { device, inode, length, modified, changed } = self;
        write!(f, "{device:x}:{inode:x}:{length}:{}.{:09}", modified.0, modified.1)?;
        write!(f, ":{}.{:09}", changed.0, changed.1)
    }
}

/// A file that a step will read, as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it was like; none where there was no such file.
    pub stamp: Option<FileStamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_settled_when_its_last_change_is_long_past() {
        let at = |seconds| FileStamp { changed: (seconds, 500_000_000), ..FileStamp::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let settled = [-5, 0, 997, 998, 1000, 1001, i64::MAX].map(|at_| at(at_).is_settled(now));
        assert_eq!(settled, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn every_part_shows_in_the_text() {
        let stamp =
            FileStamp { device: 1, inode: 2, length: 3, modified: (-4, 5), changed: (6, 7) };
        assert_eq!(stamp.to_string(), "1:2:3:-4.000000005:6.000000007");
    }
}
