//! Weights of a part by name, seen from a scope inside it.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use kino_kernels::{BlockType, PieceWise, Precision, WeightScale};

use super::block_memory::BlockMemory;
use super::dense::{Adapter, Scale, Weight};
use super::lora::Lora;
use super::read::{self, Target};
use super::residency::{AskedBlocks, BlockList, BlockSizes, Residency};
use crate::checkpoint::{DataFile, ModelFolder, PartFiles, SCALES, StoredType, TensorEntry};
use crate::error::{Error, Result};

/// Tensors that were read, by name and type: networks that are made of the same weights share them.
#[derive(Default)]
pub struct TensorStore {
    tensors: Stored<Tensor>,
    /// Those of linear layers, by the type in which they multiply.
    matrices: Stored<Weight>,
}

type Stored<T> = Mutex<HashMap<(String, DType), T>>;

/// What is stored by this name and type, or else read, and stored from then on.
fn get_or_read<T: Clone>(
    stored: Option<&Stored<T>>,
    name: &str,
    dtype: DType,
    read: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(stored) = stored else { return read() };
    let key = (name.to_owned(), dtype);
    if let Some(found) = lock(stored).get(&key) {
        return Ok(found.clone());
    }
    let read = read()?;
    lock(stored).insert(key, read.clone());
    Ok(read)
}

/// The tensor that says that a file's eight-bit weights have scales (ComfyUI).
const SCALED: &str = "scaled_fp8";
/// What a header says of layers of fewer bits (ComfyUI).
const QUANTIZATION: &str = "_quantization_metadata";

/// Adapters and how strongly they count.
#[derive(Clone)]
pub struct AppliedLora {
    /// The adapters.
    pub lora: Arc<Lora>,
    /// How strongly: 1 as in training.
    pub strength: f64,
}

/// What a network asked of weights that were not read.
#[derive(Default)]
pub struct Probe {
    names: Mutex<HashSet<String>>,
    /// The matrices of linear layers among them.
    matrices: Mutex<HashSet<String>>,
    /// Those of lists of blocks.
    blocks: Mutex<Vec<AskedBlocks>>,
}

/// What stands in files beside weights and is no fault: the tokenizer and marks of ComfyUI, scales
/// of activations, which are not rounded here, positions of CLIP, which are counted, and
/// statistics of an autoencoder of LTX-Video that nothing reads.
const BESIDE: [&str; 9] = [
    "spiece_model",
    SCALED,
    ".scale_input",
    ".input_scale",
    ".comfy_quant",
    ".position_ids",
    ".channel",
    ".mean-of-stds",
    ".mean-of-stds_over_std-of-means",
];

/// Whether a tensor says something of another one, or of its file, and is no weight itself.
pub(crate) fn is_beside(name: &str) -> bool {
    let is_scale = || name.rsplit('.').next().is_some_and(|last| SCALES.contains(&last));
    BESIDE.iter().any(|end| name.ends_with(end)) || is_scale()
}

