//! Where inputs are found and outputs go.

use std::path::{Component, Path, PathBuf};

use kino_port::{escape_line, is_hidden};

use crate::{Error, Result};

/// What the common file systems take, in bytes.
const LONGEST_NAME: usize = 255;
/// What systems take as a whole path, less room for the names of temporary files.
const LONGEST_PATH: usize = 3800;

/// The folders that a graph's paths are relative to.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The folder of the graph's file: inputs are relative to it.
    pub graph: PathBuf,
    /// The folder that outputs lie under.
    pub out: PathBuf,
}

impl Folders {
    /// The file or folder that a graph reads.
    pub fn input(&self, path: &str) -> PathBuf {
        self.graph.join(path)
    }

    /// The file that a graph writes.
    ///
    /// # Errors
    /// When the path is empty or absolute, contains `..`, begins with `~/`, has a name longer than
    /// file systems take, or leaves the output folder through a link.
    pub fn output(&self, path: &str) -> Result<PathBuf> {
        let relative = Path::new(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if relative.file_name().is_none()
            || !relative.components().all(plain)
            || path.contains('\\')
            || path.contains('\0')
        {
            return Err(Error::refused(
                format!("outputs lie under the output folder: `{path}` is not a path within it"),
                "use a relative path without `..`; `--out DIR` names another folder",
            ));
        }
        if relative.starts_with("~") {
            return Err(Error::refused(
                format!("`{path}`: outputs lie under the output folder, and `~` is no home there"),
                "leave `~/` out; `--out DIR` names the folder, such as `--out ~/Videos`",
            ));
        }
        if let Some(hidden) = path.chars().find(|c| matches!(c, '\n' | '\t') || is_hidden(*c)) {
            let (shown, hidden) = (escape_line(path), hidden.escape_unicode());
            return Err(Error::refused(
                format!(
                    "the name `{shown}` holds {hidden}, which nobody would see in a list of files"
                ),
                "name the file by characters that can be seen",
            ));
        }
        let longest = relative.iter().map(|name| name.len()).max().unwrap_or_default();
        if longest > LONGEST_NAME {
            return Err(Error::refused(
                format!("a name in this path is {longest} bytes long, at most {LONGEST_NAME} fit"),
                "an input in `{…}` may be long; name the file by another, such as `{seed}`",
            ));
        }
        let target = self.out.join(relative);
        let whole = std::path::absolute(&target).map_or(0, |path| path.as_os_str().len());
        if whole > LONGEST_PATH {
            return Err(Error::refused(
                format!("this path is {whole} bytes long as a whole, at most {LONGEST_PATH} fit"),
                "write to fewer folders, or to one that lies less deep with `--out DIR`",
            ));
        }
        self.stays_within(&target, path)?;
        Ok(target)
    }

    /// Refuses a target whose nearest existing folder lies elsewhere, behind a link.
    fn stays_within(&self, target: &Path, path: &str) -> Result<()> {
        let Ok(out) = self.out.canonicalize() else { return Ok(()) };
        let existing = target.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
        match existing {
            Some(folder) if folder.starts_with(&out) => Ok(()),
            _ => Err(Error::refused(
                format!("`{path}` leads out of {} through a link", self.out.display()),
                "remove the link, or write elsewhere with `--out DIR`",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_stay_under_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders { graph: "g".into(), out: folder.path().join("out") };
        assert_eq!(folders.output("a/b.mp4").unwrap(), folder.path().join("out/a/b.mp4"));
        for path in ["", ".", "./", "/etc/x", "../x", "a/../../x", "a\\b", "a\0b"] {
            assert!(folders.output(path).is_err(), "{path}");
        }
        let home = folders.output("~/x.mp4").unwrap_err();
        assert!(home.to_string().contains("`~` is no home there"), "{home}");
        assert!(folders.output("~x.mp4").is_ok());
        let long = folders.output(&format!("a/{}.mp4", "长".repeat(100))).unwrap_err();
        assert!(long.to_string().contains("304 bytes long, at most 255"), "{long}");
        assert!(folders.output(&format!("{}.mp4", "a".repeat(251))).is_ok());
        let deep = folders.output(&format!("{}a.mp4", "a/".repeat(2000))).unwrap_err();
        assert!(deep.to_string().contains("bytes long as a whole, at most 3800"), "{deep}");
        assert_eq!(folders.input("x.png"), Path::new("g/x.png"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_does_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir_all(&out).unwrap();
        std::os::unix::fs::symlink(folder.path(), out.join("link")).unwrap();
        let folders = Folders { graph: ".".into(), out };
        assert!(folders.output("link/x.mp4").unwrap_err().to_string().contains("through a link"));
    }
}
