//! What lies in the cache, held against the names that the hub gave its contents.

use std::fs::{self, File};

use kino_world::hub::{HubCache, HubSnapshot, files_asked, files_below};

use crate::blob::BlobHash;
use crate::error::{Error, Result};

/// What a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// Its contents have their hash.
    Good,
    /// Its contents have another hash.
    Damaged {
        /// The hash that they have.
        found: String,
    },
    /// It is not there, or its link leads nowhere.
    Missing,
    /// Its name is no hash that is known here: nothing can be said.
    Unknown,
}

/// A file of a snapshot, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    /// Its path in the snapshot.
    pub path: String,
    /// Its length in bytes, as far as it is there.
    pub bytes: u64,
    /// What it turned out to be.
    pub state: BlobState,
}

/// Reads all files of a snapshot and hashes them; those that a pull was asked for and that are not
/// there are among them. With `remove`, contents that are damaged go, so that they can be fetched
/// again. `tell` hears the path and length of each file before it is read.
///
/// # Errors
/// When a file cannot be read or removed, or it was cancelled.
pub fn verify(
    cache: &HubCache,
    snapshot: &HubSnapshot,
    remove: bool,
    tell: &dyn Fn(&str, u64),
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<VerifiedFile>> {
    let asked = files_asked(&cache.repository(&snapshot.model), &snapshot.commit).files;
    let mut paths: Vec<String> = files_below(&snapshot.folder);
    paths.extend(asked.keys().cloned());
    paths.sort();
    paths.dedup();
    let own = cache.repository(&snapshot.model).canonicalize().unwrap_or_default();
    let mut verified = Vec::new();
    for path in paths {
        let place = snapshot.folder.join(&path);
        let there = place.canonicalize().ok().filter(|real| real.is_file());
        let Some(real) = there else {
            verified.push(VerifiedFile { path, bytes: 0, state: BlobState::Missing });
            continue;
        };
        let bytes = fs::metadata(&real).map_err(Error::io("read", &real))?.len();
        tell(&path, bytes);
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Where the system has no links, the list says the hash.
        let name = asked.get(&path).map_or(name, |file| file.blob.clone());
        let mut hash = BlobHash::of(&name, bytes);
        let file = File::open(&real).map_err(Error::io("read", &real))?;
        if !hash.read(file, is_cancelled).map_err(Error::io("read", &real))? {
            return Err(Error::Cancelled);
        }
        let state = match hash.finish() {
            None => BlobState::Unknown,
            Some(found) if found == name => BlobState::Good,
            Some(found) => BlobState::Damaged { found },
        };
        // A link that leads out of the cache stands for a file of somebody else.
        if remove && real.starts_with(&own) && matches!(state, BlobState::Damaged { .. }) {
            fs::remove_file(&real).map_err(Error::io("removed", &real))?;
        }
        verified.push(VerifiedFile { path, bytes, state });
    }
    Ok(verified)
}
