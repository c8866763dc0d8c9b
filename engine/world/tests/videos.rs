//! Videos read: those of this project's own writer, and files that other programs made, held
//! against what ffmpeg decodes of them.
//!
//! `videos/NAME` were made by ffmpeg of its source `testsrc2`; `videos/NAME.png` hold its own
//! decoding (`-f rawvideo -pix_fmt rgb24`) of the first, the middle and the last frame, one over
//! another.
#![cfg(feature = "h264")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use kino_world::media::{FrameSink, VideoInfo, VideoReader, VideoSpec, create};
use kino_world::{Error, InputFile, read_image};

#[derive(Default)]
struct Frames(Vec<(usize, Vec<f32>)>);

impl FrameSink for Frames {
    fn frame(&mut self, index: usize, rgb: Vec<f32>) -> ControlFlow<()> {
        self.0.push((index, rgb));
        ControlFlow::Continue(())
    }
}

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos").join(name)
}

fn info(path: &Path) -> Result<VideoInfo, Error> {
    Ok(VideoReader::open(&mut InputFile::open(path)?, false)?.info().clone())
}

fn read(path: &Path, frames: &[usize]) -> Result<Vec<Vec<f32>>, Error> {
    let mut file = InputFile::open(path)?;
    let reader = VideoReader::open(&mut file, false)?;
    let mut found = Frames::default();
    reader.read(&mut file, frames, &mut found)?;
    let (indices, pixels): (Vec<usize>, Vec<Vec<f32>>) = found.0.into_iter().unzip();
    assert_eq!(indices, frames);
    let size = reader.info().width * reader.info().height * 3;
    assert!(pixels.iter().all(|rgb| rgb.len() == size));
    assert!(pixels.iter().flatten().all(|value| (0.0..=1.0).contains(value)));
    Ok(pixels)
}

fn all(path: &Path) -> Vec<Vec<f32>> {
    read(path, &(0..info(path).unwrap().times.len()).collect::<Vec<_>>()).unwrap()
}

/// The greatest difference and the mean one, of 255.
fn difference(a: &[f32], b: &[f32]) -> (f32, f32) {
    assert_eq!(a.len(), b.len());
    let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| (a - b).abs() * 255.0).collect();
    (apart.iter().copied().fold(0.0, f32::max), apart.iter().sum::<f32>() / apart.len() as f32)
}

/// Reads a stored file whole, and holds three of its frames against ffmpeg's.
#[track_caller]
fn same_as_ffmpeg(name: &str, (width, height): (usize, usize), count: usize) -> VideoInfo {
    let path = stored(name);
    let info = info(&path).unwrap();
    assert_eq!((info.width, info.height, info.times.len()), (width, height, count), "{name}");
    let strip = read_image(&stored(&format!("{name}.png"))).unwrap();
    let frames = all(&path);
    for (place, index) in [0, count / 2, count - 1].into_iter().enumerate() {
        let expected = &strip.rgb[place * width * height * 3..][..width * height * 3];
        let (most, mean) = difference(&frames[index], expected);
        assert!(most < 3.0 && mean < 1.0, "{name}, frame {index}: {most} at most, {mean}");
    }
    info
}

#[test]
fn pictures_are_those_of_ffmpeg() {
    let info = same_as_ffmpeg("bframes.mp4", (48, 32), 24);
    assert_eq!((info.fps, info.is_constant, info.end), (Some(24.0), true, 1.0));
    same_as_ffmpeg("bt709.mp4", (48, 32), 6);
    same_as_ffmpeg("full601.mov", (48, 32), 6);
    same_as_ffmpeg("full709.mp4", (48, 32), 6);
    same_as_ffmpeg("moving.png", (48, 32), 6);
    let info = same_as_ffmpeg("moving.gif", (48, 32), 6);
    assert_eq!((info.fps, info.end), (Some(10.0), 0.6));
}

#[test]
fn matrices_turn_once_and_edits_cut() {
    same_as_ffmpeg("rotated.mp4", (32, 48), 24);
    same_as_ffmpeg("mirrored.mp4", (48, 32), 24);
    let info = same_as_ffmpeg("cut.mp4", (48, 32), 7);
    assert_eq!(info.times[0], 0.0);
}

