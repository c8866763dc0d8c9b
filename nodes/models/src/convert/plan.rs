//! What becomes of each tensor of a part, and where it will lie in the new file.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use candle_core::{DType, Device};
use kino_kernels::BlockType;
use serde_json::Value;

use super::target::{About, ConvertTo, Destination, Target};
use crate::checkpoint::{
    CONFIG, Checkpoint, FileLayout, GgufValue, ModelFiles, NarrowWeight, NewTensor, PartFiles,
    SingleForm, SingleFormat, StoredType, TensorEntry, lay_out_gguf, lay_out_safetensors,
};
use crate::error::{Error, Result};
use crate::families::Families;
use crate::model::LayerJoins;
use crate::weight::{FusedName, Scale, Weights, is_beside};

/// The tensor that says that a file's eight-bit weights have scales (ComfyUI). Of two numbers, it
/// says that products are not made in eight bits, for which the file would need scales of
/// activations, too.
const MARK: (&str, [usize; 1]) = ("scaled_fp8", [2]);

/// The tensors of the source that a new one is made of, its rows in order: mostly one.
pub(super) type Sources = Vec<String>;

/// Where the bytes of a new tensor come from.
#[derive(Debug)]
pub(super) enum Bytes {
    /// Those of the source, as they are.
    Copied(Sources),
    /// The numbers of the source, each alone.
    Plain(Sources, DType),
    /// The same in blocks.
    Blocks(Sources, BlockType),
    /// The same in eight bits.
    Fp8(Sources),
    /// What those are multiplied by.
    Scale(Sources),
    /// These.
    Given(Vec<u8>),
}

/// A part of a model that is to be written in another form.
pub struct Conversion {
    pub(super) files: Arc<PartFiles>,
    pub(super) weights: Weights,
    pub(super) tensors: Vec<(NewTensor, Bytes)>,
    pub(super) layout: FileLayout,
    notes: Vec<String>,
}

impl Conversion {
    /// Plans what becomes of a part of a model; reads headers, and scales.
    ///
    /// # Errors
    /// When the part cannot be read, has no such form, or holds what is not read.
    pub fn plan(
        families: &Families,
        checkpoint: &Checkpoint,
        part: &str,
        (destination, to): (Destination, ConvertTo),
    ) -> Result<Self> {
        let files = checkpoint.part(part)?;
        let (form, format) = match destination {
            Destination::Folder => (None, None),
            Destination::File(format) => {
                (Some(families.single_form(checkpoint, part, format)?), Some(format))
            }
        };
        let joins = families.joins(checkpoint, part, format);
        let files = match &joins {
            Some(joins) => Arc::new((*files).clone().cut(&joins.cut)),
            None => files,
        };
        check_form(to, destination)?;
        let weights = Weights::new(Arc::clone(&files), DType::F32, &Device::Cpu)?;
        let mut planner = Planner {
            files: &files,
            weights: &weights,
            form: form.as_ref(),
            destination,
            to,
            tensors: Vec::new(),
            fallen: 0,
        };
        let (alone, joined) = joined(&files, joins.as_ref())?;
        for name in alone {
            planner.tensor(vec![name.to_owned()], None)?;
        }
        for (own, sources) in joined {
            planner.tensor(sources, Some(own))?;
        }
        let (mut tensors, fallen) = (planner.tensors, planner.fallen);
        let is_narrow = |bytes: &Bytes| matches!(bytes, Bytes::Blocks(..) | Bytes::Fp8(_));
        let is_stored = |tensor: &NewTensor| Some(&*tensor.type_name) == narrow_name(to);
        if narrow_name(to).is_some()
            && !tensors.iter().any(|(tensor, bytes)| is_narrow(bytes) || is_stored(tensor))
        {
            let reason = match fallen {
                0 => "it has no matrices that are held in fewer bits than 16",
                _ => "none of its matrices has rows of whole blocks",
            };
            return Err(Error::input(format!(
                "{}: {reason}; f16 is as small as it gets",
                files.describe()
            )));
        }
        if tensors.iter().any(|(tensor, _)| tensor.name.ends_with(".scale_weight"))
            && !tensors.iter().any(|(tensor, _)| tensor.name == MARK.0)
        {
            tensors.push(given(MARK.0, "F8_E4M3", &MARK.1, vec![0; MARK.1[0]]));
        }
        let mut notes = Vec::new();
        if let (true, ConvertTo::Blocks(blocks)) = (fallen > 0, to) {
            let name = blocks.name();
            let noun = if fallen == 1 { "matrix has" } else { "matrices have" };
            notes
                .push(format!("{fallen} {noun} no rows of whole blocks {name}: Q8_0 or as before"));
        }
        let path = format!("{part}/config.json");
        let of_form = form.as_ref().and_then(|form| form.config.clone());
        let config = match of_form {
            Some(config) => Some(config),
            None if form.is_some() && checkpoint.contains(&path) => Some(checkpoint.json(&path)?),
            None => None,
        };
        let config = config.map(|config: Value| (CONFIG, config.to_string()));
        let metadata: Vec<_> = match form {
            Some(form) => {
                for (name, bytes) in form.beside {
                    let shape = [bytes.len()];
                    tensors.push(given(&name, "U8", &shape, bytes));
                }
                notes.extend(form.notes);
                labels(form.architecture, &tensors).into_iter().chain(form.metadata).collect()
            }
            None => Vec::new(),
        };
        let mut names = HashSet::new();
        if let Some((twice, _)) = tensors.iter().find(|(new, _)| !names.insert(&new.name)) {
            let reason = format!("two of its weights would be called `{}`", twice.name);
            return Err(Error::Config { file: files.describe().to_owned(), reason });
        }
        let new: Vec<NewTensor> = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
        let layout = match destination {
            Destination::File(SingleFormat::Gguf) => {
                let config = config.map(|(key, text)| (key.to_owned(), GgufValue::Text(text)));
                let metadata: Vec<_> = metadata.into_iter().chain(config).collect();
                lay_out_gguf(&new, &metadata)?
            }
            _ => lay_out_safetensors(&new, config.as_slice()),
        };
        Ok(Self { files, weights, tensors, layout, notes })
    }

