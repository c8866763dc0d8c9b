//! Memory as people see it: what `kino plan` says and what the process then takes, budgets by flag
//! and by environment, and a watch that does not grow.

mod common;
mod watching;

#[path = "../../../tests/benches/stream/checkpoint.rs"]
mod checkpoint;

use std::fs;
use std::path::Path;

use common::{Place, event};
use watching::{Watching, replace};

/// Each configuration computes on two threads, so that what is measured does not depend on the
/// machine.
const THREADS: (&str, &str) = ("RAYON_NUM_THREADS", "2");

/// An image of `side`² pixels, in bands.
fn picture(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let pixel = |at: u32| (at / side / 8 + at % side / 8 % 7) as u8;
    let pixels: Vec<u8> =
        (0..side * side).flat_map(|at| [pixel(at), 255 - pixel(at), 90]).collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Noise decoded to a video, enlarged, written: no sampling, so that long clips are quick.
const DECODE: &str = r#"Graph(version: 1,
    inputs: {"side": (type: "Int", default: 64), "frames": (type: "Int", default: 5), "tile": (type: "Int", default: 0),
             "factor": (type: "Int", default: 1), "seed": (type: "Int", default: 1)},
    nodes: {
        "model": (op: "model.load", with: {"source": "embedded:shapes"}),
        "noise": (op: "latent.noise", in: {"vae": "model.vae", "width": "inputs.side", "height": "inputs.side",
            "frames": "inputs.frames", "seed": "inputs.seed"}),
        "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "noise", "tile": "inputs.tile"}),
        "large": (op: "upscale", in: {"frames": "frames", "factor": "inputs.factor"}),
        "file": (op: "video.write", in: {"frames": "large"}, with: {"path": "{graph}.mp4"}),
    })"#;

const ENLARGE: &str = r#"Graph(version: 1,
    inputs: {"factor": (type: "Int", default: 2), "model": (type: "Text", default: "lanczos"),
             "tile": (type: "Int", default: 0)},
    nodes: {
        "image": (op: "image.read", with: {"path": "in.png"}),
        "large": (op: "upscale", in: {"frames": "image", "factor": "inputs.factor",
            "model": "inputs.model", "tile": "inputs.tile"}),
        "file": (op: "image.write", in: {"frames": "large"}, with: {"path": "{graph}.png"}),
    })"#;

/// Two pictures, and frames between them by a network.
const BETWEEN: &str = r#"Graph(version: 1, inputs: {"model": (type: "Text")}, nodes: {
        "image": (op: "image.read", with: {"path": "in.png"}),
        "clip": (op: "frames.concat", in: {"parts": ["image", "image"]}),
        "smooth": (op: "frames.interpolate", in: {"frames": "clip", "model": "inputs.model"}, with: {"factor": 3}),
        "file": (op: "image.write", in: {"frames": "smooth"}, with: {"path": "{graph}-%d.png"}),
    })"#;

const ENCODE: &str = r#"Graph(version: 1, inputs: {"tile": (type: "Int", default: 0)}, nodes: {
        "model": (op: "model.load", with: {"source": "embedded:shapes"}),
        "image": (op: "image.read", with: {"path": "in.png"}),
        "latent": (op: "vae.encode", in: {"vae": "model.vae", "frames": "image", "tile": "inputs.tile"}),
        "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "latent", "tile": "inputs.tile"}),
        "file": (op: "image.write", in: {"frames": "frames"}, with: {"path": "{graph}.png"}),
    })"#;

/// A video read, and written again.
const READ: &str = r#"Graph(version: 1,
    inputs: {"path": (type: "Path", default: "in.mp4"), "count": (type: "Int", default: 9)},
    nodes: {
        "clip": (op: "video.read", in: {"path": "inputs.path", "count": "inputs.count"}),
        "file": (op: "video.write", in: {"frames": "clip.frames"}, with: {"path": "{graph}.png"}),
    })"#;

