//! kino-nodes: the built-in nodes.
//!
//! [`NODES`] is the one list that registers them; each file is a family. A node is a signature, a
//! inference that tells while planning what is known of its results, and a function that computes
//! them. They know models, kernels and files; they know nothing of graphs or of who runs them.

#![forbid(unsafe_code)]

mod at_hand;
mod audio;
mod error;
mod files;
mod frames;
mod generate;
mod given;
mod image;
mod infer;
mod latent;
mod lora;
mod mask;
mod math;
mod model;
mod models;
mod patches;
mod picture;
mod regroup;
mod repeat;
mod sample;
mod schedule;
mod source;
mod switch;
mod tensor;
mod text;
mod vace;
mod vae;
mod video;

use std::sync::Arc;

use candle_core::Device;
use kino_node::{Cancel, CancelScope, Ledger, NodeDef, RemoveLeftovers, Services};
use kino_world::HashCache;

pub use at_hand::{MODEL_KINDS, is_weights, models_below, name_in};
pub use generate::{AskText, TextAnswer, TextEndpoint, TextRequest};
pub use kino_models::noise::{normal, philox};
/// The files of `embedded:shapes`: path inside the model, and contents.
pub use kino_shapes::FILES as EMBEDDED_FILES;
pub use models::{
    DitHandle, Handle, ImageHandle, LoadedDit, LowNoise, MissingPart, Models, OpenModel, Resident,
    TextHandle, VaeHandle,
};
pub use source::{ModelFolders, ModelPlace, model_meant_by, path_of_read};

/// Every built-in node, in the order in which they are listed.
pub static NODES: &[&NodeDef] = &[
    &model::LOAD,
    &lora::APPLY,
    &text::ENCODE,
    &text::JOIN,
    &text::PICK,
    &generate::GENERATE,
    &picture::ENCODE,
    &latent::NOISE,
    &latent::BLEND,
    &patches::PATCHIFY,
    &patches::UNPATCHIFY,
    &schedule::SCHEDULE,
    &schedule::GUIDE,
    &sample::SAMPLE,
    &vae::ENCODE,
    &vae::DECODE,
    &given::GIVEN,
    &vace::VACE,
    &video::READ,
    &video::WRITE,
    &audio::READ,
    &audio::TRIM,
    &audio::CONCAT,
    &image::READ,
    &image::WRITE,
    &frames::RESIZE,
    &frames::CROP,
    &frames::FIT,
    &frames::TRIM,
    &frames::CONCAT,
    &frames::REVERSE,
    &frames::INFO,
    &frames::INTERPOLATE,
    &frames::UPSCALE,
    &mask::READ,
    &mask::RECT,
    &mask::FEATHER,
    &mask::INVERT,
    &math::MATH,
    &switch::SWITCH,
    &repeat::REPEAT,
    &tensor::READ,
    &tensor::WRITE,
];

/// What the built-in nodes need of a process: [`Models`], [`HashCache`], [`CancelScope`]. A run
/// adds its [`Folders`](kino_world::Folders), and a [`FilePolicy`](kino_node::FilePolicy) where it
/// may not read and write whatever the process may.
///
/// Give it the [`Models`] of the runs before (`services(…).with(models)`) and their weights stay
/// loaded; likewise a table of hashes that is kept on disk.
pub fn services(device: Device, ledger: Arc<Ledger>) -> Services {
    of_process(Services::new(device, ledger))
}

/// The same for a device with memory of its own, which `of_device` counts.
pub fn services_of_device(device: Device, ledger: Arc<Ledger>, of_device: Arc<Ledger>) -> Services {
    of_process(Services::new(device, ledger).with_device_ledger(of_device))
}

fn of_process(services: Services) -> Services {
    let models = Models::new(services.device.clone(), Arc::clone(services.device_ledger()));
    let leftovers = RemoveLeftovers(kino_world::remove_leftovers);
    let services = services.with(models).with(Arc::new(HashCache::new()));
    services.with(Arc::new(leftovers)).with(Arc::new(CancelScope(cancel_kernels)))
}

/// Has kernels look at a step's flag between their tiles: one of them may take minutes.
fn cancel_kernels(cancel: &Cancel) -> Box<dyn std::any::Any> {
    let cancel = cancel.clone();
    Box::new(kino_kernels::cancelled_by(Arc::new(move || cancel.is_cancelled())))
}
