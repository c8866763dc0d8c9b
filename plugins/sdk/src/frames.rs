//! Video frames: chunks of `[n, height, width, 3]` with a rate, and ways through them.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::element::FILL_PIECE;
use crate::host::{FramesSink, Sink};
use crate::port::{FromValue, IntoValue, Typed};
use crate::{Cx, Element, Error, Result, Sample, Tensor, Value, ValueKind};

/// Video frames of f32 in 0…1; an image is one frame.
///
/// The engine holds them as chunks, perhaps in a file. Work chunk by chunk where the meaning
/// allows it, and a video may be longer than the memory.
pub struct Frames {
    value: Value,
    /// The list of chunks, once somebody asks for it.
    chunks: OnceLock<Value>,
    lengths: Mutex<Lengths>,
    fps: Option<f64>,
    count: usize,
    height: usize,
    width: usize,
}

/// Where the chunks that were seen begin, and the last one read.
#[derive(Default)]
struct Lengths {
    ends: Vec<usize>,
    last: Option<(usize, Tensor)>,
}

/// One frame while [`Frames::map_frames`] walks over them.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Its pixels: red, green, blue in 0…1, row by row.
    pub rgb: &'a [f32],
}

impl FrameView<'_> {
    /// The pixel in a row and a column; beyond the border the nearest one.
    pub fn pixel(&self, row: isize, column: isize) -> [f32; 3] {
        let row = row.clamp(0, self.height as isize - 1) as usize;
        let column = column.clamp(0, self.width as isize - 1) as usize;
        let at = 3 * (row * self.width + column);
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames({} of {}x{}", self.count, self.width, self.height)?;
        self.fps.map_or(Ok(()), |fps| write!(f, ", {fps} a second"))?;
        f.write_str(")")
    }
}

impl Frames {
    /// Frames of one chunk `[n, height, width, 3]`.
    ///
    /// # Errors
    /// When the tensor has another shape or other elements than f32.
    pub fn new(chunk: &Tensor, fps: Option<f64>) -> Result<Self> {
        let mut builder = FramesBuilder::new(fps)?;
        builder.push(chunk)?;
        let frames = builder.finish()?;
        let _ = frames.chunks.set(Value::list(&[("", chunk.value())])?);
        Ok(frames)
    }

    /// Frames a second, where that is known.
    pub fn fps(&self) -> Option<f64> {
        self.fps
    }

    /// The number of frames.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of chunks.
    ///
    /// # Errors
    /// When the host does not tell.
    pub fn chunk_count(&self) -> Result<usize> {
        self.list().map(Value::len)
    }

    fn list(&self) -> Result<&Value> {
        if self.chunks.get().is_none() {
            let missing = || Error::new("these Frames have no chunks");
            // Where two threads come at the same time, the first one's stays.
            let _ = self.chunks.set(self.value.field("chunks")?.ok_or_else(missing)?);
        }
        self.chunks.get().ok_or_else(|| Error::new("these Frames have no chunks"))
    }

    /// A chunk, `[n, height, width, 3]`; one that lies in a file is read.
    ///
    /// # Errors
    /// When there is none of this index, or it cannot be read.
    pub fn chunk(&self, index: usize) -> Result<Tensor> {
        Tensor::of(self.list()?.item(index)?.1)
    }

    /// The chunks, one after the other.
    pub fn chunks(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        // Where they cannot be counted, the first one says why.
        let count = self.chunk_count().unwrap_or(1);
        (0..count).map(|index| self.chunk(index))
    }

