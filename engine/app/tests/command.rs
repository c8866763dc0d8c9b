//! The command line itself: exit codes, help, colours, pipes, completions.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Place, Ran};

#[test]
fn exit_codes_are_as_documented() {
    let place = Place::new();
    place.good(&["--version"]);
    let help = place.good(&["--help"]);
    for code in ["  0 ", "  1 ", "  2 ", "  130 "] {
        assert!(help.contains(code), "{help}");
    }
    assert!(place.bad(2, &["fly"]).contains("unrecognized subcommand"));
    assert!(place.bad(2, &["run"]).contains("<GRAPH>"));
    assert!(place.bad(2, &["check", "nowhere.ron"]).contains("there is no file nowhere.ron"));
    assert!(place.bad(2, &["check", "text_to_vidoe"]).contains("did you mean `text_to_video`?"));
    assert!(place.bad(2, &["plan", "text_to_video", "--device", "cpu:9"]).contains("cuda:N"));
}

#[test]
fn the_version_tells_the_features() {
    let long = Place::new().good(&["--version"]);
    assert!(long.starts_with(concat!("kino ", env!("CARGO_PKG_VERSION"), "\n")), "{long}");
    assert!(long.contains("h264") && long.contains("cuda"), "{long}");
    let short = Place::new().good(&["-V"]);
    assert_eq!(short.lines().count(), 1);
}

#[test]
fn every_command_has_help() {
    let place = Place::new();
    let commands =
        ["run", "check", "plan", "nodes", "draw", "show", "cache", "init", "completions"];
    for command in commands {
        let help = place.good(&[command, "--help"]);
        assert!(help.contains("Usage: kino") && help.contains(command), "{help}");
    }
}

#[test]
fn colours_follow_the_flag_and_the_environment() {
    let place = Place::new();
    let coloured = |flags: &[&str], env: &[(&str, &str)]| {
        let args = [&["nodes", "math"], flags].concat();
        let mut command = place.command(&args);
        let ran = Ran::of(command.envs(env.iter().copied()).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out.contains('\x1b')
    };
    assert!(!coloured(&[], &[]), "a pipe gets no colours");
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    for args in [
        &["nodes", "--json"][..],
        &["draw", "mixed_sizes"],
        &["completions", "zsh"],
        &["help"],
        &["-V"],
    ] {
        let mut command = place.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {said}");
        assert_eq!(said, "", "{args:?}");
    }
}

/// As coreutils have it: what was asked for and could not be printed is a failure.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_told_and_fails() {
    let place = Place::new();
    for line in [
        "help",
        "--help",
        "run --help",
        "help plugin",
        "--version",
        "-V",
        "nodes",
        "nodes --json",
        "draw upscale",
        "completions bash",
        "init",
        "cache size --json",
        "check upscale",
        "plan text_to_image --json",
        "plugin list",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(place.command(&args).stdout(full).output().unwrap());
        assert_eq!(ran.code, 1, "{line}: {}", ran.err);
        assert!(ran.err.contains("No space left on device"), "{line}: {}", ran.err);
    }
}

#[test]
fn completions_exist_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.good(&["completions", shell]);
        assert!(script.contains("kino") && script.contains("sweep"), "{shell}");
    }
}

#[test]
fn init_writes_and_never_overwrites_silently() {
    let place = Place::new();
    let listed = place.good(&["init"]);
    for graph in ["text_to_video", "text_to_image", "mixed_sizes", "upscale"] {
        assert!(listed.contains(graph), "{listed}");
    }
    assert_eq!(place.good(&["init", "upscale"]), "upscale.ron\n");
    place.write("upscale.ron", "mine");
    assert!(place.bad(2, &["init", "upscale"]).contains("--force"));
    assert_eq!(std::fs::read_to_string(place.path("upscale.ron")).unwrap(), "mine");
    place.good(&["init", "upscale.ron", "--force"]);
    place.good(&["check", "upscale.ron"]);
    assert!(place.bad(2, &["init", "upscail"]).contains("did you mean `upscale`?"));
}

#[test]
fn the_cache_is_measured_and_emptied() {
    let place = Place::new();
    assert!(place.good(&["cache", "size"]).starts_with("0 B"));
    place.good(
        &[&["run", "text_to_image", "-s", "width=32", "-s", "height=32", "-s", "steps=1"][..]]
            .concat(),
    );
    let size = &place.json(&["cache", "size"])[0];
    assert!(size["bytes"].as_u64().unwrap() > 0, "{size}");
    let freed = &place.json(&["cache", "clear"])[0];
    assert_eq!(freed["freed"], size["bytes"]);
    assert_eq!(place.json(&["cache", "size"])[0]["bytes"], 0);
    assert!(place.path("out/text_to_image-3-001.png").is_file(), "files that were written stay");
}
