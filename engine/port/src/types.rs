//! The types of ports and which may be joined.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::fields::{FieldContent, FieldPresence, FieldRule, TensorRule};

/// How deep lists of lists may nest.
const DEEPEST: usize = 16;

/// The longest that a message shows of a type that is none, in bytes.
const LONGEST_SHOWN: usize = 100;

/// The type of a value that travels along an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortType {
    /// UTF-8 text.
    Text,
    /// A whole number.
    Int,
    /// A 64-bit floating-point number.
    Real,
    /// True or false.
    Bool,
    /// A path of a file or folder, relative to the graph.
    Path,
    /// A loaded text encoder.
    TextEncoder,
    /// A loaded image encoder.
    ImageEncoder,
    /// A loaded diffusion transformer.
    Dit,
    /// A loaded video autoencoder.
    Vae,
    /// Text embeddings, of the prompt and of the negative prompt.
    Conditioning,
    /// Image embeddings.
    ImageConditioning,
    /// A normalised latent `[c, f, h, w]`.
    Latent,
    /// Latents cut into spacetime patches, packed over clips.
    Patches,
    /// Frames that a clip must contain.
    Given,
    /// What a clip follows beside its text: a clip, a mask, pictures.
    Control,
    /// Noise levels of a sampling run, from 1 to 0.
    Sigmas,
    /// A callable that joins velocities with and without text.
    Guider,
    /// Video frames `[f, h, w, 3]` in 0…1 with their rate; an image is one frame.
    Frames,
    /// One value a pixel in 0…1.
    Mask,
    /// Sound.
    Audio,
    /// A tensor of any shape.
    Tensor,
    /// A file that a node wrote.
    File,
    /// Whatever arrives; an output of this type has the type of the inputs of this type.
    Any,
    /// A list of values of one type.
    List(Box<PortType>),
    /// A plugin's own type, such as `example.depth`.
    Custom(Cow<'static, str>),
}

/// What the engine, its hosts of plugins, and the SDK agree on about a type that has a name: one
/// row of [`PortType::NAMED`].
///
/// A type of values of the engine has one row here, and says the rest (its Rust type, its checks,
/// its form on disk) where `kino_node::ValueType` is implemented for it.
#[derive(Debug)]
pub struct NamedType {
    /// What graphs call it.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// The type itself.
    pub ty: PortType,
    /// Whether a value of it can stand in a graph's text.
    pub literal: bool,
    /// The fields that plugins see and give, in order; none where it is no record to them. A record
    /// is open: it may have others, which are kept on its way through.
    pub fields: &'static [FieldRule],
    /// What is agreed about the tensor that it holds; none where it holds none.
    pub tensor: Option<TensorRule>,
}

/// The row of a type whose values plugins only pass on.
const fn opaque(name: &'static str, ty: PortType, about: &'static str) -> NamedType {
    NamedType { name, about, ty, literal: false, fields: &[], tensor: None }
}

/// The row of a type whose values can stand in a graph's text.
const fn written(name: &'static str, ty: PortType, about: &'static str) -> NamedType {
    NamedType { name, about, ty, literal: true, fields: &[], tensor: None }
}

/// The row of a type whose values are fields to plugins.
const fn record(
    name: &'static str,
    ty: PortType,
    about: &'static str,
    fields: &'static [FieldRule],
    rule: TensorRule,
) -> NamedType {
    NamedType { name, about, ty, literal: false, fields, tensor: Some(rule) }
}

