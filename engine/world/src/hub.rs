//! The cache of the Hugging Face Hub on this machine: which models lie there and where, in the
//! layout that `huggingface_hub` reads and writes, too. Nothing here reaches the network, and
//! nothing is written; `kino-hub` does both.
//!
//! ```text
//! models--OWNER--NAME/blobs/HASH                     contents, under the hub's own hash of them
//! models--OWNER--NAME/blobs/HASH.incomplete          what a download left that was cut off
//! models--OWNER--NAME/snapshots/COMMIT/vae/config.json → ../../../blobs/HASH
//! models--OWNER--NAME/refs/main                      the commit of a branch or tag
//! models--OWNER--NAME/.kino/COMMIT.json              what of it `kino models pull` was asked for,
//!                                                    and what its repository lacks
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use kino_port::{format_bytes, is_hidden};
use serde::{Deserialize, Serialize};

use crate::read_text;

/// What begins a source that is a model of the hub; the second is the older word for it.
const PREFIXES: [&str; 2] = ["hf:", "hub:"];

/// The revision where none is named.
const MAIN: &str = "main";

/// The longest list of a pull, in bytes.
const LONGEST_LIST: u64 = 16 << 20;

/// A model of the hub, or a file of it, as a source names it: `hf:OWNER/NAME[@REVISION][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubModel {
    owner: String,
    name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// The path of one file in it.
    pub file: Option<String>,
}

impl HubModel {
    /// Whether a source names a model of the hub.
    pub fn is_one(source: &str) -> bool {
        PREFIXES.iter().any(|prefix| source.starts_with(prefix))
    }

    /// Reads a source; none where it names something else.
    ///
    /// # Errors
    /// When it names no repository; the message says what was expected.
    pub fn of_source(source: &str) -> Option<Result<Self, String>> {
        let rest = PREFIXES.iter().find_map(|prefix| source.strip_prefix(prefix))?;
        Some(Self::parse(rest).ok_or_else(|| format!("expected hf:OWNER/NAME, found {source}")))
    }

    fn parse(text: &str) -> Option<Self> {
        let (owner, rest) = text.split_once('/')?;
        let end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, rest) = match rest.strip_prefix('@') {
            None => (MAIN, rest),
            // Of the names of revisions only those of pull requests hold slashes: `refs/pr/7`.
            Some(rest) => {
                let slashes = if rest.starts_with("refs/pr/") { 2 } else { 0 };
                let end = rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at);
                rest.split_at(end)
            }
        };
        let file = rest.strip_prefix('/').map(str::to_owned);
        let is_plain = |part: &str| is_plain(part) && !part.contains("--");
        if !is_plain(owner) || !is_plain(name) || !is_revision(revision) {
            return None;
        }
        if file.as_deref().is_some_and(|file| !is_path_of_hub(file)) {
            return None;
        }
        let revision = revision.to_owned();
        Some(HubModel { owner: owner.to_owned(), name: name.to_owned(), revision, file })
    }

    /// `OWNER/NAME`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// What a graph writes for it.
    pub fn source(&self) -> String {
        let at = if self.revision == MAIN { String::new() } else { format!("@{}", self.revision) };
        let file = self.file.iter().map(|file| format!("/{file}"));
        format!("hf:{}{at}{}", self.repository(), file.collect::<String>())
    }

    /// The same without a file of it.
    #[must_use]
    pub fn whole(&self) -> Self {
        HubModel { file: None, ..self.clone() }
    }

    /// One file of the same.
    #[must_use]
    pub fn with_file(&self, path: &str) -> Self {
        HubModel { file: Some(path.to_owned()), ..self.clone() }
    }

    /// The name of its folder in the cache.
    pub fn folder_name(&self) -> String {
        format!("models--{}--{}", self.owner, self.name)
    }

    /// The commands that fetch it: ours, and the hub's own.
    pub fn commands(&self) -> String {
        let revision = if self.revision == MAIN {
            String::new()
        } else {
            format!(" --revision {}", self.revision)
        };
        let file = self.file.iter().map(|file| format!(" {file}")).collect::<String>();
        let other = format!("hf download {}{file}{revision}", self.repository());
        format!("`kino models pull {}` (or `{other}`)", self.source())
    }
}

/// Whether a text is one part of a name: it cannot lead elsewhere as a file's name.
fn is_plain(part: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=96).contains(&part.len()) && !part.starts_with('.') && part.chars().all(is_of_name)
}

/// Whether a text may be a revision: one part, or `refs/pr/N`.
fn is_revision(text: &str) -> bool {
    is_plain(text) || text.strip_prefix("refs/pr/").is_some_and(is_plain)
}

