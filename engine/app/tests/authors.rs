//! What authors of plugins do: begin, build, check, watch. Plugins in C and prebuilt components, as
//! they take no time to build; with `KINO_BUILD_PLUGINS=1` in Rust, too.

mod common;
mod watching;

use std::path::Path;
use std::process::Command;

use common::{Place, Ran, event};
use serde_json::Value;
use watching::Watching;

const GRAIN: &[u8] = include_bytes!("../../../plugins/examples/film_grain/film_grain.wasm");

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("left out: {program} is not there");
    }
    there
}

/// What was said, in one line without a frame.
fn said(err: &str) -> String {
    let words = err.split_whitespace().filter(|word| !["×", "│", "help:"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

fn read(place: &Place, path: &str) -> String {
    std::fs::read_to_string(place.path(path)).unwrap()
}

/// D14, friction 14–16: nothing of a new plugin names a place of this machine, or says what is not
/// so.
#[test]
fn a_new_plugin_holds_nothing_that_is_left_over() {
    let place = Place::new();
    place.good(&["plugin", "new", "bright"]);
    let (data, cargo) = (place.path("data"), read(&place, "bright/Cargo.toml"));
    for file in place.files("bright") {
        let text = read(&place, &format!("bright/{file}"));
        // What tells this machine's cargo where the SDK lies is no part of the plugin.
        if file != ".cargo/config.toml" {
            assert!(!text.contains(&*data.to_string_lossy()), "{file}: {text}");
        }
        for left_over in ["Multiplies frames\"", "brightened", "NAME", "DEPENDENCY"] {
            assert!(!text.contains(left_over), "{file}: {text}");
        }
    }
    assert!(read(&place, "bright/.gitignore").contains("/.cargo"));
    assert!(cargo.contains("registry = \"run-kino-plugin-build-first\""), "{cargo}");
    // The version stands in Cargo.toml alone.
    assert!(!read(&place, "bright/src/lib.rs").contains("version"));
    place.good(&["plugin", "new", "in_c", "--c"]);
    assert_eq!(read(&place, "in_c/kino_plugin.h"), kino_abi_header());
}

fn kino_abi_header() -> &'static str {
    include_str!("../../../plugins/abi/include/kino_plugin.h")
}

/// Where cargo was told of no SDK, it says what to do; where it was, it reads the manifest.
#[test]
fn cargo_says_what_to_do_where_kino_has_not_built() {
    let place = Place::new();
    place.good(&["plugin", "new", "bright"]);
    let metadata = |folder: &str| {
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
        Ran::of(cargo.current_dir(place.path(folder)).output().unwrap())
    };
    assert_eq!(metadata("bright").code, 0, "{}", metadata("bright").err);
    std::fs::rename(place.path("bright/.cargo"), place.path("elsewhere")).unwrap();
    let err = metadata("bright").err;
    assert!(err.contains("run-kino-plugin-build-first"), "{err}");
}

/// All plugins in Rust of a user share one folder, and two of one name get each their own.
#[test]
fn plugins_in_rust_share_what_is_compiled() {
    if std::env::var_os("KINO_BUILD_PLUGINS").is_none() {
        eprintln!("left out: KINO_BUILD_PLUGINS=1 compiles plugins");
        return;
    }
    let place = Place::new();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-builds");
    let build = |folder: &str, code: i32| {
        let mut command = place.command(&["plugin", "build", "--wasm", folder]);
        let ran = Ran::of(command.env("CARGO_TARGET_DIR", &target).output().unwrap());
        assert_eq!(ran.code, code, "{}\n{}", ran.out, ran.err);
        ran
    };
    let artifact = |path: &str| std::fs::read(place.path(path)).unwrap();
    for folder in ["one/same", "other/same"] {
        place.good(&["plugin", "new", folder]);
    }
    let source = read(&place, "other/same/src/lib.rs");
    place.write("other/same/src/lib.rs", source.replace("same.gain", "same.more"));
    let cargo = read(&place, "other/same/Cargo.toml");
    place.write("other/same/Cargo.toml", cargo.replace("\"0.1.0\"", "\"0.2.0\""));
    build("one/same", 0);
    let (one, begun) = (artifact("one/same/same.wasm"), std::time::Instant::now());
    let told = build("other/same", 0).out;
    eprintln!("the second plugin's first component: {:.1?}", begun.elapsed());
    assert!(told.contains("nodes are same.more") && told.contains("version is 0.2.0"), "{told}");
    let other = artifact("other/same/same.wasm");
    assert_ne!(one, other);
    for _ in 0..2 {
        build("one/same", 0);
        build("other/same", 0);
        assert!(artifact("one/same/same.wasm") == one, "another plugin of the same name");
        assert!(artifact("other/same/same.wasm") == other, "another plugin of the same name");
    }
    assert!(!place.files("one/same").iter().any(|file| file.starts_with("target")));
    // On another machine there is the folder alone.
    std::fs::remove_dir_all(place.path("one/same/.cargo")).unwrap();
    std::fs::rename(place.path("data"), place.path("theirs")).unwrap();
    build("one/same", 0);
    // What does not compile is told, and the component stays.
    place.write("one/same/src/lib.rs", "fn");
    let err = build("one/same", 2).err;
    assert!(err.contains("the plugin does not compile"), "{err}");
    // An SDK that is looked for on another machine.
    let cargo = read(&place, "one/same/Cargo.toml");
    let line = cargo.lines().find(|line| line.starts_with("kino-plugin")).unwrap();
    let gone = cargo.replace(line, "kino-plugin = { path = \"/gone/sdk\" }");
    place.write("one/same/Cargo.toml", gone);
    let err = said(&build("one/same", 2).err);
    assert!(err.contains("looks for the SDK in /gone/sdk"), "{err}");
}

/// A plugin that `make` copies together from a component and a few bytes that make no difference.
fn made_by_make(place: &Place, nodes: &str) {
    place.write("photo.png", common::picture(90));
    place.write(
        "plugins/film_grain/plugin.ron",
        format!(
            "// Mine.\nPlugin(id: \"film_grain\", version: \"1.0.0\", nodes: {nodes}, \
             wasm: \"film_grain.wasm\")\n"
        ),
    );
    place.write("plugins/film_grain/sources/base", GRAIN);
    place.write("plugins/film_grain/sources/end", [0, 3, 1, b'b', 1]);
    place.write(
        "plugins/film_grain/Makefile",
        "film_grain.wasm: sources/base sources/end\n\tcat sources/base sources/end > $@\n",
    );
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {
            "photo": (op: "image.read", with: {"path": "photo.png"}),
            "grain": (op: "film.grain", in: {"frames": "photo"}),
            "file":  (op: "image.write", in: {"frames": "grain"}, with: {"path": "{graph}.png"}),
        }, outputs: {"file": "file"})"#,
    );
}

