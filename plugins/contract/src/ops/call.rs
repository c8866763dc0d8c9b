//! One call of an operation: what it works on, and its attributes read by type.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::error::{OpError, Result};
use super::op::Operand;
use crate::DType;

/// What an operation works on.
pub(crate) struct OpCall<'a> {
    /// As many as the operation takes: that was checked.
    pub(crate) operands: &'a [Operand<'a>],
    attributes: Attributes,
}

impl<'a> OpCall<'a> {
    /// Reads the attributes, none of which may be unknown.
    pub(crate) fn new(
        operands: &'a [Operand<'a>],
        attributes: &str,
        known: &[&str],
    ) -> Result<Self> {
        let attributes = Attributes::read(attributes)?;
        if let Some(key) = attributes.0.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(unknown(key, known));
        }
        Ok(Self { operands, attributes })
    }

    /// The first operand's type and shape.
    pub(crate) fn first(&self) -> (DType, &'a [usize]) {
        (self.operands[0].dtype, self.operands[0].dims)
    }

    fn found(&self, key: &str) -> Option<&Json> {
        self.attributes.0.get(key)
    }

    fn needed(&self, key: &str) -> Result<&Json> {
        self.found(key).ok_or_else(|| OpError::new(format!("the attribute `{key}` is missing")))
    }

    /// A whole number.
    pub(crate) fn int(&self, key: &str) -> Result<i64> {
        let json = self.needed(key)?;
        json.as_i64().ok_or_else(|| expected(key, "a whole number", json))
    }

    /// A whole number of `least` or more.
    pub(crate) fn size(&self, key: &str, least: usize) -> Result<usize> {
        size(key, self.needed(key)?, least)
    }

    /// The same, or else a default.
    pub(crate) fn size_or(&self, key: &str, least: usize, default: usize) -> Result<usize> {
        self.found(key).map_or(Ok(default), |json| size(key, json, least))
    }

    /// A number.
    pub(crate) fn real(&self, key: &str) -> Result<f64> {
        let json = self.needed(key)?;
        json.as_f64().ok_or_else(|| expected(key, "a number", json))
    }

    /// A number, or null for none.
    pub(crate) fn bound(&self, key: &str) -> Result<Option<f64>> {
        match self.needed(key)? {
            Json::Null => Ok(None),
            _ => self.real(key).map(Some),
        }
    }

    /// True or false; false where it is not given.
    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        self.found(key).map_or(Ok(false), |json| {
            json.as_bool().ok_or_else(|| expected(key, "true or false", json))
        })
    }

    /// One of some names.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let json = self.needed(key)?;
        let chosen = choices.iter().find(|(name, _)| json.as_str() == Some(*name));
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            expected(key, &format!("one of {}", names.join(", ")), json)
        })
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        let json = self.needed(key)?;
        json.as_str().ok_or_else(|| expected(key, "a text", json))
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let json = self.needed(key)?;
        let text = |item: &Json| item.as_str().map(str::to_owned);
        let all = json.as_array().and_then(|items| items.iter().map(text).collect());
        all.ok_or_else(|| expected(key, "a list of texts", json))
    }

    /// A list of whole numbers.
    pub(crate) fn ints(&self, key: &str) -> Result<Vec<i64>> {
        list(key, self.needed(key)?)
    }

    /// The same, or `None` where it is not given.
    pub(crate) fn ints_given(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.found(key).map(|json| list(key, json)).transpose()
    }
}

fn size(key: &str, json: &Json, least: usize) -> Result<usize> {
    if !json.is_i64() && !json.is_u64() {
        return Err(expected(key, "a whole number", json));
    }
    let size = json.as_u64().and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| *size >= least);
    size.ok_or_else(|| expected(key, &format!("{least} or more"), json))
}

fn list(key: &str, json: &Json) -> Result<Vec<i64>> {
    let all = json.as_array().and_then(|items| items.iter().map(Json::as_i64).collect());
    all.ok_or_else(|| expected(key, "a list of whole numbers", json))
}

fn expected(key: &str, what: &str, found: &Json) -> OpError {
    OpError::new(format!("attribute `{key}`: expected {what}, found {}", brief(found)))
}

/// JSON, cut where it is long.
fn brief(json: &Json) -> String {
    let text = json.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn unknown(key: &str, known: &[&str]) -> OpError {
    let refusal = OpError::new(format!("there is no attribute {}", brief(&Json::from(key))));
    match known {
        [] => refusal.hint("it takes none"),
        _ => refusal.hint(format!("it takes `{}`", known.join("`, `"))),
    }
}

/// A JSON object without repeated keys.
struct Attributes(Map<String, Json>);

impl Attributes {
    fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self(Map::new()));
        }
        serde_json::from_str(text).map_err(|error| OpError::new(format!("attributes: {error}")))
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Attributes, A::Error> {
        let mut attributes = Map::new();
        while let Some((key, value)) = map.next_entry::<String, Json>()? {
            if attributes.insert(key.clone(), value).is_some() {
                let key = brief(&Json::from(key));
                return Err(A::Error::custom(format_args!("{key} is given twice")));
            }
        }
        Ok(Attributes(attributes))
    }
}
