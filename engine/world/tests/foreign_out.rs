//! Videos that a program `ffmpeg` writes, with `KINO_TEST_FFMPEG` set to one; and what is said
//! where there is none.

#[cfg(unix)]
mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kino_node::{Audio, Cancel};
use kino_world::media::{ForeignFormat, VideoFormat, VideoReader, VideoSpec, create, format_of};
use kino_world::{InputFile, Result, read_metadata};

const TEXT: &str = "Graph(version: 1, nodes: {\"a\": (op: \"x\"), # = ; \\\n}) — größer";

fn ffmpeg() -> Option<PathBuf> {
    std::env::var_os("KINO_TEST_FFMPEG").map(PathBuf::from)
}

/// A frame of four colours, one a quarter, that grows lighter.
fn frame(width: usize, height: usize, index: usize) -> Vec<f32> {
    let colours = [[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5]];
    let lighter = index as f32 * 0.02;
    let pixel = |(y, x): (usize, usize)| {
        colours[usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2)]
    };
    let all = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    all.flat_map(pixel).map(|value: f32| value + lighter).collect()
}

/// The container that a program writes for a path.
fn of_program(path: &str, program: &Path) -> Result<ForeignFormat> {
    match format_of(Path::new(path), Some(program))? {
        VideoFormat::Foreign(foreign) => Ok(foreign),
        other => panic!("{path}: {other:?}"),
    }
}

fn write(path: &Path, program: Option<&Path>, sound: Option<&Audio>) -> Result<Vec<PathBuf>> {
    let (width, height) = (64, 48);
    let spec = VideoSpec {
        width,
        height,
        count: 6,
        fps: 10.0,
        metadata: Some(TEXT),
        audio: sound,
        ffmpeg: program,
        ..VideoSpec::default()
    };
    let mut writer = create(path, &spec)?;
    (0..6).try_for_each(|index| writer.push(&frame(width, height, index)))?;
    writer.finish()
}

#[test]
fn without_the_program_it_is_said_what_is_written() {
    let error = format_of(Path::new("film.webm"), None).unwrap_err();
    assert_eq!(error.to_string(), "film.webm: .webm is written through `ffmpeg`");
    let hint = error.hint().unwrap();
    assert!(hint.contains("kino config set ffmpeg") && hint.contains(".mp4"), "{hint}");
    let some = Path::new("ffmpeg");
    assert_eq!(of_program("film.WEBM", some).unwrap().extension(), "webm");
    let error = format_of(Path::new("film.xyz"), None).unwrap_err();
    assert!(error.to_string().contains("no video format `.xyz`"), "{error}");
    // Whether a program knows it, the program says.
    let error = format_of(Path::new("film.ts"), Some(Path::new("no/ffmpeg"))).unwrap_err();
    assert!(error.to_string().contains("no/ffmpeg"), "{error}");
}

#[test]
fn a_program_that_fails_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ffmpeg");
    #[cfg(unix)]
    {
        let script = "#!/bin/sh\ncase \"$1\" in -version) echo ffmpeg version 0;; *) \
                      echo no encoder >&2; exit 1;; esac\n";
        common::write_program(&program, script);
        let out = folder.path().join("out");
        let error = write(&out.join("a.mkv"), Some(&program), None).unwrap_err();
        assert!(error.to_string().contains("no encoder"), "{error}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
        let webm = of_program("a.webm", &program).unwrap();
        let error = webm.check(&program, (64, 64), None).unwrap_err();
        assert!(error.to_string().starts_with("this ffmpeg cannot write .webm"), "{error}");
    }
    let error = write(&folder.path().join("a.mkv"), Some(&folder.path().join("none")), None);
    assert!(error.unwrap_err().to_string().contains("none"));
}

