//! Reading images: PNG, JPEG, WebP.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::{Error, InputFile, Result};

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

/// Reads an image as RGB. Alpha is dropped; 16-bit channels keep their precision; the EXIF
/// orientation is applied.
///
/// # Errors
/// When the file cannot be read, is no image, or ends early.
pub fn read_image(path: &Path) -> Result<Image> {
    InputFile::open(path)?.read_image()
}

/// The width and height of an image, read from its header.
///
/// # Errors
/// When the file cannot be read or is no image.
pub fn image_size(path: &Path) -> Result<(usize, usize)> {
    InputFile::open(path)?.image_size()
}

impl InputFile {
    /// As [`read_image`], of this file.
    ///
    /// # Errors
    /// As [`read_image`].
    pub fn read_image(&mut self) -> Result<Image> {
        let path = self.path().to_owned();
        let image = read(self, &path)?;
        if !is_whole_jpeg(self, &path)? {
            return Err(
                Error::content(&path, "the image ends early").advise("copy or download it again")
            );
        }
        Ok(image)
    }

    /// As [`image_size`], of this file.
    ///
    /// # Errors
    /// As [`image_size`].
    pub fn image_size(&mut self) -> Result<(usize, usize)> {
        let path = self.path().to_owned();
        let mut decoder = decoder(self, &path)?;
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
}

fn read(file: &mut InputFile, path: &Path) -> Result<Image> {
    let mut decoder = decoder(file, path)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| {
        Error::content(path, format!("the image is damaged or ends early ({error})"))
    })?;
    image.apply_orientation(orientation);
    let rgb = image.into_rgb32f();
    Ok(Image { width: rgb.width() as usize, height: rgb.height() as usize, rgb: rgb.into_raw() })
}

/// Whether a JPEG reaches its end marker (ITU-T T.81, annex B); true of every other format, whose
/// decoders see to it themselves. That of JPEG fills with grey what is missing.
fn is_whole_jpeg(file: &mut InputFile, path: &Path) -> Result<bool> {
    let mut start = [0; 2];
    file.rewind().map_err(Error::io("read", path))?;
    if file.read_exact(&mut start).is_err() || start != [0xff, 0xd8] {
        return Ok(true);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let mut at = 0;
    while let Some(&[first, second]) = bytes.get(at..at + 2) {
        at += match (first, second) {
            (0xff, 0xd9) => return Ok(true),
            // Stuffed bytes and markers without contents.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            // A segment states its length, so that the end of a thumbnail inside is not taken for
            // the image's.
            (0xff, 0x02..=0xfe) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return Ok(false),
            },
            _ => 1,
        };
    }
    Ok(false)
}

fn decoder<'f>(file: &'f mut InputFile, path: &Path) -> Result<impl ImageDecoder + use<'f>> {
    file.rewind().map_err(Error::io("read", path))?;
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
    InputFile::open(path).ok()?.take(512).read_to_end(&mut start).ok()?;
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
