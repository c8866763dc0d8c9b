//! The models of a process: opened once, their weights read part by part on first use, shared by
//! all nodes, graphs and folders, and let go where memory ends.

mod files;
mod handle;
mod resident;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use kino_models::families::{Families, SingleFiles, open_folder};
use kino_models::interpolate::read_interpolator;
use kino_models::language::{LanguageModel, LanguageSpec, read_language_model};
use kino_models::model::{
    Denoiser, FrameDecoder, FrameEncoder, ImageEncoder, Interpolator, InterpolatorSpec,
    TextEncoder, Upscaler, UpscalerSpec,
};
use kino_models::preview::RgbMap;
use kino_models::upscale::read_upscaler;
use kino_models::weight::{AppliedLora, Lora, LoraSpec, TensorStore, WeightFit};
use kino_node::{LatentSpace, Ledger, Result};

use files::OpenNetworks;
pub(crate) use files::{NetworkSource, OpenNetwork, network_error, network_file};
pub(crate) use handle::AdapterHandle;
pub use handle::{
    DitHandle, Handle, ImageHandle, LowNoise, MissingPart, OpenModel, TextHandle, VaeHandle,
};
pub(crate) use handle::{Network, streamed};
pub use resident::Resident;
use resident::{Residents, Wanted};

use crate::error::IntoNode;
use crate::source::{ModelRequest, ModelSource, RequestLocation};

/// Models that are kept open; their weights are counted apart.
const KEPT_OPEN: usize = 16;
/// Autoencoders that are remembered for the previews of their latents.
const KNOWN_SPACES: usize = 16;

/// The weights of a transformer in memory, and the network that is made of them alone.
struct LoadedWeights {
    store: Arc<TensorStore>,
    plain: Arc<dyn Denoiser>,
}

/// A transformer in memory, with its adapters.
pub struct LoadedDit {
    denoiser: Arc<dyn Denoiser>,
    base: Arc<Resident<LoadedWeights>>,
    _adapters: Vec<Arc<Resident<Lora>>>,
}

impl LoadedDit {
    /// Whether both compute with the same weights in memory, whatever their adapters are.
    pub fn shares_weights(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.base, &other.base)
    }
}

impl Deref for LoadedDit {
    type Target = dyn Denoiser;

    fn deref(&self) -> &Self::Target {
        &*self.denoiser
    }
}

/// The models of a process. Give the same one to the services of every run, and weights stay.
pub struct Models {
    device: Device,
    families: Families,
    /// Opened models, by where they lie, the latest last. One that was exchanged on disk stays for
    /// the plans that were made with it.
    open: Mutex<Vec<(RequestLocation, Arc<OpenModel>)>>,
    /// Networks that enlarge frames, likewise.
    upscalers: OpenNetworks<dyn UpscalerSpec>,
    /// Networks that make frames between frames, likewise.
    interpolators: OpenNetworks<dyn InterpolatorSpec>,
    /// Language models, likewise.
    language_models: OpenNetworks<LanguageSpec>,
    /// Files of adapters, likewise.
    adapters: OpenNetworks<LoraSpec>,
    residents: Arc<Residents>,
    /// The autoencoders of the latent spaces that were seen, the latest last.
    spaces: Mutex<Vec<Arc<VaeHandle>>>,
    /// Maps from latents to colours, by latent space.
    maps: Mutex<HashMap<[u8; 32], Option<Arc<RgbMap>>>>,
}

impl Models {
    /// No models yet; weights will be placed on `device` and counted by `ledger`.
    pub fn new(device: Device, ledger: Arc<Ledger>) -> Arc<Self> {
        Self::with_families(device, ledger, Families::default())
    }

    /// The same for other families than those that are built in.
    pub fn with_families(device: Device, ledger: Arc<Ledger>, families: Families) -> Arc<Self> {
        Arc::new(Models {
            device,
            families,
            open: Mutex::default(),
            upscalers: OpenNetworks::new(read_upscaler, |spec, of| spec.load(of).map(drop)),
            interpolators: OpenNetworks::new(read_interpolator, |spec, of| spec.load(of).map(drop)),
            language_models: OpenNetworks::new(read_language_model, LanguageSpec::probe),
            adapters: OpenNetworks::new(|files| LoraSpec::read(files).map(Arc::new), |_, _| Ok(())),
            residents: Residents::new(ledger),
            spaces: Mutex::default(),
            maps: Mutex::default(),
        })
    }