    /// The length of the new file.
    pub fn bytes(&self) -> u64 {
        self.layout.length
    }

    /// How many tensors it will have.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// How many elements of it will be of which type.
    pub fn types(&self) -> BTreeMap<String, u64> {
        let mut types = BTreeMap::new();
        for (tensor, _) in &self.tensors {
            let elements = tensor.shape.iter().product::<usize>() as u64;
            *types.entry(tensor.type_name.clone()).or_default() += elements;
        }
        types
    }

    /// What whoever converts might want to know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The tensors that are written by themselves, and those that are rows of one, by its name.
fn joined<'a>(
    files: &'a PartFiles,
    joins: Option<&LayerJoins>,
) -> Result<(Vec<&'a str>, BTreeMap<String, Sources>)> {
    let (mut alone, mut rows) = (Vec::new(), BTreeMap::<String, Vec<([usize; 3], &str)>>::new());
    for name in files.names() {
        let whole = joins.zip(name.rsplit_once('.')).and_then(|(joins, (layer, tensor))| {
            let FusedName { name, rows } = (joins.join)(layer)?;
            Some((format!("{name}.{tensor}"), rows))
        });
        match whole {
            Some((whole, own)) => rows.entry(whole).or_default().push((own, name)),
            None => alone.push(name),
        }
    }
    let mut found = BTreeMap::new();
    for (whole, mut pieces) in rows {
        pieces.sort_unstable();
        let ends = pieces.iter().map(|([_, to, _], _)| *to);
        let begins = pieces.iter().skip(1).map(|([from, ..], _)| *from);
        let end = pieces.first().map_or(0, |([.., of], _)| *of);
        let is_all = pieces.first().is_some_and(|([from, ..], _)| *from == 0);
        if !is_all || !ends.eq(begins.chain([end])) {
            let (file, reason) = (files.describe().to_owned(), format!("some rows of `{whole}`"));
            return Err(Error::Config { file, reason: format!("{reason} are missing") });
        }
        let sources = pieces.into_iter().map(|(_, name)| name.to_owned()).collect();
        found.insert(whole, sources);
    }
    Ok((alone, found))
}

/// Whether files of a form hold numbers of a type.
fn check_form(to: ConvertTo, destination: Destination) -> Result<()> {
    let gguf = Destination::File(SingleFormat::Gguf);
    let wrong = match (to, destination) {
        (ConvertTo::Blocks(_), other) if other != gguf => {
            "blocks lie in GGUF files: end the destination with .gguf"
        }
        (ConvertTo::ScaledFp8, other) if other == gguf => {
            "GGUF files have no fp8: take q8_0, or end the destination with .safetensors"
        }
        (ConvertTo::ScaledFp8, Destination::Folder) => {
            "diffusers reads no fp8 with scales: end the destination with .safetensors"
        }
        _ => return Ok(()),
    };
    Err(Error::input(wrong))
}

/// The type of narrow matrices, where there are to be such.
fn narrow_name(to: ConvertTo) -> Option<&'static str> {
    match to {
        ConvertTo::Blocks(blocks) => Some(blocks.name()),
        ConvertTo::ScaledFp8 => Some("F8_E4M3"),
        ConvertTo::Same | ConvertTo::Plain(_) => None,
    }
}

