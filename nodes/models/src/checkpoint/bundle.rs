//! Files that hold several parts of a model (ComfyUI's "checkpoints"): what stands before the names
//! of each. Which model they are of is not known here.

use super::part::PartFiles;
use super::single::part_names;

/// What stands before the names of a transformer and of an autoencoder.
const TRANSFORMER: [&str; 1] = ["model.diffusion_model."];
const VAE: [&str; 2] = ["vae.", "first_stage_model."];
/// What stands before the name of each text encoder, and what may stand behind that.
const TEXT_ENCODERS: [&str; 3] = ["text_encoders.", "cond_stage_model.", "conditioner.embedders."];
const NETWORK: &str = "transformer.";
/// The ports of text encoders, in the order in which a file has them.
const ENCODERS: [&str; 2] = [part_names::TEXT_ENCODER, part_names::TEXT_ENCODER_2];

/// The parts that a file holds, each with its own weights by the names that it has alone; none
/// where the file is one part. Of two text encoders the first by name is called the first: which of
/// them is which, the family of the model knows.
pub(crate) fn parts(files: &PartFiles) -> Vec<(&'static str, PartFiles)> {
    let names = files.names();
    let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let first = |prefixes: &[&'static str]| prefixes.iter().copied().find(|prefix| has(prefix));
    let transformer =
        first(&TRANSFORMER).map(|prefix| (part_names::TRANSFORMER, prefix.to_owned()));
    let vae = first(&VAE).map(|prefix| (part_names::VAE, prefix.to_owned()));
    let encoders = ENCODERS.into_iter().zip(text_encoders(&names));
    let kinds = [transformer.is_some(), vae.is_some(), encoders.clone().next().is_some()];
    if kinds.into_iter().filter(|is_there| *is_there).count() < 2 {
        return Vec::new();
    }
    let found = transformer.into_iter().chain(vae).chain(encoders);
    found.map(|(part, prefix)| (part, files.clone().within(&prefix))).collect()
}

/// What stands before the names of each text encoder.
fn text_encoders(names: &[&str]) -> std::vec::IntoIter<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let Some((before, inner)) =
            TEXT_ENCODERS.iter().find_map(|before| Some((before, name.strip_prefix(before)?)))
        else {
            continue;
        };
        // What has no name of an encoder before it, such as a tokenizer, is none of its weights.
        let Some((encoder, inner)) = inner.split_once('.') else { continue };
        let network = if inner.starts_with(NETWORK) { NETWORK } else { "" };
        let prefix = format!("{before}{encoder}.{network}");
        match found
            .iter_mut()
            .find(|other| other.starts_with(&prefix) || prefix.starts_with(&**other))
        {
            // What stands beside the network is not read.
            Some(other) if prefix.len() > other.len() => *other = prefix,
            Some(_) => {}
            None => found.push(prefix),
        }
    }
    found.into_iter()
}
