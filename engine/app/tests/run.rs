//! Runs: files and events, sweeps, stored graphs, cancelling, failing.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use common::{Place, QUICK, Ran, event, picture};
use serde_json::Value;

fn evaluated(lines: &[Value]) -> u64 {
    event(lines, "done")["evaluated"].as_u64().unwrap()
}

#[test]
fn a_run_writes_a_video_and_a_second_one_nothing() {
    let place = Place::new();
    let ran = place.kino(&[&["run", "text_to_video"][..], &QUICK].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("out/text_to_video-4-001.mp4  "), "{}", ran.out);
    assert_eq!(ran.out.lines().count(), 1, "results alone on the output stream: {}", ran.out);
    assert!(ran.err.contains("dit.sample"), "a line a node on the error stream: {}", ran.err);
    assert_eq!(place.files("out"), ["text_to_video-4-001.mp4"]);
    let video = fs::read(place.path("out/text_to_video-4-001.mp4")).unwrap();
    assert_eq!(&video[4..8], b"ftyp");

    let again = place.json(&[&["run", "text_to_video"][..], &QUICK].concat());
    assert_eq!(evaluated(&again), 0);
    fs::remove_file(place.path("out/text_to_video-4-001.mp4")).unwrap();
    let third = place.json(&[&["run", "text_to_video", "--out", "out"][..], &QUICK].concat());
    let sample = third.iter().find(|line| line["event"] == "finished" && line["name"] == "sample");
    assert!(sample.is_none_or(|line| line["cached"] == "disk"), "{sample:?}");
    assert!(
        fs::read(place.path("out/text_to_video-4-001.mp4")).unwrap() == video,
        "the files differ"
    );
}

/// What cannot be found is told with what helps there, not with what helps in a graph.
#[test]
fn advice_is_that_of_the_place() {
    let place = Place::new();
    let quick = [&["run", "text_to_video"][..], &QUICK].concat();
    if cfg!(target_os = "linux") {
        let said = place.bad(2, &[&quick[..], &["--out", "/proc/x"]].concat());
        assert!(said.contains("--out DIR") && !said.contains("graph's file"), "{said}");
    }
    let said = place.bad(2, &[&quick[..], &["--allow-read", "nowhere"]].concat());
    assert!(said.contains("--allow-read: there is no nowhere"), "{said}");
    place.write(
        "webm.ron",
        r#"Graph(version: 1, nodes: {
            "image": (op: "image.read", with: {"path": "in.png"}),
            "file": (op: "video.write", in: {"frames": "image"}, with: {"path": "a.webm"}),
        })"#,
    );
    place.write("in.png", picture(16));
    let mut command = place.command(&["run", "webm.ron"]);
    let ran = Ran::of(command.env("KINO_FFMPEG", "no/ffmpeg").output().unwrap());
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains("kino config set ffmpeg") && !ran.err.contains("graph's file"),
        "{}",
        ran.err
    );
}

/// What a longer sequence left behind a shorter one is told.
#[test]
fn the_rest_of_an_older_sequence_is_told() {
    let place = Place::new();
    let graph = r#"Graph(version: 1, inputs: {"n": (type: "Int", default: 4)}, nodes: {
        "image": (op: "image.read", with: {"path": "in.png"}),
        "all": (op: "frames.concat", in: {"parts": ["image", "image", "image", "image"]}),
        "some": (op: "frames.trim", in: {"frames": "all", "count": "inputs.n"}),
        "file": (op: "image.write", in: {"frames": "some"}, with: {"path": "s_%02d.png"}),
    })"#;
    place.write("g.ron", graph);
    place.write("in.png", picture(7));
    let run = |n: &str| place.kino(&["run", "g.ron", "-s", n]);
    assert!(!run("n=4").err.contains("older"));
    let said = run("n=2").err.replace('\n', " ");
    assert!(said.contains("Behind the 2 frames") && said.contains("2 older files"), "{said}");
    assert!(said.contains("s_02.png") && place.files("out").len() == 4, "{said}");
    assert!(!run("n=4").err.contains("older"));
}

