//! Items to values and back: what crosses in each direction, and the views of tensors.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, DeviceLocation, Storage, Tensor};
use kino_contract::{ValueKind, code};
use kino_node::{Error, Fields, Opaque, Record, Result, TYPES, TypeDef, Value, type_of_name};

use crate::error::invalid;
use crate::value::PluginValue;

/// A tensor's elements as they lie, to be read.
pub struct ReadView {
    /// Keeps the elements where they are.
    pub keeper: PluginValue,
    /// The type of the elements.
    pub dtype: DType,
    /// Where they lie.
    pub location: DeviceLocation,
    /// The first element; null where they do not lie in main memory.
    pub data: *const u8,
    /// The dimensions.
    pub shape: Vec<usize>,
    /// Elements from one to the next along each dimension.
    pub strides: Vec<usize>,
}

impl PluginValue {
    /// The tensor that it is.
    ///
    /// # Errors
    /// When it is something else, or a draft is still being written.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            PluginValue::Value(Value::Tensor(tensor)) => Ok(tensor.clone()),
            PluginValue::Value(Value::Typed(typed)) if self.kind() == ValueKind::Tensor => {
                typed.exact_tensor()
            }
            PluginValue::TensorBuffer(draft) => draft.finish(),
            PluginValue::SharedTensor(shared) => {
                let bytes = (*shared.memory).as_ref();
                Ok(Tensor::from_raw_buffer(bytes, shared.dtype, &shared.shape, &Device::Cpu)?)
            }
            other => Err(Error::coded(
                code::WRONG_KIND,
                format!("expected a tensor, found {}", other.type_name()),
            )),
        }
    }

    /// Whether it can be read as a tensor.
    pub fn is_tensor(&self) -> bool {
        self.kind() == ValueKind::Tensor
    }

    /// Element type and shape of the tensor that it is.
    ///
    /// # Errors
    /// When it is something else.
    pub fn shape(&self) -> Result<(DType, Vec<usize>)> {
        match self {
            PluginValue::TensorBuffer(draft) => Ok((draft.dtype(), draft.shape().to_vec())),
            PluginValue::SharedTensor(shared) => Ok((shared.dtype, shared.shape.clone())),
            other => {
                let tensor = other.tensor()?;
                Ok((tensor.dtype(), tensor.dims().to_vec()))
            }
        }
    }

    /// The tensor where it lies.
    ///
    /// # Errors
    /// When it is no tensor.
    pub fn view(&self) -> Result<ReadView> {
        if let PluginValue::SharedTensor(shared) = self {
            let mut strides = vec![1; shared.shape.len()];
            for at in (1..strides.len()).rev() {
                strides[at - 1] = strides[at] * shared.shape[at];
            }
            let data = (*shared.memory).as_ref().as_ptr();
            let (dtype, shape) = (shared.dtype, shared.shape.clone());
            let location = DeviceLocation::Cpu;
            return Ok(ReadView { keeper: self.clone(), dtype, location, data, shape, strides });
        }
        let tensor = self.tensor()?;
        let (data, strides) = {
            let (storage, layout) = tensor.storage_and_layout();
            let data = match &*storage {
                Storage::Cpu(storage) => {
                    let bytes = bytes_of(storage)?;
                    let offset = layout.start_offset() * tensor.dtype().size_in_bytes();
                    bytes[offset.min(bytes.len())..].as_ptr()
                }
                _ => std::ptr::null(),
            };
            (data, layout.stride().to_vec())
        };
        let location = tensor.device().location();
        let (dtype, shape) = (tensor.dtype(), tensor.dims().to_vec());
        let keeper = PluginValue::Value(Value::Tensor(tensor));
        Ok(ReadView { keeper, dtype, location, data, shape, strides })
    }

    /// Does something with all bytes, or with a tensor's elements in row-major order.
    ///
    /// # Errors
    /// When it has none.
    pub fn with_bytes<T>(&self, f: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match self {
            PluginValue::SharedTensor(shared) => return Ok(f((*shared.memory).as_ref())),
            PluginValue::Bytes(bytes) => return Ok(f(bytes)),
            PluginValue::Value(Value::Text(text)) => return Ok(f(text.as_bytes())),
            _ => {}
        }
        let tensor = self.tensor()?.to_device(&Device::Cpu)?.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            return Err(Error::coded(
                code::DEVICE,
                "this tensor could not be brought to main memory",
            ));
        };
        let size = tensor.dtype().size_in_bytes();
        let from = layout.start_offset() * size;
        Ok(f(&bytes_of(storage)?[from..from + tensor.elem_count() * size]))
    }

    /// Copies a piece of the bytes, or of a tensor's elements in row-major order.
    ///
    /// # Errors
    /// When it has none, or the piece lies beyond their end.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.with_bytes(|all| piece(all, offset, length))?
    }

    /// A record that a plugin makes: an engine type, or one of its own.
    ///
    /// # Errors
    /// When fields are missing or of other types than the record's.
    pub fn record(ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        if ty.contains('.') {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| Ok((name, value.into_value()?)));
            let fields = fields.collect::<Result<_>>()?;
            let record = Value::Custom(Arc::new(Record { ty: ty.into(), fields }));
            return Ok(PluginValue::Value(record));
        }
        let makes = |def: &TypeDef| def.named().is_some_and(|row| row.needed_fields.is_some());
        let Some(def) = type_of_name(ty).filter(|def| makes(def)) else {
            let names: Vec<_> = TYPES.iter().filter(|def| makes(def)).map(TypeDef::name).collect();
            return Err(Error::advised(
                format!("plugins make no records of type {ty}"),
                format!("{}, or an own type with a point in its name", names.join(", ")),
            )
            .with_code(code::INVALID));
        };
        let value = def.from_fields(&RecordFields { ty, fields: &fields });
        Ok(PluginValue::Value(Value::Typed(value.map_err(|error| error.or_code(code::INVALID))?)))
    }

    /// The value that travels along an edge.
    ///
    /// # Errors
    /// When it is still being written, or no value.
    pub fn into_value(self) -> Result<Value> {
        match self {
            PluginValue::Value(value) => Ok(value),
            PluginValue::TensorBuffer(draft) => Ok(Value::Tensor(draft.finish()?)),
            PluginValue::FramesBuffer(frames) => Ok(frames.finish()?.into()),
            PluginValue::CollectedFrames(_) => Err(invalid("these frames are made elsewhere")),
            PluginValue::Bytes(bytes) => {
                let count = bytes.len();
                Ok(Value::Tensor(Tensor::from_vec(bytes.to_vec(), count, &Device::Cpu)?))
            }
            PluginValue::Chunks(frames) => Ok(frames.into()),
            PluginValue::List(items) => {
                let item = |(name, item): &(Arc<str>, PluginValue)| {
                    let name = Some(Arc::clone(name)).filter(|name| !name.is_empty());
                    Ok((name, item.clone().into_value()?))
                };
                Ok(Value::List(items.iter().map(item).collect::<Result<_>>()?))
            }
            PluginValue::SharedTensor(_) => Ok(Value::Tensor(self.tensor()?)),
            PluginValue::Fields(ty, fields) => {
                PluginValue::record(&ty, fields.to_vec())?.into_value()
            }
            PluginValue::Opaque(_) | PluginValue::Remote(..) => {
                Err(invalid(format!("a {} is no value by itself", self.type_name())))
            }
        }
    }
}

