//! What a run may read and write of the file system, beside what the process may.
//!
//! Whoever opens a file that a graph or a plugin names asks the run's policy first: while planning,
//! and again while running, as links may have been exchanged in between. Paths are resolved before
//! they are compared. It knows neither graphs nor nodes.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kino_port::{FileStamp, code};

use crate::{Error, Result};

/// What a run may read and write: anything, unless it is narrowed to folders. A service of each
/// run.
///
/// Links are followed before a path is compared, and what the system shows of itself (`/proc`,
/// `/sys`, `/dev`) lies in no folder above it. Files that the engine keeps for itself, such as its
/// cache, and a graph's own file are not asked about; nor is what nodes of an embedding program do
/// by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePolicy {
    /// A file that is read lies in a folder of each list.
    read: Vec<Vec<PathBuf>>,
    /// A picture, clip, sound or tensor that is read lies in a folder of each of these lists, too.
    media: Vec<Vec<PathBuf>>,
    /// Who is asked where one does not.
    ask: Option<AskReading>,
    /// A file that is written lies in a folder of each list.
    write: Vec<Vec<PathBuf>>,
}

/// Asks whether something may be read that lies outside of the folders of
/// [`FilePolicy::media_within`]; it is given the real place, and may be asked again for the same.
#[derive(Clone)]
pub struct AskReading(pub Arc<dyn Fn(&Path) -> bool + Send + Sync>);

impl fmt::Debug for AskReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskReading")
    }
}

impl PartialEq for AskReading {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AskReading {}

/// Says what stands against writing a file that a run is about to write: somebody may have put one
/// there since it was planned. Those who run graphs give it to nodes as a service.
pub struct OutputGuard(pub Box<dyn Fn(&Path) -> Result<()> + Send + Sync>);

/// Where the system shows itself and its devices as files.
const OF_THE_SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Whether a path leads to where the system shows itself and its devices as files.
pub fn is_of_system(path: &Path) -> bool {
    resolve(path).is_ok_and(|real| OF_THE_SYSTEM.iter().any(|place| real.starts_with(place)))
}

impl FilePolicy {
    /// The same policy, narrowed: what is read lies in one of these folders, or is one of these
    /// files. Without any nothing is read.
    #[must_use]
    pub fn read_within<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.read.push(folders.into_iter().map(absolute).collect());
        self
    }

    /// The same policy, narrowed for what a graph's own text names: pictures, clips, sound, tensors
    /// and graphs that it uses lie in one of these folders, or are one of these files. Models and
    /// what was granted to plugins may lie elsewhere.
    #[must_use]
    pub fn media_within<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.media.push(folders.into_iter().map(absolute).collect());
        self
    }

    /// The same policy, which asks before it refuses what [`FilePolicy::media_within`] does not
    /// allow.
    #[must_use]
    pub fn asking(mut self, ask: AskReading) -> Self {
        self.ask = Some(ask);
        self
    }

    /// The same policy, narrowed: what is written lies in one of these folders. Without any nothing
    /// is written.
    #[must_use]
    pub fn write_within<P: Into<PathBuf>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.write.push(folders.into_iter().map(absolute).collect());
        self
    }

    /// What both policies allow.
    #[must_use]
    pub fn and(mut self, other: &FilePolicy) -> Self {
        self.read.extend(other.read.iter().cloned());
        self.media.extend(other.media.iter().cloned());
        self.ask = self.ask.or_else(|| other.ask.clone());
        self.write.extend(other.write.iter().cloned());
        self
    }

    /// Whether there is anything that may not be read.
    pub fn narrows_reading(&self) -> bool {
        !(self.read.is_empty() && self.media.is_empty())
    }

    /// Whether a picture, clip, sound, tensor or graph may be read that a graph names; it need not
    /// exist.
    ///
    /// # Errors
    /// When it may not; the message says what may be.
    pub fn check_read(&self, path: &Path) -> Result<()> {
        let words = ["read", "reads", "--allow-read DIR", "FilePolicy::media_within"];
        let Err(refused) = check(&self.media, path, words) else { return self.check_model(path) };
        let is_agreed = |(AskReading(ask), real): (&AskReading, PathBuf)| {
            !OF_THE_SYSTEM.iter().any(|place| real.starts_with(place)) && ask(&real)
        };
        match self.ask.as_ref().zip(resolve(path).ok()).is_some_and(is_agreed) {
            true => self.check_model(path),
            false => Err(refused),
        }
    }

    /// Whether a model, or something granted to a plugin may be read; it need not exist. Where the
    /// system shows itself none lies.
    ///
    /// # Errors
    /// When it may not; the message says what may be.
    pub fn check_model(&self, path: &Path) -> Result<()> {
        check(&self.read, path, ["read", "reads", "--allow-read DIR", "FilePolicy::read_within"])?;
        if !self.media.is_empty() && is_of_system(path) {
            let message = format!("{} may not be read: it is of the system", path.display());
            return Err(Error::failed(message).with_code(code::NOT_GRANTED));
        }
        Ok(())
    }

    /// Whether a file may be written that need not exist.
    ///
    /// # Errors
    /// When it may not; the message says what may be.
    pub fn check_write(&self, path: &Path) -> Result<()> {
        check(&self.write, path, ["written", "writes", "--out DIR", "FilePolicy::write_within"])
    }

    /// Whether what was opened at a path, and had this stamp then, may be read: the path is looked
    /// at once more, so that nobody turns a link between [`FilePolicy::check_read`] and opening.
    ///
    /// # Errors
    /// When it may not, or something else lies there by now.
    pub fn check_opened(&self, path: &Path, stamp: &FileStamp) -> Result<()> {
        if !self.narrows_reading() {
            return Ok(());
        }
        self.check_read(path)?;
        self.check_same(path, stamp)
    }

    /// The same for what [`FilePolicy::check_model`] is about.
    ///
    /// # Errors
    /// As [`FilePolicy::check_opened`].
    pub fn check_opened_model(&self, path: &Path, stamp: &FileStamp) -> Result<()> {
        if self.read.is_empty() {
            return Ok(());
        }
        self.check_model(path)?;
        self.check_same(path, stamp)
    }

    fn check_same(&self, path: &Path, stamp: &FileStamp) -> Result<()> {
        let there = resolve(path).and_then(fs::symlink_metadata);
        let there = there.map(|about| FileStamp::of(&about));
        match there {
            Ok(there) if (there.device, there.inode) == (stamp.device, stamp.inode) => Ok(()),
            _ => {
                Err(Error::failed(format!("{} was exchanged while it was opened", path.display())))
            }
        }
    }
}

