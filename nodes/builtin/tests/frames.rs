//! Nodes that change frames and masks, on pixels.

mod common;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use common::{
    Rig, close, distance, fact_list, int, known, named, number, reference, several, text, values,
};
use kino_node::{
    FrameRate, Frames, FramesBuilder, FramesFact, Latent, LatentFact, LatentSpace, Ledger, Mask,
    MaskFact, Value, ValueType,
};
use kino_port::{Fact, Literal};
use kino_world::Folders;

/// The value of a pixel: every frame, row, column and channel has another.
fn pixel(frame: usize, y: usize, x: usize, channel: usize) -> f32 {
    ((frame * 131 + y * 17 + x * 5 + channel * 3) % 251) as f32 / 251.0
}

fn picture(frames: std::ops::Range<usize>, height: usize, width: usize) -> Tensor {
    let count = frames.len();
    let mut all = Vec::new();
    for frame in frames {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            all.extend((0..3).map(|channel| pixel(frame, y, x, channel)));
        }
    }
    Tensor::from_vec(all, (count, height, width, 3), &Device::Cpu).unwrap()
}

/// A clip that is held in chunks of these lengths.
fn chunked(rig: &Rig, lengths: &[usize], height: usize, width: usize) -> Value {
    let mut builder = FramesBuilder::new(&rig.services.ledger, Some(12.0));
    let mut start = 0;
    for length in lengths {
        builder.push(&picture(start..start + length, height, width)).unwrap();
        start += length;
    }
    Value::from(builder.finish().unwrap())
}

fn fact(count: Option<usize>, height: usize, width: usize) -> Fact {
    let (height, width, fps) = (Some(height), Some(width), FrameRate::Fps(12.0));
    Fact::typed(FramesFact { count, height, width, fps })
}

/// Runs a node that gives frames, and checks that its plan knew them and their memory.
#[track_caller]
fn frames_of(rig: &Rig, op: &str, given: &[(&str, Value)]) -> Tensor {
    let facts: Vec<(&str, Fact)> =
        given.iter().map(|(port, value)| (*port, fact_of(value))).collect();
    let planned = rig.infer(op, &facts).unwrap_or_else(|errors| panic!("{op}: {errors:?}"));
    let frames = rig.one(op, given).shared::<Frames>().expect("frames");
    assert_eq!(planned.outputs[0].get(), Some(&frames.fact()), "{op}: planned and found");
    assert!(planned.memory >= frames.bytes(), "{op}: {} bytes", planned.memory);
    assert_eq!(planned.spillable, frames.bytes(), "{op}");
    frames.whole().unwrap()
}

fn fact_of(value: &Value) -> Fact {
    match value {
        Value::List(items) => {
            Fact::List(items.iter().map(|(name, item)| (name.clone(), fact_of(item))).collect())
        }
        Value::Int(value) => number(*value),
        Value::Text(value) => known(value),
        value => match value.get::<Frames>() {
            Some(frames) => Fact::typed(frames.fact()),
            None => Fact::Unknown,
        },
    }
}

#[test]
fn a_crop_is_the_pixels_of_its_rectangle() {
    let rig = Rig::new("crop");
    let clip = chunked(&rig, &[1, 4, 2], 9, 12);
    let rect = [("x", int(3)), ("y", int(2)), ("width", int(5)), ("height", int(4))];
    let inputs = [&[("frames", clip.clone())], &rect[..]].concat();
    let found = frames_of(&rig, "frames.crop", &inputs);
    let expected = picture(0..7, 9, 12).narrow(1, 2, 4).unwrap().narrow(2, 3, 5).unwrap();
    assert_eq!(distance(&found, &expected), 0.0);
    let outside = [
        ("frames", fact(Some(7), 9, 12)),
        ("x", number(8)),
        ("y", number(6)),
        ("width", number(5)),
        ("height", number(4)),
    ];
    assert_eq!(
        rig.objects("frames.crop", &outside),
        "width: the rectangle ends at 13, past the width of the frames, 12\n\
         height: the rectangle ends at 10, past the height of the frames, 9"
    );
    let run = [("frames", clip), ("x", int(8)), ("width", int(5)), ("height", int(4))];
    assert_eq!(
        rig.fails("frames.crop", &run),
        "input `width`: the rectangle ends at 13, past the width of the frames, 12"
    );
}

