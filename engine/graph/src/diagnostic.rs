//! Problems of a graph: where, what was expected, what to do.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::Serialize;
use serde::ser::SerializeStruct;

/// A range of bytes in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Span { start: start as u32, end: end as u32 }
    }
}

/// A span in one of the files of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The index of the file in [`Diagnostics::files`].
    pub file: u32,
    /// Where in it.
    pub span: Span,
}

/// A file that was read: the graph's own or one that it uses.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path as given.
    pub name: String,
    /// Its text.
    pub text: Arc<str>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The graph runs, but probably not as meant.
    Warning,
    /// The graph does not run.
    Error,
}

/// One problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A short stable name, such as `unknown-op`.
    pub code: &'static str,
    /// What is wrong, what was expected.
    pub message: String,
    /// Where; none for problems of the command line.
    pub place: Option<Place>,
    /// Other places that take part, with what they are.
    pub related: Vec<(Place, String)>,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        let (message, place) = (message.into(), Some(place));
        Diagnostic {
            severity: Severity::Error,
            code,
            message,
            place,
            related: Vec::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, place, message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub(crate) fn related(mut self, place: Place, what: impl Into<String>) -> Self {
        self.related.push((place, what.into()));
        self
    }
}

/// A syntax error before it knows its file.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) span: Span,
    pub(crate) hint: Option<String>,
}

/// All problems of a graph, with the files that they point into.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The problems, errors first, then by place.
    pub list: Vec<Diagnostic>,
    /// The files.
    pub files: Vec<File>,
}

impl Diagnostics {
    pub(crate) fn new(mut list: Vec<Diagnostic>, files: Vec<File>) -> Self {
        let order = |d: &Diagnostic| d.place.map_or((0, 0), |place| (place.file, place.span.start));
        list.sort_by(|a, b| b.severity.cmp(&a.severity).then(order(a).cmp(&order(b))));
        // A graph used twice says everything twice.
        let mut said = HashSet::with_capacity(list.len());
        list.retain(|d| said.insert((d.code, d.place, d.message.clone())));
        Diagnostics { list, files }
    }

    /// The line and column of a place, both from 1; columns count characters.
    pub fn position(&self, place: Place) -> (usize, usize) {
        let Some(file) = self.files.get(place.file as usize) else { return (1, 1) };
        let before = file.text.get(..place.span.start as usize).unwrap_or(&file.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// The name of a place's file.
    pub fn file_name(&self, place: Place) -> &str {
        self.files.get(place.file as usize).map_or("", |file| &file.name)
    }

    /// Plain text: a line a problem, with its hint and other places below it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for diagnostic in &self.list {
            let severity = if diagnostic.severity == Severity::Error { "error" } else { "warning" };
            let _ = write!(text, "{severity}[{}]", diagnostic.code);
            if let Some(place) = diagnostic.place {
                let (line, column) = self.position(place);
                let _ = write!(text, " {}:{line}:{column}", self.file_name(place));
            }
            let _ = writeln!(text, ": {}", diagnostic.message);
            for (place, what) in &diagnostic.related {
                let (line, column) = self.position(*place);
                let _ = writeln!(text, "  see {}:{line}:{column}: {what}", self.file_name(*place));
            }
            if let Some(hint) = &diagnostic.hint {
                let _ = writeln!(text, "  hint: {hint}");
            }
        }
        text
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render().trim_end())
    }
}

impl std::error::Error for Diagnostics {}

struct Positioned<'a>(&'a Diagnostics, &'a Diagnostic);

impl Serialize for Positioned<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Positioned(all, diagnostic) = self;
        let mut fields = serializer.serialize_struct("Diagnostic", 7)?;
        fields.serialize_field("severity", &diagnostic.severity)?;
        fields.serialize_field("code", diagnostic.code)?;
        fields.serialize_field("message", &diagnostic.message)?;
        fields.serialize_field("hint", &diagnostic.hint)?;
        let position = diagnostic.place.map(|place| all.position(place));
        fields.serialize_field("file", &diagnostic.place.map(|place| all.file_name(place)))?;
        fields.serialize_field("line", &position.map(|(line, _)| line))?;
        fields.serialize_field("column", &position.map(|(_, column)| column))?;
        fields.end()
    }
}

impl Serialize for Diagnostics {
    /// A list of problems, each with file, line and column.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.list.iter().map(|diagnostic| Positioned(self, diagnostic)))
    }
}

/// The candidate nearest to `word`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored =
        candidates.into_iter().map(|candidate| (strsim::jaro_winkler(word, candidate), candidate));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.75).then_some(best.1)
}

/// "did you mean", if something is near; else the candidates, if they are few.
pub(crate) fn suggest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<String> {
    if let Some(near) = nearest(word, candidates.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<_> = candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    (1..=12).contains(&all.len()).then(|| format!("there is {}", all.join(", ")))
}
