//! PNG: single or animated; the metadata lies in a compressed iTXt chunk.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use png::text_metadata::ITXtChunk;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError, Writer};

use super::sequence::FrameFile;
use super::writer::{Depth, VideoSpec, VideoWriter, bytes, wide_bytes};
use crate::metadata::KEYWORD;
use crate::{AtomicFile, Error, Result};

fn failed(path: &Path) -> impl FnOnce(EncodingError) -> Error {
    let path = path.to_owned();
    move |error| match error {
        EncodingError::IoError(source) => Error::Io { action: "written", path, source },
        other => Error::content(&path, format!("the PNG encoder failed: {other}")),
    }
}

/// A file that the encoder writes and that is taken back from it at the end.
#[derive(Clone)]
struct Shared(Rc<RefCell<BufWriter<AtomicFile>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// One PNG file in the making; several frames are animated.
pub(super) struct PngWriter {
    /// `None` only once finished.
    writer: Option<Writer<Shared>>,
    file: Shared,
    size: (usize, usize),
    depth: Depth,
    target: PathBuf,
}

impl FrameFile for PngWriter {
    fn create(path: &Path, spec: &VideoSpec<'_>, depth: Depth) -> Result<Self> {
        let file = Shared(Rc::new(RefCell::new(BufWriter::new(AtomicFile::create(path)?))));
        let mut encoder = Encoder::new(file.clone(), spec.width as u32, spec.height as u32);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(match depth {
            Depth::Eight => BitDepth::Eight,
            Depth::Sixteen => BitDepth::Sixteen,
        });
        encoder.set_compression(Compression::Balanced);
        encoder.validate_sequence(true);
        if spec.count > 1 {
            encoder.set_animated(spec.count as u32, 0).map_err(failed(path))?;
            let (seconds, of) = timing_of(spec.fps);
            encoder.set_frame_delay(seconds, of).map_err(failed(path))?;
        }
        let mut writer = encoder.write_header().map_err(failed(path))?;
        if let Some(text) = spec.metadata {
            let mut chunk = ITXtChunk::new(KEYWORD, text);
            chunk.compressed = true;
            chunk.compress_text().map_err(failed(path))?;
            writer.write_text_chunk(&chunk).map_err(failed(path))?;
        }
        Ok(PngWriter {
            writer: Some(writer),
            file,
            size: (spec.width, spec.height),
            depth,
            target: path.to_owned(),
        })
    }

    fn close(mut self) -> Result<AtomicFile> {
        if let Some(writer) = self.writer.take() {
            writer.finish().map_err(failed(&self.target))?;
        }
        let PngWriter { file, target, .. } = self;
        let Some(buffered) = Rc::into_inner(file.0) else {
            return Err(Error::content(&target, "the file is still being written"));
        };
        let file = buffered.into_inner().into_inner();
        file.map_err(|error| Error::io("written", &target)(error.into_error()))
    }
}

impl VideoWriter for PngWriter {
    fn push(&mut self, frame: &[f32]) -> Result<()> {
        let rgb = match self.depth {
            Depth::Eight => bytes(frame, self.size)?,
            Depth::Sixteen => wide_bytes(frame, self.size)?,
        };
        match &mut self.writer {
            Some(writer) => writer.write_image_data(&rgb).map_err(failed(&self.target)),
            None => Err(Error::content(&self.target, "the file is already finished")),
        }
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>> {
        Ok(vec![self.close()?.finish()?])
    }
}

/// The duration of a frame as a fraction of seconds in 16 bits each, as APNG wants it: the nearest
/// there is.
fn timing_of(fps: f64) -> (u16, u16) {
    let error = |seconds: u16, of: u16| (f64::from(of) / f64::from(seconds) / fps - 1.0).abs();
    let nearest = |seconds: u16| {
        let of = (fps * f64::from(seconds)).round();
        (1.0..=65535.0).contains(&of).then_some((seconds, of as u16))
    };
    let best = (1..=u16::MAX).filter_map(nearest).min_by(|a, b| {
        let (first, second) = (error(a.0, a.1), error(b.0, b.1));
        first.total_cmp(&second)
    });
    best.unwrap_or((u16::MAX, 1))
}

#[cfg(test)]
mod tests {
    use super::timing_of;

    #[test]
    fn rates_of_animated_png() {
        assert_eq!(timing_of(8.0), (1, 8));
        assert_eq!(timing_of(24_000.0 / 1001.0), (1001, 24_000));
        assert_eq!(timing_of(12.5), (2, 25));
        assert_eq!(timing_of(0.25), (4, 1));
    }
}