/// Whether a commit is one: a SHA-1 in lower-case hexadecimal.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether the path of a file in a repository may be one in a folder: relative, without parts that
/// lead elsewhere on any system, without hidden characters.
pub fn is_path_of_hub(path: &str) -> bool {
    let is_part = |part: &str| {
        (1..=255).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':', '\0'])
            && !part.contains(is_hidden)
    };
    path.len() <= 1024 && path.split('/').count() <= 16 && path.split('/').all(is_part)
}

/// The cache of the hub on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    /// Where it lies.
    pub folder: PathBuf,
    /// Whether the network is not to be used (`HF_HUB_OFFLINE`).
    pub is_offline: bool,
}

/// A model in the cache as it was at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSnapshot {
    /// Which one.
    pub model: HubModel,
    /// The commit.
    pub commit: String,
    /// The folder of its files.
    pub folder: PathBuf,
}

/// What is not in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInCache {
    /// What is missing.
    pub message: String,
    /// How to get it.
    pub hint: String,
}

/// What of a commit was asked for: files by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFiles {
    /// The files.
    pub files: BTreeMap<String, HubFile>,
    /// Files, and folders with a slash behind them, that its own indexes name and the repository
    /// lacks: no pull of this commit brings them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacking: BTreeSet<String>,
}

/// A file of a repository as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFile {
    /// Its length in bytes.
    pub size: u64,
    /// The name of its blob.
    pub blob: String,
}

/// A file of a snapshot that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubGap {
    /// Its path in the snapshot.
    pub path: String,
    /// Bytes that are still to be fetched, where that is known.
    pub bytes: Option<u64>,
    /// Bytes that lie there already, of a download that was cut off.
    pub begun: u64,
    /// Whether a link stands for it that leads nowhere.
    pub is_broken_link: bool,
}

/// The folder of the hub's library: `HF_HOME`, else `huggingface` in the user's cache folder.
pub fn hub_home() -> PathBuf {
    let cache = || path_variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
    path_variable("HF_HOME").unwrap_or_else(|| cache().join("huggingface"))
}

/// The path in a variable, `~` standing for the home folder.
pub fn path_variable(name: &str) -> Option<PathBuf> {
    let path = env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)?;
    match path.strip_prefix("~") {
        Ok(rest) => Some(home().join(rest)),
        Err(_) => Some(path),
    }
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_default()
}

