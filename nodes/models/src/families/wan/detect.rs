//! Wan's parts as single files: which part a file is, and what its config would say, from the names
//! and shapes of its weights.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::names;
use crate::checkpoint::{DetectedPart, PartFiles, count_blocks, part_names};
use crate::error::{Error, Result};

/// Width of a head in every transformer of Wan: what shapes do not say.
const HEAD: usize = 128;
/// What other programs put before the names of a transformer.
const WRAPPERS: [&str; 3] = ["", "model.diffusion_model.", "diffusion_model."];

/// The part that a file is, where it is one of Wan's own: a transformer or an autoencoder.
///
/// # Errors
/// When it is one, but of sizes from which its config does not follow.
pub(super) fn detect(files: &PartFiles) -> Result<Option<DetectedPart>> {
    match transformer(files)? {
        Some(found) => Ok(Some(found)),
        None => autoencoder(files),
    }
}

/// Shapes by the names of diffusers.
struct Shapes<'a>(HashMap<String, &'a [usize]>);

impl<'a> Shapes<'a> {
    fn of(files: &'a PartFiles, rename: impl Fn(&str) -> Option<String>) -> Self {
        let named = files.names().into_iter().filter_map(|name| {
            let shape = files.shape(name)?;
            Some((rename(name).unwrap_or_else(|| name.to_owned()), shape))
        });
        Self(named.collect())
    }

    fn get(&self, name: &str) -> Option<&'a [usize]> {
        self.0.get(name).copied()
    }

    /// A size of a weight, 0 where there is none: whoever reads the config refuses that.
    fn size(&self, name: &str, dimension: usize) -> usize {
        self.get(name).and_then(|shape| shape.get(dimension)).copied().unwrap_or(0)
    }

    fn blocks(&self, prefix: &str) -> usize {
        count_blocks(self.0.keys().map(String::as_str), prefix)
    }

    /// How many weights there are whose names `name` gives for 0, 1, 2, ….
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|index| self.get(&name(*index)).is_some()).count()
    }
}

fn transformer(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let first = |wrapper: &&str| {
        let has = |name: &str| files.shape(&format!("{wrapper}{name}")).is_some();
        has("patch_embedding.weight")
            && (has("blocks.0.self_attn.q.weight") || has("blocks.0.attn1.to_q.weight"))
    };
    let Some(wrapper) = WRAPPERS.into_iter().find(first) else { return Ok(None) };
    let rename = move |name: &str| {
        let inner = name.strip_prefix(wrapper)?;
        Some(names::diffusers(inner).unwrap_or_else(|| inner.to_owned()))
    };
    let originals = move |name: &str| {
        let named = |inner: &str| format!("{wrapper}{inner}");
        vec![named(&names::original(name).unwrap_or_else(|| name.to_owned())), named(name)]
    };
    let found = |config| {
        let part = DetectedPart::new(part_names::TRANSFORMER, config, rename);
        Ok(Some(part.with_originals(originals)))
    };
    if let Some(config) = files.own_config() {
        return found(config);
    }
    let shapes = Shapes::of(files, rename);
    let refused = |reason: String| Error::Config { file: files.describe().to_owned(), reason };
    let Some(&[dim, channels, pt, ph, pw]) = shapes.get("patch_embedding.weight") else {
        let found = shapes.get("patch_embedding.weight").unwrap_or_default();
        return Err(refused(format!("`patch_embedding.weight` is {found:?}, expected five sizes")));
    };
    if dim == 0 || dim % HEAD != 0 {
        return Err(refused(format!(
            "a transformer {dim} wide: how many heads it has does not follow from its weights (those \
             of Wan are {HEAD} wide each); load it from a folder in the diffusers layout"
        )));
    }
    let volume = (pt * ph * pw).max(1);
    let layers = shapes.blocks("blocks.");
    let block = |name: &str| {
        let names = (0..layers).map(|index| format!("blocks.{index}.{name}"));
        names.into_iter().find(|name| shapes.get(name).is_some())
    };
    let widened = "ffn.net.0.proj.weight";
    let size = |name: &str, axis: usize| match shapes.size(name, axis) {
        0 => {
            let name = files.clone().renamed(rename, Box::new(originals)).named(name);
            Err(refused(format!(
                "has no weight {name}, from which a size of the transformer follows: it is \
                 incomplete; download it again"
            )))
        }
        size => Ok(size),
    };
    let image = shapes.get("condition_embedder.image_embedder.norm1.weight");
    let positions = shapes.get("condition_embedder.image_embedder.pos_embed");
    let mut config = json!({
        "_class_name": "WanTransformer3DModel",
        "patch_size": [pt, ph, pw],
        "num_attention_heads": dim / HEAD,
        "attention_head_dim": HEAD,
        "in_channels": channels,
        "out_channels": size("proj_out.weight", 0)? / volume,
        "text_dim": size("condition_embedder.text_embedder.linear_1.weight", 1)?,
        "freq_dim": size("condition_embedder.time_embedder.linear_1.weight", 1)?,
        "ffn_dim": size(&block(widened).unwrap_or_else(|| format!("blocks.0.{widened}")), 0)?,
        "num_layers": layers,
        "cross_attn_norm": block("norm2.weight").is_some(),
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": image.map(|shape| shape[0]),
        "added_kv_proj_dim": image.map(|_| dim),
        "pos_embed_seq_len": positions.and_then(|shape| shape.get(1)),
    });
    let beside = shapes.blocks("vace_blocks.");
    // Spread evenly over the main blocks: 15 of 30 (1.3B), 8 of 40 (14B).
    if let Some(every) = layers.checked_div(beside) {
        config["_class_name"] = "WanVACETransformer3DModel".into();
        config["vace_layers"] = (0..beside).map(|index| index * every.max(1)).collect();
        config["vace_in_channels"] = shapes.size("vace_patch_embedding.weight", 1).into();
    }
    found(config)
}

