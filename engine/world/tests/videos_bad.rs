//! Videos that are damaged, lie, or hold what is not read: each is refused by what it is, with
//! the way out where there is one.

use std::fs;
use std::path::{Path, PathBuf};

use kino_world::media::VideoReader;
use kino_world::{Error, InputFile};

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos").join(name)
}

fn open(path: &Path) -> Result<VideoReader, Error> {
    VideoReader::open(&mut InputFile::open(path)?, false)
}

/// Why bytes are no video, and what to do.
#[track_caller]
fn refused(bytes: &[u8]) -> (String, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    fs::write(&path, bytes).unwrap();
    let Err(error) = open(&path) else { panic!("it was not refused") };
    let said = error.to_string();
    let said = said.split_once("x.mp4: ").expect("the path").1.to_owned();
    (said, error.hint().map(str::to_owned))
}

/// Whatever is cut says what to do, whichever format it has, and whether its tables are cut or the
/// frames behind them.
#[test]
fn what_ends_early_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bt709.mp4", "moving.gif", "moving.webp", "moving.png"] {
        let whole = fs::read(stored(name)).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
        let mut file = InputFile::open(&path).unwrap();
        let read = VideoReader::open(&mut file, false).and_then(|video| {
            let all: Vec<usize> = (0..video.info().times.len()).collect();
            video.read(&mut file, &all, &mut Ignored)
        });
        let error = read.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("early") || said.contains("damaged"), "{name}: {said}");
        assert_eq!(error.hint(), Some("copy or download it again"), "{name}: {said}");
    }
}

struct Ignored;

impl kino_world::media::FrameSink for Ignored {
    fn frame(&mut self, _: usize, _: Vec<f32>) -> std::ops::ControlFlow<()> {
        std::ops::ControlFlow::Continue(())
    }
}

/// The file with one of its boxes changed; those around it follow in length. In the files that are
/// stored the tables stand behind the samples, so that no sample moves.
fn changed(file: &[u8], path: &[&[u8; 4]], change: &dyn Fn(&mut Vec<u8>)) -> Vec<u8> {
    let Some((kind, inner)) = path.split_first() else {
        let mut contents = file.to_vec();
        change(&mut contents);
        return contents;
    };
    let (mut at, mut result) = (0, Vec::new());
    let mut found = false;
    while at + 8 <= file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let one = &file[at..at + length];
        // A sample description is a list behind a count, with fields before its own boxes.
        let head = match *kind {
            b"stsd" => 16,
            b"avc1" => 86,
            _ => 8,
        };
        if one[4..8] == **kind && !found {
            found = true;
            let contents = changed(&one[head..], inner, change);
            result.extend(((contents.len() + head) as u32).to_be_bytes());
            result.extend(&one[4..head]);
            result.extend(contents);
        } else {
            result.extend(one);
        }
        at += length;
    }
    assert!(found, "there is no box {}", String::from_utf8_lossy(*kind));
    result
}

const TRACK: [&[u8; 4]; 2] = [b"moov", b"trak"];
const TABLE: [&[u8; 4]; 5] = [b"moov", b"trak", b"mdia", b"minf", b"stbl"];

/// A stored file with a table of its samples changed.
fn table(kind: &[u8; 4], change: &dyn Fn(&mut Vec<u8>)) -> Vec<u8> {
    let file = fs::read(stored("bframes.mp4")).unwrap();
    changed(&file, &[&TABLE[..], &[kind]].concat(), change)
}

fn put(at: usize, number: u32) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes[at..at + 4].copy_from_slice(&number.to_be_bytes())
}

#[test]
fn tables_that_lie_are_refused() {
    // (table, place, number there, what is said)
    let cases: [(&[u8; 4], usize, u32, &str); 12] = [
        (b"stsz", 8, 0, "it has a track of video without frames"),
        (b"stsz", 8, u32::MAX, "it is damaged: the table `stsz` ends early"),
        (b"stsz", 12, 0, "it is damaged: frame 1 of 24 has 0 bytes"),
        (b"stsz", 12, 1 << 30, "it ends early: sample 1 of 24 lies behind the end of the file"),
        (
            b"stsz",
            8,
            23,
            "it is damaged: its table of times has more samples than the 23 that there are",
        ),
        (b"stco", 8, 1 << 31, "it ends early: sample 1 of 24 lies behind the end of the file"),
        (b"stco", 4, 0, "it is damaged: its tables have sizes of 24 samples, and places of 0"),
        (b"stsc", 8, 7, "it is damaged: its table of chunks contradicts itself"),
        (b"stsc", 12, 0, "it is damaged: its table of chunks contradicts itself"),
        (b"stts", 8, 20, "it is damaged: it has times for 20 of 24 samples"),
        (b"ctts", 4, 1, "it is damaged: it has orders for 1 of 24 samples"),
        (b"stss", 8, 99, "it is damaged: it names a key frame 99 of 24"),
    ];
    for (kind, at, number, expected) in cases {
        let (said, _) = refused(&table(kind, &put(at, number)));
        assert_eq!(said, expected, "{} at {at}", String::from_utf8_lossy(kind));
    }
    // All samples of one size: more than the file holds.
    let (said, _) = refused(&table(b"stsz", &|bytes| {
        bytes[4..12].copy_from_slice(&[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff]);
    }));
    assert!(
        said.contains("4294967295 samples of 256 bytes are more than the file holds"),
        "{said}"
    );
    // More than can be meant, of one byte each.
    let mut long = table(b"stsz", &|bytes| {
        bytes[4..12].copy_from_slice(&[0, 0, 0, 1, 0, 0x50, 0, 0]);
    });
    long.extend([0, 0x60, 0, 8, b'f', b'r', b'e', b'e']);
    long.resize(long.len() + 0x60_0000, 0);
    let (said, _) = refused(&long);
    assert!(said.contains("it claims 5242880 samples; at most 4194304 are read"), "{said}");
}

