//! Graphs of sound, of EXR, and of what a program `ffmpeg` writes: graph in, files and diagnostics
//! out. No program is used, but the one of `KINO_TEST_FFMPEG` where that is set.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kino_node::Audio;
use kino_session::{Engine, RunResult, Settings, inputs};
use kino_world::media::{AudioReader, VideoReader};
use kino_world::{InputFile, read_image};

struct Place {
    folder: tempfile::TempDir,
    engine: Engine,
}

/// A folder with the files that other tests have, and an engine that uses this program or none.
fn place(ffmpeg: &OsStr) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../world/tests");
    for name in [
        "sounds/clip.mp4",
        "sounds/late.mp4",
        "sounds/tone.m4a",
        "sounds/short.wav",
        "sounds/ac3.mp4",
        "videos/moving.gif",
        "exr/half.exr",
    ] {
        let from = tests.join(name);
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let settings = Settings::default().with_flag("ffmpeg", ffmpeg).unwrap();
    let engine = Engine::builder().device("cpu").memory("1GB").no_cache().settings(settings);
    Place { folder, engine: engine.build().unwrap() }
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs nodes; the errors of the plan or of the run.
    fn run(&self, nodes: &str) -> Result<std::sync::Arc<RunResult>, String> {
        let text =
            format!("Graph(version: 1, nodes: {{{nodes}}}, outputs: {{\"file\": \"file\"}})");
        let graph = self.engine.open_text("sound.ron", text, self.folder.path());
        let graph = graph.map_err(|error| error.to_string())?;
        let run = graph.run(inputs! {}).out(self.folder.path());
        let done = run.start().map_err(|error| error.to_string())?.wait();
        done.map_err(|error| error.to_string())
    }

    fn sound(&self, name: &str) -> Audio {
        let mut file = InputFile::open(&self.path(name)).unwrap();
        let reader = AudioReader::open(&mut file, None).unwrap();
        reader.read(&mut file, &mut || true).unwrap().unwrap()
    }
}

fn alone() -> Place {
    place(OsStr::new(""))
}

/// `video.read` to `video.write`, the sound through a node or straight.
fn through(read: &str, between: &str, edge: &str, write: &str) -> String {
    format!(
        r#""clip": (op: "video.read", with: {{{read}}}), {between}
        "file": (op: "video.write", in: {{"frames": "clip.frames", "audio": "{edge}"}},
            with: {{{write}}}),"#
    )
}

fn bytes(sound: &Audio) -> Vec<u8> {
    sound.bytes_of_packets().unwrap()
}

