//! Adapters of low rank (LoRA, arXiv:2106.09685) in a file: which layers they change, and how.
//!
//! Files name layers as the program did that trained them; what is understood:
//!
//! - diffusers and PEFT: `transformer.blocks.0.attn1.to_q.lora_A.weight`, alpha in the header;
//! - the original names, as ComfyUI writes them:
//!   `diffusion_model.blocks.0.self_attn.q.lora_A.weight` or `.lora_down.weight`, `.alpha`, and
//!   whole differences `.diff` (of a weight), `.diff_b` (of a bias);
//! - kohya: `lora_unet_blocks_0_self_attn_q.lora_down.weight`, `.alpha`.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};

use super::dense::Adapter;
use super::read;
use crate::checkpoint::PartFiles;
use crate::error::{Error, Result};

/// What programs put before the names of layers.
const PREFIXES: [&str; 5] =
    ["base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet."];
/// The same where dots became underscores.
const FLAT_PREFIXES: [&str; 2] = ["lora_unet_", "lora_transformer_"];

/// What a tensor of the file is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Down,
    Up,
    Alpha,
    Weight,
    Bias,
}

/// How names end, and what these tensors are.
const ROLES: [(&str, Role); 13] = [
    (".lora_A.weight", Role::Down),
    (".lora_A.default.weight", Role::Down),
    (".lora_down.weight", Role::Down),
    (".lora.down.weight", Role::Down),
    ("_lora.down.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_B.default.weight", Role::Up),
    (".lora_up.weight", Role::Up),
    (".lora.up.weight", Role::Up),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".diff", Role::Weight),
    (".diff_b", Role::Bias),
];

/// Ends of names that other kinds of adapters have.
const OTHERS: [(&str, &str); 9] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".lora_magnitude_vector.weight", "DoRA"),
    (".lora_mid.weight", "LoCon with a middle layer"),
    (".hada_w1_a", "LoHa"),
    (".lokr_w1", "LoKr"),
    (".lokr_w1_a", "LoKr"),
    (".set_weight", "an exchanged weight (set_weight)"),
    (".reshape_weight", "a reshaped weight"),
];

/// The tensors of one layer, by the names that they have in the file.
#[derive(Clone, Debug, Default)]
struct Layer {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
    weight: Option<String>,
    bias: Option<String>,
}

/// What a file of adapters holds, read from its header.
#[derive(Clone, Debug)]
pub struct LoraSpec {
    file: String,
    /// By the name of the layer as it stands in the file.
    layers: BTreeMap<String, Layer>,
    /// alpha / rank of layers that do not say it themselves.
    scale: f64,
}

/// A layer of a network that adapters change, and its tensors in the file.
#[derive(Clone, Debug)]
struct Change {
    layer: String,
    tensors: Layer,
}

/// Adapters that were held against a network: what they change there.
#[derive(Clone, Debug)]
pub struct LoraMatch {
    changes: Vec<Change>,
    /// Layers of the file that the network has not, by their names in the file.
    pub unmatched: Vec<String>,
    scale: f64,
}

impl LoraSpec {
    /// Reads the header of a file of adapters.
    ///
    /// # Errors
    /// When it holds none, half of one, or adapters of a kind that is not read.
    pub fn read(files: &PartFiles) -> Result<Self> {
        let file = files.describe().to_owned();
        let unsupported =
            |what: String| Error::Unsupported { file: files.describe().to_owned(), what };
        let mut layers: BTreeMap<String, Layer> = BTreeMap::new();
        let names = files.names();
        for name in &names {
            if let Some((_, kind)) = OTHERS.iter().find(|(end, _)| name.ends_with(end)) {
                return Err(unsupported(format!("{kind} (`{name}`)")));
            }
            let role = ROLES.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
            let Some((layer, role)) = role else { continue };
            let layer = layers.entry(layer.to_owned()).or_default();
            let place = match role {
                Role::Down => &mut layer.down,
                Role::Up => &mut layer.up,
                Role::Alpha => &mut layer.alpha,
                Role::Weight => &mut layer.weight,
                Role::Bias => &mut layer.bias,
            };
            *place = Some((*name).to_owned());
        }
        let invalid = |reason: String| Error::Config { file: file.clone(), reason };
        if layers.is_empty() {
            let first = names.first().map_or("no tensor", |name| name);
            return Err(invalid(format!(
                "it holds no LoRA: no name ends in `.lora_A.weight` or `.lora_down.weight` (the \
                 first is `{first}`)"
            )));
        }
        for (name, layer) in &layers {
            let missing = match (&layer.down, &layer.up) {
                (Some(_), None) => "lora_B (or lora_up)",
                (None, Some(_)) => "lora_A (or lora_down)",
                _ => continue,
            };
            return Err(invalid(format!("`{name}` has no {missing}: download the file again")));
        }
        let scale = header_scale(files);
        Ok(Self { file, layers, scale })
    }

