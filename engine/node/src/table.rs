//! The table of value types: all that the engine carries beside numbers, texts, tensors, files,
//! parts of models, lists, and plugins' own records.
//!
//! A new type of values touches this list, a file with its [`crate::ValueType`], and its row in
//! `kino_port::PortType::NAMED`; plugins' authors get it by one entry in
//! `plugins/sdk/src/types.rs`.

use kino_port::{Fact, PortType};

use crate::types::{TensorFact, TypeDef};
use crate::video::{
    Audio, Conditioning, Control, Frames, Given, GuiderHandle, ImageConditioning, Latent, Mask,
    Patches, Sigmas,
};

/// Every type of values, in the order of the documentation.
pub static TYPES: &[TypeDef] = &[
    TypeDef::of::<Conditioning>(),
    TypeDef::of::<ImageConditioning>(),
    TypeDef::of::<Latent>(),
    TypeDef::of::<Patches>(),
    TypeDef::of::<Given>(),
    TypeDef::of::<Control>(),
    TypeDef::of::<Sigmas>(),
    TypeDef::of::<GuiderHandle>(),
    TypeDef::of::<Frames>(),
    TypeDef::of::<Mask>(),
    TypeDef::of::<Audio>(),
];

/// The type of the values that travel between ports of a type.
pub fn type_of_port(port: &PortType) -> Option<&'static TypeDef> {
    TYPES.iter().find(|def| def.port == *port)
}

/// The type of a name.
pub fn type_of_name(name: &str) -> Option<&'static TypeDef> {
    TYPES.iter().find(|def| def.name() == name)
}

/// What is known of the tensor of a value of which `fact` is known.
pub fn tensor_fact(fact: &Fact) -> Option<TensorFact> {
    let found = fact.get::<TensorFact>().cloned();
    found.or_else(|| TYPES.iter().find_map(|def| def.tensor_of_fact(fact)))
}

/// The bytes that a value takes of which `fact` is known; 0 where that says nothing.
pub fn bytes_of_fact(fact: &Fact) -> u64 {
    match fact {
        Fact::Unknown => 0,
        Fact::Literal(literal) => literal.bytes() as u64,
        Fact::List(items) => items.iter().map(|(_, item)| bytes_of_fact(item)).sum(),
        Fact::Typed(_) => match fact.get::<TensorFact>() {
            Some(tensor) => tensor.bytes(),
            None => TYPES.iter().find_map(|def| def.bytes_of_fact(fact)).unwrap_or(0),
        },
    }
}
