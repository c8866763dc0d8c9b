//! Watching real files: what editors, copies and version control do to them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::sleep;
use std::time::Duration;

use kino_world::FileChangeKind::{Appeared, Changed, Vanished};
use kino_world::{FileChange, FileChangeKind, FileWatch};
use tempfile::TempDir;

/// Longer than anything is waited for before it is looked at.
const SETTLED: Duration = Duration::from_millis(500);

struct Rig {
    folder: TempDir,
    watch: FileWatch,
    reports: Receiver<Vec<FileChange>>,
}

impl Rig {
    /// Watches these paths, some of which are files that begin with `old`; `mark` is one of them.
    fn new(files: &[&str], paths: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (send, reports) = mpsc::channel();
        let watch = FileWatch::start(move |changes| drop(send.send(changes))).unwrap();
        let rig = Rig { folder, watch, reports };
        for file in files.iter().chain(&["mark"]) {
            rig.write(file, "old");
        }
        let all = paths.iter().chain(&["mark"]);
        assert!(rig.watch.set(all.map(|path| rig.path(path))));
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a file as careful editors do: another one, which then takes its name.
    fn replace(&self, name: &str, text: &str) {
        let other = self.path(&format!("{name}.tmp"));
        fs::write(&other, text).unwrap();
        fs::rename(other, self.path(name)).unwrap();
    }

    /// What changes until the mark is seen to change: each path with all that became of it.
    fn changes(&self) -> BTreeMap<String, Vec<FileChangeKind>> {
        sleep(SETTLED);
        let text = format!("{:?}", std::time::SystemTime::now());
        self.replace("mark", &text);
        let mut found: BTreeMap<String, Vec<FileChangeKind>> = BTreeMap::new();
        loop {
            let report = self.reports.recv_timeout(Duration::from_secs(20)).expect("the mark");
            for FileChange { path, kind, .. } in report {
                let name = path.strip_prefix(self.folder.path()).unwrap().display().to_string();
                found.entry(name).or_default().push(kind);
            }
            if found.remove("mark").is_some() {
                return found;
            }
        }
    }

    #[track_caller]
    fn expect(&self, expected: &[(&str, &[FileChangeKind])]) {
        let expected =
            expected.iter().map(|(name, kinds)| ((*name).to_owned(), kinds.to_vec())).collect();
        assert_eq!(self.changes(), expected);
    }
}

#[test]
fn a_file_is_saved_in_many_ways() {
    let rig = Rig::new(&["a", "b"], &["a"]);
    rig.write("a", "written");
    rig.expect(&[("a", &[Changed])]);
    rig.replace("a", "renamed");
    rig.expect(&[("a", &[Changed])]);
    // As vim does: the old one is moved out of the way, and removed in the end.
    fs::rename(rig.path("a"), rig.path("a~")).unwrap();
    rig.write("a", "vim");
    fs::remove_file(rig.path("a~")).unwrap();
    rig.expect(&[("a", &[Changed])]);
    fs::remove_file(rig.path("a")).unwrap();
    rig.write("a", "removed and written");
    rig.expect(&[("a", &[Changed])]);
    File::options().append(true).open(rig.path("a")).unwrap().write_all(b"more").unwrap();
    rig.expect(&[("a", &[Changed])]);
    rig.write("b", "nobody watches this");
    rig.expect(&[]);
}

/// Whoever writes a file can keep its length and its time of modification.
#[test]
fn other_contents_of_the_same_length_and_time_are_seen() {
    let rig = Rig::new(&["a"], &["a"]);
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let write = |text: &str| {
        let mut file = File::options().write(true).open(rig.path("a")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_modified(hour_ago).unwrap();
    };
    write("old");
    rig.expect(&[]);
    write("new");
    rig.expect(&[("a", &[Changed])]);
}

#[test]
fn contents_count_and_nothing_else() {
    let rig = Rig::new(&["a"], &["a"]);
    rig.write("a", "old");
    rig.expect(&[]);
    rig.replace("a", "old");
    rig.expect(&[]);
    let file = File::options().write(true).open(rig.path("a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(file);
    rig.expect(&[]);
    let _ = fs::read(rig.path("a")).unwrap();
    rig.expect(&[]);
    // Another text of the same length, twice within a tick of the file system's clock.
    rig.write("a", "abc");
    rig.write("a", "xyz");
    rig.expect(&[("a", &[Changed])]);
}

#[test]
fn half_a_file_is_waited_for() {
    let rig = Rig::new(&["a"], &["a"]);
    let mut file = File::create(rig.path("a")).unwrap();
    file.write_all(b"first half, ").unwrap();
    file.flush().unwrap();
    sleep(SETTLED);
    file.write_all(b"second half").unwrap();
    drop(file);
    rig.expect(&[("a", &[Changed])]);
    // Emptied and closed, then written: some editors save so.
    File::create(rig.path("a")).unwrap();
    sleep(Duration::from_millis(60));
    rig.write("a", "whole");
    rig.expect(&[("a", &[Changed])]);
}

#[test]
fn a_burst_is_one_change() {
    let rig = Rig::new(&["a", "b"], &["a", "b"]);
    for turn in 0..200 {
        rig.write("a", &format!("{turn}"));
        rig.replace("b", &format!("{turn}"));
    }
    let found = rig.changes();
    for name in ["a", "b"] {
        let kinds = &found[name];
        assert!(kinds.len() < 50 && kinds.iter().all(|kind| *kind == Changed), "{name}: {kinds:?}");
    }
}

#[test]
fn files_come_and_go() {
    let rig = Rig::new(&["a"], &["a", "later", "deep/in/there"]);
    fs::remove_file(rig.path("a")).unwrap();
    rig.expect(&[("a", &[Vanished])]);
    rig.write("a", "back");
    rig.expect(&[("a", &[Appeared])]);
    rig.write("later", "new");
    rig.expect(&[("later", &[Appeared])]);
    rig.write("deep/in/there", "new");
    rig.expect(&[("deep/in/there", &[Appeared])]);
    rig.write("deep/in/there", "newer");
    rig.expect(&[("deep/in/there", &[Changed])]);
    fs::rename(rig.path("deep"), rig.path("elsewhere")).unwrap();
    let found = rig.changes();
    // Nobody tells of folders further up: that is seen by looking, perhaps later.
    assert!(found.is_empty() || found["deep/in/there"] == [Vanished], "{found:?}");
}

#[test]
fn a_folder_is_exchanged_for_another() {
    let rig = Rig::new(&["v/a", "new/a"], &["v/a"]);
    rig.write("new/a", "other");
    fs::rename(rig.path("v"), rig.path("old")).unwrap();
    fs::rename(rig.path("new"), rig.path("v")).unwrap();
    rig.expect(&[("v/a", &[Changed])]);
    rig.replace("v/a", "again");
    rig.expect(&[("v/a", &[Changed])]);
    rig.write("old/a", "of no interest any more");
    rig.expect(&[]);
}

#[test]
fn a_folder_changes_with_whatever_lies_in_it() {
    let rig = Rig::new(&["model/vae/weights", "model/index"], &["model"]);
    rig.write("model/index", "other");
    rig.expect(&[("model", &[Changed])]);
    rig.replace("model/vae/weights", "other");
    rig.expect(&[("model", &[Changed])]);
    rig.write("model/encoder/deep/config", "new");
    rig.expect(&[("model", &[Changed])]);
    rig.write("model/encoder/deep/config", "newer");
    rig.expect(&[("model", &[Changed])]);
    fs::remove_file(rig.path("model/index")).unwrap();
    rig.expect(&[("model", &[Changed])]);
    fs::remove_dir_all(rig.path("model")).unwrap();
    rig.expect(&[("model", &[Vanished])]);
    rig.write("model/index", "back");
    rig.expect(&[("model", &[Appeared])]);
    rig.write("model/index", "and watched");
    rig.expect(&[("model", &[Changed])]);
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    use std::os::unix::fs::symlink;
    let link = |rig: &Rig, target: &str, name: &str| {
        let _ = fs::remove_file(rig.path("link.tmp"));
        symlink(target, rig.path("link.tmp")).unwrap();
        fs::rename(rig.path("link.tmp"), rig.path(name)).unwrap();
    };
    let rig = Rig::new(&["one/a", "two/a"], &["now/a", "a"]);
    link(&rig, "one", "now");
    rig.expect(&[("now/a", &[Appeared])]);
    link(&rig, "now/a", "a");
    rig.expect(&[("a", &[Appeared])]);
    rig.replace("one/a", "changed behind the links");
    rig.expect(&[("a", &[Changed]), ("now/a", &[Changed])]);
    link(&rig, "two", "now");
    rig.expect(&[("a", &[Changed]), ("now/a", &[Changed])]);
    rig.write("two/a", "once more");
    rig.expect(&[("a", &[Changed]), ("now/a", &[Changed])]);
    rig.write("one/a", "of no interest any more");
    rig.expect(&[]);
}

#[test]
fn the_set_changes_while_watching() {
    let rig = Rig::new(&["a", "b"], &["a"]);
    let paths = |names: &[&str]| names.iter().map(|name| rig.path(name)).collect::<Vec<_>>();
    assert!(!rig.watch.set(paths(&["a", "mark"])), "nothing new");
    rig.write("a", "not lost");
    assert!(rig.watch.set(paths(&["a", "b", "mark"])));
    rig.expect(&[("a", &[Changed])]);
    rig.write("b", "new");
    rig.expect(&[("b", &[Changed])]);
    assert!(!rig.watch.set(paths(&["b", "mark"])));
    rig.write("a", "nobody watches this");
    rig.expect(&[]);
}

#[test]
fn a_long_file_is_known_by_its_ends_and_time() {
    let rig = Rig::new(&[], &["weights"]);
    let length = (64 << 20) + 7;
    let sparse = |path: &Path| File::create(path).unwrap().set_len(length).unwrap();
    sparse(&rig.path("weights"));
    rig.expect(&[("weights", &[Appeared])]);
    let mut file = File::options().write(true).open(rig.path("weights")).unwrap();
    file.write_all(b"header").unwrap();
    drop(file);
    rig.expect(&[("weights", &[Changed])]);
}
