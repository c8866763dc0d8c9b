//! The cache on disk: broken entries, several writers, limits, folders that cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kino_graph::StepInput;
use kino_runtime::{DiskCache, RuntimeOptions};

use crate::nodes::Log;
use crate::rig::{Draft, Rig, all, int, lit, sorted};

/// All files below `folder`, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
    found
}

fn one(number: i128) -> Draft {
    let mut draft = Draft::default();
    let only = draft.add("only", "keep", vec![lit(number), StepInput::Absent]);
    draft.give(only, 0);
    draft
}

#[test]
fn every_flipped_byte_and_every_cut_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    rig.run(&one(7));
    let [entry] = &files(folder.path())[..] else { panic!("one entry") };
    let whole = fs::read(entry).unwrap();
    let flipped = (0..whole.len()).map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    let cut = (0..whole.len()).step_by(5).map(|at| whole[..at].to_vec());
    let longer = [&whole[..], b"x"].concat();
    for bytes in flipped.chain(cut).chain([longer]) {
        fs::write(entry, &bytes).unwrap();
        let report = rig.run(&one(7));
        assert_eq!(int(&report, "only"), Some(7));
        assert_eq!(report.evaluated.len(), 1, "a broken entry was believed");
        assert_eq!(rig.evaluated(&one(7)), [""; 0], "the entry was not mended");
    }
}

#[test]
fn an_entry_under_another_key_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    rig.run(&one(7));
    let seven = files(folder.path()).remove(0);
    rig.run(&one(8));
    let eight = files(folder.path()).into_iter().find(|path| *path != seven).unwrap();
    fs::copy(&seven, &eight).unwrap();
    let report = rig.run(&one(8));
    assert_eq!((int(&report, "only"), report.evaluated.len()), (Some(8), 1));
}

#[test]
fn several_runtimes_share_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // A tight limit, so that they also remove what others write and read.
                let disk = Some(DiskCache::open(folder.path(), 2000));
                let options = RuntimeOptions { disk, memory_budget: 0, threads: 1 };
                let rig = Rig::with(options, Log::default());
                for number in (0..60).map(|turn| turn * 7 % 13) {
                    assert_eq!(int(&rig.run(&one(number)), "only"), Some(number));
                }
            });
        }
    });
    assert!(files(folder.path()).iter().all(|path| path.extension().unwrap() == "entry"));
}

#[test]
fn the_least_recently_used_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    let mut entries = Vec::new();
    for number in 0..4 {
        rig.run(&one(number));
        let new = files(folder.path()).into_iter().find(|path| !entries.contains(path)).unwrap();
        let hours = Duration::from_secs(3600 * (10 - number as u64));
        let file = fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::now() - hours).unwrap();
        entries.push(new);
    }
    // Reading the oldest makes it the newest.
    assert_eq!(rig.evaluated(&one(0)), [""; 0]);
    let size = rig.runtime.disk().unwrap().size();
    let disk = Some(DiskCache::open(folder.path(), size));
    let tight = Rig::with(RuntimeOptions { disk, memory_budget: 0, threads: 1 }, Log::default());
    tight.run(&one(4));
    assert!(tight.runtime.disk().unwrap().size() <= size);
    assert!(entries[0].exists() && !entries[1].exists());
    assert_eq!(tight.evaluated(&one(4)), [""; 0]);
}

#[test]
fn what_is_larger_than_the_limit_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Some(DiskCache::open(folder.path(), 20));
    let rig = Rig::with(RuntimeOptions { disk, memory_budget: 0, threads: 1 }, Log::default());
    assert_eq!(rig.evaluated(&one(1)), ["only"]);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let rig = Rig::on_disk(&file.join("below"));
    assert_eq!(rig.evaluated(&Draft::chain()), ["a", "b", "c"]);
    assert_eq!(rig.evaluated(&Draft::chain()), ["a", "b", "c"]);
    assert_eq!(rig.runtime.disk().unwrap().size(), 0);
    assert_eq!(rig.runtime.disk().unwrap().clear().unwrap(), 0);
}

#[test]
fn size_and_clear() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    rig.run(&Draft::chain());
    let disk = rig.runtime.disk().unwrap();
    let bytes: u64 = files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes > 0);
    assert_eq!((disk.size(), disk.clear().unwrap(), disk.size()), (bytes, bytes, 0));
    assert_eq!(rig.evaluated(&Draft::chain()), ["a", "b", "c"]);
}

