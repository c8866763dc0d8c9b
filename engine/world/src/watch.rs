//! Watching files and folders for changes of their contents.
//!
//! What is watched with the system's help are the folders that a path lies in, its own and those
//! of every link on the way, so that editors may save by renaming, and files and folders may vanish
//! and come back. Notices only say where to look: a change is reported when contents differ from
//! what stood there before, once whoever writes seems to have finished (see [`debounce`]). Systems
//! forget notices, and some file systems send none: so every two seconds lengths and times are
//! compared, too.

mod change;
mod debounce;
mod snapshot;
mod symlink_chain;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::{Error, Result};
pub use change::{FileChange, FileChangeKind};
use debounce::{Notice, Pending};
use snapshot::{Listing, MAX_FILES, Snapshot};

/// How often lengths and times are compared without any notice.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Watches a changing set of files and folders until it is dropped.
#[derive(Debug)]
pub struct FileWatch {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

enum Signal {
    Event(notify::Result<Event>),
    Set(BTreeSet<PathBuf>, Sender<bool>),
    Stop,
}

impl FileWatch {
    /// After a file was saved whole, so long others are waited for that are saved along with it.
    pub const DEBOUNCE: Duration = debounce::WHOLE;

    /// Watches nothing yet. `changed` is called on a thread of its own with all that changed
    /// together.
    ///
    /// # Errors
    /// When no thread can be started. A system that does not tell of changes is no error: then
    /// changes are seen later.
    pub fn start(changed: impl FnMut(Vec<FileChange>) + Send + 'static) -> Result<Self> {
        let (signals, receiver) = mpsc::channel();
        let notices = signals.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if concerns(&event) {
                let _ = notices.send(Signal::Event(event));
            }
        });
        let warn = |error: &notify::Error| {
            tracing::warn!("The system does not tell of changes, they are seen later: {error}.");
        };
        let poll = PollThread {
            watcher: watcher.inspect_err(warn).ok(),
            armed: HashMap::new(),
            warned: false,
            targets: Vec::new(),
            looked: Instant::now(),
            changed: Box::new(changed),
        };
        let thread = std::thread::Builder::new().name("watch".into());
        let thread = thread.spawn(move || poll.until_stopped(&receiver));
        let thread = thread.map_err(Error::io("watched", Path::new("the file system")))?;
        Ok(FileWatch { signals, thread: Some(thread) })
    }

    /// Watches these paths and no others, and returns whether some of them are new. Of those,
    /// changes after this call are reported; those watched before lose none.
    ///
    /// A folder is watched with all that lies in it. What does not exist is waited for.
    pub fn set(&self, paths: impl IntoIterator<Item = PathBuf>) -> bool {
        let (reply, replied) = mpsc::channel();
        let sent = self.signals.send(Signal::Set(paths.into_iter().collect(), reply));
        sent.is_ok() && replied.recv().unwrap_or(false)
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether an event may mean that something changed; reading sends events, too.
fn concerns(event: &notify::Result<Event>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The folders to watch for a path. Says so where there is more than is looked at.
fn folders_of(path: &Path) -> Vec<PathBuf> {
    let listing = Listing::of(path);
    if listing.is_cut {
        let path = path.display();
        tracing::warn!(
            "More than {MAX_FILES} files lie in {path}: changes of the rest are missed."
        );
    }
    listing.folders
}

/// One watched path.
struct Target {
    path: PathBuf,
    /// Where the path leads: links on the way, and its end.
    places: Vec<PathBuf>,
    /// The folder itself and those in it, if it is one.
    folders: Vec<PathBuf>,
    snapshot: Snapshot,
    pending: Option<Pending>,
}

impl Target {
    /// Whether something at `place` may change what stands here.
    fn depends_on(&self, place: &Path) -> bool {
        self.places.iter().any(|own| own == place || own.parent() == Some(place))
            || self.folders.iter().any(|folder| place.starts_with(folder))
    }

    /// Where the system must tell of changes.
    fn watched(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let parents = self.places.iter().filter_map(|place| place.parent());
        parents.map(Path::to_owned).chain(self.folders.iter().cloned())
    }
}

/// The thread's own: what is watched, and how it stood when it was last looked at.
struct PollThread {
    watcher: Option<RecommendedWatcher>,
    /// The folders in which the system tells of changes, each with its own number.
    armed: HashMap<PathBuf, u64>,
    warned: bool,
    targets: Vec<Target>,
    looked: Instant,
    changed: Box<dyn FnMut(Vec<FileChange>) + Send>,
}

impl PollThread {
    fn until_stopped(mut self, signals: &Receiver<Signal>) {
        loop {
            let wait = self.next().saturating_duration_since(Instant::now());
            match signals.recv_timeout(wait) {
                Ok(Signal::Event(event)) => self.note(event),
                Ok(Signal::Set(paths, reply)) => {
                    let _ = reply.send(self.set(paths));
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.compare_times();
                    self.report();
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// When there is something to do without any signal.
    fn next(&self) -> Instant {
        let pending = self.targets.iter().filter_map(|target| target.pending.as_ref());
        let look = self.looked + LOOK_EVERY;
        debounce::next(pending).map_or(look, |due| due.min(look))
    }

    /// Enters a notice at all paths that it concerns.
    fn note(&mut self, event: notify::Result<Event>) {
        let now = Instant::now();
        let Ok(event) = event else { return self.invalidate(now) };
        if event.need_rescan() {
            return self.invalidate(now);
        }
        let notice = Notice::of(&event.kind);
        if notice == Notice::Unclear {
            // A folder that went: the system forgets it, whether it comes back or not.
            self.armed.retain(|folder, _| !event.paths.contains(folder));
        }
        for target in &mut self.targets {
            if event.paths.iter().any(|path| target.depends_on(path)) {
                Pending::note(&mut target.pending, notice, now);
            }
        }
    }

    /// Looks everywhere, as notices were lost.
    fn invalidate(&mut self, now: Instant) {
        for target in &mut self.targets {
            Pending::note(&mut target.pending, Notice::Unclear, now);
        }
    }

    fn set(&mut self, paths: BTreeSet<PathBuf>) -> bool {
        self.targets.retain(|target| paths.contains(&target.path));
        let known: HashSet<PathBuf> =
            self.targets.iter().map(|target| target.path.clone()).collect();
        let new: Vec<PathBuf> = paths.into_iter().filter(|path| !known.contains(path)).collect();
        let first = self.targets.len();
        for path in &new {
            let target = Target {
                path: path.clone(),
                places: symlink_chain::follow(path),
                folders: folders_of(path),
                snapshot: Snapshot::default(),
                pending: None,
            };
            self.targets.push(target);
        }
        self.arm();
        for target in &mut self.targets[first..] {
            match Snapshot::look(&target.path, None) {
                Some(snapshot) => target.snapshot = snapshot,
                // It changes right now: it will be looked at again.
                None => Pending::note(&mut target.pending, Notice::Unclear, Instant::now()),
            }
        }
        !new.is_empty()
    }

    /// Has the system tell of changes in all folders that matter, and in no others.
    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: HashSet<PathBuf> = self.targets.iter().flat_map(Target::watched).collect();
        self.armed.retain(|folder, _| {
            let stays = wanted.contains(folder);
            if !stays {
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for folder in wanted {
            // Another folder may have taken the name of one that was watched.
            let Some(number) = snapshot::number(&folder) else { continue };
            if self.armed.get(&folder) == Some(&number) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.armed.insert(folder, number)),
                Err(error) if !self.warned => {
                    self.warned = true;
                    let folder = folder.display();
                    tracing::warn!("Changes in {folder} are seen late: {error}.");
                }
                Err(_) => {}
            }
        }
    }

    /// Follows a path again, which may lead elsewhere by now.
    fn follow_again(&mut self, index: usize) {
        let target = &mut self.targets[index];
        target.places = symlink_chain::follow(&target.path);
        target.folders = folders_of(&target.path);
        self.arm();
    }

    /// Compares lengths and times, for changes of which nobody told.
    fn compare_times(&mut self) {
        let (now, before) = (Instant::now(), self.looked);
        if now < before + LOOK_EVERY {
            return;
        }
        self.looked = now;
        for target in &mut self.targets {
            if target.pending.is_none() && !target.snapshot.seems_to_be(&target.path) {
                target.pending = Some(Pending::unnoticed(before, now));
            }
        }
    }

    /// Looks at what is due, and reports what differs.
    fn report(&mut self) {
        let now = Instant::now();
        let mut changes = Vec::new();
        for index in 0..self.targets.len() {
            let pending = self.targets[index].pending.take_if(|pending| pending.due() <= now);
            if let Some(pending) = pending {
                changes.extend(self.look(index, pending));
            }
        }
        if !changes.is_empty() {
            (self.changed)(changes);
        }
    }

    fn look(&mut self, index: usize, pending: Pending) -> Option<FileChange> {
        if pending.may_lead_elsewhere() {
            self.follow_again(index);
        }
        let target = &mut self.targets[index];
        let Some(snapshot) = Snapshot::look(&target.path, Some(&target.snapshot)) else {
            target.pending = Some(pending.again(Instant::now()));
            return None;
        };
        if snapshot.is_half_of(&target.snapshot)
            && let Some(patient) = pending.patient(Instant::now())
        {
            target.pending = Some(patient);
            return None;
        }
        let before = std::mem::replace(&mut target.snapshot, snapshot);
        let kind = before.becomes(&target.snapshot)?;
        Some(FileChange { path: target.path.clone(), kind, since: pending.first() })
    }
}
