//! Film grain, without the engine.

use film_grain::film_grain;
use kino_plugin::prelude::*;
use kino_plugin::testing;

/// Frames of one grey, in chunks of these lengths.
fn grey(value: f32, chunks: &[usize], [height, width]: [usize; 2]) -> Result<Frames> {
    let mut builder = FramesBuilder::new(Some(8.0))?;
    for &count in chunks {
        builder.push(&Tensor::new_with(&[count, height, width, 3], |out| out.fill(value))?)?;
    }
    builder.finish()
}

fn grained(frames: &Frames, strength: f64, size: f64, seed: u64) -> Result<Vec<f32>> {
    let run = testing::run::<film_grain>().input("frames", frames).param("strength", strength);
    let out = run.param("size", size).param("seed", seed).call()?;
    out.frames("frames")?.joined()?.to_vec()
}

fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[test]
fn grain_is_normal_noise_of_the_strength_asked_for() -> Result<()> {
    for size in [1.0, 2.5] {
        let found = grained(&grey(0.5, &[4], [64, 64])?, 0.08, size, 3)?;
        let pixels: Vec<f32> = found.chunks_exact(3).map(|rgb| rgb[0]).collect();
        assert!(found.chunks_exact(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]));
        let (mean, deviation) = mean_and_deviation(&pixels);
        assert!((mean - 0.5).abs() < 0.005, "size {size}: mean {mean}");
        assert!((deviation - 0.08).abs() < 0.005, "size {size}: deviation {deviation}");
        let within = pixels.iter().filter(|v| (**v - 0.5).abs() < 0.08).count();
        let share = within as f64 / pixels.len() as f64;
        assert!((share - 0.683).abs() < 0.03, "size {size}: {share} lie within one deviation");
    }
    Ok(())
}

#[test]
fn grain_follows_from_seed_frame_and_place_alone() -> Result<()> {
    let all = grained(&grey(0.4, &[5], [6, 8])?, 0.1, 1.5, 7)?;
    assert_eq!(grained(&grey(0.4, &[2, 1, 2], [6, 8])?, 0.1, 1.5, 7)?, all);
    assert_ne!(grained(&grey(0.4, &[5], [6, 8])?, 0.1, 1.5, 8)?, all);
    let frame = 6 * 8 * 3;
    assert_ne!(all[..frame], all[frame..2 * frame], "each frame has its own");
    Ok(())
}

#[test]
fn bright_and_dark_stay_clean() -> Result<()> {
    for value in [0.0, 1.0] {
        let found = grained(&grey(value, &[1], [8, 8])?, 1.0, 1.0, 0)?;
        assert!(found.iter().all(|v| (v - value).abs() < 1e-6), "{value}");
    }
    let deviation = |value: f32| -> Result<f64> {
        Ok(mean_and_deviation(&grained(&grey(value, &[2], [64, 64])?, 0.05, 1.0, 1)?).1)
    };
    // 4y(1 − y) is 0.36 at 0.1 and 1 at 0.5.
    assert!((deviation(0.1)? / deviation(0.5)? - 0.36).abs() < 0.02);
    Ok(())
}

#[test]
fn grain_does_not_change_from_build_to_build() -> Result<()> {
    let frames = Frames::random(5, [2, 4, 6, 3]);
    let run = testing::run::<film_grain>().input("frames", &frames).param("size", 1.7);
    let found = run.param("seed", u64::MAX).call()?.frames("frames")?.joined()?;
    testing::golden("tests/golden/grain.txt", &found, 1e-6);
    Ok(())
}

#[test]
fn grain_larger_than_a_pixel_is_smooth() -> Result<()> {
    let found = grained(&grey(0.5, &[1], [32, 32])?, 0.05, 4.0, 2)?;
    let pixel = |row: usize, column: usize| f64::from(found[3 * (row * 32 + column)]) - 0.5;
    let (mut near, mut all) = (0.0, 0.0);
    for row in 0..32 {
        for column in 0..31 {
            near += pixel(row, column) * pixel(row, column + 1);
            all += pixel(row, column) * pixel(row, column);
        }
    }
    assert!(near / all > 0.7, "neighbours agree by {}", near / all);
    Ok(())
}
