//! Compiled code of components, kept on disk between processes.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kino_node::{Error, Result};
use wasmtime::component::Component;

use crate::stop::root;

/// Bytes of compiled code that are kept before the oldest files go.
const LIMIT: u64 = 512 << 20;
/// How the names of finished files end: those with code, and those with descriptors.
const CODE: &str = "compiled";
const DESCRIPTOR: &str = "descriptor";
/// Bytes of the checksum before the contents.
const CHECKSUM: usize = blake3::OUT_LEN;

/// A folder with a file for each component and each way of compiling it, and one with what the
/// component says of its nodes, so that a graph is checked without its code.
///
/// A file is the BLAKE3 hash of what follows, then what [`Component::serialize`] or the component
/// gave. The name of code is the hash of the component and of whatever decides how this engine
/// compiles: the version, the options and the processor's features; that of a descriptor is the
/// hash of the component and of this program's version.
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
    /// When `compile` cannot compile it. A file that is damaged or cannot be written is no error.
    pub(crate) fn compile(
        &self,
        engine: &wasmtime::Engine,
        component: &[u8],
        compile: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Component> {
        let path = self.path(engine, component);
        let take_up = |code: &[u8]| deserialize(engine, code).map_err(|error| root(&error));
        if let Some(code) = read(&path) {
            match take_up(&code) {
                Ok(found) => return Ok(found),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        let code = compile()?;
        if let Err(error) = self.write(&path, &code) {
            tracing::warn!("Compiled code of a plugin is not kept in {}: {error}", path.display());
        }
        take_up(&code).map_err(Error::failed)
    }

    /// What a component said of its nodes before.
    pub(crate) fn descriptor(&self, component: &[u8]) -> Option<String> {
        String::from_utf8(read(&self.descriptor_path(component))?).ok()
    }

    /// Keeps what a component says of its nodes.
    pub(crate) fn keep_descriptor(&self, component: &[u8], descriptor: &str) {
        let path = self.descriptor_path(component);
        if let Err(error) = self.write(&path, descriptor.as_bytes()) {
            tracing::debug!("A descriptor is not kept in {}: {error}", path.display());
        }
    }

    fn descriptor_path(&self, component: &[u8]) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes()).update(&[0]).update(component);
        self.folder.join(format!("{}.{DESCRIPTOR}", hasher.finalize()))
    }

    fn path(&self, engine: &wasmtime::Engine, component: &[u8]) -> PathBuf {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.write(component);
        self.folder.join(format!("{}.{CODE}", hasher.0.finalize()))
    }

    fn write(&self, path: &Path, contents: &[u8]) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        self.make_room(contents.len() as u64);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(blake3::hash(contents).as_bytes())?;
        file.write_all(contents)?;
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

/// The contents of a file whose checksum is right.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let mut checksum = [0; CHECKSUM];
    let mut contents = Vec::new();
    file.read_exact(&mut checksum).ok()?;
    file.read_to_end(&mut contents).ok()?;
    if *blake3::hash(&contents).as_bytes() != checksum {
        tracing::warn!("{} is damaged: its component is compiled again", path.display());
        return None;
    }
    // How recently a file was used decides which go first.
    let _ = file.set_modified(SystemTime::now());
    Some(contents)
}

/// Takes up code that was compiled here.
#[allow(unsafe_code)]
pub(crate) fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` wants bytes that `Engine::precompile_component` gave. They
    // come from there, from a process that this one has just started for it, which wrote them into
    // a folder that nobody else can write to, or from a file whose checksum says that they are those
    // that `write` put there; whoever writes another file with a right checksum into the user's
    // cache folder can run programs as that user anyway. Wasmtime itself refuses code of another
    // version or of other options.
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

    fn compile(cache: &CompiledCache, engine: &wasmtime::Engine) {
        let code = || Ok(engine.precompile_component(EMPTY).unwrap());
        cache.compile(engine, EMPTY, code).unwrap();
    }

    fn only_file(folder: &Path) -> PathBuf {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 1);
        files.pop().unwrap().path()
    }

    #[test]
    fn every_flipped_bit_is_seen_and_the_file_written_anew() {
        let (folder, engine) = (tempfile::tempdir().unwrap(), wasmtime::Engine::default());
        let cache = CompiledCache::new(folder.path());
        compile(&cache, &engine);
        let path = only_file(folder.path());
        let right = std::fs::read(&path).unwrap();
        for at in (0..right.len() * 8).step_by(right.len() * 8 / 97) {
            let mut wrong = right.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &wrong).unwrap();
            assert!(read(&path).is_none(), "bit {at}");
        }
        for length in [0, CHECKSUM - 1, CHECKSUM, right.len() - 1] {
            std::fs::write(&path, &right[..length]).unwrap();
            assert!(read(&path).is_none(), "{length} bytes");
        }
        compile(&cache, &engine);
        assert_eq!(std::fs::read(&path).unwrap(), right);
        assert!(read(&path).is_some());
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
        compile(&cache, &engine);
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
