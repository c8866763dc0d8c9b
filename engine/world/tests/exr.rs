//! EXR: light to the numbers of frames and back, highlights included. The files in `exr/` were made
//! by OpenEXR itself.

use std::path::{Path, PathBuf};

use kino_world::media::{VideoSpec, create};
use kino_world::{Image, Result, image_size, read_image, read_metadata};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exr").join(name)
}

/// The curve of sRGB, beyond 1 as well (IEC 61966-2-1).
fn encoded(light: f64) -> f64 {
    let size = light.abs();
    let value =
        if size <= 0.003_130_8 { size * 12.92 } else { 1.055 * size.powf(1.0 / 2.4) - 0.055 };
    value.copysign(light)
}

/// Light at a place of the files: see make_exr.py.
fn light(x: usize, y: usize) -> [f64; 3] {
    [x as f64 / 4.0, y as f64 / 8.0, if (x, y) == (6, 4) { 100.0 } else { 0.0 }]
}

fn pixel(image: &Image, x: usize, y: usize) -> [f64; 3] {
    let at = (y * image.width + x) * 3;
    [0, 1, 2].map(|c| f64::from(image.rgb[at + c]))
}

#[track_caller]
fn close(found: [f64; 3], light: [f64; 3], within: f64) {
    let near = |(found, light): (f64, f64)| {
        let expected = encoded(light);
        (found - expected).abs() <= within * expected.abs().max(0.01)
    };
    assert!(found.into_iter().zip(light).all(near), "{found:?}, expected {light:?} of light");
}

#[test]
fn light_of_every_form_is_read_beyond_white() {
    for name in ["half", "rle", "zips", "piz", "no", "float_alpha"] {
        let image = read_image(&file(&format!("{name}.exr"))).unwrap();
        assert_eq!((image.width, image.height), (7, 5), "{name}");
        for (y, x) in (0..5).flat_map(|y| (0..7).map(move |x| (y, x))) {
            if (name, x) != ("half", 0) {
                close(pixel(&image, x, y), light(x, y), 1e-6);
            }
        }
    }
}

#[test]
fn light_of_a_background_is_added_where_an_image_is_transparent() {
    let plain = read_image(&file("half.exr")).unwrap();
    assert_eq!(plain.alpha, None);
    let image = read_image(&file("float_alpha.exr")).unwrap();
    let alpha = image.alpha.clone().unwrap();
    assert_eq!(alpha.len(), 7 * 5);
    let mut over = image.clone();
    over.over([0.0; 3]);
    assert_eq!(over, image, "colours are stored over black");
    over.over([1.0; 3]);
    for (y, x) in (0..5).flat_map(|y| (0..7).map(move |x| (y, x))) {
        let behind = 1.0 - f64::from(alpha[y * 7 + x]);
        close(pixel(&over, x, y), light(x, y).map(|light| light + behind), 1e-5);
    }
}

#[test]
fn what_is_no_number_is_dark_and_what_is_infinite_as_bright_as_can_be() {
    let image = read_image(&file("half.exr")).unwrap();
    close(pixel(&image, 0, 0), [0.0, 65_504.0, -65_504.0], 1e-6);
    close(pixel(&image, 0, 1), [-0.5, 2.0, 65_504.0], 1e-6);
    assert!(image.rgb.iter().all(|value| value.is_finite()));
}

#[test]
fn grey_is_grey_and_what_has_no_colours_says_what_it_has() {
    let image = read_image(&file("grey.exr")).unwrap();
    close(pixel(&image, 6, 1), [1.5; 3], 1e-6);
    let error = read_image(&file("depth.exr")).unwrap_err();
    let said = "expected an EXR image with channels R, G, B or Y, found Z";
    assert!(error.to_string().ends_with(said), "{error}");
}

#[test]
fn primaries_are_those_of_frames_and_white_stays_white() {
    let image = read_image(&file("ap1.exr")).unwrap();
    // By the matrix from ACEScg to BT.709.
    let [red, green, _] = light(4, 2);
    let expected = [
        1.7051 * red - 0.6218 * green,
        -0.1303 * red + 1.1408 * green,
        -0.0240 * red - 0.1290 * green,
    ];
    close(pixel(&image, 4, 2), expected, 2e-3);
}

