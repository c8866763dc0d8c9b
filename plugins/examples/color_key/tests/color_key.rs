//! The colour key, without the engine.

use color_key::color_key;
use kino_plugin::prelude::*;
use kino_plugin::testing;

/// Frames of one row, a pixel a colour, in chunks of these lengths.
fn row(colors: &[[f32; 3]], chunks: &[usize]) -> Result<Frames> {
    let mut builder = FramesBuilder::new(None)?;
    for &count in chunks {
        let pixels: Vec<f32> = std::iter::repeat_n(colors.concat(), count).flatten().collect();
        builder.push(&Tensor::from_vec(pixels, &[count, 1, colors.len(), 3])?)?;
    }
    builder.finish()
}

fn keyed(colors: &[[f32; 3]], color: &str, invert: bool) -> Result<Vec<f32>> {
    let run = testing::run::<color_key>().input("frames", row(colors, &[1])?);
    let out = run.param("color", color).param("invert", invert).call()?;
    let mask: Mask = out.get("mask")?;
    assert_eq!(mask.dims(), [1, 1, colors.len()]);
    mask.to_vec()
}

const GREEN: [f32; 3] = [0.0, 1.0, 0.0];
const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
const RED: [f32; 3] = [0.9, 0.1, 0.1];

#[test]
fn a_colour_is_found_in_light_and_shadow() -> Result<()> {
    let shadow = [0.05, 0.95, 0.05];
    assert_eq!(keyed(&[GREEN, shadow, WHITE, RED], "#00ff00", false)?, [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(keyed(&[GREEN, WHITE, RED], "#00ff00", true)?, [0.0, 1.0, 1.0]);
    Ok(())
}

#[test]
fn what_has_no_chroma_goes_by_its_brightness() -> Result<()> {
    let grey = [0.5, 0.5, 0.5];
    assert_eq!(keyed(&[WHITE, grey, GREEN, [0.98; 3]], "#ffffff", false)?, [1.0, 0.0, 0.0, 1.0]);
    Ok(())
}

#[test]
fn an_edge_is_soft() -> Result<()> {
    let steps: Vec<[f32; 3]> = (0..=50).map(|n| [n as f32 / 50.0, 1.0, n as f32 / 50.0]).collect();
    let found = keyed(&steps, "#00ff00", false)?;
    assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
    let soft = found.iter().filter(|value| (0.01..0.99).contains(*value)).count();
    assert!(soft >= 3, "{found:?}");
    assert!(found.iter().all(|value| (0.0..=1.0).contains(value)));
    Ok(())
}

#[test]
fn what_was_found_grows() -> Result<()> {
    let mut pixels = vec![WHITE; 7 * 9];
    pixels[2 * 9 + 3] = GREEN;
    let frames = Frames::new(&Tensor::from_vec(pixels.concat(), &[1, 7, 9, 3])?, None)?;
    let run = testing::run::<color_key>().input("frames", frames).param("grow", 2);
    let mask: Mask = run.call()?.get("mask")?;
    let found: Vec<f32> = mask.to_vec()?;
    for (at, value) in found.iter().enumerate() {
        let (row, column) = (at / 9, at % 9);
        let near = row.abs_diff(2) <= 2 && column.abs_diff(3) <= 2;
        assert_eq!(*value, f32::from(near), "{row}, {column}");
    }
    Ok(())
}

#[test]
fn chunks_and_what_is_no_number_pass() -> Result<()> {
    let run = testing::run::<color_key>().input("frames", row(&[GREEN, RED], &[2, 1, 3])?);
    let mask: Mask = run.call()?.get("mask")?;
    assert_eq!(mask.dims(), [6, 1, 2]);
    assert_eq!(mask.to_vec::<f32>()?, [1.0, 0.0].repeat(6));
    let none = keyed(&[[f32::NAN; 3], [f32::INFINITY, 0.0, 0.0]], "#00ff00", false)?;
    assert_eq!(none, [0.0, 0.0]);
    Ok(())
}

#[test]
fn what_is_no_colour_is_refused() -> Result<()> {
    for color in ["green", "#00ff0", "#00ff0g", "00ff00", "#00ff0é"] {
        let error = keyed(&[GREEN], color, false).unwrap_err();
        assert!(error.message().starts_with("expected a colour as #rrggbb"), "{error}");
        assert_eq!(error.code(), "invalid");
    }
    Ok(())
}

#[test]
fn it_can_be_cancelled() -> Result<()> {
    let run = testing::run::<color_key>().input("frames", row(&[GREEN], &[4, 4])?);
    assert_eq!(run.cancel_after(3).call().err(), Some(Error::Cancelled));
    Ok(())
}
