//! Files that a plugin was granted: resolved, read, and hashed for keys.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use kino_node::{Error, Result, read_regular};
use kino_port::{FileStamp, PlannedFile, PlannedRead, path_to_text};

use crate::module::PluginFiles;

/// Files of granted folders beyond this number enter keys by length and time alone.
const MAX_HASHED: usize = 256;
/// So do files larger than this.
const LARGEST_HASHED: u64 = 64 << 20;
/// The largest file that is read for a plugin.
const LARGEST_READ: u64 = 1 << 30;

/// GrantedFiles files and folders below one root.
pub struct GrantedFiles {
    root: PathBuf,
    read: Vec<String>,
    hashes: Mutex<HashMap<PathBuf, (u64, SystemTime, String)>>,
    advice: Option<String>,
}

impl GrantedFiles {
    /// What the lock grants, relative to the folder of the graph.
    pub fn new(root: &Path, read: &[String]) -> Self {
        GrantedFiles {
            root: root.to_owned(),
            read: read.to_vec(),
            hashes: Mutex::default(),
            advice: None,
        }
    }

    /// With what users are told to do where more should be granted.
    #[must_use]
    pub fn advising(self, advice: impl Into<String>) -> Self {
        GrantedFiles { advice: Some(advice.into()), ..self }
    }

    fn refused(&self, path: &str, why: &str) -> Error {
        let granted = match self.read.as_slice() {
            [] => "nothing was granted".to_owned(),
            some => format!("granted are {}", some.join(", ")),
        };
        Error::advised(
            format!("`{path}` may not be read: {why}"),
            match &self.advice {
                Some(advice) => format!("{granted}; {advice}"),
                None => granted,
            },
        )
    }

    /// Where a file that a plugin names really lies.
    ///
    /// # Errors
    /// When it is absolute, contains `..`, lies in nothing that was granted, or a link leads out.
    pub fn resolve(&self, path: &str) -> Result<PathBuf> {
        let clean = kino_contract::path::clean(path).map_err(|why| self.refused(path, &why))?;
        let grant = self.read.iter().find(|grant| clean.starts_with(normal(grant)));
        let Some(grant) = grant else {
            return Err(self.refused(path, "it is not among what the plugin was granted"));
        };
        let missing = |error: std::io::Error| Error::failed(format!("`{path}`: {error}"));
        let within = self.root.join(normal(grant)).canonicalize().map_err(missing)?;
        let real = self.root.join(&clean).canonicalize().map_err(missing)?;
        if !real.starts_with(&within) {
            return Err(self.refused(path, "a link leads out of what was granted"));
        }
        Ok(real)
    }

    fn hash(&self, path: &Path, metadata: &std::fs::Metadata, full: bool) -> Result<String> {
        let (length, modified) = (metadata.len(), metadata.modified()?);
        if !full || length > LARGEST_HASHED {
            return Ok(format!("{length}@{modified:?}"));
        }
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((was, at, hash)) = hashes.get(path)
            && (*was, *at) == (length, modified)
        {
            return Ok(hash.clone());
        }
        let hash = blake3::hash(&read_regular(path, LARGEST_HASHED)?).to_hex().to_string();
        // A file that was written just now may change again within one tick of the clock.
        if modified.elapsed().is_ok_and(|age| age.as_secs() >= 2) {
            hashes.insert(path.to_owned(), (length, modified, hash.clone()));
        }
        Ok(hash)
    }
}

fn shown(path: &Path) -> String {
    path_to_text(path).into_owned()
}

fn normal(grant: &str) -> PathBuf {
    Path::new(grant).components().filter(|part| *part != Component::CurDir).collect()
}

/// Where a grant really lies, which may be behind a link as it may for reading, and its files.
fn files_of(grant: &Path) -> std::io::Result<(PathBuf, Vec<PathBuf>)> {
    let (start, mut files) = (grant.canonicalize()?, Vec::new());
    walk(&start, &mut files)?;
    Ok((start, files))
}

/// All files below a path, in order; links are not followed.
fn walk(path: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        into.push(path.to_owned());
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| walk(entry, into))
}