/// Mean and standard deviation of each latent channel, which are no weights: of the autoencoder of
/// 2.1 (`wan/modules/vae.py`) and of that of 2.2 (`wan/modules/vae2_2.py`).
const STATISTICS: [(&[f64], &[f64]); 2] = [
    (
        &[
            -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715,
            0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
        ],
        &[
            2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652,
            1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
        ],
    ),
    (
        &[
            -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542,
            0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
            0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899,
            -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
            0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
        ],
        &[
            0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894,
            1.0901, 0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146,
            0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709,
            0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537,
            0.5444, 0.4089, 0.7468, 0.7744,
        ],
    ),
];

/// Levels that an autoencoder has at most.
const MAX_LEVELS: usize = 16;

fn autoencoder(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let rename = names::vae_diffusers;
    let shapes = Shapes::of(files, rename);
    let Some(&[base, channels, _, _, _]) = shapes.get("encoder.conv_in.weight") else {
        return Ok(None);
    };
    let Some(&[z, ..]) = shapes.get("post_quant_conv.weight") else { return Ok(None) };
    let residual = shapes.get("encoder.down_blocks.0.resnets.0.conv1.weight").is_some();
    let flat = shapes.get("encoder.down_blocks.0.conv1.weight").is_some();
    if !(residual || flat) || shapes.get("encoder.mid_block.attentions.0.to_qkv.weight").is_none() {
        return Ok(None);
    }
    let originals = move |name: &str| {
        let original = names::vae_original(name, residual);
        vec![original.unwrap_or_else(|| name.to_owned()), name.to_owned()]
    };
    let found = |config| {
        let part = DetectedPart::new(part_names::VAE, config, rename);
        Ok(Some(part.with_originals(originals)))
    };
    if let Some(config) = files.own_config() {
        return found(config);
    }
    let refuse = |reason: String| Err(Error::Config { file: files.describe().to_owned(), reason });
    let Some((mean, std)) = STATISTICS.iter().find(|(mean, _)| mean.len() == z) else {
        return refuse(format!(
            "latents of {z} channels: their mean and deviation are known for 16 (Wan 2.1) and 48 \
             (Wan 2.2); load it from a folder in the diffusers layout"
        ));
    };
    // A level has two residual blocks and, but for the last, what halves the sides.
    let first = |level: usize| match residual {
        true => format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"),
        false => format!("encoder.down_blocks.{}.conv1.weight", 3 * level),
    };
    let halving = |level: usize| match residual {
        true => format!("encoder.down_blocks.{level}.downsampler.time_conv.weight"),
        false => format!("encoder.down_blocks.{}.time_conv.weight", 3 * level + 2),
    };
    let levels = shapes.count(first).min(MAX_LEVELS);
    if base == 0 || (0..levels).any(|level| !shapes.size(&first(level), 0).is_multiple_of(base)) {
        return refuse(format!("its levels are no multiples of the first, {base} wide"));
    }
    let mult: Vec<usize> = (0..levels).map(|level| shapes.size(&first(level), 0) / base).collect();
    let temporal: Vec<bool> =
        (0..levels.saturating_sub(1)).map(|level| shapes.get(&halving(level)).is_some()).collect();
    let last = shapes.size("decoder.norm_out.gamma", 0) / mult.first().copied().unwrap_or(1).max(1);
    let folded = (channels / 3).isqrt();
    let config = json!({
        "_class_name": "AutoencoderKLWan",
        "base_dim": base,
        "decoder_base_dim": (last != base).then_some(last),
        "z_dim": z,
        "dim_mult": mult,
        "num_res_blocks": 2,
        "attn_scales": [],
        "temperal_downsample": temporal,
        "latents_mean": mean,
        "latents_std": std,
        "is_residual": residual,
        "in_channels": channels,
        "out_channels": shapes.size("decoder.conv_out.weight", 0),
        "patch_size": residual.then_some(folded),
    });
    found(config)
}

