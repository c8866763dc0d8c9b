//! Where a model comes from: the binary, a folder, or the local Hugging Face cache. Nothing is
//! fetched: what is not there is told with the command that fetches it.

use std::path::{Component, Path, PathBuf};

use kino_models::ModelFolder;
use kino_models::checkpoint::part_names;
use kino_node::FilePolicy;
use kino_port::PlanError;
use kino_world::FolderOfKind;
use kino_world::hub::{HubCache, HubModel, NotInCache};

use crate::at_hand::{MODEL_KINDS, Missing};
use crate::error::at_input;

/// The prefix of models inside the binary.
const EMBEDDED: &str = "embedded:";

/// Where models lie: a relative path that leads to nothing beside the graph is looked for in each,
/// in order. An engine has them as a service of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFolders(pub Vec<ModelPlace>);

/// A folder in which models lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    /// Models in the diffusers layout, files, and folders of kinds such as ComfyUI's `models/` has.
    Root(PathBuf),
    /// Files of one kind.
    Kind(FolderOfKind),
}

impl ModelFolders {
    /// Folders of models, in this order.
    pub fn of(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        ModelFolders(roots.into_iter().map(ModelPlace::Root).collect())
    }

    /// The folders that hold all kinds.
    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|place| match place {
            ModelPlace::Root(folder) => Some(folder.as_path()),
            ModelPlace::Kind(_) => None,
        })
    }

    /// The folders in which files of these kinds may lie.
    fn of_kinds(&self, kinds: &[&str]) -> Vec<PathBuf> {
        let within = |place: &ModelPlace| match place {
            ModelPlace::Root(root) => {
                let inner = kinds.iter().map(|kind| root.join(kind));
                std::iter::once(root.clone()).chain(inner).collect()
            }
            ModelPlace::Kind(FolderOfKind { kind, folder }) if kinds.contains(&kind.as_str()) => {
                vec![folder.clone()]
            }
            ModelPlace::Kind(_) => Vec::new(),
        };
        self.0.iter().flat_map(within).collect()
    }

    /// The files of these kinds that a graph may mean by a path, without those that are one file by
    /// another name; the first counts.
    fn candidates(&self, path: &str, kinds: &[&str]) -> Vec<PathBuf> {
        let folders = self.of_kinds(kinds);
        within(folders.iter().map(PathBuf::as_path), path, |place| place.is_file())
    }

    /// Finds a file of these kinds that a graph names at `port`; none where there is none.
    ///
    /// # Errors
    /// When it may not be read.
    pub(crate) fn find(
        &self,
        (port, path): (&'static str, &str),
        kinds: &[&str],
        policy: &FilePolicy,
    ) -> Result<Option<PathBuf>, PlanError> {
        let found = self.candidates(path, kinds).into_iter().next();
        if let Some(found) = &found {
            policy.check_model(found).map_err(at_input(port))?;
        }
        Ok(found)
    }

    /// That several files of these kinds have the name that a graph gives at `port`, and which of
    /// them is taken.
    pub(crate) fn doubled(&self, (port, path): (&str, &str), kinds: &[&str]) -> Option<PlanError> {
        told_twice((port, path), &self.candidates(path, kinds))
    }

    /// The same of models in folders of their own.
    pub(crate) fn doubled_folder(&self, (port, path): (&str, &str)) -> Option<PlanError> {
        told_twice((port, path), &within(self.roots(), path, |place| place.is_dir()))
    }

    /// The question whether something else was meant by what is missing; empty where nothing is
    /// alike that may be read.
    pub(crate) fn did_you_mean(&self, missing: &Missing<'_>, policy: &FilePolicy) -> String {
        let places = self.0.iter().map(|place| match place {
            ModelPlace::Root(root) => (root.as_path(), None),
            ModelPlace::Kind(FolderOfKind { kind, folder }) => (folder.as_path(), Some(&**kind)),
        });
        missing.did_you_mean(places, |path| policy.check_model(path).is_ok())
    }

    /// What a message says of where a file of these kinds was looked for; empty where nowhere.
    pub(crate) fn looked(&self, path: &str, kinds: &[&str]) -> String {
        if !is_inside(path) || self.0.is_empty() {
            return String::new();
        }
        let mut known: Vec<String> = self.roots().map(|root| root.display().to_string()).collect();
        if !known.is_empty() && !kinds.is_empty() {
            let last = known.pop().unwrap_or_default();
            known.push(format!("{last} and there in {}", kinds.join(", ")));
        }
        let of_kind = self.0.iter().filter_map(|place| match place {
            ModelPlace::Kind(of) if kinds.contains(&of.kind.as_str()) => {
                Some(of.folder.display().to_string())
            }
            _ => None,
        });
        known.extend(of_kind);
        match known.is_empty() {
            true => String::new(),
            false => format!("; looked for in {}, too", known.join(", ")),
        }
    }
}

