//! The header of a safetensors file: which tensors it holds, of which types and shapes, and where
//! their bytes lie. One rule for all who read such files; nothing here reads a file.
//!
//! Types that are known to nobody here stand in nobody's way: what a tensor's bytes mean matters to
//! who reads that tensor.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The longest header that the format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor as a header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsEntry {
    /// Its name.
    pub name: String,
    /// What the file calls the type of its elements, such as `BF16`.
    pub dtype: Cow<'static, str>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// The header of a safetensors file: all its tensors lie in the file, one behind the other without
/// gaps up to its end, no name stands twice, and of known types each has the bytes of its shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SafetensorsHeader {
    /// Where the data begin.
    pub data_start: u64,
    /// In the order of their places.
    pub tensors: Vec<SafetensorsEntry>,
    /// What the file says about itself.
    pub metadata: HashMap<String, String>,
}

/// Why a file is no safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SafetensorsError {
    /// It is shorter than it says.
    EndsEarly {
        /// The bytes that it should have at least.
        expected: u64,
    },
    /// Its length says of the header that it is none.
    NoHeader {
        /// The length that it states.
        length: u64,
    },
    /// It breaks a rule of the format: which one, as a sentence about it.
    Broken(String),
}

impl fmt::Display for SafetensorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SafetensorsError::EndsEarly { expected } => {
                write!(f, "it ends early: its header speaks of {expected} bytes")
            }
            SafetensorsError::NoHeader { length } => {
                write!(f, "a header of {length} bytes is none")
            }
            SafetensorsError::Broken(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for SafetensorsError {}

impl SafetensorsHeader {
    /// The length of the header that follows the first eight bytes of a file.
    ///
    /// # Errors
    /// When it is none of a header, or the file is shorter.
    pub fn length(start: [u8; 8], file: u64) -> Result<usize, SafetensorsError> {
        let length = u64::from_le_bytes(start);
        if !(2..=LONGEST_HEADER).contains(&length) {
            return Err(SafetensorsError::NoHeader { length });
        }
        match length + 8 {
            expected if expected > file => Err(SafetensorsError::EndsEarly { expected }),
            _ => Ok(length as usize),
        }
    }

    /// Reads a header, which lies behind the first eight bytes of a file of so many bytes.
    ///
    /// # Errors
    /// When it is none, or the file does not hold just what it says.
    pub fn parse(header: &[u8], file: u64) -> Result<Self, SafetensorsError> {
        let broken = |what: String| Err(SafetensorsError::Broken(what));
        // Whether it is UTF-8 is asked once, not of every name.
        let text = std::str::from_utf8(header).map_err(|error| error.to_string());
        let read = |text| serde_json::from_str::<Written<'_>>(text).map_err(|e| e.to_string());
        let written = match text.and_then(read) {
            Ok(written) => written,
            Err(error) => return broken(format!("its header cannot be read ({error})")),
        };
        if let Some(name) = written.repeated() {
            return broken(format!("its header names `{name}` twice"));
        }
        let data_start = header.len() as u64 + 8;
        let held = file.saturating_sub(data_start);
        let mut tensors = written.tensors;
        tensors.sort_by_key(|(_, entry)| entry.data_offsets);
        let end = tensors.iter().map(|(_, entry)| entry.data_offsets.1).max().unwrap_or(0);
        if end > held {
            return Err(SafetensorsError::EndsEarly { expected: end.saturating_add(data_start) });
        }
        let mut next = 0;
        for (name, entry) in &tensors {
            let (begin, end) = entry.data_offsets;
            if begin != next || end < begin {
                return broken(format!(
                    "the bytes {begin} to {end} of `{name}` do not follow those before it, which \
                     end at {next}"
                ));
            }
            next = end;
            if !fits(entry) {
                return broken(format!(
                    "tensor `{name}` of {} and shape {:?} does not take the bytes {begin} to \
                     {end}, which the header gives it",
                    entry.dtype, entry.shape
                ));
            }
        }
        if next != held {
            return broken(format!("it goes on for {} bytes behind its last tensor", held - next));
        }
        let tensors = tensors.into_iter().map(|(name, entry)| SafetensorsEntry {
            name,
            dtype: match known(&entry.dtype) {
                Some((dtype, _)) => Cow::Borrowed(dtype),
                None => Cow::Owned(entry.dtype.into_owned()),
            },
            shape: entry.shape,
            offset: data_start + entry.data_offsets.0,
            length: entry.data_offsets.1 - entry.data_offsets.0,
        });
        Ok(SafetensorsHeader {
            data_start,
            tensors: tensors.collect(),
            metadata: written.metadata.into_iter().flatten().flatten().collect(),
        })
    }
}

/// Whether a tensor has the bytes that its type and shape take, as far as its type is known.
fn fits(entry: &Entry<'_>) -> bool {
    let Some((_, bits)) = known(&entry.dtype) else { return true };
    let sizes = entry.shape.iter().map(|size| *size as u64);
    let elements = match entry.shape.contains(&0) {
        true => Some(0),
        false => sizes.into_iter().try_fold(1_u64, u64::checked_mul),
    };
    let (begin, end) = entry.data_offsets;
    elements.and_then(|elements| elements.checked_mul(bits)) == (end - begin).checked_mul(8)
}

/// The types that the format's own library knows (safetensors 0.8), with the bits of an element.
const TYPES: [(&str, u64); 22] = [
    ("F16", 16),
    ("BF16", 16),
    ("F32", 32),
    ("F8_E4M3", 8),
    ("F8_E5M2", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("F4", 4),
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("U16", 16),
    ("I16", 16),
    ("U32", 32),
    ("I32", 32),
    ("U64", 64),
    ("I64", 64),
    ("F64", 64),
    ("C64", 64),
];

/// What is known of a type.
fn known(dtype: &str) -> Option<(&'static str, u64)> {
    TYPES.into_iter().find(|(name, _)| *name == dtype)
}

/// A tensor as it is written.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// All entries as they are written.
#[derive(Default)]
struct Written<'a> {
    tensors: Vec<(String, Entry<'a>)>,
    /// As often as it stands there.
    metadata: Vec<Option<HashMap<String, String>>>,
}

/// What no tensor is called.
const METADATA: &str = "__metadata__";

impl Written<'_> {
    /// A name that stands twice, of which readers would take one or the other.
    fn repeated(&self) -> Option<&str> {
        let mut names: Vec<&str> = self.tensors.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        twice.or((self.metadata.len() > 1).then_some(METADATA))
    }
}

impl<'de> Deserialize<'de> for Written<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Written<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut written = Written::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        METADATA => written.metadata.push(map.next_value()?),
                        _ => written.tensors.push((name, map.next_value()?)),
                    }
                }
                Ok(written)
            }
        }
        from.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
        format!(
            r#""{name}": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [{begin}, {end}]}}"#
        )
    }

    /// What is made of entries with so many bytes behind them.
    fn parse(entries: &[String], data: u64) -> Result<SafetensorsHeader, SafetensorsError> {
        let header = format!("{{{}}}", entries.join(", "));
        SafetensorsHeader::parse(header.as_bytes(), 8 + header.len() as u64 + data)
    }

    #[test]
    fn types_of_others_stand_in_nobodys_way() {
        let whole = [
            entry("b", "F4", "[16]", 4, 12),
            entry("a", "U8", "[2, 2]", 0, 4),
            entry("c", "F6_E3M2", "[16]", 12, 24),
            entry("d", "I128", "[9]", 24, 25),
            entry("e", "bool", "[]", 25, 25),
            r#""__metadata__": {"format": "pt"}"#.to_owned(),
        ];
        let header = parse(&whole, 25).unwrap();
        let names: Vec<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
        let b = &header.tensors[1];
        assert_eq!((&*b.dtype, b.length, b.offset), ("F4", 8, header.data_start + 4));
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(parse(&[entry("none", "F32", "[4, 0]", 0, 0)], 0).unwrap().tensors.len(), 1);
        assert_eq!(parse(&[], 0).unwrap().tensors, []);
    }

    #[test]
    fn what_is_broken_is_told() {
        let a = || entry("a", "U8", "[2]", 0, 2);
        let huge = format!("[{0}, {0}, {0}]", u32::MAX);
        for (entries, data, expected) in [
            (vec![a()], 3, "goes on for 1 bytes behind"),
            (vec![a()], 1, "ends early"),
            (vec![a(), a()], 2, "names `a` twice"),
            (vec![a(), entry("b", "U8", "[2]", 1, 3)], 3, "`b` do not follow"),
            (vec![a(), entry("b", "X", "[2]", 3, 4)], 4, "`b` do not follow"),
            (vec![a(), entry("b", "X", "[2]", 2, 1)], 2, "`b` do not follow"),
            (vec![entry("a", "F32", "[2]", 0, 2)], 2, "does not take the bytes 0 to 2"),
            (vec![entry("a", "F4", "[3]", 0, 1)], 1, "does not take"),
            (vec![entry("a", "F32", &huge, 0, 4)], 4, "does not take"),
            (vec![entry("a", "U8", "[-1]", 0, 4)], 4, "cannot be read"),
            (vec![entry("a", "U8", "[0.5]", 0, 4)], 4, "cannot be read"),
            (vec![r#""a": {"dtype": "U8"}"#.to_owned()], 0, "missing field"),
            (vec![r#""__metadata__": {"a": 1}"#.to_owned()], 0, "cannot be read"),
            (vec![r#""__metadata__": {}"#.to_owned(); 2], 0, "names `__metadata__` twice"),
        ] {
            let said = parse(&entries, data).unwrap_err().to_string();
            assert!(said.contains(expected), "{entries:?}: {said}");
        }
        assert!(SafetensorsHeader::parse(b"[1]", 11).is_err());
        assert!(SafetensorsHeader::parse(b"", 8).is_err());
        assert_eq!(SafetensorsHeader::length([2, 0, 0, 0, 0, 0, 0, 0], 10), Ok(2));
        let early = SafetensorsHeader::length([2, 0, 0, 0, 0, 0, 0, 0], 9);
        assert_eq!(early, Err(SafetensorsError::EndsEarly { expected: 10 }));
        assert!(SafetensorsHeader::length([0xff; 8], u64::MAX).is_err());
    }
}
