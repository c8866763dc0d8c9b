//! Reading images: PNG, JPEG, WebP, EXR. Sizes are known from the header, and bounded, before
//! pixels are.

use std::io::{BufReader, Read, Seek};
use std::path::Path;

use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::exr::{Exr, MAGIC};
use crate::kinds::{looks_like, way_to_an_image};
use crate::light::{Primaries, light_to_srgb, srgb_to_light};
use crate::orientation::Orientation;
use crate::profile::{self, ColorProfile, Refused};
use crate::{Error, InputFile, Result};

/// The most pixels that an image may have: 11,585 × 11,585, which are 1.6 GB as `f32`. A few bytes
/// can claim any size, so the claim itself is bounded.
pub const MAX_PIXELS: usize = 1 << 27;
/// The most bytes that a decoder may take besides the pixels, for tables and metadata.
const MAX_BESIDES: usize = 512 << 20;
/// The longest JPEG or WebP file.
const LONGEST_FILE: u64 = 1 << 30;

/// An image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width, 3]`, RGB in 0…1; of EXR beyond, where it is brighter than white.
    pub rgb: Vec<f32>,
    /// `[height, width]` in 0…1, how much of what lies behind a pixel covers: none where the file
    /// has no alpha.
    pub alpha: Option<Vec<f32>>,
    /// Whether the light of a pixel is multiplied by its alpha already, as in EXR.
    pub is_associated: bool,
}

impl Image {
    /// Puts the image over a colour. Encoded values are mixed, as browsers and editors do; where
    /// alpha is associated, light is added.
    pub fn over(&mut self, background: [f32; 3]) {
        let Some(alpha) = &self.alpha else { return };
        // Associated colours are those over black.
        if self.is_associated && background == [0.0; 3] {
            return;
        }
        let behind = background.map(srgb_to_light);
        for (pixel, alpha) in self.rgb.chunks_exact_mut(3).zip(alpha) {
            for c in 0..3 {
                pixel[c] = match self.is_associated {
                    true => light_to_srgb(srgb_to_light(pixel[c]) + behind[c] * (1.0 - alpha)),
                    false => pixel[c] * alpha + background[c] * (1.0 - alpha),
                };
            }
        }
    }
}

/// Reads an image as RGB, with its alpha beside it. 16-bit channels keep their precision; the EXIF
/// orientation is applied, and colours of a profile are brought to sRGB.
///
/// # Errors
/// When the file cannot be read, is no image, ends early, is animated, has colours that cannot be
/// converted, has more than [`MAX_PIXELS`], or does not fit into memory.
pub fn read_image(path: &Path) -> Result<Image> {
    InputFile::open(path)?.read_image()
}

/// The width and height of an image, read from its header.
///
/// # Errors
/// When the file cannot be read, is no image, or has more than [`MAX_PIXELS`].
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
        if self.is_exr()? {
            let exr = Exr::open(self, &path, MAX_PIXELS)?;
            let ((rgb, alpha), (width, height)) = (exr.read(self, &path)?, exr.size);
            return Ok(Image { width, height, rgb, alpha, is_associated: true });
        }
        let decoder = Decoder::open(self, &path)?;
        let (size, orientation) = (decoder.size, decoder.orientation);
        let profile = decoder.profile.clone().unwrap_or_default();
        let samples = decoder.samples(&path)?;
        let mut image = samples.into_image(size, orientation, &path)?;
        profile.into_iter().for_each(|profile| profile.convert(&mut image.rgb));
        Ok(image)
    }

    /// As [`image_size`], of this file.
    ///
    /// # Errors
    /// As [`image_size`].
    pub fn image_size(&mut self) -> Result<(usize, usize)> {
        let path = self.path().to_owned();
        if self.is_exr()? {
            return Ok(Exr::open(self, &path, MAX_PIXELS)?.size);
        }
        let decoder = Decoder::open(self, &path)?;
        let (width, height) = decoder.size;
        Ok(if decoder.orientation.is_turned() { (height, width) } else { (width, height) })
    }
}

impl InputFile {
    fn is_exr(&mut self) -> Result<bool> {
        let path = self.path().to_owned();
        let mut start = [0; MAGIC.len()];
        self.rewind().map_err(Error::io("read", &path))?;
        read_start(self, &mut start).map_err(Error::io("read", &path))?;
        Ok(start == MAGIC)
    }
}

