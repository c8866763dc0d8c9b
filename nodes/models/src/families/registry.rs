//! The families that are known, and which of them a checkpoint is of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::checkpoint::{
    Checkpoint, DataFile, DetectedPart, ModelFiles, ModelFolder, PartFiles, SingleForm,
    SingleFormat, SinglePart, bundled_parts, part_names,
};
use crate::error::{Error, Result};
use crate::model::{Family, LayerJoins, Model};
use crate::text::brought_tokenizers;
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

/// The single files that a model is put together of.
#[derive(Clone, Copy, Default)]
pub struct SingleFiles<'a> {
    /// A file that is the model: a transformer alone, or one of several parts, of which those count
    /// that have no file of their own.
    pub whole: Option<&'a Path>,
    /// Which part a file is, and where it lies.
    pub parts: &'a [(&'static str, PathBuf)],
}

impl SingleFiles<'_> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.parts.is_empty()
    }
}

/// Models that are put together of single files.
impl Families {
    /// Opens a model of which some parts stand in files, alone or several in one, and the rest, if
    /// there is one, lies in `folder`.
    ///
    /// # Errors
    /// When a file is none of the part that it is given for, or of no family that is known.
    pub fn assemble(
        &self,
        folder: Option<&ModelFolder>,
        singles: &SingleFiles<'_>,
    ) -> Result<Checkpoint> {
        let mut assembly = Assembly::new(self);
        // What the transformer is of says which encoders are meant: they are shared by families.
        let mut others = Vec::new();
        if let Some(path) = singles.whole {
            let files = open(path)?;
            let bundled = bundled_parts(&files);
            if bundled.is_empty() {
                assembly.add(part_names::TRANSFORMER, path, files)?;
            }
            for (part, files) in bundled {
                match part {
                    part_names::TRANSFORMER => assembly.add(part, path, files)?,
                    _ => others.push((part, path, files)),
                }
            }
        }
        for (part, path) in singles.parts {
            let files = open(path)?;
            let mut bundled = bundled_parts(&files);
            let is_own = |(own, _): &(&str, PartFiles)| own == part;
            let may_be = |(own, _): &(&str, PartFiles)| fits(part, own);
            let own = bundled.iter().position(is_own).or(bundled.iter().position(may_be));
            assembly.add(part, path, own.map_or(files, |at| bundled.swap_remove(at).1))?;
        }
        for (part, path, files) in others {
            assembly.add_if_missing(part, path, files)?;
        }
        with_tokenizers(assembly.finish(folder)?)
    }

    /// Opens what a file holds, whichever parts of a model these are.
    ///
    /// # Errors
    /// When no family knows it, or the one that does cannot tell its sizes.
    pub fn open_file(&self, path: &Path) -> Result<Checkpoint> {
        let files = open(path)?;
        if !bundled_parts(&files).is_empty() {
            return self.assemble(None, &SingleFiles { whole: Some(path), parts: &[] });
        }
        let (_, found) = self.detect(&files, None)?;
        let parts = &[(found.part, path.to_owned())];
        self.assemble(None, &SingleFiles { whole: None, parts })
    }

