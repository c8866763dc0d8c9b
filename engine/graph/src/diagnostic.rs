//! Problems of a graph: where, what was expected, what to do. It knows no pass that finds them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use kino_port::did_you_mean;
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
pub struct Location {
    /// The index of the file in [`Diagnostics::files`].
    pub file: u32,
    /// Where in it.
    pub span: Span,
}

/// A file that was read: the graph's own or one that it uses.
#[derive(Clone, Debug)]
pub struct SourceFile {
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
    pub location: Option<Location>,
    /// Other places that take part, with what they are.
    pub related: Vec<(Location, String)>,
    /// What to do.
    pub hint: Option<String>,
}

/// The longest message and the longest hint, in bytes: they quote what stands in a graph, which may
/// be of any length.
const LONGEST_MESSAGE: usize = 2_000;

/// Problems after which none is given advice: searching for similar names takes longer than finding
/// problems.
const MAX_ADVISED: usize = 100;

impl Diagnostic {
    pub(crate) fn error(
        code: &'static str,
        location: Location,
        message: impl Into<String>,
    ) -> Self {
        let (message, location) = (shortened(message.into()), Some(location));
        Diagnostic {
            severity: Severity::Error,
            code,
            message,
            location,
            related: Vec::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(
        code: &'static str,
        location: Location,
        message: impl Into<String>,
    ) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, location, message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(shortened(hint.into()));
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.map(shortened).or(self.hint);
        self
    }

    pub(crate) fn related(mut self, location: Location, what: impl Into<String>) -> Self {
        self.related.push((location, what.into()));
        self
    }
}

/// A message with the numbers of turns in the names of nodes as 0: `film/0/noise`.
fn without_turns(message: &str) -> Cow<'_, str> {
    let bytes = message.as_bytes();
    let begins =
        |at: &usize| bytes[*at] == b'/' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    if !(0..bytes.len()).any(|at| begins(&at)) {
        return Cow::Borrowed(message);
    }
    let mut parts = message.split('/');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_turn = rest.len() < part.len() && !rest.starts_with(char::is_alphanumeric);
        plain.push_str(if is_turn { "/0" } else { "/" });
        plain.push_str(if is_turn { rest } else { part });
    }
    Cow::Owned(plain)
}

/// A text without its middle, where it is longer than a message should be.
fn shortened(text: String) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text;
    }
    let head = text.floor_char_boundary(LONGEST_MESSAGE * 3 / 4);
    let tail = text.ceil_char_boundary(text.len() - LONGEST_MESSAGE / 4);
    format!("{} … {}", &text[..head], &text[tail..])
}

/// What a pass finds wrong, in the order in which it is found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) list: Vec<Diagnostic>,
}

impl Report {
    /// Says what is wrong at a place; the diagnostic, to add advice and other places.
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        location: Location,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let at = self.list.len();
        self.list.push(Diagnostic::error(code, location, message));
        &mut self.list[at]
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether anything stands against the graph.
    pub(crate) fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Advice on a word that is not among `candidates`; none once there are many problems.
    pub(crate) fn advice<'a, I: IntoIterator<Item = &'a str>>(
        &self,
        word: &str,
        candidates: impl Fn() -> I,
    ) -> Option<String> {
        if self.list.len() < MAX_ADVISED { suggest(word, candidates) } else { None }
    }
}

/// A syntax error before it knows its file.
#[derive(Debug)]
pub struct SyntaxError {
    /// What is wrong, what was expected.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to do.
    pub hint: Option<String>,
}

/// All problems of a graph, with the files that they point into.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The problems, errors first, then by place.
    pub list: Vec<Diagnostic>,
    /// The files.
    pub files: Vec<SourceFile>,
}

impl Diagnostics {
    pub(crate) fn new(mut list: Vec<Diagnostic>, files: Vec<SourceFile>) -> Self {
        let order = |d: &Diagnostic| {
            d.location.map_or((0, 0), |location| (location.file, location.span.start))
        };
        list.sort_by(|a, b| b.severity.cmp(&a.severity).then(order(a).cmp(&order(b))));
        // A graph used twice says everything twice, and each turn of a loop says it of its own.
        let mut said = HashSet::with_capacity(list.len());
        list.retain(|d| said.insert((d.code, d.location, without_turns(&d.message).into_owned())));
        Diagnostics { list, files }
    }

