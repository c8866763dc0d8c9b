//! Animated WebP by libwebp; the metadata lies in an EXIF chunk.

use std::io::Write;
use std::path::{Path, PathBuf};

use webp_animation::{Encoder, EncoderOptions, EncodingConfig, EncodingType, LossyEncodingConfig};

use super::writer::{VideoSpec, VideoWriter, bytes};
use crate::{AtomicFile, Error, Result};

/// libwebp's quality, of 100.
const QUALITY: f32 = 95.0;
/// Flag of `VP8X`: an EXIF chunk follows.
const HAS_EXIF: u8 = 0x08;

/// A WebP file in the making.
pub(super) struct WebPWriter {
    file: AtomicFile,
    encoder: Encoder,
    size: (usize, usize),
    fps: f64,
    count: usize,
    metadata: Option<String>,
}

fn failed(path: &Path) -> impl FnOnce(webp_animation::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::content(&path, format!("the WebP encoder failed: {error:?}"))
}

impl WebPWriter {
    pub(super) fn create(path: &Path, spec: &VideoSpec<'_>) -> Result<Self> {
        let config = EncodingConfig {
            encoding_type: EncodingType::Lossy(LossyEncodingConfig::default()),
            quality: QUALITY,
            ..EncodingConfig::default()
        };
        let options = EncoderOptions { encoding_config: Some(config), ..EncoderOptions::default() };
        let size = (spec.width as u32, spec.height as u32);
        let encoder = Encoder::new_with_options(size, options).map_err(failed(path))?;
        let metadata = spec.metadata.map(str::to_owned);
        let file = AtomicFile::create(path)?;
        Ok(WebPWriter {
            file,
            encoder,
            size: (spec.width, spec.height),
            fps: spec.fps,
            count: 0,
            metadata,
        })
    }

    /// Milliseconds from the start to frame `index`.
    fn time(&self, index: usize) -> i32 {
        (index as f64 * 1000.0 / self.fps).round() as i32
    }
}

impl VideoWriter for WebPWriter {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        let rgb = bytes(frame, self.size)?;
        let rgba: Vec<u8> =
            rgb.chunks_exact(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 255]).collect();
        let time = self.time(self.count);
        self.encoder.add_frame(&rgba, time).map_err(failed(self.file.target()))?;
        self.count += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>> {
        let end = self.time(self.count);
        let WebPWriter { mut file, encoder, size, metadata, .. } = *self;
        let data = encoder.finalize(end).map_err(failed(file.target()))?;
        let bytes = match &metadata {
            Some(text) => with_exif(&data, size, text),
            None => data.to_vec(),
        };
        file.write_all(&bytes).map_err(file.failed())?;
        Ok(vec![file.finish()?])
    }
}

/// The chunks of a WebP file: name and contents; broken lengths end the list.
pub(crate) fn chunks(bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut chunks = Vec::new();
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(contents) = after.get(..length) else { break };
        chunks.push(([head[0], head[1], head[2], head[3]], contents));
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    chunks
}

/// The same file with an EXIF chunk, and with the `VP8X` chunk that announces it.
fn with_exif(bytes: &[u8], (width, height): (usize, usize), text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes.len() + text.len() + 64);
    let mut chunk = |name: &[u8], contents: &[u8]| {
        body.extend(name);
        body.extend((contents.len() as u32).to_le_bytes());
        body.extend(contents);
        body.extend(std::iter::repeat_n(0, contents.len() % 2));
    };
    let old = chunks(bytes);
    let extended =
        old.iter().find(|(name, _)| name == b"VP8X").and_then(|(_, contents)| contents.get(..10));
    let mut header = [0; 10];
    match extended {
        Some(contents) => header.copy_from_slice(contents),
        None => {
            header[4..7].copy_from_slice(&(width as u32 - 1).to_le_bytes()[..3]);
            header[7..10].copy_from_slice(&(height as u32 - 1).to_le_bytes()[..3]);
        }
    }
    header[0] |= HAS_EXIF;
    chunk(b"VP8X", &header);
    old.iter()
        .filter(|(name, _)| name != b"VP8X")
        .for_each(|(name, contents)| chunk(name, contents));
    chunk(b"EXIF", &exif(text));
    let mut file = b"RIFF".to_vec();
    file.extend((body.len() as u32 + 4).to_le_bytes());
    file.extend(b"WEBP");
    file.extend(body);
    file
}

/// A TIFF structure with one entry: ImageDescription (0x010E).
fn exif(text: &str) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x01\0\x0e\x01\x02\0".to_vec();
    bytes.extend((text.len() as u32 + 1).to_le_bytes());
    bytes.extend(26u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}

/// The ImageDescription in the EXIF chunk of a WebP file.
pub(crate) fn exif_of(bytes: &[u8]) -> Option<String> {
    let chunks = chunks(bytes);
    let (_, exif) = chunks.iter().find(|(name, _)| name == b"EXIF")?;
    let number =
        |at: usize| Some(u32::from_le_bytes(exif.get(at..at + 4)?.try_into().ok()?) as usize);
    if exif.get(..4)? != b"II*\0" {
        return None;
    }
    let directory = number(4)?;
    let entries = usize::from(u16::from_le_bytes(
        exif.get(directory..directory.checked_add(2)?)?.try_into().ok()?,
    ));
    for index in 0..entries {
        let entry = directory.checked_add(2 + 12 * index)?;
        if exif.get(entry..entry.checked_add(4)?)? == [0x0e, 0x01, 0x02, 0x00] {
            let (length, at) = (number(entry + 4)?, number(entry + 8)?);
            let text = exif.get(at..at.checked_add(length)?)?;
            return Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        }
    }
    None
}