/// A list that is set several times has all the items.
#[test]
fn a_list_is_set_item_by_item() {
    let place = Place::new();
    let graph = r#"Graph(version: 1, inputs: {"words": (type: "List(Text)", default: ["x"]), "n": (type: "Int", default: 1)},
        nodes: {"all": (op: "text.join", in: {"parts": "inputs.words"}, with: {"separator": "+"}),
                "n": (op: "math", in: {"a": "inputs.n"})},
        outputs: {"all": "all", "n": "n"})"#;
    place.write("g.ron", graph);
    let said =
        place.good(&["run", "g.ron", "-s", "words=a", "-s", "n=2", "-s", "words=b,c", "-s", "n=3"]);
    assert!(said.contains("a+b+c") && said.contains('3') && !said.contains('2'), "{said}");
}

/// A body whose frames grow until they are too large is told once, not once a turn.
#[test]
fn what_stands_against_every_turn_is_said_once() {
    let place = Place::new();
    let body = r#"Graph(version: 1, inputs: {"frames": (type: "Frames"), "index": (type: "Int")},
        nodes: {"large": (op: "upscale", in: {"frames": "inputs.frames"}, with: {"factor": 2, "model": "lanczos"}),
                "odd": (op: "frames.crop", in: {"frames": "inputs.frames"}, with: {"width": 9, "height": 3})},
        outputs: {"frames": "large", "odd": "odd"})"#;
    let outer = r#"Graph(version: 1, nodes: {
        "image": (op: "image.read", with: {"path": "in.png"}),
        "all": (op: "repeat", in: {"frames": "image"}, with: {"graph": "body.ron", "times": 6}),
    }, outputs: {"odd": "all.odd"})"#;
    place.write("in.png", picture(16));
    place.write("body.ron", body);
    place.write("outer.ron", outer);
    let lines = place.json(&["plan", "outer.ron"]);
    let said = lines.last().unwrap()["diagnostics"].as_array().unwrap().clone();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0]["message"].as_str().unwrap().contains("all/0/odd"), "{said:#?}");
}

/// Ctrl-C while one large picture is decoded ends at once.
#[test]
fn decoding_a_large_picture_is_left() {
    let place = Place::new();
    let side = 11_000;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![90; (side * side) as usize]).unwrap();
    writer.finish().unwrap();
    place.write("in.png", bytes);
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {"image": (op: "image.read", with: {"path": "in.png"}),
            "size": (op: "frames.reverse", in: {"frames": "image"}),
            "file": (op: "image.write", in: {"frames": "size"}, with: {"path": "a.png"})})"#,
    );
    let mut run = place
        .command(&["run", "g.ron", "--json", "--no-cache"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let started = |line: &str| line.contains("\"started\"") && line.contains("image.read");
    assert!(lines.any(|line| started(&line.unwrap())));
    std::thread::sleep(std::time::Duration::from_millis(50));
    let asked = std::time::Instant::now();
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let waited = asked.elapsed();
    println!("ended after {waited:?}");
    assert!(waited < std::time::Duration::from_secs(2), "{waited:?}");
}

#[test]
fn three_sizes_are_sampled_together() {
    let place = Place::new();
    let lines = place.json(&["run", "mixed_sizes", "--set", "steps=2"]);
    let samples =
        lines.iter().filter(|line| line["event"] == "started" && line["op"] == "dit.sample");
    assert_eq!(samples.count(), 1);
    let files =
        ["mixed_sizes-square-001.png", "mixed_sizes-tall-001.mp4", "mixed_sizes-wide-001.mp4"];
    assert_eq!(place.files("out"), files);
    let image = fs::File::open(place.path("out/mixed_sizes-square-001.png")).unwrap();
    let reader = png::Decoder::new(BufReader::new(image)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (64, 64));
}

#[test]
fn another_folder_gets_a_file_of_its_own() {
    let place = Place::new();
    let base =
        [&["run", "text_to_image", "-s", "width=32", "-s", "height=32", "-s", "steps=1"][..]]
            .concat();
    place.good(&[&base[..], &["--out", "a"]].concat());
    place.good(&[&base[..], &["--out", "b"]].concat());
    assert_eq!(place.files("a"), ["text_to_image-3-001.png"]);
    assert_eq!(place.files("b"), ["text_to_image-3-001.png"]);
}

#[test]
fn a_graph_does_not_read_what_it_writes() {
    let place = Place::new();
    let size = ["-s", "width=32", "-s", "height=32", "-s", "steps=1"];
    place.good(&[&["run", "text_to_image", "--out", "."][..], &size].concat());
    let name = "text_to_image-3-001.png";
    place.write(
        "g.ron",
        format!(
            r#"Graph(version: 1, nodes: {{"r": (op: "image.read", with: {{"path": "{name}"}}),
                "w": (op: "image.write", in: {{"frames": "r"}}, with: {{"path": "{name}"}})}})"#
        ),
    );
    let ran = place.kino(&["run", "g.ron", "--out", "."]);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("which `w` writes"), "{}", ran.err);
    place.good(&["run", "g.ron"]);
}