/// Whether a variable says yes, as `huggingface_hub` reads it.
fn is_on(name: &str) -> bool {
    let value = env::var(name).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

impl HubCache {
    /// The cache that the environment says, as `huggingface_hub` finds it: `HF_HUB_CACHE`, else
    /// `hub` in [`hub_home`].
    pub fn of_environment() -> Self {
        HubCache {
            folder: path_variable("HF_HUB_CACHE").unwrap_or_else(|| hub_home().join("hub")),
            is_offline: is_on("HF_HUB_OFFLINE"),
        }
    }

    /// The folder of a model.
    pub fn repository(&self, model: &HubModel) -> PathBuf {
        self.folder.join(model.folder_name())
    }

    /// The commit of a model's revision, as far as the cache knows it.
    pub fn commit(&self, model: &HubModel) -> Option<String> {
        if is_commit(&model.revision) {
            return Some(model.revision.clone());
        }
        let path = self.repository(model).join("refs").join(&model.revision);
        let commit = read_text(&path, 1 << 10).ok()?.trim().to_owned();
        is_plain(&commit).then_some(commit)
    }

    /// The snapshot of a model, which may lack files.
    ///
    /// # Errors
    /// When there is none; the hint says how to get it.
    pub fn find(&self, model: &HubModel) -> Result<HubSnapshot, NotInCache> {
        // Other caches than the hub's own name snapshots as they like.
        let commit = self.commit(model).unwrap_or_else(|| model.revision.clone());
        let folder = self.repository(model).join("snapshots").join(&commit);
        let model = model.whole();
        match folder.is_dir() && is_plain(&commit) {
            true => Ok(HubSnapshot { model, commit, folder }),
            false => Err(self.absent(&model)),
        }
    }

    /// A file of a model.
    ///
    /// # Errors
    /// When it is not there; the hint says how to get it.
    pub fn find_file(&self, model: &HubModel, file: &str) -> Result<PathBuf, NotInCache> {
        let snapshot = self.find(&model.whole());
        let model = model.with_file(file);
        let Ok(snapshot) = snapshot else { return Err(self.absent(&model)) };
        let path = snapshot.folder.join(file);
        if path.is_file() {
            return Ok(path);
        }
        let gap = gap(&self.repository(&model), &snapshot.folder, file, None);
        let said = if gap.is_broken_link { ": its link leads nowhere" } else { "" };
        let message = format!(
            "{} is not in the local Hugging Face cache {}{said}",
            model.source(),
            self.folder.display()
        );
        Err(NotInCache { message, hint: self.how_to_get(&model, &[gap]) })
    }

    fn absent(&self, model: &HubModel) -> NotInCache {
        let folder = self.folder.display();
        let revisions = names_in(&self.repository(model).join("refs"));
        let message = match revisions.as_slice() {
            [] => format!("{} is not in the local Hugging Face cache {folder}", model.source()),
            there => format!(
                "{}: its revision `{}` is not in the local Hugging Face cache {folder}; there is {}",
                model.source(),
                model.revision,
                there.join(", ")
            ),
        };
        NotInCache { message, hint: self.how_to_get(model, &self.known_gaps(model)) }
    }

    /// What a pull that did not end left open, where the snapshot was not made yet.
    fn known_gaps(&self, model: &HubModel) -> Vec<HubGap> {
        let Some(commit) = self.commit(model) else { return Vec::new() };
        let repository = self.repository(model);
        let snapshot = repository.join("snapshots").join(&commit);
        let asked = files_asked(&repository, &commit).files;
        let wanted =
            asked.iter().filter(|(path, _)| model.file.as_ref().is_none_or(|f| f == *path));
        wanted.map(|(path, file)| gap(&repository, &snapshot, path, Some(file))).collect()
    }

    /// The command that fetches what is missing, with its size where that is known.
    pub fn how_to_get(&self, model: &HubModel, gaps: &[HubGap]) -> String {
        let bytes: Option<u64> = gaps.iter().map(|gap| gap.bytes).sum();
        let what = match bytes {
            Some(bytes) if bytes > 0 => format!("fetches {}", format_bytes(bytes)),
            _ => "fetches it".to_owned(),
        };
        let first = if self.is_offline { "HF_HUB_OFFLINE is set: without it, " } else { "" };
        format!("{first}{} {what}", model.commands())
    }

    /// What of a snapshot is not there: files that a pull was asked for, and links that lead
    /// nowhere, sorted by path.
    pub fn gaps(&self, snapshot: &HubSnapshot) -> Vec<HubGap> {
        let repository = self.repository(&snapshot.model);
        let asked = files_asked(&repository, &snapshot.commit).files;
        let mut paths: Vec<String> = asked.keys().cloned().collect();
        paths.extend(files_below(&snapshot.folder));
        paths.sort();
        paths.dedup();
        let is_missing = |path: &String| !snapshot.folder.join(path).is_file();
        let missing = paths.iter().filter(|path| is_missing(path));
        missing.map(|path| gap(&repository, &snapshot.folder, path, asked.get(path))).collect()
    }

    /// The models in the cache: a snapshot for each revision that it knows, and one for each other
    /// commit.
    pub fn models(&self) -> Vec<HubSnapshot> {
        let mut found = Vec::new();
        for folder in names_in(&self.folder) {
            let Some(name) = folder.strip_prefix("models--") else { continue };
            let Some(model) = HubModel::parse(&name.replacen("--", "/", 1)) else { continue };
            let repository = self.folder.join(&folder);
            let mut revisions = names_in(&repository.join("refs"));
            let named = |at: &HubModel| self.commit(at);
            revisions.retain(|revision| is_revision(revision));
            let of = |revision: &str| HubModel { revision: revision.to_owned(), ..model.clone() };
            let known: Vec<_> = revisions.iter().filter_map(|at| named(&of(at))).collect();
            let commits = names_in(&repository.join("snapshots")).into_iter();
            revisions.extend(commits.filter(|at| is_plain(at) && !known.contains(at)));
            found.extend(revisions.iter().filter_map(|at| self.find(&of(at)).ok()));
        }
        found
    }

    /// The model and commit of which a folder is the snapshot, wherever its cache lies.
    pub fn of_snapshot(folder: &Path) -> Option<(HubCache, HubSnapshot)> {
        let folder = folder.canonicalize().ok()?;
        let commit = folder.file_name()?.to_str()?.to_owned();
        let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
        let repository = snapshots.parent()?;
        let name = repository.file_name()?.to_str()?.strip_prefix("models--")?;
        let model = HubModel::parse(&name.replacen("--", "/", 1))?;
        let is_offline = HubCache::of_environment().is_offline;
        let cache = HubCache { folder: repository.parent()?.to_owned(), is_offline };
        let is_main = cache.commit(&model).is_some_and(|main| main == commit);
        let revision = if is_main { MAIN.to_owned() } else { commit.clone() };
        Some((cache, HubSnapshot { model: HubModel { revision, ..model }, commit, folder }))
    }
}

/// What is known of a file that is not there.
fn gap(repository: &Path, snapshot: &Path, path: &str, asked: Option<&HubFile>) -> HubGap {
    let place = snapshot.join(path);
    let link = fs::read_link(&place).ok();
    let of_link = link.as_ref().and_then(|link| link.file_name()?.to_str().map(str::to_owned));
    let blob = asked.map(|file| file.blob.clone()).or(of_link);
    let begun = blob.filter(|blob| is_plain(blob)).map_or(0, |blob| {
        let path = repository.join("blobs").join(format!("{blob}.incomplete"));
        fs::metadata(path).map_or(0, |about| about.len())
    });
    let is_there = place.is_file();
    let bytes = asked.map(|file| if is_there { 0 } else { file.size.saturating_sub(begun) });
    HubGap { path: path.to_owned(), bytes, begun, is_broken_link: link.is_some() && !is_there }
}

/// Where the list lies of what of a commit was asked for.
pub fn files_asked_path(repository: &Path, commit: &str) -> PathBuf {
    repository.join(".kino").join(format!("{commit}.json"))
}

/// What of a commit pulls were asked for; nothing where none was, or the list does not read.
pub fn files_asked(repository: &Path, commit: &str) -> HubFiles {
    let text = read_text(&files_asked_path(repository, commit), LONGEST_LIST);
    let list: Option<HubFiles> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut list = list.unwrap_or_default();
    list.files.retain(|path, file| is_path_of_hub(path) && is_plain(&file.blob));
    list
}

/// The names in a folder that are texts, sorted; of revisions also those of pull requests.
fn names_in(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut found = names(folder);
    if folder.ends_with("refs") {
        found.retain(|name| name != "refs");
        found.extend(names(&folder.join("refs/pr")).iter().map(|name| format!("refs/pr/{name}")));
    }
    found.sort();
    found
}

/// The files and links in a snapshot, as paths inside it: as deep as paths of the hub may be.
pub fn files_below(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, inside: &str, depth: usize, found: &mut Vec<String>) {
        for name in names_in(folder) {
            let path = format!("{inside}{name}");
            let is_folder = folder.join(&name).is_dir();
            if is_folder && depth < 16 {
                walk(&folder.join(&name), &format!("{path}/"), depth + 1, found);
            } else if !is_folder {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, "", 0, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> HubModel {
        HubModel::of_source(source).unwrap().unwrap()
    }

    /// A cache with `Wan-AI/Tiny` at one commit, which `main` names.
    fn cache() -> (tempfile::TempDir, HubCache, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("models--Wan-AI--Tiny");
        let snapshot = repository.join("snapshots").join("a".repeat(40));
        fs::create_dir_all(snapshot.join("vae")).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("refs/main"), "a".repeat(40)).unwrap();
        fs::write(snapshot.join("vae/config.json"), "{}").unwrap();
        let cache = HubCache { folder: folder.path().to_owned(), is_offline: false };
        (folder, cache, snapshot)
    }

    #[test]
    fn sources_are_read_and_written() {
        let model = of("hf:Wan-AI/Wan2.1-T2V-1.3B");
        assert_eq!((&*model.repository(), &*model.revision), ("Wan-AI/Wan2.1-T2V-1.3B", "main"));
        let model = of("hf:a/b@v1.0/split_files/vae/x.safetensors");
        assert_eq!(model.file.as_deref(), Some("split_files/vae/x.safetensors"));
        for source in ["hf:a/b", "hf:a/b@v1/x.json", "hf:a/b@refs/pr/7", "hf:a/b@refs/pr/7/x/y"] {
            assert_eq!(of(source).source(), source);
        }
        assert_eq!(of("hf:a/b@refs/pr/7/x/y").file.as_deref(), Some("x/y"));
        assert_eq!(of("hub:a/b").source(), "hf:a/b");
        assert!(HubModel::of_source("models/a").is_none());
        let long = "x".repeat(97);
        for wrong in [
            "hf:",
            "hf:a",
            "hf:/a",
            "hf:a/",
            "hf:../a",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@..",
            "hf:a/b@../x",
            "hf:a/b/",
            "hf:a/b//x",
            "hf:a/b/../x",
            "hf:a/b/x/..",
            "hf:a/b/c:d",
            "hf:a/b/x\\y",
            "hf:a/b/x\u{7}",
            "hf:a/b\u{202e}",
            "hf:a--b/c",
            &format!("hf:a/{long}"),
        ] {
            let told = HubModel::of_source(wrong).unwrap().unwrap_err();
            assert_eq!(told, format!("expected hf:OWNER/NAME, found {wrong}"));
        }
    }

    #[test]
    fn a_snapshot_is_found_by_branch_and_by_commit() {
        let (_folder, cache, snapshot) = cache();
        assert_eq!(cache.find(&of("hf:Wan-AI/Tiny")).unwrap().folder, snapshot);
        let by_commit = of(&format!("hf:Wan-AI/Tiny@{}", "a".repeat(40)));
        assert_eq!(cache.find(&by_commit).unwrap().folder, snapshot);
        let file = cache.find_file(&of("hf:Wan-AI/Tiny"), "vae/config.json");
        assert_eq!(file, Ok(snapshot.join("vae/config.json")));
        let (found, of_folder) = HubCache::of_snapshot(&snapshot).unwrap();
        assert_eq!(of_folder.model, of("hf:Wan-AI/Tiny"));
        assert_eq!(found.folder, cache.folder.canonicalize().unwrap());
        let models = cache.models();
        assert_eq!(models.len(), 1);
        assert_eq!(models[0].model.source(), "hf:Wan-AI/Tiny");
    }

    #[test]
    fn what_is_not_there_is_told_with_the_command_that_fetches_it() {
        let (_folder, cache, snapshot) = cache();
        let told = cache.find(&of("hf:Wan-AI/Other")).unwrap_err();
        let expected = format!(
            "hf:Wan-AI/Other is not in the local Hugging Face cache {}",
            cache.folder.display()
        );
        assert_eq!(told.message, expected);
        assert_eq!(
            told.hint,
            "`kino models pull hf:Wan-AI/Other` (or `hf download Wan-AI/Other`) fetches it"
        );
        let told = cache.find(&of("hf:Wan-AI/Tiny@dev")).unwrap_err();
        assert!(told.message.contains("its revision `dev` is not"), "{told:?}");
        assert!(told.message.ends_with("there is main"), "{told:?}");
        assert!(told.hint.contains("hf download Wan-AI/Tiny --revision dev"), "{told:?}");
        let offline = HubCache { is_offline: true, ..cache.clone() };
        let told = offline.find_file(&of("hf:Wan-AI/Tiny"), "x.safetensors").unwrap_err();
        assert!(told.message.contains("hf:Wan-AI/Tiny/x.safetensors is not"), "{told:?}");
        assert!(told.hint.starts_with("HF_HUB_OFFLINE is set: without it, `kino"), "{told:?}");

        // A pull that was cut off: its list says how much is left.
        let repository = cache.repository(&of("hf:Wan-AI/Tiny"));
        let file = |size, blob: &str| HubFile { size, blob: blob.to_owned() };
        let asked = HubFiles {
            files: [
                ("vae/config.json".to_owned(), file(2, "b1")),
                ("vae/x.safetensors".to_owned(), file(3_000_000, "b2")),
            ]
            .into(),
            ..HubFiles::default()
        };
        let list = files_asked_path(&repository, &"a".repeat(40));
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, serde_json::to_string(&asked).unwrap()).unwrap();
        fs::write(repository.join("blobs/b2.incomplete"), vec![0; 1_000_000]).unwrap();
        let found = cache.find(&of("hf:Wan-AI/Tiny")).unwrap();
        let gaps = cache.gaps(&found);
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].bytes, gaps[0].begun), (Some(2_000_000), 1_000_000));
        let told = cache.how_to_get(&found.model, &gaps);
        assert!(told.ends_with("fetches 2.0 MB"), "{told}");
        let _ = snapshot;
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_nowhere_is_a_gap() {
        let (_folder, cache, snapshot) = cache();
        let link = snapshot.join("vae/x.safetensors");
        std::os::unix::fs::symlink("../../../blobs/feed", &link).unwrap();
        fs::write(cache.folder.join("models--Wan-AI--Tiny/blobs/feed.incomplete"), "123").unwrap();
        let gaps = cache.gaps(&cache.find(&of("hf:Wan-AI/Tiny")).unwrap());
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].is_broken_link && gaps[0].begun == 3 && gaps[0].bytes.is_none());
        let told = cache.find_file(&of("hf:Wan-AI/Tiny"), "vae/x.safetensors").unwrap_err();
        assert!(told.message.ends_with("its link leads nowhere"), "{told:?}");
    }
}
