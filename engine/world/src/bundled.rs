//! Files that travel inside a program: the pictures and clips that its built-in graphs begin with.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{AtomicFile, Error, Result};

/// Files inside the program, by the paths that graphs name, and the folder where one is put when it
/// is read. A service of graphs that are built in.
#[derive(Clone, Debug)]
pub struct BundledFiles {
    /// Where they are put.
    pub folder: PathBuf,
    /// Paths and contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl BundledFiles {
    /// Where the file of this path lies, which is written unless it is there as it should be; none
    /// where there is no such file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn place(&self, path: &str) -> Result<Option<PathBuf>> {
        let path = path.trim_start_matches("./");
        let Some((name, contents)) = self.files.iter().find(|(name, _)| *name == path) else {
            return Ok(None);
        };
        let place = self.folder.join(name);
        if !is_there(&place, contents) {
            let folder = place.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(folder).map_err(Error::io("made", folder))?;
            let mut file = AtomicFile::create(&place)?;
            file.write_all(contents).map_err(Error::io("written", &place))?;
            file.finish()?;
        }
        Ok(Some(place))
    }
}

fn is_there(place: &Path, contents: &[u8]) -> bool {
    let has_length = std::fs::metadata(place)
        .is_ok_and(|about| about.is_file() && about.len() == contents.len() as u64);
    has_length && std::fs::read(place).is_ok_and(|found| found == contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_again_where_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let bundled =
            BundledFiles { folder: folder.path().join("deep"), files: &[("a/b.txt", b"text")] };
        let place = bundled.place("./a/b.txt").unwrap().unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"text");
        let stamp = || std::fs::metadata(&place).unwrap().modified().unwrap();
        let first = stamp();
        bundled.place("a/b.txt").unwrap();
        assert_eq!(stamp(), first);
        std::fs::write(&place, "else").unwrap();
        bundled.place("a/b.txt").unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"text");
        assert_eq!(bundled.place("../a/b.txt").unwrap(), None);
    }
}
