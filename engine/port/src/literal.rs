//! Values that can stand in a graph's text.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::PortType;

/// The longest text that a node may compute while planning, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// The longest that a message shows of a value, in bytes.
const LONGEST_SHOWN: usize = 400;

/// A value written in a graph, set on the command line, or known while planning.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// Text, a choice, or a path.
    Text(Cow<'static, str>),
    /// A whole number; wide enough for every `i64` and every `u64` seed.
    Int(i128),
    /// A finite or infinite real number.
    Real(f64),
    /// True or false.
    Bool(bool),
    /// Several values for a list port.
    List(Vec<Literal>),
}

impl Literal {
    /// A text literal.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Literal::Text(text.into())
    }

    /// Bytes that differ for different values, to hash: a tag, then the value with its length where
    /// it varies.
    pub fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Literal::Text(text) => {
                into.push(b't');
                into.extend((text.len() as u64).to_le_bytes());
                into.extend(text.as_bytes());
            }
            Literal::Int(value) => {
                into.push(b'i');
                into.extend(value.to_le_bytes());
            }
            Literal::Real(value) => {
                into.push(b'r');
                into.extend(value.to_bits().to_le_bytes());
            }
            Literal::Bool(value) => into.extend([b'b', u8::from(*value)]),
            Literal::List(items) => {
                into.push(b'l');
                into.extend((items.len() as u64).to_le_bytes());
                items.iter().for_each(|item| item.encode(into));
            }
        }
    }

    /// The number of values: 1, or that of a list's items.
    pub fn items(&self) -> usize {
        match self {
            Literal::List(items) => items.iter().map(Literal::items).sum(),
            _ => 1,
        }
    }

    /// The memory that the value takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Literal>()
            + match self {
                Literal::Text(text) => text.len(),
                Literal::List(items) => items.iter().map(Literal::bytes).sum(),
                _ => 0,
            }
    }

    /// Adds the texts within to a list.
    pub fn texts<'t>(&'t self, into: &mut Vec<&'t str>) {
        match self {
            Literal::Text(text) => into.push(text),
            Literal::List(items) => items.iter().for_each(|item| item.texts(into)),
            _ => {}
        }
    }

    /// The value as RON writes it, without its end where it is long.
    pub fn brief(&self) -> String {
        let mut brief = Brief(String::new());
        if write!(brief, "{self}").is_err() {
            brief.0.push('…');
        }
        brief.0
    }

    /// This value as a port of type `ty` sees it: an Int becomes a Real where a Real is wanted.
    pub fn widened(self, ty: &PortType) -> Self {
        match (self, ty) {
            (Literal::Int(value), PortType::Real) => Literal::Real(value as f64),
            (Literal::List(items), PortType::List(of)) => {
                Literal::List(items.into_iter().map(|item| item.widened(of)).collect())
            }
            (value, _) => value,
        }
    }

    /// The type that this value has by its looks.
    pub fn ty(&self) -> PortType {
        match self {
            Literal::Text(_) => PortType::Text,
            Literal::Int(_) => PortType::Int,
            Literal::Real(_) => PortType::Real,
            Literal::Bool(_) => PortType::Bool,
            Literal::List(items) => {
                PortType::List(Box::new(items.first().map_or(PortType::Any, Literal::ty)))
            }
        }
    }
}

/// Takes what a message shows of a value, and no more.
struct Brief(String);

impl fmt::Write for Brief {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = LONGEST_SHOWN.saturating_sub(self.0.len());
        if text.len() <= left {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(left)]);
        Err(fmt::Error)
    }
}

impl fmt::Display for Literal {
    /// Writes the value as RON: text quoted and escaped, reals with a point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Literal::Text(text) => write_ron_string(text, f),
            Literal::Int(value) => write!(f, "{value}"),
            Literal::Real(value) if value.is_nan() => f.write_str("NaN"),
            Literal::Real(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "inf" } else { "-inf" })
            }
            Literal::Real(value) => write!(f, "{value:?}"),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
        }
    }
}

fn write_ron_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{{{:x}}}", c as u32)?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
