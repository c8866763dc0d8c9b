//! The weight files of one part of a model: names → type, shape, bytes; and what identifies them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::DType;
use kino_kernels::{BlockType, ConvWeights};

use super::file::{self, DataFile};
use super::format;
use super::header::{CONFIG, Header, StoredTensor, StoredType};
use super::metadata::FileMetadata;
use crate::error::{Error, Result, WeightName};

/// Files up to this length are hashed whole.
const HASHED_WHOLE: u64 = 16 << 20;
/// Of longer ones, this many bytes at the start, middle and end of each tensor.
const SAMPLE: u64 = 4096;

/// One file with its header read.
#[derive(Clone)]
struct WeightFile {
    file: Arc<DataFile>,
    header: Header,
}

/// A tensor in a file: where it lies and what it is.
pub(crate) struct TensorEntry<'a> {
    /// Its name in the diffusers layout.
    pub(crate) name: &'a str,
    /// Its name in the file.
    pub(crate) in_file: &'a str,
    /// Whether it is some rows of what has that name.
    pub(crate) is_rows: bool,
    /// The file that it lies in.
    pub(crate) file: &'a DataFile,
    /// Its first byte there.
    pub(crate) offset: u64,
    /// The form in which it is stored, where that is read.
    pub(crate) stored: Option<StoredType>,
    /// That form's name.
    pub(crate) type_name: &'a str,
    /// Its shape.
    pub(crate) shape: &'a [usize],
    /// Its bytes.
    pub(crate) length: u64,
    /// Whether it is read past the system's cache.
    pub(crate) past_cache: bool,
}

impl TensorEntry<'_> {
    /// How messages call it.
    pub(crate) fn named(&self) -> WeightName {
        let in_file = (self.in_file != self.name).then(|| self.in_file.into());
        WeightName { name: self.name.into(), in_file, is_rows: self.is_rows }
    }

    /// Fills `buffer` with its bytes from `offset` of the file on.
    ///
    /// # Errors
    /// As [`DataFile::read`].
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self.past_cache {
            true => self.file.read_past_cache(offset, buffer),
            false => self.file.read(offset, buffer),
        }
    }
}

/// Which of how many pieces a file is whose name ends as those of a model in pieces,
/// `-00001-of-00002`.
fn piece_of(name: &str) -> Option<(u32, u32)> {
    let (stem, _) = name.rsplit_once('.')?;
    let (stem, pieces) = stem.rsplit_once("-of-")?;
    let (_, piece) = stem.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse::<u32>().ok())?;
    Some((number(piece)?, number(pieces)?)).filter(|(_, pieces)| *pieces > 1)
}

/// How the scales of the numbers of `LAYER.weight` are called, behind `LAYER.`: by ComfyUI, and by
/// others.
pub(crate) const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// Gives the layers that are the rows of one layer of a file, in order, each with its share of
/// them; none where it is one layer in the diffusers layout, too. The names are those of layers,
/// without their weights; those that come out are of the diffusers layout.
pub type Cut = Box<dyn Fn(&str) -> Vec<(String, usize)> + Send + Sync>;

/// Gives the names that a weight of the diffusers layout may have in files: one for each way of
/// naming that is known, always in the same order.
pub type Originals = Box<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// All the weight files of one part of a model, opened, by tensor name.
#[derive(Clone)]
pub struct PartFiles {
    folder: String,
    files: Vec<WeightFile>,
    /// Each name with the file that has it, and the number of its tensor there.
    place: HashMap<String, (usize, usize)>,
    /// What stands before the names of these weights in the file, where others are in it, too.
    prefix: String,
    /// What may follow it, by the names of the diffusers layout; none where it is these.
    originals: Option<Arc<Originals>>,
    /// See [`PartFiles::fp8_scales`].
    fp8_scales: OnceLock<Option<&'static str>>,
    identity: Identity,
}

/// What identifies the weights of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// A hash of headers and data; of long files, of samples of the data of every tensor. A copy
    /// has the same.
    pub content: [u8; 32],
    /// The same with the stamps of the files that were not hashed whole: where it is equal, so is
    /// every byte.
    pub exact: [u8; 32],
}

