//! Parts of models that are not loaded yet: what travels along an edge, and what a plan knows.

use std::sync::Arc;

use candle_core::DType;
use kino_models::checkpoint::{Checkpoint, PartFiles};
use kino_models::model::{
    Component, DenoiserSpec, ImageEncoderSpec, LatentLayout, Model, TextEncoderSpec, VideoVae,
};
use kino_models::sampling::SchedulerConfig;
use kino_models::weight::{LoraMatch, LoraSpec, Probe, WeightFit, Weights};
use kino_node::LatentSpace;
use kino_port::{PlannedWeights, StreamedWeights};

use super::files::OpenNetwork;

/// A model whose configs were read and whose weight files are open; no weights are loaded.
pub struct OpenModel {
    /// Its files.
    pub checkpoint: Checkpoint,
    /// Its parts, as its family reads them.
    pub parts: Model,
    /// What the weights of a part lack, by the part: found by names, shapes and types alone.
    pub faults: Vec<(&'static str, String)>,
    /// The same of the autoencoder: of its encoder, and of its decoder, which need not be there
    /// both.
    pub vae_faults: [Option<String>; 2],
    /// Weights of single files that their part does not read, by the part.
    pub left_over: Vec<(&'static str, String)>,
    /// That its index names another scheduler than the folder of that one, if it does.
    pub other_scheduler: Option<String>,
    /// What the networks of parts asked for, by the part.
    asked: Vec<(&'static str, Arc<Probe>)>,
}

impl OpenModel {
    /// Looks for what the weights of all parts lack, and for what is left over of them. Weights in
    /// the binary are as its tests found them: whole.
    pub fn new(checkpoint: Checkpoint, parts: Model) -> Self {
        let is_of_others =
            |part: &str| checkpoint.part(part).is_ok_and(|files| !files.is_in_binary());
        let mut found = Found::default();
        for (part, make) in networks(&parts) {
            if is_of_others(part) {
                found.probe(&checkpoint, part, make);
            }
        }
        let mut vae_faults = [None, None];
        if let Some(Component { part, spec }) =
            parts.vae.as_ref().filter(|vae| is_of_others(vae.part))
        {
            let mut networks = [Found::default(), Found::default()];
            let [encoder, decoder] = &mut networks;
            encoder.probe(&checkpoint, part, |weights| spec.load_encoder(weights).map(drop));
            decoder.probe(&checkpoint, part, |weights| spec.load_decoder(weights).map(drop));
            vae_faults = networks.map(|mut of| of.faults.pop().map(|(_, message)| message));
        }
        let Found { faults, left_over, asked } = found;
        let other_scheduler = SchedulerConfig::other_in_index(&checkpoint);
        OpenModel { checkpoint, parts, faults, vae_faults, left_over, other_scheduler, asked }
    }

    /// What the network of a part asks for.
    pub(crate) fn asked(&self, part: &str) -> Arc<Probe> {
        if let Some((_, probe)) = self.asked.iter().find(|(own, _)| *own == part) {
            return Arc::clone(probe);
        }
        let mut found = Found::default();
        for (part, make) in networks(&self.parts).filter(|(own, _)| *own == part) {
            found.probe(&self.checkpoint, part, make);
        }
        found.asked.pop().map_or_else(Arc::default, |(_, probe)| probe)
    }

    /// A hash that changes when the model does.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.checkpoint.fingerprint()
    }
}

/// Makes a network of weights.
type Make<'a> = Box<dyn Fn(&Weights) -> kino_models::Result<()> + 'a>;

/// What makes the network of each part that has one, by the part. An autoencoder, which has two, is
/// none of them.
fn networks(parts: &Model) -> impl Iterator<Item = (&'static str, Make<'_>)> {
    let low_noise = parts.low_noise.as_ref().map(|low| &low.denoiser);
    let denoisers = parts.denoiser.iter().chain(low_noise).map(|Component { part, spec }| {
        (*part, Box::new(|weights: &Weights| spec.load(weights).map(drop)) as Make<'_>)
    });
    let texts = parts.text_encoder.iter().chain(&parts.other_text_encoders);
    let texts = texts.map(|Component { part, spec }| {
        (*part, Box::new(|weights: &Weights| spec.probe(weights)) as Make<'_>)
    });
    let images = parts.image_encoder.iter().map(|Component { part, spec }| {
        (*part, Box::new(|weights: &Weights| spec.load(weights).map(drop)) as Make<'_>)
    });
    denoisers.chain(texts).chain(images)
}

/// What was found by names, shapes and types of weights: see [`OpenModel`].
#[derive(Default)]
struct Found {
    faults: Vec<(&'static str, String)>,
    left_over: Vec<(&'static str, String)>,
    asked: Vec<(&'static str, Arc<Probe>)>,
}

/// So many weights are named that are left over.
const NAMED: usize = 5;

impl Found {
    /// Makes a network of weights that are not read.
    fn probe(
        &mut self,
        checkpoint: &Checkpoint,
        part: &'static str,
        load: impl Fn(&Weights) -> kino_models::Result<()>,
    ) {
        // Weights that are not there at all are told by whoever asks for them.
        let Ok(files) = checkpoint.part(part) else { return };
        let probe = Arc::new(Probe::default());
        let weights = Weights::new(Arc::clone(&files), DType::F32, &candle_core::Device::Cpu);
        if let Err(error) = weights.and_then(|weights| load(&weights.probing(&probe))) {
            self.faults.push((part, error.to_string()));
            return;
        }
        self.asked.push((part, Arc::clone(&probe)));
        let names = probe.left_over(&files);
        if !names.is_empty() {
            let named: Vec<String> = names.iter().take(NAMED).map(|n| format!("`{n}`")).collect();
            let others = match names.len().checked_sub(NAMED) {
                None | Some(0) => String::new(),
                Some(others) => format!(" and {others} others"),
            };
            self.left_over.push((part, named.join(", ") + &others));
        }
    }
}

/// A part that a model has not, or whose weights cannot be read: said by whoever needs it.
#[derive(Clone, Debug)]
pub struct MissingPart {
    /// What is missing.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// A file of it is not here; it may be on another machine.
    pub of_machine: bool,
}

/// A part of a model that is not loaded yet.
pub struct Handle<S: ?Sized> {
    /// The model that it belongs to.
    pub model: Arc<OpenModel>,
    /// What is known of it.
    pub spec: Arc<S>,
    /// The type in which it computes.
    pub dtype: DType,
    /// Whether its matrices of int8 multiply activations that are rounded to int8.
    pub int8: bool,
    /// Whether its device widens a narrow matrix whole before it multiplies: all but the CPU do.
    pub widens: bool,
    /// Its weight files.
    pub files: Arc<PartFiles>,
    /// Which part of the model it is.
    pub(crate) part: &'static str,
    /// A hash of its config and weights: equal where the part is, in whatever model it lies.
    pub identity: [u8; 32],
    /// The expert that takes over at low noise levels, where the part has two.
    pub low_noise: Option<LowNoise<S>>,
    /// Others that read the same beside it: text encoders whose outputs have other names.
    pub others: Vec<Arc<Handle<S>>>,
    /// Adapters beside its weights, in the order in which they were applied.
    pub(crate) adapters: Vec<AdapterHandle>,
}

impl<S: ?Sized> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Handle {
            model: Arc::clone(&self.model),
            spec: Arc::clone(&self.spec),
            files: Arc::clone(&self.files),
            low_noise: self.low_noise.clone(),
            others: self.others.clone(),
            adapters: self.adapters.clone(),
            ..*self
        }
    }
}

/// Adapters that were held against a network and are not loaded yet.
#[derive(Clone)]
pub(crate) struct AdapterHandle {
    /// Their file.
    pub(crate) opened: Arc<OpenNetwork<LoraSpec>>,
    /// What they change in this network.
    pub(crate) matched: Arc<LoraMatch>,
    /// How strongly they count.
    pub(crate) strength: f64,
}

/// The second of two experts (Wan 2.2 A14B).
pub struct LowNoise<S: ?Sized> {
    /// It computes at timesteps below this one.
    pub below: f64,
    /// The expert.
    pub part: Arc<Handle<S>>,
}

impl<S: ?Sized> Clone for LowNoise<S> {
    fn clone(&self) -> Self {
        LowNoise { below: self.below, part: Arc::clone(&self.part) }
    }
}

/// The networks of a part, which are loaded apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All that the part has.
    Whole,
    /// The encoder of an autoencoder.
    Encoder,
    /// The decoder of an autoencoder.
    Decoder,
}

/// Where blocks are streamed, this part of the budget is left free: a sixteenth.
const LEFT_TO_VALUES: u64 = 16;

/// What a plan says of weights that do not fit; nothing where they do.
pub(crate) fn streamed(fit: &WeightFit) -> Option<StreamedWeights> {
    let WeightFit { blocks, resident, streamed, .. } = *fit;
    fit.residency.is_some().then_some(StreamedWeights { blocks, resident, bytes: streamed })
}

impl<S: ?Sized> Handle<S> {
    /// What identifies the weights of a network in memory.
    pub(crate) fn weights_id(&self, network: Network) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        // The config says how weights are read, the files which they are.
        hasher.update(&self.identity);
        hasher.update(&self.files.identity().exact);
        hasher.update(format!("{network:?} {}", self.compute()).as_bytes());
        hasher.finalize().into()
    }

    /// The types in which it computes, in words: what of them changes the numbers.
    pub(crate) fn compute(&self) -> String {
        let int8 = if self.int8 { "int8 " } else { "" };
        format!("{int8}{}", self.dtype.as_str())
    }

    /// Weights as a plan counts them: those that are resident are not asked for again.
    pub(crate) fn planned(&self, network: Network, bytes: u64) -> Vec<PlannedWeights> {
        vec![PlannedWeights { id: self.weights_id(network), bytes }]
    }

    /// Bytes that its products take beside weights that are narrow: one matrix at a time is widened,
    /// at most the largest.
    pub(crate) fn scratch(&self) -> u64 {
        match self.widens {
            true => self.model.asked(self.part).scratch_bytes(&self.files, self.dtype),
            false => 0,
        }
    }

    /// How its weights are held in a budget of which a step needs `beside` for something else: all
    /// of them, or where they do not fit, with blocks that are streamed. Then a part of the budget
    /// is left to values that are on their way.
    pub(crate) fn fit(&self, budget: u64, beside: u64) -> WeightFit {
        let room = budget.saturating_sub(beside);
        let whole = self.files.weight_bytes(self.dtype, &[""]);
        if whole <= room {
            return WeightFit::whole(whole);
        }
        let sizes = self.model.asked(self.part).block_sizes(&self.files, self.dtype);
        let fit = sizes.fit(room);
        match fit.residency {
            None => fit,
            Some(_) => sizes.fit(room.saturating_sub(budget / LEFT_TO_VALUES)),
        }
    }

    /// All of its weights.
    pub(crate) fn whole(&self) -> WeightFit {
        self.fit(u64::MAX, 0)
    }

    /// What identifies its weights in memory as they are held.
    pub(crate) fn fit_id(&self, fit: &WeightFit) -> [u8; 32] {
        let whole = self.weights_id(Network::Whole);
        match fit.residency {
            None => whole,
            Some(_) => {
                let mut hasher = blake3::Hasher::new_keyed(&whole);
                hasher.update(&(fit.resident as u64).to_le_bytes());
                hasher.finalize().into()
            }
        }
    }

    /// The same as [`Handle::planned`] of weights as they are held.
    pub(crate) fn planned_fit(&self, fit: &WeightFit) -> PlannedWeights {
        PlannedWeights { id: self.fit_id(fit), bytes: fit.bytes }
    }

    /// The weights, to be read.
    pub(crate) fn weights(&self, device: &candle_core::Device) -> kino_models::Result<Weights> {
        let weights = Weights::new(Arc::clone(&self.files), self.dtype, device)?;
        Ok(weights.with_int8(self.int8))
    }
}

/// A text encoder.
pub type TextHandle = Handle<dyn TextEncoderSpec>;
/// An image encoder.
pub type ImageHandle = Handle<dyn ImageEncoderSpec>;
/// A diffusion transformer, or another network that gives velocities.
pub type DitHandle = Handle<dyn DenoiserSpec>;
/// A video autoencoder.
pub type VaeHandle = Handle<dyn VideoVae>;

impl TextHandle {
    /// All encoders of the model, this one first.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.others.iter().map(|other| &**other))
    }

    /// The memory of its own weights in bytes, in the type in which it computes.
    pub fn weight_bytes(&self) -> u64 {
        self.files.weight_bytes(self.dtype, &[""])
    }
}

impl ImageHandle {
    /// The memory of its weights in bytes, in the type in which it computes.
    pub fn weight_bytes(&self) -> u64 {
        self.files.weight_bytes(self.dtype, &[""])
    }
}

impl DitHandle {
    /// The memory of its weights in bytes, in the type in which it computes; of the larger one
    /// where there are two experts, since one computes at a time.
    pub fn weight_bytes(&self) -> u64 {
        let own = self.base_bytes().saturating_add(self.adapters_bytes());
        own.max(self.low_noise.as_ref().map_or(0, |low| low.part.weight_bytes()))
    }

    /// The memory of its own weights alone, without adapters and the other expert.
    pub(crate) fn base_bytes(&self) -> u64 {
        self.files.weight_bytes(self.dtype, &[""])
    }

    /// How its own weights, or those of this expert, are held in a budget of which a step needs
    /// `run` for something else than weights.
    pub(crate) fn fit_run(&self, budget: u64, run: u64) -> WeightFit {
        self.fit(budget, run.saturating_add(self.adapters_bytes()))
    }

    /// The memory of its adapters.
    pub(crate) fn adapters_bytes(&self) -> u64 {
        let bytes = self.adapters.iter().map(|adapter| self.adapter_bytes(adapter));
        bytes.fold(0, u64::saturating_add)
    }

    /// Its experts: itself, and the one of low noise levels where there are two.
    pub(crate) fn experts(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.low_noise.as_ref().map(|low| &*low.part))
    }

    /// The memory of adapters in the type in which this part computes.
    pub(crate) fn adapter_bytes(&self, adapter: &AdapterHandle) -> u64 {
        adapter.opened.weight_bytes_as(self.dtype)
    }

    /// What identifies adapters in memory: read for this network, in this type.
    pub(crate) fn adapter_id(&self, adapter: &AdapterHandle) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.weights_id(Network::Whole));
        hasher.update(&adapter.opened.identity());
        hasher.finalize().into()
    }

