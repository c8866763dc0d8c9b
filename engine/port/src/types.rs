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
    /// The type itself.
    pub ty: PortType,
    /// Whether a value of it can stand in a graph's text.
    pub literal: bool,
    /// The fields that plugins see, in order; none where it is no record to them. Where it holds a
    /// tensor, that is the first.
    pub fields: &'static [&'static str],
    /// How many of the fields a plugin must give to make one; none where no plugin makes it of
    /// fields.
    pub needed_fields: Option<usize>,
    /// What is agreed about the tensor that it holds; none where it holds none.
    pub tensor: Option<TensorRule>,
}

/// What is agreed about the one tensor that a value of some type holds.
#[derive(Debug)]
pub struct TensorRule {
    /// What it is, for messages, up to its shape: `a latent is`.
    pub subject: &'static str,
    /// Its dimensions by name; none where any shape will do. A name that is a number says the size.
    pub dims: &'static [&'static str],
    /// Whether one more dimension of size 1 may stand before the others.
    pub batch: bool,
    /// What its elements must be.
    pub elements: ElementRule,
    /// Whether a tensor that arrives becomes such a value.
    pub converts: bool,
}

/// What the elements of a tensor must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementRule {
    /// Whatever they are.
    Any,
    /// Numbers from 0 to 1.
    Unit,
    /// Two or more, falling, from at most 1 to at least 0.
    Levels,
}

impl TensorRule {
    /// The dimensions without one of size 1 that may stand before them.
    ///
    /// # Errors
    /// When they are others than the rule says; the message names both.
    pub fn fit<'a>(&self, dims: &'a [usize]) -> Result<&'a [usize], String> {
        let is = |dims: &[usize]| {
            dims.len() == self.dims.len()
                && dims.iter().zip(self.dims).all(|(&size, name)| {
                    name.parse().is_ok_and(|expected: usize| size == expected)
                        || name.parse::<usize>().is_err()
                })
        };
        match dims {
            dims if self.dims.is_empty() || is(dims) => Ok(dims),
            [1, rest @ ..] if self.batch && is(rest) => Ok(rest),
            dims => Err(format!("{}, found a tensor {dims:?}", self.expected())),
        }
    }

    /// What it must be, in words.
    pub fn expected(&self) -> String {
        let dims = self.dims.join(", ");
        let batch = if self.batch { format!(" or [1, {dims}]") } else { String::new() };
        format!("{} [{dims}]{batch}", self.subject)
    }

    /// Holds the elements against the rule.
    ///
    /// # Errors
    /// When one is not as the rule says; the message says which range it must lie in.
    pub fn check_elements(&self, elements: impl Iterator<Item = f64>) -> Result<(), String> {
        match self.elements {
            ElementRule::Any => Ok(()),
            ElementRule::Unit => {
                let mut elements = elements;
                match elements.find(|element| !(0.0..=1.0).contains(element)) {
                    None => Ok(()),
                    Some(found) => {
                        Err(format!("{} one value a pixel in 0…1, found {found}", self.subject))
                    }
                }
            }
            ElementRule::Levels => {
                let levels: Vec<f64> = elements.collect();
                let falls = levels.windows(2).all(|pair| pair[0] > pair[1]);
                let within = levels.iter().all(|level| (0.0..=1.0).contains(level));
                if levels.len() > 1 && falls && within {
                    return Ok(());
                }
                Err(format!(
                    "noise levels must fall from at most 1 to at least 0, two or more; found \
                     {levels:?}"
                ))
            }
        }
    }
}

/// The row of a type whose values plugins only pass on.
const fn opaque(name: &'static str, ty: PortType) -> NamedType {
    NamedType { name, ty, literal: false, fields: &[], needed_fields: None, tensor: None }
}

/// The row of a type whose values can stand in a graph's text.
const fn written(name: &'static str, ty: PortType) -> NamedType {
    NamedType { name, ty, literal: true, fields: &[], needed_fields: None, tensor: None }
}

/// The row of a type whose values are a tensor to plugins.
const fn tensor(name: &'static str, ty: PortType, rule: TensorRule) -> NamedType {
    record(name, ty, &[], None, rule)
}

/// The row of a type whose values are fields to plugins, the tensor first.
const fn record(
    name: &'static str,
    ty: PortType,
    fields: &'static [&'static str],
    needed_fields: Option<usize>,
    rule: TensorRule,
) -> NamedType {
    NamedType { name, ty, literal: false, fields, needed_fields, tensor: Some(rule) }
}

/// A rule for tensors of any elements, which become values of the type.
const fn shaped(subject: &'static str, dims: &'static [&'static str], batch: bool) -> TensorRule {
    TensorRule { subject, dims, batch, elements: ElementRule::Any, converts: true }
}

const EMBEDDINGS: TensorRule = shaped("embeddings are", &["rows", "dim"], true);
const LATENT: TensorRule = shaped("a latent is", &["c", "f", "h", "w"], true);
const PATCHES: TensorRule =
    TensorRule { converts: false, ..shaped("patches are", &["tokens", "c·pt·ph·pw"], false) };
const SIGMAS: TensorRule = TensorRule {
    elements: ElementRule::Levels,
    ..shaped("noise levels are", &["steps + 1"], false)
};
const FRAMES: TensorRule = shaped("frames are", &["count", "height", "width", "3"], false);
const MASK: TensorRule =
    TensorRule { elements: ElementRule::Unit, ..shaped("a mask is", &["f", "h", "w"], true) };

impl PortType {
    /// Every type that has a fixed name, in the order of the documentation.
    pub const NAMED: &[NamedType] = &[
        written("Text", PortType::Text),
        written("Int", PortType::Int),
        written("Real", PortType::Real),
        written("Bool", PortType::Bool),
        written("Path", PortType::Path),
        opaque("TextEncoder", PortType::TextEncoder),
        opaque("ImageEncoder", PortType::ImageEncoder),
        opaque("Dit", PortType::Dit),
        opaque("Vae", PortType::Vae),
        record(
            "Conditioning",
            PortType::Conditioning,
            &["positive", "negative"],
            Some(2),
            EMBEDDINGS,
        ),
        tensor("ImageConditioning", PortType::ImageConditioning, EMBEDDINGS),
        record("Latent", PortType::Latent, &["tensor", "space"], Some(1), LATENT),
        record("Patches", PortType::Patches, &["tokens", "clips", "patch"], Some(3), PATCHES),
        opaque("Given", PortType::Given),
        opaque("Control", PortType::Control),
        tensor("Sigmas", PortType::Sigmas, SIGMAS),
        opaque("Guider", PortType::Guider),
        record(
            "Frames",
            PortType::Frames,
            &["chunks", "fps", "count", "height", "width"],
            None,
            FRAMES,
        ),
        tensor("Mask", PortType::Mask, MASK),
        opaque("Audio", PortType::Audio),
        tensor("Tensor", PortType::Tensor, shaped("a tensor is", &[], false)),
        opaque("File", PortType::File),
        opaque("Any", PortType::Any),
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
