//! FLUX's parts as single files: which part a file is, and what its config would say, from the
//! names and shapes of its weights.

use serde_json::{Value, json};

use super::names;
use crate::checkpoint::{DetectedPart, PartFiles, count_blocks, part_names};
use crate::error::{Error, Result};

/// Width of a head in every published transformer, and how much of it turns by frame, row and
/// column: what shapes do not say.
const HEAD: usize = 128;
const AXES: [usize; 3] = [16, 56, 56];
/// What other programs put before the names of a transformer, and of an autoencoder.
const WRAPPERS: [&str; 3] = ["", "model.diffusion_model.", "diffusion_model."];
const VAE_WRAPPERS: [&str; 3] = ["", "first_stage_model.", "vae."];

/// The part that a file is, where it is one of FLUX's own: a transformer or an autoencoder.
///
/// # Errors
/// When it is one, but of sizes from which its config does not follow.
pub(super) fn detect(files: &PartFiles) -> Result<Option<DetectedPart>> {
    match transformer(files)? {
        Some(found) => Ok(Some(found)),
        None => autoencoder(files),
    }
}

/// Shapes of a file, seen inside what a program put around the names.
#[derive(Clone, Copy)]
struct Shapes<'a> {
    files: &'a PartFiles,
    wrapper: &'static str,
}

impl<'a> Shapes<'a> {
    /// The shape of the first of these that is there.
    fn any(&self, names: &[&str]) -> Option<&'a [usize]> {
        names.iter().find_map(|name| self.files.shape(&format!("{}{name}", self.wrapper)))
    }

    /// A size of it, 0 where there is none: whoever reads the config refuses that.
    fn size(&self, names: &[&str], dimension: usize) -> usize {
        self.any(names).and_then(|shape| shape.get(dimension)).copied().unwrap_or(0)
    }

    /// How many blocks there are whose weights' names begin either way.
    fn blocks(&self, prefixes: [&str; 2]) -> usize {
        let named = |prefix| {
            let names = self.files.names().into_iter();
            count_blocks(names.filter_map(|name| name.strip_prefix(self.wrapper)), prefix)
        };
        prefixes.map(named).into_iter().max().unwrap_or(0)
    }

    /// How many there are of which either name, for 0, 1, 2, …, is there.
    fn count(&self, names: impl Fn(usize) -> [String; 2]) -> usize {
        let is_there = |index: &usize| {
            let [own, other] = names(*index);
            self.any(&[&own, &other]).is_some()
        };
        (0..).take_while(is_there).count()
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Config { file: self.files.describe().to_owned(), reason }
    }
}

fn transformer(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let is_one = |wrapper: &&'static str| {
        let shapes = Shapes { files, wrapper };
        shapes.any(&["double_blocks.0.img_mod.lin.weight"]).is_some()
            || shapes.any(&["transformer_blocks.0.norm1_context.linear.weight"]).is_some()
                && shapes.any(&["single_transformer_blocks.0.proj_mlp.weight"]).is_some()
    };
    let Some(wrapper) = WRAPPERS.into_iter().find(is_one) else { return Ok(None) };
    let shapes = Shapes { files, wrapper };
    let rename = move |name: &str| {
        let inner = name.strip_prefix(wrapper)?;
        Some(names::diffusers(inner).unwrap_or_else(|| inner.to_owned()))
    };
    let cut = move |layer: &str| layer.strip_prefix(wrapper).map(names::pieces).unwrap_or_default();
    let originals =
        move |name: &str| names::originals(name).map(|own| format!("{wrapper}{own}")).to_vec();
    let found = |config| {
        let part = DetectedPart::new(part_names::TRANSFORMER, config, rename);
        Ok(Some(part.with_cut(cut).with_originals(originals)))
    };
    if let Some(config) = files.own_config() {
        return found(config);
    }
    let size = |names: &[&str], dimension| shapes.size(names, dimension);
    let dim = size(&["x_embedder.weight", "img_in.weight"], 0);
    let head = size(
        &[
            "transformer_blocks.0.attn.norm_q.weight",
            "double_blocks.0.img_attn.norm.query_norm.scale",
            "double_blocks.0.img_attn.norm.query_norm.weight",
        ],
        0,
    );
    if head != HEAD {
        return Err(shapes.wrong(format!(
            "heads {head} wide: how they turn by row and column does not follow from weights (those of \
             FLUX are {HEAD} wide); load it from a folder in the diffusers layout"
        )));
    }
    let guidance =
        ["time_text_embed.guidance_embedder.linear_1.weight", "guidance_in.in_layer.weight"];
    let pooled = ["time_text_embed.text_embedder.linear_1.weight", "vector_in.in_layer.weight"];
    let config = json!({
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": size(&["x_embedder.weight", "img_in.weight"], 1),
        "out_channels": size(&["proj_out.weight", "final_layer.linear.weight"], 0),
        "num_layers": shapes.blocks(["transformer_blocks.", "double_blocks."]),
        "num_single_layers": shapes.blocks(["single_transformer_blocks.", "single_blocks."]),
        "attention_head_dim": HEAD,
        "num_attention_heads": dim / HEAD,
        "joint_attention_dim": size(&["context_embedder.weight", "txt_in.weight"], 1),
        "pooled_projection_dim": size(&pooled, 1),
        "guidance_embeds": shapes.any(&guidance).is_some(),
        "axes_dims_rope": AXES,
    });
    found(config)
}

