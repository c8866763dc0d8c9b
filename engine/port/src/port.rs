//! Ports: one input or output of a node, with default, range, choices, unit and help.

use std::borrow::Cow;
use std::fmt;
use std::mem::{forget, replace};

use crate::{Literal, PortType};

/// The most choices that a message names.
const MAX_NAMED: usize = 50;

/// How many values an input takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one; required unless the port has a default.
    One,
    /// One or none.
    Optional,
    /// One edge, a list of edges, or a map of named edges; at least one.
    List,
    /// Like [`Arity::List`], but may stay empty.
    OptionalList,
}

/// The values that a number may take, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// Whole numbers `min, min + step, …` up to `max`.
    Int {
        /// The least value.
        min: i128,
        /// The greatest value.
        max: i128,
        /// The distance between values that fit, counted from `min`; 1 for all.
        step: i128,
    },
    /// Real numbers.
    Real {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
}

/// One input or output of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// The name, `[a-z][a-z0-9_]*`.
    pub name: Cow<'static, str>,
    /// What travels here.
    pub ty: PortType,
    /// How many values an input takes.
    pub arity: Arity,
    /// What an input that is not fed takes.
    pub default: Option<Literal>,
    /// The values that fit.
    pub range: Option<Range>,
    /// The texts that fit; empty where any does. Of a [`Port::file`], the names that stand for
    /// something else than a file; any other text is a path.
    pub choices: Cow<'static, [Cow<'static, str>]>,
    /// The unit of a number, such as `px`; empty where it has none.
    pub unit: Cow<'static, str>,
    /// One sentence of help.
    pub about: Cow<'static, str>,
    /// An input that is evaluated only when the node asks for it.
    pub lazy: bool,
    /// An input that takes `"random"`: a whole number drawn while planning, and recorded.
    pub draws: bool,
    /// A text that names a file or folder, as a value of type Path does; see
    /// [`Port::names_file`].
    pub file: bool,
    /// Of an input of type Any: it takes an Int or a Real and nothing else.
    pub numbers: bool,
    /// Of a list: the node tells its items apart by their names.
    pub named: bool,
    /// Of an output of type Any: it is an Int where a text input, named first, has one of these
    /// values, whatever else is fed.
    pub int_where: Option<(&'static str, &'static [&'static str])>,
}

/// Why a literal does not fit a port.
#[derive(Clone, Debug, PartialEq)]
pub struct PortError {
    /// What is wrong, as a clause: `expected a whole number from 1 to 10, found 12`.
    pub message: String,
    /// What to do, if that can be said.
    pub hint: Option<String>,
}

impl Port {
    const fn new(name: &'static str, ty: PortType, arity: Arity) -> Self {
        Port {
            name: Cow::Borrowed(name),
            ty,
            arity,
            default: None,
            range: None,
            choices: Cow::Borrowed(&[]),
            unit: Cow::Borrowed(""),
            about: Cow::Borrowed(""),
            lazy: false,
            draws: false,
            file: false,
            numbers: false,
            named: false,
            int_where: None,
        }
    }

    /// The same port with one sentence of help.
    pub const fn about(mut self, about: &'static str) -> Self {
        forget(replace(&mut self.about, Cow::Borrowed(about)));
        self
    }

    /// The same input of type Any, which takes numbers alone.
    pub const fn numbers(mut self) -> Self {
        self.numbers = true;
        self
    }

    /// The same output, an Int where a text input has one of these values.
    pub const fn int_where(mut self, input: &'static str, values: &'static [&'static str]) -> Self {
        self.int_where = Some((input, values));
        self
    }

    /// The same port with the unit of its number.
    pub const fn unit(mut self, unit: &'static str) -> Self {
        forget(replace(&mut self.unit, Cow::Borrowed(unit)));
        self
    }

    /// The same port with a range of real numbers, both ends included.
    pub const fn within(mut self, min: f64, max: f64) -> Self {
        self.range = Some(Range::Real { min, max });
        self
    }

    /// The same port with a range of whole numbers, both ends included.
    pub const fn between(mut self, min: i128, max: i128) -> Self {
        self.range = Some(Range::Int { min, max, step: 1 });
        self
    }

    /// The same port, which takes one of these texts.
    pub const fn choices(mut self, choices: &'static [Cow<'static, str>]) -> Self {
        forget(replace(&mut self.choices, Cow::Borrowed(choices)));
        self
    }

    /// The same port without a default: it must be fed.
    pub const fn required(mut self) -> Self {
        forget(self.default.take());
        self
    }

    /// The same port, which may stay empty: it has no default and need not be fed.
    pub const fn or_none(mut self) -> Self {
        forget(self.default.take());
        self.arity = Arity::Optional;
        self
    }

    /// The same port, evaluated only when the node asks for it.
    pub const fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// The same port, which also takes `"random"`.
    pub const fn draws(mut self) -> Self {
        self.draws = true;
        self
    }

    /// The same list, whose items are told apart by their names.
    pub const fn named(mut self) -> Self {
        self.named = true;
        self
    }

    /// The same port, whose text names a file or folder, unless it is one of its choices.
    pub const fn file(mut self) -> Self {
        self.file = true;
        self
    }

    /// Whether the value names a file or folder: a sink writes it, any other node reads it.
    ///
    /// Such a value must be known before anything runs: what a file holds is part of a key, and no
    /// two nodes may write one file.
    pub fn names_file(&self) -> bool {
        self.file || self.ty == PortType::Path
    }

    /// Whether a text at this port is the path of a file or folder.
    pub fn is_path(&self, text: &str) -> bool {
        self.names_file() && !(self.file && self.is_choice(text))
    }

    /// Whether this input takes one value of a type, alone or as an item of its list.
    pub fn accepts(&self, from: &PortType) -> bool {
        let is_number = matches!(from, PortType::Int | PortType::Real | PortType::Any);
        self.ty.accepts(from) && (is_number || !self.numbers)
    }

    fn is_choice(&self, text: &str) -> bool {
        self.choices.iter().any(|choice| **choice == *text)
    }

    /// Whether the choices allow a text.
    pub fn allows(&self, text: &str) -> bool {
        self.choices.is_empty() || self.file || self.is_choice(text)
    }

    /// Whether something must feed this input.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && matches!(self.arity, Arity::One | Arity::List)
    }

    /// Whether this input takes several values.
    pub fn is_list(&self) -> bool {
        matches!(self.arity, Arity::List | Arity::OptionalList)
    }

    /// Decodes a literal for this port: widens Int to Real, checks range and choices.
    ///
    /// # Errors
    /// When the type, the range or the choices refuse it; the message says what was expected.
    pub fn coerce(&self, value: Literal) -> Result<Literal, PortError> {
        self.check(&value)?;
        Ok(match value {
            // The choice itself, which is mostly static: what is made of it copies no text.
            Literal::Text(text) => {
                let choice = self.choices.iter().find(|choice| **choice == text);
                Literal::Text(choice.cloned().unwrap_or(text))
            }
            value => self.widen(value),
        })
    }

    /// A literal that fits this port, as its node sees it: Int widens to Real.
    pub fn widen(&self, value: Literal) -> Literal {
        match value {
            Literal::List(items) if self.is_list() => {
                Literal::List(items.into_iter().map(|item| item.widened(&self.ty)).collect())
            }
            value => value.widened(&self.ty),
        }
    }

    /// Checks that a literal fits this port.
    ///
    /// # Errors
    /// When the type, the range or the choices refuse it; the message says what was expected.
    pub fn check(&self, value: &Literal) -> Result<(), PortError> {
        match value {
            Literal::List(items) if self.is_list() => {
                items.iter().try_for_each(|item| self.check_one(item))
            }
            value => self.check_one(value),
        }
    }

    fn check_one(&self, value: &Literal) -> Result<(), PortError> {
        if let (PortType::List(of), Literal::List(items)) = (&self.ty, value) {
            let item = Port { ty: (**of).clone(), arity: Arity::One, ..self.clone() };
            return items.iter().try_for_each(|value| item.check_one(value));
        }
        let fits = match (&self.ty, value) {
            (PortType::Any, Literal::Int(_) | Literal::Real(_)) => true,
            (PortType::Any, _) => !self.numbers,
            (PortType::Text | PortType::Path, Literal::Text(_)) => true,
            (PortType::Int, Literal::Int(_)) | (PortType::Bool, Literal::Bool(_)) => true,
            (PortType::Int, Literal::Text(text)) => self.draws && text == "random",
            (PortType::Real, Literal::Real(value)) => !value.is_nan(),
            (PortType::Real, Literal::Int(_)) => true,
            _ => false,
        };
        if !fits {
            let hint = (self.ty == PortType::Int && matches!(value, Literal::Real(_)))
                .then(|| "write it without a decimal point".to_owned());
            return Err(self.unfit(value, hint));
        }
        self.check_range(value)?;
        match value {
            Literal::Text(text) if !self.allows(text) => Err(self.unfit(value, None)),
            _ => Ok(()),
        }
    }

    fn check_range(&self, value: &Literal) -> Result<(), PortError> {
        let fits = match (self.range, value) {
            (Some(Range::Int { min, max, step }), Literal::Int(value)) => {
                // Unsigned, as the ends may lie further apart than an i128 counts.
                let above = (value.wrapping_sub(min) as u128 % step as u128) as i128;
                if (min..=max).contains(value) && above != 0 {
                    let below = value - above;
                    let near = [Some(below), below.checked_add(step)].into_iter().flatten();
                    let near: Vec<_> =
                        near.filter(|near| *near <= max).map(|near| near.to_string()).collect();
                    let hint = format!("near it: {}", near.join(" and "));
                    return Err(self.unfit(&Literal::Int(*value), Some(hint)));
                }
                (min..=max).contains(value)
            }
            (Some(Range::Real { min, max }), Literal::Real(value)) => (min..=max).contains(value),
            (Some(Range::Real { min, max }), Literal::Int(value)) => {
                (min..=max).contains(&(*value as f64))
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(self.unfit(value, None)) }
    }

    fn unfit(&self, value: &Literal, hint: Option<String>) -> PortError {
        let value = match (&self.ty, value) {
            // As the port sees it.
            (PortType::Real, Literal::Int(_)) => value.clone().widened(&self.ty),
            (_, Literal::Text(_) | Literal::List(_)) => {
                let found = value.brief();
                return PortError {
                    message: format!("expected {}, found {found}", self.expected()),
                    hint,
                };
            }
            _ => value.clone(),
        };
        PortError { message: format!("expected {}, found {value}", self.expected()), hint }
    }

    /// What fits here, in words: `a whole number from 1 to 1000`, `one of "unipc", "euler"`.
    pub fn expected(&self) -> String {
        if !self.choices.is_empty() {
            let named = self.choices.iter().take(MAX_NAMED);
            let choices: Vec<_> = named.map(|choice| format!("\"{choice}\"")).collect();
            let more = match self.choices.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let path = if self.file { ", or a path" } else { "" };
            return format!("one of {}{more}{path}", choices.join(", "));
        }
        let noun = match &self.ty {
            PortType::Text => "a text",
            PortType::Path => "a path",
            PortType::Int => "a whole number",
            PortType::Real => "a number",
            PortType::Bool => "true or false",
            PortType::Any if self.numbers => "a number",
            other => return format!("a value of type {other}"),
        };
        let range = self.range.map(|range| format!(" {range}")).unwrap_or_default();
        let random = if self.draws { " or \"random\"" } else { "" };
        format!("{noun}{range}{random}")
    }
}

impl Range {
    /// The whole numbers that are multiples of `step`, which is positive, without an end.
    pub const fn every(step: i128) -> Self {
        Range::Int { min: -(i128::MAX / step) * step, max: i128::MAX, step }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Range::Int { step, .. } if step > 1 && *self == Range::every(step) => {
                write!(f, "in steps of {step}")
            }
            Range::Int { min, max: i128::MAX, step: 1 } => write!(f, "of at least {min}"),
            Range::Int { min, max, step: 1 } => write!(f, "from {min} to {max}"),
            Range::Int { min, max, step } => write!(f, "from {min} to {max} in steps of {step}"),
            Range::Real { min, max } if max.is_infinite() => write!(f, "of at least {min}"),
            Range::Real { min, max } => write!(f, "from {min} to {max}"),
        }
    }
}

