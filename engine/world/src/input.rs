//! Files that are read: regular files alone, opened once, with the stamp of what was opened.
//!
//! Whatever path a graph or a command names is opened here. A pipe or a device would be waited for,
//! or read, for ever.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use kino_node::{Irregular, open_regular};
use kino_port::FileStamp;

use crate::{Error, Result};

/// A regular file that is open for reading.
#[derive(Debug)]
pub struct InputFile {
    file: File,
    path: PathBuf,
    stamp: FileStamp,
}

impl InputFile {
    /// Opens a file; links are followed.
    ///
    /// # Errors
    /// When it cannot be opened, or is a folder, a pipe, a socket or a device.
    pub fn open(path: &Path) -> Result<Self> {
        match open_regular(path) {
            Ok((file, about)) => {
                Ok(InputFile { file, path: path.to_owned(), stamp: FileStamp::of(&about) })
            }
            Err(error) if Irregular::is_reason(&error) => {
                Err(Error::content(path, error.to_string()))
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was like when it was opened.
    pub fn stamp(&self) -> FileStamp {
        self.stamp
    }

    /// What it is like now, whatever lies at its path by now.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn stamp_now(&self) -> Result<FileStamp> {
        let about = self.file.metadata().map_err(Error::io("read", &self.path))?;
        Ok(FileStamp::of(&about))
    }

    /// All its bytes.
    ///
    /// # Errors
    /// When it cannot be read, or holds more than `most` bytes.
    pub fn read_at_most(&mut self, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(most.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &self.path))?;
        if bytes.len() as u64 > most {
            return Err(Error::content(
                &self.path,
                format!("it is larger than {most} bytes, which is the most that is read here"),
            ));
        }
        Ok(bytes)
    }
}

impl Read for InputFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl Seek for InputFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The text of a file of at most `most` bytes.
///
/// # Errors
/// When it is no regular file, cannot be read, is longer, or is no text as [`decode_text`] takes
/// it.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let bytes = InputFile::open(path)?.read_at_most(most)?;
    decode_text(bytes).ok_or_else(|| Error::content(path, "it is no text"))
}

/// A text in UTF-8, or in UTF-16 where it begins with that mark (U+FEFF), as some editors write it;
/// the mark itself goes. None where it is no such text.
pub fn decode_text(bytes: Vec<u8>) -> Option<String> {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| read(*pair)).collect();
        rest.is_empty().then(|| String::from_utf16(&units).ok()).flatten()
    };
    match bytes.as_slice() {
        [0xff, 0xfe, text @ ..] => wide(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => wide(text, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        _ => String::from_utf8(bytes).ok(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn texts_are_read_by_their_mark() {
        let text = "Graph(version: 1) // 猫 🦊";
        let wide: Vec<u16> = text.encode_utf16().collect();
        let little = [0xfeff].iter().chain(&wide).flat_map(|unit: &u16| unit.to_le_bytes());
        let big = [0xfeff].iter().chain(&wide).flat_map(|unit: &u16| unit.to_be_bytes());
        let (little, big): (Vec<u8>, Vec<u8>) = (little.collect(), big.collect());
        let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for bytes in [little.clone(), big, marked, text.as_bytes().to_vec()] {
            assert_eq!(decode_text(bytes).as_deref(), Some(text));
        }
        assert_eq!(decode_text(little[..little.len() - 1].to_vec()), None, "half a character");
        assert_eq!(decode_text(vec![0xff, 0xfe, 0x00, 0xd8]), None, "half a pair");
        assert_eq!(decode_text(vec![b'a', 0xff]), None);
    }

    fn said(path: &Path) -> String {
        InputFile::open(path).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink("pipe", at("link")).unwrap();
        for (name, found) in [
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("socket", "a socket"),
            ("zero", "a device"),
            (".", "a folder"),
        ] {
            assert!(
                said(&at(name)).ends_with(&format!("expected a file, found {found}")),
                "{name}"
            );
        }
        assert!(said(&at("none")).ends_with("there is no such file or folder"));
        std::fs::write(at("text"), "four").unwrap();
        symlink("text", at("there")).unwrap();
        assert_eq!(read_text(&at("there"), 4).unwrap(), "four");
        assert!(read_text(&at("text"), 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        std::fs::write(at("text"), [0xff]).unwrap();
        assert!(read_text(&at("text"), 4).unwrap_err().to_string().ends_with("it is no text"));
    }
}
