//! What every template does with values, counted: steps and bytes of a stranger's template end.

use std::rc::Rc;

use super::value::Value;

/// Statements and expressions that are evaluated at most.
const MOST_STEPS: usize = 2_000_000;
/// Bytes of texts and lists that are made at most, all together.
const MOST_BYTES: usize = 32 << 20;
pub(super) type Evaluated<T> = Result<T, String>;

/// Counts what a template does.
#[derive(Default)]
pub(super) struct Meter {
    steps: usize,
    bytes: usize,
}

impl Meter {
    /// Counts bytes that are about to be made.
    pub(super) fn charge(&mut self, bytes: usize) -> Evaluated<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.step()?;
        match self.bytes > MOST_BYTES {
            true => Err(format!("it makes more than {MOST_BYTES} bytes of text")),
            false => Ok(()),
        }
    }

    /// Counts a step.
    pub(super) fn step(&mut self) -> Evaluated<()> {
        self.steps += 1;
        match self.steps > MOST_STEPS {
            true => Err(format!("it takes more than {MOST_STEPS} steps")),
            false => Ok(()),
        }
    }

    /// A text as a value.
    pub(super) fn text(&mut self, text: &str) -> Evaluated<Value> {
        self.charge(text.len())?;
        Ok(Value::text(text))
    }

    /// A list as a value.
    pub(super) fn list(&mut self, items: Vec<Value>) -> Evaluated<Value> {
        self.charge(items.len() * size_of::<Value>())?;
        Value::list(items)
    }

    /// What a loop goes through: items, names of a map, characters.
    pub(super) fn items(&mut self, value: &Value) -> Evaluated<Vec<Value>> {
        match value {
            Value::List(items, _) => {
                self.charge(items.len() * size_of::<Value>())?;
                Ok(items.to_vec())
            }
            Value::Map(entries, _) => {
                self.charge(entries.len() * size_of::<Value>())?;
                Ok(entries.iter().map(|(name, _)| Value::Text(Rc::clone(name))).collect())
            }
            Value::Text(text) => {
                self.charge(text.len().saturating_mul(64))?;
                Ok(text.chars().map(|char| Value::text(char.encode_utf8(&mut [0; 4]))).collect())
            }
            Value::Undefined => Ok(Vec::new()),
            other => Err(format!("a loop goes through {}", other.kind())),
        }
    }

    /// Whether two values are the same.
    pub(super) fn equal(&mut self, left: &Value, right: &Value) -> Evaluated<bool> {
        self.step()?;
        Ok(match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                // Comparing costs time, not memory.
                self.steps = self.steps.saturating_add(left.len() / 64);
                left == right
            }
            (Value::None, Value::None) | (Value::Undefined, Value::Undefined) => true,
            (Value::List(left, _), Value::List(right, _)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right.iter()) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(left, _), Value::Map(own, _)) => {
                if left.len() != own.len() {
                    return Ok(false);
                }
                for (name, value) in left.iter() {
                    if !self.equal(value, &right.get(name))? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => real(left).is_some() && real(left) == real(right),
        })
    }

    /// Whether something lies in a value.
    pub(super) fn contains(&mut self, all: &Value, one: &Value) -> Evaluated<bool> {
        match (all, one) {
            (Value::Text(text), Value::Text(part)) => {
                self.steps = self.steps.saturating_add(text.len() / 64);
                Ok(text.contains(&**part))
            }
            (Value::List(items, _), _) => {
                for item in items.iter() {
                    if self.equal(item, one)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Map(entries, _), Value::Text(name)) => {
                Ok(entries.iter().any(|(own, _)| own == name))
            }
            (Value::Undefined, _) => Ok(false),
            (all, one) => Err(format!("`in` between {} and {}", one.kind(), all.kind())),
        }
    }

    /// A value as the template writes it.
    pub(super) fn shown(&mut self, value: &Value) -> Evaluated<String> {
        match value {
            Value::Text(text) => {
                self.charge(text.len())?;
                Ok(text.to_string())
            }
            Value::Undefined | Value::Macro(_) | Value::Namespace(_) => Ok(String::new()),
            _ => {
                let mut text = String::new();
                self.write(value, Notation::Python, &mut text)?;
                Ok(text)
            }
        }
    }

    /// Writes a value in a notation, behind what stands there.
    pub(super) fn write(
        &mut self,
        value: &Value,
        notation: Notation,
        text: &mut String,
    ) -> Evaluated<()> {
        let is_json = notation == Notation::Json;
        let before = text.len();
        match value {
            Value::Bool(bool) => {
                text.push_str(match (bool, is_json) {
                    (true, true) => "true",
                    (false, true) => "false",
                    (true, false) => "True",
                    (false, false) => "False",
                });
            }
            Value::Int(number) => *text += &number.to_string(),
            Value::Real(number) => *text += &format!("{number:?}"),
            Value::Text(own) if is_json => {
                let quoted = serde_json::to_string(&**own).map_err(|error| error.to_string())?;
                *text += &quoted;
            }
            Value::Text(own) => {
                let quote = if own.contains('\'') && !own.contains('"') { '"' } else { '\'' };
                text.push(quote);
                for char in own.chars() {
                    match char {
                        '\n' => text.push_str("\\n"),
                        '\t' => text.push_str("\\t"),
                        '\r' => text.push_str("\\r"),
                        '\\' => text.push_str("\\\\"),
                        char if char == quote => text.extend(['\\', char]),
                        char => text.push(char),
                    }
                }
                text.push(quote);
            }
            Value::List(items, _) => {
                text.push('[');
                for (at, item) in items.iter().enumerate() {
                    text.push_str(if at > 0 { ", " } else { "" });
                    self.write(item, notation, text)?;
                }
                text.push(']');
            }
            Value::Map(entries, _) => {
                text.push('{');
                for (at, (name, value)) in entries.iter().enumerate() {
                    text.push_str(if at > 0 { ", " } else { "" });
                    self.write(&Value::Text(Rc::clone(name)), notation, text)?;
                    text.push_str(": ");
                    self.write(value, notation, text)?;
                }
                text.push('}');
            }
            _ => text.push_str(if is_json { "null" } else { "None" }),
        }
        self.charge(text.len() - before)
    }
}

/// What a filter or method was given.
pub(super) struct Given {
    pub(super) by_place: Vec<Value>,
    pub(super) by_name: Vec<(String, Value)>,
}

impl Given {
    /// An argument by its place or name.
    pub(super) fn get(&self, place: usize, name: &str) -> Option<&Value> {
        let named = || self.by_name.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        self.by_place.get(place).or_else(named)
    }

    /// An argument that is a text.
    pub(super) fn text(&self, place: usize, name: &str) -> Evaluated<Option<&str>> {
        match self.get(place, name) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("expected a text, found {}", other.kind())),
        }
    }
}

/// How values are written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Notation {
    Python,
    Json,
}

/// A number, if it is one.
pub(super) fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        Value::Bool(bool) => Some(f64::from(u8::from(*bool))),
        _ => None,
    }
}