fn given(name: &str, type_name: &str, shape: &[usize], bytes: Vec<u8>) -> (NewTensor, Bytes) {
    let (name, type_name) = (name.to_owned(), type_name.to_owned());
    let length = bytes.len() as u64;
    (NewTensor { name, type_name, shape: shape.to_vec(), length }, Bytes::Given(bytes))
}

/// What GGUF files say of themselves: `general.file_type` is llama.cpp's number of the type that
/// most numbers have.
fn labels(architecture: &str, tensors: &[(NewTensor, Bytes)]) -> Vec<(String, GgufValue)> {
    const FILE_TYPES: [(&str, u32); 13] = [
        ("F32", 0),
        ("F16", 1),
        ("Q4_0", 2),
        ("Q4_1", 3),
        ("Q8_0", 7),
        ("Q5_0", 8),
        ("Q5_1", 9),
        ("Q2_K", 10),
        ("Q3_K", 12),
        ("Q4_K", 14),
        ("Q5_K", 16),
        ("Q6_K", 18),
        ("BF16", 32),
    ];
    let mut elements: BTreeMap<&str, usize> = BTreeMap::new();
    for (tensor, _) in tensors {
        *elements.entry(&tensor.type_name).or_default() += tensor.shape.iter().product::<usize>();
    }
    let most = elements.into_iter().max_by_key(|(_, count)| *count).map_or("F32", |(name, _)| name);
    let file_type = FILE_TYPES.iter().find(|(name, _)| *name == most);
    let architecture = GgufValue::Text(architecture.to_owned());
    let mut labels = vec![("general.architecture".to_owned(), architecture)];
    if let Some((_, number)) = file_type {
        labels.push(("general.file_type".to_owned(), GgufValue::U32(*number)));
    }
    labels.push(("general.quantization_version".to_owned(), GgufValue::U32(2)));
    labels
}

/// What is known while tensors are gone through.
struct Planner<'a> {
    files: &'a PartFiles,
    weights: &'a Weights,
    form: Option<&'a SingleForm>,
    destination: Destination,
    to: ConvertTo,
    tensors: Vec<(NewTensor, Bytes)>,
    /// Matrices that did not become what was asked for.
    fallen: usize,
}

