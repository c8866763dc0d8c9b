//! LTX-Video's parts as single files: which part a file is, and what its config would say, from the
//! names and shapes of its weights and from what the authors wrote into its header.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::names::{self, VaeNames, VaePlaces};
use crate::checkpoint::{AUTHORS_CONFIG, DetectedPart, PartFiles, count_blocks, part_names};
use crate::error::{Error, Result};

/// Heads of every published transformer, where the header does not say: shapes do not.
const HEADS: usize = 32;
/// What other programs put before the names of a transformer, and of an autoencoder.
const WRAPPERS: [&str; 3] = ["", "model.diffusion_model.", "diffusion_model."];
const VAE_WRAPPERS: [&str; 2] = ["", "vae."];
/// The most blocks that are looked for.
const MAX_BLOCKS: usize = 12;

/// The part that a file is, where it is a transformer or an autoencoder of LTX-Video.
///
/// # Errors
/// When it is one, but of sizes from which its config does not follow.
pub(super) fn detect(files: &PartFiles) -> Result<Option<DetectedPart>> {
    match transformer(files)? {
        Some(found) => Ok(Some(found)),
        None => autoencoder(files),
    }
}

/// What the authors say of a part in the header of a file.
fn said(files: &PartFiles, part: &str) -> Value {
    let config = files.metadata(AUTHORS_CONFIG).and_then(|text| serde_json::from_str(text).ok());
    config.map_or(Value::Null, |mut config: Value| config[part].take())
}

fn transformer(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let is_one = |wrapper: &&str| {
        let has = |name: &str| files.shape(&format!("{wrapper}{name}")).is_some();
        has("transformer_blocks.0.scale_shift_table")
            && has("caption_projection.linear_1.weight")
            && (has("patchify_proj.weight") && has("adaln_single.linear.weight")
                || has("proj_in.weight") && has("time_embed.linear.weight"))
            && !has("audio_patchify_proj.weight")
    };
    let Some(wrapper) = WRAPPERS.into_iter().find(is_one) else { return Ok(None) };
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
    let shapes = shapes(files, rename);
    let size = |name: &str, axis: usize| {
        shapes.get(name).and_then(|shape| shape.get(axis)).copied().unwrap_or(0)
    };
    let (dim, said) = (size("proj_in.weight", 0), said(files, "transformer"));
    let heads = said["num_attention_heads"].as_u64().map_or(HEADS, |heads| heads as usize);
    if heads == 0 || dim == 0 || !dim.is_multiple_of(2 * heads) {
        let reason = format!(
            "a transformer {dim} wide: how many heads it has does not follow from its weights (those \
             of LTX-Video have {HEADS}); load it from a folder in the diffusers layout"
        );
        return Err(Error::Config { file: files.describe().to_owned(), reason });
    }
    let layers = count_blocks(shapes.keys().map(String::as_str), "transformer_blocks.");
    let config = json!({
        "_class_name": "LTXVideoTransformer3DModel",
        "in_channels": size("proj_in.weight", 1),
        "out_channels": size("proj_out.weight", 0),
        "num_attention_heads": heads,
        "attention_head_dim": dim / heads,
        "cross_attention_dim": size("transformer_blocks.0.attn2.to_k.weight", 1),
        "num_layers": layers,
        "caption_channels": size("caption_projection.linear_1.weight", 1),
        NEW: said["causal_temporal_positioning"].as_bool().unwrap_or(layers == LAYERS_13B),
    });
    found(config)
}

/// The layers of the 13B transformer (0.9.7 and later), where the header does not say how it counts
/// time.
const LAYERS_13B: usize = 48;
/// Whether a part is of 0.9.5 or later: no key of diffusers, but it decides on the pipeline.
const NEW: &str = "_is_new";

/// The config of a transformer or an autoencoder, as a file of its own says it.
pub(super) fn config_alone(mut config: Value, is_new: bool) -> Value {
    config[NEW] = is_new.into();
    config
}

/// Shapes by the names of diffusers.
fn shapes(files: &PartFiles, rename: impl Fn(&str) -> Option<String>) -> HashMap<String, &[usize]> {
    let named = files.names().into_iter();
    named.filter_map(|name| Some((rename(name)?, files.shape(name)?))).collect()
}

