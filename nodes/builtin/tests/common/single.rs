//! Parts of models as single files: a small transformer by the names of Wan's authors, and runs of
//! it.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use kino_models::ModelFolder;
use kino_models::checkpoint::{Checkpoint, DataFile, PartFiles, SingleFormat};
use kino_models::convert::{Conversion, ConvertTo, Destination};
use kino_models::families::Families;
use kino_node::Value;
use safetensors::{Dtype, View};

use super::{Rig, int, node, text};

pub type Tensors = HashMap<String, Tensor>;

/// A tensor as it is stored.
pub struct Stored(pub Dtype, pub Vec<usize>, pub Vec<u8>);

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.0
    }

    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.2)
    }

    fn data_len(&self) -> usize {
        self.2.len()
    }
}

/// The tensors of a file, by name.
pub type StoredFile = Vec<(String, Stored)>;

pub fn write(file: &File, stored: &[(String, Stored)]) {
    let named = stored.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::serialize_to_file(named, None, &file.0).unwrap();
}

/// Eight bits a number that files have and that nothing is converted to here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EightBits {
    /// fp8 with three bits of fraction, each number rounded by itself.
    E4m3,
    /// The same with two bits of fraction.
    E5m2,
    /// E4M3 with a scale a row, its largest number over 448.
    E4m3Rows,
    /// Whole numbers with a scale a row, its largest number over 127.
    Int8,
    /// The same of rows that were rotated in groups before (ConvRot): of 256, or less where that
    /// does not divide them.
    Int8Rotated,
}

