//! What strangers give, in tests: a folder `gift` beside the user's own, and commands that are
//! tried there. Whatever is tried, nothing of the user's shows up, nothing is written but where
//! results go, no native code runs, and every command ends by itself.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::common::{Place, Ran, picture};

/// A component with a node that reads a file (`good.file`), one that squares a tensor, and many
/// that misbehave.
pub(crate) const COMPONENT: &[u8] =
    include_bytes!("../../../../plugins/wasm/tests/components/guests.wasm");

/// What the user's files hold, and nobody else may see.
pub(crate) const CANARY: &str = "canary-7d1f-of-the-user";

/// Longer than any of these commands takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// More memory than any of these commands takes, in bytes.
pub(crate) const MEMORY: u64 = 3 << 30;

/// What a manifest of the component says, with these nodes.
pub(crate) static MANIFEST: LazyLock<String> = LazyLock::new(|| {
    let place = Place::new();
    place.write("guests.wasm", COMPONENT);
    place.good(&["plugin", "add", "guests.wasm"]);
    fs::read_to_string(place.path("data/plugins/guests/plugin.ron")).unwrap()
});

/// A folder `gift`, beside a folder `home` with what is the user's.
pub(crate) struct Gift {
    pub(crate) place: Place,
    /// What lay there before anything was tried.
    pub(crate) before: BTreeMap<PathBuf, Vec<u8>>,
}

/// A process that ended by itself.
pub(crate) struct Ended {
    pub(crate) ran: Ran,
    /// All that it said, without what breaks and frames its lines.
    pub(crate) said: String,
}

/// A text without spaces, line breaks and the frame of a report.
pub(crate) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"│×╭╰─".contains(*c)).collect()
}

