//! Fetching a model into the cache: what of it is needed, what is there already, and the rest, each
//! file whole or not at all.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kino_world::AtomicFile;
use kino_world::hub::{HubFile, HubFiles, HubModel, files_asked, files_asked_path};

use crate::access::HubAccess;
use crate::blob::BlobHash;
use crate::error::{Error, Result};
use crate::http::{Client, Follow};
use crate::remote::{Remote, address, of_file};
use crate::select;

/// How often something is tried again that fails without a byte more than before.
const TRIES: u32 = 5;
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Files that are fetched at once.
const AT_ONCE: usize = 4;
/// So long another process is waited for before that is told.
const SOON: Duration = Duration::from_millis(500);
/// The longest index, of a model or of a part's weights, in bytes.
const LONGEST_INDEX: u64 = 16 << 20;

/// What to fetch.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The model; with a file, that alone.
    pub model: HubModel,
    /// Patterns of the files that are wanted; empty for what the model needs to run.
    pub include: Vec<String>,
    /// The variant of the weights, such as `fp16`; none for the usual one.
    pub variant: Option<String>,
    /// Whether only to say what would be fetched.
    pub dry_run: bool,
}

/// What happens while a model is fetched; several threads may tell it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEvent<'a> {
    /// It is known what is to be fetched.
    Planned {
        /// Files, those included that are there.
        files: usize,
        /// Bytes of all of them.
        bytes: u64,
        /// How many of these are there already.
        present: u64,
    },
    /// Another process fetches this file; it is waited for.
    Waiting {
        /// Its path.
        path: &'a str,
    },
    /// Bytes arrived.
    Arrived {
        /// How many.
        bytes: u64,
    },
    /// What had arrived of a file is of no use.
    Lost {
        /// Its path.
        path: &'a str,
        /// How many bytes.
        bytes: u64,
    },
    /// Something failed and is tried again after a pause.
    Retrying {
        /// What happened.
        reason: &'a str,
    },
    /// A file stands at its place.
    Done {
        /// Its path.
        path: &'a str,
    },
}

/// A file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFile {
    /// Its path in the model.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes that were fetched of it, or would be; 0 where it was there.
    pub fetched: u64,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The commit.
    pub commit: String,
    /// The folder of the snapshot.
    pub folder: PathBuf,
    /// Its files, by path.
    pub files: Vec<PulledFile>,
    /// Files, and folders with a slash behind them, that its own indexes name and its repository
    /// lacks: with any of these it is not whole, however often it is pulled.
    pub lacking: Vec<String>,
}

