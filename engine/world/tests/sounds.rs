//! Sound from file to file: packets stay as they are, and what is heard is exact to the sample.
//!
//! With `KINO_TEST_FFMPEG` set to the program, what was written is also decoded by it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kino_node::{Audio, AudioForm, AudioPart, ValueType};
use kino_world::media::{AudioReader, VideoReader, VideoSpec, create, encode_aac};
use kino_world::{InputFile, Result};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds").join(name)
}

fn read_from(path: &Path) -> Result<Audio> {
    let mut file = InputFile::open(path)?;
    let reader = AudioReader::open(&mut file, None)?;
    let sound = reader.read(&mut file, &mut || true)?.unwrap();
    sound.check().unwrap();
    assert_eq!(reader.fact(), Some(&sound.fact()));
    Ok(sound)
}

fn read(name: &str) -> Audio {
    read_from(&file(name)).unwrap()
}

/// Writes a video of so many frames at 10 a second with a sound.
#[cfg(feature = "h264")]
fn write(folder: &Path, frames: usize, sound: &Audio) -> PathBuf {
    let path = folder.join("out.mp4");
    let spec = VideoSpec {
        width: 32,
        height: 16,
        count: frames,
        fps: 10.0,
        audio: Some(sound),
        ..VideoSpec::default()
    };
    let mut writer = create(&path, &spec).unwrap();
    let frame = vec![0.5; 32 * 16 * 3];
    (0..frames).for_each(|_| writer.push(&frame).unwrap());
    writer.finish().unwrap();
    path
}

/// Each packet's bytes.
fn packets(sound: &Audio) -> Vec<Vec<u8>> {
    let bytes = sound.bytes_of_packets().unwrap();
    let mut at = 0;
    let cut = sound.packets.iter().map(|packet| {
        at += packet.bytes as usize;
        bytes[at - packet.bytes as usize..at].to_vec()
    });
    cut.collect()
}

#[test]
fn what_an_encoder_put_before_is_not_heard() {
    let tone = read("tone.m4a");
    assert_eq!((tone.rate, tone.channels, tone.ticks()), (16_000, 1, 27_200));
    assert_eq!(tone.parts, [AudioPart { packets: 28, skip: 1024, ticks: 27_200 }]);
    assert!(matches!(&tone.form, AudioForm::Aac(config) if config[..2] == [0x14, 0x08]));
}

#[cfg(feature = "h264")]
#[test]
fn packets_pass_through_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let tone = read("tone.m4a");
    // 1.7 s of sound, 2 s of frames.
    let back = read_from(&write(folder.path(), 20, &tone)).unwrap();
    assert!(packets(&back) == packets(&tone));
    assert_eq!((&back.parts, back.rate, back.channels), (&tone.parts, tone.rate, tone.channels));
    assert_eq!((&back.form, &back.packets), (&tone.form, &tone.packets));
    // A second time nothing changes.
    let bytes = std::fs::read(folder.path().join("out.mp4")).unwrap();
    write(folder.path(), 20, &back);
    assert!(bytes == std::fs::read(folder.path().join("out.mp4")).unwrap());
}

#[cfg(feature = "h264")]
#[test]
fn sound_is_cut_where_the_frames_end_and_stays_short_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let tone = read("tone.m4a");
    for (frames, ticks) in [(1, 1600), (7, 11_200), (17, 27_200), (30, 27_200)] {
        let back = read_from(&write(folder.path(), frames, &tone)).unwrap();
        assert_eq!(back.ticks(), ticks);
        assert!(packets(&tone).starts_with(&packets(&back)));
        let mut video = InputFile::open(&folder.path().join("out.mp4")).unwrap();
        let reader = VideoReader::open(&mut video, false).unwrap();
        assert_eq!(reader.info().times.len(), frames);
    }
    // Silence that goes on longer than the frames is no sound.
    let later = tone.slice(0, 1000).unwrap().delayed(16_000).unwrap();
    let mut video = InputFile::open(&write(folder.path(), 5, &later)).unwrap();
    assert!(AudioReader::open(&mut video, None).unwrap_err().to_string().contains("no sound"));
}

#[cfg(feature = "h264")]
#[test]
fn parts_and_joins_and_silence_are_exact_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let tone = read("tone.m4a");
    let part = tone.slice(5_000, 7_777).unwrap();
    let other = tone.slice(20_000, 3_000).unwrap();
    let joined = Audio::concat(&[Arc::new(part.clone()), Arc::new(other)]).unwrap();
    for sound in [part.clone(), joined, part.delayed(4_321).unwrap()] {
        let back = read_from(&write(folder.path(), 30, &sound)).unwrap();
        assert_eq!((&back.parts, &back.packets), (&sound.parts, &sound.packets));
        assert!(packets(&back) == packets(&sound));
    }
}

