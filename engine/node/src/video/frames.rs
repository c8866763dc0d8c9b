//! Video frames, held in chunks; chunks for which the ledger has no room, and those of frames that
//! wait for long, lie in temporary files.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use kino_port::PortType;
use serde::{Deserialize, Serialize};

use crate::ledger::{Lease, Ledger};
use crate::spill::{Scratch, SpillFile};
use crate::stored::{TensorHeader, TensorReader};
use crate::types::{Field, Fields, TensorFact, Tensors, ValueType};
use crate::{Error, Result};

/// Video frames `[count, height, width, 3]`, RGB f32 in 0…1, on the CPU; an image is one frame.
pub struct Frames {
    count: usize,
    height: usize,
    width: usize,
    fps: Option<f64>,
    chunks: Vec<Chunk>,
}

struct Chunk {
    frames: usize,
    storage: ChunkStorage,
    /// Whether its numbers are known to be numbers. A pass over them costs as much as making them,
    /// so that who reads them first makes it.
    checked: AtomicBool,
}

enum ChunkStorage {
    Memory { tensor: Tensor, lease: Option<Lease> },
    Disk { scratch: Arc<Scratch>, at: u64 },
}

impl Frames {
    /// Frames from one tensor `[f, h, w, 3]`, as [`FramesBuilder::push`] takes it.
    ///
    /// # Errors
    /// When the shape is another, or a number is none.
    pub fn from_tensor(tensor: &Tensor, fps: Option<f64>) -> Result<Self> {
        let mut builder = FramesBuilder { frames: Frames::empty(fps), ledger: None, scratch: None };
        builder.push(tensor)?;
        let frames = builder.finish()?;
        frames.check_numbers()?;
        Ok(frames)
    }

    fn empty(fps: Option<f64>) -> Self {
        Frames { count: 0, height: 0, width: 0, fps, chunks: Vec::new() }
    }

    /// The number of frames.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Frames a second, where it is known.
    pub fn fps(&self) -> Option<f64> {
        self.fps
    }

    /// The number of chunks.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The number of frames of chunk `index`.
    pub fn chunk_len(&self, index: usize) -> usize {
        self.chunks[index].frames
    }

    /// The chunks in order, each `[n, height, width, 3]`; spilled ones are read back one at a time.
    /// Each is an error as [`Frames::chunk`].
    pub fn chunks(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        self.chunks.iter().map(|chunk| self.load(chunk))
    }

    /// Chunk `index`, `[n, height, width, 3]`; a spilled one is read back.
    ///
    /// # Errors
    /// When it cannot be read back, there is no such chunk, or numbers in it are NaN, which no
    /// reader of frames expects.
    pub fn chunk(&self, index: usize) -> Result<Tensor> {
        let chunk = self.chunks.get(index);
        self.load(chunk.ok_or_else(|| Error::failed(format!("frames have no chunk {index}")))?)
    }

    /// Reads all chunks whose numbers nobody has read yet.
    ///
    /// # Errors
    /// As [`Frames::chunk`].
    pub fn check_numbers(&self) -> Result<()> {
        let unread = self.chunks.iter().filter(|chunk| !chunk.checked.load(Ordering::Relaxed));
        unread.map(|chunk| self.load(chunk)).try_for_each(|chunk| chunk.map(drop))
    }

    /// Whether chunk `index` lies in a file: reading it takes new memory.
    pub fn is_spilled(&self, index: usize) -> bool {
        let chunk = self.chunks.get(index);
        chunk.is_some_and(|chunk| matches!(chunk.storage, ChunkStorage::Disk { .. }))
    }