impl PartFiles {
    /// Joins opened files; a name in several of them belongs to the first.
    ///
    /// # Errors
    /// When a file is a pickle, truncated, or otherwise neither safetensors nor GGUF.
    pub(crate) fn read(folder: &str, files: Vec<DataFile>) -> Result<Self> {
        let read =
            |file: DataFile| Ok(WeightFile { header: format::read(&file)?, file: Arc::new(file) });
        let files = files.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        let count = files.iter().map(|file| file.header.tensors.len()).sum();
        let mut place = HashMap::with_capacity(count);
        for (index, file) in files.iter().enumerate() {
            for (number, tensor) in file.header.tensors.iter().enumerate() {
                place.entry(tensor.name.clone()).or_insert((index, number));
            }
        }
        let identity = identify(&files)?;
        let (folder, prefix) = (folder.to_owned(), String::new());
        let (originals, fp8_scales) = (None, OnceLock::new());
        Ok(Self { folder, files, place, prefix, originals, fp8_scales, identity })
    }

    /// Opens one file, safetensors or GGUF, that is all of a part.
    ///
    /// # Errors
    /// When it is a pickle, truncated, or otherwise neither of them.
    pub fn of_file(file: DataFile) -> Result<Self> {
        let name = file.name().to_owned();
        if let Some((piece, pieces)) = piece_of(&name) {
            let reason = format!(
                "it is piece {piece} of {pieces} of a model, by its name: load the folder that has \
                 them all with its config.json, or one file made of them"
            );
            return Err(Error::Config { file: name, reason });
        }
        Self::read(&name, vec![file])
    }

    /// The same weights under other names: those that `rename` gives, the others as they are. What
    /// they would be called in the file, `originals` says.
    #[must_use]
    pub fn renamed(
        mut self,
        rename: impl Fn(&str) -> Option<String>,
        originals: Originals,
    ) -> Self {
        self.originals = Some(Arc::new(originals));
        let place = std::mem::take(&mut self.place).into_iter();
        self.place = place.map(|(name, at)| (rename(&name).unwrap_or(name), at)).collect();
        self
    }

    /// The same weights, of which each layer that `cut` knows stands as the layers that its rows are.
    /// What lies beside a weight (bias, scales, marks) goes with the rows, or to each of them where it
    /// is one for all. Nothing is read: each is a part of the file. A layer whose rows do not divide so
    /// stays as it is.
    #[must_use]
    pub(crate) fn cut(mut self, cut: &Cut) -> Self {
        let names: Vec<String> = self.place.keys().cloned().collect();
        let mut pieces = Vec::new();
        for name in names {
            let Some((layer, tensor)) = name.rsplit_once('.') else { continue };
            let shares = cut(layer);
            let of: usize = shares.iter().map(|(_, share)| share).sum();
            // A damaged file may have one without the other.
            let mut whole = ["weight", "bias"].iter();
            let rows = whole.find_map(|end| self.shape(&format!("{layer}.{end}"))?.first());
            let Some(rows) = rows.copied().filter(|rows| of > 0 && rows % of == 0) else {
                continue;
            };
            let mut from = 0;
            for (piece, share) in shares {
                let range = rows / of * from..rows / of * (from + share);
                from += share;
                pieces.push((name.clone(), format!("{piece}.{tensor}"), (range, rows)));
            }
        }
        for (whole, piece, (range, rows)) in pieces {
            let Some(&(index, number)) = self.place.get(&whole) else { continue };
            let tensors = &mut self.files[index].header.tensors;
            let Some(part) = tensors.get(number).and_then(|own| rows_of(own, range, rows)) else {
                self.place.insert(piece, (index, number));
                continue;
            };
            tensors.push(part);
            self.place.insert(piece, (index, tensors.len() - 1));
        }
        self.place.retain(|name, _| {
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            cut(layer).is_empty()
        });
        self
    }

    /// Only those weights before whose names this stands, by what follows it, of the same files.
    #[must_use]
    pub(crate) fn within(mut self, prefix: &str) -> Self {
        let place = std::mem::take(&mut self.place).into_iter();
        let inner = |name: &str| name.strip_prefix(prefix).map(str::to_owned);
        self.place = place.filter_map(|(name, at)| Some((inner(&name)?, at))).collect();
        self.prefix.push_str(prefix);
        self.fp8_scales = OnceLock::new();
        self
    }

