//! A process that is killed in the middle of a run, and the run that follows.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, int, lit, of, on_disk};

const FOLDER: &str = "KINO_TEST_KILLED";

/// The chain, then a node that hangs, then one more.
fn draft() -> Draft {
    let mut draft = Draft::chain();
    let hang = draft.add("hang", "hang", vec![of(2), lit(1000)]);
    let last = draft.add("last", "keep", vec![of(hang), lit(10_000)]);
    draft.give(last, 0);
    draft
}

fn marker(folder: &Path) -> PathBuf {
    folder.join("hangs")
}

/// What the child process does; it never returns.
#[test]
#[ignore = "runs in a child process, which is then killed"]
fn child() {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let log = Log { hang: Some(marker(&folder)), ..Log::default() };
    Rig::with(on_disk(&folder), log).run(&draft());
}

#[test]
fn a_killed_run_takes_every_finished_expensive_node_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--ignored"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !marker(folder.path()).exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let report = Rig::on_disk(folder.path()).run(&draft());
    let evaluated: Vec<&str> = report.evaluated.iter().map(|name| &**name).collect();
    assert_eq!(evaluated, ["hang", "last"]);
    assert_eq!(int(&report, "last"), Some(11_111));
}