    /// All frames as one tensor `[count, height, width, 3]`.
    ///
    /// # Errors
    /// When spilled frames cannot be read.
    pub fn whole(&self) -> Result<Tensor> {
        let chunks = self.chunks().collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&chunks, 0)?)
    }

    /// The bytes that lie in memory.
    pub fn resident(&self) -> u64 {
        let frame = (self.height * self.width * 3 * 4) as u64;
        let in_memory =
            self.chunks.iter().filter(|chunk| matches!(chunk.storage, ChunkStorage::Memory { .. }));
        in_memory.map(|chunk| chunk.frames as u64 * frame).sum()
    }

    /// The bytes in memory that no lease of these frames counts.
    pub fn unleased(&self) -> u64 {
        let frame = (self.height * self.width * 3 * 4) as u64;
        let unleased = self
            .chunks
            .iter()
            .filter(|chunk| matches!(chunk.storage, ChunkStorage::Memory { lease: None, .. }));
        unleased.map(|chunk| chunk.frames as u64 * frame).sum()
    }

    /// The bytes of all frames, wherever they lie.
    pub fn bytes(&self) -> u64 {
        (self.count * self.height * self.width * 3 * 4) as u64
    }

    /// A chunk whose numbers are numbers.
    fn load(&self, chunk: &Chunk) -> Result<Tensor> {
        let tensor = self.stored(chunk)?;
        if !chunk.checked.load(Ordering::Relaxed) {
            let nan = count_nan(&tensor);
            if nan > 0 {
                let of = tensor.elem_count();
                return Err(Error::advised(
                    format!("{nan} of {of} numbers of these frames are NaN"),
                    "what made them divided by 0 or went beyond the numbers that there are",
                ));
            }
            chunk.checked.store(true, Ordering::Relaxed);
        }
        Ok(tensor)
    }

    /// A chunk as it was pushed.
    fn stored(&self, chunk: &Chunk) -> Result<Tensor> {
        match &chunk.storage {
            ChunkStorage::Memory { tensor, .. } => Ok(tensor.clone()),
            ChunkStorage::Disk { scratch, at } => {
                let shape = (chunk.frames, self.height, self.width, 3);
                let bytes = scratch.read(*at, chunk.frames * self.height * self.width * 3 * 4)?;
                Ok(Tensor::from_raw_buffer(
                    &bytes,
                    DType::F32,
                    &[shape.0, shape.1, shape.2, 3],
                    &Device::Cpu,
                )?)
            }
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frames[{}, {}, {}, 3]", self.count, self.height, self.width)
    }
}

/// A tensor as f32. Whole numbers are levels of 0…1.
fn levels(tensor: &Tensor) -> Result<Tensor> {
    let largest = match tensor.dtype() {
        DType::U8 => f64::from(u8::MAX),
        DType::U32 => f64::from(u32::MAX),
        DType::I16 => f64::from(i16::MAX),
        DType::I32 => f64::from(i32::MAX),
        DType::I64 => i64::MAX as f64,
        _ => return Ok(tensor.to_dtype(DType::F32)?),
    };
    Ok((tensor.to_dtype(DType::F64)? / largest)?.to_dtype(DType::F32)?)
}

/// How many elements of a tensor that is [`compact`] are no numbers.
fn count_nan(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(elements)) = &*storage else { return 0 };
    // In pieces whose count fits into lanes of 32 bits.
    let count = |piece: &[f32]| piece.iter().fold(0_u32, |n, value| n + u32::from(value.is_nan()));
    elements.chunks(1 << 16).map(|piece| count(piece) as usize).sum()
}

/// The tensor with its elements in row-major order and no other memory kept alive.
fn compact(tensor: Tensor) -> Result<Tensor> {
    let is_compact = {
        let (storage, layout) = tensor.storage_and_layout();
        let len = match &*storage {
            Storage::Cpu(CpuStorage::F32(elements)) => elements.len(),
            _ => 0,
        };
        layout.is_contiguous() && len == tensor.elem_count()
    };
    if is_compact { Ok(tensor) } else { Ok(tensor.force_contiguous()?) }
}

