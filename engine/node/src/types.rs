//! Types of values that are no part of the engine's core: what must be known of one to carry it
//! along edges, convert it, check it, keep it on disk, show it to plugins, and plan with it before
//! it is there. All of that stands in one implementation of [`ValueType`]; this module knows none
//! of them.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use kino_port::{Fact, NamedType, PortType};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stored::TensorReader;
use crate::{Error, Result, SpillFile};

/// Tensors, one after another; what lies in a file is read when its turn comes.
pub type Tensors<'a> = Box<dyn Iterator<Item = Result<Tensor>> + 'a>;

/// What is known of a tensor that does not exist yet.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFact {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
}

impl TensorFact {
    /// A tensor of f32 of these sizes, if all are known.
    pub fn of_sizes(sizes: &[Option<usize>]) -> Option<Self> {
        let shape = sizes.iter().copied().collect::<Option<Vec<usize>>>()?;
        Some(TensorFact { shape, dtype: DType::F32 })
    }

    /// The bytes of its elements.
    pub fn bytes(&self) -> u64 {
        let element = self.dtype.size_in_bytes() as u64;
        self.shape.iter().fold(element, |bytes, size| bytes.saturating_mul(*size as u64))
    }
}

/// A type of values, as one Rust type.
///
/// What the engine shares with plugins (the type's name, its fields, the shape of the tensor that
/// it holds) stands in its row of [`PortType::NAMED`]; all the rest stands here. A type that only
/// an embedding program knows is a [`PortType::Custom`] and has no such row.
pub trait ValueType: Send + Sync + Sized + 'static {
    /// The type of the ports that such values travel between.
    const PORT: PortType;
    /// Whether it can be kept on disk.
    const STORABLE: bool = true;
    /// What is known of such a value before it is there; `()` where there is nothing to say.
    type Fact: Clone + Send + Sync + 'static;
    /// All that must be kept of it on disk beside the elements of its tensors.
    type Header: Serialize + DeserializeOwned;

    /// Holds it against what the type promises; asked of what comes from plugins, from files, and
    /// of tensors that become such a value.
    ///
    /// # Errors
    /// When something is not as it must be; the message says what was expected and what was found.
    fn check(&self) -> Result<()>;

    /// What would have been known of it before it was there.
    fn fact(&self) -> Self::Fact;

    /// The shape of the one tensor that it holds; none where it holds none.
    fn shape(&self) -> Option<Vec<usize>> {
        None
    }

    /// The size in words, for a plugin's promise that two values are of one size.
    fn extent(&self) -> String {
        let name = || TypeDef::of::<Self>().name().to_owned();
        self.shape().map_or_else(name, |shape| format!("{shape:?}"))
    }

    /// The tensor that it holds.
    ///
    /// # Errors
    /// When it holds none, or it cannot be read.
    fn tensor(&self) -> Result<Tensor> {
        Err(Error::failed(format!("{} holds no tensor", TypeDef::of::<Self>().name())))
    }

    /// The tensor as plugins see it, where that is more exact.
    ///
    /// # Errors
    /// As [`ValueType::tensor`].
    fn exact_tensor(&self) -> Result<Tensor> {
        self.tensor()
    }

    /// The value that a tensor stands for. The tensor has the shape of the type's rule, without a
    /// leading 1.
    ///
    /// # Errors
    /// When it stands for none; [`from_tensor`] asks only where the rule says that it may.
    fn from_tensor(_tensor: &Tensor) -> Result<Self> {
        Err(not_a_tensor(&Self::PORT))
    }

    /// What is known of a value that a tensor will become, whose shape fits the type's rule.
    fn fact_of_tensor(_tensor: &TensorFact) -> Option<Self::Fact> {
        None
    }

    /// What is known of the tensor of a value of which this is known.
    fn tensor_of_fact(_fact: &Self::Fact) -> Option<TensorFact> {
        None
    }

    /// The bytes that a value takes of which this is known; those of its tensor unless it holds
    /// more.
    fn bytes_of_fact(fact: &Self::Fact) -> u64 {
        Self::tensor_of_fact(fact).map_or(0, |tensor| tensor.bytes())
    }

    /// A field that plugins see.
    ///
    /// # Errors
    /// When it cannot be made.
    fn field(&self, _name: &str) -> Result<Option<Field>> {
        Ok(None)
    }

    /// The value of the fields that a plugin gave.
    ///
    /// # Errors
    /// When one is missing or of another type.
    fn from_fields(_fields: &dyn Fields) -> Result<Self> {
        let name = TypeDef::of::<Self>().name();
        Err(Error::failed(format!("plugins make no records of type {name}")))
    }

    /// The value with its tensors on another device; none where they need not move.
    ///
    /// # Errors
    /// When they cannot be brought there.
    fn to_device(&self, _device: &Device) -> Result<Option<Self>> {
        Ok(None)
    }

    /// The bytes of tensor data that it keeps alive in memory.
    fn bytes(&self) -> u64 {
        self.tensors().flatten().map(|tensor| storage_bytes(&tensor)).sum()
    }

    /// The bytes of it that lie in temporary files.
    fn spilled(&self) -> u64 {
        0
    }

    /// The bytes among [`ValueType::bytes`] that no lease of its own counts.
    fn unleased(&self) -> u64 {
        self.bytes()
    }

    /// The same value with what may lie in a temporary file there; none where nothing moves.
    ///
    /// # Errors
    /// When the file cannot be made or written, or may not hold as much.
    fn moved_to(&self, _file: &SpillFile) -> Result<Option<Self>> {
        Ok(None)
    }

    /// What is kept of it beside the elements of its tensors.
    fn header(&self) -> Self::Header;

    /// Its tensors, in the order in which [`ValueType::restore`] reads them.
    fn tensors(&self) -> Tensors<'_>;

    /// Reads back what [`ValueType::header`] and [`ValueType::tensors`] gave. Whatever stands in
    /// the header, it must not panic; what it gives is held against [`ValueType::check`].
    ///
    /// # Errors
    /// When the header says what cannot be, or the tensors end early.
    fn restore(header: Self::Header, tensors: &mut TensorReader<'_>) -> Result<Self>;
}

