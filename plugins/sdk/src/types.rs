//! The engine's own types as ports.

use std::fmt;
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

/// The record with other values in some of its fields; all others stay, unknown ones too.
fn changed(record: &Value, fields: &[(&str, &Value)]) -> Result<Value> {
    let mut all = Vec::with_capacity(record.len() + fields.len());
    for index in 0..record.len() {
        let (name, value) = record.item(index)?;
        if !fields.iter().any(|(changed, _)| *changed == name) {
            all.push((name, value));
        }
    }
    let kept = all.iter().map(|(name, value)| (name.as_str(), value));
    let all: Vec<_> = kept.chain(fields.iter().copied()).collect();
    Value::record(&record.type_name(), &all)
}

macro_rules! tensors {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// It is a record that may have further fields: they stay where it is given on as it
        /// came, and by `with`.
        #[derive(Clone, Debug)]
        pub struct $name(pub Tensor);

        impl $name {
            /// Another tensor in its place; all other fields stay.
            ///
            /// # Errors
            /// When the host does not take it as one.
            pub fn with(&self, tensor: Tensor) -> Result<Self> {
                match self.0.record_of(stringify!($name)) {
                    Some(record) => {
                        changed(record, &[("tensor", tensor.value())]).and_then(Self::from_value)
                    }
                    None => Ok($name(tensor)),
                }
            }

            /// A field by its name; none where it has none.
            ///
            /// # Errors
            /// When the host cannot tell.
            pub fn field(&self, name: &str) -> Result<Option<Value>> {
                let record = self.0.record_of(stringify!($name));
                record.map_or(Ok(None), |record| record.field(name))
            }
        }

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
                match self.0.record_of(stringify!($name)) {
                    Some(record) => Ok(record.clone()),
                    None => self.0.into_value(),
                }
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
    /// Frames that a clip must contain: passed on, read, or made of a latent of the clip.
    Given;
    /// What a clip follows beside its text: passed on, read by its fields, or made.
    Control;
    /// Sound: passed on, read, or made of samples.
    Audio;
    /// A file that a node wrote, to be passed on.
    File;
}

macro_rules! records {
    ($($name:ident)*) => {$(
        impl $name {
            /// A field by its name; none where it has none.
            ///
            /// # Errors
            /// When the host cannot tell.
            pub fn field(&self, name: &str) -> Result<Option<Value>> {
                self.0.field(name)
            }

            /// The same with something in a field, of its type or of the plugin's own invention;
            /// all others stay.
            ///
            /// # Errors
            /// When the host does not take it there.
            pub fn with(&self, name: &str, value: impl IntoValue) -> Result<Self> {
                changed(&self.0, &[(name, &value.into_value()?)]).map($name)
            }

            /// The tensor in its field `tensor`.
            ///
            /// # Errors
            /// When it has none.
            pub fn tensor(&self) -> Result<Tensor> {
                part(&self.0, "tensor")
            }

            fn number(&self, name: &str) -> Result<f64> {
                need(&self.0, name)?.as_real()
            }
        }
    )*};
}

records! { Given Control Audio }

fn need(value: &Value, name: &str) -> Result<Value> {
    value.field(name)?.ok_or_else(|| {
        Error::new(format!("expected a field `{name}` in {}, found none", value.type_name()))
    })
}

fn part(value: &Value, name: &str) -> Result<Tensor> {
    Tensor::of_field(need(value, name)?, Some(value.clone()))
}

impl Given {
    /// What is given of a clip of so many `frames` in pixels: the latent of the whole clip, and how
    /// far each of its places is held to it, `[f, h, w]` from 0 (not at all) to 1 (wholly).
    ///
    /// # Errors
    /// When the host does not take it as one.
    pub fn new(latent: &Latent, mask: &Mask, frames: usize) -> Result<Self> {
        let space = match &latent.record {
            Some(record) => record.field("space")?,
            None => None,
        };
        let frames = Value::int(frames as i128)?;
        let (tensor, mask) = (latent.tensor.value(), mask.0.value());
        let mut fields = vec![("tensor", tensor), ("mask", mask), ("frames", &frames)];
        fields.extend(space.as_ref().map(|space| ("space", space)));
        Value::record("Given", &fields).map(Given)
    }

