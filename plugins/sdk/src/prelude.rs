//! All that a plugin's source needs.

#[allow(deprecated)]
pub use crate::Moment;
pub use crate::{
    Any, Audio, Choice, Conditioning, Control, Conv, Cx, DType, Dit, Error, File, Filter,
    FrameView, Frames, FramesBuilder, Given, Guider, ImageConditioning, ImageEncoder, Latent, Mask,
    Outputs, Padding, Patches, Path, Result, Sample, SamplingStep, Sigmas, Tensor, TextEncoder,
    Vae, bail, ensure, guider, node, port_type, tracing,
};
