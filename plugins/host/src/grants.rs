//! Files that a plugin was granted: resolved, read, and hashed for keys.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use kino_contract::code;
use kino_node::{Error, Result, open_regular, read_regular};
use kino_port::{FileStamp, PlannedFile, PlannedRead, path_to_text};

use crate::module::PluginFiles;

/// Files of granted folders beyond this number enter keys by samples and their stamp.
const MAX_HASHED: usize = 256;
/// So do files larger than this.
const LARGEST_HASHED: u64 = 64 << 20;
/// So many samples are taken of such a file, at equal distances, its end among them.
const SAMPLES: u64 = 16;
/// The bytes of one.
const SAMPLE: u64 = 4096;
/// The largest file that is read for a plugin.
const LARGEST_READ: u64 = 1 << 30;

/// Where the system shows itself and its devices as files: no plugin reads there.
const OF_THE_SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Where something that is granted really lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// In the folder of the graph, or nowhere.
    Inside,
    /// Outside of it.
    Elsewhere(PathBuf),
    /// Where the system shows itself and its devices.
    OfTheSystem(PathBuf),
}

/// Where grants really lie, links resolved, seen from the folder of the graph.
pub fn places_of(root: &Path, read: &[String]) -> Vec<(String, Beyond)> {
    let real_root = root.canonicalize();
    let place = |grant: &String| {
        let Ok(real) = root.join(normal(grant)).canonicalize() else { return Beyond::Inside };
        if OF_THE_SYSTEM.iter().any(|system| real.starts_with(system)) {
            return Beyond::OfTheSystem(real);
        }
        match &real_root {
            Ok(root) if real.starts_with(root) => Beyond::Inside,
            _ => Beyond::Elsewhere(real),
        }
    };
    read.iter().map(|grant| (grant.clone(), place(grant))).collect()
}

/// Granted files and folders below one root.
pub struct GrantedFiles {
    root: PathBuf,
    read: Vec<String>,
    /// Places outside of the root that the user has agreed to, links resolved.
    beyond: Vec<PathBuf>,
    hashes: Mutex<HashMap<(PathBuf, bool), (FileStamp, String)>>,
    advice: Option<String>,
}

impl GrantedFiles {
    /// What the lock grants, relative to the folder of the graph.
    pub fn new(root: &Path, read: &[String]) -> Self {
        GrantedFiles {
            root: root.to_owned(),
            read: read.to_vec(),
            beyond: Vec::new(),
            hashes: Mutex::default(),
            advice: None,
        }
    }

    /// With places outside of the graph's folder that the user has agreed to, to which links in it
    /// may lead.
    #[must_use]
    pub fn reaching(self, beyond: Vec<PathBuf>) -> Self {
        GrantedFiles { beyond, ..self }
    }