/// Without an edit list the tag of iTunes says what an encoder put before and behind the sound.
#[test]
fn what_itunes_says_is_heard() {
    let renamed = |bytes: &mut [u8], from: &[u8; 4], to: &[u8; 4]| {
        let at = bytes.windows(4).position(|found| found == from).unwrap();
        bytes[at..at + 4].copy_from_slice(to);
    };
    let boxed = |kind: &[u8; 4], contents: &[u8]| {
        [&(contents.len() as u32 + 8).to_be_bytes()[..], kind, contents].concat()
    };
    let mut bare = std::fs::read(file("tone.m4a")).unwrap();
    renamed(&mut bare, b"edts", b"free");
    renamed(&mut bare, b"udta", b"free");
    let folder = tempfile::tempdir().unwrap();
    let with_tag = |text: &str| {
        let parts = [
            boxed(b"mean", b"\0\0\0\0com.apple.iTunes"),
            boxed(b"name", b"\0\0\0\0iTunSMPB"),
            boxed(b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0], text.as_bytes()].concat()),
        ];
        let list = boxed(b"ilst", &boxed(b"----", &parts.concat()));
        let tag = boxed(b"udta", &boxed(b"meta", &[&[0; 4][..], &list].concat()));
        let mut all = bare.clone();
        // The tables lie at the end of the file.
        let at = all.windows(4).position(|found| found == b"moov").unwrap() - 4;
        let length = (all.len() - at + tag.len()) as u32;
        all[at..at + 4].copy_from_slice(&length.to_be_bytes());
        all.extend(tag);
        let path = folder.path().join("tag.m4a");
        std::fs::write(&path, all).unwrap();
        read_from(&path).unwrap()
    };
    let tone = read("tone.m4a");
    let heard = with_tag(" 00000000 00000400 000001C0 0000000000006A40 00000000 00000000");
    assert_eq!((&heard.parts, heard.ticks()), (&tone.parts, 0x6a40));
    // What says nothing is no reason to hear less: all of it, and no more than there is.
    let all = with_tag("nothing").ticks();
    assert_eq!(all, 0x6a40 + 0x400);
    assert_eq!(with_tag(" 0 0 0 0").ticks(), all);
    assert_eq!(with_tag(" 0 400 0 7FFFFFFFFFFFFFFF").ticks(), all - 0x400);
}

/// The sound of a video is that of its frames, whatever edits the two tracks have.
#[test]
fn the_sound_of_a_video_is_in_step_with_its_frames() {
    for (name, silent, ticks) in [("clip.mp4", 0, 27_200), ("late.mp4", 5_376, 33_600)] {
        let mut file = InputFile::open(&file(name)).unwrap();
        let reader = VideoReader::open(&mut file, false).unwrap();
        let mut sound = |from: f64, until: Option<f64>| {
            let fact = reader.sound(&file, from, until).unwrap().unwrap();
            let sound = reader.read_sound(&mut file, (from, until), &mut || true);
            let sound = sound.unwrap().unwrap();
            sound.check().unwrap();
            assert_eq!((fact.ticks, &fact.form), (sound.ticks(), &sound.form));
            sound
        };
        let whole = sound(0.0, None);
        assert_eq!(whole.ticks(), ticks, "{name}");
        let silence = whole.parts.iter().filter(|part| part.packets == 0);
        assert_eq!(silence.map(|part| part.ticks).sum::<u64>(), silent, "{name}");
        // Frames 5 to 9 of ten a second.
        let part = sound(0.5, Some(1.0));
        assert_eq!(part.ticks(), 8_000);
        let expected = whole.slice(8_000, 8_000).unwrap();
        assert!(packets(&part) == packets(&expected));
        assert_eq!(part.parts, expected.parts);
        assert!(sound(9.0, None).is_none());
    }
}

#[test]
fn sound_that_is_not_read_here_says_so_and_frames_are_read() {
    let mut file = InputFile::open(&file("ac3.mp4")).unwrap();
    let reader = VideoReader::open(&mut file, false).unwrap();
    assert_eq!(reader.info().times.len(), 3);
    let error = reader.sound(&file, 0.0, None).unwrap_err();
    assert!(error.to_string().ends_with("its sound is AC-3; AAC is read here"), "{error}");
    assert!(error.hint().unwrap().contains("kino config set ffmpeg"));
    let error = AudioReader::open(&mut file, None).unwrap_err();
    assert!(error.to_string().contains("AC-3"), "{error}");
}

