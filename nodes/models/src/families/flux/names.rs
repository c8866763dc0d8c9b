//! What the authors of FLUX call layers and weights, in the files that they, ComfyUI and GGUF's
//! converters publish, and what diffusers calls them.

use crate::weight::FusedName;

/// Outermost layers: diffusers', and those of the authors.
const OUTER: [(&str, &str); 9] = [
    ("x_embedder", "img_in"),
    ("context_embedder", "txt_in"),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
    ("proj_out", "final_layer.linear"),
];

/// Layers of a double block.
const DOUBLE: [(&str, &str); 12] = [
    ("norm1.linear", "img_mod.lin"),
    ("norm1_context.linear", "txt_mod.lin"),
    ("attn.norm_q", "img_attn.norm.query_norm"),
    ("attn.norm_k", "img_attn.norm.key_norm"),
    ("attn.norm_added_q", "txt_attn.norm.query_norm"),
    ("attn.norm_added_k", "txt_attn.norm.key_norm"),
    ("attn.to_out.0", "img_attn.proj"),
    ("attn.to_add_out", "txt_attn.proj"),
    ("ff.net.0.proj", "img_mlp.0"),
    ("ff.net.2", "img_mlp.2"),
    ("ff_context.net.0.proj", "txt_mlp.0"),
    ("ff_context.net.2", "txt_mlp.2"),
];

/// Layers of a single block.
const SINGLE: [(&str, &str); 4] = [
    ("norm.linear", "modulation.lin"),
    ("attn.norm_q", "norm.query_norm"),
    ("attn.norm_k", "norm.key_norm"),
    ("proj_out", "linear2"),
];

/// A layer of the authors' files that is several of diffusers', each with its share of the rows.
type Whole = (&'static str, &'static [(&'static str, usize)]);

/// The same in a double block.
const DOUBLE_WHOLE: [Whole; 2] = [
    ("img_attn.qkv", &[("attn.to_q", 1), ("attn.to_k", 1), ("attn.to_v", 1)]),
    ("txt_attn.qkv", &[("attn.add_q_proj", 1), ("attn.add_k_proj", 1), ("attn.add_v_proj", 1)]),
];
/// In a single block.
const SINGLE_WHOLE: [Whole; 1] =
    [("linear1", &[("attn.to_q", 1), ("attn.to_k", 1), ("attn.to_v", 1), ("proj_mlp", 4)])];
/// Outside of the blocks: the last modulation, which diffusers has the other way round.
const OUTER_WHOLE: [Whole; 1] =
    [("final_layer.adaLN_modulation.1", &[("norm_out.shift", 1), ("norm_out.scale", 1)])];

/// The blocks: diffusers' name and the authors', their layers, and those that are several.
type Blocks =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [Whole]);
const BLOCKS: [Blocks; 2] = [
    ("transformer_blocks", "double_blocks", &DOUBLE, &DOUBLE_WHOLE),
    ("single_transformer_blocks", "single_blocks", &SINGLE, &SINGLE_WHOLE),
];

/// A name inside one of numbered blocks: the number and the rest.
fn inside<'a>(name: &'a str, blocks: &str) -> Option<(&'a str, &'a str)> {
    let (number, inner) = name.strip_prefix(blocks)?.strip_prefix('.')?.split_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((number, inner))
}

/// What the authors call a layer that diffusers calls `name`, where it is one of theirs.
pub(super) fn original(name: &str) -> Option<String> {
    let of = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(own, _)| *own == name).map(|(_, other)| *other)
    };
    for (own, other, layers, _) in BLOCKS {
        if let Some((number, inner)) = inside(name, own) {
            return Some(format!("{other}.{number}.{}", of(layers, inner)?));
        }
    }
    of(&OUTER, name).map(str::to_owned)
}

/// The layer of the authors' of which the one that diffusers calls `name` is some rows.
pub(super) fn fused(name: &str) -> Option<FusedName> {
    let of = |wholes: &[Whole], name: &str, place: &dyn Fn(&str) -> String| {
        wholes.iter().find_map(|(whole, pieces)| {
            let at = pieces.iter().position(|(piece, _)| *piece == name)?;
            let shares = |pieces: &[(&str, usize)]| pieces.iter().map(|(_, share)| share).sum();
            let rows = [shares(&pieces[..at]), shares(&pieces[..=at]), shares(pieces)];
            Some(FusedName { name: place(whole), rows })
        })
    };
    for (own, other, _, wholes) in BLOCKS {
        if let Some((number, inner)) = inside(name, own) {
            return of(wholes, inner, &|whole| format!("{other}.{number}.{whole}"));
        }
    }
    of(&OUTER_WHOLE, name, &|whole| whole.to_owned())
}