    /// How far each place of its latent is held to it, `[f, h, w]` from 0 to 1.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn mask(&self) -> Result<Tensor> {
        part(&self.0, "mask")
    }

    /// The number of frames of the whole clip.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn frames(&self) -> Result<usize> {
        Ok(self.number("frames")? as usize)
    }

    /// What the mask is multiplied by, from 0 to 1.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn strength(&self) -> Result<f64> {
        self.number("strength")
    }
}

impl Control {
    /// How strongly it counts: 1 as in training, 0 not at all.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn strength(&self) -> Result<f64> {
        self.number("strength")
    }
}

impl Audio {
    /// Samples `[channels, n]` in −1…1, so many a second.
    ///
    /// # Errors
    /// When they have another shape, or the rate is none.
    pub fn new(samples: &Tensor, rate: u32) -> Result<Self> {
        let rate = Value::int(rate.into())?;
        Value::record("Audio", &[("tensor", samples.value()), ("rate", &rate)]).map(Audio)
    }

    /// Its samples, `[channels, n]`; none where it is packed (AAC), as files have it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn samples(&self) -> Result<Option<Tensor>> {
        self.field("tensor")?.map(Tensor::of).transpose()
    }

    /// Samples a second.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn rate(&self) -> Result<u32> {
        Ok(self.number("rate")? as u32)
    }

    /// Its length in seconds.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn seconds(&self) -> Result<f64> {
        self.number("seconds")
    }
}

/// A normalised latent `[c, f, h, w]`, which knows the space of its video autoencoder.
#[derive(Clone)]
pub struct Latent {
    /// The latent itself, `[c, f, h, w]`.
    pub tensor: Tensor,
    /// What it came as, with its space and whatever else.
    record: Option<Value>,
}

impl Latent {
    /// A latent of no known space.
    pub fn new(tensor: Tensor) -> Self {
        Latent { tensor, record: None }
    }

    /// Another tensor in the same space; all other fields stay, too.
    #[must_use]
    pub fn with(&self, tensor: Tensor) -> Self {
        Latent { tensor, record: self.record.clone() }
    }
}

impl Typed for Latent {
    fn type_name() -> String {
        "Latent".into()
    }
}

impl FromValue for Latent {
    fn from_value(value: Value) -> Result<Self> {
        let record = (value.kind() == ValueKind::Record).then(|| value.clone());
        Ok(Latent { tensor: Tensor::of(value)?, record })
    }
}

impl IntoValue for Latent {
    fn into_value(self) -> Result<Value> {
        let fields = [("tensor", self.tensor.value())];
        match &self.record {
            Some(record) => changed(record, &fields),
            None => Value::record("Latent", &fields),
        }
    }
}

/// Text embeddings of the prompt and of the negative prompt.
///
/// Beside the text's sequence each prompt may have a mask and further embeddings by name (`pooled`,
/// `image`, …): they stay with a tensor that is given on as it came, and by
/// [`Conditioning::with_positive`] and [`Conditioning::with_negative`].
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Of the prompt, `[tokens, width]`.
    pub positive: Tensor,
    /// Of the negative prompt, `[tokens, width]`.
    pub negative: Tensor,
}

/// What the record of the embeddings of one prompt is called.
const EMBEDDINGS: &str = "Embeddings";

/// Another sequence among the embeddings of a prompt.
fn replaced(embeddings: &Tensor, tensor: Tensor) -> Result<Tensor> {
    let Some(record) = embeddings.record_of(EMBEDDINGS) else { return Ok(tensor) };
    let record = changed(record, &[("tensor", tensor.value())])?;
    Tensor::of_field(record, embeddings.record_around().cloned())
}