/// Frames that are numbered are files like others: no graph reads one that it writes, and no other
/// node of it writes one.
#[test]
fn a_numbered_sequence_meets_nothing_else() {
    let place = Place::new();
    place.write("p_0.png", picture(3));
    let plan = |read: &str, sequence: &str, single: &str| {
        let graph = format!(
            r#"Graph(version: 1, nodes: {{
                "photo": (op: "image.read", with: {{"path": "{read}"}}),
                "all": (op: "image.write", in: {{"frames": "photo"}}, with: {{"path": "{sequence}"}}),
                "one": (op: "image.write", in: {{"frames": "photo"}}, with: {{"path": "{single}"}}),
            }})"#
        );
        place.write("graph.ron", graph);
    };
    let refused = |expected: &str| {
        let said = place.bad(2, &["plan", "graph.ron", "--out", "."]);
        assert!(said.replace('\n', " ").contains(expected), "{said}");
    };
    plan("p_0.png", "p_%d.png", "one.png");
    refused("`photo` reads the file `p_0.png`, which `all` writes");
    plan("p_0.png", "q_%d.png", "q_0.png");
    refused("`all` and `one` write the same file `q_0.png`");
    // One frame is written, so that no file has the number 1.
    plan("p_0.png", "q_%d.png", "q_1.png");
    place.good(&["plan", "graph.ron", "--out", "."]);
    place.good(&["run", "graph.ron", "--out", "."]);
    assert_eq!(place.files(".").iter().filter(|file| file.starts_with("q_")).count(), 2);
}

#[test]
fn quiet_leaves_results_alone() {
    let place = Place::new();
    let ran = place.kino(&[&["run", "text_to_video", "--quiet"][..], &QUICK].concat());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("out/text_to_video-4-001.mp4"));
}

#[test]
fn events_are_lines_of_json() {
    let place = Place::new();
    let lines = place.json(&[&["run", "text_to_video"][..], &QUICK].concat());
    assert_eq!(lines[0]["event"], "planned");
    assert_eq!(event(&lines, "started")["name"].as_str().map(str::is_empty), Some(false));
    let progress: Vec<_> =
        lines.iter().filter(|l| l["event"] == "progress" && l["name"] == "sample").collect();
    assert!(progress.iter().any(|line| line["step"] == 3 && line["of"] == 3), "{progress:?}");
    assert!(
        progress.iter().any(|line| line["preview"]["width"].as_u64() > Some(0)),
        "{progress:?}"
    );
    assert_eq!(event(&lines, "done")["failed"], 0);
    let video = &event(&lines, "outputs")["outputs"]["video"];
    assert_eq!(video["path"], "out/text_to_video-4-001.mp4");
    let bytes = fs::metadata(place.path("out/text_to_video-4-001.mp4")).unwrap().len();
    assert_eq!(video["bytes"], bytes);
}

