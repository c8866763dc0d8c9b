//! T5 and UMT5 encoders as single files, which have neither a config nor a tokenizer beside them.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::json;

use super::config::PromptForm;
use crate::checkpoint::{DetectedPart, PartFiles, count_blocks};
use crate::error::{Error, Result};

/// The tokenizers of UMT5-XXL (google/umt5-xxl) and T5 v1.1 XXL (google/t5-v1_1-xxl), both
/// Apache-2.0, compressed by gzip.
static UMT5_TOKENIZER: &[u8] = include_bytes!("../../assets/umt5-xxl.tokenizer.json.gz");
static T5_TOKENIZER: &[u8] = include_bytes!("../../assets/t5-v1_1-xxl.tokenizer.json.gz");
/// Their length when unpacked, at most.
const LONGEST: u64 = 16 << 20;

/// What another program calls something, and what transformers does.
type Names = (&'static str, &'static str);

/// What llama.cpp calls the weights of an encoder (`MODEL_ARCH.T5ENCODER` of its gguf-py) outside
/// of the layers, and what transformers calls them.
const OUTER: [Names; 2] =
    [("token_embd", "shared"), ("enc.output_norm", "encoder.final_layer_norm")];

/// The same inside a layer.
const INNER: [Names; 10] = [
    ("attn_q", "layer.0.SelfAttention.q"),
    ("attn_k", "layer.0.SelfAttention.k"),
    ("attn_v", "layer.0.SelfAttention.v"),
    ("attn_o", "layer.0.SelfAttention.o"),
    ("attn_rel_b", "layer.0.SelfAttention.relative_attention_bias"),
    ("attn_norm", "layer.0.layer_norm"),
    ("ffn_gate", "layer.1.DenseReluDense.wi_0"),
    ("ffn_up", "layer.1.DenseReluDense.wi_1"),
    ("ffn_down", "layer.1.DenseReluDense.wo"),
    ("ffn_norm", "layer.1.layer_norm"),
];

/// What Wan's authors call the weights of UMT5 (`wan/modules/t5.py`) outside of the layers, and
/// what transformers calls them.
const WAN_OUTER: [Names; 2] = [("token_embedding", "shared"), ("norm", "encoder.final_layer_norm")];

/// The same inside a layer.
const WAN_INNER: [Names; 10] = [
    ("attn.q", "layer.0.SelfAttention.q"),
    ("attn.k", "layer.0.SelfAttention.k"),
    ("attn.v", "layer.0.SelfAttention.v"),
    ("attn.o", "layer.0.SelfAttention.o"),
    ("pos_embedding.embedding", "layer.0.SelfAttention.relative_attention_bias"),
    ("norm1", "layer.0.layer_norm"),
    ("ffn.gate.0", "layer.1.DenseReluDense.wi_0"),
    ("ffn.fc1", "layer.1.DenseReluDense.wi_1"),
    ("ffn.fc2", "layer.1.DenseReluDense.wo"),
    ("norm2", "layer.1.layer_norm"),
];

/// What transformers calls a weight that llama.cpp or Wan's authors call `name`; none where it is
/// not one of theirs.
fn transformers(name: &str) -> Option<String> {
    let layer = name.strip_suffix(".weight")?;
    let mut outer = OUTER.iter().chain(&WAN_OUTER);
    if let Some((_, own)) = outer.find(|(other, _)| *other == layer) {
        return Some(format!("{own}.weight"));
    }
    let (names, inner) = match layer.strip_prefix("enc.blk.") {
        Some(inner) => (&INNER, inner),
        None => (&WAN_INNER, layer.strip_prefix("blocks.")?),
    };
    let (index, inner) = inner.split_once('.')?;
    let (_, own) = names.iter().find(|(other, _)| *other == inner)?;
    let index: usize = index.parse().ok()?;
    Some(format!("encoder.block.{index}.{own}.weight"))
}

/// What a weight that transformers calls `name` is called in files: by transformers, by llama.cpp,
/// and by Wan's authors.
fn originals(name: &str) -> Vec<String> {
    let wan = named(name, &WAN_OUTER, ("blocks.", &WAN_INNER));
    let own = || name.to_owned();
    [Some(own()), llama(name), wan].into_iter().map(|way| way.unwrap_or_else(own)).collect()
}

/// What llama.cpp calls a weight that transformers calls `name`; none where it is not one of these.
pub(super) fn llama(name: &str) -> Option<String> {
    named(name, &OUTER, ("enc.blk.", &INNER))
}

