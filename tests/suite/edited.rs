//! The graphs that change a video, on pixels: `video_to_video`, `inpaint`, `interpolate`.

use candle_core::{DType, Tensor};
use kino_tests::{Rig, difference};

/// A graph of `graphs/` with more nodes, that also writes these tensors.
fn with_tensors(name: &str, nodes: &str, tensors: &str) -> Rig {
    let folder = kino_tests::root().join("graphs");
    let text = std::fs::read_to_string(folder.join(format!("{name}.ron"))).expect("the graph");
    let extra = format!(
        r#"    nodes: {{{nodes}
        "tensors": (op: "tensor.write", with: {{"path": "out.safetensors"}},
            in: {{"tensors": {{{tensors}}}}}),"#
    );
    assert_eq!(text.matches("    nodes: {").count(), 1);
    Rig::of(name, &text.replace("    nodes: {", &extra), &folder)
}

/// Frames `[f, h, w, 3]` as numbers.
struct Clip {
    dims: [usize; 4],
    values: Vec<f32>,
}

impl Clip {
    fn of(tensor: &Tensor) -> Self {
        let (f, h, w, c) = tensor.dims4().expect("frames");
        let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1());
        Clip { dims: [f, h, w, c], values: values.expect("numbers") }
    }

    /// A pixel.
    fn at(&self, frame: usize, y: usize, x: usize) -> [f32; 3] {
        let [_, h, w, _] = self.dims;
        let start = ((frame * h + y) * w + x) * 3;
        [self.values[start], self.values[start + 1], self.values[start + 2]]
    }

    /// The pixels of a frame of which something holds: their mean place along x, and their number.
    fn found(&self, frame: usize, holds: impl Fn([f32; 3]) -> bool) -> (f64, usize) {
        let [_, h, w, _] = self.dims;
        let places = (0..h).flat_map(|y| (0..w).map(move |x| (y, x)));
        let columns: Vec<usize> =
            places.filter(|(y, x)| holds(self.at(frame, *y, *x))).map(|(_, x)| x).collect();
        (columns.iter().sum::<usize>() as f64 / columns.len().max(1) as f64, columns.len())
    }

    /// The mean difference from another clip within some rows.
    fn apart(&self, other: &Clip, rows: std::ops::Range<usize>) -> f64 {
        assert_eq!(self.dims, other.dims);
        let [frames, _, w, _] = self.dims;
        let mut sum = 0.0;
        for (frame, y) in (0..frames).flat_map(|frame| rows.clone().map(move |y| (frame, y))) {
            for x in 0..w {
                let pairs = self.at(frame, y, x).into_iter().zip(other.at(frame, y, x));
                sum += pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
            }
        }
        sum / (frames * rows.len() * w * 3) as f64
    }
}

fn is_red([r, g, b]: [f32; 3]) -> bool {
    r > 0.6 && g < 0.45 && b < 0.45
}

fn is_blue([r, g, b]: [f32; 3]) -> bool {
    b > 0.5 && r < 0.45 && g < 0.6
}

