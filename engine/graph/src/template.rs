//! Path templates: `{graph}` and `{NAME}` in literals of type Path. It knows no values.

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Text(String),
    /// `{graph}`.
    Stem,
    /// `{NAME}`: an input of the graph that the literal stands in.
    Input(String),
}

/// The longest text that an input's value adds to a file name, in characters.
const LONGEST: usize = 80;

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

/// A value as part of a file name: no separators, no control characters, no leading dots, not too
/// long.
pub(crate) fn sanitise(value: &str) -> String {
    let safe = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c };
    let text: String = value.chars().take(LONGEST).map(safe).collect();
    let kept = text.trim_start_matches('.');
    format!("{}{kept}", "_".repeat(text.len() - kept.len()))
}
