//! Motion between two frames, and frames in between.

mod flow;
mod planes;
mod render;
mod search;

use flow::{Flow, flows};
use planes::Pyramid;
use render::{Pair, Picture};

/// The least part of the pixels that two frames of one shot have in common.
const ONE_SHOT: f64 = 0.4;
/// The greatest mean difference of frames that are mixed where no motion is found: a fade.
const FADE: f64 = 0.1;

/// A frame that motion is searched in.
pub(super) struct MotionFrame {
    rgb: Vec<f32>,
    height: usize,
    width: usize,
    pyramid: Pyramid,
}

impl MotionFrame {
    /// Of RGB in 0…1, `[height, width, 3]`.
    pub(super) fn new(rgb: Vec<f32>, height: usize, width: usize) -> Self {
        let pyramid = Pyramid::new(&rgb, height, width);
        MotionFrame { rgb, height, width, pyramid }
    }

    /// The bytes that a frame of this size takes, and the flows of a pair of them.
    pub(super) fn bytes(height: usize, width: usize) -> (u64, u64) {
        let pixels = (height as u64).saturating_mul(width as u64);
        // RGB, and lightness with its margins; for flows lightness once more, a motion and a flag
        // twice, and at the end the same once more with the result.
        (pixels.saturating_mul(12 + 4), pixels.saturating_mul(4 + 2 * 5 + 5 + 12))
    }

    /// Height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    fn picture(&self) -> Picture<'_> {
        Picture { rgb: &self.rgb, height: self.height, width: self.width }
    }
}

/// What lies between two frames.
pub(super) struct Between<'a> {
    first: &'a MotionFrame,
    second: &'a MotionFrame,
    how: How,
}

/// How frames in between are made.
enum How {
    /// Along the motion.
    Moved(Flow, Flow),
    /// By mixing: nothing is found again, but the frames differ little.
    Mixed,
    /// Not at all: another shot begins.
    Cut,
}

impl<'a> Between<'a> {
    /// Searches the motion between two frames of one size.
    pub(super) fn new(first: &'a MotionFrame, second: &'a MotionFrame) -> Self {
        let toned = second.pyramid.toned_as(&first.pyramid);
        let (there, back) = flows(&first.pyramid, toned.as_ref().unwrap_or(&second.pyramid));
        let shown = there.shown.iter().filter(|shown| **shown).count();
        let pixels = there.shown.len() as f64;
        let how = if shown as f64 >= ONE_SHOT * pixels {
            How::Moved(there, back)
        } else {
            let pairs = first.rgb.iter().zip(&second.rgb);
            let difference: f64 = pairs.map(|(a, b)| f64::from((a - b).abs())).sum();
            if difference / (3.0 * pixels) <= FADE { How::Mixed } else { How::Cut }
        };
        Between { first, second, how }
    }

