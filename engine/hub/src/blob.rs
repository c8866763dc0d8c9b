//! Contents under the hub's name of them: that of a large file is its SHA-256, that of a small one
//! git's name, the SHA-1 of `blob LENGTH\0` and the contents.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::sha1::Sha1;

/// Hashes contents as the name of a blob asks.
pub(crate) enum BlobHash {
    /// A file of Git LFS.
    Sha256(Sha256),
    /// A file of git.
    Git(Sha1),
    /// Another hub than Hugging Face's names contents as it likes; nothing is known of them.
    Unknown,
}

impl BlobHash {
    /// The hash for contents of `length` bytes with this name.
    pub(crate) fn of(name: &str, length: u64) -> Self {
        let is_hex = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match name.len() {
            64 if is_hex => BlobHash::Sha256(Sha256::new()),
            40 if is_hex => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {length}\0").as_bytes());
                BlobHash::Git(hash)
            }
            _ => BlobHash::Unknown,
        }
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            BlobHash::Sha256(hash) => hash.update(bytes),
            BlobHash::Git(hash) => hash.update(bytes),
            BlobHash::Unknown => {}
        }
    }

    /// Adds what a reader gives; whether it came to its end.
    pub(crate) fn read(
        &mut self,
        mut from: impl Read,
        is_cancelled: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(true),
                length => self.update(&buffer[..length]),
            }
            if is_cancelled() {
                return Ok(false);
            }
        }
    }

    /// The name that the contents have; none where that cannot be told.
    pub(crate) fn finish(self) -> Option<String> {
        match self {
            BlobHash::Sha256(hash) => {
                Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
            }
            BlobHash::Git(hash) => Some(hash.finish()),
            BlobHash::Unknown => None,
        }
    }
}

/// The name that the hub gives contents: as a large file (Git LFS), or as one of git.
pub fn blob_name(contents: &[u8], is_large: bool) -> String {
    let like = "0".repeat(if is_large { 64 } else { 40 });
    let mut hash = BlobHash::of(&like, contents.len() as u64);
    hash.update(contents);
    hash.finish().unwrap_or_default()
}

/// Whether an entity tag may be the name of a file.
pub(crate) fn is_name(tag: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (8..=128).contains(&tag.len()) && !tag.starts_with('.') && tag.chars().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(like: &str, bytes: &[u8]) -> Option<String> {
        let mut hash = BlobHash::of(like, bytes.len() as u64);
        assert!(hash.read(bytes, &|| false).unwrap());
        hash.finish()
    }

    /// `git hash-object` of "hello\n", and `sha256sum` of it.
    #[test]
    fn contents_have_the_names_of_git_and_of_its_large_files() {
        let (git, large) = ("a".repeat(40), "a".repeat(64));
        let found = name(&git, b"hello\n").unwrap();
        assert_eq!(found, blob_name(b"hello\n", false));
        assert_eq!(found, "ce013625030ba8dba906f756967f9e9ca394464a");
        let found = name(&large, b"hello\n").unwrap();
        assert_eq!(found, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        assert_eq!(name("W-1234", b"hello\n"), None);
        assert_eq!(name(&"z".repeat(64), b"hello\n"), None);
    }

    #[test]
    fn a_tag_that_leads_elsewhere_is_no_name() {
        assert!(is_name(&"a".repeat(64)) && is_name("d41d8cd98f00b204-17"));
        for wrong in ["", "a", "../../../x", ".aaaaaaaa", "aaaaaaaa/b", "aaaaaaaa\n", "aaaa aaaa"] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
