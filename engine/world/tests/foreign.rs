//! Videos that are read through a program: what is asked of it, what becomes of what it says, and
//! that it ends when nobody wants its frames.
//!
//! The program here is a script that knows one video. With `KINO_TEST_FFMPEG` set to a real one,
//! that is held against this project's own reading, too.
#![cfg(unix)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kino_world::media::{FrameSink, VideoReader};
use kino_world::{Error, InputFile};

/// Takes frames until it has enough.
struct UpTo {
    frames: Vec<(usize, Vec<f32>)>,
    most: usize,
    wanted: bool,
}

impl FrameSink for UpTo {
    fn frame(&mut self, index: usize, rgb: Vec<f32>) -> ControlFlow<()> {
        self.frames.push((index, rgb));
        match self.frames.len() < self.most {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    fn is_wanted(&mut self) -> bool {
        self.wanted
    }
}

/// A program that says what is given of three frames of 2x1, and then gives `frames` of them, of
/// rising grey; `then` comes after.
fn program(folder: &Path, colours: &str, frames: usize, then: &str) -> PathBuf {
    let path = folder.join("ffmpeg");
    let script = format!(
        r##"#!/bin/sh
case "$*" in
  -version) echo "ffmpeg version of a test"; exit;;
esac
echo "$*" >> "{asked}"
case "$*" in
  *"-format_whitelist mov,"*"-protocol_whitelist file -i file:/"*framecrc*)
    echo "  Stream #0:0: Video: hevc, yuv420p({colours}), 2x1" >&2
    printf '#tb 0: 1/10\n#dimensions 0: 2x1\n'
    printf '0, 0, 0, 1, 9, 0x1\n0, 1, 2, 1, 9, 0x1, F=0x0\n0, 2, 1, 1, 9, 0x1, F=0x0\n'
    printf '0, 3, -1, 1, 9, 0x1, F=0x4\n';;
  *rawvideo*rgb48le*)
    for grey in 00 40 80 c0; do
      [ "$count" = "{frames_x}" ] && break
      count="x$count"
      for sample in 1 2 3 4 5 6; do printf "\\000\\x$grey"; done
    done
    {then};;
esac
"##,
        asked = folder.join("asked").display(),
        frames_x = "x".repeat(frames),
    );
    common::write_program(&path, &script.replace("#!/bin/sh", "#!/bin/bash"));
    path
}

/// A Matroska video, as far as its first bytes say.
fn foreign(folder: &Path) -> InputFile {
    let path = folder.join("x.mkv");
    fs::write(&path, b"\x1aE\xdf\xa3 and so on").unwrap();
    InputFile::open(&path).unwrap()
}

fn read(reader: &VideoReader, file: &mut InputFile, frames: &[usize]) -> Result<UpTo, Error> {
    let mut sink = UpTo { frames: Vec::new(), most: 99, wanted: true };
    reader.read(file, frames, &mut sink).map(|()| sink)
}

#[test]
fn what_this_project_does_not_know_comes_through_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = foreign(folder.path());
    let program = program(folder.path(), "tv, bt709, progressive", 3, "");
    let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
    let info = reader.info();
    assert_eq!((info.width, info.height, info.fps, info.end), (2, 1, Some(10.0), 0.3));
    assert_eq!(*info.times, [0.0, 0.1, 0.2]);
    assert_eq!(reader.program(), Some("ffmpeg version of a test"));
    let found = read(&reader, &mut file, &[1, 2]).unwrap().frames;
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found[0].1, [f32::from(0x4000_u16) / 65535.0; 6]);
    // What this project reads itself does not start it.
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos/bt709.mp4");
    let mut own = InputFile::open(&own).unwrap();
    assert!(VideoReader::open_with(&mut own, false, Some(&program)).unwrap().program().is_none());
    assert_eq!(fs::read_to_string(folder.path().join("asked")).unwrap(), asked);
}

#[test]
fn a_program_that_gives_other_frames_than_it_said_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = foreign(folder.path());
    for (frames, then, expected) in [
        (2, "echo it broke >&2", "`ffmpeg` gave 2 frames of 3 (it broke)"),
        (4, "", "`ffmpeg` gave more frames than the 3 that it said"),
    ] {
        let program = program(folder.path(), "tv", frames, then);
        let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
        let Err(error) = read(&reader, &mut file, &[0, 1, 2]) else { panic!("{expected}") };
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    let refused = |colours: &str| {
        let program = program(folder.path(), colours, 3, "");
        let mut file = foreign(folder.path());
        VideoReader::open_with(&mut file, false, Some(&program)).err().unwrap().to_string()
    };
    assert!(refused("tv, bt2020nc/bt2020/smpte2084").contains("its light is PQ (HDR)"));
    // Of a file that was cut it reads what is there, and ends well.
    let cut = refused("tv), 2x1\n[matroska,webm @ 0x55] File ended prematurely\n (");
    assert!(cut.ends_with("the video ends early, as `ffmpeg` says"), "{cut}");
    let none = folder.path().join("none");
    let error = VideoReader::open_with(&mut file, false, Some(&none)).err().unwrap();
    assert!(
        error.to_string().ends_with("cannot be run: there is no such file or folder"),
        "{error}"
    );
    let Err(error) = VideoReader::open_with(&mut file, false, None) else { panic!() };
    assert!(error.hint().unwrap().contains("KINO_FFMPEG"));
    // Lists that name other files are never given to it.
    let list = folder.path().join("list.m3u8");
    fs::write(&list, "#EXTM3U\nfile:///etc/passwd\n").unwrap();
    let program = program(folder.path(), "tv", 3, "");
    let mut list = InputFile::open(&list).unwrap();
    let error = VideoReader::open_with(&mut list, false, Some(&program)).err().unwrap();
    assert!(error.to_string().ends_with("found text"), "{error}");
}