/// An image whose header was read.
struct Decoder<'f> {
    size: (usize, usize),
    orientation: Orientation,
    /// From its colours to those of frames; none where they are those.
    profile: Result<Option<ColorProfile>, Refused>,
    /// How many pictures follow each other in it.
    frames: u32,
    form: Form<'f>,
}

/// A decoder behind its header.
enum Form<'f> {
    Png(Box<png::Reader<BufReader<&'f mut InputFile>>>),
    Jpeg(Vec<u8>, ColorSpace),
    WebP(Box<image_webp::WebPDecoder<BufReader<&'f mut InputFile>>>),
}

impl<'f> Decoder<'f> {
    fn open(file: &'f mut InputFile, path: &Path) -> Result<Self> {
        let mut start = [0; 12];
        file.rewind().map_err(Error::io("read", path))?;
        let read = read_start(file, &mut start).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        let decoder = match &start[..read] {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Self::png(file),
            [0xff, 0xd8, 0xff, ..] => Self::jpeg(read_all(file, path)?),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => Self::webp(file),
            _ => {
                let found = looks_like(path).unwrap_or("something else");
                let message = format!("expected a PNG, JPEG, WebP or EXR image, found {found}");
                let error = Error::content(path, message);
                return Err(match way_to_an_image(found, path) {
                    Some(way) => error.advise(&way),
                    None => error,
                });
            }
        };
        let decoder = decoder.map_err(|error| {
            Error::content(
                path,
                format!(
                    "expected a PNG, JPEG or WebP image, found one that is damaged or ends early \
                     ({})",
                    error.trim()
                ),
            )
            .advise("copy or download it again")
        })?;
        let (width, height) = decoder.size;
        if width.saturating_mul(height) > MAX_PIXELS {
            let message = format!(
                "the image claims {width}×{height} pixels; at most {MAX_PIXELS} (such as \
                 11585×11585) are read"
            );
            return Err(Error::content(path, message).advise("make the image smaller first"));
        }
        if decoder.frames > 1 {
            let message = format!("it is animated: it holds {} frames, not one", decoder.frames);
            let way = "`video.read` reads them all, and with `count: 1` the first alone";
            return Err(Error::content(path, message).advise(way));
        }
        if let Err(refused) = &decoder.profile {
            let way =
                "save it in sRGB, as an editor does, or: `magick IN -colorspace sRGB OUT.png`";
            return Err(Error::content(path, refused).advise(way));
        }
        Ok(decoder)
    }

    fn png(file: &'f mut InputFile) -> Result<Self, String> {
        let limits = png::Limits { bytes: MAX_BESIDES };
        let mut decoder = png::Decoder::new_with_limits(BufReader::new(file), limits);
        // Texts are read elsewhere.
        decoder.set_ignore_text_chunk(true);
        decoder.set_transformations(png::Transformations::EXPAND);
        let reader = decoder.read_info().map_err(|error| error.to_string())?;
        let (width, height) = reader.info().size();
        let orientation = Orientation::of(reader.info().exif_metadata.as_deref());
        let size = (width as usize, height as usize);
        let profile = png_profile(reader.info(), reader.output_color_type().0.samples() < 3);
        let frames = reader.info().animation_control().map_or(1, |control| control.num_frames);
        let form = Form::Png(Box::new(reader));
        Ok(Decoder { size, orientation, profile, frames, form })
    }

    fn jpeg(bytes: Vec<u8>) -> Result<Self, String> {
        let mut decoder =
            zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes.as_slice()), lenient());
        decoder.decode_headers().map_err(|error| error.to_string())?;
        let (size, colors) = (decoder.dimensions(), decoder.input_colorspace());
        let orientation = Orientation::of(decoder.exif().map(Vec::as_slice));
        let (Some(size), Some(colors)) = (size, colors) else {
            return Err("it has no header".to_owned());
        };
        let colors = match colors {
            ColorSpace::RGB | ColorSpace::RGBA | ColorSpace::Luma | ColorSpace::LumaA => colors,
            _ => ColorSpace::RGB,
        };
        let is_grey = matches!(colors, ColorSpace::Luma | ColorSpace::LumaA);
        let profile = of_icc(decoder.icc_profile(), is_grey);
        drop(decoder);
        Ok(Decoder { size, orientation, profile, frames: 1, form: Form::Jpeg(bytes, colors) })
    }

    fn webp(file: &'f mut InputFile) -> Result<Self, String> {
        let read = image_webp::WebPDecoder::new(BufReader::new(file));
        let mut decoder = read.map_err(|error| error.to_string())?;
        decoder.set_memory_limit(MAX_BESIDES);
        let (width, height) = decoder.dimensions();
        let exif = decoder.exif_metadata().ok().flatten();
        let size = (width as usize, height as usize);
        let orientation = Orientation::of(exif.as_deref());
        let profile = of_icc(decoder.icc_profile().ok().flatten(), false);
        let frames = if decoder.is_animated() { decoder.num_frames() } else { 1 };
        let form = Form::WebP(Box::new(decoder));
        Ok(Decoder { size, orientation, profile, frames, form })
    }

    /// Decodes the pixels.
    fn samples(self, path: &Path) -> Result<Samples> {
        let damaged = |error: &dyn std::fmt::Display| {
            Error::content(path, format!("the image is damaged or ends early ({error})"))
                .advise("copy or download it again")
        };
        let pixels = self.size.0 * self.size.1;
        match self.form {
            Form::Png(mut reader) => {
                let (color, depth) = reader.output_color_type();
                let channels = color.samples();
                let two = depth == png::BitDepth::Sixteen;
                let length = reader.output_buffer_size();
                let length = length.ok_or_else(|| damaged(&"its size is none"))?;
                let mut bytes = zeros(length, path)?;
                reader.next_frame(&mut bytes).map_err(|error| damaged(&error))?;
                Ok(Samples { bytes, channels, two })
            }
            Form::Jpeg(file, colors) => {
                let channels = colors.num_components();
                // A progressive image keeps all coefficients, two bytes a sample, while it is
                // decoded, and the decoder cannot be told that there is no memory: asked here.
                drop(zeros(pixels.saturating_mul(2 * channels.max(3)), path)?);
                let decode = |file: &[u8]| -> Result<Vec<u8>> {
                    let options = lenient().jpeg_set_out_colorspace(colors);
                    let source = ZCursor::new(file);
                    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(source, options);
                    let mut bytes = zeros(pixels * channels, path)?;
                    decoder.decode_into(&mut bytes).map_err(|error| damaged(&error))?;
                    Ok(bytes)
                };
                let bytes = match is_whole_jpeg(&file) {
                    true => decode(&file)?,
                    false => {
                        let [one, other] = CONTINUED.map(|with| decode(&continued(&file, with)));
                        let (one, other) = (one?, other?);
                        if one != other {
                            return Err(Error::content(path, "the image ends early")
                                .advise("copy or download it again"));
                        }
                        one
                    }
                };
                Ok(Samples { bytes, channels, two: false })
            }
            Form::WebP(mut decoder) => {
                let channels = if decoder.has_alpha() { 4 } else { 3 };
                // Planes of the decoder's own, as large as the image.
                drop(zeros(pixels.saturating_mul(4), path)?);
                let mut bytes = zeros(pixels * channels, path)?;
                decoder.read_image(&mut bytes).map_err(|error| damaged(&error))?;
                Ok(Samples { bytes, channels, two: false })
            }
        }
    }
}

