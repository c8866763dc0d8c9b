//! Adapters of low rank (LoRA, arXiv:2106.09685) in a file: which layers they change, and how.
//!
//! Files name layers as the program did that trained them; what is understood:
//!
//! - diffusers and PEFT: `transformer.blocks.0.attn1.to_q.lora_A.weight`, alpha in the header, and
//!   where they were trained with one, `lora_B.bias`, which counts as the product does;
//! - the original names, as ComfyUI writes them:
//!   `diffusion_model.blocks.0.self_attn.q.lora_A.weight` or `.lora_down.weight`, `.alpha`, and
//!   whole differences `.diff` (of a weight), `.diff_b` (of a bias);
//! - kohya: `lora_unet_blocks_0_self_attn_q.lora_down.weight`, `.alpha`.

use std::collections::{BTreeMap, HashMap, HashSet};

use candle_core::{DType, Device, Tensor};

use super::dense::Adapter;
use super::read::{self, Target};
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
    UpBias,
    Alpha,
    Weight,
    Bias,
}

/// How names end, and what these tensors are.
const ROLES: [(&str, Role); 13] = [
    (".lora_A.weight", Role::Down),
    (".lora_down.weight", Role::Down),
    (".lora.down.weight", Role::Down),
    ("_lora.down.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_up.weight", Role::Up),
    (".lora.up.weight", Role::Up),
    ("_lora.up.weight", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_up.bias", Role::UpBias),
    (".alpha", Role::Alpha),
    (".diff", Role::Weight),
    (".diff_b", Role::Bias),
];

/// What PEFT's names have before that of the adapter, which is `default` or another, and the end.
const NAMED_ROLES: [(&str, &str, Role); 3] = [
    (".lora_A.", ".weight", Role::Down),
    (".lora_B.", ".weight", Role::Up),
    (".lora_B.", ".bias", Role::UpBias),
];

/// The layer that a tensor belongs to, and what it is there.
fn role(name: &str) -> Option<(&str, Role)> {
    let plain = ROLES.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
    plain.or_else(|| {
        NAMED_ROLES.iter().find_map(|(half, end, role)| {
            let (layer, adapter) = name.split_once(half)?;
            adapter.strip_suffix(end)?;
            Some((layer, *role))
        })
    })
}

/// Ends of names that other kinds of adapters have.
const OTHERS: [(&str, &str); 13] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".lora_magnitude_vector.weight", "DoRA"),
    (".lora_mid.weight", "LoCon with a middle layer"),
    (".hada_w1_a", "LoHa"),
    (".lokr_w1", "LoKr"),
    (".lokr_w1_a", "LoKr"),
    (".hada_t1", "LoHa"),
    (".oft_blocks", "OFT"),
    (".oft_diag", "OFT"),
    (".lora_bias", "a bias beside both halves (lora_bias)"),
    (".set_weight", "an exchanged weight (set_weight)"),
    (".reshape_weight", "a reshaped weight"),
];

/// The tensors of one layer, by the names that they have in the file.
#[derive(Clone, Debug, Default)]
struct Layer {
    down: Option<String>,
    up: Option<String>,
    up_bias: Option<String>,
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
    /// Tensors whose names say nothing that is known.
    unread: Vec<String>,
    /// The alpha of layers that do not say it themselves.
    alpha: HeaderAlpha,
}

/// A layer of a network that adapters change, and its tensors in the file.
#[derive(Clone, Debug)]
struct Change {
    layer: String,
    tensors: Layer,
    /// Which rows of what the file has are the layer's, where it has several layers as one.
    rows: Option<Rows>,
}

/// Some rows of a layer, as shares of all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rows {
    from: usize,
    to: usize,
    of: usize,
}

impl Rows {
    /// How many these are of so many; none where they do not divide.
    fn count(rows: Option<&Self>, of: usize) -> Option<usize> {
        match rows {
            None => Some(of),
            Some(own) => of.is_multiple_of(own.of).then(|| of / own.of * (own.to - own.from)),
        }
    }

    /// These rows of a tensor.
    fn cut(rows: Option<&Self>, whole: Tensor) -> Result<Tensor> {
        let Some(own) = rows else { return Ok(whole) };
        let share = whole.dim(0)? / own.of;
        Ok(whole.narrow(0, share * own.from, share * (own.to - own.from))?.contiguous()?)
    }
}

/// A layer of other files that is several of a network: those are its rows, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedName {
    /// What it is called there.
    pub name: String,
    /// Where the rows of the network's layer begin in it and end, and how many there are, in shares.
    pub rows: [usize; 3],
}