/// The same by any tables, with what stands before the number of a layer.
fn named(name: &str, outer: &[Names], (blocks, inner): (&str, &[Names])) -> Option<String> {
    let layer = name.strip_suffix(".weight")?;
    let other = |names: &[Names], layer: &str| {
        names.iter().find(|(_, own)| *own == layer).map(|(other, _)| *other)
    };
    let own = match layer.strip_prefix("encoder.block.").and_then(|rest| rest.split_once('.')) {
        Some((index, rest)) => format!("{blocks}{index}.{}", other(inner, rest)?),
        None => other(outer, layer)?.to_owned(),
    };
    Some(format!("{own}.weight"))
}

/// The encoder that a file is, with the names of transformers or of llama.cpp; none where it is
/// not that of `form`: UMT5 has a table of relative biases in every layer, T5 one in the first.
pub(crate) fn detect(files: &PartFiles, form: &PromptForm) -> Option<DetectedPart> {
    let rename = |name: &str| Some(transformers(name).unwrap_or_else(|| name.to_owned()));
    let named = files.names().into_iter();
    let shapes: HashMap<String, &[usize]> =
        named.filter_map(|name| Some((rename(name)?, files.shape(name)?))).collect();
    let shape = |name: &str| shapes.get(name).copied();
    let layer = |index: usize, name: &str| {
        shape(&format!("encoder.block.{index}.layer.0.SelfAttention.{name}.weight"))
    };
    let (query, bias) = (layer(0, "q")?, layer(0, "relative_attention_bias")?);
    let layers = count_blocks(shapes.keys().map(String::as_str), "encoder.block.");
    let is_shared = layers > 1 && layer(1, "relative_attention_bias").is_none();
    if is_shared != (form.model_type == "t5") {
        return None;
    }
    let table = ["shared.weight", "encoder.embed_tokens.weight"];
    let (Some(&[vocabulary, width]), &[attended, _], &[buckets, heads]) =
        (table.iter().find_map(|name| shape(name)), query, bias)
    else {
        return None;
    };
    let inner = shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?;
    let derived = json!({
        "model_type": form.model_type,
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": attended / heads.max(1),
        "d_ff": inner.first()?,
        "num_layers": layers,
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
    });
    let config = files.own_config().unwrap_or(derived);
    Some(DetectedPart::new(form.encoder, config, rename).with_originals(originals))
}

/// The tokenizer for an encoder of this type that reads so many tokens, as files of a model in a
/// folder: path and contents.
///
/// # Errors
/// When it cannot be unpacked.
pub(super) fn tokenizer(
    model_type: &str,
    folder: &str,
    longest: usize,
) -> Result<Vec<(String, Vec<u8>)>> {
    let (packed, name) = match model_type {
        "t5" => (T5_TOKENIZER, "the tokenizer of T5 v1.1 XXL"),
        _ => (UMT5_TOKENIZER, "the tokenizer of UMT5-XXL"),
    };
    let mut json = Vec::new();
    GzDecoder::new(packed)
        .take(LONGEST)
        .read_to_end(&mut json)
        .map_err(|source| Error::Io { file: name.to_owned(), source })?;
    let config = json!({"model_max_length": longest, "eos_token": "</s>"});
    Ok(vec![
        (format!("{folder}/tokenizer.json"), json),
        (format!("{folder}/tokenizer_config.json"), config.to_string().into_bytes()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of transformers' `T5TokenizerFast` of google/umt5-xxl and google/t5-v1_1-xxl.
    #[test]
    fn the_tokenizers_that_are_brought_along_are_those_of_the_encoders() {
        for (model_type, ids) in [
            ("umt5", &[289, 4062, 82364, 124_850, 4170, 369, 289, 10021, 18752][..]),
            ("t5", &[3, 9, 1131, 8196, 6914, 269, 30, 3, 9, 872, 2458][..]),
        ] {
            let files = tokenizer(model_type, "tokenizer_2", 128).unwrap();
            let path = "tokenizer_2/tokenizer.json";
            let json = &files.iter().find(|(own, _)| own == path).unwrap().1;
            let tokenizer = tokenizers::Tokenizer::from_bytes(json).unwrap();
            let encoded =
                tokenizer.encode("a red circle moves right on a white background", false).unwrap();
            assert_eq!(encoded.get_ids(), ids);
            assert_eq!(tokenizer.token_to_id("</s>"), Some(1));
        }
    }
}