    /// Opens the model that is asked for; reads configs and headers, no weights. One that is open and
    /// was not touched since is not read again.
    pub(crate) fn open(&self, asked: &ModelRequest) -> kino_models::Result<Arc<OpenModel>> {
        let location = asked.location();
        let known = self.latest(&location);
        if let Some(model) = known.as_ref().filter(|model| model.checkpoint.is_current()) {
            return Ok(Arc::clone(model));
        }
        let folder = asked.source.as_ref().map(ModelSource::open).transpose()?;
        let singles = SingleFiles { whole: asked.whole.as_deref(), parts: &asked.files };
        let checkpoint = match &folder {
            Some(folder) if singles.is_empty() => open_folder(folder)?,
            folder => self.families.assemble(folder.as_ref(), &singles)?,
        };
        let parts = self.families.read(&checkpoint)?;
        let model = Arc::new(OpenModel::new(checkpoint, parts));
        let mut open = lock(&self.open);
        open.push((location, Arc::clone(&model)));
        if open.len() > KEPT_OPEN {
            open.remove(0);
        }
        drop(open);
        if let Some(exchanged) = known {
            self.forget(&exchanged);
        }
        Ok(model)
    }

    /// The model that had this fingerprint when a plan was made.
    pub(crate) fn opened(&self, fingerprint: &str) -> Option<Arc<OpenModel>> {
        let hash = blake3::Hash::from_hex(fingerprint).ok()?;
        let open = lock(&self.open);
        let found = open.iter().rev().find(|(_, model)| model.fingerprint() == *hash.as_bytes());
        found.map(|(_, model)| Arc::clone(model))
    }

    fn latest(&self, place: &RequestLocation) -> Option<Arc<OpenModel>> {
        let open = lock(&self.open);
        let found = open.iter().rev().find(|(other, _)| other == place);
        found.map(|(_, model)| Arc::clone(model))
    }

    /// Lets the weights go of a model that was exchanged, but for those that another one shares.
    fn forget(&self, exchanged: &OpenModel) {
        let exact = |model: &OpenModel| -> Vec<[u8; 32]> {
            let others = model.parts.other_text_encoders.iter().map(|part| Some(part.part));
            let parts = [
                model.parts.text_encoder.as_ref().map(|part| part.part),
                model.parts.image_encoder.as_ref().map(|part| part.part),
                model.parts.denoiser.as_ref().map(|part| part.part),
                model.parts.low_noise.as_ref().map(|low| low.denoiser.part),
                model.parts.vae.as_ref().map(|part| part.part),
            ];
            let files =
                others.chain(parts).flatten().filter_map(|part| model.checkpoint.part(part).ok());
            files.map(|files| files.identity().exact).collect()
        };
        let mut places: Vec<(RequestLocation, Arc<OpenModel>)> = Vec::new();
        for (place, model) in lock(&self.open).iter().rev() {
            if places.iter().all(|(other, _)| other != place) {
                places.push((place.clone(), Arc::clone(model)));
            }
        }
        let shared: Vec<[u8; 32]> = places.iter().flat_map(|(_, model)| exact(model)).collect();
        let gone: Vec<[u8; 32]> =
            exact(exchanged).into_iter().filter(|files| !shared.contains(files)).collect();
        self.residents.forget(&gone);
    }

    /// The text encoder, its weights read.
    ///
    /// # Errors
    /// When they cannot be read or do not fit the config; so for all that follow.
    pub fn text_encoder(&self, part: &TextHandle) -> Result<Arc<Resident<dyn TextEncoder>>> {
        self.text_encoder_as(part, &part.whole())
    }

    /// The same with its weights held so.
    pub(crate) fn text_encoder_as(
        &self,
        part: &TextHandle,
        fit: &WeightFit,
    ) -> Result<Arc<Resident<dyn TextEncoder>>> {
        let load = || {
            let weights = part.weights(&self.device).node()?;
            let weights = weights.with_residency(fit.residency.clone());
            part.spec.load(&part.model.checkpoint, &weights).node()
        };
        self.residents.get(wanted_as(part, fit, "the text encoder"), load)
    }

    /// The memory that weights may take with all else.
    pub(crate) fn budget(&self) -> u64 {
        self.residents.budget()
    }

    /// The image encoder, its weights read.
    pub fn image_encoder(&self, part: &ImageHandle) -> Result<Arc<Resident<dyn ImageEncoder>>> {
        let load = || part.spec.load(&part.weights(&self.device).node()?).node();
        let bytes = part.weight_bytes();
        self.residents.get(wanted(part, Network::Whole, bytes, "the image encoder"), load)
    }

