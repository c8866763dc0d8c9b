//! CLIP vision encoders as single files, which have no config beside them.

use serde_json::{Value, json};

use crate::checkpoint::{DetectedPart, PartFiles, SingleForm, count_blocks, part_names};
use crate::error::{Error, Result};

/// Widths of published encoders, with the number of their heads, which shapes do not say: ViT-B, L,
/// H (OpenCLIP's `ViT-H-14`), bigG.
const HEADS: [(usize, usize); 4] = [(768, 12), (1024, 16), (1280, 16), (1664, 16)];

/// The encoder that a file is, with the names of transformers; none where it is another part.
///
/// # Errors
/// When its width is none that is published.
pub(crate) fn detect(files: &PartFiles) -> Result<Option<DetectedPart>> {
    let wrapper = ["vision_model.", ""]
        .into_iter()
        .find(|wrapper| files.shape(&format!("{wrapper}embeddings.class_embedding")).is_some());
    let Some(wrapper) = wrapper else { return Ok(None) };
    let config = match files.own_config() {
        Some(config) => Some(config),
        None => config_of(files, wrapper)?,
    };
    let rename = |name: &str| Some(name.to_owned());
    Ok(config.map(|config| DetectedPart::new(part_names::IMAGE_ENCODER, config, rename)))
}

/// The config of an encoder, by the shapes of its weights, whose names begin with `wrapper`; none
/// where one of those that say it is not there.
fn config_of(files: &PartFiles, wrapper: &str) -> Result<Option<Value>> {
    let shape = |name: &str| files.shape(&format!("{wrapper}{name}"));
    let first = |name: &str| shape(name).and_then(|shape| shape.first());
    let (Some(&[width, 3, side, _]), Some(rows), Some(inner)) = (
        shape("embeddings.patch_embedding.weight"),
        first("embeddings.position_embedding.weight"),
        first("encoder.layers.0.mlp.fc1.weight"),
    ) else {
        return Ok(None);
    };
    let Some((_, heads)) = HEADS.iter().find(|(own, _)| *own == width) else {
        let known: Vec<String> = HEADS.iter().map(|(width, _)| width.to_string()).collect();
        let reason = format!(
            "an image encoder {width} wide: how many heads it has does not follow from its weights \
             (known are the widths {}); load it from a folder with its config.json",
            known.join(", ")
        );
        return Err(Error::Config { file: files.describe().to_owned(), reason });
    };
    Ok(Some(json!({
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": count_blocks(files.names(), &format!("{wrapper}encoder.layers.")),
        "num_attention_heads": heads,
        "image_size": rows.saturating_sub(1).isqrt() * side,
        "patch_size": side,
        // OpenAI's own, up to ViT-L, have the quick form; those after it the exact one.
        "hidden_act": if width > 1024 { "gelu" } else { "quick_gelu" },
    })))
}

/// How such an encoder stands alone in a file: by the names of transformers, as ComfyUI reads it.
pub(crate) fn single_form() -> SingleForm {
    let rename = Box::new(|name: &str| Some(name.to_owned()));
    SingleForm::new("clip_vision", rename, crate::clip::narrow)
}

/// How CLIP makes pictures ready for an encoder of this config, as a file of a model.
pub(crate) fn processor(config: &Value) -> (String, Vec<u8>) {
    let side = &config["image_size"];
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true, "size": {"shortest_edge": side}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": side, "width": side},
        "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "do_convert_rgb": true,
    });
    ("image_processor/preprocessor_config.json".to_owned(), processor.to_string().into_bytes())
}
