//! The families that are known, and which of them a checkpoint is of.

use std::sync::Arc;

use crate::checkpoint::{Checkpoint, ModelFiles};
use crate::error::{Error, Result};
use crate::model::{Family, Model};

/// Families in the order in which they are asked.
#[derive(Clone)]
pub struct Families(Vec<Arc<dyn Family>>);

impl Default for Families {
    /// Those that are built in.
    fn default() -> Self {
        Self(vec![Arc::new(super::wan::Wan)])
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
