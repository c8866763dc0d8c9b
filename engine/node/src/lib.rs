//! What a node is: a signature and functions; and what it works on: values, inputs, outputs,
//! context.
//!
//! A node is asked twice. While planning, [`Node::infer`] says what is known of its results and
//! objects to what cannot work. While running, [`Node::run`] computes. It reaches the rest of the
//! world through its context [`Cx`] alone: services by type, progress, cancelling.

#![forbid(unsafe_code)]

mod answers;
mod codec;
mod cx;
mod error;
mod fit;
mod inputs;
pub mod ledger;
mod node;
pub mod path_text;
mod policy;
mod regular;
mod spill;
mod stored;
mod table;
mod types;
mod value;
mod video;

pub use answers::{Answers, EmbedAnswers};
pub use codec::{decode, encode, is_storable};
pub use cx::{
    Cancel, CancelScope, Cx, GraphId, OnlyCheck, Preview, Progress, RemoveLeftovers, RunId,
    Services,
};
pub use error::{Error, Result};
pub use inputs::{Inputs, Outputs, fit_values};
pub use ledger::{
    Admission, Lease, Ledger, OUT_OF_MEMORY_HINT, OUT_OF_SPILL_HINT, OutOfMemory, Pinned, Reclaim,
    spill_room,
};
pub use node::{Node, NodeDef, Registry, no_infer};
pub use policy::{AskReading, CheckOutput, FilePolicy, OutputGuard, is_of_system};
pub use regular::{Irregular, open_regular, read_regular, read_regular_text};
pub use spill::SpillFile;
pub use stored::{TensorHeader, TensorReader};
pub use table::{TYPES, bytes_of_fact, tensor_fact, type_of_name, type_of_port};
pub use types::{
    Content, CustomTypes, Field, Fields, Opaque, TensorFact, Tensors, TypeDef, ValueType,
    check_elements, check_shape, fit_shape, from_tensor, known, tensor_bytes,
};
pub use value::{ModelPart, Named, OutputFile, Record, RecordField, Typed, Value};
pub use video::{
    Audio, AudioCut, AudioFact, AudioForm, AudioPacket, AudioPart, Clip, ClipFact, Conditioning,
    ConditioningFact, Control, ControlFact, Embedding, Embeddings, FrameRate, Frames,
    FramesBuilder, FramesFact, Given, GivenEncoding, GivenFact, Guider, GuiderHandle, GuiderState,
    ImageConditioning, ImageConditioningFact, Latent, LatentFact, LatentSpace, Mask, MaskFact,
    Patches, PatchesFact, SamplingStep, Sigmas, SigmasFact, cut as cut_packets,
    join_error as audio_join_error,
};