#[test]
fn a_program_ends_when_nobody_wants_its_frames() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = foreign(folder.path());
    let program = program(folder.path(), "tv", 1, "exec sleep 60");
    let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
    let begin = Instant::now();
    // It hangs, and the run is cancelled; or one frame is enough.
    for (most, wanted) in [(99, false), (1, true)] {
        let mut sink = UpTo { frames: Vec::new(), most, wanted };
        reader.read(&mut file, &[0, 1, 2], &mut sink).unwrap();
        assert!(sink.frames.len() <= 1);
    }
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_real_program_gives_what_this_project_reads_itself() {
    let Some(program) = std::env::var_os("KINO_TEST_FFMPEG").map(PathBuf::from) else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos");
    for (name, codec) in [("rotated.mp4", "copy"), ("bframes.mp4", "ffv1"), ("varying.mp4", "copy")]
    {
        let path = folder.path().join("x.mkv");
        let mut command = std::process::Command::new(&program);
        command.args(["-y", "-noautorotate", "-i"]).arg(source.join(name));
        let status = command.args(["-c:v", codec]).arg(&path).output().unwrap().status;
        assert!(status.success());
        let mut own = InputFile::open(&source.join(name)).unwrap();
        let mut other = InputFile::open(&path).unwrap();
        let mine = VideoReader::open(&mut own, false).unwrap();
        let theirs = VideoReader::open_with(&mut other, false, Some(&program)).unwrap();
        assert!(theirs.program().is_some());
        let (a, b) = (mine.info(), theirs.info());
        assert_eq!(
            (a.width, a.height, a.times.len()),
            (b.width, b.height, b.times.len()),
            "{name}"
        );
        assert!(a.times.iter().zip(&*b.times).all(|(a, b)| (a - b).abs() < 2e-3), "{name}");
        let all: Vec<usize> = (0..a.times.len()).collect();
        let found =
            (read(&mine, &mut own, &all).unwrap(), read(&theirs, &mut other, &all).unwrap());
        for ((index, a), (_, b)) in found.0.frames.iter().zip(&found.1.frames) {
            let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
            // The program makes chroma smooth between samples.
            assert!(apart * 255.0 < 6.0, "{name}, frame {index}: {}", apart * 255.0);
        }
    }
}

/// What leads a program to other files: playlists, lists of clips, and patterns of names; each
/// begins so that it is no text.
#[test]
fn what_leads_to_other_files_is_no_video() {
    let Some(program) = std::env::var_os("KINO_TEST_FFMPEG").map(PathBuf::from) else { return };
    let folder = tempfile::tempdir().unwrap();
    let private = folder.path().join("private.ts");
    let mut command = std::process::Command::new(&program);
    command.args(["-f", "lavfi", "-i", "color=red:s=32x32:d=1:r=5", "-f", "mpegts"]).arg(&private);
    assert!(command.output().unwrap().status.success());
    let path = private.display();
    let frame = folder.path().join("s0/pic.bmp");
    fs::create_dir_all(folder.path().join("s0")).unwrap();
    fs::create_dir_all(folder.path().join("s%d")).unwrap();
    let mut command = std::process::Command::new(&program);
    command.args(["-f", "lavfi", "-i", "color=red:s=32x32:d=1:r=1"]).arg(&frame);
    assert!(command.output().unwrap().status.success());
    let list =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#\u{1}\n#EXTINF:1.0,\n{path}\n#EXT-X-ENDLIST\n");
    let concat = "ffconcat version 1.0\n#\u{1}\nfile private.ts\n".to_owned();
    let dash = format!("<?xml \u{1}?><MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>");
    let sdp = "v=0\n#\u{1}\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n".to_owned();
    let picture = fs::read(&frame).unwrap();
    for (name, bytes) in [
        ("list.m3u8", list.into_bytes()),
        ("list.ffconcat", concat.into_bytes()),
        ("list.mpd", dash.into_bytes()),
        ("list.sdp", sdp.into_bytes()),
        ("s%d/pic.bmp", picture.clone()),
        ("x%d.bmp", picture),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let mut file = InputFile::open(&path).unwrap();
        let error = VideoReader::open_with(&mut file, false, Some(&program)).map(|_| ());
        let message = error.expect_err(name).to_string();
        assert!(message.contains(name), "{message}");
    }
    // The clip itself is read.
    let mut file = InputFile::open(&private).unwrap();
    assert!(VideoReader::open_with(&mut file, false, Some(&program)).is_ok());
}
