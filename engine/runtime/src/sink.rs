//! What sinks left behind: a sink is done as long as its files stand as it wrote them.

use std::fs::{self, File};
use std::path::Path;
use std::time::UNIX_EPOCH;

use kino_node::{FileOut, Value};

use crate::entry::Standing;

/// How the files of a sink stand now, compared to how it left them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Untouched, going by length and time.
    Untouched,
    /// Touched, yet with the same contents; the record should get the new times.
    Same(Vec<Standing>),
    /// Gone, or with other contents.
    Changed,
}

/// All files among outputs.
pub(crate) fn files(outputs: &[Option<Value>]) -> Vec<FileOut> {
    fn gather(value: &Value, into: &mut Vec<FileOut>) {
        match value {
            Value::File(file) => into.push(FileOut::clone(file)),
            Value::List(items) => items.iter().for_each(|(_, item)| gather(item, into)),
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

/// How files stand that a sink has just written; none if one of them cannot be found.
pub(crate) fn record(files: &[FileOut]) -> Option<Vec<Standing>> {
    let standing = |file: &FileOut| {
        let (bytes, modified) = look(&file.path)?;
        let whole = bytes == file.bytes;
        whole.then(|| Standing {
            path: file.path.clone(),
            hash: file.hash.clone(),
            bytes,
            modified,
        })
    };
    files.iter().map(standing).collect()
}

/// How recorded files stand now. A record without files never counts as done.
pub(crate) fn check(recorded: &[Standing]) -> State {
    let mut now = Vec::with_capacity(recorded.len());
    for file in recorded {
        match look(&file.path) {
            Some((bytes, modified)) if bytes == file.bytes => {
                if modified != file.modified && hash(&file.path).as_ref() != Some(&file.hash) {
                    return State::Changed;
                }
                now.push(Standing { modified, ..file.clone() });
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

/// Length and time of a file.
fn look(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((metadata.len(), modified.as_nanos() as u64))
}

fn hash(path: &Path) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).ok()?).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}
