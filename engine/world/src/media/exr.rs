//! OpenEXR out: light as half floats, compressed without loss (ZIP of 16 lines). The metadata lies
//! in an attribute of its own.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use exr::image::{Encoding, Image, Layer, SpecificChannels};
use exr::meta::attribute::Text;
use exr::meta::header::LayerAttributes;
use exr::prelude::{Vec2, WritableImage, f16};

use super::sequence::FrameFile;
use super::writer::{Depth, VideoSpec, VideoWriter};
use crate::exr::{finite, text};
use crate::light::srgb_to_light;
use crate::metadata::KEYWORD;
use crate::{AtomicFile, Error, Result};

/// One EXR file in the making.
pub(super) struct ExrWriter {
    file: AtomicFile,
    size: (usize, usize),
    metadata: Option<String>,
    /// Whether its frame was written.
    is_written: bool,
}

impl FrameFile for ExrWriter {
    fn create(path: &Path, spec: &VideoSpec<'_>, _: Depth) -> Result<Self> {
        Ok(ExrWriter {
            file: AtomicFile::create(path)?,
            size: (spec.width, spec.height),
            metadata: spec.metadata.map(str::to_owned),
            is_written: false,
        })
    }

    fn close(self) -> Result<AtomicFile> {
        match self.is_written {
            true => Ok(self.file),
            false => Err(Error::content(self.file.target(), "an image has one frame, found none")),
        }
    }
}

impl VideoWriter for ExrWriter {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        let (width, height) = self.size;
        let target = self.file.target().to_owned();
        if frame.len() != width * height * 3 {
            let message = format!("expected {width}x{height} pixels, found {}", frame.len() / 3);
            return Err(Error::content(&target, message));
        }
        if self.is_written {
            return Err(Error::content(&target, "an EXR file holds one image"));
        }
        let light = |value: f32| f16::from_f32(finite(srgb_to_light(value)));
        let pixel = |at: Vec2<usize>| {
            let at = (at.y() * width + at.x()) * 3;
            (light(frame[at]), light(frame[at + 1]), light(frame[at + 2]))
        };
        let mut attributes = LayerAttributes::default();
        if let Some(metadata) = &self.metadata {
            attributes.other.insert(Text::from(KEYWORD), text(metadata));
        }
        let channels = SpecificChannels::rgb(pixel);
        let layer = Layer::new((width, height), attributes, Encoding::SMALL_LOSSLESS, channels);
        let written = Image::from_layer(layer)
            .write()
            .non_parallel()
            .to_buffered(BufWriter::new(&mut self.file));
        written.map_err(|error| match error {
            exr::error::Error::Io(source) => Error::Io { action: "written", path: target, source },
            other => Error::content(&target, format!("the EXR encoder failed: {other}")),
        })?;
        self.is_written = true;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>> {
        Ok(vec![self.close()?.finish()?])
    }
}
