//! One call of an operation: its tensors, its attributes read by type, and how large it may get.

use std::fmt;

use candle_core::{DType, Device, Tensor};
use kino_node::{Error, Result};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::{Bounds, shape};

/// What is always there for what is needed on the way, in bytes.
const SCRATCH: u64 = 1 << 28;

/// The work of one piece, in multiplications and additions: a tenth of a second or so.
const PIECE: usize = 1 << 32;

/// What an operation works on.
pub(super) struct Call<'a> {
    /// As many as the operation takes: that was checked.
    pub(super) tensors: &'a [Tensor],
    attributes: Attributes,
    bounds: &'a Bounds<'a>,
}

impl<'a> Call<'a> {
    /// Reads the attributes, none of which may be unknown.
    pub(super) fn new(
        tensors: &'a [Tensor],
        attributes: &str,
        known: &[&str],
        bounds: &'a Bounds<'a>,
    ) -> Result<Self> {
        let attributes = Attributes::read(attributes)?;
        if let Some(key) = attributes.0.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(unknown(key, known));
        }
        Ok(Self { tensors, attributes, bounds })
    }

    /// Refuses a result that is too large or has too many dimensions.
    pub(super) fn room(&self, shape: &[usize], dtype: DType) -> Result<()> {
        self.fits(shape, dtype, self.bounds.most, "a result")
    }

    /// The same for what is needed on the way: as much as a result, and some where little is left.
    pub(super) fn scratch(&self, shape: &[usize], dtype: DType) -> Result<()> {
        self.fits(shape, dtype, self.bounds.most.max(SCRATCH), "an intermediate result")
    }

    fn fits(&self, shape: &[usize], dtype: DType, most: u64, what: &str) -> Result<()> {
        if shape.len() > shape::MOST_DIMENSIONS {
            return Err(Error::failed(format!(
                "{what} of {} dimensions: at most {} are possible",
                shape.len(),
                shape::MOST_DIMENSIONS
            )));
        }
        let bytes = shape::bytes(shape, dtype).filter(|bytes| *bytes <= most);
        let Some(bytes) = bytes else {
            return Err(Error::failed(format!(
                "{what} of shape {shape:?} ({}) is larger than the {most} bytes that are allowed",
                dtype.as_str()
            )));
        };
        if matches!(self.device(), Device::Cpu) && !is_free(bytes) {
            let message = format!("{what} of shape {shape:?} ({})", dtype.as_str());
            return Err(Error::failed(format!("{message}: not enough memory for {bytes} bytes")));
        }
        Ok(())
    }

    /// Whether the operation goes on: to be asked between pieces of work.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn go_on(&self) -> Result<()> {
        (self.bounds.check)()
    }

    /// Joins what is computed of `count` rows, each of so much work, in pieces that are soon done.
    /// `piece` gets where each begins and how many rows it has; they are joined along `dim`.
    pub(super) fn piecewise(
        &self,
        count: usize,
        work: usize,
        dim: usize,
        piece: impl Fn(usize, usize) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let rows = (PIECE / work.max(1)).max(1);
        let mut parts = Vec::with_capacity(count.div_ceil(rows));
        for start in (0..count).step_by(rows) {
            self.go_on()?;
            parts.push(piece(start, rows.min(count - start))?);
        }
        match parts.as_slice() {
            [whole] => Ok(whole.clone()),
            parts => Ok(Tensor::cat(parts, dim)?),
        }
    }

    /// Where the tensors lie.
    pub(super) fn device(&self) -> &'a Device {
        self.tensors.first().map_or(&Device::Cpu, Tensor::device)
    }

    fn found(&self, key: &str) -> Option<&Json> {
        self.attributes.0.get(key)
    }

    fn needed(&self, key: &str) -> Result<&Json> {
        self.found(key).ok_or_else(|| Error::failed(format!("the attribute `{key}` is missing")))
    }

    /// A whole number.
    pub(super) fn int(&self, key: &str) -> Result<i64> {
        whole(key, self.needed(key)?)
    }

    /// A whole number of `least` or more.
    pub(super) fn size(&self, key: &str, least: usize) -> Result<usize> {
        size(key, self.needed(key)?, least)
    }

    /// The same, or else a default.
    pub(super) fn size_or(&self, key: &str, least: usize, default: usize) -> Result<usize> {
        self.found(key).map_or(Ok(default), |json| size(key, json, least))
    }

    /// A number.
    pub(super) fn real(&self, key: &str) -> Result<f64> {
        let json = self.needed(key)?;
        json.as_f64().ok_or_else(|| expected(key, "a number", json))
    }

    /// A number, or null for none.
    pub(super) fn bound(&self, key: &str) -> Result<Option<f64>> {
        match self.needed(key)? {
            Json::Null => Ok(None),
            _ => self.real(key).map(Some),
        }
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        self.found(key).map_or(Ok(false), |json| {
            json.as_bool().ok_or_else(|| expected(key, "true or false", json))
        })
    }

    /// One of some names.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let json = self.needed(key)?;
        let chosen = choices.iter().find(|(name, _)| json.as_str() == Some(*name));
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            expected(key, &format!("one of {}", names.join(", ")), json)
        })
    }

    /// A list of whole numbers.
    pub(super) fn ints(&self, key: &str) -> Result<Vec<i64>> {
        list(key, self.needed(key)?)
    }

    /// The same, or `None` where it is not given.
    pub(super) fn ints_given(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.found(key).map(|json| list(key, json)).transpose()
    }
}

/// Whether that much memory can be had: what cannot ends the process.
fn is_free(bytes: u64) -> bool {
    const SMALL: u64 = 1 << 28;
    let Ok(length) = usize::try_from(bytes) else { return false };
    bytes <= SMALL || Vec::<u8>::new().try_reserve_exact(length).is_ok()
}

fn whole(key: &str, json: &Json) -> Result<i64> {
    json.as_i64().ok_or_else(|| expected(key, "a whole number", json))
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

fn expected(key: &str, what: &str, found: &Json) -> Error {
    Error::failed(format!("attribute `{key}`: expected {what}, found {}", brief(found)))
}

/// JSON, cut where it is long.
fn brief(json: &Json) -> String {
    let text = json.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn unknown(key: &str, known: &[&str]) -> Error {
    let key = brief(&Json::from(key));
    let message = format!("there is no attribute {key}");
    match known {
        [] => Error::advised(message, "it takes none"),
        _ => Error::advised(message, format!("it takes `{}`", known.join("`, `"))),
    }
}

/// A JSON object without repeated keys.
struct Attributes(Map<String, Json>);

impl Attributes {
    fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self(Map::new()));
        }
        serde_json::from_str(text).map_err(|error| Error::failed(format!("attributes: {error}")))
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