    /// The frame at time `t` of 0…1 between the first and the second: `[height, width, 3]`.
    pub(super) fn at(&self, t: f32) -> Vec<f32> {
        let (first, second) = (self.first.picture(), self.second.picture());
        match &self.how {
            How::Moved(there, back) => Pair { first, second, there, back }.at(t),
            How::Mixed => {
                let mixed = |(a, b): (&f32, &f32)| a + (b - a) * t;
                first.rgb.iter().zip(second.rgb).map(mixed).collect()
            }
            How::Cut => if t <= 0.5 { first.rgb } else { second.rgb }.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEIGHT: usize = 160;
    const WIDTH: usize = 224;

    /// A number of 0…1 that belongs to a place.
    fn noise(x: i64, y: i64, seed: u64) -> f64 {
        let mixed = (x as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ (y as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
            ^ seed.wrapping_mul(0x1656_67B1_9E37_79F9);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 32)) % 1000) as f64 / 999.0
    }

    /// The same between whole places, smoothly.
    fn smooth(x: f64, y: f64, seed: u64) -> f64 {
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (left, top) = (x.floor(), y.floor());
        let (right, down) = (ease(x - left), ease(y - top));
        let at = |dx: i64, dy: i64| noise(left as i64 + dx, top as i64 + dy, seed);
        let upper = at(0, 0) * (1.0 - right) + at(1, 0) * right;
        let lower = at(0, 1) * (1.0 - right) + at(1, 1) * right;
        upper * (1.0 - down) + lower * down
    }

    /// A texture of coarse and fine structure.
    fn texture(x: f64, y: f64, seed: u64) -> [f64; 3] {
        [0.0, 100.0, 200.0].map(|shift| {
            let x = x + shift;
            0.6 * smooth(x / 17.0, y / 17.0, seed) + 0.4 * smooth(x / 5.0, y / 5.0, seed + 1)
        })
    }

    /// A frame as a function of the place.
    fn frame(colour: impl Fn(f64, f64) -> [f64; 3]) -> Vec<f32> {
        let places = (0..HEIGHT * WIDTH).map(|at| ((at % WIDTH) as f64, (at / WIDTH) as f64));
        places.flat_map(|(x, y)| colour(x, y)).map(|value| value as f32).collect()
    }

    /// The ratio of peak signal to noise of the part that lies `border` from the edges, in decibels.
    fn psnr(found: &[f32], expected: &[f32], border: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for y in border..HEIGHT - border {
            for at in (y * WIDTH + border) * 3..(y * WIDTH + WIDTH - border) * 3 {
                sum += f64::from(found[at] - expected[at]).powi(2);
                count += 1;
            }
        }
        -10.0 * (sum / f64::from(count)).max(1e-12).log10()
    }

    /// Frames at times 0 and 1 of a scene, the one at `t` as found, and how good that is beside the
    /// mean of both.
    fn check(scene: impl Fn(f64, f64, f64) -> [f64; 3], t: f32, border: usize, least: f64) {
        let at = |t: f64| frame(|x, y| scene(x, y, t));
        let (first, second, expected) = (at(0.0), at(1.0), at(f64::from(t)));
        let pairs = first.iter().zip(&second);
        let mixed: Vec<f32> = pairs.map(|(a, b)| a + (b - a) * t).collect();
        let first = MotionFrame::new(first, HEIGHT, WIDTH);
        let second = MotionFrame::new(second, HEIGHT, WIDTH);
        let found = Between::new(&first, &second).at(t);
        let (found, mixed) = (psnr(&found, &expected, border), psnr(&mixed, &expected, border));
        println!("{found:.1} dB, mixed {mixed:.1} dB");
        assert!(found >= least, "{found:.1} dB, not {least}; mixed it is {mixed:.1}");
        assert!(found >= mixed + 4.0, "{found:.1} dB is not far above mixing, {mixed:.1}");
    }

    #[test]
    fn a_moving_camera_is_followed_by_parts_of_a_pixel() {
        check(|x, y, t| texture(x + 5.5 * t, y - 2.25 * t, 1), 0.5, 8, 42.0);
        check(|x, y, t| texture(x + 5.5 * t, y - 2.25 * t, 1), 0.25, 8, 42.0);
        check(|x, y, t| texture(x - 14.0 * t, y + 6.0 * t, 1), 0.5, 16, 45.0);
        // At the borders each place is shown by one frame at least.
        check(|x, y, t| texture(x + 5.5 * t, y - 2.25 * t, 1), 0.5, 0, 33.0);
        let turned = |x: f64, y: f64, angle: f64| {
            let (x, y, (sin, cos)) = (x - 112.0, y - 80.0, angle.sin_cos());
            texture(x * cos - y * sin, x * sin + y * cos, 1)
        };
        check(|x, y, t| turned(x, y, 0.04 * t), 0.5, 8, 38.0);
    }

    /// The object and the ground that it covers and uncovers, both textured.
    #[test]
    fn what_moves_over_a_ground_covers_it() {
        let scene = |x: f64, y: f64, t: f64| {
            let (left, top) = (70.0 + 20.0 * t, 50.0 + 6.0 * t);
            let inside = (left..left + 56.0).contains(&x) && (top..top + 48.0).contains(&y);
            if inside { texture(x - left, y - top, 9) } else { texture(x, y, 1) }
        };
        check(scene, 0.5, 0, 30.0);
        // The object stands still, the ground moves behind it.
        let scene = |x: f64, y: f64, t: f64| {
            let inside = (70.0..150.0).contains(&x) && (40.0..110.0).contains(&y);
            if inside { texture(x, y, 9) } else { texture(x + 10.0 * t, y, 1) }
        };
        check(scene, 0.5, 16, 33.0);
    }

    /// Plain colours, as the embedded model draws them: nothing but the outline can be matched.
    #[test]
    fn a_plain_disc_arrives_half_way() {
        let disc = |t: f64| {
            move |x: f64, y: f64| match (x - 90.0 - 12.0 * t).hypot(y - 80.0) < 22.0 {
                true => [0.9, 0.1, 0.1],
                false => [1.0, 1.0, 1.0],
            }
        };
        let found = {
            let first = MotionFrame::new(frame(disc(0.0)), HEIGHT, WIDTH);
            let second = MotionFrame::new(frame(disc(1.0)), HEIGHT, WIDTH);
            Between::new(&first, &second).at(0.5)
        };
        let expected = frame(disc(0.5));
        let wrong = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 0.1).count();
        assert!(wrong < 60, "{wrong} values differ");
    }

