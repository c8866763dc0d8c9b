//! The attributes of an operation: a JSON object, read key by key; what is left over is refused.

use kino_node::{Error, Result};
use serde_json::{Map, Value as Json};

/// What is left of the attributes.
pub(super) struct Attributes(Map<String, Json>);

impl Attributes {
    pub(super) fn read(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Attributes(Map::new()));
        }
        match serde_json::from_str(text) {
            Ok(Json::Object(map)) => Ok(Attributes(map)),
            Ok(other) => Err(Error::failed(format!("attributes are a JSON object, found {other}"))),
            Err(error) => Err(Error::failed(format!("attributes are no JSON: {error}"))),
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => Err(Error::failed(format!("it has no attribute `{key}`"))),
            None => Ok(()),
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(json) => read(&json).map(Some).ok_or_else(|| {
                Error::failed(format!("attribute `{key}`: expected {expected}, found {json}"))
            }),
        }
    }

    fn need<T>(key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::failed(format!("it needs the attribute `{key}`")))
    }

    pub(super) fn int(&mut self, key: &str) -> Result<i64> {
        let found = self.take(key, "a whole number", Json::as_i64)?;
        Self::need(key, found)
    }

    pub(super) fn int_or(&mut self, key: &str, default: i64) -> Result<i64> {
        Ok(self.take(key, "a whole number", Json::as_i64)?.unwrap_or(default))
    }

    /// A size: not negative.
    pub(super) fn size(&mut self, key: &str) -> Result<usize> {
        let found = self.take(key, "a size", |json| json.as_u64()?.try_into().ok())?;
        Self::need(key, found)
    }

    pub(super) fn size_or(&mut self, key: &str, default: usize) -> Result<usize> {
        let found = self.take(key, "a size", |json| json.as_u64()?.try_into().ok())?;
        Ok(found.unwrap_or(default))
    }

    pub(super) fn real(&mut self, key: &str) -> Result<f64> {
        let found = self.take(key, "a number", Json::as_f64)?;
        Self::need(key, found)
    }

    pub(super) fn truth_or(&mut self, key: &str, default: bool) -> Result<bool> {
        Ok(self.take(key, "true or false", Json::as_bool)?.unwrap_or(default))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<String> {
        let found = self.take(key, "a text", |json| json.as_str().map(str::to_owned))?;
        Self::need(key, found)
    }

    pub(super) fn text_or(&mut self, key: &str, default: &str) -> Result<String> {
        let found = self.take(key, "a text", |json| json.as_str().map(str::to_owned))?;
        Ok(found.unwrap_or_else(|| default.to_owned()))
    }

    pub(super) fn ints_or_none(&mut self, key: &str) -> Result<Option<Vec<i64>>> {
        self.take(key, "a list of whole numbers", |json| {
            json.as_array()?.iter().map(Json::as_i64).collect()
        })
    }

    pub(super) fn ints(&mut self, key: &str) -> Result<Vec<i64>> {
        let found = self.ints_or_none(key)?;
        Self::need(key, found)
    }
}