impl Probe {
    /// The weights that nobody asked for, by their names in the file, sorted; none where nothing was
    /// asked for at all.
    pub fn left_over<'a>(&self, files: &'a PartFiles) -> Vec<&'a str> {
        let asked = lock(&self.names);
        let is_beside = |name: &str| BESIDE.iter().any(|end| name.ends_with(end));
        match asked.is_empty() {
            true => Vec::new(),
            false => {
                let left = files.names().into_iter();
                let left = left.filter(|name| !asked.contains(*name) && !is_beside(name));
                let mut left: Vec<&str> =
                    left.filter_map(|name| files.name_in_file(name)).collect();
                left.sort_unstable();
                left.dedup();
                left
            }
        }
    }

    /// The bytes that the network takes of `files`, block by block, in a compute type.
    pub fn block_sizes(&self, files: &PartFiles, dtype: DType) -> BlockSizes {
        BlockSizes::new(&lock(&self.blocks), files, dtype)
    }

    /// Bytes in a compute type of the largest matrix of a linear layer that stays narrow in memory:
    /// a product takes no more beside it where it is widened whole, as it is on a card for all but
    /// a few rows of activations. Tables of which rows are looked up are none of them.
    pub fn scratch_bytes(&self, files: &PartFiles, dtype: DType) -> u64 {
        let matrices = lock(&self.matrices);
        matrices.iter().map(|name| files.scratch_bytes(name, dtype)).max().unwrap_or(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Weights of one part of a model, seen from a scope inside it.
///
/// Cheap to clone: the files are shared. Nothing is read before [`Weights::get`].
#[derive(Clone)]
pub struct Weights {
    files: Arc<PartFiles>,
    prefix: String,
    dtype: DType,
    device: Device,
    store: Option<Arc<TensorStore>>,
    adapters: Arc<[AppliedLora]>,
    /// Where nothing is read: see [`Weights::probing`].
    probe: Option<Arc<Probe>>,
    /// Which blocks stay in memory, where not all do.
    residency: Option<Arc<Residency>>,
    /// Whether matrices of eight bits multiply activations that are rounded to as many.
    int8: bool,
    /// Where memory comes from and goes to, if it is not the allocator.
    memory: Option<BlockMemory>,
}

impl Weights {
    /// The weights of `files`, to be converted to `dtype` and placed on `device` one by one.
    ///
    /// # Errors
    /// When `dtype` is neither f32 nor bf16.
    pub fn new(files: Arc<PartFiles>, dtype: DType, device: &Device) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::ComputeType(dtype));
        }
        let (prefix, device) = (String::new(), device.clone());
        let (store, adapters, probe, residency, memory) = (None, Arc::default(), None, None, None);
        let int8 = false;
        Ok(Self { files, prefix, dtype, device, store, adapters, probe, residency, int8, memory })
    }

    /// Weights of one file, safetensors or GGUF.
    ///
    /// # Errors
    /// When the file cannot be read or is neither of them, or `dtype` is neither f32 nor bf16.
    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<Self> {
        let name = path.display().to_string();
        let file = DataFile::open(path, &name)?;
        Self::new(Arc::new(PartFiles::read(&name, vec![file])?), dtype, device)
    }

    /// The same weights, of which none is read: each is zeros that take no memory, or the error that
    /// reading it would be. A network that is made of them says what is missing, of another shape,
    /// or of a type that is not read; it is not to be computed with. `probe` then knows what it
    /// asked for.
    #[must_use]
    pub fn probing(mut self, probe: &Arc<Probe>) -> Self {
        self.probe = Some(Arc::clone(probe));
        self
    }

    /// Whether nothing is read: layers need not be made ready for use.
    pub(super) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// The same weights, kept in `store` and taken from there.
    #[must_use]
    pub fn stored_in(mut self, store: Arc<TensorStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The same weights, of whose blocks those are read again in every pass that do not stay in
    /// memory: see [`super::Blocks`].
    #[must_use]
    pub fn with_residency(mut self, residency: Option<Arc<Residency>>) -> Self {
        self.residency = residency;
        self
    }

    /// The same weights, of which matrices of whole numbers (int8, Q8_0) multiply activations rounded
    /// to such, on the CPU: see [`PartFiles::has_int8`].
    #[must_use]
    pub fn with_int8(mut self, int8: bool) -> Self {
        self.int8 = int8;
        self
    }

    /// The same weights, to be read into the memory of a pass over blocks.
    pub(super) fn placed_in(mut self, memory: &BlockMemory) -> Self {
        self.memory = Some(memory.clone());
        self
    }

    /// Whether a block of a list stays in memory.
    pub(super) fn stays(&self, list: &str, index: usize) -> bool {
        self.residency.as_ref().is_none_or(|residency| residency.stays(list, index))
    }

    /// Blocks made of weights that are not read; the probe then knows which each asked for.
    pub(super) fn ask_for_blocks<T>(
        &self,
        list: BlockList,
        load: &dyn Fn(usize, &Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut asked = AskedBlocks { list, blocks: Vec::new() };
        let block = |index: usize| {
            let own = Arc::new(Probe::default());
            let block = load(index, &self.scope(index).probing(&own))?;
            let names: Vec<String> = lock(&own.names).drain().collect();
            names.iter().for_each(|name| self.ask(name));
            lock(&own.matrices).iter().for_each(|name| self.ask_for_matrix(name));
            asked.blocks.push(names);
            Ok(block)
        };
        let blocks = (0..list.count).map(block).collect::<Result<_>>()?;
        if let Some(probe) = &self.probe {
            lock(&probe.blocks).push(asked);
        }
        Ok(blocks)
    }

    /// The same weights with adapters: beside the matrices of linear layers, and added to a copy of
    /// any other weight. What is read or stored stays as it is.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Vec<AppliedLora>) -> Self {
        self.adapters = adapters.into();
        self
    }

    /// The same weights, seen from inside `name`: `scope("blocks").scope(3)`.
    #[must_use]
    pub fn scope(&self, name: impl Display) -> Self {
        Self { prefix: self.full(&name.to_string()) + ".", ..self.clone() }
    }

    /// The compute type to which [`Weights::get`] converts.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device on which [`Weights::get`] places tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a weight of this name in this scope.
    pub fn contains(&self, name: &str) -> bool {
        let full = self.full(name);
        self.ask(&full);
        self.files.place(&full).is_some()
    }

    fn ask(&self, full: &str) {
        if let Some(probe) = &self.probe {
            lock(&probe.names).insert(full.to_owned());
        }
    }

    fn ask_for_matrix(&self, full: &str) {
        if let Some(probe) = &self.probe {
            lock(&probe.matrices).insert(full.to_owned());
        }
    }

    /// Says that weights whose names begin so stand in the file and are not read.
    pub(crate) fn leave(&self, prefix: &str) {
        let prefix = self.full(prefix);
        let names = self.files.names().into_iter();
        names.filter(|name| name.starts_with(&prefix)).for_each(|name| self.ask(name));
    }

    /// The stored shape of a weight, without reading it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.files.place(&self.full(name))?.shape)
    }

    /// One weight in the compute type, on the device.
    ///
    /// # Errors
    /// When it is missing, has another shape, or a type that is not read.
    pub fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        self.get_as(name, shape, self.dtype)
    }

    /// One weight in a type of the caller's choice: tables and norms stay f32 in a bf16 model.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn get_as(&self, name: &str, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        let (full, tensor) = self.base(name, shape.into(), dtype)?;
        let mut tensor = self.with_differences(&full, tensor)?;
        let layer = full.strip_suffix(".weight");
        for adapter in layer.iter().flat_map(|layer| self.beside(layer)) {
            let product = adapter.to_dtype(DType::F32)?.product()?;
            tensor = added(&tensor, &product.reshape(tensor.dims())?)?;
        }
        Ok(tensor)
    }

    /// The matrix `weight` of a linear layer, `[out, inner]`, and the adapters beside it, packed for
    /// products in `dtype`. One that is stored in eight bits a number or in blocks stays so.
    pub(super) fn matrix(
        &self,
        inner: usize,
        out: usize,
        dtype: DType,
    ) -> Result<(Weight, Vec<Adapter>)> {
        let full = self.full("weight");
        self.ask_for_matrix(&full);
        let adapters = self.beside(full.strip_suffix(".weight").unwrap_or(&full));
        let adapters = adapters.map(|adapter| adapter.to_dtype(dtype)).collect::<Result<_>>()?;
        let is_changed = self.adapters.iter().any(|own| own.lora.difference(&full).is_some());
        let shape = || Shape::from((out, inner));
        if is_changed {
            // A copy of its own, of which no part is kept for others.
            let (full, tensor) = self.unstored().base("weight", shape(), dtype)?;
            let weight = Weight::Dense(self.with_differences(&full, tensor)?);
            return Ok((self.packed(weight, dtype)?, adapters));
        }
        let read = || match self.packed_in_pieces(inner, out, dtype)? {
            Some(packed) => Ok(packed),
            None => self.packed(self.unstored().unpacked(inner, out, dtype)?, dtype),
        };
        let stored = self.store.as_ref().map(|store| &store.matrices);
        Ok((get_or_read(stored, &full, dtype, read)?, adapters))
    }

    /// The matrix `weight`, `[out, inner]`, without adapters, in the form in which it is stored.
    pub(super) fn unpacked(&self, inner: usize, out: usize, dtype: DType) -> Result<Weight> {
        let full = self.full("weight");
        // What is said of whole numbers is read with their scales.
        if self.files.find(&full)?.stored != Some(StoredType::Int8) {
            self.check_format(&full)?;
        }
        let narrow = || self.stored(&full, (out, inner).into(), DType::U8);
        Ok(match self.files.find(&full)?.stored {
            Some(StoredType::Plain(DType::F8E4M3)) => {
                let scale = match self.scale_of(&full)? {
                    Scale::Rows(scales) => Scale::Rows(scales.to_device(&self.device)?),
                    one => one,
                };
                Weight::E4m3 { bytes: narrow()?, scale }
            }
            Some(StoredType::Int8) => self.int8(&full, [out, inner])?,
            Some(StoredType::Blocks(blocks)) if blocks.bytes_of(inner).is_some() => {
                Weight::Blocks { bytes: narrow()?, blocks }
            }
            _ => Weight::Dense(self.base("weight", (out, inner).into(), dtype)?.1),
        })
    }

    /// The matrix `weight`, `[out, inner]`, without adapters, packed for products in `dtype` while it
    /// is read: so no more than a few pieces of it are ever held twice. None where it is stored in a
    /// form that is widened whole.
    fn packed_in_pieces(&self, inner: usize, out: usize, dtype: DType) -> Result<Option<Weight>> {
        let full = self.full("weight");
        if self.is_probing() || !matches!(self.device, Device::Cpu) {
            return Ok(None);
        }
        let mut place = self.placed(&full, &(out, inner).into())?;
        // What does not fit into a budget is not to fill the memory beside it.
        place.past_cache = self.residency.is_some();
        let stored = read::check_type(&place)?;
        // What is said of whole numbers is read with their scales.
        if stored != StoredType::Int8 {
            self.check_format(&full)?;
        }
        let own = BlockMemory::default();
        let memory = self.memory.as_ref().unwrap_or(&own).recycler();
        let precision = match stored {
            StoredType::Int8 if self.int8 => Precision::Int8,
            StoredType::Blocks(BlockType::Q8_0) if self.int8 => Precision::Int8Blocks,
            _ => Precision::of(dtype),
        };
        let matrix = PieceWise { size: [out, inner], precision, memory };
        let bytes = |row: usize| {
            let place = &place;
            move |rows, bytes: &mut [u8]| read::rows_as_bytes(place, row, rows, bytes)
        };
        let packed = match (stored, self.factor(&full)?) {
            (StoredType::Int8, _) => {
                let (scales, group) = self.of_int8(&full, [out, inner])?;
                matrix.pack_int8(scales.to_vec1()?, group, bytes(inner))
            }
            (StoredType::Blocks(blocks), _) => match blocks.bytes_of(inner) {
                Some(row) => matrix.pack_blocks(blocks, bytes(row)),
                None => return Ok(None),
            },
            (StoredType::Plain(DType::F8E4M3), scale) => {
                let scale = match scale {
                    Scale::One(scale) => WeightScale::All(scale),
                    Scale::Rows(scales) => WeightScale::Rows(scales.to_vec1()?.into()),
                };
                matrix.pack_e4m3(scale, bytes(inner))
            }
            (StoredType::Plain(_), Scale::One(1.0)) if dtype == DType::BF16 => {
                matrix.pack_bf16(|rows, numbers| read::rows(&place, rows, numbers))
            }
            (StoredType::Plain(_), Scale::One(1.0)) => {
                matrix.pack_f32(|rows, numbers| read::rows(&place, rows, numbers))
            }
            _ => return Ok(None),
        };
        if place.past_cache {
            place.file.drop_cached(place.offset, place.length);
        }
        packed.map(|packed| Some(Weight::Packed(packed)))
    }

    /// A matrix that was made of these weights, `[out, inner]`, packed for products in the compute
    /// type.
    ///
    /// # Errors
    /// When it is no matrix.
    pub fn pack(&self, matrix: Tensor) -> Result<Weight> {
        self.packed(Weight::Dense(matrix), self.dtype)
    }

    fn packed(&self, weight: Weight, dtype: DType) -> Result<Weight> {
        if self.is_probing() { Ok(weight) } else { weight.packed(dtype) }
    }

    /// The same weights, of which nothing that is read is kept.
    pub(super) fn unstored(&self) -> Self {
        Self { store: None, ..self.clone() }
    }

    /// A matrix of which rows are looked up, `[rows, width]`, in the form in which it is stored; with
    /// adapters in the compute type.
    pub(super) fn table(&self, rows: usize, width: usize) -> Result<Weight> {
        let full = self.full("weight");
        let layer = full.strip_suffix(".weight").unwrap_or(&full);
        let is_changed = self.adapters.iter().any(|own| own.lora.difference(&full).is_some());
        match is_changed || self.beside(layer).next().is_some() {
            true => Ok(Weight::Dense(self.get("weight", (rows, width))?)),
            false => self.unpacked(width, rows, self.dtype),
        }
    }

    /// What the numbers of a weight are multiplied by, whatever they are stored in: 1 where nothing
    /// beside it says otherwise. Of whole numbers, which have scales of their own, it is 1, too.
    pub(crate) fn factor(&self, full: &str) -> Result<Scale> {
        match self.files.find(full)?.stored {
            Some(stored) if stored.is_fp8() => self.scale_of(full),
            Some(StoredType::Plain(_)) if full.ends_with(".weight") => {
                match self.scale_names(full).iter().any(|name| self.files.place(name).is_some()) {
                    true => self.scale_of(full),
                    false => Ok(Scale::One(1.0)),
                }
            }
            _ => Ok(Scale::One(1.0)),
        }
    }

    /// Refuses what was made in a way that is not read, as the text beside it says.
    fn check_format(&self, full: &str) -> Result<()> {
        const READ: [&str; 3] = ["int8_tensorwise", "float8_e4m3fn", "float8_e5m2"];
        #[derive(serde::Deserialize)]
        struct Format {
            format: Option<String>,
        }
        let layer = full.strip_suffix("weight").unwrap_or(full);
        let unsupported = |place: &TensorEntry<'_>, what: String| {
            Err(Error::Unsupported { file: place.file.name().to_owned(), what })
        };
        // A scale of each block of 128 by 128 (DeepSeek's form).
        let inverse = format!("{layer}weight_scale_inv");
        if let Some(place) = self.files.place(&inverse) {
            return unsupported(&place, format!("{}, a scale a block,", place.named()));
        }
        let name = format!("{layer}comfy_quant");
        let Some(place) = self.files.place(&name) else { return Ok(()) };
        let text = read::text(&place)?;
        let how = text.and_then(|text| serde_json::from_slice::<Format>(&text).ok());
        match how.and_then(|how| how.format) {
            Some(format) if !READ.contains(&format.as_str()) => {
                let (name, read) = (place.named(), READ.join(", "));
                unsupported(&place, format!("{name}: {format} (of ComfyUI's, {read} are read)"))
            }
            _ => Ok(()),
        }
    }

    /// The names by which the scale of a weight may stand beside it; now they were asked for.
    fn scale_names(&self, full: &str) -> [String; 2] {
        let layer = full.strip_suffix("weight").unwrap_or(full);
        let names = SCALES.map(|name| format!("{layer}{name}"));
        names.iter().for_each(|name| self.ask(name));
        names
    }

    /// What the numbers of a weight are multiplied by that is stored in eight bits each: the
    /// `scale_weight` (ComfyUI) or `weight_scale` beside it, or 1 in a file that has none at all.
    fn scale_of(&self, full: &str) -> Result<Scale> {
        let names = self.scale_names(full);
        let Some(name) = names.iter().find(|name| self.files.place(name).is_some()) else {
            return match self.missing_scale(full) {
                Some(name) => Err(Error::MissingScale {
                    file: self.files.describe().to_owned(),
                    weight: self.files.named(full),
                    name: self.files.named(&name),
                }),
                None => Ok(Scale::One(1.0)),
            };
        };
        let place = self.files.find(name)?;
        let count = place.shape.iter().product::<usize>();
        let rows = self.files.find(full)?.shape.first().copied();
        if count != 1 && Some(count) != rows {
            return Err(Error::WeightShape {
                file: place.file.name().to_owned(),
                name: place.named(),
                expected: vec![],
                found: place.shape.to_vec(),
            });
        }
        let scale = read::tensor(&place, DType::F32, Target::of(&Device::Cpu))?.flatten_all()?;
        if let Some(scale) = scale.to_vec1::<f32>()?.into_iter().find(|scale| !scale.is_finite()) {
            let name = place.named();
            let reason =
                format!("the scale {name} is {scale}: the file is damaged; download it again");
            return Err(Error::Config { file: place.file.name().to_owned(), reason });
        }
        match count {
            1 => Ok(Scale::One(scale.reshape(())?.to_scalar()?)),
            _ => Ok(Scale::Rows(scale)),
        }
    }

    /// How the scale would be called that a weight of eight bits lacks; none where it needs none: it
    /// does if it is a matrix, and it, or its file, is marked as scaled, or any other of these weights
    /// has a scale.
    fn missing_scale(&self, full: &str) -> Option<String> {
        let is_matrix = self.files.shape(full).is_some_and(|shape| shape.len() == 2);
        let layer = full.strip_suffix("weight").filter(|_| is_matrix)?;
        let of_others = self.files.fp8_scales();
        let is_needed = of_others.is_some()
            || self.files.place(SCALED).is_some()
            || self.files.place(&format!("{layer}comfy_quant")).is_some()
            || self.files.metadata(QUANTIZATION).is_some();
        is_needed.then(|| format!("{layer}{}", of_others.unwrap_or(SCALES[0])))
    }

    /// A matrix of whole numbers of eight bits, with what ComfyUI writes beside it.
    fn int8(&self, full: &str, [out, inner]: [usize; 2]) -> Result<Weight> {
        let (scales, group) = self.of_int8(full, [out, inner])?;
        let bytes = self.stored(full, (out, inner).into(), DType::U8)?;
        Ok(Weight::Int8 { bytes, scales, group })
    }

    /// What ComfyUI writes beside a matrix of whole numbers of eight bits: a scale a row or one for
    /// all (`weight_scale`; `[out]` in f32), and how it was made (`comfy_quant`, a text of JSON): how
    /// many numbers of a row were rotated together.
    fn of_int8(&self, full: &str, [out, inner]: [usize; 2]) -> Result<(Tensor, Option<usize>)> {
        let layer = full.strip_suffix("weight").unwrap_or(full);
        let (scale, how) = (format!("{layer}weight_scale"), format!("{layer}comfy_quant"));
        [&scale, &how].into_iter().for_each(|name| self.ask(name));
        let group = self.rotation(&how, inner)?;
        let place = self.files.find(&scale)?;
        let count: usize = place.shape.iter().product();
        if count != out && count != 1 {
            return Err(Error::WeightShape {
                file: place.file.name().to_owned(),
                name: place.named(),
                expected: vec![out, 1],
                found: place.shape.to_vec(),
            });
        }
        let scales = read::tensor(&place, DType::F32, self.target())?.flatten_all()?;
        let scales = if count == out { scales } else { scales.broadcast_as(out)?.contiguous()? };
        Ok((scales, group))
    }

    /// How many numbers of a row were rotated together before they were rounded (ConvRot), as the
    /// text `name` says.
    fn rotation(&self, name: &str, inner: usize) -> Result<Option<usize>> {
        /// What ComfyUI's loader reads of it for this format; older writers have it in `params`.
        #[derive(Default, serde::Deserialize)]
        struct How {
            format: Option<String>,
            convrot: Option<bool>,
            convrot_groupsize: Option<usize>,
            params: Option<Box<How>>,
        }
        let place = self.files.find(name)?;
        let invalid = |reason: String| {
            let reason = format!("{} {reason}", place.named());
            Err(Error::Config { file: place.file.name().to_owned(), reason })
        };
        let how: How = match read::text(&place)?.map(|text| serde_json::from_slice(&text)) {
            Some(Ok(how)) => how,
            _ => return invalid("is no JSON that says how the weight was made".to_owned()),
        };
        if how.format.as_deref() != Some("int8_tensorwise") {
            let what = how.format.as_deref().unwrap_or("no format");
            let what = format!("{}: {what} (of ComfyUI's, int8_tensorwise is read)", place.named());
            return Err(Error::Unsupported { file: place.file.name().to_owned(), what });
        }
        let older = how.params.unwrap_or_default();
        if !how.convrot.or(older.convrot).unwrap_or(false) {
            return Ok(None);
        }
        let group = how.convrot_groupsize.or(older.convrot_groupsize).unwrap_or(256);
        let is_power = group >= 4 && group.is_power_of_two() && group.ilog2().is_multiple_of(2);
        match is_power && inner.is_multiple_of(group) {
            true => Ok(Some(group)),
            false => invalid(format!(
                "has a `convrot_groupsize` of {group}, expected a power of 4 that divides {inner}"
            )),
        }
    }

    /// The adapters of a layer.
    fn beside(&self, layer: &str) -> impl Iterator<Item = Adapter> {
        self.adapters.iter().filter_map(move |own| own.lora.beside(layer, own.strength))
    }

    /// A weight with the whole differences of adapters.
    fn with_differences(&self, full: &str, mut tensor: Tensor) -> Result<Tensor> {
        for AppliedLora { lora, strength } in self.adapters.iter() {
            if let Some(difference) = lora.difference(full) {
                let difference = (difference.to_dtype(DType::F32)? * *strength)?;
                tensor = added(&tensor, &difference.reshape(tensor.dims())?)?;
            }
        }
        Ok(tensor)
    }

    /// A weight without adapters, and its full name.
    fn base(&self, name: &str, shape: Shape, dtype: DType) -> Result<(String, Tensor)> {
        let full = self.full(name);
        if let (Some(StoredType::Int8), &[out, inner]) =
            (self.files.find(&full)?.stored, shape.dims())
        {
            let weight = self.int8(&full, [out, inner])?;
            if self.probe.is_some() {
                return Ok((full, Tensor::zeros(1, dtype, &Device::Cpu)?.broadcast_as(shape)?));
            }
            let ids = Tensor::arange(0, out as u32, &self.device)?;
            return Ok((full, weight.rows(&ids, dtype)?));
        }
        let tensor = self.stored(&full, shape, dtype)?;
        match self.factor(&full)? {
            Scale::One(1.0) => Ok((full, tensor)),
            Scale::One(factor) => Ok((full, (tensor * f64::from(factor))?)),
            Scale::Rows(_) if self.probe.is_some() => Ok((full, tensor)),
            Scale::Rows(scales) => {
                let sizes = vec![1; tensor.rank().saturating_sub(1)];
                let scales = scales.reshape([&[scales.elem_count()], &sizes[..]].concat())?;
                let wide = tensor.to_dtype(DType::F32)?;
                let scaled = wide.broadcast_mul(&scales.to_device(&self.device)?)?;
                Ok((full, scaled.to_dtype(dtype)?))
            }
        }
    }

    /// The numbers of a weight as they are stored, in a type.
    fn stored(&self, full: &str, shape: Shape, dtype: DType) -> Result<Tensor> {
        let place = self.placed(full, &shape)?;
        if self.probe.is_some() {
            if read::check_type(&place)? == StoredType::Int8 && dtype != DType::U8 {
                return Err(read::type_error(&place));
            }
            return Ok(Tensor::zeros(1, dtype, &Device::Cpu)?.broadcast_as(shape)?);
        }
        let read = || {
            kino_kernels::check_cancelled()?;
            read::tensor(&place, dtype, self.target())
        };
        get_or_read(self.store.as_ref().map(|store| &store.tensors), full, dtype, read)
    }

    /// Where weights are to lie.
    fn target(&self) -> Target<'_> {
        Target { device: &self.device, memory: self.memory.as_ref() }
    }

    /// Where a weight of this shape lies.
    fn placed(&self, full: &str, shape: &Shape) -> Result<TensorEntry<'_>> {
        self.ask(full);
        let place = self.files.find(full)?;
        match place.shape == shape.dims() {
            true => Ok(place),
            false => Err(Error::WeightShape {
                file: place.file.name().to_owned(),
                name: place.named(),
                expected: shape.dims().to_vec(),
                found: place.shape.to_vec(),
            }),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The sum in f32, in the type of the first.
fn added(tensor: &Tensor, difference: &Tensor) -> Result<Tensor> {
    let sum = (tensor.to_dtype(DType::F32)? + difference)?;
    Ok(sum.to_dtype(tensor.dtype())?)
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights")
            .field("files", &self.files.describe())
            .field("prefix", &self.prefix)
            .field("dtype", &self.dtype)
            .finish_non_exhaustive()
    }
}