impl PluginFiles for GrantedFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let real = self.resolve(path)?;
        let fault = |error: std::io::Error| Error::failed(format!("`{path}`: {error}"));
        let metadata = std::fs::metadata(&real).map_err(fault)?;
        if !metadata.is_file() {
            return Err(Error::failed(format!("`{path}` is no file")));
        }
        if metadata.len() > LARGEST_READ {
            return Err(Error::failed(format!(
                "`{path}` has {} bytes, at most {LARGEST_READ} are read for a plugin",
                metadata.len()
            )));
        }
        read_regular(&real, LARGEST_READ).map_err(fault)
    }

    fn fingerprint_grants(&self) -> Result<Vec<PlannedRead>> {
        let mut reads = Vec::new();
        for grant in &self.read {
            let grant = normal(grant);
            let (start, files) = match files_of(&self.root.join(&grant)) {
                Ok(found) => found,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let place = self.root.join(&grant);
                    let files = vec![PlannedFile { path: place, stamp: None }];
                    reads.push(PlannedRead {
                        path: shown(&grant),
                        hash: "missing".to_owned(),
                        files,
                    });
                    continue;
                }
                Err(error) => return Err(Error::failed(format!("`{}`: {error}", shown(&grant)))),
            };
            for (index, file) in files.iter().enumerate() {
                let Ok(metadata) = std::fs::metadata(file) else { continue };
                // Devices and pipes are never read: not here, nor for the plugin.
                if !metadata.is_file() {
                    continue;
                }
                let hash = self.hash(file, &metadata, index < MAX_HASHED)?;
                // As the plugin names it: the same wherever the graph's folder lies.
                let named = match file.strip_prefix(&start) {
                    Ok(within) if !within.as_os_str().is_empty() => &grant.join(within),
                    _ => &grant,
                };
                let stamp = Some(FileStamp::of(&metadata));
                let files = vec![PlannedFile { path: file.clone(), stamp }];
                reads.push(PlannedRead { path: shown(named), hash, files });
            }
        }
        Ok(reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_reads_what_was_granted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("graph");
        std::fs::create_dir_all(root.join("luts/deep")).unwrap();
        std::fs::write(root.join("luts/deep/a.cube"), "a").unwrap();
        std::fs::write(root.join("luts_secret"), "s").unwrap();
        std::fs::write(folder.path().join("out.txt"), "s").unwrap();
        let granted = GrantedFiles::new(&root, &["./luts".to_owned()]);
        assert_eq!(granted.read("luts/deep/a.cube").unwrap(), b"a");
        assert_eq!(granted.read("./luts/./deep/a.cube").unwrap(), b"a");
        for path in [
            "luts_secret",
            "luts/../luts_secret",
            "../out.txt",
            "/etc/passwd",
            "",
            ".",
            "luts\\..\\x",
            "luts/\0",
        ] {
            let error = granted.read(path).unwrap_err().to_string();
            assert!(error.contains("may not be read"), "{path:?}: {error}");
        }
        assert!(granted.read("luts").unwrap_err().to_string().contains("is no file"));
        assert_eq!(granted.fingerprint_grants().unwrap().len(), 1);
        let before = granted.fingerprint_grants().unwrap();
        std::fs::write(root.join("luts/deep/a.cube"), "b").unwrap();
        assert_ne!(granted.fingerprint_grants().unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_grant_that_is_a_link_enters_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (root, real) = (folder.path().join("graph"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&real).unwrap();
        std::fs::write(real.join("a.cube"), "a").unwrap();
        std::os::unix::fs::symlink(&real, root.join("luts")).unwrap();
        let granted = GrantedFiles::new(&root, &["luts".to_owned()]);
        assert_eq!(granted.read("luts/a.cube").unwrap(), b"a");
        let before = granted.fingerprint_grants().unwrap();
        assert_eq!(before[0].path, "luts/a.cube");
        std::fs::write(real.join("a.cube"), "b").unwrap();
        assert_ne!(granted.fingerprint_grants().unwrap(), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_does_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("graph");
        std::fs::create_dir_all(root.join("luts")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("luts/link")).unwrap();
        let granted = GrantedFiles::new(&root, &["luts".to_owned()]);
        let error = granted.read("luts/link").unwrap_err().to_string();
        assert!(error.contains("a link leads out"), "{error}");
    }
}