/// A folder with the graphs that are measured.
fn place() -> Place {
    let place = Place::new();
    place.write("in.png", picture(768));
    place.write("decode.ron", DECODE);
    place.write("enlarge.ron", ENLARGE);
    place.write("encode.ron", ENCODE);
    let text = fs::read_to_string(root().join("graphs/text_to_video.ron")).unwrap();
    let wan = root().join("tests/ref/wan_t2v/model").display().to_string();
    place.write("wan.ron", text.replace("embedded:shapes", &wan));
    place
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What the plan of a run says, and what its process took at most, in bytes.
fn predicted_and_measured(place: &Place, args: &str) -> (f64, f64) {
    let args: Vec<&str> = args.split(' ').collect();
    let run = |command: &str| {
        let args = [&[command, "--json", "--no-cache"][..], &args].concat();
        let ran = common::Ran::of(place.command(&args).env(THREADS.0, THREADS.1).output().unwrap());
        assert_eq!(ran.code, 0, "{args:?}\n{}\n{}", ran.out, ran.err);
        let lines = ran.out.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<serde_json::Value>>()
    };
    let planned = run("plan")[0]["peak_memory"].as_f64().unwrap();
    let ran = run("run");
    let memory = &event(&ran, "outputs")["memory"];
    let told = memory["predicted"].as_f64().unwrap();
    // What the process itself takes is measured by each, a little earlier or later.
    assert!((told / planned - 1.0).abs() < 0.1, "planned {planned}, told by the run {told}");
    (planned, memory["peak"].as_f64().expect("the system says it"))
}

/// What is planned and what is measured differ by a quarter of what is measured at most. How
/// threads meet decides what the allocator keeps: on a busy machine the best of three runs counts.
#[track_caller]
fn check(place: &Place, configurations: &[&str]) {
    let far = |(predicted, measured): &(f64, f64)| (predicted / measured - 1.0).abs();
    let mut wrong = Vec::new();
    for args in configurations {
        let mut runs = vec![predicted_and_measured(place, args)];
        // What the allocator still holds when the peak comes is chance: of equal runs of the embedded
        // network some take a tenth more than others.
        while runs.len() < 6 && runs.iter().all(|run| far(run) > 0.25) {
            runs.push(predicted_and_measured(place, args));
        }
        let (predicted, measured) =
            runs.into_iter().min_by(|a, b| far(a).total_cmp(&far(b))).unwrap();
        let (ratio, [mega_p, mega_m]) =
            (predicted / measured, [predicted, measured].map(|n| n / 1e6));
        println!("{args}: predicted {mega_p:.0} MB, measured {mega_m:.0} MB, {ratio:.2}");
        if (ratio - 1.0).abs() > 0.25 {
            wrong.push((args, mega_p, mega_m));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn models_take_the_memory_that_was_planned() {
    let place = place();
    check(
        &place,
        &[
            "text_to_video -s steps=1 -s width=96 -s height=64 -s frames=17",
            "text_to_video -s steps=1 -s width=192 -s height=128 -s frames=17",
            "text_to_video -s steps=1 -s width=128 -s height=96 -s frames=49",
            "text_to_image -s steps=1 -s width=512 -s height=512",
            "wan.ron -s steps=1 -s width=256 -s height=192 -s frames=17",
        ],
    );
}

#[test]
fn autoencoders_take_the_memory_that_was_planned() {
    let place = place();
    check(
        &place,
        &[
            "decode.ron -s side=384 -s frames=5",
            "decode.ron -s side=384 -s frames=5 -s tile=128",
            "encode.ron",
            "encode.ron -s tile=256",
        ],
    );
}

#[test]
fn videos_take_the_memory_that_was_planned() {
    let place = place();
    place.write("read.ron", READ);
    place.write("png.ron", DECODE.replace("{graph}.mp4", "{graph}.png"));
    for (graph, file) in [("decode", "mp4"), ("png", "png")] {
        let sizes = ["-s", "side=256", "-s", "frames=9", "-s", "factor=4"];
        let from = format!("{graph}.ron");
        let args = [&["run", from.as_str()][..], &sizes[..]].concat();
        let made = common::Ran::of(place.command(&args).output().unwrap());
        assert_eq!(made.code, 0, "{}", made.err);
        let made = fs::read(place.path(&format!("out/{graph}.{file}"))).unwrap();
        place.write(&format!("in.{file}"), made);
    }
    let read = ["read.ron", "read.ron -s count=2", "read.ron -s path=in.png"];
    check(&place, &read);
}

#[test]
fn enlarging_takes_the_memory_that_was_planned() {
    let place = place();
    let rrdb = root().join("tests/ref/upscale/rrdb_x4.safetensors").display().to_string();
    check(
        &place,
        &[
            "enlarge.ron -s factor=2",
            "enlarge.ron -s factor=4",
            "enlarge.ron -s factor=4 -s model=video-x4",
            "enlarge.ron -s factor=2 -s model=video-x4",
            &format!("enlarge.ron -s factor=4 -s tile=256 -s model={rrdb}"),
        ],
    );
}

#[test]
fn frames_between_take_the_memory_that_was_planned() {
    let place = place();
    place.write("between.ron", BETWEEN);
    let model = |version: &str| {
        let path = root().join("tests/ref/rife").join(version);
        format!("between.ron -s model={}.safetensors", path.display())
    };
    check(&place, &[&model("v4_25"), &model("v4_15")]);
}

/// What turns gave back is held for a while: the allocator returns it after a second.
#[test]
fn loops_take_the_memory_that_was_planned() {
    let place = place();
    let long = root().join("graphs/long_video.ron").display().to_string();
    check(
        &place,
        &[
            &format!("{long} -s turns=4 -s steps=1"),
            &format!("{long} -s turns=2 -s steps=10"),
            &format!("{long} -s turns=6 -s steps=1 -s enlarge=1"),
            &format!("{long} -s turns=3 -s steps=1 -s width=192 -s height=128"),
        ],
    );
}

#[test]
fn long_videos_take_the_memory_that_was_allowed() {
    let place = place();
    let long = "decode.ron -s side=128 -s frames=65 -s factor=4";
    check(&place, &[&format!("{long} --memory 100MB"), &format!("{long} --memory 1GB")]);
    let [little, much] = ["100MB", "1GB"].map(|size| {
        predicted_and_measured(&place, &format!("{long} --until large --memory {size}")).1
    });
    assert!(little < 0.75 * much, "frames that find no room lie in files: {little} of {much}");
}

/// A step of a transformer that is written for it: 24 layers of 4 million numbers each.
const LARGE: &str = r#"Graph(version: 1,
    inputs: {"model": (type: "Text"), "compute": (type: "Text", default: "auto"), "steps": (type: "Int", default: 2)},
    nodes: {
        "base": (op: "model.load", with: {"source": "BASE"}),
        "model": (op: "model.load", in: {"transformer": "inputs.model", "compute": "inputs.compute"}),
        "text": (op: "text.encode", in: {"encoder": "base.text_encoder"}, with: {"prompt": "deep snow at dawn"}),
        "noise": (op: "latent.noise", in: {"vae": "base.vae"}, with: {"width": 128, "height": 128, "frames": 1, "seed": 3}),
        "patches": (op: "patchify", in: {"latents": "noise", "dit": "model.dit"}),
        "sample": (op: "dit.sample", in: {"dit": "model.dit", "patches": "patches", "text": "text", "steps": "inputs.steps"}),
        "latent": (op: "unpatchify", in: {"patches": "sample.patches"}),
        "file": (op: "tensor.write", in: {"tensors": {"latent": "latent"}}, with: {"path": "{graph}.safetensors"}),
    })"#;

/// A folder with the graph of a large transformer, and its files.
fn large_place() -> Place {
    let place = Place::new();
    let base = root().join("tests/ref/wan_t2v/model").display().to_string();
    place.write("large.ron", LARGE.replace("BASE", &base));
    let sizes =
        checkpoint::Sizes { heads: 4, head_dim: 128, inner: 2048, layers: 24, text: 40, freq: 64 };
    for (name, form) in [("bf16", checkpoint::Form::Bf16), ("fp8", checkpoint::Form::Fp8)] {
        let folder = place.path(name);
        checkpoint::write(&folder, &sizes, form).unwrap();
        let file = folder.join("transformer/diffusion_pytorch_model.safetensors");
        fs::rename(file, place.path(&format!("{name}.safetensors"))).unwrap();
    }
    place
}

#[test]
fn denoisers_take_the_memory_that_was_planned_in_memory_and_streamed() {
    let place = large_place();
    check(
        &place,
        &[
            "large.ron -s model=bf16.safetensors -s compute=f32",
            "large.ron -s model=bf16.safetensors -s compute=bf16",
            "large.ron -s model=fp8.safetensors",
            "large.ron -s model=bf16.safetensors -s compute=f32 --memory 300MB",
            "large.ron -s model=bf16.safetensors -s compute=bf16 --memory 160MB",
            "large.ron -s model=fp8.safetensors --memory 90MB",
        ],
    );
}

/// With a budget that the weights do not fit into the result is that of a larger one, and plan and
/// run say what is read in every pass; one that is too small for that is refused with what it
/// needs.
#[test]
fn weights_that_do_not_fit_are_streamed() {
    let place = large_place();
    let run = |memory: &str| {
        let args = ["large.ron", "-s", "model=fp8.safetensors", "--memory", memory, "--no-cache"];
        let plan = place.good(&[&["plan"][..], &args].concat());
        let run = place.json(&[&["run"][..], &args, &["--overwrite"]].concat());
        let counted = event(&run, "outputs")["memory"]["ledger"].as_u64();
        (plan, run, counted, fs::read(place.path("out/large.safetensors")).unwrap())
    };
    let (plan, _, _, expected) = run("2GB");
    assert!(!plan.contains("read from disk"), "{plan}");
    let (plan, ran, _, found) = run("90MB");
    assert!(found == expected, "the bytes are the same");
    let line = plan.lines().find(|line| line.starts_with("sample: its weights do not fit"));
    let line = line.unwrap_or_else(|| panic!("{plan}"));
    assert!(line.contains("of 24 blocks stay there, the others ("), "{line}");
    let said = ran.iter().any(|line| line.to_string().contains("of 24 blocks stay there"));
    assert!(said, "{ran:#?}");
    let args = ["plan", "large.ron", "-s", "model=fp8.safetensors", "--no-cache"];
    let streamed = place.json(&[&args[..], &["--memory", "90MB"]].concat());
    let steps = streamed[0]["steps"].as_array().unwrap();
    let sample = steps.iter().find(|step| step["name"] == "sample").unwrap();
    assert_eq!(sample["streamed"]["blocks"], 24);
    assert!(sample["memory"].as_u64().unwrap() <= 90_000_000, "{sample}");
    let refused = place.bad(2, &[&args[..], &["--memory", "12MB"]].concat());
    let refused = refused.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(refused.contains("with its weights read from disk block by block"), "{refused}");
    assert!(refused.contains("12 MB are allowed") && refused.contains("--memory"), "{refused}");
}

#[test]
fn a_budget_is_told_by_flag_or_environment_and_the_flag_counts() {
    let place = place();
    let run = |memory: Option<&str>, args: &[&str]| {
        let mut command = place.command(args);
        if let Some(size) = memory {
            command.env("KINO_MEMORY", size);
        }
        common::Ran::of(command.output().unwrap())
    };
    let plan = ["plan", "decode.ron", "-s", "side=256"];
    assert_eq!(run(None, &plan).code, 0);
    let refused = run(Some("50MB"), &plan);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("`frames`: it needs about"), "{}", refused.err);
    assert!(refused.err.contains("50 MB are allowed"), "{}", refused.err);
    assert!(refused.err.contains("--memory"), "what helps: {}", refused.err);
    for command in ["plan", "run", "watch"] {
        let args = [&[command][..], &plan[1..], &["--memory", "40MB"]].concat();
        let mut watch = place.command(&args);
        let refused = match command {
            // A watch goes on until the graph is mended; what it says is enough.
            "watch" => {
                let mut child = watch.stderr(std::process::Stdio::piped()).spawn().unwrap();
                let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
                let mut said = String::new();
                while !said.contains("40 MB are allowed") {
                    assert!(
                        std::io::BufRead::read_line(&mut lines, &mut said).unwrap() > 0,
                        "{said}"
                    );
                }
                child.kill().unwrap();
                child.wait().unwrap();
                said
            }
            _ => run(Some("4GB"), &args).err,
        };
        assert!(refused.contains("40 MB are allowed"), "{command}: {refused}");
    }
    let args = [&plan[..], &["--memory", "2GB"]].concat();
    assert_eq!(run(Some("50MB"), &args).code, 0, "the flag counts, not the environment");
    for size in ["much", "-1"] {
        let wrong = run(None, &[&plan[..], &["--memory", size]].concat());
        assert_eq!(wrong.code, 2);
        assert!(wrong.err.contains(&format!("{size} is no size")), "{}", wrong.err);
    }
    let help = place.good(&["run", "--help"]);
    assert!(help.contains("--memory <SIZE>"), "{help}");
}

#[test]
fn a_step_whose_result_is_cached_is_not_refused() {
    let place = place();
    let args = ["decode.ron", "-s", "side=256", "--until", "large"];
    place.good(&[&["run"][..], &args].concat());
    let little = [&args[..], &["--memory", "50MB"]].concat();
    place.good(&[&["plan"][..], &little].concat());
    place.good(&[&["run"][..], &little].concat());
    let other = [&little[..], &["-s", "seed=2"]].concat();
    let refused = place.bad(2, &[&["plan"][..], &other].concat());
    assert!(refused.contains("50 MB are allowed"), "{refused}");
}

/// What a process holds, in bytes: memory, and files without names, which is where frames go that
/// find no room. Also how many files it has open.
fn held(process: u32) -> (u64, u64, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
    let mut unnamed = 0;
    let mut files = 0;
    for file in fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
        files += 1;
        let path = fs::read_link(file.path()).unwrap_or_default();
        if path.to_string_lossy().ends_with("(deleted)") {
            unnamed += fs::metadata(file.path()).map_or(0, |about| about.len());
        }
    }
    (kilobytes * 1024, unnamed, files)
}

/// `KINO_WATCH_EDITS` sets how many.
#[test]
#[cfg(target_os = "linux")]
fn a_watch_of_many_edits_does_not_grow() {
    let edits = std::env::var("KINO_WATCH_EDITS").ok().and_then(|text| text.parse().ok());
    let edits: usize = edits.unwrap_or(45);
    let place = Place::new();
    // Twice 65 frames of 128² pixels, each 13 MB: half of what runs may take may stay in the cache, and
    // some of the second clip finds no room beside the first.
    let graph = |seed: usize| {
        let nodes = r#"
            "model": (op: "model.load", with: {"source": "embedded:shapes"}),
            "noise": (op: "latent.noise", in: {"vae": "model.vae"}, with: {"width": 32, "height": 32, "frames": 65, "seed": SEED}),
            "frames": (op: "vae.decode", in: {"vae": "model.vae", "latent": "noise"}),
            "large": (op: "upscale", in: {"frames": "frames"}, with: {"factor": 4}),
            "soft": (op: "frames.resize", in: {"frames": "frames"}, with: {"width": 128, "filter": "bilinear"})"#;
        let nodes = nodes.replace("SEED", &seed.to_string());
        format!(
            r#"Graph(version: 1, nodes: {{{nodes}}}, outputs: {{"large": "large", "soft": "soft"}})"#
        )
    };
    place.write("g.ron", graph(1));
    let temporary = place.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let args = ["g.ron", "--no-cache", "--memory", "26MB"];
    let mut watch = Watching::start_with(&place, &args, |command| {
        command.env("TMPDIR", &temporary).env(THREADS.0, THREADS.1);
    });
    let mut seen = Vec::with_capacity(edits);
    for edit in 0..edits {
        let path = place.path("g.ron");
        let lines = watch.after(|| replace(&path, &graph(edit + 2)));
        assert_eq!(event(&lines, "done")["failed"], 0, "{lines:#?}");
        seen.push(held(watch.process()));
        let named = fs::read_dir(&temporary).unwrap().count();
        assert!(named <= 2, "{named} files in the temporary folder after {edit} edits");
    }
    // Memory by its least: how much of what was freed the allocator holds at a moment is chance.
    let of = |part: &[(u64, u64, usize)]| {
        let least = part.iter().map(|held| held.0).min().unwrap();
        let most = |of: fn(&(u64, u64, usize)) -> u64| part.iter().map(of).max().unwrap();
        (least, most(|held| held.1), most(|held| held.2 as u64))
    };
    // The first third is for what is loaded once.
    let (early, late) = (of(&seen[edits / 3..2 * edits / 3]), of(&seen[2 * edits / 3..]));
    println!("{edits} edits: RSS, bytes in unnamed files, open files: {early:?}, then {late:?}");
    let most = seen.iter().map(|held| held.0).max().unwrap();
    assert!(most < 250 << 20, "{most} bytes of memory");
    assert!(late.0 <= early.0 + early.0 / 20 + (4 << 20), "memory grows: {early:?}, then {late:?}");
    assert!(early.1 > 0, "frames go to files");
    assert!(late.1 <= 26 << 20, "what is spilled is bounded: {late:?}");
    assert!(late.2 <= early.2 + 2, "open files grow: {early:?}, then {late:?}");
    assert_eq!(watch.interrupt(), Some(130));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "nothing is left");
}