    /// How many layers the file changes.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether it changes none, which [`LoraSpec::read`] refuses.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Holds the adapters of `own` against a network whose weights are `network`; `alias` gives the
    /// name that a layer has in other files, where it has one.
    ///
    /// # Errors
    /// When no layer is the network's, or one has other sizes there.
    pub fn match_to(
        &self,
        own: &PartFiles,
        network: &PartFiles,
        alias: &dyn Fn(&str) -> Option<String>,
    ) -> Result<LoraMatch> {
        let layers = layers_of(network, alias);
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        for (name, tensors) in &self.layers {
            match layers.get(plain(name)) {
                Some(layer) => {
                    changes.push(Change { layer: layer.clone(), tensors: tensors.clone() });
                }
                None => unmatched.push(name.clone()),
            }
        }
        let invalid = |reason: String| Error::Config { file: self.file.clone(), reason };
        if changes.is_empty() {
            let first = unmatched.first().map_or("", String::as_str);
            let has = layers.values().min().map_or("", String::as_str);
            return Err(invalid(format!(
                "none of its {} layers is in this transformer: it was made for another family of \
                 models (its first is `{first}`; the transformer has such as `{has}`)",
                unmatched.len()
            )));
        }
        for change in &changes {
            change.check(own, network).map_err(invalid)?;
        }
        Ok(LoraMatch { changes, unmatched, scale: self.scale })
    }
}

impl Change {
    /// Whether the sizes are those of the network's layer.
    fn check(&self, own: &PartFiles, network: &PartFiles) -> std::result::Result<(), String> {
        let shape = |name: &Option<String>| own.shape(name.as_deref()?).map(<[usize]>::to_vec);
        let weight = network.shape(&self.weight(network)).unwrap_or_default();
        let other = |name: &str, found: String| {
            format!(
                "`{name}` is {found}, but `{}` is {weight:?}: it was made for another size of the \
                 model",
                self.layer
            )
        };
        let tensors = &self.tensors;
        if let (Some(name), Some(down), Some(up)) =
            (&tensors.down, shape(&tensors.down), shape(&tensors.up))
        {
            let rank = down.first().copied().unwrap_or(0);
            let inner: usize = down.iter().skip(1).product();
            let of_up: usize = up.iter().skip(1).product();
            let fits = rank > 0
                && of_up == rank
                && weight.len() > 1
                && up.first() == weight.first()
                && inner == weight.iter().skip(1).product::<usize>();
            if !fits {
                return Err(other(name, format!("{down:?} and its other half {up:?}")));
            }
        }
        if let (Some(name), Some(found)) = (&tensors.weight, shape(&tensors.weight))
            && found != weight
        {
            return Err(other(name, format!("{found:?}")));
        }
        let bias = network.shape(&format!("{}.bias", self.layer)).unwrap_or_default();
        match (&tensors.bias, shape(&tensors.bias)) {
            (Some(name), Some(found)) if found != bias => Err(format!(
                "`{name}` is {found:?}, but the bias of `{}` is {bias:?}: it was made for another \
                 model",
                self.layer
            )),
            _ => Ok(()),
        }
    }

    /// The name of the weight in the network: tables have no `.weight`.
    fn weight(&self, network: &PartFiles) -> String {
        let weight = format!("{}.weight", self.layer);
        if network.shape(&weight).is_some() { weight } else { self.layer.clone() }
    }
}