impl EightBits {
    /// A matrix `[out, in]` as the tensors of a file, and the numbers that it stands for.
    fn of(self, layer: &str, matrix: &Tensor) -> (StoredFile, Tensor) {
        let (rows, inner) = matrix.dims2().unwrap();
        let group = [256, 64, 16, 4].into_iter().find(|group| inner % group == 0);
        let group = group.filter(|_| self == Self::Int8Rotated);
        let turned = |rows: &Tensor| match group {
            Some(group) => kino_kernels::rotate_groups(rows, group).unwrap(),
            None => rows.clone(),
        };
        let values: Vec<Vec<f32>> = turned(matrix).to_vec2().unwrap();
        let largest = |row: &Vec<f32>| row.iter().fold(0f32, |most, value| most.max(value.abs()));
        let scales: Vec<f32> = match self {
            Self::E4m3 | Self::E5m2 => vec![1.0; rows],
            Self::E4m3Rows => values.iter().map(|row| largest(row) / 448.0).collect(),
            Self::Int8 | Self::Int8Rotated => {
                values.iter().map(|row| largest(row) / 127.0).collect()
            }
        };
        let (mut bytes, mut exact) = (Vec::new(), Vec::new());
        for (row, scale) in values.iter().zip(&scales) {
            for value in row {
                let (byte, stands_for) = self.rounded(value / scale);
                bytes.push(byte);
                exact.push(stands_for * scale);
            }
        }
        let exact = Tensor::from_vec(exact, (rows, inner), &Device::Cpu).unwrap();
        let dtype = match self {
            Self::E4m3 | Self::E4m3Rows => Dtype::F8_E4M3,
            Self::E5m2 => Dtype::F8_E5M2,
            Self::Int8 | Self::Int8Rotated => Dtype::I8,
        };
        let mut stored = vec![(format!("{layer}weight"), Stored(dtype, vec![rows, inner], bytes))];
        if !matches!(self, Self::E4m3 | Self::E5m2) {
            let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            let scales = Stored(Dtype::F32, vec![rows, 1], scales);
            stored.push((format!("{layer}weight_scale"), scales));
        }
        if matches!(self, Self::Int8 | Self::Int8Rotated) {
            let more = group.map(|n| format!(r#", "convrot": true, "convrot_groupsize": {n}"#));
            let how = format!(r#"{{"format": "int8_tensorwise"{}}}"#, more.unwrap_or_default());
            let how = Stored(Dtype::U8, vec![how.len()], how.into_bytes());
            stored.push((format!("{layer}comfy_quant"), how));
        }
        // The rotation is its own inverse.
        (stored, turned(&exact))
    }

    /// The byte of a number, and what it stands for: the nearest, of two the even one.
    fn rounded(self, value: f32) -> (u8, f32) {
        match self {
            Self::E4m3 | Self::E4m3Rows => {
                let byte = kino_kernels::to_e4m3(value);
                (byte, kino_kernels::e4m3(byte))
            }
            Self::E5m2 => {
                let bits = half::f16::from_f32(value).to_bits();
                let byte = ((bits + 0x7f + (bits >> 8 & 1)) >> 8) as u8;
                (byte, half::f16::from_bits(u16::from(byte) << 8).to_f32())
            }
            Self::Int8 | Self::Int8Rotated => {
                let whole = value.round_ties_even();
                (whole as i8 as u8, whole)
            }
        }
    }
}

/// Weights of which the matrices that `is_narrow` names are held so, as a file of ComfyUI's has
/// them, and the numbers that it stands for.
pub fn in_eight_bits(
    weights: &Tensors,
    form: EightBits,
    is_narrow: impl Fn(&str) -> bool,
) -> (StoredFile, Tensors) {
    let (mut stored, mut exact) = (StoredFile::new(), weights.clone());
    for (name, tensor) in weights {
        match name.strip_suffix("weight").filter(|_| tensor.rank() == 2 && is_narrow(name)) {
            Some(layer) => {
                let tensor = tensor.to_dtype(DType::F32).unwrap();
                let (own, numbers) = form.of(layer, &tensor);
                stored.extend(own);
                exact.insert(name.clone(), numbers);
            }
            None => {
                let values: Vec<f32> =
                    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                stored.push((name.clone(), Stored(Dtype::F32, tensor.dims().to_vec(), bytes)));
            }
        }
    }
    (stored, exact)
}

/// Widths of a transformer: of its blocks (heads are 128 wide in single files), of the text, of
/// timesteps, and within a block.
pub struct Widths {
    pub dim: usize,
    pub text: usize,
    pub freq: usize,
    pub inner: usize,
}

/// Numbers that look random and are the same everywhere.
pub fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let wave = |i: usize| ((i * 7919 + seed * 104_729) as f64 * 0.618_034).fract() as f32 - 0.5;
    let values: Vec<f32> = (0..count).map(|i| wave(i) * 0.3).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A transformer of two blocks with the names of Wan's authors.
pub fn transformer(widths: &Widths) -> Tensors {
    transformer_of(2, widths)
}

/// The same of so many blocks.
pub fn transformer_of(blocks: usize, widths: &Widths) -> Tensors {
    let Widths { dim, text, freq, inner } = *widths;
    let mut weights: Vec<(String, Vec<usize>)> = Vec::new();
    let mut linear = |name: String, shape: [usize; 2]| {
        weights.push((format!("{name}.weight"), shape.to_vec()));
        weights.push((format!("{name}.bias"), vec![shape[0]]));
    };
    linear("text_embedding.0".into(), [dim, text]);
    linear("text_embedding.2".into(), [dim, dim]);
    linear("time_embedding.0".into(), [dim, freq]);
    linear("time_embedding.2".into(), [dim, dim]);
    linear("time_projection.1".into(), [6 * dim, dim]);
    linear("head.head".into(), [64, dim]);
    for block in 0..blocks {
        for name in ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"] {
            linear(format!("blocks.{block}.{name}"), [dim, dim]);
            linear(format!("blocks.{block}.{}", name.replace("self", "cross")), [dim, dim]);
        }
        linear(format!("blocks.{block}.ffn.0"), [inner, dim]);
        linear(format!("blocks.{block}.ffn.2"), [dim, inner]);
    }
    weights.push(("patch_embedding.weight".into(), vec![dim, 16, 1, 2, 2]));
    weights.push(("patch_embedding.bias".into(), vec![dim]));
    weights.push(("head.modulation".into(), vec![1, 2, dim]));
    for block in 0..blocks {
        for name in
            ["self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k"]
        {
            weights.push((format!("blocks.{block}.{name}.weight"), vec![dim]));
        }
        weights.push((format!("blocks.{block}.norm3.weight"), vec![dim]));
        weights.push((format!("blocks.{block}.norm3.bias"), vec![dim]));
        weights.push((format!("blocks.{block}.modulation"), vec![1, 6, dim]));
    }
    let named = weights.into_iter().enumerate();
    named.map(|(seed, (name, shape))| (name, numbers(&shape, seed))).collect()
}

/// A file in a folder of its own.
pub struct File(pub PathBuf);

impl File {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kino-single-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        File(folder.join(name))
    }

    pub fn of(name: &str, tensors: &Tensors) -> Self {
        let file = Self::new(name);
        candle_core::safetensors::save(tensors, &file.0).unwrap();
        file
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// One of the outputs of `model.load`.
pub fn load(rig: &Rig, given: &[(&str, &str)], output: usize) -> Value {
    let given: Vec<(&str, Value)> = given.iter().map(|(port, path)| (*port, text(path))).collect();
    let node = node("model.load");
    // Only this output is wanted: not all parts have files.
    let wanted: Vec<bool> = (0..4).map(|index| index == output).collect();
    rig.run_wanted(node, &given, &wanted).remove(output).expect("a part")
}

pub const TEXT: usize = 0;
pub const DIT: usize = 2;
pub const VAE: usize = 3;

/// Two steps of a transformer that reads texts of this width.
pub fn sample(rig: &Rig, dit: &Value, text: usize) -> Tensor {
    sample_with(rig, dit, text, &[("steps", int(2))])
}

/// So many steps as `more` says, with what else it gives.
pub fn sample_with(rig: &Rig, dit: &Value, text: usize, more: &[(&str, Value)]) -> Tensor {
    let latents = ("latents", Value::Tensor((numbers(&[16, 1, 4, 4], 3) * 6.0).unwrap()));
    let patches = rig.one("patchify", &[("dit", dit.clone()), latents]);
    let rows = Value::Tensor(numbers(&[8, text], 5));
    let inputs = [("dit", dit.clone()), ("patches", patches), ("text", rows)];
    rig.one("dit.sample", &[&inputs[..], more].concat()).tensor().unwrap()
}

/// A checkpoint in a folder, or of a file alone, with the part that the file is.
pub fn open(path: &Path) -> (Checkpoint, Option<&'static str>) {
    if path.is_dir() {
        return (Checkpoint::open(&ModelFolder::directory(path).unwrap()).unwrap(), None);
    }
    let families = Families::default();
    let files = DataFile::open(path, path.to_str().unwrap()).and_then(PartFiles::of_file).unwrap();
    let (_, parts) = families.identify(&files).unwrap();
    (families.open_file(path).unwrap(), Some(parts[0].0))
}

/// What a part becomes, as the bytes of its file.
pub fn converted(
    (from, part): (&Path, &str),
    destination: Destination,
    to: ConvertTo,
) -> Result<Vec<u8>, String> {
    let (checkpoint, own) = open(from);
    let part = own.unwrap_or(part);
    let plan = Conversion::plan(&Families::default(), &checkpoint, part, (destination, to));
    let plan = plan.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    plan.write(
        &mut |piece| {
            bytes.extend(piece);
            Ok(())
        },
        &mut || Ok(()),
    )
    .map_err(|error| error.to_string())?;
    assert_eq!(bytes.len() as u64, plan.bytes(), "what was planned is what was written");
    Ok(bytes)
}

/// The same as a file of its own.
pub fn converted_file(from: (&Path, &str), to: ConvertTo, name: &str) -> Result<File, String> {
    let format =
        if name.ends_with("gguf") { SingleFormat::Gguf } else { SingleFormat::Safetensors };
    let bytes = converted(from, Destination::File(format), to)?;
    let file = File::new(name);
    std::fs::write(&file.0, bytes).unwrap();
    Ok(file)
}
