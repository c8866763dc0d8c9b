//! Tables of colours, without the engine.

use color_lut::color_lut;
use kino_plugin::prelude::*;
use kino_plugin::testing::{self, assert_close};

/// The text of a table of `size` entries a side between two levels.
fn table(size: usize, [least, most]: [f32; 2], colour: impl Fn([f32; 3]) -> [f32; 3]) -> String {
    let mut text = format!(
        "# made for a test\nTITLE \"test\"\nLUT_3D_SIZE {size}\nDOMAIN_MIN {least} {least} {least}\n\
         DOMAIN_MAX {most} {most} {most}\n\n"
    );
    let level = |at: usize| least + (most - least) * at as f32 / (size - 1) as f32;
    for at in 0..size.pow(3) {
        let [r, g, b] =
            colour([level(at % size), level(at / size % size), level(at / size / size)]);
        text += &format!("{r} {g} {b}\n");
    }
    text
}

fn coloured(frames: &Frames, cube: &str, strength: f64) -> Result<Tensor> {
    let run = testing::run::<color_lut>().file("luts/a.cube", cube).input("frames", frames);
    let run = run.param("path", Path("luts/a.cube".into())).param("strength", strength);
    run.call()?.frames("frames")?.joined()
}

/// What a table says between its entries, where it is a product of the channels' own lines.
fn expected(frames: &Frames, colour: impl Fn([f32; 3]) -> [f32; 3]) -> Result<Tensor> {
    let all = frames.joined()?;
    let pixels = all.to_vec::<f32>()?;
    let pixels = pixels.chunks_exact(3).flat_map(|rgb| colour([rgb[0], rgb[1], rgb[2]]));
    Tensor::from_slice(&pixels.collect::<Vec<_>>(), all.dims())
}

#[test]
fn what_is_linear_in_each_channel_is_met_exactly() -> Result<()> {
    let frames = Frames::random(3, [3, 5, 7, 3]);
    // Trilinear: products of different channels are met, whatever the size of the table.
    let colour = |[r, g, b]: [f32; 3]| [r * g * b, 1.0 - r, 0.25 + 0.5 * g * b];
    for size in [2, 3, 17] {
        let found = coloured(&frames, &table(size, [0.0, 1.0], colour), 1.0)?;
        assert_close(&found, &expected(&frames, colour)?, 1e-5);
    }
    Ok(())
}

/// Lines may stand in any order, and DaVinci Resolve writes one range for all channels.
#[test]
fn domains_are_told_in_several_ways() -> Result<()> {
    let frames = Frames::random(5, [1, 4, 4, 3]);
    let cube = table(2, [2.0, 3.0], |rgb| rgb.map(|level| level - 2.0));
    let one = cube.replace("DOMAIN_MIN 2 2 2\nDOMAIN_MAX 3 3 3", "LUT_3D_INPUT_RANGE 2.0 3.0");
    assert!(one.contains("INPUT_RANGE"));
    let zeros = frames.joined()?.mul(0.0)?;
    assert_close(&coloured(&frames, &cube, 1.0)?, &zeros, 0.0);
    assert_close(&coloured(&frames, &one, 1.0)?, &zeros, 0.0);
    Ok(())
}

#[test]
fn red_changes_fastest() -> Result<()> {
    let frames = Frames::random(4, [1, 4, 4, 3]);
    let mut cube = String::from("LUT_3D_SIZE 2\n");
    for blue in 0..2 {
        for green in 0..2 {
            for red in 0..2 {
                cube += &format!("{red} {green} {blue}\n");
            }
        }
    }
    assert_close(&coloured(&frames, &cube, 1.0)?, &frames.joined()?, 1e-6);
    Ok(())
}