/// A field of a value, as plugins see it.
pub enum Field {
    /// A tensor.
    Tensor(Tensor),
    /// A text.
    Text(String),
    /// A whole number.
    Int(usize),
    /// A real number.
    Real(f64),
    /// Whole numbers.
    Ints(Vec<usize>),
    /// A value of a type of its own.
    Content(Content),
    /// A record within the record: what it is called, and its fields.
    Record(&'static str, Vec<(Arc<str>, Field)>),
    /// Something that plugins can only pass on.
    Opaque(Opaque),
}

/// Something that plugins can only pass on.
#[derive(Clone)]
pub struct Opaque {
    /// What it is, for messages.
    pub name: &'static str,
    content: Arc<dyn Any + Send + Sync>,
}

impl Opaque {
    /// Something that is read back by [`Opaque::get`].
    pub fn new<T: Any + Send + Sync>(name: &'static str, content: T) -> Self {
        Opaque { name, content: Arc::new(content) }
    }

    /// The content, if it is of type `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.content.downcast_ref()
    }
}

/// The fields of which a plugin makes a value. Whoever gives them has held them against the rules
/// of the type's row (`kino_port::FieldRule`): those that must be there are, each is what its rule
/// says, and tensors have the shape and the element type of theirs.
pub trait Fields {
    /// The tensor in a field.
    ///
    /// # Errors
    /// When something else is in it, or it cannot be read; so for all that follow.
    fn tensor(&self, name: &str) -> Result<Option<Tensor>>;

    /// The sizes in a field; none where there is no such field.
    fn sizes(&self, name: &str) -> Result<Vec<usize>>;

    /// The whole number in a field.
    fn int(&self, name: &str) -> Result<Option<usize>>;

    /// The number in a field.
    fn real(&self, name: &str) -> Result<Option<f64>>;

    /// The text in a field.
    fn text(&self, name: &str) -> Result<Option<String>>;

    /// The value in a field, of a type of its own.
    fn content(&self, name: &str) -> Result<Option<Content>>;

    /// What was only passed on, if the field is there.
    fn opaque(&self, name: &str) -> Result<Option<Opaque>>;

    /// The names and tensors of a record of embeddings, and the mask of each.
    fn embeddings(&self, name: &str) -> Result<Vec<(String, Tensor, Option<Tensor>)>>;

    /// The tensors of a list.
    fn tensors(&self, name: &str) -> Result<Vec<Tensor>>;

    /// The tensor in a field that must be there.
    ///
    /// # Errors
    /// When it is not.
    fn need_tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)?.ok_or_else(|| Error::failed(format!("`{name}` is missing")))
    }
}

