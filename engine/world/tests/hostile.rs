//! Whatever bytes a file holds, reading it ends in a value or an error, never in a panic.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kino_world::media::{FrameSink, VideoReader, VideoSpec, create};
use kino_world::{
    InputFile, image_size, read_image, read_metadata, read_tensor, tensor_info, write_tensors,
};

const SEED: u64 = 0x6b69_6e6f;

/// What one file may take to be read, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(20);

/// What the process may have held at most, in kB. The files are tiny, and some say that they hold
/// gigabytes.
const MOST_MEMORY: u64 = 1 << 20;

/// The most that this process ever held in memory, in kB; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    number.unwrap_or(0)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// How many files of a kind to try; `KINO_FUZZ_ROUNDS` sets it.
fn rounds(otherwise: usize) -> usize {
    let set = std::env::var("KINO_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(otherwise)
}

/// Reads the file in every way there is.
fn read(path: &Path) {
    let _ = read_metadata(path);
    let _ = image_size(path);
    let _ = read_image(path);
    let _ = read_tensor(path, "a");
    let infos = tensor_info(path).unwrap_or_default();
    infos.iter().for_each(|info| drop(read_tensor(path, &info.name)));
    let _ = read_video(path);
}

/// Counts the frames of a video, and stops where a lie would make it long.
struct Few(usize);

impl FrameSink for Few {
    fn frame(&mut self, _: usize, _: Vec<f32>) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 < 64 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn read_video(path: &Path) -> kino_world::Result<()> {
    let mut file = InputFile::open(path)?;
    let video = VideoReader::open(&mut file, true)?;
    let count = video.info().times.len();
    assert_eq!(video.info().count(None), Some(count));
    if video.info().width * video.info().height > 1 << 20 {
        return Ok(());
    }
    let frames: Vec<usize> = (count / 3..count).collect();
    let mut few = Few(0);
    let read = video.read(&mut file, &frames, &mut few);
    // What was not refused has all its frames.
    assert!(read.is_err() || few.0 == frames.len().min(64), "{} of {count}", few.0);
    read
}

#[track_caller]
fn survives(path: &Path, bytes: &[u8], case: &str) {
    std::fs::write(path, bytes).unwrap();
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| read(path)));
    assert!(begun.elapsed() < LIMIT, "{case}, seed {SEED:#x}: {:?}", begun.elapsed());
    let peak = peak_memory();
    assert!(peak < MOST_MEMORY, "{case}, seed {SEED:#x}: the process held {peak} kB");
    assert!(
        outcome.is_ok(),
        "panicked: {case}, seed {SEED:#x}, bytes {:02x?}",
        &bytes[..bytes.len().min(256)]
    );
}

/// One valid file of each kind.
fn valid(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let text = "Graph(version: 1) 红色 ".repeat(40);
    let frame: Vec<f32> = (0..32 * 16 * 3).map(|i| (i % 97) as f32 / 96.0).collect();
    for (name, count) in
        [("one.png", 1), ("many.png", 3), ("one.webp", 1), ("many.webp", 3), ("v.mp4", 3)]
    {
        let path = folder.join(name);
        let spec = VideoSpec {
            width: 32,
            height: 16,
            count,
            fps: 8.0,
            metadata: Some(&text),
            ..VideoSpec::default()
        };
        let mut writer = create(&path, &spec).unwrap();
        (0..count).for_each(|_| writer.push(&frame).unwrap());
        writer.finish().unwrap();
        assert_eq!(read_metadata(&path).unwrap().as_deref(), Some(text.as_str()), "{name}");
        files.push(path);
    }
    for name in ["bframes.mp4", "cut.mp4", "full601.mov", "moving.gif", "moving.png", "moving.webp"]
    {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/videos").join(name);
        let path = folder.join(format!("other-{name}"));
        std::fs::copy(from, &path).unwrap();
        assert!(!cfg!(feature = "h264") || read_video(&path).is_ok(), "{name}");
        files.push(path);
    }
    let path = folder.join("t.safetensors");
    let tensor = |to: f32| Tensor::arange(0f32, to, &Device::Cpu).unwrap();
    write_tensors(&path, &[("a".into(), tensor(7.0)), ("b".into(), tensor(3.0))]).unwrap();
    files.push(path);
    files
}

#[test]
fn changed_and_shortened_files_are_errors_not_panics() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    let mut random = Random(SEED);
    for file in valid(folder.path()) {
        let whole = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for turn in 0..rounds(if name.starts_with("other") { 100 } else { 250 }) {
            let mut bytes = whole.clone();
            // Half of the changes strike the head, where the lengths stand.
            let reach = if turn % 2 == 0 { bytes.len().min(128) } else { bytes.len() };
            for _ in 0..1 + random.below(4) {
                let at = random.below(reach);
                bytes[at] = match random.below(3) {
                    0 => 0xff,
                    1 => 0,
                    _ => random.next() as u8,
                };
            }
            if turn % 5 == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            survives(&scratch, &bytes, &format!("{name}, turn {turn}"));
        }
    }
}

#[test]
fn arbitrary_bytes_are_errors_not_panics() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    let starts: [&[u8]; 9] = [
        b"",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"RIFF\xff\xff\xff\xffWEBP",
        b"RIFF\x40\0\0\0WEBPEXIF\x20\0\0\0II*\0",
        b"\0\0\0\x10ftypisom\0\0\0\0",
        b"\xff\xd8\xff\xe1",
        b"GIF89a\x04\0\x03\0\x80\0\0\0\0\0\xff\xff\xff",
        b"\0\0\0\x08freemoov",
        b"\x20\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",",
    ];
    let mut random = Random(SEED);
    for turn in 0..rounds(1500) {
        let mut bytes = starts[turn % starts.len()].to_vec();
        bytes.extend((0..random.below(300)).map(|_| random.next() as u8).collect::<Vec<_>>());
        survives(&scratch, &bytes, &format!("turn {turn}"));
    }
}

/// Headers whose offsets, shapes or lengths lie.
#[test]
fn lying_tensor_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    for (header, data) in [
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7),
        (r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
        (r#"{"a":3}"#, 0),
        ("[]", 0),
    ] {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        std::fs::write(&path, bytes).unwrap();
        let error = read_tensor(&path, "a").expect_err(header).to_string();
        assert!(error.contains("t.safetensors"), "{error}");
        assert!(tensor_info(&path).is_err(), "{header}");
    }
    // A type that nobody knows is no lie: it matters to who asks for that tensor.
    let header = r#"{"a":{"dtype":"Q99","shape":[2],"data_offsets":[0,8]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
    std::fs::write(&path, bytes).unwrap();
    assert!(read_tensor(&path, "a").unwrap_err().to_string().contains("Q99, which is not read"));
    assert_eq!(tensor_info(&path).unwrap(), []);
}
