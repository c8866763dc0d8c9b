//! Problems as people and programs read them: miette for the one, JSON for the other.

use std::collections::HashMap;
use std::fmt;

use kino_graph::{Diagnostic, Diagnostics, Positions, Severity};
use kino_port::{escape_hidden, escape_line};
use kino_session::Error;
use miette::{LabeledSpan, MietteHandler, MietteHandlerOpts, ReportHandler, RgbColors};

use textwrap::{WordSeparator, WordSplitter};

use super::excerpt::{Excerpt, LineStarts};
use super::quantity::count;
use crate::failure::Failure;
use crate::json::{Value, json};
use crate::screen::Screen;

/// So many problems are drawn unless all are wanted.
const MAX_DRAWN: usize = 20;
/// Longer messages and hints are cut.
const LONGEST_MESSAGE: usize = 4000;
/// So many places are shown with one problem.
const MAX_PLACES: usize = 8;

/// A text for people: what nobody reads to its end is cut, what a terminal would obey written out.
fn cut(text: &str) -> String {
    let text = escape_hidden(text);
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// One problem in the form that miette draws.
struct Problem {
    message: String,
    code: Option<&'static str>,
    severity: miette::Severity,
    help: Option<String>,
    source: Option<Excerpt>,
    labels: Vec<LabeledSpan>,
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl miette::Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.code.map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as Box<_>)
    }
}

impl Problem {
    fn plain(severity: miette::Severity, message: &str, hint: Option<&str>) -> Self {
        let (message, help) = (cut(message), hint.map(cut));
        Problem { message, code: None, severity, help, source: None, labels: Vec::new() }
    }

    fn of(
        all: &Diagnostics,
        positions: &Positions<'_>,
        diagnostic: &Diagnostic,
        lines: &mut HashMap<u32, LineStarts>,
    ) -> Self {
        let severity = match diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        };
        let hint = diagnostic.hint.as_deref();
        let mut problem = Problem::plain(severity, &diagnostic.message, hint);
        problem.code = Some(diagnostic.code);
        let Some(location) = diagnostic.location else { return problem };
        let Some(file) = all.files.get(location.file as usize) else { return problem };
        let here = location.span.start as usize..location.span.end as usize;
        let mut places: Vec<_> = std::iter::once(here).collect();
        let mut columns = vec![positions.of(location).1];
        let mut labels = vec!["here".to_owned()];
        for (other, what) in diagnostic.related.iter().take(MAX_PLACES) {
            if other.file == location.file {
                places.push(other.span.start as usize..other.span.end as usize);
                columns.push(positions.of(*other).1);
                labels.push(cut(what));
            } else {
                let (line, column) = positions.of(*other);
                let see = format!("see {}:{line}:{column}: {}", all.file_name(*other), cut(what));
                problem.help =
                    Some(problem.help.map_or(see.clone(), |help| format!("{help}\n{see}")));
            }
        }
        let lines = lines.entry(location.file).or_insert_with(|| LineStarts::of(&file.text));
        let (excerpt, found) = Excerpt::of(&file.name, &file.text, lines, (&places, &columns));
        problem.source = Some(excerpt);
        let mut labelled = found.into_iter().zip(labels);
        if let Some((place, label)) = labelled.next() {
            problem.labels.push(LabeledSpan::new_primary_with_span(Some(label), place));
        }
        let others =
            labelled.map(|((at, length), label)| LabeledSpan::new(Some(label), at, length));
        problem.labels.extend(others);
        problem
    }
}

struct Drawn<'a>(&'a MietteHandler, &'a Problem);

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(self.1, f)
    }
}

fn handler(screen: &Screen) -> MietteHandler {
    MietteHandlerOpts::new()
        .color(screen.err.0)
        .rgb_colors(RgbColors::Never)
        .terminal_links(false)
        .force_graphical(true)
        .context_lines(1)
        // A path or a place stays whole, so that it can be copied, however long it is.
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .build()
}

/// Problems as people read them, one after another, and how many there are: drawn, or a line each.
pub(crate) fn draw(screen: &Screen, diagnostics: &Diagnostics) -> String {
    let positions = diagnostics.positions();
    let all = &diagnostics.list;
    if screen.problems.short {
        let line = |problem| short(diagnostics, &positions, problem);
        return all.iter().map(line).chain(summary(all, all.len())).collect();
    }
    let handler = handler(screen);
    let mut lines = HashMap::new();
    let most = if screen.problems.all { all.len() } else { MAX_DRAWN };
    let drawn = all.iter().take(most).map(|one| {
        let problem = Problem::of(diagnostics, &positions, one, &mut lines);
        Drawn(&handler, &problem).to_string().trim_matches('\n').to_owned() + "\n"
    });
    drawn.chain(summary(all, most)).collect::<Vec<_>>().join("\n")
}

