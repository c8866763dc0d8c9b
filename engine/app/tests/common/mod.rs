//! Runs the command in a folder of its own, with a cache of its own.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in; gone when dropped.
pub(crate) struct Place {
    folder: TempDir,
    cache: PathBuf,
}

/// What a command printed and how it ended.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// The output stream.
    pub(crate) out: String,
    /// The error stream.
    pub(crate) err: String,
}

/// Options that make `text_to_video` quick: 32×32 pixels, five frames, three steps.
pub(crate) const QUICK: [&str; 8] =
    ["--set", "width=32", "--set", "height=32", "--set", "frames=5", "--set", "steps=3"];

impl Place {
    /// A new, empty folder.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Place { cache: folder.path().join("cache"), folder }
    }

    /// A new, empty folder whose cache outlives it: what takes long to compile is compiled once.
    pub(crate) fn sharing_cache(name: &str) -> Self {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        Place { folder: tempfile::tempdir().unwrap(), cache }
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// The command with these arguments, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kino"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("KINO_CACHE", &self.cache)
            .env("KINO_DATA", self.path("data"))
            .env("KINO_CONFIG", self.path("config"))
            .env_remove("KINO_LOG")
            .env_remove("NO_COLOR")
            .env_remove("CLICOLOR_FORCE")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn kino(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs the command, which must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let ran = self.kino(args);
        assert_eq!(ran.code, 0, "{args:?}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// Runs the command, which must end so, and returns what it said.
    #[track_caller]
    pub(crate) fn bad(&self, code: i32, args: &[&str]) -> String {
        let ran = self.kino(args);
        assert_eq!(ran.code, code, "{args:?}\n{}\n{}", ran.out, ran.err);
        ran.err
    }

    /// Runs the command with `--json` and reads each line.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.kino(&[args, &["--json"]].concat());
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// All files below a folder of it, relative to that folder, sorted.
    pub(crate) fn files(&self, name: &str) -> Vec<String> {
        let root = self.path(name);
        let mut found = Vec::new();
        gather(&root, &root, &mut found);
        found.sort();
        found
    }
}

fn gather(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(root, &path, found);
        } else {
            found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}

impl Ran {
    /// What a process left.
    pub(crate) fn of(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The event of this name among JSON lines.
#[track_caller]
pub(crate) fn event<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["event"] == name);
    found.unwrap_or_else(|| panic!("no event {name} in {lines:#?}"))
}

/// A PNG of 4×3 pixels, in shades from this one on.
pub(crate) fn picture(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4, 3);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..36).map(|at| shade.wrapping_add(at * 5)).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}