/// What lies by a path in several folders, without what is the same by another name.
fn within<'a>(
    folders: impl Iterator<Item = &'a Path>,
    path: &str,
    is_one: impl Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    if !is_inside(path) {
        return Vec::new();
    }
    let mut real: Vec<PathBuf> = Vec::new();
    let is_new = |place: &PathBuf| match place.canonicalize() {
        Ok(place) if !real.contains(&place) => {
            real.push(place);
            true
        }
        _ => false,
    };
    folders.map(|folder| folder.join(path)).filter(|place| is_one(place)).filter(is_new).collect()
}

/// That several models have the name that a graph gives at `port`, and which of them is taken.
fn told_twice((port, path): (&str, &str), found: &[PathBuf]) -> Option<PlanError> {
    let [taken, other, ..] = found else { return None };
    let (taken, other) = (taken.display(), other.display());
    let message = format!("two models are called {path}: {taken} is taken, not {other}");
    Some(PlanError::at(port, message).hint("its whole path names one of them for certain"))
}

/// Whether a path leads to nothing outside of the folder that it is looked for in.
fn is_inside(path: &str) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    !path.is_empty() && Path::new(path).components().all(plain)
}

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
        if let Some(model) = hub_model("source", source)? {
            if model.file.is_some() {
                let message = format!("{source} is a file, not a model");
                let hint = format!(
                    "name it for its part, as `transformer` or `vae`; {} is the model",
                    model.whole().source()
                );
                return Err(PlanError::at("source", message).hint(hint));
            }
            let found = HubCache::of_environment().find(&model).map_err(not_in_cache("source"))?;
            policy.check_model(&found.folder).map_err(at_input("source"))?;
            return Ok(ModelSource::Folder(found.folder));
        }
        let folder = graph.join(source);
        // Before anything is said of what lies there.
        policy.check_model(&folder).map_err(at_input("source"))?;
        if folder.is_dir() {
            return Ok(ModelSource::Folder(folder));
        }
        // What leads out of a folder of models is none of its models.
        let inside = models.roots().filter(|_| is_inside(source));
        if let Some(found) = inside.map(|root| root.join(source)).find(|folder| folder.is_dir()) {
            policy.check_model(&found).map_err(at_input("source"))?;
            return Ok(ModelSource::Folder(found));
        }
        let kinds = folders_of(part_names::TRANSFORMER);
        let missing = Missing { path: source, own: &folder, kinds, is_model: true };
        let hint = format!(
            "{}a model is a folder in the diffusers layout (relative to the graph, or to a folder of \
             the setting `models`), embedded:shapes, or hf:OWNER/NAME{}",
            models.did_you_mean(&missing, policy),
            models.looked(source, &[])
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

    /// The command that completes the model, where it is one of the hub that lacks files.
    pub(crate) fn how_to_complete(&self) -> Option<String> {
        match self {
            ModelSource::Folder(folder) => how_to_complete(folder),
            ModelSource::Embedded(_) => None,
        }
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
    /// A file in its place, which holds a transformer or several parts.
    pub(crate) whole: Option<PathBuf>,
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
        if let Some(whole) = &self.whole {
            policy.check_model(whole).map_err(at_input("source"))?;
        }
        let mut files = self.files.iter();
        files.try_for_each(|(part, path)| policy.check_model(path).map_err(at_input(part)))
    }

    /// Where they lie, whatever names lead there.
    pub(crate) fn location(&self) -> RequestLocation {
        let place = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        RequestLocation {
            source: self.source.as_ref().map(ModelSource::location),
            whole: self.whole.as_ref().map(place),
            files: self.files.iter().map(|(part, path)| (*part, place(path))).collect(),
        }
    }
}

