//! What the authors of Wan call layers and weights, in the single files that they and ComfyUI
//! publish, and what diffusers calls them.

/// Outermost names: diffusers', and those of the single files that Wan's authors publish.
const OUTER: [(&str, &str); 13] = [
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"),
    ("proj_out", "head.head"),
    ("scale_shift_table", "head.modulation"),
    ("patch_embedding", "patch_embedding"),
];

/// Names inside a block. The second norm of diffusers is the third of the original.
const INNER: [(&str, &str); 20] = [
    ("scale_shift_table", "modulation"),
    ("attn1.to_q", "self_attn.q"),
    ("attn1.to_k", "self_attn.k"),
    ("attn1.to_v", "self_attn.v"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn1.norm_q", "self_attn.norm_q"),
    ("attn1.norm_k", "self_attn.norm_k"),
    ("attn2.to_q", "cross_attn.q"),
    ("attn2.to_k", "cross_attn.k"),
    ("attn2.to_v", "cross_attn.v"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn2.norm_q", "cross_attn.norm_q"),
    ("attn2.norm_k", "cross_attn.norm_k"),
    ("attn2.add_k_proj", "cross_attn.k_img"),
    ("attn2.add_v_proj", "cross_attn.v_img"),
    ("attn2.norm_added_k", "cross_attn.norm_k_img"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("norm2", "norm3"),
    ("proj_in", "before_proj"),
];

/// The last layer of a block beside the main ones (VACE).
const AFTER: (&str, &str) = ("proj_out", "after_proj");

/// What a layer or weight of the transformer that diffusers calls `name` is called in the single
/// files of Wan's authors (diffusers' `scripts/convert_wan_to_diffusers.py`, from right to left).
pub(super) fn original(name: &str) -> Option<String> {
    translated(name, |names| names)
}

/// The same the other way round.
pub(super) fn diffusers(name: &str) -> Option<String> {
    translated(name, |(diffusers, original)| (original, diffusers))
}

/// The name that the first of the tables has which know it; `turn` says in which direction they
/// are read.
fn translated<'a>(
    name: &str,
    turn: impl Fn((&'a str, &'a str)) -> (&'a str, &'a str),
) -> Option<String> {
    let numbered = ["blocks", "vace_blocks"].into_iter().find_map(|blocks| {
        let (index, inner) = name.strip_prefix(blocks)?.strip_prefix('.')?.split_once('.')?;
        is_number(index).then_some((blocks, index, inner))
    });
    match numbered {
        Some((blocks, index, inner)) => {
            let inside = INNER.iter().chain([&AFTER]);
            let inner = inside.copied().find_map(|names| renamed(inner, turn(names)))?;
            Some(format!("{blocks}.{index}.{inner}"))
        }
        None => OUTER.iter().copied().find_map(|names| renamed(name, turn(names))),
    }
}

/// What diffusers calls a weight of the autoencoder that its authors call `name`: of 2.1, and of
/// the residual one of 2.2.
pub(super) fn vae_diffusers(name: &str) -> Option<String> {
    if let Some(whole) = WHOLE.into_iter().find_map(|names| renamed(name, names)) {
        return Some(whole);
    }
    let (side, inner) = name.split_once('.')?;
    let inner = match side {
        "encoder" => ends(inner).or_else(|| levels(inner, "downsamples", true)),
        "decoder" => ends(inner).or_else(|| levels(inner, "upsamples", false)),
        _ => None,
    };
    Some(format!("{side}.{}", inner?))
}

/// What its authors call a weight of the autoencoder that diffusers calls `name`: in a flat list
/// (2.1), or in a list of lists (2.2, `is_nested`).
pub(super) fn vae_original(name: &str, is_nested: bool) -> Option<String> {
    if let Some(whole) = WHOLE.into_iter().find_map(|names| renamed(name, turned(names))) {
        return Some(whole);
    }
    let (side, inner) = name.split_once('.')?;
    let is_encoder = match side {
        "encoder" => true,
        "decoder" => false,
        _ => return None,
    };
    let end = ENDS.into_iter().find_map(|names| renamed(inner, turned(names)));
    let inner = end
        .or_else(|| {
            let (index, inner) = inner.strip_prefix("mid_block.resnets.")?.split_once('.')?;
            let index = 2 * index.parse::<usize>().ok()?;
            Some(format!("middle.{index}.{}", resnet_original(inner)?))
        })
        .or_else(|| level_original(inner, is_encoder, is_nested))?;
    Some(format!("{side}.{inner}"))
}

/// A level by the names of diffusers; see [`levels`]. What changes the sides comes behind the
/// residual blocks, of which the encoder has two and the decoder three.
fn level_original(name: &str, is_encoder: bool, is_nested: bool) -> Option<String> {
    let (block, list, last) = match is_encoder {
        true => ("down_blocks.", "downsamples", 2),
        false => ("up_blocks.", "upsamples", 3),
    };
    let (level, inner) = name.strip_prefix(block)?.split_once('.')?;
    let level: usize = level.parse().ok()?;
    let resampler = ["downsampler.", "upsampler.", "upsamplers.0."];
    let resampler = resampler.into_iter().find_map(|before| inner.strip_prefix(before));
    let (number, inner) = match (resampler, inner.strip_prefix("resnets.")) {
        (Some(inner), _) => (last, inner.to_owned()),
        (None, Some(inner)) => {
            let (number, inner) = inner.split_once('.')?;
            (number.parse().ok()?, resnet_original(inner)?)
        }
        // The flat list of the encoder.
        (None, None) => {
            let plain = ["resample.", "time_conv."].iter().any(|own| inner.starts_with(own));
            let inner = if plain { inner.to_owned() } else { resnet_original(inner)? };
            return Some(format!("{list}.{level}.{inner}"));
        }
    };
    Some(match is_nested {
        true => format!("{list}.{level}.{list}.{number}.{inner}"),
        false => format!("{list}.{}.{inner}", level * (last + 1) + number),
    })
}

fn turned<'a>((from, to): (&'a str, &'a str)) -> (&'a str, &'a str) {
    (to, from)
}

/// What stands alone in an autoencoder: the names of its authors, and diffusers'.
const WHOLE: [(&str, &str); 2] = [("conv1", "quant_conv"), ("conv2", "post_quant_conv")];

/// The same of what stands before and behind the levels of an encoder or decoder, and between them.
const ENDS: [(&str, &str); 4] = [
    ("conv1", "conv_in"),
    ("middle.1", "mid_block.attentions.0"),
    ("head.0", "norm_out"),
    ("head.2", "conv_out"),
];

/// The same inside a residual block.
const RESNET: [(&str, &str); 5] = [
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
];

/// What stands before and behind the levels, and between them, by the names of diffusers.
fn ends(name: &str) -> Option<String> {
    if let Some(end) = ENDS.into_iter().find_map(|names| renamed(name, names)) {
        return Some(end);
    }
    let middle = [("middle.0.", 0), ("middle.2.", 1)];
    middle.into_iter().find_map(|(before, index)| {
        Some(format!("mid_block.resnets.{index}.{}", of_resnet(name.strip_prefix(before)?)?))
    })
}

/// The levels: in a flat list (2.1; a level of the decoder has four entries), or a list of lists
/// (2.2).
fn levels(name: &str, list: &str, is_encoder: bool) -> Option<String> {
    let (index, inner) = name.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let resampled =
        |inner: &str| ["resample.", "time_conv."].iter().any(|own| inner.starts_with(own));
    let block = if is_encoder { "down_blocks" } else { "up_blocks" };
    if let Some(rest) = inner.strip_prefix(list).and_then(|rest| rest.strip_prefix('.')) {
        let (number, inner) = rest.split_once('.')?;
        let sampler = if is_encoder { "downsampler" } else { "upsampler" };
        return match resampled(inner) {
            true => Some(format!("{block}.{index}.{sampler}.{inner}")),
            false => Some(format!("{block}.{index}.resnets.{number}.{}", of_resnet(inner)?)),
        };
    }
    match (is_encoder, resampled(inner)) {
        (true, true) => Some(format!("{block}.{index}.{inner}")),
        (true, false) => Some(format!("{block}.{index}.{}", of_resnet(inner)?)),
        (false, true) => Some(format!("{block}.{}.upsamplers.0.{inner}", index / 4)),
        (false, false) => {
            Some(format!("{block}.{}.resnets.{}.{}", index / 4, index % 4, of_resnet(inner)?))
        }
    }
}

/// Names inside a residual block.
fn of_resnet(name: &str) -> Option<String> {
    RESNET.into_iter().find_map(|names| renamed(name, names))
}

/// The same the other way round.
fn resnet_original(name: &str) -> Option<String> {
    RESNET.into_iter().find_map(|names| renamed(name, turned(names)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name with its beginning exchanged, if that is it.
fn renamed(name: &str, (from, to): (&str, &str)) -> Option<String> {
    let rest = name.strip_prefix(from)?;
    (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_conversion() {
        for (diffusers, wan) in [
            ("blocks.12.attn1.to_out.0.weight", "blocks.12.self_attn.o.weight"),
            ("blocks.0.attn2.add_k_proj.bias", "blocks.0.cross_attn.k_img.bias"),
            ("blocks.0.norm2.weight", "blocks.0.norm3.weight"),
            ("blocks.3.scale_shift_table", "blocks.3.modulation"),
            ("blocks.3.ffn.net.0.proj.weight", "blocks.3.ffn.0.weight"),
            ("vace_blocks.1.proj_out.weight", "vace_blocks.1.after_proj.weight"),
            ("proj_out.weight", "head.head.weight"),
            ("scale_shift_table", "head.modulation"),
            ("condition_embedder.time_proj.bias", "time_projection.1.bias"),
        ] {
            assert_eq!(original(diffusers).as_deref(), Some(wan));
            assert_eq!(super::diffusers(wan).as_deref(), Some(diffusers));
        }
        for unknown in ["blocks.0.norm20.weight", "blocks.x.norm2.weight", "proj_outer", "other"] {
            assert_eq!(original(unknown), None);
        }
    }

    #[test]
    fn names_of_the_autoencoder_are_those_of_the_conversion() {
        for (wan, diffusers) in [
            ("conv1.weight", "quant_conv.weight"),
            ("conv2.bias", "post_quant_conv.bias"),
            ("encoder.conv1.weight", "encoder.conv_in.weight"),
            ("encoder.middle.0.residual.3.gamma", "encoder.mid_block.resnets.0.norm2.gamma"),
            ("decoder.middle.1.to_qkv.weight", "decoder.mid_block.attentions.0.to_qkv.weight"),
            ("decoder.middle.2.residual.6.bias", "decoder.mid_block.resnets.1.conv2.bias"),
            ("decoder.head.0.gamma", "decoder.norm_out.gamma"),
            ("encoder.head.2.weight", "encoder.conv_out.weight"),
            ("encoder.downsamples.3.shortcut.weight", "encoder.down_blocks.3.conv_shortcut.weight"),
            ("encoder.downsamples.5.time_conv.bias", "encoder.down_blocks.5.time_conv.bias"),
            (
                "decoder.upsamples.4.shortcut.weight",
                "decoder.up_blocks.1.resnets.0.conv_shortcut.weight",
            ),
            (
                "decoder.upsamples.7.resample.1.weight",
                "decoder.up_blocks.1.upsamplers.0.resample.1.weight",
            ),
            (
                "decoder.upsamples.14.residual.2.weight",
                "decoder.up_blocks.3.resnets.2.conv1.weight",
            ),
            (
                "encoder.downsamples.1.downsamples.0.shortcut.weight",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            ),
            (
                "encoder.downsamples.0.downsamples.2.resample.1.weight",
                "encoder.down_blocks.0.downsampler.resample.1.weight",
            ),
            (
                "decoder.upsamples.1.upsamples.2.residual.6.bias",
                "decoder.up_blocks.1.resnets.2.conv2.bias",
            ),
            (
                "decoder.upsamples.0.upsamples.3.time_conv.weight",
                "decoder.up_blocks.0.upsampler.time_conv.weight",
            ),
        ] {
            assert_eq!(vae_diffusers(wan).as_deref(), Some(diffusers));
            let is_nested = wan.matches("samples.").count() > 1;
            assert_eq!(vae_original(diffusers, is_nested).as_deref(), Some(wan));
        }
        for unknown in
            ["encoder.conv_in.weight", "decoder.upsamples.x.residual.0.gamma", "head.0.gamma"]
        {
            assert_eq!(vae_diffusers(unknown), None);
            assert_eq!(vae_original("encoder.down_blocks.x.norm1.gamma", false), None);
        }
    }
}
