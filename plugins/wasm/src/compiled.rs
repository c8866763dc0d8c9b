//! Compiled code of components, kept on disk between processes.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::component::Component;

use crate::stop::root;

/// Bytes of compiled code that are kept before the oldest files go.
const LIMIT: u64 = 512 << 20;
/// How the name of a finished file ends.
const SUFFIX: &str = "compiled";
/// Bytes of the checksum before the code.
const CHECKSUM: usize = blake3::OUT_LEN;

/// A folder with a file for each component and each way of compiling it.
///
/// A file is the BLAKE3 hash of what follows, then what [`Component::serialize`] gave. Its name is
/// the hash of the component and of whatever decides how this engine compiles: the version, the
/// options and the processor's features.
pub(crate) struct CompiledCache {
    folder: PathBuf,
    limit: u64,
}

impl CompiledCache {
    /// A cache in `folder`, which is made when the first file is written.
    pub(crate) fn new(folder: &Path) -> Self {
        CompiledCache { folder: folder.to_owned(), limit: LIMIT }
    }

    /// The component, compiled now unless its code lies in the folder.
    ///
    /// # Errors
    /// When it cannot be compiled. A file that is damaged or cannot be written is no error.
    pub(crate) fn compile(
        &self,
        engine: &wasmtime::Engine,
        component: &[u8],
    ) -> wasmtime::Result<Component> {
        let path = self.path(engine, component);
        if let Some(found) = read(engine, &path) {
            return Ok(found);
        }
        let compiled = Component::from_binary(engine, component)?;
        if let Err(error) = self.write(&path, &compiled) {
            tracing::warn!("Compiled code of a plugin is not kept in {}: {error}", path.display());
        }
        Ok(compiled)
    }

    fn path(&self, engine: &wasmtime::Engine, component: &[u8]) -> PathBuf {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.write(component);
        self.folder.join(format!("{}.{SUFFIX}", hasher.0.finalize()))
    }

    fn write(&self, path: &Path, compiled: &Component) -> std::io::Result<()> {
        let code = compiled.serialize().map_err(|error| std::io::Error::other(root(&error)))?;
        std::fs::create_dir_all(&self.folder)?;
        self.make_room(code.len() as u64);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(blake3::hash(&code).as_bytes())?;
        file.write_all(&code)?;
        file.persist(path)?;
        Ok(())
    }

    /// Removes what was used longest ago until `bytes` more fit.
    fn make_room(&self, bytes: u64) {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if let Ok(data) = entry.metadata()
                && data.is_file()
            {
                let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, data.len(), entry.path()));
            }
        }
        files.sort();
        let mut total = bytes + files.iter().map(|(_, length, _)| length).sum::<u64>();
        for (_, length, path) in files {
            if total <= self.limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= length;
            }
        }
    }
}

/// The component of a file whose checksum is right.
fn read(engine: &wasmtime::Engine, path: &Path) -> Option<Component> {
    let mut file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let (checksum, code) = bytes.split_at_checked(CHECKSUM)?;
    if blake3::hash(code).as_bytes() != checksum {
        tracing::warn!("{} is damaged: its component is compiled again", path.display());
        return None;
    }
    // How recently a file was used decides which go first.
    let _ = file.set_modified(SystemTime::now());
    deserialize(engine, code).inspect_err(|error| tracing::debug!("{}", root(error))).ok()
}

#[allow(unsafe_code)]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` wants bytes that `Component::serialize` gave. The checksum
    // before them says that they are those that `write` put there; whoever writes another file
    // with a right checksum into the user's cache folder can run programs as that user anyway.
    // Wasmtime itself refuses code of another version or of other options.
    unsafe { Component::deserialize(engine, code) }
}

/// A [`Hasher`] of which the whole hash is taken.
struct KeyHasher(blake3::Hasher);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        u64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn only_file(folder: &Path) -> PathBuf {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 1);
        files.pop().unwrap().path()
    }

    #[test]
    fn every_flipped_bit_is_seen_and_the_file_written_anew() {
        let (folder, engine) = (tempfile::tempdir().unwrap(), wasmtime::Engine::default());
        let cache = CompiledCache::new(folder.path());
        cache.compile(&engine, EMPTY).unwrap();
        let path = only_file(folder.path());
        let right = std::fs::read(&path).unwrap();
        for at in (0..right.len() * 8).step_by(right.len() * 8 / 97) {
            let mut wrong = right.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &wrong).unwrap();
            assert!(read(&engine, &path).is_none(), "bit {at}");
        }
        for length in [0, CHECKSUM - 1, CHECKSUM, right.len() - 1] {
            std::fs::write(&path, &right[..length]).unwrap();
            assert!(read(&engine, &path).is_none(), "{length} bytes");
        }
        cache.compile(&engine, EMPTY).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), right);
        assert!(read(&engine, &path).is_some());
    }

    #[test]
    fn code_of_other_options_has_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CompiledCache::new(folder.path());
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = wasmtime::Engine::new(&config).unwrap();
        let engine = wasmtime::Engine::default();
        assert_ne!(cache.path(&engine, EMPTY), cache.path(&other, EMPTY));
        assert_ne!(cache.path(&engine, EMPTY), cache.path(&engine, b"other"));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let (folder, engine) = (tempfile::tempdir().unwrap(), wasmtime::Engine::default());
        let mut cache = CompiledCache::new(folder.path());
        cache.compile(&engine, EMPTY).unwrap();
        let kept = only_file(folder.path());
        let old = folder.path().join("old.compiled");
        std::fs::write(&old, [0; 1000]).unwrap();
        File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        cache.limit = 1500 + kept.metadata().unwrap().len();
        cache.make_room(100);
        assert!(old.exists() && kept.exists());
        cache.make_room(1000);
        assert!(!old.exists() && kept.exists());
    }
}
