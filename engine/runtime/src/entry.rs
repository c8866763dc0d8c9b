//! One entry of the disk cache as bytes.
//!
//! `KINOENT2`, the key, the length of a JSON header (u32, little-endian), the header, the outputs
//! as [`kino_node::encode`] writes them, and the blake3 hash of all before. Nothing of an entry is
//! used before the hash has been found right, but for [`peek`], which only foretells.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use kino_node::{Error, Outputs, Result, Services, Value};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"KINOENT2";
/// Magic, key, length of the header.
const START: u64 = 8 + 32 + 4;
const TRAILER: u64 = 32;
/// No header comes near this.
const LONGEST_HEADER: u32 = 16 << 20;
/// Entries up to this size are read at once; larger ones are verified, then read when their turn
/// comes.
const SMALL: u64 = 16 << 20;
/// So many bytes are hashed between two looks at whether the run was stopped.
const PIECE: usize = 1 << 20;

/// What an entry says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Which outputs it holds, in the signature's order.
    pub(crate) holds: Vec<bool>,
    /// The seconds that computing them took.
    pub(crate) seconds: f64,
    /// The files that the step wrote; empty but for sinks.
    pub(crate) files: Vec<OutputStamp>,
    /// The bytes of them that must lie in memory when they are read: all but frames.
    #[serde(default)]
    pub(crate) memory: u64,
}

/// A file that a sink wrote, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutputStamp {
    /// Where it lies.
    #[serde(with = "kino_node::path_text")]
    pub(crate) path: PathBuf,
    /// The blake3 hash of its contents, in hexadecimal.
    pub(crate) hash: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Its [`kino_port::FileStamp`] as text.
    pub(crate) stamp: String,
}

/// An entry whose hash was found right.
#[derive(Debug)]
pub(crate) struct Verified {
    /// What it says of itself.
    pub(crate) header: Header,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Memory { bytes: Vec<u8>, from: usize },
    File { file: File, from: u64, len: u64 },
}

impl Verified {
    /// The outputs.
    ///
    /// # Errors
    /// When they cannot be read, or frames find no room.
    pub(crate) fn read(self, services: &Services) -> Result<Outputs> {
        match self.body {
            Body::Memory { bytes, from } => {
                let end = bytes.len() - TRAILER as usize;
                kino_node::decode(&mut &bytes[from..end], services)
            }
            Body::File { mut file, from, len } => {
                file.seek(SeekFrom::Start(from))?;
                kino_node::decode(&mut BufReader::with_capacity(1 << 20, file).take(len), services)
            }
        }
    }

