//! What the whole engine agrees on: port types, literals, signatures, plan-time facts, units.
//!
//! This crate depends on none of ours. A node's [`Signature`] says what it takes and gives; a
//! [`Literal`] is a value that can stand in a graph's text; a [`Fact`] is what is known of a value
//! before anything runs.

#![forbid(unsafe_code)]

pub mod code;
mod fact;
mod fields;
mod hidden;
mod literal;
mod numbered;
mod path;
mod port;
mod repeat;
mod safetensors;
mod signature;
mod size;
mod stamp;
mod suggest;
mod types;
mod units;

pub use fact::{
    Fact, Facts, PlanError, PlanErrorKind, PlannedRead, PlannedWeights, StepInfo, StreamedWeights,
};
pub use fields::{ElementRule, FieldContent, FieldPresence, FieldRule, TensorRule};
pub use hidden::{escape_hidden, escape_line, is_hidden, is_plain};
pub use literal::{Literal, MAX_TEXT};
pub use numbered::{NumberedFiles, PathForm};
pub use path::{path_of_text, path_to_text};
pub use port::{
    Arity, Port, PortError, Range, bool, count, edge, int, list, optional, optional_list, path,
    real, text,
};
pub use repeat::{MAX_TURNS, REPEAT};
pub use safetensors::{SafetensorsEntry, SafetensorsError, SafetensorsHeader};
pub use signature::{NodeTraits, Signature};
pub use size::{format_bytes, parse_bytes};
pub use stamp::{FileStamp, PlannedFile};
pub use suggest::{did_you_mean, nearest};
pub use types::{NamedType, PortType};
pub use units::{Fps, Guidance, Sigma, Timestep};