#[test]
fn sound_goes_through_packet_by_packet() {
    let place = alone();
    let straight = through(r#""path": "clip.mp4""#, "", "clip.audio", r#""path": "out.mp4""#);
    place.run(&straight).unwrap();
    let (before, after) = (place.sound("clip.mp4"), place.sound("out.mp4"));
    // 1.7 s of sound, 1.5 s of frames: the rest is cut.
    assert_eq!((before.ticks(), after.ticks()), (27_200, 24_000));
    assert!(bytes(&before).starts_with(&bytes(&after)));
    assert_eq!(before.parts[0].skip, after.parts[0].skip);
    // At half the rate the frames last longer than the sound, which stays as it is.
    let slow =
        through(r#""path": "clip.mp4""#, "", "clip.audio", r#""path": "slow.mp4", "fps": 5"#);
    place.run(&slow).unwrap();
    let slow = place.sound("slow.mp4");
    assert!(slow.ticks() == 27_200 && bytes(&slow) == bytes(&before));
}

#[test]
fn a_part_of_a_video_has_the_sound_of_its_frames() {
    let place = alone();
    for name in ["clip.mp4", "late.mp4"] {
        let read = format!(r#""path": "{name}", "start": 3, "count": 8"#);
        place.run(&through(&read, "", "clip.audio", r#""path": "part.mp4""#)).unwrap();
        let mut file = InputFile::open(&place.path(name)).unwrap();
        let reader = VideoReader::open(&mut file, false).unwrap();
        let whole = reader.read_sound(&mut file, (0.0, None), &mut || true).unwrap().unwrap();
        let expected = whole.slice(4_800, 12_800).unwrap();
        let found = place.sound("part.mp4");
        assert_eq!(found.parts, expected.parts, "{name}");
        assert!(bytes(&found) == bytes(&expected), "{name}");
        // At another rate the same moments.
        let read = format!(r#""path": "{name}", "start": 6, "count": 16, "fps": 20"#);
        place.run(&through(&read, "", "clip.audio", r#""path": "fast.mp4""#)).unwrap();
        assert_eq!(place.sound("fast.mp4").parts, expected.parts, "{name}");
    }
}

/// Twice the frames at twice the rate: the same time, the same sound.
#[test]
fn a_clip_between_whose_frames_are_others_keeps_its_sound() {
    let place = alone();
    let graph = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../graphs/interpolate.ron");
    let graph = place.engine.open(graph.to_str().unwrap()).unwrap();
    let clip = place.path("clip.mp4").to_str().unwrap().to_owned();
    let run = graph.run(inputs! { "video" => clip, "enlarge" => 1 }).out(place.folder.path());
    run.start().unwrap().wait().unwrap();
    let mut file = InputFile::open(&place.path("interpolate-2x-001.mp4")).unwrap();
    let reader = VideoReader::open(&mut file, false).unwrap();
    let (fps, count) = (reader.info().fps.unwrap(), reader.info().times.len());
    assert!((fps - 20.0).abs() < 1e-6 && (29..=30).contains(&count), "{fps} {count}");
    let (before, after) = (place.sound("clip.mp4"), place.sound("interpolate-2x-001.mp4"));
    assert_eq!(after.ticks(), count as u64 * 800);
    assert!(bytes(&before).starts_with(&bytes(&after)));
}

/// Graphs that change or extend a clip keep its rate, and its sound where its frames are.
#[test]
fn a_clip_that_is_changed_or_extended_keeps_its_rate_and_sound() {
    let place = alone();
    let clip = place.path("clip.mp4").to_str().unwrap().to_owned();
    // 15 frames at 10 a second, 1.7 s of sound. Where the sound of the result begins and ends.
    let run = |graph: &str, names: &[&str], inputs: &[(&str, &str)]| {
        let opened = place.engine.open(graph).unwrap();
        let mut all = inputs! { "width" => 32, "height" => 32, "steps" => 2 };
        names.iter().for_each(|name| all.set(*name, clip.as_str()));
        inputs.iter().for_each(|(name, value)| all.set(*name, *value));
        let run = opened.run(all).out(place.folder.path()).start().unwrap();
        run.wait().unwrap_or_else(|error| panic!("{graph}: {error}"));
        let name = format!("{graph}-7-001.mp4");
        let mut file = InputFile::open(&place.path(&name)).unwrap();
        let reader = VideoReader::open(&mut file, false).unwrap();
        let info = reader.info();
        assert!((info.fps.unwrap() - 10.0).abs() < 1e-6, "{graph}: {:?}", info.fps);
        (info.times.len(), place.sound(&name))
    };
    let before = place.sound("clip.mp4");
    let whole = bytes(&before);
    let silences = |sound: &Audio| -> Vec<u64> {
        sound.parts.iter().filter(|part| part.packets == 0).map(|part| part.ticks).collect()
    };
    let rect = [("frames", "9"), ("y", "8"), ("w", "32"), ("h", "8")];
    for (graph, inputs) in [("video_to_video", &rect[..1]), ("inpaint", &rect)] {
        let (count, sound) = run(graph, &["video"], inputs);
        assert_eq!((count, sound.ticks(), silences(&sound)), (9, 14_400, vec![]), "{graph}");
        assert!(whole.starts_with(&bytes(&sound)));
    }
    let (count, sound) = run("extend_forward", &["video"], &[("frames", "9")]);
    assert_eq!((count, sound.ticks()), (19, 27_200));
    let (count, sound) = run("loop", &["video"], &[("frames", "13")]);
    assert_eq!((count, sound.ticks()), (19, 27_200));
    let (count, sound) = run("extend_backward", &["video"], &[("frames", "9")]);
    // Five frames before the clip: half a second.
    assert_eq!((count, sound.ticks(), silences(&sound)), (20, 8_000 + 24_000, vec![8_000]));
    let (count, sound) = run("join", &["first", "second"], &[("frames", "13")]);
    // Four frames lie between the clips; the first one's sound is 0.2 s longer than its frames.
    assert_eq!((count, silences(&sound)), (34, vec![3_200]));
    assert_eq!(sound.ticks(), 30_400 + 24_000);
}

#[test]
fn parts_of_a_sound_begin_at_their_times() {
    let place = alone();
    let graph = |starts: &str| {
        let between = format!(
            r#""tone": (op: "audio.read", with: {{"path": "tone.m4a"}}),
            "a": (op: "audio.trim", in: {{"audio": "tone"}}, with: {{"duration": 0.5}}),
            "at": (op: "audio.concat", in: {{"parts": ["a", "a"]}}, with: {{"starts": {starts}}}),"#
        );
        through(r#""path": "clip.mp4""#, &between, "at", r#""path": "at.mp4", "fps": 5"#)
    };
    place.run(&graph("[0.25, 1.0]")).unwrap();
    let sound = place.sound("at.mp4");
    let rate = f64::from(sound.rate);
    let parts: Vec<(bool, f64)> =
        sound.parts.iter().map(|part| (part.packets > 0, part.ticks as f64 / rate)).collect();
    assert_eq!(parts, [(false, 0.25), (true, 0.5), (false, 0.25), (true, 0.5)]);
    // A part is cut where the next one begins.
    place.run(&graph("[0.0, 0.25]")).unwrap();
    assert_eq!(place.sound("at.mp4").ticks() as f64 / rate, 0.75);
    for (starts, expected) in [
        ("[0.0]", "expected one time for each of 2 parts, found 1"),
        ("[1.0, 0.5]", "parts begin one after another, found 1 s before 0.5 s"),
        ("[-1.0, 0.5]", "`starts`: expected a number from 0 to 1000000, found -1"),
    ] {
        let said = place.run(&graph(starts)).err().unwrap();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn sounds_are_cut_and_joined() {
    let place = alone();
    let between = r#"
        "tone": (op: "audio.read", with: {"path": "tone.m4a"}),
        "a": (op: "audio.trim", in: {"audio": "tone"}, with: {"start": 0.25, "duration": 0.5}),
        "b": (op: "audio.trim", in: {"audio": "tone"}, with: {"start": 1.2}),
        "none": (op: "video.read", with: {"path": "moving.gif"}),
        "both": (op: "audio.concat", in: {"parts": ["a", "none.audio", "b"]}),"#;
    let graph = through(r#""path": "clip.mp4""#, between, "both", r#""path": "out.mp4""#);
    place.run(&graph).unwrap();
    let (tone, found) = (place.sound("tone.m4a"), place.sound("out.mp4"));
    let parts = [(4_000, 8_000), (19_200, 8_000)];
    let parts = parts.map(|(start, ticks)| tone.slice(start, ticks).unwrap().into());
    let expected = Audio::concat(&parts).unwrap();
    assert_eq!((found.ticks(), &found.parts), (16_000, &expected.parts));
    assert!(bytes(&found) == bytes(&expected));
}

/// What cannot be is refused while planning: nothing was decoded or written.
#[test]
fn what_cannot_hold_sound_is_a_plan_error() {
    let place = alone();
    let refused = |graph: &str, expected: &[&str]| {
        let error = place.run(graph).err().unwrap();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    for (name, kind) in [("a.webp", "WebP"), ("a.png", "PNG"), ("a_%03d.exr", "EXR")] {
        let graph =
            through(r#""path": "clip.mp4""#, "", "clip.audio", &format!(r#""path": "{name}""#));
        refused(&graph, &[&format!("{kind} holds no sound: `{name}`"), "end the path with .mp4"]);
    }
    // But a video without sound may go anywhere.
    let silent = through(r#""path": "moving.gif""#, "", "clip.audio", r#""path": "a.webp""#);
    place.run(&silent).unwrap();
    let read = |path: &str| format!(r#""tone": (op: "audio.read", with: {{"path": "{path}"}}),"#);
    let with = |between: &str, edge: &str| {
        through(r#""path": "clip.mp4""#, between, edge, r#""path": "b.mp4""#)
    };
    refused(
        &with(&read("short.wav"), "tone"),
        &["PCM is encoded by `ffmpeg` alone", "kino config set ffmpeg"],
    );
    let trim = r#""part": (op: "audio.trim", in: {"audio": "tone"}, with: {"start": 1.5, "duration": 0.3}),"#;
    let trim = read("tone.m4a") + trim;
    refused(&with(&trim, "part"), &["the sound lasts 1.700 s, found 0.3 s from 1.5 s on"]);
    let mixed = r#""wav": (op: "audio.read", with: {"path": "short.wav"}),
        "both": (op: "audio.concat", in: {"parts": ["tone", "wav"]}),"#;
    let mixed = read("tone.m4a") + mixed;
    refused(&with(&mixed, "both"), &["AAC of 16000 Hz with 1 channels and PCM of 16000 Hz with 2"]);
    refused(&with(&read("moving.gif"), "tone"), &["expected sound (m4a, mp4, WAV), found a GIF"]);
    let ac3 = through(r#""path": "ac3.mp4""#, "", "clip.audio", r#""path": "b.mp4""#);
    refused(&ac3, &["its sound is AC-3; AAC is read here"]);
    let webm = through(r#""path": "clip.mp4""#, "", "clip.audio", r#""path": "b.webm""#);
    refused(&webm, &[".webm is written through `ffmpeg`", "without it .mp4, .webp, .png and .exr"]);
    assert!(!place.path("b.mp4").exists());
    // Frames of what has sound that is not read are read.
    let frames = r#""clip": (op: "video.read", with: {"path": "ac3.mp4"}),
        "file": (op: "video.write", in: {"frames": "clip.frames"}, with: {"path": "b.mp4"}),"#;
    place.run(frames).unwrap();
}

#[test]
fn highlights_pass_from_exr_to_exr() {
    let place = alone();
    let graph = r#"
        "light": (op: "image.read", with: {"path": "half.exr"}),
        "file": (op: "image.write", in: {"frames": "light"}, with: {"path": "again.exr"}),"#;
    place.run(graph).unwrap();
    let (before, after) = (place.path("half.exr"), place.path("again.exr"));
    let (before, again) = (read_image(&before).unwrap(), read_image(&after).unwrap());
    assert_eq!(before, again, "halves are exact");
    assert!(before.rgb.iter().any(|value| *value > 7.0), "100 times as bright as white");
    let text = kino_world::read_metadata(&after).unwrap().unwrap();
    assert!(text.contains("image.read"), "{text}");
    let many = r#""clip": (op: "video.read", with: {"path": "clip.mp4", "count": 3}),
        "file": (op: "image.write", in: {"frames": "clip.frames"}, with: {"path": "one.exr"}),"#;
    let error = place.run(many).err().unwrap();
    assert!(error.contains("an EXR file holds one image, found 3 frames"), "{error}");
    place.run(&many.replace("one.exr", "all_%02d.exr")).unwrap();
    assert!(["all_00.exr", "all_02.exr"].iter().all(|name| place.path(name).is_file()));
}

#[test]
fn with_a_program_other_formats_are_written_and_read() {
    let Some(program) = std::env::var_os("KINO_TEST_FFMPEG") else { return };
    let place = place(&program);
    for name in ["out.webm", "out.mkv", "out.mov"] {
        let write = format!(r#""path": "{name}""#);
        place.run(&through(r#""path": "clip.mp4""#, "", "clip.audio", &write)).unwrap();
        let back =
            through(&format!(r#""path": "{name}""#), "", "clip.audio", r#""path": "back.mp4""#);
        place.run(&back).unwrap();
        let sound = place.sound("back.mp4");
        assert!((sound.seconds() - 1.5).abs() < 0.01, "{name}: {}", sound.seconds());
        let text = kino_world::read_metadata(&place.path(name)).unwrap().unwrap();
        assert!(text.contains("video.write"), "{name}");
    }
    // PCM is encoded for mp4; AC-3 is decoded.
    let wav = r#""wav": (op: "audio.read", with: {"path": "short.wav"}),"#;
    place.run(&through(r#""path": "clip.mp4""#, wav, "wav", r#""path": "wav.mp4""#)).unwrap();
    assert_eq!(place.sound("wav.mp4").ticks(), 800);
    let ac3 = through(r#""path": "ac3.mp4""#, "", "clip.audio", r#""path": "ac3out.mp4""#);
    place.run(&ac3).unwrap();
    assert!(place.sound("ac3out.mp4").seconds() > 0.25);
    // GIF holds none.
    let gif = through(r#""path": "clip.mp4""#, "", "clip.audio", r#""path": "b.gif""#);
    assert!(place.run(&gif).err().unwrap().contains("GIF holds no sound"));
    place.run(&gif.replace(r#", "audio": "clip.audio""#, "")).unwrap();
}
