//! Files that are written: numbers in their names, what is replaced and what is not, folders that
//! cannot be written.

mod common;

use std::fs;

use common::{Place, Ran, event, picture};
use serde_json::Value;

/// Reads a picture and writes it to `path`, enlarged as `factor` says.
fn graph(path: &str) -> String {
    format!(
        r#"Graph(version: 1, inputs: {{"factor": (type: "Int", default: 2), "name": (type: "Text", default: "a")}}, nodes: {{
            "image": (op: "image.read", with: {{"path": "in.png"}}),
            "large": (op: "upscale", in: {{"frames": "image", "factor": "inputs.factor"}}, with: {{"model": "lanczos"}}),
            "file": (op: "image.write", in: {{"frames": "large"}}, with: {{"path": "{path}"}}),
        }}, outputs: {{"file": "file"}})"#
    )
}

fn place(path: &str) -> Place {
    let place = Place::new();
    place.write("in.png", picture(16));
    place.write("g.ron", graph(path));
    place
}

/// The lines of the results: the path and what became of it.
fn told(ran: &Ran) -> Vec<(String, String)> {
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let line = |line: &str| {
        let path = line.split("  ").next().unwrap().to_owned();
        let end = line.rsplit("  ").next().unwrap().split(',').next().unwrap().to_owned();
        (path, end)
    };
    ran.out.lines().map(line).collect()
}

#[track_caller]
fn check(place: &Place, args: &[&str], expect: &[(&str, &str)]) {
    let args = [&["run", "g.ron"], args].concat();
    let expect: Vec<_> = expect.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    assert_eq!(told(&place.kino(&args)), expect, "{args:?}");
}

#[test]
fn a_number_counts_up_and_the_same_run_keeps_its_own() {
    let place = place("{graph}-{n}.png");
    check(&place, &[], &[("out/g-001.png", "new")]);
    check(&place, &[], &[("out/g-001.png", "up to date")]);
    check(&place, &["-s", "factor=3"], &[("out/g-002.png", "new")]);
    check(&place, &[], &[("out/g-001.png", "up to date")]);
    check(&place, &["--no-cache"], &[("out/g-001.png", "replaced")]);
    place.write("out/g-007.png", "mine");
    check(&place, &["-s", "factor=4"], &[("out/g-008.png", "new")]);
    // What somebody has painted into is no longer this file.
    place.write("out/g-001.png", "painted");
    check(&place, &[], &[("out/g-009.png", "new")]);
    assert_eq!(fs::read(place.path("out/g-001.png")).unwrap(), b"painted");
    fs::remove_file(place.path("out/g-009.png")).unwrap();
    check(&place, &[], &[("out/g-009.png", "new")]);
    check(&place, &["-o", "b"], &[("b/g-001.png", "new")]);
}

#[test]
fn runs_of_a_sweep_and_sinks_of_a_graph_count_on() {
    let place = place("{graph}-{n}.png");
    check(
        &place,
        &["-q", "--sweep", "factor=2..4"],
        &[("out/g-001.png", "new"), ("out/g-002.png", "new"), ("out/g-003.png", "new")],
    );
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "image": (op: "image.read", with: {"path": "in.png"}),
            "large": (op: "upscale", in: {"frames": "image"}, with: {"model": "lanczos"}),
            "one": (op: "image.write", in: {"frames": "image"}, with: {"path": "{n}.png"}),
            "two": (op: "image.write", in: {"frames": "large"}, with: {"path": "{n}.png"}),
            "again": (op: "image.write", in: {"frames": "image"}, with: {"path": "{n}.png"}),
        })"#,
    );
    // Also of two that write the same; the next run finds each its own.
    for state in ["new", "up to date"] {
        let mut files = told(&place.kino(&["run", "g.ron", "-o", "two"]));
        files.sort();
        let expected = ["two/001.png", "two/002.png", "two/003.png"];
        assert_eq!(files, expected.map(|path| (path.to_owned(), state.to_owned())));
    }
}

