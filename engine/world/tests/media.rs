//! Videos and images as users see them: written, read back, decoded; broken ones refused.

use std::fs;
use std::path::{Path, PathBuf};

use kino_world::media::{
    Depth, VideoFormat, VideoSpec, check_size, create, create_with_depth, format_of,
};
use kino_world::{image_size, read_image, read_metadata};

const TEXT: &str = "Graph(version: 1, about: \"a “test” — 红色\")\n// with a comment\n";

/// Frame `index` of `[height, width, 3]`: a red square that moves right over white, with a blue
/// bar.
fn frame(index: usize, width: usize, height: usize) -> Vec<f32> {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let square = (x as i32 - 8 - 2 * index as i32).abs() < 8 && (y as i32 - 16).abs() < 8;
            let colour = if square {
                [0.87, 0.18, 0.15]
            } else if y > height - 8 {
                [0.1, 0.2, 0.8]
            } else {
                [0.95; 3]
            };
            rgb.extend(colour);
        }
    }
    rgb
}

fn write(path: &Path, count: usize, width: usize, height: usize, fps: f64) -> Vec<PathBuf> {
    let spec =
        VideoSpec { width, height, count, fps, metadata: Some(TEXT), ..VideoSpec::default() };
    let mut writer = create(path, &spec).unwrap();
    (0..count).for_each(|index| writer.push(&frame(index, width, height)).unwrap());
    writer.finish().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_format_carries_its_text() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.webp", "a.png", "one.webp", "one.png", "one.mp4", "s_%03d.png"] {
        let count = if name.starts_with("one") { 1 } else { 5 };
        let files = write(&folder.path().join(name), count, 64, 48, 8.0);
        assert_eq!(files.len(), if name.contains('%') { 5 } else { 1 });
        for file in files {
            assert_eq!(read_metadata(&file).unwrap().as_deref(), Some(TEXT), "{}", file.display());
        }
    }
    assert!(names(folder.path()).iter().all(|name| !name.contains("partial")));
    assert!(folder.path().join("s_004.png").exists());
}

#[test]
fn a_png_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/x.png");
    write(&path, 1, 33, 21, 1.0);
    assert_eq!(image_size(&path).unwrap(), (33, 21));
    let image = read_image(&path).unwrap();
    assert_eq!((image.width, image.height), (33, 21));
    for (written, read) in frame(0, 33, 21).iter().zip(&image.rgb) {
        assert_eq!((written * 255.0).round(), read * 255.0);
    }
}

#[test]
fn a_png_of_16_bits_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    // A slope too flat for 8 bits.
    let frame: Vec<f32> = (0..40 * 30 * 3).map(|index| index as f32 / 3600.0 * 0.05).collect();
    for name in ["x.png", "s_%02d.png"] {
        let path = folder.path().join(name);
        let spec = VideoSpec {
            width: 40,
            height: 30,
            count: 1,
            fps: 1.0,
            metadata: Some(TEXT),
            ..VideoSpec::default()
        };
        let mut writer = create_with_depth(&path, &spec, Depth::Sixteen).unwrap();
        writer.push(&frame).unwrap();
        let file = writer.finish().unwrap().remove(0);
        assert_eq!(read_metadata(&file).unwrap().as_deref(), Some(TEXT));
        let back = read_image(&file).unwrap().rgb;
        let most = frame.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 0.51 / 65535.0, "{name}: {most}");
    }
    let spec = VideoSpec { width: 32, height: 32, count: 1, fps: 1.0, ..VideoSpec::default() };
    let refused = create_with_depth(&folder.path().join("x.webp"), &spec, Depth::Sixteen);
    let refused = refused.err().unwrap();
    assert!(refused.to_string().ends_with("16 bits a channel are written as PNG alone"));
    assert_eq!(refused.hint(), Some("end the path with .png"));
}

#[cfg(feature = "h264")]
mod mp4 {
    use super::*;
    use openh264::decoder::Decoder;
    use openh264::formats::YUVSource;

