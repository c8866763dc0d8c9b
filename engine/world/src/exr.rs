//! OpenEXR images in: light without a curve becomes the numbers of frames. Sizes are bounded by the
//! header before pixels are read.
//!
//! Frames are encoded by the curve of sRGB, which goes on beyond 1: highlights keep their values,
//! and come back as they were when they are written as EXR again.

use std::cell::RefCell;
use std::io::{BufReader, Seek};
use std::path::Path;

use exr::compression::Compression;
use exr::meta::attribute::{AttributeValue, Text};
use exr::meta::header::Header;
use exr::meta::{BlockDescription, MetaData};
use exr::prelude::{ReadChannels, ReadLayers, ReadSpecificChannel, Vec2, read};

use crate::light::{Primaries, light_to_srgb};
use crate::{Error, InputFile, Result};

/// How an EXR file begins.
pub(crate) const MAGIC: [u8; 4] = [0x76, 0x2f, 0x31, 0x01];
/// The most bytes of a tile or of a few lines of a file.
const LARGEST_BLOCK: usize = 1 << 30;
/// The largest number of a half float, which stands for what is infinite.
pub(crate) const LARGEST: f32 = 65_504.0;

/// An image whose header was read.
#[derive(Debug)]
pub(crate) struct Exr {
    /// Width and height of what is shown: the display window.
    pub(crate) size: (usize, usize),
    /// The size of what is stored, and where that lies in what is shown.
    stored: ((usize, usize), (i64, i64)),
    /// Whether it is grey.
    is_grey: bool,
    /// Whether it has alpha.
    has_alpha: bool,
    /// To BT.709 primaries; none where they are those.
    gamut: Option<[[f32; 3]; 3]>,
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let message =
        format!("expected an EXR image, found one that is damaged or ends early ({error})");
    Error::content(path, message).advise("copy or download it again")
}

/// The headers of a file.
fn headers(file: &mut InputFile, path: &Path) -> Result<Vec<Header>> {
    file.rewind().map_err(Error::io("read", path))?;
    let meta = MetaData::read_from_buffered(BufReader::new(file), false);
    Ok(meta.map_err(|error| damaged(path, &error))?.headers.into_vec())
}

/// The text that an image carries in the attribute of a name.
pub(crate) fn text_of(file: &mut InputFile, path: &Path, named: &str) -> Option<String> {
    let headers = headers(file, path).ok()?;
    let own = headers.iter().flat_map(|header| &header.own_attributes.other);
    let mut all = headers.iter().flat_map(|header| &header.shared_attributes.other).chain(own);
    all.find_map(|(name, value)| match value {
        AttributeValue::Text(text) if name.eq(named) => {
            String::from_utf8(text.bytes().to_vec()).ok()
        }
        _ => None,
    })
}