#[test]
fn outputs_that_are_no_files_are_printed() {
    let place = Place::new();
    let graph = r#"Graph(version: 1, inputs: {"a": (type: "Real", default: 1.5)},
        nodes: {"sum": (op: "math", in: {"a": "inputs.a"}, with: {"b": 2.0})}, outputs: {"sum": "sum"})"#;
    place.write("sum.ron", graph);
    assert_eq!(place.good(&["run", "sum.ron", "-q"]), "sum = 3.5\n");
    assert_eq!(place.good(&["run", "sum.ron", "-q", "--set", "a=3"]), "sum = 5.0\n");
    let mut child = place.command(&["run", "-", "-q"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(graph.as_bytes()).unwrap();
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).out, "sum = 3.5\n");
}

#[test]
fn a_sweep_computes_shared_steps_once() {
    let place = Place::new();
    // Without a number that would tell the files apart.
    place.good(&["init", "text_to_video"]);
    let graph = fs::read_to_string(place.path("text_to_video.ron")).unwrap();
    place.write("text_to_video.ron", graph.replace("-{n}", ""));
    let args = [
        &["run", "text_to_video.ron", "--sweep", "seed=1..2", "--sweep", "guidance=2.0,4.0"][..],
        &QUICK,
    ];
    let lines = place.json(&args.concat());
    let runs: Vec<_> = lines.split(|line| line["event"] == "sweep").skip(1).collect();
    assert_eq!(runs.len(), 4);
    let texts = lines.iter().filter(|line| line["event"] == "started" && line["name"] == "text");
    assert_eq!(texts.count(), 1, "the text is encoded once");
    let noises = lines.iter().filter(|line| line["event"] == "started" && line["name"] == "noise");
    assert_eq!(noises.count(), 2, "noise is drawn once a seed");
    let expected: Vec<_> = [
        "seed=1,guidance=2.0",
        "seed=1,guidance=4.0",
        "seed=2,guidance=2.0",
        "seed=2,guidance=4.0",
    ]
    .iter()
    .map(|folder| format!("{folder}/text_to_video-{}.mp4", &folder[5..6]))
    .collect();
    assert_eq!(place.files("out"), expected);
    let videos: std::collections::HashSet<_> =
        expected.iter().map(|file| fs::read(place.path("out").join(file)).unwrap()).collect();
    assert_eq!(videos.len(), 4, "all differ");
}

#[test]
fn a_sweep_over_what_names_the_files_needs_no_folders() {
    let place = Place::new();
    place.good(&[
        "run",
        "text_to_image",
        "--sweep",
        "seed=3,5",
        "-s",
        "steps=1",
        "-s",
        "width=32",
        "-s",
        "height=32",
    ]);
    assert_eq!(place.files("out"), ["text_to_image-3-001.png", "text_to_image-5-001.png"]);
}

#[test]
fn a_sweep_of_texts_repeats_the_flag() {
    let place = Place::new();
    let graph = r#"Graph(version: 1, inputs: {"t": (type: "Text")},
        nodes: {"both": (op: "text.join", in: {"parts": ["inputs.t", "inputs.t"]})}, outputs: {"both": "both"})"#;
    place.write("g.ron", graph);
    let out = place.good(&["run", "g.ron", "-q", "--sweep", "t=a, b", "--sweep", "t=c"]);
    assert_eq!(out, "both = \"a, b, a, b\"\nboth = \"c, c\"\n");
}