/// The bytes that a tensor keeps alive: all of its storage, however small a part it shows.
pub(crate) fn storage_bytes(tensor: &Tensor) -> u64 {
    let (storage, _) = tensor.storage_and_layout();
    let elements = match &*storage {
        Storage::Cpu(CpuStorage::U8(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::U32(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::I64(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::BF16(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F16(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F32(elements)) => elements.len(),
        Storage::Cpu(CpuStorage::F64(elements)) => elements.len(),
        // What a device allocated is not said.
        _ => tensor.elem_count(),
    };
    (elements * tensor.dtype().size_in_bytes()) as u64
}

/// The bytes of a tensor's elements.
pub fn tensor_bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}

fn not_a_tensor(port: &PortType) -> Error {
    Error::failed(format!("expected {port}, found Tensor"))
}

/// The value of type `T` that a tensor stands for, held against the type's rule and checks.
///
/// # Errors
/// When tensors become no such values, or this one does not fit.
pub fn from_tensor<T: ValueType>(tensor: &Tensor) -> Result<T> {
    if !T::PORT.tensor_rule().is_some_and(|rule| rule.converts) {
        return Err(not_a_tensor(&T::PORT));
    }
    let value = T::from_tensor(&fit_shape::<T>(tensor)?)?;
    value.check()?;
    Ok(value)
}

/// The tensor in the shape that the type's rule says, without a leading 1.
///
/// # Errors
/// When its shape is another.
pub fn fit_shape<T: ValueType>(tensor: &Tensor) -> Result<Tensor> {
    let Some(rule) = T::PORT.tensor_rule() else { return Ok(tensor.clone()) };
    let dims = rule.fit(tensor.dims()).map_err(Error::failed)?;
    Ok(if dims.len() < tensor.rank() { tensor.squeeze(0)? } else { tensor.clone() })
}

/// Holds a tensor against the shape that the type's rule says.
///
/// # Errors
/// When its shape is another; the message says both.
pub fn check_shape<T: ValueType>(tensor: &Tensor) -> Result<()> {
    let Some(rule) = T::PORT.tensor_rule() else { return Ok(()) };
    match rule.fit(tensor.dims()) {
        Ok(dims) if dims.len() == tensor.rank() => Ok(()),
        Ok(_) => {
            let (expected, found) = (rule.expected(), tensor.dims());
            Err(Error::failed(format!("{expected}, found a tensor {found:?}")))
        }
        Err(message) => Err(Error::failed(message)),
    }
}

/// Holds the elements of a tensor against what the type's rule says of them.
///
/// # Errors
/// When one is outside; the message says the range.
pub fn check_elements<T: ValueType>(tensor: &Tensor) -> Result<()> {
    let Some(rule) = T::PORT.tensor_rule() else { return Ok(()) };
    let elements = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?;
    let elements = elements.to_vec1::<f32>()?;
    rule.check_elements(elements.into_iter().map(f64::from)).map_err(Error::failed)
}

/// What is known of a value of type `T` that arrives as `fact`: as it is, or as a tensor's that
/// becomes such a value.
///
/// # Errors
/// When a tensor of that shape does not become one; the message says what would.
pub fn known<T: ValueType>(fact: &Fact) -> Result<Option<T::Fact>, String> {
    if let Some(known) = fact.get::<T::Fact>() {
        return Ok(Some(known.clone()));
    }
    let Some(tensor) = fact.get::<TensorFact>() else { return Ok(None) };
    let rule = T::PORT.tensor_rule().filter(|rule| rule.converts);
    let Some(rule) = rule else { return Ok(None) };
    let shape = rule.fit(&tensor.shape)?.to_vec();
    Ok(T::fact_of_tensor(&TensorFact { shape, dtype: tensor.dtype }))
}

/// A type of values as a row of a table, with the Rust type behind function pointers.
pub struct TypeDef {
    /// The type of the ports that such values travel between.
    pub port: PortType,
    /// Whether such values can be kept on disk.
    pub is_storable: bool,
    from_tensor: fn(&Tensor) -> Result<Content>,
    from_fields: fn(&dyn Fields) -> Result<Content>,
    restore: fn(serde_json::Value, &mut TensorReader<'_>) -> Result<Content>,
    tensor_of_fact: fn(&Fact) -> Option<TensorFact>,
    bytes_of_fact: fn(&Fact) -> Option<u64>,
}

impl TypeDef {
    /// The row of a type.
    pub const fn of<T: ValueType>() -> Self {
        TypeDef {
            port: T::PORT,
            is_storable: T::STORABLE,
            from_tensor: |tensor| from_tensor::<T>(tensor).map(Arc::new).map(Content::new),
            from_fields: |fields| checked(T::from_fields(fields)?),
            restore: |header, tensors| {
                let header = serde_json::from_value(header)
                    .map_err(|error| Error::failed(format!("a stored {}: {error}", T::PORT)))?;
                checked(T::restore(header, tensors)?)
            },
            tensor_of_fact: |fact| fact.get::<T::Fact>().and_then(T::tensor_of_fact),
            bytes_of_fact: |fact| fact.get::<T::Fact>().map(T::bytes_of_fact),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match &self.port {
            PortType::Custom(Cow::Borrowed(name)) => name,
            port => port.named().map_or("?", |row| row.name),
        }
    }

    /// What is agreed with plugins about it, where it is one of the engine's types.
    pub fn named(&self) -> Option<&'static NamedType> {
        self.port.named()
    }

    /// The value that a tensor stands for.
    ///
    /// # Errors
    /// When tensors become no such values, or this one does not fit.
    pub fn from_tensor(&self, tensor: &Tensor) -> Result<Content> {
        (self.from_tensor)(tensor)
    }

    /// The value of the fields that a plugin gave.
    ///
    /// # Errors
    /// When one is missing, of another type, or they do not go together.
    pub fn from_fields(&self, fields: &dyn Fields) -> Result<Content> {
        (self.from_fields)(fields)
    }

    /// Reads back what was stored of a value.
    ///
    /// # Errors
    /// When it was something else, or ends early.
    pub fn restore(
        &self,
        header: serde_json::Value,
        tensors: &mut TensorReader<'_>,
    ) -> Result<Content> {
        (self.restore)(header, tensors)
    }

    /// What is known of the tensor of a value of which `fact` is known; none where that is no fact
    /// of this type.
    pub fn tensor_of_fact(&self, fact: &Fact) -> Option<TensorFact> {
        (self.tensor_of_fact)(fact)
    }

    /// The bytes of a value of which `fact` is known; none where that is no fact of this type.
    pub fn bytes_of_fact(&self, fact: &Fact) -> Option<u64> {
        (self.bytes_of_fact)(fact)
    }
}

fn checked<T: ValueType>(value: T) -> Result<Content> {
    value.check()?;
    Ok(Content::new(Arc::new(value)))
}

/// Types of values that an embedding program adds, as a service: with it, they are read back from
/// the cache on disk.
#[derive(Clone, Default)]
pub struct CustomTypes(Vec<&'static TypeDef>);

impl CustomTypes {
    /// The same types with one more.
    #[must_use]
    pub fn with<T: ValueType>(mut self) -> Self {
        self.0.push(const { &TypeDef::of::<T>() });
        self
    }

    /// The type of a name, if it is one of them.
    pub fn find(&self, name: &str) -> Option<&'static TypeDef> {
        self.0.iter().copied().find(|def| def.name() == name)
    }
}

/// What a value of a type that implements [`ValueType`] holds. Cloning is cheap: contents are
/// shared.
#[derive(Clone)]
pub struct Content(Arc<dyn Erased>);

/// [`ValueType`] of a value whose Rust type is not known.
trait Erased: Any + Send + Sync {
    fn def(&self) -> &'static TypeDef;
    fn fact(&self) -> Fact;
    fn shape(&self) -> Option<Vec<usize>>;
    fn extent(&self) -> String;
    fn tensor(&self) -> Result<Tensor>;
    fn exact_tensor(&self) -> Result<Tensor>;
    fn field(&self, name: &str) -> Result<Option<Field>>;
    fn to_device(&self, device: &Device) -> Result<Option<Content>>;
    fn bytes(&self) -> u64;
    fn spilled(&self) -> u64;
    fn unleased(&self) -> u64;
    fn moved_to(&self, file: &SpillFile) -> Result<Option<Content>>;
    fn header(&self) -> Result<serde_json::Value>;
    fn tensors(&self) -> Tensors<'_>;
}

impl<T: ValueType> Erased for T {
    fn def(&self) -> &'static TypeDef {
        const { &TypeDef::of::<T>() }
    }

    fn fact(&self) -> Fact {
        Fact::typed(ValueType::fact(self))
    }

    fn shape(&self) -> Option<Vec<usize>> {
        ValueType::shape(self)
    }

    fn extent(&self) -> String {
        ValueType::extent(self)
    }

    fn tensor(&self) -> Result<Tensor> {
        ValueType::tensor(self)
    }

    fn exact_tensor(&self) -> Result<Tensor> {
        ValueType::exact_tensor(self)
    }

    fn field(&self, name: &str) -> Result<Option<Field>> {
        ValueType::field(self, name)
    }

    fn to_device(&self, device: &Device) -> Result<Option<Content>> {
        Ok(ValueType::to_device(self, device)?.map(Arc::new).map(Content::new))
    }

    fn bytes(&self) -> u64 {
        ValueType::bytes(self)
    }

    fn spilled(&self) -> u64 {
        ValueType::spilled(self)
    }

    fn unleased(&self) -> u64 {
        ValueType::unleased(self)
    }

    fn moved_to(&self, file: &SpillFile) -> Result<Option<Content>> {
        Ok(ValueType::moved_to(self, file)?.map(Arc::new).map(Content::new))
    }

    fn header(&self) -> Result<serde_json::Value> {
        serde_json::to_value(ValueType::header(self))
            .map_err(|error| Error::failed(error.to_string()))
    }

    fn tensors(&self) -> Tensors<'_> {
        ValueType::tensors(self)
    }
}

impl Content {
    /// A value of a type.
    pub fn new<T: ValueType>(value: Arc<T>) -> Self {
        Content(value)
    }

    /// The value, if it is of type `T`.
    pub fn get<T: ValueType>(&self) -> Option<&T> {
        (&*self.0 as &dyn Any).downcast_ref()
    }

    /// The value, shared, if it is of type `T`.
    pub fn shared<T: ValueType>(&self) -> Option<Arc<T>> {
        (Arc::clone(&self.0) as Arc<dyn Any + Send + Sync>).downcast().ok()
    }

    /// Its type.
    pub fn def(&self) -> &'static TypeDef {
        self.0.def()
    }

    /// See [`ValueType::fact`].
    pub fn fact(&self) -> Fact {
        self.0.fact()
    }

    /// See [`ValueType::shape`].
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.0.shape()
    }

    /// See [`ValueType::extent`].
    pub fn extent(&self) -> String {
        self.0.extent()
    }

    /// See [`ValueType::tensor`].
    ///
    /// # Errors
    /// When it holds no tensor, or it cannot be read.
    pub fn tensor(&self) -> Result<Tensor> {
        self.0.tensor()
    }

    /// See [`ValueType::exact_tensor`].
    ///
    /// # Errors
    /// When it holds no tensor, or it cannot be read.
    pub fn exact_tensor(&self) -> Result<Tensor> {
        self.0.exact_tensor()
    }

    /// See [`ValueType::field`].
    ///
    /// # Errors
    /// When the field cannot be made.
    pub fn field(&self, name: &str) -> Result<Option<Field>> {
        self.0.field(name)
    }

    /// The value with its tensors on a device.
    ///
    /// # Errors
    /// When they cannot be brought there.
    pub fn to_device(&self, device: &Device) -> Result<Content> {
        Ok(self.0.to_device(device)?.unwrap_or_else(|| self.clone()))
    }

    /// See [`ValueType::bytes`].
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// See [`ValueType::spilled`].
    pub fn spilled(&self) -> u64 {
        self.0.spilled()
    }

    /// See [`ValueType::unleased`].
    pub fn unleased(&self) -> u64 {
        self.0.unleased()
    }

    /// See [`ValueType::moved_to`].
    ///
    /// # Errors
    /// When the file cannot be made or written, or may not hold as much.
    pub fn moved_to(&self, file: &SpillFile) -> Result<Option<Content>> {
        self.0.moved_to(file)
    }

    /// Whether somebody else holds it, so that dropping it frees nothing.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// See [`ValueType::header`]; as JSON.
    ///
    /// # Errors
    /// When such values are not kept on disk.
    pub fn header(&self) -> Result<serde_json::Value> {
        self.0.header()
    }

    /// See [`ValueType::tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        self.0.tensors()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.def().name())?;
        self.shape().map_or(Ok(()), |shape| write!(f, "{shape:?}"))
    }
}