/// What files call a layer of a network, beside its own name.
#[derive(Clone, Debug, Default)]
pub struct LayerNames {
    /// The name that its authors' files have.
    pub original: Option<String>,
    /// The layer there of which it is some rows.
    pub fused: Option<FusedName>,
}

/// Adapters that were held against a network: what they change there.
#[derive(Clone, Debug)]
pub struct LoraMatch {
    changes: Vec<Change>,
    /// Layers of the file that the network has not, by their names in the file.
    pub unmatched: Vec<String>,
    /// Why others change nothing: they have other sizes there.
    pub misfits: Vec<String>,
    alpha: HeaderAlpha,
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
        let mut unread = Vec::new();
        let names = files.names();
        for name in &names {
            if let Some((_, kind)) = OTHERS.iter().find(|(end, _)| name.ends_with(end)) {
                return Err(unsupported(format!("{kind} (`{name}`)")));
            }
            let Some((layer, role)) = role(name) else {
                unread.push((*name).to_owned());
                continue;
            };
            let layer = layers.entry(layer.to_owned()).or_default();
            let place = match role {
                Role::Down => &mut layer.down,
                Role::Up => &mut layer.up,
                Role::UpBias => &mut layer.up_bias,
                Role::Alpha => &mut layer.alpha,
                Role::Weight => &mut layer.weight,
                Role::Bias => &mut layer.bias,
            };
            if let Some(other) = place.replace((*name).to_owned()) {
                let reason = format!(
                    "`{other}` and `{name}` are the same of one layer: it holds several adapters, \
                     of which a file for each is needed"
                );
                return Err(Error::Config { file, reason });
            }
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
        let shape = |name: &Option<String>| files.shape(name.as_deref()?);
        for layer in layers.values() {
            let (Some(down), Some(up)) = (shape(&layer.down), shape(&layer.up)) else { continue };
            let rank = down.first().copied().unwrap_or(0);
            if rank == 0 || rank != up.iter().skip(1).product::<usize>() {
                let name = layer.down.as_deref().unwrap_or_default();
                return Err(invalid(format!(
                    "`{name}` is {down:?} and its other half {up:?}, which do not multiply: download \
                     the file again"
                )));
            }
        }
        let alpha = HeaderAlpha::of(files);
        Ok(Self { file, layers, unread, alpha })
    }

    /// How many layers the file changes.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether it changes none, which [`LoraSpec::read`] refuses.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Tensors of the file that change nothing since their names end in nothing that is known.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Holds the adapters of `own` against a network whose weights are `network`; `names` gives the
    /// names that a layer has in other files, where it has some.
    ///
    /// # Errors
    /// When no layer is the network's, or all have other sizes there.
    pub fn match_to(
        &self,
        own: &PartFiles,
        network: &PartFiles,
        names: &dyn Fn(&str) -> LayerNames,
    ) -> Result<LoraMatch> {
        let layers = layers_of(network, names);
        let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
        for (name, tensors) in &self.layers {
            match layers.get(plain(name)) {
                Some(layers) => changes.extend(layers.iter().map(|(layer, rows)| {
                    let (layer, tensors) = (layer.clone(), tensors.clone());
                    (name, Change { layer, tensors, rows: rows.clone() })
                })),
                None => unmatched.push(name.clone()),
            }
        }
        let invalid = |reason: String| Error::Config { file: self.file.clone(), reason };
        if changes.is_empty() {
            // Those for other families have layers of text encoders beside those of their network.
            let is_of_text = |name: &&String| OF_TEXT.iter().any(|begin| name.starts_with(begin));
            let of_network = unmatched.iter().find(|name| !is_of_text(name));
            let first = of_network.or(unmatched.first()).map_or("", String::as_str);
            let has = layers.values().flatten().map(|(layer, _)| layer.as_str()).min();
            let has = network.named(&weight_of(has.unwrap_or_default(), network));
            let made_for = match of_network.map(|name| is_of_unet(name)) {
                None => {
                    "a text encoder, which adapters do not change here; take one for transformers"
                }
                Some(true) => {
                    "a U-Net, as Stable Diffusion and SDXL have; take one that was made for this \
                     family"
                }
                Some(false) => "another family of models; take one that was made for this family",
            };
            return Err(invalid(format!(
                "none of its {} layers is in this transformer: it was made for {made_for} (one of \
                 them is `{first}`; the transformer has such as {has})",
                unmatched.len()
            )));
        }
        let mut changed = HashSet::new();
        for (name, change) in &changes {
            if !changed.insert(&change.layer) {
                let weight = network.named(&weight_of(&change.layer, network));
                return Err(invalid(format!(
                    "`{name}` and another of its layers both change {weight}"
                )));
            }
        }
        // Those for a model of this family with other inputs differ where it reads these.
        let (mut fitting, mut misfits) = (Vec::new(), Vec::new());
        for (_, change) in changes {
            match change.check(own, network) {
                Ok(()) => fitting.push(change),
                Err(reason) => misfits.push(reason),
            }
        }
        match (misfits.first(), fitting.is_empty()) {
            (Some(reason), true) => Err(invalid(reason.clone())),
            _ => {
                let alpha = self.alpha.clone();
                Ok(LoraMatch { changes: fitting, unmatched, misfits, alpha })
            }
        }
    }
}