#[test]
fn a_shown_graph_runs_and_gives_the_same_file() {
    let place = Place::new();
    let set = ["--set", "prompt=a \"big\" green square, on black", "--set", "seed=random"];
    place.good(&[&["run", "text_to_video", "-q"][..], &set, &QUICK].concat());
    let [video] = &place.files("out")[..] else { panic!("one video") };
    let video = place.path("out").join(video);
    let shown = place.good(&["show", video.to_str().unwrap()]);
    assert!(shown.contains("a \\\"big\\\" green square"), "{shown}");
    assert!(shown.contains("embedded:shapes"), "{shown}");
    place.write("shown.ron", &shown);

    let mut again = place.command(&["run", "shown.ron", "--out", "again", "-q"]);
    let ran = Ran::of(again.env("KINO_CACHE", place.path("other")).output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let [copy] = &place.files("again")[..] else { panic!("one video") };
    let copy = place.path("again").join(copy);
    assert!(fs::read(&copy).unwrap() == fs::read(&video).unwrap(), "the files differ");
    assert_eq!(place.good(&["show", copy.to_str().unwrap()]), shown);

    let json = &place.json(&["show", video.to_str().unwrap()])[0];
    assert_eq!(json["made"]["kino"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["made"]["reads"][0]["path"], "embedded:shapes");
    assert_eq!(json["made"]["nodes"]["dit.sample"].as_str().map(str::is_empty), Some(false));
}

#[test]
fn a_recorded_file_that_changed_is_told() {
    let place = Place::new();
    place.write("a.png", picture(0));
    place.good(&["run", "upscale", "--set", "image=a.png", "--set", "factor=3"]);
    assert_eq!(place.files("out"), ["upscale-3x-001.png"]);
    place.write("shown.ron", place.good(&["show", "out/upscale-3x-001.png"]));
    let same = place.kino(&["run", "shown.ron"]);
    assert!(same.code == 0 && !same.err.contains("has changed"), "{}", same.err);
    place.write("a.png", picture(9));
    let other = place.kino(&["run", "shown.ron"]);
    assert!(other.code == 0 && other.err.contains("`a.png` has changed"), "{}", other.err);
    assert!(place.bad(2, &["show", "a.png"]).contains("holds no graph"));
    assert!(place.bad(2, &["show", "shown.ron"]).contains("shown.ron"));
}

#[test]
fn a_graph_used_as_a_node_is_carried_in_what_it_writes() {
    let place = Place::new();
    place.write("a.png", picture(3));
    place.good(&["init", "upscale"]);
    let graph = r#"Graph(version: 1, about: "twice", nodes: {
        "once": (op: "./upscale.ron", with: {"image": "a.png", "factor": 2}),
        "twice": (op: "upscale", in: {"frames": "once.frames"}, with: {"factor": 3}),
        "file": (op: "image.write", in: {"frames": "twice"}, with: {"path": "twice.png"}),
    }, outputs: {"file": "file"})"#;
    place.write("twice.ron", graph);
    place.good(&["run", "twice.ron"]);
    assert_eq!(place.files("out"), ["twice-2x-001.png", "twice.png"]);
    let shown = place.good(&["show", "out/twice.png"]);
    fs::remove_file(place.path("upscale.ron")).unwrap();
    place.write("twice.ron", &shown);
    place.good(&["run", "twice.ron", "--out", "again", "--no-cache"]);
    for file in ["twice-2x-001.png", "twice.png"] {
        let read = |folder: &str| fs::read(place.path(folder).join(file)).unwrap();
        assert!(read("again") == read("out"), "{file} differs");
    }
}

#[test]
fn an_image_that_is_none_is_refused_and_nothing_is_written() {
    let place = Place::new();
    place.write("a.png", "no image");
    let ran = place.kino(&["run", "upscale", "--set", "image=a.png"]);
    assert!(ran.code == 1 || ran.code == 2, "{}", ran.err);
    assert!(ran.err.contains("a.png"), "{}", ran.err);
    assert_eq!(place.files("out"), Vec::<String>::new());
}

#[test]
fn a_node_that_fails_is_told_by_name() {
    let place = Place::new();
    // Only a run knows that its numbers are none.
    let header = r#"{"x": {"dtype": "F32", "shape": [1, 2, 2, 3], "data_offsets": [0, 48]}}"#;
    let numbers = f32::NAN.to_le_bytes().repeat(12);
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &numbers].concat();
    place.write("x.safetensors", file);
    let graph = r#"Graph(version: 1, nodes: {
        "image": (op: "tensor.read", with: {"path": "x.safetensors"}),
        "one": (op: "image.write", in: {"frames": "image"}, with: {"path": "a.png"}),
    })"#;
    place.write("g.ron", graph);
    let ran = place.kino(&["run", "g.ron", "--out", "first"]);
    assert_eq!(ran.code, 1, "{}\n{}", ran.out, ran.err);
    assert!(ran.err.contains("`one` (image.write)"), "{}", ran.err);
    let lines = place.json(&["run", "g.ron", "--out", "second"]);
    assert_eq!(event(&lines, "failed")["name"], "one");
    assert_eq!(event(&lines, "done")["failed"], 1);
}