#[test]
fn trimmed_joined_and_turned_clips_are_the_frames_in_their_order() {
    let rig = Rig::new("time");
    let clip = chunked(&rig, &[1, 4, 4, 2], 4, 6);
    let trim = |start: i128, count: i128| {
        let inputs = [("frames", clip.clone()), ("start", int(start)), ("count", int(count))];
        frames_of(&rig, "frames.trim", &inputs)
    };
    for (start, count) in [(0, 1), (0, 11), (3, 4), (1, 4), (10, 1), (4, 7)] {
        let expected = picture(start..start + count, 4, 6);
        assert_eq!(distance(&trim(start as i128, count as i128), &expected), 0.0);
    }
    let rest = frames_of(&rig, "frames.trim", &[("frames", clip.clone()), ("start", int(8))]);
    assert_eq!(distance(&rest, &picture(8..11, 4, 6)), 0.0);
    let last = frames_of(&rig, "frames.trim", &[("frames", clip.clone()), ("start", int(-3))]);
    assert_eq!(distance(&last, &picture(8..11, 4, 6)), 0.0);
    assert_eq!(distance(&trim(-7, 2), &picture(4..6, 4, 6)), 0.0);

    let turned = frames_of(&rig, "frames.reverse", &[("frames", clip.clone())]);
    let backwards: Vec<Tensor> =
        (0..11).rev().map(|frame| picture(frame..frame + 1, 4, 6)).collect();
    assert_eq!(distance(&turned, &Tensor::cat(&backwards, 0).unwrap()), 0.0);

    let image = Value::from(Frames::from_tensor(&picture(50..51, 4, 6), None).unwrap());
    let parts = several(&[image, clip.clone(), chunked(&rig, &[3], 4, 6)]);
    let joined = frames_of(&rig, "frames.concat", &[("parts", parts)]);
    let expected = [picture(50..51, 4, 6), picture(0..11, 4, 6), picture(0..3, 4, 6)];
    assert_eq!(distance(&joined, &Tensor::cat(&expected, 0).unwrap()), 0.0);
}

#[test]
fn what_time_does_not_have_is_refused_before_and_while_running() {
    let rig = Rig::new("time-refused");
    let wish = |start: i128, count: i128| {
        [("frames", fact(Some(11), 4, 6)), ("start", number(start)), ("count", number(count))]
    };
    assert_eq!(
        rig.objects("frames.trim", &wish(8, 4)),
        "count: 4 frames from frame 8 on cannot be had: the clip has 11 frames, 0 to 10 (take fewer \
         frames, or begin earlier)"
    );
    assert!(rig.objects("frames.trim", &wish(11, 1)).starts_with("start: frame 11 cannot be had"));
    let clip = chunked(&rig, &[1, 4], 4, 6);
    let fails = rig.fails("frames.trim", &[("frames", clip.clone()), ("start", int(5))]);
    assert!(fails.contains("frame 5 cannot be had: the clip has 5 frames, 0 to 4"), "{fails}");
    // A length that only the run gives is no error of the plan.
    let unknown = [("frames", fact(None, 4, 6)), ("start", number(8))];
    let planned = rig.fact("frames.trim", &unknown, 0);
    assert_eq!(planned.get::<FramesFact>().unwrap().count, None);

    let sizes = fact_list(&[("", fact(Some(2), 4, 6)), ("", fact(Some(1), 6, 4))]);
    assert_eq!(
        rig.objects("frames.concat", &[("parts", sizes)]),
        "parts: all parts have one size, but the first is 6×4 and part 2 is 4×6 (a `frames.fit` \
         node brings frames to a size)"
    );
    let fps = FrameRate::Fps(8.0);
    let slow = FramesFact { count: Some(2), height: Some(4), width: Some(6), fps };
    let slow = Fact::typed(slow);
    let rates = fact_list(&[("", fact(Some(2), 4, 6)), ("", slow)]);
    assert!(
        rig.objects("frames.concat", &[("parts", rates)])
            .starts_with("parts: all parts have one rate, but they have 12 and 8 frames/s")
    );
    let parts = several(&[clip, chunked(&rig, &[1], 6, 4)]);
    let fails = rig.fails("frames.concat", &[("parts", parts)]);
    assert!(fails.contains("the first is 6×4 and part 2 is 4×6"), "{fails}");
}