/// How the names of layers of text encoders begin.
const OF_TEXT: [&str; 5] = ["lora_te", "text_encoder", "te1_", "te2_", "te_"];

/// Whether a layer is one of a U-Net, by the names of diffusers or of Stable Diffusion's authors.
fn is_of_unet(name: &str) -> bool {
    ["down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block"]
        .iter()
        .any(|block| name.contains(block))
}

impl Change {
    /// Whether the sizes are those of the network's layer.
    fn check(&self, own: &PartFiles, network: &PartFiles) -> std::result::Result<(), String> {
        let shape = |name: &Option<String>| own.shape(name.as_deref()?).map(<[usize]>::to_vec);
        let own_name = weight_of(&self.layer, network);
        let weight = network.shape(&own_name).unwrap_or_default();
        let other = |name: &str, found: String| {
            format!(
                "`{name}` is {found}, but {} is {weight:?}: it was made for another size of the \
                 model",
                network.named(&own_name)
            )
        };
        let tensors = &self.tensors;
        if let (Some(name), Some(down), Some(up)) =
            (&tensors.down, shape(&tensors.down), shape(&tensors.up))
        {
            let inner: usize = down.iter().skip(1).product();
            let rows = Rows::count(self.rows.as_ref(), up.first().copied().unwrap_or(0));
            let fits = weight.len() > 1
                && rows == weight.first().copied()
                && inner == weight.iter().skip(1).product::<usize>();
            if !fits {
                return Err(other(name, format!("{down:?} and its other half {up:?}")));
            }
        }
        if let (Some(name), Some(found)) = (&tensors.weight, shape(&tensors.weight))
            && self.own(&found) != weight
        {
            return Err(other(name, format!("{found:?}")));
        }
        let bias_name = format!("{}.bias", self.layer);
        let bias = network.shape(&bias_name).unwrap_or_default();
        for of_bias in [&tensors.bias, &tensors.up_bias] {
            if let (Some(name), Some(found)) = (of_bias, shape(of_bias))
                && self.own(&found) != bias
            {
                return Err(format!(
                    "`{name}` is {found:?}, but {} is {bias:?}: it was made for another size of \
                     the model",
                    network.named(&bias_name)
                ));
            }
        }
        Ok(())
    }

    /// The shape of what of a tensor of the file is the layer's.
    fn own(&self, found: &[usize]) -> Vec<usize> {
        let mut own = found.to_vec();
        if let Some(first) = own.first_mut() {
            *first = Rows::count(self.rows.as_ref(), *first).unwrap_or(0);
        }
        own
    }
}