#[test]
fn a_curve_is_met_at_the_entries_and_lies_on_lines_between() -> Result<()> {
    let cube = table(5, [0.0, 1.0], |rgb| rgb.map(|v| v * v));
    let levels = [0.0, 0.25, 0.5, 0.75, 1.0, 0.125f32];
    let pixels: Vec<f32> = levels.iter().flat_map(|level| [*level; 3]).collect();
    let frames = Frames::new(&Tensor::from_slice(&pixels, &[1, 1, 6, 3])?, None)?;
    let squares = [0.0, 0.0625, 0.25, 0.5625, 1.0, 0.03125f32];
    let squares: Vec<f32> = squares.iter().flat_map(|level| [*level; 3]).collect();
    let squares = Tensor::from_slice(&squares, &[1, 1, 6, 3])?;
    assert_close(&coloured(&frames, &cube, 1.0)?, &squares, 1e-6);
    Ok(())
}

#[test]
fn strength_lies_between_frames_and_table() -> Result<()> {
    let frames = Frames::random(5, [2, 3, 3, 3]);
    let cube = table(2, [0.0, 1.0], |rgb| rgb.map(|v| 1.0 - v));
    let all = frames.joined()?;
    assert_close(&coloured(&frames, &cube, 0.0)?, &all, 0.0);
    assert_close(&coloured(&frames, &cube, 0.25)?, &all.affine(0.5, 0.25)?, 1e-6);
    Ok(())
}

#[test]
fn a_domain_is_what_the_table_spans() -> Result<()> {
    let frames = Frames::random(6, [1, 3, 4, 3]);
    // The table says of each colour itself, but ends where its domain does.
    let found = coloured(&frames, &table(3, [0.25, 0.75], |rgb| rgb), 1.0)?;
    assert_close(&found, &frames.joined()?.clamp(0.25, 0.75)?, 1e-6);
    let found = coloured(&frames, &table(3, [-1.0, 3.0], |rgb| rgb), 1.0)?;
    assert_close(&found, &frames.joined()?, 1e-6);
    Ok(())
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() -> Result<()> {
    let frames = Frames::random(7, [1, 2, 2, 3]);
    let why = |cube: &str| coloured(&frames, cube, 1.0).unwrap_err().message().to_owned();
    for (cube, expected) in [
        ("", "it has no line LUT_3D_SIZE, so it is no three-dimensional table"),
        ("\n# x\nLUT_3D_SIZE 1\n", "line 3: expected a size from 2 to 256, found `1`"),
        ("LUT_3D_SIZE 2\nLUT_3D_SIZE 2\n", "line 2: LUT_3D_SIZE is given twice"),
        ("LUT_1D_SIZE 16\n", "line 1: this is a one-dimensional table"),
        ("LUT_3D_SIZE 2\n0 0\n", "line 2: expected 3 numbers, found `0 0`"),
        ("LUT_3D_SIZE 2\n0 0 nan\n", "line 2: expected 3 numbers, found `0 0 nan`"),
        ("0 0 0\n", "line 1: LUT_3D_SIZE must stand before the colours"),
        ("LUT_3D_SIZE 2\nDOMAIN_MIN 1 0 0\n", "DOMAIN_MIN must be below DOMAIN_MAX"),
        ("LUT_3D_INPUT_RANGE 1\n", "line 1: expected 2 numbers, found `1`"),
        ("GAMMA 2.2\n", "line 1: there is no keyword `GAMMA` in .cube files"),
        ("LUT_3D_SIZE 2\n0 0 0\n1 1 1\n", "expected 8 colours (2³), found 2"),
    ] {
        assert_eq!(why(cube), format!("luts/a.cube: {expected}"));
    }
    let many = format!("LUT_3D_SIZE 2\n{}", "0 0 0\n".repeat(9));
    assert_eq!(why(&many), "luts/a.cube: line 10: there are too many colours");
    let run = testing::run::<color_lut>().input("frames", &frames);
    let missing = run.param("path", Path("other.cube".into())).call().err().unwrap();
    assert!(missing.message().contains("other.cube"), "{missing}");
    Ok(())
}