#[test]
fn what_killed_writers_left_is_removed_and_what_lives_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    rig.run(&one(1));
    let entry = files(folder.path()).remove(0);
    let bytes = entry.metadata().unwrap().len();
    let living = entry.with_file_name("tmp-living");
    fs::write(&living, "half").unwrap();
    // As a writer locks what it writes.
    let writer = fs::File::options().write(true).open(&living).unwrap();
    writer.lock().unwrap();
    let leave = |name: &str| {
        let left = entry.with_file_name(name);
        fs::write(&left, [0; 1000]).unwrap();
        left
    };
    let disk = rig.runtime.disk().unwrap();
    let left = leave("tmp-left");
    assert_eq!(disk.size(), bytes + 4);
    assert!(living.exists() && !left.exists());
    let left = leave("tmp-left");
    assert_eq!(disk.clear().unwrap(), bytes + 1000);
    assert!(living.exists() && !left.exists() && !entry.exists());
    // Another process clears up before it stores for the first time.
    let left = leave("tmp-left");
    Rig::on_disk(folder.path()).run(&one(2));
    assert!(living.exists() && !left.exists());
    drop(writer);
    disk.clear().unwrap();
    assert!(files(folder.path()).is_empty());
}

#[test]
fn whatever_took_the_place_of_an_entry_is_a_miss_and_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::on_disk(folder.path());
    let replace: [fn(&Path); 3] = [
        |entry| fs::create_dir_all(entry.join("folder")).unwrap(),
        |entry| fs::write(entry, "no entry").unwrap(),
        #[cfg(unix)]
        |entry| std::os::unix::fs::symlink("/dev/zero", entry).unwrap(),
        #[cfg(not(unix))]
        |_| {},
    ];
    for (number, replace) in replace.iter().enumerate() {
        let draft = one(number as i128);
        rig.run(&draft);
        let [entry] = &files(folder.path())[..] else { panic!("one entry") };
        fs::remove_file(entry).unwrap();
        replace(entry);
        let report = rig.run(&draft);
        assert_eq!((int(&report, "only"), report.evaluated.len()), (Some(number as i128), 1));
        let _ = fs::remove_file(entry);
        replace(entry);
        rig.runtime.disk().unwrap().clear().unwrap();
        assert!(fs::symlink_metadata(entry).is_err(), "{number}");
    }
}

#[test]
fn entries_of_older_forms_are_counted_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("values-1/ab");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("abcd.entry"), [0; 500]).unwrap();
    let rig = Rig::on_disk(folder.path());
    let disk = rig.runtime.disk().unwrap();
    assert_eq!((disk.size(), disk.clear().unwrap(), disk.size()), (500, 500, 0));
    // They are the first to go, too.
    fs::write(old.join("abcd.entry"), [0; 500]).unwrap();
    let disk = Some(DiskCache::open(folder.path(), 500));
    let tight = Rig::with(RuntimeOptions { disk, memory_budget: 0, threads: 1 }, Log::default());
    tight.run(&one(1));
    assert!(!old.join("abcd.entry").exists());
    assert_eq!(tight.evaluated(&one(1)), [""; 0]);
}

#[test]
fn large_entries_are_verified_first_and_read_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::default();
    let bigs = [1, 2].map(|from| draft.add(&format!("b{from}"), "big", vec![lit(from), lit(0)]));
    let shape = draft.add("shape", "shape", vec![all(&bigs)]);
    draft.give(shape, 0);
    let rig = Rig::on_disk(folder.path());
    let expected = Some(2 * 5_000_000 + 2 * 4_999_999 + 3);
    assert_eq!(int(&rig.run(&draft), "shape"), expected);
    let report = rig.run(&draft);
    assert_eq!(
        (int(&report, "shape"), sorted(&report.cached)),
        (expected, vec!["b1".into(), "b2".into()])
    );
    let entry = files(folder.path()).remove(0);
    let mut bytes = fs::read(&entry).unwrap();
    assert!(bytes.len() > 20_000_000);
    for at in [0, 50, 100, 10_000_000, bytes.len() - 1] {
        bytes[at] ^= 1;
        fs::write(&entry, &bytes).unwrap();
        bytes[at] ^= 1;
        let report = rig.run(&draft);
        assert_eq!((int(&report, "shape"), report.evaluated.len()), (expected, 2));
    }
}