    /// Where a grant really lies, if it may be there: in the folder of the graph, or where the user
    /// has agreed to. Asked each time: who wrote the graph may turn a link meanwhile.
    fn place(&self, grant: &Path) -> std::io::Result<PathBuf> {
        let real = self.root.join(grant).canonicalize()?;
        let is_agreed = || self.beyond.iter().any(|place| real.starts_with(place));
        let is_inside = || self.root.canonicalize().is_ok_and(|root| real.starts_with(root));
        if OF_THE_SYSTEM.iter().any(|system| real.starts_with(system)) {
            let what = format!("it leads to {}, which no plugin reads", real.display());
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what));
        }
        if !(is_inside() || is_agreed()) {
            let what = format!(
                "it leads to {}, outside of the folder of the graph, and you have not agreed to that",
                real.display()
            );
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what));
        }
        Ok(real)
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
        .with_code(code::NOT_GRANTED)
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
        let missing = |error: std::io::Error| Error::from(error).within(format_args!("`{path}`"));
        let within = self.place(&normal(grant)).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => self.refused(path, &error.to_string()),
            _ => missing(error),
        })?;
        let real = self.root.join(&clean).canonicalize().map_err(missing)?;
        if !real.starts_with(&within) {
            return Err(self.refused(path, "a link leads out of what was granted"));
        }
        Ok(real)
    }

    /// The hash of a file for keys, and the stamp that belongs to it: of its contents, or of its
    /// stamp and samples where it is long or not to be read `whole`.
    fn hash(
        &self,
        path: &Path,
        whole: bool,
        now: SystemTime,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(String, FileStamp)> {
        let (mut file, about) = open_regular(path)?;
        let stamp = FileStamp::of(&about);
        let whole = whole && stamp.length <= LARGEST_HASHED;
        let name = (path.to_owned(), whole);
        let known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some((_, hash)) = known.filter(|(was, _)| *was == stamp) {
            return Ok((hash, stamp));
        }
        let hash = match whole {
            true => hash_whole(&mut file, stopped)?,
            false => hash_samples(&mut file, &stamp)?,
        };
        // Another change in the same tick of the file system's clock would not show.
        if stamp.is_settled(now) && FileStamp::of(&file.metadata()?) == stamp {
            let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            hashes.insert(name, (stamp, hash.clone()));
        }
        Ok((hash, stamp))
    }

    /// As [`PluginFiles::fingerprint_grants`], at a time.
    fn fingerprint_at(
        &self,
        now: SystemTime,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<PlannedRead>> {
        let mut reads = Vec::new();
        for grant in &self.read {
            let grant = normal(grant);
            let (start, files) = match self.place(&grant).and_then(files_of) {
                Ok(found) => found,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let place = self.root.join(&grant);
                    let files = vec![PlannedFile { path: place, stamp: None }];
                    reads.push(PlannedRead {
                        path: shown(&grant),
                        hash: "missing".to_owned(),
                        files,
                        ..PlannedRead::default()
                    });
                    continue;
                }
                Err(error) => return Err(Error::failed(format!("`{}`: {error}", shown(&grant)))),
            };
            for (index, file) in files.iter().enumerate() {
                if stopped() {
                    return Err(Error::Cancelled);
                }
                // Devices and pipes are never read: not here, nor for the plugin.
                if !std::fs::metadata(file).is_ok_and(|about| about.is_file()) {
                    continue;
                }
                let (hash, stamp) = self.hash(file, index < MAX_HASHED, now, stopped)?;
                // As the plugin names it: the same wherever the graph's folder lies.
                let named = match file.strip_prefix(&start) {
                    Ok(within) if !within.as_os_str().is_empty() => &grant.join(within),
                    _ => &grant,
                };
                let files = vec![PlannedFile { path: file.clone(), stamp: Some(stamp) }];
                let path = shown(named);
                reads.push(PlannedRead { path, hash, files, ..PlannedRead::default() });
            }
        }
        Ok(reads)
    }
}

/// The hash of all that a file holds.
fn hash_whole(file: &mut File, stopped: &dyn Fn() -> bool) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        if stopped() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&buffer[..read]),
        };
    }
}

