//! Where a model comes from: the binary, a folder, or the local Hugging Face cache.

use std::path::{Component, Path, PathBuf};

use kino_models::ModelFolder;
use kino_models::checkpoint::part_names;
use kino_node::FilePolicy;
use kino_port::PlanError;

use crate::error::at_input;

/// The prefix of models inside the binary.
const EMBEDDED: &str = "embedded:";
/// The prefix of models in the local Hugging Face cache.
const HUB: &str = "hub:";

/// Folders in which models lie: a relative path that leads to nothing beside the graph is looked
/// for in each, in order. An engine has them as a service of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFolders(pub Vec<PathBuf>);

/// A model's files, wherever they lie.
pub(crate) enum ModelSource {
    /// Inside the binary.
    Embedded(kino_models::checkpoint::EmbeddedFiles),
    /// A folder on disk.
    Folder(PathBuf),
}

impl ModelSource {
    /// Finds the model that a graph names, if `policy` allows reading it; folders are relative to
    /// `graph`, then to those of `models`.
    ///
    /// # Errors
    /// When there is none, the error says what was looked for and how to get it; when it may not be
    /// read, what may be.
    pub(crate) fn find(
        source: &str,
        graph: &Path,
        models: &ModelFolders,
        policy: &FilePolicy,
    ) -> Result<Self, PlanError> {
        if let Some(name) = source.strip_prefix(EMBEDDED) {
            return match name {
                "shapes" => Ok(ModelSource::Embedded(kino_shapes::FILES)),
                _ => Err(PlanError::at("source", format!("no model `{name}` is embedded"))
                    .hint("there is one: embedded:shapes")),
            };
        }
        if let Some(repository) = source.strip_prefix(HUB) {
            let folder = hub_folder(repository, &hub_cache())?;
            policy.check_model(&folder).map_err(at_input("source"))?;
            return Ok(ModelSource::Folder(folder));
        }
        let folder = graph.join(source);
        // Before anything is said of what lies there.
        policy.check_model(&folder).map_err(at_input("source"))?;
        if folder.is_dir() {
            return Ok(ModelSource::Folder(folder));
        }
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        // What leads out of a folder of models is none of its models.
        let is_inside = !source.is_empty() && Path::new(source).components().all(plain);
        let mut others = models.0.iter().filter(|_| is_inside).map(|models| models.join(source));
        if let Some(found) = others.find(|folder| folder.is_dir()) {
            policy.check_model(&found).map_err(at_input("source"))?;
            return Ok(ModelSource::Folder(found));
        }
        let known: Vec<_> = models.0.iter().map(|folder| folder.display().to_string()).collect();
        let looked = match is_inside && !known.is_empty() {
            true => format!("; looked for in {}, too", known.join(", ")),
            false => String::new(),
        };
        let hint = format!(
            "a model is a folder in the diffusers layout (relative to the graph, or to a folder of \
             the setting `models`), embedded:shapes, or hub:OWNER/NAME{looked}"
        );
        let found = if folder.exists() { "is a file" } else { "does not exist" };
        let message = format!("{} {found}", folder.display());
        Err(PlanError::at("source", message).hint(hint).of_machine())
    }

    /// The files as kino-models reads them.
    pub(crate) fn open(&self) -> kino_models::Result<ModelFolder> {
        match self {
            ModelSource::Embedded(files) => Ok(ModelFolder::embedded("embedded:shapes", files)),
            ModelSource::Folder(path) => ModelFolder::directory(path),
        }
    }

    /// Whether all files of the model may be read: those in its folder may be links.
    ///
    /// # Errors
    /// The first that may not be read, or when the folder cannot be listed.
    pub(crate) fn check_files(&self, policy: &FilePolicy) -> Result<(), PlanError> {
        let ModelSource::Folder(folder) = self else { return Ok(()) };
        if !policy.narrows_reading() {
            return Ok(());
        }
        let listed = self.open().and_then(|model| model.list());
        let listed = listed.map_err(|error| PlanError::at("source", error.to_string()))?;
        let check = |file: &String| policy.check_model(&folder.join(file));
        listed.iter().try_for_each(check).map_err(at_input("source"))
    }

    /// Where they lie, whatever name leads there.
    pub(crate) fn location(&self) -> ModelLocation {
        match self {
            ModelSource::Embedded(_) => ModelLocation::Embedded("shapes"),
            ModelSource::Folder(path) => {
                ModelLocation::Folder(path.canonicalize().unwrap_or_else(|_| path.clone()))
            }
        }
    }
}

/// A model as a graph names it: a folder, and parts that stand alone in files.
pub(crate) struct ModelRequest {
    /// Where the parts lie that have no file of their own.
    pub(crate) source: Option<ModelSource>,
    /// Which part a file is, and where it lies.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
}