    #[test]
    fn stillness_cuts_and_fades_stay_what_they_are() {
        let (one, other) = (frame(|x, y| texture(x, y, 1)), frame(|x, y| texture(x, y, 77)));
        let of = |frame: &[f32]| MotionFrame::new(frame.to_vec(), HEIGHT, WIDTH);
        let still = Between::new(&of(&one), &of(&one)).at(0.5);
        assert!(still == one, "a still picture is not changed by a bit");
        let (first, second) = (of(&one), of(&other));
        let cut = Between::new(&first, &second);
        assert!(cut.at(0.5) == one && cut.at(0.75) == other, "a cut repeats the nearer frame");
        for light in [0.9, 0.6, 0.2] {
            let darker: Vec<f32> = one.iter().map(|value| value * light).collect();
            let (first, second) = (of(&one), of(&darker));
            let faded = Between::new(&first, &second).at(0.5);
            let expected: Vec<f32> = one.iter().map(|value| value * (1.0 + light) / 2.0).collect();
            let psnr = psnr(&faded, &expected, 0);
            assert!(psnr > 40.0, "half way of a fade to {light}: {psnr:.1} dB");
        }
    }

    #[test]
    fn frames_of_any_size_have_frames_between() {
        for (height, width) in [(1, 1), (1, 300), (300, 1), (7, 9), (8, 8), (33, 17)] {
            let ramp = |shift: usize| {
                let value = |at: usize| ((at + shift) % 97) as f32 / 97.0;
                MotionFrame::new((0..height * width * 3).map(value).collect(), height, width)
            };
            let (first, second) = (ramp(0), ramp(3));
            for t in [0.1, 0.5, 0.9] {
                let found = Between::new(&first, &second).at(t);
                assert_eq!(found.len(), height * width * 3);
                assert!(found.iter().all(|value| (0.0..=1.0).contains(value)));
            }
        }
    }

    /// Seconds that this thread has had a core for, which others on the machine do not lengthen.
    fn spent_by_this_thread() -> f64 {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let nanoseconds: u64 = stat.split(' ').next().unwrap().parse().unwrap();
        nanoseconds as f64 / 1e9
    }

    /// The speed of one core, on request: `KINO_MEASURE=1 cargo test --release -p kino-nodes --lib
    /// motion -- --nocapture --test-threads 1`.
    #[test]
    fn five_frames_a_second_of_480_lines_on_request() {
        if std::env::var_os("KINO_MEASURE").is_none() {
            return;
        }
        let (height, width) = (480, 832);
        let at = |t: f64| {
            let places = (0..height * width).map(|at| ((at % width) as f64, (at / width) as f64));
            let rgb = places.flat_map(|(x, y)| texture(x + 7.5 * t, y + 3.25 * t, 1));
            rgb.map(|value| value as f32).collect::<Vec<f32>>()
        };
        let (first, second) = (at(0.0), at(1.0));
        let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let spent = one_core.install(|| {
                let before = MotionFrame::new(first.clone(), height, width);
                let begun = spent_by_this_thread();
                let next = MotionFrame::new(second.clone(), height, width);
                Between::new(&before, &next).at(0.5);
                spent_by_this_thread() - begun
            });
            best = best.min(spent);
        }
        println!(
            "frames.interpolate x2 of 480x832: {:.1} new frames a second, one core",
            1.0 / best
        );
        assert!(best <= 0.2, "{best} s a frame");
    }
}