impl Planner<'_> {
    fn is_safetensors(&self) -> bool {
        self.destination == Destination::File(SingleFormat::Safetensors)
    }

    /// Plans a new tensor of these; `joined` is its name where it is made of several.
    fn tensor(&mut self, sources: Sources, joined: Option<String>) -> Result<()> {
        let name = &*sources[0];
        let own = match (joined, self.form) {
            (Some(own), _) => Some(own),
            (None, Some(form)) => (form.rename)(name),
            (None, None) => Some(name.to_owned()),
        };
        let Some(own) = own else { return Ok(()) };
        let entry = self.files.find(name)?;
        let goes_along = self.is_safetensors() && self.to == ConvertTo::Same;
        if is_beside(name) {
            let is_tokenizer = name == "spiece_model" && self.is_safetensors();
            if goes_along || is_tokenizer {
                let sources = self.beside(sources)?;
                self.copied(sources, own)?;
            }
            return Ok(());
        }
        let Some(stored) = entry.stored else { return self.unread(sources, own, &entry) };
        let shape = self.shape(&sources)?;
        // None where rows have scales of their own.
        let factor = |name: &String| match self.weights.factor(name)? {
            Scale::One(factor) => Ok(Some(factor)),
            Scale::Rows(_) => Ok::<_, Error>(None),
        };
        let factors = sources.iter().map(factor).collect::<Result<Vec<_>>>()?;
        let about = About {
            stored,
            shape: &shape,
            narrow: self.form.map_or(NarrowWeight::Never, |form| (form.narrow)(name)),
            is_whole: goes_along || factors.iter().all(|of| *of == Some(1.0)),
        };
        let Some(target) = about.target(self.to, self.destination) else {
            return Err(Error::input(format!(
                "{}: {} is stored as {}, which such a destination does not hold: say what it \
                 should become, such as --to bf16",
                self.files.describe(),
                entry.named(),
                entry.type_name
            )));
        };
        if let (ConvertTo::Blocks(to), NarrowWeight::Any | NarrowWeight::Blocks) =
            (self.to, about.narrow)
            && about.shape.len() == 2
            && ![Target::Blocks(to), Target::Stored].contains(&target)
        {
            self.fallen += 1;
        }
        let (type_name, bytes) = match target {
            Target::Stored => return self.copied(sources, own),
            Target::Plain(dtype) => (plain_name(dtype), Bytes::Plain(sources, dtype)),
            Target::Blocks(blocks) => (blocks.name(), Bytes::Blocks(sources, blocks)),
            Target::Fp8 => {
                let layer = own.strip_suffix("weight").unwrap_or(&own);
                let scale = NewTensor {
                    name: format!("{layer}scale_weight"),
                    type_name: "F32".to_owned(),
                    shape: Vec::new(),
                    length: 4,
                };
                self.tensors.push((scale, Bytes::Scale(sources.clone())));
                // What is so already, by one scale, stays as it is.
                let is_fp8 = self.are_stored(&sources, stored)
                    && stored == StoredType::Plain(DType::F8E4M3)
                    && factors[0].is_some()
                    && factors.iter().all(|of| *of == factors[0]);
                ("F8_E4M3", if is_fp8 { Bytes::Copied(sources) } else { Bytes::Fp8(sources) })
            }
        };
        let count: usize = shape.iter().product();
        let length = match target {
            Target::Blocks(blocks) => blocks.bytes_of(count).unwrap_or(0),
            Target::Plain(dtype) => count * dtype.size_in_bytes(),
            Target::Fp8 | Target::Stored => count,
        };
        let type_name = type_name.to_owned();
        self.tensors
            .push((NewTensor { name: own, type_name, shape, length: length as u64 }, bytes));
        Ok(())
    }

    /// The shape of the rows of all of these together.
    fn shape(&self, sources: &[String]) -> Result<Vec<usize>> {
        let mut shape = self.files.find(&sources[0])?.shape.to_vec();
        for name in &sources[1..] {
            let entry = self.files.find(name)?;
            match (shape.as_mut_slice(), entry.shape) {
                ([rows, inner @ ..], [more, others @ ..]) if inner == others => *rows += more,
                _ => {
                    return Err(Error::WeightShape {
                        file: entry.file.name().to_owned(),
                        name: entry.named(),
                        expected: shape,
                        found: entry.shape.to_vec(),
                    });
                }
            }
        }
        Ok(shape)
    }

    /// Whether all are stored so.
    fn are_stored(&self, sources: &[String], stored: StoredType) -> bool {
        let is_so = |name: &String| {
            self.files.place(name).is_some_and(|entry| entry.stored == Some(stored))
        };
        sources.iter().all(is_so)
    }

    /// What stands beside several weights that become one, if it is one for all of them, or one a row.
    fn beside(&self, sources: Sources) -> Result<Sources> {
        let entries = sources.iter().map(|name| self.files.find(name));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        if entries.iter().all(|entry| entry.offset == entries[0].offset) {
            return Ok(vec![sources[0].clone()]);
        }
        let is_by_row = |(name, entry): (&String, &TensorEntry<'_>)| {
            let weight = name.rsplit_once('.').map(|(layer, _)| format!("{layer}.weight"));
            let rows = weight.and_then(|weight| self.files.shape(&weight)?.first().copied());
            rows.is_some() && rows == entry.shape.first().copied()
        };
        match sources.iter().zip(&entries).all(is_by_row) {
            true => Ok(sources),
            false => Err(Error::input(format!(
                "{}: {} and others beside it become one, which has one scale: say what it should \
                 become, such as --to fp8",
                self.files.describe(),
                entries[0].named()
            ))),
        }
    }

    /// Bytes as they are.
    fn copied(&mut self, sources: Sources, own: String) -> Result<()> {
        let (first, shape) = (self.files.find(&sources[0])?, self.shape(&sources)?);
        let entries = sources.iter().map(|name| self.files.find(name));
        let entries = entries.collect::<Result<Vec<_>>>()?;
        if let Some(other) = entries.iter().find(|entry| entry.type_name != first.type_name) {
            return Err(Error::input(format!(
                "{}: rows of `{own}` are stored as {} and as {}: say what it should become, such as \
                 --to bf16",
                self.files.describe(),
                first.type_name,
                other.type_name
            )));
        }
        let tensor = NewTensor {
            name: own,
            type_name: first.type_name.to_owned(),
            shape,
            length: entries.iter().map(|entry| entry.length).sum(),
        };
        self.tensors.push((tensor, Bytes::Copied(sources)));
        Ok(())
    }

    /// A tensor of a type that is not read: numbers of places and the like go along as they are.
    fn unread(&mut self, sources: Sources, own: String, entry: &TensorEntry<'_>) -> Result<()> {
        const BOTH: [&str; 5] = ["I8", "I16", "I32", "I64", "F64"];
        const SAFETENSORS: [&str; 5] = ["BOOL", "U8", "U16", "U32", "U64"];
        let is_held = match self.destination {
            Destination::File(SingleFormat::Gguf) => BOTH.contains(&entry.type_name),
            _ => BOTH.iter().chain(&SAFETENSORS).any(|own| *own == entry.type_name),
        };
        if is_held {
            return self.copied(sources, own);
        }
        Err(Error::WeightType {
            file: entry.file.name().to_owned(),
            name: entry.named(),
            dtype: entry.type_name.to_owned(),
        })
    }
}

/// What both formats call a type.
const fn plain_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        _ => "F32",
    }
}
