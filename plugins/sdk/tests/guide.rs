//! The code of the author's guide (`plugins/README.md`), compiled and run.

use kino_plugin::prelude::*;
use kino_plugin::testing;

/// Multiplies every frame by a gain.
#[node(id = "bright.gain", like = "frames")]
fn gain(
    cx: &mut Cx,
    frames: Frames,
    #[param(default = 1.5, range = 0.0..=4.0)] gain: f64,
) -> Result<Frames> {
    frames.map_samples(cx, |x| (x * gain).min(1.0))
}
kino_plugin::plugin!(gain);

/// Reads the titles of a film, a line each.
#[node(id = "example.titles", version = "1.0.0", outputs("titles", "longest"))]
fn titles(cx: &mut Cx, path: Path) -> Result<(Vec<String>, Option<i64>)> {
    let text = cx.read_text(&path)?;
    let titles: Vec<_> = text.lines().map(str::to_owned).collect();
    ensure!(!titles.is_empty(), "`{path}` has no line");
    for done in 1..=titles.len() {
        cx.check_cancel()?;
        cx.progress(done, titles.len());
    }
    tracing::info!(count = titles.len(), "Read {path}");
    let longest = || titles.iter().map(|title| title.chars().count() as i64).max();
    let longest = if cx.wants(1) { longest() } else { None };
    Ok((titles, longest))
}

/// Lays a video over another where a mask is 1.
#[node(
    id = "example.over",
    version = "1.0.0",
    like = "under",
    same_size("under", "over", "mask"),
    same_count("under", "over", "mask")
)]
fn over(cx: &mut Cx, under: Frames, over: Frames, mask: Option<Mask>) -> Result<Frames> {
    // `[f, h, w]`, one value a pixel; `[1, h, w]` stands for all frames.
    let mask = match mask {
        Some(Mask(tensor)) => tensor,
        None => Tensor::zeros::<f32>(&[1, under.height(), under.width()])?.add(1.0)?,
    };
    let [masks, ..] = mask.shape::<3>()?;
    under.map_frames(cx, |frame: FrameView<'_>, out, index| {
        let over = over.frame(index)?;
        let mask = mask.slice(0, index % masks, 1)?.to_vec::<f32>()?;
        let pixels = frame.rgb.chunks_exact(3).zip(over.chunks_exact(3)).zip(mask);
        for (out, ((under, over), share)) in out.chunks_exact_mut(3).zip(pixels) {
            for (out, (under, over)) in out.iter_mut().zip(under.iter().zip(over)) {
                *out = under + (over - under) * share;
            }
        }
        Ok(())
    })
}

/// Brightens frames by the curve of a table, which is expensive to make.
struct Tone(Vec<f32>);

#[node(id = "example.tone", version = "1.0.0", like = "frames")]
impl Tone {
    /// `load(cx: &mut Cx)` may read granted files. Inputs are there in `run` only.
    fn load() -> Tone {
        Tone((0..=4095).map(|level| (level as f32 / 4095.0).powf(0.45)).collect())
    }

    fn run(&mut self, cx: &mut Cx, frames: Frames) -> Result<Frames> {
        frames.map_each(cx, |x| self.0[(x.clamp(0.0, 1.0) * 4095.0) as usize])
    }

    fn save(&self) -> Vec<u8> {
        self.0.iter().flat_map(|level| level.to_le_bytes()).collect()
    }