/// Part of the noise above which the first of two experts computes: of models that make a clip from
/// text, and from a picture (Wan 2.2's configs).
const BOUNDARIES: [f64; 2] = [0.875, 0.9];

/// What `model_index.json` and the scheduler's config would say of a model of these parts; `index`
/// is that of the folder in which the others lie.
pub(super) fn complete(
    parts: &[(&str, Value)],
    index: Option<Value>,
    has_scheduler: bool,
) -> Vec<(String, Value)> {
    let find = |part: &str| parts.iter().find(|(name, _)| *name == part).map(|(_, config)| config);
    let transformer = find(part_names::TRANSFORMER);
    let channels = |name: &str| transformer.and_then(|config| config[name].as_u64()).unwrap_or(0);
    let from_picture = channels("in_channels") > channels("out_channels");
    let per_token = channels("in_channels") == 48 && !from_picture;
    let mut index = index.unwrap_or_else(|| {
        let class = match transformer.and_then(|config| config["_class_name"].as_str()) {
            Some("WanVACETransformer3DModel") => "WanVACEPipeline",
            _ if from_picture => "WanImageToVideoPipeline",
            _ => "WanPipeline",
        };
        json!({"_class_name": class, "expand_timesteps": per_token})
    });
    let classes = [
        (part_names::TRANSFORMER, "diffusers", "WanTransformer3DModel"),
        (part_names::LOW_NOISE, "diffusers", "WanTransformer3DModel"),
        (part_names::VAE, "diffusers", "AutoencoderKLWan"),
        (part_names::TEXT_ENCODER, "transformers", "UMT5EncoderModel"),
        (part_names::IMAGE_ENCODER, "transformers", "CLIPVisionModel"),
    ];
    for (part, library, class) in classes.into_iter().filter(|(part, ..)| find(part).is_some()) {
        index[part] = json!([library, class]);
    }
    if find(part_names::LOW_NOISE).is_some() && index["boundary_ratio"].is_null() {
        index["boundary_ratio"] = BOUNDARIES[usize::from(from_picture)].into();
    }
    let mut configs = vec![("model_index.json".to_owned(), index)];
    if !has_scheduler {
        let two_pictures = transformer.is_some_and(|config| !config["pos_embed_seq_len"].is_null());
        let shift = match (two_pictures, per_token) {
            (true, _) => 16.0,
            (_, true) => 5.0,
            _ => 3.0,
        };
        let scheduler = json!({
            "_class_name": "UniPCMultistepScheduler",
            "flow_shift": shift,
            "num_train_timesteps": 1000,
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": true,
        });
        configs.push(("scheduler/scheduler_config.json".to_owned(), scheduler));
    }
    configs
}