/// Where the files of a [`ModelRequest`] lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLocation {
    source: Option<ModelLocation>,
    whole: Option<PathBuf>,
    files: Vec<(&'static str, PathBuf)>,
}

/// The folders of ComfyUI in which files of a part lie, inside a folder of models; those that hold
/// several parts lie in `checkpoints`.
pub(crate) fn folders_of(part: &str) -> &'static [&'static str] {
    match part {
        part_names::VAE => &["vae", "checkpoints"],
        part_names::TEXT_ENCODER | part_names::TEXT_ENCODER_2 => {
            &["text_encoders", "clip", "checkpoints"]
        }
        part_names::IMAGE_ENCODER => &["clip_vision"],
        _ => &["diffusion_models", "unet", "checkpoints"],
    }
}

/// Finds a file that a graph names for a part at a port: in the local Hugging Face cache, relative
/// to `graph`, or in the folders of `models` and what ComfyUI calls the folders inside them.
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
    if let Some(found) = hub_file(port, path, policy)? {
        return Ok(found);
    }
    let own = graph.join(path);
    policy.check_model(&own).map_err(at_input(port))?;
    if own.exists() {
        return Ok(own);
    }
    if let Some(found) = models.find((port, path), folders_of(part), policy)? {
        return Ok(found);
    }
    let missing = Missing { path, own: &own, kinds: folders_of(part), is_model: false };
    let hint = format!(
        "{}it is a safetensors or GGUF file, relative to the graph or to a folder of the setting \
         `models`, or hf:OWNER/NAME/PATH{}",
        models.did_you_mean(&missing, policy),
        models.looked(path, folders_of(part))
    );
    let message = format!("{} does not exist", own.display());
    Err(PlanError::at(port, message).hint(hint).of_machine())
}