/// A problem on one line, as compilers write it and editors read it.
fn short(all: &Diagnostics, positions: &Positions<'_>, problem: &Diagnostic) -> String {
    let place = problem.location.map_or_else(String::new, |location| {
        let (line, column) = positions.of(location);
        format!("{}:{line}:{column}: ", escape_line(all.file_name(location)))
    });
    let severity = match problem.severity {
        Severity::Error => "",
        Severity::Warning => "warning: ",
    };
    format!("{place}{severity}{}\n", escape_line(&cut(&problem.message)))
}

/// How many problems there are, of which `shown` are shown; nothing of one.
fn summary(all: &[Diagnostic], shown: usize) -> Option<String> {
    let warnings = all.iter().filter(|one| one.severity == Severity::Warning).count();
    let mut text = match (all.len(), warnings) {
        (0 | 1, _) => return None,
        (of, warnings) if of == warnings => count(of, "warning"),
        (of, 0) => count(of, "problem"),
        (of, warnings) => {
            format!("{}, {} among them", count(of, "problem"), count(warnings, "warning"))
        }
    };
    if shown < all.len() {
        text += &format!(
            "; the first {shown} are shown: `--all` shows all, `--short` each on one line"
        );
    }
    Some(text + "\n")
}

/// An error or a warning that stands in no file.
pub(crate) fn draw_plain(
    screen: &Screen,
    is_error: bool,
    message: &str,
    hint: Option<&str>,
) -> String {
    if screen.problems.short {
        let severity = if is_error { "" } else { "warning: " };
        return format!("{severity}{}\n", escape_line(&cut(message)));
    }
    let severity = if is_error { miette::Severity::Error } else { miette::Severity::Warning };
    let problem = Problem::plain(severity, message, hint);
    Drawn(&handler(screen), &problem).to_string().trim_matches('\n').to_owned() + "\n"
}

/// Prints warnings: drawn on the error stream; programs find them in what the command prints.
pub(crate) fn warn(screen: &Screen, diagnostics: &Diagnostics) {
    if !screen.json && !screen.quiet && !diagnostics.list.is_empty() {
        screen.tell(&draw(screen, diagnostics));
    }
}

/// Prints one warning of the command itself on the error stream.
pub(crate) fn warn_plain(screen: &Screen, message: &str, hint: Option<&str>) {
    if screen.json {
        let problem = plain_json("warning", "warning", message, hint);
        let _ = screen.print_json(&json!({ "diagnostics": [problem] }));
    } else if !screen.quiet {
        screen.tell(&draw_plain(screen, false, message, hint));
    }
}

/// Prints why a command failed: drawn on the error stream, or as JSON on the output stream.
pub(crate) fn fail(screen: &Screen, failure: &Failure) {
    // What could not be printed is told on the other stream.
    if screen.json && !matches!(failure, Failure::Print(_)) {
        let _ = screen.print_json(&as_json(failure));
        return;
    }
    let text = match failure {
        Failure::Engine(Error::Graph(diagnostics)) => draw(screen, diagnostics),
        Failure::Engine(Error::Cancelled) => "cancelled\n".to_owned(),
        Failure::Engine(error) => draw_plain(screen, true, &error.to_string(), error.hint()),
        Failure::Print(_) => draw_plain(screen, true, &failure.to_string(), None),
    };
    screen.tell(&text);
}

/// Why a command failed, for programs.
pub(crate) fn as_json(failure: &Failure) -> Value {
    let (code, hint) = match failure {
        Failure::Engine(Error::Graph(all)) => return json!({ "diagnostics": all }),
        Failure::Engine(error @ Error::Usage { .. }) => ("usage", error.hint()),
        Failure::Engine(Error::Cancelled) => ("cancelled", None),
        Failure::Engine(error) => ("world", error.hint()),
        Failure::Print(_) => ("world", None),
    };
    let problem = plain_json("error", code, &failure.to_string(), hint);
    json!({ "diagnostics": [problem] })
}

/// A problem that stands in no file, for programs.
pub(crate) fn plain_json(severity: &str, code: &str, message: &str, hint: Option<&str>) -> Value {
    json!({
        "severity": severity, "code": code, "message": message, "hint": hint,
        "file": Value::Null, "line": Value::Null, "column": Value::Null,
    })
}