/// Another embedding of a prompt.
fn embedding(embeddings: &Tensor, name: &str) -> Result<Option<Tensor>> {
    let Some(record) = embeddings.record_of(EMBEDDINGS) else { return Ok(None) };
    record.field(name)?.map(Tensor::of).transpose()
}

impl Conditioning {
    /// Another sequence of the prompt's text; its mask and other embeddings stay.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn with_positive(&self, tensor: Tensor) -> Result<Self> {
        Ok(Conditioning { positive: replaced(&self.positive, tensor)?, ..self.clone() })
    }

    /// The same of the negative prompt.
    ///
    /// # Errors
    /// When the host does not take it.
    pub fn with_negative(&self, tensor: Tensor) -> Result<Self> {
        Ok(Conditioning { negative: replaced(&self.negative, tensor)?, ..self.clone() })
    }

    /// A further embedding of the prompt by its name, such as `pooled`, or its `mask`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn positive_embedding(&self, name: &str) -> Result<Option<Tensor>> {
        embedding(&self.positive, name)
    }

    /// The same of the negative prompt.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn negative_embedding(&self, name: &str) -> Result<Option<Tensor>> {
        embedding(&self.negative, name)
    }
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
        let whole = |tensor: &Tensor| {
            let record = tensor.record_of(EMBEDDINGS);
            record.cloned().unwrap_or_else(|| tensor.value().clone())
        };
        let (positive, negative) = (whole(&self.positive), whole(&self.negative));
        let fields = [("positive", &positive), ("negative", &negative)];
        let around = self.positive.record_around().or(self.negative.record_around());
        match around.filter(|record| record.type_name() == "Conditioning") {
            Some(record) => changed(record, &fields),
            None => Value::record("Conditioning", &fields),
        }
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
        Ok(Patches { tokens: part(&value, "tensor")?, value })
    }
}

impl IntoValue for Patches {
    fn into_value(self) -> Result<Value> {
        changed(&self.value, &[("tensor", self.tokens.value())])
    }
}

/// Noise levels of a sampling run, from 1 down to 0: one more than there are steps.
///
/// What else they came with stays where they are given on, and by [`Sigmas::with`].
#[derive(Clone)]
pub struct Sigmas {
    levels: Vec<f64>,
    /// What they came as.
    record: Option<Value>,
}

/// Noise levels of a sampling run that come from nowhere else.
#[allow(non_snake_case)]
pub fn Sigmas(levels: Vec<f64>) -> Sigmas {
    Sigmas { levels, record: None }
}

impl Sigmas {
    /// Other levels in their place; all other fields stay.
    #[must_use]
    pub fn with(&self, levels: Vec<f64>) -> Self {
        Sigmas { levels, record: self.record.clone() }
    }

    /// A field by its name; none where it has none.
    ///
    /// # Errors
    /// When the host cannot tell.
    pub fn field(&self, name: &str) -> Result<Option<Value>> {
        self.record.as_ref().map_or(Ok(None), |record| record.field(name))
    }
}

impl fmt::Debug for Sigmas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sigmas").field(&self.levels).finish()
    }
}

impl PartialEq for Sigmas {
    fn eq(&self, other: &Self) -> bool {
        self.levels == other.levels
    }
}

impl Deref for Sigmas {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.levels
    }
}

impl Typed for Sigmas {
    fn type_name() -> String {
        "Sigmas".into()
    }
}

impl FromValue for Sigmas {
    fn from_value(value: Value) -> Result<Self> {
        let record = (value.kind() == ValueKind::Record).then(|| value.clone());
        let levels = Tensor::of(value)?.cast(crate::DType::F64)?.to_vec()?;
        Ok(Sigmas { levels, record })
    }
}

impl IntoValue for Sigmas {
    fn into_value(self) -> Result<Value> {
        let levels = Tensor::from_slice(&self.levels, &[self.levels.len()])?;
        match &self.record {
            Some(record) => changed(record, &[("tensor", levels.value())]),
            None => levels.into_value(),
        }
    }
}