#[test]
fn varying_rates_keep_their_times() {
    let info = same_as_ffmpeg("varying.mp4", (48, 32), 7);
    let expected = [0.0, 5.0, 7.0, 8.0, 10.0, 15.0, 20.0].map(|frame| frame / 24.0);
    assert!(info.times.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{info:?}");
    assert!(!info.is_constant);
    let at: Vec<usize> = (0..9).map(|index| info.frame_at(index, Some(12.0))).collect();
    assert_eq!(at, [0, 0, 0, 1, 3, 4, 4, 4, 5]);
}

#[test]
fn animations_of_others_are_read() {
    // testsrc2 without loss. WebP has one frame where two are the same.
    let (png, webp) = (stored("moving.png"), stored("moving.webp"));
    let (of_png, of_webp) = (info(&png).unwrap(), info(&webp).unwrap());
    for (info, count, fps) in [(&of_png, 6, 10.0), (&of_webp, 3, 5.0)] {
        assert_eq!((info.width, info.height, info.fps), (48, 32, Some(fps)));
        assert_eq!((info.times.len(), info.end), (count, 0.6));
    }
    let (png, webp) = (all(&png), all(&webp));
    for index in 0..6 {
        let same = &webp[of_webp.frame_at(index, Some(10.0))];
        // The decoder of WebP rounds where it blends.
        assert!(difference(&png[index], same).0 < 1.01, "frame {index}");
    }
}

#[test]
fn only_what_is_wanted_is_given_and_each_is_the_same() {
    for name in ["bframes.mp4", "cut.mp4", "varying.mp4", "moving.png", "moving.gif"] {
        let path = stored(name);
        let whole = all(&path);
        let last = whole.len() - 1;
        for part in [vec![last], vec![0], vec![1, 3, 4], vec![last - 1, last], vec![2, last]] {
            let found = read(&path, &part).unwrap();
            let same = part.iter().zip(&found).all(|(index, rgb)| whole[*index] == *rgb);
            assert!(same, "{name}, {part:?}");
        }
    }
}

fn write(path: &Path, frames: &[Vec<f32>], (width, height): (usize, usize), fps: f64) {
    let spec = VideoSpec {
        width,
        height,
        count: frames.len(),
        fps,
        metadata: Some("Graph()"),
        ..VideoSpec::default()
    };
    let mut writer = create(path, &spec).unwrap();
    frames.iter().for_each(|frame| writer.push(frame).unwrap());
    writer.finish().unwrap();
}

#[test]
fn flat_colours_come_back_within_two_of_255() {
    let folder = tempfile::tempdir().unwrap();
    let colours = [
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
        [0.9, 0.6, 0.2],
        [0.3, 0.1, 0.5],
        [0.5, 0.5, 0.5],
    ];
    for (width, height) in [(64, 48), (1280, 720)] {
        for name in ["a.mp4", "a.png", "a.webp"].into_iter().take(if width == 64 { 3 } else { 1 }) {
            let path = folder.path().join(name);
            // Past a key frame, so that drift would show; at last one colour stands still (which
            // WebP would hold as one frame).
            let count = if width == 64 { 64 } else { 8 };
            let still = |index: usize| index >= 48 && name != "a.webp";
            let colour = |index: usize| colours[if still(index) { 5 } else { index % 8 }];
            let frames: Vec<Vec<f32>> =
                (0..count).map(|index| colour(index).repeat(width * height)).collect();
            write(&path, &frames, (width, height), 24.0);
            let found = info(&path).unwrap();
            assert_eq!((found.width, found.height, found.fps), (width, height, Some(24.0)));
            let back = all(&path);
            assert_eq!(back.len(), count);
            for (index, (frame, back)) in frames.iter().zip(&back).enumerate() {
                let (most, _) = difference(frame, back);
                assert!(most <= 2.0, "{name} of {width}x{height}, frame {index}: {most}");
            }
        }
    }
}

const RED: [u8; 4] = [255, 0, 0, 255];
const BLUE: [u8; 4] = [0, 0, 255, 255];
const GREEN: [u8; 4] = [0, 255, 0, 255];

/// Which of red, blue, green and black each pixel is: `rbg.`, row by row.
fn letters(rgb: &[f32]) -> String {
    let letter = |pixel: &[f32]| match pixel {
        [1.0, 0.0, 0.0] => 'r',
        [0.0, 0.0, 1.0] => 'b',
        [0.0, 1.0, 0.0] => 'g',
        [0.0, 0.0, 0.0] => '.',
        other => panic!("{other:?}"),
    };
    rgb.chunks(3).map(letter).collect()
}

#[test]
fn frames_of_a_gif_are_drawn_over_each_other_as_it_says() {
    use gif::DisposalMethod::{Background, Keep, Previous};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gif");
    let palette = [[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0], [9, 9, 9]].concat();
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = gif::Encoder::new(file, 3, 2, &palette).unwrap();
    for (left, width, pixels, dispose, delay) in [
        (0, 3, "rrrrrr", Keep, 10),
        (1, 1, "bb", Previous, 20),
        // A pixel that is left out shows what is behind it.
        (0, 2, "g gg", Background, 1),
        (2, 1, "bb", Keep, 30),
    ] {
        let index = |letter: char| ".rbg ".find(letter).unwrap() as u8;
        let pixels: Vec<u8> = pixels.chars().map(index).collect();
        let mut frame = gif::Frame::from_indexed_pixels(width, 2, pixels, Some(4));
        (frame.left, frame.dispose, frame.delay) = (left, dispose, delay);
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    let seen: Vec<String> = all(&path).iter().map(|rgb| letters(rgb)).collect();
    assert_eq!(seen, ["rrrrrr", "rbrrbr", "grrggr", "..b..b"]);
    // What is to be shown for 1/100 second is shown for 1/10, as in players.
    let info = info(&path).unwrap();
    assert_eq!(*info.times, [0.0, 0.1, 0.3, 0.4]);
    assert_eq!((info.end, info.is_constant), (0.7, false));
    assert!((info.fps.unwrap() - 4.0 / 0.7).abs() < 1e-9);
}

#[test]
fn frames_of_a_png_are_drawn_over_each_other_as_it_says() {
    use png::{BlendOp::*, DisposeOp};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 3, 2);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(4, 0).unwrap();
    encoder.set_frame_delay(1001, 30_000).unwrap();
    let mut writer = encoder.write_header().unwrap();
    let none = [0, 0, 0, 0];
    for (left, width, pixels, dispose, blend) in [
        (0, 3, [RED, RED, RED, RED, RED, RED].concat(), DisposeOp::None, Source),
        (1, 1, [BLUE, BLUE].concat(), DisposeOp::Previous, Over),
        (0, 2, [GREEN, none, GREEN, GREEN].concat(), DisposeOp::Background, Over),
        (1, 2, [BLUE, none, BLUE, BLUE].concat(), DisposeOp::None, Source),
    ] {
        writer.set_frame_position(0, 0).unwrap();
        writer.set_frame_dimension(width, 2).unwrap();
        writer.set_frame_position(left, 0).unwrap();
        writer.set_dispose_op(dispose).unwrap();
        writer.set_blend_op(blend).unwrap();
        writer.write_image_data(&pixels).unwrap();
    }
    writer.finish().unwrap();
    let seen: Vec<String> = all(&path).iter().map(|rgb| letters(rgb)).collect();
    assert_eq!(seen, ["rrrrrr", "rbrrbr", "grrggr", ".b..bb"]);
    assert_eq!(info(&path).unwrap().fps, Some(30_000.0 / 1001.0));
}

/// The least pictures that there can be, and formats of one frame.
#[test]
fn one_pixel_and_one_frame_are_a_video_too() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one.png", "many.png", "one.webp", "many.webp"] {
        let path = folder.path().join(name);
        let count = if name.starts_with("one") { 1 } else { 3 };
        let frames: Vec<Vec<f32>> = (0..count).map(|i| vec![i as f32 / 4.0; 3]).collect();
        write(&path, &frames, (1, 1), 10.0);
        let info = info(&path).unwrap();
        assert_eq!((info.width, info.height, info.times.len()), (1, 1, count), "{name}");
        for (frame, back) in frames.iter().zip(all(&path)) {
            assert!(difference(frame, &back).0 <= 2.0, "{name}: {back:?}");
        }
    }
}
