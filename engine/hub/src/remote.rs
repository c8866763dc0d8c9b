//! What the hub says of a model: its commit and the files in it.

use std::io::Read;

use kino_world::hub::{HubFile, HubModel, is_commit};
use serde::Deserialize;

use crate::blob::is_name;
use crate::error::{Error, Result};
use crate::http::{Client, Follow, encode};

/// The longest list of files, in bytes.
const LONGEST: u64 = 64 << 20;
/// Files that a model has at most.
const MAX_FILES: usize = 100_000;

/// A model as it is at one commit.
pub(crate) struct Remote {
    /// The commit.
    pub(crate) commit: String,
    /// The paths of its files.
    pub(crate) files: Vec<String>,
}

impl Client<'_> {
    /// What the hub has of a model at its revision (`/api/models/OWNER/NAME/revision/REV`).
    ///
    /// # Errors
    /// When there is none, the user may not read it, or the answer is none.
    pub(crate) fn look(&self, model: &HubModel) -> Result<Remote> {
        #[derive(Deserialize)]
        struct Listed {
            sha: String,
            #[serde(default)]
            siblings: Vec<File>,
        }
        #[derive(Deserialize)]
        struct File {
            rfilename: String,
        }
        let what = model.whole().source();
        let revision = encode(&model.revision, "");
        let path = format!("/api/models/{}/revision/{revision}", model.repository());
        let answer = self.ask(("GET", &path), (0, Follow::Within), &what)?;
        let wrong = |reason: String| Error::Answer { what: what.clone(), reason };
        if answer.status() != 200 {
            return Err(wrong(format!(
                "the hub answers {} where a list should be",
                answer.status()
            )));
        }
        let mut bytes = Vec::new();
        answer.reader(LONGEST).read_to_end(&mut bytes).map_err(|error| Error::Network {
            what: what.clone(),
            reason: format!("its list of files was cut off: {error}"),
        })?;
        let listed: Listed = match serde_json::from_slice(&bytes) {
            Ok(listed) => listed,
            Err(error) => {
                return Err(wrong(format!("the hub's list of files does not read: {error}")));
            }
        };
        if !is_commit(&listed.sha) {
            let shown: String = listed.sha.chars().take(60).collect();
            let shown = kino_port::escape_line(&shown).into_owned();
            return Err(wrong(format!("the hub says that its commit is `{shown}`, which is none")));
        }
        if listed.siblings.len() > MAX_FILES {
            return Err(wrong(format!("it has more than {MAX_FILES} files")));
        }
        let files = listed.siblings.into_iter().map(|file| file.rfilename).collect();
        Ok(Remote { commit: listed.sha, files })
    }

    /// Length and name of a file's contents, as the hub's headers say.
    ///
    /// # Errors
    /// When there is no such file, or the headers say neither.
    pub(crate) fn describe(&self, model: &HubModel, commit: &str, path: &str) -> Result<HubFile> {
        let what = of_file(model, path);
        let address = address(model, commit, path);
        let answer = self.ask(("HEAD", &address), (0, Follow::Within), &what)?;
        let is_elsewhere = (300..400).contains(&answer.status());
        let wrong = |reason: String| Error::Answer { what: what.clone(), reason };
        if let Some(other) = answer.header("x-repo-commit").filter(|found| *found != commit) {
            let other: String = other.chars().take(60).collect();
            return Err(wrong(format!("asked for {commit}, the hub gives `{other}`")));
        }
        let tag = answer.header("x-linked-etag").or(answer.header("etag")).unwrap_or_default();
        let blob = tag.trim_start_matches("W/").trim_matches('"').to_owned();
        if !is_name(&blob) {
            let shown: String = blob.chars().take(60).collect();
            return Err(wrong(format!(
                "the hub names its contents `{}`, which cannot be a file's name",
                kino_port::escape_line(&shown)
            )));
        }
        let own = if is_elsewhere { None } else { answer.number("content-length") };
        let size = answer.number("x-linked-size").or(own);
        let size = size.ok_or_else(|| wrong("the hub does not say how long it is".to_owned()))?;
        Ok(HubFile { size, blob })
    }
}

/// How messages call a file of a model.
pub(crate) fn of_file(model: &HubModel, path: &str) -> String {
    model.with_file(path).source()
}

/// The path of a file on the hub.
pub(crate) fn address(model: &HubModel, commit: &str, path: &str) -> String {
    format!("/{}/resolve/{commit}/{}", model.repository(), encode(path, "/"))
}