impl ModelRequest {
    /// Whether all its files may be read: those in a folder may be links.
    ///
    /// # Errors
    /// The first that may not be read, or when the folder cannot be listed.
    pub(crate) fn check_files(&self, policy: &FilePolicy) -> Result<(), PlanError> {
        if let Some(source) = &self.source {
            source.check_files(policy)?;
        }
        let mut files = self.files.iter();
        files.try_for_each(|(part, path)| policy.check_model(path).map_err(at_input(part)))
    }

    /// Where they lie, whatever names lead there.
    pub(crate) fn location(&self) -> RequestLocation {
        let place = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        RequestLocation {
            source: self.source.as_ref().map(ModelSource::location),
            files: self.files.iter().map(|(part, path)| (*part, place(path))).collect(),
        }
    }
}

/// Where the files of a [`ModelRequest`] lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLocation {
    source: Option<ModelLocation>,
    files: Vec<(&'static str, PathBuf)>,
}

/// The folders of ComfyUI in which files of a part lie, inside a folder of models.
fn folders_of(part: &str) -> &'static [&'static str] {
    match part {
        part_names::VAE => &["vae"],
        part_names::TEXT_ENCODER => &["text_encoders", "clip"],
        part_names::IMAGE_ENCODER => &["clip_vision"],
        _ => &["diffusion_models", "unet"],
    }
}