#[cfg(unix)]
#[test]
fn cancelled_it_ends_the_program_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("ffmpeg");
    // Reads nothing, and does not end of itself.
    let script = "#!/bin/sh\necho $$ > \"$(dirname \"$0\")/pid\"\nexec sleep 600\n";
    common::write_program(&program, script);
    let cancel = Cancel::default();
    let spec = VideoSpec {
        width: 640,
        height: 480,
        count: 50,
        fps: 10.0,
        ffmpeg: Some(&program),
        cancel: Some(&cancel),
        ..VideoSpec::default()
    };
    let out = folder.path().join("out");
    let mut writer = create(&out.join("a.mkv"), &spec).unwrap();
    let begun = Instant::now();
    let frame = vec![0.5; 640 * 480 * 3];
    let stopper = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stopper.cancel();
    });
    let error = (0..50).try_for_each(|_| writer.push(&frame)).unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    drop(writer);
    thread.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "no file is left");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the program is gone");
}

#[test]
fn what_it_writes_is_read_again() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sound: Vec<f32> = (0..32_000).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    let sound = Audio::pcm(sound, 16_000, 1).unwrap();
    let known = [
        ("webm", 0.02, true),
        ("mkv", 0.002, true),
        ("mov", 0.02, true),
        ("gif", 0.02, false),
        ("avi", 0.03, false),
    ];
    for (name, within, has_text) in known {
        let format = of_program(&format!("a.{name}"), &program).unwrap();
        format.check(&program, (64, 48), Some(10.0)).unwrap();
        let path = folder.path().join(format!("a.{name}"));
        let heard = format.holds_sound().then_some(&sound);
        let written = write(&path, Some(&program), heard).unwrap();
        assert_eq!(written, std::slice::from_ref(&path));
        let mut file = InputFile::open(&path).unwrap();
        let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.height, info.times.len()), (64, 48, 6), "{name}");
        assert!((info.fps.unwrap() - 10.0).abs() < 0.01, "{name}");
        let mut worst = 0.0_f32;
        let mut sink = Sink(|index: usize, rgb: Vec<f32>| {
            let expected = frame(64, 48, index);
            // Within the quarters: at their edges codecs may be wrong.
            for (y, x) in [(10, 14), (10, 50), (38, 14), (38, 50)] {
                for c in 0..3 {
                    let at = (y * 64 + x) * 3 + c;
                    worst = worst.max((rgb[at] - expected[at]).abs());
                }
            }
        });
        reader.read(&mut file, &[0, 1, 2, 3, 4, 5], &mut sink).unwrap();
        assert!(worst < within, "{name}: {worst}");
        if format.holds_sound() {
            let sound = reader.read_sound(&mut file, (0.0, None), &mut || true).unwrap().unwrap();
            // Cut to the frames: 0.6 s, but for what an encoder adds at the end.
            assert!((sound.seconds() - 0.6).abs() < 0.03, "{name}: {}", sound.seconds());
        }
        if has_text {
            assert_eq!(read_metadata(&path).unwrap().as_deref(), Some(TEXT), "{name}");
        }
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 5, "nothing but the files");
}

/// Endings that nothing here knows: which they are, the program says.
#[test]
fn whatever_else_it_writes_is_read_again() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sound: Vec<f32> = (0..32_000).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    let sound = Audio::pcm(sound, 16_000, 1).unwrap();
    // How often each frame is shown where a codec knows few rates: 10 a second become 30.
    for (name, times, has_sound) in [
        ("ts", 1, true),
        ("m2ts", 1, true),
        ("mpg", 3, true),
        ("vob", 1, true),
        ("flv", 1, true),
        ("ogv", 1, true),
        ("wmv", 1, true),
        ("asf", 1, true),
        ("nut", 1, true),
        ("m4v", 1, true),
        ("y4m", 1, false),
    ] {
        let format = of_program(&format!("a.{name}"), &program).unwrap();
        assert_eq!(format.holds_sound(), has_sound, "{name}");
        format.check(&program, (64, 48), Some(10.0)).unwrap();
        let path = folder.path().join(format!("a.{name}"));
        write(&path, Some(&program), has_sound.then_some(&sound)).unwrap();
        let mut file = InputFile::open(&path).unwrap();
        let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
        let info = reader.info();
        assert_eq!((info.width, info.height), (64, 48), "{name}");
        let count = info.times.len();
        let fps = 10.0 * times as f64;
        assert!((info.fps.unwrap() - fps).abs() < 0.2, "{name}: {:?}", info.fps);
        // Where frames are repeated, codecs may hold the last one back.
        assert!(count.abs_diff(6 * times) < times, "{name}: {count} frames");
        let mut worst = 0.0_f32;
        let mut sink = Sink(|index: usize, rgb: Vec<f32>| {
            let expected = frame(64, 48, index / times);
            for (y, x) in [(10, 14), (10, 50), (38, 14), (38, 50)] {
                for c in 0..3 {
                    let at = (y * 64 + x) * 3 + c;
                    worst = worst.max((rgb[at] - expected[at]).abs());
                }
            }
        });
        let frames: Vec<usize> = (0..count.min(6)).collect();
        reader.read(&mut file, &frames, &mut sink).unwrap();
        assert!(worst < 0.04, "{name}: {worst}");
        if has_sound {
            let sound = reader.read_sound(&mut file, (0.0, None), &mut || true).unwrap().unwrap();
            assert!((sound.seconds() - 0.6).abs() < 0.15, "{name}: {}", sound.seconds());
        }
    }
}