fn autoencoder(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let is_one = |wrapper: &&str| {
        let has = |name: &str| files.shape(&format!("{wrapper}{name}")).is_some();
        has("encoder.conv_in.conv.weight")
            && has("decoder.conv_in.conv.weight")
            && (has("per_channel_statistics.mean-of-means") || has("latents_mean"))
    };
    let Some(wrapper) = VAE_WRAPPERS.into_iter().find(is_one) else { return Ok(None) };
    let listed = VaeNames::read(files, wrapper);
    let rename = move |name: &str| match &listed {
        Some(listed) => listed.diffusers(name),
        None => name.strip_prefix(wrapper).map(str::to_owned),
    };
    let shapes = Shapes(shapes(files, &rename));
    let places = VaePlaces::of_names(&shapes.0.keys().map(String::as_str).collect::<Vec<_>>());
    let originals = move |name: &str| {
        let named = |inner: &str| format!("{wrapper}{inner}");
        vec![named(&places.original(name)), named(name)]
    };
    let found = |config| {
        let part = DetectedPart::new(part_names::VAE, config, rename);
        Ok(Some(part.with_originals(originals)))
    };
    if let Some(config) = files.own_config() {
        return found(config);
    }
    let (Some(&[first, folded, ..]), Some(&[_, latent, ..])) =
        (shapes.conv("encoder.conv_in"), shapes.conv("decoder.conv_in"))
    else {
        return Ok(None);
    };
    let (down, up) = (shapes.down_blocks(first), shapes.up_blocks());
    let is_new = down.iter().any(|block| block.kind != "conv");
    let is_timed = shapes.0.contains_key("decoder.scale_shift_table");
    let reversed = |values: Vec<Value>| values.into_iter().rev().collect::<Vec<_>>();
    let of_up = |value: fn(&FoundUp) -> Value| reversed(up.iter().skip(1).map(value).collect());
    let of_all = |value: fn(&FoundUp) -> Value| reversed(up.iter().map(value).collect());
    let widths: Vec<usize> = match is_new {
        true => [first].into_iter().chain(down.iter().map(|block| block.channels[1])).collect(),
        false => down.iter().map(|block| block.channels[0]).collect(),
    };
    let types = if is_new { "LTXVideo095DownBlock3D" } else { "LTXVideoDownBlock3D" };
    let middle = shapes.resnets("encoder.mid_block");
    let layers: Vec<usize> = down.iter().map(|block| block.layers).chain([middle]).collect();
    let scales: Vec<bool> = down.iter().map(|block| block.scales).collect();
    let kinds: Vec<&str> = down.iter().map(|block| block.kind).collect();
    let patch = (folded / 3).isqrt();
    let config = json!({
        "_class_name": "AutoencoderKLLTXVideo",
        "latent_channels": latent,
        "block_out_channels": widths,
        "down_block_types": vec![types; down.len()],
        "layers_per_block": layers,
        "spatio_temporal_scaling": scales,
        "downsample_type": kinds,
        "decoder_block_out_channels": of_up(|block| (block.channels * block.factor).into()),
        "decoder_layers_per_block": of_all(|block| block.layers.into()),
        "decoder_spatio_temporal_scaling": of_up(|block| block.doubles.into()),
        "decoder_inject_noise": of_all(|block| block.adds_noise.into()),
        // Of published autoencoders all that are told the time add what comes in.
        "upsample_residual": of_up(|block| (block.doubles && block.factor > 1).into()),
        "upsample_factor": of_up(|block| block.factor.into()),
        "timestep_conditioning": is_timed,
        "patch_size": patch,
        NEW: is_new,
    });
    found(config)
}

/// Shapes of an autoencoder by the names of diffusers.
struct Shapes<'a>(HashMap<String, &'a [usize]>);

/// A block of an encoder, as shapes show it.
struct FoundDown {
    channels: [usize; 2],
    layers: usize,
    scales: bool,
    kind: &'static str,
}

/// A block of a decoder, the middle one included.
struct FoundUp {
    channels: usize,
    layers: usize,
    doubles: bool,
    factor: usize,
    adds_noise: bool,
}

