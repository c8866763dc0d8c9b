//! A step whose files change while it runs fails, and nothing is kept under its key.

use std::fs;
use std::path::Path;

use kino_graph::StepInput;
use kino_port::{FileStamp, Literal, PlannedFile, PlannedRead};
use kino_runtime::RuntimeOptions;

use crate::nodes::Log;
use crate::rig::{Draft, Rig, int, lit, of, on_disk, sorted};

/// The step `read` of the file as it is now, and one behind it.
fn draft(file: &Path) -> Draft {
    let mut draft = Draft::default();
    let path = StepInput::Literal(Literal::text(file.display().to_string()));
    let read = draft.add("read", "replace", vec![path]);
    let behind = draft.add("behind", "keep", vec![of(read), lit(10)]);
    draft.give(behind, 0);
    let stamp = fs::metadata(file).ok().map(|about| FileStamp::of(&about));
    let files = vec![PlannedFile { path: file.to_owned(), stamp }];
    draft.plan.steps[read as usize].reads =
        vec![PlannedRead { path: "the file".into(), files, ..PlannedRead::default() }];
    draft
}

#[test]
fn a_step_whose_file_changes_while_it_runs_fails_and_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let options =
        RuntimeOptions { memory_budget: 1 << 20, ..on_disk(&folder.path().join("cache")) };
    let rig = Rig::with(options, Log::default());
    fs::write(&file, "first").unwrap();
    let old = draft(&file);
    let report = rig.run(&old);
    assert_eq!(report.failed[0].message, "the file changed while it ran");
    assert_eq!(sorted(&report.evaluated), ["read"]);
    assert_eq!(int(&report, "behind"), None);
    // The key of the hand-made plan is the same: the result must not be found under it.
    let new = draft(&file);
    assert_eq!(new.plan.steps[0].key, old.plan.steps[0].key);
    let report = rig.run(&new);
    assert_eq!((int(&report, "behind"), report.evaluated.len()), (Some(12), 2));
    assert_eq!(rig.evaluated(&new), [""; 0]);
}

#[test]
fn a_file_that_went_or_came_since_the_plan_is_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let rig = Rig::new();
    let missing = draft(&file);
    fs::write(&file, "other").unwrap();
    let present = draft(&file);
    assert_eq!(rig.run(&missing).failed[0].message, "the file changed while it ran");
    assert!(rig.run(&present).failed.is_empty());
    fs::remove_file(&file).unwrap();
    // The change explains more than the node's own error does.
    assert_eq!(rig.run(&present).failed[0].message, "the file changed while it ran");
}
