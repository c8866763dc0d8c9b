//! The engine's own types as ports.

use std::ops::Deref;

use crate::port::{FromValue, IntoValue, Typed};
use crate::{Error, Result, Tensor, Value, ValueKind};

impl Typed for Tensor {
    fn type_name() -> String {
        "Tensor".into()
    }
}

impl FromValue for Tensor {
    fn from_value(value: Value) -> Result<Self> {
        Tensor::of(value)
    }
}

impl IntoValue for Tensor {
    fn into_value(self) -> Result<Value> {
        Ok(self.value().clone())
    }
}

macro_rules! tensors {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub Tensor);

        impl Deref for $name {
            type Target = Tensor;

            fn deref(&self) -> &Tensor {
                &self.0
            }
        }

        impl Typed for $name {
            fn type_name() -> String {
                stringify!($name).into()
            }
        }

        impl FromValue for $name {
            fn from_value(value: Value) -> Result<Self> {
                Tensor::of(value).map($name)
            }
        }

        impl IntoValue for $name {
            fn into_value(self) -> Result<Value> {
                self.0.into_value()
            }
        }
    )*};
}

tensors! {
    /// One value a pixel in 0…1, `[f, h, w]`.
    Mask;
    /// Embeddings of an image, `[rows, dim]`.
    ImageConditioning;
}

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(pub Value);

        impl Typed for $name {
            fn type_name() -> String {
                stringify!($name).into()
            }
        }

        impl FromValue for $name {
            fn from_value(value: Value) -> Result<Self> {
                Ok($name(value))
            }
        }

        impl IntoValue for $name {
            fn into_value(self) -> Result<Value> {
                Ok(self.0)
            }
        }
    )*};
}

opaque! {
    /// Whatever arrives. An output of this type has the type of the inputs of this type.
    Any;
    /// A loaded text encoder, to be passed on.
    TextEncoder;
    /// A loaded image encoder, to be passed on.
    ImageEncoder;
    /// A loaded diffusion transformer, to be passed on.
    Dit;
    /// A loaded video autoencoder, to be passed on.
    Vae;
    /// A callable that joins velocities, to be passed on; `#[guider]` makes one.
    Guider;
    /// Frames that a clip must contain, to be passed on.
    Given;
    /// What a clip follows beside its text, to be passed on.
    Control;
    /// Sound, to be passed on.
    Audio;
    /// A file that a node wrote, to be passed on.
    File;
}

fn part(value: &Value, name: &str) -> Result<Tensor> {
    match value.field(name)? {
        Some(field) => Tensor::of(field),
        None => Err(Error::new(format!(
            "expected a field `{name}` in {}, found none",
            value.type_name()
        ))),
    }
}

/// A normalised latent `[c, f, h, w]`, which knows the space of its video autoencoder.
#[derive(Clone)]
pub struct Latent {
    /// The latent itself, `[c, f, h, w]`.
    pub tensor: Tensor,
    space: Option<Value>,
}

impl Latent {
    /// A latent of no known space.
    pub fn new(tensor: Tensor) -> Self {
        Latent { tensor, space: None }
    }

    /// Another tensor in the same space.
    #[must_use]
    pub fn with(&self, tensor: Tensor) -> Self {
        Latent { tensor, space: self.space.clone() }
    }
}

impl Typed for Latent {
    fn type_name() -> String {
        "Latent".into()
    }
}

impl FromValue for Latent {
    fn from_value(value: Value) -> Result<Self> {
        let space = match value.kind() {
            ValueKind::Record => value.field("space")?,
            _ => None,
        };
        Ok(Latent { tensor: Tensor::of(value)?, space })
    }
}

impl IntoValue for Latent {
    fn into_value(self) -> Result<Value> {
        let mut fields = vec![("tensor", self.tensor.value())];
        fields.extend(self.space.as_ref().map(|space| ("space", space)));
        Value::record("Latent", &fields)
    }
}

/// Text embeddings of the prompt and of the negative prompt.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Of the prompt, `[tokens, width]`.
    pub positive: Tensor,
    /// Of the negative prompt, `[tokens, width]`.
    pub negative: Tensor,
}

impl Typed for Conditioning {
    fn type_name() -> String {
        "Conditioning".into()
    }
}

impl FromValue for Conditioning {
    fn from_value(value: Value) -> Result<Self> {
        Ok(Conditioning {
            positive: part(&value, "positive")?,
            negative: part(&value, "negative")?,
        })
    }
}

impl IntoValue for Conditioning {
    fn into_value(self) -> Result<Value> {
        let fields = [("positive", self.positive.value()), ("negative", self.negative.value())];
        Value::record("Conditioning", &fields)
    }
}

/// Latents cut into spacetime patches, packed over clips.
#[derive(Clone)]
pub struct Patches {
    /// The patches, `[tokens, c·pt·ph·pw]`.
    pub tokens: Tensor,
    value: Value,
}

impl Patches {
    /// Other tokens of the same clips.
    ///
    /// # Errors
    /// When they have another shape.
    pub fn with(&self, tokens: Tensor) -> Result<Self> {
        if tokens.dims() != self.tokens.dims() {
            return Err(Error::new(format!(
                "expected tokens {:?}, found {:?}",
                self.tokens.dims(),
                tokens.dims()
            )));
        }
        Ok(Patches { tokens, value: self.value.clone() })
    }

    /// The size of a patch: frames, rows, columns.
    ///
    /// # Errors
    /// When the engine does not say.
    pub fn patch(&self) -> Result<[usize; 3]> {
        let sizes = self
            .value
            .field("patch")?
            .map(|sizes| <Vec<usize> as crate::port::Input>::take(Some(sizes)));
        let sizes = sizes.transpose()?.unwrap_or_default();
        sizes.try_into().map_err(|_| Error::new("the patches do not say their size"))
    }
}

impl Typed for Patches {
    fn type_name() -> String {
        "Patches".into()
    }
}

impl FromValue for Patches {
    fn from_value(value: Value) -> Result<Self> {
        Ok(Patches { tokens: part(&value, "tokens")?, value })
    }
}

impl IntoValue for Patches {
    fn into_value(self) -> Result<Value> {
        let clips = self.value.field("clips")?;
        let patch = self.value.field("patch")?;
        let mut fields = vec![("tokens", self.tokens.value())];
        fields.extend(clips.as_ref().map(|clips| ("clips", clips)));
        fields.extend(patch.as_ref().map(|patch| ("patch", patch)));
        Value::record("Patches", &fields)
    }
}

/// Noise levels of a sampling run, from 1 down to 0: one more than there are steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigmas(pub Vec<f64>);

impl Deref for Sigmas {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.0
    }
}

impl Typed for Sigmas {
    fn type_name() -> String {
        "Sigmas".into()
    }
}

impl FromValue for Sigmas {
    fn from_value(value: Value) -> Result<Self> {
        Tensor::of(value)?.cast(crate::DType::F64)?.to_vec().map(Sigmas)
    }
}

impl IntoValue for Sigmas {
    fn into_value(self) -> Result<Value> {
        Tensor::from_slice(&self.0, &[self.0.len()])?.into_value()
    }
}