#[test]
fn runs_at_the_same_time_count_apart() {
    let place = place("{n}.png");
    let mut files: Vec<_> = std::thread::scope(|scope| {
        let place = &place;
        let run = move |n: u32| place.kino(&["run", "g.ron", "-s", &format!("factor={n}")]);
        let runs: Vec<_> = (2..7).map(|n| scope.spawn(move || told(&run(n)))).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    files.sort();
    let expected = (1..6).map(|n| (format!("out/00{n}.png"), "new".to_owned()));
    assert_eq!(files, expected.collect::<Vec<_>>());
}

#[test]
fn a_folder_is_counted_as_a_file_is() {
    let place = place("{graph}/{n}/f_%02d.png");
    check(&place, &[], &[("out/g/001/f_00.png", "new")]);
    check(&place, &[], &[("out/g/001/f_00.png", "up to date")]);
    check(&place, &["-s", "factor=3"], &[("out/g/002/f_00.png", "new")]);
    check(&place, &["--no-cache"], &[("out/g/001/f_00.png", "replaced")]);
    place.write("out/g/001/f_00.png", "mine");
    let said = place.bad(2, &["run", "g.ron"]);
    assert!(said.contains("has changed since this graph wrote it"), "{said}");
}

#[test]
fn a_hash_stands_for_all_that_makes_a_file() {
    let place = place("{graph}-{hash}.png");
    let name = |args: &[&str]| told(&place.kino(&[&["run", "g.ron"], args].concat()))[0].clone();
    let (first, _) = name(&[]);
    assert_eq!(first.len(), "out/g-01234567.png".len(), "{first}");
    assert_eq!(name(&[]), (first.clone(), "up to date".to_owned()));
    let (other, state) = name(&["-s", "factor=3"]);
    assert!(other != first && state == "new", "{other}");
    place.write("in.png", picture(9));
    assert!(![first, other].contains(&name(&[]).0), "another picture is another file");
}

#[test]
fn inputs_of_these_names_count_first_and_readers_have_none() {
    let place = place("{n}-{hash}.png");
    place.write(
        "g.ron",
        graph("{n}-{hash}.png")
            .replace("\"name\"", "\"n\"")
            .replace("default: \"a\"", "default: \"x\""),
    );
    let said = told(&place.kino(&["run", "g.ron"]));
    assert!(said[0].0.starts_with("out/x-"), "{said:?}");
    place.write("g.ron", graph("b.png").replace("in.png", "{n}.png"));
    let said = place.bad(2, &["plan", "g.ron"]);
    assert!(said.contains("`image` reads this path"), "{said}");
}

#[test]
fn a_file_of_somebody_else_is_replaced_only_when_told() {
    let place = place("photo.png");
    place.write("out/photo.png", "a photo");
    for command in ["run", "plan"] {
        let said = place.bad(2, &[command, "g.ron"]);
        assert!(said.contains("`photo.png` stands there already"), "{said}");
        assert!(said.contains("--overwrite"), "{said}");
    }
    assert_eq!(fs::read(place.path("out/photo.png")).unwrap(), b"a photo");
    check(&place, &["--overwrite"], &[("out/photo.png", "replaced")]);
    // From then on it is the graph's own, also after an edit of the graph.
    check(&place, &["-s", "factor=3"], &[("out/photo.png", "replaced")]);
    check(&place, &["-s", "factor=3", "--no-cache"], &[("out/photo.png", "replaced")]);
    // Another graph's it is not, but for one that would write the very same.
    place.write("other.ron", graph("photo.png"));
    let said = place.bad(2, &["run", "other.ron"]);
    assert!(said.contains("this graph did not write it"), "{said}");
    place.good(&["run", "other.ron", "-s", "factor=3"]);
    // A copy of the file is the same file; an edited one is not.
    let bytes = fs::read(place.path("out/photo.png")).unwrap();
    fs::remove_file(place.path("out/photo.png")).unwrap();
    place.write("out/photo.png", &bytes);
    check(&place, &[], &[("out/photo.png", "replaced")]);
    place.write("out/photo.png", "painted");
    let said = place.bad(2, &["run", "g.ron"]);
    assert!(said.contains("has changed since this graph wrote it"), "{said}");
    let lines = place.json(&["run", "g.ron", "--overwrite"]);
    let files = &event(&lines, "outputs")["files"];
    assert_eq!(files[0]["state"], "replaced", "{files}");
    assert_eq!(files[0]["path"], "out/photo.png");
    let again = place.json(&["run", "g.ron"]);
    assert_eq!(event(&again, "outputs")["files"][0]["state"], "up to date");
}

#[test]
fn frames_of_somebody_else_are_not_replaced_either() {
    let place = place("f_%02d.png");
    place.write("out/f_00.png", "mine");
    place.write("out/f_99.png", "no frame of ours");
    let said = place.bad(2, &["run", "g.ron"]);
    assert!(said.contains("`f_00.png` stands there already"), "{said}");
    fs::remove_file(place.path("out/f_00.png")).unwrap();
    check(&place, &[], &[("out/f_00.png", "new")]);
    check(&place, &["-s", "factor=3"], &[("out/f_00.png", "replaced")]);
    place.write("out/f_00.png", "mine");
    assert!(place.bad(2, &["run", "g.ron"]).contains("has changed since"));
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_runs() {
    let place = place("a.png");
    place.write("file", "in the way");
    fs::create_dir_all(place.path("out/a.png")).unwrap();
    let nowhere = if cfg!(target_os = "linux") { "/proc/x" } else { "/dev/null/x" };
    for (args, expect) in [
        (&["--out", "/dev/null"][..], "a file is where a folder should be"),
        (&["--out", "file"], "a file is where a folder should be"),
        (&["--out", "file/below"], "a file is where a folder should be"),
        (&["--out", nowhere], "cannot be made"),
        (&[], "`a.png` is a folder"),
    ] {
        let args = [&["run", "g.ron"], args].concat();
        let said = place.bad(2, &args);
        assert!(said.contains(expect), "{args:?}: {said}");
        let mut command = place.command(&[&args[..], &["--json"]].concat());
        let ran = Ran::of(command.output().unwrap());
        assert!(!ran.out.contains("\"started\""), "nothing runs: {}", ran.out);
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"in the way");
}

/// The permissions of a folder mean nothing to the superuser, who mostly runs the tests in a box.
#[cfg(unix)]
#[test]
fn permissions_count() {
    use std::os::unix::fs::PermissionsExt;
    let place = place("a.png");
    fs::create_dir(place.path("out")).unwrap();
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o500)).unwrap();
    let is_bound = fs::write(place.path("out/probe"), "").is_err();
    let ran = place.kino(&["run", "g.ron"]);
    assert_eq!(ran.code, if is_bound { 2 } else { 0 }, "{}", ran.err);
    assert_eq!(ran.err.contains("permission denied"), is_bound, "{}", ran.err);
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(unix)]
#[test]
fn that_the_folder_is_a_link_is_told() {
    let place = place("a.png");
    fs::create_dir(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.path("out")).unwrap();
    let ran = place.kino(&["run", "g.ron"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("out is a link: files go to "), "{}", ran.err);
    // One file by two ways is one file.
    check(&place, &["-o", "elsewhere"], &[("elsewhere/a.png", "replaced")]);
}

#[test]
fn names_made_of_prompts_are_cut_by_bytes() {
    let place = place("{name}-{factor}.png");
    let longest = |path: &str| path.rsplit('/').next().unwrap().len();
    for name in ["猫".repeat(80), "é".repeat(300), "a".repeat(300), "🦊".repeat(90)] {
        let files = told(&place.kino(&["run", "g.ron", "-s", &format!("name={name}")]));
        assert!(longest(&files[0].0) <= 255, "{files:?}");
        assert!(files[0].0.ends_with("-2.png"), "{files:?}");
        assert!(place.path(&files[0].0).is_file());
    }
    let sweep = ["run", "g.ron", "-q", "--sweep", "factor=2,3", "--sweep"];
    let texts = [format!("name={}", "猫".repeat(80)), format!("name={}", "猫".repeat(81))];
    let texts = [&texts[0], "--sweep", &texts[1]];
    let files = told(&place.kino(&[&sweep[..], &texts].concat()));
    assert_eq!(files.len(), 4);
    // What has no place in a name: nothing at all, marks that are not seen, a pattern of numbers.
    for (name, file) in [
        ("", "_-2.png"),
        ("a\u{200f}b\u{feff}c\u{2028}d", "a_b_c_d-2.png"),
        ("50%d off", "50_d off-2.png"),
        ("%04d", "_04d-2.png"),
    ] {
        let files = told(&place.kino(&["run", "g.ron", "-s", &format!("name={name}")]));
        assert!(files[0].0.ends_with(&format!("/{file}")), "{name}: {files:?}");
        assert!(place.path(&files[0].0).is_file());
    }
    // What is too long as it is written is told before anything runs.
    place.write("g.ron", graph(&"n".repeat(300)));
    assert!(place.bad(2, &["run", "g.ron"]).contains("bytes long"));
}

/// Both nodes are named, also where the run is one of a watch.
#[test]
fn a_graph_that_reads_what_it_writes_is_refused() {
    let place = Place::new();
    place.write("out/o.png", picture(8));
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "img": (op: "image.read", with: {"path": "out/o.png"}),
            "big": (op: "upscale", in: {"frames": "img"}, with: {"factor": 2}),
            "file": (op: "image.write", in: {"frames": "big"}, with: {"path": "o.png"}),
        })"#,
    );
    let before = fs::read(place.path("out/o.png")).unwrap();
    let said = place.bad(2, &["run", "g.ron"]);
    assert!(said.contains("`img` reads the file `out/o.png`, which `file` writes"), "{said}");
    let mut watch = place.command(&["watch", "g.ron", "--json"]);
    let mut watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(watch.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(lines).map(Result::unwrap);
    let until = lines.by_ref().find(|line| line.contains("\"waiting\""));
    watch.kill().unwrap();
    watch.wait().unwrap();
    let waiting: Value = serde_json::from_str(&until.unwrap()).unwrap();
    assert_eq!(waiting["event"], "waiting", "it waits, and does not run again and again");
    assert_eq!(fs::read(place.path("out/o.png")).unwrap(), before);
}

/// A run that was killed between writing and saying so leaves a file that is still the graph's.
#[test]
fn what_a_killed_run_wrote_is_still_its_graphs() {
    let place = place("a.png");
    check(&place, &[], &[("out/a.png", "new")]);
    let records = place.path("data/outputs");
    let file = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&file).unwrap();
    let begun = text.lines().next().unwrap();
    assert!(!begun.contains("\"hash\""), "the first line says that it begins: {begun}");
    fs::write(&file, format!("{begun}\n{{\"name\": \"cut o")).unwrap();
    place.write("out/a.png", "whatever it had written");
    check(&place, &["--no-cache"], &[("out/a.png", "replaced")]);
}