/// The layers of diffusers' that are the rows of a layer that the authors call `layer`.
pub(super) fn pieces(layer: &str) -> Vec<(String, usize)> {
    let of = |wholes: &[Whole], name: &str, before: &str| -> Vec<(String, usize)> {
        let found = wholes.iter().find(|(whole, _)| *whole == name);
        let pieces = found.map_or(&[][..], |(_, pieces)| pieces);
        pieces.iter().map(|(piece, share)| (format!("{before}{piece}"), *share)).collect()
    };
    for (own, other, _, wholes) in BLOCKS {
        if let Some((number, inner)) = inside(layer, other) {
            return of(wholes, inner, &format!("{own}.{number}."));
        }
    }
    of(&OUTER_WHOLE, layer, "")
}

/// What the authors call a weight that diffusers calls `name`, where it is no part of several.
pub(super) fn original_weight(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    let own = original(layer)?;
    // The scales of norms.
    let tensor = if own.ends_with("_norm") && tensor == "weight" { "scale" } else { tensor };
    Some(format!("{own}.{tensor}"))
}

/// What a weight that diffusers calls `name` is called, or stands in, in files: the authors', those
/// that call the scales of norms weights, and diffusers'.
pub(super) fn originals(name: &str) -> [String; 3] {
    let in_fused = || {
        let (layer, tensor) = name.rsplit_once('.')?;
        Some(format!("{}.{tensor}", fused(layer)?.name))
    };
    let original = original_weight(name).or_else(in_fused).unwrap_or_else(|| name.to_owned());
    let of_norm = original.strip_suffix("_norm.scale").map(|norm| format!("{norm}_norm.weight"));
    [original.clone(), of_norm.unwrap_or(original), name.to_owned()]
}

/// The last modulation in the diffusers layout, taken apart; and the way back.
const MODULATION: (&str, [(&str, usize); 2]) =
    ("norm_out.linear", [("norm_out.scale", 1), ("norm_out.shift", 1)]);

/// The layers that are the rows of a layer of diffusers', where the authors have other ones.
pub(super) fn diffusers_pieces(layer: &str) -> Vec<(String, usize)> {
    let (whole, pieces) = MODULATION;
    match layer == whole {
        true => pieces.map(|(piece, share)| (piece.to_owned(), share)).to_vec(),
        false => Vec::new(),
    }
}

/// The layer of diffusers' of which such a piece is some rows.
pub(super) fn diffusers_fused(name: &str) -> Option<FusedName> {
    let (whole, pieces) = MODULATION;
    let at = pieces.iter().position(|(piece, _)| *piece == name)?;
    Some(FusedName { name: whole.to_owned(), rows: [at, at + 1, pieces.len()] })
}

