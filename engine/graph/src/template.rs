//! Path templates: `{graph}`, `{hash}`, `{n}` and `{NAME}` in literals of type Path. It knows no
//! values.

use kino_port::{Literal, is_hidden};

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    /// `{graph}`.
    Stem,
    /// `{NAME}`: an input of the graph that the literal stands in.
    Input(String),
}

/// The longest text that an input's value adds to a file name, in characters, and in bytes: file
/// systems count those, and an ending and a number have to fit beside it.
const LONGEST: usize = 80;
const LONGEST_BYTES: usize = 160;

/// What is put into a path where only the node that writes it tells what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// `{hash}`: the beginning of a hash of all that makes the file.
    Hash,
    /// `{n}`: the next number that no file has.
    Number,
}

/// Holds the place of what is put in late: no path of a file holds these characters.
const PLACES: [(&str, &str, Late); 2] =
    [("hash", "\0hash\0", Late::Hash), ("n", "\0n\0", Late::Number)];

/// The names that every graph can use in a path.
pub(crate) const NAMES: [&str; 3] = ["graph", "hash", "n"];

impl Late {
    /// What a name in a path stands for, where no input of the graph is called so.
    pub(crate) fn named(name: &str) -> Option<Late> {
        PLACES.iter().find(|(known, ..)| *known == name).map(|(.., late)| *late)
    }

    /// Whether something is to be put into a path.
    pub(crate) fn is_in(path: &str) -> bool {
        path.contains('\0') && PLACES.iter().any(|(_, place, _)| path.contains(place))
    }

    /// What holds its place until it is known.
    pub(crate) fn place(self) -> &'static str {
        PLACES[self as usize].1
    }
}

/// A value with its late parts as they are written.
pub(crate) fn as_written(value: Literal) -> Literal {
    let written = |text: String| {
        PLACES
            .iter()
            .fold(text, |text, (name, place, _)| text.replace(place, &format!("{{{name}}}")))
    };
    match value {
        Literal::Text(text) if text.contains('\0') => Literal::text(written(text.into_owned())),
        Literal::List(items) => Literal::List(items.into_iter().map(as_written).collect()),
        other => other,
    }
}

/// Cuts a path into its parts; `{{` and `}}` stand for brackets.
pub(crate) fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let bracket = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(bracket) {
            plain.push_str(bracket);
            rest = after;
            continue;
        }
        let end = if bracket == "{" { rest.find('}') } else { None };
        let Some(end) = end else {
            return Err(format!(
                "`{bracket}` is unmatched in this path; write `{bracket}{bracket}` for a bracket"
            ));
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(match &rest[..end] {
            "graph" => Part::Stem,
            name => Part::Input(name.to_owned()),
        });
        rest = &rest[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || parts.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// A value as part of a file name: something, without separators, characters that are not seen or
/// stand for a number, and leading dots, not too long.
pub(crate) fn sanitise(value: &str) -> String {
    if value.is_empty() {
        return "_".to_owned();
    }
    let is_unfit = |c: char| c.is_control() || is_hidden(c) || "/\\:*?\"<>|%".contains(c);
    let safe = |c: char| if is_unfit(c) { '_' } else { c };
    let text: String = value.chars().take(LONGEST).map(safe).collect();
    let text = &text[..text.floor_char_boundary(LONGEST_BYTES)];
    let kept = text.trim_start_matches('.');
    format!("{}{kept}", "_".repeat(text.len() - kept.len()))
}
