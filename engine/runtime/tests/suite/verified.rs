//! Entries on disk are taken at their word when a run is announced, and verified before they are
//! used: a run that is stopped meanwhile ends.

use std::fs;
use std::path::{Path, PathBuf};

use kino_graph::StepInput;
use kino_runtime::{CacheStatus, Event};

use crate::caches_on_disk::files;
use crate::rig::{Draft, Rig, all, int, lit, of, sorted};

/// Runs, and calls `at_planned` when it is announced; also says how the run was announced.
fn run_after(
    rig: &Rig,
    draft: &Draft,
    at_planned: impl Fn() + Sync,
) -> (kino_runtime::Report, Vec<CacheStatus>) {
    let announced = std::sync::Mutex::new(Vec::new());
    let report = rig.run_telling(draft, &|event| {
        if let Event::Planned { steps } = event {
            announced.lock().unwrap().extend(steps.iter().map(|step| step.status));
            at_planned();
        }
    });
    (report, announced.into_inner().unwrap())
}

#[test]
fn a_run_is_announced_before_entries_are_read_and_computes_what_is_broken() {
    use CacheStatus::{Disk, Pruned};
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    // In the order in which they are computed: a, b, c.
    let mut entries: Vec<PathBuf> = Vec::new();
    for steps in 1..=3 {
        let mut draft = Draft::chain();
        draft.plan.steps.truncate(steps);
        draft.plan.outputs.clear();
        draft.give(steps as u32 - 1, 0);
        rig.run(&draft);
        let new = files(folder.path()).into_iter().find(|path| !entries.contains(path)).unwrap();
        entries.push(new);
    }
    let flip = |entry: &Path| {
        let mut bytes = fs::read(entry).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(entry, bytes).unwrap();
    };
    for (broken, evaluated, cached) in [
        (&entries[2..], &["c"][..], &["b"][..]),
        (&entries[1..], &["b", "c"], &["a"]),
        (&entries[..], &["a", "b", "c"], &[]),
        (&entries[..2], &[], &["c"]),
    ] {
        // Only entries that are read after the announcement are found broken.
        let at_planned = || broken.iter().for_each(|entry| flip(entry));
        let (report, announced) = run_after(&rig, &Draft::chain(), at_planned);
        assert_eq!(announced, [Pruned, Pruned, Disk]);
        assert_eq!(int(&report, "c"), Some(111));
        assert_eq!((sorted(&report.evaluated), sorted(&report.cached)), owned(evaluated, cached));
    }
}

fn owned(evaluated: &[&str], cached: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (owned(evaluated), owned(cached))
}

#[test]
fn a_run_that_is_stopped_while_entries_are_verified_ends_and_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::default();
    let bigs = [1, 2].map(|from| draft.add(&format!("b{from}"), "big", vec![lit(from), lit(0)]));
    let shape = draft.add("shape", "shape", vec![all(&bigs)]);
    draft.give(shape, 0);
    Rig::on_disk(folder.path()).run(&draft);
    let read = |entry: &PathBuf| fs::read(entry).unwrap();
    let before: Vec<_> = files(folder.path()).iter().map(read).collect();
    let rig = Rig::on_disk(folder.path());
    let (report, announced) = run_after(&rig, &draft, || rig.log.flag.cancel());
    assert_eq!(announced, [CacheStatus::Disk, CacheStatus::Disk, CacheStatus::Run]);
    assert!(report.cancelled && report.failed.is_empty() && report.outputs.is_empty());
    assert_eq!((sorted(&report.evaluated), sorted(&report.cached)), owned(&[], &[]));
    let after: Vec<_> = files(folder.path()).iter().map(read).collect();
    assert!(before == after, "an entry that was not verified was taken for broken");
    let report = Rig::on_disk(folder.path()).run(&draft);
    assert_eq!(sorted(&report.evaluated), ["shape"]);
}

#[test]
fn a_touched_file_of_a_sink_is_hashed_after_the_announcement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.txt");
    let rig = Rig::on_disk(&folder.path().join("cache"));
    let mut draft = Draft::default();
    let kept = draft.add("kept", "keep", vec![lit(41), lit(1)]);
    let to = StepInput::Literal(kino_port::Literal::text(path.display().to_string()));
    let file = draft.add("file", "write", vec![of(kept), to]);
    draft.give(file, 0);
    rig.run(&draft);
    let (report, announced) = run_after(&rig, &draft, || fs::write(&path, "43").unwrap());
    assert_eq!(announced, [CacheStatus::Pruned, CacheStatus::Disk]);
    assert_eq!((sorted(&report.evaluated), sorted(&report.cached)), owned(&["file"], &["kept"]));
    assert_eq!(fs::read(&path).unwrap(), b"42");
}

#[test]
fn a_large_entry_that_cannot_be_read_back_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::default();
    let before = draft.add("before", "keep", vec![lit(1), lit(2)]);
    let foreign = draft.add("foreign", "foreign", vec![of(before), lit(0)]);
    let last = draft.add("last", "sum", vec![all(&[foreign])]);
    let beside = draft.add("beside", "big", vec![lit(1), StepInput::Absent]);
    let shape = draft.add("shape", "shape", vec![all(&[beside])]);
    draft.give(last, 0).give(shape, 0);
    let first = Rig::on_disk(folder.path()).run(&draft);
    assert!(first.is_complete(), "{:?}", first.failed);
    for _ in 0..2 {
        let again = Rig::on_disk(folder.path()).run(&draft);
        assert!(again.is_complete(), "{:?}", again.failed);
        assert_eq!(int(&again, "last"), Some(1));
        assert_eq!(int(&again, "shape"), int(&first, "shape"));
        let evaluated = sorted(&again.evaluated);
        assert!(evaluated.contains(&"foreign".into()), "{evaluated:?}");
        for kept in ["before", "beside"] {
            assert!(!evaluated.contains(&kept.into()), "{kept} is found again: {evaluated:?}");
        }
    }
}