/// Reading weights of a folder without opening all of it.
impl ModelFolder {
    /// The weights of a part (`transformer`, `vae`, `text_encoder`, …) as they are now.
    ///
    /// # Errors
    /// When there are none, or a file is a pickle, truncated, or otherwise not safetensors.
    pub fn weights(&self, part: &str, dtype: DType, device: &Device) -> Result<Weights> {
        Weights::new(Arc::new(self.part(part)?), dtype, device)
    }

    /// The type in which most of a part's weights are stored. Reads headers only.
    ///
    /// # Errors
    /// As [`ModelFolder::weights`].
    pub fn stored_dtype(&self, part: &str) -> Result<DType> {
        Ok(self.part(part)?.main_dtype().unwrap_or(DType::F32))
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

    use super::*;

    const SIZE: [usize; 2] = [40, 64];

    /// A matrix in each form of eight bits, with its scale.
    fn files(place: &Path) -> PartFiles {
        let bytes: Vec<u8> = (0..SIZE[0] * SIZE[1]).map(|i| (i * 31 % 0x78) as u8).collect();
        let scales: Vec<u8> = (0..SIZE[0]).flat_map(|i| (0.5 + i as f32).to_le_bytes()).collect();
        let tensors = ["all.weight", "rows.weight", "wide.weight"].map(|name| {
            let dtype = if name == "wide.weight" { Dtype::F8_E5M2 } else { Dtype::F8_E4M3 };
            (name, TensorView::new(dtype, SIZE.to_vec(), &bytes).unwrap())
        });
        let of_rows = TensorView::new(Dtype::F32, vec![SIZE[0], 1], &scales).unwrap();
        let one = || TensorView::new(Dtype::F32, vec![], &scales[..4]).unwrap();
        let scales = ["all", "wide"].map(|layer| (format!("{layer}.scale_weight"), one()));
        let scales = scales.into_iter().chain([("rows.weight_scale".to_owned(), of_rows)]);
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
        let path = place.join("model.safetensors");
        serialize_to_file(tensors.chain(scales), None, &path).unwrap();
        PartFiles::of_file(DataFile::open(&path, "model").unwrap()).unwrap()
    }

    #[test]
    fn eight_bits_a_number_stay_so_whether_rows_have_scales_or_all_have_one() {
        let place = tempfile::tempdir().unwrap();
        let files = Arc::new(files(place.path()));
        let x: Vec<f32> = (0..SIZE[1]).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::from_vec(x, (1, SIZE[1]), &Device::Cpu).unwrap();
        let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu).unwrap();
        for (layer, expected) in [("all", 1), ("rows", 1), ("wide", 4)] {
            let weights = weights.scope(layer);
            let (weight, _) = weights.matrix(SIZE[1], SIZE[0], DType::F32).unwrap();
            let Weight::Packed(packed) = &weight else { panic!("{layer}: {weight:?}") };
            // Rows are packed 32 at a time.
            let numbers = SIZE[0].next_multiple_of(32) * SIZE[1];
            let scales = if layer == "rows" { SIZE[0] * 4 } else { 0 };
            assert_eq!(packed.bytes(), numbers * expected + scales, "{layer}");
            let name = format!("{layer}.weight");
            let planned = files.tensor_bytes(&name, DType::F32);
            assert_eq!(planned, (SIZE[0] * SIZE[1] * expected) as u64, "{layer}");
            let twice = files.widened_bytes(&name, DType::F32);
            assert_eq!(twice, if expected == 1 { 0 } else { planned }, "{layer}");
            let wide = weights.get("weight", (SIZE[0], SIZE[1])).unwrap();
            let exact = x.matmul(&wide.t().unwrap()).unwrap();
            let unpacked = weights.unpacked(SIZE[1], SIZE[0], DType::F32).unwrap();
            for weight in [weight, unpacked] {
                let found = weight.multiply(&x, None, kino_kernels::LinearEpilogue::None).unwrap();
                let largest = |x: Tensor| x.abs()?.max_all()?.to_scalar::<f32>();
                let off = largest((found - &exact).unwrap()).unwrap();
                assert!(off < 1e-5 * largest(exact.clone()).unwrap(), "{layer}: {off}");
            }
        }
        let ids = Tensor::new(&[39_u32, 2], &Device::Cpu).unwrap();
        let rows = weights.scope("rows").unpacked(SIZE[1], SIZE[0], DType::F32).unwrap();
        let wide = weights.get("rows.weight", (SIZE[0], SIZE[1])).unwrap();
        let off =
            (rows.rows(&ids, DType::F32).unwrap() - wide.index_select(&ids, 0).unwrap()).unwrap();
        assert_eq!(off.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
}
