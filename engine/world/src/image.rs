//! Reading images: PNG, JPEG, WebP.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::{Error, Result};

/// An image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width, 3]`, RGB in 0…1.
    pub rgb: Vec<f32>,
}

/// Reads an image as RGB. Alpha is dropped; 16-bit channels keep their precision; the EXIF orientation is applied.
///
/// # Errors
/// When the file cannot be read, is no image, or ends early.
pub fn read_image(path: &Path) -> Result<Image> {
    let mut decoder = decoder(path)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| {
        Error::content(path, format!("the image is damaged or ends early ({error})"))
    })?;
    image.apply_orientation(orientation);
    let rgb = image.into_rgb32f();
    Ok(Image { width: rgb.width() as usize, height: rgb.height() as usize, rgb: rgb.into_raw() })
}

/// The width and height of an image, read from its header.
///
/// # Errors
/// When the file cannot be read or is no image.
pub fn image_size(path: &Path) -> Result<(usize, usize)> {
    let mut decoder = decoder(path)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation(),
        Ok(Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH)
    );
    let (width, height) = (width as usize, height as usize);
    Ok(if turned { (height, width) } else { (width, height) })
}

fn decoder(path: &Path) -> Result<impl ImageDecoder> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::content(path, "expected an image, found a folder"));
    }
    let mut reader = ImageReader::new(BufReader::new(file));
    reader.limits(Limits::default());
    let reader = reader.with_guessed_format().map_err(Error::io("read", path))?;
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    if !reader.format().is_some_and(|format| known.contains(&format)) {
        let found = looks_like(path).unwrap_or("something else");
        return Err(Error::content(
            path,
            format!("expected a PNG, JPEG or WebP image, found {found}"),
        ));
    }
    reader.into_decoder().map_err(|error| {
        Error::content(
            path,
            format!(
                "expected a PNG, JPEG or WebP image, found one that is damaged or ends early ({error})"
            ),
        )
    })
}

/// What the first bytes of a file look like.
pub fn looks_like(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(512).read_to_end(&mut start).ok()?;
    let kinds: [(&[u8], &str); 9] = [
        (b"", "an empty file"),
        (b"PK\x03\x04", "a zip archive (PyTorch's pickle files are such)"),
        (b"\x80", "a Python pickle"),
        (b"%PDF", "a PDF"),
        (b"GIF8", "a GIF"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
        (b"GGUF", "a GGUF model"),
        (b"\x7fELF", "a program"),
    ];
    if start.is_empty() {
        return Some(kinds[0].1);
    }
    if start.get(4..8) == Some(b"ftyp") {
        return Some("an mp4 or similar video");
    }
    let known =
        kinds[1..].iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind);
    known.or_else(|| std::str::from_utf8(&start).is_ok().then_some("text"))
}