    /// What identifies these weights.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The length of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.file.length()).sum()
    }

    /// The bytes of these weights as they are stored.
    pub fn stored_bytes(&self) -> u64 {
        self.tensors().fold(0, |sum, (_, tensor)| sum.saturating_add(tensor.length))
    }

    /// The files, as messages call them, with their lengths in bytes.
    pub fn file_names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files().map(|file| (file.name(), file.length()))
    }

    /// How many elements are stored in which type, as the file calls it.
    pub fn stored_types(&self) -> std::collections::BTreeMap<String, u64> {
        let mut types = std::collections::BTreeMap::new();
        for entry in self.names().into_iter().filter_map(|name| self.place(name)) {
            let elements = entry.shape.iter().product::<usize>() as u64;
            *types.entry(entry.type_name.to_owned()).or_default() += elements;
        }
        types
    }

    /// Whether no file was touched since it was opened, or exchanged for another at its place.
    pub fn is_current(&self, path: Option<&std::path::Path>) -> bool {
        let Some(path) = path else { return true }; // in the binary nothing changes
        let now = file::stamp_at(path);
        self.files.iter().all(|file| file.file.stamp().copied() == now)
    }

    /// Whether all of them lie in the binary.
    pub fn is_in_binary(&self) -> bool {
        self.files.iter().all(|file| file.file.stamp().is_none())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.place.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether scales stand beside matrices of eight bits with an exponent; none where there are no
    /// such matrices.
    pub fn has_fp8_scales(&self) -> Option<bool> {
        let is_fp8 = |(_, tensor): (&str, &StoredTensor)| {
            tensor.shape.len() == 2 && tensor.stored.is_some_and(StoredType::is_fp8)
        };
        self.tensors().any(is_fp8).then(|| self.fp8_scales().is_some())
    }

    /// How the scales are called that stand beside matrices of eight bits with an exponent (one of
    /// [`SCALES`]); none where no such matrix has one. Looked for once.
    pub(crate) fn fp8_scales(&self) -> Option<&'static str> {
        let of_fp8 = |name: &String| {
            let (layer, end) =
                SCALES.iter().find_map(|end| Some((name.strip_suffix(end)?, *end)))?;
            let stored = self.place(&format!("{layer}weight"))?.stored?;
            stored.is_fp8().then_some(end)
        };
        *self.fp8_scales.get_or_init(|| self.place.keys().find_map(of_fp8))
    }

    /// What the headers say about themselves under a key; the first file's word counts.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        let mut headers = self.files.iter().map(|file| &file.header.metadata);
        headers.find_map(|said| said.get(key)).map(String::as_str)
    }

    /// What the first file, a GGUF, says beside its tensors under the keys that are asked for; none
    /// where it is of another format.
    ///
    /// # Errors
    /// When the header cannot be read any more, or has a list that is too long.
    pub fn gguf_metadata(&self, keep: &dyn Fn(&str) -> bool) -> Result<Option<FileMetadata>> {
        let Some(WeightFile { file, .. }) = self.files.first() else { return Ok(None) };
        FileMetadata::read(file, keep)
    }

    /// What the file says that the config of its part was.
    pub(crate) fn own_config(&self) -> Option<serde_json::Value> {
        let config = serde_json::from_str(self.metadata(CONFIG)?).ok();
        config.filter(serde_json::Value::is_object)
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.place(name)?.shape)
    }

    /// The files, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.files.iter().map(|file| &*file.file)
    }

    /// The type in which most elements are stored that do not lie in blocks.
    pub fn main_dtype(&self) -> Option<DType> {
        let mut elements: Vec<(usize, DType)> = Vec::new();
        for tensor in self.tensors().map(|(_, tensor)| tensor) {
            let dtype = match tensor.stored {
                Some(StoredType::Plain(dtype)) => dtype,
                // Which holds each of them.
                Some(StoredType::E5m2) => DType::BF16,
                _ => continue,
            };
            let count = tensor.shape.iter().product::<usize>();
            match elements.iter_mut().find(|(_, own)| *own == dtype) {
                Some((sum, _)) => *sum += count,
                None => elements.push((count, dtype)),
            }
        }
        elements.into_iter().max_by_key(|(count, dtype)| (*count, dtype.as_str())).map(|e| e.1)
    }

    /// Whether a matrix is stored in whole numbers of eight bits (int8, or Q8_0's blocks).
    pub fn has_int8(&self) -> bool {
        let stored = self.tensors().map(|(_, tensor)| (tensor.stored, tensor.shape.len()));
        let int8 = [StoredType::Int8, StoredType::Blocks(BlockType::Q8_0)];
        let mut matrices = stored.filter(|(_, rank)| *rank == 2);
        matrices.any(|(stored, _)| stored.is_some_and(|stored| int8.contains(&stored)))
    }

    /// The forms in which tensors are stored, by their names in the files' format, with the number
    /// of tensors of each, most common first.
    pub fn type_names(&self) -> Vec<(&str, usize)> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        self.tensors().for_each(|(_, tensor)| *counts.entry(&tensor.type_name).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        counts
    }

    /// Bytes of the tensors whose names begin with one of these, converted to `dtype`; matrices of
    /// eight bits a number or in blocks stay as they are.
    pub fn weight_bytes(&self, dtype: DType, prefixes: &[&str]) -> u64 {
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let tensors = self.tensors().filter(|(name, _)| wanted(name));
        tensors.fold(0, |sum, (_, tensor)| sum.saturating_add(bytes_as(tensor, dtype)))
    }

    /// Bytes of one tensor, converted likewise; none where it is not there.
    pub(crate) fn tensor_bytes(&self, name: &str, dtype: DType) -> u64 {
        self.stored(name).map_or(0, |tensor| bytes_as(tensor, dtype))
    }

    /// Bytes of a matrix in `dtype` that stays narrow in memory, 0 of any other tensor: what a
    /// product takes beside it where it is widened whole.
    pub(crate) fn scratch_bytes(&self, name: &str, dtype: DType) -> u64 {
        let narrow = self.stored(name).filter(|tensor| stays_narrow(tensor));
        narrow.map_or(0, |tensor| plain_bytes(&tensor.shape, dtype))
    }

    fn stored(&self, name: &str) -> Option<&StoredTensor> {
        let (index, number) = self.place.get(name)?;
        self.files[*index].header.tensors.get(*number)
    }

    /// Bytes of a matrix in `dtype` that is widened whole before it is packed; 0 of one that is
    /// packed piece by piece while it is read, and of what is no matrix.
    pub(crate) fn widened_bytes(&self, name: &str, dtype: DType) -> u64 {
        let Some(TensorEntry { stored: Some(stored), shape: &[_, inner], .. }) = self.place(name)
        else {
            return 0;
        };
        let layer = name.strip_suffix("weight").unwrap_or(name);
        let has_scale =
            || SCALES.iter().any(|scale| self.place.contains_key(&format!("{layer}{scale}")));
        let in_pieces = match stored {
            StoredType::Int8 | StoredType::Plain(DType::F8E4M3) => true,
            StoredType::Plain(_) => !has_scale(),
            StoredType::Blocks(blocks) => blocks.bytes_of(inner).is_some(),
            StoredType::E5m2 => false,
        };
        if in_pieces { 0 } else { self.tensor_bytes(name, dtype) }
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// When there is none of this name; the error names the most similar.
    pub(crate) fn find(&self, name: &str) -> Result<TensorEntry<'_>> {
        self.place(name).ok_or_else(|| self.missing(name))
    }

    /// Where a tensor lies, if it is there.
    pub(crate) fn place(&self, name: &str) -> Option<TensorEntry<'_>> {
        let (name, (index, number)) = self.place.get_key_value(name)?;
        let file = &self.files[*index];
        let tensor = file.header.tensors.get(*number)?;
        Some(TensorEntry {
            name,
            in_file: &tensor.name,
            is_rows: tensor.is_rows,
            file: &file.file,
            offset: tensor.offset,
            stored: tensor.stored,
            type_name: &tensor.type_name,
            shape: &tensor.shape,
            length: tensor.length,
            past_cache: false,
        })
    }

    /// How messages call these files together.
    pub(crate) fn describe(&self) -> &str {
        &self.folder
    }

    fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.place.iter().filter_map(|(name, (index, number))| {
            Some((name.as_str(), self.files[*index].header.tensors.get(*number)?))
        })
    }

    /// How messages call a weight, whether it is there or missing.
    pub(crate) fn named(&self, name: &str) -> WeightName {
        if let Some(entry) = self.place(name) {
            return entry.named();
        }
        let in_file = self.in_file(name).filter(|own| own != name);
        WeightName { name: name.into(), in_file: in_file.map(Into::into), is_rows: false }
    }

    /// What the file calls a weight that it has.
    pub(crate) fn name_in_file(&self, name: &str) -> Option<&str> {
        let (index, number) = self.place.get(name)?;
        let tensor = self.files[*index].header.tensors.get(*number)?;
        Some(&tensor.name)
    }

    /// What the file would call a weight that it has not: by the way of naming that most of what it
    /// has follows; none where nothing does.
    fn in_file(&self, name: &str) -> Option<String> {
        let ways = |name: &str| match &self.originals {
            Some(originals) => originals(name),
            None => vec![name.to_owned()],
        };
        let mut own = ways(name);
        let mut counts = vec![0_usize; own.len()];
        for (name, tensor) in self.tensors() {
            let Some(inner) = tensor.name.strip_prefix(&self.prefix) else { continue };
            let are_so = ways(name).into_iter().map(|way| way == inner);
            counts.iter_mut().zip(are_so).for_each(|(count, is_so)| *count += usize::from(is_so));
        }
        let way = (0..own.len()).rev().max_by_key(|way| counts[*way])?;
        (counts[way] > 0).then(|| format!("{}{}", self.prefix, own.swap_remove(way)))
    }

    fn missing(&self, name: &str) -> Error {
        let nearest = kino_port::nearest(name, self.names());
        let nearest = nearest.and_then(|name| self.name_in_file(name)).map(str::to_owned);
        Error::MissingWeight { file: self.folder.clone(), name: self.named(name), nearest }
    }
}