/// A white disc in the middle of a grey picture stays as round as it was, unless it is stretched.
#[test]
fn another_shape_is_cut_or_barred_and_stretched_only_on_request() {
    let rig = Rig::new("fit");
    let (height, width) = (80, 120);
    let disc = |y: f64, x: f64| (y - 39.5).hypot(x - 59.5) < 24.0;
    let pixels = (0..height * width).flat_map(|at| {
        let white = disc((at / width) as f64, (at % width) as f64);
        [if white { 1f32 } else { 0.5 }; 3]
    });
    let frame = Tensor::from_vec(pixels.collect(), (1, height, width, 3), &Device::Cpu).unwrap();
    let frames = Value::from(Frames::from_tensor(&frame, Some(12.0)).unwrap());
    let fitted = |fit: &str| {
        let size = [("width", int(60)), ("height", int(60)), ("fit", text(fit))];
        frames_of(&rig, "frames.fit", &[&[("frames", frames.clone())], &size[..]].concat())
    };
    // How wide and how high the disc is, along the lines through the middle.
    let extent = |shown: &Tensor| {
        let shown = shown.squeeze(0).unwrap().narrow(2, 0, 1).unwrap().squeeze(2).unwrap();
        let bright = |line: Tensor| {
            line.to_vec1::<f32>().unwrap().iter().filter(|value| **value > 0.75).count()
        };
        (bright(shown.get(30).unwrap()), bright(shown.t().unwrap().get(30).unwrap()))
    };
    let crop = fitted("crop");
    assert_eq!(extent(&crop), (36, 36));
    assert!(values(&crop).iter().all(|value| *value > 0.4), "no bars");
    let pad = fitted("pad");
    assert_eq!(extent(&pad), (24, 24));
    let rows: Vec<f64> = (0..60)
        .map(|y| values(&pad.narrow(1, y, 1).unwrap()).iter().sum::<f64>() / 180.0)
        .collect();
    assert!(rows[..10].iter().chain(&rows[50..]).all(|row| *row == 0.0), "black bars: {rows:?}");
    assert!(rows[11..49].iter().all(|row| *row > 0.4), "the picture: {rows:?}");
    assert_eq!(extent(&fitted("stretch")), (24, 36));
    // The default cuts; the same size leaves every pixel.
    let size = [("width", int(60)), ("height", int(60))];
    let default =
        frames_of(&rig, "frames.fit", &[&[("frames", frames.clone())], &size[..]].concat());
    assert_eq!(distance(&default, &crop), 0.0);
    let same = [("frames", frames.clone()), ("width", int(120)), ("height", int(80))];
    assert_eq!(distance(&frames_of(&rig, "frames.fit", &same), &frame), 0.0);
}

/// Pictures of one pixel, and of one line, come out at any size.
#[test]
fn the_smallest_pictures_fit_anywhere() {
    let rig = Rig::new("small");
    for (height, width) in [(1, 1), (1, 2000), (2000, 1), (3, 2)] {
        for fit in ["crop", "pad", "stretch"] {
            let clip =
                Value::from(Frames::from_tensor(&picture(0..1, height, width), None).unwrap());
            let size = [("width", int(32)), ("height", int(16)), ("fit", text(fit))];
            let shown = frames_of(&rig, "frames.fit", &[&[("frames", clip)], &size[..]].concat());
            assert_eq!(shown.dims(), [1, 16, 32, 3]);
            assert!(values(&shown).iter().all(|value| (0.0..=1.0).contains(value)));
        }
    }
}

#[test]
fn numbers_of_a_clip_are_known_while_planning() {
    let rig = Rig::new("info");
    let clip = chunked(&rig, &[1, 4], 4, 6);
    let facts = [("frames", fact(Some(5), 4, 6))];
    let planned = rig.infer("frames.info", &facts).unwrap().outputs;
    let ran = rig.run("frames.info", &[("frames", clip)]);
    let expected = [Literal::Int(6), Literal::Int(4), Literal::Int(5), Literal::Real(12.0)];
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(planned[index].literal(), Some(expected));
        assert_eq!(ran[index].as_ref().unwrap().literal().as_ref(), Some(expected));
    }
    let still = Value::from(Frames::from_tensor(&picture(0..1, 2, 2), None).unwrap());
    assert!(rig.fails("frames.info", &[("frames", still)]).contains("have no rate"));
    let unknown = rig.infer("frames.info", &[("frames", fact(None, 4, 6))]).unwrap().outputs;
    assert!(unknown[2].literal().is_none() && unknown[0].literal().is_some());
}

#[track_caller]
fn mask_of(rig: &Rig, op: &str, given: &[(&str, Value)]) -> Tensor {
    let Some(mask) = rig.one(op, given).shared::<Mask>() else { panic!("{op}: expected a mask") };
    mask.tensor.clone()
}

