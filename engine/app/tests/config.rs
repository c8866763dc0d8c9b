//! The user's settings through the command: what counts, what is shown, what a broken file says.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Place, QUICK, Ran};
use serde_json::Value;

/// The command without any setting but that of its file.
fn plain(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(args);
    for name in ["CACHE", "DATA", "MEMORY", "SPILL", "DEVICE", "MODELS", "FFMPEG", "CACHE_LIMIT"] {
        command.env_remove(format!("KINO_{name}"));
    }
    // Where nothing is set, caches lie below here.
    command.env("HOME", place.path("home")).env("XDG_CACHE_HOME", place.path("home/cache"));
    command.env("XDG_DATA_HOME", place.path("home/data"));
    command
}

fn run(place: &Place, args: &[&str]) -> Ran {
    Ran::of(plain(place, args).output().unwrap())
}

#[track_caller]
fn good(place: &Place, args: &[&str]) -> String {
    let ran = run(place, args);
    assert_eq!(ran.code, 0, "{args:?}\n{}\n{}", ran.out, ran.err);
    ran.out
}

#[track_caller]
fn bad(place: &Place, args: &[&str]) -> String {
    let ran = run(place, args);
    assert_eq!(ran.code, 2, "{args:?}\n{}\n{}", ran.out, ran.err);
    ran.err
}

/// Value and origin of a setting.
fn setting(command: &mut Command, name: &str) -> (Value, String) {
    let ran = Ran::of(command.arg("--json").output().unwrap());
    let all: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
    let found = all["settings"].as_array().unwrap().iter().find(|row| row["name"] == name);
    let found = found.unwrap();
    (found["value"].clone(), found["origin"].as_str().unwrap().to_owned())
}

fn file(place: &Place) -> PathBuf {
    place.path("config/settings.ron")
}

#[test]
fn flags_count_before_the_environment_before_the_file_before_what_is_taken() {
    let place = Place::new();
    let (value, origin) = setting(&mut plain(&place, &["config"]), "memory");
    assert!(value.as_u64().unwrap() > 1 << 20 && origin == "default");
    good(&place, &["config", "set", "memory", "3GB"]);
    let memory = |command: &mut Command| setting(command, "memory");
    assert_eq!(memory(&mut plain(&place, &["config"])), (3_000_000_000_u64.into(), "file".into()));
    let mut command = plain(&place, &["config"]);
    let of_environment = memory(command.env("KINO_MEMORY", "4GB"));
    assert_eq!(of_environment, (4_000_000_000_u64.into(), "environment".into()));
    let mut command = plain(&place, &["config", "--memory", "5GB", "--device", "cpu"]);
    assert_eq!(
        memory(command.env("KINO_MEMORY", "4GB")),
        (5_000_000_000_u64.into(), "flag".into())
    );
    let shown = Ran::of(
        plain(&place, &["config", "--device", "cpu"]).env("KINO_SPILL", "9GB").output().unwrap(),
    );
    let lines: Vec<Vec<&str>> =
        shown.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["memory", "3.0", "GB", "file"]), "{}", shown.out);
    assert!(lines.contains(&vec!["spill", "9.0", "GB", "KINO_SPILL"]), "{}", shown.out);
    assert!(lines.contains(&vec!["device", "cpu", "--device"]), "{}", shown.out);
    good(&place, &["config", "unset", "memory"]);
    assert_eq!(setting(&mut plain(&place, &["config"]), "memory").1, "default");
    assert_eq!(
        good(&place, &["config", "unset", "memory", "--json"]),
        format!(
            "{}\n",
            serde_json::json!({
                "file": file(&place).to_str().unwrap(), "name": "memory", "was_set": false
            })
        )
    );
}