    /// The transformer, its weights read, with its adapters; of two experts this one alone. Those
    /// with other adapters, and without, share the weights.
    pub fn dit(&self, part: &DitHandle) -> Result<LoadedDit> {
        self.dit_as(part, &part.whole())
    }

    /// The same with its weights held so.
    pub(crate) fn dit_as(&self, part: &DitHandle, fit: &WeightFit) -> Result<LoadedDit> {
        let weights = part.weights(&self.device).node()?.with_residency(fit.residency.clone());
        let load = || {
            let store = Arc::new(TensorStore::default());
            let plain = part.spec.load(&weights.clone().stored_in(Arc::clone(&store))).node()?;
            Ok(Arc::new(LoadedWeights { store, plain }))
        };
        let base = self.residents.get(wanted_as(part, fit, "the transformer"), load)?;
        if part.adapters.is_empty() {
            return Ok(LoadedDit {
                denoiser: Arc::clone(&base.plain),
                base,
                _adapters: Vec::new(),
            });
        }
        let adapters = part.adapters.iter().map(|adapter| self.adapter(part, adapter));
        let adapters = adapters.collect::<Result<Vec<_>>>()?;
        let applied = adapters.iter().zip(&part.adapters).map(|(loaded, adapter)| AppliedLora {
            lora: Arc::clone(loaded.part()),
            strength: adapter.strength,
        });
        let weights = weights.stored_in(Arc::clone(&base.store)).with_adapters(applied.collect());
        let denoiser = part.spec.load(&weights).node()?;
        Ok(LoadedDit { denoiser, base, _adapters: adapters })
    }

    /// Adapters of a transformer, read.
    fn adapter(&self, part: &DitHandle, adapter: &AdapterHandle) -> Result<Arc<Resident<Lora>>> {
        let own = adapter.opened.files();
        let load = || {
            let lora = adapter.matched.load(own, &part.files, part.dtype, &self.device).node()?;
            Ok(Arc::new(lora))
        };
        let wanted = Wanted {
            id: part.adapter_id(adapter),
            files: adapter.opened.identity(),
            bytes: part.adapter_bytes(adapter),
            what: "a LoRA",
        };
        self.residents.get(wanted, load)
    }

    /// The encoder of an autoencoder, its weights read.
    pub fn encoder(&self, part: &VaeHandle) -> Result<Arc<Resident<dyn FrameEncoder>>> {
        let load = || part.spec.load_encoder(&part.weights(&self.device).node()?).node();
        let bytes = part.weight_bytes(Network::Encoder);
        self.residents.get(wanted(part, Network::Encoder, bytes, "the VAE's encoder"), load)
    }

    /// The decoder of an autoencoder, its weights read.
    pub fn decoder(&self, part: &VaeHandle) -> Result<Arc<Resident<dyn FrameDecoder>>> {
        let load = || part.spec.load_decoder(&part.weights(&self.device).node()?).node();
        let bytes = part.weight_bytes(Network::Decoder);
        self.residents.get(wanted(part, Network::Decoder, bytes, "the VAE's decoder"), load)
    }

    /// Opens the network that enlarges frames at `source`, or finds the one of this fingerprint
    /// that a plan was made with; reads its header, no weights.
    pub(crate) fn open_upscaler(
        &self,
        source: &NetworkSource,
        planned: Option<&str>,
    ) -> kino_models::Result<Arc<OpenNetwork<dyn UpscalerSpec>>> {
        self.open_network(&self.upscalers, source, planned)
    }

    /// The same for a network that makes frames between frames.
    pub(crate) fn open_interpolator(
        &self,
        source: &NetworkSource,
        planned: Option<&str>,
    ) -> kino_models::Result<Arc<OpenNetwork<dyn InterpolatorSpec>>> {
        self.open_network(&self.interpolators, source, planned)
    }

    /// The same for a language model.
    pub(crate) fn open_language_model(
        &self,
        source: &NetworkSource,
        planned: Option<&str>,
    ) -> kino_models::Result<Arc<OpenNetwork<LanguageSpec>>> {
        self.open_network(&self.language_models, source, planned)
    }

    /// The same for a file of adapters.
    pub(crate) fn open_lora(
        &self,
        source: &NetworkSource,
        planned: Option<&str>,
    ) -> kino_models::Result<Arc<OpenNetwork<LoraSpec>>> {
        self.open_network(&self.adapters, source, planned)
    }