/// An input fed by one edge, or an output.
pub const fn edge(name: &'static str, ty: PortType) -> Port {
    Port::new(name, ty, Arity::One)
}

/// An input fed by one edge or by none.
pub const fn optional(name: &'static str, ty: PortType) -> Port {
    Port::new(name, ty, Arity::Optional)
}

/// An input fed by one edge, a list of edges, or a map of named edges.
pub const fn list(name: &'static str, ty: PortType) -> Port {
    Port::new(name, ty, Arity::List)
}

/// An input like that of [`list`], which may stay empty.
pub const fn optional_list(name: &'static str, ty: PortType) -> Port {
    Port::new(name, ty, Arity::OptionalList)
}

/// A text input with its default.
pub const fn text(name: &'static str, default: &'static str) -> Port {
    let mut port = Port::new(name, PortType::Text, Arity::One);
    forget(port.default.replace(Literal::Text(Cow::Borrowed(default))));
    port
}

/// A path input, which must be fed.
pub const fn path(name: &'static str) -> Port {
    Port::new(name, PortType::Path, Arity::One)
}

/// A real input with its default.
pub const fn real(name: &'static str, default: f64) -> Port {
    let mut port = Port::new(name, PortType::Real, Arity::One);
    forget(port.default.replace(Literal::Real(default)));
    port
}

/// A whole-number input with its default.
pub const fn int(name: &'static str, default: i128) -> Port {
    let mut port = Port::new(name, PortType::Int, Arity::One);
    forget(port.default.replace(Literal::Int(default)));
    port
}

/// A whole-number input of at least 1, with its default.
pub const fn count(name: &'static str, default: i128) -> Port {
    int(name, default).between(1, i128::MAX)
}

/// A Bool input with its default.
pub const fn bool(name: &'static str, default: bool) -> Port {
    let mut port = Port::new(name, PortType::Bool, Arity::One);
    forget(port.default.replace(Literal::Bool(default)));
    port
}