#[test]
fn a_rectangle_is_one_within_and_zero_elsewhere() {
    let rig = Rig::new("rect");
    let sizes =
        [("width", 8), ("height", 6), ("x", 2), ("y", 1), ("w", 3), ("h", 4), ("frames", 2)];
    let mask = mask_of(&rig, "mask.rect", &sizes.map(|(port, size)| (port, int(size))));
    assert_eq!(mask.dims(), [2, 6, 8]);
    for (index, value) in values(&mask).into_iter().enumerate() {
        let (y, x) = (index / 8 % 6, index % 8);
        let within = (1..5).contains(&y) && (2..5).contains(&x);
        assert_eq!(value, f64::from(u8::from(within)), "at {x}, {y}");
    }
    let facts = sizes.map(|(port, size)| (port, number(size)));
    let planned = rig.infer("mask.rect", &facts).unwrap();
    assert_eq!(planned.outputs[0].get(), Some(&MaskFact { shape: [2, 6, 8].map(Some) }));
    assert!(planned.memory >= 2 * 6 * 8 * 4);
    let wide = sizes.map(|(port, size)| (port, number(if port == "w" { 7 } else { size })));
    assert_eq!(
        rig.objects("mask.rect", &wide),
        "w: the rectangle ends at 9, past the edge of the mask, 8"
    );
    let turned =
        mask_of(&rig, "mask.invert", &[("mask", Value::from(Mask { tensor: mask.clone() }))]);
    assert_eq!(distance(&turned, &mask.affine(-1.0, 1.0).unwrap()), 0.0);
}

#[test]
fn a_soft_edge_lies_around_the_edge_and_nowhere_else() {
    let rig = Rig::new("feather");
    let sizes = [("width", 64), ("height", 40), ("x", 0), ("y", 0), ("w", 32), ("h", 40)];
    let hard = mask_of(&rig, "mask.rect", &sizes.map(|(port, size)| (port, int(size))));
    let soft = |radius: i128| {
        let mask = Value::from(Mask { tensor: hard.clone() });
        mask_of(&rig, "mask.feather", &[("mask", mask), ("radius", int(radius))])
    };
    assert_eq!(distance(&soft(0), &hard), 0.0);
    let mask = soft(6);
    let rows: Vec<Vec<f32>> = mask.squeeze(0).unwrap().to_vec2().unwrap();
    for row in &rows {
        let same = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
        assert!(row.iter().zip(&rows[0]).all(same), "an edge from top to bottom");
        assert!(row.windows(2).all(|pair| pair[0] >= pair[1]), "it falls: {row:?}");
        assert!(row[..26].iter().all(|value| *value == 1.0), "{row:?}");
        assert!(row[38..].iter().all(|value| *value == 0.0), "{row:?}");
        assert!((row[31] + row[32] - 1.0).abs() < 1e-6, "half at the edge: {row:?}");
        assert!(row[27] < 1.0 && row[36] > 0.0, "{row:?}");
    }
}