#[test]
fn what_is_set_is_what_runs_use() {
    let place = Place::new();
    good(&place, &["config", "set", "memory", "2MB"]);
    good(&place, &["config", "set", "cache", "here"]);
    let plan = [&["plan", "text_to_video"][..], &QUICK].concat();
    let refused = bad(&place, &plan);
    assert!(refused.contains("2.0 MB are allowed"), "{refused}");
    good(&place, &[&plan[..], &["--memory", "2GB"]].concat());
    good(&place, &["config", "set", "memory", "2GB"]);
    // A relative folder is that of the moment at which it was set.
    good(&place, &[&["run", "text_to_video"][..], &QUICK].concat());
    let size = good(&place, &["cache", "size", "--json"]);
    let size: Value = serde_json::from_str(&size).unwrap();
    assert_eq!(Path::new(size["folder"].as_str().unwrap()), place.path("here"));
    assert!(size["bytes"].as_u64().unwrap() > 1000);
    assert!(!place.path("home/cache").exists());
    good(&place, &["config", "set", "device", "cpu"]);
    good(&place, &plan);
    let wrong = Ran::of(plain(&place, &plan).env("KINO_DEVICE", "gpu").output().unwrap());
    assert!(wrong.err.contains("KINO_DEVICE=gpu"), "{}", wrong.err);
}

#[test]
fn models_lie_in_folders_that_are_set() {
    let place = Place::new();
    let graph = place.write(
        "graphs/g.ron",
        r#"Graph(version: 1, nodes: {
            "model": (op: "model.load", with: {"source": "mine/tiny"}),
            "noise": (op: "latent.noise", in: {"vae": "model.vae"},
                with: {"width": 32, "height": 32, "frames": 1, "seed": 1}),
        }, outputs: {"latent": "noise"})"#,
    );
    let graph = graph.to_str().unwrap();
    let missing = bad(&place, &["plan", graph]);
    assert!(missing.contains("does not exist") && missing.contains("models"), "{missing}");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nodes/shapes/model");
    copy(&model, &place.path("b/mine/tiny"));
    good(&place, &["config", "set", "models", "a", "b"]);
    let text = std::fs::read_to_string(file(&place)).unwrap();
    let folders = format!("{:?}, {:?}", place.path("a"), place.path("b"));
    assert!(text.contains(&format!("models: [{folders}]")), "{text}");
    good(&place, &["plan", graph]);
    good(&place, &["run", graph, "--device", "cpu"]);
    // Keys are those of the contents: beside the graph, the same model is the same result.
    std::fs::rename(place.path("b/mine"), place.path("graphs/mine")).unwrap();
    let ran = good(&place, &["run", graph, "--device", "cpu", "--json"]);
    let done: Value =
        ran.lines().map(|line| serde_json::from_str(line).unwrap()).next_back().unwrap();
    assert_eq!(done["evaluated"].as_array().map(Vec::len).unwrap_or(0), 0, "{ran}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn comments_and_what_else_stands_in_the_file_stay() {
    let place = Place::new();
    let written = "// mine\nSettings(\n    // a lot\n    memory: \"8GB\", // enough\n    \
                   spill: 5_000_000,\n)\n";
    place.write("config/settings.ron", written);
    good(&place, &["config", "set", "memory", "9 GB"]);
    good(&place, &["config", "set", "device", "cpu"]);
    let text = std::fs::read_to_string(file(&place)).unwrap();
    let set = written.replace("8GB", "9 GB").replace("(\n", "(\n    device: \"cpu\",\n");
    assert_eq!(text, set);
    assert_eq!(
        setting(&mut plain(&place, &["config"]), "spill"),
        (5_000_000.into(), "file".into())
    );
    good(&place, &["config", "unset", "device"]);
    good(&place, &["config", "unset", "spill"]);
    let text = std::fs::read_to_string(file(&place)).unwrap();
    assert_eq!(text, written.replace("8GB", "9 GB").replace("    spill: 5_000_000,\n", ""));
    // On one line, too.
    place.write("config/settings.ron", "(memory: \"8GB\", spill: \"1GB\")");
    good(&place, &["config", "unset", "memory"]);
    good(&place, &["config", "set", "ffmpeg", ""]);
    let text = std::fs::read_to_string(file(&place)).unwrap();
    assert!(text.contains("ffmpeg: \"\"") && text.contains("spill: \"1GB\""), "{text}");
    assert_eq!(setting(&mut plain(&place, &["config"]), "ffmpeg").0, Value::Null);
    assert_eq!(place.files("config"), ["settings.ron"], "nothing is left beside it");
}