/// Some rows of a tensor of `rows`; none where it has not so many, or they are no whole bytes.
fn rows_of(whole: &StoredTensor, range: Range<usize>, rows: usize) -> Option<StoredTensor> {
    let (first, inner) = whole.shape.split_first()?;
    let bytes = whole.length.checked_div(rows as u64)?;
    if *first != rows || bytes * rows as u64 != whole.length {
        return None;
    }
    if let (Some(StoredType::Blocks(blocks)), inner) = (whole.stored, inner.last()) {
        blocks.bytes_of(*inner?)?; // rows of whole blocks
    }
    Some(StoredTensor {
        name: whole.name.clone(),
        is_rows: true,
        stored: whole.stored,
        type_name: whole.type_name.clone(),
        shape: [&[range.len()], inner].concat(),
        offset: whole.offset + range.start as u64 * bytes,
        length: range.len() as u64 * bytes,
    })
}

impl std::fmt::Debug for PartFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartFiles").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Bytes of a tensor converted to `dtype`; a matrix that stays narrow is as it is stored, a kernel
/// of f32 is held beside its transform.
fn bytes_as(tensor: &StoredTensor, dtype: DType) -> u64 {
    if stays_narrow(tensor) {
        return tensor.length;
    }
    let shape = &tensor.shape;
    let beside = if dtype == DType::F32 { ConvWeights::bytes_beside(shape) } else { 0 };
    plain_bytes(shape, dtype).saturating_add(beside)
}

