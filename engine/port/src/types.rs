//! The types of ports and which may be joined.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

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
    /// Noise levels of a sampling run, from 1 to 0.
    Sigmas,
    /// A callable that joins velocities with and without text.
    Guider,
    /// Video frames `[f, h, w, 3]` in 0…1 with their rate; an image is one frame.
    Frames,
    /// One value a pixel in 0…1.
    Mask,
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

impl PortType {
    /// Every type that has a fixed name, in the order of the documentation.
    pub const NAMED: &[(&'static str, PortType)] = &[
        ("Text", PortType::Text),
        ("Int", PortType::Int),
        ("Real", PortType::Real),
        ("Bool", PortType::Bool),
        ("Path", PortType::Path),
        ("TextEncoder", PortType::TextEncoder),
        ("ImageEncoder", PortType::ImageEncoder),
        ("Dit", PortType::Dit),
        ("Vae", PortType::Vae),
        ("Conditioning", PortType::Conditioning),
        ("ImageConditioning", PortType::ImageConditioning),
        ("Latent", PortType::Latent),
        ("Patches", PortType::Patches),
        ("Given", PortType::Given),
        ("Sigmas", PortType::Sigmas),
        ("Guider", PortType::Guider),
        ("Frames", PortType::Frames),
        ("Mask", PortType::Mask),
        ("Tensor", PortType::Tensor),
        ("File", PortType::File),
        ("Any", PortType::Any),
    ];

    /// Whether a value of this type can stand in a graph's text.
    pub fn is_literal(&self) -> bool {
        match self {
            PortType::Text | PortType::Int | PortType::Real | PortType::Bool | PortType::Path => {
                true
            }
            PortType::List(of) => of.is_literal(),
            _ => false,
        }
    }

    /// Whether a value of this type holds one tensor of numbers.
    pub fn holds_tensor(&self) -> bool {
        matches!(
            self,
            PortType::Conditioning
                | PortType::ImageConditioning
                | PortType::Latent
                | PortType::Patches
                | PortType::Sigmas
                | PortType::Frames
                | PortType::Mask
                | PortType::Tensor
        )
    }

    /// Whether an input of this type takes a value of type `from`.
    ///
    /// Int widens to Real, never back. Text names a Path. A Tensor connects to any port that holds
    /// a tensor, and any value that holds a tensor to a Tensor port; the shape is checked when it
    /// arrives.
    pub fn accepts(&self, from: &PortType) -> bool {
        match (self, from) {
            (PortType::Any, _) | (_, PortType::Any) => true,
            (PortType::Real, PortType::Int) | (PortType::Path, PortType::Text) => true,
            (PortType::List(to), PortType::List(from)) => to.accepts(from),
            (PortType::Tensor, from) => from.holds_tensor(),
            (to, PortType::Tensor) => to.holds_tensor(),
            (to, from) => to == from,
        }
    }
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortType::List(of) => write!(f, "List({of})"),
            PortType::Custom(name) => f.write_str(name),
            named => {
                let name =
                    Self::NAMED.iter().find(|(_, ty)| ty == named).map_or("?", |(name, _)| name);
                f.write_str(name)
            }
        }
    }
}

impl FromStr for PortType {
    type Err = String;

    /// Reads a type as graphs write it: `Text`, `List(Frames)`, `example.depth`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut inner, mut lists) = (text, 0);
        while let Some(item) = inner.strip_prefix("List(").and_then(|rest| rest.strip_suffix(')')) {
            (inner, lists) = (item, lists + 1);
            if lists > DEEPEST {
                return Err(format!("lists of lists go at most {DEEPEST} deep"));
            }
        }
        let ty = Self::named(inner)?;
        Ok((0..lists).fold(ty, |ty, _| PortType::List(Box::new(ty))))
    }
}

impl PortType {
    /// Reads a type that is no list.
    fn named(text: &str) -> Result<Self, String> {
        if let Some((_, ty)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(ty.clone());
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