    fn open_network<S: ?Sized>(
        &self,
        networks: &OpenNetworks<S>,
        source: &NetworkSource,
        planned: Option<&str>,
    ) -> kino_models::Result<Arc<OpenNetwork<S>>> {
        if let Some(opened) = planned.and_then(|planned| networks.opened(planned)) {
            return Ok(opened);
        }
        let (opened, exchanged) = networks.open(source)?;
        if let Some(exchanged) = exchanged {
            self.residents.forget(&[exchanged.identity()]);
        }
        match planned {
            Some(planned) if !opened.is(planned) => {
                Err(kino_models::Error::Changed { file: source.name() })
            }
            _ => Ok(opened),
        }
    }

    /// The network that enlarges frames, its weights read.
    pub(crate) fn upscaler(
        &self,
        opened: &OpenNetwork<dyn UpscalerSpec>,
    ) -> Result<Arc<Resident<dyn Upscaler>>> {
        let load = || opened.spec.load(&opened.weights(&self.device).node()?).node();
        self.residents.get(of_file(opened, "the network that enlarges frames"), load)
    }

    /// The network that makes frames between frames, its weights read.
    pub(crate) fn interpolator(
        &self,
        opened: &OpenNetwork<dyn InterpolatorSpec>,
    ) -> Result<Arc<Resident<dyn Interpolator>>> {
        let load = || opened.spec.load(&opened.weights(&self.device).node()?).node();
        self.residents.get(of_file(opened, "the network that makes frames between"), load)
    }

    /// The language model, its weights and its tokenizer read.
    pub(crate) fn language_model(
        &self,
        opened: &OpenNetwork<LanguageSpec>,
    ) -> Result<Arc<Resident<LanguageModel>>> {
        let load =
            || opened.spec.load(opened.files(), &opened.weights(&self.device).node()?).node();
        let wanted = of_file(opened, "the language model");
        let bytes = wanted.bytes.saturating_add(opened.spec.tokenizer_bytes());
        self.residents.get(Wanted { bytes, ..wanted }, load)
    }

    /// The linear map from latents of a space to colours, if the autoencoder of the space is known.
    pub fn rgb_map(&self, space: &LatentSpace) -> Option<Arc<RgbMap>> {
        if let Some(map) = lock(&self.maps).get(&space.id) {
            return map.clone();
        }
        let known = self.of_space(space)?;
        let map = self.decoder(&known).and_then(|decoder| decoder.rgb_map().node());
        if matches!(map, Err(kino_node::Error::Cancelled)) {
            return None; // the next run finds it
        }
        let map = map.map_err(|error| tracing::debug!(%error, "There will be no previews."));
        let map = map.ok()?.map(Arc::new);
        let mut maps = lock(&self.maps);
        if maps.len() >= KNOWN_SPACES {
            maps.clear();
        }
        maps.insert(space.id, map.clone());
        map
    }

    /// The autoencoder of a latent space, if it was seen.
    pub(crate) fn of_space(&self, space: &LatentSpace) -> Option<Arc<VaeHandle>> {
        lock(&self.spaces).iter().find(|part| part.identity == space.id).cloned()
    }

    /// Remembers whose latent space this is.
    pub(crate) fn know(&self, part: &Arc<VaeHandle>) {
        let mut spaces = lock(&self.spaces);
        spaces.retain(|known| known.identity != part.identity);
        spaces.push(Arc::clone(part));
        if spaces.len() > KNOWN_SPACES {
            spaces.remove(0);
        }
    }

    /// Drops all weights that nobody computes with; handles stay valid and load again.
    pub fn clear(&self) {
        self.residents.clear();
    }
}

fn wanted<'a, S: ?Sized>(
    part: &Handle<S>,
    network: Network,
    bytes: u64,
    what: &'a str,
) -> Wanted<'a> {
    Wanted { id: part.weights_id(network), files: part.files.identity().exact, bytes, what }
}

/// The weights of a part as they are held.
fn wanted_as<'a, S: ?Sized>(part: &Handle<S>, fit: &WeightFit, what: &'a str) -> Wanted<'a> {
    let (id, files, bytes) = (part.fit_id(fit), part.files.identity().exact, fit.bytes);
    Wanted { id, files, bytes, what }
}

/// The weights of a network that stands alone in a file.
fn of_file<'a, S: ?Sized>(opened: &OpenNetwork<S>, what: &'a str) -> Wanted<'a> {
    let (id, files, bytes) = (opened.weights_id(), opened.identity(), opened.weight_bytes());
    Wanted { id, files, bytes, what }
}

/// What a panic left behind is whole: every place is filled in one step.
fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
