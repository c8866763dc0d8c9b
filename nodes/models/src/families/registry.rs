//! The families that are known, and which of them a checkpoint is of.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{
    Checkpoint, DataFile, DetectedPart, ModelFiles, ModelFolder, PartFiles, SingleForm,
    SingleFormat, SinglePart, part_names,
};
use crate::error::{Error, Result};
use crate::model::{Family, Model};
use crate::weight::LoraSpec;

/// Families in the order in which they are asked.
#[derive(Clone)]
pub struct Families(Vec<Arc<dyn Family>>);

impl Default for Families {
    /// Those that are built in.
    fn default() -> Self {
        Self(vec![
            Arc::new(super::wan::Wan),
            Arc::new(super::ltx::Ltx),
            Arc::new(super::flux::Flux),
        ])
    }
}

impl Families {
    /// The same families with one more, which is asked first.
    #[must_use]
    pub fn with(mut self, family: Arc<dyn Family>) -> Self {
        self.0.insert(0, family);
        self
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|family| family.name()).collect()
    }

    /// The parts of a checkpoint, as the family that recognises it reads them.
    ///
    /// # Errors
    /// When no family does, or the family refuses it.
    pub fn read(&self, checkpoint: &Checkpoint) -> Result<Model> {
        match self.0.iter().find(|family| family.recognises(checkpoint)) {
            Some(family) => family.read(checkpoint),
            None => Err(unknown(checkpoint)),
        }
    }
}