#[test]
fn what_ends_early_is_refused_wherever_it_ends() {
    for name in ["bframes.mp4", "moving.gif", "moving.png", "moving.webp"] {
        let file = fs::read(stored(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for part in 0..40 {
            fs::write(&path, &file[..file.len() * part / 40]).unwrap();
            // An animation may end with one of its frames: then it has fewer.
            match open(&path) {
                Ok(video) => assert!(name != "bframes.mp4" && video.info().times.len() < 6),
                Err(error) => {
                    let said = error.to_string();
                    let known = ["ends early", "no tables", "found", "damaged", "no frames"];
                    assert!(known.iter().any(|word| said.contains(word)), "{name}, {part}: {said}");
                }
            }
        }
    }
}

#[test]
fn forms_that_are_not_read_are_named_with_the_way_out() {
    let convert = "put `ffmpeg` on the PATH or name it in KINO_FFMPEG: then it is read through \
                   that; or convert it: ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4";
    let named = |format: &[u8; 4]| {
        let bytes = table(b"stsd", &|bytes| bytes[4..8].copy_from_slice(format));
        let (said, hint) = refused(&bytes);
        assert_eq!(hint.as_deref(), Some(convert), "{said}");
        said
    };
    assert_eq!(named(b"hvc1"), "it holds HEVC (H.265); H.264 is read here");
    assert_eq!(named(b"av01"), "it holds AV1; H.264 is read here");
    assert_eq!(named(b"apch"), "it holds ProRes; H.264 is read here");
    assert_eq!(named(b"q\0zx"), "it holds video of the form `q\\u{0}zx`; H.264 is read here");
    for (name, expected) in [
        ("ten.mp4", "its H.264 has 10 bits a channel; 8 are read here"),
        ("four.mp4", "its H.264 is 4:4:4; 4:2:0 is read here"),
        ("fields.mp4", "its H.264 is interlaced, which is not read here"),
    ] {
        let (said, hint) = refused(&fs::read(stored(name)).unwrap());
        assert_eq!((said.as_str(), hint.as_deref()), (expected, Some(convert)));
    }
    let (said, hint) = refused(&fs::read(stored("fragments.mp4")).unwrap());
    assert_eq!(said, "it is in fragments, whose tables are not read here");
    assert_eq!(hint.as_deref(), Some(convert));
}

#[test]
fn what_is_no_video_is_told_by_its_bytes() {
    let expected = "expected a video (mp4, mov, GIF, WebP, PNG), found";
    let (said, hint) = refused(b"\xff\xd8\xff\xe0 and so on");
    assert_eq!(said, format!("{expected} a JPEG image"));
    assert_eq!(hint.as_deref(), Some("read it with `image.read`"));
    assert_eq!(refused(b"\x1aE\xdf\xa3....").0, format!("{expected} a WebM or Matroska video"));
    assert!(refused(b"\x1aE\xdf\xa3....").1.unwrap().contains("ffmpeg"));
    assert_eq!(refused(b"words").0, format!("{expected} text"));
    assert_eq!(refused(b"").0, "expected a video, found an empty file");
}

#[test]
fn a_file_without_a_track_of_video_or_with_nothing_shown_is_refused() {
    let file = fs::read(stored("bframes.mp4")).unwrap();
    let sound = changed(&file, &[b"moov", b"trak", b"mdia", b"hdlr"], &|bytes| {
        bytes[8..12].copy_from_slice(b"soun");
    });
    assert_eq!(refused(&sound).0, "it has no track of video");
    let late = changed(&file, &[&TRACK[..], &[b"edts", b"elst"]].concat(), &put(12, 1 << 30));
    assert_eq!(refused(&late).0, "its edits show none of its frames");
    let fast = changed(&file, &[&TRACK[..], &[b"edts", b"elst"]].concat(), &put(16, 0x2_0000));
    assert_eq!(refused(&fast).0, "an edit of it plays at 2 times the speed");
    let skewed = changed(&file, &[&TRACK[..], &[b"tkhd"]].concat(), &put(44, 0x4000));
    assert_eq!(refused(&skewed).0, "it is shown turned by no right angle, or skewed");
    let stopped = changed(&file, &[b"moov", b"trak", b"mdia", b"mdhd"], &put(12, 0));
    assert_eq!(refused(&stopped).0, "it is damaged: a track has 0 ticks a second");
}

/// Colours that frames cannot hold, in the box that players go by.
#[test]
fn light_of_hdr_is_refused_by_its_name() {
    let file = fs::read(stored("bt709.mp4")).unwrap();
    let colr = [&TABLE[..], &[b"stsd", b"avc1", b"colr"]].concat();
    for (transfer, name) in [(16, "PQ"), (18, "HLG")] {
        let hdr = changed(&file, &colr, &|bytes| bytes[7] = transfer);
        let (said, hint) = refused(&hdr);
        let expected =
            format!("its light is {name} (HDR), which frames cannot hold without tone mapping");
        assert_eq!(said, expected);
        assert_eq!(hint.as_deref(), Some("set `tone_map` to true, or convert it first"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mp4");
        fs::write(&path, hdr).unwrap();
        assert!(VideoReader::open(&mut InputFile::open(&path).unwrap(), true).is_ok());
    }
}