/// Friction 15: what plugin.ron says of nodes is what the build says; all else stays as it is.
#[test]
fn the_manifest_names_what_was_built() {
    if !has("make") {
        return;
    }
    let place = Place::new();
    made_by_make(&place, "[\"film.grian\", \"film.gone\"]");
    let out = place.good(&["plugin", "build", "plugins/film_grain"]);
    assert!(out.contains("plugin.ron: nodes are film.grain"), "{out}");
    let text = read(&place, "plugins/film_grain/plugin.ron");
    assert!(text.starts_with("// Mine.\n") && text.contains("nodes: [\"film.grain\"]"), "{text}");
    let again = &place.json(&["plugin", "build", "plugins/film_grain"])[0];
    assert_eq!(again["built"][0]["manifest"], serde_json::json!([]));
    assert_eq!(again["nodes"], serde_json::json!(["film.grain"]));
}

/// Friction 20: saved sources are built and run; what does not build is told, and the last build
/// goes on.
#[test]
fn a_watch_builds_what_changes() {
    if !has("make") {
        return;
    }
    let place = Place::new();
    made_by_make(&place, "[\"film.grain\"]");
    let err = said(&place.bad(2, &["watch", "--build", "g.ron"]));
    assert!(err.contains("no plugin beside the graph is in dev mode"), "{err}");
    assert!(err.contains("`kino plugin trust ID --dev`"), "{err}");
    place.good(&["plugin", "trust", "film_grain", "--dev"]);
    let mut watch = Watching::start(&place, &["--build", "g.ron"]);
    assert_eq!(event(&watch.first, "build")["plugin"], "film_grain");
    assert!(place.path("plugins/film_grain/film_grain.wasm").is_file());
    assert_eq!(watch.count("started", "grain"), 1);

    let end = "plugins/film_grain/sources/end";
    place.write(end, [0, 3, 1, b'b', 2]);
    watch.until(|line| line["event"] == "started" && line["name"] == "grain");
    watch.until(|line| line["event"] == "outputs");
    assert_eq!(watch.count("started", "photo"), 1, "what is before the plugin ran once");

    place.write(end, [0, 200, 1]);
    let failed = watch.until(|line| line["event"] == "build" && !line["diagnostics"].is_null());
    let told = failed.last().unwrap().to_string();
    assert!(told.contains("does not describe itself"), "{told}");
    place.write(end, [0, 3, 1, b'b', 3]);
    watch.until(|line| line["event"] == "build" && line["diagnostics"].is_null());
    assert_eq!(watch.interrupt(), Some(130));
    // The same folder in the hands of another user: what its lock file says builds nothing.
    std::fs::rename(place.path("data"), place.path("theirs")).unwrap();
    place.write("plugins/film_grain/Makefile", "film_grain.wasm:\n\ttouch ../../ran\n");
    let err = said(&place.bad(2, &["watch", "--build", "g.ron"]));
    assert!(err.contains("no plugin beside the graph is in dev mode"), "{err}");
    assert!(!place.path("ran").exists());
}