/// A folder as it is compared later, whatever the working folder is by then.
fn absolute(folder: impl Into<PathBuf>) -> PathBuf {
    let folder = folder.into();
    std::path::absolute(&folder).unwrap_or(folder)
}

/// Whether a path lies in a folder of each list. The words say what is done and what a run does,
/// which flag of the command allows more, and which function.
fn check(
    lists: &[Vec<PathBuf>],
    path: &Path,
    [done, does, flag, function]: [&str; 4],
) -> Result<()> {
    if lists.is_empty() {
        return Ok(());
    }
    let shown = path.display();
    let hint = || format!("`{flag}` names another folder; in a program, `{function}` does");
    let real = resolve(path).map_err(|error| {
        let message = format!("{shown} may not be {done}: where it leads is unknown ({error})");
        Error::advised(message, hint()).with_code(code::NOT_GRANTED)
    })?;
    let is_allowed = |list: &Vec<PathBuf>| list.iter().any(|folder| holds(folder, &real));
    let Some(narrow) = lists.iter().find(|list| !is_allowed(list)) else { return Ok(()) };
    let leads = match std::path::absolute(path).is_ok_and(|plain| plain == real) {
        true => String::new(),
        false => format!("it leads to {}, and ", real.display()),
    };
    let allowed: Vec<_> = narrow.iter().map(|folder| folder.display().to_string()).collect();
    let allowed = match &*allowed {
        [] => "nothing".to_owned(),
        some => format!("only what lies in {}", some.join(", ")),
    };
    let message = format!("{shown} may not be {done}: {leads}this run {does} {allowed}");
    Err(Error::advised(message, hint()).with_code(code::NOT_GRANTED))
}

/// Whether a resolved path lies in a folder, or is it.
fn holds(folder: &Path, real: &Path) -> bool {
    let Ok(folder) = resolve(folder) else { return false };
    let shows = |place: &&str| real.starts_with(place) && !folder.starts_with(place);
    real.starts_with(&folder) && !OF_THE_SYSTEM.iter().any(shows)
}

