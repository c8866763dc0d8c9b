//! What a folder is that is no model in the diffusers layout: one part of a model, or a folder of
//! several. It opens nothing: whoever asks has listed the folder and read its config.

use serde_json::Value;

use super::single::part_names;

/// Files of a message at most.
const SHOWN: usize = 3;

/// What a folder is instead, and what to name: by its files (those in folders of it included), its
/// `config.json`, and whether the folder above it is a model.
pub(super) fn told(files: &[String], config: Option<&Value>, is_in_model: bool) -> Option<String> {
    let is_weights = |file: &&String| {
        let file = file.to_ascii_lowercase();
        file.ends_with(".safetensors") || file.ends_with(".gguf")
    };
    let weights: Vec<&String> = files.iter().filter(is_weights).collect();
    if let Some((part, class)) = config.and_then(part_of) {
        return Some(of_part((part, &class), &weights, is_in_model));
    }
    // With configs of parts it is a model that lacks its index.
    if files.iter().any(|file| file.ends_with("/config.json")) {
        return None;
    }
    let index = |file: &String| file.ends_with("/model_index.json");
    let models = files.iter().filter(|file| index(file)).filter_map(|file| file.split('/').next());
    let held: Vec<&str> = models.chain(weights.into_iter().map(String::as_str)).collect();
    let shown: Vec<_> = held.iter().take(SHOWN).map(|own| kino_port::escape_line(own)).collect();
    let more = match held.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!held.is_empty()).then(|| {
        format!(
            "the folder holds several models or files of them ({}{more}): name one of these, or the \
             folder once (`kino config set models FOLDER`), and then each by its name",
            shown.join(", ")
        )
    })
}

/// Which part a config is of, by its class.
fn part_of(config: &Value) -> Option<(&'static str, String)> {
    let class = config["_class_name"].as_str().or_else(|| config["architectures"][0].as_str())?;
    let has = |word: &str| class.contains(word);
    let part = match () {
        () if has("Transformer") => part_names::TRANSFORMER,
        () if has("Autoencoder") => part_names::VAE,
        () if has("Vision") => part_names::IMAGE_ENCODER,
        () if has("Encoder") || has("TextModel") => part_names::TEXT_ENCODER,
        () => return None,
    };
    Some((part, kino_port::escape_line(class).into_owned()))
}

fn of_part((part, class): (&str, &str), weights: &[&String], is_in_model: bool) -> String {
    let is = format!("the folder is one part of a model alone, its {part} ({class})");
    match (weights, is_in_model) {
        (_, true) => format!("{is}: the folder above it is the model"),
        ([one], false) => format!(
            "{is}: its file {} goes to the port `{part}` of `model.load`, beside the other parts",
            kino_port::escape_line(one)
        ),
        _ => format!("{is}: a model is the folder with the other parts and model_index.json"),
    }
}