#[cfg(unix)]
#[test]
fn a_linked_file_stays_a_link() {
    let place = Place::new();
    place.write("dotfiles/kino.ron", "Settings()");
    std::fs::create_dir(place.path("config")).unwrap();
    std::os::unix::fs::symlink(place.path("dotfiles/kino.ron"), file(&place)).unwrap();
    good(&place, &["config", "set", "memory", "1GB"]);
    assert!(file(&place).is_symlink());
    let text = std::fs::read_to_string(place.path("dotfiles/kino.ron")).unwrap();
    assert!(text.contains("memory: \"1GB\""), "{text}");
}

#[test]
fn a_broken_file_says_where_and_what_to_do() {
    let place = Place::new();
    let cases = [
        ("Settings(\n  memroy: \"1GB\",\n)", 2, 3, "no setting `memroy`", "did you mean `memory`?"),
        ("Settings(\n  memory: \"much\",\n)", 2, 11, "much is no size", "write 20GB or 500MB"),
        ("Settings(\n  memory: [1],\n)", 2, 11, "expected a size such as", "write 20GB"),
        ("Settings(\n  device: 7,\n)", 2, 11, "expected a device such as \"cpu\"", "cpu"),
        ("Settings(memory: \"1GB\", memory: \"1GB\")", 1, 25, "`memory` is written twice", ""),
        ("Settings(\n  models: [7],\n)", 2, 11, "expected folders, found a number", ""),
        ("Settings(\n  memory: \"1GB\"", 1, 9, "never closed", "mend the file, or remove it"),
        ("[1]", 1, 1, "expected Settings(name: value, …), found a list", "mend the file"),
    ];
    for (text, line, column, message, hint) in cases {
        place.write("config/settings.ron", text);
        for args in
            [&["config"][..], &["config", "set", "spill", "1GB"], &["plan", "text_to_video"]]
        {
            let ran = run(&place, &[args, &["--json"]].concat());
            assert_eq!(ran.code, 2, "{text} {args:?} {}", ran.err);
            let said: Value = serde_json::from_str(&ran.out).unwrap();
            let said = &said["diagnostics"][0];
            assert_eq!(
                (said["line"].as_u64(), said["column"].as_u64()),
                (Some(line), Some(column))
            );
            assert!(said["message"].as_str().unwrap().contains(message), "{said}");
            assert!(said["hint"].as_str().unwrap_or_default().contains(hint), "{said}");
            assert!(said["file"].as_str().unwrap().ends_with("config/settings.ron"), "{said}");
        }
        assert_eq!(std::fs::read_to_string(file(&place)).unwrap(), text, "it stays as it was");
    }
    // What needs no settings goes on.
    good(&place, &["completions", "bash"]);
    good(&place, &["config", "--help"]);
}

/// A file in which nothing stands, or comments alone, sets nothing and can be written.
#[test]
fn a_file_without_settings_sets_nothing() {
    let place = Place::new();
    for text in ["", "\n", "// mine", "// mine\n\n"] {
        place.write("config/settings.ron", text);
        good(&place, &["config"]);
        good(&place, &["check", "text_to_video"]);
        good(&place, &["config", "set", "memory", "1GB"]);
        let written = std::fs::read_to_string(file(&place)).unwrap();
        assert!(
            written.starts_with(text.trim_end()) && written.contains("memory: \"1GB\""),
            "{written}"
        );
    }
}

#[test]
fn a_file_in_the_place_of_the_folder_is_told() {
    let place = Place::new();
    place.write("config", "Settings()");
    for args in [&["config"][..], &["config", "set", "memory", "1GB"], &["plan", "text_to_video"]] {
        let said = bad(&place, args);
        assert!(said.contains("config is a file; settings lie in a folder"), "{said}");
        assert!(
            said.contains("name a folder in KINO_CONFIG") && !said.contains("os error"),
            "{said}"
        );
    }
}

