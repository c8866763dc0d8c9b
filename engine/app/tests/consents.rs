//! Gifts of strangers that reach for what is the user's: files behind links and paths, native code,
//! dev mode, limits, the place of another plugin. Each holds as far as this user has agreed to on
//! this machine, and else stops with a message that says how to agree.

#![cfg(all(unix, feature = "wasm"))]

mod common;
mod giving;
mod watching;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::picture;
use giving::{CANARY, COMPONENT, Ended, GRANT, Gift, MANIFEST, READERS, reading, squeezed};
use watching::Watching;

/// A component that does the same, with another sha256: with a custom section at its end.
fn another_build() -> Vec<u8> {
    [COMPONENT, &[0, 4, 3, b'o', b'd', b'd']].concat()
}

#[test]
fn a_link_that_was_granted_leads_nowhere_outside() {
    let mut gift = Gift::with_reader("luts/key.txt");
    let home = gift.home();
    let inner = home.strip_prefix("/").unwrap().display().to_string();
    let to_file = format!("luts/{inner}/key.txt");
    for (to, read) in [
        (&*home, "luts/key.txt"),
        (&home.join("key.txt"), "luts"),
        (Path::new("../home"), "luts/key.txt"),
        (Path::new("/"), &*to_file),
    ] {
        gift.link("luts", to);
        let graph = fs::read_to_string(gift.at("graph.ron")).unwrap();
        let (before, rest) = graph.split_once(r#""x": ""#).unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        gift.write("graph.ron", format!(r#"{before}"x": "{read}"{after}"#));
        let real = gift.at("luts").canonicalize().unwrap().display().to_string();
        gift.pin(GRANT);
        gift.remember();
        gift.is_refused(&["`guests`", "luts", &real, "kino plugin trust guests"]);
    }
}

/// Whatever is agreed to.
#[test]
fn a_link_into_what_the_system_shows_is_never_followed() {
    let mut gift = Gift::with_reader("luts");
    for (to, real) in [
        ("/proc/self/environ", "/proc/"),
        ("/proc/self", "/proc/"),
        ("/proc", "/proc"),
        ("/sys/kernel", "/sys/kernel"),
        ("/dev", "/dev"),
        ("/dev/zero", "/dev/zero"),
    ] {
        gift.link("luts", to);
        let read = if to == "/proc/self" { "luts/environ" } else { "luts" };
        let graph = r#"Graph(version: 1, nodes: {"r": (op: "good.file", with: {"x": "READ"})},
            outputs: {"text": "r"})"#;
        gift.write("graph.ron", graph.replace("READ", read));
        gift.pin(GRANT);
        gift.remember();
        gift.is_refused(&["luts", real]);
        // Agreeing changes nothing, whether the command takes it or not.
        gift.shows_nothing(&["plugin", "trust", "guests", "--read", "luts", "--yes"]);
        gift.remember();
        gift.is_refused(&["luts", real]);
    }
}

