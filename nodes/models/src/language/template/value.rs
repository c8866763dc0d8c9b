//! Values of a template.

use std::cell::RefCell;
use std::rc::Rc;

/// Lists and maps in each other at most.
const DEEPEST: u8 = 24;

/// A value. Lists and maps know how deep they are, so that what walks through them ends.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(Rc<str>),
    List(Rc<[Value]>, u8),
    Map(Rc<[(Rc<str>, Value)]>, u8),
    /// What `namespace()` gives: a map that is changed. It lies in nothing else.
    Namespace(Rc<RefCell<Vec<(Rc<str>, Value)>>>),
    /// A macro, by its number.
    Macro(usize),
}

impl Value {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Value::Text(text.into())
    }

    /// A list of these.
    ///
    /// # Errors
    /// When it would be too deep.
    pub(super) fn list(items: Vec<Value>) -> Result<Self, String> {
        let depth = above(items.iter())?;
        Ok(Value::List(items.into(), depth))
    }

    /// A map of these; of a name twice the last counts.
    ///
    /// # Errors
    /// As [`Value::list`].
    pub(super) fn map(entries: Vec<(Rc<str>, Value)>) -> Result<Self, String> {
        let depth = above(entries.iter().map(|(_, value)| value))?;
        let mut own: Vec<(Rc<str>, Value)> = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            match own.iter_mut().find(|(known, _)| *known == name) {
                Some(entry) => entry.1 = value,
                None => own.push((name, value)),
            }
        }
        Ok(Value::Map(own.into(), depth))
    }

    /// Whether it counts as true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Bool(bool) => *bool,
            Value::Int(number) => *number != 0,
            Value::Real(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(items, _) => !items.is_empty(),
            Value::Map(entries, _) => !entries.is_empty(),
            Value::Namespace(_) | Value::Macro(_) => true,
        }
    }

    /// What an entry is, or that there is none.
    pub(super) fn get(&self, name: &str) -> Value {
        let found = |entries: &[(Rc<str>, Value)]| {
            let entry = entries.iter().find(|(own, _)| **own == *name);
            entry.map_or(Value::Undefined, |(_, value)| value.clone())
        };
        match self {
            Value::Map(entries, _) => found(entries),
            Value::Namespace(entries) => found(&entries.borrow()),
            _ => Value::Undefined,
        }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "nothing",
            Value::None => "none",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Real(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(..) => "a list",
            Value::Map(..) => "a map",
            Value::Namespace(_) => "a namespace",
            Value::Macro(_) => "a macro",
        }
    }
}

/// How deep a list or map of these is.
fn above<'a>(items: impl Iterator<Item = &'a Value>) -> Result<u8, String> {
    let mut deepest = 0;
    for item in items {
        deepest = deepest.max(match item {
            Value::List(_, depth) | Value::Map(_, depth) => *depth,
            Value::Namespace(_) => return Err("a namespace lies in another value".to_owned()),
            _ => 0,
        });
    }
    match deepest < DEEPEST {
        true => Ok(deepest + 1),
        false => Err(format!("lists lie in lists more than {DEEPEST} deep")),
    }
}