    /// The same part with adapters beside its weights, and the other expert as it is given.
    pub(crate) fn with(
        &self,
        adapter: Option<AdapterHandle>,
        low_noise: Option<LowNoise<dyn DenoiserSpec>>,
    ) -> Self {
        let adapters = self.adapters.iter().cloned().chain(adapter).collect();
        Handle { low_noise, adapters, ..self.clone() }
    }

    /// The expert that computes at a timestep: itself, or the one of low noise levels.
    pub fn at(self: &Arc<Self>, timestep: f64) -> &Arc<Self> {
        match &self.low_noise {
            Some(low) if timestep < low.below => &low.part,
            _ => self,
        }
    }

    /// Its weights as a plan counts them, held so. Of two experts none is named: a step keeps the
    /// weights that it names, and the one that does not compute may have to leave for the other.
    pub(crate) fn planned_weights(&self, fit: &WeightFit) -> Vec<PlannedWeights> {
        if self.low_noise.is_some() {
            return Vec::new();
        }
        let beside = self.adapters.iter().map(|adapter| PlannedWeights {
            id: self.adapter_id(adapter),
            bytes: self.adapter_bytes(adapter),
        });
        std::iter::once(self.planned_fit(fit)).chain(beside).collect()
    }
}

impl VaeHandle {
    /// What stands against using one of its networks.
    pub(crate) fn fault(&self, network: Network) -> Option<&str> {
        let [encoder, decoder] = &self.model.vae_faults;
        let fault = match network {
            Network::Encoder => encoder,
            Network::Decoder => decoder,
            Network::Whole => &None,
        };
        fault.as_deref()
    }

    /// How its latents stand for frames.
    pub fn latents(&self) -> LatentLayout {
        self.spec.latents()
    }

    /// The latent space of this autoencoder: that of every copy of it, and of no other.
    pub fn space(&self) -> LatentSpace {
        let LatentLayout { channels, temporal, spatial, .. } = self.latents();
        LatentSpace { id: self.identity, channels, temporal, spatial }
    }

    /// The memory of the weights of one network in bytes, in the type in which it computes.
    pub fn weight_bytes(&self, network: Network) -> u64 {
        let names = match network {
            Network::Encoder => self.spec.encoder_weights(),
            Network::Decoder => self.spec.decoder_weights(),
            Network::Whole => &[""],
        };
        self.files.weight_bytes(self.dtype, names)
    }
}