/// Moves a chunk to a temporary file: as one piece, since others may append to the file, too.
fn moved(tensor: &Tensor, scratch: &Arc<Scratch>) -> Result<ChunkStorage> {
    let mut to = scratch.begin((tensor.elem_count() * 4) as u64)?;
    // Frame by frame, so that what memory has no room for is not copied as a whole.
    for frame in 0..tensor.dim(0)? {
        let frame = tensor.get(frame)?;
        let mut bytes = Vec::with_capacity(frame.elem_count() * 4);
        frame.write_bytes(&mut bytes)?;
        to.write(&bytes)?;
    }
    let at = to.at();
    Ok(ChunkStorage::Disk { scratch: Arc::clone(scratch), at })
}

/// Frames in the making: chunks are pushed as they are computed.
pub struct FramesBuilder {
    frames: Frames,
    ledger: Option<Arc<Ledger>>,
    scratch: Option<Arc<Scratch>>,
}

impl FramesBuilder {
    /// An empty builder whose frames take leases of `ledger`.
    pub fn new(ledger: &Arc<Ledger>, fps: Option<f64>) -> Self {
        let ledger = Some(Arc::clone(ledger));
        FramesBuilder { frames: Frames::empty(fps), ledger, scratch: None }
    }

    /// Appends frames `[n, h, w, 3]`; they are brought to the CPU as f32, whole numbers as levels of
    /// 0…1: divided by the largest of their type. A tensor that is all of its memory is kept as it
    /// is, others are copied.
    ///
    /// What of them is NaN is told when they are read.
    ///
    /// # Errors
    /// When the shape is another or differs in size from the frames before, or a temporary file
    /// cannot be written.
    pub fn push(&mut self, chunk: &Tensor) -> Result<()> {
        let (n, height, width, channels) = chunk.dims4().map_err(|_| {
            Error::failed(format!("frames are [count, height, width, 3], found {:?}", chunk.dims()))
        })?;
        if channels != 3 {
            return Err(Error::failed(format!("frames have 3 channels, found {:?}", chunk.dims())));
        }
        if n == 0 {
            return Ok(());
        }
        if height == 0 || width == 0 {
            return Err(Error::failed(format!("frames have no pixels: {:?}", chunk.dims())));
        }
        self.fits(height, width)?;
        let tensor = compact(levels(&chunk.to_device(&Device::Cpu)?)?)?;
        let storage = self.store(tensor)?;
        self.add(n, storage, chunk.dtype().is_int());
        Ok(())
    }

    fn add(&mut self, frames: usize, storage: ChunkStorage, checked: bool) {
        self.frames.count += frames;
        let checked = AtomicBool::new(checked);
        self.frames.chunks.push(Chunk { frames, storage, checked });
    }

