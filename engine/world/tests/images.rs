//! Images that end early, claim too much, or are mutated: read, or refused, in bounded memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kino_world::{MAX_PIXELS, image_size, read_image};

/// 40×30 pixels.
const BASELINE: &[u8] = include_bytes!("images/baseline.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("images/progressive.jpg");

/// A JPEG with a segment before the image that holds an end marker, as thumbnails do.
fn jpeg() -> Vec<u8> {
    let thumbnail = [0xff, 0xec, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
    [&BASELINE[..2], &thumbnail, &BASELINE[2..]].concat()
}

#[test]
fn a_jpeg_that_ends_early_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    let whole = jpeg();
    fs::write(&path, &whole).unwrap();
    let image = read_image(&path).unwrap();
    assert_eq!((image.width, image.height), (40, 30));
    let cuts = (1..60).map(|part| whole.len() * part / 60);
    for cut in cuts.chain([whole.len() - 12]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let said = read_image(&path).unwrap_err().to_string();
        assert!(said.contains("ends early") || said.contains("damaged"), "{cut}: {said}");
    }
    fs::write(&path, [&whole[..], b"bytes behind the end"].concat()).unwrap();
    assert_eq!(read_image(&path).unwrap(), image);
}

/// Only the end marker is missing, or half of it: all pixels are there.
#[test]
fn a_jpeg_without_its_end_marker_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    for whole in [jpeg(), PROGRESSIVE.to_vec()] {
        fs::write(&path, &whole).unwrap();
        let image = read_image(&path).unwrap();
        for without in [1, 2] {
            fs::write(&path, &whole[..whole.len() - without]).unwrap();
            assert_eq!(read_image(&path).unwrap(), image);
        }
    }
}

/// The eight ways to hold a camera, by the EXIF tag, against pixels moved by hand.
#[test]
fn the_exif_orientation_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    fs::write(&path, BASELINE).unwrap();
    let upright = read_image(&path).unwrap();
    let (w, h) = (upright.width, upright.height);
    let at = |x: usize, y: usize| &upright.rgb[(y * w + x) * 3..][..3];
    for tag in 1..=8_u8 {
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        exif.extend([tag, 0, 0, 0, 0, 0, 0]);
        let mut segment = vec![0xff, 0xe1, 0, exif.len() as u8 + 2];
        segment.extend(exif);
        fs::write(&path, [&BASELINE[..2], &segment, &BASELINE[2..]].concat()).unwrap();
        let image = read_image(&path).unwrap();
        assert_eq!(image_size(&path).unwrap(), (image.width, image.height));
        assert_eq!((image.width, image.height), if tag < 5 { (w, h) } else { (h, w) }, "{tag}");
        // Where the upper left pixel of the file, and its right neighbour, went.
        let (first, second) = match tag {
            1 => ((0, 0), (1, 0)),
            2 => ((w - 1, 0), (w - 2, 0)),
            3 => ((w - 1, h - 1), (w - 2, h - 1)),
            4 => ((0, h - 1), (1, h - 1)),
            5 => ((0, 0), (0, 1)),
            6 => ((h - 1, 0), (h - 1, 1)),
            7 => ((h - 1, w - 1), (h - 1, w - 2)),
            _ => ((0, w - 1), (0, w - 2)),
        };
        let now = |(x, y): (usize, usize)| &image.rgb[(y * image.width + x) * 3..][..3];
        assert_eq!((now(first), now(second)), (at(0, 0), at(1, 0)), "{tag}");
    }
}

/// A PNG of one bit a pixel that is all zeros: `side`² pixels in few bytes, if its claim is true.
fn png_of(side: u32, rows: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![0; side.div_ceil(8) as usize];
    for _ in 0..rows {
        std::io::Write::write_all(&mut stream, &row).unwrap();
    }
    drop(stream);
    drop(writer);
    bytes
}