/// Takes what viewers take; sizes are checked by ourselves.
fn lenient() -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
}

/// As many of the first bytes as there are.
fn read_start(file: &mut InputFile, start: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn read_all(file: &mut InputFile, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(LONGEST_FILE + 1).read_to_end(&mut bytes);
    if read.map_err(Error::io("read", path))? as u64 > LONGEST_FILE {
        let message = format!("the file is longer than an image may be ({LONGEST_FILE} bytes)");
        return Err(Error::content(path, message));
    }
    Ok(bytes)
}

fn no_room(bytes: usize, path: &Path) -> Error {
    let message = format!("there is no memory for the image ({bytes} bytes)");
    Error::content(path, message).advise("make the image smaller first")
}

/// Room for bytes; that there is none is an error, no abort.
fn zeros(length: usize, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| no_room(length, path))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// What is put behind a JPEG without an end marker. Its decoder fills with grey what is missing, so
/// that does not tell; but where something is missing, each of these goes on in its own way. Where
/// both give one picture, only the marker is missing, as cameras and cut streams leave it out.
const CONTINUED: [u8; 2] = [0x00, 0xa6];

fn continued(file: &[u8], with: u8) -> Vec<u8> {
    // Half a marker at the end belongs to what is missing.
    let file = file.strip_suffix(&[0xff]).unwrap_or(file);
    [file, &[with; 4096], &[0xff, 0xd9]].concat()
}

fn of_icc(profile: Option<Vec<u8>>, is_grey: bool) -> Result<Option<ColorProfile>, Refused> {
    match profile.filter(|profile| profile.len() <= profile::LONGEST) {
        Some(profile) => ColorProfile::of_icc(&profile, is_grey),
        None => Ok(None),
    }
}

/// What a PNG says of its colours: of several chunks the one that counts before the others (W3C
/// PNG, third edition, §13.10).
fn png_profile(info: &png::Info<'_>, is_grey: bool) -> Result<Option<ColorProfile>, Refused> {
    if let Some(points) = info.coding_independent_code_points {
        let png::CodingIndependentCodePoints {
            color_primaries,
            transfer_function,
            matrix_coefficients,
            is_video_full_range_image,
        } = points;
        return ColorProfile::of_code_points(
            color_primaries,
            transfer_function,
            matrix_coefficients,
            is_video_full_range_image,
        );
    }
    if let Some(profile) = &info.icc_profile {
        return of_icc(Some(profile.to_vec()), is_grey);
    }
    if info.srgb.is_some() {
        return Ok(None);
    }
    let place = |(x, y): (png::ScaledFloat, png::ScaledFloat)| {
        [f64::from(x.into_value()), f64::from(y.into_value())]
    };
    let primaries = info.chrm_chunk.filter(|_| !is_grey).map(|found| {
        Primaries([place(found.red), place(found.green), place(found.blue), place(found.white)])
    });
    ColorProfile::of_gamma(info.gama_chunk.map(png::ScaledFloat::into_value), primaries)
}

/// Whether a JPEG reaches its end marker (ITU-T T.81, annex B). Those of the other formats see to
/// it themselves.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[first, second]) = bytes.get(at..at + 2) {
        at += match (first, second) {
            (0xff, 0xd9) => return true,
            // Stuffed bytes and markers without contents.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            // A segment states its length, so that the end of a thumbnail inside is not taken for
            // the image's.
            (0xff, 0x02..=0xfe) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
            _ => 1,
        };
    }
    false
}