impl Exr {
    /// Reads the header: of several layers the first that has red, green and blue, or is grey.
    ///
    /// # Errors
    /// When it is damaged, has more than `most` pixels, or holds what frames do not.
    pub(crate) fn open(file: &mut InputFile, path: &Path, most: usize) -> Result<Self> {
        let headers = headers(file, path)?;
        let has = |header: &&Header, names: &[&str]| {
            let is =
                |name: &&str| header.channels.list.iter().any(|channel| channel.name == **name);
            !header.deep && names.iter().all(is)
        };
        let colour = headers.iter().find(|header| has(header, &["R", "G", "B"]));
        let grey = || headers.iter().find(|h| has(h, &["Y"]) && !has(h, &["RY"]));
        let Some(header) = colour.or_else(grey) else {
            let names = headers.iter().flat_map(|header| &header.channels.list);
            let names: Vec<_> = names
                .take(20)
                .map(|channel| channel.name.to_string().escape_default().to_string())
                .collect();
            let kind = if headers.iter().any(|header| header.deep) { " of deep data" } else { "" };
            let message = format!(
                "expected an EXR image with channels R, G, B or Y, found {}{kind}",
                names.join(", ")
            );
            return Err(Error::content(path, message)
                .advise("write the layer as a flat RGB image of its own first"));
        };
        if header.channels.list.iter().any(|channel| channel.sampling != Vec2(1, 1)) {
            let message = "its channels are sampled at different rates, which is not read here";
            return Err(Error::content(path, message).advise("write it as RGB first"));
        }
        let shown = header.shared_attributes.display_window;
        let (width, height) = (shown.size.width(), shown.size.height());
        let stored = (header.layer_size.width(), header.layer_size.height());
        for (width, height) in [(width, height), stored] {
            if width == 0 || height == 0 {
                let message = format!("the image has no pixels: it is {width}×{height}");
                return Err(Error::content(path, message).advise("write the image again"));
            }
            if width.saturating_mul(height) > most {
                let message = format!(
                    "the image claims {width}×{height} pixels; at most {most} (such as 11585×11585) \
                     are read"
                );
                return Err(Error::content(path, message).advise("make the image smaller first"));
            }
        }
        let block = match header.blocks {
            BlockDescription::Tiles(tiles) => {
                tiles.tile_size.width().saturating_mul(tiles.tile_size.height())
            }
            BlockDescription::ScanLines => stored.0.saturating_mul(256),
        };
        if block.saturating_mul(header.channels.bytes_per_pixel) > LARGEST_BLOCK {
            let message = format!("its tiles take more than {LARGEST_BLOCK} bytes each");
            return Err(Error::content(path, message));
        }
        // Each chunk has its place in a table, and zlib makes at most 1032 bytes of one.
        let length = file.stamp().length as usize;
        let inflated = match header.compression {
            Compression::Uncompressed => 1,
            Compression::RLE => 64,
            Compression::ZIP1 | Compression::ZIP16 | Compression::PXR24 => 1100,
            _ => usize::MAX,
        };
        let bytes = stored.0 * stored.1 * header.channels.bytes_per_pixel.min(1 << 20);
        if header.chunk_count.saturating_mul(16) > length
            || bytes / inflated > length.saturating_mul(2)
        {
            return Err(damaged(path, &"its pixels are more than its bytes can hold"));
        }
        let gamut = match header.shared_attributes.chromaticities {
            None => None,
            Some(named) => {
                let places = [named.red, named.green, named.blue, named.white];
                let primaries = Primaries(places.map(|p| [f64::from(p.x()), f64::from(p.y())]));
                let matrix = primaries.to_bt709().ok_or_else(|| {
                    Error::content(path, format!("no light has its primaries ({primaries:?})"))
                })?;
                let is_same = (0..3).all(|row| {
                    (0..3).all(|c| (matrix[row][c] - f32::from(u8::from(row == c))).abs() < 1e-3)
                });
                (!is_same).then_some(matrix)
            }
        };
        let position = header.own_attributes.layer_position;
        let offset = (
            i64::from(position.x()) - i64::from(shown.position.x()),
            i64::from(position.y()) - i64::from(shown.position.y()),
        );
        let (is_grey, has_alpha) = (colour.is_none(), has(&header, &["A"]));
        Ok(Exr { size: (width, height), stored: (stored, offset), is_grey, has_alpha, gamut })
    }

