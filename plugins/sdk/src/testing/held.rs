//! Values of the reference host.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::array::Array;
use super::operations::cast;
use crate::DType;

/// What a function of the reference host gives: a value, or why not.
pub(crate) type Outcome<T> = std::result::Result<T, String>;

/// A value as plugins hold it.
pub(crate) type Handle = Arc<Held>;

/// A value.
pub(crate) enum Held {
    Text(String),
    Int(i128),
    Real(f64),
    Bool(bool),
    Tensor(TensorBuffer),
    List(Vec<(String, Handle)>),
    Record(String, Vec<(String, Handle)>),
    Bytes(Vec<u8>),
    Opaque(String),
    Frames(Mutex<FramesBuffer>),
}

/// Frames, perhaps in the making.
#[derive(Default)]
pub(crate) struct FramesBuffer {
    fps: Option<f64>,
    chunks: Vec<Handle>,
    size: Option<(usize, usize)>,
    count: usize,
    done: bool,
}

const FRAMES: [&str; 5] = ["chunks", "fps", "count", "height", "width"];

/// A tensor that may be written once before it is read.
pub(crate) struct TensorBuffer {
    array: UnsafeCell<Array>,
    state: AtomicU8,
}

const OPEN: u8 = 0;
const WRITTEN: u8 = 1;
const DONE: u8 = 2;

// SAFETY: the state lets one writer in, and readers only after it is out for ever.
unsafe impl Sync for TensorBuffer {}

impl TensorBuffer {
    pub(crate) fn open(array: Array) -> Self {
        TensorBuffer { array: UnsafeCell::new(array), state: AtomicU8::new(OPEN) }
    }

    pub(crate) fn done(array: Array) -> Self {
        TensorBuffer { array: UnsafeCell::new(array), state: AtomicU8::new(DONE) }
    }

    /// The tensor, from now on only to be read.
    pub(crate) fn read(&self) -> Outcome<&Array> {
        if self.state.compare_exchange(OPEN, DONE, Ordering::AcqRel, Ordering::Acquire)
            == Err(WRITTEN)
        {
            return Err("the tensor is still being written: give its view back first".into());
        }
        // SAFETY: nobody writes any more: the state is DONE, which it stays.
        Ok(unsafe { &*self.array.get() })
    }

    /// Where the elements lie, to be written by whoever calls [`TensorBuffer::written`] afterwards.
    pub(crate) fn write(&self) -> Outcome<*mut Array> {
        match self.state.compare_exchange(OPEN, WRITTEN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(self.array.get()),
            Err(WRITTEN) => Err("the tensor is being written already".into()),
            Err(_) => Err("the tensor was read already: it can no longer be written".into()),
        }
    }