/// Decoded pixels, row by row.
struct Samples {
    bytes: Vec<u8>,
    /// 1: grey, 2: grey and alpha, 3: RGB, 4: RGB and alpha.
    channels: usize,
    /// Whether a sample is two bytes, the higher one first.
    two: bool,
}

impl Samples {
    fn into_image(
        self,
        (width, height): (usize, usize),
        orientation: Orientation,
        path: &Path,
    ) -> Result<Image> {
        let (to_width, to_height) =
            if orientation.is_turned() { (height, width) } else { (width, height) };
        let length = width * height * 3;
        let mut rgb: Vec<f32> = Vec::new();
        rgb.try_reserve_exact(length).map_err(|_| no_room(length * 4, path))?;
        let mut alpha: Option<Vec<f32>> = matches!(self.channels, 2 | 4).then(Vec::new);
        if let Some(alpha) = &mut alpha {
            alpha.try_reserve_exact(length / 3).map_err(|_| no_room(length / 3 * 4, path))?;
        }
        let grey = self.channels < 3;
        let colors: [usize; 3] = if grey { [0; 3] } else { [0, 1, 2] };
        let most = f32::from(if self.two { u16::MAX } else { u8::MAX.into() });
        let sample = |at: usize| {
            let value = match self.two {
                true => u16::from_be_bytes([self.bytes[2 * at], self.bytes[2 * at + 1]]),
                false => self.bytes[at].into(),
            };
            // Grey is multiplied by the reciprocal: the same but for the last bit, which stays as
            // it was in results that are stored.
            if grey { f32::from(value) * (1.0 / most) } else { f32::from(value) / most }
        };
        for y in 0..to_height {
            for x in 0..to_width {
                let (from_x, from_y) = orientation.source((x, y), (width, height));
                let pixel = (from_y * width + from_x) * self.channels;
                rgb.extend(colors.map(|color| sample(pixel + color)));
                if let Some(alpha) = &mut alpha {
                    alpha.push(sample(pixel + self.channels - 1));
                }
            }
        }
        Ok(Image { width: to_width, height: to_height, rgb, alpha, is_associated: false })
    }
}
