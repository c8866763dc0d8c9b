//! Networks that enlarge frames, opened: the one in the binary, and files of users.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device};
use kino_models::checkpoint::{DataFile, PartFiles};
use kino_models::model::{Upscaler, UpscalerSpec};
use kino_models::upscale::read_upscaler;
use kino_models::weight::Weights;
use kino_port::PlannedWeights;

/// Networks that are kept open; their weights are counted apart.
const KEPT_OPEN: usize = 16;

/// Where a network that enlarges frames lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpscalerSource {
    /// In the binary.
    Embedded {
        /// How messages call it.
        name: &'static str,
        /// Its safetensors file.
        bytes: &'static [u8],
    },
    /// A safetensors file.
    File(PathBuf),
}

impl UpscalerSource {
    fn file(&self) -> kino_models::Result<DataFile> {
        match self {
            UpscalerSource::Embedded { name, bytes } => Ok(DataFile::embedded(bytes, name)),
            UpscalerSource::File(path) => DataFile::open(path, &path.display().to_string()),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            UpscalerSource::Embedded { .. } => None,
            UpscalerSource::File(path) => Some(path),
        }
    }
}

/// A network whose file is open and whose sizes are known; no weights are loaded.
pub(crate) struct OpenUpscaler {
    source: UpscalerSource,
    files: Arc<PartFiles>,
    /// What is known of it.
    pub(crate) spec: Arc<dyn UpscalerSpec>,
}

/// The type in which these networks compute, whatever their weights are stored in.
const COMPUTE: DType = DType::F32;

impl OpenUpscaler {
    fn open(source: &UpscalerSource) -> kino_models::Result<Self> {
        let files = Arc::new(PartFiles::of_file(source.file()?)?);
        let spec = read_upscaler(&files)?;
        Ok(OpenUpscaler { source: source.clone(), files, spec })
    }

    /// Whether the file that it was opened from is still the one that lies there.
    pub(crate) fn is_current(&self) -> bool {
        self.files.is_current(self.source.path())
    }

    /// What identifies its weights: where it is equal, so is every byte.
    pub(crate) fn identity(&self) -> [u8; 32] {
        self.files.identity().exact
    }

    /// [`OpenUpscaler::identity`] in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        blake3::Hash::from_bytes(self.identity()).to_hex().to_string()
    }

    /// What identifies its weights in memory.
    pub(super) fn weights_id(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"upscaler");
        hasher.update(&self.identity());
        hasher.update(COMPUTE.as_str().as_bytes());
        hasher.finalize().into()
    }

    /// The memory of its weights in bytes.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.files.weight_bytes(COMPUTE, &[""])
    }

    /// Its weights as a plan counts them.
    pub(crate) fn planned(&self) -> Vec<PlannedWeights> {
        vec![PlannedWeights { id: self.weights_id(), bytes: self.weight_bytes() }]
    }

    pub(super) fn load(&self, device: &Device) -> kino_models::Result<Arc<dyn Upscaler>> {
        self.spec.load(&Weights::new(Arc::clone(&self.files), COMPUTE, device)?)
    }
}

/// The networks that are open, the latest last. One that was exchanged on disk stays for the plans
/// that were made with it.
#[derive(Default)]
pub(super) struct OpenUpscalers(Mutex<Vec<Arc<OpenUpscaler>>>);

impl OpenUpscalers {
    /// The network at `source`, and the one that was there before, where it was exchanged.
    pub(super) fn open(
        &self,
        source: &UpscalerSource,
    ) -> kino_models::Result<(Arc<OpenUpscaler>, Option<Arc<OpenUpscaler>>)> {
        let known = self.find(|opened| opened.source == *source);
        if let Some(opened) = known.as_ref().filter(|known| known.files.is_current(source.path())) {
            return Ok((Arc::clone(opened), None));
        }
        let opened = Arc::new(OpenUpscaler::open(source)?);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::clone(&opened));
        if open.len() > KEPT_OPEN {
            open.remove(0);
        }
        let is_shared = |exchanged: &Arc<OpenUpscaler>| {
            let others = open.iter().filter(|other| other.source != exchanged.source);
            opened.identity() == exchanged.identity()
                || others.into_iter().any(|other| other.identity() == exchanged.identity())
        };
        let exchanged = known.filter(|known| !is_shared(known));
        Ok((opened, exchanged))
    }

    /// The network of this fingerprint.
    pub(super) fn opened(&self, fingerprint: &str) -> Option<Arc<OpenUpscaler>> {
        self.find(|opened| opened.fingerprint() == fingerprint)
    }

    fn find(&self, which: impl Fn(&OpenUpscaler) -> bool) -> Option<Arc<OpenUpscaler>> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().rev().find(|opened| which(opened)).cloned()
    }
}