#[test]
fn what_holds_no_sound_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_from(&path).unwrap_err()
    };
    assert!(error("a.m4a", b"").to_string().ends_with("expected sound, found an empty file"));
    let text = error("a.m3u", b"#EXTM3U\nfile:///etc/passwd\n");
    assert!(text.to_string().ends_with("expected sound (m4a, mp4, WAV), found text"), "{text}");
    assert!(text.hint().is_none(), "lists are given to no program");
    let mp3 = error("a.mp3", b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x00");
    assert!(mp3.hint().unwrap().contains("ffmpeg"), "{mp3}");
    let videos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos");
    let silent = read_from(&videos.join("bframes.mp4")).unwrap_err();
    assert!(silent.to_string().ends_with("it has no sound"), "{silent}");
    let mut gif = InputFile::open(&videos.join("moving.gif")).unwrap();
    let reader = VideoReader::open(&mut gif, false).unwrap();
    assert_eq!(reader.sound(&gif, 0.0, None).unwrap().unwrap().ticks, 0);
    assert!(reader.read_sound(&mut gif, (0.0, None), &mut || true).unwrap().unwrap().is_none());
}

#[test]
fn wav_files_are_their_samples() {
    let short = read("short.wav");
    let [count, 2] = *short.data.dims() else { panic!() };
    assert_eq!((short.rate, count, &short.form), (16_000, 800, &AudioForm::Pcm));
    let samples = short.data.to_vec2::<f32>().unwrap();
    // The tone of make_sounds.py, half as loud on each side of two as on one (−3 dB).
    for (index, both) in samples.iter().enumerate() {
        let time = index as f64 / 16_000.0;
        let phase = std::f64::consts::TAU * (200.0 * time + 600.0 * time * time);
        let expected = phase.sin() * 0.5 * std::f64::consts::FRAC_1_SQRT_2;
        assert!((f64::from(both[0]) - expected).abs() < 1e-4 && both[0] == both[1], "{index}");
    }
    let bytes = std::fs::read(file("short.wav")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.wav");
    for length in (0..60).chain((60..bytes.len()).step_by(500)) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = read_from(&path).unwrap_err().to_string();
        assert!(
            length < 12 || error.contains("early") || error.contains("cannot be read"),
            "{error}"
        );
    }
}

/// Truncated and flipped at every place: an error or a sound that holds together, no more memory
/// than the file has bytes.
#[test]
fn damaged_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tone.m4a", "short.wav"] {
        let bytes = std::fs::read(file(name)).unwrap();
        let path = folder.path().join(name);
        let mut refused = 0;
        let mut attempt = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            match read_from(&path) {
                Ok(sound) => assert!(sound.bytes() <= 4 * bytes.len() as u64 + 40_000),
                Err(_) => refused += 1,
            }
        };
        (0..bytes.len()).step_by(41).for_each(|length| attempt(&bytes[..length]));
        // The tables stand at the end of the one, at the beginning of the other.
        let places = (0..bytes.len().min(100)).chain(bytes.len().saturating_sub(1000)..bytes.len());
        for at in places {
            let mut bytes = bytes.clone();
            bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
            attempt(&bytes);
        }
        assert!(refused > bytes.len() / 41 / 2, "{name}: {refused}");
    }
}