/// The name of the weight of a layer in a network: tables have no `.weight`.
fn weight_of(layer: &str, network: &PartFiles) -> String {
    let weight = format!("{layer}.weight");
    if network.shape(&weight).is_some() { weight } else { layer.to_owned() }
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

/// The layers of a network by each name that a file may give them, and which rows of what has that
/// name they are.
fn layers_of(
    network: &PartFiles,
    names: &dyn Fn(&str) -> LayerNames,
) -> HashMap<String, Vec<(String, Option<Rows>)>> {
    let mut layers: HashMap<String, Vec<(String, Option<Rows>)>> = HashMap::new();
    for weight in network.names() {
        let layer = weight.strip_suffix(".weight").or_else(|| weight.strip_suffix(".bias"));
        let layer = layer.unwrap_or(weight);
        let LayerNames { original, fused } = names(layer);
        for name in [Some(layer.to_owned()), original].into_iter().flatten() {
            let own = vec![(layer.to_owned(), None)];
            layers.insert(name.replace('.', "_"), own.clone());
            layers.insert(name, own);
        }
        let Some(FusedName { name, rows: [from, to, of] }) = fused else { continue };
        for name in [name.replace('.', "_"), name] {
            let piece = (layer.to_owned(), Some(Rows { from, to, of }));
            let pieces = layers.entry(name).or_default();
            // A layer is met by its weight and by its bias.
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
    }
    layers
}

/// What the header says of alpha (PEFT's `lora_adapter_metadata`): by what halves are multiplied
/// whose file has no alpha beside them.
#[derive(Clone, Debug, Default)]
struct HeaderAlpha {
    /// That of all layers; where there is none, alpha is the rank.
    alpha: Option<f64>,
    /// Those of some, by the ends of their names.
    pattern: Vec<(String, f64)>,
    /// Whether it is divided by the root of the rank (arXiv:2312.03732).
    is_root: bool,
}

impl HeaderAlpha {
    fn of(files: &PartFiles) -> Self {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let Some(config) = files.metadata("lora_adapter_metadata").and_then(parse) else {
            return Self::default();
        };
        let field = |name: &str| {
            let mut fields = config.as_object()?.iter();
            fields.find(|(key, _)| plain(key) == name).map(|(_, value)| value)
        };
        let number = |value: &serde_json::Value| value.as_f64().filter(|value| value.is_finite());
        let pattern = field("alpha_pattern").and_then(serde_json::Value::as_object);
        let of_pattern = |(key, value): (&String, &serde_json::Value)| {
            Some((key.trim_start_matches('^').to_owned(), number(value)?))
        };
        Self {
            alpha: field("lora_alpha").and_then(number),
            pattern: pattern.into_iter().flatten().filter_map(of_pattern).collect(),
            is_root: field("use_rslora").and_then(serde_json::Value::as_bool) == Some(true),
        }
    }

    /// alpha / rank of a layer, or alpha / √rank.
    fn scale(&self, layer: &str, rank: usize) -> f64 {
        let ends = |key: &str| {
            layer.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let own = self.pattern.iter().find(|(key, _)| ends(key)).map(|(_, alpha)| *alpha);
        match own.or(self.alpha) {
            Some(alpha) if self.is_root => alpha / (rank as f64).sqrt(),
            Some(alpha) => alpha / rank as f64,
            None => 1.0,
        }
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
        let tensor = |name: &String| read::tensor(&own.find(name)?, dtype, Target::of(device));
        let mut lora = Lora { low_rank: HashMap::new(), differences: HashMap::new() };
        for change in &self.changes {
            let Layer { down, up, up_bias, alpha, weight, bias } = &change.tensors;
            let bias_name = format!("{}.bias", change.layer);
            let own_rows = |whole: Tensor| Rows::cut(change.rows.as_ref(), whole);
            if let (Some(down), Some(up)) = (down, up) {
                let (down, up) = (tensor(down)?, own_rows(tensor(up)?)?);
                let rank = down.dim(0)?;
                let scale = match alpha {
                    Some(name) => number(own, name)? / rank as f64,
                    None => self.alpha.scale(&change.layer, rank),
                };
                let (down, up) = (down.reshape((rank, ()))?, up.reshape(((), rank))?);
                let adapter = Adapter { down, up, scale };
                lora.low_rank.insert(change.layer.clone(), adapter);
                if let Some(name) = up_bias {
                    let scaled = (own_rows(tensor(name)?)?.to_dtype(DType::F32)? * scale)?;
                    lora.differences.insert(bias_name.clone(), scaled);
                }
            }
            if let Some(name) = weight {
                lora.differences
                    .insert(weight_of(&change.layer, network), own_rows(tensor(name)?)?);
            }
            if let Some(name) = bias {
                let own = own_rows(tensor(name)?)?.to_dtype(DType::F32)?;
                let both = match lora.differences.get(&bias_name) {
                    Some(of_up) => (own + of_up)?,
                    None => own,
                };
                lora.differences.insert(bias_name, both);
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
    let value = match read::whole_number(&entry)? {
        Some(whole) => whole as f32,
        None => {
            read::tensor(&entry, DType::F32, Target::of(&Device::Cpu))?.reshape(())?.to_scalar()?
        }
    };
    match value {
        value if value.is_finite() => Ok(f64::from(value)),
        value => {
            let reason = format!("`{name}` is {value}, not a number: download the file again");
            Err(Error::Config { file: own.describe().to_owned(), reason })
        }
    }
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