/// Sound that begins later than the pictures does so in a stream without a beginning of its own.
#[test]
fn late_sound_stays_late() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let late = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds/late.mp4");
    let begins = |path: &Path| {
        let mut file = InputFile::open(path).unwrap();
        let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
        let sound = reader.read_sound(&mut file, (0.0, None), &mut || true).unwrap().unwrap();
        let silence = sound.parts.iter().take_while(|part| part.packets == 0);
        silence.map(|part| part.ticks).sum::<u64>() as f64 / f64::from(sound.rate)
    };
    let expected = begins(&late);
    for name in ["late.ts", "late.mkv", "late.flv"] {
        let path = folder.path().join(name);
        let mut command = std::process::Command::new(&program);
        command.args(["-loglevel", "error", "-i"]).arg(&late).args(["-c", "copy"]).arg(&path);
        assert!(command.status().unwrap().success());
        let found = begins(&path);
        assert!((found - expected).abs() < 0.005, "{name}: {found} for {expected}");
    }
}

#[test]
fn what_it_writes_no_video_as_is_refused_by_name() {
    let Some(program) = ffmpeg() else { return };
    for (name, expected) in [
        ("xyz", "no video format `.xyz`, here or in `ffmpeg`"),
        ("mp3", "holds no video"),
        ("m3u8", "makes 2 files of one video"),
        ("mpd", "files of one video"),
        ("jpg", "it is an image"),
        ("mjpg", "cannot be read again"),
        ("a64", "cannot be read again"),
    ] {
        let error = format_of(Path::new(&format!("a.{name}")), Some(&program)).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(error.hint().is_some());
    }
    // A codec of few sizes takes those and says so of others.
    let dv = of_program("a.dv", &program).unwrap();
    dv.check(&program, (720, 576), Some(25.0)).unwrap();
    let error = dv.check(&program, (64, 48), Some(25.0)).unwrap_err().to_string();
    assert!(error.contains("cannot write frames of 64x48") && error.contains(".dv"), "{error}");
}

#[test]
fn aac_passes_into_other_containers_as_it_is() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tone = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds/tone.m4a");
    let mut tone = InputFile::open(&tone).unwrap();
    let reader = kino_world::media::AudioReader::open(&mut tone, None).unwrap();
    let sound = reader.read(&mut tone, &mut || true).unwrap().unwrap();
    let bytes = sound.bytes_of_packets().unwrap();
    for name in ["a.mkv", "a.mov"] {
        let path = folder.path().join(name);
        write(&path, Some(&program), Some(&sound)).unwrap();
        let mut file = InputFile::open(&path).unwrap();
        let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
        let back = reader.read_sound(&mut file, (0.0, None), &mut || true).unwrap().unwrap();
        let back_bytes = back.bytes_of_packets().unwrap();
        assert!(bytes.starts_with(&back_bytes) && back_bytes.len() > 1000, "{name}");
    }
}

struct Sink<F>(F);

impl<F: FnMut(usize, Vec<f32>)> kino_world::media::FrameSink for Sink<F> {
    fn frame(&mut self, index: usize, rgb: Vec<f32>) -> std::ops::ControlFlow<()> {
        (self.0)(index, rgb);
        std::ops::ControlFlow::Continue(())
    }
}
