//! Items to values and back: what crosses in each direction, and the views of tensors.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, DeviceLocation, Storage, Tensor};
use kino_contract::ops::Operand;
use kino_contract::records::{self, Found};
use kino_contract::{ValueKind, code};
use kino_node::{
    Content, Embeddings, Error, Fields, Frames, Opaque, Record, Result, Typed, Value, type_of_name,
};
use kino_port::{FieldContent, FieldPresence, FieldRule, TensorRule};

use crate::error::invalid;
use crate::ops::{of_candle, refused};
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
    /// The tensor that it is, or of a record its field `tensor`; so for all that follow.
    ///
    /// # Errors
    /// When it is something else, or a draft is still being written.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            PluginValue::Value(Value::Tensor(tensor)) => Ok(tensor.clone()),
            PluginValue::SharedTensor(shared) => {
                let bytes = (*shared.memory).as_ref();
                Ok(Tensor::from_raw_buffer(bytes, shared.dtype, &shared.shape, &Device::Cpu)?)
            }
            other => match other.own_tensor()? {
                Some(field) => field.tensor(),
                None => Err(Error::coded(
                    code::WRONG_KIND,
                    format!("expected a tensor, found {}", other.type_name()),
                )),
            },
        }
    }

    /// The field `tensor` of a record, as which it is read.
    fn own_tensor(&self) -> Result<Option<PluginValue>> {
        match self {
            PluginValue::Value(Value::Typed(_) | Value::Custom(_)) | PluginValue::Fields(..) => {
                self.field("tensor")
            }
            _ => Ok(None),
        }
    }

    /// Whether it can be read as a tensor.
    pub fn is_tensor(&self) -> bool {
        self.kind() == ValueKind::Tensor
            || matches!(self.own_tensor(), Ok(Some(field)) if field.kind() == ValueKind::Tensor)
    }

    /// Element type and shape of the tensor that it is.
    ///
    /// # Errors
    /// When it is something else.
    pub fn shape(&self) -> Result<(DType, Vec<usize>)> {
        match self {
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

    /// A record that a plugin makes: of an engine type, or one of its own. Fields that the type does
    /// not know are kept.
    ///
    /// # Errors
    /// When fields are missing, given twice, or other than the type's rules say.
    pub fn record(ty: &str, fields: Vec<(Arc<str>, PluginValue)>) -> Result<PluginValue> {
        let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
        if ty.contains('.') {
            records::check_names(ty, &[], &names).map_err(refused)?;
            let fields = values(fields)?;
            let record = Value::Custom(Arc::new(Record { ty: ty.into(), fields }));
            return Ok(PluginValue::Value(record));
        }
        let rules = records::rules(ty).ok_or_else(|| refused(records::no_records(ty)))?;
        records::check_names(ty, rules, &names).map_err(refused)?;
        let given = RecordFields { ty, rules, fields: &fields };
        given.check()?;
        let Some(def) = type_of_name(ty) else {
            return Ok(PluginValue::Fields(ty.into(), fields.into()));
        };
        let content = match given.same_frames() {
            Some(frames) => Content::new(frames),
            None => def.from_fields(&given).map_err(|error| error.or_code(code::INVALID))?,
        };
        let is_more = |name: &str| !rules.iter().any(|rule| rule.name == name);
        let more = values(fields.into_iter().filter(|(name, _)| is_more(name)))?;
        Ok(PluginValue::Value(Value::Typed(Typed::from(content).with_more(more))))
    }

    /// The value that travels along an edge.
    ///
    /// # Errors
    /// When it is still being written, or no value.
    pub fn into_value(self) -> Result<Value> {
        match self {
            PluginValue::Value(value) => Ok(value),
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

/// Fields that no type knows, as values that go along with the record.
fn values(
    fields: impl IntoIterator<Item = (Arc<str>, PluginValue)>,
) -> Result<Vec<(Arc<str>, Value)>> {
    let value = |(name, value): (Arc<str>, PluginValue)| {
        let value = value.into_value().map_err(|error| error.within(format_args!("`{name}`")))?;
        if depth(&value) > records::MAX_DEPTH {
            let message = format!("`{name}`: more than {} deep", records::MAX_DEPTH);
            return Err(Error::coded(code::LIMIT, message));
        }
        Ok((name, value))
    };
    fields.into_iter().map(value).collect()
}

/// How deep values lie in each other.
fn depth(value: &Value) -> usize {
    let deepest = match value {
        Value::List(items) => items.iter().map(|(_, item)| depth(item)).max(),
        Value::Custom(record) => record.fields.iter().map(|(_, field)| depth(field)).max(),
        Value::Typed(typed) => typed.more().iter().map(|(_, field)| depth(field)).max(),
        _ => None,
    };
    deepest.map_or(1, |deepest| deepest + 1)
}

/// The fields of a record that a plugin makes.
struct RecordFields<'a> {
    ty: &'a str,
    rules: &'static [FieldRule],
    fields: &'a [(Arc<str>, PluginValue)],
}

impl RecordFields<'_> {
    fn find(&self, name: &str) -> Option<&PluginValue> {
        self.fields.iter().find(|(field, _)| **field == *name).map(|(_, value)| value)
    }

    /// The frames whose chunks these are, where they are just those: what lies in a file stays there.
    fn same_frames(&self) -> Option<Arc<Frames>> {
        let Some(PluginValue::Chunks(frames)) = self.find("chunks") else { return None };
        let fps = self.find("fps").and_then(|fps| fps.real().ok());
        (fps == frames.fps()).then(|| Arc::clone(frames))
    }

    /// Holds each field against its rule.
    fn check(&self) -> Result<()> {
        for (name, value) in self.fields {
            let rule = self.rules.iter().find(|rule| *rule.name == **name);
            match rule {
                Some(rule) if rule.presence != FieldPresence::Derived => {
                    self.check_field(rule, value)?;
                }
                None if self.ty == records::EMBEDDINGS && !value.is_tensor() => {
                    return Err(Error::coded(
                        code::WRONG_KIND,
                        format!("embeddings are tensors, found {} in `{name}`", value.type_name()),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_field(&self, rule: &FieldRule, value: &PluginValue) -> Result<()> {
        let shape = value.is_tensor().then(|| value.shape()).transpose()?;
        let tensor = shape.as_ref().map(|(dtype, dims)| {
            Ok::<_, Error>(Operand { dtype: of_candle(*dtype)?, dims: dims.as_slice() })
        });
        let found = Found {
            kind: value.kind(),
            type_name: value.type_name(),
            tensor: tensor.transpose()?,
            text: value.text().ok(),
            number: value.real().ok(),
            len: value.len(),
        };
        records::check_field(self.ty, rule, &found).map_err(refused)
    }
}

/// A tensor in the shape and of the element type of a rule.
fn ruled(value: &PluginValue, rule: &TensorRule) -> Result<Tensor> {
    let tensor = value.tensor()?;
    let dims = rule.fit(tensor.dims()).map_err(invalid)?;
    let tensor = if dims.len() < tensor.rank() { tensor.squeeze(0)? } else { tensor };
    Ok(match rule.dtype {
        Some("f64") => tensor.to_dtype(DType::F64)?,
        Some(_) => tensor.to_dtype(DType::F32)?,
        None => tensor,
    })
}

impl Fields for RecordFields<'_> {
    fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        let rule = self.rules.iter().find(|rule| rule.name == name);
        match rule.map(|rule| &rule.content) {
            Some(FieldContent::Tensor(rule)) => ruled(value, rule).map(Some),
            _ => value.tensor().map(Some),
        }
    }

    fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let Some(sizes) = self.find(name) else { return Ok(Vec::new()) };
        let size = |at| {
            let size = sizes.item(at)?.int()?;
            usize::try_from(size).map_err(|_| invalid(format!("{size} is no size")))
        };
        (0..sizes.len()).map(size).collect()
    }

    fn int(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        let int = value.int()?;
        let size = usize::try_from(int).map_err(|_| invalid(format!("`{name}`: {int}")))?;
        Ok(Some(size))
    }

    fn real(&self, name: &str) -> Result<Option<f64>> {
        self.find(name).map(PluginValue::real).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        self.find(name).map(|text| text.text().map(str::to_owned)).transpose()
    }

    fn content(&self, name: &str) -> Result<Option<Content>> {
        let Some(value) = self.find(name) else { return Ok(None) };
        match value.clone().into_value()? {
            Value::Typed(typed) => Ok(Some(Content::clone(&typed))),
            other => Err(invalid(format!("`{name}`: a {} is none", other.type_name()))),
        }
    }

    fn opaque(&self, name: &str) -> Result<Option<Opaque>> {
        Ok(match self.find(name) {
            Some(PluginValue::Opaque(opaque)) => Some(opaque.clone()),
            _ => None,
        })
    }

    fn embeddings(&self, name: &str) -> Result<Vec<(String, Tensor, Option<Tensor>)>> {
        let Some(value) = self.find(name) else { return Ok(Vec::new()) };
        let rows = |value: &PluginValue| -> Result<Option<Tensor>> {
            let Some(mask) = value.field("mask")? else { return Ok(None) };
            let mask = ruled(&mask, &TensorRule::ROWS)?;
            let elements = mask.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
            let elements = elements.into_iter().map(f64::from);
            TensorRule::ROWS.check_elements(elements).map_err(invalid)?;
            Ok(Some(mask))
        };
        let mut all = Vec::new();
        if value.kind() == ValueKind::Tensor {
            let text = ruled(value, &TensorRule::EMBEDDINGS)?;
            all.push((Embeddings::TEXT.to_owned(), text, None));
            return Ok(all);
        }
        for index in 0..value.len() {
            let (name, item) = (value.name(index), value.item(index)?);
            match name {
                "mask" => {}
                "tensor" => {
                    let text = ruled(&item, &TensorRule::EMBEDDINGS)?;
                    all.push((Embeddings::TEXT.to_owned(), text, rows(value)?));
                }
                name => all.push((name.to_owned(), item.tensor()?, rows(&item)?)),
            }
        }
        Ok(all)
    }

    fn tensors(&self, name: &str) -> Result<Vec<Tensor>> {
        let Some(list) = self.find(name) else { return Ok(Vec::new()) };
        (0..list.len()).map(|index| list.item(index)?.tensor()).collect()
    }
}