    fn find<'a>(mut bytes: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
        let Some((kind, rest)) = path.split_first() else { return bytes };
        loop {
            let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            let (length, head) = if length == 1 {
                (u64::from_be_bytes(bytes[8..16].try_into().unwrap()) as usize, 16)
            } else {
                (length, 8)
            };
            if bytes[4..8] == **kind {
                return find(&bytes[head..length], rest);
            }
            bytes = &bytes[length..];
        }
    }

    fn number(bytes: &[u8], at: usize) -> usize {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Decodes every sample by the tables of the file.
    fn decode(file: &[u8]) -> Vec<(usize, usize, Vec<u8>)> {
        let table = |kind| find(file, &[b"moov", b"trak", b"mdia", b"minf", b"stbl", kind]);
        let config = &table(b"stsd")[8 + 86..];
        let (config, mut stream) = (&config[8..], Vec::new());
        let sps = u16::from_be_bytes([config[6], config[7]]) as usize;
        stream.extend([0, 0, 0, 1]);
        stream.extend(&config[8..8 + sps]);
        let pps = u16::from_be_bytes([config[9 + sps], config[10 + sps]]) as usize;
        stream.extend([0, 0, 0, 1]);
        stream.extend(&config[11 + sps..11 + sps + pps]);
        let mut at = u64::from_be_bytes(table(b"co64")[8..16].try_into().unwrap()) as usize;
        let (mut decoder, mut frames) = (Decoder::new().unwrap(), Vec::new());
        let sizes = table(b"stsz");
        let mut keep = |picture: openh264::decoder::DecodedYUV<'_>| {
            let (width, height) = picture.dimensions();
            let mut rgb = vec![0; width * height * 3];
            picture.write_rgb8(&mut rgb);
            frames.push((width, height, rgb));
        };
        for index in 0..number(sizes, 8) {
            let end = at + number(sizes, 12 + 4 * index);
            while at < end {
                let length = number(file, at);
                stream.extend([0, 0, 0, 1]);
                stream.extend(&file[at + 4..at + 4 + length]);
                at += 4 + length;
            }
            if let Some(picture) = decoder.decode(&stream).unwrap() {
                keep(picture);
            }
            stream.clear();
        }
        for picture in decoder.flush_remaining().unwrap() {
            keep(picture);
        }
        frames
    }

    #[test]
    fn every_frame_decodes_with_its_colours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        write(&path, 60, 96, 64, 23.976);
        let file = fs::read(&path).unwrap();
        let header = find(&file, &[b"moov", b"trak", b"mdia", b"mdhd"]);
        assert_eq!((number(header, 12), number(header, 16)), (24_000, 60 * 1001));
        let sync = find(&file, &[b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stss"]);
        assert_eq!((number(sync, 4), number(sync, 8), number(sync, 12)), (2, 1, 49));
        let frames = decode(&file);
        assert_eq!(frames.len(), 60);
        for (index, (width, height, rgb)) in frames.iter().enumerate().step_by(13) {
            assert_eq!((*width, *height), (96, 64));
            // The decoder's own conversion is BT.601: compare where both agree, in grey.
            let grey = &rgb[(4 * 96 + 90) * 3..][..3];
            assert!(grey.iter().all(|byte| byte.abs_diff(242) <= 3), "frame {index}: {grey:?}");
            let square = &rgb[(16 * 96 + (8 + 2 * index).min(95)) * 3..][..3];
            if 8 + 2 * index < 90 {
                assert!(
                    square[0] > 180 && square[1] < 90 && square[2] < 90,
                    "frame {index}: {square:?}"
                );
            }
        }
    }

    #[test]
    fn the_same_frames_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
        write(&a, 9, 64, 64, 8.0);
        write(&b, 9, 64, 64, 8.0);
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
    }
}