/// Models that are put together of single files.
impl Families {
    /// Opens a model of which `singles` (part and path) stand alone in files, and the rest, if there
    /// is one, lies in `folder`.
    ///
    /// # Errors
    /// When a file is none of the part that it is given for, or of no family that is known.
    pub fn assemble(
        &self,
        folder: Option<&ModelFolder>,
        singles: &[(&'static str, PathBuf)],
    ) -> Result<Checkpoint> {
        let (mut parts, mut configs, mut opened) = (Vec::new(), Vec::new(), Vec::new());
        let mut family: Option<&Arc<dyn Family>> = None;
        for (part, path) in singles {
            let name = path.display().to_string();
            let files = of_bundle(PartFiles::of_file(DataFile::open(path, &name)?)?, part);
            let (own, detected) = self.detect(&files, family)?;
            let DetectedPart { part: found, config, rename, cut } = detected;
            if !fits(part, found) {
                let reason = format!("this is {}, not {}", article(found), article(part));
                return Err(Error::Config { file: name, reason });
            }
            // Which of two text encoders a file is, the family of the model knows.
            let part = if is_encoder(part) && family.is_some() { found } else { *part };
            if parts.iter().any(|(other, _)| *other == part) {
                let reason = format!("this is {}, and there is one already", article(part));
                return Err(Error::Config { file: name, reason });
            }
            family = family.or(Some(own));
            configs.push((format!("{part}/config.json"), config.to_string().into_bytes()));
            parts.push((part, config));
            let files = match &cut {
                Some(cut) => files.cut(cut),
                None => files,
            };
            let files = Arc::new(files.renamed(rename));
            opened.push(SinglePart { part, path: path.clone(), files });
        }
        if let Some(family) = family {
            configs.extend(family.configs(&parts, folder)?);
        }
        Checkpoint::assemble(folder, opened, configs)
    }

    /// The name of the family that knows a file, and which of its parts the file is (one of
    /// [`part_names`]).
    ///
    /// # Errors
    /// When no family knows it, or the one that does cannot tell its sizes.
    pub fn identify(&self, files: &PartFiles) -> Result<(&str, &'static str)> {
        self.detect(files, None).map(|(family, found)| (family.name(), found.part))
    }

    /// The name of the family that recognises a checkpoint.
    pub fn name_of(&self, checkpoint: &Checkpoint) -> Option<&str> {
        let found = self.0.iter().find(|family| family.recognises(checkpoint));
        found.map(|family| family.name())
    }

    /// How a part of a model stands alone in a file of this format, as others read it.
    ///
    /// # Errors
    /// When no family knows, or what the form needs of the model cannot be read.
    pub fn single_form(
        &self,
        checkpoint: &Checkpoint,
        part: &str,
        format: SingleFormat,
    ) -> Result<SingleForm> {
        let family = self.0.iter().find(|family| family.recognises(checkpoint));
        let form = match family {
            Some(family) => family.single_form(checkpoint, part, format)?,
            None => None,
        };
        form.ok_or_else(|| Error::Unsupported {
            file: checkpoint.describe(part),
            what: format!("{} of this family as a file of its own", article(part)),
        })
    }

    /// The family that knows a file, and which of its parts the file is. That of the model is asked
    /// first, where it is known: families share encoders.
    fn detect<'a>(
        &'a self,
        files: &PartFiles,
        first: Option<&'a Arc<dyn Family>>,
    ) -> Result<(&'a Arc<dyn Family>, DetectedPart)> {
        for family in first.into_iter().chain(&self.0) {
            if let Some(found) = family.detect(files)? {
                return Ok((family, found));
            }
        }
        let names = files.names();
        let first =
            names.first().map_or_else(String::new, |name| format!(" (its first is `{name}`)"));
        let reason = match LoraSpec::read(files) {
            Ok(_) => "it is a LoRA, which `lora.apply` puts beside a transformer".to_owned(),
            Err(_) => {
                format!("no part of a model that is known has weights of these names{first}")
            }
        };
        Err(Error::Config { file: files.describe().to_owned(), reason })
    }
}

/// What stands before the names of each part in files that hold several (ComfyUI's "checkpoints").
const BUNDLES: [(&str, &[&str]); 3] = [
    (part_names::TRANSFORMER, &["model.diffusion_model."]),
    (part_names::VAE, &["vae.", "first_stage_model."]),
    (part_names::TEXT_ENCODER, &["text_encoders.", "cond_stage_model.", "conditioner."]),
];

/// The weights of one part, where a file holds several; all of them where it holds one.
fn of_bundle(files: PartFiles, part: &str) -> PartFiles {
    let is_in = |name: &str, bundle: &[&str]| bundle.iter().any(|own| name.starts_with(own));
    let has = |bundle: &[&str]| files.names().into_iter().any(|name| is_in(name, bundle));
    let there = BUNDLES.iter().filter(|(_, bundle)| has(bundle)).count();
    let own = BUNDLES.iter().find(|(name, _)| *name == part).map(|(_, bundle)| *bundle);
    match own.filter(|own| there > 1 && has(own)) {
        Some(own) => files.keeping(|name| is_in(name, own)),
        None => files,
    }
}

/// Whether a file of one part may stand for another: a transformer is either expert, and of text
/// encoders the config says which is which.
fn fits(part: &str, found: &str) -> bool {
    part == found
        || (part, found) == (part_names::LOW_NOISE, part_names::TRANSFORMER)
        || is_encoder(part) && is_encoder(found)
}

/// Whether a part is a text encoder.
fn is_encoder(part: &str) -> bool {
    [part_names::TEXT_ENCODER, part_names::TEXT_ENCODER_2].contains(&part)
}

/// A part, in words.
fn article(part: &str) -> &'static str {
    match part {
        part_names::TRANSFORMER | part_names::LOW_NOISE => "a transformer",
        part_names::VAE => "a VAE",
        part_names::TEXT_ENCODER | part_names::TEXT_ENCODER_2 => "a text encoder",
        _ => "an image encoder",
    }
}

/// What a checkpoint calls itself, which no family knows.
fn unknown(checkpoint: &Checkpoint) -> Error {
    #[derive(serde::Deserialize)]
    struct Index {
        #[serde(rename = "_class_name")]
        class: String,
    }
    let file = "model_index.json";
    match checkpoint.json::<Index>(file) {
        Ok(index) => Error::Unsupported {
            file: checkpoint.describe(file),
            what: format!("`{}`", index.class),
        },
        Err(error) => error,
    }
}