/// The numbers of tables as no file can mean them.
#[test]
fn absurd_tables_are_refused() {
    let bytes = std::fs::read(file("tone.m4a")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |kind: &[u8; 4]| bytes.windows(4).position(|four| four == kind).unwrap() + 4;
    let error = |place: usize, number: u32| {
        let mut bytes = bytes.clone();
        bytes[place..place + 4].copy_from_slice(&number.to_be_bytes());
        let path = folder.path().join("absurd.m4a");
        std::fs::write(&path, bytes).unwrap();
        read_from(&path).map(|sound| sound.ticks()).map_err(|error| error.to_string())
    };
    // Sizes: a count, and one sample of 4 GB.
    assert!(error(at(b"stsz") + 8, u32::MAX).unwrap_err().contains("ends early"));
    assert!(error(at(b"stsz") + 12, u32::MAX).is_err());
    // Times: more samples than there are.
    assert!(error(at(b"stts") + 8, u32::MAX).unwrap_err().contains("table of times"));
    // Packets that last for days are heard for as long as the edit says.
    assert_eq!(error(at(b"stts") + 12, u32::MAX), Ok(27_200));
    // No tick a second; an edit of another rate.
    assert!(error(at(b"mdhd") + 12, 0).unwrap_err().contains("0 ticks"));
    assert!(error(at(b"elst") + 16, 0x0002_0000).unwrap_err().contains("2 times the speed"));
    // An edit that begins behind the end is silence.
    assert_eq!(error(at(b"elst") + 12, 1 << 30), Ok(27_200));
}

fn ffmpeg() -> Option<PathBuf> {
    std::env::var_os("KINO_TEST_FFMPEG").map(PathBuf::from)
}

/// What the program decodes, 16 bits; it must have nothing to warn of.
fn decoded(program: &Path, path: &Path) -> Vec<i16> {
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-loglevel", "warning", "-i"]).arg(path);
    command.args(["-map", "0:a:0", "-f", "s16le", "-"]);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
    out.stdout.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

#[cfg(feature = "h264")]
#[test]
fn another_program_hears_the_same_samples() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tone = read("tone.m4a");
    let all = decoded(&program, &file("tone.m4a"));
    assert_eq!(all.len(), 27_200);
    assert!(decoded(&program, &write(folder.path(), 17, &tone)) == all);
    for (start, ticks) in [(0, 8_000), (1, 1_000), (1024, 1024), (5_000, 7_777), (20_000, 7_200)] {
        let part = tone.slice(start, ticks).unwrap();
        let found = decoded(&program, &write(folder.path(), 17, &part));
        let expected = &all[start as usize..(start + ticks) as usize];
        // Where it ends within a packet the program may go on to the end of that.
        assert!(found.len() >= expected.len() && found.len() < expected.len() + 1024);
        assert!(found[..expected.len()] == *expected, "{start} {ticks}");
    }
    // Joined: in step to the packet.
    let parts = [tone.slice(3_000, 8_000).unwrap(), tone.slice(15_000, 8_000).unwrap()];
    let joined = Audio::concat(&parts.map(Arc::new)).unwrap();
    let found = decoded(&program, &write(folder.path(), 17, &joined));
    assert!(found.len().abs_diff(16_000) <= 2 * 1024, "{}", found.len());
    assert!(found[..7_000] == all[3_000..10_000]);
    let near = |at: usize| found[at..].starts_with(&all[18_000..19_000]);
    assert!((10_000..12_100).any(near), "the second part is there");
}

#[test]
fn another_program_reads_and_encodes_what_is_not_known_here() {
    let Some(program) = ffmpeg() else { return };
    let folder = tempfile::tempdir().unwrap();
    // PCM becomes AAC of the same length.
    let short = read("short.wav");
    let encoded = encode_aac(&program, &short, &mut || true).unwrap().unwrap();
    encoded.check().unwrap();
    assert_eq!((encoded.ticks(), encoded.rate, encoded.channels), (800, 16_000, 2));
    assert!(encode_aac(&program, &short, &mut || false).unwrap().is_none(), "cancelled");
    // MP3 is encoded anew, AAC in Matroska passed on.
    let made = |name: &str, args: &[&str]| {
        let path = folder.path().join(name);
        let mut command = Command::new(&program);
        command.args(["-loglevel", "error", "-i"]).arg(file("tone.m4a")).args(args).arg(&path);
        assert!(command.status().unwrap().success());
        let mut file = InputFile::open(&path).unwrap();
        let reader = AudioReader::open(&mut file, Some(&program)).unwrap();
        assert!(reader.program().unwrap().starts_with("ffmpeg version"));
        let sound = reader.read(&mut file, &mut || true).unwrap().unwrap();
        sound.check().unwrap();
        sound
    };
    let mp3 = made("tone.flac", &[]);
    assert!(mp3.ticks().abs_diff(27_200) < 64, "{}", mp3.ticks());
    let copied = made("tone.mka", &["-c", "copy"]);
    let tone = read("tone.m4a");
    assert!(packets(&copied) == packets(&tone));
    // A video with sound that is not read here.
    let mut file = InputFile::open(&file("ac3.mp4")).unwrap();
    let reader = VideoReader::open_with(&mut file, false, Some(&program)).unwrap();
    let sound = reader.read_sound(&mut file, (0.1, Some(0.2)), &mut || true).unwrap().unwrap();
    // The rate is the one that AC-3 has.
    assert_eq!((sound.rate, sound.ticks()), (32_000, 3_200));
}
