//! The models of a process: opened once, their weights read on first use and shared by all nodes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device};
use kino_models::families::wan::dit::Dit;
use kino_models::families::wan::vae::Vae;
use kino_models::families::wan::{ModelConfig, TransformerConfig, VaeConfig};
use kino_models::preview::RgbMap;
use kino_models::text::TextConfig;
use kino_models::text::TextEncoder;
use kino_models::{ModelFolder, Result};

use kino_node::Space;

use crate::source::Source;

/// A model whose configs were read and whose weight files were looked at; no weights are loaded.
pub struct OpenModel {
    /// As the graph names it.
    pub name: String,
    /// Its files.
    pub folder: ModelFolder,
    /// Its configs.
    pub config: ModelConfig,
    /// A hash that changes when the model does.
    pub fingerprint: [u8; 32],
    /// What is known of each part's weights, or why they cannot be read.
    weights: HashMap<&'static str, std::result::Result<Stored, String>>,
}

/// The weights of a part as they are stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The type of most of them.
    pub dtype: DType,
    /// The length of their files.
    pub bytes: u64,
}

/// The folders of the parts that have weights.
const PARTS: [&str; 3] = ["text_encoder", "transformer", "vae"];

impl OpenModel {
    fn open(name: &str, source: &Source, folder: ModelFolder, id: [u8; 32]) -> Result<Self> {
        let config = ModelConfig::read(&folder)?;
        let stored = |part: &str| {
            // Opening maps the files and checks their headers: pickles and cut files end here.
            let dtype = folder.stored_dtype(part).map_err(|error| error.to_string())?;
            let files = folder.weight_files(part).map_err(|error| error.to_string())?;
            Ok(Stored { dtype, bytes: files.iter().map(|file| source.length(file)).sum() })
        };
        let there = PARTS.into_iter().filter(|part| config.index.has(part));
        let weights = there.map(|part| (part, stored(part))).collect();
        Ok(OpenModel { name: name.to_owned(), folder, config, fingerprint: id, weights })
    }

    /// What is known of a part's weights; none where the model has no such part.
    pub fn stored(&self, part: &str) -> Option<&std::result::Result<Stored, String>> {
        self.weights.get(part)
    }
}

/// A part of a model that is not loaded yet: what travels along an edge, and what a plan knows of
/// it.
pub struct Handle<C> {
    /// The model that it belongs to.
    pub model: Arc<OpenModel>,
    /// Its config.
    pub config: C,
    /// The type in which it computes.
    pub dtype: DType,
    /// Its weights as they are stored.
    pub stored: Stored,
}

impl<C> Handle<C> {
    /// The memory of its weights in bytes, in the type in which it computes.
    pub fn weight_bytes(&self) -> u64 {
        let (from, to) = (self.stored.dtype.size_in_bytes(), self.dtype.size_in_bytes());
        self.stored.bytes / from as u64 * to as u64
    }
}

/// What a plan knows of a text encoder.
#[derive(Clone, Debug)]
pub struct TextPart {
    /// The encoder's sizes.
    pub encoder: TextConfig,
    /// Rows of an encoded text, the padding included.
    pub rows: usize,
}

/// A text encoder.
pub type TextHandle = Handle<TextPart>;
/// A diffusion transformer.
pub type DitHandle = Handle<TransformerConfig>;
/// A video autoencoder.
pub type VaeHandle = Handle<VaeConfig>;

impl VaeHandle {
    /// The latent space of this autoencoder.
    pub fn space(&self) -> Space {
        let id = blake3::keyed_hash(&self.model.fingerprint, b"vae").into();
        let (temporal, spatial) = (self.config.temporal_factor(), self.config.spatial_factor());
        Space { id, channels: self.config.z_dim, temporal, spatial }
    }
}