    /// The writer is out.
    pub(crate) fn written(&self) {
        self.state.store(OPEN, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    pub(crate) fn tensor(array: Array) -> Handle {
        Arc::new(Held::Tensor(TensorBuffer::done(array)))
    }

    /// Frames in the making, of a rate where that is known.
    pub(crate) fn frames(fps: Option<f64>) -> Outcome<Handle> {
        if let Some(fps) = fps.filter(|fps| !fps.is_finite() || *fps <= 0.0) {
            return Err(format!("a rate is a number above 0, found {fps}"));
        }
        Ok(Arc::new(Held::Frames(Mutex::new(FramesBuffer { fps, ..FramesBuffer::default() }))))
    }

    pub(crate) fn type_name(&self) -> &str {
        match self {
            Held::Text(_) => "Text",
            Held::Int(_) => "Int",
            Held::Real(_) => "Real",
            Held::Bool(_) => "Bool",
            Held::Tensor(_) => "Tensor",
            Held::List(_) => "List",
            Held::Record(name, _) | Held::Opaque(name) => name,
            Held::Bytes(_) => "Bytes",
            Held::Frames(_) => "Frames",
        }
    }

    fn refuse<T>(&self, expected: &str) -> Outcome<T> {
        Err(format!("expected {expected}, found {}", self.type_name()))
    }

    pub(crate) fn int(&self) -> Outcome<i128> {
        match self {
            Held::Int(int) => Ok(*int),
            Held::Bool(truth) => Ok(i128::from(*truth)),
            other => other.refuse("Int"),
        }
    }

    pub(crate) fn real(&self) -> Outcome<f64> {
        match self {
            Held::Real(real) => Ok(*real),
            Held::Int(int) => Ok(*int as f64),
            other => other.refuse("Real"),
        }
    }

    pub(crate) fn bytes(&self) -> Outcome<&[u8]> {
        match self {
            Held::Text(text) => Ok(text.as_bytes()),
            Held::Bytes(bytes) => Ok(bytes),
            other => other.refuse("Text or Bytes"),
        }
    }

    pub(crate) fn buffer(&self) -> Outcome<&TensorBuffer> {
        match self {
            Held::Tensor(draft) => Ok(draft),
            other => other.refuse("Tensor"),
        }
    }

    pub(crate) fn array(&self) -> Outcome<&Array> {
        self.buffer()?.read()
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Held::List(items) | Held::Record(_, items) => items.len(),
            Held::Frames(_) => FRAMES.len(),
            _ => 0,
        }
    }

    pub(crate) fn item(&self, index: usize) -> Outcome<(&str, Handle)> {
        let missing = || format!("it has no item {index}, only {}", self.len());
        match self {
            Held::List(items) | Held::Record(_, items) => {
                let (name, item) = items.get(index).ok_or_else(missing)?;
                Ok((name, item.clone()))
            }
            _ => {
                let name = *FRAMES.get(index).filter(|_| self.len() > 0).ok_or_else(missing)?;
                Ok((name, self.field(name)?.ok_or_else(missing)?))
            }
        }
    }

    pub(crate) fn field(&self, name: &str) -> Outcome<Option<Handle>> {
        match self {
            Held::Record(_, fields) => {
                let field = fields.iter().find(|(field, _)| field == name);
                Ok(field.map(|(_, value)| value.clone()))
            }
            Held::Frames(growing) => lock(growing).field(name),
            _ => Ok(None),
        }
    }

    pub(crate) fn push(&self, chunk: &Handle) -> Outcome<()> {
        match self {
            Held::Frames(growing) => lock(growing).push(chunk),
            other => other.refuse("Frames in the making"),
        }
    }
}

impl FramesBuffer {
    fn field(&mut self, name: &str) -> Outcome<Option<Handle>> {
        self.done = true;
        let (height, width) = self.size.ok_or("a video has at least one frame, found none")?;
        let int = |number: usize| Some(Arc::new(Held::Int(number as i128)));
        Ok(match name {
            "chunks" => {
                let chunks = self.chunks.iter().map(|chunk| (String::new(), chunk.clone()));
                Some(Arc::new(Held::List(chunks.collect())))
            }
            "fps" => self.fps.map(|fps| Arc::new(Held::Real(fps))),
            "count" => int(self.count),
            "height" => int(height),
            "width" => int(width),
            _ => None,
        })
    }

    fn push(&mut self, chunk: &Handle) -> Outcome<()> {
        if self.done {
            return Err("frames that have been used take no more chunks".into());
        }
        let array = chunk.array()?;
        let shape = &array.dims;
        let &[count, height, width, 3] = shape.as_slice() else {
            return Err(format!("frames are [count, height, width, 3], found {shape:?}"));
        };
        if count == 0 {
            return Ok(());
        }
        if height == 0 || width == 0 {
            return Err(format!("frames have no pixels: {shape:?}"));
        }
        if let Some((h, w)) = self.size.filter(|size| *size != (height, width)) {
            return Err(format!(
                "frames of one video have one size: {w}x{h} so far, then {width}x{height}"
            ));
        }
        self.size = Some((height, width));
        self.count += count;
        self.chunks.push(match array.dtype {
            DType::F32 => chunk.clone(),
            _ => Held::tensor(cast(array, DType::F32)),
        });
        Ok(())
    }
}