/// Through a folder of the gift in which links lie.
#[test]
fn a_link_within_what_was_granted_leads_nowhere_outside() {
    let mut gift = Gift::with_reader("luts/key.txt");
    gift.write("luts/own.txt", "own");
    gift.link("luts/key.txt", gift.home().join("key.txt"));
    gift.link("luts/deep", "/");
    gift.link("luts/round", ".");
    gift.link("luts/environ", "/proc/self/environ");
    for grant in ["luts", ".", "./luts/."] {
        gift.pin(&format!(r#"grants: (read: ["{grant}"])"#));
        gift.remember();
        for args in [&["run", "graph.ron"][..], &["run", "--locked", "graph.ron"]] {
            gift.stops(args, &["luts/key.txt"]);
        }
        gift.is_inert();
    }
    // Its own files it reads.
    let graph = fs::read_to_string(gift.at("graph.ron")).unwrap();
    gift.write("graph.ron", graph.replace("luts/key.txt", "luts/own.txt"));
    assert!(gift.good(&["run", "graph.ron"]).contains("own"));
}

/// For this plugin, these graphs and this place.
#[test]
fn what_was_agreed_to_holds_for_nothing_else() {
    let gift = Gift::with_reader("luts/key.txt");
    gift.place.write("other/key.txt", CANARY);
    gift.link("luts", gift.home());
    gift.pin(GRANT);
    gift.stops(&["run", "graph.ron"], &["luts"]);
    gift.good(&["plugin", "trust", "guests", "--read", "luts", "--yes"]);
    assert!(gift.good(&["run", "graph.ron"]).contains(CANARY), "the user agreed");
    // Another place.
    gift.link("luts", gift.place.path("other"));
    let other = gift.place.path("other").canonicalize().unwrap().display().to_string();
    gift.stops(&["run", "graph.ron"], &["luts", &other]);
    gift.link("luts", gift.place.path("."));
    gift.stops(&["run", "graph.ron"], &["luts"]);
    gift.link("luts", gift.home());
    assert!(gift.good(&["run", "graph.ron"]).contains(CANARY));
    // Graphs of another folder, with the same files.
    let again = Command::new("cp").arg("-a").args([gift.at(""), gift.place.path("again")]).status();
    assert!(again.unwrap().success());
    gift.stops(&["run", "../again/graph.ron"], &["luts"]);
    // Another plugin that is granted the same.
    gift.write("plugins/guests/plugin.ron", MANIFEST.replace(r#"id: "guests""#, r#"id: "others""#));
    let lock = fs::read_to_string(gift.at("kino.lock.ron")).unwrap();
    gift.write("kino.lock.ron", lock.replace(r#""guests""#, r#""others""#));
    gift.stops(&["run", "graph.ron"], &["luts", "`others`"]);
}

#[test]
fn dev_mode_of_a_stranger_means_nothing() {
    let more = r#"asks: Asks(read: ["luts"], memory: "64GB")"#;
    let asks = MANIFEST.replace("asks: Asks()", more);
    assert_ne!(asks, *MANIFEST);
    let mut gift = Gift::with_reader("luts/key.txt");
    gift.link("luts", gift.home());
    gift.plugin(COMPONENT, &asks);
    gift.lock(r#"dev: "plugins/guests", kind: wasm"#);
    gift.remember();
    gift.is_refused(&["`guests`", "kino plugin trust guests"]);
    // Also where it reads nothing.
    gift.plugin(COMPONENT, &MANIFEST);
    gift.write("luts.txt", "x");
    gift.remember();
    gift.is_refused(&["`guests`", "kino plugin trust guests"]);
    // Native code, too: one build is advised, not every later one of a stranger.
    gift.lock(r#"dev: "plugins/guests", kind: native, trust: native"#);
    gift.remember();
    gift.is_refused(&["`guests`"]);
    let err = gift.ends(&["run", "graph.ron"]).ran.err;
    assert!(err.contains("kino plugin trust guests --native") && !err.contains("--dev"), "{err}");
    // A plugin's folder that is the graph's own.
    for name in ["guests.wasm", "plugin.ron"] {
        fs::rename(gift.at(&format!("plugins/guests/{name}")), gift.at(name)).unwrap();
    }
    fs::remove_dir_all(gift.at("plugins")).unwrap();
    gift.lock(r#"dev: ".", kind: wasm"#);
    gift.remember();
    gift.is_refused(&["`guests`", "kino plugin trust guests"]);
}

#[test]
fn limits_beyond_the_usual_ones_need_consent() {
    let mut gift = Gift::with_reader("in.txt");
    gift.write("in.txt", "text");
    for (limits, part) in [
        (r#"memory: "900GB""#, "900"),
        (r#"memory: "1025MiB""#, "memory"),
        ("seconds: 1e18", "seconds"),
        ("seconds: 61.0", "61"),
    ] {
        gift.pin(&format!(r#"grants: (read: ["in.txt"]), limits: ({limits})"#));
        gift.remember();
        gift.is_refused(&["`guests`", part, "kino plugin trust guests"]);
    }
    // The usual ones do not.
    gift.pin(r#"grants: (read: ["in.txt"]), limits: (memory: "1GiB", seconds: 60.0)"#);
    assert!(gift.good(&["run", "graph.ron"]).contains("text"));
    // Nor those that the user agrees to, which is seen.
    gift.pin(r#"grants: (read: ["in.txt"]), limits: (memory: "2GiB")"#);
    gift.stops(&["run", "graph.ron"], &["memory"]);
    let agree = ["plugin", "trust", "guests", "--read", "in.txt", "--memory", "2GiB", "--yes"];
    gift.good(&agree);
    assert!(gift.good(&["run", "graph.ron"]).contains("text"));
    let listed = gift.good(&["plugin", "list"]);
    assert!(listed.contains("in.txt") && listed.contains("2GiB"), "{listed}");
}

/// A plugin in C, with the nodes `c.blend` and `c.count`, that writes a file as soon as it is
/// loaded.
fn evil(gift: &Gift, library: &Path) {
    let source = format!(
        r#"#include <stdio.h>
        __attribute__((constructor)) static void on_load(void) {{
            FILE *file = fopen("{}", "w");
            if (file) fclose(file);
        }}"#,
        gift.place.path("ran").display()
    );
    let source = gift.place.write("evil.c", source);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let plugin = root.join("plugins/native/tests/c");
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    let made = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-std=c11", "-D_DEFAULT_SOURCE", "-fPIC", "-shared", "-pthread", "-I"])
        .arg(root.join("plugins/abi/include"))
        .arg("-I")
        .arg(&plugin)
        .arg("-o")
        .args([library, &plugin.join("blend.c"), &source])
        .output()
        .expect("a C compiler");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A gift with a plugin that is native code alone, and a graph that counts with it.
fn with_native() -> Gift {
    let gift = Gift::new();
    evil(&gift, &gift.at("plugins/blend").join(kino_host::library_name("blend")));
    let manifest = r#"Plugin(id: "blend", version: "1.0.0", nodes: ["c.blend", "c.count"],
        native: "blend")"#;
    gift.write("plugins/blend/plugin.ron", manifest);
    let graph = r#"Graph(version: 1, nodes: {"n": (op: "c.count")}, outputs: {"count": "n"})"#;
    gift.write("graph.ron", graph);
    gift
}

/// A gift with a component that has a native build as well.
fn with_both() -> Gift {
    let gift = Gift::with_reader("in.txt");
    gift.write("in.txt", "text");
    evil(&gift, &gift.at("plugins/guests").join(kino_host::library_name("guests")));
    let wasm = r#"wasm: "guests.wasm""#;
    let both = MANIFEST.replace(wasm, &format!(r#"{wasm}, native: "guests""#));
    assert_ne!(both, *MANIFEST);
    gift.write("plugins/guests/plugin.ron", both);
    gift
}

#[test]
fn native_code_runs_by_no_command_that_was_not_told_so() {
    let mut gift = with_native();
    gift.remember();
    for command in ["check", "bench"] {
        gift.stops(&["plugin", command, "plugins/blend"], &["native", "--native"]);
    }
    gift.stops(&["plugin", "trust", "blend", "--yes"], &["native", "--native"]);
    gift.stops(&["plugin", "add", "plugins/blend"], &["native", "--native"]);
    gift.shows_nothing(&["plugin", "show", "blend"]);
    gift.is_refused(&["`blend`", "kino plugin trust blend --native"]);
    // Where it is said, it runs: the library does what it is feared for.
    gift.good(&["plugin", "check", "plugins/blend", "--native", "--node", "c.blend"]);
    assert!(gift.place.path("ran").exists());
}

/// Once it was accepted on this machine, it is loaded without another word.
#[test]
fn native_code_that_was_accepted_is_tried_and_run() {
    let gift = with_native();
    gift.good(&["plugin", "trust", "blend", "--native", "--yes"]);
    assert!(gift.good(&["run", "graph.ron"]).contains("count = 1"));
    gift.good(&["plugin", "check", "plugins/blend", "--node", "c.blend"]);
    // Until it is another build, or the trust is taken back.
    let library = gift.at("plugins/blend").join(kino_host::library_name("blend"));
    let build = fs::read(&library).unwrap();
    fs::write(&library, [&build[..], b"x"].concat()).unwrap();
    gift.stops(&["plugin", "check", "plugins/blend"], &["--native"]);
    gift.stops(&["run", "graph.ron"], &["`blend`", "has changed"]);
    fs::write(&library, build).unwrap();
    gift.good(&["run", "graph.ron"]);
    let lock = fs::read(gift.at("kino.lock.ron")).unwrap();
    gift.good(&["plugin", "untrust", "blend"]);
    gift.stops(&["run", "graph.ron"], &["`blend`", "is not trusted"]);
    // Not even by the lock file, which the sender has, too.
    gift.write("kino.lock.ron", lock);
    gift.stops(&["run", "graph.ron"], &["`blend`", "you have not accepted it here"]);
    gift.stops(&["plugin", "check", "plugins/blend"], &["--native"]);
}

/// What was accepted in a process of its own is not loaded into this one because a lock file says
/// so.
#[test]
fn a_lock_file_does_not_take_native_code_out_of_its_process() {
    let gift = with_native();
    gift.good(&["plugin", "trust", "blend", "--native", "--isolate", "--yes"]);
    assert!(gift.good(&["run", "graph.ron"]).contains("count = 1"));
    let lock = fs::read_to_string(gift.at("kino.lock.ron")).unwrap();
    let own = lock.replace("isolate: true", "isolate: false");
    assert_ne!(own, lock);
    gift.write("kino.lock.ron", own);
    gift.stops(&["run", "graph.ron"], &["`blend`", "process of its own"]);
    // The other way round is no harm.
    gift.good(&["plugin", "trust", "blend", "--native", "--yes"]);
    gift.write("kino.lock.ron", &lock);
    gift.good(&["run", "graph.ron"]);
}

/// Types this as the answer on a terminal, where there is the program `script` that makes one.
fn on_a_terminal(gift: &Gift, args: &[&str], answer: &str) -> Option<String> {
    let kino = gift.place.command(args);
    let words: Vec<_> = std::iter::once(kino.get_program())
        .chain(kino.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut command = Command::new("script");
    command.args(["-qec", &words.join(" "), "/dev/null"]).current_dir(gift.at(""));
    for (name, value) in kino.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        println!("there is no `script`: nobody is asked");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, answer.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Nothing was done before the answer.
#[cfg(target_os = "linux")]
#[test]
fn who_is_asked_on_a_terminal_sees_what_it_is_about_and_may_say_no() {
    let gift = with_native();
    let trust = ["plugin", "trust", "blend", "--native"];
    let Some(said) = on_a_terminal(&gift, &trust, "n\n") else { return };
    assert!(said.contains("native code: it can do whatever you can"), "{said}");
    assert!(said.contains("[y/N]") && said.contains("sha256"), "{said}");
    assert!(!gift.place.path("ran").exists(), "it ran before the answer: {said}");
    assert!(!gift.at("kino.lock.ron").exists(), "{said}");
    on_a_terminal(&gift, &trust, "y\n").unwrap();
    assert!(gift.good(&["run", "graph.ron"]).contains("count = 1"));
    // A graph's own text.
    let gift = Gift::new();
    gift.write("graph.ron", reading("image.read", "../home/photo.png"));
    let said = on_a_terminal(&gift, &["run", "graph.ron"], "n\n").unwrap();
    assert!(said.contains("[y/N]") && said.contains("home"), "{said}");
    gift.stops(&["run", "graph.ron"], &["--allow-read"]);
    let said = on_a_terminal(&gift, &["run", "graph.ron"], "y\n").unwrap();
    assert!(said.contains("Frames["), "{said}");
    gift.good(&["run", "graph.ron"]);
}

#[test]
fn the_component_alone_is_tried_where_both_builds_lie() {
    let mut gift = with_both();
    gift.pin(r#"grants: (read: ["in.txt"])"#);
    gift.remember();
    let args = ["plugin", "check", "plugins/guests", "--node", "good.square", "--json"];
    let said = gift.good(&args);
    assert!(said.contains("wasm"), "{said}");
    gift.kept_to_itself();
    assert!(gift.good(&["run", "graph.ron"]).contains("text"));
    gift.is_inert();
}

#[test]
fn a_lock_file_does_not_accept_native_code() {
    let mut gift = with_both();
    let library = gift.at("plugins/guests").join(kino_host::library_name("guests"));
    let sha256 = kino_host::sha256(&library).unwrap();
    for (entry, parts) in [
        (
            format!(r#"version: "1.0.0", kind: native, sha256: "{sha256}", trust: native"#),
            &["`guests`", "accept", "kino plugin trust guests --native"][..],
        ),
        (
            r#"dev: "plugins/guests", kind: native, trust: native"#.to_owned(),
            &["`guests`", "kino plugin trust guests --native"],
        ),
        (
            r#"dev: "plugins/guests", kind: native, trust: native, isolate: true"#.to_owned(),
            &["`guests`", "kino plugin trust guests --native"],
        ),
        (
            format!(r#"version: "1.0.0", kind: native, sha256: "{sha256}""#),
            &["`guests`", "kino plugin trust guests --native"],
        ),
        (
            format!(r#"version: "1.0.0", kind: native, sha256: "{sha256}", trust: isolated"#),
            &["kino.lock.ron", "trust", "isolate: true"],
        ),
        (format!(r#"version: "1.0.0", kind: isolated, sha256: "{sha256}""#), &["`kind`"]),
    ] {
        gift.lock(&entry);
        gift.remember();
        gift.is_refused(parts);
        // The pin is advised, not every later build of a stranger.
        let err = gift.ends(&["run", "graph.ron"]).ran.err;
        assert!(!err.contains("--dev"), "{err}");
        let check = ["plugin", "check", "plugins/guests", "--node", "good.square"];
        gift.shows_nothing(&check);
        gift.kept_to_itself();
    }
}

#[test]
fn a_plugin_in_the_place_of_the_user_s_own_is_told() {
    let gift = Gift::with_reader("in.txt");
    gift.write("in.txt", "text");
    gift.place.write("mine/guests.wasm", another_build());
    gift.place.good(&["plugin", "add", "mine/guests.wasm"]);
    gift.pin(r#"grants: (read: ["in.txt"])"#);
    let Ended { ran, .. } = gift.ends(&["run", "graph.ron"]);
    assert!(ran.out.contains("text"), "{}", ran.err);
    let err = squeezed(&ran.err);
    assert!(err.contains("`guests`") && err.contains("plugins/guests"), "{}", ran.err);
    assert!(err.contains("own"), "it says whose: {}", ran.err);
    let listed = squeezed(&gift.ends(&["plugin", "list"]).ran.out);
    assert!(listed.contains("plugins/guests"), "{listed}");
    let own = gift.place.path("data/plugins/guests").canonicalize().unwrap();
    assert!(listed.contains(&squeezed(&own.display().to_string())), "{listed}");
    // Without the lock file of the gift, both are as good: nothing is chosen.
    fs::remove_file(gift.at("kino.lock.ron")).unwrap();
    gift.stops(&["run", "graph.ron"], &["two plugins are called `guests`"]);
}

/// What is no component is not pinned: it is opened before.
#[test]
fn what_is_no_plugin_is_not_trusted() {
    let core = [&b"\0asm\x01\0\0\0"[..], &[0; 4]].concat();
    for (what, bytes) in [
        ("eight bytes", &b"\0asm\x01\0\0\0"[..]),
        ("an empty component", b"\0asm\x0d\0\x01\0"),
        ("a core module", &core),
        ("a part of a component", &COMPONENT[..COMPONENT.len() / 2]),
        ("a text", b"a text"),
        ("nothing", b""),
        ("a library", b"\x7fELF\x02\x01\x01"),
    ] {
        let mut gift = Gift::with_reader("in.txt");
        gift.plugin(bytes, &MANIFEST);
        gift.remember();
        let begun = Instant::now();
        gift.stops(&["plugin", "trust", "guests", "--yes"], &["guests"]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        assert!(!gift.at("kino.lock.ron").exists(), "{what} was pinned");
        gift.is_inert();
    }
    // 2.2 GB of zeros.
    let gift = Gift::with_reader("in.txt");
    let file = fs::File::create(gift.at("plugins/guests/guests.wasm")).unwrap();
    file.set_len(2_200_000_000).unwrap();
    let begun = Instant::now();
    gift.stops(&["plugin", "trust", "guests", "--yes"], &["guests.wasm", "larger"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "it is not read to its end");
}

#[test]
fn a_graph_s_own_text_reaches_no_files_outside_its_folder() {
    let mut gift = Gift::new();
    gift.write("sub/x", "");
    gift.link("link.png", gift.home().join("photo.png"));
    gift.link("folder", gift.home());
    let absolute = gift.home().join("photo.png").display().to_string();
    for (op, ..) in READERS {
        for path in [
            &*absolute,
            "../home/photo.png",
            "sub/../../home/photo.png",
            "link.png",
            "folder/photo.png",
        ] {
            gift.write("graph.ron", reading(op, path));
            gift.remember();
            for command in ["plan", "run"] {
                gift.stops(&[command, "graph.ron"], &[path, "photo.png", "--allow-read"]);
            }
            gift.is_inert();
        }
    }
    // As the default of an input, and by a graph that the graph uses.
    let inner = r#"Graph(version: 1, inputs: {"image": (type: "Path", default: "PATH")}, nodes: {
        "r": (op: "image.read", in: {"path": "inputs.image"})}, outputs: {"frames": "r"})"#;
    gift.write("graph.ron", inner.replace("PATH", "../home/photo.png"));
    gift.stops(&["run", "graph.ron"], &["photo.png", "--allow-read"]);
    gift.write("sub/inner.ron", inner.replace("PATH", "../../home/photo.png"));
    gift.write(
        "graph.ron",
        r#"Graph(version: 1, nodes: {"i": (op: "./sub/inner.ron")}, outputs: {"f": "i.frames"})"#,
    );
    gift.stops(&["run", "graph.ron"], &["photo.png", "--allow-read"]);
}

#[test]
fn what_the_user_gives_or_agrees_to_is_read() {
    let gift = Gift::new();
    let graph = r#"Graph(version: 1, inputs: {"image": (type: "Path", default: "../home/photo.png")},
        nodes: {"r": (op: "image.read", in: {"path": "inputs.image"})}, outputs: {"frames": "r"})"#;
    gift.write("graph.ron", graph);
    // What the user names is the user's affair.
    gift.good(&["run", "graph.ron", "--set", "image=../home/photo.png"]);
    gift.stops(&["run", "graph.ron"], &["--allow-read"]);
    // What was agreed to holds for graphs of this folder, from then on.
    gift.good(&["run", "graph.ron", "--allow-read", "../home"]);
    gift.good(&["run", "graph.ron"]);
    gift.good(&["plan", "graph.ron"]);
    gift.place.write("other/graph.ron", graph);
    gift.stops(&["run", "../other/graph.ron"], &["--allow-read"]);
    // And for what lies there.
    gift.place.write("else/photo.png", picture(3));
    gift.write("graph.ron", graph.replace("home", "else"));
    gift.stops(&["run", "graph.ron"], &["--allow-read"]);
    // Not for what the system shows of itself.
    for path in ["/proc/self/environ", "/dev/zero", "/sys/kernel"] {
        gift.write("graph.ron", reading("image.read", path));
        gift.stops(&["run", "graph.ron", "--allow-read", "/"], &[path]);
    }
    // A folder that the user reaches through a link is the graph's own.
    gift.write("own.png", picture(5));
    gift.write("graph.ron", reading("image.read", "own.png"));
    symlink(gift.at(""), gift.place.path("mine")).unwrap();
    gift.good(&["run", "../mine/graph.ron"]);
}

/// Where the folder of results itself leads to the user's pictures, none of them is replaced.
#[test]
fn a_folder_of_results_that_leads_elsewhere_replaces_nothing() {
    let gift = Gift::new();
    gift.write("in.png", picture(9));
    gift.link("out", gift.home());
    let graph = r#"Graph(version: 1, nodes: {"r": (op: "image.read", with: {"path": "in.png"}),
        "w": (op: "image.write", in: {"frames": "r"}, with: {"path": "photo.png"})})"#;
    gift.write("graph.ron", graph);
    gift.shows_nothing(&["run", "graph.ron"]);
    assert_eq!(fs::read(gift.home().join("photo.png")).unwrap(), picture(7));
}

/// What a link leads to while a watch is under way.
#[test]
fn a_link_that_is_turned_under_a_watch_leads_nowhere() {
    let gift = Gift::with_reader("luts/key.txt");
    gift.write("own/key.txt", "own");
    gift.link("luts", "own");
    gift.pin(GRANT);
    gift.write("picture.png", picture(4));
    let graph = r#"Graph(version: 1, nodes: {
        "r": (op: "good.file", with: {"x": "luts/key.txt"}),
        "i": (op: "image.read", with: {"path": "picture.png"})}, outputs: {"text": "r", "i": "i"})"#;
    gift.write("graph.ron", graph);
    let mut watch = Watching::start(&gift.place, &["gift/graph.ron"]);
    let shows = |lines: &[serde_json::Value], text: &str| {
        lines.iter().any(|line| line.to_string().contains(text))
    };
    assert!(shows(&watch.first, "own"), "{:#?}", watch.first);
    let seen = watch.after(|| {
        let other = gift.at("other");
        symlink(gift.home(), &other).unwrap();
        fs::rename(other, gift.at("luts")).unwrap();
    });
    assert!(shows(&seen, "luts") && !shows(&seen, CANARY), "{seen:#?}");
    let seen = watch.after(|| gift.link("picture.png", gift.home().join("photo.png")));
    assert!(!shows(&seen, CANARY), "{seen:#?}");
    gift.kept_to_itself();
}