#[test]
fn an_image_is_a_mask_by_its_lightness() {
    let rig = Rig::new("mask-read");
    let colours = [[0f32, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    let image = Tensor::new(&colours, &Device::Cpu).unwrap().reshape((1, 2, 2, 3)).unwrap();
    let frames = Value::from(Frames::from_tensor(&image, None).unwrap());
    let file = rig.one("image.write", &[("frames", frames), ("path", text("m.png"))]);
    let Value::File(file) = file else { panic!("expected a file") };
    let path = file.path.to_str().unwrap();
    let mask = mask_of(&rig, "mask.read", &[("path", text(path))]);
    let expected = Tensor::new(&[0f32, 1.0, 0.2126, 0.7152], &Device::Cpu).unwrap();
    close("lightness", &mask, &expected.reshape((1, 2, 2)).unwrap(), 1e-6);
    let planned = rig.fact("mask.read", &[("path", known(path))], 0);
    assert_eq!(planned.get(), Some(&MaskFact { shape: [1, 2, 2].map(Some) }));
}

/// A PNG with alpha, `width` pixels wide.
fn png_with_alpha(rgba: &[u8], width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, rgba.len() as u32 / 4 / width);
    encoder.set_color(png::ColorType::Rgba);
    encoder.write_header().unwrap().write_image_data(rgba).unwrap();
    bytes
}

#[test]
fn what_is_transparent_shows_a_background_and_alpha_is_a_mask() {
    let rig = Rig::new("alpha");
    std::fs::create_dir_all(&rig.out).unwrap();
    let path = rig.out.join("a.png");
    std::fs::write(&path, png_with_alpha(&[255, 0, 51, 255, 255, 0, 51, 102, 9, 9, 9, 0], 3))
        .unwrap();
    let path = path.to_str().unwrap();
    let tensor = |values: &[f32], shape: &[usize]| {
        Tensor::new(values, &Device::Cpu).unwrap().reshape(shape).unwrap()
    };
    let seen = |background: &str| {
        let inputs = [("path", text(path)), ("background", text(background))];
        rig.one("image.read", &inputs).tensor().unwrap()
    };
    let over_black = [1.0, 0.0, 0.2, 0.4, 0.0, 0.08, 0.0, 0.0, 0.0];
    close("black", &seen("#000000"), &tensor(&over_black, &[1, 1, 3, 3]), 1e-6);
    let over_blue = [1.0, 0.0, 0.2, 0.4, 0.3, 0.68, 0.0, 0.5, 1.0];
    close("blue", &seen("#0080ff"), &tensor(&over_blue, &[1, 1, 3, 3]), 2e-3);
    let mask = |channel: &str| {
        mask_of(&rig, "mask.read", &[("path", text(path)), ("channel", text(channel))])
    };
    close("alpha", &mask("alpha"), &tensor(&[1.0, 0.4, 0.0], &[1, 1, 3]), 1e-6);
    close("blue", &mask("blue"), &tensor(&[0.2, 0.2, 9.0 / 255.0], &[1, 1, 3]), 1e-6);
    for wrong in ["blue", "#12345", "#+12345", "#12345g", "#1234567", ""] {
        let said =
            rig.objects("image.read", &[("path", known(path)), ("background", known(wrong))]);
        assert!(said.contains("expected a colour such as #20a0ff"), "{wrong}: {said}");
    }
}

#[test]
fn latents_are_mixed_by_their_weights() {
    let rig = Rig::new("blend");
    let space = |id: u8| LatentSpace { id: [id; 32], channels: 2, temporal: 4, spatial: 8 };
    let ramp = |scale: f64| {
        let ramp = Tensor::arange(0f32, 24f32, &Device::Cpu).unwrap();
        (ramp * scale).unwrap().reshape((2, 1, 3, 4)).unwrap()
    };
    let latent =
        |scale: f64, id: u8| Value::from(Latent { tensor: ramp(scale), space: Some(space(id)) });
    let mixed = |weight: f64| {
        let inputs =
            [("a", latent(1.0, 1)), ("b", latent(-2.0, 1)), ("weight", Value::Real(weight))];
        let Some(mixed) = rig.one("latent.blend", &inputs).shared::<Latent>() else { panic!() };
        assert_eq!(mixed.space, Some(space(1)));
        mixed.tensor.clone()
    };
    assert_eq!(distance(&mixed(0.0), &ramp(1.0)), 0.0);
    assert_eq!(distance(&mixed(1.0), &ramp(-2.0)), 0.0);
    close("a quarter", &mixed(0.25), &ramp(0.25), 1e-5);
    let fact = |shape: [usize; 4], id: u8| {
        Fact::typed(LatentFact { shape: shape.map(Some), space: Some(space(id)) })
    };
    let one = [2, 1, 3, 4];
    let planned = rig.infer("latent.blend", &[("a", fact(one, 1)), ("b", fact(one, 1))]).unwrap();
    assert_eq!(
        planned.outputs[0].get(),
        Some(&LatentFact { shape: one.map(Some), space: Some(space(1)) })
    );
    assert_eq!(
        rig.objects("latent.blend", &[("a", fact(one, 1)), ("b", fact([2, 2, 3, 4], 1))]),
        "b: both latents have one shape, found [2, 1, 3, 4] and [2, 2, 3, 4]"
    );
    assert!(
        rig.objects("latent.blend", &[("a", fact(one, 1)), ("b", fact(one, 2))])
            .starts_with("b: the latents lie in the spaces of two different VAEs")
    );
    let two = named(&[("x", latent(1.0, 1))]);
    assert!(rig.try_run("latent.blend", &[("a", two), ("b", latent(1.0, 1))]).is_err());
    assert_eq!(ramp(1.0).dtype(), DType::F32);
}

/// A textured clip whose frame `t` is shifted by `t`·(4, 2) pixels.
fn moving(count: usize, height: usize, width: usize) -> Tensor {
    let value = |t: usize, y: usize, x: usize, channel: usize| {
        let (x, y) = ((x + 4 * t) as f32, (y + 2 * t) as f32);
        let phase = channel as f32;
        0.5 + 0.2 * (x / 5.0 + phase).sin() * (y / 7.0).cos() + 0.2 * (x / 11.0 - y / 6.0).sin()
    };
    let mut all = Vec::new();
    for t in 0..count {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            all.extend((0..3).map(|channel| value(t, y, x, channel)));
        }
    }
    Tensor::from_vec(all, (count, height, width, 3), &Device::Cpu).unwrap()
}