/// Finds a file that a graph names for a part at a port: relative to `graph`, then to the folders
/// of `models` and what ComfyUI calls the folders inside them.
///
/// # Errors
/// When there is none; the error says where it was looked for.
pub(crate) fn find_part(
    (port, part): (&'static str, &str),
    path: &str,
    graph: &Path,
    models: &ModelFolders,
    policy: &FilePolicy,
) -> Result<PathBuf, PlanError> {
    let own = graph.join(path);
    policy.check_model(&own).map_err(at_input(port))?;
    if own.exists() {
        return Ok(own);
    }
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let is_inside = !path.is_empty() && Path::new(path).components().all(plain);
    let inside = [""].iter().chain(folders_of(part));
    let folders = models.0.iter().filter(|_| is_inside);
    let mut others =
        folders.flat_map(|models| inside.clone().map(move |inner| models.join(inner).join(path)));
    if let Some(found) = others.find(|place| place.is_file()) {
        policy.check_model(&found).map_err(at_input(port))?;
        return Ok(found);
    }
    let known: Vec<_> = models.0.iter().map(|folder| folder.display().to_string()).collect();
    let mut hint = "it is a safetensors or GGUF file, relative to the graph or to a folder of the \
                    setting `models`"
        .to_owned();
    if is_inside && !known.is_empty() {
        let inner = folders_of(part).join(", ");
        hint += &format!("; looked for in {} and there in {inner}, too", known.join(", "));
    }
    let message = format!("{} does not exist", own.display());
    Err(PlanError::at(port, message).hint(hint).of_machine())
}

/// Where a model lies: a folder, or a name in the binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelLocation {
    /// A folder, without links.
    Folder(PathBuf),
    /// A model in the binary.
    Embedded(&'static str),
}

/// Where on disk something lies that a graph in the folder `graph` reads: a file, or the folder of
/// a model. None for what is inside the binary, and for repositories that are not there.
pub fn path_of_read(read: &str, graph: &Path, models: &ModelFolders) -> Option<PathBuf> {
    match ModelSource::find(read, graph, models, &FilePolicy::default()) {
        Ok(ModelSource::Folder(folder)) => Some(folder),
        Ok(ModelSource::Embedded(_)) => None,
        Err(_) if read.starts_with(EMBEDDED) || read.starts_with(HUB) => None,
        Err(_) => {
            let parts = [
                part_names::TRANSFORMER,
                part_names::TEXT_ENCODER,
                part_names::VAE,
                part_names::IMAGE_ENCODER,
            ];
            let anywhere = FilePolicy::default();
            let find = |part| find_part(("source", part), read, graph, models, &anywhere).ok();
            Some(parts.into_iter().find_map(find).unwrap_or_else(|| graph.join(read)))
        }
    }
}

/// The folder of the local Hugging Face cache, as `huggingface_hub` finds it.
fn hub_cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_default();
    var("HF_HUB_CACHE").unwrap_or_else(|| {
        let cache = || var("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
        var("HF_HOME").unwrap_or_else(|| cache().join("huggingface")).join("hub")
    })
}

/// The newest snapshot of `OWNER/NAME` (or of `OWNER/NAME@REVISION`) in the cache.
fn hub_folder(repository: &str, cache: &Path) -> Result<PathBuf, PlanError> {
    let (name, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = name.split('/').collect();
    let [owner, model] = parts[..] else { return Err(not_a_repository(repository)) };
    if ![owner, model, revision].into_iter().all(plain) {
        return Err(not_a_repository(repository));
    }
    let folder = cache.join(format!("models--{owner}--{model}"));
    let commit = kino_world::read_text(&folder.join("refs").join(revision), 1 << 10);
    let commit = commit.as_deref().map_or(revision, str::trim);
    let snapshot = folder.join("snapshots").join(commit);
    if plain(commit) && snapshot.is_dir() {
        return Ok(snapshot);
    }
    let message = format!("{name} is not in the local Hugging Face cache {}", cache.display());
    let at = if revision == "main" { String::new() } else { format!(" --revision {revision}") };
    let hint = format!("get it with: hf download {name}{at}");
    Err(PlanError::at("source", message).hint(hint).of_machine())
}

fn not_a_repository(found: &str) -> PlanError {
    PlanError::at("source", format!("expected hub:OWNER/NAME, found hub:{found}"))
        .hint("for example hub:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("kino-hub-{}-{name}", std::process::id()));
        let model = folder.join("models--Wan-AI--Tiny");
        std::fs::create_dir_all(model.join("snapshots/abc123")).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc123\n").unwrap();
        folder
    }

    #[test]
    fn a_model_in_the_cache_is_found_by_its_snapshot() {
        let cache = cache("found");
        let expected = cache.join("models--Wan-AI--Tiny/snapshots/abc123");
        assert_eq!(hub_folder("Wan-AI/Tiny", &cache), Ok(expected.clone()));
        assert_eq!(hub_folder("Wan-AI/Tiny@abc123", &cache), Ok(expected));
        std::fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn what_is_read_lies_beside_the_graph_unless_it_is_embedded() {
        let graph = Path::new("graphs");
        let path_of_read = |read: &str, graph| path_of_read(read, graph, &ModelFolders::default());
        assert_eq!(path_of_read("a.png", graph), Some("graphs/a.png".into()));
        assert_eq!(path_of_read("/models/wan", graph), Some("/models/wan".into()));
        assert_eq!(path_of_read("embedded:shapes", graph), None);
        assert_eq!(path_of_read("embedded:other", graph), None);
        assert_eq!(path_of_read("hub:nobody/has-this-model", graph), None);
    }

    #[test]
    fn folders_of_models_come_after_the_graph_s_own() {
        let folder = std::env::temp_dir().join(format!("kino-models-{}", std::process::id()));
        let at = |name: &str| folder.join(name);
        for name in ["deep/graph/tiny", "one/tiny", "two/tiny", "two/large", "secret"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let models = ModelFolders(vec![at("one"), at("two")]);
        let (graph, anywhere) = (at("deep/graph"), FilePolicy::default());
        let find = |source: &str| match ModelSource::find(source, &graph, &models, &anywhere) {
            Ok(ModelSource::Folder(folder)) => Ok(folder),
            Ok(_) => panic!("{source}"),
            Err(error) => Err(error),
        };
        assert_eq!(find("tiny"), Ok(at("deep/graph/tiny")));
        assert_eq!(find("large"), Ok(at("two/large")));
        std::fs::remove_dir(at("deep/graph/tiny")).unwrap();
        assert_eq!(find("./tiny"), Ok(at("one/./tiny")));
        assert_eq!(path_of_read("large", &at("deep/graph"), &models), Some(at("two/large")));
        // No path out of them.
        let error = find("../secret/../secret").unwrap_err();
        assert!(!error.hint.unwrap().contains("looked for in"));
        let error = find("huge").unwrap_err();
        assert!(error.message.ends_with("graph/huge does not exist"), "{}", error.message);
        let looked = format!("looked for in {}, {}, too", at("one").display(), at("two").display());
        assert!(error.hint.as_ref().unwrap().contains(&looked), "{error:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_model_that_is_not_there_can_be_fetched() {
        let cache = cache("absent");
        let error = hub_folder("Wan-AI/Other", &cache).unwrap_err();
        assert!(error.message.starts_with("Wan-AI/Other is not in the local Hugging Face cache"));
        assert_eq!(error.hint.as_deref(), Some("get it with: hf download Wan-AI/Other"));
        for wrong in ["Tiny", "a/b/c", "../Tiny", "a/..", "", "a/b@../../x"] {
            let error = hub_folder(wrong, &cache).unwrap_err();
            assert_eq!(error.message, format!("expected hub:OWNER/NAME, found hub:{wrong}"));
        }
        std::fs::remove_dir_all(cache).unwrap();
    }
}