#[cfg(unix)]
#[test]
fn a_signal_in_the_middle_of_sampling_leaves_nothing() {
    signals().for_each(interrupt);
}

/// What a run hears: not SIGHUP where the tests themselves were started by `nohup`.
#[cfg(unix)]
fn signals() -> impl Iterator<Item = &'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    let heard = move |signal: &&str| *signal != "HUP" || ignored & 1 == 0;
    ["INT", "TERM", "HUP", "QUIT"].into_iter().filter(heard)
}

#[cfg(target_os = "linux")]
#[test]
fn what_nohup_started_lives_on_when_the_terminal_is_closed() {
    let place = Place::new();
    let run = place.command(&["run", "text_to_video", "--set", "steps=8", "--json"]);
    let mut command = Command::new("nohup");
    command.arg(run.get_program()).args(run.get_args()).current_dir(place.path(""));
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let sampling = |line: &String| line.contains("\"progress\"") && line.contains("\"sample\"");
    lines.find(sampling).expect("the sampler makes progress");
    let sent = Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(event(&rest, "done")["cancelled"], false);
}

#[cfg(unix)]
fn interrupt(signal: &str) {
    let place = Place::new();
    let mut command = place.command(&["run", "text_to_video", "--set", "steps=200", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let sampling = |line: &String| line.contains("\"progress\"") && line.contains("\"sample\"");
    lines.find(sampling).expect("the sampler makes progress");
    let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let rest: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}: {said}");
    assert_eq!(event(&rest, "done")["cancelled"], true, "{signal}");
    assert_eq!(place.files("out"), Vec::<String>::new());
}

/// A signal before there is anything to cancel ends the process.
#[cfg(unix)]
#[test]
fn a_signal_while_a_graph_is_read_ends_the_command() {
    let place = Place::new();
    for signal in signals() {
        let mut command = place.command(&["run", "-"]);
        // It waits for its graph on the standard input.
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success() && !child.wait().unwrap().success(), "{signal}");
    }
}

