//! Turns terse prompts into full ones, by rules in a file.

mod rules;

use kino_plugin::prelude::*;
use rules::Rules;

/// Turns a terse prompt into a full one by the rules of a file.
///
/// A rule is a line, read from top to bottom; `#` begins a comment:
///
/// `right = moves right` puts a phrase in the place of a word (or of several), in any case.
/// `before a an = a` puts a phrase before the text, unless one of the words is in it.
/// `after background = on white` puts a phrase after it, with the same condition.
///
/// What a rule has put in, the first kind of rule does not change again.
#[node(id = "prompt.expand", version = "1.0.0")]
pub fn prompt_expand(
    cx: &mut Cx,
    /// The prompt.
    text: &str,
    /// The file with the rules, relative to the graph; the plugin must be granted to read it.
    rules: Path,
) -> Result<String> {
    let rules = Rules::parse(&cx.read_text(&rules)?).map_err(|error| error.at(&rules))?;
    let expanded = rules.expand(text);
    tracing::info!(rules = rules.count(), "`{text}` became `{expanded}`");
    Ok(expanded)
}

kino_plugin::plugin!(prompt_expand);