    /// The name of the family that knows a file, and the parts (of [`part_names`]) that it holds, each
    /// with its weights.
    ///
    /// # Errors
    /// When no family knows it, or the one that does cannot tell its sizes.
    pub fn identify(&self, files: &PartFiles) -> Result<(&str, Vec<(&'static str, PartFiles)>)> {
        let bundled = bundled_parts(files);
        if bundled.is_empty() {
            let (family, found) = self.detect(files, None)?;
            return Ok((family.name(), vec![(found.part, files.clone())]));
        }
        let (mut family, mut parts) = (None, Vec::new());
        for (_, files) in bundled {
            let (own, found) = self.detect(&files, family)?;
            family = family.or(Some(own));
            parts.push((found.part, files));
        }
        Ok((family.map_or("", |family| family.name()), parts))
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

    /// Layers of a part that stand otherwise where it is written.
    pub(crate) fn joins(
        &self,
        checkpoint: &Checkpoint,
        part: &str,
        format: Option<SingleFormat>,
    ) -> Option<LayerJoins> {
        let family = self.0.iter().find(|family| family.recognises(checkpoint));
        family.and_then(|family| family.joins(part, format))
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

/// A model that is being put together of files.
struct Assembly<'a> {
    families: &'a Families,
    /// That of the first part.
    family: Option<&'a Arc<dyn Family>>,
    parts: Vec<(&'static str, Value)>,
    opened: Vec<SinglePart>,
}

impl<'a> Assembly<'a> {
    fn new(families: &'a Families) -> Self {
        Assembly { families, family: None, parts: Vec::new(), opened: Vec::new() }
    }

    /// What a file is, and which part of this model: of two text encoders, the family of the model
    /// knows which is which.
    fn detect(
        &mut self,
        part: &'static str,
        (path, files): (&Path, &PartFiles),
    ) -> Result<(&'static str, DetectedPart)> {
        let (own, detected) = self.families.detect(files, self.family)?;
        let found = detected.part;
        if !fits(part, found) {
            let reason = format!("this is {}, not {}", article(found), article(part));
            return Err(Error::Config { file: path.display().to_string(), reason });
        }
        let part = if is_encoder(part) && self.family.is_some() { found } else { part };
        self.family = self.family.or(Some(own));
        Ok((part, detected))
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|(other, _)| *other == part)
    }

    /// Adds a file as a part.
    fn add(&mut self, part: &'static str, path: &Path, files: PartFiles) -> Result<()> {
        let (part, detected) = self.detect(part, (path, &files))?;
        if self.has(part) {
            let reason = format!("this is {}, and there is one already", article(part));
            return Err(Error::Config { file: path.display().to_string(), reason });
        }
        self.put(part, path, (files, detected));
        Ok(())
    }

    /// The same, unless there is such a part already.
    fn add_if_missing(&mut self, part: &'static str, path: &Path, files: PartFiles) -> Result<()> {
        let (part, detected) = self.detect(part, (path, &files))?;
        if !self.has(part) {
            self.put(part, path, (files, detected));
        }
        Ok(())
    }

    fn put(
        &mut self,
        part: &'static str,
        path: &Path,
        (files, detected): (PartFiles, DetectedPart),
    ) {
        let DetectedPart { config, rename, originals, cut, .. } = detected;
        let files = match &cut {
            Some(cut) => files.cut(cut),
            None => files,
        };
        let files = Arc::new(files.renamed(rename, originals));
        self.parts.push((part, config));
        self.opened.push(SinglePart { part, path: path.to_owned(), files });
    }

    /// The model, with what lies in `folder`.
    fn finish(self, folder: Option<&ModelFolder>) -> Result<Checkpoint> {
        let config = |(part, config): &(&str, Value)| {
            (format!("{part}/config.json"), config.to_string().into_bytes())
        };
        let mut configs: Vec<(String, Vec<u8>)> = self.parts.iter().map(config).collect();
        if let Some(family) = self.family {
            configs.extend(family.configs(&self.parts, folder)?);
        }
        Checkpoint::assemble(folder, self.opened, configs)
    }
}

/// Opens a folder in the diffusers layout, with the tokenizers that it lacks and that the engine
/// brings.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn open_folder(folder: &ModelFolder) -> Result<Checkpoint> {
    with_tokenizers(Checkpoint::open(folder)?)
}

/// The same model with the tokenizers that it lacks and that the engine brings.
fn with_tokenizers(checkpoint: Checkpoint) -> Result<Checkpoint> {
    let brought = brought_tokenizers(&checkpoint)?;
    Ok(checkpoint.with_tokenizers(brought))
}

/// Opens a file of weights.
fn open(path: &Path) -> Result<PartFiles> {
    PartFiles::of_file(DataFile::open(path, &path.display().to_string())?)
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
