//! Changes of plugin.ron that leave everything else in it as its author wrote it.

use std::path::Path;

use kino_host::{MANIFEST_FILE, Manifest};

use crate::failure::Failure;
use crate::files;

/// Writes into a plugin's manifest what its build says of itself: the ids of its nodes, and the
/// version of its crate. Says what has changed.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn update(
    folder: &Path,
    nodes: &[String],
    version: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let mut manifest = Manifest::read(folder)?;
    let path = folder.join(MANIFEST_FILE);
    let mut text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::world(format!("{}: {error}", path.display())))?;
    let mut told = Vec::new();
    let sorted = |nodes: &[String]| {
        let mut nodes = nodes.to_vec();
        nodes.sort();
        nodes
    };
    if sorted(&manifest.nodes) != sorted(nodes) {
        manifest.nodes = nodes.to_vec();
        let quoted: Vec<_> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        replace(&mut text, "nodes", &format!("[{}]", quoted.join(", ")));
        told.push(format!("nodes are {}", nodes.join(", ")));
    }
    if let Some(version) = version.filter(|version| *version != manifest.version) {
        manifest.version = version.to_owned();
        replace(&mut text, "version", &format!("\"{version}\""));
        told.push(format!("version is {version}"));
    }
    if told.is_empty() {
        return Ok(told);
    }
    if Manifest::parse(&text, &path).ok().as_ref() != Some(&manifest) {
        text = manifest.text()?;
    }
    files::write(&path, text.as_bytes())?;
    Ok(told)
}

/// Puts another value behind a key of the outermost record; nothing where there is no such key.
fn replace(text: &mut String, key: &str, value: &str) {
    if let Some(span) = value_of(text, key) {
        text.replace_range(span, value);
    }
}

/// Where the value of a key of the outermost record stands.
fn value_of(text: &str, key: &str) -> Option<std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut begins) = (0, 0, None);
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => length_of_text(rest),
            _ => 0,
        };
        if skipped > 0 {
            at += skipped;
            continue;
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        let is_end = (depth == 1 && bytes[at] == b',') || depth == 0;
        if let Some(begin) = begins.filter(|_| is_end) {
            return Some(begin..begin + text[begin..at].trim_end().len());
        }
        let is_word = |at: usize| {
            bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        if depth == 1
            && begins.is_none()
            && rest.starts_with(key)
            && !is_word(at + key.len())
            && !(at > 0 && is_word(at - 1))
        {
            let behind = &rest[key.len()..];
            if let Some(value) = behind.trim_start().strip_prefix(':') {
                at = text.len() - value.trim_start().len();
                begins = Some(at);
                continue;
            }
        }
        at += rest.chars().next().map_or(1, char::len_utf8);
    }
    None
}

/// How long the text in quotes is that something begins with.
fn length_of_text(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// nodes: none\nPlugin(\n    id: \"a\", version: \"1.0\", // version: old\n    \
                        about: \"has nodes: [\\\"x\\\"], version: 2\",\n    nodes: [\n        \"a.one\", \
                        // the first\n    ],\n    wasm: \"a.wasm\",\n)\n";

    fn updated(text: &str, nodes: &[&str], version: Option<&str>) -> (Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST_FILE);
        std::fs::write(&path, text).unwrap();
        let nodes: Vec<_> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let told = update(folder.path(), &nodes, version).unwrap();
        (told, std::fs::read_to_string(path).unwrap())
    }

    /// Comments and all else stay; a text that names a key is none.
    #[test]
    fn only_what_has_changed_is_written() {
        let (told, text) = updated(TEXT, &["a.one", "a.two"], Some("1.1"));
        assert_eq!(told, ["nodes are a.one, a.two", "version is 1.1"]);
        let expected = TEXT
            .replace("[\n        \"a.one\", // the first\n    ]", "[\"a.one\", \"a.two\"]")
            .replace("\"1.0\"", "\"1.1\"");
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_the_same_is_not_touched() {
        let (told, text) = updated(TEXT, &["a.one"], Some("1.0"));
        assert_eq!((told, text.as_str()), (vec![], TEXT));
        let two = TEXT.replace("// the first", "\"a.zero\"");
        assert_eq!(updated(&two, &["a.zero", "a.one"], None), (vec![], two));
    }
}
