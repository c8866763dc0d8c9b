//! Networks that stand alone in a file, opened: those that enlarge frames, those that make frames
//! between frames, language models; in the binary, and files of users.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device};
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::weight::Weights;
use kino_node::Services;
use kino_port::{PlanError, PlannedRead, PlannedWeights};

use crate::at_hand::Missing;
use crate::error::{at_input, of_model};
use crate::files::{input, model_folders, policy};
use crate::source::hub_file;

/// Networks that are kept open; their weights are counted apart.
const KEPT_OPEN: usize = 16;

/// Where a network lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkSource {
    /// In the binary.
    Embedded {
        /// How messages call it.
        name: &'static str,
        /// Its safetensors file.
        bytes: &'static [u8],
        /// Its BLAKE3 digest in hexadecimal.
        digest: &'static str,
    },
    /// A safetensors file.
    File(PathBuf),
}

impl NetworkSource {
    fn file(&self) -> kino_models::Result<DataFile> {
        match self {
            NetworkSource::Embedded { name, bytes, digest } => {
                Ok(DataFile::embedded(bytes, name, Some(digest)))
            }
            NetworkSource::File(path) => DataFile::open(path, &path.display().to_string()),
        }
    }

    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            NetworkSource::Embedded { name, .. } => (*name).to_owned(),
            NetworkSource::File(path) => path.display().to_string(),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            NetworkSource::Embedded { .. } => None,
            NetworkSource::File(path) => Some(path),
        }
    }
}

/// A network whose file is open and whose sizes are known; no weights are loaded.
pub(crate) struct OpenNetwork<S: ?Sized> {
    source: NetworkSource,
    files: Arc<PartFiles>,
    /// What is known of it.
    pub(crate) spec: Arc<S>,
}

/// The type in which these networks compute, whatever their weights are stored in.
const COMPUTE: DType = DType::F32;

/// Tells what the network in a file is.
type Read<S> = fn(&PartFiles) -> kino_models::Result<Arc<S>>;

/// Makes the network of weights that are not read, which says what they lack.
type Load<S> = fn(&S, &Weights) -> kino_models::Result<()>;

impl<S: ?Sized> OpenNetwork<S> {
    fn open(source: &NetworkSource, (read, load): (Read<S>, Load<S>)) -> kino_models::Result<Self> {
        let files = Arc::new(PartFiles::of_file(source.file()?)?);
        let spec = read(&files)?;
        // What lies in the binary was held against its network by the tests.
        if !files.is_in_binary() {
            let weights = Weights::new(Arc::clone(&files), COMPUTE, &Device::Cpu)?;
            load(&spec, &weights.probing(&Arc::default()))?;
        }
        Ok(OpenNetwork { source: source.clone(), files, spec })
    }

    /// The network itself, if the run may still read its file now that it is open: nobody has turned
    /// a link since it was asked for.
    ///
    /// # Errors
    /// When it may not, or another file lies there by now.
    pub(crate) fn allowed(
        self: Arc<Self>,
        services: &Services,
        port: &'static str,
    ) -> Result<Arc<Self>, PlanError> {
        if let NetworkSource::File(path) = &self.source
            && policy(services).narrows_reading()
        {
            policy(services).check_model(path).map_err(at_input(port))?;
            if !self.files.is_current(Some(path)) {
                let message = format!("{} was exchanged while it was opened", path.display());
                return Err(PlanError::at(port, message));
            }
        }
        Ok(self)
    }

    /// What identifies its weights: where it is equal, so is every byte.
    pub(crate) fn identity(&self) -> [u8; 32] {
        self.files.identity().exact
    }

    /// [`OpenNetwork::identity`] in hexadecimal.
    fn fingerprint(&self) -> String {
        blake3::Hash::from_bytes(self.identity()).to_hex().to_string()
    }

    /// What identifies its weights in memory.
    pub(super) fn weights_id(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"network of a file");
        hasher.update(&self.identity());
        hasher.update(COMPUTE.as_str().as_bytes());
        hasher.finalize().into()
    }

    /// The memory of its weights in bytes.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.files.weight_bytes(COMPUTE, &[""])
    }

    /// The memory of its weights in bytes in another type.
    pub(super) fn weight_bytes_as(&self, dtype: DType) -> u64 {
        self.files.weight_bytes(dtype, &[""])
    }

    /// Its file.
    pub(crate) fn files(&self) -> &Arc<PartFiles> {
        &self.files
    }

    /// Its weights as a plan counts them.
    pub(crate) fn planned(&self) -> Vec<PlannedWeights> {
        vec![PlannedWeights { id: self.weights_id(), bytes: self.weight_bytes() }]
    }

    /// The same with so many bytes that are loaded beside them.
    pub(crate) fn planned_with(&self, bytes: u64) -> Vec<PlannedWeights> {
        let bytes = self.weight_bytes().saturating_add(bytes);
        vec![PlannedWeights { id: self.weights_id(), bytes }]
    }

    /// Whether this is the network of a fingerprint.
    pub(super) fn is(&self, fingerprint: &str) -> bool {
        self.fingerprint() == fingerprint
    }

    /// Its file as a plan records it; none for one in the binary, which never changes.
    pub(crate) fn reads(&self, path: &str) -> Vec<PlannedRead> {
        match self.source {
            NetworkSource::Embedded { .. } => Vec::new(),
            NetworkSource::File(_) => {
                let content = self.files.identity().content;
                let content = blake3::Hash::from_bytes(content).to_hex().to_string();
                let (path, hash) = (path.to_owned(), self.fingerprint());
                vec![PlannedRead { path, hash, content, ..PlannedRead::default() }]
            }
        }
    }

    /// Its weights, to be read.
    pub(super) fn weights(&self, device: &Device) -> kino_models::Result<Weights> {
        Weights::new(Arc::clone(&self.files), COMPUTE, device)
    }
}