impl<'a> Shapes<'a> {
    /// The kernel of a convolution, `[out, in, t, h, w]`.
    fn conv(&self, layer: &str) -> Option<&'a [usize]> {
        self.0.get(&format!("{layer}.conv.weight")).copied()
    }

    /// How many residual blocks a block has.
    fn resnets(&self, block: &str) -> usize {
        (0..).take_while(|i| self.conv(&format!("{block}.resnets.{i}.conv1")).is_some()).count()
    }

    /// The width of its residual blocks.
    fn width(&self, block: &str) -> Option<usize> {
        self.conv(&format!("{block}.resnets.0.conv1")).map(|shape| shape[0])
    }

    fn down_blocks(&self, first: usize) -> Vec<FoundDown> {
        let name = |index: usize| format!("encoder.down_blocks.{index}");
        let is_there = |index: &usize| self.resnets(&name(*index)) > 0;
        let count = (0..MAX_BLOCKS).take_while(is_there).count();
        let width = |index: usize| match index < count {
            true => self.width(&name(index)),
            false => self.width("encoder.mid_block"),
        };
        let block = |index: usize| {
            let (cin, cout) = (width(index).unwrap_or(first), width(index + 1).unwrap_or(first));
            let sampler = format!("{}.downsamplers.0", name(index));
            let folded = self.conv(&format!("{sampler}.conv")).map(|shape| shape[0]);
            let kind = match folded.and_then(|folded| cout.checked_div(folded)) {
                Some(2) => "temporal",
                Some(4) => "spatial",
                Some(8) => "spatiotemporal",
                _ => "conv",
            };
            FoundDown {
                channels: [cin, cout],
                layers: self.resnets(&name(index)),
                scales: folded.is_some() || self.conv(&sampler).is_some(),
                kind,
            }
        };
        (0..count).map(block).collect()
    }

    /// The middle block first.
    fn up_blocks(&self) -> Vec<FoundUp> {
        let name = |index: usize| match index.checked_sub(1) {
            None => "decoder.mid_block".to_owned(),
            Some(index) => format!("decoder.up_blocks.{index}"),
        };
        let is_there = |index: &usize| self.resnets(&name(*index)) > 0;
        let count = (0..MAX_BLOCKS).take_while(is_there).count();
        let block = |index: usize| {
            let own = name(index);
            let doubled = self.conv(&format!("{own}.upsamplers.0.conv"));
            let factor = doubled.and_then(|shape| (8 * shape[1]).checked_div(shape[0]));
            FoundUp {
                channels: self.width(&own).unwrap_or(0),
                layers: self.resnets(&own),
                doubles: doubled.is_some(),
                factor: factor.unwrap_or(1).max(1),
                adds_noise: self.0.contains_key(&format!("{own}.resnets.0.per_channel_scale1")),
            }
        };
        (0..count).map(block).collect()
    }
}

/// What `model_index.json` and the scheduler's config would say of a model of these parts; `index`
/// is that of the folder in which the others lie.
pub(super) fn complete(
    parts: &[(&str, Value)],
    index: Option<Value>,
    has_scheduler: bool,
) -> Vec<(String, Value)> {
    let find = |part: &str| parts.iter().find(|(name, _)| *name == part).map(|(_, config)| config);
    let is_new = |part: &str| find(part).and_then(|config| config[NEW].as_bool());
    // The transformer counts time as its pipeline does; the autoencoder of 0.9.5 has it beside it.
    let is_new = is_new(part_names::TRANSFORMER) == Some(true)
        || find(part_names::TRANSFORMER).is_none() && is_new(part_names::VAE) == Some(true);
    let class = if is_new { "LTXConditionPipeline" } else { "LTXPipeline" };
    let mut index = index.unwrap_or_else(|| json!({"_class_name": class}));
    let classes = [
        (part_names::TRANSFORMER, "diffusers", "LTXVideoTransformer3DModel"),
        (part_names::VAE, "diffusers", "AutoencoderKLLTXVideo"),
        (part_names::TEXT_ENCODER, "transformers", "T5EncoderModel"),
    ];
    for (part, library, class) in classes.into_iter().filter(|(part, ..)| find(part).is_some()) {
        index[part] = json!([library, class]);
    }
    let mut configs = vec![("model_index.json".to_owned(), index)];
    if !has_scheduler {
        let mut scheduler = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0});
        if !is_new {
            scheduler = json!({
                "_class_name": "FlowMatchEulerDiscreteScheduler",
                "use_dynamic_shifting": true,
                "base_shift": 0.95,
                "max_shift": 2.05,
                "base_image_seq_len": 1024,
                "max_image_seq_len": 4096,
                "shift_terminal": 0.1,
            });
        }
        configs.push(("scheduler/scheduler_config.json".to_owned(), scheduler));
    }
    configs
}
