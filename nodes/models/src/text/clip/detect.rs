//! CLIP text encoders as single files, which have neither a config nor a tokenizer beside them.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use crate::checkpoint::{DetectedPart, PartFiles, SingleForm, count_blocks, part_names};
use crate::error::{Error, Result};

/// The merges of CLIP's tokenizer (openai/CLIP, MIT: the first 48,894 of
/// `bpe_simple_vocab_16e6.txt`), compressed by gzip. The vocabulary follows from them.
static MERGES: &[u8] = include_bytes!("../../../assets/clip.merges.txt.gz");
/// Their length when unpacked, at most.
const LONGEST: u64 = 4 << 20;

/// Widths of published encoders, with the number of their heads, which shapes do not say: those of
/// ViT-B/32, ViT-L, ViT-H, bigG.
const HEADS: [(usize, usize); 4] = [(512, 8), (768, 12), (1024, 16), (1280, 20)];

/// The encoder that a file is, with the names of transformers.
pub(crate) fn detect(files: &PartFiles) -> Option<DetectedPart> {
    let wrapper = ["text_model.", ""].into_iter().find(|wrapper| {
        files.shape(&format!("{wrapper}embeddings.token_embedding.weight")).is_some()
    })?;
    let found = |config| {
        DetectedPart::new(part_names::TEXT_ENCODER, config, |name: &str| Some(name.to_owned()))
    };
    if let Some(config) = files.own_config() {
        return Some(found(config));
    }
    let shape = |name: &str| files.shape(&format!("{wrapper}{name}"));
    let &[vocabulary, width] = shape("embeddings.token_embedding.weight")? else { return None };
    let &[positions, _] = shape("embeddings.position_embedding.weight")? else { return None };
    let heads = HEADS.iter().find(|(own, _)| *own == width)?.1;
    let layer = |index: usize| shape(&format!("encoder.layers.{index}.mlp.fc1.weight"));
    let config = json!({
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": layer(0)?.first()?,
        "num_hidden_layers": count_blocks(files.names(), &format!("{wrapper}encoder.layers.")),
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        // OpenAI's own, up to ViT-L, have the quick form; those after it the exact one.
        "hidden_act": if width > 768 { "gelu" } else { "quick_gelu" },
        "eos_token_id": vocabulary.checked_sub(1)?,
    });
    Some(found(config))
}

/// How such an encoder stands alone in a file: by the names of transformers, as ComfyUI reads it.
pub(crate) fn single_form() -> SingleForm {
    // Since its fifth version transformers leaves the first word out.
    let rename = |name: &str| match ["embeddings.", "encoder.", "final_layer_norm."]
        .iter()
        .any(|begin| name.starts_with(begin))
    {
        true => Some(format!("text_model.{name}")),
        false => Some(name.to_owned()),
    };
    SingleForm::new("clip_text", Box::new(rename), crate::clip::narrow)
}

/// The tokenizer for such an encoder, as files of a model in the folder `tokenizer`: path and
/// contents.
///
/// # Errors
/// When it cannot be unpacked.
pub(crate) fn tokenizer(folder: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut merges = String::new();
    GzDecoder::new(MERGES)
        .take(LONGEST)
        .read_to_string(&mut merges)
        .map_err(|source| Error::Io { file: "the tokenizer of CLIP".to_owned(), source })?;
    // 256 bytes as characters, the same at the end of a word, what merges join, and two marks.
    let bytes = || (byte_characters()).map(String::from);
    let joined = merges.lines().map(|pair| pair.replace(' ', ""));
    let marks = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let words = bytes().chain(bytes().map(|c| c + "</w>")).chain(joined).chain(marks);
    let vocabulary: Map<String, Value> =
        words.enumerate().map(|(id, word)| (word, Value::from(id))).collect();
    let config = json!({"model_max_length": 77});
    let at = |name: &str| format!("{folder}/{name}");
    Ok(vec![
        (at("vocab.json"), Value::Object(vocabulary).to_string().into_bytes()),
        (at("merges.txt"), merges.into_bytes()),
        (at("tokenizer_config.json"), config.to_string().into_bytes()),
    ])
}

/// The characters that stand for the 256 bytes (`bytes_to_unicode` of GPT-2): those that can be
/// printed stand for themselves and come first, the others lie from U+0100 on.
fn byte_characters() -> impl Iterator<Item = char> {
    let printed = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = 256 - printed.clone().count() as u32;
    printed.chain((256..256 + others).filter_map(char::from_u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ModelFiles;
    use crate::text::clip::ClipTokens;

    /// The files of a model that are not on disk.
    struct Files(Vec<(String, Vec<u8>)>);

    impl ModelFiles for Files {
        fn describe(&self, path: &str) -> String {
            path.to_owned()
        }

        fn bytes(&self, path: &str) -> Result<Vec<u8>> {
            let found = self.0.iter().find(|(name, _)| name == path);
            let missing = || Error::FileMissing { file: path.to_owned(), hint: String::new() };
            found.map(|(_, bytes)| bytes.clone()).ok_or_else(missing)
        }
    }

    /// Ids of transformers' `CLIPTokenizer` of this vocabulary.
    const IDS: [u32; 15] =
        [49406, 320, 736, 3240, 568, 15304, 267, 272, 271, 273, 275, 39121, 19277, 361, 49407];

    #[test]
    fn the_tokenizer_that_is_brought_along_is_that_of_clip() {
        let files = Files(tokenizer("tokenizer").unwrap());
        let tokens = ClipTokens::load(&files, "tokenizer", 77).unwrap();
        let ids = tokens.encode("A red fox's CAFÉ, 1024 日本").unwrap();
        assert_eq!(ids.len(), 77);
        assert_eq!(ids[..IDS.len()], IDS);
        assert!(ids[IDS.len()..].iter().all(|id| *id == 49_407));
    }
}