    /// Appends all frames of `other`. What lies in a temporary file stays there and is shared.
    ///
    /// # Errors
    /// As [`FramesBuilder::push`].
    pub fn append(&mut self, other: &Frames) -> Result<()> {
        for chunk in &other.chunks {
            self.fits(other.height, other.width)?;
            let storage = match &chunk.storage {
                ChunkStorage::Memory { tensor, .. } => self.store(tensor.clone())?,
                ChunkStorage::Disk { scratch, at } => {
                    ChunkStorage::Disk { scratch: Arc::clone(scratch), at: *at }
                }
            };
            self.add(chunk.frames, storage, chunk.checked.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Takes the size of further frames, which is that of all before.
    fn fits(&mut self, height: usize, width: usize) -> Result<()> {
        let frames = &mut self.frames;
        if frames.count > 0 && (frames.height, frames.width) != (height, width) {
            return Err(Error::failed(format!(
                "frames of one video have one size: {}x{} so far, then {width}x{height}",
                frames.width, frames.height
            )));
        }
        (frames.height, frames.width) = (height, width);
        Ok(())
    }

    fn store(&mut self, tensor: Tensor) -> Result<ChunkStorage> {
        let Some(ledger) = &self.ledger else {
            return Ok(ChunkStorage::Memory { tensor, lease: None });
        };
        if let Ok(lease) = ledger.lease((tensor.elem_count() * 4) as u64, "frames") {
            return Ok(ChunkStorage::Memory { tensor, lease: Some(lease) });
        }
        let scratch = match &self.scratch {
            Some(scratch) => Arc::clone(scratch),
            None => Arc::clone(self.scratch.insert(Arc::new(Scratch::new(ledger)?))),
        };
        moved(&tensor, &scratch)
    }

    /// The frames pushed.
    ///
    /// # Errors
    /// When there are none.
    pub fn finish(self) -> Result<Frames> {
        if self.frames.count == 0 {
            return Err(Error::failed("a video has at least one frame, found none"));
        }
        Ok(self.frames)
    }
}

/// What is known of frames: `[count, height, width, 3]`. By default nothing is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FramesFact {
    /// The number of frames, where it is known.
    pub count: Option<usize>,
    /// Height in pixels, where it is known.
    pub height: Option<usize>,
    /// Width in pixels, where it is known.
    pub width: Option<usize>,
    /// Frames a second.
    pub fps: FrameRate,
}

/// What is known of the rate of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FrameRate {
    /// Nothing.
    #[default]
    Unknown,
    /// They have none, as an image has none.
    None,
    /// So many frames a second.
    Fps(f64),
}

impl FrameRate {
    /// The rate of frames that have it, or have none.
    pub fn of(fps: Option<f64>) -> Self {
        fps.map_or(FrameRate::None, FrameRate::Fps)
    }

    /// The rate, where they have one and it is known.
    pub fn fps(self) -> Option<f64> {
        match self {
            FrameRate::Fps(fps) => Some(fps),
            FrameRate::Unknown | FrameRate::None => None,
        }
    }

    /// The rate of frames so many times as many.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        match self {
            FrameRate::Fps(fps) => FrameRate::Fps(fps * factor),
            rate => rate,
        }
    }
}

impl FramesFact {
    /// Height and width, where both are known.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.height.zip(self.width)
    }

    /// The same frames in another size, where that is known.
    #[must_use]
    pub fn sized(self, (height, width): (Option<usize>, Option<usize>)) -> Self {
        FramesFact { height, width, ..self }
    }
}

/// All of frames but their pixels.
#[derive(Serialize, Deserialize)]
pub struct FramesHeader {
    /// The frames of each chunk.
    chunks: Vec<usize>,
    height: usize,
    width: usize,
    /// The bits, so that nothing is rounded.
    fps: Option<u64>,
}

impl ValueType for Frames {
    const PORT: PortType = PortType::Frames;
    type Fact = FramesFact;
    type Header = FramesHeader;

    fn check(&self) -> Result<()> {
        match self.fps {
            Some(fps) if !(fps.is_finite() && fps > 0.0) => {
                Err(Error::failed(format!("frames a second are more than 0, found {fps}")))
            }
            _ => Ok(()),
        }
    }

    fn fact(&self) -> FramesFact {
        let (height, width) = (Some(self.height), Some(self.width));
        FramesFact { count: Some(self.count), height, width, fps: FrameRate::of(self.fps) }
    }

    fn shape(&self) -> Option<Vec<usize>> {
        Some(vec![self.count, self.height, self.width, 3])
    }

    fn extent(&self) -> String {
        let size = format!("{} frames of {}x{}", self.count, self.width, self.height);
        self.fps.map_or(size.clone(), |fps| format!("{size}, {fps} a second"))
    }

    fn tensor(&self) -> Result<Tensor> {
        self.whole()
    }

    fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Frames::from_tensor(tensor, None)
    }

    fn fact_of_tensor(tensor: &TensorFact) -> Option<FramesFact> {
        match *tensor.shape.as_slice() {
            [count, height, width, _] => Some(FramesFact {
                count: Some(count),
                height: Some(height),
                width: Some(width),
                fps: FrameRate::None,
            }),
            _ => None,
        }
    }

    fn tensor_of_fact(fact: &FramesFact) -> Option<TensorFact> {
        let shape = vec![fact.count.unwrap_or(1), fact.height?, fact.width?, 3];
        Some(TensorFact { shape, dtype: DType::F32 })
    }

    /// All but the chunks, which plugins read one at a time.
    fn field(&self, name: &str) -> Result<Option<Field>> {
        Ok(match name {
            "fps" => self.fps.map(Field::Real),
            "count" => Some(Field::Int(self.count)),
            "height" => Some(Field::Int(self.height)),
            "width" => Some(Field::Int(self.width)),
            _ => None,
        })
    }

    fn from_fields(fields: &dyn Fields) -> Result<Self> {
        let frames = Frames::empty(fields.real("fps")?);
        let mut builder = FramesBuilder { frames, ledger: None, scratch: None };
        fields.tensors("chunks")?.iter().try_for_each(|chunk| builder.push(chunk))?;
        builder.finish()
    }

    fn bytes(&self) -> u64 {
        self.resident()
    }

    fn spilled(&self) -> u64 {
        Frames::bytes(self) - self.resident()
    }

    fn unleased(&self) -> u64 {
        Frames::unleased(self)
    }

    fn moved_to(&self, file: &SpillFile) -> Result<Option<Self>> {
        if self.resident() == 0 {
            return Ok(None);
        }
        let scratch = file.scratch()?;
        let Frames { count, height, width, fps, .. } = *self;
        let mut chunks = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let storage = match &chunk.storage {
                ChunkStorage::Memory { tensor, .. } => moved(tensor, &scratch)?,
                ChunkStorage::Disk { scratch, at } => {
                    ChunkStorage::Disk { scratch: Arc::clone(scratch), at: *at }
                }
            };
            let checked = AtomicBool::new(chunk.checked.load(Ordering::Relaxed));
            chunks.push(Chunk { frames: chunk.frames, storage, checked });
        }
        Ok(Some(Frames { count, height, width, fps, chunks }))
    }

    fn header(&self) -> FramesHeader {
        FramesHeader {
            chunks: self.chunks.iter().map(|chunk| chunk.frames).collect(),
            height: self.height,
            width: self.width,
            fps: self.fps.map(f64::to_bits),
        }
    }

    fn tensors(&self) -> Tensors<'_> {
        Box::new(self.chunks.iter().map(|chunk| self.stored(chunk)))
    }

    fn restore(header: FramesHeader, tensors: &mut TensorReader<'_>) -> Result<Self> {
        let FramesHeader { chunks, height, width, fps } = header;
        let mut frames = FramesBuilder::new(&tensors.services.ledger, fps.map(f64::from_bits));
        for count in chunks {
            let header = TensorHeader::new(DType::F32, &[count, height, width, 3]);
            frames.push(&tensors.next_in_main_memory(&header)?)?;
        }
        frames.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(tensor: &Tensor) -> *const f32 {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { panic!("on the CPU") };
        storage.as_slice::<f32>().unwrap()[layout.start_offset()..].as_ptr()
    }

    #[test]
    fn a_chunk_is_kept_as_it_is_unless_it_is_part_of_more() {
        let all = Tensor::rand(0f32, 1.0, (4, 2, 5, 3), &Device::Cpu).unwrap();
        let kept = Frames::from_tensor(&all, None).unwrap().chunk(0).unwrap();
        assert_eq!(address(&kept), address(&all));
        let part = all.narrow(0, 1, 2).unwrap();
        let copied = Frames::from_tensor(&part, None).unwrap().chunk(0).unwrap();
        assert_ne!(address(&copied), address(&part));
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&copied), values(&part));
        let turned = all.permute((0, 2, 1, 3)).unwrap();
        let rows = Frames::from_tensor(&turned, None).unwrap().chunk(0).unwrap();
        assert!(rows.is_contiguous());
        assert_eq!(values(&rows), values(&turned));
    }
}