/// The hash of a file's stamp and of samples of what it holds: what was not sampled cannot change
/// without the stamp.
fn hash_samples(file: &mut File, stamp: &FileStamp) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(stamp.to_string().as_bytes());
    let last = stamp.length.saturating_sub(SAMPLE);
    let mut starts: Vec<_> = (0..SAMPLES)
        .map(|at| (u128::from(last) * u128::from(at) / u128::from(SAMPLES - 1)) as u64)
        .collect();
    starts.dedup();
    let mut sample = Vec::new();
    for start in starts {
        file.seek(SeekFrom::Start(start))?;
        sample.clear();
        file.take(SAMPLE).read_to_end(&mut sample)?;
        hasher.update(&sample);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn shown(path: &Path) -> String {
    path_to_text(path).into_owned()
}

fn normal(grant: &str) -> PathBuf {
    Path::new(grant).components().filter(|part| *part != Component::CurDir).collect()
}

/// The files of what is granted, and where it lies.
fn files_of(start: PathBuf) -> std::io::Result<(PathBuf, Vec<PathBuf>)> {
    let mut files = Vec::new();
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
        let fault = |error: std::io::Error| Error::from(error).within(format_args!("`{path}`"));
        let metadata = std::fs::metadata(&real).map_err(fault)?;
        if !metadata.is_file() {
            return Err(Error::coded(code::NOT_FOUND, format!("`{path}` is no file")));
        }
        if metadata.len() > LARGEST_READ {
            let bytes = metadata.len();
            return Err(Error::coded(
                code::LIMIT,
                format!("`{path}` has {bytes} bytes, at most {LARGEST_READ} are read for a plugin"),
            ));
        }
        read_regular(&real, LARGEST_READ).map_err(fault)
    }

    fn fingerprint_grants(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<PlannedRead>> {
        self.fingerprint_at(SystemTime::now(), stopped)
    }

    fn places(&self) -> Vec<PathBuf> {
        self.read.iter().map(|grant| self.root.join(normal(grant))).collect()
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
            let error = granted.read(path).unwrap_err();
            assert!(error.to_string().contains("may not be read"), "{path:?}: {error}");
            assert_eq!(error.code(), code::NOT_GRANTED);
        }
        assert_eq!(granted.read("luts/none.cube").unwrap_err().code(), code::NOT_FOUND);
        assert!(granted.read("luts").unwrap_err().to_string().contains("is no file"));
        assert_eq!(granted.fingerprint_grants(&|| false).unwrap().len(), 1);
        let before = granted.fingerprint_grants(&|| false).unwrap();
        std::fs::write(root.join("luts/deep/a.cube"), "b").unwrap();
        assert_ne!(granted.fingerprint_grants(&|| false).unwrap(), before);
    }

    /// What files enter keys as, at a time when all changes so far lie far back.
    fn prints(granted: &GrantedFiles) -> Vec<String> {
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        let reads = granted.fingerprint_at(later, &|| false).unwrap();
        reads.into_iter().map(|read| read.hash).collect()
    }

    /// Whoever writes a file can keep its length and its time of modification.
    #[cfg(unix)]
    #[test]
    fn other_contents_of_the_same_length_and_time_are_seen() {
        use std::time::Duration;

        const LONG: u64 = LARGEST_HASHED + 1;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("luts")).unwrap();
        let at = |name: &str| folder.path().join("luts").join(name);
        (0..MAX_HASHED).for_each(|i| std::fs::write(at(&format!("f{i}")), "").unwrap());
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let write = |path: &Path, text: &str, length: u64| {
            // Longer than a tick of the clock that file systems take their times from.
            std::thread::sleep(Duration::from_millis(20));
            std::fs::write(path, text).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(length).unwrap();
            file.set_modified(hour_ago).unwrap();
        };
        // Hashed whole, too long for that, and the 258th file, two after the ones before.
        for (name, length) in [("a.cube", 3), ("b.cube", LONG), ("z.cube", 3)] {
            let granted = GrantedFiles::new(folder.path(), &["luts".to_owned()]);
            write(&at(name), "one", length);
            let one = prints(&granted);
            assert_eq!(prints(&granted), one);
            write(&at(name), "two", length);
            let two = prints(&granted);
            assert_ne!(two, one, "{name}");
            // Another file under the same name.
            let other = folder.path().join("other");
            write(&other, "six", length);
            std::fs::rename(&other, at(name)).unwrap();
            let six = prints(&granted);
            assert!(six != two && six != one, "{name}");
        }
    }

    #[test]
    fn hashing_what_was_granted_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.cube"), vec![1; 1 << 20]).unwrap();
        let granted = GrantedFiles::new(folder.path(), &["a.cube".to_owned()]);
        let asked = std::cell::Cell::new(0);
        // Not before the file is read, but while it is.
        let stopped = || asked.replace(asked.get() + 1) == 2;
        let error = granted.fingerprint_grants(&stopped).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!(asked.get(), 3);
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
        let granted = granted.reaching(vec![real.canonicalize().unwrap()]);
        assert_eq!(granted.read("luts/a.cube").unwrap(), b"a");
        let before = granted.fingerprint_grants(&|| false).unwrap();
        assert_eq!(before[0].path, "luts/a.cube");
        std::fs::write(real.join("a.cube"), "b").unwrap();
        assert_ne!(granted.fingerprint_grants(&|| false).unwrap(), before);
    }

    /// Also one that was turned after the plan was made.
    #[cfg(unix)]
    #[test]
    fn a_grant_reaches_no_farther_than_the_graph_s_folder_and_what_was_agreed_to() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("graph"), folder.path().join("other"));
        for place in [&root, &other, &folder.path().join("agreed")] {
            std::fs::create_dir_all(place).unwrap();
            std::fs::write(place.join("a.cube"), "a").unwrap();
        }
        let luts = root.join("luts");
        let turn = |to: &Path| {
            let _ = std::fs::remove_file(&luts);
            symlink(to, &luts).unwrap();
        };
        let agreed = folder.path().join("agreed").canonicalize().unwrap();
        let granted = GrantedFiles::new(&root, &["luts".to_owned()]).reaching(vec![agreed.clone()]);
        turn(&agreed);
        assert!(granted.read("luts/a.cube").is_ok());
        for (to, why) in [
            (&*other, "outside of the folder of the graph, and you have not agreed"),
            (Path::new("/"), "outside of the folder of the graph"),
            (Path::new("/proc/self"), "which no plugin reads"),
            (Path::new("/dev"), "which no plugin reads"),
        ] {
            turn(to);
            let read = granted.read("luts/a.cube").unwrap_err();
            assert!(read.to_string().contains(why), "{read}");
            assert_eq!(read.code(), code::NOT_GRANTED);
            let hashed = granted.fingerprint_grants(&|| false).unwrap_err().to_string();
            assert!(hashed.contains(why), "{hashed}");
        }
        let everything = GrantedFiles::new(&root, &["luts".to_owned()]).reaching(vec!["/".into()]);
        turn(Path::new("/proc/self/environ"));
        assert!(everything.read("luts").unwrap_err().to_string().contains("which no plugin reads"));
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