/// A lossless WebP that claims a size (WebP container specification, RFC 9649 §3).
fn webp_of(width: u32, height: u32) -> Vec<u8> {
    let bits = (width - 1) | ((height - 1) << 14);
    let mut data = vec![0x2f];
    data.extend(bits.to_le_bytes());
    data.extend([0; 9]);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((12 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WEBPVP8L");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// The JPEG with another size in its header (T.81 §B.2.2).
fn jpeg_of(bytes: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let frame = (0..bytes.len()).find(|at| matches!(bytes[*at..], [0xff, 0xc0 | 0xc2, 0, 17, ..]));
    let frame = frame.expect("a frame header");
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// The most memory that this process ever held, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// A few bytes can claim any size: the claim is refused, by its header alone.
#[test]
fn an_image_that_claims_too_many_pixels_is_refused_by_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    for (name, bytes) in [
        ("JPEG", jpeg_of(BASELINE, 65_500, 65_500)),
        ("progressive JPEG", jpeg_of(PROGRESSIVE, 65_500, 65_500)),
        ("PNG", png_of(60_000, 1)),
        ("WebP", webp_of(16_383, 16_383)),
    ] {
        fs::write(&path, bytes).unwrap();
        let before = peak();
        for error in [image_size(&path).unwrap_err(), read_image(&path).unwrap_err()] {
            let said = error.to_string();
            assert!(said.contains("the image claims"), "{name}: {said}");
            assert!(said.contains(&MAX_PIXELS.to_string()), "{name}: {said}");
            assert!(error.hint().is_some());
        }
        assert!(peak() - before < 100 << 20, "{name}: {} more bytes were held", peak() - before);
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

/// Changes a few bytes, mostly in the head, and cuts the file now and then.
fn mutated(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let reach = if random.below(2) == 0 { bytes.len().min(96) } else { bytes.len() };
    for _ in 0..=random.below(4) {
        let at = random.below(reach);
        bytes[at] = [0, 0xff, random.below(256) as u8][random.below(3)];
    }
    if random.below(5) == 0 {
        bytes.truncate(random.below(bytes.len()));
    }
    // Lengths and claims are also changed with their checksums made right, or nothing would be
    // looked at behind them.
    if whole.starts_with(b"\x89PNG") && bytes.len() > 33 && random.below(2) == 0 {
        let sum = crc(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// CRC-32 (PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    let table = |crc: u32| (0..8).fold(crc, |crc, _| step(crc));
    !bytes.iter().fold(!0, |crc, byte| table((crc ^ u32::from(*byte)) & 0xff) ^ (crc >> 8))
}

#[track_caller]
fn look(path: &Path, bytes: &[u8], case: &str) -> (bool, Duration) {
    fs::write(path, bytes).unwrap();
    let begun = Instant::now();
    let outcome = std::panic::catch_unwind(|| (image_size(path), read_image(path)));
    let Ok((size, image)) = outcome else { panic!("panicked: {case}") };
    if let Ok(image) = &image {
        assert_eq!(image.rgb.len(), image.width * image.height * 3, "{case}");
        assert_eq!(size.expect(case), (image.width, image.height), "{case}");
        assert!(image.width * image.height <= MAX_PIXELS, "{case}");
    }
    (image.is_ok(), begun.elapsed())
}

/// Mutated images end in pixels or in an error, each within ten seconds and, all the time, within
/// what the largest image may take. `KINO_FUZZ_ROUNDS` says how many.
#[test]
fn mutated_images_are_read_or_refused_in_bounded_time_and_memory() {
    let rounds = std::env::var("KINO_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.unwrap_or(400);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let kinds = [BASELINE.to_vec(), PROGRESSIVE.to_vec(), jpeg(), png_of(48, 48), webp_of(40, 30)];
    let mut random = Random(0x696d_6167_6573);
    let (mut taken, mut slowest) = (0, Duration::ZERO);
    for round in 0..rounds {
        let whole = &kinds[round % kinds.len()];
        let bytes = mutated(whole, &mut random);
        let (is_read, time) = look(&path, &bytes, &format!("round {round}"));
        taken += usize::from(is_read);
        slowest = slowest.max(time);
        assert!(time < Duration::from_secs(10), "round {round} took {time:?}");
    }
    println!("{rounds} images, {taken} read, slowest {slowest:?}, peak {} MB", peak() >> 20);
    // Pixels as f32 and as decoded, and the decoder's own.
    assert!(peak() < (MAX_PIXELS * (12 + 4 + 8)) as u64 + (1 << 30), "peak {}", peak());
    assert!(taken > 0 && taken < rounds, "{taken} of {rounds} were read");
}