/// Friction 22: an example is written with its sources, its graph and what that reads, in dev mode.
#[test]
fn an_example_is_a_starting_point() {
    let place = Place::new();
    let out = place.good(&["init", "color_lut"]);
    assert!(out.contains("kino plugin build plugins/color_lut"), "{out}");
    for file in ["color_lut.ron", "luts/evening.cube", "plugins/color_lut/src/cube.rs"] {
        assert!(place.path(file).is_file(), "{file}");
    }
    let state = &place.json(&["plugin", "list"])[0]["plugins"][0];
    assert_eq!(state["id"], "color_lut");
    // With the component that stands in the tree it runs: what is built there is trusted.
    let component = include_bytes!("../../../plugins/examples/color_lut/color_lut.wasm");
    place.write("plugins/color_lut/color_lut.wasm", component);
    place.good(&["check", "color_lut.ron"]);
    // Once more changes nothing; what was changed is not overwritten.
    place.good(&["init", "color_lut"]);
    place.write("plugins/color_lut/src/cube.rs", "mine");
    let err = place.bad(2, &["init", "color_lut"]);
    assert!(err.contains("plugins/color_lut/src/cube.rs exists already"), "{err}");
    let listed = &place.json(&["init"])[0];
    assert_eq!(listed["plugins"].as_array().unwrap().len(), 8);
}

/// A plugin in C that takes a mask beside its frames, and says of it what is written here. `body`
/// stands where it runs.
fn with_mask(place: &Place, says: &str, body: &str) {
    place.good(&["plugin", "new", "plugins/masked", "--c"]);
    let code = read(place, "plugins/masked/plugin.c");
    let gain = r#"{\"name\": \"gain\""#;
    let mask = r#"{\"name\": \"mask\", \"type\": \"Mask\", \"arity\": \"optional\"}, "#;
    let outputs = r#" \"outputs\":"#;
    let declared = code.replace(outputs, &format!(" {}{outputs}", says.replace('"', "\\\"")));
    let code = declared.replace(gain, &format!("{mask}{gain}"));
    let code = code.replace("inputs[1], &gain", "inputs[2], &gain");
    let code = code.replace("  TRY(host->get_f64(", &format!("{body}  TRY(host->get_f64("));
    place.write("plugins/masked/plugin.c", code);
    place.good(&["plugin", "build", "plugins/masked"]);
    place.good(&["plugin", "trust", "masked", "--native", "--dev"]);
}