#[test]
fn what_is_shown_is_the_display_window() {
    assert_eq!(image_size(&file("window.exr")).unwrap(), (10, 4));
    let image = read_image(&file("window.exr")).unwrap();
    for (y, x) in (0..4).flat_map(|y| (0..10).map(move |x| (y, x))) {
        // Stored from (−2, 1) on, 7 wide.
        let expected = if x < 5 && y > 0 { light(x + 2, y - 1) } else { [0.0; 3] };
        close(pixel(&image, x, y), expected, 1e-6);
    }
}

fn write(path: &Path, frames: &[Vec<f32>]) -> Result<Vec<PathBuf>> {
    let (width, height, count) = (4, 3, frames.len());
    let metadata = Some("Graph(version: 1) — größer");
    let spec = VideoSpec { width, height, count, fps: 1.0, metadata, ..VideoSpec::default() };
    let mut writer = create(path, &spec)?;
    frames.iter().try_for_each(|frame| writer.push(frame))?;
    writer.finish()
}

#[test]
fn frames_come_back_within_half_precision() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.exr");
    let frame: Vec<f32> = (0..36)
        .map(|index| match index {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => -0.25,
            // Up to 20: light of about 1300.
            index => index as f32 * 0.6 - 1.5,
        })
        .collect();
    write(&path, std::slice::from_ref(&frame)).unwrap();
    let image = read_image(&path).unwrap();
    assert_eq!((image.width, image.height), (4, 3));
    assert_eq!(image.rgb[0], 0.0);
    assert!((f64::from(image.rgb[1]) - encoded(65_504.0)).abs() < 1e-3);
    for (index, (found, wanted)) in image.rgb.iter().zip(&frame).enumerate().skip(2) {
        // A half has 11 bits of light, and light has at most 2.4 times the error of its encoding.
        let within = wanted.abs().max(0.01) / 2048.0;
        assert!((found - wanted).abs() <= within, "{index}: {found}, {wanted}");
    }
    assert_eq!(read_metadata(&path).unwrap().as_deref(), Some("Graph(version: 1) — größer"));
    // Half is exact the second time.
    let again = folder.path().join("b.exr");
    write(&again, std::slice::from_ref(&image.rgb)).unwrap();
    assert_eq!(read_image(&again).unwrap(), image);
}

#[test]
fn sequences_are_whole_and_one_file_holds_one_frame() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<Vec<f32>> = (0..3).map(|index| vec![index as f32; 36]).collect();
    let written = write(&folder.path().join("f_%03d.exr"), &frames).unwrap();
    assert_eq!(written.len(), 3);
    for (index, path) in written.iter().enumerate() {
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("f_{index:03}.exr"));
        let found = read_image(path).unwrap().rgb;
        assert!(found.iter().all(|value| (value - index as f32).abs() < 2e-3), "{found:?}");
    }
    let error = write(&folder.path().join("one.exr"), &frames).unwrap_err();
    assert!(error.to_string().contains("one image, found 3 frames"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn damaged_files_never_panic_and_claims_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.exr");
    for name in ["half", "rle", "piz", "no"] {
        let bytes = std::fs::read(file(&format!("{name}.exr"))).unwrap();
        let mut refused = 0;
        let mut attempt = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            // A window may be as large as images may be, and what is not stored of it black.
            let is_large = |(width, height)| width * height > 1 << 20;
            if !image_size(&path).is_ok_and(is_large) {
                refused += read_image(&path).is_err() as usize;
            }
        };
        (0..bytes.len()).step_by(3).for_each(|length| attempt(&bytes[..length]));
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
            attempt(&bytes);
        }
        assert!(refused > bytes.len() / 3, "{name}: {refused}");
    }
    // A header that claims a picture of two billion pixels a side.
    let mut bytes = std::fs::read(file("no.exr")).unwrap();
    for window in [&b"dataWindow\0"[..], b"displayWindow\0"] {
        let at = bytes.windows(window.len()).position(|found| found == window).unwrap();
        // Behind the name, `box2i` and a length.
        let at = at + window.len() + 6 + 4 + 8;
        bytes[at..at + 8].copy_from_slice(&[0xf0, 0xff, 0xff, 0x3f, 0xf0, 0xff, 0xff, 0x3f]);
    }
    std::fs::write(&path, bytes).unwrap();
    let error = read_image(&path).unwrap_err().to_string();
    assert!(error.contains("pixels; at most") || error.contains("damaged"), "{error}");
}