/// By what latents of the published autoencoder are scaled and shifted, and its norms' groups: what
/// shapes do not say (`flux/util.py` of black-forest-labs).
const CHANNELS: usize = 16;
const SCALING: f64 = 0.3611;
const SHIFT: f64 = 0.1159;
const GROUPS: usize = 32;

fn autoencoder(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let is_one = |wrapper: &&'static str| {
        let shapes = Shapes { files, wrapper };
        let first =
            ["encoder.down_blocks.0.resnets.0.conv1.weight", "encoder.down.0.block.0.conv1.weight"];
        // Those of videos have kernels over time, too.
        shapes.any(&first).is_some_and(|shape| shape.len() == 4)
            && shapes.any(&["decoder.conv_in.weight"]).is_some_and(|shape| shape.len() == 4)
    };
    let Some(wrapper) = VAE_WRAPPERS.into_iter().find(is_one) else { return Ok(None) };
    let shapes = Shapes { files, wrapper };
    let block = |level: usize, block: usize| {
        [
            format!("encoder.down_blocks.{level}.resnets.{block}.conv2.weight"),
            format!("encoder.down.{level}.block.{block}.conv2.weight"),
        ]
    };
    let levels = shapes.count(|level| block(level, 0));
    let rename = move |name: &str| {
        let inner = name.strip_prefix(wrapper)?;
        Some(names::vae_diffusers(inner, levels).unwrap_or_else(|| inner.to_owned()))
    };
    let originals = move |name: &str| {
        let named = |inner: &str| format!("{wrapper}{inner}");
        let original = names::vae_original(name, levels);
        vec![named(&original.unwrap_or_else(|| name.to_owned())), named(name)]
    };
    let found = |config| {
        let part = DetectedPart::new(part_names::VAE, config, rename);
        Ok(Some(part.with_originals(originals)))
    };
    if let Some(config) = files.own_config() {
        return found(config);
    }
    let channels = shapes.size(&["decoder.conv_in.weight"], 1);
    if channels != CHANNELS {
        return Err(shapes.wrong(format!(
            "latents of {channels} channels: how they are scaled is known for {CHANNELS} (FLUX.1); load \
             it from a folder in the diffusers layout"
        )));
    }
    let width = |level: usize| {
        let [own, other] = block(level, 0);
        shapes.size(&[&own, &other], 0)
    };
    let attention = ["decoder.mid_block.attentions.0.to_q.weight", "decoder.mid.attn_1.q.weight"];
    let config = json!({
        "_class_name": "AutoencoderKL",
        "in_channels": shapes.size(&["encoder.conv_in.weight"], 1),
        "out_channels": shapes.size(&["decoder.conv_out.weight"], 0),
        "block_out_channels": (0..levels).map(width).collect::<Vec<_>>(),
        "layers_per_block": shapes.count(|index| block(0, index)),
        "latent_channels": channels,
        "norm_num_groups": GROUPS,
        "scaling_factor": SCALING,
        "shift_factor": SHIFT,
        "use_quant_conv": shapes.any(&["quant_conv.weight"]).is_some(),
        "use_post_quant_conv": shapes.any(&["post_quant_conv.weight"]).is_some(),
        "mid_block_add_attention": shapes.any(&attention).is_some(),
    });
    found(config)
}

/// What `model_index.json` and the scheduler's config would say of a model of these parts; `index`
/// is that of the folder in which the others lie.
pub(super) fn complete(
    parts: &[(&str, Value)],
    index: Option<Value>,
    has_scheduler: bool,
) -> Vec<(String, Value)> {
    let find = |part: &str| parts.iter().find(|(name, _)| *name == part).map(|(_, config)| config);
    let mut index = index.unwrap_or_else(|| json!({"_class_name": "FluxPipeline"}));
    let classes = [
        (part_names::TRANSFORMER, "diffusers", "FluxTransformer2DModel"),
        (part_names::VAE, "diffusers", "AutoencoderKL"),
        (part_names::TEXT_ENCODER, "transformers", "CLIPTextModel"),
        (part_names::TEXT_ENCODER_2, "transformers", "T5EncoderModel"),
    ];
    for (part, library, class) in classes.into_iter().filter(|(part, ..)| find(part).is_some()) {
        index[part] = json!([library, class]);
    }
    let mut configs = vec![("model_index.json".to_owned(), index)];
    if !has_scheduler {
        // Of the two published models the one that is told a guidance shifts its levels.
        let transformer = find(part_names::TRANSFORMER);
        let is_dev = transformer.is_none_or(|config| config["guidance_embeds"] == json!(true));
        let scheduler = json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "use_dynamic_shifting": is_dev,
            "shift": if is_dev { 3.0 } else { 1.0 },
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        });
        configs.push(("scheduler/scheduler_config.json".to_owned(), scheduler));
    }
    configs
}