    /// All frames in one tensor `[n, height, width, 3]`, for what needs a whole video
    /// in memory.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn joined(&self) -> Result<Tensor> {
        let chunks = self.chunks().collect::<Result<Vec<_>>>()?;
        Tensor::concat(&chunks.iter().collect::<Vec<_>>(), 0)
    }

    /// One frame, `[height, width, 3]`, copied.
    ///
    /// # Errors
    /// When there is none of this index, or it cannot be read.
    pub fn frame(&self, index: usize) -> Result<Vec<f32>> {
        let (chunk, within) = self.find(index)?;
        let pixels = 3 * self.height * self.width;
        chunk.with_piece(within * pixels, pixels, <[f32]>::to_vec)
    }

    /// The chunk that holds a frame, and the frame's place within.
    fn find(&self, index: usize) -> Result<(Tensor, usize)> {
        if index >= self.count {
            return Err(Error::new(format!("there is no frame {index}, only {}", self.count)));
        }
        let mut known = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let at = known.ends.partition_point(|&end| end <= index);
            let read = match &known.last {
                Some((last, chunk)) if *last == at => chunk.clone(),
                _ => self.chunk(at)?,
            };
            let first = if at == 0 { 0 } else { known.ends[at - 1] };
            if at == known.ends.len() {
                let [n, ..] = read.shape::<4>()?;
                known.ends.push(first + n);
            }
            known.last = Some((at, read.clone()));
            if index < known.ends[at] {
                return Ok((read, index - first));
            }
        }
    }

    /// New frames, element by element.
    ///
    /// `work` gets pieces of the frames in order and writes pieces of the same length; pieces do
    /// not end at rows or frames. Reports progress and ends where the run is cancelled.
    ///
    /// # Errors
    /// When the run is cancelled, or the frames cannot be read or written.
    pub fn map(&self, cx: &Cx, mut work: impl FnMut(&[f32], &mut [f32])) -> Result<Frames> {
        let mut done = 0;
        self.map_chunks(cx, |chunk| {
            let mut sink = Sink::<f32>::new(chunk.dims())?;
            let (of, pixels) = (self.count, (3 * self.height * self.width).max(1));
            sink.fill(FILL_PIECE, |first, out| {
                cx.check_cancel()?;
                chunk.with_piece(first, out.len(), |input| work(input, out))?;
                let whole = (first + out.len()) / pixels;
                if whole > first / pixels {
                    cx.progress(done + whole, of);
                }
                Ok(())
            })?;
            done += chunk.dims()[0];
            Tensor::of(sink.finish()?)
        })
    }

    /// New frames of the same size, each number by itself; nothing is faster.
    ///
    /// `frames.map_samples(cx, |x| (x * gain).clamp(0.0, 1.0))`: what is done with a [`Sample`]
    /// becomes vector instructions in both builds.
    ///
    /// # Errors
    /// When the run is cancelled, or the frames cannot be read or written.
    pub fn map_samples<R: Into<Sample>>(
        &self,
        cx: &Cx,
        each: impl Fn(Sample) -> R,
    ) -> Result<Frames> {
        self.map_each(cx, |x| each(Sample(x)).into().0)
    }

    /// The same with numbers of type f32, whose `min` and `max` are slow in a component.
    ///
    /// # Errors
    /// When the run is cancelled, or the frames cannot be read or written.
    pub fn map_each(&self, cx: &Cx, each: impl Fn(f32) -> f32) -> Result<Frames> {
        let mut done = 0;
        self.map_chunks(cx, |chunk| {
            let mut sink = Sink::<f32>::new(chunk.dims())?;
            sink.fill_each(FILL_PIECE, &each, |first, count, take| {
                cx.check_cancel()?;
                chunk.with_piece(first, count, take)
            })?;
            done += chunk.dims()[0];
            cx.progress(done, self.count);
            Tensor::of(sink.finish()?)
        })
    }

    /// New frames of the same size, frame by frame: `work` gets a frame, the place for the new one,
    /// and its index.
    ///
    /// # Errors
    /// When the run is cancelled, `work` fails, or the frames cannot be read or written.
    pub fn map_frames(
        &self,
        cx: &Cx,
        mut work: impl FnMut(FrameView<'_>, &mut [f32], usize) -> Result<()>,
    ) -> Result<Frames> {
        let (height, width) = (self.height, self.width);
        let pixels = 3 * height * width;
        let mut index = 0;
        self.map_chunks(cx, |chunk| {
            let mut sink = Sink::<f32>::new(chunk.dims())?;
            sink.fill(pixels, |first, out| {
                cx.check_cancel()?;
                chunk.with_piece(first, pixels, |rgb| {
                    work(FrameView { height, width, rgb }, out, index)
                })??;
                index += 1;
                cx.progress(index, self.count);
                Ok(())
            })?;
            Tensor::of(sink.finish()?)
        })
    }

    /// New frames, chunk by chunk `[n, height, width, 3]`; the results may have another size.
    ///
    /// # Errors
    /// When the run is cancelled, `work` fails, or the frames cannot be read or written.
    pub fn map_chunks(
        &self,
        cx: &Cx,
        mut work: impl FnMut(Tensor) -> Result<Tensor>,
    ) -> Result<Frames> {
        let mut builder = FramesBuilder::new(self.fps)?;
        for chunk in self.chunks() {
            cx.check_cancel()?;
            let chunk = chunk?;
            expect_rgb(&chunk)?;
            builder.push(&work(chunk)?)?;
        }
        self.keep_fields(builder.finish()?)
    }

    /// Other frames made of these, with the fields of these that this crate does not know.
    fn keep_fields(&self, mut made: Frames) -> Result<Frames> {
        const KNOWN: [&str; 5] = ["chunks", "fps", "count", "height", "width"];
        let known = KNOWN.len() - usize::from(self.fps.is_none());
        if self.value.len() <= known {
            return Ok(made);
        }
        let items = (0..self.value.len()).map(|index| self.value.item(index));
        let mut fields = items.collect::<Result<Vec<_>>>()?;
        fields.retain(|(name, _)| !KNOWN.contains(&name.as_str()));
        for name in ["chunks", "fps"] {
            fields.extend(made.value.field(name)?.map(|value| (name.to_owned(), value)));
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        made.value = Value::record("Frames", &fields)?;
        Ok(made)
    }
}

/// Frames in the making: chunks are pushed, so that a long video need not lie in memory.
pub struct FramesBuilder {
    sink: FramesSink,
    fps: Option<f64>,
    count: usize,
    size: Option<(usize, usize)>,
}

impl FramesBuilder {
    /// Begins frames of a rate.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn new(fps: Option<f64>) -> Result<Self> {
        Ok(FramesBuilder { sink: FramesSink::new(fps)?, fps, count: 0, size: None })
    }

    /// Appends a chunk `[n, height, width, 3]` of f32 in 0…1.
    ///
    /// # Errors
    /// When it has another shape or other elements.
    pub fn push(&mut self, chunk: &Tensor) -> Result<()> {
        let [count, height, width] = expect_rgb(chunk)?;
        self.sink.push(chunk.value())?;
        if count > 0 {
            self.size = Some((height, width));
            self.count += count;
        }
        Ok(())
    }

    /// The frames, finished.
    ///
    /// # Errors
    /// When there are none.
    pub fn finish(self) -> Result<Frames> {
        let FramesBuilder { sink, fps, count, size } = self;
        let (height, width) =
            size.ok_or_else(|| Error::new("a video has at least one frame, found none"))?;
        let value = sink.finish()?;
        let (chunks, lengths) = (OnceLock::new(), Mutex::default());
        Ok(Frames { value, chunks, lengths, fps, count, height, width })
    }
}