/// A name without what programs put before it.
fn plain(name: &str) -> &str {
    if let Some(flat) = FLAT_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        return flat;
    }
    let mut name = name;
    while let Some(inner) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = inner;
    }
    name
}

/// The layers of a network by each name that a file may give them.
fn layers_of(
    network: &PartFiles,
    alias: &dyn Fn(&str) -> Option<String>,
) -> HashMap<String, String> {
    let mut layers = HashMap::new();
    for weight in network.names() {
        let layer = weight.strip_suffix(".weight").or_else(|| weight.strip_suffix(".bias"));
        let layer = layer.unwrap_or(weight);
        for name in [Some(layer.to_owned()), alias(layer)].into_iter().flatten() {
            layers.insert(name.replace('.', "_"), layer.to_owned());
            layers.insert(name, layer.to_owned());
        }
    }
    layers
}

/// alpha / rank, where the header says it for all layers (PEFT's `lora_adapter_metadata`).
fn header_scale(files: &PartFiles) -> f64 {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let Some(config) = files.metadata("lora_adapter_metadata").and_then(parse) else { return 1.0 };
    let field = |name: &str| {
        let fields = config.as_object()?.iter();
        let mut named = fields.filter(|(key, _)| plain(key) == name);
        named.find_map(|(_, value)| value.as_f64())
    };
    match (field("lora_alpha"), field("r")) {
        (Some(alpha), Some(rank)) if alpha.is_finite() && rank >= 1.0 => alpha / rank,
        _ => 1.0,
    }
}

/// Adapters in memory, by the layers that they change.
#[derive(Debug)]
pub struct Lora {
    low_rank: HashMap<String, Adapter>,
    /// What is added to a weight or bias, by its full name.
    differences: HashMap<String, Tensor>,
}

impl LoraMatch {
    /// Reads the adapters from their file.
    ///
    /// # Errors
    /// When a tensor cannot be read, or an alpha is no number.
    pub fn load(
        &self,
        own: &PartFiles,
        network: &PartFiles,
        dtype: DType,
        device: &Device,
    ) -> Result<Lora> {
        let tensor = |name: &String| read::tensor(&own.find(name)?, name, dtype, device);
        let mut lora = Lora { low_rank: HashMap::new(), differences: HashMap::new() };
        for change in &self.changes {
            let Layer { down, up, alpha, weight, bias } = &change.tensors;
            if let (Some(down), Some(up)) = (down, up) {
                let (down, up) = (tensor(down)?, tensor(up)?);
                let rank = down.dim(0)?;
                let scale = match alpha {
                    Some(name) => number(own, name)? / rank as f64,
                    None => self.scale,
                };
                let (down, up) = (down.reshape((rank, ()))?, up.reshape(((), rank))?);
                let adapter = Adapter { down, up, scale };
                lora.low_rank.insert(change.layer.clone(), adapter);
            }
            if let Some(name) = weight {
                lora.differences.insert(change.weight(network), tensor(name)?);
            }
            if let Some(name) = bias {
                lora.differences.insert(format!("{}.bias", change.layer), tensor(name)?);
            }
        }
        Ok(lora)
    }

    /// How many layers of the network are changed.
    pub fn matched(&self) -> usize {
        self.changes.len()
    }
}

/// The one number of a tensor.
fn number(own: &PartFiles, name: &str) -> Result<f64> {
    let entry = own.find(name)?;
    if entry.shape.iter().product::<usize>() != 1 {
        let reason = format!("`{name}` is {:?}, not one number", entry.shape);
        return Err(Error::Config { file: own.describe().to_owned(), reason });
    }
    let value = read::tensor(&entry, name, DType::F32, &Device::Cpu)?;
    Ok(f64::from(value.reshape(())?.to_scalar::<f32>()?))
}

impl Lora {
    /// The adapter beside the weight of a layer, counted `strength` times.
    pub(super) fn beside(&self, layer: &str, strength: f64) -> Option<Adapter> {
        let adapter = self.low_rank.get(layer)?;
        Some(Adapter { scale: adapter.scale * strength, ..adapter.clone() })
    }

    /// What is added to a weight or bias of this full name, if anything is.
    pub(super) fn difference(&self, name: &str) -> Option<&Tensor> {
        self.differences.get(name)
    }
}