#[test]
fn sizes_and_formats_that_do_not_fit_are_refused_with_advice() {
    let refused = check_size(&VideoFormat::Mp4, 97, 64).unwrap_err();
    assert_eq!(refused.to_string(), "H.264 takes even sizes, found 97x64");
    assert_eq!(refused.hint(), Some("near it: 96x64; resize with `frames.resize`, or write .webp"));
    assert!(
        check_size(&VideoFormat::Mp4, 4000, 64).is_err()
            && check_size(&VideoFormat::WebP, 97, 65).is_ok()
    );
    let refused = check_size(&VideoFormat::Mp4, 1, 1).unwrap_err();
    assert_eq!(refused.to_string(), "H.264 takes frames of at least 16x16, found 1x1");
    for name in ["s_%-3d.png", "%d%d.png", "s_%+d.exr", "s_%5i.png", "s_%d.mp4", "s_%99d.png"] {
        let refused = format_of(Path::new(name), None).unwrap_err();
        assert!(refused.hint().unwrap().contains("frame_%05d.png"), "{name}: {refused}");
    }
    assert_eq!(format_of(Path::new("100%.png"), None).unwrap(), VideoFormat::Png);
    assert_eq!(format_of(Path::new("a%d/b.png"), None).unwrap(), VideoFormat::Png);
    let refused = format_of(Path::new("x.xyz"), None).unwrap_err();
    assert_eq!(refused.to_string(), "x.xyz: there is no video format `.xyz`");
    let refused = format_of(Path::new("x"), None).unwrap_err();
    assert_eq!(refused.to_string(), "`x` does not end in a format such as .mp4");
}

#[test]
fn what_is_dropped_or_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.webp", "a.png", "s_%02d.png"] {
        let spec = VideoSpec { width: 32, height: 32, count: 3, fps: 8.0, ..VideoSpec::default() };
        let mut writer = create(&folder.path().join(name), &spec).unwrap();
        writer.push(&frame(0, 32, 32)).unwrap();
        assert!(writer.push(&[0.0; 7]).is_err());
        drop(writer);
        assert_eq!(names(folder.path()), [""; 0], "{name}");
    }
    fs::create_dir(folder.path().join("folder.mp4")).unwrap();
    let spec = VideoSpec { width: 32, height: 32, count: 1, fps: 8.0, ..VideoSpec::default() };
    let refused = |name: &str| create(&folder.path().join(name), &spec).err().unwrap().to_string();
    assert!(refused("folder.mp4").ends_with("cannot be written: it is a folder"));
    fs::write(folder.path().join("file"), "").unwrap();
    let blocked = create(&folder.path().join("file/x.mp4"), &spec).err().unwrap();
    assert!(
        blocked.to_string().ends_with("file cannot be made: a file is where a folder should be")
    );
    assert_eq!(blocked.hint(), Some("move that file away, or write elsewhere with `--out DIR`"));
}

#[test]
fn what_is_no_image_is_refused_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let path = folder.path().join("x.png");
        fs::write(&path, bytes).unwrap();
        let said = read_image(&path).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    };
    check(b"", "found an empty file");
    check(b"PK\x03\x04....", "found a zip archive");
    check(b"\x80\x02cposix", "found a Python pickle");
    check(b"\0\0\0\x20ftypisom", "found an mp4");
    check(b"hello", "found text");
    write(&folder.path().join("whole.png"), 1, 64, 64, 1.0);
    let whole = fs::read(folder.path().join("whole.png")).unwrap();
    check(&whole[..whole.len() - 200], "damaged or ends early");
    assert!(
        read_image(&folder.path().join("none.png"))
            .unwrap_err()
            .to_string()
            .contains("there is no such file")
    );
}

#[test]
fn mutated_files_never_panic() {
    let seed = 0x00c0_ffeeu64;
    println!("seed {seed:#x}");
    let mut state = seed;
    let mut roll = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.webp", "a.png"] {
        write(&folder.path().join(name), 2, 32, 32, 8.0);
        let whole = fs::read(folder.path().join(name)).unwrap();
        let path = folder.path().join("mutated");
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..=roll(6) {
                let at = roll(bytes.len());
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, roll(256) as u8][roll(6)];
            }
            bytes.truncate(bytes.len() - roll(3) * roll(bytes.len() / 3));
            fs::write(&path, &bytes).unwrap();
            let _ = (read_metadata(&path), read_image(&path), image_size(&path));
        }
        for _ in 0..300 {
            let mut bytes = whole[..whole.len().min(12)].to_vec();
            bytes.extend((0..roll(80)).map(|_| roll(256) as u8));
            fs::write(&path, &bytes).unwrap();
            let _ = (read_metadata(&path), read_image(&path));
        }
    }
}