/// Where a path leads: all links followed of what is there, the rest as it is written.
///
/// # Errors
/// When links lead nowhere, what is missing is left again by `..`, or the system does not say.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        let real = match there.canonicalize() {
            Ok(real) => real,
            Err(error) if is_missing(&error) && there.symlink_metadata().is_err() => continue,
            Err(error) => return Err(error),
        };
        let rest = path.strip_prefix(there).map_err(io::Error::other)?;
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        return match rest.components().all(is_plain) {
            // With nothing behind it, a file's path would end like a folder's.
            true if rest.as_os_str().is_empty() => Ok(real),
            true => Ok(real.join(rest)),
            false => Err(io::ErrorKind::NotFound.into()),
        };
    }
    Err(io::ErrorKind::NotFound.into())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder `in` with `a` and `deep/b`, beside a file `secret`.
    fn files() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("in/deep")).unwrap();
        for name in ["in/a", "in/deep/b", "secret", "inner"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        folder
    }

    fn said(checked: Result<()>) -> String {
        let error = checked.unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn anything_is_allowed_until_it_is_narrowed() {
        let policy = FilePolicy::default();
        let nowhere = Path::new("/proc/self/environ");
        assert!(policy.check_read(nowhere).is_ok() && policy.check_write(nowhere).is_ok());
        assert!(policy.check_opened(nowhere, &FileStamp::default()).is_ok());
        let nothing = policy.read_within([""; 0]);
        assert!(said(nothing.check_read(nowhere)).contains("this run reads nothing"));
        assert!(nothing.check_write(nowhere).is_ok(), "writing is another matter");
    }

    #[test]
    fn only_what_lies_in_the_folders_is_allowed_whatever_leads_there() {
        let folder = files();
        let at = |name: &str| folder.path().join(name);
        let policy = FilePolicy::default().read_within([at("in")]);
        symlink(at("secret"), at("in/out")).unwrap();
        symlink(folder.path(), at("in/up")).unwrap();
        symlink("deep/b", at("in/within")).unwrap();
        symlink(at("in/a"), at("into")).unwrap();
        symlink(at("none"), at("in/dangling")).unwrap();
        symlink("loop", at("in/loop")).unwrap();
        for good in ["in", "in/a", "in/deep/../a", "in/within", "into", "in/none", "in/none/x"] {
            policy.check_read(&at(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "secret",
            "inner",
            "in/../secret",
            "in/out",
            "in/up/secret",
            "in/up",
            "in/dangling",
            "in/loop",
            "in/none/../../secret",
            "in/a/x/../../../secret",
            "",
        ] {
            assert!(policy.check_read(&at(bad)).is_err(), "{bad}");
        }
        let told = said(policy.check_read(&at("in/out")));
        let real = folder.path().canonicalize().unwrap();
        assert!(told.contains(&format!("it leads to {}", real.join("secret").display())), "{told}");
        let allowed = format!("this run reads only what lies in {}", at("in").display());
        assert!(told.contains(&allowed), "{told}");
        assert!(told.contains("`--allow-read DIR`"), "{told}");
    }

    #[test]
    fn what_the_system_shows_lies_in_no_folder_above_it() {
        let root = FilePolicy::default().read_within(["/"]);
        assert!(root.check_read(Path::new("/etc/passwd")).is_ok());
        for path in ["/proc/self/environ", "/sys/kernel", "/dev/zero", "/etc/../proc/version"] {
            assert!(root.check_read(Path::new(path)).is_err(), "{path}");
        }
        let shared = FilePolicy::default().read_within(["/dev/shm"]);
        assert!(shared.check_read(Path::new("/dev/shm/x")).is_ok());
        assert!(shared.check_read(Path::new("/dev/zero")).is_err());
        // What leads on from there is where it leads.
        let working = std::env::current_dir().unwrap();
        let policy = FilePolicy::default().read_within([&working]);
        assert!(policy.check_read(Path::new("/proc/self/cwd/x")).is_ok());
    }

    #[test]
    fn two_policies_allow_what_both_allow() {
        let folder = files();
        let at = |name: &str| folder.path().join(name);
        let wide = FilePolicy::default().read_within([at("in"), at("secret")]);
        let narrow = wide.clone().and(&FilePolicy::default().read_within([folder.path()]));
        assert!(narrow.check_read(&at("secret")).is_ok());
        let narrower = narrow.read_within([at("in/deep")]);
        assert!(narrower.check_read(&at("in/deep/b")).is_ok());
        assert!(narrower.check_read(&at("in/a")).is_err() && wide.check_read(&at("in/a")).is_ok());
        let writes = FilePolicy::default().write_within([at("in")]);
        assert!(writes.check_write(&at("in/new/x.png")).is_ok());
        assert!(said(writes.check_write(&at("new.png"))).contains("may not be written"));
    }

    #[test]
    fn a_file_that_is_exchanged_while_it_is_opened_is_refused() {
        let folder = files();
        let at = |name: &str| folder.path().join(name);
        let policy = FilePolicy::default().read_within([at("in")]);
        let stamp = |name: &str| FileStamp::of(&fs::metadata(at(name)).unwrap());
        symlink("a", at("in/link")).unwrap();
        assert!(policy.check_opened(&at("in/link"), &stamp("in/a")).is_ok());
        // A link that led out while the file was opened, and leads to where it should again.
        let told = said(policy.check_opened(&at("in/link"), &stamp("secret")));
        assert!(told.contains("was exchanged while it was opened"), "{told}");
    }
}
