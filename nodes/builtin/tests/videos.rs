//! `video.read`: what the plan knows of a video, and that the run gives just that.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use common::{Rig, int, known, number, text, values};
use kino_node::{Cancel, Error, Frames, FramesFact, Ledger, Reclaim, TensorFact, Value, ValueType};
use kino_port::{Fact, Literal};
use kino_world::Folders;

/// The files that other programs made.
fn rig(name: &str) -> Rig {
    let videos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/world/tests/videos");
    Rig::at(name, &videos)
}

fn real(value: f64) -> Value {
    Value::Real(value)
}

/// Plans and runs, and holds one against the other.
#[track_caller]
fn read(rig: &Rig, path: &str, with: &[(&str, f64)]) -> (FramesFact, Vec<f64>, Vec<f64>) {
    let mut facts = vec![("path", known(path))];
    let mut inputs = vec![("path", text(path))];
    for &(port, value) in with {
        if port == "fps" {
            facts.push((port, Fact::Literal(Literal::Real(value))));
            inputs.push((port, real(value)));
        } else {
            facts.push((port, number(value as i128)));
            inputs.push((port, int(value as i128)));
        }
    }
    let infer = rig.infer("video.read", &facts).unwrap();
    let fact: FramesFact = infer.outputs[0].get::<FramesFact>().unwrap().clone();
    let mut outputs = rig.run("video.read", &inputs);
    let times = outputs.remove(1).unwrap().tensor().unwrap();
    let frames = outputs.remove(0).unwrap().shared::<Frames>().unwrap();
    assert_eq!(fact, frames.fact(), "{path}");
    let expected = infer.outputs[1].get::<TensorFact>().unwrap();
    assert_eq!((times.dims(), times.dtype()), (&*expected.shape, expected.dtype));
    assert!(infer.memory > frames.bytes() && infer.spillable == frames.bytes());
    (fact, values(&frames.whole().unwrap()), times.to_vec1().unwrap())
}

/// A frame of many.
fn frame<'a>(frames: &'a [f64], fact: &FramesFact, index: usize) -> &'a [f64] {
    let (height, width) = fact.size().expect("a size");
    &frames[index * height * width * 3..][..height * width * 3]
}

#[test]
fn the_plan_knows_what_the_run_gives() {
    let rig = rig("video-plan");
    let (fact, frames, times) = read(&rig, "rotated.mp4", &[]);
    assert_eq!((fact.size(), fact.count), (Some((48, 32)), Some(24)));
    assert_eq!(fact.fps.fps(), Some(24.0));
    assert_eq!(times[12], 0.5);
    let (part, some, times) = read(&rig, "rotated.mp4", &[("start", 7.0), ("count", 5.0)]);
    assert_eq!((part.count, times[0]), (Some(5), 0.0));
    assert_eq!(frame(&some, &part, 4), frame(&frames, &fact, 11));
    assert_eq!(some.len(), 5 * 32 * 48 * 3);
    for path in ["moving.gif", "moving.webp", "moving.png", "cut.mp4", "full601.mov"] {
        read(&rig, path, &[]);
    }
    let reports = rig.reports.lock().unwrap();
    assert!(reports.iter().any(|report| (report.step, report.of) == (24, 24)));
}