fn piece(all: &[u8], offset: u64, length: u64) -> Result<Vec<u8>> {
    let end = offset.checked_add(length).filter(|end| *end <= all.len() as u64);
    match end {
        Some(end) => Ok(all[offset as usize..end as usize].to_vec()),
        None => Err(invalid(format!(
            "{length} bytes at {offset} lie beyond the {} bytes that there are",
            all.len()
        ))),
    }
}

/// Where a tensor's storage lies and its bytes: a view keeps the whole of what it views.
pub fn storage_of(tensor: &Tensor) -> (usize, u64) {
    let (storage, _) = tensor.storage_and_layout();
    let bytes = match &*storage {
        Storage::Cpu(storage) => bytes_of(storage).map_or(0, <[u8]>::len),
        _ => tensor.elem_count() * tensor.dtype().size_in_bytes(),
    };
    (std::ptr::from_ref(&*storage).addr(), bytes as u64)
}

/// The elements of a storage as bytes.
fn bytes_of(storage: &CpuStorage) -> Result<&[u8]> {
    Ok(match storage {
        CpuStorage::U8(all) => all,
        CpuStorage::U32(all) => bytemuck::cast_slice(all),
        CpuStorage::I16(all) => bytemuck::cast_slice(all),
        CpuStorage::I32(all) => bytemuck::cast_slice(all),
        CpuStorage::I64(all) => bytemuck::cast_slice(all),
        CpuStorage::BF16(all) => bytemuck::cast_slice(all),
        CpuStorage::F16(all) => bytemuck::cast_slice(all),
        CpuStorage::F32(all) => bytemuck::cast_slice(all),
        CpuStorage::F64(all) => bytemuck::cast_slice(all),
        _ => return Err(invalid("plugins do not see tensors of this element type")),
    })
}

/// The fields of a record that a plugin makes.
struct RecordFields<'a> {
    ty: &'a str,
    fields: &'a [(Arc<str>, PluginValue)],
}

impl RecordFields<'_> {
    fn find(&self, name: &str) -> Option<&PluginValue> {
        self.fields.iter().find(|(field, _)| **field == *name).map(|(_, value)| value)
    }

    fn need(&self, name: &str) -> Result<&PluginValue> {
        let missing = || invalid(format!("a record of type {} needs `{name}`", self.ty));
        self.find(name).ok_or_else(missing)
    }
}

impl Fields for RecordFields<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.need(name)?.tensor()
    }

    fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let sizes = self.need(name)?;
        let size = |at| {
            let size = sizes.item(at)?.int()?;
            usize::try_from(size).map_err(|_| invalid(format!("{size} is no size")))
        };
        (0..sizes.len()).map(size).collect()
    }

    fn opaque(&self, name: &str) -> Result<Option<Opaque>> {
        Ok(match self.find(name) {
            Some(PluginValue::Opaque(opaque)) => Some(opaque.clone()),
            _ => None,
        })
    }
}
