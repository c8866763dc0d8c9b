//! Parts of models as single files: a small transformer by the names of Wan's authors, and runs of
//! it.
#![allow(dead_code, unreachable_pub)] // each test file uses a part

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
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
