//! ComfyUI's `extra_model_paths.yaml`: in which folders models of which kind lie.
//!
//! It is read as far as such files go, and no further: sections, of which each has a `base_path`,
//! `is_default` and keys with folders, one or several in a block of lines. Whatever else YAML can
//! say is an error with its line.

use std::path::{Path, PathBuf};

use crate::{Error, Result, read_text};

/// The longest such file, in bytes.
const LONGEST: u64 = 1 << 20;

/// A folder with models of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOfKind {
    /// What ComfyUI calls the kind: `diffusion_models`, `vae`, `loras`.
    pub kind: String,
    /// The folder.
    pub folder: PathBuf,
}

/// The folders that a file names, in the order in which ComfyUI looks into them: those of sections
/// with `is_default` first. Relative ones are relative to their section's `base_path`, that to the
/// file's own folder.
///
/// # Errors
/// When the file cannot be read, or says something else; the message names the line.
pub fn extra_model_paths(path: &Path) -> Result<Vec<FolderOfKind>> {
    let text = read_text(path, LONGEST)?;
    let own = path.parent().unwrap_or(Path::new("."));
    let sections = sections(&text).map_err(|(line, message)| {
        Error::content(path, format!("line {line}: {message}"))
            .advise("it is written as ComfyUI's extra_model_paths.yaml.example is")
    })?;
    let mut found: Vec<FolderOfKind> = Vec::new();
    for is_default in [true, false] {
        for section in sections.iter().filter(|section| section.is_default == is_default) {
            let base = section.base.as_deref().map_or(own.to_owned(), |base| own.join(place(base)));
            let folders = section.folders.iter().map(|(kind, folder)| FolderOfKind {
                kind: kind.clone(),
                folder: base.join(place(folder)),
            });
            found.extend(folders);
        }
    }
    Ok(found)
}

/// A path, `~` standing for the home folder.
fn place(text: &str) -> PathBuf {
    let path = Path::new(text);
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

#[derive(Debug, Default)]
struct Section {
    base: Option<String>,
    is_default: bool,
    /// Kind and folder.
    folders: Vec<(String, String)>,
}

/// A block of lines that a key holds (`key: |`), while it goes on.
struct Block {
    key: String,
    /// How far the key is indented.
    indent: usize,
    line: usize,
}

/// The sections of a text, or the line that is wrong and why.
fn sections(text: &str) -> Result<Vec<Section>, (usize, String)> {
    let mut sections: Vec<Section> = Vec::new();
    let mut block: Option<Block> = None;
    // How far the keys of the section are indented.
    let mut keys: Option<usize> = None;
    for (at, line) in text.lines().enumerate() {
        let line_number = at + 1;
        let wrong = |message: &str| Err((line_number, message.to_owned()));
        let indent = line.len() - line.trim_start_matches(' ').len();
        let content = without_comment(line).trim();
        if content.is_empty() || matches!(content, "---" | "...") {
            continue;
        }
        if line[indent..].starts_with('\t') {
            return wrong("tabs do not indent YAML");
        }
        if let Some(open) = block.as_ref().filter(|open| indent > open.indent) {
            let section = sections.last_mut().ok_or((open.line, "no section".to_owned()))?;
            section.set(&open.key, content).map_err(|message| (line_number, message))?;
            continue;
        }
        block = None;
        let Some((key, value)) = key_of(content) else {
            return wrong("expected `key: folder`");
        };
        if indent == 0 {
            if !value.is_empty() {
                return wrong("expected the name of a section, such as `comfyui:`");
            }
            sections.push(Section::default());
            keys = None;
            continue;
        }
        let Some(section) = sections.last_mut() else {
            return wrong("expected the name of a section, such as `comfyui:`, before it");
        };
        if *keys.get_or_insert(indent) != indent {
            return wrong("it is indented otherwise than the line before it");
        }
        match value {
            "|" | "|-" | "|+" | ">" | ">-" => {
                block = Some(Block { key: key.to_owned(), indent, line: line_number });
            }
            "" | "null" | "~" => {}
            value => {
                let value = unquoted(value).map_err(|message| (line_number, message))?;
                section.set(key, &value).map_err(|message| (line_number, message))?;
            }
        }
    }
    Ok(sections)
}

impl Section {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "base_path" => self.base = Some(value.to_owned()),
            "is_default" => match value.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => self.is_default = true,
                "false" | "no" | "off" => self.is_default = false,
                _ => return Err(format!("expected true or false, found {value}")),
            },
            kind => self.folders.push((kind.to_owned(), value.to_owned())),
        }
        Ok(())
    }
}