#[test]
fn values_are_checked_when_they_are_set() {
    let place = Place::new();
    for size in ["0", "0GB"] {
        let said = bad(&place, &["config", "set", "memory", size]);
        assert!(said.contains("leaves runs no memory"), "{said}");
    }
    assert!(bad(&place, &["plan", "text_to_video", "--memory", "0"]).contains("no memory"));
    // No test machine has a hundred.
    let said = bad(&place, &["config", "set", "device", "cuda:99"]);
    assert!(said.contains("cuda"), "{said}");
    assert!(bad(&place, &["config", "set", "memory", "much"]).contains("much is no size"));
    assert!(
        bad(&place, &["config", "set", "memory", "1GB", "2GB"]).contains("`memory` is one value")
    );
    assert!(bad(&place, &["config", "set", "memroy", "1GB"]).contains("did you mean `memory`?"));
    assert!(bad(&place, &["config", "unset", "memroy"]).contains("did you mean `memory`?"));
    assert!(!file(&place).exists());
    let mut command = plain(&place, &["config", "set", "memory", "1GB"]);
    let told = Ran::of(command.env("KINO_MEMORY", "2GB").output().unwrap());
    assert!(told.err.contains("KINO_MEMORY is set, and counts before the file"), "{}", told.err);
}

/// Many at once lose nothing of each other's.
#[test]
fn settings_that_are_set_at_once_are_all_there() {
    let place = Place::new();
    let all = [("memory", "1GB"), ("spill", "2GB"), ("cache_limit", "3GB"), ("device", "cpu")];
    let started = all.map(|(name, value)| {
        plain(&place, &["config", "set", name, value, "--quiet"]).spawn().unwrap()
    });
    started.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    for (name, _) in all {
        assert_eq!(setting(&mut plain(&place, &["config"]), name).1, "file", "{name}");
    }
}

#[test]
fn the_help_names_every_setting() {
    let place = Place::new();
    let help = good(&place, &["--help"]);
    for name in ["KINO_CACHE", "KINO_MODELS", "KINO_FFMPEG", "KINO_DEVICE_MEMORY", "KINO_CONFIG"] {
        assert!(help.contains(name), "{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

/// The variable names kernels that the processor has, they are shown, and enter the keys of what is
/// computed by them; anything else is an error before something runs.
#[test]
fn the_kernels_can_be_named() {
    let place = Place::new();
    let with = |cpu: &str, args: &[&str]| {
        Ran::of(plain(&place, args).env("KINO_CPU", cpu).output().unwrap())
    };
    let shown = with("portable", &["--version"]);
    assert!(shown.out.contains("CPU kernels: portable"), "{}", shown.out);
    let keys = |cpu: &str| -> Vec<String> {
        let ran = with(cpu, &["plan", "text_to_video", "--json"]);
        let plan: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err));
        let steps = plan["steps"].as_array().unwrap();
        steps.iter().map(|step| step["key"].as_str().unwrap().to_owned()).collect()
    };
    let portable = keys("portable");
    assert_eq!(portable, keys("portable"));
    let best = kino_session::cpu_kernels();
    if best != "portable" {
        let own = keys(best);
        assert_eq!(own, keys(""), "what is set to nothing is not set");
        assert!(own.iter().zip(&portable).any(|(own, portable)| own != portable));
    }
    let mut refusals = vec![("quick", "KINO_CPU is \"quick\"; expected one of portable")];
    if best != "amx" {
        refusals.push(("amx", "KINO_CPU is amx, which this processor has not; it has portable"));
    }
    for (named, says) in refusals {
        let refused = with(named, &["run", "text_to_video"]);
        assert_eq!(refused.code, 2, "{}", refused.err);
        let told = refused.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(says), "{told}");
    }
}
