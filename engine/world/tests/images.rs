//! JPEG images that end early are refused, however much of them is there.

use std::fs;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use kino_world::read_image;

/// A JPEG of a pattern, with a segment before the image that holds an end marker, as thumbnails do.
fn jpeg() -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([(x * 7 % 256) as u8, (y * 11 % 256) as u8, (x ^ y) as u8]);
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
    RgbImage::from_fn(120, 90, pixel).write_with_encoder(encoder).unwrap();
    let thumbnail = [0xff, 0xec, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
    [&bytes[..2], &thumbnail, &bytes[2..]].concat()
}

#[test]
fn a_jpeg_that_ends_early_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    let whole = jpeg();
    fs::write(&path, &whole).unwrap();
    let image = read_image(&path).unwrap();
    assert_eq!((image.width, image.height), (120, 90));
    let cuts = (1..60).map(|part| whole.len() * part / 60);
    for cut in cuts.chain([whole.len() - 2, whole.len() - 1]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let said = read_image(&path).unwrap_err().to_string();
        assert!(said.contains("ends early") || said.contains("damaged"), "{cut}: {said}");
    }
    fs::write(&path, [&whole[..], b"bytes behind the end"].concat()).unwrap();
    assert_eq!(read_image(&path).unwrap(), image);
}