/// Point 3: what a plugin's node says of its inputs holds before anything runs, and when it runs.
#[test]
fn graphs_are_checked_for_what_nodes_say_of_their_inputs() {
    if !has("make") || !has("cc") {
        return;
    }
    let place = Place::new();
    with_mask(&place, r#""same_size": ["frames", "mask"], "same_count": ["frames", "mask"],"#, "");
    place.write("photo.png", common::picture(90));
    let graph = |width: u32, frames: u32| {
        let text = format!(
            r#"Graph(version: 1, nodes: {{
            "photo": (op: "image.read", with: {{"path": "photo.png"}}),
            "mask": (op: "mask.rect", with: {{"width": {width}, "height": 3, "x": 0, "y": 0, "w": 2,
                "h": 2, "frames": {frames}}}),
            "gain": (op: "masked.gain", in: {{"frames": "photo", "mask": "mask"}}),
            "file": (op: "image.write", in: {{"frames": "gain"}}, with: {{"path": "out.png"}}),
        }}, outputs: {{"file": "file"}})"#
        );
        place.write("g.ron", text);
    };
    graph(4, 1);
    place.good(&["run", "g.ron"]);
    graph(5, 1);
    for command in ["plan", "run"] {
        let err = said(&place.bad(2, &[command, "g.ron"]));
        let expected =
            "`masked.gain` takes `frames` and `mask` of one size: `frames` is 4x3, `mask` is 5x3";
        assert!(err.contains(expected), "{command}: {err}");
        assert!(err.contains("`frames.fit`"), "{command}: {err}");
    }
    graph(4, 2);
    let err = said(&place.bad(2, &["plan", "g.ron"]));
    let expected = "takes as many of `frames` as of `mask`: `frames` has 1 frame, `mask` 2 frames";
    assert!(err.contains(expected), "{err}");
}

fn summary(told: &Value) -> &Value {
    &told["summary"][0]
}

/// D8: inputs fit together, and the check says how much of it the node took.
#[test]
fn a_check_says_how_much_the_node_ran() {
    if !has("make") || !has("cc") {
        return;
    }
    // A node that takes whatever the check knows to fit.
    let place = Place::new();
    with_mask(&place, r#""same_size": ["frames", "mask"], "same_count": ["frames", "mask"],"#, "");
    let told = place.json(&["plugin", "check", "plugins/masked", "--native", "--seed", "7"]);
    let all = summary(told.last().unwrap());
    // It multiplies what it is given, and frames that are no numbers are refused whoever gives them.
    assert_eq!((all["refused"].as_u64(), all["poor"].as_bool()), (Some(1), Some(false)), "{all}");
    assert_eq!(all["refusing"].to_string(), r#"["NaN and infinities"]"#, "{all}");
    assert!(all["ran"].as_u64().unwrap() >= 15, "{all}");
    let tried = all["tried"].to_string();
    for group in ["large", "one chunk", "cancelling", "ends of parameters"] {
        assert!(tried.contains(group), "{group}: {tried}");
    }
    let idle = all["idle"].to_string();
    assert!(idle.contains("element types") && !tried.contains("element types"), "{all}");

    // One that refuses nearly everything.
    let place = Place::new();
    let picky = "  { KinoValue *h = NULL; int64_t height = 0; TRY(host->field(inputs[0], \
                 kino_str(\"height\"), &h)); error = host->get_i64(h, &height); host->release(h); \
                 if (error) goto end; if (height != 17) { error = host->new_error(kino_str(\"odd\"), \
                 kino_str(\"\"), kino_str(\"\")); goto end; } }\n";
    with_mask(&place, "", picky);
    let out = place.good(&["plugin", "check", "plugins/masked", "--native", "--seed", "7"]);
    let warning = out.lines().find(|line| line.starts_with("warn")).expect("a warning");
    assert!(warning.contains("ran in") && warning.contains("says little of it"), "{out}");
    assert!(warning.contains("same_size"), "{out}");
    assert!(out.contains(" refused"), "{out}");
    let sum = out.lines().find(|line| line.starts_with("sum")).expect("a summary");
    assert!(sum.contains("masked.gain native: ") && sum.contains(" ran, "), "{out}");
    assert!(out.contains("of them the node refused"), "{out}");
}

/// D8: of a guider, the step is timed that it is asked for.
#[test]
fn a_bench_times_what_a_guider_does() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/examples/guide_apg");
    for file in ["plugin.ron", "guide_apg.wasm"] {
        place.write(&format!("guide/{file}"), std::fs::read(folder.join(file)).unwrap());
    }
    let told = place.json(&["plugin", "bench", "guide"]);
    let timings = told.last().unwrap()["timings"].as_array().unwrap().clone();
    let seconds = |inputs: &str| {
        let one = timings.iter().find(|one| one["inputs"] == inputs).unwrap();
        assert_eq!(one["error"], Value::Null);
        one["seconds"].as_f64().unwrap()
    };
    // Making the guider takes as long whatever it will be given; a step does not.
    assert!(seconds("large") > 3.0 * seconds("small"), "{timings:?}");
}