/// The networks of a kind that are open, the latest last. One that was exchanged on disk stays for
/// the plans that were made with it.
pub(super) struct OpenNetworks<S: ?Sized> {
    read: (Read<S>, Load<S>),
    open: Mutex<Vec<Arc<OpenNetwork<S>>>>,
}

/// A network, and the one that was at its place before, where it was exchanged.
type Opened<S> = (Arc<OpenNetwork<S>>, Option<Arc<OpenNetwork<S>>>);

impl<S: ?Sized> OpenNetworks<S> {
    /// None yet; `read` tells what a file holds, `load` what that lacks.
    pub(super) fn new(read: Read<S>, load: Load<S>) -> Self {
        OpenNetworks { read: (read, load), open: Mutex::default() }
    }

    /// The network at `source`. One that is open and was not touched since is not read again.
    pub(super) fn open(&self, source: &NetworkSource) -> kino_models::Result<Opened<S>> {
        let known = self.find(|opened| opened.source == *source);
        if let Some(opened) = known.as_ref().filter(|known| known.files.is_current(source.path())) {
            return Ok((Arc::clone(opened), None));
        }
        let opened = Arc::new(OpenNetwork::open(source, self.read)?);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::clone(&opened));
        if open.len() > KEPT_OPEN {
            open.remove(0);
        }
        let is_shared = |exchanged: &Arc<OpenNetwork<S>>| {
            let others = open.iter().filter(|other| other.source != exchanged.source);
            opened.identity() == exchanged.identity()
                || others.into_iter().any(|other| other.identity() == exchanged.identity())
        };
        let exchanged = known.filter(|known| !is_shared(known));
        Ok((opened, exchanged))
    }

    /// The network of this fingerprint.
    pub(super) fn opened(&self, fingerprint: &str) -> Option<Arc<OpenNetwork<S>>> {
        self.find(|opened| opened.fingerprint() == fingerprint)
    }

    fn find(&self, which: impl Fn(&OpenNetwork<S>) -> bool) -> Option<Arc<OpenNetwork<S>>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().rev().find(|opened| which(opened)).cloned()
    }
}

/// What turns the usual pickle into a file that is read.
const CONVERT: &str = "a .pth or .pkl file becomes one by: python -c \"import sys, torch, \
safetensors.torch as s; d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); \
d = d.get('params_ema', d.get('params', d)); s.save_file({k: v.contiguous() for k, v in \
d.items()}, sys.argv[2])\" model.pth model.safetensors";

/// The file of a network that a graph names at `port`: in the local Hugging Face cache, relative to
/// the graph, or in what ComfyUI calls the folders of `kinds` among those of models; `what` says
/// what may stand there, a file last.
///
/// # Errors
/// When there is no such file, or the run may not read it.
pub(crate) fn network_file(
    services: &Services,
    (port, path): (&'static str, &str),
    kinds: &[&str],
    what: &str,
) -> Result<NetworkSource, PlanError> {
    let real = |path: PathBuf| NetworkSource::File(path.canonicalize().unwrap_or(path));
    if path.trim().is_empty() {
        let hint = format!("{what} (relative to the graph)");
        return Err(PlanError::at(port, "no model is named").hint(hint));
    }
    if let Some(found) = hub_file(port, path, &policy(services))? {
        return Ok(real(found));
    }
    let own = input(services, path).map_err(at_input(port))?;
    if own.exists() {
        return Ok(real(own));
    }
    let folders = model_folders(services);
    if let Some(found) = folders.find((port, path), kinds, &policy(services))? {
        return Ok(real(found));
    }
    let message = format!("{} does not exist", own.display());
    let missing = Missing { path, own: &own, kinds, is_model: false };
    let hint = format!(
        "{}{what} (relative to the graph or to a folder of the setting `models`), or \
         hf:OWNER/NAME/PATH{}",
        folders.did_you_mean(&missing, &policy(services)),
        folders.looked(path, kinds)
    );
    Err(PlanError::at(port, message).hint(hint).of_machine())
}

/// Why a network that a graph names at `port` cannot be opened, with the way out.
pub(crate) fn network_error(port: &'static str) -> impl Fn(kino_models::Error) -> PlanError {
    move |error| {
        let planned = of_model(port, &error);
        match error {
            kino_models::Error::Pickle { .. } => planned.hint(CONVERT),
            _ => planned,
        }
    }
}
