//! Paths that are not UTF-8: `--json` has a text for each that leads back to it, and nothing panics
//! or is taken for another path.

#![cfg(unix)]

mod common;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use common::{Place, QUICK, Ran, event};
use kino_port::path_of_text;
use serde_json::Value;

/// A byte that is no part of any character.
const NAME: &[u8] = b"bad\xff";

fn name() -> &'static OsStr {
    OsStr::from_bytes(NAME)
}

/// Runs the command with `--json`, which must succeed, and reads each line.
#[track_caller]
fn json(place: &Place, args: &[&OsStr], env: &[(&str, &OsStr)]) -> Vec<Value> {
    let mut command = place.command(&["--json"]);
    let ran = Ran::of(command.args(args).envs(env.iter().copied()).output().unwrap());
    assert_eq!(ran.code, 0, "{args:?}\n{}\n{}", ran.out, ran.err);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

/// The path that a text in JSON stands for, from the folder of the command.
fn path(place: &Place, text: &Value) -> PathBuf {
    place.path("").join(path_of_text(text.as_str().unwrap_or_else(|| panic!("{text} is no text"))))
}

#[test]
fn a_run_tells_what_it_wrote_and_finds_it_again() {
    let place = Place::new();
    let run = |out: &OsStr| {
        let args =
            [words(&["run", "text_to_video"]), words(&QUICK), vec![OsStr::new("--out"), out]];
        json(&place, &args.concat(), &[])
    };
    let lines = run(name());
    let told = |lines: &[Value]| {
        let file = lines.iter().find(|line| line["event"] == "finished" && line["name"] == "file");
        let written = &file.expect("the sink is told")["files"][0]["path"];
        assert_eq!(*written, event(lines, "outputs")["outputs"]["video"]["path"]);
        path(&place, written)
    };
    let video = told(&lines);
    assert_eq!(video.parent().unwrap().file_name(), Some(name()));
    assert!(video.is_file());
    assert_eq!(event(&run(name()), "done")["evaluated"], 0, "the file stands as it was written");
    // Another folder whose name looks the same is another folder.
    let other = run(OsStr::from_bytes(b"bad\xfe"));
    assert_ne!(event(&other, "done")["evaluated"], 0);
    assert!(told(&other).is_file() && told(&other) != video);

    let shown = json(&place, &[OsStr::new("show"), video.as_os_str()], &[]);
    assert_eq!(path(&place, &shown[0]["file"]), video);
}

#[test]
fn the_cache_lies_anywhere() {
    let place = Place::new();
    let folder = place.path("").join(name());
    let env = [("KINO_CACHE", folder.as_os_str())];
    json(&place, &[words(&["run", "text_to_video"]), words(&QUICK)].concat(), &env);
    for action in ["size", "clear"] {
        let told = json(&place, &words(&["cache", action]), &env);
        assert_eq!(path(&place, &told[0]["folder"]), folder);
        assert!(told[0]["bytes"].as_u64().or(told[0]["freed"].as_u64()).unwrap() > 0);
    }
}

#[test]
fn a_graph_is_written_into_any_folder() {
    let place = Place::new();
    std::fs::create_dir(place.path("").join(name())).unwrap();
    let mut command = place.command(&["init", "upscale", "--json"]);
    let ran = Ran::of(command.current_dir(place.path("").join(name())).output().unwrap());
    // No other graphs or pictures lie beside it.
    let told = "{\"besides\":[],\"file\":\"upscale.ron\"}\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, told), "{}", ran.err);
}

#[test]
fn a_plugin_lies_anywhere() {
    let place = Place::new();
    let mut folder = OsString::from(name());
    folder.push("/plain");
    let plugin = place.path("").join(&folder);
    let told = json(&place, &[words(&["plugin", "new", "--c"]), vec![&folder]].concat(), &[]);
    assert_eq!(path(&place, &told[0]["folder"]), plugin);
    let built = json(&place, &[words(&["plugin", "build"]), vec![&folder]].concat(), &[]);
    assert!(path(&place, &built[0]["built"][0]["file"]).is_file());
    let checked = json(&place, &[words(&["plugin", "check"]), vec![&folder]].concat(), &[]);
    assert!(checked[0]["cases"].as_array().unwrap().len() > 3);
    // The consent that `new` wrote is found again, and the folder's graph runs.
    let listed = json(&place, &[words(&["plugin", "list"]), vec![&folder]].concat(), &[]);
    let listed = &listed[0]["plugins"][0];
    assert_eq!(
        (path(&place, &listed["folder"]), &listed["allowed"]),
        (plugin.clone(), &true.into())
    );
    let trusted = ["plugin", "trust", "plain", "--native", "--isolate", "--folder"];
    let trusted = json(&place, &[words(&trusted), vec![&folder]].concat(), &[]);
    assert_eq!(path(&place, &trusted[0]["lock"]), plugin.join("kino.lock.ron"));
    let mut command = place.command(&["run", "graph.ron", "--json"]);
    let ran = Ran::of(command.current_dir(&plugin).env("TMPDIR", &plugin).output().unwrap());
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
}

#[test]
fn a_graph_may_lie_in_such_a_path() {
    let place = Place::new();
    let text = r#"Graph(version: 1, nodes: {
        "in": (op: "image.read", with: {"path": "in.png"}),
        "out": (op: "image.write", in: {"frames": "in"}, with: {"path": "x.png"}),
    }, outputs: {"image": "out"})"#;
    let folder = place.path("").join(name());
    std::fs::create_dir(&folder).unwrap();
    let mut file = name().to_owned();
    file.push(".ron");
    let graph = PathBuf::from(name()).join(&file);
    std::fs::write(folder.join(&file), text).unwrap();
    std::fs::write(folder.join("in.png"), common::picture(1)).unwrap();
    for command in ["check", "plan", "run"] {
        json(&place, &[OsStr::new(command), graph.as_os_str()], &[]);
    }
    assert!(place.path("out/x.png").is_file());
    // What is wrong with it is told at its place, by a text that leads back to it.
    std::fs::write(folder.join(&file), text.replace("image.read", "image.raed")).unwrap();
    let mut command = place.command(&["--json", "check"]);
    let ran = Ran::of(command.arg(&graph).output().unwrap());
    assert_eq!(ran.code, 2, "{}", ran.err);
    let said: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    let at = &said["diagnostics"][0]["file"];
    assert_eq!(path(&place, at), place.path("").join(&graph), "{said}");
}
