//! What sinks wrote: a sink is up to date as long as its files are as it wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use kino_node::{OutputFile, Outputs, RemoveLeftovers, Services, Value};
use kino_port::FileStamp;

use crate::by_key::ByKey;
use crate::entry::{self, Header, OutputStamp};

/// What the files of a sink are now, compared to what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Untouched, going by their stamps.
    Untouched,
    /// Touched, yet with the same contents; the record should get the new stamps.
    Same(Vec<OutputStamp>),
    /// Gone, or with other contents.
    Changed,
}

/// Of longer files nothing is read only to say what would become of their sink.
const LONGEST_HASHED: u64 = 16 << 20;

/// As many sinks are remembered in memory; the oldest ones go first.
const MAX_RECORDS: usize = 4096;

/// What sinks wrote during the life of the process, by key.
#[derive(Default)]
pub(crate) struct Records {
    by_key: ByKey<(u64, Header, Outputs)>,
    /// Keys by the turn in which they were entered.
    order: BTreeMap<u64, [u8; 32]>,
    turn: u64,
}

impl Records {
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<(Header, Outputs)> {
        self.by_key.get(key).map(|(_, header, outputs)| (header.clone(), outputs.clone()))
    }

    pub(crate) fn insert(&mut self, key: [u8; 32], header: Header, outputs: Outputs) {
        self.remove(&key);
        self.turn += 1;
        self.by_key.insert(key, (self.turn, header, outputs));
        self.order.insert(self.turn, key);
        while self.by_key.len() > MAX_RECORDS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8; 32]) {
        if let Some((turn, ..)) = self.by_key.remove(key) {
            self.order.remove(&turn);
        }
    }
}

/// All files among outputs.
pub(crate) fn files(outputs: &[Option<Value>]) -> Vec<OutputFile> {
    fn gather(value: &Value, into: &mut Vec<OutputFile>) {
        match value {
            Value::File(file) => into.push(OutputFile::clone(file)),
            Value::List(items) => items.iter().for_each(|(_, item)| gather(item, into)),
            Value::Typed(typed) => typed.more().iter().for_each(|(_, field)| gather(field, into)),
            Value::Custom(record) => {
                record.fields.iter().for_each(|(_, field)| gather(field, into))
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    outputs.iter().flatten().for_each(|value| gather(value, &mut found));
    found
}

/// Removes what killed processes left beside files that are up to date: nobody writes there now, so
/// nobody else does.
pub(crate) fn remove_leftovers<'a>(
    up_to_date: impl Iterator<Item = &'a Outputs>,
    services: &Services,
) {
    let Some(remove) = services.find::<RemoveLeftovers>() else { return };
    let mut folders = BTreeSet::new();
    for file in up_to_date.flat_map(|outputs| files(outputs)) {
        folders.extend(file.path.parent().map(Path::to_owned));
    }
    for folder in folders {
        let is_here = folder.as_os_str().is_empty();
        (remove.0)(if is_here { Path::new(".") } else { &folder });
    }
}

/// The stamps of files that a sink has just written; none if one of them cannot be found.
pub(crate) fn record(files: &[OutputFile]) -> Option<Vec<OutputStamp>> {
    let stamp = |file: &OutputFile| {
        let (bytes, stamp) = look(&file.path)?;
        let whole = bytes == file.bytes;
        whole.then(|| OutputStamp {
            path: file.path.clone(),
            hash: file.hash.clone(),
            bytes,
            stamp,
        })
    };
    files.iter().map(stamp).collect()
}

/// Whether recorded files are there, going by their lengths.
pub(crate) fn are_there(recorded: &[OutputStamp]) -> bool {
    let is_there =
        |file: &OutputStamp| look(&file.path).is_some_and(|(bytes, _)| bytes == file.bytes);
    !recorded.is_empty() && recorded.iter().all(is_there)
}

/// Whether recorded files seem to be what was recorded, going by their stamps. Where a stamp
/// differs, a short file is hashed; a long one is taken at its word until a run reads it, which can
/// be stopped.
pub(crate) fn seem_unchanged(recorded: &[OutputStamp]) -> bool {
    let is_there = |file: &OutputStamp| {
        let Some((bytes, stamp)) = look(&file.path) else { return false };
        let is_same = || hash(&file.path, &|| false).as_ref() == Some(&file.hash);
        bytes == file.bytes && (stamp == file.stamp || bytes > LONGEST_HASHED || is_same())
    };
    !recorded.is_empty() && recorded.iter().all(is_there)
}

/// What recorded files are now. A record without files never counts as up to date, nor does one
/// that was not read when `stopped` says so.
pub(crate) fn check(recorded: &[OutputStamp], stopped: &dyn Fn() -> bool) -> State {
    let mut now = Vec::with_capacity(recorded.len());
    for file in recorded {
        match look(&file.path) {
            Some((bytes, stamp)) if bytes == file.bytes => {
                if stamp != file.stamp && hash(&file.path, stopped).as_ref() != Some(&file.hash) {
                    return State::Changed;
                }
                now.push(OutputStamp { stamp, ..file.clone() });
            }
            _ => return State::Changed,
        }
    }
    match recorded {
        [] => State::Changed,
        _ if now == recorded => State::Untouched,
        _ => State::Same(now),
    }
}

/// Length and stamp of a file.
fn look(path: &Path) -> Option<(u64, String)> {
    let about = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((about.len(), FileStamp::of(&about).to_string()))
}

fn hash(path: &Path, stopped: &dyn Fn() -> bool) -> Option<String> {
    let hash = entry::hash(&mut File::open(path).ok()?, stopped).ok()?;
    Some(hash.to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_not_read_to_say_whether_it_seems_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let with_length = |bytes| fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let recorded = |bytes, hash: &str| {
            let (path, hash) = (path.clone(), hash.to_owned());
            seem_unchanged(&[OutputStamp { path, hash, bytes, stamp: "another".to_owned() }])
        };
        with_length(LONGEST_HASHED + 1);
        assert!(recorded(LONGEST_HASHED + 1, "not its hash"));
        assert!(!recorded(LONGEST_HASHED + 2, "not its hash"));
        with_length(3);
        assert!(!recorded(3, "not its hash"));
        assert!(recorded(3, blake3::hash(&[0; 3]).to_hex().as_str()));
        fs::remove_file(&path).unwrap();
        assert!(!recorded(3, blake3::hash(&[0; 3]).to_hex().as_str()));
        assert!(!seem_unchanged(&[]));
    }

    #[test]
    fn the_oldest_records_go() {
        let mut records = Records::default();
        let key = |number: usize| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let header = Header { holds: Vec::new(), seconds: 0.0, files: Vec::new(), memory: 0 };
        for number in 0..MAX_RECORDS + 10 {
            records.insert(key(number), header.clone(), Vec::new());
            // One that is entered again and again stays.
            records.insert(key(0), header.clone(), Vec::new());
        }
        assert_eq!((records.by_key.len(), records.order.len()), (MAX_RECORDS, MAX_RECORDS));
        assert!(records.get(&key(0)).is_some() && records.get(&key(1)).is_none());
        records.remove(&key(0));
        assert!(records.get(&key(0)).is_none());
        assert_eq!(records.by_key.len(), records.order.len());
    }
}