/// Fetches a model, or what is not there yet of it. `tell` hears what happens; once `is_cancelled`
/// says so it ends soon, and what has arrived stays for the next time.
///
/// # Errors
/// When the hub does not give it, the disk does not take it, or contents are not what the hub says.
pub fn pull(
    access: &HubAccess,
    request: &PullRequest,
    tell: &(dyn Fn(PullEvent<'_>) + Sync),
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Pulled> {
    if access.cache.is_offline {
        return Err(Error::Offline(request.model.source()));
    }
    let client = Client::new(access);
    let model = request.model.whole();
    let mut puller = Puller {
        repository: access.cache.repository(&model),
        commit: String::new(),
        client,
        model,
        tell,
        is_cancelled,
    };
    let remote = puller.again("", || puller.client.look(&puller.model))?;
    puller.commit = remote.commit.clone();
    let Wanted { files, lacking } = puller.wanted(request, &remote)?;
    let planned: Vec<Planned> =
        files.into_iter().map(|path| puller.plan(path)).collect::<Result<_>>()?;
    let result = || Pulled {
        commit: remote.commit.clone(),
        folder: puller.snapshot(),
        files: planned
            .iter()
            .map(|file| PulledFile {
                path: file.path.clone(),
                bytes: file.about.size,
                fetched: file.missing - file.others.load(Ordering::Relaxed),
            })
            .collect(),
        lacking: lacking.iter().cloned().collect(),
    };
    let sum = |of: fn(&Planned) -> u64| planned.iter().map(of).fold(0, u64::saturating_add);
    let (bytes, missing) = (sum(|file| file.about.size), sum(|file| file.missing));
    let present = bytes.saturating_sub(missing);
    tell(PullEvent::Planned { files: planned.len(), bytes, present });
    if request.dry_run {
        return Ok(result());
    }
    puller.check_room(missing)?;
    puller.remember(&planned, &lacking)?;
    puller.fetch_all(&planned)?;
    puller.name_revision()?;
    Ok(result())
}

/// A pull on its way.
struct Puller<'a> {
    client: Client<'a>,
    model: HubModel,
    commit: String,
    /// The model's folder in the cache.
    repository: PathBuf,
    tell: &'a (dyn Fn(PullEvent<'_>) + Sync),
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// What is wanted of a model.
#[derive(Default)]
struct Wanted {
    /// The paths of files that the repository has.
    files: BTreeSet<String>,
    /// What it lacks.
    lacking: BTreeSet<String>,
}

/// A file that is wanted.
struct Planned {
    path: String,
    about: HubFile,
    /// Bytes that are not there.
    missing: u64,
    /// Bytes of these that somebody else fetched while this one waited.
    others: AtomicU64,
}

impl Puller<'_> {
    fn snapshot(&self) -> PathBuf {
        self.repository.join("snapshots").join(&self.commit)
    }

    fn blob(&self, about: &HubFile) -> PathBuf {
        self.repository.join("blobs").join(&about.blob)
    }

    /// Does something that may fail in passing, again after a pause where it does.
    fn again<T>(&self, path: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = self.client.access.pause;
        for _ in 1..TRIES {
            if (self.is_cancelled)() {
                return Err(Error::Cancelled);
            }
            match work() {
                Err(error) if error.is_passing() => {
                    let reason = error.to_string();
                    tracing::debug!(path, reason, "Trying again.");
                    (self.tell)(PullEvent::Retrying { reason: &reason });
                    self.wait(pause)?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                done => return done,
            }
        }
        work()
    }

    fn wait(&self, pause: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < pause {
            if (self.is_cancelled)() {
                return Err(Error::Cancelled);
            }
            thread::sleep(pause.saturating_sub(begin.elapsed()).min(Duration::from_millis(50)));
        }
        Ok(())
    }

    /// The files that are wanted, and those that the model's own indexes name without its
    /// repository having them.
    fn wanted(&self, request: &PullRequest, remote: &Remote) -> Result<Wanted> {
        let has = |path: &String| remote.files.contains(path);
        let only =
            |files: Vec<String>| Wanted { files: files.into_iter().collect(), ..Wanted::default() };
        if let Some(file) = &request.model.file {
            return select::included(&remote.files, std::slice::from_ref(file)).map(only);
        }
        if !request.include.is_empty() {
            return select::included(&remote.files, &request.include).map(only);
        }
        if !remote.files.iter().any(|file| file == select::INDEX) {
            return select::only_file(&self.model, &remote.files).map(only);
        }
        let index = self.read_json(select::INDEX)?;
        let variant = request.variant.as_deref();
        let files = select::of_pipeline(&self.model, &remote.files, &index, variant)?;
        let lacking = select::lacking_of_parts(&remote.files, &index, &files);
        let mut wanted = Wanted { lacking, ..only(files) };
        let indexes: Vec<String> =
            wanted.files.iter().filter(|file| select::is_index_of_weights(file)).cloned().collect();
        for path in indexes {
            let named = select::files_of_index(&path, &self.read_json(&path)?);
            let (there, absent): (BTreeSet<_>, _) = named.into_iter().partition(has);
            wanted.files.extend(there);
            wanted.lacking.extend(absent);
        }
        Ok(wanted)
    }

    /// A small file of JSON, from the cache or from the hub; nothing is written.
    fn read_json(&self, path: &str) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.read_small(path)?).map_err(|error| Error::Answer {
            what: of_file(&self.model, path),
            reason: format!("it is no JSON: {error}"),
        })
    }

    /// The contents of a small file, from the cache or from the hub; nothing is written.
    fn read_small(&self, path: &str) -> Result<Vec<u8>> {
        let what = of_file(&self.model, path);
        let about = self.again(path, || self.client.describe(&self.model, &self.commit, path))?;
        let too_long = || Error::Answer {
            what: what.clone(),
            reason: format!("it is longer than {LONGEST_INDEX} bytes"),
        };
        if about.size > LONGEST_INDEX {
            return Err(too_long());
        }
        if let Ok(bytes) = fs::read(self.blob(&about)) {
            return Ok(bytes);
        }
        self.again(path, || {
            let address = address(&self.model, &self.commit, path);
            let answer = self.client.ask(("GET", &address), (0, Follow::Anywhere), &what)?;
            let mut bytes = Vec::new();
            answer.reader(LONGEST_INDEX).read_to_end(&mut bytes).map_err(|error| {
                Error::Network { what: what.clone(), reason: format!("it was cut off: {error}") }
            })?;
            if bytes.len() as u64 > LONGEST_INDEX { Err(too_long()) } else { Ok(bytes) }
        })
    }

    /// What a file is, and how much of it is missing. Of one that is there the hub is not asked.
    fn plan(&self, path: String) -> Result<Planned> {
        if (self.is_cancelled)() {
            return Err(Error::Cancelled);
        }
        let known = files_asked(&self.repository, &self.commit).files.remove(&path);
        if let Some(about) = known.filter(|about| self.is_there(about)) {
            return Ok(Planned { path, about, missing: 0, others: AtomicU64::new(0) });
        }
        let about = self.again(&path, || self.client.describe(&self.model, &self.commit, &path))?;
        let begun = fs::metadata(incomplete(&self.blob(&about))).map_or(0, |about| about.len());
        let missing = match self.is_there(&about) {
            true => 0,
            false if begun > about.size => about.size,
            false => about.size - begun,
        };
        Ok(Planned { path, about, missing, others: AtomicU64::new(0) })
    }

    /// Whether the contents are there, by their length.
    fn is_there(&self, about: &HubFile) -> bool {
        fs::metadata(self.blob(about)).is_ok_and(|there| there.len() == about.size)
    }

    /// Whether the disk has room for so many bytes.
    fn check_room(&self, needed: u64) -> Result<()> {
        let blobs = self.repository.join("blobs");
        fs::create_dir_all(&blobs).map_err(Error::io("made", &blobs))?;
        match kino_world::free_bytes(&blobs) {
            Some(free) if free < needed => Err(Error::NoSpace { folder: blobs, free, needed }),
            _ => Ok(()),
        }
    }

    /// Notes what is asked for of this commit, so that whoever finds it cut off knows what is left.
    /// A revision that the cache does not know yet is named at once for the same reason; one that
    /// it knows keeps its commit until the new one is there.
    fn remember(&self, planned: &[Planned], lacking: &BTreeSet<String>) -> Result<()> {
        let mut asked: HubFiles = files_asked(&self.repository, &self.commit);
        asked.files.extend(planned.iter().map(|file| (file.path.clone(), file.about.clone())));
        asked.lacking.extend(lacking.iter().cloned());
        let path = files_asked_path(&self.repository, &self.commit);
        write(&path, &serde_json::to_vec(&asked).unwrap_or_default())?;
        fs::create_dir_all(self.snapshot()).map_err(Error::io("made", &self.snapshot()))?;
        match self.client.access.cache.commit(&self.model) {
            None => self.name_revision(),
            Some(_) => Ok(()),
        }
    }

    /// Writes which commit a branch or tag is at.
    fn name_revision(&self) -> Result<()> {
        if self.model.revision == self.commit {
            return Ok(());
        }
        write(&self.repository.join("refs").join(&self.model.revision), self.commit.as_bytes())
    }

    /// Fetches files, several at once. The first error ends it.
    fn fetch_all(&self, planned: &[Planned]) -> Result<()> {
        let queue: Mutex<VecDeque<&Planned>> = Mutex::new(planned.iter().collect());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let lock = |failed: &Mutex<Option<Error>>| {
            failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
        };
        let work = || {
            while !lock(&failed) {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(file) = next else { return };
                let stop = || lock(&failed) || (self.is_cancelled)();
                if let Err(error) = self.fetch(file, &stop) {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(planned.len()) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Brings a file to its place: its contents among the blobs, and a link to them.
    fn fetch(&self, file: &Planned, stop: &dyn Fn() -> bool) -> Result<()> {
        if !self.is_there(&file.about) {
            let held = self.lock(file, stop)?;
            // Whoever held the lock may have fetched it.
            match self.is_there(&file.about) {
                true => {
                    file.others.store(file.missing, Ordering::Relaxed);
                    (self.tell)(PullEvent::Arrived { bytes: file.missing });
                }
                false => self.fetch_blob(file, stop)?,
            }
            drop(held);
        }
        link(&self.snapshot(), &file.path, &self.blob(&file.about))?;
        (self.tell)(PullEvent::Done { path: &file.path });
        Ok(())
    }

    /// The lock of a blob, which `huggingface_hub` takes, too; none where files cannot be locked.
    fn lock(&self, file: &Planned, stop: &dyn Fn() -> bool) -> Result<Option<File>> {
        let locks = self.client.access.cache.folder.join(".locks").join(self.model.folder_name());
        fs::create_dir_all(&locks).map_err(Error::io("made", &locks))?;
        let path = locks.join(format!("{}.lock", file.about.blob));
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = open.map_err(Error::io("written", &path))?;
        let (begin, mut has_told) = (Instant::now(), false);
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(%error, "This folder's files cannot be locked.");
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) if stop() => return Err(Error::Cancelled),
                Err(TryLockError::WouldBlock) => {
                    // A small file is there before anybody has read that it is waited for.
                    if begin.elapsed() > SOON && !std::mem::replace(&mut has_told, true) {
                        (self.tell)(PullEvent::Waiting { path: &file.path });
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Fetches contents, from where an earlier time ended; they stand at their place once their hash
    /// is right.
    fn fetch_blob(&self, file: &Planned, stop: &dyn Fn() -> bool) -> Result<()> {
        let (blob, path) = (self.blob(&file.about), &*file.path);
        let partial_path = incomplete(&blob);
        let mut has_restarted = false;
        loop {
            let mut partial = Partial::open(&partial_path, &file.about, stop)?;
            let was_begun = partial.length > 0;
            self.fill(&mut partial, file, stop)?;
            let Err(found) = partial.finish()? else { break };
            fs::remove_file(&partial_path).map_err(Error::io("removed", &partial_path))?;
            (self.tell)(PullEvent::Lost { path, bytes: file.about.size });
            if !was_begun || std::mem::replace(&mut has_restarted, true) {
                let expected = file.about.blob.clone();
                return Err(Error::Hash { path: of_file(&self.model, path), found, expected });
            }
            // What an earlier time left was not good.
        }
        fs::rename(&partial_path, &blob).map_err(Error::io("written", &blob))
    }

    /// Fetches what is missing of contents. A failure that brought some bytes is none.
    fn fill(&self, partial: &mut Partial, file: &Planned, stop: &dyn Fn() -> bool) -> Result<()> {
        let mut fruitless = 0;
        let mut pause = self.client.access.pause;
        while partial.length < file.about.size {
            let before = partial.length;
            let error = match self.transfer(partial, file, stop) {
                Ok(()) => continue,
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            };
            if partial.length > before {
                (fruitless, pause) = (0, self.client.access.pause);
            }
            fruitless += 1;
            if fruitless == TRIES {
                return Err(error);
            }
            (self.tell)(PullEvent::Retrying { reason: &error.to_string() });
            self.wait(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    /// One request for what is missing, as far as it gets.
    fn transfer(
        &self,
        partial: &mut Partial,
        file: &Planned,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let what = of_file(&self.model, &file.path);
        let cut = |reason: String| Error::Network { what: what.clone(), reason };
        let address = address(&self.model, &self.commit, &file.path);
        let from = partial.length;
        let answer = self.client.ask(("GET", &address), (from, Follow::Anywhere), &what)?;
        if from > 0 && answer.status() != 206 {
            // The hub gives all of it again.
            (self.tell)(PullEvent::Lost { path: &file.path, bytes: from });
            partial.restart()?;
        } else if from > 0 {
            let begin = format!("bytes {from}-");
            if !answer.header("content-range").is_some_and(|range| range.starts_with(&begin)) {
                let reason = "the hub gives another part than was asked for".to_owned();
                return Err(Error::Answer { what, reason });
            }
        }
        let left = file.about.size - partial.length;
        let mut reader = answer.reader(left);
        let mut buffer = vec![0; 1 << 18];
        while partial.length < file.about.size {
            if stop() {
                return Err(Error::Cancelled);
            }
            let length = match reader.read(&mut buffer) {
                Ok(0) => return Err(cut("it was cut off".to_owned())),
                Ok(length) => length as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cut(format!("it was cut off ({error})"))),
            };
            let length = length.min(file.about.size - partial.length);
            partial.write(&buffer[..length as usize])?;
            (self.tell)(PullEvent::Arrived { bytes: length });
        }
        Ok(())
    }
}

/// Contents that have arrived in part.
struct Partial {
    file: File,
    path: PathBuf,
    about: HubFile,
    length: u64,
    hash: BlobHash,
}

impl Partial {
    /// Opens what an earlier time left, and hashes it; makes the file where there is none.
    fn open(path: &Path, about: &HubFile, stop: &dyn Fn() -> bool) -> Result<Self> {
        let open =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = open.map_err(Error::io("written", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let hash = BlobHash::of(&about.blob, about.size);
        let (path, about) = (path.to_owned(), about.clone());
        let mut partial = Partial { file, path, about, length, hash };
        if length > partial.about.size {
            partial.restart()?;
        }
        let done = partial.hash.read(&partial.file, stop);
        match done.map_err(Error::io("read", &partial.path))? {
            true => Ok(partial),
            false => Err(Error::Cancelled),
        }
    }

    /// Forgets all of it.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("written", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io("written", &self.path))?;
        self.length = 0;
        self.hash = BlobHash::of(&self.about.blob, self.about.size);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // A part of them may stand there, which the hash does not know.
            let _ = self.file.set_len(self.length);
            return Err(Error::io("written", &self.path)(error));
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Sees that all of it is on the disk; the hash where it is another than the name says.
    fn finish(self) -> Result<Result<(), String>> {
        self.file.sync_all().map_err(Error::io("written", &self.path))?;
        Ok(match self.hash.finish() {
            Some(found) if found != self.about.blob => Err(found),
            _ => Ok(()),
        })
    }
}

/// Where contents lie that have not arrived whole.
fn incomplete(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

/// Writes a small file, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed =
        |error: kino_world::Error| Error::io("written", path)(io::Error::other(error.to_string()));
    let mut file = AtomicFile::create(path).map_err(failed)?;
    file.write_all(bytes).map_err(Error::io("written", path))?;
    file.finish().map(drop).map_err(failed)
}

/// Puts a link to a blob at a path of a snapshot, relative as `huggingface_hub` makes it, so that
/// the cache can be moved.
#[cfg(unix)]
fn link(snapshot: &Path, path: &str, blob: &Path) -> Result<()> {
    let place = snapshot.join(path);
    let up = "../".repeat(path.split('/').count() + 1);
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    let target = PathBuf::from(format!("{up}blobs/{name}"));
    if fs::read_link(&place).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(snapshot);
    fs::create_dir_all(folder).map_err(Error::io("made", folder))?;
    // A link is made under another name and renamed, so that there always is one.
    let made = tempfile_name(folder);
    std::os::unix::fs::symlink(&target, &made).map_err(Error::io("written", &made))?;
    fs::rename(&made, &place).map_err(Error::io("written", &place))
}

/// The same where links are not everybody's to make: a copy.
#[cfg(not(unix))]
fn link(snapshot: &Path, path: &str, blob: &Path) -> Result<()> {
    let place = snapshot.join(path);
    let folder = place.parent().unwrap_or(snapshot);
    fs::create_dir_all(folder).map_err(Error::io("made", folder))?;
    let length = |path: &Path| fs::metadata(path).map(|about| about.len()).ok();
    if length(&place).is_some() && length(&place) == length(blob) {
        return Ok(());
    }
    let made = tempfile_name(folder);
    fs::hard_link(blob, &made)
        .or_else(|_| fs::copy(blob, &made).map(drop))
        .and_then(|()| fs::rename(&made, &place))
        .map_err(Error::io("written", &place))
}

/// A name in a folder that nobody else uses.
fn tempfile_name(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".kino-{}-{count}", std::process::id()))
}
