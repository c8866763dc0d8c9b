//! A folder that is a snapshot in a Hugging Face cache: the commands that complete it, and whether
//! they can. Nothing is fetched.

use std::path::{Path, PathBuf};

/// A folder in a Hugging Face cache, `models--OWNER--NAME/snapshots/COMMIT`.
pub(super) struct Snapshot {
    /// `models--OWNER--NAME`, with its folder.
    repository: PathBuf,
    /// `OWNER/NAME`.
    name: String,
    commit: String,
}

impl Snapshot {
    /// The snapshot that a folder is, if it is one.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let commit = folder.file_name()?.to_str()?.to_owned();
        let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let repository = snapshots.parent()?.to_owned();
        let name = repository.file_name()?.to_str()?.strip_prefix("models--")?;
        let (owner, model) = name.split_once("--")?;
        Some(Snapshot { name: format!("{owner}/{model}"), commit, repository })
    }

    /// Whether a pull noted that the repository itself lacks a file, by its path or that of its
    /// folder (`.kino/COMMIT.json`, `lacking`).
    pub(super) fn is_lacking(&self, path: &str) -> bool {
        let notes = self.repository.join(".kino").join(format!("{}.json", self.commit));
        let text = std::fs::read(notes).unwrap_or_default();
        let notes: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let mut lacking = notes["lacking"].as_array().into_iter().flatten();
        lacking.any(|own| {
            own.as_str()
                .is_some_and(|own| own == path || own.ends_with('/') && path.starts_with(own))
        })
    }

    /// The revision as our command and the hub's own take it: nothing for that of `main`.
    fn revision(&self) -> (String, String) {
        let main = std::fs::read_to_string(self.repository.join("refs/main")).unwrap_or_default();
        match [&*self.commit, ""].contains(&main.trim()) {
            true => (String::new(), String::new()),
            false => (format!("@{}", self.commit), format!(" --revision {}", self.commit)),
        }
    }

    /// The commands that complete it.
    pub(super) fn commands(&self) -> String {
        let (name, (at, revision)) = (&self.name, self.revision());
        format!("`kino models pull hf:{name}{at}` (or `hf download {name}{revision}`) completes it")
    }

    /// What is left to do where pulling it again brings nothing.
    pub(super) fn another_source(&self) -> String {
        let (name, (at, _)) = (&self.name, self.revision());
        format!(
            "hf:{name}{at} itself lacks it on the hub, so that pulling it again brings nothing: take \
             another revision (hf:{name}@REVISION) or another upload of the model, or put the file \
             there"
        )
    }
}