/// Ctrl-C ends what plans as it ends what runs: here a file is hashed that takes minutes to read.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_in_the_middle_of_planning_ends_it() {
    let place = Place::new();
    let header = format!(
        r#"{{"x": {{"dtype": "U8", "shape": [{0}], "data_offsets": [0, {0}]}}}}"#,
        1_u64 << 38
    );
    let head = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = place.write("large.safetensors", &head);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(head.len() as u64 + (1 << 38)).unwrap();
    place.write(
        "g.ron",
        r#"Graph(version: 1, nodes: {"a": (op: "tensor.read", with: {"path": "large.safetensors"})},
            outputs: {"a": "a"})"#,
    );
    for command in ["run", "watch"] {
        let mut child = place.command(&[command, "g.ron"]);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It is open as long as it is read.
        let open = std::path::PathBuf::from(format!("/proc/{}/fd", child.id()));
        let reads = || {
            let files = std::fs::read_dir(&open).into_iter().flatten().flatten();
            let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
            files.any(|file| file.ends_with("large.safetensors"))
        };
        while !reads() {
            assert!(child.try_wait().unwrap().is_none(), "{command} ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(130), "{command}: {said}");
        assert!(command == "watch" || said == "cancelled\n", "{said}");
    }
}

#[test]
fn previews_are_in_the_events_when_asked_for() {
    let place = Place::new();
    let pictures = |lines: &[Value]| -> Vec<Value> {
        let progress = lines.iter().filter(|line| line["event"] == "progress");
        progress.filter_map(|line| line["preview"].get("png").cloned()).collect()
    };
    let args = [&["run", "text_to_video", "--no-cache"][..], &QUICK].concat();
    assert_eq!(pictures(&place.json(&args)), [Value::Null; 0]);
    let asked = pictures(&place.json(&[&args[..], &["--json-previews"]].concat()));
    assert_eq!(asked.len(), 3, "one a step");
    // How every PNG file begins, in base64.
    assert!(asked.iter().all(|png| png.as_str().unwrap().starts_with("iVBORw0KGgo")), "{asked:?}");
}

/// Nobody reads what a run says until it is through: it runs to its end all the same, and all of
/// its results are told then.
#[test]
fn a_reader_that_stalls_stops_no_run_and_misses_no_result() {
    let place = Place::new();
    let sizes = ["--set", "width=48", "--set", "height=48", "--set", "frames=1"];
    let args = ["run", "text_to_video", "--json", "--json-previews", "--set", "steps=120"];
    let mut command = place.command(&[&args[..], &sizes].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    while place.files("out").iter().all(|file| file.starts_with('.')) {
        assert!(child.try_wait().unwrap().is_none(), "it has said more than a pipe holds");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines = out.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert!(child.wait().unwrap().success());
    let of = |name: &str| lines.iter().filter(|line| line["event"] == name).count();
    let steps = event(&lines, "planned")["steps"].as_array().unwrap().len();
    assert_eq!((of("finished"), of("done"), of("outputs")), (steps, 1, 1));
    let bytes: usize = lines.iter().map(|line| line.to_string().len()).sum();
    assert!(bytes > 1 << 16, "{bytes}");
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_where_it_was() {
    let place = Place::new();
    let mut command = place.command(&["run", "text_to_video", "--set", "steps=4", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let decoding = |line: &String| line.contains("\"started\"") && line.contains("\"frames\"");
    lines.find(decoding).expect("the frames are decoded");
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert_eq!(place.files("out"), Vec::<String>::new());
    let again = place.json(&["run", "text_to_video", "--set", "steps=4"]);
    let sample = again.iter().find(|line| line["event"] == "finished" && line["name"] == "sample");
    assert!(sample.is_none_or(|line| line["cached"] == "disk"), "{sample:?}");
    let text = again.iter().find(|line| line["event"] == "started" && line["name"] == "text");
    assert_eq!(text, None, "the text is not encoded again");
    assert_eq!(place.files("out"), ["text_to_video-4-001.mp4"]);
}

#[test]
fn a_trace_names_every_node() {
    let place = Place::new();
    place.good(&[&["run", "text_to_video", "-q", "--trace", "trace.json"][..], &QUICK].concat());
    let trace: Value =
        serde_json::from_slice(&fs::read(place.path("trace.json")).unwrap()).unwrap();
    let entries = trace.as_array().unwrap();
    for node in ["model", "text", "sample", "frames", "file"] {
        let named =
            |entry: &&Value| entry["args"]["name"].as_str().is_some_and(|name| name.contains(node));
        assert!(entries.iter().any(|entry| named(&entry)), "{node} in {trace}");
    }
}

#[test]
fn previews_are_kept_when_asked_for() {
    let place = Place::new();
    place.good(&[&["run", "text_to_video", "-q", "--preview", "seen"][..], &QUICK].concat());
    let file = fs::File::open(place.path("seen/sample.png")).unwrap();
    let reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    assert!(reader.info().width > 0 && reader.info().height > 0);
}

#[test]
fn what_killed_runs_left_goes_although_nothing_is_written() {
    let place = Place::new();
    let args = ["run", "text_to_image", "-s", "width=32", "-s", "height=32", "-s", "steps=1"];
    place.good(&args);
    let left = [".text_to_image-3-001.png.AbCd12.partial", ".frame_1.png.zZ0123.AbCd12.waiting"];
    left.iter().for_each(|name| drop(place.write(&format!("out/{name}"), "half")));
    // As a process that is writing holds it.
    let living = fs::File::create(place.path("out/.other.png.EfGh34.partial")).unwrap();
    living.lock().unwrap();
    assert_eq!(evaluated(&place.json(&args)), 0);
    assert_eq!(place.files("out"), [".other.png.EfGh34.partial", "text_to_image-3-001.png"]);
}