    /// The line and column of a place, both from 1; columns count characters.
    ///
    /// For one place: many are found with [`Diagnostics::positions`] in one pass over the texts.
    pub fn position(&self, location: Location) -> (usize, usize) {
        let Some(file) = self.files.get(location.file as usize) else { return (1, 1) };
        let before = file.text.get(..location.span.start as usize).unwrap_or(&file.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// Finds the positions of many places.
    pub fn positions(&self) -> Positions<'_> {
        let related = self.list.iter().flat_map(|problem| &problem.related);
        let places = related.map(|(location, _)| location);
        let places = places.chain(self.list.iter().filter_map(|problem| problem.location.as_ref()));
        let needed: HashSet<usize> = places.map(|location| location.file as usize).collect();
        let files = self.files.iter().enumerate().map(|(index, file)| {
            let marks = if needed.contains(&index) { marks(&file.text) } else { Vec::new() };
            (&*file.text, marks)
        });
        Positions { files: files.collect() }
    }

    /// The name of a place's file.
    pub fn file_name(&self, location: Location) -> &str {
        self.files.get(location.file as usize).map_or("", |file| &file.name)
    }

    /// Plain text: a line a problem, with its hint and other places below it.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let positions = self.positions();
        for diagnostic in &self.list {
            let severity = if diagnostic.severity == Severity::Error { "error" } else { "warning" };
            let _ = write!(text, "{severity}[{}]", diagnostic.code);
            if let Some(location) = diagnostic.location {
                let (line, column) = positions.of(location);
                let _ = write!(text, " {}:{line}:{column}", self.file_name(location));
            }
            let _ = writeln!(text, ": {}", diagnostic.message);
            for (location, what) in &diagnostic.related {
                let (line, column) = positions.of(*location);
                let _ =
                    writeln!(text, "  see {}:{line}:{column}: {what}", self.file_name(*location));
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

/// Every so many bytes of a text it is noted how many lines and characters lie before.
const MARK: usize = 512;

/// What lies before a byte of a text.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: usize,
    line: usize,
    /// The number of characters since the line began.
    column: usize,
}

fn marks(text: &str) -> Vec<Mark> {
    let (mut marks, mut mark) = (Vec::with_capacity(text.len() / MARK + 1), Mark::default());
    for (at, c) in text.char_indices() {
        if at >= marks.len() * MARK {
            marks.push(Mark { at, ..mark });
        }
        (mark.line, mark.column) =
            if c == '\n' { (mark.line + 1, 0) } else { (mark.line, mark.column + 1) };
    }
    marks
}

/// Lines and columns of many places in the same files.
#[derive(Debug)]
pub struct Positions<'a> {
    files: Vec<(&'a str, Vec<Mark>)>,
}

impl Positions<'_> {
    /// The line and column of a place, both from 1; columns count characters.
    pub fn of(&self, location: Location) -> (usize, usize) {
        let Some((text, marks)) = self.files.get(location.file as usize) else { return (1, 1) };
        let end = text.floor_char_boundary(location.span.start as usize);
        let nearest = marks.partition_point(|mark| mark.at <= end).checked_sub(1);
        let mark = nearest.map_or(Mark::default(), |nearest| marks[nearest]);
        let rest = &text[mark.at..end];
        match rest.rfind('\n') {
            None => (mark.line + 1, mark.column + rest.chars().count() + 1),
            Some(last) => {
                let lines = rest.bytes().filter(|byte| *byte == b'\n').count();
                (mark.line + lines + 1, rest[last + 1..].chars().count() + 1)
            }
        }
    }
}

struct Positioned<'a>(&'a Diagnostics, &'a Positions<'a>, &'a Diagnostic);

impl Serialize for Positioned<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Positioned(all, positions, diagnostic) = self;
        let mut fields = serializer.serialize_struct("Diagnostic", 7)?;
        fields.serialize_field("severity", &diagnostic.severity)?;
        fields.serialize_field("code", diagnostic.code)?;
        fields.serialize_field("message", &diagnostic.message)?;
        fields.serialize_field("hint", &diagnostic.hint)?;
        let position = diagnostic.location.map(|location| positions.of(location));
        fields.serialize_field(
            "file",
            &diagnostic.location.map(|location| all.file_name(location)),
        )?;
        fields.serialize_field("line", &position.map(|(line, _)| line))?;
        fields.serialize_field("column", &position.map(|(_, column)| column))?;
        fields.end()
    }
}

impl Serialize for Diagnostics {
    /// A list of problems, each with file, line and column.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let positions = self.positions();
        let list = self.list.iter().map(|diagnostic| Positioned(self, &positions, diagnostic));
        serializer.collect_seq(list)
    }
}

/// "did you mean", if something is near; else the candidates, if they are few.
pub(crate) fn suggest<'a, I: IntoIterator<Item = &'a str>>(
    word: &str,
    candidates: impl Fn() -> I,
) -> Option<String> {
    if let Some(near) = did_you_mean(word, candidates()) {
        return Some(near);
    }
    let all: Vec<_> =
        candidates().into_iter().take(13).map(|candidate| format!("`{candidate}`")).collect();
    (1..=12).contains(&all.len()).then(|| format!("there is {}", all.join(", ")))
}