/// The number of frames and their size, where a tensor is frames.
fn expect_rgb(chunk: &Tensor) -> Result<[usize; 3]> {
    match *chunk.dims() {
        [count, height, width, 3] if chunk.dtype() == f32::DTYPE => Ok([count, height, width]),
        ref dims => Err(Error::new(format!(
            "expected frames [n, height, width, 3] of f32, found {dims:?} of {}",
            chunk.dtype()
        ))),
    }
}

impl Typed for Frames {
    fn type_name() -> String {
        "Frames".into()
    }
}

impl FromValue for Frames {
    fn from_value(value: Value) -> Result<Self> {
        if value.kind() == ValueKind::Tensor {
            return Frames::new(&Tensor::of(value)?, None);
        }
        let field = |name: &str| {
            let missing = || Error::new(format!("{} have no {name}", value.type_name()));
            value.field(name)?.ok_or_else(missing)
        };
        let size = |name: &str| Ok::<_, Error>(field(name)?.as_int()?.max(0) as usize);
        let (count, height, width) = (size("count")?, size("height")?, size("width")?);
        let fps = value.field("fps")?.map(|fps| fps.as_real()).transpose()?;
        let (chunks, lengths) = (OnceLock::new(), Mutex::default());
        Ok(Frames { value, chunks, lengths, fps, count, height, width })
    }
}

impl IntoValue for Frames {
    fn into_value(self) -> Result<Value> {
        Ok(self.value)
    }
}

impl Clone for Frames {
    fn clone(&self) -> Self {
        Frames {
            value: self.value.clone(),
            chunks: self.chunks.clone(),
            lengths: Mutex::default(),
            fps: self.fps,
            count: self.count,
            height: self.height,
            width: self.width,
        }
    }
}
