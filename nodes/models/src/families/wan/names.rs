//! What the authors of Wan call the layers of the transformer.

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

/// What a layer or weight that diffusers calls `name` is called in the single files of Wan's
/// authors (diffusers' `scripts/convert_wan_to_diffusers.py`, read from right to left).
pub(super) fn original(name: &str) -> Option<String> {
    let numbered = ["blocks", "vace_blocks"].into_iter().find_map(|blocks| {
        let (index, inner) = name.strip_prefix(blocks)?.strip_prefix('.')?.split_once('.')?;
        index.bytes().all(|byte| byte.is_ascii_digit()).then_some((blocks, index, inner))
    });
    match numbered {
        Some((blocks, index, inner)) => {
            let inner = INNER.iter().chain([&AFTER]).find_map(|names| renamed(inner, *names))?;
            Some(format!("{blocks}.{index}.{inner}"))
        }
        None => OUTER.iter().find_map(|names| renamed(name, *names)),
    }
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
        }
        for unknown in ["blocks.0.norm20.weight", "blocks.x.norm2.weight", "proj_outer", "other"] {
            assert_eq!(original(unknown), None);
        }
    }
}