    /// What an error refuses is loaded anew.
    fn restore(saved: &[u8]) -> Result<Tone> {
        let (levels, rest) = saved.as_chunks::<4>();
        ensure!(levels.len() == 4096 && rest.is_empty(), "saved by another build");
        Ok(Tone(levels.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }
}

/// Guides less and less: `scale` at the first step, next to nothing at the last.
#[guider(id = "example.fading", version = "1.0.0")]
fn fading(
    step: SamplingStep,
    with_text: Tensor,
    without_text: Tensor,
    #[param(default = 6.0, range = 1.0..=20.0)] scale: f64,
) -> Result<Tensor> {
    let left = 1.0 - step.index as f64 / step.count as f64;
    let change = with_text.sub(&without_text)?;
    without_text.add(&change.mul(1.0 + (scale - 1.0) * left)?)
}

#[derive(Choice, Clone, Copy)]
enum Measure {
    Red,
    Luminance,
}

/// How bright each pixel is.
#[port_type("example.light")]
struct Light {
    /// `[count, height, width]`.
    levels: Tensor,
    measure: Measure,
}

#[derive(Outputs)]
struct Measured {
    light: Light,
    #[output(about = "Their mean.")]
    mean: f64,
}

/// Measures how bright frames are.
#[node(id = "example.measure", version = "1.0.0")]
fn measure(
    frames: Frames,
    #[param(default = Measure::Luminance)] measure: Measure,
) -> Result<Measured> {
    let weights: [f32; 3] = match measure {
        Measure::Red => [1.0, 0.0, 0.0],
        Measure::Luminance => [0.2126, 0.7152, 0.0722],
    };
    let weights = Tensor::from_slice(&weights, &[3, 1])?;
    let levels = |chunk: Result<Tensor>| {
        let chunk = chunk?;
        let [n, h, w, _] = chunk.shape()?.map(|size| size as isize);
        chunk.matmul(&weights)?.reshape(&[n, h, w])
    };
    let levels = frames.chunks().map(levels).collect::<Result<Vec<_>>>()?;
    let levels = Tensor::concat(&levels.iter().collect::<Vec<_>>(), 0)?;
    let mean = levels.mean(&[])?.to_scalar::<f32>()?.into();
    Ok(Measured { light: Light { levels, measure }, mean })
}

/// What every source begins with.
const USE: &str = "use kino_plugin::prelude::*;\n";

/// Every block of the guide stands here.
#[test]
fn the_guide_is_compiled() {
    let guide = include_str!("../../README.md");
    let plain = |text: &str| text.split_whitespace().collect::<String>().replace(",)", ")");
    let here = plain(include_str!("guide.rs"));
    let blocks: Vec<_> = guide.split("```rust\n").skip(1).collect();
    assert!(blocks.len() > 4);
    for block in blocks {
        let block = block.split("```").next().unwrap().trim_start_matches(USE);
        assert!(here.contains(&plain(block)), "this is not compiled:\n{block}");
    }
}

#[test]
fn a_gain() -> Result<()> {
    let frames = Frames::random(1, [2, 4, 6, 3]);
    let out = testing::run::<gain>().input("frames", &frames).param("gain", 0.5).call()?;
    testing::assert_close(&out.frames("frames")?.joined()?, &frames.joined()?.mul(0.5)?, 1e-6);
    Ok(())
}

#[test]
fn titles_are_read() -> Result<()> {
    let run = || testing::run::<titles>().file("a.txt", "One\nThree\n");
    let out = run().param("path", Path("a.txt".into())).call()?;
    assert_eq!(out.int("longest")?, 5);
    assert_eq!(out.progress(), [(1, 2), (2, 2)]);
    assert_eq!(out.logs()[0].message, "Read a.txt count=2");
    let out = run().param("path", Path("a.txt".into())).without("longest").call()?;
    assert!(out.has("titles") && !out.has("longest"));
    Ok(())
}

#[test]
fn pictures_that_must_agree_are_refused_where_they_do_not() -> Result<()> {
    let (under, above) = (Frames::random(1, [2, 4, 6, 3]), Frames::random(2, [2, 4, 6, 3]));
    let half = Tensor::zeros::<f32>(&[1, 4, 6])?.add(0.5)?;
    let run = || testing::run::<over>().input("under", &under);
    let out = run().input("over", &above).input("mask", Mask(half)).call()?;
    let expected = under.joined()?.add(&above.joined()?)?.mul(0.5)?;
    testing::assert_close(&out.frames("frames")?.joined()?, &expected, 1e-6);
    let shown = format!("{out:?}");
    assert_eq!(shown, "Done { frames: Frames(2 of 6x4, 8 a second) }");
    let whole = run().input("over", &above).call()?.frames("frames")?.joined()?;
    testing::assert_close(&whole, &above.joined()?, 1e-6);
    let refused = |over: [usize; 4]| {
        let over = Frames::random(3, over);
        run().input("over", &over).call().unwrap_err().message().to_owned()
    };
    assert_eq!(
        refused([2, 4, 8, 3]),
        "`example.over` takes `under` and `over` of one size: `under` is 6x4, `over` is 8x4"
    );
    assert_eq!(
        refused([3, 4, 6, 3]),
        "`example.over` takes as many of `under` as of `over`: `under` has 2 frames, `over` 3 frames"
    );
    let mask = Mask(Tensor::zeros::<f32>(&[1, 8, 6])?);
    let error = run().input("over", &above).input("mask", mask).call().unwrap_err();
    assert!(error.message().ends_with("`under` is 6x4, `mask` is 6x8"), "{error}");
    Ok(())
}

/// What a node gave is printed in words.
#[test]
fn what_a_node_gave_is_printed() -> Result<()> {
    let out = testing::run::<titles>().file("a.txt", "One\nThree\n").param("path", "a.txt");
    let shown = format!("{:?}", out.call()?);
    let expected = "Done { titles: [\"One\", \"Three\"], longest: 5, logs: [";
    assert!(shown.starts_with(expected), "{shown}");
    let [with, without] = [3, 4].map(|seed| Tensor::random(seed, &[2, 2]));
    let step = SamplingStep { index: 0, count: 4, sigma: 1.0 };
    let run = testing::run::<fading>().sampling_step(step).input("with_text", &with);
    let shown = format!("{:?}", run.input("without_text", &without).call()?);
    assert!(shown.starts_with("Done { velocity: Tensor(f32 [2, 2]) ["), "{shown}");
    let tone = testing::open::<Tone>().done()?;
    assert_eq!(format!("{tone:?}"), "Opened(example.tone)");
    Ok(())
}

#[test]
fn state_outlives_a_rebuild() -> Result<()> {
    let frames = Frames::random(2, [1, 4, 4, 3]);
    let mut tone = testing::open::<Tone>().done()?;
    let before = tone.run().input("frames", &frames).call()?.frames("frames")?.joined()?;
    testing::assert_close(&before, &frames.joined()?.pow(0.45)?, 0.05);
    let saved = tone.save()?.unwrap();
    let mut newer = testing::open::<Tone>().saved(saved).done()?;
    let after = newer.run().input("frames", &frames).call()?.frames("frames")?.joined()?;
    testing::assert_close(&after, &before, 0.0);
    assert!(testing::open::<Tone>().saved([1u8]).done().is_err());
    Ok(())
}

#[test]
fn a_guider_fades() -> Result<()> {
    let (with, without) = (Tensor::random(3, &[6, 8]), Tensor::random(4, &[6, 8]));
    let at = |step| {
        let run = testing::run::<fading>().sampling_step(SamplingStep {
            index: step,
            count: 4,
            sigma: 1.0,
        });
        let run = run.input("with_text", &with).input("without_text", &without);
        run.param("scale", 5.0).call()?.tensor("velocity")
    };
    let expected = without.add(&with.sub(&without)?.mul(5.0)?)?;
    testing::assert_close(&at(0)?, &expected, testing::relative(1e-5).or(1e-6));
    let expected = without.add(&with.sub(&without)?.mul(2.0)?)?;
    testing::assert_close(&at(3)?, &expected, testing::relative(1e-5).or(1e-6));
    Ok(())
}

#[test]
fn own_types_carry_choices() -> Result<()> {
    let frames = Frames::random(5, [3, 2, 4, 3]);
    let run = testing::run::<measure>().input("frames", &frames).param("measure", "red");
    let out = run.call()?;
    let light: Light = out.get("light")?;
    assert_eq!((light.levels.dims(), light.measure.name()), (&[3, 2, 4][..], "red"));
    let red = frames.joined()?.slice(-1, 0, 1)?.reshape(&[3, 2, 4])?;
    testing::assert_close(&light.levels, &red, 1e-6);
    let mean: f64 = out.real("mean")?;
    assert!((mean - f64::from(red.mean(&[])?.to_scalar::<f32>()?)).abs() < 1e-6);
    Ok(())
}