/// The clip's motion stays, its colour becomes that of the text.
#[test]
fn video_to_video_keeps_motion_and_follows_the_text() {
    let mut rig = with_tensors("video_to_video", "", r#""source": "fitted", "result": "frames""#);
    rig.run();
    assert!(rig.out("video_to_video-7-001.mp4").is_file());
    let clip = |name: &str| Clip::of(&rig.tensor("out.safetensors", name));
    let (source, result) = (clip("source"), clip("result"));
    assert_eq!(result.dims, [17, 64, 96, 3]);
    for frame in [0, 8, 16] {
        let (red, red_count) = source.found(frame, is_red);
        let (blue, blue_count) = result.found(frame, is_blue);
        println!(
            "frame {frame}: {red_count} red at {red:.1}, {blue_count} blue at {blue:.1}, {} red",
            result.found(frame, is_red).1
        );
        assert!(red_count > 60 && blue_count > 60, "both show a disc");
        assert!((red - blue).abs() < 10.0, "where it was");
        assert!(result.found(frame, is_red).1 < 20, "nothing is red any more");
    }
    // The weaker, the nearer to the clip.
    let mut last = f64::INFINITY;
    for strength in ["0.8", "0.4", "0.1"] {
        rig.set("strength", strength).run();
        let apart = Clip::of(&rig.tensor("out.safetensors", "result")).apart(&source, 0..64);
        println!("strength {strength}: {apart:.4}");
        assert!(apart < last, "{strength}: {apart} after {last}");
        last = apart;
    }
    assert!(last < 0.04, "a strength of 0.1 leaves the clip nearly as it was: {last}");
}

/// Outside the mask the known picture stays; inside the text is followed.
#[test]
fn inpaint_changes_what_lies_under_the_mask() {
    let decoded = r#"
        "decoded": (op: "vae.decode", in: {"vae": "model.vae", "latent": "known"}),"#;
    let tensors = r#""source": "fitted", "result": "frames", "decoded": "decoded", "known": "known",
        "latent": "latent""#;
    let rig = with_tensors("inpaint", decoded, tensors);
    rig.run();
    assert!(rig.out("inpaint-7-001.mp4").is_file());
    let tensor = |name: &str| rig.tensor("out.safetensors", name);
    // The upper half of the latent is the known one to the bit.
    let upper = |name: &str| tensor(name).narrow(2, 0, 4).expect("four rows");
    assert_eq!(difference(&upper("latent"), &upper("known")), 0.0);
    // In pixels, it is as the autoencoder alone would give the clip back.
    let clip = |name: &str| Clip::of(&tensor(name));
    let (source, result, decoded) = (clip("source"), clip("result"), clip("decoded"));
    let (above, below) = (result.apart(&decoded, 0..24), result.apart(&decoded, 32..64));
    println!("above {above:.5}, below {below:.5}");
    assert!(above < 0.004, "what is known stays: {above}");
    assert!(below > 5.0 * above, "what is masked is made anew: {below} beside {above}");
    for frame in [0, 8, 16] {
        let ((red, many), (_, blue)) = (result.found(frame, is_red), result.found(frame, is_blue));
        let (was, before) = source.found(frame, is_red);
        println!("frame {frame}: {before} red at {was:.1}, {many} red at {red:.1}, {blue} blue");
        assert!((red - was).abs() < 1.5 && many.abs_diff(before) < before / 3, "the disc stays");
        assert_eq!(source.found(frame, is_blue).1, 0);
        assert!(blue > 100, "and below it something blue is there now");
    }
}

/// Twice the frames and rate: the clip's own stay, and the disc of a new one lies half way.
#[test]
fn interpolate_puts_frames_half_way() {
    let rig = with_tensors("interpolate", "", r#""source": "clip.frames", "result": "smooth""#);
    rig.run();
    assert!(rig.out("interpolate-2x-001.mp4").is_file());
    let tensor = |name: &str| rig.tensor("out.safetensors", name);
    let (source, result) = (tensor("source"), tensor("result"));
    assert_eq!(result.dims(), [33, 64, 96, 3]);
    for frame in 0..17 {
        let kept = result.narrow(0, 2 * frame, 1).expect("a frame");
        assert_eq!(difference(&kept, &source.narrow(0, frame, 1).expect("a frame")), 0.0);
    }
    let result = Clip::of(&result);
    for frame in (1..33).step_by(2) {
        let at = |frame: usize| result.found(frame, is_red);
        let ((before, many), (between, count), (after, _)) =
            (at(frame - 1), at(frame), at(frame + 1));
        assert!((between - (before + after) / 2.0).abs() < 1.0, "{before}, {between}, {after}");
        assert!(count as f64 > 0.8 * many as f64, "a disc, no ghost of two: {count} of {many}");
    }
}
