//! `kino plugin add`, `list` and `trust`, and what graphs say of plugins that are not trusted: with
//! artifacts that are never loaded, and with a component.

mod common;

use common::Place;
use serde_json::Value;

const MANIFEST: &str = r#"Plugin(
    id: "grain", version: "1.0.0", about: "Adds grain", nodes: ["film.grain"],
    native: "grain", wasm: "grain.wasm", asks: (read: ["luts"], seconds: 5.0),
)"#;

const GRAPH: &str = r#"Graph(version: 1, nodes: {
    "in": (op: "image.read", with: {"path": "in.png"}),
    "grain": (op: "film.grain", in: {"frames": "in"}),
    "out": (op: "image.write", in: {"frames": "grain"}, with: {"path": "out.png"}),
})"#;

/// A component with many nodes, of which only the descriptor is read here.
const COMPONENT: &[u8] = include_bytes!("../../../plugins/wasm/tests/components/guests.wasm");

/// A component with the node `film.grain`.
const GRAIN: &[u8] = include_bytes!("../../../plugins/examples/film_grain/film_grain.wasm");

/// Another build of it: with a section more, which nobody reads.
fn rebuilt(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [GRAIN, &[0, length + 1, length], name.as_bytes()].concat()
}

fn plugin(place: &Place, folder: &str) {
    place.write(&format!("{folder}/plugin.ron"), MANIFEST);
    place.write(&format!("{folder}/grain.wasm"), GRAIN);
    let library = format!("{}grain{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    place.write(&format!("{folder}/{library}"), "library");
    place.write(&format!("{folder}/src/lib.rs"), "source");
}

/// What was said, in one line without a frame.
fn said(err: &str) -> String {
    let words = err.split_whitespace().filter(|word| !["×", "│", "help:"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

fn list(place: &Place, args: &[&str]) -> Value {
    place.json(&[&["plugin", "list"], args].concat()).remove(0)
}

#[test]
fn a_graph_names_the_command_that_accepts_its_plugin() {
    let place = Place::new();
    plugin(&place, "plugins/grain");
    place.write("g.ron", GRAPH);
    let expected = "the plugin `grain` is not trusted: the lock file does not pin it look at \
                    ./plugins/grain, then `kino plugin trust grain` accepts it";
    for command in ["run", "check", "plan", "draw"] {
        assert_eq!(said(&place.bad(2, &[command, "g.ron"])), expected, "{command}");
    }
    // From elsewhere the command names the folder.
    place.write("sub/x", "");
    let mut elsewhere = place.command(&["check", "../g.ron"]);
    let ran = common::Ran::of(elsewhere.current_dir(place.path("sub")).output().unwrap());
    assert!(said(&ran.err).contains("`kino plugin trust grain --folder ..`"), "{}", ran.err);
    // And the command that it names does what it says.
    let mut accept = place.command(&["plugin", "trust", "grain", "--folder", ".."]);
    let ran = common::Ran::of(accept.current_dir(place.path("sub")).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(place.path("kino.lock.ron").is_file());
    // What is pinned is loaded.
    place.good(&["check", "g.ron"]);
}

#[test]
fn trusting_says_what_is_granted() {
    let place = Place::new();
    plugin(&place, "plugins/grain");
    let out = place.good(&["plugin", "trust", "grain", "--read", "more"]);
    for line in [
        "grain 1.0.0 is trusted (wasm)",
        "runs in a sandbox",
        "it may read luts",
        "it may read more",
    ] {
        assert!(out.contains(line), "{out}");
    }
    let out = place.good(&["plugin", "trust", "grain", "--native"]);
    assert!(out.contains("is native code: it can do whatever you can"), "{out}");
    let state = || list(&place, &[])["plugins"][0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "native, pinned");
    // The same folder in the hands of another user.
    std::fs::rename(place.path("data"), place.path("theirs")).unwrap();
    assert!(state().contains("but you have not accepted it here"), "{}", state());
    let out = place.good(&["plugin", "trust", "grain", "--native", "--isolate"]);
    assert!(out.contains("in a process of its own"), "{out}");
    assert_eq!(state(), "native, pinned, isolated");
    let out = place.good(&["plugin", "trust", "grain", "--dev"]);
    assert!(out.contains("every build in plugins/grain is taken; --locked refuses it"), "{out}");
    for path in ["/etc", "../up", ""] {
        let err = place.bad(2, &["plugin", "trust", "grain", "--read", path]);
        assert!(said(&err).contains("relative to the graph"), "{err}");
    }
    assert!(said(&place.bad(2, &["plugin", "trust", "gain"])).contains("found are grain"));
}

#[test]
fn what_changed_is_refused_until_it_is_accepted() {
    let place = Place::new();
    plugin(&place, "plugins/grain");
    place.write("g.ron", GRAPH);
    place.good(&["plugin", "trust", "grain"]);
    let state = || list(&place, &[])["plugins"][0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "wasm, pinned");
    place.write("plugins/grain/grain.wasm", rebuilt("another"));
    assert!(state().contains("has changed"), "{}", state());
    let err = said(&place.bad(2, &["check", "g.ron"]));
    assert!(err.contains("has changed"), "{err}");
    assert!(err.contains("`kino plugin trust grain --dev` accepts every build"), "{err}");
    let err = said(&place.bad(2, &["check", "g.ron", "--locked"]));
    assert!(err.contains("has changed") && !err.contains("--dev"), "{err}");
    place.good(&["plugin", "trust", "grain"]);
    place.write("plugins/grain/plugin.ron", MANIFEST.replace("luts", "home"));
    assert!(state().contains("asks for something else"), "{}", state());
    place.good(&["plugin", "trust", "grain", "--dev"]);
    assert_eq!(state(), "wasm, dev mode");
    let err = place.bad(2, &["check", "g.ron", "--locked"]);
    assert!(said(&err).contains("which --locked refuses"), "{err}");
    std::fs::remove_file(place.path("plugins/grain/grain.wasm")).unwrap();
    assert!(state().contains("is not built"), "{}", state());
}

/// A plugin that lies near its graph, but where none are looked for, is told of.
#[test]
fn an_op_of_a_plugin_beside_the_graph_says_how_it_is_accepted() {
    let place = Place::new();
    plugin(&place, "grain");
    place.write("g.ron", GRAPH);
    let err = said(&place.bad(2, &["check", "g.ron"]));
    assert!(err.contains("there is no op `film.grain`"), "{err}");
    let hint = "the plugin `grain` in ./grain has it: `kino plugin trust grain` accepts it";
    assert!(err.contains(hint), "{err}");
    place.good(&["plugin", "trust", "grain"]);
    place.good(&["check", "g.ron"]);
    // In its own folder, not built.
    place.write("grain/g.ron", GRAPH);
    std::fs::remove_file(place.path("grain/grain.wasm")).unwrap();
    let err = said(&place.bad(2, &["check", "grain/g.ron"]));
    assert!(err.contains("`kino plugin build grain` builds it, then `kino plugin trust"), "{err}");
    assert!(err.contains("--folder grain"), "{err}");
}

#[test]
fn adding_copies_what_the_manifest_names_and_pins_it() {
    let place = Place::new();
    plugin(&place, "mine");
    let out = place.good(&["plugin", "add", "mine"]);
    assert!(out.contains("grain 1.0.0 is trusted (wasm)"), "{out}");
    let library = format!(
        "plugins/grain/{}grain{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let expected = [
        "consent.ron",
        "plugins/grain/grain.wasm",
        &library,
        "plugins/grain/plugin.ron",
        "plugins/kino.lock.ron",
    ];
    assert_eq!(place.files("data"), expected);
    assert_eq!(list(&place, &[])["plugins"][0]["state"], "wasm, pinned");
    // A newer build takes its place; one that cannot be pinned leaves it as it is.
    place.write("mine/grain.wasm", rebuilt("newer"));
    place.good(&["plugin", "add", "mine/plugin.ron", "--native", "--isolate"]);
    assert_eq!(list(&place, &[])["plugins"][0]["state"], "native, pinned, isolated");
    let stands = std::fs::read(place.path("data/plugins/grain/grain.wasm")).unwrap();
    assert_eq!(stands, rebuilt("newer"));
    std::fs::remove_file(place.path("mine/grain.wasm")).unwrap();
    let err = place.bad(2, &["plugin", "add", "mine"]);
    assert!(said(&err).contains("is not built"), "{err}");
    assert_eq!(place.files("data"), expected);
    assert_eq!(list(&place, &[])["plugins"][0]["state"], "native, pinned, isolated");
    assert!(place.bad(2, &["plugin", "add", "nowhere"]).contains("is no plugin"));
    // What is no component is not installed, however its folder describes it.
    place.write(
        "empty/plugin.ron",
        r#"Plugin(id: "empty", version: "1.0.0", nodes: ["a.b"], wasm: "empty.wasm")"#,
    );
    place.write("empty/empty.wasm", b"\0asm\x01\0\0\0");
    let err = place.bad(2, &["plugin", "add", "empty"]);
    assert!(err.contains("empty"), "{err}");
    assert!(!place.good(&["plugin", "list"]).contains("empty"));
}

#[test]
fn a_component_alone_is_a_plugin() {
    let place = Place::new();
    place.write("stranger-1.wasm", COMPONENT);
    place.good(&["plugin", "add", "stranger-1.wasm"]);
    let listed = list(&place, &[]);
    assert_eq!(listed["plugins"][0]["id"], "stranger_1");
    assert_eq!(listed["plugins"][0]["state"], "wasm, pinned");
    let node = listed["plugins"][0]["nodes"][0].as_str().unwrap();
    assert!(place.good(&["nodes", node]).contains(node));
    // What is none, and native code that nobody trusts, is left alone.
    place.write("broken.wasm", &COMPONENT[..1000]);
    place.bad(2, &["plugin", "add", "broken.wasm"]);
    place.write("1.wasm", COMPONENT);
    assert!(place.bad(2, &["plugin", "add", "1.wasm"]).contains("`id` is letters"));
    let library = format!("x{}", std::env::consts::DLL_SUFFIX);
    place.write(&library, "library");
    assert!(place.bad(2, &["plugin", "add", &library]).contains("--native"));
    place.write("notes.txt", "notes");
    assert!(place.bad(2, &["plugin", "add", "notes.txt"]).contains("neither"));
    assert_eq!(place.files("data").len(), 4, "the consent among them");
}

#[test]
fn conflicts_and_broken_manifests_are_listed() {
    let place = Place::new();
    plugin(&place, "plugins/grain");
    plugin(&place, "plugins/zzz");
    place.write("plugins/other/plugin.ron", MANIFEST.replace("\"grain\"", "\"other\""));
    place.write(
        "plugins/model/plugin.ron",
        MANIFEST.replace("grain", "load").replace("film", "model"),
    );
    place.write("plugins/broken/plugin.ron", "Plugin(\n  id: 3)");
    let ran = place.kino(&["plugin", "list"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    for fault in [
        "./plugins/broken/plugin.ron:2:",
        "two plugins claim the node `film.grain`: `grain` (./plugins/grain) and `other` (./plugins/other)",
        "two plugins are called `grain`: in ./plugins/grain and in ./plugins/zzz",
        "`load` (./plugins/model) claims `model.load`, which is built in",
    ] {
        assert!(ran.out.contains(fault), "{fault}\n{}", ran.out);
    }
    place.write("g.ron", GRAPH);
    let err = place.bad(2, &["check", "g.ron"]);
    assert!(said(&err).contains("two plugins claim the node `film.grain`"), "{err}");
    // Graphs without plugins do not care.
    place.good(&["check", "text_to_video"]);
}

#[test]
fn a_new_plugin_is_trusted_where_it_lies_and_found_when_it_is_pinned() {
    let place = Place::new();
    place.good(&["plugin", "new", "hello"]);
    let place_of = |name: &str| place.path(&format!("hello/{name}"));
    for file in ["plugin.ron", "Cargo.toml", "src/lib.rs", "graph.ron", ".gitignore", "README.md"] {
        assert!(place_of(file).is_file(), "{file}");
    }
    let sdk = std::fs::read_to_string(place_of(".cargo/config.toml")).unwrap();
    assert!(sdk.contains("data/sdk/"), "it needs no sources but those in the binary: {sdk}");
    let state = |args: &[&str]| list(&place, args)["plugins"][0]["state"].to_string();
    assert!(state(&["hello"]).contains("is not built"), "{}", state(&["hello"]));
    place.write("hello/hello.wasm", GRAIN);
    assert_eq!(state(&["hello"]), "\"wasm, dev mode\"");
    // What is pinned is opened, and holds what its manifest says.
    let err = place.bad(2, &["plugin", "trust", "hello", "--folder", "hello"]);
    assert!(said(&err).contains("has no node `hello.gain`"), "{err}");
    let manifest = std::fs::read_to_string(place_of("plugin.ron")).unwrap();
    place.write("hello/plugin.ron", manifest.replace("hello.gain", "film.grain"));
    place.good(&["plugin", "trust", "hello", "--folder", "hello"]);
    assert_eq!(state(&["hello"]), "\"wasm, pinned\"");
    // A copy among the user's own does not stand in its author's way.
    place.good(&["plugin", "add", "hello"]);
    assert_eq!(list(&place, &["hello"])["faults"].as_array().unwrap().len(), 0);
    assert_eq!(list(&place, &["hello"])["plugins"].as_array().unwrap().len(), 1);
    assert!(place.bad(2, &["plugin", "new", "hello"]).contains("is there already"));
    assert!(place.bad(2, &["plugin", "new", "Hello"]).contains("is no name"));
}

#[test]
fn commands_that_trust_at_once_do_not_lose_each_others_entries() {
    let place = Place::new();
    let ids: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    for id in &ids {
        let manifest = MANIFEST.replace("\"grain\"", &format!("\"{id}\""));
        plugin(&place, &format!("plugins/{id}"));
        place.write(
            &format!("plugins/{id}/plugin.ron"),
            manifest.replace("film.", &format!("{id}.")),
        );
        let library =
            format!("{}{id}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        place.write(&format!("plugins/{id}/{library}"), id.as_str());
    }
    let trust = |id: &String| place.command(&["plugin", "trust", id, "--native"]).spawn().unwrap();
    let commands: Vec<_> = ids.iter().map(trust).collect();
    commands.into_iter().for_each(|mut command| assert!(command.wait().unwrap().success()));
    let listed = list(&place, &[]);
    for one in listed["plugins"].as_array().unwrap() {
        assert_eq!(one["state"], "native, pinned", "{listed:#}");
    }
}

/// A careful user checks a folder that was given: that runs no native code by itself.
#[test]
fn native_code_that_nobody_accepted_is_neither_checked_nor_timed() {
    let place = Place::new();
    plugin(&place, "gift");
    for command in ["check", "bench"] {
        let ran = place.kino(&["plugin", command, "gift"]);
        assert_eq!(ran.code, 0, "{command}: the component alone is tried\n{}", ran.err);
        assert!(ran.err.contains("the native build is left out"), "{command}: {}", ran.err);
        let err = place.bad(2, &["plugin", command, "gift", "--native"]);
        assert!(said(&err).contains("is no native library"), "said so, it is loaded: {err}");
    }
    std::fs::remove_file(place.path("gift/grain.wasm")).unwrap();
    for command in ["check", "bench"] {
        let err = said(&place.bad(2, &["plugin", command, "gift"]));
        assert!(err.contains("is native code, which can do whatever you can"), "{err}");
        assert!(err.contains(&format!("`kino plugin {command} gift --native`")), "{err}");
    }
}

/// What traps or panics does not pass; what refuses or computes does.
#[test]
fn the_check_tells_good_nodes_from_bad_ones() {
    let place = Place::new();
    place.write("guests.wasm", COMPONENT);
    place.good(&["plugin", "add", "guests.wasm"]);
    let folder = list(&place, &[])["plugins"][0]["folder"].as_str().unwrap().to_owned();
    for (node, fault) in [
        ("good.square", None),
        ("good.echo", None),
        ("good.gain", None),
        ("abuse.trap", Some("stopped itself")),
        ("abuse.panic_run", Some("panicked")),
        ("abuse.recursion", Some("stack")),
    ] {
        let args = ["plugin", "check", &folder, "--node", node, "--json", "--seed", "7"];
        let ran = place.kino(&args);
        let said: Value = serde_json::from_str(&ran.out).unwrap();
        let cases = said["cases"].as_array().unwrap();
        let faults: Vec<_> = cases.iter().filter_map(|case| case["fault"].as_str()).collect();
        match fault {
            None => assert_eq!((ran.code, &*faults), (0, &[][..]), "{node}"),
            Some(fault) => {
                assert_ne!(ran.code, 0, "{node}");
                assert!(faults.len() > 5, "{node}: {faults:?}");
                assert!(faults.iter().all(|said| said.contains(fault)), "{node}: {faults:?}");
            }
        }
    }
    let err = place.bad(2, &["plugin", "check", &folder, "--node", "good.squre"]);
    assert!(said(&err).contains("has no node `good.squre`"), "{err}");
}

/// A name that nobody knows and a manifest that cannot be read: either may be the mistake.
#[test]
fn an_unknown_node_beside_a_broken_manifest_is_told() {
    let place = Place::new();
    place.write("plugins/foo/plugin.ron", r#"Plugin(id: "foo", version: 1)"#);
    place.write("g.ron", GRAPH);
    let err = said(&place.bad(2, &["check", "g.ron"]));
    assert!(err.contains("plugins/foo/plugin.ron:1:27"), "{err}");
    assert!(err.contains("`film.grain` is none of the nodes that are known"), "{err}");
}

/// What only a plugin's run tells is no name of a file: nothing is read or written whose contents
/// or name no key holds. The message names the node that tells it, and the way out.
#[test]
fn a_path_that_a_plugin_tells_is_refused_before_anything_runs() {
    let place = Place::new();
    place.write("guests.wasm", COMPONENT);
    place.good(&["plugin", "add", "guests.wasm"]);
    let graph = |node: &str| {
        format!(
            r#"Graph(version: 1, nodes: {{
    "pick": (op: "good.wasi"),
    "in": (op: "image.read", with: {{"path": "in.png"}}),
    {node}
}})"#
        )
    };
    let sinks = [
        (r#""video": (op: "video.write", in: {"frames": "in", "path": "pick"}),"#, "video"),
        (
            r#""read": (op: "image.read", in: {"path": "pick"}),
    "out": (op: "image.write", in: {"frames": "read"}, with: {"path": "out.png"}),"#,
            "read",
        ),
    ];
    for (node, name) in sinks {
        place.write("g.ron", graph(node));
        for command in ["plan", "run"] {
            let err = said(&place.bad(2, &[command, "g.ron"]));
            let expected = format!("`path` of `{name}`: only running `pick` tells this path");
            assert!(err.contains(&expected), "{command}: {err}");
            assert!(err.contains("write the path out"), "{command}: {err}");
        }
        assert!(!place.path("out").exists(), "nothing ran");
    }
}

/// What is wrong with a component that the check cannot load, and what to do about that.
#[test]
fn the_check_says_why_a_component_is_not_loaded() {
    let place = Place::new();
    let old = include_bytes!("../../../plugins/wasm/tests/compiled/guests-1.0.wasm");
    place.write(
        "old/plugin.ron",
        r#"Plugin(id: "old", version: "1.0.0", nodes: ["good.echo"], wasm: "old.wasm")"#,
    );
    place.write("old/old.wasm", old);
    let err = said(&place.bad(2, &["plugin", "check", "old"]));
    let expected = "the wasm build does not describe itself";
    assert!(err.contains(expected) && err.contains("version 1.0.0 of the contract"), "{err}");
    assert!(err.contains("build it anew with the SDK") && !err.contains("plugin!"), "{err}");
    // A manifest that names other nodes is told as that.
    place.write("old/old.wasm", COMPONENT);
    let err = said(&place.bad(2, &["plugin", "check", "old"]));
    assert!(err.contains("that its plugin.ron does not name") && err.contains("add it"), "{err}");
}

/// An error of a host function that a plugin does not handle is the node's error with its hint and
/// code; what a plugin said before it ended stands below the report.
#[test]
fn errors_of_the_host_and_last_lines_reach_the_user() {
    let place = Place::new();
    place.write("guests.wasm", COMPONENT);
    place.good(&["plugin", "add", "guests.wasm"]);
    let graph =
        |node: &str| format!(r#"Graph(version: 1, nodes: {{"n": {node}}}, outputs: {{"y": "n"}})"#);
    place.write("read.ron", graph(r#"(op: "good.file", with: {"x": "secret.txt"})"#));
    let ran = place.kino(&["run", "read.ron", "--json"]);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = common::event(&lines, "failed");
    let message = failed["message"].as_str().unwrap();
    assert!(message.starts_with("`secret.txt` may not be read"), "{message}");
    assert!(failed["hint"].as_str().unwrap().contains("kino plugin trust guests --read"));
    assert_eq!(failed["code"], "not-granted");
    place.write("end.ron", graph(r#"(op: "abuse.traceback", with: {"x": 1})"#));
    let err = place.bad(1, &["run", "end.ron"]);
    let (_, report) = err.split_once('×').expect(&err);
    let report = said(report);
    let head = "the plugin `guests` panicked: ValueError: the clip is too dark Traceback (most \
                recent call last): File \"/app.py\", line 12, in run";
    assert!(report.contains(head) && !report.contains("RUST_BACKTRACE"), "{report}");
}
