//! Frames between frames, without the engine.

use kino_plugin::prelude::*;
use kino_plugin::testing;
use optical_flow_blend::optical_flow_blend;

const SIZE: [usize; 2] = [40, 56];

/// A smooth pattern without a repeat, moved by rows and columns.
fn pattern(down: f32, right: f32) -> Vec<f32> {
    let mut rgb = Vec::new();
    for row in 0..SIZE[0] {
        for column in 0..SIZE[1] {
            let (y, x) = (row as f32 - down, column as f32 - right);
            let wave = |a: f32, b: f32, c: f32| 0.5 + 0.25 * (a * y + b * x + c).sin();
            let other = |a: f32, b: f32| 0.25 * (a * x * 0.05 + b * y * 0.04).cos();
            rgb.extend([
                wave(0.19, 0.11, 0.0) + other(3.0, 5.0),
                wave(0.07, 0.21, 1.0) + other(5.0, 2.0),
                wave(0.15, 0.17, 2.0) + other(4.0, 6.0),
            ]);
        }
    }
    rgb
}

fn frames(pictures: &[Vec<f32>], fps: Option<f64>) -> Result<Frames> {
    let mut builder = FramesBuilder::new(fps)?;
    for picture in pictures {
        builder.push(&Tensor::from_slice(picture, &[1, SIZE[0], SIZE[1], 3])?)?;
    }
    builder.finish()
}

fn interpolated(frames: &Frames, factor: u64) -> Result<Frames> {
    let run = testing::run::<optical_flow_blend>().input("frames", frames);
    run.param("factor", factor).call()?.frames("frames")
}

/// The mean difference away from the border, where what comes into the picture is not known.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for row in 8..SIZE[0] - 8 {
        for at in 3 * (row * SIZE[1] + 8)..3 * ((row + 1) * SIZE[1] - 8) {
            sum += (a[at] - b[at]).abs();
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn the_frames_between_lie_on_the_way() -> Result<()> {
    for (down, right) in [(0.0, 6.0), (4.0, -2.0), (-3.0, 5.0)] {
        for factor in [2, 3, 4] {
            let pictures = [pattern(0.0, 0.0), pattern(down, right)];
            let found = interpolated(&frames(&pictures, Some(8.0))?, factor)?;
            assert_eq!(
                (found.count() as u64, found.fps()),
                (factor + 1, Some(8.0 * factor as f64))
            );
            for step in 1..factor {
                let t = step as f32 / factor as f32;
                let expected = pattern(t * down, t * right);
                let frame = found.frame(step as usize)?;
                let zipped = pictures[0].iter().zip(&pictures[1]);
                let blend: Vec<f32> = zipped.map(|(a, b)| a + t * (b - a)).collect();
                let (off, plain) = (apart(&frame, &expected), apart(&blend, &expected));
                let what = format!("{down},{right} at {step}/{factor}: {off}, a blend {plain}");
                assert!(off < 0.002 && off < plain / 2.0, "{what}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_frames_that_were_there_stay_as_they_are() -> Result<()> {
    let pictures: Vec<_> = (0..4).map(|i| pattern(0.5 * i as f32, i as f32)).collect();
    let found = interpolated(&frames(&pictures, None)?, 3)?;
    assert_eq!((found.count(), found.fps()), (10, None));
    for (index, picture) in pictures.iter().enumerate() {
        assert_eq!(&found.frame(3 * index)?, picture);
    }
    Ok(())
}

#[test]
fn still_pictures_stay_still() -> Result<()> {
    let picture = pattern(1.0, 2.0);
    let found = interpolated(&frames(&[picture.clone(), picture.clone()], None)?, 2)?;
    let frame = found.frame(1)?;
    assert!(frame.iter().zip(&picture).all(|(a, b)| (a - b).abs() < 1e-6));
    Ok(())
}

#[test]
fn a_square_moves_without_a_ghost() -> Result<()> {
    let square = |left: usize| -> Vec<f32> {
        let at = |i: usize| (i / SIZE[1], i % SIZE[1]);
        let inside = |(row, column)| (14..26).contains(&row) && (left..left + 12).contains(&column);
        let pixels = (0..SIZE[0] * SIZE[1]).map(at);
        pixels.flat_map(|at| if inside(at) { [0.9, 0.1, 0.1] } else { [1.0; 3] }).collect()
    };
    let found = interpolated(&frames(&[square(16), square(22)], None)?, 2)?.frame(1)?;
    let expected = square(19);
    let wrong = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 0.2).count();
    // A plain blend is wrong in 6 columns of 12 rows, two channels each: 144.
    assert!(wrong <= 12, "{wrong} values are wrong");
    Ok(())
}

#[test]
fn one_frame_and_the_smallest_pass() -> Result<()> {
    let one = interpolated(&Frames::random(1, [1, 5, 7, 3]), 4)?;
    assert_eq!(one.count(), 1);
    let tiny = interpolated(&Frames::random(1, [3, 1, 1, 3]), 2)?;
    assert_eq!((tiny.count(), tiny.height(), tiny.width()), (5, 1, 1));
    Ok(())
}

#[test]
fn it_can_be_cancelled() -> Result<()> {
    let video = Frames::random(2, [4, 8, 8, 3]);
    let run = testing::run::<optical_flow_blend>().input("frames", &video).cancel_after(2);
    assert_eq!(run.call().err(), Some(Error::Cancelled));
    // It asks for every row of blocks, so one large frame does not hold a run up.
    let pair = Frames::random(2, [2, 64, 64, 3]);
    let run = testing::run::<optical_flow_blend>().input("frames", &pair).cancel_after(10);
    assert_eq!(run.call().err(), Some(Error::Cancelled));
    Ok(())
}