/// Identifies loaded weights: model, part, compute type. (The device is that of all.)
type Loaded = ([u8; 32], &'static str, DType);
/// A part that is being loaded, or was.
type Slot = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

/// The models of a process. Give the same one to the services of every run, and weights stay.
pub struct Models {
    device: Device,
    /// The model of each name, as it was when it was last opened.
    open: Mutex<HashMap<String, Arc<OpenModel>>>,
    loaded: Mutex<HashMap<Loaded, Slot>>,
    /// The autoencoders of the latent spaces that were seen.
    spaces: Mutex<HashMap<[u8; 32], Arc<VaeHandle>>>,
}

impl Models {
    /// No models yet; weights will be placed on `device`.
    pub fn new(device: Device) -> Arc<Self> {
        Arc::new(Models {
            device,
            open: Mutex::default(),
            loaded: Mutex::default(),
            spaces: Mutex::default(),
        })
    }

    /// Opens the model that a graph calls `name`; reads configs and headers, no weights.
    pub(crate) fn open(&self, name: &str, source: &Source) -> Result<Arc<OpenModel>> {
        let known = lock(&self.open).get(name).cloned();
        let folder = match &known {
            // The folder of an embedded model remembers its hash.
            Some(model) if matches!(source, Source::Embedded(_)) => model.folder.clone(),
            _ => source.open()?,
        };
        let fingerprint = folder.fingerprint()?;
        if let Some(model) = known {
            if model.fingerprint == fingerprint {
                return Ok(model);
            }
            // The model at this name was exchanged: what was loaded of it is of no use any more.
            lock(&self.loaded).retain(|(id, ..), _| *id != model.fingerprint);
        }
        let model = Arc::new(OpenModel::open(name, source, folder, fingerprint)?);
        lock(&self.open).insert(name.to_owned(), Arc::clone(&model));
        Ok(model)
    }

    /// The text encoder, its weights read.
    ///
    /// # Errors
    /// When they cannot be read or do not fit the config; so for all that follow.
    pub fn text_encoder(&self, part: &TextHandle) -> Result<Arc<TextEncoder>> {
        let key = (part.model.fingerprint, "text_encoder", part.dtype);
        self.load(key, || TextEncoder::load(&part.model.folder, part.dtype, &self.device))
    }

    /// The transformer, its weights read.
    pub fn dit(&self, part: &DitHandle) -> Result<Arc<Dit>> {
        self.load((part.model.fingerprint, "transformer", part.dtype), || {
            let weights = part.model.folder.weights("transformer", part.dtype, &self.device)?;
            Dit::load(&part.config, &weights)
        })
    }

    /// The autoencoder; each of its two networks is read when it is first used.
    pub fn vae(&self, part: &VaeHandle) -> Result<Arc<Vae>> {
        self.load((part.model.fingerprint, "vae", part.dtype), || {
            let weights = part.model.folder.weights("vae", part.dtype, &self.device)?;
            Vae::load(&part.config, &weights)
        })
    }

    /// The linear map from latents of a space to colours, if the autoencoder of the space is known.
    pub fn rgb_map(&self, space: &Space) -> Option<Arc<RgbMap>> {
        let part = lock(&self.spaces).get(&space.id).cloned()?;
        let map = self.vae(&part).and_then(|vae| vae.rgb_map());
        map.map_err(|error| tracing::debug!(%error, "There will be no previews.")).ok()
    }

    /// Remembers whose latent space this is.
    pub(crate) fn know(&self, part: &Arc<VaeHandle>) {
        lock(&self.spaces).insert(part.space().id, Arc::clone(part));
    }

    /// Drops all weights; handles stay valid and load again.
    pub fn clear(&self) {
        lock(&self.loaded).clear();
    }

    fn load<T, F>(&self, key: Loaded, load: F) -> Result<Arc<T>>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> Result<T>,
    {
        let slot = Arc::clone(lock(&self.loaded).entry(key).or_default());
        // Held while loading, so that nobody else loads the same part meanwhile.
        let mut slot = lock(&slot);
        if let Some(part) = slot.as_ref().and_then(|part| Arc::clone(part).downcast().ok()) {
            return Ok(part);
        }
        let started = std::time::Instant::now();
        let part = Arc::new(load()?);
        tracing::debug!(part = key.1, dtype = ?key.2, elapsed = ?started.elapsed(), "Weights read.");
        *slot = Some(Arc::clone(&part) as Arc<dyn Any + Send + Sync>);
        Ok(part)
    }
}

/// What a panic left behind is whole: every place is filled in one step.
fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
