//! How fast videos are read: the whole reader beside OpenH264 alone, on the same clip of 1920×1080.
//! Each is run in turn, several times; the fastest counts. The processor time of both says the
//! same of a machine with one core, and where others use the cores.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use kino_world::InputFile;
use kino_world::media::{FrameSink, VideoReader, VideoSpec, create};
use openh264::OpenH264API;
use openh264::decoder::{Decoder, DecoderConfig, Flush};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
const FRAMES: usize = 48;
const ROUNDS: usize = 5;

/// A slanted pattern that moves, with a little grain.
fn frame(index: usize) -> Vec<f32> {
    let mut state = index as u32 + 1;
    let mut rgb = Vec::with_capacity(WIDTH * HEIGHT * 3);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (state >> 24) as f32 / 255.0 * 0.03;
            let at = (x + 3 * index) as f32 * 0.02 + y as f32 * 0.013;
            let wave = |shift: f32| 0.5 + 0.4 * (at + shift).sin() + grain;
            rgb.extend([wave(0.0), wave(2.0), wave(4.0)]);
        }
    }
    rgb
}

/// Times since something began.
struct Times {
    wall: Duration,
    processor: Duration,
    began: Instant,
}

impl Times {
    fn now() -> Self {
        Times { wall: Duration::ZERO, processor: processor(), began: Instant::now() }
    }

    fn since(self) -> Self {
        let processor = processor().saturating_sub(self.processor);
        Times { wall: self.began.elapsed(), processor, ..self }
    }
}

/// What this process has used of processors, in hundredths of a second (proc(5), `utime` and
/// `stime`); nothing where the system does not say.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// Lets frames go as they come.
struct Gone(usize);

impl FrameSink for Gone {
    fn frame(&mut self, _: usize, rgb: Vec<f32>) -> ControlFlow<()> {
        self.0 += rgb.len();
        ControlFlow::Continue(())
    }
}

fn read(path: &Path) -> Times {
    let begin = Times::now();
    let mut file = InputFile::open(path).unwrap();
    let video = VideoReader::open(&mut file, false).unwrap();
    let all: Vec<usize> = (0..video.info().times.len()).collect();
    let mut gone = Gone(0);
    video.read(&mut file, &all, &mut gone).unwrap();
    assert_eq!(gone.0, FRAMES * WIDTH * HEIGHT * 3);
    begin.since()
}

/// Decodes the samples, which the writer of this project puts one behind another.
fn decode(file: &[u8]) -> Times {
    let begin = Times::now();
    let place = |kind: &[u8; 4]| file.windows(4).position(|four| four == kind).unwrap() + 4;
    let short = |at: usize| u16::from_be_bytes([file[at], file[at + 1]]) as usize;
    let long = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let sps = place(b"avcC") + 6;
    let pps = sps + 2 + short(sps) + 1;
    let mut stream = Vec::new();
    for at in [sps, pps] {
        stream.extend([0, 0, 0, 1]);
        stream.extend(&file[at + 2..][..short(at)]);
    }
    let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
    let mut decoder = Decoder::with_api_config(OpenH264API::from_source(), config).unwrap();
    let (mut at, sizes, mut pictures) = (place(b"mdat") + 8, place(b"stsz") + 12, 0);
    for index in 0..FRAMES {
        let end = at + long(sizes + 4 * index);
        while at < end {
            stream.extend([0, 0, 0, 1]);
            stream.extend(&file[at + 4..][..long(at)]);
            at += 4 + long(at);
        }
        pictures += usize::from(decoder.decode(&stream).unwrap().is_some());
        stream.clear();
    }
    pictures += decoder.flush_remaining().unwrap().len();
    assert_eq!(pictures, FRAMES);
    begin.since()
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mp4");
    let spec = VideoSpec {
        width: WIDTH,
        height: HEIGHT,
        count: FRAMES,
        fps: 24.0,
        ..VideoSpec::default()
    };
    let mut writer = create(&path, &spec).unwrap();
    (0..FRAMES).for_each(|index| writer.push(&frame(index)).unwrap());
    writer.finish().unwrap();
    let file = std::fs::read(&path).unwrap();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (decode(&file), read(&path))).collect();
    let least = |time: fn(&Times) -> Duration| {
        let decoded = rounds.iter().map(|round| time(&round.0)).min().unwrap_or_default();
        let read = rounds.iter().map(|round| time(&round.1)).min().unwrap_or_default();
        (decoded.as_secs_f64() / FRAMES as f64, read.as_secs_f64() / FRAMES as f64)
    };
    for (name, (decoded, read)) in [("clock", least(|t| t.wall)), ("cores", least(|t| t.processor))]
    {
        let (decoded, read) = (decoded * 1e3, read * 1e3);
        println!(
            "{name}: OpenH264 alone {decoded:.1} ms a frame of {WIDTH}x{HEIGHT}, VideoReader \
             {read:.1} ms: {:.2} of its speed",
            decoded / read
        );
    }
}
