//! Paths in what serde writes, as [`kino_port::path_to_text`] has them: `#[serde(with = …)]` of
//! each field that holds one. A path by itself is an error where it is not UTF-8.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use kino_port::{path_of_text, path_to_text};
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a path.
///
/// # Errors
/// When the serializer fails.
pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&path_to_text(path))
}

/// Reads a path.
///
/// # Errors
/// When there is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Ok(path_of_text(&Cow::<str>::deserialize(from)?))
}

/// A path that may be missing.
pub mod optional {
    use super::*;

    /// Writes a path or nothing.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => to.serialize_some(&path_to_text(path)),
            None => to.serialize_none(),
        }
    }

    /// Reads a path or nothing.
    ///
    /// # Errors
    /// When there is something else.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let text = Option::<Cow<'_, str>>::deserialize(from)?;
        Ok(text.map(|text| path_of_text(&text)))
    }
}

/// Several paths.
pub mod many {
    use super::*;

    /// Writes paths.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<'p, S: Serializer>(
        paths: impl IntoIterator<Item = &'p PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.into_iter().map(|path| path_to_text(path)))
    }

    /// Reads paths.
    ///
    /// # Errors
    /// When there is no list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>, P: FromIterator<PathBuf>>(
        from: D,
    ) -> Result<P, D::Error> {
        let texts = Vec::<Cow<'_, str>>::deserialize(from)?;
        Ok(texts.iter().map(|text| path_of_text(text)).collect())
    }
}