impl PortType {
    /// Every type that has a fixed name, in the order of the documentation.
    pub const NAMED: &[NamedType] = &[
        written("Text", PortType::Text, "UTF-8 text"),
        written("Int", PortType::Int, "a whole number"),
        written("Real", PortType::Real, "a 64-bit floating-point number"),
        written("Bool", PortType::Bool, "true or false"),
        written(
            "Path",
            PortType::Path,
            "the path of a file or folder, relative to the graph or the folder of outputs",
        ),
        opaque("TextEncoder", PortType::TextEncoder, "a text encoder that is open"),
        opaque("ImageEncoder", PortType::ImageEncoder, "an image encoder that is open"),
        opaque("Dit", PortType::Dit, "a diffusion transformer that is open"),
        opaque("Vae", PortType::Vae, "a video autoencoder that is open"),
        record(
            "Conditioning",
            PortType::Conditioning,
            "embeddings of a prompt and of a negative prompt",
            &[
                FieldRule::needed("positive", FieldContent::Embeddings, "of the prompt"),
                FieldRule::needed("negative", FieldContent::Embeddings, "of the negative prompt"),
            ],
            TensorRule::EMBEDDINGS,
        ),
        record(
            "ImageConditioning",
            PortType::ImageConditioning,
            "embeddings of an image",
            &[FieldRule::needed(
                "tensor",
                FieldContent::Tensor(TensorRule::EMBEDDINGS),
                "embeddings of an image",
            )],
            TensorRule::EMBEDDINGS,
        ),
        record(
            "Latent",
            PortType::Latent,
            "a normalised latent of an autoencoder",
            &[
                FieldRule::needed(
                    "tensor",
                    FieldContent::Tensor(TensorRule::LATENT),
                    "a normalised latent",
                ),
                FieldRule::SPACE,
            ],
            TensorRule::LATENT,
        ),
        record(
            "Patches",
            PortType::Patches,
            "latents cut into spacetime patches, packed over clips",
            &[
                FieldRule::needed(
                    "tensor",
                    FieldContent::Tensor(TensorRule::PATCHES),
                    "latents cut into patches, clip after clip, each in the order t, h, w",
                ),
                FieldRule::needed(
                    "clips",
                    FieldContent::Opaque,
                    "name, grid, channels and space of each clip, as other patches have them",
                ),
                FieldRule::needed("patch", FieldContent::Sizes(3), "a patch: t, h, w"),
            ],
            TensorRule::PATCHES,
        ),
        record(
            "Given",
            PortType::Given,
            "frames that a clip must contain",
            &[
                FieldRule::needed(
                    "tensor",
                    FieldContent::Tensor(TensorRule::GIVEN),
                    "the latent of the whole clip; anything where nothing is given",
                ),
                FieldRule::needed(
                    "mask",
                    FieldContent::Tensor(TensorRule::MASK),
                    "how far each place of the latent is held to it: 1 wholly, 0 not at all",
                ),
                FieldRule::needed(
                    "frames",
                    FieldContent::Int { min: 1, max: 1 << 20 },
                    "how many the clip has in pixels",
                )
                .unit("frames"),
                FieldRule::optional(
                    "strength",
                    FieldContent::Real { min: 0.0, max: 1.0 },
                    "multiplies the mask; 1 unless given",
                ),
                FieldRule::optional(
                    "encoding",
                    FieldContent::Text(&["apart", "whole"]),
                    "what is given was encoded for itself (Wan 2.2 TI2V; unless given), or the \
                     clip as a whole, grey where nothing is (Wan 2.1 I2V)",
                ),
                FieldRule::SPACE,
                FieldRule::optional(
                    "start",
                    FieldContent::Frames,
                    "the first frames of the clip, which `vae.decode` puts back",
                ),
                FieldRule::optional("end", FieldContent::Frames, "the last frames of the clip"),
            ],
            TensorRule::GIVEN,
        ),
        record(
            "Control",
            PortType::Control,
            "what a clip follows beside its text: a clip, a mask, pictures",
            &[
                FieldRule::needed(
                    "tensor",
                    FieldContent::Tensor(TensorRule::CONTROL),
                    "what a clip follows, encoded: latent frames of pictures, then of the clip",
                ),
                FieldRule::optional(
                    "references",
                    FieldContent::Int { min: 0, max: 1 << 20 },
                    "how many of its latent frames are pictures; 0 unless given",
                )
                .unit("latent frames"),
                FieldRule::optional(
                    "strength",
                    FieldContent::Real { min: 0.0, max: f64::MAX },
                    "how strongly it counts; 1, as in training, unless given",
                ),
                FieldRule::SPACE,
            ],
            TensorRule::CONTROL,
        ),
        record(
            "Sigmas",
            PortType::Sigmas,
            "noise levels of a sampling run",
            &[FieldRule::needed(
                "tensor",
                FieldContent::Tensor(TensorRule::SIGMAS),
                "noise levels of a sampling run: 1 is pure noise, 0 is data",
            )],
            TensorRule::SIGMAS,
        ),
        opaque("Guider", PortType::Guider, "what joins velocities with and without text"),
        record(
            "Frames",
            PortType::Frames,
            "video frames with their rate; an image is one frame",
            &[
                FieldRule::needed(
                    "chunks",
                    FieldContent::Chunks,
                    "of one size: RGB, sRGB-encoded, BT.709 primaries",
                ),
                FieldRule::optional("fps", FieldContent::RATE, "the rate").unit("frames/s"),
                FieldRule::derived("count", FieldContent::COUNT, "how many").unit("frames"),
                FieldRule::derived("height", FieldContent::COUNT, "rows").unit("px"),
                FieldRule::derived("width", FieldContent::COUNT, "columns").unit("px"),
            ],
            TensorRule::FRAMES,
        ),
        record(
            "Mask",
            PortType::Mask,
            "a value a pixel, from 0 to 1",
            &[FieldRule::needed(
                "tensor",
                FieldContent::Tensor(TensorRule::MASK),
                "a value a pixel: 1 where something holds; one frame may stand for all",
            )],
            TensorRule::MASK,
        ),
        NamedType {
            name: "Audio",
            about: "sound",
            ty: PortType::Audio,
            literal: false,
            fields: &[
                FieldRule::optional(
                    "tensor",
                    FieldContent::Tensor(TensorRule::AUDIO),
                    "the samples, in −1…1; none where the sound is packed",
                ),
                FieldRule::needed("rate", FieldContent::Int { min: 1, max: 1 << 20 }, "the rate")
                    .unit("samples/s"),
                FieldRule::derived("channels", FieldContent::COUNT, "how many").unit("channels"),
                FieldRule::derived("seconds", FieldContent::SECONDS, "how long").unit("s"),
                FieldRule::optional(
                    "packets",
                    FieldContent::Opaque,
                    "the sound as a file has it (AAC), in place of samples",
                ),
            ],
            // Not every sound has samples, so none is taken for a tensor while planning.
            tensor: None,
        },
        NamedType {
            name: "Tensor",
            about: "a tensor of any shape",
            ty: PortType::Tensor,
            literal: false,
            fields: &[],
            tensor: Some(TensorRule::ANY),
        },
        opaque("File", PortType::File, "a file that a node wrote"),
        opaque(
            "Any",
            PortType::Any,
            "whatever arrives; the inputs and outputs of type Any of one node have one type",
        ),
    ];