#[test]
fn a_rate_repeats_and_leaves_out_and_says_the_times() {
    let rig = rig("video-rate");
    let (fact, frames, times) = read(&rig, "varying.mp4", &[]);
    let mean = fact.fps.fps().unwrap();
    assert!((mean - 8.0).abs() < 1e-6, "{mean}: 7 frames in 7/8 seconds");
    let expected = [0.0, 5.0, 7.0, 8.0, 10.0, 15.0, 20.0].map(|at| at / 24.0);
    assert!(times.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{times:?}");
    let (constant, held, times) =
        read(&rig, "varying.mp4", &[("fps", 12.0), ("start", 1.0), ("count", 6.0)]);
    assert_eq!((constant.fps.fps(), constant.count), (Some(12.0), Some(6)));
    assert!(
        times.iter().enumerate().all(|(index, time)| (time - index as f64 / 12.0).abs() < 1e-9)
    );
    for (index, of_file) in [0, 0, 1, 3, 4, 4].into_iter().enumerate() {
        assert_eq!(frame(&held, &constant, index), frame(&frames, &fact, of_file), "{index}");
    }
}

/// Cancels where memory ends, and counts how often it was asked for some.
struct Canceller(Cancel, AtomicUsize);

impl Reclaim for Canceller {
    fn held(&self) -> u64 {
        0
    }

    fn reclaim(&self, _: u64) -> u64 {
        self.0.cancel();
        self.1.fetch_add(1, Ordering::SeqCst);
        0
    }
}

#[test]
fn one_frame_that_is_shown_for_ten_minutes_can_be_cancelled() {
    let mut rig = rig("video-slow");
    let folder = rig.out.clone();
    std::fs::create_dir_all(&folder).unwrap();
    // 64 x 64, one pixel of it drawn, shown for 655.35 seconds.
    let mut gif = b"GIF89a\x40\0\x40\0\x80\0\0\xff\xff\xff\0\0\0".to_vec();
    gif.extend(b"!\xf9\x04\0\xff\xff\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;");
    std::fs::write(folder.join("slow.gif"), gif).unwrap();
    let ledger = Ledger::with_spill(4 << 20, &folder, u64::MAX);
    let canceller = Arc::new(Canceller(rig.cancel.clone(), AtomicUsize::new(0)));
    let reclaim: Arc<dyn Reclaim> = canceller.clone();
    ledger.reclaim_from(Arc::downgrade(&reclaim));
    let folders = Folders { graph: folder.clone(), out: folder };
    rig.services = kino_nodes::services(Device::Cpu, ledger).with(Arc::new(folders));
    let rate = Fact::Literal(Literal::Real(1000.0));
    let infer = rig.infer("video.read", &[("path", known("slow.gif")), ("fps", rate)]).unwrap();
    assert!(infer.spillable > 655_000 * 64 * 64 * 12, "{}", infer.spillable);
    let given = [("path", text("slow.gif")), ("fps", real(1000.0))];
    assert!(matches!(rig.try_run("video.read", &given), Err(Error::Cancelled)));
    assert_eq!(canceller.1.load(Ordering::SeqCst), 1, "no frame after it was cancelled");
}

#[test]
fn what_is_longer_than_the_video_is_refused_in_the_plan() {
    let rig = rig("video-long");
    let objects = |with: &[(&str, Fact)]| {
        rig.objects("video.read", &[&[("path", known("bframes.mp4"))], with].concat())
    };
    assert_eq!(
        objects(&[("start", number(24))]),
        "start: the video has 24 frames, found start 24 (the first frame is 0)"
    );
    assert_eq!(
        objects(&[("start", number(20)), ("count", number(5))]),
        "count: the video has 4 frames from 20 on, found 5 (leave `count` out to read all)"
    );
    let rate = |fps: f64| Fact::Literal(Literal::Real(fps));
    assert_eq!(
        objects(&[("fps", rate(6.0)), ("count", number(7))]),
        "count: the video has 6 frames at 6 a second from 0 on, found 7 (leave `count` out to read \
         all)"
    );
    let said = rig.objects("video.read", &[("path", known("../images/baseline.jpg"))]);
    assert!(
        said.starts_with("path: ") && said.contains("found a JPEG image (read it with"),
        "{said}"
    );
    let inputs = [("path", text("bframes.mp4")), ("start", int(24))];
    assert!(rig.fails("video.read", &inputs).contains("the video has 24 frames, found start 24"));
    let infer =
        rig.infer("video.read", &[("path", known("bframes.mp4")), ("count", Fact::Unknown)]);
    let fact = infer.unwrap().outputs[0].get::<FramesFact>().unwrap().clone();
    assert_eq!((fact.count, fact.width), (None, Some(48)));
}

#[test]
fn a_cancelled_run_stops() {
    let rig = rig("video-cancel");
    rig.cancel.cancel();
    assert_eq!(rig.fails("video.read", &[("path", text("bframes.mp4"))]), "cancelled");
}

#[test]
fn what_is_written_is_read_back() {
    let rig = rig("video-back");
    // A slope that becomes brighter: WebP holds frames that are the same as one.
    let slope = Tensor::arange(0f32, 64.0, &Device::Cpu).unwrap().reshape((1, 1, 64, 1)).unwrap();
    let slope = (slope.broadcast_as((1, 32, 64, 3)).unwrap() / 120.0).unwrap();
    let frames: Vec<Tensor> = (0..5).map(|i| (&slope + f64::from(i) * 0.1).unwrap()).collect();
    let frames = Frames::from_tensor(&Tensor::cat(&frames, 0).unwrap(), Some(12.0)).unwrap();
    let frames = Value::from(frames);
    for name in ["a.mp4", "a.webp", "a.png"] {
        let write = [("frames", frames.clone()), ("path", text(name))];
        let Value::File(file) = rig.one("video.write", &write) else { panic!("{name}") };
        let back = rig.one("video.read", &[("path", text(file.path.to_str().unwrap()))]);
        let back = back.shared::<Frames>().unwrap();
        // WebP times are whole milliseconds.
        assert_eq!(back.count(), 5, "{name}");
        assert_eq!(back.fps(), Some(12.0), "{name}");
        let (a, b) = (values(&frames.tensor().unwrap()), values(&back.whole().unwrap()));
        let mean = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64;
        assert!(mean * 255.0 < 2.0, "{name}: {}", mean * 255.0);
    }
}

#[test]
fn images_of_16_bits_keep_what_8_bits_lose() {
    let rig = rig("image-bits");
    let slope =
        Tensor::arange(0f32, 3072.0, &Device::Cpu).unwrap().reshape((1, 32, 32, 3)).unwrap();
    let frames = Frames::from_tensor(&(slope / 30_000.0).unwrap(), None).unwrap();
    let written = values(&frames.whole().unwrap());
    let frames = Value::from(frames);
    for (bits, near) in [(8, 0.51 / 255.0), (16, 0.51 / 65535.0)] {
        let path = format!("x-{bits}.png");
        let inputs = [("frames", frames.clone()), ("path", text(&path)), ("bits", int(bits))];
        let Value::File(file) = rig.one("image.write", &inputs) else { panic!("{bits}") };
        let back = rig.one("image.read", &[("path", text(file.path.to_str().unwrap()))]);
        let back = values(&back.tensor().unwrap());
        let most = written.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(most < near && most > near / 4.0, "{bits}: {most}");
    }
    let twelve = [("frames", Fact::Unknown), ("path", known("x.png")), ("bits", number(12))];
    assert_eq!(
        rig.objects("image.write", &twelve),
        "bits: a PNG has 8 or 16 bits a channel, found 12 (8 for screens, 16 to go on working with \
         it)"
    );
}