/// Whether a tensor is in memory as it is in its file: a matrix of eight bits a number, or in
/// blocks.
fn stays_narrow(tensor: &StoredTensor) -> bool {
    match (tensor.stored, tensor.shape.as_slice()) {
        (Some(StoredType::Plain(DType::F8E4M3) | StoredType::Int8), [_, _]) => true,
        (Some(StoredType::Blocks(blocks)), [_, inner]) => blocks.bytes_of(*inner).is_some(),
        _ => false,
    }
}

fn plain_bytes(shape: &[usize], dtype: DType) -> u64 {
    let elements = shape.iter().product::<usize>() as u64;
    elements.saturating_mul(dtype.size_in_bytes() as u64)
}

fn identify(files: &[WeightFile]) -> Result<Identity> {
    let mut content = blake3::Hasher::new();
    let mut stamps = blake3::Hasher::new();
    for WeightFile { file, header } in files {
        content.update(&file.length().to_le_bytes());
        if file.length() <= HASHED_WHOLE {
            content.update(file.digest()?.as_bytes());
        } else {
            content.update(&header.data_start.to_le_bytes());
            hash_samples(&mut content, file, header)?;
        }
        file.check_unchanged()?;
        if let Some(stamp) = file.stamp().filter(|stamp| stamp.length > HASHED_WHOLE) {
            stamps.update(&file::stamp_bytes(stamp));
        }
    }
    let content = content.finalize();
    stamps.update(content.as_bytes());
    Ok(Identity { content: content.into(), exact: stamps.finalize().into() })
}

/// Hashes the header of a long file, and samples of every tensor.
fn hash_samples(hasher: &mut blake3::Hasher, file: &DataFile, header: &Header) -> Result<()> {
    let mut buffer = Vec::new();
    let mut hash = |start: u64, length: u64| {
        buffer.resize(length as usize, 0);
        file.read(start, &mut buffer)?;
        hasher.update(&buffer);
        Ok::<_, Error>(())
    };
    let mut at = 0;
    while at < header.data_start {
        let length = (header.data_start - at).min(1 << 20);
        hash(at, length)?;
        at += length;
    }
    for StoredTensor { offset, length, .. } in &header.tensors {
        if *length <= 3 * SAMPLE {
            hash(*offset, *length)?;
            continue;
        }
        for at in [0, (length - SAMPLE) / 2, length - SAMPLE] {
            hash(offset + at, SAMPLE)?;
        }
    }
    Ok(())
}