    /// The row of a type that has a fixed name.
    pub fn named(&self) -> Option<&'static NamedType> {
        Self::NAMED.iter().find(|row| row.ty == *self)
    }

    /// Whether a value of this type can stand in a graph's text.
    pub fn is_literal(&self) -> bool {
        match self {
            PortType::List(of) => of.is_literal(),
            named => named.named().is_some_and(|row| row.literal),
        }
    }

    /// What is agreed about the tensor that a value of this type holds; none where it holds none.
    pub fn tensor_rule(&self) -> Option<&'static TensorRule> {
        self.named()?.tensor.as_ref()
    }

    /// Whether a value of this type holds one tensor of numbers.
    pub fn holds_tensor(&self) -> bool {
        self.tensor_rule().is_some()
    }

    /// Whether an input of this type takes a value of type `from`.
    ///
    /// Int widens to Real, never back. Text names a Path. A Tensor connects to any port whose values
    /// are made of one ([`TensorRule::converts`]), and any value that holds a tensor to a Tensor
    /// port; the shape is checked when it arrives.
    pub fn accepts(&self, from: &PortType) -> bool {
        match (self, from) {
            (PortType::Any, _) | (_, PortType::Any) => true,
            (PortType::Real, PortType::Int) | (PortType::Path, PortType::Text) => true,
            (PortType::List(to), PortType::List(from)) => to.accepts(from),
            (PortType::Tensor, from) => from.holds_tensor(),
            (to, PortType::Tensor) => to.tensor_rule().is_some_and(|rule| rule.converts),
            (to, from) => to == from,
        }
    }

    /// The type of a value that has this type or that one: an input that takes it takes both. None
    /// where there is no such type.
    pub fn either(&self, other: &PortType) -> Option<PortType> {
        match (self, other) {
            (PortType::List(a), PortType::List(b)) => {
                a.either(b).map(|of| PortType::List(Box::new(of)))
            }
            // A tensor becomes what the other one is; an input of type Tensor takes both.
            (PortType::Tensor, ty) | (ty, PortType::Tensor) if *ty != PortType::Any => {
                ty.accepts(&PortType::Tensor).then(|| ty.clone())
            }
            (a, b) if a.accepts(b) => Some(a.clone()),
            (a, b) => b.accepts(a).then(|| b.clone()),
        }
    }
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortType::List(of) => write!(f, "List({of})"),
            PortType::Custom(name) => f.write_str(name),
            named => f.write_str(named.named().map_or("?", |row| row.name)),
        }
    }
}

impl FromStr for PortType {
    type Err = String;

    /// Reads a type as graphs write it: `Text`, `List(Frames)`, `example.depth`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut item, mut lists) = (text, 0);
        while let Some(inner) = item.strip_prefix("List(").and_then(|rest| rest.strip_suffix(')')) {
            (item, lists) = (inner, lists + 1);
            if lists > DEEPEST {
                return Err(format!("lists of lists go at most {DEEPEST} deep"));
            }
        }
        let ty = Self::no_list(item)?;
        Ok((0..lists).fold(ty, |ty, _| PortType::List(Box::new(ty))))
    }
}

impl NamedType {
    /// The rule of a field; none where a field of this name is not agreed.
    pub fn field(&self, name: &str) -> Option<&'static FieldRule> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field that stands for the one tensor that it holds, where a single one does.
    pub fn tensor_field(&self) -> Option<&'static str> {
        let first = self.fields.first().filter(|first| !first.content.is_chunks())?;
        Some(self.field("tensor").unwrap_or(first).name)
    }

    /// The fields that whoever makes a value must give.
    pub fn needed_fields(&self) -> impl Iterator<Item = &'static FieldRule> {
        self.fields.iter().filter(|field| field.presence == FieldPresence::Needed)
    }
}

impl PortType {
    /// Reads a type that is no list.
    fn no_list(text: &str) -> Result<Self, String> {
        if let Some(row) = Self::NAMED.iter().find(|row| row.name == text) {
            return Ok(row.ty.clone());
        }
        let own = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.contains('.') && text.split('.').all(own) {
            return Ok(PortType::Custom(Cow::Owned(text.to_owned())));
        }
        let end = text.floor_char_boundary(LONGEST_SHOWN);
        let more = if end < text.len() { "…" } else { "" };
        Err(format!("there is no type `{}{more}`", &text[..end]))
    }
}