/// What diffusers calls a weight that the authors call `name`, where it is no part of several.
pub(super) fn diffusers(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    // The scales of norms.
    let tensor = if layer.ends_with("_norm") && tensor == "scale" { "weight" } else { tensor };
    let of = |table: &[(&'static str, &str)], name: &str| {
        table.iter().find(|(_, other)| *other == name).map(|(own, _)| *own)
    };
    for (own, other, layers, _) in BLOCKS {
        if let Some((number, inner)) = inside(layer, other) {
            return Some(format!("{own}.{number}.{}.{tensor}", of(layers, inner)?));
        }
    }
    Some(format!("{}.{tensor}", of(&OUTER, layer)?))
}

/// What stands beside the levels of an encoder or decoder: its authors' names, and diffusers'.
const VAE_ENDS: [(&str, &str); 8] = [
    ("norm_out", "conv_norm_out"),
    ("mid.block_1", "mid_block.resnets.0"),
    ("mid.block_2", "mid_block.resnets.1"),
    ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
    ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
    ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
    ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
    ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
];

/// How the levels of an encoder or decoder are called, and what changes the sides: by its authors,
/// and by diffusers.
fn vae_level(is_encoder: bool) -> [(&'static str, &'static str); 2] {
    match is_encoder {
        true => [("down", "down_blocks"), ("downsample", "downsamplers")],
        false => [("up", "up_blocks"), ("upsample", "upsamplers")],
    }
}

/// What the authors call a weight of an autoencoder of so many levels that diffusers calls `name`:
/// the way back from [`vae_diffusers`].
pub(super) fn vae_original(name: &str, levels: usize) -> Option<String> {
    let (side, inner) = name.split_once('.')?;
    let is_encoder = match side {
        "encoder" => true,
        "decoder" => false,
        _ => return None,
    };
    let begins = |to: &str| inner.strip_prefix(to)?.strip_prefix('.');
    if let Some((from, rest)) = VAE_ENDS.iter().find_map(|(from, to)| Some((from, begins(to)?))) {
        return Some(format!("{side}.{from}.{rest}"));
    }
    let [(list, blocks), (change, sampler)] = vae_level(is_encoder);
    let (level, inner) = inside(inner, blocks)?;
    let level: usize = level.parse().ok()?;
    let level = if is_encoder { level } else { levels.checked_sub(level + 1)? };
    let inner = match inner.split_once('.')? {
        ("resnets", rest) => format!("block.{}", rest.replace("conv_shortcut.", "nin_shortcut.")),
        (own, rest) if own == sampler => format!("{change}.{}", rest.strip_prefix("0.")?),
        _ => return None,
    };
    Some(format!("{side}.{list}.{level}.{inner}"))
}

/// What diffusers calls a weight of an autoencoder of so many levels that its authors call `name`
/// (`convert_ldm_vae_checkpoint` of diffusers' `loaders/single_file_utils.py`).
pub(super) fn vae_diffusers(name: &str, levels: usize) -> Option<String> {
    let (side, inner) = name.split_once('.')?;
    let is_encoder = match side {
        "encoder" => true,
        "decoder" => false,
        _ => return None,
    };
    let begins = |from: &str| inner.strip_prefix(from)?.strip_prefix('.');
    if let Some((to, rest)) = VAE_ENDS.iter().find_map(|(from, to)| Some((to, begins(from)?))) {
        return Some(format!("{side}.{to}.{rest}"));
    }
    let [(list, blocks), (change, sampler)] = vae_level(is_encoder);
    let (level, inner) = inside(inner, list)?;
    let level: usize = level.parse().ok()?;
    // The authors count the decoder's levels from the frames' side, too.
    let level = if is_encoder { level } else { levels.checked_sub(level + 1)? };
    let of_block = |rest: &str| {
        let (number, rest) = rest.split_once('.')?;
        let rest = match rest.strip_prefix("nin_shortcut.") {
            Some(rest) => format!("conv_shortcut.{rest}"),
            None => rest.to_owned(),
        };
        Some(format!("resnets.{number}.{rest}"))
    };
    let inner = match inner.split_once('.')? {
        ("block", rest) => of_block(rest)?,
        (own, rest) if own == change => format!("{sampler}.0.{rest}"),
        _ => return None,
    };
    Some(format!("{side}.{blocks}.{level}.{inner}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_conversion() {
        for (diffusers, original) in [
            ("x_embedder", "img_in"),
            ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
            ("transformer_blocks.12.norm1_context.linear", "double_blocks.12.txt_mod.lin"),
            ("transformer_blocks.0.attn.to_add_out", "double_blocks.0.txt_attn.proj"),
            ("transformer_blocks.0.ff_context.net.2", "double_blocks.0.txt_mlp.2"),
            ("single_transformer_blocks.37.proj_out", "single_blocks.37.linear2"),
            ("single_transformer_blocks.0.norm.linear", "single_blocks.0.modulation.lin"),
            ("proj_out", "final_layer.linear"),
        ] {
            assert_eq!(super::original(diffusers).as_deref(), Some(original));
            let weight = |layer: &str| format!("{layer}.weight");
            assert_eq!(super::diffusers(&weight(original)), Some(weight(diffusers)));
        }
        let scale = super::diffusers("double_blocks.3.img_attn.norm.query_norm.scale");
        assert_eq!(scale.as_deref(), Some("transformer_blocks.3.attn.norm_q.weight"));
        for (layer, name, rows) in [
            ("transformer_blocks.3.attn.to_v", "double_blocks.3.img_attn.qkv", [2, 3, 3]),
            ("transformer_blocks.3.attn.add_q_proj", "double_blocks.3.txt_attn.qkv", [0, 1, 3]),
            ("single_transformer_blocks.1.attn.to_k", "single_blocks.1.linear1", [1, 2, 7]),
            ("single_transformer_blocks.1.proj_mlp", "single_blocks.1.linear1", [3, 7, 7]),
        ] {
            assert_eq!(fused(layer), Some(FusedName { name: name.to_owned(), rows }));
            assert_eq!(original(layer), None);
            assert!(
                pieces(name)
                    .iter()
                    .any(|(piece, share)| { piece == layer && *share == rows[1] - rows[0] })
            );
        }
        for unknown in ["double_blocks.x.img_mod.lin.weight", "other.weight", "weight", ""] {
            assert_eq!(super::diffusers(unknown), None);
            assert!(pieces(unknown).is_empty());
        }
    }

    #[test]
    fn names_of_the_autoencoder_are_those_of_the_conversion() {
        for (original, diffusers) in [
            ("encoder.down.3.block.1.conv2.bias", "encoder.down_blocks.3.resnets.1.conv2.bias"),
            (
                "encoder.down.1.block.0.nin_shortcut.weight",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            ),
            (
                "encoder.down.0.downsample.conv.weight",
                "encoder.down_blocks.0.downsamplers.0.conv.weight",
            ),
            ("decoder.up.3.block.2.norm1.weight", "decoder.up_blocks.0.resnets.2.norm1.weight"),
            ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
            (
                "decoder.mid.attn_1.proj_out.weight",
                "decoder.mid_block.attentions.0.to_out.0.weight",
            ),
            ("encoder.mid.block_2.norm2.bias", "encoder.mid_block.resnets.1.norm2.bias"),
            ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
        ] {
            assert_eq!(vae_diffusers(original, 4).as_deref(), Some(diffusers));
            assert_eq!(vae_original(diffusers, 4).as_deref(), Some(original));
        }
        for unknown in ["encoder.conv_in.weight", "decoder.up.9.block.0.conv1.bias", "conv"] {
            assert_eq!(vae_diffusers(unknown, 4), None);
        }
    }
}