    /// The bytes that were read of it; none where the outputs still lie in an open file.
    pub(crate) fn in_memory(&self) -> Option<u64> {
        match &self.body {
            Body::Memory { bytes, .. } => Some(bytes.len() as u64),
            Body::File { .. } => None,
        }
    }
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    to: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Writes an entry.
///
/// # Errors
/// When writing fails or an output cannot be stored.
pub(crate) fn write(
    key: &[u8; 32],
    header: &Header,
    outputs: &[Option<Value>],
    to: impl Write,
) -> Result<()> {
    let mut to = Hashing { to, hasher: blake3::Hasher::new() };
    let json = serde_json::to_vec(header).map_err(|error| Error::failed(error.to_string()))?;
    to.write_all(MAGIC)?;
    to.write_all(key)?;
    to.write_all(&(json.len() as u32).to_le_bytes())?;
    to.write_all(&json)?;
    kino_node::encode(outputs, &mut to)?;
    let hash = to.hasher.finalize();
    to.write_all(hash.as_bytes())?;
    Ok(to.flush()?)
}

/// Reads magic, key and header; returns the header and where the outputs begin.
fn start(key: &[u8; 32], from: &mut impl Read) -> Result<(Header, u64)> {
    let mut fixed = [0; START as usize];
    from.read_exact(&mut fixed)?;
    let length = fixed[40..].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    if fixed[..8] != *MAGIC || fixed[8..40] != *key || length > LONGEST_HEADER {
        return Err(Error::failed("it is no entry of this key"));
    }
    let mut json = vec![0; length as usize];
    from.read_exact(&mut json)?;
    let header = serde_json::from_slice(&json)
        .map_err(|error| Error::failed(format!("its header does not read: {error}")))?;
    Ok((header, START + u64::from(length)))
}

/// What an entry says of itself, not verified: good for a forecast, for nothing else.
pub(crate) fn peek(key: &[u8; 32], file: File) -> Option<Header> {
    start(key, &mut BufReader::new(file)).ok().map(|(header, _)| header)
}

/// The blake3 hash of all that is left to read.
///
/// # Errors
/// When it cannot be read, or [`Error::Cancelled`] once `stopped` says so.
pub(crate) fn hash(from: &mut impl Read, stopped: &dyn Fn() -> bool) -> Result<blake3::Hash> {
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        if stopped() {
            return Err(Error::Cancelled);
        }
        match from.read(&mut piece) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(read) => drop(hasher.update(&piece[..read])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks the hash of an opened entry, then reads its header.
///
/// # Errors
/// When it is not whole, or not of this key; [`Error::Cancelled`] once `stopped` says so.
pub(crate) fn verify(
    key: &[u8; 32],
    mut file: File,
    stopped: &dyn Fn() -> bool,
) -> Result<Verified> {
    let len = file.metadata()?.len();
    if len < START + TRAILER {
        return Err(Error::failed("it ends early"));
    }
    if len <= SMALL {
        let mut bytes = Vec::with_capacity(len as usize);
        file.read_to_end(&mut bytes)?;
        let split = bytes.len().saturating_sub(TRAILER as usize);
        let (content, trailer) = bytes.split_at(split);
        check(&blake3::hash(content), trailer)?;
        let (header, from) = start(key, &mut &*content)?;
        return Ok(Verified { header, body: Body::Memory { bytes, from: from as usize } });
    }
    let found = hash(&mut (&mut file).take(len - TRAILER), stopped)?;
    let mut trailer = Vec::new();
    // One more than there should be, so that an entry that grows is not read for ever.
    (&mut file).take(TRAILER + 1).read_to_end(&mut trailer)?;
    check(&found, &trailer)?;
    file.seek(SeekFrom::Start(0))?;
    let (header, from) = start(key, &mut BufReader::new(&mut file))?;
    Ok(Verified { header, body: Body::File { file, from, len: len - TRAILER - from } })
}

fn check(hash: &blake3::Hash, trailer: &[u8]) -> Result<()> {
    // `blake3::Hash` compares with a slice in constant time.
    if *hash == *trailer { Ok(()) } else { Err(Error::failed("its checksum does not fit")) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn hashing_ends_where_it_is_stopped() {
        let (looks, len) = (Cell::new(0), 10 * PIECE as u64);
        let stopped = || {
            looks.set(looks.get() + 1);
            looks.get() > 3
        };
        let mut endless = std::io::repeat(7).take(len);
        assert!(matches!(hash(&mut endless, &stopped), Err(Error::Cancelled)));
        assert_eq!((looks.get(), endless.limit()), (4, len - 3 * PIECE as u64));
        let whole = hash(&mut &[7; 100][..], &|| false).unwrap();
        assert_eq!(whole, blake3::hash(&[7; 100]));
    }

    #[test]
    fn a_large_entry_is_verified_in_pieces_that_can_be_stopped() {
        let key = [3; 32];
        let header = Header { holds: vec![true], seconds: 1.0, files: Vec::new(), memory: 0 };
        let text = Value::Text("x".repeat(SMALL as usize + 5).into());
        let mut file = tempfile::tempfile().unwrap();
        write(&key, &header, &[Some(text)], &mut file).unwrap();
        let looks = Cell::new(0);
        let stopped = |most: u64| {
            looks.set(looks.get() + 1);
            looks.get() > most
        };
        let mut again = || {
            file.rewind().unwrap();
            looks.set(0);
            file.try_clone().unwrap()
        };
        let cut_short = verify(&key, again(), &|| stopped(5));
        assert!(matches!(cut_short, Err(Error::Cancelled)));
        assert_eq!(looks.get(), 6);
        assert!(verify(&key, again(), &|| stopped(u64::MAX)).unwrap().in_memory().is_none());
        assert!(looks.get() > SMALL / PIECE as u64);
    }
}