/// Key and value of a line.
fn key_of(content: &str) -> Option<(&str, &str)> {
    let (key, value) = content.split_once(':')?;
    let is_word = |c: char| c.is_alphanumeric() || "_-. ".contains(c);
    let is_key = !key.is_empty() && key.chars().all(is_word) && !key.starts_with('-');
    (is_key && (value.is_empty() || value.starts_with(' '))).then(|| (key.trim(), value.trim()))
}

/// A line without the comment at its end: `#` at the begin or behind a blank, outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            // A quote begins a value; within one it is a letter.
            None if matches!(c, '\'' | '"') && before == ' ' => quote = Some(c),
            None if c == '#' && before == ' ' => return &line[..at],
            None => {}
        }
        before = c;
    }
    line
}

/// A value as it is meant: in quotes or plain.
fn unquoted(value: &str) -> Result<String, String> {
    let within = |quote: char| value.strip_prefix(quote).map(|rest| rest.strip_suffix(quote));
    match (within('\''), within('"')) {
        (Some(Some(inner)), _) => Ok(inner.replace("''", "'")),
        (_, Some(Some(inner))) => Ok(inner.replace("\\\\", "\\").replace("\\\"", "\"")),
        (Some(None), _) | (_, Some(None)) => Err("a quote is not closed".to_owned()),
        _ if value.starts_with(['[', '{', '&', '*', '!', '%', '@', '`']) => {
            Err(format!("expected a folder, found {value}"))
        }
        _ => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("extra_model_paths.yaml");
        std::fs::write(&path, text).unwrap();
        let found = extra_model_paths(&path).map_err(|error| error.to_string())?;
        let short = |path: &Path| match path.strip_prefix(folder.path()) {
            Ok(inner) => inner.display().to_string(),
            Err(_) => path.display().to_string(),
        };
        Ok(found.iter().map(|found| (found.kind.clone(), short(&found.folder))).collect())
    }

    fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(kind, folder)| ((*kind).to_owned(), (*folder).to_owned())).collect()
    }

    /// ComfyUI's own example, its comments taken away where they switch lines off.
    #[test]
    fn the_example_of_comfyui_is_read() {
        let text = "\
#Rename this to extra_model_paths.yaml and ComfyUI will load it

#config for a1111 ui
a111:
    base_path: path/to/stable-diffusion-webui/

    checkpoints: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS
    vae: models/VAE

comfyui:
     base_path: /comfyui/
     # You can use is_default to mark that these folders should be listed first
     is_default: true
     text_encoders: |
          models/text_encoders/
          models/clip/  # legacy location still supported
     diffusion_models: |
                 models/diffusion_models
                 models/unet
     vae: \"models/vae/\"

#other_ui:
#    base_path: path/to/ui
";
        let base = "path/to/stable-diffusion-webui/models";
        let expected = of(&[
            ("text_encoders", "/comfyui/models/text_encoders/"),
            ("text_encoders", "/comfyui/models/clip/"),
            ("diffusion_models", "/comfyui/models/diffusion_models"),
            ("diffusion_models", "/comfyui/models/unet"),
            ("vae", "/comfyui/models/vae/"),
            ("checkpoints", &format!("{base}/Stable-diffusion")),
            ("loras", &format!("{base}/Lora")),
            ("loras", &format!("{base}/LyCORIS")),
            ("vae", &format!("{base}/VAE")),
        ]);
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn paths_may_be_in_quotes_and_without_a_base() {
        let text = "a:\n  loras: 'my # loras'\r\n  vae: C:\\models\\vae # mine\n  empty:\n";
        let expected = of(&[("loras", "my # loras"), ("vae", "C:\\models\\vae")]);
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_such_file_is_told_with_its_line() {
        for (text, expected) in [
            ("vae: x\n", "line 1: expected the name of a section"),
            ("  vae: x\n", "line 1: expected the name of a section"),
            ("a:\n  - x\n", "line 2: expected `key: folder`"),
            ("a:\n  vae: [x, y]\n", "line 2: expected a folder, found [x, y]"),
            ("a:\n  vae: x\n    loras: y\n", "line 3: it is indented otherwise"),
            ("a:\n  vae: 'x\n", "line 2: a quote is not closed"),
            ("a:\n  is_default: maybe\n", "line 2: expected true or false"),
            ("a:\n\tvae: x\n", "line 2: tabs do not indent"),
            ("a:\n  just words\n", "line 2: expected `key: folder`"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(expected), "{text:?}: {told}");
        }
    }
}