/// The model of the hub that a text names; none where it names something else.
fn hub_model(port: &str, text: &str) -> Result<Option<HubModel>, PlanError> {
    let model = HubModel::of_source(text).transpose();
    model.map_err(|message| {
        PlanError::at(port, message).hint("for example hf:Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    })
}

/// The file in the local Hugging Face cache that a graph names at `port`; none where it names
/// something else.
///
/// # Errors
/// When it is not there, or may not be read.
pub(crate) fn hub_file(
    port: &'static str,
    text: &str,
    policy: &FilePolicy,
) -> Result<Option<PathBuf>, PlanError> {
    let Some(model) = hub_model(port, text)? else { return Ok(None) };
    let Some(file) = &model.file else {
        let message = format!("{text} is a whole model, and a file is needed here");
        let hint = format!("name the file: {text}/PATH; `kino models show {text}` lists them");
        return Err(PlanError::at(port, message).hint(hint));
    };
    let path = HubCache::of_environment().find_file(&model, file).map_err(not_in_cache(port))?;
    policy.check_model(&path).map_err(at_input(port))?;
    Ok(Some(path))
}

fn not_in_cache(port: &str) -> impl Fn(NotInCache) -> PlanError + use<'_> {
    move |NotInCache { message, hint }| PlanError::at(port, message).hint(hint).of_machine()
}

/// The command that completes a model of the hub, where its folder lacks something.
pub(crate) fn how_to_complete(folder: &Path) -> Option<String> {
    let (cache, snapshot) = HubCache::of_snapshot(folder)?;
    let gaps = cache.gaps(&snapshot);
    (!gaps.is_empty()).then(|| cache.how_to_get(&snapshot.model, &gaps))
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
    let anything = FilePolicy::default();
    if let Ok(Some(file)) = hub_file("source", read, &anything) {
        return Some(file);
    }
    match ModelSource::find(read, graph, models, &anything) {
        Ok(ModelSource::Folder(folder)) => Some(folder),
        Ok(ModelSource::Embedded(_)) => None,
        Err(_) if read.starts_with(EMBEDDED) || HubModel::is_one(read) => None,
        Err(_) => {
            let own = graph.join(read);
            let others = || models.candidates(read, &MODEL_KINDS).into_iter().next();
            Some(if own.exists() { own } else { others().unwrap_or(own) })
        }
    }
}

/// The question whether another model or file at hand was meant by what a graph in the folder
/// `graph` would read; empty where nothing is alike.
pub fn model_meant_by(read: &str, graph: &Path, models: &ModelFolders) -> String {
    let own = graph.join(read);
    let missing = Missing { path: read, own: &own, kinds: &MODEL_KINDS, is_model: true };
    models.did_you_mean(&missing, &FilePolicy::default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let models = ModelFolders::of([at("one"), at("two")]);
        let told = models.doubled_folder(("source", "tiny")).unwrap().message;
        let (taken, other) = (at("one/tiny"), at("two/tiny"));
        let expected = format!(
            "two models are called tiny: {} is taken, not {}",
            taken.display(),
            other.display()
        );
        assert_eq!(told, expected);
        assert!(models.doubled_folder(("source", "large")).is_none());
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
    fn of_two_files_of_one_name_the_first_is_taken_and_the_other_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["one/vae", "one/loras", "two", "extra"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["one/vae/a.safetensors", "two/a.safetensors", "extra/b.safetensors"] {
            std::fs::write(at(name), name).unwrap();
        }
        let extra = FolderOfKind { kind: "vae".into(), folder: at("extra") };
        let mut models = ModelFolders::of([at("one"), at("two")]);
        models.0.push(ModelPlace::Kind(extra));
        let find = |path: &str, kinds: &[&str]| {
            models.find(("vae", path), kinds, &FilePolicy::default()).unwrap()
        };
        let doubled = |path: &str| models.doubled(("vae", path), &["vae"]);
        assert_eq!(find("a.safetensors", &["vae"]), Some(at("one/vae/a.safetensors")));
        let told = doubled("a.safetensors").unwrap().message;
        let (taken, other) = (at("one/vae/a.safetensors"), at("two/a.safetensors"));
        let expected = format!(
            "two models are called a.safetensors: {} is taken, not {}",
            taken.display(),
            other.display()
        );
        assert_eq!(told, expected);
        // A link to the same file is no other.
        std::fs::remove_file(&other).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&taken, &other).unwrap();
        assert!(doubled("a.safetensors").is_none());
        assert_eq!(find("b.safetensors", &["vae"]), Some(at("extra/b.safetensors")));
        assert!(find("b.safetensors", &["loras"]).is_none());
        assert!(find("../extra/b.safetensors", &["vae"]).is_none());
    }

    #[test]
    fn a_file_of_the_hub_is_no_model_and_a_model_no_file() {
        let find = |source: &str| {
            let none = ModelFolders::default();
            ModelSource::find(source, Path::new(""), &none, &FilePolicy::default()).err().unwrap()
        };
        let told = find("hf:a/b/vae.safetensors");
        assert_eq!(told.message, "hf:a/b/vae.safetensors is a file, not a model");
        let told = hub_file("vae", "hf:a/b", &FilePolicy::default()).unwrap_err();
        assert_eq!(told.message, "hf:a/b is a whole model, and a file is needed here");
        assert_eq!(find("hf:../b").message, "expected hf:OWNER/NAME, found hf:../b");
        assert!(hub_file("vae", "vae.safetensors", &FilePolicy::default()).unwrap().is_none());
    }
}
