//! Tensors: shape, elements, and making new ones.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::element::{FILL_PIECE, bytes_of, bytes_of_mut, check_dtype, count_of, elements_of};
use crate::host::{Device, Sink, View};
use crate::{DType, Element, Error, Result, Value, ensure};

/// A tensor of the engine: immutable, row-major, shared by its clones.
///
/// In a native plugin, [`Tensor::as_slice`] is the memory of the engine itself. In a component the
/// elements stay with the engine until they are read: [`Tensor::read_into`] reads a piece,
/// [`Tensor::as_slice`] all of them. Operations (`matmul`, `conv2d`, `add`, …) run where the tensor
/// lies, on a GPU too.
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    value: Value,
    /// The record of which it is the field `tensor`, where it came as one.
    record: Option<Value>,
    /// The record of which that record is a field, where it came as one.
    around: Option<Value>,
    view: View,
    /// The elements in main memory, where the view itself does not give them.
    near: OnceLock<Near>,
}

enum Near {
    #[cfg(not(target_arch = "wasm32"))]
    View(View),
    #[cfg(target_arch = "wasm32")]
    Bytes(Vec<u64>),
}

impl Tensor {
    /// The tensor that a value is, or holds as its field `tensor`.
    pub(crate) fn of(value: Value) -> Result<Self> {
        Self::of_field(value, None)
    }

    /// As [`Tensor::of`], of a value that is a field of a record.
    pub(crate) fn of_field(value: Value, around: Option<Value>) -> Result<Self> {
        let field = match value.kind() {
            crate::ValueKind::Record => value.field("tensor")?,
            _ => None,
        };
        let (value, record) = match field {
            Some(tensor) => (tensor, Some(value)),
            None => (value, None),
        };
        let view = View::of(&value)?;
        Ok(Tensor(Arc::new(Inner { value, record, around, view, near: OnceLock::new() })))
    }

    /// The record of which it is the field `tensor`, where it came as one of this type.
    pub(crate) fn record_of(&self, ty: &str) -> Option<&Value> {
        self.0.record.as_ref().filter(|record| record.type_name() == ty)
    }

    /// The record of which its record is a field, where it came as one.
    pub(crate) fn record_around(&self) -> Option<&Value> {
        self.0.around.as_ref()
    }

    /// The value behind it.
    pub fn value(&self) -> &Value {
        &self.0.value
    }

    /// The size of each dimension.
    pub fn dims(&self) -> &[usize] {
        &self.0.view.dims
    }

    /// The sizes of exactly `N` dimensions: `let [n, h, w, c] = frames.shape()?;`
    ///
    /// # Errors
    /// When it has another number of dimensions.
    pub fn shape<const N: usize>(&self) -> Result<[usize; N]> {
        self.dims().try_into().map_err(|_| {
            Error::new(format!("expected a tensor of {N} dimensions, found {:?}", self.dims()))
        })
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.0.view.dtype
    }

    /// Where its elements lie. In a component it is always main memory: they are read by copies.
    pub fn device(&self) -> Device {
        self.0.view.device()
    }