#[test]
fn frames_lie_between_frames_and_those_given_stay() {
    let rig = Rig::new("interpolate");
    let all = moving(5, 64, 96);
    let mut builder = FramesBuilder::new(&rig.services.ledger, Some(8.0));
    builder.push(&all.narrow(0, 0, 1).unwrap()).unwrap();
    builder.push(&all.narrow(0, 1, 4).unwrap()).unwrap();
    let clip = Value::from(builder.finish().unwrap());
    for factor in [1, 2, 4] {
        let inputs = [("frames", clip.clone()), ("factor", int(factor as i128))];
        let found = frames_of(&rig, "frames.interpolate", &inputs);
        assert_eq!(found.dims()[0], 4 * factor + 1);
        for frame in 0..5 {
            let kept = found.narrow(0, frame * factor, 1).unwrap();
            assert_eq!(distance(&kept, &all.narrow(0, frame, 1).unwrap()), 0.0, "frame {frame}");
        }
        let Some(frames) = rig.one("frames.interpolate", &inputs).shared::<Frames>() else {
            panic!()
        };
        assert_eq!(frames.fps(), Some(8.0 * factor as f64));
    }
    // Every second frame of the clip is found again from those beside it.
    let halves = Tensor::cat(&[0, 2, 4].map(|frame| all.narrow(0, frame, 1).unwrap()), 0).unwrap();
    let halves = Value::from(Frames::from_tensor(&halves, None).unwrap());
    let found = frames_of(&rig, "frames.interpolate", &[("frames", halves), ("factor", int(2))]);
    let inside = |frames: &Tensor| {
        frames.narrow(1, 12, 40).unwrap().narrow(2, 16, 64).unwrap().contiguous().unwrap()
    };
    close("found again", &inside(&found), &inside(&all), 0.02);
    let one = Value::from(Frames::from_tensor(&all.narrow(0, 0, 1).unwrap(), None).unwrap());
    let alone = frames_of(&rig, "frames.interpolate", &[("frames", one), ("factor", int(4))]);
    assert_eq!(alone.dims()[0], 1);
}

/// What memory has no room for goes to disk, and comes out the same.
#[test]
fn frames_that_were_moved_to_disk_are_the_same() {
    let all = moving(9, 40, 56);
    let results = |budget: u64| {
        let mut rig = Rig::new(&format!("spilled-{budget}"));
        let ledger = Ledger::new(budget);
        let folders = Folders { graph: reference(""), out: rig.out.clone() };
        rig.services =
            kino_nodes::services(Device::Cpu, Arc::clone(&ledger)).with(Arc::new(folders));
        let mut builder = FramesBuilder::new(&ledger, Some(8.0));
        for frame in 0..9 {
            builder.push(&all.narrow(0, frame, 1).unwrap()).unwrap();
        }
        let clip = builder.finish().unwrap();
        let spilled = clip.bytes() - clip.resident();
        let clip = Value::from(clip);
        let run = |op: &str, port: &str, frames: Value, more: &[(&str, Value)]| {
            rig.one(op, &[&[(port, frames)], more].concat()).tensor().unwrap()
        };
        let size = [("width", int(24)), ("height", int(24))];
        let tensors = [
            run("frames.crop", "frames", clip.clone(), &[&size[..], &[("x", int(3))]].concat()),
            run("frames.fit", "frames", clip.clone(), &size),
            run("frames.trim", "frames", clip.clone(), &[("start", int(2)), ("count", int(5))]),
            run("frames.reverse", "frames", clip.clone(), &[]),
            run("frames.concat", "parts", several(&[clip.clone(), clip.clone()]), &[]),
            run("frames.interpolate", "frames", clip, &[]),
        ];
        (spilled, tensors)
    };
    let ((none, kept), (some, moved)) = (results(u64::MAX), results(120_000));
    assert_eq!(none, 0);
    assert!(some > 100_000, "{some} bytes on disk");
    for (kept, moved) in kept.iter().zip(&moved) {
        assert_eq!(distance(kept, moved), 0.0);
    }
}