impl Gift {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        place.write("home/key.txt", CANARY);
        place.write("home/photo.png", picture(7));
        Gift { place, before: BTreeMap::new() }
    }

    /// A gift with the component, and a graph that has it read a file.
    pub(crate) fn with_reader(path: &str) -> Self {
        let gift = Gift::new();
        gift.plugin(COMPONENT, &MANIFEST);
        let graph = format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "good.file", with: {{"x": "{path}"}})}},
                outputs: {{"text": "r"}})"#
        );
        gift.write("graph.ron", graph);
        gift
    }

    pub(crate) fn plugin(&self, component: &[u8], manifest: &str) {
        self.write("plugins/guests/guests.wasm", component);
        self.write("plugins/guests/plugin.ron", manifest);
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        self.place.write(&format!("gift/{name}"), contents)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.place.path("gift").join(name)
    }

    /// Makes a link in the gift, in place of one that was there.
    pub(crate) fn link(&self, name: &str, to: impl AsRef<Path>) {
        let _ = fs::remove_file(self.at(name));
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        symlink(to, self.at(name)).unwrap();
    }

    /// The user's folder, as commands name it.
    pub(crate) fn home(&self) -> PathBuf {
        self.place.path("home").canonicalize().unwrap()
    }

    /// Pins the component that lies in the gift, as its sender would, with more in its entry.
    pub(crate) fn pin(&self, more: &str) {
        let component = fs::read(self.at("plugins/guests/guests.wasm")).unwrap();
        let sha256 = kino_host::sha256_of(&component);
        self.lock(&format!(
            r#"version: "1.0.0", kind: wasm, sha256: "{sha256}"{}{more}"#,
            if more.is_empty() { "" } else { ", " }
        ));
    }

    /// A lock file with this entry for the plugin.
    pub(crate) fn lock(&self, entry: &str) {
        self.write("kino.lock.ron", format!(r#"(version: 1, plugins: {{"guests": ({entry})}})"#));
    }

    /// Runs a command in the gift's folder, which must end by itself and within bounds.
    #[track_caller]
    pub(crate) fn ends(&self, args: &[&str]) -> Ended {
        let mut command = self.place.command(args);
        command.current_dir(self.place.path("gift")).env("GIFT_TEST", CANARY);
        let (out, err) = (self.place.path("said.out"), self.place.path("said.err"));
        let file = |path: &Path| Stdio::from(fs::File::create(path).unwrap());
        let mut child = command.stdout(file(&out)).stderr(file(&err)).spawn().unwrap();
        let (begun, mut memory) = (Instant::now(), 0);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            memory = memory.max(memory_of(child.id()));
            if begun.elapsed() > PATIENCE || memory > MEMORY {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{args:?} went on for {:?}, with {memory} bytes", begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [out, err] = [out, err].map(|path| fs::read(path).unwrap());
        for bytes in [&out, &err] {
            let text = String::from_utf8_lossy(bytes);
            let hidden = text.chars().find(|c| kino_port::is_hidden(*c));
            assert_eq!(hidden, None, "{args:?} prints what a terminal obeys\n{text}");
        }
        let [out, err] = [out, err].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let code = status.code().unwrap_or(-1);
        assert!((0..3).contains(&code), "{args:?} ended with {status}\n{out}\n{err}");
        let said = squeezed(&format!("{out}{err}"));
        Ended { ran: Ran { code, out, err }, said }
    }

    /// Runs a command, which must show nothing of the user's.
    #[track_caller]
    pub(crate) fn shows_nothing(&self, args: &[&str]) -> Ended {
        let ended = self.ends(args);
        let Ran { out, err, .. } = &ended.ran;
        assert!(!ended.said.contains(CANARY), "{args:?} shows what the user has\n{out}\n{err}");
        ended
    }

    /// Runs a command, which must stop and say these things.
    #[track_caller]
    pub(crate) fn stops(&self, args: &[&str], parts: &[&str]) {
        let ended = self.shows_nothing(args);
        let Ran { code, out, err } = &ended.ran;
        assert_ne!(*code, 0, "{args:?} goes on\n{out}\n{err}");
        for part in parts {
            let expected = squeezed(part);
            assert!(ended.said.contains(&expected), "{args:?}: {part} is not in\n{out}\n{err}");
        }
    }

    /// Runs a command, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let Ended { ran: Ran { code, out, err }, .. } = self.ends(args);
        assert_eq!(code, 0, "{args:?}\n{out}\n{err}");
        format!("{out}{err}")
    }

    /// All that runs a graph or looks at one stops and says these things; whatever shows what lies
    /// in the gift goes on.
    #[track_caller]
    pub(crate) fn is_refused(&self, parts: &[&str]) {
        for command in ["plan", "run"] {
            self.stops(&[command, "graph.ron"], parts);
        }
        self.stops(&["run", "--locked", "graph.ron"], &[]);
        self.is_inert();
    }

    /// Commands that only look: whatever they say, they change nothing and show nothing.
    #[track_caller]
    pub(crate) fn is_inert(&self) {
        for args in [
            &["check", "graph.ron"][..],
            &["draw", "graph.ron", "-f", "text"],
            &["nodes"],
            &["plugin", "list"],
            &["plugin", "list", "--json"],
            &["plugin", "show", "guests"],
            &["plugin", "show", "guests", "--json"],
        ] {
            self.shows_nothing(args);
        }
        self.kept_to_itself();
    }

    /// Remembers what lies there now.
    pub(crate) fn remember(&mut self) {
        self.before = self.lying();
    }

    /// All files of the user and of the gift with their contents, but those that a run may write.
    pub(crate) fn lying(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for name in ["home", "gift"] {
            gather(&self.place.path(name), &self.at("out"), &mut files);
        }
        files
    }

    /// Nothing that the user has was copied anywhere, and no native code ran.
    #[track_caller]
    pub(crate) fn kept_to_itself(&self) {
        assert!(!self.place.path("ran").exists(), "native code ran");
        let mut written = BTreeMap::new();
        for folder in ["cache", "data", "config", "gift/out"] {
            gather(&self.place.path(folder), Path::new(""), &mut written);
        }
        for (path, bytes) in &written {
            let found = bytes.windows(CANARY.len()).any(|at| at == CANARY.as_bytes());
            assert!(!found, "{} holds what the user has", path.display());
        }
        if !self.before.is_empty() {
            let (was, is) = (&self.before, self.lying());
            let changed: Vec<_> =
                is.iter().filter(|(path, now)| was.get(*path) != Some(now)).collect();
            assert!(changed.is_empty(), "written: {:?}", changed[0].0);
            assert_eq!(was.len(), is.len(), "a file went");
        }
    }
}

/// Files below a folder with their contents; links are not followed, and `but` is left out.
pub(crate) fn gather(folder: &Path, but: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if path == but && kind.is_dir() {
        } else if kind.is_dir() {
            gather(&path, but, files);
        } else if kind.is_symlink() {
            let leads = fs::read_link(&path).unwrap();
            files.insert(path, leads.into_os_string().into_encoded_bytes());
        } else if kind.is_file() && entry.metadata().unwrap().len() < 1 << 24 {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// The memory of a process in bytes, where the system tells (Linux).
pub(crate) fn memory_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// What a lock file grants.
pub(crate) const GRANT: &str = r#"grants: (read: ["luts"])"#;

/// Nodes that read files, what else they need, and an output.
pub(crate) const READERS: [(&str, &str, &str); 4] = [
    ("image.read", "", "frames"),
    ("video.read", "", "frames"),
    ("mask.read", "", "mask"),
    ("tensor.read", r#", "name": "x""#, "tensor"),
];

/// A graph that has a node read a file.
pub(crate) fn reading(op: &str, path: &str) -> String {
    let (_, with, output) = READERS.iter().find(|(known, ..)| *known == op).unwrap();
    format!(
        r#"Graph(version: 1, nodes: {{"r": (op: "{op}", with: {{"path": {path:?}{with}}})}},
            outputs: {{"o": "r.{output}"}})"#
    )
}