    /// The tensor as DLPack sees it, for plugins that bring their own GPU kernels: read-only, alive
    /// as long as this tensor, on a GPU ordered by [`crate::Cx::stream`]. Its `data` is null where
    /// the engine does not lend the memory of that device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn dlpack(&self) -> &kino_abi::DLTensor {
        self.0.view.dlpack()
    }

    /// Its elements in row-major order. What lies on a GPU or has gaps is copied once.
    ///
    /// # Errors
    /// When its elements are of another type than `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        check_dtype::<T>(self.dtype())?;
        let bytes = match self.0.view.bytes() {
            Some(bytes) => bytes,
            None => self.near()?,
        };
        let elements =
            elements_of(bytes).ok_or_else(|| Error::new("the host's memory is not aligned"))?;
        Ok(&elements[..self.count()])
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn near(&self) -> Result<&[u8]> {
        if self.0.near.get().is_none() {
            let near = Value::op("to_host", &[&self.0.value], "")?;
            let near = Value::op("contiguous", &[&near], "")?;
            // Where two threads come at the same time, the first one's copy stays.
            let _ = self.0.near.set(Near::View(View::of(&near)?));
        }
        let near = self.0.near.get().and_then(|Near::View(view)| view.bytes());
        near.ok_or_else(|| Error::new("the host did not bring a tensor into main memory"))
    }

    #[cfg(target_arch = "wasm32")]
    fn near(&self) -> Result<&[u8]> {
        if self.0.near.get().is_none() {
            let length = self.count() * self.dtype().size();
            let mut words = vec![0i64; length.div_ceil(8)];
            self.0.value.read_into(0, &mut bytes_of_mut(&mut words)[..length])?;
            let words = words.into_iter().map(|word| word as u64).collect();
            let _ = self.0.near.set(Near::Bytes(words));
        }
        match self.0.near.get() {
            // SAFETY: the bytes of whole numbers, all of them initialised.
            Some(Near::Bytes(words)) => {
                Ok(unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 8) })
            }
            None => Ok(&[]),
        }
    }

    /// Its elements in row-major order, copied.
    ///
    /// # Errors
    /// When its elements are of another type than `T`.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let mut elements = vec![T::default(); self.count()];
        self.read_into(0, &mut elements)?;
        Ok(elements)
    }

    /// The only element.
    ///
    /// # Errors
    /// When it has more or fewer, or of another type.
    pub fn to_scalar<T: Element>(&self) -> Result<T> {
        match self.to_vec()?.as_slice() {
            [only] => Ok(*only),
            _ => Err(Error::new(format!("expected one element, found shape {:?}", self.dims()))),
        }
    }

    /// Copies the elements from `first` (in row-major order) into `out`, filling it.
    ///
    /// # Errors
    /// When there are fewer, or of another type.
    pub fn read_into<T: Element>(&self, first: usize, out: &mut [T]) -> Result<()> {
        check_dtype::<T>(self.dtype())?;
        self.check_piece(first, out.len())?;
        #[cfg(target_arch = "wasm32")]
        if self.0.near.get().is_none() {
            let offset = first * T::DTYPE.size();
            return self.0.value.read_into(offset as u64, bytes_of_mut(out));
        }
        out.copy_from_slice(&self.as_slice::<T>()?[first..first + out.len()]);
        Ok(())
    }

    /// Hands the elements from `first`, `length` of them, to a function, with as little copying as
    /// there can be.
    ///
    /// # Errors
    /// When there are fewer, or of another type.
    pub fn with_piece<T: Element, R>(
        &self,
        first: usize,
        length: usize,
        use_it: impl FnOnce(&[T]) -> R,
    ) -> Result<R> {
        check_dtype::<T>(self.dtype())?;
        self.check_piece(first, length)?;
        #[cfg(target_arch = "wasm32")]
        if self.0.near.get().is_none() {
            let size = T::DTYPE.size();
            let bytes = self.0.value.read((first * size) as u64, (length * size) as u64)?;
            if let Some(elements) = elements_of(&bytes) {
                return Ok(use_it(elements));
            }
            let mut elements = vec![T::default(); length];
            bytes_of_mut(&mut elements).copy_from_slice(&bytes);
            return Ok(use_it(&elements));
        }
        Ok(use_it(&self.as_slice::<T>()?[first..first + length]))
    }

    fn check_piece(&self, first: usize, length: usize) -> Result<()> {
        if first.checked_add(length).is_some_and(|end| end <= self.count()) {
            return Ok(());
        }
        Err(Error::new(format!(
            "elements {first}..{} are asked of a tensor of shape {:?}",
            first.saturating_add(length),
            self.dims()
        )))
    }

    /// A tensor of these elements in row-major order.
    ///
    /// # Errors
    /// When their number is not that of the shape.
    pub fn from_vec<T: Element>(elements: Vec<T>, dims: &[usize]) -> Result<Self> {
        Self::from_slice(&elements, dims)
    }

    /// A tensor of these elements in row-major order.
    ///
    /// # Errors
    /// When their number is not that of the shape.
    pub fn from_slice<T: Element>(elements: &[T], dims: &[usize]) -> Result<Self> {
        if count_of(dims)? != elements.len() {
            return Err(Error::new(format!(
                "{} elements do not fill a tensor of shape {dims:?}",
                elements.len()
            )));
        }
        let mut sink = Sink::<T>::new(dims)?;
        sink.fill(FILL_PIECE, |first, out| {
            let end = first + out.len();
            bytes_of_mut(out).copy_from_slice(bytes_of(&elements[first..end]));
            Ok(())
        })?;
        Tensor::of(sink.finish()?)
    }

    /// A tensor whose elements, zeros at first, a function fills; in a native plugin it writes
    /// where the engine will read.
    ///
    /// # Errors
    /// When the host cannot make it.
    pub fn new_with<T: Element>(dims: &[usize], fill: impl FnOnce(&mut [T])) -> Result<Self> {
        Tensor::try_new_with(dims, |out| {
            fill(out);
            Ok(())
        })
    }

    /// Like [`Tensor::new_with`], by a function that can fail.
    ///
    /// # Errors
    /// When the function fails, or the host cannot make it.
    pub fn try_new_with<T: Element>(
        dims: &[usize],
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<Self> {
        let mut sink = Sink::<T>::new(dims)?;
        let mut fill = Some(fill);
        sink.fill(usize::MAX, |_, out| match fill.take() {
            Some(fill) => fill(out),
            None => Ok(()),
        })?;
        Tensor::of(sink.finish()?)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// When the host cannot make it.
    pub fn zeros<T: Element>(dims: &[usize]) -> Result<Self> {
        Tensor::of(Sink::<T>::new(dims)?.finish()?)
    }

    /// A tensor without dimensions that holds one number of a type.
    ///
    /// # Errors
    /// When the type holds whole numbers and this is none of them.
    pub fn scalar(number: f64, dtype: DType) -> Result<Self> {
        if let Some([least, most]) = dtype.range() {
            let range = i128::from(least)..=i128::from(most);
            let fits = number.fract() == 0.0 && range.contains(&(number as i128));
            ensure!(fits, "{number} is no {dtype}: `cast` the tensor to a type that has it");
        }
        let exact = match dtype {
            DType::F64 => return Tensor::from_slice(&[number], &[]),
            DType::F32 => return Tensor::from_slice(&[number as f32], &[]),
            _ => Tensor::from_slice(&[number], &[])?,
        };
        exact.cast(dtype)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype(), self.dims())
    }
}
