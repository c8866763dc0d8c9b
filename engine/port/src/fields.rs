//! What is agreed about the fields of values: what plugins see of them, and what they give to make
//! one. The table itself is [`crate::PortType::NAMED`]; hosts make and check records by it.

/// What is agreed about a tensor.
#[derive(Debug)]
pub struct TensorRule {
    /// What it is, for messages, up to its shape: `a latent is`.
    pub subject: &'static str,
    /// The type of its elements: what the engine works with; other floating-point types, and where
    /// a tensor stands for the whole value any type, are converted. None where any stays.
    pub dtype: Option<&'static str>,
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

/// A rule for tensors of f32 of any value, which become values of the type.
const fn shaped(subject: &'static str, dims: &'static [&'static str], batch: bool) -> TensorRule {
    let (dtype, elements) = (Some("f32"), ElementRule::Any);
    TensorRule { subject, dtype, dims, batch, elements, converts: true }
}

impl TensorRule {
    /// A tensor of any shape and elements.
    pub const ANY: Self = TensorRule { dtype: None, ..shaped("a tensor is", &[], false) };
    /// Embeddings of a text or an image.
    pub const EMBEDDINGS: Self = shaped("embeddings are", &["rows", "dim"], true);
    /// A latent.
    pub const LATENT: Self = shaped("a latent is", &["c", "f", "h", "w"], true);
    /// The latent of given frames.
    pub const GIVEN: Self = TensorRule {
        converts: false,
        ..shaped("what is given of a clip is", &["c", "f", "h", "w"], false)
    };
    /// The latent of a control.
    pub const CONTROL: Self =
        TensorRule { converts: false, ..shaped("a control is", &["c", "f", "h", "w"], false) };
    /// Patches of latents.
    pub const PATCHES: Self = TensorRule {
        converts: false,
        ..shaped("patches are", &["tokens", "c·pt·ph·pw"], false)
    };
    /// Noise levels.
    pub const SIGMAS: Self = TensorRule {
        dtype: Some("f64"),
        elements: ElementRule::Levels,
        ..shaped("noise levels are", &["steps + 1"], false)
    };
    /// Frames.
    pub const FRAMES: Self = shaped("frames are", &["count", "height", "width", "3"], false);
    /// A value a pixel.
    pub const MASK: Self =
        TensorRule { elements: ElementRule::Unit, ..shaped("a mask is", &["f", "h", "w"], true) };
    /// Samples of a sound.
    pub const AUDIO: Self =
        TensorRule { converts: false, ..shaped("samples are", &["channels", "n"], false) };
    /// Which rows of embeddings count.
    pub const ROWS: Self = TensorRule {
        elements: ElementRule::Unit,
        ..shaped("the mask of rows is", &["rows"], false)
    };

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

    /// As [`TensorRule::fit`], of a tensor that becomes a value: it has elements.
    ///
    /// # Errors
    /// As [`TensorRule::fit`], and when a dimension is 0.
    pub fn fit_whole<'a>(&self, dims: &'a [usize]) -> Result<&'a [usize], String> {
        let fitted = self.fit(dims)?;
        match dims.contains(&0) {
            true => Err(format!(
                "{}, found a tensor {dims:?}, in which there is nothing",
                self.expected()
            )),
            false => Ok(fitted),
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

/// A field of the values of a type, as plugins see and give it.
#[derive(Debug)]
pub struct FieldRule {
    /// What it is called.
    pub name: &'static str,
    /// What is in it.
    pub content: FieldContent,
    /// Who gives it.
    pub presence: FieldPresence,
    /// What numbers count, such as `px`; may be empty.
    pub unit: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// Who gives a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPresence {
    /// Whoever makes a value; every value has it.
    Needed,
    /// Whoever makes a value, or nobody; a value may have none.
    Optional,
    /// The host, from the other fields; what a plugin gives is not looked at.
    Derived,
}

/// What is in a field.
#[derive(Debug)]
pub enum FieldContent {
    /// A tensor, or a record that is read as one.
    Tensor(TensorRule),
    /// A text, one of these.
    Text(&'static [&'static str]),
    /// A whole number.
    Int {
        /// The least.
        min: i128,
        /// The greatest.
        max: i128,
    },
    /// A number.
    Real {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
    },
    /// A list of so many sizes.
    Sizes(usize),
    /// A value of type Frames.
    Frames,
    /// A list of tensors of frames, one after another.
    Chunks,
    /// A record of embeddings, whose fields are [`FieldRule::EMBEDDINGS`] and any other names; or a
    /// tensor, which is its field `tensor`.
    Embeddings,
    /// Something that is only passed on, from another value's field of this name.
    Opaque,
}

impl FieldContent {
    /// A size.
    pub const COUNT: Self = FieldContent::Int { min: 1, max: 1 << 40 };
    /// A rate of frames.
    pub const RATE: Self = FieldContent::Real { min: f64::MIN_POSITIVE, max: f64::MAX };
    /// A time.
    pub const SECONDS: Self = FieldContent::Real { min: 0.0, max: f64::MAX };

    /// Whether it is a list of tensors.
    pub fn is_chunks(&self) -> bool {
        matches!(self, FieldContent::Chunks)
    }
}

impl FieldRule {
    /// The fields of embeddings that are agreed on. Any other name is a further embedding of the
    /// same prompt: a tensor of any shape, or a record of `tensor` and `mask`.
    pub const EMBEDDINGS: &[FieldRule] = &[
        FieldRule::optional(
            "tensor",
            FieldContent::Tensor(TensorRule::EMBEDDINGS),
            "the sequence of the text",
        ),
        FieldRule::optional(
            "mask",
            FieldContent::Tensor(TensorRule::ROWS),
            "1 where a row counts, 0 where it is padding; all count unless given",
        ),
    ];

    /// The space of a latent.
    pub const SPACE: Self = FieldRule::optional(
        "space",
        FieldContent::Opaque,
        "the autoencoder's space, as another value has it; unknown unless given",
    );

    /// A field that must be given.
    pub const fn needed(name: &'static str, content: FieldContent, about: &'static str) -> Self {
        FieldRule { name, content, presence: FieldPresence::Needed, unit: "", about }
    }

    /// A field that may be given.
    pub const fn optional(name: &'static str, content: FieldContent, about: &'static str) -> Self {
        FieldRule { name, content, presence: FieldPresence::Optional, unit: "", about }
    }

    /// A field that the host says.
    pub const fn derived(name: &'static str, content: FieldContent, about: &'static str) -> Self {
        FieldRule { name, content, presence: FieldPresence::Derived, unit: "", about }
    }

    /// The same field, whose number counts something.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// What may be in it, in words: `f32 [f, h, w] in 0…1`.
    pub fn expected(&self) -> String {
        let (what, range) = (self.what(), self.range());
        match range.contains('…') {
            true => format!("{what} in {range}"),
            false if range.is_empty() => what,
            false => format!("{what}, {range}"),
        }
    }

    /// What is in it, in words, with element type and layout.
    pub fn what(&self) -> String {
        match &self.content {
            FieldContent::Tensor(rule) => match rule.dtype {
                Some(dtype) => format!("{dtype} [{}]", rule.dims.join(", ")),
                None => "a tensor".to_owned(),
            },
            FieldContent::Text(choices) => format!("Text: {}", choices.join(", ")),
            FieldContent::Int { .. } => "Int".to_owned(),
            FieldContent::Real { .. } => "Real".to_owned(),
            FieldContent::Sizes(count) => format!("{count} Int"),
            FieldContent::Frames => "Frames".to_owned(),
            FieldContent::Chunks => "List of f32 [n, height, width, 3]".to_owned(),
            FieldContent::Embeddings => "Embeddings".to_owned(),
            FieldContent::Opaque => "opaque".to_owned(),
        }
    }

    /// The range of its numbers, in words; empty where there is none.
    pub fn range(&self) -> String {
        match &self.content {
            FieldContent::Tensor(rule) => match rule.elements {
                ElementRule::Any => String::new(),
                ElementRule::Unit => "0…1".to_owned(),
                ElementRule::Levels => "1…0, falling".to_owned(),
            },
            FieldContent::Chunks => "0…1".to_owned(),
            FieldContent::Int { min, .. } => format!("{min} or more"),
            FieldContent::Real { min, max } if *max < f64::MAX => format!("{min}…{max}"),
            FieldContent::Real { min, .. } if *min > 0.0 => "above 0".to_owned(),
            FieldContent::Real { min, .. } => format!("{min} or more"),
            _ => String::new(),
        }
    }
}
