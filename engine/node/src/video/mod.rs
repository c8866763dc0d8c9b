//! The values of generative video and image models: frames, sound, masks, latents, patches,
//! conditioning, noise levels, guiders. Each stands in its own file, with all that the engine must
//! know of it; the engine's core knows them by [`crate::ValueType`] alone.

mod audio;
mod conditioning;
mod control;
mod frames;
mod given;
mod guider;
mod image_conditioning;
mod latent;
mod mask;
mod patches;
mod sigmas;
mod space;

pub use audio::{Audio, AudioCut, AudioFact, AudioForm, AudioPacket, AudioPart, cut, join_error};
pub use conditioning::{Conditioning, ConditioningFact, Embedding, Embeddings};
pub use control::{Control, ControlFact};
pub use frames::{FrameRate, Frames, FramesBuilder, FramesFact};
pub use given::{Given, GivenEncoding, GivenFact};
pub use guider::{Guider, GuiderHandle, GuiderState, SamplingStep};
pub use image_conditioning::{ImageConditioning, ImageConditioningFact};
pub use latent::{Latent, LatentFact};
pub use mask::{Mask, MaskFact};
pub use patches::{Clip, ClipFact, Patches, PatchesFact};
pub use sigmas::{Sigmas, SigmasFact};
pub use space::LatentSpace;