    /// The pixels, `[height, width, 3]`, encoded, and their alpha, `[height, width]`, where there
    /// is one. What is shown and not stored is black and transparent.
    ///
    /// # Errors
    /// When they are damaged or end early, or do not fit into memory.
    pub(crate) fn read(
        &self,
        file: &mut InputFile,
        path: &Path,
    ) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let ((width, height), (stored, (left, top))) = (self.size, self.stored);
        let channels = if self.has_alpha { 4 } else { 3 };
        let length = width * height * channels;
        let mut pixels: Vec<f32> = Vec::new();
        pixels.try_reserve_exact(length).map_err(|_| {
            let message = format!("there is no memory for the image ({} bytes)", length * 4);
            Error::content(path, message).advise("make the image smaller first")
        })?;
        pixels.resize(length, 0.0);
        // The file is read into what there is room for, and into nothing else.
        let room = RefCell::new(Some(pixels));
        let create = |size: Vec2<usize>| match (size.width(), size.height()) == stored {
            true => room.borrow_mut().take().unwrap_or_default(),
            false => Vec::new(),
        };
        let set = move |pixels: &mut Vec<f32>, at: Vec2<usize>, rgba: [f32; 4]| {
            let (x, y) = (at.x() as i64 + left, at.y() as i64 + top);
            if (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
                let at = (y as usize * width + x as usize) * channels;
                if let Some(pixel) = pixels.get_mut(at..at + channels) {
                    pixel.copy_from_slice(&rgba[..channels]);
                }
            }
        };
        file.rewind().map_err(Error::io("read", path))?;
        let from = BufReader::new(file);
        let layers = read().no_deep_data().largest_resolution_level();
        let pixels = if self.is_grey {
            let image = layers.specific_channels().required("Y").optional("A", 1.0_f32);
            let image = image.collect_pixels(
                |size, _| create(size),
                move |pixels: &mut Vec<f32>, at, (y, a): (f32, f32)| set(pixels, at, [y, y, y, a]),
            );
            let image = image.first_valid_layer().all_attributes().non_parallel();
            image.from_buffered(from).map(|image| image.layer_data.channel_data.pixels)
        } else {
            let rgb = layers.specific_channels().required("R").required("G").required("B");
            let image = rgb.optional("A", 1.0_f32).collect_pixels(
                |size, _| create(size),
                move |pixels: &mut Vec<f32>, at, (r, g, b, a): (f32, f32, f32, f32)| {
                    set(pixels, at, [r, g, b, a])
                },
            );
            let image = image.first_valid_layer().all_attributes().non_parallel();
            image.from_buffered(from).map(|image| image.layer_data.channel_data.pixels)
        };
        let mut pixels = pixels.map_err(|error| damaged(path, &error))?;
        if pixels.len() != length {
            return Err(damaged(path, &"its layers contradict each other"));
        }
        let mut alpha = None;
        if self.has_alpha {
            let mut values: Vec<f32> = Vec::new();
            values.try_reserve_exact(width * height).map_err(|_| {
                let message = "there is no memory for the alpha of the image";
                Error::content(path, message).advise("make the image smaller first")
            })?;
            values.extend(pixels.chunks_exact(4).map(|pixel| finite(pixel[3]).clamp(0.0, 1.0)));
            alpha = Some(values);
            // Moved together in place: a pixel's colours never lie behind where they go.
            for pixel in 0..width * height {
                pixels.copy_within(pixel * 4..pixel * 4 + 3, pixel * 3);
            }
            pixels.truncate(width * height * 3);
        }
        self.encode(&mut pixels);
        Ok((pixels, alpha))
    }

    /// Brings light to what frames are.
    fn encode(&self, pixels: &mut [f32]) {
        for pixel in pixels.chunks_exact_mut(3) {
            let light = [finite(pixel[0]), finite(pixel[1]), finite(pixel[2])];
            let light = match &self.gamut {
                None => light,
                Some(gamut) => {
                    let dot =
                        |row: &[f32; 3]| row[0] * light[0] + row[1] * light[1] + row[2] * light[2];
                    [dot(&gamut[0]), dot(&gamut[1]), dot(&gamut[2])]
                }
            };
            pixel.copy_from_slice(&light.map(light_to_srgb));
        }
    }
}

/// Light as a half float holds it: what is no number is dark, what is infinite as bright as can be.
pub(crate) fn finite(light: f32) -> f32 {
    if light.is_nan() { 0.0 } else { light.clamp(-LARGEST, LARGEST) }
}

/// A text as an attribute of a file, in UTF-8.
pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::Text(Text::from_slice_unchecked(text.as_bytes()))
}
