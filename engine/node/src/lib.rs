//! What a node is: a signature and functions; and what it works on: values, inputs, outputs,
//! context.
//!
//! A node is asked twice. While planning, [`Node::infer`] says what is known of its results and
//! objects to what cannot work. While running, [`Node::run`] computes. It reaches the rest of the
//! world through its context [`Cx`] alone: services by type, progress, cancelling.

#![forbid(unsafe_code)]

mod codec;
mod cx;
mod error;
mod facts;
mod fit;
mod frames;
mod inputs;
pub mod ledger;
mod node;
mod spill;
mod tensors;
mod value;

pub use codec::{decode, encode, is_storable};
pub use cx::{Cancel, Cx, GraphId, Preview, Progress, RunId, Services};
pub use error::{Error, Result};
pub use facts::{ConditioningFact, FramesFact, LatentFact, PatchesFact, SigmasFact, TensorFact};
pub use frames::{Frames, FramesBuilder};
pub use inputs::{Inputs, Named, Outputs};
pub use ledger::{Admission, Lease, Ledger, OUT_OF_MEMORY_HINT, OutOfMemory, Pinned, Reclaim};
pub use node::{Node, NodeDef, Registry, no_infer};
pub use tensors::{
    Clip, Conditioning, Embedding, Embeddings, Guidance, Guider, Latent, Patches, SamplingStep,
    Sigmas, Space,
};
pub use value::{FileOut, Part, Record, Value};
