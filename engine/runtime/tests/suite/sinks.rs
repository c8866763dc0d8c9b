//! A sink is cached only while its file is up to date.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kino_graph::StepInput;
use kino_node::Value;
use kino_port::Literal;
use kino_runtime::{CacheStatus, Cached, Event, RuntimeOptions};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, lit, of, on_disk};

fn written(path: &Path, number: i128) -> Draft {
    let mut draft = Draft::default();
    let kept = draft.add("kept", "keep", vec![lit(number), lit(1)]);
    let path = StepInput::Literal(Literal::text(path.display().to_string()));
    let file = draft.add("file", "write", vec![of(kept), path]);
    draft.give(file, 0);
    draft
}

fn set_time(path: &Path, ago: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
}

#[test]
fn a_sink_runs_again_when_its_file_is_gone_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let cached_in_memory = RuntimeOptions { memory_budget: 1 << 20, disk: None, threads: 2 };
    for options in [on_disk(&folder.path().join("cache")), cached_in_memory] {
        let _ = fs::remove_file(&path);
        let rig = Rig::with(options, Log::default());
        let draft = written(&path, 41);
        assert_eq!(rig.evaluated(&draft), ["file", "kept"]);
        assert_eq!(rig.evaluated(&draft), [""; 0]);
        assert_eq!(rig.status(&draft), [CacheStatus::Pruned, CacheStatus::Disk]);
        fs::remove_file(&path).unwrap();
        assert_eq!(rig.evaluated(&draft), ["file"]);
        fs::write(&path, "43").unwrap();
        set_time(&path, 100);
        assert_eq!(rig.evaluated(&draft), ["file"]);
        assert_eq!(fs::read(&path).unwrap(), b"42");
        fs::write(&path, "longer").unwrap();
        assert_eq!(rig.evaluated(&draft), ["file"]);
        assert_eq!(rig.evaluated(&draft), [""; 0]);
    }
}

#[test]
fn a_file_that_was_only_touched_still_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let rig = Rig::on_disk(&folder.path().join("cache"));
    let draft = written(&path, 41);
    rig.run(&draft);
    set_time(&path, 100);
    assert_eq!(rig.evaluated(&draft), [""; 0]);
    let report = rig.run(&draft);
    let Some(Value::File(file)) = report.output("file") else { panic!("a file") };
    assert_eq!((&file.path, file.bytes), (&path, 2));
}

#[test]
fn another_result_in_the_same_file_runs_the_sink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let rig = Rig::on_disk(&folder.path().join("cache"));
    rig.run(&written(&path, 41));
    rig.run(&written(&path, 42));
    assert_eq!(rig.evaluated(&written(&path, 41)), ["file"]);
    assert_eq!(fs::read(&path).unwrap(), b"42");
}

#[test]
fn without_any_cache_a_sink_always_runs() {
    let folder = tempfile::tempdir().unwrap();
    let draft = written(&folder.path().join("out.txt"), 41);
    let rig = Rig::new();
    assert_eq!(rig.evaluated(&draft), ["file", "kept"]);
    assert_eq!(rig.evaluated(&draft), ["file", "kept"]);
}

#[test]
fn events_name_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let rig = Rig::on_disk(&folder.path().join("cache"));
    rig.run(&written(&path, 1));
    rig.run(&written(&path, 1));
    let files = |event: &Event| match event {
        Event::Finished { files, cached, .. } if !files.is_empty() => {
            Some((*cached, files[0].path.clone()))
        }
        _ => None,
    };
    let files: Vec<_> = rig.events.lock().unwrap().iter().filter_map(files).collect();
    assert_eq!(files, [(Cached::None, path.clone()), (Cached::Disk, path)]);
}

#[cfg(unix)]
#[test]
fn a_file_that_was_damaged_with_its_time_kept_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let rig = Rig::on_disk(&folder.path().join("cache"));
    let draft = written(&path, 41);
    rig.run(&draft);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    // Longer than a tick of the clock that file systems take their times from.
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, "43").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(rig.evaluated(&draft), ["file"]);
    assert_eq!(fs::read(&path).unwrap(), b"42");
}
